//! Makes pushes durable: gathers them in an open segment, puts it into this writer's own log, and
//! answers once everything up to it is there.
//!
//! Owns: the open segment, the writer log, the byte budget. The story is `push`, then `flush`.
//! Does not own: the bytes of a segment (`block`), which of two equal pushes counts (`metastore`).
//!
//! Promise: an acknowledged push lies below the first gap and the first seal of its log. A push that
//! failed may be durable all the same, so pushing again is safe only because its key is counted once.

mod config;
mod error;
mod flush;
mod log;
mod metrics;
mod push;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::Dictionaries;
use clock::{Clock, Pool};
use model::{PushItem, WriterId};
use prometheus_client::registry::Registry;
use storage::Store;
use tokio::sync::watch;

pub use config::Config;

use error::Error;
use flush::{Flusher, Watched};
use metrics::Metrics;
use push::Open;

/// Most clients push at least every fifteen seconds.
const DICTIONARY_UNUSED_MAX: Duration = Duration::from_secs(25);

/// The open segment and the log it goes to.
pub struct Ingester {
    open: Arc<Open>,
    watched: Watched,
    metrics: Metrics,
}

impl Ingester {
    /// Opens a log of its own, which costs no request, and starts to accept pushes.
    pub fn start(
        config: Config,
        store: Store,
        metastore: Arc<dyn rpc::Metastore>,
        clock: Clock,
        pool: Pool,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::register(registry, config.inflight_bytes_max);
        let dictionaries = Dictionaries::new(config.dictionary_bytes_max);
        clock.spawn(dictionaries.clone().give_up_unused(DICTIONARY_UNUSED_MAX, clock.clone()));
        let open = Arc::new(Open::new(config, dictionaries, clock.clone(), pool.clone(), metrics.clone()));
        let watched = Flusher::start(open.clone(), store, metastore, clock, pool, metrics.clone());
        Arc::new(Self { open, watched, metrics })
    }

    /// The logs that this ingester writes to, for those who must not take them for dead. Empty once it is drained.
    pub fn writers(&self) -> watch::Receiver<Vec<WriterId>> {
        self.watched.writers.clone()
    }

    /// Refuses further pushes, makes durable what waits, seals the log. Idempotent.
    ///
    /// Takes as long as the store does, but no segment and no seal longer than eight seconds.
    pub async fn drain(&self) {
        self.open.drain();
        // An error means that the flusher is gone, which is what was wanted.
        let _ = self.watched.stopped.clone().wait_for(|stopped| *stopped).await;
    }
}

#[async_trait]
impl rpc::Ingester for Ingester {
    async fn push(&self, items: Vec<PushItem>) -> Result<(), rpc::Error> {
        let pushed = self.open.push(items).await;
        if let Err(error) = &pushed {
            self.metrics.refused(error.reason());
        }
        pushed.map_err(Error::into)
    }
}
