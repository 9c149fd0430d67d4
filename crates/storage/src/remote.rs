//! The HTTP client under `object_store`, which keeps the details of unsuccessful responses.
//!
//! Owns: code, message, `retry-after` and the date of such a response.
//! Does not own: their meaning (`problem`), retries (`store::retry`).
//!
//! `object_store` reduces such a response to text. Here it becomes a [`Refusal`] in the chain of causes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use clock::Clock;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, Result};

use crate::Metrics;

/// A longer message is cut: it goes into logs.
const MESSAGE_BYTES_MAX: usize = 500;

/// The parts of an unsuccessful response that operators and retries need.
#[derive(Debug, thiserror::Error)]
#[error("{host} answered {status}{}{code}{}{message}", gap(.code, " "), gap(.message, ": "))]
pub(crate) struct Refusal {
    pub(crate) host: String,
    pub(crate) status: u16,
    /// The store's error code, such as `SlowDown`; empty if it has none.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// How far this machine's clock is ahead of the store's, in milliseconds, if the response has a date.
    pub(crate) ahead_millis: Option<i64>,
}

/// A request without a response.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {host}")]
pub(crate) struct NoResponse {
    pub(crate) host: String,
    #[source]
    source: HttpError,
}

fn gap(text: &str, separator: &'static str) -> &'static str {
    if text.is_empty() { "" } else { separator }
}

/// Makes the clients of one store.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

struct Client {
    inner: HttpClient,
    clock: Clock,
    metrics: Metrics,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { inner, clock: self.clock.clone(), metrics: self.metrics.clone() }))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let host = request.uri().authority().map_or("", |authority| authority.as_str());
        let host = host.rsplit('@').next().unwrap_or_default().to_owned();
        let response = match self.inner.execute(request).await {
            Ok(response) => response,
            Err(source) => return Err(HttpError::new(source.kind(), NoResponse { host, source })),
        };
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let ahead_millis = header("date").and_then(|date| ahead_millis(date, self.clock.unix_millis()));
        if let Some(ahead) = ahead_millis {
            self.metrics.clock_ahead(ahead);
        }
        let status = response.status();
        if status.is_success() || status.as_u16() == 304 {
            return Ok(response);
        }
        let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let region = header("x-amz-bucket-region").map(str::to_owned);
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        let code = element(&text, "Code").unwrap_or_default();
        if has_typed_error(status.as_u16(), &code) {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        let mut message = element(&text, "Message").unwrap_or_else(|| text.trim().to_owned());
        if let (301, Some(region)) = (status.as_u16(), region) {
            message = format!("the bucket is in region {region}");
        }
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let status = status.as_u16();
        let refusal = Refusal { host, status, code, message, retry_after, ahead_millis };
        Err(HttpError::new(HttpErrorKind::Request, refusal))
    }
}

/// Codes of a 404 response that mean an absent object. The empty one: a response to HEAD has no body, and Google's is
/// plain text.
const ABSENT: &[&str] = &["", "NoSuchKey", "BlobNotFound"];

/// Whether `object_store` has a typed error for the response: absent, exists, condition not met.
fn has_typed_error(status: u16, code: &str) -> bool {
    match status {
        404 => ABSENT.contains(&code),
        409 | 412 => true,
        _ => false,
    }
}

/// The text of the first element of that name, trimmed. Responses are a few lines from S3, GCS, Azure or STS.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    Some(decode_entities(after.split_once("</")?.0.trim()))
}

/// Decodes the five entities of XML.
fn decode_entities(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    // The ampersand comes last, so that an escaped entity stays one.
    entities.iter().fold(text.to_owned(), |text, (entity, char)| text.replace(entity, char))
}

/// How far a clock is ahead of `date`, which has whole seconds.
fn ahead_millis(date: &str, unix_millis: i64) -> Option<i64> {
    let date: SystemTime = httpdate::parse_http_date(date).ok()?;
    let theirs = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(unix_millis - theirs)
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_message_of_a_response_are_read() {
        let xml =
            "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>";
        assert_eq!(element(xml, "Code").as_deref(), Some("SlowDown"));
        assert_eq!(element(xml, "Message").as_deref(), Some("Reduce your rate"));
        let escaped = "<Message> unexpected scope: &apos;a&apos; &lt;&gt; &quot;b&quot; &amp;lt; </Message>";
        assert_eq!(element(escaped, "Message").as_deref(), Some("unexpected scope: 'a' <> \"b\" &lt;"));
        assert_eq!(element("not found", "Code"), None);
        assert_eq!(element("<Code>cut off", "Code"), None);
    }

    #[test]
    fn only_known_codes_of_a_404_mean_absent() {
        assert!(["", "NoSuchKey", "BlobNotFound"].iter().all(|code| has_typed_error(404, code)));
        let others = ["NoSuchBucket", "ContainerNotFound", "XAdminUserNotFound", "NoSuchUpload"];
        assert!(!others.iter().any(|code| has_typed_error(404, code)));
    }

    #[test]
    fn the_date_of_a_response_shows_how_far_the_clock_is_ahead() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(ahead_millis(date, 784_111_777_000 + 3_600_000), Some(3_600_000));
        assert_eq!(ahead_millis(date, 784_111_777_000 - 60_000), Some(-60_000));
        assert_eq!(ahead_millis("yesterday", 0), None);
    }
}
