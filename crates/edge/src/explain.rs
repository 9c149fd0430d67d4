//! Explanations of answers, for clients that ask for them.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

const HEADER: HeaderName = HeaderName::from_static("x-pyrograph-explain");

/// Header or trailer with the explanation of an answer that is not JSON.
const ANSWER_HEADER: HeaderName = HeaderName::from_static("x-pyrograph-explained");

/// A request extension, present if the client asks for an explanation: by the header `X-Pyrograph-Explain: true`, or by
/// `explain=true` in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explain;

/// The explanation, an extension of a service's response. Sent as the field `explained` of an answer in Connect's
/// JSON, and as the trailer `x-pyrograph-explained` of any other answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The explanation as a JSON object.
    pub json: String,
    /// The JSON for a trailer or header, of at most [`Self::BRIEF_BYTES_MAX`] bytes.
    pub brief: String,
}

impl Explain {
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Option<Self> {
        let by_header = headers.get(HEADER).is_some_and(|value| value.as_bytes() == b"true");
        let by_url = || uri.query().is_some_and(|query| query.split('&').any(|part| part == "explain=true"));
        (by_header || by_url()).then_some(Self)
    }
}

impl Explanation {
    /// Some gRPC clients refuse 8 KiB of trailers.
    pub const BRIEF_BYTES_MAX: usize = 6 << 10;

    /// The JSON object `answer` with the explanation as one more field.
    pub fn join_to(&self, answer: &[u8]) -> Bytes {
        let fields = answer.strip_suffix(b"}").unwrap_or(answer);
        let comma: &[u8] = if fields.ends_with(b"{") { b"" } else { b"," };
        [fields, comma, br#""explained":"#, self.json.as_bytes(), b"}"].concat().into()
    }

    /// Adds the brief explanation to the headers or trailers of an answer.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let mut ascii = String::with_capacity(self.brief.len());
        for c in self.brief.chars() {
            match c.is_ascii() {
                true => ascii.push(c),
                false => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii += &format!("\\u{unit:04x}"))
                }
            }
        }
        headers.extend(HeaderValue::try_from(ascii).ok().map(|value| (ANSWER_HEADER, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_one_more_field() {
        let explained = Explanation { json: r#"{"a":1}"#.to_owned(), brief: String::new() };
        assert_eq!(explained.join_to(b"{}"), r#"{"explained":{"a":1}}"#);
        assert_eq!(explained.join_to(br#"{"b":{}}"#), r#"{"b":{},"explained":{"a":1}}"#);
    }

    #[test]
    fn a_client_asks_by_url_or_header() {
        let check = |header: Option<&'static str>, uri: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.extend(header.map(|value| (HEADER, value.parse().unwrap())));
            assert_eq!(Explain::of(&headers, &uri.parse().unwrap()).is_some(), expected, "{header:?} {uri}");
        };
        check(None, "/a", false);
        check(Some("true"), "/a", true);
        check(Some("false"), "/a?b=1", false);
        check(None, "/a?b=1&explain=true", true);
        check(None, "/a?query=explain%3Dtrue", false);
    }
}
