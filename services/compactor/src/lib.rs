//! Turns many small segments into few blocks, and deletes dead objects.
//!
//! Owns: running merges, writing their outputs, deleting objects.
//! Does not own: the choice of inputs and of dead objects, and whether an output counts (`metastore`).
//!
//! Data stay safe even if this crate fails: outputs become live only if the metastore publishes them, and only
//! objects that it lists as dead are deleted.

mod compact;
mod config;
mod error;
mod metrics;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use memory::Share;
use prometheus_client::registry::Registry;
use storage::Store;
use tokio::sync::watch;

pub use config::Config;
pub use error::Error;

use metrics::Metrics;

/// The role: runs the metastore's jobs until drained.
pub struct Compactor {
    config: Config,
    /// Memory for merges.
    memory: Share,
    store: Store,
    metastore: Arc<dyn rpc::JobQueue>,
    clock: Clock,
    pool: Pool,
    metrics: Metrics,
    stop: watch::Sender<bool>,
}

impl Compactor {
    /// `memory` is the share that merges may use.
    pub fn new(
        config: Config,
        memory: Share,
        store: Store,
        metastore: Arc<dyn rpc::JobQueue>,
        clock: Clock,
        pool: Pool,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::register(registry);
        let stop = watch::Sender::new(false);
        Arc::new(Self { config, memory, store, metastore, clock, pool, metrics, stop })
    }

    /// Merges and sweeps until [`Self::drain`].
    pub async fn run(self: Arc<Self>) {
        futures::join!(self.keep_compacting(), self.keep_sweeping());
    }

    /// Takes no more work. A running merge ends by itself or with the process; nothing depends on it.
    pub async fn drain(&self) {
        self.stop.send_replace(true);
    }

    /// Waits; returns false if the compactor is to stop.
    async fn pause(&self, duration: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        self.clock.timeout(duration, stop.wait_for(|stop| *stop)).await.is_none()
    }
}
