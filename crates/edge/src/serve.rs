//! Connections: accepting, telling HTTP/1.1 from h2c, ending.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::config::Config;
use crate::stall::FailsWhenStalled;

/// How HTTP/2 without TLS begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that tell the preface from a method: none begins with `PRI `.
const PREFACE_BYTES_MIN: usize = 4;

/// Between looks at a connection that sent less than that.
const PREFACE_POLL: Duration = Duration::from_millis(10);

/// After a failed accept, for instance because the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const HTTP2_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Flow control of one HTTP/2 request: a push of ordinary size arrives without waiting for an update.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Accepts connections and answers their requests until `shutdown` completes; then accepts no more and
/// waits for the requests in flight, up to the configured time.
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) {
    let inner = app.inner();
    let server = Arc::new(Server::new(&inner.config));
    let permits = Arc::new(Semaphore::new(inner.config.connections_max));
    let graceful = GracefulShutdown::new();
    let stopping = CancellationToken::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    warn!(%error, "cannot accept a connection");
                    inner.clock.sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let connection = server.clone().connection(app.clone(), stream, graceful.watcher(), stopping.clone());
        let connections = inner.metrics.connections.clone();
        inner.clock.spawn(async move {
            connections.inc();
            connection.await;
            connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    stopping.cancel();
    let open = graceful.count();
    info!(connections = open, "draining");
    let drained = inner.clock.timeout(inner.config.drain_timeout, graceful.shutdown()).await;
    if drained.is_none() {
        warn!(connections = open, "requests were still in flight when the drain time was over");
    }
}

struct Server {
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
    idle_timeout: Duration,
    write_timeout: Duration,
}

impl Server {
    fn new(config: &Config) -> Self {
        let mut http1 = Builder::new(TokioExecutor::new()).http1_only();
        http1.http1().timer(TokioTimer::new()).header_read_timeout(config.idle_timeout);
        let mut http2 = Builder::new(TokioExecutor::new()).http2_only();
        http2
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(HTTP2_KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(config.streams_max)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES);
        Self { http1, http2, idle_timeout: config.idle_timeout, write_timeout: config.write_timeout }
    }

    async fn connection(
        self: Arc<Self>,
        app: App,
        stream: TcpStream,
        watcher: Watcher,
        stopping: CancellationToken,
    ) {
        let clock = app.inner().clock.clone();
        let first = clock.timeout(self.idle_timeout, speaks_http2(&clock, &stream));
        let http2 = tokio::select! {
            first = first => first,
            () = stopping.cancelled() => return,
        };
        let builder = match http2 {
            Some(Ok(true)) => &self.http2,
            Some(Ok(false)) => &self.http1,
            Some(Err(_)) | None => return,
        };
        // Answers are written whole; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        // Futures are boxed where they begin, so that an idle connection does not hold room for a request,
        // nor a silent one for a connection.
        let service = service_fn(move |request: http::Request<Incoming>| {
            let app = app.clone();
            let answer = Box::pin(async move { app.answer(request.map(Body::new)).await });
            answer.map(Ok::<_, Infallible>)
        });
        let stream = FailsWhenStalled::new(stream, self.write_timeout, clock);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = Box::pin(watcher.watch(connection)).await {
            debug!(%error, "a connection ended early");
        }
    }
}

/// Waits for the first bytes of a connection and leaves them where they are.
async fn speaks_http2(clock: &clock::Clock, stream: &TcpStream) -> io::Result<bool> {
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

/// Whether the listener itself is well and the next accept may succeed at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
