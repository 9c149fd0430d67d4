//! Refusals, and their form in a response.
//!
//! Every body is `{"code":"…","message":"…"}`, so a client needs one parser. A plain route chooses the HTTP status,
//! and the code follows from it; a service chooses the code, and the status follows from that.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use prost::Message;
use serde::Serialize;
use tonic::{Code, Status};

/// A refusal. Converts into `tonic::Status` for services, and into a response for plain routes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: Code,
    message: String,
    /// Set by a plain route; otherwise the code decides.
    status: Option<StatusCode>,
    /// An encoded `google.rpc.Status`, or empty.
    details: Bytes,
}

impl Error {
    /// A refusal whose HTTP status follows from `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), status: None, details: Bytes::new() }
    }

    /// A refusal of a plain route with `status`; the code follows from it.
    pub fn rest(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code: code_of_status(status),
            message: message.into(),
            status: Some(status),
            details: Bytes::new(),
        }
    }

    /// The answer to a panic, on every route.
    pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic");
        Self::rest(StatusCode::INTERNAL_SERVER_ERROR, format!("error while processing request: {text}"))
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The HTTP status for Connect and plain routes.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| status_of_code(self.code))
    }

    fn body(&self) -> Vec<u8> {
        let details = google_rpc_details(&self.details);
        let body = Body { code: name(self.code), message: &self.message, details };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            status: None,
            details: Bytes::copy_from_slice(status.details()),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::with_details(error.code, error.message, error.details)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut body = self.body();
        let mut response = Response::new(axum::body::Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status.is_some() {
            body.push(b'\n');
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        *response.body_mut() = body.into();
        response
    }
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

#[derive(Serialize)]
struct Detail {
    #[serde(rename = "type")]
    type_name: String,
    value: String,
}

/// The part of `google.rpc.Status` that Connect sends.
#[derive(Clone, PartialEq, Message)]
struct GoogleRpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

fn google_rpc_details(encoded: &[u8]) -> Vec<Detail> {
    if encoded.is_empty() {
        return Vec::new();
    }
    let status = GoogleRpcStatus::decode(encoded).unwrap_or_default();
    let detail = |any: prost_types::Any| Detail {
        type_name: any.type_url.rsplit('/').next().unwrap_or_default().to_owned(),
        value: base64::engine::general_purpose::STANDARD_NO_PAD.encode(any.value),
    };
    status.details.into_iter().map(detail).collect()
}

/// The name of a code in error bodies.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The HTTP status of a code in Connect.
pub fn status_of_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => client_closed_request(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The code that plain routes send with a status.
pub fn code_of_status(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 413 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        412 => Code::FailedPrecondition,
        429 | 431 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        502 | 503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Unknown,
    }
}

/// 499, which is in no standard: the client went away.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_body(error: Error, status: u16, body: &str) {
        assert_eq!(error.status().as_u16(), status);
        assert_eq!(String::from_utf8(error.body()).unwrap(), body);
    }

    #[test]
    fn the_status_follows_from_the_code() {
        check_body(Error::new(Code::Cancelled, "größer"), 499, r#"{"code":"canceled","message":"größer"}"#);
        check_body(Error::new(Code::Internal, ""), 500, r#"{"code":"internal"}"#);
    }

    #[test]
    fn the_code_follows_from_the_status_on_plain_routes() {
        check_body(
            Error::rest(StatusCode::UNPROCESSABLE_ENTITY, "bad \"gzip\""),
            422,
            r#"{"code":"unknown","message":"bad \"gzip\""}"#,
        );
        check_body(
            Error::rest(StatusCode::PAYLOAD_TOO_LARGE, "x"),
            413,
            r#"{"code":"invalid_argument","message":"x"}"#,
        );
    }

    #[test]
    fn details_keep_their_type_and_bytes() {
        let any = prost_types::Any { type_url: "type.googleapis.com/a.B".into(), value: vec![1] };
        let details = GoogleRpcStatus { details: vec![any] }.encode_to_vec();
        let status = Status::with_details(Code::Aborted, "m", details.into());
        check_body(
            status.into(),
            409,
            r#"{"code":"aborted","message":"m","details":[{"type":"a.B","value":"AQ"}]}"#,
        );
    }
}
