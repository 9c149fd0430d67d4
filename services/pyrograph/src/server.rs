//! `pyrograph server`: listens, serves the roles of this process, and drains on SIGTERM.
//!
//! Owns: the order of starting and stopping. Does not own: which roles there are (`roles`), how they find one
//! another (`peers`).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Hooks, Pools, Task};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::{self, Config};
use crate::log::Log;
use crate::peers::Peers;
use crate::roles::Roles;
use crate::self_profile::Sampler;
use crate::shares::Shares;
use crate::targets::{Role, Targets};
use crate::{allocator, http, log, process, self_profile};

/// Intervals between checks of readiness, while this process is ready and while it is not.
const READY_INTERVAL: Duration = Duration::from_secs(1);
const NOT_READY_INTERVAL: Duration = Duration::from_millis(100);

/// EAFNOSUPPORT; the standard library has no `ErrorKind` for it.
const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    if matches!(first, "-version" | "--version") {
        return print(&format!("pyrograph, version {}\n", env!("CARGO_PKG_VERSION")));
    }
    if matches!(first, "-h" | "-help" | "--help" | "-help-all") {
        return match config::reference() {
            Ok(text) => {
                print(&format!("Flags of `pyrograph server`, with meanings and defaults:\n\n{text}\n"))
            }
            Err(error) => refuse("cannot list the flags", &error, 1),
        };
    }
    let loaded = match config::load(arguments) {
        Ok(loaded) => loaded,
        Err(error) => return refuse("failed parsing config", &error, error.exit_code()),
    };
    let log = match log::start(&loaded.config.server) {
        Ok(log) => log,
        Err(error) => return refuse("cannot start the log", &error, 1),
    };
    let open_files = process::raise_open_files();
    for warning in &loaded.warnings {
        warn!("{}", storage::hide_url_secrets(warning));
    }
    let code = match run(loaded.config, &loaded.set_paths, open_files, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    };
    log.flush();
    code
}

/// Threads that read and write files. Other threads free the buffers that they fill, and the allocator keeps that
/// memory with the file thread until it ends: so there are few, and they end soon. A disk gains nothing from more
/// requests at once.
const FILE_THREADS_MAX: usize = 16;
const FILE_THREADS_IDLE: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

fn run(
    config: Config,
    set_paths: &BTreeSet<String>,
    open_files: Option<u64>,
    log: &Log,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_keep_alive(FILE_THREADS_IDLE)
        .on_thread_park(allocator::give_back_if_scarce)
        .build()?;
    let done = runtime.block_on(serve(config, set_paths, open_files, log));
    // Work that still runs belongs to clients that left, or outlived the drain.
    runtime.shutdown_background();
    done
}

/// Prints to stdout. Its reader may be gone.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reports on stderr why the server does not start. The reader of stderr may be gone.
fn refuse(failure: &str, error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "{failure}: {}", storage::hide_url_secrets(&error.to_string()));
    ExitCode::from(code)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    error!("{}", storage::hide_url_secrets(&model::with_causes(error)));
    ExitCode::FAILURE
}

async fn serve(
    config: Config,
    set_paths: &BTreeSet<String>,
    open_files: Option<u64>,
    log: &Log,
) -> Result<(), Failure> {
    Server::start(config, set_paths, open_files, log).await?.run().await
}

/// A server whose listeners are bound and whose roles are built.
struct Server {
    config: Config,
    clock: Clock,
    pools: Pools,
    /// Samples this process, if the server pushes its own profile.
    sampler: Option<Sampler>,
    public: TcpListener,
    public_address: SocketAddr,
    /// The listener between roles, if other processes call a role of this one.
    between: Option<TcpListener>,
    peers: Arc<Peers>,
    roles: Arc<Roles>,
    status: http::Status,
    app: edge::App,
}

