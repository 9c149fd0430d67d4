//! Answers a question: find objects, plan, scan, merge.
//!
//! Owns: the public query API, which questions may run at once, which leaf scans what, merging.
//! Does not own: which objects exist (`rpc::Metastore`), how one dataset answers (`query`), how
//! an object is read (`block`).
//!
//! A question uses one snapshot of the catalog. If an object of it is gone, a merge has replaced it
//! since, and the question starts over, once, with a new snapshot.

mod admit;
mod asker;
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
mod units;

pub use asker::Asker;
pub use config::Config;
pub use error::Error;
pub use execute::{Answered, Report};
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

/// More than questions ever run at once.
const PLACES: u32 = 1 << 16;

/// The root of every question: any querier is one, and hands the scanning to leaves.
pub struct Querier {
    config: Config,
    /// What all questions of this process may hold.
    memory: Share,
    /// A question that needs memory has one of them, or all if it found no room beside others.
    places: Semaphore,
    metastore: Arc<dyn rpc::Metastore>,
    leaves: Arc<dyn Leaves>,
    limits: Arc<Overrides>,
    /// Finishing an answer computes, too.
    pool: Pool,
    clock: Clock,
    admission: Admission,
    hedging: Hedging,
    damage: Damage,
    /// Highest of a catalog's owner that answered.
    newest_epoch: AtomicU64,
    metrics: Metrics,
}

impl Querier {
    /// `leaves` scan what this root finds; each object is given to the same one while that one is there. `memory` is
    /// what all questions of this process may hold.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        config: Config,
        memory: Share,
        metastore: Arc<dyn rpc::Metastore>,
        leaves: Arc<dyn Leaves>,
        limits: Arc<Overrides>,
        pool: Pool,
        clock: Clock,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let admission = Admission::new(&config);
        let places = Semaphore::new(PLACES as usize);
        let metrics = Metrics::new(registry);
        let (hedging, newest_epoch) = (Hedging::new(), AtomicU64::new(0));
        let damage = Damage::new(clock.clone());
        Arc::new(Self {
            config,
            memory,
            places,
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
