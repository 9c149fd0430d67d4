use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How questions are answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Questions that run at once, at most three quarters of them of one tenant; more wait. More: better use of many cores, more memory.
    pub max_concurrent: usize,
    /// Questions of one tenant that wait for their turn; more are refused with 429.
    pub max_waiting: usize,
    /// Estimated bytes that the running questions of one tenant are to read together; what comes over it waits. A
    /// question that alone is over it runs without others of its tenant.
    pub max_tenant_inflight_bytes: u64,
    /// Longest time a question may take, waiting included.
    pub query_timeout: limits::Duration,
    /// Objects that one question reads at once. More: quicker on a store with latency, more memory.
    pub max_parallel_objects: usize,
    /// Bytes that all questions of this process together may hold: what they read, what they make of it, and answers
    /// until they are sent. One that finds no room beside others runs again without them; one that finds none then
    /// is refused with 429. 0: a share of `server.memory_limit_bytes`, which is what other roles leave.
    pub max_memory_bytes: u64,
    /// Bytes, decoded, that all questions of this process together read and hold while they scan; never more than half
    /// of `max_memory_bytes`.
    pub max_inflight_bytes: u64,
    /// What was read before is kept, decoded, up to so many bytes. Less than the default where the share of
    /// `server.memory_limit_bytes` is less.
    pub cache_bytes: u64,
    /// A local directory, of this process alone, for what was read before, encoded; empty: none. Nothing is lost with it.
    pub disk_cache_dir: String,
    /// Up to so many bytes. A file that is older than a day goes, too.
    pub disk_cache_bytes: u64,
    /// Answer whole windows of time from the sums that blocks keep. Off: every row is read, for the same answer; to compare.
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
