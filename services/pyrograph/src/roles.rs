//! Builds the roles of this process, and tells each where the others are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clock::{Clock, Pool};
use prometheus_client::registry::Registry;
use rpc::grpc::Services;
use tracing::info;

use crate::config::{Config, overrides};
use crate::peers::Peers;
use crate::targets::{Role, Targets};

/// A metastore that does not tell its standing within this time does not answer.
const STANDING_MAX: Duration = Duration::from_secs(1);

/// What this process runs; a leaf comes with every querier.
#[derive(Default)]
pub(crate) struct Roles {
    pub(crate) metastore: Option<Arc<metastore::Candidate>>,
    pub(crate) ingester: Option<Arc<ingester::Ingester>>,
    pub(crate) distributor: Option<Arc<distributor::Distributor>>,
    pub(crate) leaf: Option<Arc<querier::Leaf>>,
    pub(crate) querier: Option<Arc<querier::Querier>>,
    pub(crate) compactor: Option<Arc<compactor::Compactor>>,
    /// How this process asks the metastore, if a role of it does.
    owner: Option<Arc<cluster::Owner>>,
    /// How this process finds ingesters, if it distributes.
    ingesters: Option<Arc<cluster::Ingesters>>,
    /// Whether a metastore has answered a querier; from then on it can do without one for a while.
    has_met_owner: AtomicBool,
}

impl Roles {
    /// Builds those of `targets`, each after those that it calls.
    pub(crate) async fn build(
        targets: &Targets,
        config: &Config,
        peers: &Peers,
        clock: &Clock,
        pool: &Pool,
        registry: &mut Registry,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roles = Self::default();
        let tenants = overrides::read(&config.runtime_config, &config.limits)?;
        let limits = Arc::new(limits::Overrides::new(config.limits.clone(), tenants.clone()));
        if !config.runtime_config.file.is_empty() {
            let (own, default) = (config.runtime_config.clone(), config.limits.clone());
            clock.spawn(overrides::keep_reading(own, default, tenants, limits.clone(), clock.clone()));
        }
        let reads_bucket = [Role::Metastore, Role::Ingester, Role::Querier, Role::Compactor];
        if reads_bucket.iter().any(|role| targets.has(*role)) {
            let metrics = storage::Metrics::register(registry);
            let store = storage::open(&config.storage, clock.clone(), metrics).await?;
            let of_tenants = limits.clone();
            let retention: metastore::Retention =
                Arc::new(move |tenant: &model::TenantId, service: Option<&str>| {
                    of_tenants.of(tenant).retention_of(service).map(Duration::from)
                });
            let parts = metastore::Parts::with(&config.metastore, &store, clock);
            if targets.has(Role::Metastore) {
                let seat = metastore::Seat {
                    node: peers.node.clone(),
                    membership: peers.membership.clone(),
                    others: peers.metastores(),
                    discovers: peers.discovers(),
                };
                let candidate = metastore::Candidate::new(
                    config.metastore.clone(),
                    store.clone(),
                    parts.clone(),
                    retention.clone(),
                    seat,
                    clock.clone(),
                    registry,
                );
                if !peers.discovers() {
                    // Nobody else can own the catalog: what is wrong with it is better said now.
                    candidate.take_over().await?;
                }
                let _ = peers.own().metastore.set(candidate.clone());
                roles.metastore = Some(candidate);
            }
            let viewer =
                metastore::Viewer::new(config.metastore.clone(), parts.engine, retention, clock.clone());
            let last_known = targets.has(Role::Querier).then(|| Arc::new(viewer) as _);
            let metastore = Arc::new(cluster::Owner::new(peers.metastores(), last_known, clock.clone()));
            roles.owner = Some(metastore.clone());
            if targets.has(Role::Ingester) {
                let ingester = ingester::Ingester::start(
                    config.ingester.clone(),
                    store.clone(),
                    metastore.clone(),
                    clock.clone(),
                    pool.clone(),
                    registry,
                );
                peers.tell_writers(ingester.writers());
                let _ = peers.own().ingester.set(ingester.clone());
                roles.ingester = Some(ingester);
            }
            if targets.has(Role::Querier) {
                let mut cache = block::Cache::new(config.querier.cache_bytes);
                cache.register(registry);
                let (dir, bytes) = (&config.querier.disk_cache_dir, config.querier.disk_cache_bytes);
                if !dir.is_empty() && bytes > 0 {
                    let disk = block::Disk::open(dir.as_ref(), bytes, clock.clone(), registry);
                    let failed = |error| format!("-querier.disk-cache-dir: cannot make {dir}: {error}");
                    cache = cache.with_disk(disk.map_err(failed)?);
                }
                let reads = store.clone().hedged();
                let leaf = querier::Leaf::new(&config.querier, reads, cache, pool.clone(), clock.clone());
                let leaf = roles.leaf.insert(Arc::new(leaf));
                let _ = peers.own().leaf.set(leaf.clone());
                roles.querier = Some(querier::Querier::new(
                    config.querier.clone(),
                    metastore.clone(),
                    peers.leaves(Duration::from(config.querier.query_timeout)),
                    limits.clone(),
                    pool.clone(),
                    clock.clone(),
                    registry,
                ));
            }
            if targets.has(Role::Compactor) {
                roles.compactor = Some(compactor::Compactor::build(
                    config.compactor.clone(),
                    store,
                    metastore,
                    clock.clone(),
                    pool.clone(),
                    registry,
                ));
            }
        }
        if targets.has(Role::Distributor) {
            let callers = peers.ingesters(Duration::from(config.distributor.push_timeout));
            let ingesters = cluster::Ingesters::new(callers, peers.zone.as_str(), clock.clone(), registry);
            let ingester = roles.ingesters.insert(Arc::new(ingesters)).clone();
            roles.distributor = Some(distributor::Distributor::new(
                config.distributor.clone(),
                limits,
                ingester,
                clock.clone(),
                pool.clone(),
                registry,
            ));
        }
        Ok(roles)
    }

