//! Everything an operator can set, as one tree. Names and meanings are Pyroscope's wherever both agree.
//!
//! Lowest to highest: defaults, the YAML file, flags. A flag is the path of the value with dashes
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
pub(crate) use status::Shown;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Which roles this process runs, with commas between them: distributor, ingester, metastore, compactor,
    /// querier, or all. Roles that it needs and does not run are found by gossip (`memberlist`), or at the addresses of
    /// `peers`.
    pub target: String,
    /// Tell tenants apart by the header X-Scope-OrgID. Off: the header is ignored, and everything
    /// belongs to the tenant `anonymous`.
    pub multitenancy_enabled: bool,
    pub server: Server,
    pub memberlist: cluster::Config,
    pub instance: Instance,
    pub peers: Peers,
    /// Where objects are kept.
    pub storage: storage::Config,
    /// What one tenant may do.
    pub limits: limits::Limits,
    /// Limits of single tenants.
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
    /// Address of the one public listener; empty means every interface.
    pub http_listen_address: String,
    /// Port of the one public listener: REST, Connect, gRPC, gRPC-web and the UI.
    pub http_listen_port: u16,
    /// Origins (`https://grafana.example.com`), with commas between them, whose pages may read and change everything
    /// here from a browser, the server's own pages aside. `*` lets every page of the web that a user looks at read, and
    /// none change. Empty: no other page reads or changes anything.
    pub cors_allowed_origins: String,
    /// Host names, with commas between them, by which this server may be addressed beside `localhost` and IP addresses;
    /// requests with others get 403, so that no page reads everything by having its own name resolved to this server.
    /// Empty: every name, but none while the server listens on a loopback address.
    pub allowed_hosts: String,
    /// Address of the listener between roles; empty means every interface. Whoever reaches it can read and
    /// change everything: it belongs into a network of its own.
    pub grpc_listen_address: String,
    /// Port on which roles of other processes reach those of this one; not opened by `all` without `memberlist.join`.
    pub grpc_listen_port: u16,
    /// How long a drain may take after SIGTERM before the process exits anyway.
    pub graceful_shutdown_timeout: limits::Duration,
    /// debug, info, warn or error.
    pub log_level: String,
    /// logfmt (for people) or json.
    pub log_format: String,
    /// Connections open at once. Beyond it, the one that was idle for longest is closed for a new one; if none is
    /// idle, only `/ready` and `/metrics` are answered. 0 means 16384. Never more than half of the open files that
    /// the process may have: the others are for data.
    pub http_listen_conn_limit: usize,
    /// Bytes of memory that this process may use. 0: the limit of its control group (version 1 or 2), or half of the
    /// machine's memory if it has none. The budgets of its roles are shares of it where nothing else is set.
    pub memory_limit_bytes: u64,
    /// What the bodies of all requests in flight may hold, decompressed and copied, in bytes; more are refused with
    /// 503. A single request may take a third of it. Less than the default where the share of
    /// `server.memory_limit_bytes` is less.
    pub request_bodies_bytes_max: u64,
}

/// Where this process runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Instance {
    /// Name of the zone, for example of a data centre: pushes go to ingesters of the same one while there are any.
    pub zone: String,
}

/// Where roles are that other processes run, for a cluster without gossip: of no use with `memberlist.join`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Peers {
    /// `<host>:<port>` of ingesters, with commas between them, for a distributor without one in its own process.
    pub ingester_addresses: String,
    /// `<host>:<port>` of queriers that scan for this one, with commas between them, itself included if it is to
    /// scan as well. Every querier should have the same list. Empty: it scans alone.
    pub leaf_addresses: String,
    /// `<host>:<port>` of the metastore, for a process that does not run it.
    pub metastore_address: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SelfProfiling {
    /// Do not profile this server into itself. A process without a distributor never does.
    pub disable_push: bool,
    /// Tenant that gets the server's own profiles while multitenancy is on; empty means `anonymous`.
    pub tenant_id: String,
    /// Samples per second of CPU time; five times as many while the server uses less than 5 % of a core.
    /// More: finer flame graphs, more overhead.
    pub sample_rate: u32,
    /// How much time one profile covers.
    pub interval: limits::Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuntimeConfig {
    /// YAML file `overrides: {<tenant>: {<names of limits>}}`; what a tenant does not set is as in `limits`. A file
    /// that is wrong is an error at the start, and changes nothing later.
    pub file: String,
    /// Between looks whether it has changed.
    pub period: limits::Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { file: String::new(), period: limits::Duration::from_secs(10) }
    }
}

impl Config {
    /// Whether this process is one of several that find one another.
    pub(crate) fn gossips(&self) -> bool {
        !self.memberlist.join_members.trim().is_empty()
    }
}

impl Server {
    /// # Errors
    /// Names the flag and the first origin that is none.
    pub(crate) fn origins(&self) -> Result<edge::Origins, String> {
        edge::Origins::parse(&self.cors_allowed_origins)
            .map_err(|error| format!("-server.cors-allowed-origins: {error}"))
    }

    /// `is_loopback`: whether the public listener is.
    ///
    /// # Errors
    /// Names the flag and the first name that is none.
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
