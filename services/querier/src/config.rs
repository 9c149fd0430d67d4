use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How queries are answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Queries that run at once, at most three quarters of them of one tenant; others wait. More: better use of many cores, more memory.
    pub max_concurrent: usize,
    /// Queries of one tenant that wait; more are refused with 429.
    pub max_waiting: usize,
    /// Estimated bytes that the running queries of one tenant read together; queries above it wait. A query that
    /// exceeds it alone runs without others of its tenant.
    pub max_tenant_inflight_bytes: u64,
    /// Longest time that a query may take, waiting included.
    pub query_timeout: limits::Duration,
    /// Objects that one query reads at once. More: quicker on a store with latency, more memory.
    pub max_parallel_objects: usize,
    /// Bytes that all queries of this process together may hold: data that they read, partial answers, and answers
    /// until they are sent. A query that finds no memory while others run starts again without them; if there is still not
    /// enough, it is refused with 429. 0: the share of `server.memory_limit_bytes` that other roles leave.
    pub max_memory_bytes: u64,
    /// Decoded bytes that all scans of this process hold together; never more than half of `max_memory_bytes`.
    pub max_inflight_bytes: u64,
    /// Size of the cache of decoded parts of objects, in memory. Less than the default where the share of
    /// `server.memory_limit_bytes` is less.
    pub cache_bytes: u64,
    /// Local directory for a cache of encoded parts of objects, used by this process alone; empty: none. Losing it loses no data.
    pub disk_cache_dir: String,
    /// Size of the cache in `disk_cache_dir`. Files older than a day are deleted as well.
    pub disk_cache_bytes: u64,
    /// Answer whole windows of time from the sums that blocks keep. Off: reads every row for the same answer, to compare.
    pub rollups_enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent: 16,
            max_waiting: 256,
            max_tenant_inflight_bytes: 4 << 30,
            query_timeout: limits::Duration::from_secs(60),
            max_parallel_objects: 16,
            max_memory_bytes: 0,
            max_inflight_bytes: 1 << 30,
            cache_bytes: 128 << 20,
            disk_cache_dir: String::new(),
            disk_cache_bytes: 10 << 30,
            rollups_enabled: true,
        }
    }
}
