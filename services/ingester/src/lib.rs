//! Makes pushes durable: gathers them in an open segment, puts it into this writer's own log, and
//! acknowledges them once the log is durable up to this segment.
//!
//! Owns: the open segment, the writer log, the memory of pushes. The story is `push`, then `flush`.
//! Does not own: the bytes of a segment (`block`), which of two equal pushes counts (`metastore`).
//!
//! Promise: an acknowledged push is below the first gap and the first seal of its log. A push that
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
use flush::{Flusher, FlusherStatus};
use metrics::Metrics;
use push::SegmentBuilder;

/// A dictionary that no push used for this long is dropped. Most clients push at least every fifteen seconds.
const DICTIONARY_UNUSED_MAX: Duration = Duration::from_secs(25);

/// The role: the open segment and the log it goes to.
pub struct Ingester {
    builder: Arc<SegmentBuilder>,
    flusher: FlusherStatus,
    metrics: Metrics,
}

impl Ingester {
    /// Opens a new log, which costs no request, and starts to accept pushes.
    pub fn start(
        config: Config,
        store: Store,
        metastore: Arc<dyn rpc::SegmentHints>,
        clock: Clock,
        pool: Pool,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::register(registry, config.inflight_bytes_max);
        let dictionaries = Dictionaries::new(config.dictionary_bytes_max);
        clock.spawn(dictionaries.clone().evict_unused(DICTIONARY_UNUSED_MAX, clock.clone()));
        let builder = SegmentBuilder::new(config, dictionaries, clock.clone(), pool.clone(), metrics.clone());
        let builder = Arc::new(builder);
        let flusher = Flusher::start(builder.clone(), store, metastore, clock, pool, metrics.clone());
        Arc::new(Self { builder, flusher, metrics })
    }

    /// The logs that this ingester writes to, so that others do not take them for dead. Empty once drained.
    pub fn writers(&self) -> watch::Receiver<Vec<WriterId>> {
        self.flusher.writers.clone()
    }

    /// Refuses further pushes, makes the waiting ones durable, seals the log. Idempotent.
    ///
    /// Takes as long as the store does, but at most eight seconds for each segment and the seal.
    pub async fn drain(&self) {
        self.builder.drain();
        // An error means that the flusher has ended: the goal of the drain.
        let _ = self.flusher.stopped.clone().wait_for(|stopped| *stopped).await;
    }
}

#[async_trait]
impl rpc::Ingester for Ingester {
    async fn push(&self, items: Vec<PushItem>) -> Result<(), rpc::Error> {
        let outcome = self.builder.push(items).await;
        if let Err(error) = &outcome {
            self.metrics.refused(error.reason());
        }
        outcome.map_err(Error::into)
    }
}
