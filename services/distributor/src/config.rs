use limits::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the distributor defends itself and how long it waits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What decoded profiles may hold, from decoding until the ingester made them durable, in bytes. More: larger
    /// bursts are taken. Less: a burst is sooner told to come again. Default 512 MiB, or the share of
    /// `server.memory_limit_bytes` if that is less.
    pub inflight_bytes_max: usize,
    /// How long a push may wait to become durable. Longer than the 8 s after which an ingester gives up a put, so
    /// that clients hear its verdict. Default 10s.
    pub push_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { inflight_bytes_max: 512 << 20, push_timeout: Duration::from_secs(10) }
    }
}