impl Server {
    /// Binds the listeners, joins the cluster and builds the roles. Nothing is served yet.
    ///
    /// # Errors
    /// Names the setting, the port, the bucket or the catalog that is wrong.
    async fn start(
        mut config: Config,
        set_paths: &BTreeSet<String>,
        open_files: Option<u64>,
        log: &Log,
    ) -> Result<Self, Failure> {
        let log_at_exit = log.clone();
        let clock = Clock::system_with(move || log_at_exit.flush());
        // First, because a start may take minutes: none of these signals may end the process.
        clock.spawn_vital("signals", ignore_signals()?);
        let targets = Targets::parse(&config.target)?;
        let origins = config.server.origins()?;
        let shares = Shares::divide(&mut config, set_paths, &targets);
        // Early, so that the first profile contains the cost of the start.
        let sampler = start_sampler(&config, &targets, &clock);
        // Before anything is opened, so that a port in use is noticed first.
        let (public, between) = listen(&config, &targets).await?;
        let public_address = public.local_addr()?;
        let hosts = config.server.hosts(public_address.ip().to_canonical().is_loopback())?;

        let pools = start_pools(&shares)?;
        let mut registry = Registry::default();
        process::register(&config.target, &mut registry);
        registry.register_collector(Box::new(shares.metrics()));
        log.register(&mut registry);
        let address = match &between {
            Some(listener) => advertised_address(&config.server, listener)?,
            None => String::new(),
        };
        let peers = Peers::join(&config, &targets, address, &clock, &pools.pushes, &mut registry).await?;
        let peers = Arc::new(peers);
        let roles = Roles::build(&targets, &config, &shares, &peers, &clock, &pools, &mut registry).await?;

        let (status, exported) = (http::Status::default(), http::SharedRegistry::default());
        let shown = config::ConfigPages::of(&config)?;
        let own_routes = http::routes(status.clone(), exported.clone(), shown, peers.membership.clone());
        let routes = roles.routes().merge(own_routes);
        for route in routes.table() {
            debug!(method = %route.method, path = route.path, effect = route.effect.name(), "route");
        }
        let edge_config = edge::Config { origins, hosts, ..edge_config(&config, open_files) };
        let app = edge::App::new(routes, edge_config, clock.clone(), pools.clone(), &mut registry);
        exported.set(registry);
        let roles = Arc::new(roles);
        Ok(Self { config, clock, pools, sampler, public, public_address, between, peers, roles, status, app })
    }

    /// Serves until a signal, or until the listener between roles ends; then stops.
    async fn run(mut self) -> Result<(), Failure> {
        self.roles.run(&self.clock);
        self.clock.spawn(allocator::keep_giving_back(self.clock.clone()));
        let url = format!("http://{}", own_address(self.public_address));
        if let Some(sampler) = self.sampler.take() {
            self.clock.spawn(self_profile::run(
                sampler,
                self.config.self_profiling.clone(),
                self.config.multitenancy_enabled,
                url.clone(),
                self.clock.clone(),
                self.pools.queries.clone(),
            ));
        }
        let (stopping, between_ended) = (CancellationToken::new(), CancellationToken::new());
        let between = self.between.take();
        let between = between.map(|listener| self.serve_roles(listener, &stopping, &between_ended));
        let stop_requested = stop_request(between_ended)?;
        self.status.set(self.roles.missing(&self.clock).await, self.roles.remark());
        let watching = watch_readiness(self.status.clone(), self.roles.clone(), self.clock.clone());
        self.clock.spawn_vital("readiness", watching);
        self.announce(&url);

        let Self { public, app, status, roles, peers, .. } = self;
        edge::serve(public, app, async {
            stop_requested.await;
            prepare_stop(&status, &roles, &peers, &stopping).await;
        })
        .await;
        stop(between, &roles, &peers).await
    }

    /// Serves the listener between roles until `stopping`. Cancels `ended` when it ends for any reason.
    fn serve_roles(
        &self,
        listener: TcpListener,
        stopping: &CancellationToken,
        ended: &CancellationToken,
    ) -> Task<Result<(), rpc::Error>> {
        let services = self.roles.services(&self.pools.pushes);
        let drain_timeout = Duration::from(self.config.server.graceful_shutdown_timeout);
        let shutdown = stopping.clone().cancelled_owned();
        let serving = rpc::grpc::serve(listener, services, self.clock.clone(), drain_timeout, shutdown);
        let ended = ended.clone().drop_guard();
        self.clock.spawn_vital("listener between roles", async move {
            let _ended = ended;
            serving.await
        })
    }

