use limits::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How blocks are merged and dead objects deleted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Between questions for work while there is none.
    pub poll_interval: Duration,
    /// Between deletions of what is dead. Longer: fewer wake-ups. Shorter: smoother load on the store.
    pub sweep_interval: Duration,
    /// Bytes that a merge may hold. What does not fit at once is merged in parts; a job of which a single dataset does
    /// not fit is left to another compactor. 0: a share of `server.memory_limit_bytes`.
    pub max_memory_bytes: u64,
    /// Most decoded contents of inputs that one merge keeps, in bytes. Larger: fewer requests for large inputs.
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
