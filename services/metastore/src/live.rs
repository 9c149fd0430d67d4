//! The live objects, as the planner and the catalog see them.
//!
//! Owns: the objects by key, totals by level, the keys that changed since the last call of [`Objects::take_changed`].
//! Does not own: the parts that finds return (`find`), why they change (`state`).

use std::collections::{BTreeMap, BTreeSet};

use model::{BlockId, JobId, TenantId, Window, WriterId};
use storage::Key;

/// A live object.
#[derive(Clone, Debug)]
pub(crate) struct LiveObject {
    pub(crate) kind: ObjectKind,
    pub(crate) bytes: u64,
    pub(crate) created_millis: i64,
    /// Its id in the index of finds; `None` while quarantined.
    pub(crate) index_id: Option<u64>,
    pub(crate) claimed: Option<JobId>,
    /// Whether its rows are in the catalog.
    pub(crate) is_committed: bool,
    /// The newest deletion that the object needs no more.
    pub(crate) floor: u64,
    /// Rows of all datasets it was made with; 0 if unknown.
    pub(crate) rows: u64,
    /// Rows of its live datasets.
    pub(crate) live_rows: u64,
}

/// Identity of a live object, as its row has it.
#[derive(Clone, Debug)]
pub(crate) enum ObjectKind {
    Segment { writer: WriterId, seq: u64 },
    Block { id: BlockId, tenant: TenantId, level: u8, window: Window },
}

impl LiveObject {
    /// Level of a block; 0 for segments.
    pub(crate) fn level(&self) -> u8 {
        match self.kind {
            ObjectKind::Segment { .. } => 0,
            ObjectKind::Block { level, .. } => level,
        }
    }

    pub(crate) fn is_segment(&self) -> bool {
        matches!(self.kind, ObjectKind::Segment { .. })
    }

    /// Whether a new job may take it.
    pub(crate) fn is_free(&self) -> bool {
        self.claimed.is_none() && self.is_committed && self.index_id.is_some()
    }
}

/// Sums over the live objects of one level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Total {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Rows of all datasets that the objects were made with.
    pub(crate) rows: u64,
}

/// All live objects, sorted by key.
#[derive(Default)]
pub(crate) struct Objects {
    by_key: BTreeMap<Key, LiveObject>,
    totals: BTreeMap<u8, Total>,
    changed: BTreeSet<Key>,
}

impl Objects {
    pub(crate) fn get(&self, key: &Key) -> Option<&LiveObject> {
        self.by_key.get(key)
    }

    /// The object, which is then listed as changed.
    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut LiveObject> {
        let live = self.by_key.get_mut(key)?;
        self.changed.insert(key.clone());
        Some(live)
    }

    pub(crate) fn insert(&mut self, key: Key, live: LiveObject) {
        self.changed.insert(key.clone());
        let total = self.totals.entry(live.level()).or_default();
        total.objects += 1;
        total.bytes += live.bytes;
        total.rows += live.rows;
        if let Some(replaced) = self.by_key.insert(key, live) {
            self.subtract(&replaced);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<LiveObject> {
        let live = self.by_key.remove(key)?;
        self.changed.insert(key.clone());
        self.subtract(&live);
        Some(live)
    }

    fn subtract(&mut self, live: &LiveObject) {
        let total = self.totals.entry(live.level()).or_default();
        total.objects -= 1;
        total.bytes -= live.bytes;
        total.rows -= live.rows;
    }

    /// Sums by level, also of levels without objects.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (u8, Total)> {
        self.totals.iter().map(|(level, total)| (*level, *total))
    }

    pub(crate) fn contains_key(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &LiveObject)> {
        self.by_key.iter()
    }

    /// Keys from `first` on, sorted.
    pub(crate) fn keys_from(&self, first: &Key) -> impl Iterator<Item = &Key> {
        self.by_key.range(first..).map(|(key, _)| key)
    }

    /// All segments, without a look at the blocks.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (&Key, &LiveObject)> {
        let first = Key::log_slot(WriterId(0), 0);
        self.by_key.range(first..).take_while(|(_, live)| live.is_segment())
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.totals.get(&0).map_or(0, |total| total.objects as usize)
    }

    pub(crate) fn block_count(&self) -> usize {
        self.by_key.len() - self.segment_count()
    }

    /// Keys of the objects added, removed or changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_each_live_object_once() {
        let live = |bytes| LiveObject {
            kind: ObjectKind::Segment { writer: WriterId(1), seq: 1 },
            bytes,
            created_millis: 0,
            index_id: None,
            claimed: None,
            is_committed: true,
            floor: 0,
            rows: 10,
            live_rows: 10,
        };
        let key = |seq| Key::log_slot(WriterId(1), seq);
        let mut objects = Objects::default();
        for (seq, bytes) in [(1, 100), (2, 200), (1, 300)] {
            objects.insert(key(seq), live(bytes));
        }
        assert_eq!(objects.totals().collect::<Vec<_>>(), [(0, Total { objects: 2, bytes: 500, rows: 20 })]);
        objects.remove(&key(1));
        objects.remove(&key(2));
        assert_eq!(objects.totals().collect::<Vec<_>>(), [(0, Total::default())]);
    }
}
