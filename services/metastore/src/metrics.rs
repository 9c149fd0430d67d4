use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::state::{State, What};

#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) segments: Counter,
    pub(crate) segments_unreadable: Counter,
    pub(crate) items_masked: Counter,
    pub(crate) commits: Counter,
    pub(crate) jobs_claimed: Counter,
    pub(crate) jobs_published: Counter,
    pub(crate) jobs_failed: Counter,
    pub(crate) objects_expired: Counter,
    pub(crate) objects_orphaned: Counter,
    pub(crate) objects_missing: Counter,
    pub(crate) reconciliations: Counter,
    segments_live: Gauge,
    blocks_live: Gauge,
    objects_dead: Gauge,
    objects_quarantined: Gauge,
    dedup_keys: Gauge,
    dedup_bytes: Gauge,
    pub(crate) dedup_window: Gauge<f64, AtomicU64>,
    pub(crate) merge_lag: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("pyrograph_metastore_{name}"), help, counter.clone());
        };
        counter("segments", "Segments consumed", &metrics.segments);
        counter(
            "segments_unreadable",
            "Slots of logs that hold no readable segment",
            &metrics.segments_unreadable,
        );
        counter("items_masked", "Push items that were counted elsewhere", &metrics.items_masked);
        counter("commits", "Commits of the catalog", &metrics.commits);
        counter("jobs_claimed", "Attempts of jobs handed to compactors", &metrics.jobs_claimed);
        counter("jobs_published", "Jobs whose outputs became live", &metrics.jobs_published);
        counter("jobs_failed", "Attempts that compactors gave up", &metrics.jobs_failed);
        counter("objects_expired", "Objects whose retention ended", &metrics.objects_expired);
        counter(
            "objects_orphaned",
            "Objects that nothing named when the bucket was compared with the catalog",
            &metrics.objects_orphaned,
        );
        counter(
            "objects_missing",
            "Objects that were named and gone when the bucket was compared with the catalog",
            &metrics.objects_missing,
        );
        counter(
            "reconciliations",
            "Comparisons of the bucket with the catalog that were finished",
            &metrics.reconciliations,
        );
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(format!("pyrograph_metastore_{name}"), help, gauge.clone());
        };
        gauge("live_segments", "Segments that are not merged yet", &metrics.segments_live);
        gauge("live_blocks", "Blocks that finds may name", &metrics.blocks_live);
        gauge("dead_objects", "Objects that wait to be deleted", &metrics.objects_dead);
        gauge(
            "quarantined_objects",
            "Objects that cannot be read: answers over them are partial",
            &metrics.objects_quarantined,
        );
        gauge("dedup_keys", "Keys of push items within the window", &metrics.dedup_keys);
        gauge("dedup_bytes", "Memory of those keys", &metrics.dedup_bytes);
        let window = metrics.dedup_window.clone();
        registry.register(
            "pyrograph_metastore_dedup_window_seconds",
            "Age of the oldest key that is remembered",
            window,
        );
        let lag = metrics.merge_lag.clone();
        registry.register(
            "pyrograph_metastore_merge_lag_seconds",
            "Age of the oldest segment that is not merged",
            lag,
        );
        metrics
    }

    pub(crate) fn observe(&self, state: &State) {
        let segments = state.live.values().filter(|l| matches!(l.what, What::Segment { .. })).count();
        self.segments_live.set(segments as i64);
        self.blocks_live.set((state.live.len() - segments) as i64);
        self.objects_dead.set(state.dead.len() as i64);
        self.objects_quarantined.set(state.quarantined.len() as i64);
        self.dedup_keys.set(state.dedup.len() as i64);
        self.dedup_bytes.set(state.dedup.byte_len() as i64);
    }
}
