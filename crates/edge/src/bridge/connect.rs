//! Answers in Connect: the body is the message alone, and errors are JSON.

use axum::response::{IntoResponse, Response};
use clock::Pool;
use http::{HeaderName, HeaderValue, header};

use super::content::{Content, Format};
use super::{Reply, envelope, metadata};
use crate::error::Error;

/// Minimum size of a compressed message; gzip makes smaller ones longer.
const GZIP_BYTES_MIN: usize = 64;

pub(crate) async fn response(
    pool: &Pool,
    content: &Content,
    outcome: Result<Reply, Error>,
    gzip: bool,
) -> Response {
    let mut reply = match outcome {
        Ok(reply) => reply,
        Err(error) => return error.into_response(),
    };
    let mut message = reply.envelope.slice(envelope::HEADER_BYTES..);
    match (reply.explained, content.format) {
        (Some(explained), Format::Json) => message = explained.join_to(&message),
        (Some(explained), Format::Protobuf) => explained.put_into(&mut reply.trailers),
        (None, _) => {}
    }
    let mut response = Response::new(axum::body::Body::empty());
    let headers = response.headers_mut();
    for (name, value) in metadata(&reply.headers) {
        headers.append(name, value.clone());
    }
    for (name, value) in metadata(&reply.trailers) {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content.content_type));
    // Without memory for a compressed copy, the message is sent uncompressed.
    if gzip && message.len() >= GZIP_BYTES_MIN && reply.memory.grow(message.len() as u64).is_ok() {
        message = crate::gzip::compress(pool, message).await;
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    *response.body_mut() = message.into();
    response
}
