//! gRPC and gRPC-web: messages in envelopes, the status in trailers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use clock::Pool;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use tonic::{Code, Status};

use super::content::{Content, Gzip, Protocol};
use super::envelope::{self, Frames};
use super::{Reply, metadata};
use crate::error::Error;

/// Minimum size of a compressed message.
const GZIP_BYTES_MIN: usize = 1400;

/// The message of a unary request, and whether it is compressed.
pub(crate) fn message(body: Bytes, encoding: Option<Gzip>) -> Result<(Bytes, bool), Error> {
    if body.is_empty() {
        return Err(Error::new(Code::Unimplemented, "unary request has zero messages"));
    }
    let bytes = body.len();
    let Some((flag, message, rest)) = envelope::open(body) else {
        let text = format!("protocol error: the envelope is cut off after {bytes} bytes");
        return Err(Error::new(Code::InvalidArgument, text));
    };
    if !rest.is_empty() {
        return Err(Error::new(Code::Unimplemented, "unary request has multiple messages"));
    }
    match (flag, encoding) {
        (0, _) => Ok((message, false)),
        (envelope::COMPRESSED, Some(Gzip)) => Ok((message, true)),
        (envelope::COMPRESSED, None) => {
            let text = "protocol error: a compressed message without grpc-encoding";
            Err(Error::new(Code::Internal, text))
        }
        _ => {
            let text = format!("protocol error: invalid envelope flags {flag:#04x}");
            Err(Error::new(Code::InvalidArgument, text))
        }
    }
}

pub(crate) async fn response(
    pool: &Pool,
    content: &Content,
    version: Version,
    outcome: Result<Reply, Error>,
    gzip: bool,
) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content.content_type));
    let accepted = HeaderName::from_static("grpc-accept-encoding");
    headers.insert(accepted, HeaderValue::from_static("gzip"));
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => {
            // Without a message, the trailers are sent as headers.
            response.extensions_mut().insert(error.clone());
            write_status(error.into(), response.headers_mut());
            return response;
        }
    };
    for (name, value) in metadata(&reply.headers) {
        headers.append(name, value.clone());
    }
    let mut sealed = reply.envelope;
    // Without memory for a compressed copy, the message is sent uncompressed.
    if gzip && sealed.len() >= GZIP_BYTES_MIN && reply.memory.grow(sealed.len() as u64).is_ok() {
        let plain = sealed.slice(envelope::HEADER_BYTES..);
        sealed = envelope::seal(envelope::COMPRESSED, &crate::gzip::compress(pool, plain).await);
        let encoding = HeaderName::from_static("grpc-encoding");
        headers.insert(encoding, HeaderValue::from_static("gzip"));
    }
    let mut trailers = reply.trailers;
    if let Some(explained) = reply.explained {
        explained.put_into(&mut trailers);
    }
    let frames = match content.protocol {
        Protocol::GrpcWeb => Frames::data([sealed, web_trailers(&trailers)]),
        _ => {
            if version < Version::HTTP_2 {
                // HTTP/1.1 omits trailers that were not announced.
                headers.extend(announcement(&trailers).map(|names| (header::TRAILER, names)));
            }
            Frames::data([sealed]).with_trailers(trailers)
        }
    };
    *response.body_mut() = Body::new(frames);
    response
}

fn announcement(trailers: &HeaderMap) -> Option<HeaderValue> {
    let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).ok()
}

fn write_status(status: Status, headers: &mut HeaderMap) {
    if status.add_header(headers).is_err() {
        // Details or metadata are not valid header values; the code alone always is.
        headers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
}

/// The trailers of gRPC-web: the last envelope of the body, in the form of HTTP/1.1 headers.
fn web_trailers(trailers: &HeaderMap) -> Bytes {
    let mut text = Vec::new();
    for (name, value) in trailers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    envelope::seal(envelope::TRAILERS, &text)
}
