//! The roles of this process: their routes and services, their start and their stop.

mod build;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clock::{Clock, Pool};
use rpc::grpc::Services;
use storage::Store;
use tracing::info;

/// Time limit for the standing of a metastore; without an answer it counts as unreachable.
const STANDING_MAX: Duration = Duration::from_secs(1);
/// Time limit for the check that the storage directory is present.
const PRESENCE_MAX: Duration = Duration::from_secs(1);

/// The roles of this process; a leaf comes with every querier.
#[derive(Default)]
pub(crate) struct Roles {
    /// The store, if a role uses it.
    pub(crate) store: Option<Store>,
    pub(crate) metastore: Option<Arc<metastore::Candidate>>,
    pub(crate) ingester: Option<Arc<ingester::Ingester>>,
    pub(crate) distributor: Option<Arc<distributor::Distributor>>,
    pub(crate) leaf: Option<Arc<querier::Leaf>>,
    pub(crate) querier: Option<Arc<querier::Querier>>,
    pub(crate) compactor: Option<Arc<compactor::Compactor>>,
    /// The client of the metastore, if a role uses it.
    owner: Option<Arc<cluster::Owner>>,
    /// The client of the ingesters, if this process is a distributor.
    ingesters: Option<Arc<cluster::Ingesters>>,
    /// Whether a metastore has answered this process once; from then on a querier can do without one for a while.
    has_met_owner: AtomicBool,
}

impl Roles {
    /// Routes of the public listener.
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

    /// Services of the listener between roles.
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

    /// Starts the roles that work without being called.
    pub(crate) fn run(&self, clock: &Clock) {
        if let Some(metastore) = &self.metastore {
            clock.spawn_vital("metastore", metastore.clone().run());
        }
        if let Some(compactor) = &self.compactor {
            clock.spawn_vital("compactor", compactor.clone().run());
        }
    }

    /// The reasons why this process cannot serve; empty if it can.
    pub(crate) async fn missing(&self, clock: &Clock) -> Vec<String> {
        let mut missing = Vec::new();
        if let Some(store) = &self.store {
            match clock.timeout(PRESENCE_MAX, store.check_presence()).await {
                Some(Ok(())) => {}
                Some(Err(problem)) => missing.push(format!("storage: {problem}")),
                None => missing.push(format!("storage: {store} does not answer")),
            }
        }
        if self.remark().is_some() && self.ingester.is_some() {
            // Pushes are accepted; queries fail with the reason.
            return missing;
        }
        if self.ingesters.as_ref().is_some_and(|ingesters| ingesters.count() == 0) {
            missing.push("distributor: no ingester is known".to_owned());
        }
        if let Some(metastore) = self.metastore.as_ref().filter(|metastore| !metastore.is_ready()) {
            let neither = || "neither owns the catalog nor knows who does".to_owned();
            missing.push(format!("metastore: {}", metastore.rebuilding().unwrap_or_else(neither)));
        }
        if let (Some(owner), Some(_)) = (&self.owner, &self.querier)
            && !self.has_met_owner.load(Ordering::Relaxed)
        {
            let standing = clock.timeout(STANDING_MAX, rpc::Ownership::standing(&**owner)).await;
            match standing {
                Some(Ok(_)) => self.has_met_owner.store(true, Ordering::Relaxed),
                _ => missing.push("querier: no metastore has answered yet".to_owned()),
            }
        }
        missing
    }

    /// A limitation of this process although it serves, in words.
    pub(crate) fn remark(&self) -> Option<String> {
        let progress = self.metastore.as_ref()?.rebuilding()?;
        Some(format!("{progress}; queries are not answered until then"))
    }

    /// Hands the catalog over to another process, while this one still answers.
    pub(crate) async fn hand_over(&self) {
        if let Some(metastore) = &self.metastore {
            metastore.hand_over().await;
        }
    }

    /// Makes pushes that wait for the next flush durable at once.
    pub(crate) async fn hurry(&self) {
        if let Some(ingester) = &self.ingester {
            ingester.drain().await;
        }
    }

    /// Stops the roles, once they are no longer called.
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
