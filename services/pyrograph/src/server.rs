//! `pyrograph server`: listens, serves the roles of this process, and drains on SIGTERM.
//!
//! Owns: the order of starting and stopping. Does not own: which roles there are and how they find one
//! another (`roles`).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Hooks, Pools};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::{self, Config};
use crate::log::Log;
use crate::peers::Peers;
use crate::roles::Roles;
use crate::shares::Shares;
use crate::targets::{Role, Targets};
use crate::{allocator, http, log, process, self_profile};

/// Between looks at whether this process can serve, while it can and while it cannot.
const READY_INTERVAL: Duration = Duration::from_secs(1);
const NOT_READY_INTERVAL: Duration = Duration::from_millis(100);

/// EAFNOSUPPORT, for which the standard library has no kind.
const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    if matches!(first, "-version" | "--version") {
        return print(&format!("pyrograph, version {}\n", env!("CARGO_PKG_VERSION")));
    }
    if matches!(first, "-h" | "-help" | "--help" | "-help-all") {
        return match config::reference() {
            Ok(text) => print(&format!(
                "Flags of `pyrograph server`, with what they mean and their defaults:\n\n{text}\n"
            )),
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
    let code = match run(loaded.config, &loaded.given, open_files, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    };
    log.flush();
    code
}

/// Threads that read and write files. What they read is freed by other threads, and stays with them as free memory until
/// they end: so they are few, and end soon. More would be more requests to a disk at once than it gains from.
const FILE_THREADS_MAX: usize = 16;
const FILE_THREADS_IDLE: Duration = Duration::from_secs(2);

fn run(
    config: Config,
    given: &BTreeSet<String>,
    open_files: Option<u64>,
    log: &Log,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_keep_alive(FILE_THREADS_IDLE)
        .on_thread_park(allocator::give_back_if_scarce)
        .build()?;
    let done = runtime.block_on(serve(config, given, open_files, log));
    // Work that is still running is of clients that left, or past the deadline of the drain.
    runtime.shutdown_background();
    done
}

/// Prints to stdout, whose reader may be gone.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says on stderr, whose reader may be gone, why there is no start.
fn refuse(what: &str, error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "{what}: {}", storage::hide_url_secrets(&error.to_string()));
    ExitCode::from(code)
}

fn fail(cause: &dyn std::error::Error) -> ExitCode {
    let mut text = cause.to_string();
    let mut source = cause.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    error!("{}", storage::hide_url_secrets(&text));
    ExitCode::FAILURE
}

