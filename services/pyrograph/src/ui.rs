//! The web UI, built into the binary.

use axum::body::Body;
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "../../ui/dist"]
#[allow_missing = true]
struct Files;

const ABSENT: &str =
    "The UI was not built into this binary: run `make ui`, then build again. The API works without it.\n";

/// Scripts, styles and connections of this server only.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; worker-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The pages, which are one document that reads its URL, and their assets.
pub(crate) fn routes() -> edge::Routes {
    let mut routes =
        edge::Routes::new()
            .get("/ui", &(), || async { Redirect::to("/") })
            .get("/ui/", &(), || async { Redirect::to("/") })
            .get("/favicon.ico", &(), || async { asset("assets/pyrograph.svg", false) })
            .get("/assets/{*path}", &(), |uri: Uri| async move {
                asset(uri.path().trim_start_matches('/'), true)
            });
    for page in ["/", "/explore", "/comparison", "/comparison-diff"] {
        routes = routes.get(page, &(), || async { asset("index.html", false) });
    }
    routes
}

/// `is_named_by_content`: the name changes with the bytes, so a browser may cache it without a limit.
fn asset(path: &str, is_named_by_content: bool) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(path) else {
        return (StatusCode::NOT_FOUND, ABSENT).into_response();
    };
    let mut response = Response::new(Body::from(data.into_owned()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let caching = if is_named_by_content { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    let digest: String = metadata.sha256_hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" | "map" => "application/json",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}
