//! The bucket, as it is listed. No file of the catalog is in it.

use storage::{Key, Object, Store};

use hashbrown::HashSet;

pub(crate) struct Listing {
    pub(crate) blocks: Vec<Object>,
    pub(crate) slots: Vec<Object>,
    pub(crate) records: Vec<Object>,
    /// Keys of blocks and slots.
    keys: HashSet<Key>,
}

impl Listing {
    pub(crate) async fn read(store: &Store) -> Result<Self, storage::Error> {
        let (blocks, slots, records) =
            futures::try_join!(store.list("block"), store.list("log"), store.list("publish"))?;
        let keys = blocks.iter().chain(&slots).map(|object| object.key.clone()).collect();
        Ok(Self { blocks, slots, records, keys })
    }

    /// Whether there is a block or slot of this key.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}
