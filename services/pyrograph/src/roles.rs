//! The roles of this process: what they serve, and how they start and stop.

mod build;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clock::{Clock, Pool};
use rpc::grpc::Services;
use storage::Store;
use tracing::info;

/// A metastore that does not tell its standing within this time does not answer.
const STANDING_MAX: Duration = Duration::from_secs(1);
/// A directory that cannot be looked at within this time does not answer.
const PRESENCE_MAX: Duration = Duration::from_secs(1);

/// What this process runs; a leaf comes with every querier.
#[derive(Default)]
pub(crate) struct Roles {
    /// Where the roles keep objects, if one does.
    pub(crate) store: Option<Store>,
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
    /// What users may call.
    pub(crate) fn routes(&self) -> edge::Routes {
        let mut routes = edge::Routes::new();
        if let Some(distributor) = &self.distributor {
            routes = routes.merge(distributor.clone().routes());
        }
        if let Some(querier) = &self.querier {
            routes = routes.merge(querier.clone().routes()).merge(crate::ui::routes());
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
    pub(crate) async fn lacks(&self, clock: &Clock) -> Vec<String> {
        let mut lacks = Vec::new();
        if let Some(store) = &self.store {
            match clock.timeout(PRESENCE_MAX, store.check_presence()).await {
                Some(Ok(())) => {}
                Some(Err(problem)) => lacks.push(format!("storage: {problem}")),
                None => lacks.push(format!("storage: {store} does not answer")),
            }
        }
        if self.remark().is_some() && self.ingester.is_some() {
            // Pushes are taken; questions say why they fail.
            return lacks;
        }
        if self.ingesters.as_ref().is_some_and(|ingesters| ingesters.count() == 0) {
            lacks.push("distributor: no ingester is known".to_owned());
        }
        if let Some(metastore) = self.metastore.as_ref().filter(|metastore| !metastore.is_ready()) {
            let neither = || "neither owns the catalog nor knows who does".to_owned();
            lacks.push(format!("metastore: {}", metastore.rebuilding().unwrap_or_else(neither)));
        }
        if let (Some(owner), Some(_)) = (&self.owner, &self.querier)
            && !self.has_met_owner.load(Ordering::Relaxed)
        {
            let standing = clock.timeout(STANDING_MAX, rpc::Metastore::standing(&**owner)).await;
            match standing {
                Some(Ok(_)) => self.has_met_owner.store(true, Ordering::Relaxed),
                _ => lacks.push("querier: no metastore has answered yet".to_owned()),
            }
        }
        lacks
    }

    /// What this process cannot do although it serves, in words.
    pub(crate) fn remark(&self) -> Option<String> {
        let progress = self.metastore.as_ref()?.rebuilding()?;
        Some(format!("{progress}; questions are not answered until then"))
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
