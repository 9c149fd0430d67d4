//! The bucket as every role sees it: operations on keys.
//!
//! Owns: the identity of the store (place, cluster, ids), whole-object reads, deletion.
//! Does not own: creates with a known outcome (`settle`), ranges and ends of objects (`range`), listings (`list`),
//! sending a request again (`retry`) or twice (`hedge`) within a `budget`, its time limit and metrics (`meter`).
//!
//! One read is `Store::read` or `Store::read_range` → `Retries::repeat` → perhaps `Hedging::first_answer` →
//! `Meter::request`, which sends one request.

mod budget;
mod hedge;
mod list;
mod meter;
mod range;
mod retry;
mod settle;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tracing::info;

use crate::error::Failure;
use crate::local::LocalDir;
use crate::metrics::Operation;
use crate::{Cluster, Error, IdTag, Key, Metrics, Problem};
use hedge::Hedging;
use meter::{Meter, READ_TIMEOUT, UNSIZED_TIMEOUT};
use retry::Retries;

pub use list::Object;
pub use range::Tail;
pub use settle::CreateOutcome;

/// One bucket or directory. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    meter: Meter,
    retries: Arc<Retries>,
    hedging: Option<Arc<Hedging>>,
    is_exclusive: bool,
    /// Whether the store serves "the last n bytes", also of a shorter object.
    has_suffix_ranges: Arc<AtomicBool>,
    directory: Option<LocalDir>,
    cluster: Option<Arc<Cluster>>,
    /// Ids without this tag belong to another cluster.
    id_tag: Option<IdTag>,
    /// Whether objects of another cluster were logged.
    has_logged_others: Arc<AtomicBool>,
}

impl Store {
    pub fn new(objects: Arc<dyn ObjectStore>, clock: Clock, metrics: Metrics) -> Self {
        let place = objects.to_string().into();
        let retries = Arc::new(Retries::new(clock.clone(), metrics.clone()));
        Self {
            objects,
            meter: Meter { clock, metrics, place },
            retries,
            hedging: None,
            is_exclusive: false,
            has_suffix_ranges: Arc::new(AtomicBool::new(true)),
            directory: None,
            cluster: None,
            id_tag: None,
            has_logged_others: Arc::default(),
        }
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(InMemory::new()), Clock::system(), Metrics::default())
    }

    /// The same store, which sends a ranged read a second time if it takes unusually long.
    ///
    /// For queries, whose callers wait. A local directory gains nothing by it.
    pub fn hedged(self) -> Self {
        if self.is_exclusive {
            return self;
        }
        let hedging = Hedging::new(self.meter.clock.clone(), self.meter.metrics.clone());
        Self { hedging: Some(Arc::new(hedging)), ..self }
    }

    /// The same store, which no other process can open while this one runs.
    pub fn exclusive(self) -> Self {
        Self { is_exclusive: true, ..self }
    }

    /// The same store, of a cluster whose ids have this tag. For simulations; [`crate::open()`] derives it from the
    /// cluster id.
    pub fn tagged(self, tag: IdTag) -> Self {
        Self { id_tag: Some(tag), ..self }
    }

    /// The same store, called `place` in messages.
    pub(crate) fn with_place(mut self, place: &str) -> Self {
        self.meter.place = place.into();
        self
    }

    /// The same store, whose objects are files in a local directory.
    pub(crate) fn with_directory(self, directory: LocalDir) -> Self {
        Self { directory: Some(directory), ..self }
    }

    pub(crate) fn with_cluster(self, cluster: Cluster) -> Self {
        let id_tag = cluster.id_tag();
        Self { cluster: Some(Arc::new(cluster)), id_tag, ..self }
    }

    /// Whether no other process can use this store now.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// The random id of the cluster that the store belongs to; `None` if it was not opened from a config.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster.as_ref().map(|cluster| cluster.id.as_str())
    }

    /// The tag of all ids of the cluster; `None` if ids have no tag.
    pub fn id_tag(&self) -> Option<IdTag> {
        self.id_tag
    }

    /// A random id for a log or a job of this cluster.
    pub fn new_id(&self, clock: &Clock) -> u128 {
        let id = clock.random();
        self.id_tag.map_or(id, |tag| tag.mark(id))
    }

    /// Checks that a local directory is still the one that was opened; a bucket always passes.
    ///
    /// # Errors
    /// Names the directory that was removed, replaced or unmounted. All writes fail until it is back.
    pub async fn check_presence(&self) -> Result<(), Problem> {
        match &self.directory {
            Some(directory) => {
                directory.check_presence().await.map_err(|error| Problem::of(Operation::list, &error))
            }
            None => Ok(()),
        }
    }

    /// From now on this store, and each clone of it, reads the end of an object in two requests: its size, then
    /// the range.
    pub(crate) fn give_up_suffix_ranges(&self, because: &dyn std::fmt::Display) {
        if self.has_suffix_ranges.swap(false, Ordering::Relaxed) {
            info!(store = %self, %because, "ends of objects are read in two requests, by their size");
        }
    }

    pub(crate) fn has_suffix_ranges(&self) -> bool {
        self.has_suffix_ranges.load(Ordering::Relaxed)
    }

    /// The whole object.
    ///
    /// # Errors
    /// `NotFound` if it does not exist; otherwise the request failed, also when repeated.
    pub async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        let location = path(key)?;
        self.read(key, Operation::get, UNSIZED_TIMEOUT, || async {
            let got = self.meter.response(self.objects.get(&location)).await?;
            let bytes = got.bytes().await?;
            let len = bytes.len() as u64;
            Ok((bytes, len))
        })
        .await
    }

    /// Deletes an object; one that does not exist is no error.
    ///
    /// # Errors
    /// The request failed, also when repeated. The object may be gone.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        let location = path(key)?;
        let deleted = self
            .read(key, Operation::delete, READ_TIMEOUT, || async {
                self.objects.delete(&location).await?;
                Ok(((), 0))
            })
            .await;
        match deleted {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    /// Sends `request`, and again while that may help. It returns a value and the number of bytes moved.
    async fn read<T, F>(
        &self,
        key: &Key,
        operation: Operation,
        limit: Duration,
        request: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<(T, u64), Failure>>,
    {
        self.retries.repeat(operation, || self.meter.request(key, operation, limit, request())).await
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.meter.place)
    }
}

/// Takes the key as it is: `Path::from` would percent-encode a second time.
fn path(key: &Key) -> Result<Path, Error> {
    let invalid = |source: object_store::path::Error| Failure::Store(source.into());
    Path::parse(key.as_str())
        .map_err(|source| invalid(source).translate(&"storage".into(), key, Operation::get).1)
}