    fn announce(&self, url: &str) {
        let (target, address) = (&self.config.target, self.public_address);
        info!(version = env!("CARGO_PKG_VERSION"), %target, %address, ui = %format!("{url}/explore"), "serving");
        let roles = &self.roles;
        if roles.querier.is_some() {
            info!("to look at profiles, open {url}/explore");
        }
        if roles.distributor.is_some() {
            info!(
                "to send profiles, set the server address of a Pyroscope SDK to {url}, or try: \
                 printf 'main;work 3\\nmain;idle 1\\n' | curl --data-binary @- '{url}/ingest?name=my-app.cpu'"
            );
        }
        if address.ip().is_unspecified() {
            warn!(
                "listening on every network interface, without any login: every client that reaches port {} can read, \
                 add and delete profiles. Listen on this computer alone with -server.http-listen-address=127.0.0.1, \
                 or let only a proxy that asks for a login, or a trusted network, reach the port",
                address.port()
            );
        }
    }
}

/// The first half of a stop, while the public listener still answers: readiness fails, the catalog is handed over,
/// peers choose other processes, pushes in flight become durable.
async fn prepare_stop(status: &http::Status, roles: &Roles, peers: &Peers, stopping: &CancellationToken) {
    status.stop();
    roles.hand_over().await;
    peers.leave().await;
    stopping.cancel();
    roles.hurry().await;
}

/// The second half of a stop, after the public listener is drained.
async fn stop(
    between: Option<Task<Result<(), rpc::Error>>>,
    roles: &Roles,
    peers: &Peers,
) -> Result<(), Failure> {
    if let Some(between) = between {
        between.await??;
    }
    roles.drain().await;
    peers.stop().await;
    Ok(())
}

/// Completes at the first signal that stops a server, or when `between_ended` is cancelled.
fn stop_request(between_ended: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("interrupted: draining"),
            _ = quit.recv() => info!("SIGQUIT: draining"),
            () = between_ended.cancelled() => info!("the listener between roles has ended: draining"),
        }
    })
}

fn start_sampler(config: &Config, targets: &Targets, clock: &Clock) -> Option<Sampler> {
    let profiling = &config.self_profiling;
    let is_wanted = targets.has(Role::Distributor) && !profiling.disable_push;
    if is_wanted { Sampler::start(profiling, clock) } else { None }
}

/// Starts the pools, and the thread that measures the memory in use.
fn start_pools(shares: &Shares) -> io::Result<Pools> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    allocator::watch(shares.room.clone())?;
    let hooks = Hooks { after_long_work: allocator::give_back_if_scarce, on_idle: allocator::give_back };
    Ok(Pools::new(cores, hooks))
}

fn edge_config(config: &Config, open_files: Option<u64>) -> edge::Config {
    let (body_bytes_max, body_bytes_setting) = Shares::body_bytes_max(config);
    edge::Config {
        multitenancy: config.multitenancy_enabled,
        connections_max: connections_max(&config.server, open_files),
        body_bytes_max,
        body_bytes_setting,
        bodies_bytes_max: config.server.request_bodies_bytes_max as usize,
        answers_bytes_max: Shares::answers_bytes_max(config),
        drain_timeout: Duration::from(config.server.graceful_shutdown_timeout),
        ..edge::Config::default()
    }
}

/// Maximum number of public connections: the setting, but at most half of the open files that the process may have.
fn connections_max(server: &config::Server, open_files: Option<u64>) -> usize {
    let wanted = match server.http_listen_conn_limit {
        0 => edge::Config::default().connections_max,
        limit => limit,
    };
    let possible = open_files.map_or(usize::MAX, |files| (files / 2).max(1) as usize);
    if possible < server.http_listen_conn_limit {
        warn!(
            limit = possible,
            open_files,
            "server.http-conn-limit is {wanted}, but half of the open files are for data: raise ulimit -n"
        );
    }
    wanted.min(possible)
}

