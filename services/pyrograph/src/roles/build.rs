//! Builds the roles of this process, each from its configuration and clients of the roles that it calls.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pools};
use prometheus_client::registry::Registry;
use storage::Store;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use super::Roles;
use crate::config::{Config, overrides};
use crate::peers::Peers;
use crate::shares::Shares;
use crate::targets::{Role, Targets};

type Error = Box<dyn std::error::Error>;

/// The read cache of a local directory is emptied after this time without a query: reading and decoding again takes
/// a little longer, and a personal computer has other uses for its memory.
const DIRECTORY_CACHE_IDLE: Duration = Duration::from_secs(25);

impl Roles {
    /// Builds the roles of `targets`, each after the roles that it calls.
    ///
    /// # Errors
    /// Describes the fault of the configuration, the bucket or the catalog.
    pub(crate) async fn build(
        targets: &Targets,
        config: &Config,
        shares: &Shares,
        peers: &Peers,
        clock: &Clock,
        pools: &Pools,
        registry: &mut Registry,
    ) -> Result<Self, Error> {
        let mut roles = Self::default();
        let limits = limits_of_tenants(config, clock)?;
        let mut builder = Builder { config, shares, peers, limits, clock, pools, registry };
        let reads_bucket = [Role::Metastore, Role::Ingester, Role::Querier, Role::Compactor];
        if reads_bucket.iter().any(|role| targets.has(*role)) {
            let store = builder.store().await?;
            roles.store = Some(store.clone());
            let parts = metastore::Parts::with(&config.metastore, &store, clock);
            if targets.has(Role::Metastore) {
                roles.metastore = Some(builder.metastore(&store, &parts).await?);
            }
            let owner = builder.owner(parts, targets.has(Role::Querier));
            if targets.has(Role::Ingester) {
                roles.ingester = Some(builder.ingester(&store, &owner));
            }
            if targets.has(Role::Querier) {
                roles.leaf = Some(builder.leaf(&store)?);
                roles.querier = Some(builder.querier(&owner));
            }
            if targets.has(Role::Compactor) {
                roles.compactor = Some(builder.compactor(&store, &owner));
            }
            roles.owner = Some(owner);
        }
        if targets.has(Role::Distributor) {
            let ingesters = builder.ingesters();
            roles.distributor = Some(builder.distributor(&ingesters));
            roles.ingesters = Some(ingesters);
        }
        Ok(roles)
    }
}

fn is_full(error: &metastore::OpenError) -> bool {
    use metastore::OpenError;
    match error {
        OpenError::Store(error)
        | OpenError::Header(metastore::header::Error::Store(error))
        | OpenError::Catalog(catalog::Error::Store(error)) => error.is_full(),
        _ => false,
    }
}

/// Reads the limits of single tenants: now, whenever their file changes, and at SIGHUP.
fn limits_of_tenants(config: &Config, clock: &Clock) -> Result<Arc<limits::Overrides>, Error> {
    let tenants = overrides::read(&config.runtime_config, &config.limits)?;
    let limits = Arc::new(limits::Overrides::new(config.limits.clone(), tenants.clone()));
    if !config.runtime_config.file.is_empty() {
        let (own, default) = (config.runtime_config.clone(), config.limits.clone());
        let hangup = signal(SignalKind::hangup())?;
        let reading = overrides::keep_reading(own, default, tenants, limits.clone(), hangup, clock.clone());
        clock.spawn_vital("limits of tenants", reading);
    }
    Ok(limits)
}

/// The parts that all roles are built from.
struct Builder<'a> {
    config: &'a Config,
    shares: &'a Shares,
    peers: &'a Peers,
    limits: Arc<limits::Overrides>,
    clock: &'a Clock,
    pools: &'a Pools,
    registry: &'a mut Registry,
}

