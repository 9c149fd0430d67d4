//! Accepts connections, recognises HTTP/1.1 and h2c, and drains at a shutdown.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::config::Config;
use crate::connections::{Connections, OpenConnection};
use crate::exchange::{AnswerBody, Answers, Exchange};
use crate::socket::Socket;

/// First bytes of HTTP/2 without TLS.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that distinguish the preface from HTTP/1.1: no method begins with `PRI `.
const PREFACE_BYTES_MIN: usize = 4;

/// Interval between reads of a connection that has sent fewer bytes.
const PREFACE_POLL: Duration = Duration::from_millis(10);

/// Pause after a failed accept, for example because the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Interval between warnings about failed accepts.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum wait for idle connections to close for a new one.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Interval between attempts to find a place for a connection.
const PLACE_POLL: Duration = Duration::from_millis(50);

/// Maximum number of connections beyond the limit; only [`crate::Routes::probe`]s are answered on them.
const PROBE_CONNECTIONS_MAX: usize = 16;

/// Idle timeout of such a connection.
const PROBE_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// With the budget of answers exceeded, answers that were not read for this time make room.
const UNREAD_GRACE: Duration = Duration::from_secs(1);

/// Number of checks for unread answers per `write_timeout`, and the maximum interval between them.
const CHECKS_PER_WRITE_TIMEOUT: u32 = 8;
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Interval between checks of the remaining connections during a shutdown.
const DRAIN_POLL: Duration = Duration::from_millis(20);

const HTTP2_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Flow control of one HTTP/2 request: a push of ordinary size arrives without waiting for an update.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

tokio::task_local! {
    /// Ends the HTTP/2 stream of the current task.
    static END_OF_STREAM: CancellationToken;
}

/// Accepts connections and answers their requests until `shutdown` completes; then accepts no more, and waits for the
/// requests in flight up to the drain timeout. Requests that only wait for their client, and connections without a
/// request, end within about a second.
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) {
    let server = Arc::new(Server::new(app));
    let clock = server.clock.clone();
    let checking = clock.spawn(server.clone().end_unread_answers());
    let mut failures = AcceptFailures::default();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, server.place().await))
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let server = server.clone();
                clock.spawn(async move {
                    let connections = server.app.inner().metrics.connections.clone();
                    connections.inc();
                    server.connection(stream, place).await;
                    connections.dec();
                });
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                // An idle connection is worth less than a new one.
                server.connections.close_idlest();
                failures.warn(&error, clock.monotonic());
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    server.stopping.cancel();
    checking.await.ok();
    server.drain().await;
}

struct Server {
    app: App,
    clock: Clock,
    http1: Builder<StreamTasks>,
    http2: Builder<StreamTasks>,
    answers: Answers,
    connections: Connections,
    places: Arc<Semaphore>,
    probe_places: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// The place of an accepted connection.
struct ConnectionPlace {
    _permit: Option<OwnedSemaphorePermit>,
    /// Whether the connection is beyond the limit.
    only_probes: bool,
}

impl Server {
    fn new(app: App) -> Self {
        let inner = app.inner();
        let (config, clock): (&Config, _) = (&inner.config, inner.clock.clone());
        let tasks = StreamTasks(clock.clone());
        let mut http1 = Builder::new(tasks.clone()).http1_only();
        http1.http1().timer(TokioTimer::new()).header_read_timeout(config.idle_timeout);
        let mut http2 = Builder::new(tasks).http2_only();
        http2
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(HTTP2_KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(config.streams_max)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES);
        Self {
            answers: Answers::new(inner.metrics.answers_bytes.clone(), config.answers_bytes_max),
            connections: Connections::default(),
            places: Arc::new(Semaphore::new(config.connections_max)),
            probe_places: Arc::new(Semaphore::new(PROBE_CONNECTIONS_MAX)),
            stopping: CancellationToken::new(),
            http1,
            http2,
            clock,
            app,
        }
    }

