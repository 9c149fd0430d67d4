use std::time::Duration;

use crate::origin::{Hosts, Origins};

/// How the listener defends itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Off: every request is of the tenant `anonymous`, whatever `X-Scope-OrgID` says.
    pub multitenancy: bool,
    /// Other origins whose pages may use this server.
    pub origins: Origins,
    /// Names by which this server may be addressed; others are refused with 403.
    pub hosts: Hosts,
    /// Most open connections. Beyond it, the one that was idle for longest is closed for a new one; if none is idle,
    /// only [`crate::Routes::probe`]s are answered. Each costs some kilobytes while idle.
    pub connections_max: usize,
    /// How long a connection may be idle or take for the headers of a request. Longer: clients that
    /// push seldom find their connection alive. Shorter: dead ones are noticed sooner.
    pub idle_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may read less than 16 KiB of an answer that waits for it; then its connection, or its
    /// HTTP/2 stream, ends. Longer: clients on bad networks have more time. Shorter: those that never read hold less
    /// for less long.
    pub write_timeout: Duration,
    /// Largest request body, on the wire and decompressed.
    pub body_bytes_max: usize,
    /// The setting that makes it larger, for refusals.
    pub body_bytes_setting: &'static str,
    /// What all request bodies in flight may hold; more are refused with 503.
    pub bodies_bytes_max: usize,
    /// What all answers may hold until their clients have read them; more are refused with 503.
    pub answers_bytes_max: usize,
    /// Most requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long requests in flight may go on after shutdown began.
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
