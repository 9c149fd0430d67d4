//! `multipart/form-data` (RFC 7578) over a body that is complete in memory.
//!
//! Owns: finding the files in it. A part without a file name is no file, and only its name is kept: the SDKs send
//! everything as files, and Pyroscope ignores other parts.

use bytes::Bytes;
use memchr::memmem::Finder;

/// Most parts of one body.
pub const PARTS_MAX: usize = 1000;

/// Longest header section of one part, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// Longest boundary, by RFC 2046.
const BOUNDARY_BYTES_MAX: usize = 70;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("content type {0:?} has no boundary of 1 to {BOUNDARY_BYTES_MAX} characters")]
    Boundary(String),
    #[error("multipart body of {bytes} bytes does not contain its boundary")]
    NoPart { bytes: usize },
    #[error("multipart body has more than {PARTS_MAX} parts")]
    TooManyParts,
    #[error("multipart body: the header of part {part} has no end within {HEADER_BYTES_MAX} bytes")]
    Header { part: usize },
    #[error("multipart body is cut off in part {part}")]
    CutOff { part: usize },
}

/// The files of a body, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    files: Vec<(String, Bytes)>,
    /// Names of the parts that are not files.
    fields: Vec<String>,
}

impl Form {
    /// Reads a body that was sent with this `Content-Type`. Contents share `body`.
    ///
    /// # Errors
    /// If the content type has no boundary, or the body is not divided by it.
    pub fn parse(content_type: &str, body: &Bytes) -> Result<Self, Error> {
        let wrong = || Error::Boundary(content_type.chars().take(200).collect());
        let boundary = parameter(content_type, "boundary").ok_or_else(wrong)?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return Err(wrong());
        }
        parts(body, &boundary)
    }

    /// Names of all files.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// Names of all parts that are not files.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// Content of the first file named `name`; `None` if there is none or it is empty.
    pub fn file(&self, name: &str) -> Option<Bytes> {
        let (_, content) = self.files.iter().find(|(n, _)| n == name)?;
        (!content.is_empty()).then(|| content.clone())
    }
}

fn parts(body: &Bytes, boundary: &str) -> Result<Form, Error> {
    let delimiter = format!("\n--{boundary}");
    let finder = Finder::new(&delimiter);
    let mut form = Form::default();
    // The body may start with the first delimiter, without a line end before it.
    let mut position = match body.starts_with(&delimiter.as_bytes()[1..]) {
        true => delimiter.len() - 1,
        false => match finder.find(body) {
            Some(found) => found + delimiter.len(),
            None => return Err(Error::NoPart { bytes: body.len() }),
        },
    };
    for part in 1..=PARTS_MAX {
        let Some(header_start) = line_end(body, position) else {
            return match body[position..].starts_with(b"--") {
                true => Ok(form),
                false => Err(Error::CutOff { part }),
            };
        };
        let (name, content_start) = header(body, header_start).ok_or(Error::Header { part })?;
        // An empty content may share its line end with the header.
        let mut search_from = content_start - 1;
        let end = loop {
            let found = finder.find(&body[search_from..]).ok_or(Error::CutOff { part })? + search_from;
            position = found + delimiter.len();
            if body[position..].starts_with(b"--") || line_end(body, position).is_some() {
                break found;
            }
            search_from = position;
        };
        let content = body.get(content_start..end).unwrap_or_default();
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        match name {
            Some(PartName::File(name)) => form.files.push((name, body.slice_ref(content))),
            Some(PartName::Field(name)) => form.fields.push(name),
            None => {}
        }
    }
    Err(Error::TooManyParts)
}

/// The start of the next line, if only blanks come before it.
fn line_end(body: &[u8], position: usize) -> Option<usize> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let blanks = body[position..].iter().take(HEADER_BYTES_MAX).take_while(|b| blank(b)).count();
    (body.get(position + blanks) == Some(&b'\n')).then_some(position + blanks + 1)
}

enum PartName {
    File(String),
    Field(String),
}

/// The name of a part, if it has one, and the start of its content.
fn header(body: &[u8], start: usize) -> Option<(Option<PartName>, usize)> {
    let mut name = None;
    let mut position = start;
    loop {
        let rest = &body[position..body.len().min(start + HEADER_BYTES_MAX)];
        let line = &rest[..memchr::memchr(b'\n', rest)?];
        position += line.len() + 1;
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if line.is_empty() {
            return Some((name, position));
        }
        if let Some((key, value)) = line.split_once(':')
            && key.eq_ignore_ascii_case("content-disposition")
        {
            let has = |key| parameter(value, key).is_some_and(|file| !file.is_empty());
            let is_file = has("filename") || has("filename*");
            let part_name = if is_file { PartName::File } else { PartName::Field };
            name = parameter(value, "name").map(part_name);
        }
    }
}

