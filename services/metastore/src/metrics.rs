//! Metrics of a metastore. Counts and lags of the catalog are 0 in all processes but the owner.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::plan::LEVELS;
use crate::state::State;

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LevelLabels {
    /// Level of objects; 0 for segments.
    level: u8,
}

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) is_owner: Gauge,
    pub(crate) takeovers: Counter,
    pub(crate) fenced: Counter,
    pub(crate) segments: Counter,
    pub(crate) segments_unreadable: Counter,
    pub(crate) items_masked: Counter,
    pub(crate) commits: Counter,
    pub(crate) jobs_claimed: Counter,
    pub(crate) jobs_published: Counter,
    pub(crate) jobs_failed: Counter,
    pub(crate) attempts_lapsed: Counter,
    pub(crate) objects_expired: Counter,
    pub(crate) datasets_expired: Counter,
    pub(crate) objects_orphaned: Counter,
    pub(crate) objects_missing: Counter,
    pub(crate) reconciliations: Counter,
    pub(crate) deletions: Counter,
    pub(crate) comparison_stopped: Gauge,
    segments_live: Gauge,
    blocks_live: Gauge,
    bytes_live: Family<LevelLabels, Gauge>,
    rows_live: Family<LevelLabels, Gauge>,
    objects_dead: Gauge,
    objects_quarantined: Gauge,
    deletions_in_force: Gauge,
    dedup_keys: Gauge,
    dedup_bytes: Gauge,
    pub(crate) dedup_window: Seconds,
    merge_lag: Family<LevelLabels, Seconds>,
    consume_lag: Seconds,
    oldest_dead: Seconds,
    oldest_deletion: Seconds,
    pub(crate) commit_seconds: Duration,
    pub(crate) find_seconds: Duration,
}

/// A histogram of seconds, from 0.1 ms to 1.6 s.
#[derive(Clone)]
pub(crate) struct Duration(Histogram);

impl Default for Duration {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.0001, 2.0, 15)))
    }
}

