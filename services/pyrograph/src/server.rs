//! `pyrograph server`: builds the roles of this process, listens, and drains on SIGTERM.
//!
//! Owns: the order of starting and stopping. Each role builds itself and hands back its routes; this
//! file only puts them together.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clock::{Clock, Pool};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::{self, Config};
use crate::{http, self_profile, ui};

/// EAFNOSUPPORT, for which the standard library has no kind.
const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if matches!(arguments.first().map(String::as_str), Some("-version" | "--version")) {
        println!("pyrograph, version {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if matches!(arguments.first().map(String::as_str), Some("-h" | "-help" | "--help" | "-help-all")) {
        return match config::reference() {
            Ok(text) => {
                println!("Flags of `pyrograph server`, with what they mean and their defaults:\n\n{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        };
    }
    let loaded = match config::load(arguments) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("failed parsing config: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    start_log(&loaded.config.server);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let done = runtime.block_on(serve(loaded.config));
    // Work that is still running is of clients that left, or past the deadline of the drain.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(cause: &dyn std::error::Error) -> ExitCode {
    let mut text = cause.to_string();
    let mut source = cause.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    error!("{text}");
    ExitCode::FAILURE
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    if config.target != "all" {
        return Err(format!(
            "target {:?} is not known; this version runs every role in one process: all",
            config.target
        )
        .into());
    }
    let clock = Clock::system();
    // Before everything else: what starting costs is in the first profile.
    let profiling = &config.self_profiling;
    let sampler = if profiling.disable_push { None } else { self_profile::Sampler::start(profiling, &clock) };
    // The listener is bound first: a port that is taken is noticed before anything is opened.
    let listener = listen(&config.server).await?;
    let local = listener.local_addr()?;

    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let pool = Pool::new(cores);
    let mut registry = Registry::default();
    let limits = Arc::new(limits::Overrides::uniform(config.limits.clone()));
    let store =
        storage::open(&config.storage, clock.clone(), storage::Metrics::register(&mut registry)).await?;
    let cache = block::Cache::new(config.querier.cache_bytes);

    let retention = limits.clone();
    let retention = move |tenant: &model::TenantId| {
        let period = retention.of(tenant).retention_period;
        (!period.is_zero()).then_some(std::time::Duration::from(period))
    };
    let metastore = metastore::Metastore::open(
        config.metastore.clone(),
        store.clone(),
        retention,
        clock.clone(),
        &mut registry,
    )
    .await?;
    let ingester = ingester::Ingester::start(
        config.ingester.clone(),
        store.clone(),
        metastore.clone(),
        clock.clone(),
        pool.clone(),
        &mut registry,
    );
    let distributor = distributor::Distributor::new(
        config.distributor.clone(),
        limits.clone(),
        ingester.clone(),
        clock.clone(),
        pool.clone(),
        &mut registry,
    );
    let leaf = Arc::new(querier::Leaf::new(&config.querier, store.clone(), cache, pool.clone()));
    let querier = querier::Querier::new(
        config.querier.clone(),
        metastore.clone(),
        vec![leaf],
        limits.clone(),
        pool.clone(),
        clock.clone(),
        &mut registry,
    );
    let compactor = compactor::Compactor::build(
        config.compactor.clone(),
        store.clone(),
        metastore.clone(),
        clock.clone(),
        pool.clone(),
        &mut registry,
    );

    let status = http::Status::default();
    let edge_config = edge::Config {
        multitenancy: config.multitenancy_enabled,
        connections_max: match config.server.http_listen_conn_limit {
            0 => edge::Config::default().connections_max,
            limit => limit,
        },
        body_bytes_max: config.limits.ingestion_body_bytes(),
        drain_timeout: std::time::Duration::from(config.server.graceful_shutdown_timeout),
        ..edge::Config::default()
    };
    let shown = config::Shown::of(&config)?;
    let exported = http::Exported::default();
    let routes = edge::Routes::new()
        .merge(distributor.clone().routes())
        .merge(querier.routes())
        .merge(http::routes(status.clone(), exported.clone(), shown))
        .rest(ui::routes());
    let app = edge::App::new(routes, edge_config, clock.clone(), pool.clone(), &mut registry);
    exported.set(registry);

    clock.spawn_vital("metastore", metastore.clone().run());
    clock.spawn_vital("compactor", compactor.clone().run());
    let own_url = format!("http://{}", own_address(local));
    if let Some(sampler) = sampler {
        clock.spawn(self_profile::run(
            sampler,
            config.self_profiling.clone(),
            config.multitenancy_enabled,
            own_url.clone(),
            clock.clone(),
            pool.clone(),
        ));
    }

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    status.set_ready(true);
    info!(version = env!("CARGO_PKG_VERSION"), address = %local, ui = %format!("{own_url}/explore"), "serving");
    let stopping = status.clone();
    edge::serve(listener, app, async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("interrupted: draining"),
        }
        stopping.set_ready(false);
        // Pushes in flight wait for the next flush: make it come at once.
        ingester.drain().await;
    })
    .await;
    compactor.drain().await;
    metastore.drain().await;
    info!("drained");
    Ok(())
}

async fn listen(server: &config::Server) -> Result<TcpListener, String> {
    let address = listen_address(server)?;
    let mut bound = TcpListener::bind(address).await;
    let is_without_ipv6 = |error: &io::Error| {
        [io::ErrorKind::Unsupported, io::ErrorKind::AddrNotAvailable].contains(&error.kind())
            || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED)
    };
    if server.http_listen_address.is_empty() && bound.as_ref().is_err_and(is_without_ipv6) {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, server.http_listen_port)).await;
    }
    bound.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ". Another program has that port, perhaps a second pyrograph: stop it, or choose another port \
                 with -server.http-listen-port"
            }
            io::ErrorKind::PermissionDenied => {
                ". Ports below 1024 are for privileged users: choose another with -server.http-listen-port"
            }
            io::ErrorKind::AddrNotAvailable => {
                ". This computer does not have that address: choose another with -server.http-listen-address"
            }
            _ => "",
        };
        format!("cannot listen on {address}: {error}{advice}")
    })
}

fn listen_address(server: &config::Server) -> Result<SocketAddr, String> {
    let host = if server.http_listen_address.is_empty() { "[::]" } else { &server.http_listen_address };
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    format!("{host}:{}", server.http_listen_port)
        .parse()
        .map_err(|_| format!("server.http-listen-address {host:?} is not an IP address"))
}

/// Where this process reaches itself.
fn own_address(local: SocketAddr) -> String {
    if local.ip().is_unspecified() { format!("localhost:{}", local.port()) } else { local.to_string() }
}

fn start_log(server: &config::Server) {
    use tracing_subscriber::EnvFilter;
    // The sampler tells of every start and stop, which is every few seconds.
    let filter = EnvFilter::try_new(format!("{},pprof=warn", server.log_level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    if server.log_format == "json" { log.json().init() } else { log.init() }
}
