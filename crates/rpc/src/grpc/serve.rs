//! The listener between roles: its services, calls in flight, and its drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clock::{Clock, Pool};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::ServiceBuilder;
use tracing::warn;
use wire::pyrograph::ingester::v1::ingester_service_server::IngesterServiceServer;
use wire::pyrograph::leaf::v1::leaf_service_server::LeafServiceServer;
use wire::pyrograph::metastore::v1::metastore_service_server::MetastoreServiceServer;

use super::ingester::IngesterServer;
use super::leaf::LeafServer;
use super::metastore::MetastoreServer;
use super::{MESSAGE_BYTES_MAX, Unreadable, status};
use crate::{Error, ErrorKind, Ingester, Leaf, Metastore};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of concurrent calls of one connection; more wait at the caller.
const STREAMS_MAX: u32 = 1024;

/// Flow control: a request of ordinary size arrives without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Time without a call after which a shutdown stops waiting for connections to close; foreign clients never close them.
const GOODBYE: Duration = Duration::from_secs(1);

/// Interval between checks of the calls in flight during a shutdown.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// The roles of this process that other processes may call.
pub struct Services {
    routes: RoutesBuilder,
    pool: Pool,
    message_bytes_max: usize,
}

impl Services {
    /// `pool` converts large messages.
    pub fn new(pool: Pool) -> Self {
        Self { routes: RoutesBuilder::default(), pool, message_bytes_max: MESSAGE_BYTES_MAX }
    }

    /// Sets the maximum size of messages, instead of [`MESSAGE_BYTES_MAX`], for roles that are added afterwards.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    pub fn ingester(mut self, role: Arc<dyn Ingester>) -> Self {
        let service = IngesterServiceServer::new(IngesterServer { role, pool: self.pool.clone() })
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max);
        self.routes.add_service(service);
        self
    }

    pub fn leaf(mut self, role: Arc<dyn Leaf>) -> Self {
        let service = LeafServiceServer::new(LeafServer { role, pool: self.pool.clone() })
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max);
        self.routes.add_service(service);
        self
    }

    pub fn metastore(mut self, role: Arc<dyn Metastore>) -> Self {
        let service = MetastoreServiceServer::new(MetastoreServer { role, pool: self.pool.clone() })
            .max_decoding_message_size(self.message_bytes_max)
            .max_encoding_message_size(self.message_bytes_max);
        self.routes.add_service(service);
        self
    }
}

/// Answers calls until `shutdown` completes; then accepts no more, and waits up to `drain` for the calls in flight.
/// Does not wait for connections without a call.
///
/// # Errors
/// `Internal` if the listener fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    clock: Clock,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (stop, stopped) = oneshot::channel::<()>();
    let calls = Calls::default();
    let counted = calls.clone();
    let layer = ServiceBuilder::new().map_future(move |answer| {
        let call = counted.begin();
        async move {
            let answer: Result<http::Response<tonic::body::Body>, _> = answer.await;
            // A call lasts until its whole answer was handed to the connection.
            answer.map(|answer| answer.map(|body| body.map_frame(move |frame| call.keep(frame))))
        }
    });
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .layer(layer)
        .add_routes(services.routes.routes())
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
            let _ = stopped.await;
        });
    let mut server = std::pin::pin!(server);
    let failed =
        |error| Error::with_source(ErrorKind::Internal, "the listener between roles has failed", error);
    tokio::select! {
        done = &mut server => return done.map_err(failed),
        () = shutdown => {}
    }
    let _ = stop.send(());
    tokio::select! {
        done = &mut server => return done.map_err(failed),
        drained = clock.timeout(drain, calls.ended(&clock)) => if drained.is_none() {
            let calls = calls.count();
            warn!(calls, ?drain, "calls of other roles were still in flight when the drain time was over");
        }
    }
    Ok(())
}

/// The calls in flight.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn begin(&self) -> Call {
        self.0.fetch_add(1, Ordering::Relaxed);
        Call(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Completes after [`GOODBYE`] without a call.
    async fn ended(&self, clock: &Clock) {
        let mut quiet_since = clock.monotonic();
        while clock.monotonic().saturating_sub(quiet_since) < GOODBYE {
            clock.sleep(DRAIN_POLL).await;
            if self.count() > 0 {
                quiet_since = clock.monotonic();
            }
        }
    }
}

/// A call in flight, until dropped.
struct Call(Calls);

impl Call {
    /// Returns `frame`; a closure that calls this holds the call.
    fn keep<T>(&self, frame: T) -> T {
        frame
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The status for a request that cannot be read.
pub(super) fn refused(error: Unreadable) -> tonic::Status {
    status::status_of(&status::unreadable_request(&error))
}

/// The status for the error of a role.
pub(super) fn failed(error: Error) -> tonic::Status {
    status::status_of(&error)
}
