//! Reads request bodies: limited in size and time, within one memory budget for all of them.
//!
//! Owns: the limits, the timeout, draining of unread bodies.
//! Does not own: counting the budget (`memory`), decompression (`formats::gzip`).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use clock::Clock;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use memory::{Budget, Charge, OverBudget};
use prometheus_client::metrics::gauge::Gauge;
use tonic::Code;

use crate::Error;

/// Maximum first allocation for a body, independent of the length that the client announces.
const FIRST_ALLOCATION_BYTES: usize = 1 << 20;

/// Maximum bytes of an unread body that are drained to keep its connection, and maximum time for that.
const DRAIN_BYTES_MAX: usize = 256 << 10;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// The body of a plain route as it arrived, not decompressed. It counts against the budget until dropped.
#[derive(Debug)]
pub struct Body {
    pub bytes: Bytes,
    pub(crate) charge: Charge,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("request body too large: more than the limit of {limit} bytes{}", setting.map(|name| format!(" ({name})")).unwrap_or_default())]
    TooLarge { limit: usize, setting: Option<&'static str> },
    #[error("request body ends early: {0}")]
    Broken(String),
    #[error("request body is malformed: {0}")]
    Malformed(String),
    #[error("request body took longer than the limit of {} s", .0.as_secs())]
    Slow(Duration),
    #[error(
        "requests in flight hold more than the limit of {limit} bytes (server.request_bodies_bytes_max) with {bytes} bytes of this one"
    )]
    Busy { bytes: usize, limit: usize },
}

impl From<OverBudget> for ReadError {
    fn from(OverBudget { own, wanted, limit, .. }: OverBudget) -> Self {
        Self::Busy { bytes: own + wanted, limit }
    }
}

impl ReadError {
    /// Distinguishes a body that violates HTTP from one whose sender went away.
    fn of_body(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let is_malformed = causes
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData));
        let text = error.to_string();
        if is_malformed { Self::Malformed(text) } else { Self::Broken(text) }
    }

    pub(crate) fn on_plain_route(&self) -> Error {
        let status = match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            // Not 408: clients and proxies would retry, which does not help here.
            Self::Broken(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Error::rest(status, self.to_string())
    }

    pub(crate) fn on_service(&self) -> Error {
        let code = match self {
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Broken(_) => Code::Cancelled,
            Self::Malformed(_) => Code::InvalidArgument,
            Self::Slow(_) => Code::DeadlineExceeded,
            Self::Busy { .. } => Code::Unavailable,
        };
        Error::new(code, self.to_string())
    }
}

/// The budget of all bodies: one per listener, cheap to clone.
#[derive(Clone)]
pub(crate) struct Intake(Arc<Shared>);

struct Shared {
    clock: Clock,
    body_bytes_max: usize,
    body_bytes_setting: &'static str,
    budget: Budget,
    timeout: Duration,
}

impl Intake {
    /// `held` is the metric of the bytes of all bodies.
    pub(crate) fn new(clock: Clock, config: &crate::Config, held: Gauge) -> Self {
        Self(Arc::new(Shared {
            clock,
            body_bytes_max: config.body_bytes_max,
            body_bytes_setting: config.body_bytes_setting,
            budget: Budget::new(config.bodies_bytes_max, held),
            timeout: config.body_timeout,
        }))
    }

    pub(crate) fn body_bytes_max(&self) -> usize {
        self.0.body_bytes_max
    }