impl Builder<'_> {
    async fn store(&mut self) -> Result<Store, Error> {
        let metrics = storage::Metrics::register(self.registry);
        Ok(storage::open(&self.config.storage, self.clock.clone(), metrics).await?)
    }

    async fn metastore(
        &mut self,
        store: &Store,
        parts: &metastore::Parts,
    ) -> Result<Arc<metastore::Candidate>, Error> {
        let seat = metastore::Seat {
            node: self.peers.node.clone(),
            membership: self.peers.membership.clone(),
            others: self.peers.metastores(),
            discovers: self.peers.discovers(),
        };
        let candidate = metastore::Candidate::new(
            self.config.metastore.clone(),
            store.clone(),
            parts.clone(),
            self.retention(),
            seat,
            self.clock.clone(),
            self.registry,
        );
        if !self.peers.discovers() {
            // No other process can own the catalog, so its faults are reported now. Only a full disk may recover while
            // this process runs; the metastore tries again.
            match candidate.take_over_at_start().await {
                Err(error) if is_full(&error) => {
                    warn!(error = &error as &dyn std::error::Error, "starts without the catalog");
                }
                taken => taken?,
            }
        }
        let _ = self.peers.own().metastore.set(candidate.clone());
        Ok(candidate)
    }

    fn retention(&self) -> metastore::Retention {
        let limits = self.limits.clone();
        Arc::new(move |tenant: &model::TenantId, service: Option<&str>| {
            limits.of(tenant).retention_of(service).map(Duration::from)
        })
    }

    /// The client of the catalog's owner. With `views`, it reads the catalog itself while no owner answers.
    fn owner(&self, parts: metastore::Parts, views: bool) -> Arc<cluster::Owner> {
        let config = self.config.metastore.clone();
        let last_known = views.then(|| {
            let viewer = metastore::Viewer::new(config, parts.engine, self.retention(), self.clock.clone());
            Arc::new(viewer) as _
        });
        Arc::new(cluster::Owner::new(self.peers.metastores(), last_known, self.clock.clone()))
    }

    fn ingester(&mut self, store: &Store, owner: &Arc<cluster::Owner>) -> Arc<ingester::Ingester> {
        let ingester = ingester::Ingester::start(
            self.config.ingester.clone(),
            store.clone(),
            owner.clone(),
            self.clock.clone(),
            self.pools.pushes.clone(),
            self.registry,
        );
        self.peers.publish_writers(ingester.writers());
        let _ = self.peers.own().ingester.set(ingester.clone());
        ingester
    }

    fn leaf(&mut self, store: &Store) -> Result<Arc<querier::Leaf>, Error> {
        let config = &self.config.querier;
        let mut cache = block::Cache::new(config.cache_bytes);
        cache.register(self.registry);
        let (dir, bytes) = (&config.disk_cache_dir, config.disk_cache_bytes);
        if !dir.is_empty() && bytes > 0 {
            let disk = block::Disk::open(dir.as_ref(), bytes, self.clock.clone(), self.registry);
            let failed = |error| format!("-querier.disk-cache-dir: cannot make {dir}: {error}");
            cache = cache.with_disk(disk.map_err(failed)?);
        }
        if store.is_exclusive() {
            self.clock.spawn(cache.clone().empty_when_idle(DIRECTORY_CACHE_IDLE, self.clock.clone()));
        }
        let reads = store.clone().hedged();
        let memory = self.shares.queries.clone();
        let leaf =
            querier::Leaf::new(config, memory, reads, cache, self.pools.queries.clone(), self.clock.clone());
        let leaf = Arc::new(leaf);
        let _ = self.peers.own().leaf.set(leaf.clone());
        Ok(leaf)
    }

    fn querier(&mut self, owner: &Arc<cluster::Owner>) -> Arc<querier::Querier> {
        querier::Querier::new(
            self.config.querier.clone(),
            self.shares.queries.clone(),
            owner.clone(),
            self.peers.leaves(Duration::from(self.config.querier.query_timeout)),
            self.limits.clone(),
            self.pools.queries.clone(),
            self.clock.clone(),
            self.registry,
        )
    }

    fn compactor(&mut self, store: &Store, owner: &Arc<cluster::Owner>) -> Arc<compactor::Compactor> {
        compactor::Compactor::new(
            self.config.compactor.clone(),
            self.shares.merges.clone(),
            store.clone(),
            owner.clone(),
            self.clock.clone(),
            self.pools.queries.clone(),
            self.registry,
        )
    }

    /// The client of the ingesters.
    fn ingesters(&mut self) -> Arc<cluster::Ingesters> {
        let callers = self.peers.ingesters(Duration::from(self.config.distributor.push_timeout));
        let zone = self.peers.zone.as_str();
        Arc::new(cluster::Ingesters::new(callers, zone, self.clock.clone(), self.registry))
    }

    fn distributor(&mut self, ingesters: &Arc<cluster::Ingesters>) -> Arc<distributor::Distributor> {
        distributor::Distributor::new(
            self.config.distributor.clone(),
            self.limits.clone(),
            ingesters.clone(),
            self.clock.clone(),
            self.pools.pushes.clone(),
            self.registry,
        )
    }
}
