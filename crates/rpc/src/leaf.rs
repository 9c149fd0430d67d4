//! The trait of a leaf, with its request and its answer.

use std::time::Duration;

use async_trait::async_trait;
use query::{Partial, Query};
use storage::Key;

use crate::{Error, FoundObject};

/// Scans objects for a part of an answer.
#[async_trait]
pub trait Leaf: Send + Sync {
    /// Returns the mergeable answer of `objects`, with masks applied. Damaged objects are left out and named.
    ///
    /// # Errors
    /// `NotFound` if an object is gone: the snapshot is too old, find again. `Unavailable` if the store does not answer
    /// for an object. For both, the request can ask to leave the object out instead.
    async fn scan(&self, request: ScanRequest) -> Result<ScanAnswer, Error>;
}

#[derive(Clone, Debug)]
pub struct ScanRequest {
    pub query: Query,
    /// Objects of one snapshot.
    pub objects: Vec<FoundObject>,
    /// Time left until the deadline of the query; a later answer is useless. `None`: no limit.
    pub time_left: Option<Duration>,
    /// Leave out and name objects that are gone.
    pub skip_gone: bool,
    /// Leave out and name objects that the store does not return.
    pub skip_unavailable: bool,
    /// Whether to measure the effort.
    pub explain: bool,
    /// Memory of the query in this process. Not sent: another process opens its own account.
    pub memory: memory::Account,
}

/// The answer of a leaf.
#[derive(Debug)]
pub struct ScanAnswer {
    pub partial: Partial,
    /// Objects and datasets that could not be read.
    pub missing: Vec<Missing>,
    /// Present if the request asked for it.
    pub effort: Option<Effort>,
}

/// An object of which at least one dataset is missing from an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    pub key: Key,
    pub reason: String,
    /// Whether the store itself returned wrong bytes, read without caches.
    pub is_damaged: bool,
}

/// Cost of a scan. Objects are scanned concurrently: times of steps are sums, and may exceed `took`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effort {
    pub took: Duration,
    /// Waiting for a permit to read, and for the bytes, cached or not.
    pub fetch: Duration,
    /// Matching series, decoding, adding up.
    pub scan: Duration,
    /// Merging the answers of objects.
    pub merge: Duration,
    /// Datasets that were answered from the snapshot alone.
    pub known_datasets: u64,
    /// Decoded parts of objects that were in the memory cache, and parts that were not.
    pub memory_hits: u64,
    pub memory_misses: u64,
    /// Encoded bytes read from the local disk.
    pub disk_bytes: u64,
    /// Encoded bytes read from the object store, and the number of requests.
    pub store_bytes: u64,
    pub store_requests: u64,
}

impl Effort {
    pub fn merge(&mut self, other: &Self) {
        self.took += other.took;
        self.fetch += other.fetch;
        self.scan += other.scan;
        self.merge += other.merge;
        self.known_datasets += other.known_datasets;
        self.memory_hits += other.memory_hits;
        self.memory_misses += other.memory_misses;
        self.disk_bytes += other.disk_bytes;
        self.store_bytes += other.store_bytes;
        self.store_requests += other.store_requests;
    }
}
