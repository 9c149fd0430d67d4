//! A request on a connection, with its answer: which side waits for the other, and since when.
//!
//! Owns: the bytes of answers that clients have not read (one budget for the listener), measuring progress.
//! Does not own: when a lack of progress ends a request (`connections`).
//!
//! The connection gets an answer in pieces, each of which is dropped once it is written to the socket, and reports
//! that. So an HTTP/2 stream whose client grants no window is noticed as well as a socket that accepts no bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clock::Clock;
use http::{HeaderValue, header};
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::connections::Connection;
use crate::error::Error;

/// Maximum size of a piece of an answer: the default size of an HTTP/2 frame.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Minimum bytes, within the timeout of a client, that count as progress.
const PROGRESS_BYTES_MIN: usize = 16 << 10;

/// Answers up to this size are never refused: answers to probes, and errors.
const ANSWER_BYTES_FREE: usize = PIECE_BYTES_MAX;

/// The budget of bytes of answers that clients have not read to the end; one per listener.
#[derive(Clone)]
pub(crate) struct Answers {
    held: Gauge,
    limit: usize,
}

impl Answers {
    /// `held` is the metric of the bytes.
    pub(crate) fn new(held: Gauge, limit: usize) -> Self {
        Self { held, limit }
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.held.get()).unwrap_or(0)
    }
}

/// A request and its answer, until the answer is written or abandoned.
pub(crate) struct Exchange {
    id: u64,
    clock: Clock,
    connection: Arc<Connection>,
    answers: Answers,
    /// Ends the HTTP/2 stream.
    stream: Option<CancellationToken>,
    /// Whether the handler waits for more of the request's body.
    awaits_body: AtomicBool,
    /// Bytes of the answer that are not written yet.
    unwritten: AtomicUsize,
    /// Bytes of the answer that are counted in `answers`.
    counted: AtomicUsize,
    /// Time of the last progress, in milliseconds of the monotonic clock.
    progress_millis: AtomicU64,
    /// Bytes moved since then.
    moved: AtomicUsize,
}

impl Exchange {
    /// Begins a request of `connection`. `stream` ends the HTTP/2 stream of the request, if it has one.
    pub(crate) fn begin(
        connection: &Arc<Connection>,
        stream: Option<CancellationToken>,
        answers: Answers,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new_cyclic(|exchange| Self {
            id: connection.add(exchange.clone()),
            connection: connection.clone(),
            answers,
            stream,
            awaits_body: AtomicBool::new(false),
            unwritten: AtomicUsize::new(0),
            counted: AtomicUsize::new(0),
            progress_millis: AtomicU64::new(millis(clock.monotonic())),
            moved: AtomicUsize::new(0),
            clock,
        })
    }

