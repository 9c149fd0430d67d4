use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How questions are answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Questions that run at once; more wait. More: better use of many cores, more memory.
    pub max_concurrent: usize,
    /// Questions that wait for their turn; more are refused with 429.
    pub max_waiting: usize,
    /// Longest time a question may take, waiting included.
    pub query_timeout: limits::Duration,
    /// Objects that one question reads at once. More: quicker on a store with latency, more memory.
    pub max_parallel_objects: usize,
    /// Encoded bytes that all questions of this process together read and hold while they scan.
    pub max_inflight_bytes: u64,
    /// What was read before is kept, decoded, up to so many bytes.
    pub cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent: 16,
            max_waiting: 256,
            query_timeout: limits::Duration::from_secs(60),
            max_parallel_objects: 16,
            max_inflight_bytes: 256 << 20,
            cache_bytes: 128 << 20,
        }
    }
}
