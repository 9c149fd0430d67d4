use limits::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of the distributor: memory and waiting time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most memory of decoded profiles, from decoding until they are durable, in bytes. More: larger bursts are
    /// accepted. Less: a burst is refused sooner, with a time to retry. Default 512 MiB, or the share of
    /// `server.memory_limit_bytes` if that is less.
    pub inflight_bytes_max: usize,
    /// Longest time for a push to become durable. Longer than the 8 s after which an ingester gives up a put, so
    /// that clients get its error. Default 10s.
    pub push_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { inflight_bytes_max: 512 << 20, push_timeout: Duration::from_secs(10) }
    }
}
