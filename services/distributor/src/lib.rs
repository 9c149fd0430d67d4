//! Accepts profiles and makes them uniform.
//!
//! Owns: the HTTP and gRPC interfaces (`http`), the limits of tenants, and every step between the bytes of a
//! profile and the items for an ingester.
//! Does not own: the formats' bytes (`formats`), connections and tenants (`edge`), durability (`rpc::Ingester`).
//!
//! An answer of success means that each profile of the request is durable, or had no sample to count. Samples that
//! were left out of an accepted profile are counted by reason in the answer (`receipt`).

mod config;
mod document;
mod error;
mod go_stacks;
mod http;
mod key;
mod labels;
mod metrics;
mod normalise;
mod push;
mod receipt;
mod recording;
mod source_code;
mod split;
mod validate;

use std::sync::Arc;

use clock::{Clock, Pool};
use limits::{ActiveSeries, Overrides, RateLimiter};
use memory::Budget;
use prometheus_client::registry::Registry;

pub use config::Config;

/// The role. It keeps no state that must survive a restart.
pub struct Distributor {
    config: Config,
    limits: Arc<Overrides>,
    rates: RateLimiter,
    series: ActiveSeries,
    /// Memory of all requests in flight.
    budget: Budget,
    ingester: Arc<dyn rpc::Ingester>,
    clock: Clock,
    pool: Pool,
    metrics: metrics::Metrics,
}

impl Distributor {
    pub fn new(
        config: Config,
        limits: Arc<Overrides>,
        ingester: Arc<dyn rpc::Ingester>,
        clock: Clock,
        pool: Pool,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = metrics::Metrics::new(config.inflight_bytes_max, clock.clone(), registry);
        let budget = Budget::admitting_lone(config.inflight_bytes_max, metrics.inflight_bytes.clone());
        let (rates, series) = (RateLimiter::new(), ActiveSeries::new());
        Arc::new(Self { config, limits, rates, series, budget, ingester, clock, pool, metrics })
    }

    /// `push.v1.PusherService` and `POST /ingest`.
    pub fn routes(self: Arc<Self>) -> edge::Routes {
        edge::Routes::new().merge(http::push::routes(self.clone())).merge(http::ingest::routes(self))
    }
}
