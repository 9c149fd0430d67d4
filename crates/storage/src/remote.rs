//! What the answers of a remote store say beside bytes: why it refused, when to come back, what its clock shows.
//!
//! Owns: the HTTP client under `object_store`, and what is kept of an answer that is no success.
//! Does not own: what that means for whoever asked (`problem`), whether to ask again (`store`).
//!
//! `object_store` gives such an answer on as text. Here it becomes a [`Refusal`] in the chain of causes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use clock::Clock;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, Result};

use crate::Metrics;

/// A longer explanation is cut: it goes into logs.
const MESSAGE_BYTES_MAX: usize = 500;

/// An answer that is no success, as far as people and retries care.
#[derive(Debug, thiserror::Error)]
#[error("{host} answered {status}{}{code}{}{message}", gap(.code, " "), gap(.message, ": "))]
pub(crate) struct Refusal {
    pub(crate) host: String,
    pub(crate) status: u16,
    /// The store's word for it, as in `SlowDown`; empty if it has none.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// How far this machine's clock is ahead of the store's, in milliseconds, if the answer tells.
    pub(crate) ahead_millis: Option<i64>,
}

/// A request that nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {host}")]
pub(crate) struct Unanswered {
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
        let host = request.uri().authority().map_or("", |at| at.as_str());
        let host = host.rsplit('@').next().unwrap_or_default().to_owned();
        let response = match self.inner.execute(request).await {
            Ok(response) => response,
            Err(source) => return Err(HttpError::new(source.kind(), Unanswered { host, source })),
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
        if is_told_apart_by_status(status.as_u16(), &code) {
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

/// Codes of a 404 that says that an object is absent. None: an answer to HEAD has no body, and Google's is plain text.
const ABSENT: &[&str] = &["", "NoSuchKey", "BlobNotFound"];

/// Answers that `object_store` makes errors of their own of: absent, exists, condition not met.
fn is_told_apart_by_status(status: u16, code: &str) -> bool {
    match status {
        404 => ABSENT.contains(&code),
        409 | 412 => true,
        _ => false,
    }
}

/// The text of the first element of that name, trimmed. The answers are a few lines by S3, GCS, Azure or STS.
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
    fn an_answer_gives_up_its_code_and_message() {
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
        assert!(["", "NoSuchKey", "BlobNotFound"].iter().all(|code| is_told_apart_by_status(404, code)));
        let others = ["NoSuchBucket", "ContainerNotFound", "XAdminUserNotFound", "NoSuchUpload"];
        assert!(!others.iter().any(|code| is_told_apart_by_status(404, code)));
    }

    #[test]
    fn the_date_of_an_answer_tells_how_far_the_clock_is_ahead() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(ahead_millis(date, 784_111_777_000 + 3_600_000), Some(3_600_000));
        assert_eq!(ahead_millis(date, 784_111_777_000 - 60_000), Some(-60_000));
        assert_eq!(ahead_millis("yesterday", 0), None);
    }
}