    /// What users may call.
    pub(crate) fn routes(&self) -> edge::Routes {
        let mut routes = edge::Routes::new();
        if let Some(distributor) = &self.distributor {
            routes = routes.merge(distributor.clone().routes());
        }
        if let Some(querier) = &self.querier {
            routes = routes.merge(querier.clone().routes()).rest(crate::ui::routes());
        }
        routes
    }

    /// What roles of other processes may call.
    pub(crate) fn services(&self, pool: &Pool) -> Services {
        let mut services = Services::new(pool.clone());
        if let Some(metastore) = &self.metastore {
            services = services.metastore(metastore.clone());
        }
        if let Some(ingester) = &self.ingester {
            services = services.ingester(ingester.clone());
        }
        if let Some(leaf) = &self.leaf {
            services = services.leaf(leaf.clone());
        }
        services
    }

    /// Starts what works without being called.
    pub(crate) fn run(&self, clock: &Clock) {
        if let Some(metastore) = &self.metastore {
            clock.spawn_vital("metastore", metastore.clone().run());
        }
        if let Some(compactor) = &self.compactor {
            clock.spawn_vital("compactor", compactor.clone().run());
        }
    }

    /// What keeps this process from serving, in words; empty if nothing does.
    pub(crate) async fn lacks(&self, clock: &Clock) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if self.ingesters.as_ref().is_some_and(|ingesters| ingesters.count() == 0) {
            lacks.push("distributor: no ingester is known");
        }
        if self.metastore.as_ref().is_some_and(|metastore| !metastore.is_ready()) {
            lacks.push("metastore: neither owns the catalog nor knows who does");
        }
        if let (Some(owner), Some(_)) = (&self.owner, &self.querier)
            && !self.has_met_owner.load(Ordering::Relaxed)
        {
            let standing = clock.timeout(STANDING_MAX, rpc::Metastore::standing(&**owner)).await;
            match standing {
                Some(Ok(_)) => self.has_met_owner.store(true, Ordering::Relaxed),
                _ => lacks.push("querier: no metastore has answered yet"),
            }
        }
        lacks
    }

    /// Gives up what another process is to have next, while this one is still called.
    pub(crate) async fn hand_over(&self) {
        if let Some(metastore) = &self.metastore {
            metastore.hand_over().await;
        }
    }

    /// Makes pushes in flight, which wait for the next flush, durable at once.
    pub(crate) async fn hurry(&self) {
        if let Some(ingester) = &self.ingester {
            ingester.drain().await;
        }
    }

    /// Stops what nobody calls any more.
    pub(crate) async fn drain(&self) {
        if let Some(compactor) = &self.compactor {
            compactor.drain().await;
        }
        if let Some(metastore) = &self.metastore {
            metastore.drain().await;
        }
        info!("drained");
    }
}
