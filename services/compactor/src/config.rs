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
    /// Most decoded contents of inputs that one merge keeps, in bytes. Larger: fewer requests for large inputs.
    pub cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            sweep_interval: Duration::from_secs(30),
            cache_bytes: 8 << 20,
        }
    }
}
