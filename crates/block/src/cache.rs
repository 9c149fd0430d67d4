//! The memory tier of the cache: decoded parts of objects, within a budget of bytes.
//!
//! Owns: the names of parts, the budget, counting reads.
//! Does not own: decoding (`reader`, `scan`), the disk tier ([`Disk`]).
//!
//! Objects never change, so no entry is ever invalid; the least used ones are evicted.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use foldhash::fast::RandomState;
use model::Symbols;
use prometheus_client::registry::Registry;
use quick_cache::Weighter;
use quick_cache::sync::{Cache as Store, DefaultLifecycle};
use storage::Key;

use crate::disk::Disk;
use crate::metrics::CacheMetrics;
use crate::reader::Parts;
use crate::scan::Column;
use crate::{Cells, DatasetIndex, NameTree};

/// Cheap to clone; clones share their entries.
#[derive(Clone)]
pub struct Cache {
    decoded: Arc<Store<Name, Entry, ByBytes, RandomState>>,
    disk: Option<Arc<Disk>>,
    reads: Option<Arc<Reads>>,
    is_bypassed: bool,
}

/// Counts the reads through one handle of a cache.
#[derive(Debug, Default)]
pub struct Reads {
    /// Lookups of decoded parts: found, and not found.
    pub memory_hits: AtomicU64,
    pub memory_misses: AtomicU64,
    /// Encoded bytes from the local disk.
    pub disk_bytes: AtomicU64,
    /// Encoded bytes from the object store, and the number of reads for them.
    pub store_bytes: AtomicU64,
    pub store_requests: AtomicU64,
}

/// Names a part: the object by the hash of its key, the dataset by its position, a column by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Name {
    pub(crate) object: u128,
    pub(crate) dataset: u32,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Object,
    Index,
    Symbols,
    Tree,
    /// One stored column of all rows of a dataset.
    Column(u32),
    /// The head of cells, by their position in the directory.
    Cells(u32),
    /// A column of a chunk of cells.
    CellColumn {
        cells: u32,
        chunk: u32,
        column: u32,
    },
}

#[derive(Clone)]
pub(crate) enum Entry {
    Object(Arc<Parts>),
    Index(Arc<DatasetIndex>),
    Symbols(Arc<Symbols>),
    Tree(Arc<NameTree>),
    Column(Arc<Column>),
    Cells(Arc<Cells>),
}

impl Entry {
    /// Bytes held in memory, roughly.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Object(parts) => parts.byte_len(),
            Self::Index(index) => index.byte_len(),
            Self::Symbols(symbols) => symbols.byte_len(),
            Self::Tree(tree) => tree.byte_len(),
            Self::Column(column) => column.byte_len(),
            Self::Cells(cells) => cells.byte_len(),
        }
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Name, Entry> for ByBytes {
    fn weight(&self, _: &Name, entry: &Entry) -> u64 {
        entry.byte_len() as u64 + 128
    }
}

impl Cache {
    /// Holds at most about `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        const TYPICAL_BYTES: u64 = 64 << 10;
        let items = (bytes_max / TYPICAL_BYTES).clamp(16, 1 << 20) as usize;
        let (state, lifecycle) = (RandomState::default(), DefaultLifecycle::default());
        let decoded = Arc::new(Store::with(items, bytes_max, ByBytes, state, lifecycle));
        Self { decoded, disk: None, reads: None, is_bypassed: false }
    }

    /// Adds a tier of encoded ranges on the local disk.
    pub fn with_disk(self, disk: Arc<Disk>) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// A handle that counts the reads through it.
    pub fn counted(&self, reads: Arc<Reads>) -> Self {
        Self { reads: Some(reads), ..self.clone() }
    }

    /// A handle without hits: reads everything from the store and replaces cached entries.
    pub fn bypass(&self) -> Self {
        Self { is_bypassed: true, ..self.clone() }
    }

    /// Registers the metrics of this cache. At most one cache per registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(CacheMetrics(self.clone())));
    }

    /// Empties the cache after each period of `idle` without lookups. Never returns.
    pub async fn empty_when_idle(self, idle: Duration, clock: Clock) {
        let mut before = self.hits_and_misses();
        loop {
            clock.sleep(idle).await;
            let now = self.hits_and_misses();
            if now == before {
                self.decoded.clear();
            }
            before = now;
        }
    }

    /// Number of lookups with and without a hit.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.decoded.hits(), self.decoded.misses())
    }

    /// The budget, in bytes.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.decoded.capacity()
    }

    /// Bytes held.
    pub fn byte_len(&self) -> u64 {
        self.decoded.weight()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<Entry> {
        let found = if self.is_bypassed { None } else { self.decoded.get(name) };
        if let Some(reads) = &self.reads {
            let counter = if found.is_some() { &reads.memory_hits } else { &reads.memory_misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    pub(crate) fn insert(&self, name: Name, entry: Entry) {
        self.decoded.insert(name, entry);
    }

    /// Reads ranges of an object, in the given order, in at most one round trip.
    pub(crate) async fn read(
        &self,
        store: &storage::Store,
        key: &Key,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, storage::Error> {
        let (got, fetched) = match &self.disk {
            Some(disk) if self.is_bypassed => disk.reread(store, key, ranges).await?,
            Some(disk) => disk.read(store, key, ranges).await?,
            None => {
                let got = store.get_ranges(key, ranges).await?;
                let bytes = total(&got);
                (got, bytes)
            }
        };
        if let Some(reads) = &self.reads {
            reads.store_requests.fetch_add(u64::from(fetched > 0), Ordering::Relaxed);
            reads.store_bytes.fetch_add(fetched, Ordering::Relaxed);
            reads.disk_bytes.fetch_add(total(&got).saturating_sub(fetched), Ordering::Relaxed);
        }
        Ok(got)
    }
}

fn total(parts: &[Bytes]) -> u64 {
    parts.iter().map(|bytes| bytes.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_cache_is_emptied() {
        let (cache, clock) = (Cache::new(1 << 20), Clock::system());
        let name = Name { object: 1, dataset: 0, kind: Kind::Symbols };
        cache.insert(name, Entry::Symbols(Arc::default()));
        clock.spawn(cache.clone().empty_when_idle(Duration::from_secs(10), clock.clone()));
        for _ in 0..5 {
            clock.sleep(Duration::from_secs(8)).await;
            assert!(cache.get(&name).is_some());
        }
        clock.sleep(Duration::from_secs(21)).await;
        assert_eq!(cache.byte_len(), 0);
    }
}
