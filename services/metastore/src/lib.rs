//! Knows which objects exist and what they hold.
//!
//! Owns: consuming logs, deciding which of two equal pushes counts, finds, the plan of compaction,
//! what may be deleted, rebuilding all of it from the bucket.
//! Does not own: the bytes of any object, merging, deleting.
//!
//! One owner at a time commits; all it knows is in its memory ([`state`]) and answers at once.

mod agenda;
mod commit;
mod config;
mod consume;
mod dead;
mod dedup;
mod deletion;
mod deletions;
mod error;
mod find;
mod group;
pub mod header;
mod jobs;
mod lineage;
mod listing;
mod live;
mod load;
mod metrics;
mod opening;
mod ownership;
mod plan;
mod quarantine;
mod rebuild;
mod reconcile;
mod record;
mod retention;
mod run;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;
mod view;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use catalog::{Catalog, Engine, Numbered, numbered};
use clock::Clock;
use cluster::Membership;
use model::TenantId;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rpc::{
    DeadObject, DeleteRequest, DeletionStatus, Error, ErrorKind, FindRequest, Job, JobFailure, Publication,
    Published, SegmentHint, Snapshot, Standing,
};
use storage::{Key, Store};
use tokio::sync::{Notify, watch};
use tracing::warn;

pub use config::Config;
pub use error::OpenError;
pub use ownership::{Candidate, Seat};
pub use rebuild::{Progress, Rebuilt, rebuild};
pub use retention::Retention;
pub use view::Viewer;

use header::Headers;
use metrics::Metrics;
use opening::{Opened, Opening};
use state::State;

/// An owner answers finds only if it knew for sure, less than this ago, that it is one. A successor waits as long
/// before it serves, unless the one before it has resigned, so that no two answer with different histories.
const SURE_FOR: Duration = Duration::from_secs(1);

/// Finds of an owner that has not looked through all logs for so long say that they are stale.
const LOOKED_WITHIN: Duration = Duration::from_secs(10);

/// As [`SURE_FOR`], for the standing: who watches this owner asks often, and nothing follows from a wrong answer but
/// that the others wait.
const SURE_FOR_STANDING: Duration = Duration::from_secs(10);

/// Most segments consumed and not committed. Over it none is consumed, and logs are read later from the bucket.
const PENDING_SEGMENTS_MAX: usize = 10_000;

/// The owner of the catalog.
pub struct Metastore {
    config: Config,
    store: Store,
    headers: Arc<dyn Headers>,
    clock: Clock,
    retention: Retention,
    metrics: Metrics,
    membership: Option<Arc<dyn Membership>>,
    catalog: Arc<dyn Catalog>,
    /// No other process can open the catalog while this one runs.
    is_alone: bool,
    state: Mutex<State>,
    /// Held from the check of a commit's conditions until memory follows it.
    turn: tokio::sync::Mutex<()>,
    /// Something is pending.
    work: Notify,
    /// When a request last began that showed that this is the owner, by own clock.
    sure: tokio::sync::Mutex<Duration>,
    /// When the last look through all logs that succeeded began, by own clock.
    looked: Mutex<Duration>,
    /// When logs that only membership tells of were last looked into, by own clock.
    looked_into_unheard: Mutex<Duration>,
    stop: watch::Sender<bool>,
    /// A comparison found that the catalog lacks merges: it stopped, and has to be opened anew.
    is_outdated: AtomicBool,
    me: Weak<Self>,
}

/// What a metastore is made of, where a test has its own.
#[derive(Clone)]
pub struct Parts {
    pub headers: Arc<dyn Headers>,
    pub engine: Arc<dyn Engine>,
    pub is_alone: bool,
}

/// What an owner works with, beside its catalog.
struct Resources {
    config: Config,
    store: Store,
    parts: Parts,
    retention: Retention,
    clock: Clock,
    metrics: Metrics,
    /// Tells which logs live ingesters write to; `None` if there is only this process.
    membership: Option<Arc<dyn Membership>>,
}

impl Parts {
    /// As a process has them. Old files of the catalog are kept for as long as dead objects are.
    pub fn with(config: &Config, store: &Store, clock: &Clock) -> Self {
        let collect_after = config.sweep_grace.get();
        let look_within = collect_after * 7 / 15;
        let options = numbered::Options { collect_after, look_within, ..numbered::Options::default() };
        Self {
            headers: Arc::new(header::Bucket::new(store.clone())),
            engine: Arc::new(Numbered::new(store.clone(), clock.clone(), options)),
            is_alone: store.is_exclusive(),
        }
    }
}

impl Metastore {
    /// Opens the catalog of `store`, takes it from any earlier owner, and consumes what was written
    /// since. `retention` says how long data of a tenant's service are kept; `None` is for ever.
    ///
    /// # Errors
    /// The catalog cannot be read, or is newer than this program.
    pub async fn open(
        config: Config,
        store: Store,
        retention: impl Fn(&TenantId, Option<&str>) -> Option<Duration> + Send + Sync + 'static,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, OpenError> {
        let parts = Parts::with(&config, &store, &clock);
        Self::open_parts(config, store, parts, Arc::new(retention), clock, registry).await
    }

