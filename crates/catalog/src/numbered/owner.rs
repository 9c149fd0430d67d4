//! An opened catalog: commits in numbered slots, until another owner takes one.
//!
//! Owns: the outcome of each commit, fencing. Does not own: checkpoints and deletion of files (`upkeep`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use storage::{CatalogFile, CreateOutcome, Key};
use tokio::sync::Mutex;
use tracing::warn;

use super::file::{Commit, Content};
use super::listing::ListedFile;
use super::state::State;
use super::{NumberedCatalog, commit_key, version_of};
use crate::{Batch, Catalog, Error, Row};

const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The owner of an incarnation.
pub(super) struct Owner {
    pub(super) engine: NumberedCatalog,
    pub(super) incarnation: u64,
    /// Random id of this owner, in each of its commits.
    pub(super) id: u128,
    pub(super) epoch: u64,
    version: AtomicU64,
    is_fenced: AtomicBool,
    pub(super) state: RwLock<State>,
    /// Files of earlier incarnations, which cannot be opened any more, with their Unix milliseconds.
    pub(super) earlier: parking_lot::Mutex<VecDeque<(Key, i64)>>,
    /// When this owner last listed files written by others, by the monotonic clock: an owner that was replaced without
    /// knowing may write them at any time.
    pub(super) listed: parking_lot::Mutex<Option<Duration>>,
    /// Held while a slot is decided. Holds the commit in doubt if its caller went away.
    pub(super) in_doubt: Mutex<Option<Doubt>>,
    /// When a request last confirmed the ownership, in milliseconds of the monotonic clock.
    confirmed: AtomicU64,
}

/// A commit whose create has no known outcome yet.
pub(super) struct Doubt {
    pub(super) commit: Commit,
    pub(super) bytes: Bytes,
}

impl Owner {
    pub(super) fn new(engine: NumberedCatalog, incarnation: u64, id: u128, state: State) -> Self {
        let confirmed = engine.clock.monotonic().as_millis() as u64;
        Self {
            incarnation,
            id,
            epoch: state.epoch,
            version: AtomicU64::new(version_of(incarnation, state.next - 1)),
            is_fenced: AtomicBool::new(false),
            state: RwLock::new(state),
            earlier: parking_lot::Mutex::default(),
            listed: parking_lot::Mutex::default(),
            in_doubt: Mutex::new(None),
            confirmed: AtomicU64::new(confirmed),
            engine,
        }
    }

    /// Marks this owner as fenced, and returns the error that says so.
    pub(super) fn fence(&self) -> Error {
        self.is_fenced.store(true, Ordering::SeqCst);
        Error::Fenced { epoch: self.epoch }
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::SeqCst)
    }

    /// Takes the next slot for `content`; returns the new version.
    pub(super) async fn append(&self, content: Content) -> Result<u64, Error> {
        let mut in_doubt = self.in_doubt.lock().await;
        if in_doubt.is_some() {
            self.settle(&mut in_doubt).await?;
        }
        if self.is_fenced() {
            return Err(self.fence());
        }
        let commit = Commit {
            slot: self.state.read().next,
            epoch: self.epoch,
            owner: self.id,
            millis: self.engine.clock.unix_millis(),
            content,
        };
        let bytes = commit.encode();
        *in_doubt = Some(Doubt { commit, bytes });
        self.settle(&mut in_doubt).await
    }

    /// Decides the slot of the commit in doubt, however long that takes.
    async fn settle(&self, in_doubt: &mut Option<Doubt>) -> Result<u64, Error> {
        let Some(doubt) = in_doubt.as_ref() else {
            return Ok(self.version());
        };
        let key = commit_key(self.incarnation, doubt.commit.slot);
        let clock = &self.engine.clock;
        let mut pause = RETRY_PAUSE_MIN;
        let created = loop {
            match self.engine.store.settle_create(&key, doubt.bytes.clone()).await {
                Ok(created) => break created,
                Err(error) => {
                    warn!(%key, %error, "catalog commit is in doubt, asking again");
                    clock.sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        };
        if created == CreateOutcome::Other || self.was_paused().await {
            *in_doubt = None;
            return Err(self.fence());
        }
        let Some(Doubt { commit, bytes }) = in_doubt.take() else {
            return Ok(self.version());
        };
        let slot = commit.slot;
        self.state.write().apply(commit, bytes.len() as u64, clock.monotonic());
        let version = version_of(self.incarnation, slot);
        self.version.store(version, Ordering::SeqCst);
        Ok(version)
    }

    /// Whether this process slept so long that the commit which fenced it may have been deleted: then the next slot is
    /// free, far behind the newest commit. Openings are kept for long, but not the commit that a caller left in doubt.
    async fn was_paused(&self) -> bool {
        let now = self.engine.clock.monotonic().as_millis() as u64;
        let before = self.confirmed.load(Ordering::SeqCst);
        let kept = self.engine.options.openings_kept.min(self.engine.options.collect_after);
        if now.saturating_sub(before) < (kept / 2).as_millis() as u64 {
            self.confirmed.fetch_max(now, Ordering::SeqCst);
            return false;
        }
        let slot = self.state.read().next;
        let is_later = |listed: &ListedFile| match listed.file {
            CatalogFile::Ready => listed.incarnation > self.incarnation,
            CatalogFile::Commit(other) | CatalogFile::Checkpoint(other) => {
                listed.incarnation == self.incarnation && other > slot
            }
        };
        loop {
            match self.engine.list().await {
                Ok(listing) => {
                    let was_paused = listing.files().any(is_later);
                    if !was_paused {
                        self.confirmed.fetch_max(now, Ordering::SeqCst);
                    }
                    return was_paused;
                }
                Err(_) => self.engine.clock.sleep(RETRY_PAUSE_MAX).await,
            }
        }
    }
}

#[async_trait]
impl Catalog for Owner {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    async fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.append(Content::Changes(batch)).await
    }

    async fn check(&self) -> Result<(), Error> {
        if self.is_fenced() {
            return Err(self.fence());
        }
        let mut slot = self.state.read().next;
        loop {
            let key = commit_key(self.incarnation, slot);
            match self.engine.store.get(&key).await {
                Err(storage::Error::NotFound(_)) if self.was_paused().await => return Err(self.fence()),
                Err(storage::Error::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(bytes) if Commit::decode(key.as_str(), &bytes)?.owner != self.id => {
                    return Err(self.fence());
                }
                // Our own commit under way; an opening may follow it.
                Ok(_) => slot += 1,
            }
        }
    }

    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error> {
        Ok(self.state.read().range(keys))
    }

    async fn compact(&self, version: u64) -> Result<(), Error> {
        let covered = version_of(self.incarnation, self.state.read().covered);
        if covered <= version && !self.is_fenced() {
            self.checkpoint().await?;
        }
        Ok(())
    }

    fn has_forgotten(&self, version: u64) -> bool {
        if self.listed.lock().is_none() || !self.earlier.lock().is_empty() {
            return false;
        }
        let state = self.state.read();
        state.files.iter().all(|known| match known.file {
            CatalogFile::Ready => true,
            CatalogFile::Commit(slot) => {
                version_of(self.incarnation, slot) > version || state.is_opening(slot)
            }
            CatalogFile::Checkpoint(slot) => version_of(self.incarnation, slot) >= version,
        })
    }

    async fn maintain(&self) -> Result<(), Error> {
        self.run_upkeep().await
    }
}
