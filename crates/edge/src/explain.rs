//! A client that asks how an answer came about, instead of for the answer.

use http::{HeaderMap, HeaderName, Uri};

const HEADER: HeaderName = HeaderName::from_static("x-pyrograph-explain");

/// A request extension, present if the client asks: by the header `X-Pyrograph-Explain: true`, or `explain=true` in
/// the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explain;

/// An extension of a service's response: this JSON is answered instead of the message, to Connect clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained(pub String);

impl Explain {
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Option<Self> {
        let by_header = headers.get(HEADER).is_some_and(|value| value.as_bytes() == b"true");
        let by_url = || uri.query().is_some_and(|query| query.split('&').any(|part| part == "explain=true"));
        (by_header || by_url()).then_some(Self)
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
