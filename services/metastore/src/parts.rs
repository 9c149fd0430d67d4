//! The parts that an owner is made of.

use std::sync::Arc;

use catalog::{Engine, NumberedCatalog, numbered};
use clock::Clock;
use cluster::Membership;
use storage::Store;

use crate::config::Config;
use crate::header::{Bucket, Headers};
use crate::metrics::Metrics;
use crate::retention::Retention;

/// The parts of a metastore that tests replace.
#[derive(Clone)]
pub struct Parts {
    pub headers: Arc<dyn Headers>,
    pub engine: Arc<dyn Engine>,
    pub is_alone: bool,
}

impl Parts {
    /// The parts of a real process. Old files of the catalog are kept for as long as dead objects.
    pub fn with(config: &Config, store: &Store, clock: &Clock) -> Self {
        let collect_after = config.sweep_grace.get();
        let look_within = collect_after * 7 / 15;
        let options = numbered::Options { collect_after, look_within, ..numbered::Options::default() };
        Self {
            headers: Arc::new(Bucket::new(store.clone())),
            engine: Arc::new(NumberedCatalog::new(store.clone(), clock.clone(), options)),
            is_alone: store.is_exclusive(),
        }
    }
}

/// All parts of an owner, besides its catalog and state.
pub(crate) struct Resources {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) parts: Parts,
    pub(crate) retention: Retention,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Names the logs that live ingesters write to; `None` if members do not discover each other.
    pub(crate) membership: Option<Arc<dyn Membership>>,
}
