//! A listing of the bucket, without the files of the catalog.

use hashbrown::{HashMap, HashSet};
use model::WriterId;
use storage::{Key, Object, Store};

pub(crate) struct Listing {
    pub(crate) blocks: Vec<Object>,
    pub(crate) slots: Vec<Object>,
    pub(crate) records: Vec<Object>,
    /// Keys of blocks and slots.
    keys: HashSet<Key>,
    /// The last listed slot of each log, a segment or a seal.
    last_slots: HashMap<WriterId, u64>,
}

impl Listing {
    pub(crate) async fn read(store: &Store) -> Result<Self, storage::Error> {
        let (blocks, slots, records) =
            futures::try_join!(store.list("block"), store.list("log"), store.list("publish"))?;
        Ok(Self::new(blocks, slots, records))
    }

    fn new(blocks: Vec<Object>, slots: Vec<Object>, records: Vec<Object>) -> Self {
        let keys = blocks.iter().chain(&slots).map(|object| object.key.clone()).collect();
        let mut last_slots = HashMap::new();
        for (writer, seq) in slots.iter().filter_map(|object| object.key.parse_log_slot()) {
            let last = last_slots.entry(writer).or_insert(seq);
            *last = (*last).max(seq);
        }
        Self { blocks, slots, records, keys, last_slots }
    }

    /// A listing of blocks and slots with these keys.
    #[cfg(test)]
    pub(crate) fn of_keys(keys: &[Key]) -> Self {
        let object = |key: &Key| Object { key: key.clone(), bytes: 1, modified_millis: 0 };
        let (slots, blocks) = keys.iter().partition::<Vec<&Key>, _>(|key| key.parse_log_slot().is_some());
        let objects = |keys: Vec<&Key>| keys.into_iter().map(object).collect();
        Self::new(objects(blocks), objects(slots), Vec::new())
    }

    pub(crate) fn last_slot(&self, writer: WriterId) -> Option<u64> {
        self.last_slots.get(&writer).copied()
    }

    /// Whether a block or slot has this key.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}
