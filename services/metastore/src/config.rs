//! The `metastore` part of the configuration.

use limits::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the catalog is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest time between consuming a segment and committing its rows. Longer: fewer writes, more to read again after a crash.
    pub commit_interval: Duration,
    /// Shortest time between two probes of a log whose writer sends no hints. Such a log is probed after an eighth of
    /// the time since its last slot, at least this, at most `probe_interval_silent`.
    pub probe_interval: Duration,
    /// Longest time between two probes of a log. A log whose writer sends hints is always probed at this interval.
    pub probe_interval_silent: Duration,
    /// Between listings for unknown logs.
    pub list_interval: Duration,
    /// A log is closed after this long without a new slot. Its writer, if alive, opens another.
    pub seal_after: Duration,
    /// … if every ingester of the cluster reports its open logs, and none has this one.
    pub seal_unclaimed_after: Duration,
    /// A metastore takes the catalog over when every one before it has been silent for this long. Shorter: fresh
    /// data are found sooner after a crash. Longer: no takeover while a machine is only slow.
    pub takeover_after: Duration,
    /// Equal pushes count once if they come within this time.
    pub dedup_window: Duration,
    /// Added to the window for clocks that differ.
    pub dedup_slack: Duration,
    /// Most keys of the window held in memory, at about 20 bytes each; above it the window shrinks.
    pub dedup_keys_max: usize,
    /// Segments are merged when the oldest is this old. Longer: fewer, larger merges, slower queries of fresh data.
    pub merge_after: Duration,
    /// … or when they have this many bytes, which is also the most that one merge takes. Larger: fewer blocks, more
    /// memory. Less than the default if this process merges, too, and its share of `server.memory_limit_bytes` is
    /// small.
    pub merge_bytes: u64,
    /// Most bytes of blocks that one merge takes. Less than the default if this process merges, too, and its share of
    /// `server.memory_limit_bytes` is small.
    pub job_bytes_max: u64,
    /// An hour or day takes late data for this long after its end before it counts as closed.
    pub close_after: Duration,
    /// Blocks of one window are merged when none came for this long.
    pub settle_after: Duration,
    /// An attempt that did not publish within this time is given to another compactor.
    pub attempt_time: Duration,
    /// Dead objects stay readable for this long, for queries that began before their death.
    pub sweep_grace: Duration,
    /// Between looks for expired data.
    pub retention_interval: Duration,
    /// Between comparisons of the bucket with the catalog. Longer: fewer listings. Shorter: unneeded objects are
    /// deleted sooner.
    pub reconcile_interval: Duration,
    /// An unneeded object is deleted at this age. Must be longer than any merge, and than the difference between
    /// clocks.
    pub orphan_grace: Duration,
    /// A comparison that finds more bytes of blocks without a publish record than this percentage of the live bytes,
    /// and than 4 MiB, deletes none of them and logs an error. 100 deletes them always.
    pub orphan_percent_max: u8,
}

impl Default for Config {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            commit_interval: secs(1),
            probe_interval: secs(1),
            probe_interval_silent: secs(4),
            list_interval: secs(10),
            seal_after: secs(10 * 60),
            seal_unclaimed_after: secs(30),
            takeover_after: secs(4),
            dedup_window: secs(60 * 60),
            dedup_slack: secs(15 * 60),
            dedup_keys_max: 8_000_000,
            merge_after: secs(30),
            merge_bytes: 32 << 20,
            job_bytes_max: 128 << 20,
            close_after: secs(10 * 60),
            settle_after: secs(2 * 60),
            attempt_time: secs(5 * 60),
            sweep_grace: secs(15 * 60),
            retention_interval: secs(10 * 60),
            reconcile_interval: secs(24 * 3_600),
            orphan_grace: secs(24 * 3_600),
            orphan_percent_max: 5,
        }
    }
}

impl Config {
    /// How long a key is remembered, in milliseconds: the window and its slack.
    pub(crate) fn dedup_millis(&self) -> i64 {
        (self.dedup_window.get() + self.dedup_slack.get()).as_millis() as i64
    }
}