    /// As [`Self::open`], made of other parts.
    pub async fn open_parts(
        config: Config,
        store: Store,
        parts: Parts,
        retention: Retention,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, OpenError> {
        let metrics = Metrics::register(registry);
        let progress = Progress::default();
        let opening = Opening {
            config: &config,
            store: &store,
            parts: &parts,
            clock: &clock,
            rebuild: Some(&progress),
        };
        let opened = opening.open().await?;
        let resources = Resources { config, store, parts, retention, clock, metrics, membership: None };
        Self::take_over(opened, resources).await
    }

    /// Becomes the owner of a catalog that was just opened.
    async fn take_over(opened: Opened, resources: Resources) -> Result<Arc<Self>, OpenError> {
        let Opened { catalog, state, fenced, may_answer_elsewhere } = opened;
        let Resources { config, store, parts, retention, clock, metrics, membership } = resources;
        let metastore = Arc::new_cyclic(|me| Self {
            config,
            store,
            headers: parts.headers,
            clock,
            retention,
            metrics,
            membership,
            catalog,
            is_alone: parts.is_alone,
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::new(()),
            work: Notify::new(),
            sure: tokio::sync::Mutex::new(fenced),
            looked: Mutex::new(fenced),
            looked_into_unheard: Mutex::default(),
            stop: watch::Sender::new(false),
            is_outdated: AtomicBool::new(false),
            me: me.clone(),
        });
        metastore.adopt_deletions().await?;
        metastore.catch_up(metastore.is_alone).await?;
        metastore.state.lock().begin_graces(metastore.clock.monotonic());
        metastore.tend();
        metastore.commit_pending().await?;
        if let Err(error) = metastore.create_records().await {
            warn!(%error, "publish records of an earlier owner are not created yet");
        }
        if may_answer_elsewhere {
            let waited = metastore.clock.monotonic() - fenced;
            metastore.clock.sleep(SURE_FOR.saturating_sub(waited)).await;
            // Until now an earlier owner may have told an ingester that it knows a segment.
            metastore.catch_up(false).await?;
        }
        Ok(metastore)
    }

    /// Keeps the catalog up to date until [`Self::drain`], or until another owner opens it.
    pub async fn run(self: Arc<Self>) {
        self.keep_all().await;
    }

    /// Runs `step` to its end even if the caller goes away: memory must follow a commit.
    async fn to_its_end<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.clock.spawn(step).await.unwrap_or_else(|error| {
            Err(Error::with_source(ErrorKind::Internal, "a step of the metastore was cut off", error))
        })
    }

    fn me(&self) -> Result<Arc<Self>, Error> {
        self.me.upgrade().ok_or_else(|| Error::new(ErrorKind::Unavailable, "the metastore is gone"))
    }
}

#[async_trait]
impl rpc::Metastore for Metastore {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        self.hinted(hint).await
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let began = self.clock.monotonic();
        self.ensure_owner().await?;
        let state = self.state.lock();
        self.ensure_not_stopped()?;
        let kept_from = |tenant: &TenantId, service: &str| self.kept_from(tenant, Some(service));
        let mut snapshot = state.snapshot(&request, self.catalog.epoch(), kept_from);
        let unlooked = began.saturating_sub(*self.looked.lock());
        snapshot.stale = (unlooked > LOOKED_WITHIN).then_some(unlooked);
        self.metrics.find_seconds.observe(self.clock.monotonic() - began);
        Ok(snapshot)
    }

    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        let me = self.me()?;
        self.to_its_end(me.claim()).await
    }

    async fn publish(&self, publication: Publication) -> Result<Published, Error> {
        let me = self.me()?;
        self.to_its_end(me.publish_job(publication)).await
    }

    async fn fail_job(&self, failure: JobFailure) -> Result<(), Error> {
        let me = self.me()?;
        self.to_its_end(me.fail(failure)).await
    }

    async fn sweepable(&self, limit: usize) -> Result<Vec<DeadObject>, Error> {
        self.ensure_owner().await?;
        Ok(self.list_sweepable(limit))
    }

    async fn swept(&self, keys: Vec<Key>) -> Result<(), Error> {
        self.forget_swept(&keys);
        Ok(())
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error> {
        let me = self.me()?;
        self.to_its_end(me.make_deletion(request)).await
    }

    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error> {
        self.ensure_owner().await?;
        Ok(self.list_deletions(&tenant))
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        let me = self.me()?;
        self.to_its_end(me.set_aside(damaged)).await
    }

    async fn standing(&self) -> Result<Standing, Error> {
        self.ensure_owner_within(SURE_FOR_STANDING).await?;
        Ok(Standing { is_owner: true, epoch: self.catalog.epoch(), ..Standing::default() })
    }
}
