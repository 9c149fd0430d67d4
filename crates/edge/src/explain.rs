//! A client that asks how an answer came about, instead of for the answer.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

const HEADER: HeaderName = HeaderName::from_static("x-pyrograph-explain");

/// Of gRPC, beside the message.
const TRAILER: HeaderName = HeaderName::from_static("x-pyrograph-explained");

/// A request extension, present if the client asks: by the header `X-Pyrograph-Explain: true`, or `explain=true` in
/// the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explain;

/// An extension of a service's response: Connect clients are answered JSON instead of the message, clients of gRPC and
/// gRPC-web get it in the trailer `x-pyrograph-explained`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    pub json: String,
    /// For the trailer: JSON of at most [`Self::BRIEF_BYTES_MAX`].
    pub brief: String,
}

impl Explain {
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Option<Self> {
        let by_header = headers.get(HEADER).is_some_and(|value| value.as_bytes() == b"true");
        let by_url = || uri.query().is_some_and(|query| query.split('&').any(|part| part == "explain=true"));
        (by_header || by_url()).then_some(Self)
    }
}

impl Explained {
    /// Clients of gRPC refuse 8 KiB of trailers, some of them.
    pub const BRIEF_BYTES_MAX: usize = 6 << 10;

    pub(crate) fn put_into(&self, trailers: &mut HeaderMap) {
        let mut ascii = String::with_capacity(self.brief.len());
        for c in self.brief.chars() {
            match c.is_ascii() {
                true => ascii.push(c),
                false => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii += &format!("\\u{unit:04x}"))
                }
            }
        }
        trailers.extend(HeaderValue::try_from(ascii).ok().map(|value| (TRAILER, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_asks_in_the_url_or_in_a_header() {
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