/// The value of `; key=value` or `; key="value"` in a header value.
fn parameter(header: &str, key: &str) -> Option<String> {
    let mut rest = header;
    loop {
        // A quoted value may hold semicolons, so parameters are read one by one.
        rest = rest[rest.find(';')? + 1..].trim_start();
        let name_end = rest.find(['=', ';'])?;
        let (name, after) = rest.split_at(name_end);
        let Some(value) = after.strip_prefix('=') else {
            continue;
        };
        let value = value.trim_start();
        let (text, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (text, after) = value.split_at(value.find(';').unwrap_or(value.len()));
                (text.trim().to_owned(), after)
            }
        };
        if name.trim().eq_ignore_ascii_case(key) {
            return Some(text);
        }
        rest = after;
    }
}

/// The text up to the closing quote, and the rest after it. A backslash escapes only a quote or a backslash: some
/// clients send Windows paths unescaped.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((position, c)) = chars.next() {
        match c {
            '"' => return Some((text, &quoted[position + 1..])),
            '\\' if chars.peek().is_some_and(|(_, next)| matches!(next, '"' | '\\')) => {
                text.extend(chars.next().map(|(_, escaped)| escaped));
            }
            _ => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";

    fn form(body: &'static [u8]) -> Result<Form, Error> {
        Form::parse(TYPE, &Bytes::from_static(body))
    }

    fn file(name: &str, body: &'static [u8]) -> Option<Bytes> {
        form(body).unwrap().file(name)
    }

    #[test]
    fn files_are_found_by_name_and_fields_are_not() {
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"profile\"; filename=\"p.pprof\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n\x1f\x8b\r\nbin\r\n\r\n--xyz\r\n\
            content-disposition: form-data; filename=c; name=sample_type_config\r\n\r\n{}\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"field\"\r\n\r\nplain\r\n--xyz--\r\n";
        assert_eq!(file("profile", body).as_deref(), Some(&b"\x1f\x8b\r\nbin\r\n"[..]));
        assert_eq!(file("sample_type_config", body).as_deref(), Some(&b"{}"[..]));
        assert_eq!(file("field", body), None);
        let form = form(body).unwrap();
        assert_eq!(form.file_names().collect::<Vec<_>>(), ["profile", "sample_type_config"]);
        assert_eq!(form.field_names().collect::<Vec<_>>(), ["field"]);
    }

    #[test]
    fn the_first_file_of_a_name_wins_and_an_empty_one_is_none() {
        let body = b"--xyz\nContent-Disposition: form-data; name=a; filename=f\n\n1\n--xyz\n\
            Content-Disposition: form-data; name=a; filename=f\n\n2\n--xyz\n\
            Content-Disposition: form-data; name=b; filename=f\n\n\n--xyz\n\
            Content-Disposition: form-data; name=c; filename=\"\"\n\nfield\n--xyz--";
        assert_eq!(file("a", body).as_deref(), Some(&b"1"[..]));
        assert_eq!(file("b", body), None);
        assert_eq!(file("c", body), None);
    }

    #[test]
    fn text_similar_to_the_boundary_is_content() {
        let body = b"preamble\r\n--xyz \r\nContent-Disposition: form-data; name=a; filename=f\r\n\r\n\
            1\r\n--xyzz\r\n--xy\r\n\r\n--xyz--";
        assert_eq!(file("a", body).as_deref(), Some(&b"1\r\n--xyzz\r\n--xy\r\n"[..]));
    }

    #[test]
    fn parameters_may_be_quoted_in_any_order_and_case() {
        let check = |header, expected: Option<&str>| {
            assert_eq!(parameter(header, "name").as_deref(), expected, "{header}");
        };
        check("form-data; name=a", Some("a"));
        check("form-data; filename=\"; name=b\"; NAME=\"a\"", Some("a"));
        check("form-data;flag;name = \"a\\\"b\\\\c\\d\"", Some("a\"b\\c\\d"));
        check("form-data; name=", Some(""));
        check("form-data; name=\"open", None);
        check("name=a", None);
    }

    #[test]
    fn damage_is_an_error() {
        assert!(matches!(Form::parse("multipart/form-data", &Bytes::new()), Err(Error::Boundary(_))));
        assert_eq!(form(b""), Err(Error::NoPart { bytes: 0 }));
        assert_eq!(form(b"--xyz"), Err(Error::CutOff { part: 1 }));
        assert_eq!(form(b"--xyz\r\nA: b\r\n"), Err(Error::Header { part: 1 }));
        assert_eq!(form(b"--xyz\r\n\r\nbody"), Err(Error::CutOff { part: 1 }));
        assert_eq!(form(b"--xyz\r\n\r\nbody\r\n--xyz\r\n"), Err(Error::Header { part: 2 }));
        assert_eq!(form(b"--xyz--"), Ok(Form::default()));
        let many = ["--xyz\r\n\r\n".repeat(PARTS_MAX + 1), "--xyz--".to_owned()].concat();
        assert_eq!(Form::parse(TYPE, &many.into()), Err(Error::TooManyParts));
    }
}
