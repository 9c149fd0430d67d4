use limits::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How blocks are merged and dead objects deleted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between requests for a job while there is none.
    pub poll_interval: Duration,
    /// Time between deletions of dead objects. Longer: fewer wake-ups. Shorter: smoother load on the store.
    pub sweep_interval: Duration,
    /// Most memory of a merge, in bytes. A merge that does not fit is done in parts; a job with a single dataset that
    /// does not fit is left to another compactor. 0: a share of `server.memory_limit_bytes`.
    pub max_memory_bytes: u64,
    /// Most decoded input data that one merge keeps, in bytes. Larger: fewer requests for large inputs.
    pub cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            sweep_interval: Duration::from_secs(30),
            max_memory_bytes: 0,
            cache_bytes: 8 << 20,
        }
    }
}