/// Handles the signals that end a process by default and must not end this one. `config::overrides` acts on SIGHUP.
fn ignore_signals() -> io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => info!("SIGHUP: only runtime-config.file is read again, if there is one"),
                _ = user1.recv() => info!("SIGUSR1: ignored"),
                _ = user2.recv() => info!("SIGUSR2: ignored"),
            }
        }
    })
}

/// Updates `status` from the roles until dropped.
async fn watch_readiness(status: http::Status, roles: Arc<Roles>, clock: Clock) {
    loop {
        clock.sleep(if status.is_ready() { READY_INTERVAL } else { NOT_READY_INTERVAL }).await;
        status.set(roles.missing(&clock).await, roles.remark());
    }
}

/// The address at which other processes call this one; without a host if the listener is on every interface.
fn advertised_address(server: &config::Server, listener: &TcpListener) -> io::Result<String> {
    let local = listener.local_addr()?;
    let is_everywhere = server.grpc_listen_address.is_empty() || local.ip().is_unspecified();
    Ok(if is_everywhere { format!(":{}", local.port()) } else { local.to_string() })
}

/// Binds the public listener and, if other processes call a role of this one, the listener between roles.
async fn listen(config: &Config, targets: &Targets) -> Result<(TcpListener, Option<TcpListener>), String> {
    let server = &config.server;
    let public = bind(&server.http_listen_address, server.http_listen_port, "http").await?;
    let called = [Role::Ingester, Role::Metastore, Role::Querier].iter().any(|role| targets.has(*role));
    let between = match called && (!targets.are_all() || config.gossips()) {
        true => Some(bind(&server.grpc_listen_address, server.grpc_listen_port, "grpc").await?),
        false => None,
    };
    Ok((public, between))
}

/// Binds the address of `server.<protocol>-listen-address` and `server.<protocol>-listen-port`.
async fn bind(host: &str, port: u16, protocol: &str) -> Result<TcpListener, String> {
    let address = listen_address(host, port, protocol)?;
    let mut bound = TcpListener::bind(address).await;
    let is_without_ipv6 = |error: &io::Error| {
        [io::ErrorKind::Unsupported, io::ErrorKind::AddrNotAvailable].contains(&error.kind())
            || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED)
    };
    if host.is_empty() && bound.as_ref().is_err_and(is_without_ipv6) {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    }
    bound.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    ". Another program has that port, perhaps a second pyrograph: stop it, or choose another \
                     port with -server.{protocol}-listen-port"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!(
                    ". Ports below 1024 are for privileged users: choose another with -server.{protocol}-listen-port"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    ". This computer does not have that address: choose another with -server.{protocol}-listen-address"
                )
            }
            _ => String::new(),
        };
        format!("cannot listen on {address}: {error}{advice}")
    })
}

fn listen_address(host: &str, port: u16, protocol: &str) -> Result<SocketAddr, String> {
    let ip = match host.trim() {
        "" => Some(Ipv6Addr::UNSPECIFIED.into()),
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => cluster::ip_address(host),
    };
    let ip = ip.ok_or_else(|| format!("server.{protocol}-listen-address {host:?} is not an IP address"))?;
    Ok(SocketAddr::new(ip, port))
}

/// The address at which this process reaches itself.
fn own_address(local: SocketAddr) -> String {
    if local.ip().is_unspecified() { format!("localhost:{}", local.port()) } else { local.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_to_listen_on_needs_no_brackets() {
        let listened = |host: &str| listen_address(host, 7, "http").map(|address| address.to_string());
        for (host, expected) in [
            ("", "[::]:7"),
            ("::", "[::]:7"),
            ("::1", "[::1]:7"),
            ("[::1]", "[::1]:7"),
            ("localhost", "127.0.0.1:7"),
            ("127.0.0.1", "127.0.0.1:7"),
        ] {
            assert_eq!(listened(host).as_deref(), Ok(expected), "{host}");
        }
        let error = listened("host").expect_err("a name");
        assert_eq!(error, r#"server.http-listen-address "host" is not an IP address"#);
    }
}
