//! A new catalog beside the current one, which it replaces once it is complete.
//!
//! A rebuild fences the owner of the current incarnation, and every other rebuild, by taking the next slot of their
//! incarnations. The slot after that one later says that the incarnation is replaced.

use std::collections::{BTreeMap, BTreeSet};

use storage::{CatalogFile, CreateOutcome, Key};
use tracing::warn;

use super::file::{Checkpoint, Commit, Content};
use super::listing::Listing;
use super::owner::Owner;
use super::state::State;
use super::{NumberedCatalog, commit_key};
use crate::{Batch, Catalog, Error};

/// The slot that a rebuild took in an incarnation that it is about to replace.
pub(super) struct Fence {
    pub(super) incarnation: u64,
    /// The slot after it, which says that the incarnation is replaced.
    pub(super) next: u64,
    pub(super) epoch: u64,
    pub(super) owner: u128,
}

/// A new catalog that is being filled.
pub struct Rebuild {
    pub(super) fences: Vec<Fence>,
    pub(super) new: Owner,
}

impl Rebuild {
    pub fn catalog(&self) -> &dyn Catalog {
        &self.new
    }

    /// Makes the new catalog the current one.
    ///
    /// # Errors
    /// `Fenced` if another process opened a catalog, or began to rebuild one, meanwhile: this one is given up.
    pub async fn replace(self) -> Result<(), Error> {
        let Self { fences, new } = self;
        new.checkpoint().await?;
        // Fails if another rebuild found this one unfinished and took the slot.
        new.append(Content::Changes(Batch::default())).await?;
        for Fence { incarnation, next, epoch, owner } in fences.into_iter().rev() {
            let (millis, content) = (new.engine.clock.unix_millis(), Content::Superseded(new.incarnation));
            let commit = Commit { slot: next, epoch, owner, millis, content };
            let key = commit_key(incarnation, next);
            if new.engine.store.settle_create(&key, commit.encode()).await? == CreateOutcome::Other {
                return Err(new.fence());
            }
        }
        new.engine.mark_ready(new.incarnation).await
    }
}

impl NumberedCatalog {
    /// Starts a new, empty catalog beside the current one, which stays in force until [`Rebuild::replace`]. The owner
    /// of the current one, and any other rebuild, is fenced from now on. The current one need not be readable.
    ///
    /// `newest_millis` is the creation time of the newest object of the bucket, in Unix milliseconds. The new catalog's
    /// number and epoch are at least that time in seconds, and so higher than those of any catalog that was lost: a
    /// process that still owns a lost one, or remembers its epoch, cannot take the new one for it.
    pub async fn rebuild(&self, newest_millis: i64) -> Result<Rebuild, Error> {
        let millis = self.clock.unix_millis();
        let seconds = u64::try_from(millis.max(newest_millis).div_euclid(1_000)).unwrap_or(0) + 1;
        let owner = self.clock.random();
        let listing = self.list().await?;
        let epoch = seconds.max(self.last_epoch(&listing).await? + 1);
        let last = listing.files().map(|listed| listed.incarnation).max().unwrap_or(0);
        let mut incarnation = seconds.max(last + 1);
        let open = Commit { slot: 0, epoch, owner, millis, content: Content::Open };
        while self.store.settle_create(&commit_key(incarnation, 0), open.encode()).await?
            == CreateOutcome::Other
        {
            incarnation += 1;
        }
        // Listed after the create above: of two rebuilds at once, at least one finds the other.
        let listing = self.list().await?;
        let current = listing.newest_ready().unwrap_or(0);
        let others: BTreeSet<u64> = listing.files().map(|listed| listed.incarnation).collect();
        let mut fences = Vec::new();
        for other in others.range(current..).copied().filter(|other| *other != incarnation) {
            fences.push(self.fence(other, &listing, epoch, owner).await?);
        }
        let state = State::first(epoch, millis, self.clock.monotonic());
        let new = Owner::new(self.clone(), incarnation, owner, state);
        Ok(Rebuild { fences, new })
    }

    /// The highest epoch of the newest readable file of each incarnation; 0 if there is none.
    async fn last_epoch(&self, listing: &Listing) -> Result<u64, Error> {
        let mut newest: BTreeMap<u64, (u64, CatalogFile)> = BTreeMap::new();
        for listed in listing.files() {
            if let CatalogFile::Commit(slot) | CatalogFile::Checkpoint(slot) = listed.file {
                let entry = newest.entry(listed.incarnation).or_insert((slot, listed.file));
                if entry.0 <= slot {
                    *entry = (slot, listed.file);
                }
            }
        }
        let mut last = 0;
        for (incarnation, (_, file)) in newest {
            let key = Key::catalog(incarnation, file);
            let bytes = match self.store.get(&key).await {
                Ok(bytes) => bytes,
                Err(storage::Error::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let epoch = match file {
                CatalogFile::Checkpoint(_) => {
                    Checkpoint::decode(key.as_str(), &bytes).map(|checkpoint| checkpoint.epoch)
                }
                CatalogFile::Ready | CatalogFile::Commit(_) => {
                    Commit::decode(key.as_str(), &bytes).map(|commit| commit.epoch)
                }
            };
            match epoch {
                Ok(epoch) => last = last.max(epoch),
                Err(Error::Corrupt { object, reason }) => warn!(%object, reason, "catalog file is damaged"),
                Err(error) => return Err(error),
            }
        }
        Ok(last)
    }

    /// Takes the next slot of an incarnation without reading its rows: its owner, if any, is fenced.
    async fn fence(
        &self,
        incarnation: u64,
        listing: &Listing,
        epoch: u64,
        owner: u128,
    ) -> Result<Fence, Error> {
        let slots = listing.files_of(incarnation).filter_map(|listed| match listed.file {
            CatalogFile::Ready => None,
            CatalogFile::Commit(slot) | CatalogFile::Checkpoint(slot) => Some(slot),
        });
        let mut slot = slots.max().map_or(0, |last| last + 1);
        loop {
            let millis = self.clock.unix_millis();
            let open = Commit { slot, epoch, owner, millis, content: Content::Open };
            let key = commit_key(incarnation, slot);
            if self.store.settle_create(&key, open.encode()).await? == CreateOutcome::Mine {
                return Ok(Fence { incarnation, next: slot + 1, epoch, owner });
            }
            slot += 1;
        }
    }
}
