//! Output stays within the limit, and equals the output of another implementation.
#![no_main]

use std::io::Read;

use formats::gzip;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    if let Ok(plain) = gzip::decompress(data, LIMIT) {
        assert!(plain.len() <= LIMIT);
    }
    let zipped = gzip::compress(data, 1);
    assert_eq!(gzip::decompress(&zipped, data.len()).as_deref(), Ok(data));
    let mut reference = Vec::new();
    flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut reference).expect("own gzip");
    assert_eq!(reference, data);
});
