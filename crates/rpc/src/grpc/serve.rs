//! The listener between roles.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
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

/// Calls of one connection that are answered at once; more wait at the caller's.
const STREAMS_MAX: u32 = 1024;

/// Flow control: a request of ordinary size arrives without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The roles of this process that others may call.
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

    /// Larger messages are refused, instead of those over [`MESSAGE_BYTES_MAX`]. For roles that are added later.
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

/// Answers calls until `shutdown` completes; then takes no more, and waits for those in flight for up to
/// `drain`.
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
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
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
    match clock.timeout(drain, server).await {
        Some(done) => done.map_err(failed),
        None => {
            warn!(?drain, "calls of other roles were still in flight when the drain time was over");
            Ok(())
        }
    }
}

/// The status of a request that makes no sense.
pub(super) fn refused(error: Unreadable) -> tonic::Status {
    status::status_of(&status::unreadable_request(&error))
}

/// The status of what a role says.
pub(super) fn failed(error: Error) -> tonic::Status {
    status::status_of(&error)
}
