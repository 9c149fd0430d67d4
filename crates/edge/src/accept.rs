//! Capabilities of a client: parameters of media types, and encodings.

use http::{HeaderMap, HeaderValue, header};

/// Optional capabilities of the client; a request extension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Label names may be any UTF-8, not only the characters that Prometheus used to allow.
    pub utf8_label_names: bool,
}

impl Capabilities {
    /// Reads every element of every `Accept` header.
    ///
    /// # Errors
    /// Describes the fault of the first malformed element.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, String> {
        let mut capabilities = Self::default();
        for value in headers.get_all(header::ACCEPT) {
            if value == "*/*" {
                continue;
            }
            let value = String::from_utf8_lossy(value.as_bytes());
            for element in value.split(',').filter(|element| !element.trim().is_empty()) {
                let media = MediaType::parse(element)?;
                if media.parameter("allow-utf8-labelnames") == Some("true") {
                    capabilities.utf8_label_names = true;
                }
            }
        }
        Ok(capabilities)
    }
}

/// `type/subtype; name=value; …`; names are in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MediaType {
    pub(crate) essence: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (essence, mut rest) = match text.find(';') {
            Some(semicolon) => text.split_at(semicolon),
            None => (text, ""),
        };
        let essence = essence.trim().to_ascii_lowercase();
        check_essence(&essence)?;
        let mut parameters: Vec<(String, String)> = Vec::new();
        loop {
            rest = rest.trim_start();
            let Some(after) = rest.strip_prefix(';') else {
                break;
            };
            let after = after.trim_start();
            if after.is_empty() {
                rest = after;
                break;
            }
            let ((name, value), after) = parameter(after)
                .ok_or_else(|| format!("media type {essence:?} has a parameter that is not name=value"))?;
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(format!("media type {essence:?} has the parameter {name:?} twice"));
            }
            parameters.push((name, value));
            rest = after;
        }
        match rest.is_empty() {
            true => Ok(Self { essence, parameters }),
            false => Err(format!("media type {essence:?} ends with {rest:?}")),
        }
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

fn check_essence(essence: &str) -> Result<(), String> {
    let valid = match essence.split_once('/') {
        Some((kind, subtype)) => is_token(kind) && is_token(subtype),
        None => is_token(essence),
    };
    match valid {
        true => Ok(()),
        false => Err(format!("{essence:?} is no media type")),
    }
}

/// Reads one `name=value`, with a token or quoted value; returns also the rest of the text.
fn parameter(text: &str) -> Option<((String, String), &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim();
    if !is_token(name) {
        return None;
    }
    let rest = rest.trim_start();
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = rest.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(rest.len());
            (rest.get(..end)?.to_owned(), rest.get(end..)?)
        }
    };
    if value.is_empty() && !rest.is_empty() {
        return None;
    }
    Some(((name.to_ascii_lowercase(), value), rest))
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(index + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// Whether one of the named headers lists gzip with a weight above zero.
pub(crate) fn accepts_gzip(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok()).any(|value| {
        value.split(',').any(|element| {
            let mut parts = element.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let refused = parts
                .filter_map(|part| part.strip_prefix("q="))
                .any(|weight| weight.parse::<f32>() == Ok(0.0));
            (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, utf8: Option<bool>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        let found = Capabilities::parse(&headers).map(|c| c.utf8_label_names);
        assert_eq!(found.as_ref().ok(), utf8.as_ref(), "{accept}: {found:?}");
    }

    #[test]
    fn any_element_may_request_utf8_label_names() {
        check("*/*", Some(false));
        check("*/*; allow-utf8-labelnames=true", Some(true));
        check("text/html, */*;Allow-UTF8-Labelnames=\"true\"", Some(true));
        check("*/*;allow-utf8-labelnames=false;q=0.5", Some(false));
        check("application/json;", Some(false));
    }

    #[test]
    fn a_malformed_media_type_is_an_error() {
        check("not a media type;;", None);
        check("a/b;c", None);
        check("a/b;c=\"d", None);
        check("a/b;q=1;q=2", None);
        check("/", None);
    }

    #[test]
    fn gzip_is_accepted_unless_its_weight_is_zero() {
        let check = |value: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&headers, "accept-encoding"), expected, "{value}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("identity", false);
    }
}
