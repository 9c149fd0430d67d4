//! Answers queries: find objects, plan, scan, merge.
//!
//! Owns: the public query API, which queries may run at once, which leaf scans which objects, merging.
//! Does not own: which objects exist (`rpc::ObjectIndex`), how one dataset answers (`query`), how
//! an object is read (`block`).
//!
//! A query uses one snapshot of the catalog. If an object of the snapshot is gone, a merge has replaced
//! it, and the query starts over, once, with a new snapshot.

mod admit;
mod client;
mod config;
mod damage;
mod dispatch;
mod error;
mod execute;
mod explain;
mod hedge;
mod http;
mod leaf;
mod leaves;
mod metrics;
mod reason;
mod trace;
mod units;

pub use client::Client;
pub use config::Config;
pub use error::Error;
pub use execute::{MergedAnswer, Report};
pub use leaf::Leaf;
pub use leaves::{FixedLeaves, Leaves, NamedLeaf};
pub use metrics::Metrics;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clock::{Clock, Pool};
use limits::Overrides;
use memory::Share;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::admit::Admission;
use crate::damage::Damage;
use crate::hedge::Hedging;

/// More than the number of queries that ever run at once.
const MEMORY_SLOTS: u32 = 1 << 16;

/// The root of every query: every querier is one, and leaves scan for it.
pub struct Querier {
    config: Config,
    /// Limits all queries of this process together.
    memory: Share,
    /// A query that needs memory holds one slot, or all of them if it found no memory while others ran.
    memory_slots: Semaphore,
    metastore: Arc<dyn rpc::ObjectIndex>,
    leaves: Arc<dyn Leaves>,
    limits: Arc<Overrides>,
    /// For merging and finishing answers.
    pool: Pool,
    clock: Clock,
    admission: Admission,
    hedging: Hedging,
    damage: Damage,
    /// Largest epoch of the owners of the catalog that answered.
    newest_epoch: AtomicU64,
    metrics: Metrics,
}

impl Querier {
    /// `leaves` scan the objects that this root finds; each object goes to the same leaf as long as that leaf exists.
    /// `memory` limits all queries of this process together.
    #[allow(clippy::too_many_arguments, reason = "all have distinct types, so none can be mixed up")]
    pub fn new(
        config: Config,
        memory: Share,
        metastore: Arc<dyn rpc::ObjectIndex>,
        leaves: Arc<dyn Leaves>,
        limits: Arc<Overrides>,
        pool: Pool,
        clock: Clock,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let admission = Admission::new(&config);
        let memory_slots = Semaphore::new(MEMORY_SLOTS as usize);
        let metrics = Metrics::new(registry);
        let (hedging, newest_epoch) = (Hedging::new(), AtomicU64::new(0));
        let damage = Damage::new(clock.clone());
        Arc::new(Self {
            config,
            memory,
            memory_slots,
            metastore,
            leaves,
            limits,
            pool,
            clock,
            admission,
            hedging,
            damage,
            newest_epoch,
            metrics,
        })
    }

    /// The query API and the plain routes of older clients.
    pub fn routes(self: Arc<Self>) -> edge::Routes {
        http::routes(self)
    }
}
