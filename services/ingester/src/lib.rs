//! Makes pushes durable: gathers them in an open segment, uploads it to this writer's own log, and
//! answers once everything up to it is there.

mod config;

use std::sync::Arc;

use async_trait::async_trait;
use clock::{Clock, Pool};
use model::PushItem;
use prometheus_client::registry::Registry;
use storage::Store;

pub use config::Config;

/// The open segment and the log it goes to.
pub struct Ingester {}

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
        let _ = (config, store, metastore, clock, pool, registry);
        Arc::new(Self {})
    }

    /// Refuses further pushes, makes durable what waits, seals the log. Idempotent.
    pub async fn drain(&self) {}
}

#[async_trait]
impl rpc::Ingester for Ingester {
    async fn push(&self, _items: Vec<PushItem>) -> Result<(), rpc::Error> {
        Err(rpc::Error::new(rpc::ErrorKind::Unavailable, "ingester is not ready"))
    }
}
