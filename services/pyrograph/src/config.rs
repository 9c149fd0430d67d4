//! The configuration as one tree. Names and meanings are Pyroscope's where both servers have the value.
//!
//! Precedence, lowest first: defaults, the YAML file, flags. A flag is the path of the value with dashes
//! (`server.http_listen_port` → `-server.http-listen-port`), except where Pyroscope's own name
//! differs (`flags`).

mod flags;
mod load;
pub(crate) mod overrides;
mod reference;
mod status;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use load::{LoadError, load, nearest};
pub(crate) use reference::reference;
pub(crate) use status::ConfigPages;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Roles of this process, separated by commas: distributor, ingester, metastore, compactor, querier, or all.
    /// Other roles that it needs are found by gossip (`memberlist`) or at the addresses of `peers`.
    pub target: String,
    /// Take the tenant from the header X-Scope-OrgID. Off: the header is ignored, and all data belong to the tenant
    /// `anonymous`.
    pub multitenancy_enabled: bool,
    pub server: Server,
    pub memberlist: cluster::Config,
    pub instance: Instance,
    pub peers: Peers,
    /// The store that holds all objects.
    pub storage: storage::Config,
    /// Limits of every tenant.
    pub limits: limits::Limits,
    /// Limits of single tenants, instead of `limits`.
    pub runtime_config: RuntimeConfig,
    pub distributor: distributor::Config,
    pub ingester: ingester::Config,
    pub metastore: metastore::Config,
    pub compactor: compactor::Config,
    pub querier: querier::Config,
    pub self_profiling: SelfProfiling,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// Address of the public listener; empty means every interface.
    pub http_listen_address: String,
    /// Port of the public listener: REST, Connect, gRPC, gRPC-web and the UI.
    pub http_listen_port: u16,
    /// Origins (`https://grafana.example.com`), separated by commas, whose pages may read and change all data from a
    /// browser; the server's own pages always may. `*`: every web page that a user opens may read, and none may change.
    /// Empty: only the server's own pages may read or change data.
    pub cors_allowed_origins: String,
    /// Host names of this server, separated by commas, beside `localhost` and IP addresses. A request for another name
    /// gets 403: otherwise a web page could read all data by resolving its own name to this server (DNS rebinding).
    /// Empty: every name is accepted, or, on a loopback address, no further name.
    pub allowed_hosts: String,
    /// Address of the listener between roles; empty means every interface. Every client that reaches it can read and
    /// change all data: keep it in a private network.
    pub grpc_listen_address: String,
    /// Port of the listener between roles, which other processes call. Not opened by `all` without `memberlist.join`.
    pub grpc_listen_port: u16,
    /// Maximum time of a drain after SIGTERM; then the process exits.
    pub graceful_shutdown_timeout: limits::Duration,
    /// Level of the log: debug, info, warn or error.
    pub log_level: String,
    /// Format of the log: logfmt (for people) or json.
    pub log_format: String,
    /// Maximum number of open connections. Beyond it, a new connection closes the one that was idle for longest; if
    /// none is idle, it gets answers for `/ready` and `/metrics` only. 0 means 16384. At most half of the open files
    /// that the process may have: the other half is for data.
    pub http_listen_conn_limit: usize,
    /// Bytes of memory that this process may use. 0: the limit of its control group (version 1 or 2), or half of the
    /// machine's memory if it has none. Budgets of its roles that are not set are shares of this limit.
    pub memory_limit_bytes: u64,
    /// Bytes of memory for the bodies of all requests in flight, decompressed and copied; more are refused with 503.
    /// One request may take a third of it. Not set: the default, or the share of `server.memory_limit_bytes` if that
    /// is less.
    pub request_bodies_bytes_max: u64,
}

/// Place of this process.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Instance {
    /// Name of the zone, for example of a data centre. A push goes to an ingester of the same zone if there is one.
    pub zone: String,
}

/// Addresses of the roles of other processes, for a cluster without gossip. Not used with `memberlist.join`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Peers {
    /// `<host>:<port>` of ingesters, separated by commas, for a distributor without an ingester in its own process.
    pub ingester_addresses: String,
    /// `<host>:<port>` of the queriers that scan for this one, separated by commas; include this one if it scans as
    /// well. Every querier should have the same list. Empty: it scans alone.
    pub leaf_addresses: String,
    /// `<host>:<port>` of the metastore, for a process without one.
    pub metastore_address: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SelfProfiling {
    /// Do not push profiles of this server into itself. A process without a distributor never does.
    pub disable_push: bool,
    /// Tenant of the server's own profiles with multitenancy; empty means `anonymous`.
    pub tenant_id: String,
    /// Samples per second of CPU time; five times as many while the server uses less than 5 % of a core.
    /// Higher: finer flame graphs. Lower: less overhead.
    pub sample_rate: u32,
    /// Time that one profile covers.
    pub interval: limits::Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuntimeConfig {
    /// YAML file `overrides: {<tenant>: {<limit>: <value>}}`; limits that a tenant does not set are those of `limits`.
    /// A wrong file is an error at the start; later it is reported and changes nothing.
    pub file: String,
    /// Interval between checks of the file for changes.
    pub period: limits::Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { file: String::new(), period: limits::Duration::from_secs(10) }
    }
}

impl Config {
    /// Whether this process finds its peers by gossip.
    pub(crate) fn gossips(&self) -> bool {
        !self.memberlist.join_members.trim().is_empty()
    }
}

impl Server {
    /// # Errors
    /// Names the flag and the first value that is not an origin.
    pub(crate) fn origins(&self) -> Result<edge::Origins, String> {
        edge::Origins::parse(&self.cors_allowed_origins)
            .map_err(|error| format!("-server.cors-allowed-origins: {error}"))
    }

    /// `is_loopback`: whether the public listener is on a loopback address.
    ///
    /// # Errors
    /// Names the flag and the first value that is not a host name.
    pub(crate) fn hosts(&self, is_loopback: bool) -> Result<edge::Hosts, String> {
        edge::Hosts::parse(&self.allowed_hosts, is_loopback)
            .map_err(|error| format!("-server.allowed-hosts: {error}"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target: "all".into(),
            multitenancy_enabled: false,
            server: Server::default(),
            memberlist: cluster::Config::default(),
            instance: Instance::default(),
            peers: Peers::default(),
            storage: storage::Config::default(),
            limits: limits::Limits::default(),
            runtime_config: RuntimeConfig::default(),
            distributor: distributor::Config::default(),
            ingester: ingester::Config::default(),
            metastore: metastore::Config::default(),
            compactor: compactor::Config::default(),
            querier: querier::Config::default(),
            self_profiling: SelfProfiling::default(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            http_listen_address: String::new(),
            http_listen_port: 4040,
            cors_allowed_origins: String::new(),
            allowed_hosts: String::new(),
            grpc_listen_address: String::new(),
            grpc_listen_port: 9095,
            graceful_shutdown_timeout: limits::Duration::from_secs(30),
            log_level: "info".into(),
            log_format: "logfmt".into(),
            http_listen_conn_limit: 0,
            memory_limit_bytes: 0,
            request_bodies_bytes_max: 1 << 30,
        }
    }
}

impl Default for SelfProfiling {
    fn default() -> Self {
        Self {
            disable_push: false,
            tenant_id: String::new(),
            sample_rate: 100,
            interval: limits::Duration::from_secs(10),
        }
    }
}