    /// The setting that raises the limit of a body.
    pub(crate) fn body_bytes_setting(&self) -> &'static str {
        self.0.body_bytes_setting
    }

    /// Reads the whole body, of at most `limit` bytes.
    pub(crate) async fn read<B>(&self, body: B, limit: usize) -> Result<Body, ReadError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::error::Error + 'static,
    {
        let read = self.read_untimed(body, limit);
        let timeout = self.0.timeout;
        self.0.clock.timeout(timeout, read).await.unwrap_or(Err(ReadError::Slow(timeout)))
    }

    async fn read_untimed<B>(&self, mut body: B, limit: usize) -> Result<Body, ReadError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::error::Error + 'static,
    {
        let announced = body.size_hint();
        // A route may have a smaller limit, which no setting raises.
        let setting = (limit == self.body_bytes_max()).then(|| self.body_bytes_setting());
        let too_large = || ReadError::TooLarge { limit, setting };
        if announced.lower() > limit as u64 {
            return Err(too_large());
        }
        let mut charge = self.0.budget.empty_charge();
        let mut first = Bytes::new();
        let mut joined = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ReadError::of_body(&error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if charge.bytes() + data.len() > limit {
                return Err(too_large());
            }
            charge.grow(data.len())?;
            if first.is_empty() && joined.is_empty() {
                // A body of one frame is not copied.
                first = data;
                continue;
            }
            if joined.is_empty() {
                let hint = announced.upper().unwrap_or(0).min(FIRST_ALLOCATION_BYTES as u64);
                joined.reserve((hint as usize).max(first.len() + data.len()));
                joined.extend_from_slice(&first);
                first = Bytes::new();
            }
            joined.extend_from_slice(&data);
        }
        let bytes = if joined.is_empty() { first } else { joined.into() };
        Ok(Body { bytes, charge })
    }
}

/// Receives a body whose reader dropped it before its end, so that it can be drained.
///
/// If an answer is sent before the body was read, the server closes the connection while the client still writes, and
/// many clients then see a broken connection instead of the answer.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<axum::body::Body>>>);

impl Unread {
    /// Wraps `body`, which is returned here if it is dropped too early.
    pub(crate) fn watch(&self, body: axum::body::Body) -> axum::body::Body {
        if body.is_end_stream() {
            return body;
        }
        axum::body::Body::new(WatchedBody { body: Some(body), unread: self.clone() })
    }

    /// Reads the rest of a returned body and discards it, within [`DRAIN_BYTES_MAX`] and [`DRAIN_TIMEOUT`].
    pub(crate) async fn drain(&self, clock: &Clock) {
        let body = self.0.lock().map(|mut body| body.take()).unwrap_or_default();
        let Some(mut body) = body else { return };
        let drain = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > DRAIN_BYTES_MAX {
                    break;
                }
            }
        };
        clock.timeout(DRAIN_TIMEOUT, drain).await;
    }
}

struct WatchedBody {
    /// `None` once it has ended.
    body: Option<axum::body::Body>,
    unread: Unread,
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), |body| body.size_hint())
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Ok(mut unread)) = (body, self.unread.0.lock()) {
            *unread = Some(body);
        }
    }
}

/// The body of a plain route's request, until [`read`] takes it; a request extension.
///
/// The handler gets a placeholder that fails when read, so no extractor bypasses the limits.
#[derive(Clone)]
pub(crate) struct PendingBody(Arc<Mutex<Option<axum::body::Body>>>);

impl PendingBody {
    /// The body, and the placeholder for the handler.
    pub(crate) fn new(body: axum::body::Body) -> (Self, axum::body::Body) {
        let placeholder = futures::stream::once(async {
            Err::<Bytes, _>(std::io::Error::other("handlers read bodies through edge::Body"))
        });
        (Self(Arc::new(Mutex::new(Some(body)))), axum::body::Body::from_stream(placeholder))
    }

    fn take(&self) -> Option<axum::body::Body> {
        self.0.lock().map(|mut body| body.take()).unwrap_or_default()
    }
}

/// Reads the body of a plain route's request, of at most `limit` bytes.
///
/// # Errors
/// 413 if it is larger, 400 if it is malformed or ends early, 408 if it is slow, 503 if the budget is exceeded.
pub async fn read(request: Request, limit: usize) -> Result<Body, Error> {
    let extensions = request.extensions();
    let body = extensions.get::<PendingBody>().and_then(PendingBody::take);
    let (Some(intake), Some(body)) = (extensions.get::<Intake>(), body) else {
        let text = "request did not come through the edge, or its body was read before";
        return Err(Error::rest(StatusCode::INTERNAL_SERVER_ERROR, text));
    };
    let limit = limit.min(intake.body_bytes_max());
    intake.read(body, limit).await.map_err(|error| error.on_plain_route())
}

/// As [`read`], with the limit of the listener.
impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Error> {
        let intake = request.extensions().get::<Intake>();
        let limit = intake.map_or(0, Intake::body_bytes_max);
        read(request, limit).await
    }
}
