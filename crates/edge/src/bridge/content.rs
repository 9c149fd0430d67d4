//! The protocol and format of a request, and the headers of that protocol.

use std::time::Duration;

use http::{HeaderMap, header};
use tonic::Code;

use crate::accept::{self, MediaType};
use crate::deadline;
use crate::error::Error;

/// Content types that a 415 lists.
pub(crate) const ACCEPT_POST: &str = "application/grpc, application/grpc+json, \
    application/grpc+json; charset=utf-8, application/grpc+proto, application/grpc-web, \
    application/grpc-web+json, application/grpc-web+json; charset=utf-8, \
    application/grpc-web+proto, application/json, application/json; charset=utf-8, \
    application/proto";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Connect,
    Grpc,
    GrpcWeb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Protobuf,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) protocol: Protocol,
    pub(crate) format: Format,
    /// Content type of the answer: the one of the request.
    pub(crate) content_type: &'static str,
}

/// The only supported compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gzip;

impl Content {
    /// `None` if no protocol uses the request's content type.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        if let Some(content) = known(text) {
            return Some(content);
        }
        let media = MediaType::parse(text).ok()?;
        // Other parameters are ignored; some clients send parameters here that belong into `Accept`.
        match media.parameter("charset") {
            None => known(&media.essence),
            Some(charset) if charset.eq_ignore_ascii_case("utf-8") => {
                known(&format!("{}; charset=utf-8", media.essence))
            }
            Some(_) => None,
        }
    }

    /// The timeout that the client sets.
    ///
    /// # Errors
    /// `InvalidArgument` if the header is malformed, or the client uses another version of Connect.
    pub(crate) fn timeout(&self, headers: &HeaderMap) -> Result<Option<Duration>, Error> {
        let invalid = |text: String| Error::new(Code::InvalidArgument, text);
        if self.protocol != Protocol::Connect {
            return deadline::grpc_timeout(headers).map_err(invalid);
        }
        if let Some(version) = headers.get("connect-protocol-version").filter(|v| *v != "1") {
            let text = format!("Connect-Protocol-Version must be \"1\": got {version:?}");
            return Err(invalid(text));
        }
        deadline::connect_timeout(headers).map_err(invalid)
    }

    /// The compression of the request's message.
    ///
    /// # Errors
    /// `Unimplemented` for anything but gzip.
    pub(crate) fn encoding(&self, headers: &HeaderMap) -> Result<Option<Gzip>, Error> {
        let name = match self.protocol {
            Protocol::Connect => "content-encoding",
            Protocol::Grpc | Protocol::GrpcWeb => "grpc-encoding",
        };
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        match value.as_bytes() {
            b"" | b"identity" => Ok(None),
            b"gzip" => Ok(Some(Gzip)),
            _ => {
                let text = format!("unknown compression {value:?}: supported encodings are gzip");
                Err(Error::new(Code::Unimplemented, text))
            }
        }
    }

    pub(crate) fn accepts_gzip(&self, headers: &HeaderMap) -> bool {
        match self.protocol {
            Protocol::Connect => accept::accepts_gzip(headers, "accept-encoding"),
            Protocol::Grpc | Protocol::GrpcWeb => accept::accepts_gzip(headers, "grpc-accept-encoding"),
        }
    }
}

fn known(content_type: &str) -> Option<Content> {
    use Format::{Json, Protobuf};
    use Protocol::{Connect, Grpc, GrpcWeb};
    let (protocol, format, content_type) = match content_type {
        "application/proto" => (Connect, Protobuf, "application/proto"),
        "application/json" => (Connect, Json, "application/json"),
        "application/json; charset=utf-8" => (Connect, Json, "application/json; charset=utf-8"),
        "application/grpc" => (Grpc, Protobuf, "application/grpc"),
        "application/grpc+proto" => (Grpc, Protobuf, "application/grpc+proto"),
        "application/grpc+json" | "application/grpc+json; charset=utf-8" => {
            (Grpc, Json, "application/grpc+json")
        }
        "application/grpc-web" => (GrpcWeb, Protobuf, "application/grpc-web"),
        "application/grpc-web+proto" => (GrpcWeb, Protobuf, "application/grpc-web+proto"),
        "application/grpc-web+json" | "application/grpc-web+json; charset=utf-8" => {
            (GrpcWeb, Json, "application/grpc-web+json")
        }
        _ => return None,
    };
    Some(Content { protocol, format, content_type })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        let found = Content::of(&headers).map(|content| content.content_type);
        assert_eq!(found, expected, "{content_type}");
    }

    #[test]
    fn every_content_type_of_the_three_protocols_is_known() {
        for content_type in ACCEPT_POST.split(", ") {
            let answer = content_type.strip_suffix("; charset=utf-8");
            let answer = answer.filter(|plain| plain.contains("grpc")).unwrap_or(content_type);
            check(content_type, Some(answer));
        }
        check("Application/JSON;charset=UTF-8", Some("application/json; charset=utf-8"));
        check("application/json; allow-utf8-labelnames=true", Some("application/json"));
    }

    #[test]
    fn other_content_types_are_refused() {
        check("application/json; charset=latin1", None);
        check("application/grpc-web-text", None);
        check("application/x-protobuf", None);
        check("text/plain", None);
        check("", None);
    }
}
