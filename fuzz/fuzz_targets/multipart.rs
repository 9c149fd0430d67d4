//! Each file found in a body is a part of it; written into a new form, it is found again.
#![no_main]

use bytes::Bytes;
use formats::multipart::Form;
use libfuzzer_sys::fuzz_target;

const TYPE: &str = "multipart/form-data; boundary=xyz";

fuzz_target!(|data: &[u8]| {
    // The content type up to the first zero byte, if there is one; then the body.
    let (content_type, body) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (String::from_utf8_lossy(&data[..end]), &data[end + 1..]),
        None => (TYPE.into(), data),
    };
    let body = Bytes::copy_from_slice(body);
    if let Ok(form) = Form::parse(&content_type, &body) {
        let _ = form.file("profile");
    }
    let has_boundary = body.starts_with(b"--xyz") || body.windows(6).any(|window| window == b"\n--xyz");
    if !body.is_empty() && !has_boundary {
        let header = b"--xyz\r\nContent-Disposition: form-data; name=\"profile\"; filename=\"p\"\r\n\r\n";
        let whole = [&header[..], &body, b"\r\n--xyz--\r\n"].concat();
        let form = Form::parse(TYPE, &whole.into()).expect("a form as clients write it");
        assert_eq!(form.file("profile"), Some(body));
    }
});
