//! The UDP socket of gossip: drops messages of other clusters, and survives read errors.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket};
use chitchat::{ChitchatEnvelope, ChitchatMessage};
use clock::Clock;
use parking_lot::Mutex;
use tracing::warn;

use crate::metrics::Metrics;

/// Pause before the next read after an error.
const PAUSE: Duration = Duration::from_secs(1);
/// Interval between warnings about other clusters.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A transport for chitchat with a socket that is already bound.
pub(super) struct Datagrams {
    socket: Mutex<Option<UdpSocket>>,
    label: String,
    clock: Clock,
    metrics: Metrics,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket, label: &str, clock: Clock, metrics: Metrics) -> Self {
        Self { socket: Mutex::new(Some(socket)), label: format!("pyrograph {label}"), clock, metrics }
    }

    /// The label of the cluster, as in datagrams.
    pub(super) fn label(&self) -> &str {
        &self.label
    }
}

#[async_trait]
impl Transport for Datagrams {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let bound = self.socket.lock().take();
        let inner = match bound {
            Some(socket) => socket,
            None => UdpSocket::open(address).await?,
        };
        Ok(Box::new(FilteredSocket {
            inner,
            label: self.label.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            warned: None,
        }))
    }
}

struct FilteredSocket {
    inner: UdpSocket,
    label: String,
    clock: Clock,
    metrics: Metrics,
    warned: Option<Duration>,
}

impl FilteredSocket {
    /// Whether a message comes from another cluster. Only the first message of an exchange has a label; two clusters
    /// never answer each other's first message.
    fn is_foreign(&mut self, from: SocketAddr, message: &ChitchatMessage) -> bool {
        let their = match message {
            ChitchatMessage::Syn { cluster_id, .. } if *cluster_id == self.label => return false,
            ChitchatMessage::Syn { cluster_id, .. } => cluster_id,
            ChitchatMessage::BadCluster => "",
            _ => return false,
        };
        self.metrics.strangers.inc();
        let now = self.clock.monotonic();
        if self.warned.is_none_or(|warned| now - warned >= WARN_AGAIN_AFTER) {
            self.warned = Some(now);
            warn!(%from, own = %self.label, their, "ignores gossip of another cluster");
        }
        true
    }
}

#[async_trait]
impl Socket for FilteredSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.inner.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.inner.send(to, envelope).await
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            match self.inner.recv().await {
                Ok(received) if self.is_foreign(received.from_addr, &received.envelope.message) => {}
                Ok(received) => return Ok(received),
                Err(error) => {
                    warn!(error = %format!("{error:#}"), "cannot read gossip, trying again");
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }
}
