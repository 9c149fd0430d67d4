//! Opening: reading an incarnation to its end, and becoming its owner.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use storage::{CatalogFile, CreateOutcome, Key};
use tracing::warn;

use super::file::{Checkpoint, Commit, Content};
use super::listing::{ListedFile, Listing};
use super::owner::Owner;
use super::state::{KnownFile, State};
use super::{NumberedCatalog, commit_key};
use crate::Error;

/// Commits read at once.
const READS_AT_ONCE: usize = 16;

/// Why an incarnation was not opened.
enum OpeningError {
    /// This later incarnation replaces it.
    Superseded(u64),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for OpeningError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl NumberedCatalog {
    /// Becomes the owner of the current incarnation; begins an empty catalog if there is none.
    pub(super) async fn open_newest(&self) -> Result<Owner, Error> {
        loop {
            let listing = self.list().await?;
            let incarnation = match listing.newest_ready() {
                Some(incarnation) => incarnation,
                None => {
                    self.mark_ready(1).await?;
                    1
                }
            };
            let began = self.clock.monotonic();
            let owner = match self.open_incarnation(incarnation, &listing).await {
                Ok(owner) => owner,
                Err(OpeningError::Superseded(by)) => {
                    // Its content was complete before the old one was marked as superseded.
                    self.mark_ready(by).await?;
                    continue;
                }
                Err(OpeningError::Failed(error)) => return Err(error),
            };
            // After a long pause, the slot created may be one that had been used and deleted.
            if self.clock.monotonic() - began > self.options.look_within {
                warn!("opening the catalog took long, opening it again");
                continue;
            }
            return Ok(owner);
        }
    }

    /// Reads an incarnation to its end and creates an opening there.
    async fn open_incarnation(&self, incarnation: u64, listing: &Listing) -> Result<Owner, OpeningError> {
        let mut state = self.load(incarnation, listing).await?;
        let owner = self.clock.random();
        loop {
            if let Some(by) = state.superseded_by {
                return Err(OpeningError::Superseded(by));
            }
            let millis = self.clock.unix_millis();
            let epoch = state.epoch + 1;
            let open = Commit { slot: state.next, epoch, owner, millis, content: Content::Open };
            let key = commit_key(incarnation, state.next);
            let bytes = open.encode();
            let len = bytes.len() as u64;
            match self.store.settle_create(&key, bytes).await? {
                CreateOutcome::Mine => {
                    state.apply(open, len, self.clock.monotonic());
                    return Ok(Owner::new(self.clone(), incarnation, owner, state));
                }
                CreateOutcome::Other => {
                    let bytes = self.store.get(&key).await?;
                    let commit = Commit::decode(key.as_str(), &bytes)?;
                    state.apply(commit, bytes.len() as u64, self.clock.monotonic());
                }
            }
        }
    }

    /// The state of an incarnation: its newest checkpoint and every commit after it in the listing.
    pub(super) async fn load(&self, incarnation: u64, listing: &Listing) -> Result<State, Error> {
        let files: Vec<&ListedFile> = listing.files_of(incarnation).collect();
        let checkpoints = files.iter().filter_map(|listed| match listed.file {
            CatalogFile::Checkpoint(slot) => Some((slot, listed.modified_millis)),
            _ => None,
        });
        let checkpoints: Vec<(u64, i64)> = checkpoints.collect();
        let mut state = match checkpoints.iter().map(|(slot, _)| *slot).max() {
            None => State::default(),
            Some(slot) => {
                let (key, bytes) = self.get_file(incarnation, CatalogFile::Checkpoint(slot)).await?;
                State::from_checkpoint(Checkpoint::decode(key.as_str(), &bytes)?, bytes.len() as u64)
            }
        };
        // A checkpoint does not hold the time of its newest commit, but was itself made soon after it.
        state.committed_millis = checkpoints.iter().map(|(_, millis)| *millis).max().unwrap_or(0);
        let now = self.clock.monotonic();
        let covered = files.iter().map(|listed| listed.file).filter(|file| match file {
            CatalogFile::Ready => false,
            CatalogFile::Commit(slot) => *slot < state.next,
            CatalogFile::Checkpoint(_) => true,
        });
        let covered: Vec<KnownFile> = covered.map(|file| KnownFile { file, since: now }).collect();
        state.files.extend(covered);
        let slots = files.iter().filter_map(|listed| match listed.file {
            CatalogFile::Commit(slot) if slot >= state.next => Some(slot),
            _ => None,
        });
        let slots: Vec<u64> = slots.collect();
        let reads = slots.into_iter().map(|slot| self.read_commit(incarnation, slot));
        let mut commits = stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some((commit, bytes)) = commits.try_next().await? {
            if commit.slot != state.next {
                return Err(Error::Corrupt {
                    object: commit_key(incarnation, state.next).to_string(),
                    reason: format!("missing, while commit {} exists", commit.slot),
                });
            }
            state.apply(commit, bytes, now);
        }
        Ok(state)
    }

    /// A commit, and the bytes of its file.
    pub(super) async fn read_commit(&self, incarnation: u64, slot: u64) -> Result<(Commit, u64), Error> {
        let (key, bytes) = self.get_file(incarnation, CatalogFile::Commit(slot)).await?;
        let commit = Commit::decode(key.as_str(), &bytes)?;
        if commit.slot != slot {
            let reason = format!("holds commit {}", commit.slot);
            return Err(Error::Corrupt { object: key.to_string(), reason });
        }
        Ok((commit, bytes.len() as u64))
    }

    async fn get_file(&self, incarnation: u64, file: CatalogFile) -> Result<(Key, Bytes), Error> {
        let key = Key::catalog(incarnation, file);
        let bytes = self.store.get(&key).await?;
        Ok((key, bytes))
    }
}
