//! `POST /ingest`, for SDKs and curl: one document per request.
//!
//! The parameters are in the URL, and the body is a pprof or a JFR recording, a form around one, or stacks of names.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clock::Clock;
use edge::rest::Query;
use edge::{Effect, Error, Tenants};
use formats::compression::Encoding;
use formats::ingest::{self, AppName, Format};
use http::{HeaderValue, StatusCode, header};
use model::TenantId;
use rpc::ErrorKind;

use crate::Distributor;
use crate::document::{Document, IngestDocument};
use crate::error::{self, Errors};
use crate::http::{receipt_headers, retry_after_secs};
use crate::receipt::Receipt;

pub(crate) fn routes(distributor: Arc<Distributor>) -> edge::Routes {
    edge::Routes::new().post("/ingest", Effect::Change, &distributor, ingest).post(
        "/pyroscope/ingest",
        Effect::Change,
        &distributor,
        ingest,
    )
}

/// Answers 200 with an empty body once the profile is durable, or if it was empty; headers hold the numbers of
/// stored and discarded samples. Some clients accept no other status of success.
async fn ingest(
    State(distributor): State<Arc<Distributor>>,
    query: Query,
    request: Request,
) -> Result<Response, Response> {
    let name = query.get("name").unwrap_or_default();
    let app = AppName::parse(name)
        .map_err(|error| Error::rest(StatusCode::BAD_REQUEST, error.to_string()).into_response())?;
    let tenant = tenant(&request).map_err(IntoResponse::into_response)?;
    let content_type = text_of(request.headers().get(header::CONTENT_TYPE));
    let encodings = encodings(&request).map_err(IntoResponse::into_response)?;
    let limit = distributor.limits.of(&tenant).ingestion_body_bytes();
    let body = edge::body::read(request, limit).await.map_err(IntoResponse::into_response)?;
    if body.bytes.is_empty() {
        return Ok(accepted(&Receipt::default()));
    }
    let format = Format::of(query.get("format").unwrap_or_default(), &content_type);
    let format = format.map_err(|error| {
        Error::rest(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()).into_response()
    })?;
    let ingested = IngestDocument {
        content_type,
        encodings,
        body: body.bytes.clone(),
        ..ingested(app, format, &query, &distributor.clock)
    };
    let documents = vec![Document::Ingest(Box::new(ingested))];
    let outcome = distributor.push(tenant, documents).await;
    outcome.map(|receipt| accepted(&receipt)).map_err(|errors| response(&errors, format))
}

fn accepted(receipt: &Receipt) -> Response {
    let mut response = StatusCode::OK.into_response();
    for (name, value) in receipt_headers(receipt) {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// # Errors
/// 415 if an encoding is unknown.
fn encodings(request: &Request) -> Result<Vec<Encoding>, Error> {
    let headers = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let names: Vec<String> = headers.map(|value| text_of(Some(value))).collect();
    Encoding::parse_header(&names.join(","))
        .map_err(|error| Error::rest(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))
}

/// # Errors
/// 401 without a tenant; 422 if the tenant is invalid, or if there are several.
fn tenant(request: &Request) -> Result<TenantId, Error> {
    let tenants = Tenants::of(request.extensions());
    let named = request.headers().get("x-scope-orgid").is_some_and(|value| !value.is_empty());
    let status = match named {
        true => StatusCode::UNPROCESSABLE_ENTITY,
        false => StatusCode::UNAUTHORIZED,
    };
    tenants.and_then(|tenants| tenants.one().cloned()).map_err(|error| Error::rest(status, error.message()))
}

fn text_of(header: Option<&HeaderValue>) -> String {
    header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// The document of a request from its parameters, without the body.
fn ingested(app: AppName, format: Format, query: &Query, clock: &Clock) -> IngestDocument {
    let now = clock.unix_nanos();
    let spy_name = query.get("spyName").filter(|name| !name.is_empty());
    let text = query.get("from").unwrap_or_default();
    let from = ingest::attime(text, now);
    // A relative time changes with the clock, a fixed one does not.
    let from_is_fixed = from > 0 && from == ingest::attime(text, 0);
    let until = ingest::attime(query.get("until").unwrap_or_default(), now);
    IngestDocument {
        app,
        from,
        until,
        from_is_fixed,
        spy_name: spy_name.unwrap_or("unknown").to_owned(),
        sample_rate: ingest::sample_rate(query.get("sampleRate").unwrap_or_default()),
        format,
        parameters: query.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        content_type: String::new(),
        encodings: Vec::new(),
        body: Bytes::new(),
    }
}

/// A malformed document is a 422, but stacks that were parsed and then refused are a 400: clients know both. Errors
/// that may pass have other codes, so that clients retry.
fn response(errors: &Errors, format: Format) -> Response {
    let is_stacks = !matches!(format, Format::Pprof | Format::Multipart | Format::Jfr);
    let understood = !matches!(
        errors.first(),
        Some(
            error::Error::Text { .. }
                | error::Error::Pprof { .. }
                | error::Error::Recording { .. }
                | error::Error::Tree(_)
                | error::Error::LostLineEnds { .. }
                | error::Error::Decompress(_)
        )
    );
    let status = match errors.kind() {
        ErrorKind::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::InvalidArgument if is_stacks && understood => StatusCode::BAD_REQUEST,
        ErrorKind::InvalidArgument => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = Error::rest(status, errors.to_string()).into_response();
    if let ErrorKind::Exhausted { retry_after } = errors.kind() {
        let wait = HeaderValue::from(retry_after_secs(retry_after));
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}
