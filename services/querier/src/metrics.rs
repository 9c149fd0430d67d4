//! Metrics of queries: how many, how long, how much they read, how often leaves were asked again.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use query::Stats;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Metrics of queries.
#[derive(Clone)]
pub struct Metrics {
    queries: Family<Outcome, Counter>,
    seconds: Family<KindLabel, Histogram>,
    running: Gauge,
    bytes: Counter,
    samples: Counter,
    profiles: Counter,
    retries: Counter,
    partial: Counter,
    stale: Counter,
    elsewhere: Counter,
    hedges: Counter,
    hedges_won: Counter,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                ])
            }),
            running: Gauge::default(),
            bytes: Counter::default(),
            samples: Counter::default(),
            profiles: Counter::default(),
            retries: Counter::default(),
            partial: Counter::default(),
            stale: Counter::default(),
            elsewhere: Counter::default(),
            hedges: Counter::default(),
            hedges_won: Counter::default(),
        };
        let Self { queries, seconds, running, bytes, samples, profiles, retries, partial, .. } = &metrics;
        let registry = registry.sub_registry_with_prefix("pyrograph_querier");
        registry.register("queries", "Queries by kind and outcome", queries.clone());
        registry.register("query_seconds", "Time from query to answer", seconds.clone());
        registry.register("queries_running", "Queries that run now", running.clone());
        registry.register("read_bytes", "Encoded bytes that queries used", bytes.clone());
        registry.register("scanned_samples", "Samples that queries scanned", samples.clone());
        registry.register("matched_profiles", "Profiles that queries matched", profiles.clone());
        registry.register("query_retries", "Queries started over with a new snapshot", retries.clone());
        registry.register(
            "queries_partial",
            "Answers that miss objects, because these could not be read",
            partial.clone(),
        );
        registry.register(
            "queries_stale",
            "Answers from a catalog that had no owner or lagged behind",
            metrics.stale.clone(),
        );
        registry.register(
            "units_asked_elsewhere",
            "Units asked of another leaf because the first failed",
            metrics.elsewhere.clone(),
        );
        registry.register(
            "units_hedged",
            "Units asked of another leaf as well because the first was slow",
            metrics.hedges.clone(),
        );
        registry.register(
            "units_hedges_won",
            "Hedged units that the other leaf answered first",
            metrics.hedges_won.clone(),
        );
        metrics
    }

    pub(crate) fn started(&self) -> RunningGuard<'_> {
        self.running.inc();
        RunningGuard(&self.running)
    }

    pub(crate) fn finished(&self, kind: &'static str, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "error" };
        self.queries.get_or_create(&Outcome { kind, outcome }).inc();
        self.seconds.get_or_create(&KindLabel { kind }).observe(took.as_secs_f64());
    }

    pub(crate) fn used(&self, stats: &Stats) {
        self.bytes.inc_by(stats.bytes);
        self.samples.inc_by(stats.samples);
        self.profiles.inc_by(stats.profiles);
    }

    pub(crate) fn stale(&self) {
        self.stale.inc();
    }

    pub(crate) fn asked_elsewhere(&self) {
        self.elsewhere.inc();
    }

    pub(crate) fn hedged(&self) {
        self.hedges.inc();
    }

    pub(crate) fn hedge_won(&self) {
        self.hedges_won.inc();
    }

    pub(crate) fn started_over(&self) {
        self.retries.inc();
    }

    pub(crate) fn partial(&self) {
        self.partial.inc();
    }
}

/// A query that runs. Its drop counts it down, also when the client goes away.
pub(crate) struct RunningGuard<'a>(&'a Gauge);

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