    /// Wraps the request's body to measure its progress.
    pub(crate) fn body<B>(self: &Arc<Self>, body: B) -> axum::body::Body
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        axum::body::Body::new(RequestBody { body, exchange: self.clone() })
    }

    /// Wraps the answer to count its bytes and measure its progress. Returns a refusal instead if the budget of all
    /// answers is exceeded. `make_room` ends stalled requests and returns the bytes of their answers.
    pub(crate) fn answer(
        self: &Arc<Self>,
        mut answer: Response,
        make_room: impl FnOnce() -> usize,
    ) -> http::Response<AnswerBody> {
        let bytes = body_bytes(&answer);
        let (held, limit) = (self.answers.bytes(), self.answers.limit);
        let fits = |held: usize| held == 0 || held + bytes <= limit;
        if bytes > ANSWER_BYTES_FREE && !fits(held) && !fits(held.saturating_sub(make_room())) {
            answer = refusal(&answer, limit);
        }
        let bytes = body_bytes(&answer);
        self.count(bytes);
        self.unwritten.store(bytes, Ordering::Relaxed);
        self.restart();
        let is_sized = answer.body().size_hint().exact().is_some();
        answer.map(|body| AnswerBody { body, rest: Bytes::new(), is_sized, exchange: self.clone() })
    }

    fn count(&self, bytes: usize) {
        self.counted.fetch_add(bytes, Ordering::Relaxed);
        self.answers.held.inc_by(bytes as i64);
    }

    /// Restarts the measurement of progress.
    fn restart(&self) {
        self.moved.store(0, Ordering::Relaxed);
        self.progress_millis.store(millis(self.clock.monotonic()), Ordering::Relaxed);
    }

    fn progress(&self, bytes: usize) {
        if self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes >= PROGRESS_BYTES_MIN {
            self.restart();
        }
    }

    /// Whether the client has read nothing of its answer since `before`.
    pub(crate) fn is_unread_since(&self, before: Duration) -> bool {
        self.unwritten.load(Ordering::Relaxed) > 0 && self.has_stood_since(before)
    }

    /// Whether the server waits for the client, which has neither sent nor read anything since `before`.
    pub(crate) fn is_stalled_since(&self, before: Duration) -> bool {
        (self.awaits_body.load(Ordering::Relaxed) || self.unwritten.load(Ordering::Relaxed) > 0)
            && self.has_stood_since(before)
    }

    fn has_stood_since(&self, before: Duration) -> bool {
        self.progress_millis.load(Ordering::Relaxed) < millis(before)
    }

    /// Bytes that are freed when the request ends.
    pub(crate) fn counted(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    /// Ends the request; ends its connection too if there is no other way.
    pub(crate) fn end(&self) {
        // The task of a cancelled stream is gone, but its last piece still waits: only ending the connection frees
        // that.
        match &self.stream {
            Some(stream) if !stream.is_cancelled() => stream.cancel(),
            _ => self.connection.abort(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.answers.held.dec_by(self.counted() as i64);
        self.connection.remove(self.id, self.clock.monotonic());
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn body_bytes(answer: &Response) -> usize {
    answer.body().size_hint().exact().unwrap_or(0) as usize
}

/// A refusal instead of `answer`, in the same protocol.
fn refusal(answer: &Response, limit: usize) -> Response {
    let text = format!("answers that clients have not read hold more than the limit of {limit} bytes");
    let content_type = answer.headers().get(header::CONTENT_TYPE);
    let grpc = content_type.filter(|value| value.as_bytes().starts_with(b"application/grpc"));
    let Some(content_type) = grpc else {
        return Error::new(Code::Unavailable, text).into_response();
    };
    let content_type: HeaderValue = content_type.clone();
    let mut response = Status::unavailable(text).into_http();
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

struct RequestBody<B> {
    body: B,
    exchange: Arc<Exchange>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.exchange.awaits_body.store(frame.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.exchange.progress(frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for RequestBody<B> {
    fn drop(&mut self) {
        self.exchange.awaits_body.store(false, Ordering::Relaxed);
    }
}

/// The body of an answer, divided into pieces.
pub(crate) struct AnswerBody {
    body: axum::body::Body,
    /// Rest of the current frame.
    rest: Bytes,
    /// Whether the length was known in advance, and is counted already.
    is_sized: bool,
    exchange: Arc<Exchange>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
            if !self.is_sized {
                self.exchange.count(self.rest.len());
                self.exchange.unwritten.fetch_add(self.rest.len(), Ordering::Relaxed);
                self.exchange.restart();
            }
        }
        let length = self.rest.len().min(PIECE_BYTES_MAX);
        let bytes = self.rest.split_to(length);
        let piece = Piece { bytes, exchange: self.exchange.clone() };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact + rest),
            None => {
                let mut whole = SizeHint::new();
                whole.set_lower(hint.lower() + rest);
                whole
            }
        }
    }
}

/// A piece of an answer, until it is written.
struct Piece {
    bytes: Bytes,
    exchange: Arc<Exchange>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.exchange.unwritten.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.exchange.progress(self.bytes.len());
    }
}
