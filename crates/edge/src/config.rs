use std::time::Duration;

use crate::origin::{Hosts, Origins};

/// Limits and timeouts of the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Off: every request belongs to the tenant `anonymous`, and `X-Scope-OrgID` is ignored.
    pub multitenancy: bool,
    /// Origins of other pages that may use this server.
    pub origins: Origins,
    /// Host names of this server; requests for other names get 403.
    pub hosts: Hosts,
    /// Maximum number of open connections. Beyond it, a new connection closes the one that was idle for longest; if
    /// none is idle, only [`crate::Routes::probe`]s are answered. An idle connection takes some kilobytes.
    pub connections_max: usize,
    /// Maximum time that a connection may be idle, or take for the headers of a request. Longer: clients that push
    /// rarely can reuse their connection. Shorter: dead connections are noticed sooner.
    pub idle_timeout: Duration,
    /// Maximum time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Maximum time in which a client reads less than 16 KiB of an answer that waits for it; then its connection, or
    /// its HTTP/2 stream, ends. Longer: clients on bad networks have more time. Shorter: clients that never read hold
    /// memory for less time.
    pub write_timeout: Duration,
    /// Maximum size of a request body, on the wire and decompressed.
    pub body_bytes_max: usize,
    /// The setting that raises `body_bytes_max`, for refusals.
    pub body_bytes_setting: &'static str,
    /// Maximum bytes of all request bodies in flight; more are refused with 503.
    pub bodies_bytes_max: usize,
    /// Maximum bytes of all answers that clients have not read; more are refused with 503.
    pub answers_bytes_max: usize,
    /// Maximum number of concurrent requests of one HTTP/2 connection.
    pub streams_max: u32,
    /// Maximum time for requests in flight after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            multitenancy: false,
            origins: Origins::default(),
            hosts: Hosts::default(),
            connections_max: 16_384,
            idle_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            body_bytes_max: 256 << 20,
            body_bytes_setting: "limits.ingestion_body_limit_mb",
            bodies_bytes_max: 1 << 30,
            answers_bytes_max: 512 << 20,
            streams_max: 100,
            drain_timeout: Duration::from_secs(20),
        }
    }
}
