//! The ingester's metrics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) push_seconds: Histogram,
    pub(crate) refusals: Family<ReasonLabels, Counter>,
    pub(crate) segment_bytes: Histogram,
    pub(crate) segment_items: Histogram,
    pub(crate) flush_seconds: Family<StageLabels, Histogram>,
    pub(crate) inflight_bytes: Gauge,
    pub(crate) abandoned_logs: Family<ReasonLabels, Counter>,
    pub(crate) unheard_hints: Counter,
}

/// One stage of a flush.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "a variant's name is the label's value")]
pub(crate) enum Stage {
    encode,
    put,
    hint,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct StageLabels {
    pub(crate) stage: Stage,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, inflight_bytes_max: usize) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let metrics = Self {
            push_seconds: seconds(),
            refusals: Family::default(),
            segment_bytes: Histogram::new(exponential_buckets(4096.0, 4.0, 8)),
            segment_items: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            flush_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
            inflight_bytes: Gauge::default(),
            abandoned_logs: Family::default(),
            unheard_hints: Counter::default(),
        };
        let limit: Gauge = Gauge::default();
        limit.set(inflight_bytes_max as i64);
        registry.register(
            "pyrograph_ingester_push_duration_seconds",
            "Time from a push's arrival until it was durable and acknowledged",
            metrics.push_seconds.clone(),
        );
        registry.register(
            "pyrograph_ingester_refusals",
            "Pushes that were not acknowledged, by reason",
            metrics.refusals.clone(),
        );
        registry.register(
            "pyrograph_ingester_segment_bytes",
            "Size of the segments put into the log",
            metrics.segment_bytes.clone(),
        );
        registry.register(
            "pyrograph_ingester_segment_items",
            "Distinct push items per segment",
            metrics.segment_items.clone(),
        );
        registry.register(
            "pyrograph_ingester_flush_duration_seconds",
            "Time that each stage of a flush took",
            metrics.flush_seconds.clone(),
        );
        registry.register(
            "pyrograph_ingester_inflight_bytes",
            "Memory charged to pushes that are not acknowledged yet",
            metrics.inflight_bytes.clone(),
        );
        registry.register(
            "pyrograph_ingester_inflight_limit_bytes",
            "Memory that pushes which are not acknowledged may be charged; more are refused",
            limit,
        );
        registry.register(
            "pyrograph_ingester_abandoned_logs",
            "Logs that this writer gave up for a new one, by reason",
            metrics.abandoned_logs.clone(),
        );
        registry.register(
            "pyrograph_ingester_unheard_hints",
            "Segments acknowledged before the metastore had answered that it knows them",
            metrics.unheard_hints.clone(),
        );
        metrics
    }

    pub(crate) fn stage(&self, stage: Stage, took: std::time::Duration) {
        self.flush_seconds.get_or_create(&StageLabels { stage }).observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn abandoned(&self, reason: &'static str) {
        self.abandoned_logs.get_or_create(&ReasonLabels { reason }).inc();
    }
}
