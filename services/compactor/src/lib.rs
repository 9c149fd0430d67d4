//! Turns many small segments into few blocks, and deletes what is dead.
//!
//! Owns: running merges, writing their outputs, deleting objects.
//! Does not own: what is merged or deleted, and whether an output counts (`metastore`).

mod config;

use std::sync::Arc;

use clock::{Clock, Pool};
use prometheus_client::registry::Registry;
use storage::Store;

pub use config::Config;

/// Works on what the metastore asks for, until drained.
pub struct Compactor {}

impl Compactor {
    pub fn build(
        config: Config,
        metastore: Arc<dyn rpc::Metastore>,
        store: Store,
        clock: Clock,
        pool: Pool,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let _ = (config, metastore, store, clock, pool, registry);
        Arc::new(Self {})
    }

    /// Merges and sweeps until [`Self::drain`].
    pub async fn run(self: Arc<Self>) {}

    /// Takes no more work.
    pub async fn drain(&self) {}
}
