//! The traits of the metastore, one per caller, with their requests and answers.
//!
//! Owns: the meaning of each call for its caller. Does not own: how the catalog is kept (`metastore`), who owns it
//! (`cluster`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::Directory;
use model::{JobId, ProfileType, TenantId, TimeRange, Times, Window, WriterId};
use query::{Deletion, Selector};
use storage::Key;

use crate::Error;

/// The role: all calls of all callers.
pub trait Metastore: SegmentHints + ObjectIndex + JobQueue + Ownership {}

impl<M: SegmentHints + ObjectIndex + JobQueue + Ownership> Metastore for M {}

/// The calls of ingesters.
#[async_trait]
pub trait SegmentHints: Send + Sync {
    /// Announces a segment that became durable. Once this returns, every find sees it.
    ///
    /// Best effort: a segment that was not announced is found by probing its log.
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error>;
}

/// The calls of queriers.
#[async_trait]
pub trait ObjectIndex: Send + Sync {
    /// Returns all live objects that may answer `request`, as of one version of the catalog.
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error>;

    /// Quarantines objects for which the store itself returned wrong bytes, each with the reason. Once this returns,
    /// every find names them as quarantined. Objects that are not live, or already quarantined, do not change.
    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error>;

    /// Deletes matching profiles that are stored now. Once this returns, no answer that starts later contains them;
    /// they leave the bucket later.
    ///
    /// After an error other than a refusal of the request itself, the deletion may be in force nevertheless.
    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error>;

    /// Returns the deletions of a tenant, newest first; not all of the finished ones.
    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error>;
}

/// The calls of compactors: merges, and the deletion of dead objects.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Assigns one job and opens an attempt of it; `None` if no job is ready.
    async fn claim_job(&self) -> Result<Option<Job>, Error>;

    /// Replaces a job's inputs by its outputs in one commit, if the attempt is still open.
    async fn publish(&self, publication: Publication) -> Result<PublishOutcome, Error>;

    /// Closes an attempt that could not be finished, with the reason.
    async fn fail_job(&self, failure: JobFailure) -> Result<(), Error>;

    /// Returns up to `limit` dead objects whose grace period is over.
    async fn sweepable(&self, limit: usize) -> Result<Vec<DeadObject>, Error>;

    /// Reports that these objects were deleted from the bucket.
    async fn swept(&self, keys: Vec<Key>) -> Result<(), Error>;
}

/// The calls of other metastores, and of commands that need to know whether one runs.
#[async_trait]
pub trait Ownership: Send + Sync {
    /// Returns which process answers, and whether it owns the catalog. If it does not, every call of the other traits
    /// fails with `Unavailable`.
    async fn standing(&self) -> Result<Standing, Error>;
}

#[derive(Clone, Debug)]
pub struct SegmentHint {
    pub writer: WriterId,
    pub seq: u64,
    pub bytes: u64,
    pub directory: Directory,
}

/// The datasets to find. Objects without a match are not returned.
#[derive(Clone, Debug)]
pub struct FindRequest {
    /// At least one.
    pub tenants: Vec<TenantId>,
    pub range: TimeRange,
    /// Only these services, if given.
    pub services: Option<Vec<String>>,
    /// Only this profile type, if given.
    pub profile_type: Option<ProfileType>,
    /// Whether to count the datasets that do not match.
    pub explain: bool,
}

/// One consistent view of the catalog: a query uses one and never mixes two.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub version: u64,
    /// Epoch of the owner that answered; rises with every change of owner. A caller that has seen a higher epoch must
    /// not use this snapshot.
    pub epoch: u64,
    /// Age of the snapshot, if the catalog had no owner or its owner could not read the logs.
    pub stale: Option<Duration>,
    pub objects: Vec<FoundObject>,
    /// Objects in range that cannot be read, with the reason: the answer is partial.
    pub quarantined: Vec<(Key, String)>,
    /// Present if the request asked for it.
    pub pruned: Option<PruneCounts>,
}

/// Live datasets of the tenants that a find does not name, by the first reason that ruled them out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PruneCounts {
    pub by_service: u64,
    pub by_time: u64,
    pub by_profile_type: u64,
    /// Older than the retention, and not deleted yet.
    pub by_retention: u64,
}

/// The state of a metastore, as it reports it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Its node id in the cluster.
    pub node: String,
    pub is_owner: bool,
    /// The highest epoch that it knows; its own if it is the owner.
    pub epoch: u64,
    /// Node id of the owner as it knows it; empty if it knows none.
    pub owner: String,
}

