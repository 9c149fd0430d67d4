//! What was read before, decoded, within a budget of bytes.
//!
//! Objects never change, so nothing is ever invalid; what is least used goes.

use std::sync::Arc;

use foldhash::fast::RandomState;
use model::Symbols;
use prometheus_client::registry::Registry;
use quick_cache::Weighter;
use quick_cache::sync::{Cache as Store, DefaultLifecycle};

use crate::metrics::CacheMetrics;
use crate::reader::Parts;
use crate::scan::Column;
use crate::{DatasetIndex, NameTree};

/// Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Store<Name, Entry, ByBytes, RandomState>>);

/// Of an object, by the hash of its key; of a dataset by its position, and of a column by its number.
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
}

#[derive(Clone)]
pub(crate) enum Entry {
    Object(Arc<Parts>),
    Index(Arc<DatasetIndex>),
    Symbols(Arc<Symbols>),
    Tree(Arc<NameTree>),
    Column(Arc<Column>),
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Name, Entry> for ByBytes {
    fn weight(&self, _: &Name, entry: &Entry) -> u64 {
        let bytes = match entry {
            Entry::Object(parts) => parts.byte_len(),
            Entry::Index(index) => index.byte_len(),
            Entry::Symbols(symbols) => symbols.byte_len(),
            Entry::Tree(tree) => tree.byte_len(),
            Entry::Column(column) => column.byte_len(),
        };
        bytes as u64 + 128
    }
}

impl Cache {
    /// Holds at most about `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        const TYPICAL_BYTES: u64 = 64 << 10;
        let items = (bytes_max / TYPICAL_BYTES).clamp(16, 1 << 20) as usize;
        Self(Arc::new(Store::with(
            items,
            bytes_max,
            ByBytes,
            RandomState::default(),
            DefaultLifecycle::default(),
        )))
    }

    /// Shows on `registry` what this cache holds and saves. At most one cache per registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(CacheMetrics(self.clone())));
    }

    /// How often something was found, and how often not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.0.hits(), self.0.misses())
    }

    /// Bytes that it may hold.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.0.capacity()
    }

    /// Bytes held.
    pub fn byte_len(&self) -> u64 {
        self.0.weight()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<Entry> {
        self.0.get(name)
    }

    pub(crate) fn insert(&self, name: Name, entry: Entry) {
        self.0.insert(name, entry);
    }
}
