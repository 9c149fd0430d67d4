use limits::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How profiles wait to become durable.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longest time that a segment gathers pushes. Longer: fewer, larger uploads (cheaper). Shorter:
    /// lone pushes return sooner.
    pub segment_duration: Duration,
    /// Time that a segment gathers pushes when many wait for it. Longer: fewer uploads under load
    /// (cheaper). Shorter: pushes under load return sooner.
    pub segment_duration_min: Duration,
    /// A segment that holds this many bytes in memory is uploaded at once; the object is a fraction
    /// of it. Larger: better compression under heavy load. Smaller: shorter uploads, less memory.
    pub segment_bytes_max: usize,
    /// Most memory of all pushes that are not durable yet, in bytes; further ones are refused with a time to
    /// retry. Larger: a slow store causes refusals later. Smaller: less memory. Less than the default where the
    /// share of `server.memory_limit_bytes` is less.
    pub inflight_bytes_max: usize,
    /// Most memory of symbols remembered between segments, in bytes. The services that pushed longest ago are
    /// forgotten first, and those without a push for half a minute. Larger: less CPU per push with many services.
    /// Smaller: less memory. Less than the default where the share of `server.memory_limit_bytes` is less.
    pub dictionary_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_duration: Duration::from_millis(500),
            segment_duration_min: Duration::from_millis(250),
            segment_bytes_max: 8 << 20,
            inflight_bytes_max: 256 << 20,
            dictionary_bytes_max: 64 << 20,
        }
    }
}
