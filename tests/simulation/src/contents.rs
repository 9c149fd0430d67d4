//! The contents of objects, decoded from their bytes.

use std::collections::BTreeSet;

use block::{Cache, Reader, Sections};
use bytes::Bytes;
use clock::Clock;
use storage::Key;

use crate::bucket::Objects;
use crate::load::item_of;

/// One object of the bucket.
pub(crate) struct ObjectContents {
    pub(crate) key: Key,
    pub(crate) bytes: Bytes,
    /// Items whose stacktraces are in its symbols; empty if it is neither a segment nor a block.
    pub(crate) items: BTreeSet<u64>,
}

impl Objects {
    pub(crate) async fn contents(&self) -> Vec<ObjectContents> {
        // In memory, so the futures never wait.
        let (store, cache) = (self.store(Clock::system()), Cache::new(0));
        let mut all = Vec::new();
        for (key, bytes) in self.all() {
            let mut contents = ObjectContents { key, bytes, items: BTreeSet::new() };
            let bytes_len = contents.bytes.len() as u64;
            if let Ok(block) = Reader::open(&store, &contents.key, bytes_len, &cache).await {
                for at in 0..block.directory().datasets.len() {
                    let wanted = Sections { symbols: true, ..Sections::default() };
                    let Ok(fetched) = block.fetch(at, wanted).await else { continue };
                    let Ok(symbols) = fetched.symbols() else { continue };
                    contents.items.extend(symbols.strings.iter().filter_map(item_of));
                }
            }
            all.push(contents);
        }
        all
    }
}
