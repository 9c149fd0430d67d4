use std::time::Duration;

use async_trait::async_trait;
use query::{Partial, Query};
use storage::Key;

use crate::{Error, Found};

/// Scans objects for a part of an answer.
#[async_trait]
pub trait Leaf: Send + Sync {
    /// The mergeable answer of `objects`, masks applied. Objects whose bytes are wrong are left out and named.
    ///
    /// # Errors
    /// `NotFound` if an object is gone: the snapshot is too old, ask for a new one. `Unavailable` if the store
    /// could not be asked for one. The request says for either whether the object is left out instead.
    async fn scan(&self, request: ScanRequest) -> Result<Scanned, Error>;
}

#[derive(Clone, Debug)]
pub struct ScanRequest {
    pub query: Query,
    /// Objects of one snapshot.
    pub objects: Vec<Found>,
    /// What is left to whoever asked first; an answer that takes longer is of no use. `None`: no limit.
    pub time_left: Option<Duration>,
    /// An object that is gone is left out and named.
    pub skip_gone: bool,
    /// An object that the store does not give is left out and named.
    pub skip_unavailable: bool,
    /// Whether to measure the effort.
    pub explain: bool,
    /// What the question holds in this process. It does not travel: another process opens an account of its own.
    pub memory: memory::Account,
}

/// What a leaf found.
#[derive(Debug)]
pub struct Scanned {
    pub partial: Partial,
    /// What could not be read.
    pub missing: Vec<Missing>,
    /// If it was asked for.
    pub effort: Option<Effort>,
}

/// An object, or some dataset of it, that is not part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    pub key: Key,
    pub reason: String,
    /// Whether the store itself, asked past all caches, gave wrong bytes.
    pub is_damaged: bool,
}

/// What a scan did. Objects are scanned at once: times of steps are sums, and may exceed `took`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effort {
    pub took: Duration,
    /// Waiting for a turn to read and for bytes, cached or not.
    pub fetch: Duration,
    /// Matching series, decoding, adding up.
    pub scan: Duration,
    /// Joining what objects answered.
    pub merge: Duration,
    /// Datasets that the snapshot knew enough of.
    pub known_datasets: u64,
    /// Decoded parts of objects that were in memory, and that were not.
    pub memory_hits: u64,
    pub memory_misses: u64,
    /// Encoded bytes that the local disk gave.
    pub disk_bytes: u64,
    /// Encoded bytes that the object store gave, and in how many requests.
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
