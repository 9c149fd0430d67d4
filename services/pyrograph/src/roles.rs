//! Builds the roles of this process, and tells each where the others are.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use prometheus_client::registry::Registry;
use rpc::grpc::Services;
use tracing::info;

use crate::config::{Config, overrides};
use crate::peers::Elsewhere;
use crate::targets::{Role, Targets};

/// What this process runs; a leaf comes with every querier.
#[derive(Default)]
pub(crate) struct Roles {
    pub(crate) metastore: Option<Arc<metastore::Metastore>>,
    pub(crate) ingester: Option<Arc<ingester::Ingester>>,
    pub(crate) distributor: Option<Arc<distributor::Distributor>>,
    pub(crate) leaf: Option<Arc<querier::Leaf>>,
    pub(crate) querier: Option<Arc<querier::Querier>>,
    pub(crate) compactor: Option<Arc<compactor::Compactor>>,
}

impl Roles {
    /// Builds those of `targets`, each after those that it calls.
    pub(crate) async fn build(
        targets: &Targets,
        config: &Config,
        clock: &Clock,
        pool: &Pool,
        registry: &mut Registry,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roles = Self::default();
        let elsewhere = Elsewhere { peers: &config.peers, clock, pool };
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
            if targets.has(Role::Metastore) {
                let overrides = limits.clone();
                let retention = move |tenant: &model::TenantId, service: Option<&str>| {
                    overrides.of(tenant).retention_of(service).map(Duration::from)
                };
                let (own, store, clock) = (config.metastore.clone(), store.clone(), clock.clone());
                roles.metastore =
                    Some(metastore::Metastore::open(own, store, retention, clock, registry).await?);
            }
            let metastore: Arc<dyn rpc::Metastore> = match &roles.metastore {
                Some(metastore) => metastore.clone(),
                None => elsewhere.metastore()?,
            };
            if targets.has(Role::Ingester) {
                roles.ingester = Some(ingester::Ingester::start(
                    config.ingester.clone(),
                    store.clone(),
                    metastore.clone(),
                    clock.clone(),
                    pool.clone(),
                    registry,
                ));
            }
            if targets.has(Role::Querier) {
                let cache = block::Cache::new(config.querier.cache_bytes);
                cache.register(registry);
                let reads = store.clone().hedged();
                let leaf = querier::Leaf::new(&config.querier, reads, cache, pool.clone(), clock.clone());
                let leaf = roles.leaf.insert(Arc::new(leaf));
                let mut leaves = elsewhere.leaves(Duration::from(config.querier.query_timeout))?;
                if leaves.is_empty() {
                    leaves.push(("own".to_owned(), leaf.clone()));
                }
                roles.querier = Some(querier::Querier::new(
                    config.querier.clone(),
                    metastore.clone(),
                    Arc::new(querier::FixedLeaves(leaves.into())),
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
            let ingester: Arc<dyn rpc::Ingester> = match &roles.ingester {
                Some(ingester) => ingester.clone(),
                None => elsewhere.ingester(Duration::from(config.distributor.push_timeout))?,
            };
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