    /// Waits for a place for one more connection. If all are in use, idle connections are closed; if none is idle, the
    /// place is one for probes; if those are in use too, it is the next one that becomes free.
    async fn place(&self) -> ConnectionPlace {
        let regular =
            |permit: OwnedSemaphorePermit| ConnectionPlace { _permit: Some(permit), only_probes: false };
        loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                return regular(permit);
            }
            if self.connections.close_idlest() > 0 {
                let freed = self.clock.timeout(CLOSE_WAIT, self.places.clone().acquire_owned()).await;
                if let Some(Ok(permit)) = freed {
                    return regular(permit);
                }
            }
            if let Ok(permit) = self.probe_places.clone().try_acquire_owned() {
                return ConnectionPlace { _permit: Some(permit), only_probes: true };
            }
            self.clock.sleep(PLACE_POLL).await;
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, place: ConnectionPlace) {
        let connection = self.connections.open(self.clock.monotonic());
        let idle_timeout = match place.only_probes {
            true => PROBE_IDLE_TIMEOUT,
            false => self.app.inner().config.idle_timeout,
        };
        let first = self.clock.timeout(idle_timeout, speaks_http2(&self.clock, &stream));
        let http2 = tokio::select! {
            first = first => first,
            () = self.stopping.cancelled() => return,
            () = connection.closing().cancelled() => return,
        };
        let builder = match http2 {
            Some(Ok(true)) => {
                connection.set_http2();
                &self.http2
            }
            Some(Ok(false)) => &self.http1,
            Some(Err(_)) | None => return,
        };
        // Answers are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let write_timeout = self.app.inner().config.write_timeout;
        let stream = Socket::new(stream, Arc::clone(&connection), write_timeout, self.clock.clone());
        // Futures are boxed where they begin: an idle connection then holds no memory for a request, and one that has
        // sent no bytes holds none for HTTP.
        let served = Box::pin(self.http(builder, TokioIo::new(stream), &connection, place.only_probes));
        let probe_idle_timeout = async {
            loop {
                self.clock.sleep(PROBE_IDLE_TIMEOUT).await;
                if connection.idle_since().is_some_and(|since| since <= self.ago(PROBE_IDLE_TIMEOUT)) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            served = served => if let Err(error) = served {
                debug!(%error, "a connection ended early");
            },
            () = connection.closing().cancelled() => {}
            () = probe_idle_timeout, if place.only_probes => {}
        }
    }

    /// Serves a connection until it ends. Once the server stops, it ends with its current requests.
    async fn http(
        self: &Arc<Self>,
        builder: &Builder<StreamTasks>,
        stream: TokioIo<Socket>,
        connection: &OpenConnection,
        only_probes: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let service = service_fn(|request: http::Request<Incoming>| {
            let (server, connection) = (self.clone(), Arc::clone(connection));
            Box::pin(async move {
                let stream = END_OF_STREAM.try_with(Clone::clone).ok();
                let exchange =
                    Exchange::begin(&connection, stream, server.answers.clone(), server.clock.clone());
                Ok::<_, Infallible>(server.answer(request, &exchange, only_probes).await)
            })
        });
        let mut served = pin!(builder.serve_connection(stream, service));
        tokio::select! {
            served = &mut served => return served,
            () = self.stopping.cancelled() => served.as_mut().graceful_shutdown(),
        }
        served.await
    }

    async fn answer(
        &self,
        request: http::Request<Incoming>,
        exchange: &Arc<Exchange>,
        only_probes: bool,
    ) -> http::Response<AnswerBody> {
        let request = request.map(|body| exchange.body(body));
        let answer = self.app.answer_received(request, only_probes).await;
        exchange.answer(answer, || self.connections.end_unread(self.ago(UNREAD_GRACE)))
    }

    fn ago(&self, time: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(time)
    }

    /// Ends requests with unread answers, until the server stops.
    async fn end_unread_answers(self: Arc<Self>) {
        let write_timeout = self.app.inner().config.write_timeout;
        let interval = (write_timeout / CHECKS_PER_WRITE_TIMEOUT).min(CHECK_INTERVAL_MAX);
        loop {
            tokio::select! {
                () = self.clock.sleep(interval) => {}
                () = self.stopping.cancelled() => return,
            }
            self.connections.end_unread(self.ago(write_timeout));
        }
    }

    /// Waits for the requests in flight, and ends requests that only wait for their client.
    async fn drain(&self) {
        let drain_timeout = self.app.inner().config.drain_timeout;
        let began = self.clock.monotonic();
        let mut is_logged = false;
        loop {
            let now = self.clock.monotonic();
            let remaining = self.connections.drain(began, now);
            if !is_logged {
                info!(connections = remaining.connections, requests = remaining.requests, "draining");
                is_logged = true;
            }
            if remaining.connections == 0 {
                return;
            }
            if now.saturating_sub(began) >= drain_timeout {
                if remaining.requests > 0 {
                    let requests = remaining.requests;
                    warn!(requests, "requests were still in flight when the drain time was over");
                }
                self.connections.close_all();
                return;
            }
            self.clock.sleep(DRAIN_POLL).await;
        }
    }
}

/// Runs each HTTP/2 stream in a task that can be cancelled alone: the client then gets RST_STREAM.
#[derive(Clone)]
struct StreamTasks(Clock);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamTasks {
    fn execute(&self, stream: F) {
        let end = CancellationToken::new();
        self.0.spawn(END_OF_STREAM.scope(end.clone(), async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = stream => {}
            }
        }));
    }
}

/// Limits warnings about failed accepts, which happen twenty times a second.
#[derive(Default)]
struct AcceptFailures {
    warned_at: Option<Duration>,
    unreported: usize,
}

impl AcceptFailures {
    fn warn(&mut self, error: &io::Error, now: Duration) {
        let is_due = |warned_at| now.saturating_sub(warned_at) >= ACCEPT_WARNING_INTERVAL;
        if !self.warned_at.is_none_or(is_due) {
            self.unreported += 1;
            return;
        }
        let failures = self.unreported + 1;
        warn!(
            %error,
            failures,
            "cannot accept connections, so idle ones are closed; raise the limit of open files (ulimit -n)"
        );
        self.warned_at = Some(now);
        self.unreported = 0;
    }
}

/// Peeks at the first bytes of a connection.
async fn speaks_http2(clock: &Clock, stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE_BYTES_MIN];
    loop {
        let count = stream.peek(&mut first).await?;
        let seen = first.get(..count).unwrap_or_default();
        if seen.is_empty() || !HTTP2_PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if count == PREFACE_BYTES_MIN {
            return Ok(true);
        }
        clock.sleep(PREFACE_POLL).await;
    }
}

/// Whether only one connection failed, so that the next accept may succeed at once.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
