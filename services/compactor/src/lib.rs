//! Turns many small segments into few blocks, and deletes what is dead.
//!
//! Owns: running merges, writing their outputs, deleting objects.
//! Does not own: what is merged or deleted, and whether an output counts (`metastore`).
//!
//! Nothing here must be right for data to be safe: outputs become live only if the metastore
//! publishes them, and only what it lists as dead is deleted.

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

/// Works on what the metastore asks for, until drained.
pub struct Compactor {
    config: Config,
    /// What merges may hold.
    memory: Share,
    store: Store,
    metastore: Arc<dyn rpc::Metastore>,
    clock: Clock,
    pool: Pool,
    metrics: Metrics,
    stop: watch::Sender<bool>,
}

impl Compactor {
    /// `memory` is what merges may hold.
    pub fn new(
        config: Config,
        memory: Share,
        store: Store,
        metastore: Arc<dyn rpc::Metastore>,
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

    /// Takes no more work. A merge that runs is left to its end or to the process's; nothing depends on it.
    pub async fn drain(&self) {
        self.stop.send_replace(true);
    }

    /// Waits; false if it is time to stop.
    async fn pause(&self, duration: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        self.clock.timeout(duration, stop.wait_for(|stop| *stop)).await.is_none()
    }
}