/// An object with at least one dataset that matched.
#[derive(Clone, Debug)]
pub struct FoundObject {
    pub key: Key,
    pub bytes: u64,
    /// Ordinals of push items that already count in another object; sorted. Empty for blocks.
    pub masked: Vec<u32>,
    /// Deletions that are not applied to the object yet and may erase parts of it; most objects have none.
    pub deletions: Vec<Arc<Deletion>>,
    pub datasets: Vec<FoundDataset>,
}

impl FoundObject {
    /// Deletions that may erase parts of `dataset`.
    pub fn deletions_of(&self, dataset: &FoundDataset) -> impl Iterator<Item = &Arc<Deletion>> {
        let FoundDataset { tenant, service, profile_types, times, .. } = dataset;
        let touches =
            move |deletion: &&Arc<Deletion>| deletion.touches(tenant, service, profile_types, *times);
        self.deletions.iter().filter(touches)
    }

    /// Upper bound of the times of the profiles of `dataset` that the deletions leave, known without reading it. `None`
    /// if they leave none.
    pub fn remaining_times(&self, dataset: &FoundDataset) -> Option<Times> {
        let FoundDataset { tenant, service, profile_types, times, .. } = dataset;
        let mut remaining = *times;
        // A deletion in the middle cuts nothing until another one has cut up to it: so all are tried once per deletion.
        for _ in &self.deletions {
            for deletion in &self.deletions {
                remaining = deletion.remaining_times(tenant, service, profile_types, remaining)?;
            }
        }
        Some(remaining)
    }
}

/// A dataset that matched, by its position in the object's directory.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundDataset {
    pub position: u32,
    pub tenant: TenantId,
    pub service: Arc<str>,
    /// Approximate number of bytes of this dataset in the object.
    pub bytes: u64,
    pub times: Times,
    /// Sorted and distinct; shared by all datasets with the same types.
    pub profile_types: Arc<[ProfileType]>,
}

/// Inputs to merge, whole, into one block per output.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub attempt: u32,
    pub inputs: Vec<JobInput>,
    /// Level of the outputs.
    pub level: u8,
    /// Rows are divided by tenant and by these windows, which are sorted and do not overlap. A row outside all of them
    /// goes to the day of its time.
    pub windows: Vec<Window>,
    /// Outputs are divided by this many bits of the hash of their service as well.
    pub shard_bits: u8,
}

#[derive(Clone, Debug)]
pub struct JobInput {
    pub key: Key,
    pub bytes: u64,
    pub masked: Vec<u32>,
    /// Positions of the datasets that are still live, sorted. The merge drops all others.
    pub datasets: Vec<u32>,
    /// Deletions that the merge must apply.
    pub deletions: Vec<Arc<Deletion>>,
}

/// A block that an attempt created.
#[derive(Clone, Debug)]
pub struct JobOutput {
    pub key: Key,
    pub bytes: u64,
    pub tenant: TenantId,
    pub window: Window,
    pub directory: Directory,
}

#[derive(Clone, Debug)]
pub struct Publication {
    pub job: JobId,
    pub attempt: u32,
    pub outputs: Vec<JobOutput>,
}

/// An attempt that could not be finished.
#[derive(Clone, Debug)]
pub struct JobFailure {
    pub job: JobId,
    pub attempt: u32,
    pub reason: String,
    /// Whether the failure is not the fault of the inputs, for example with too little memory: they may be divided
    /// between jobs, but none is quarantined.
    pub inputs_sound: bool,
}

/// How a call to publish ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishOutcome {
    /// The outputs are live and the inputs dead, by this call or by an earlier one of the same attempt.
    Done,
    /// The attempt is closed; its outputs will never be live.
    Rejected,
}

#[derive(Clone, Debug)]
pub struct DeleteRequest {
    pub tenant: TenantId,
    /// At least one matcher.
    pub selector: Selector,
    pub range: TimeRange,
}

/// A deletion and its progress.
#[derive(Clone, Debug)]
pub struct DeletionStatus {
    pub number: u64,
    pub created_millis: i64,
    /// The deletion itself; absent once no data that it erases are left.
    pub deletion: Option<Arc<Deletion>>,
    pub progress: DeletionProgress,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeletionProgress {
    /// `objects` may still hold erased data; `unreadable` of them cannot be rewritten.
    Rewriting { objects: usize, unreadable: usize },
    /// `objects` that may hold erased data, and perhaps old files of the catalog, wait to be deleted from the bucket.
    Sweeping { objects: usize },
    /// No erased data are left in the bucket.
    Finished { millis: i64 },
}

#[derive(Clone, Debug)]
pub struct DeadObject {
    pub key: Key,
}
