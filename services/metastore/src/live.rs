//! The live objects, as the planner and the catalog see them.
//!
//! Owns: which of them changed since somebody last asked, whatever changed them.
//! Does not own: what finds see of them (`find`), why they change (`state`).

use std::collections::{BTreeMap, BTreeSet};

use model::{BlockId, JobId, TenantId, Window, WriterId};
use storage::Key;

/// A live object.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) what: What,
    pub(crate) bytes: u64,
    pub(crate) created_millis: i64,
    /// Its id in the index; absent while quarantined.
    pub(crate) id: Option<u64>,
    pub(crate) claimed: Option<JobId>,
    /// Whether its rows are in the catalog.
    pub(crate) is_committed: bool,
    /// The newest deletion that it needs no more.
    pub(crate) floor: u64,
    /// Of all datasets it was made with; 0 if unknown.
    pub(crate) rows: u64,
    /// Of those that are live.
    pub(crate) live_rows: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Segment { writer: WriterId, seq: u64 },
    Block { id: BlockId, tenant: TenantId, level: u8, window: Window },
}

impl Live {
    /// 0 for segments.
    pub(crate) fn level(&self) -> u8 {
        match self.what {
            What::Segment { .. } => 0,
            What::Block { level, .. } => level,
        }
    }

    pub(crate) fn is_segment(&self) -> bool {
        matches!(self.what, What::Segment { .. })
    }

    /// Whether a new job may take it.
    pub(crate) fn is_free(&self) -> bool {
        self.claimed.is_none() && self.is_committed && self.id.is_some()
    }
}

/// What the live objects of one level are together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Total {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Of all datasets that the objects were made with.
    pub(crate) rows: u64,
}

/// All live objects, sorted by key.
#[derive(Default)]
pub(crate) struct Objects {
    by_key: BTreeMap<Key, Live>,
    totals: BTreeMap<u8, Total>,
    changed: BTreeSet<Key>,
}

impl Objects {
    pub(crate) fn get(&self, key: &Key) -> Option<&Live> {
        self.by_key.get(key)
    }

    /// Counts as a change.
    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Live> {
        let live = self.by_key.get_mut(key)?;
        self.changed.insert(key.clone());
        Some(live)
    }

    pub(crate) fn insert(&mut self, key: Key, live: Live) {
        self.changed.insert(key.clone());
        let total = self.totals.entry(live.level()).or_default();
        total.objects += 1;
        total.bytes += live.bytes;
        total.rows += live.rows;
        if let Some(replaced) = self.by_key.insert(key, live) {
            self.subtract(&replaced);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Live> {
        let live = self.by_key.remove(key)?;
        self.changed.insert(key.clone());
        self.subtract(&live);
        Some(live)
    }

    fn subtract(&mut self, live: &Live) {
        let total = self.totals.entry(live.level()).or_default();
        total.objects -= 1;
        total.bytes -= live.bytes;
        total.rows -= live.rows;
    }

    /// By level, also of levels of which nothing is left.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (u8, Total)> {
        self.totals.iter().map(|(level, total)| (*level, *total))
    }

    pub(crate) fn contains_key(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Live)> {
        self.by_key.iter()
    }

    /// From `first` on, sorted.
    pub(crate) fn keys_from(&self, first: &Key) -> impl Iterator<Item = &Key> {
        self.by_key.range(first..).map(|(key, _)| key)
    }

    /// Those that are segments, at the cost of these alone.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (&Key, &Live)> {
        let first = Key::log_slot(WriterId(0), 0);
        self.by_key.range(first..).take_while(|(_, live)| live.is_segment())
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.totals.get(&0).map_or(0, |total| total.objects as usize)
    }

    pub(crate) fn block_count(&self) -> usize {
        self.by_key.len() - self.segment_count()
    }

    /// Keys of what came, went or changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_each_live_object_once() {
        let live = |bytes| Live {
            what: What::Segment { writer: WriterId(1), seq: 1 },
            bytes,
            created_millis: 0,
            id: None,
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