async fn serve(
    mut config: Config,
    given: &BTreeSet<String>,
    open_files: Option<u64>,
    log: &Log,
) -> Result<(), Box<dyn std::error::Error>> {
    let last_words = log.clone();
    let clock = Clock::system_with(move || last_words.flush());
    // Before the start, which may take minutes: none of them ends the process.
    clock.spawn_vital("signals", pass_over_signals()?);
    let targets = Targets::parse(&config.target)?;
    let origins = config.server.origins()?;
    let shares = Shares::divide(&mut config, given, &targets);
    // Before everything else: what starting costs is in the first profile.
    let profiling = &config.self_profiling;
    let profiles = targets.has(Role::Distributor) && !profiling.disable_push;
    let sampler = if profiles { self_profile::Sampler::start(profiling, &clock) } else { None };
    // Listeners are bound first: a port that is taken is noticed before anything is opened.
    let (listener, between) = listen(&config, &targets).await?;
    let local = listener.local_addr()?;
    let hosts = config.server.hosts(local.ip().to_canonical().is_loopback())?;

    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    allocator::watch(shares.room.clone())?;
    let hooks = Hooks { after_long_work: allocator::give_back_if_scarce, on_idle: allocator::give_back };
    let pools = Pools::new(cores, hooks);
    let mut registry = Registry::default();
    process::register(&config.target, &mut registry);
    registry.register_collector(Box::new(shares.metrics()));
    log.register(&mut registry);
    let called_at = between.as_ref().map(|between| called_at(&config.server, between)).transpose()?;
    let called_at = called_at.unwrap_or_default();
    let peers =
        Arc::new(Peers::join(&config, &targets, called_at, &clock, &pools.pushes, &mut registry).await?);
    let roles =
        Arc::new(Roles::build(&targets, &config, &shares, &peers, &clock, &pools, &mut registry).await?);

    let status = http::Status::default();
    let drain_timeout = Duration::from(config.server.graceful_shutdown_timeout);
    let (body_bytes_max, body_bytes_setting) = Shares::body_bytes_max(&config);
    let edge_config = edge::Config {
        multitenancy: config.multitenancy_enabled,
        origins,
        hosts,
        connections_max: connections_max(&config.server, open_files),
        body_bytes_max,
        body_bytes_setting,
        bodies_bytes_max: config.server.request_bodies_bytes_max as usize,
        answers_bytes_max: Shares::answers_bytes_max(&config),
        drain_timeout,
        ..edge::Config::default()
    };
    let shown = config::Shown::of(&config)?;
    let exported = http::Exported::default();
    let routes =
        roles.routes().merge(http::routes(status.clone(), exported.clone(), shown, peers.membership.clone()));
    for route in routes.table() {
        debug!(method = %route.method, path = route.path, effect = route.effect.name(), "route");
    }
    let app = edge::App::new(routes, edge_config, clock.clone(), pools.clone(), &mut registry);
    exported.set(registry);

    roles.run(&clock);
    clock.spawn(allocator::keep_giving_back(clock.clone()));
    let own_url = format!("http://{}", own_address(local));
    if let Some(sampler) = sampler {
        clock.spawn(self_profile::run(
            sampler,
            config.self_profiling.clone(),
            config.multitenancy_enabled,
            own_url.clone(),
            clock.clone(),
            pools.questions.clone(),
        ));
    }

    let (stopping, failed) = (CancellationToken::new(), CancellationToken::new());
    let between = between.map(|listener| {
        let shutdown = stopping.clone().cancelled_owned();
        let serving =
            rpc::grpc::serve(listener, roles.services(&pools.pushes), clock.clone(), drain_timeout, shutdown);
        let failed = failed.clone().drop_guard();
        clock.spawn_vital("listener between roles", async move {
            let _failed = failed;
            serving.await
        })
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    status.set(roles.lacks(&clock).await, roles.remark());
    clock.spawn_vital("readiness", watch_readiness(status.clone(), roles.clone(), clock.clone()));
    let target = &config.target;
    info!(version = env!("CARGO_PKG_VERSION"), %target, address = %local, ui = %format!("{own_url}/explore"), "serving");
    if local.ip().is_unspecified() {
        warn!(
            "listening on every network interface, without any login: whoever reaches port {} can read, add and \
             delete profiles. Listen on this computer alone with -server.http-listen-address=127.0.0.1, or let only \
             a proxy that asks for a login, or a trusted network, reach the port",
            local.port()
        );
    }
    let (stopped, told, leaving) = (roles.clone(), stopping.clone(), peers.clone());
    edge::serve(listener, app, async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("interrupted: draining"),
            _ = quit.recv() => info!("SIGQUIT: draining"),
            () = failed.cancelled() => info!("the listener between roles has ended: draining"),
        }
        status.stop();
        stopped.hand_over().await;
        leaving.leave().await;
        told.cancel();
        stopped.hurry().await;
    })
    .await;
    if let Some(between) = between {
        between.await??;
    }
    roles.drain().await;
    peers.stop().await;
    Ok(())
}

/// Connections of the public listener at once, if the process may have so many open files.
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

/// Signals that would end the process and do not. SIGHUP is heard by `config::overrides` too.
fn pass_over_signals() -> io::Result<impl Future<Output = ()>> {
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

/// Keeps `status` what the roles can do.
async fn watch_readiness(status: http::Status, roles: Arc<Roles>, clock: Clock) {
    loop {
        clock.sleep(if status.is_ready() { READY_INTERVAL } else { NOT_READY_INTERVAL }).await;
        status.set(roles.lacks(&clock).await, roles.remark());
    }
}

/// Where others call this process: the host is left out if the listener is on every interface.
fn called_at(server: &config::Server, between: &TcpListener) -> io::Result<String> {
    let local = between.local_addr()?;
    let is_everywhere = server.grpc_listen_address.is_empty() || local.ip().is_unspecified();
    Ok(if is_everywhere { format!(":{}", local.port()) } else { local.to_string() })
}

/// The public listener and, if roles of other processes call some of this one, the one for them.
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

/// Binds what `server.<of>-listen-address` and `server.<of>-listen-port` name.
async fn bind(host: &str, port: u16, of: &str) -> Result<TcpListener, String> {
    let address = listen_address(host, port, of)?;
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
                     port with -server.{of}-listen-port"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!(
                    ". Ports below 1024 are for privileged users: choose another with -server.{of}-listen-port"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    ". This computer does not have that address: choose another with -server.{of}-listen-address"
                )
            }
            _ => String::new(),
        };
        format!("cannot listen on {address}: {error}{advice}")
    })
}

fn listen_address(host: &str, port: u16, of: &str) -> Result<SocketAddr, String> {
    let host = if host.is_empty() { "[::]" } else { host };
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    format!("{host}:{port}")
        .parse()
        .map_err(|_| format!("server.{of}-listen-address {host:?} is not an IP address"))
}

/// Where this process reaches itself.
fn own_address(local: SocketAddr) -> String {
    if local.ip().is_unspecified() { format!("localhost:{}", local.port()) } else { local.to_string() }
}
