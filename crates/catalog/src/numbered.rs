//! The engine: numbered commits in the bucket, all rows in the owner's memory.
//!
//! Owns: the files `catalog/<incarnation>/…`, fencing, deletion of old files and incarnations.
//! Does not own: the meaning of rows.
//!
//! A commit is a create of the next slot, so at most one owner gets it. An opening is such a commit
//! too: the earlier owner's next create meets bytes that are not its own, and it is fenced. Between
//! commits the engine sends no requests except an occasional listing of its files.
//!
//! `open` and `view` read the `state` of an incarnation from its `file`s, which a `listing` names. `owner` appends
//! commits, `upkeep` writes checkpoints and deletes files, `rebuild` makes a new incarnation.

mod file;
mod listing;
mod open;
mod owner;
mod rebuild;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod view;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clock::Clock;
use storage::{CatalogFile, Key, Store};

use crate::{Catalog, Engine, Error, View};
use listing::Listing;
use view::NumberedView;

pub use rebuild::Rebuild;

/// Limits and periods of the engine's upkeep.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A checkpoint is written after this many commits. More: fewer writes. Fewer: openings read less.
    pub checkpoint_commits: u64,
    /// … or after this many bytes of commits, or half the bytes of the last checkpoint, if that is more.
    pub checkpoint_bytes: u64,
    /// Commits and checkpoints that a newer checkpoint covers are deleted this long after the owner learned of both, by
    /// its monotonic clock: an owner that was paused for less still finds the commit that fences it, whatever any clock
    /// shows.
    pub collect_after: Duration,
    /// An opening or a view that took longer than this between two listings starts again. Must be shorter than
    /// `collect_after`.
    pub look_within: Duration,
    /// Openings fence paused owners, so they are kept for as long as a process may be paused.
    pub openings_kept: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checkpoint_commits: 256,
            checkpoint_bytes: 4 << 20,
            collect_after: Duration::from_secs(15 * 60),
            look_within: Duration::from_secs(7 * 60),
            openings_kept: Duration::from_secs(24 * 3600),
        }
    }
}

/// A catalog of numbered commits in a bucket.
#[derive(Clone)]
pub struct NumberedCatalog {
    store: Store,
    clock: Clock,
    options: Options,
}

impl NumberedCatalog {
    pub fn new(store: Store, clock: Clock, options: Options) -> Self {
        Self { store, clock, options }
    }

    async fn list(&self) -> Result<Listing, Error> {
        Ok(Listing::read(&self.store).await?)
    }

    /// Creates the file that makes an incarnation the current one.
    async fn mark_ready(&self, incarnation: u64) -> Result<(), Error> {
        let key = Key::catalog(incarnation, CatalogFile::Ready);
        self.store.settle_create(&key, Bytes::from_static(b"ready")).await?;
        Ok(())
    }
}

#[async_trait]
impl Engine for NumberedCatalog {
    async fn exists(&self) -> Result<bool, Error> {
        Ok(self.list().await?.newest_ready().is_some())
    }

    async fn open(&self) -> Result<Arc<dyn Catalog>, Error> {
        Ok(Arc::new(self.open_newest().await?))
    }

    async fn view(&self) -> Result<Box<dyn View>, Error> {
        Ok(Box::new(NumberedView::open(self.clone()).await?))
    }
}

/// The version after commit `slot`. A rebuilt catalog counts its slots anew, but its versions continue to rise.
/// Incarnations are at most the seconds since 1970, slots are fewer than 2^32.
fn version_of(incarnation: u64, slot: u64) -> u64 {
    (incarnation << 32) + slot
}

fn commit_key(incarnation: u64, slot: u64) -> Key {
    Key::catalog(incarnation, CatalogFile::Commit(slot))
}
