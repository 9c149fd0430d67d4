use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use block::Directory;
use model::{JobId, ProfileType, TenantId, TimeRange, Times, Window, WriterId};
use query::{Deletion, Selector};
use storage::Key;

use crate::Error;

/// Knows which objects exist and what they hold.
#[async_trait]
pub trait Metastore: Send + Sync {
    /// Tells of a segment that became durable. When this returns, every find sees it.
    ///
    /// Best effort: a segment that nobody tells of is found by probing its log.
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error>;

    /// All live objects that may answer `request`, as of one version of the catalog.
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error>;

    /// Hands out one job to merge, and opens an attempt of it; `None` if there is nothing to do.
    async fn claim_job(&self) -> Result<Option<Job>, Error>;

    /// Replaces a job's inputs by outputs in one commit, if that attempt is still open.
    async fn publish(&self, publication: Publication) -> Result<Published, Error>;

    /// Closes an attempt that could not be finished, with the reason.
    async fn fail_job(&self, failure: JobFailure) -> Result<(), Error>;

    /// Dead objects whose grace is over, at most `limit`.
    async fn sweepable(&self, limit: usize) -> Result<Vec<DeadObject>, Error>;

    /// Tells that these objects are gone from the bucket.
    async fn swept(&self, keys: Vec<Key>) -> Result<(), Error>;

    /// Deletes what is stored now. When this returns, no answer that starts later contains it, and in
    /// time it is gone from the bucket.
    ///
    /// After an error that does not say that the request is wrong, the deletion may be in force all the same.
    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error>;

    /// The deletions of a tenant, newest first; of finished ones not all.
    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error>;

    /// Sets objects aside whose bytes the store itself gave wrong, each with the reason. When this returns, every find
    /// names them among the quarantined. Those that are not live, or were set aside before, are left as they are.
    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error>;

    /// Tells which process answers here, and whether it owns the catalog. Every other method fails with
    /// `Unavailable` where it does not.
    async fn standing(&self) -> Result<Standing, Error>;
}

#[derive(Clone, Debug)]
pub struct SegmentHint {
    pub writer: WriterId,
    pub seq: u64,
    pub bytes: u64,
    pub directory: Directory,
}

/// What to look for; objects without any match are not named.
#[derive(Clone, Debug)]
pub struct FindRequest {
    /// At least one.
    pub tenants: Vec<TenantId>,
    pub range: TimeRange,
    /// Only these services, if given.
    pub services: Option<Vec<String>>,
    /// Only this profile type, if given.
    pub profile_type: Option<ProfileType>,
    /// Whether to count what does not match.
    pub explain: bool,
}

/// One consistent view of the catalog: a query uses one and never mixes two.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub version: u64,
    /// Of the owner that answered; rises with every change of owner. Whoever saw a higher one must not use this.
    pub epoch: u64,
    /// Given if nobody owned the catalog, or its owner could not look into the logs: what was known this long ago.
    pub stale: Option<Duration>,
    pub objects: Vec<Found>,
    /// Objects in range that cannot be read, with the reason: the answer is partial.
    pub quarantined: Vec<(Key, String)>,
    /// If it was asked for.
    pub pruned: Option<Pruned>,
}

/// Live datasets of the tenants that a find does not name, by the first reason that ruled them out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    pub by_service: u64,
    pub by_time: u64,
    pub by_profile_type: u64,
    /// Past what is kept, and not deleted yet.
    pub by_retention: u64,
}

/// What a metastore says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The node that it is in the cluster.
    pub node: String,
    pub is_owner: bool,
    /// Highest that it knows of; its own if it is the owner.
    pub epoch: u64,
    /// The node that it believes to be the owner; empty if it knows of none.
    pub owner: String,
}

#[derive(Clone, Debug)]
pub struct Found {
    pub key: Key,
    pub bytes: u64,
    /// Ordinals of push items that were counted elsewhere; sorted. Empty for blocks.
    pub masked: Vec<u32>,
    /// Deletions that are not applied to the object yet and may erase something of it; most objects have none.
    pub deletions: Vec<Arc<Deletion>>,
    pub datasets: Vec<FoundDataset>,
}

impl Found {
    /// Deletions that may erase something of `dataset`.
    pub fn deletions_of(&self, dataset: &FoundDataset) -> impl Iterator<Item = &Arc<Deletion>> {
        let FoundDataset { tenant, service, profile_types, times, .. } = dataset;
        let touches =
            move |deletion: &&Arc<Deletion>| deletion.touches(tenant, service, profile_types, *times);
        self.deletions.iter().filter(touches)
    }

    /// The times of what the deletions leave of `dataset` at most, as far as can be told without reading it.
    pub fn left_of(&self, dataset: &FoundDataset) -> Option<Times> {
        let FoundDataset { tenant, service, profile_types, times, .. } = dataset;
        let mut left = *times;
        // What one deletion leaves in the middle another may leave at an end.
        for _ in &self.deletions {
            for deletion in &self.deletions {
                left = deletion.left_of(tenant, service, profile_types, left)?;
            }
        }
        Some(left)
    }
}

/// A dataset that matched, by its position in the object's directory.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundDataset {
    pub position: u32,
    pub tenant: TenantId,
    pub service: Arc<str>,
    /// About so many bytes of the object are of this dataset.
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
    /// Rows are divided by tenant and by these windows, which are sorted and do not overlap. Rows outside all of them go to the day of their time.
    pub windows: Vec<Window>,
    /// Outputs are divided by this many bits of the hash of their service as well.
    pub shard_bits: u8,
}

#[derive(Clone, Debug)]
pub struct JobInput {
    pub key: Key,
    pub bytes: u64,
    pub masked: Vec<u32>,
    /// Positions of the datasets that are still live, sorted. Others do not go on.
    pub datasets: Vec<u32>,
    /// Deletions that the merge must apply.
    pub deletions: Vec<Arc<Deletion>>,
}

/// A block that an attempt made.
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
    /// Whether the inputs are not to blame, for example because memory was short: they may be divided between jobs,
    /// but none is quarantined.
    pub inputs_sound: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
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

/// A deletion, and how far it has come.
#[derive(Clone, Debug)]
pub struct DeletionStatus {
    pub number: u64,
    pub created_millis: i64,
    /// What it is about; gone once nothing of that is left.
    pub deletion: Option<Arc<Deletion>>,
    pub progress: DeletionProgress,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeletionProgress {
    /// So many objects may still hold what it erases; those that are unreadable cannot be rewritten.
    Rewriting { objects: usize, unreadable: usize },
    /// So many objects that may hold it wait to be deleted, and perhaps old files of the catalog.
    Sweeping { objects: usize },
    /// Nothing of it is left in the bucket.
    Finished { millis: i64 },
}

#[derive(Clone, Debug)]
pub struct DeadObject {
    pub key: Key,
}
