//! The catalog: which objects exist, and which datasets they hold.
//!
//! Owns: consuming logs, deciding which of two equal pushes counts, finds, the plan of compaction, the list of objects
//! that may be deleted, rebuilding all of it from the bucket.
//! Does not own: the bytes of any object, merging, deleting.
//!
//! Several processes may be candidates (`ownership`); one at a time is the owner ([`Metastore`]) and commits. It
//! opens the catalog (`opening`), keeps all rows in memory (`state`), reads the writers' logs (`consume`), and
//! answers finds from memory (`find`). Its loops are in `run`, its commits in `commit`.

mod agenda;
mod commit;
mod config;
mod consume;
mod dead;
mod dedup;
mod deletion_lifecycle;
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
mod parts;
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
use catalog::Catalog;
use clock::Clock;
use cluster::Membership;
use model::TenantId;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rpc::{
    DeadObject, DeleteRequest, DeletionStatus, Error, ErrorKind, FindRequest, Job, JobFailure, Publication,
    PublishOutcome, SegmentHint, Snapshot, Standing,
};
use storage::{Key, Store};
use tokio::sync::{Notify, watch};
use tracing::warn;

pub use config::Config;
pub use error::OpenError;
pub use ownership::{Candidate, Seat};
pub use parts::Parts;
pub use rebuild::{Progress, RebuildCounts, rebuild};
pub use retention::Retention;
pub use view::Viewer;

use header::Headers;
use metrics::Metrics;
use opening::{OpenCatalog, Opening};
use parts::Resources;
use state::State;

/// An owner answers finds only if the store confirmed less than this ago that it is the owner. A successor waits as
/// long before it serves, unless its predecessor has resigned, so that no two owners answer with different histories.
const CONFIRMATION_LIFETIME: Duration = Duration::from_secs(1);

/// Finds of an owner that has not read all logs for this long are marked as stale.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// As [`CONFIRMATION_LIFETIME`], for [`rpc::Ownership::standing`]: candidates ask often, and a wrong answer only makes them wait.
const STANDING_CONFIRMATION_LIFETIME: Duration = Duration::from_secs(10);

/// Most segments consumed and not committed. Above it no segment is consumed; logs are read later from the bucket.
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
    /// Whether no other process can open the catalog while this one runs.
    is_alone: bool,
    state: Mutex<State>,
    /// Held from the check of a commit's conditions until the state follows the commit.
    turn: tokio::sync::Mutex<()>,
    /// Notified when a step is pending.
    work: Notify,
    /// When the last request began that confirmed that this is the owner, on the monotonic clock.
    confirmed_at: tokio::sync::Mutex<Duration>,
    /// When the last successful read of all logs began, on the monotonic clock.
    logs_read_at: Mutex<Duration>,
    /// When logs known from membership alone were last read, on the monotonic clock.
    unheard_probed: Mutex<Duration>,
    stop: watch::Sender<bool>,
    /// Whether a comparison found that the catalog lacks merges: the owner stopped, and the catalog is opened anew.
    is_outdated: AtomicBool,
    me: Weak<Self>,
}

impl Metastore {
    /// Opens the catalog of `store`, takes it from any earlier owner, and consumes the segments written since.
    /// `retention` returns how long data of a tenant's service are kept; `None` means for ever.
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

    /// As [`Self::open`], with other parts.
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
    async fn take_over(opened: OpenCatalog, resources: Resources) -> Result<Arc<Self>, OpenError> {
        let OpenCatalog { catalog, state, fenced, may_answer_elsewhere } = opened;
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
            confirmed_at: tokio::sync::Mutex::new(fenced),
            logs_read_at: Mutex::new(fenced),
            unheard_probed: Mutex::default(),
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
            metastore.clock.sleep(CONFIRMATION_LIFETIME.saturating_sub(waited)).await;
            // Until now an earlier owner may have confirmed a segment to an ingester.
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
impl rpc::SegmentHints for Metastore {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        self.take_hint(hint).await
    }
}

#[async_trait]
impl rpc::ObjectIndex for Metastore {
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let began = self.clock.monotonic();
        self.ensure_owner().await?;
        let state = self.state.lock();
        self.ensure_not_stopped()?;
        let kept_from = |tenant: &TenantId, service: &str| self.kept_from(tenant, Some(service));
        let mut snapshot = state.snapshot(&request, self.catalog.epoch(), kept_from);
        let behind = began.saturating_sub(*self.logs_read_at.lock());
        snapshot.stale = (behind > STALE_AFTER).then_some(behind);
        self.metrics.find_seconds.observe(self.clock.monotonic() - began);
        Ok(snapshot)
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        let me = self.me()?;
        self.to_its_end(me.set_aside(damaged)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error> {
        let me = self.me()?;
        self.to_its_end(me.make_deletion(request)).await
    }

    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error> {
        self.ensure_owner().await?;
        Ok(self.list_deletions(&tenant))
    }
}

#[async_trait]
impl rpc::JobQueue for Metastore {
    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        let me = self.me()?;
        self.to_its_end(me.claim()).await
    }

    async fn publish(&self, publication: Publication) -> Result<PublishOutcome, Error> {
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
}

#[async_trait]
impl rpc::Ownership for Metastore {
    async fn standing(&self) -> Result<Standing, Error> {
        self.ensure_owner_within(STANDING_CONFIRMATION_LIFETIME).await?;
        Ok(Standing { is_owner: true, epoch: self.catalog.epoch(), ..Standing::default() })
    }
}
