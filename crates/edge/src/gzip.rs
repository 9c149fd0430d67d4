//! Compresses answers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use clock::Pool;
use http::{HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;

/// Minimum size of a compressed answer of a plain route: smaller ones fit one packet anyway.
const BODY_BYTES_MIN: u64 = 1400;

/// Maximum size that is decompressed inline. Smaller than [`INLINE_BYTES_MAX`], because gzip may expand a thousandfold.
pub(crate) const INFLATE_INLINE_BYTES_MAX: usize = 4 << 10;

/// Maximum size that is processed inline; larger work runs on a pool, not on the threads that serve connections.
pub(crate) const INLINE_BYTES_MAX: usize = 16 << 10;

/// Fastest level: the network between a server and its clients is rarely the bottleneck.
const LEVEL: i32 = 1;

pub(crate) async fn compress(pool: &Pool, plain: Bytes) -> Bytes {
    let large = plain.len() > INLINE_BYTES_MAX;
    let work = move || Bytes::from(formats::gzip::compress(&plain, LEVEL));
    match large {
        true => pool.run(work).await,
        false => work(),
    }
}

/// Compresses the response unless it is small, a stream, or compressed already.
pub(crate) async fn response(pool: &Pool, response: Response) -> Response {
    let encoded = response.headers().contains_key(header::CONTENT_ENCODING);
    let size = response.body().size_hint().exact().unwrap_or(0);
    if encoded || size < BODY_BYTES_MIN || !is_compressible(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        // A body of known size is in memory and cannot fail.
        return Response::from_parts(parts, Body::empty());
    };
    let compressed = compress(pool, body.to_bytes()).await;
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from(compressed))
}

fn is_compressible(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    !["image/png", "image/webp", "font/woff", "application/gzip"]
        .iter()
        .any(|packed| content_type.starts_with(packed))
}