impl Duration {
    pub(crate) fn observe(&self, took: std::time::Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_counters(registry);
        metrics.register_gauges(registry);
        metrics.register_levels(registry);
        registry.register(
            "pyrograph_metastore_commit_duration_seconds",
            "Duration of a commit of the catalog",
            metrics.commit_seconds.0.clone(),
        );
        registry.register(
            "pyrograph_metastore_find_duration_seconds",
            "Duration of a find",
            metrics.find_seconds.0.clone(),
        );
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        let counters = [
            ("segments", "Segments consumed", &self.segments),
            ("segments_unreadable", "Slots of logs without a readable segment", &self.segments_unreadable),
            ("items_masked", "Push items that were already counted", &self.items_masked),
            ("takeovers", "Times this process became the owner of the catalog", &self.takeovers),
            ("fenced", "Times another process took the catalog from this one", &self.fenced),
            ("commits", "Commits of the catalog", &self.commits),
            ("jobs_claimed", "Attempts of jobs that compactors have claimed", &self.jobs_claimed),
            ("jobs_published", "Jobs whose outputs became live", &self.jobs_published),
            ("jobs_failed", "Attempts that compactors gave up", &self.jobs_failed),
            (
                "attempts_lapsed",
                "Attempts that were neither published nor given up in time",
                &self.attempts_lapsed,
            ),
            ("objects_expired", "Objects whose retention ended", &self.objects_expired),
            (
                "datasets_expired",
                "Datasets whose retention ended before that of others in the same object",
                &self.datasets_expired,
            ),
            (
                "objects_orphaned",
                "Objects found unneeded when the bucket was compared with the catalog",
                &self.objects_orphaned,
            ),
            (
                "objects_missing",
                "Objects found missing when the bucket was compared with the catalog",
                &self.objects_missing,
            ),
            ("reconciliations", "Finished comparisons of the bucket with the catalog", &self.reconciliations),
            ("delete_orders", "Deletions made", &self.deletions),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("pyrograph_metastore_{name}"), help, counter.clone());
        }
    }

    fn register_gauges(&self, registry: &mut Registry) {
        let gauges = [
            ("owner", "1 if this process owns the catalog", &self.is_owner),
            ("live_segments", "Segments not merged yet", &self.segments_live),
            ("live_blocks", "Live blocks", &self.blocks_live),
            (
                "comparison_stopped",
                "1 if the last comparison found too many blocks without a publish record and deleted none",
                &self.comparison_stopped,
            ),
            ("dead_objects", "Dead objects that are not deleted yet", &self.objects_dead),
            (
                "quarantined_objects",
                "Objects that cannot be read: answers over them are partial",
                &self.objects_quarantined,
            ),
            (
                "delete_orders_in_force",
                "Deletions whose data may still be in the bucket",
                &self.deletions_in_force,
            ),
            ("dedup_keys", "Keys of push items within the window", &self.dedup_keys),
            ("dedup_bytes", "Memory of the keys of push items", &self.dedup_bytes),
        ];
        for (name, help, gauge) in gauges {
            registry.register(format!("pyrograph_metastore_{name}"), help, gauge.clone());
        }
        let seconds = [
            ("dedup_window", "Age of the oldest remembered key of a push item", &self.dedup_window),
            ("consume_lag", "All segments older than this have been consumed", &self.consume_lag),
            ("oldest_dead_object", "Time since the oldest dead object died", &self.oldest_dead),
            (
                "oldest_delete_order",
                "Age of the oldest deletion whose data may still be in the bucket",
                &self.oldest_deletion,
            ),
        ];
        for (name, help, gauge) in seconds {
            registry.register(format!("pyrograph_metastore_{name}_seconds"), help, gauge.clone());
        }
    }

    fn register_levels(&self, registry: &mut Registry) {
        for (name, help, gauges) in [
            ("live_bytes", "Bytes of live objects by level, 0 for segments", &self.bytes_live),
            ("live_rows", "Samples in live objects by level, 0 for segments", &self.rows_live),
        ] {
            registry.register(format!("pyrograph_metastore_{name}"), help, gauges.clone());
        }
        registry.register(
            "pyrograph_metastore_merge_lag_seconds",
            "Waiting time of the oldest merge into blocks of a level: 1 from segments, 2 in an hour, 3 in a day",
            self.merge_lag.clone(),
        );
    }

    /// Sets all metrics that only an owner knows to 0, so that the largest over all processes is the owner's.
    pub(crate) fn no_longer_owner(&self) {
        let counts = [
            &self.is_owner,
            &self.segments_live,
            &self.blocks_live,
            &self.objects_dead,
            &self.objects_quarantined,
            &self.deletions_in_force,
            &self.comparison_stopped,
            &self.dedup_keys,
            &self.dedup_bytes,
        ];
        for count in counts {
            count.set(0);
        }
        for lag in [&self.dedup_window, &self.consume_lag, &self.oldest_dead, &self.oldest_deletion] {
            lag.set(0.0);
        }
        self.merge_lag.clear();
        self.bytes_live.clear();
        self.rows_live.clear();
    }

    /// Updates the counts of the state.
    pub(crate) fn count(&self, state: &State) {
        self.segments_live.set(state.live().segment_count() as i64);
        self.blocks_live.set(state.live().block_count() as i64);
        for (level, total) in state.live().totals() {
            let labels = LevelLabels { level };
            self.bytes_live.get_or_create(&labels).set(total.bytes as i64);
            self.rows_live.get_or_create(&labels).set(total.rows as i64);
        }
        self.objects_dead.set(state.dead().len() as i64);
        self.objects_quarantined.set(state.quarantined_count() as i64);
        self.deletions_in_force.set(state.deletions.len() as i64);
        self.dedup_keys.set(state.dedup().len() as i64);
        self.dedup_bytes.set(state.dedup().byte_len() as i64);
    }

    /// Updates the lags; `merge_millis` by level, from 1 on.
    pub(crate) fn lags(&self, state: &State, merge_millis: [i64; LEVELS], unix_millis: i64) {
        let seconds = |millis: i64| millis.max(0) as f64 / 1e3;
        for (level, millis) in (1..).zip(merge_millis) {
            self.merge_lag.get_or_create(&LevelLabels { level }).set(seconds(millis));
        }
        self.consume_lag.set(seconds(unix_millis - state.watermark(unix_millis)));
        let oldest = state.dead().oldest_millis().unwrap_or(unix_millis);
        self.oldest_dead.set(seconds(unix_millis - oldest));
        let oldest = state.deletions.unfinished_since_millis().unwrap_or(unix_millis);
        self.oldest_deletion.set(seconds(unix_millis - oldest));
    }
}
