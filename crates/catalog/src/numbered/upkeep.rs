//! Upkeep by the owner: checkpoints, and deletion of files that no process needs any more.
//!
//! A process may need a file for two reasons: it listed the file and is about to read it, or the file fences it.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use storage::{CatalogFile, Key};
use tracing::warn;

use super::Options;
use super::owner::Owner;
use super::state::{KnownFile, State};
use crate::Error;

/// Files deleted by one round of maintenance, so that it never floods the store.
const DELETES_AT_ONCE_MAX: usize = 32;

impl Owner {
    pub(super) async fn run_upkeep(&self) -> Result<(), Error> {
        if self.is_checkpoint_due() && !self.is_fenced() {
            self.checkpoint().await?;
        }
        self.look_for_files().await?;
        self.collect().await?;
        self.collect_earlier().await
    }

    fn is_checkpoint_due(&self) -> bool {
        let (state, options) = (self.state.read(), &self.engine.options);
        let bytes_max = options.checkpoint_bytes.max(state.checkpoint_bytes / 2);
        state.next - state.covered >= options.checkpoint_commits || state.commit_bytes >= bytes_max
    }

    pub(super) async fn checkpoint(&self) -> Result<(), Error> {
        let checkpoint = self.state.read().checkpoint();
        let slot = checkpoint.slot;
        let bytes = checkpoint.encode();
        let len = bytes.len() as u64;
        let file = CatalogFile::Checkpoint(slot);
        // Other bytes of the same slot are the same rows, written by an earlier attempt.
        self.engine.store.settle_create(&Key::catalog(self.incarnation, file), bytes).await?;
        let mut state = self.state.write();
        state.files.push_back(KnownFile { file, since: self.engine.clock.monotonic() });
        state.covered = slot + 1;
        state.checkpoint_bytes = len;
        state.commit_bytes = 0;
        Ok(())
    }

    /// Takes over the files of earlier owners and incarnations, once per `collect_after`.
    async fn look_for_files(&self) -> Result<(), Error> {
        let now = self.engine.clock.monotonic();
        if self.listed.lock().is_some_and(|listed| now - listed < self.engine.options.collect_after) {
            return Ok(());
        }
        let listing = self.engine.list().await?;
        if listing.newest_ready() != Some(self.incarnation) {
            warn!(incarnation = self.incarnation, "the catalog was removed, or replaced, under its owner");
            return Err(self.fence());
        }
        let earlier = listing.files().filter(|listed| listed.incarnation < self.incarnation);
        *self.earlier.lock() = earlier.map(|listed| (listed.key.clone(), listed.modified_millis)).collect();
        let mut state = self.state.write();
        let known: HashSet<CatalogFile> = state.files.iter().map(|known| known.file).collect();
        let next = state.next;
        let is_unknown = |file: &CatalogFile| match file {
            CatalogFile::Ready => false,
            // Later slots belong to an owner that has replaced this one.
            CatalogFile::Commit(slot) | CatalogFile::Checkpoint(slot) => {
                *slot < next && !known.contains(file)
            }
        };
        let unknown = listing.files_of(self.incarnation).map(|listed| listed.file).filter(is_unknown);
        state.files.extend(unknown.map(|file| KnownFile { file, since: now }));
        drop(state);
        *self.listed.lock() = Some(now);
        Ok(())
    }

    /// Deletes the files that a checkpoint covers which is itself older than `collect_after`: a process that reads or
    /// copies the catalog file by file, and listed it before that checkpoint, still finds the files of its listing.
    async fn collect(&self) -> Result<(), Error> {
        let (now, unix_millis) = (self.engine.clock.monotonic(), self.engine.clock.unix_millis());
        let superfluous = take_superfluous(&mut self.state.write(), &self.engine.options, now, unix_millis);
        for (index, known) in superfluous.iter().enumerate() {
            let key = Key::catalog(self.incarnation, known.file);
            if let Err(error) = self.engine.store.delete(&key).await {
                self.state.write().files.extend(&superfluous[index..]);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Deletes the files of earlier incarnations once no process can be left that was paused while it owned one: the
    /// commits that fence such a process are among them.
    async fn collect_earlier(&self) -> Result<(), Error> {
        let kept = self.engine.options.openings_kept.as_millis() as i64;
        let due: Vec<(Key, i64)> = {
            let mut earlier = self.earlier.lock();
            let newest = earlier.iter().map(|(_, millis)| *millis).max();
            let is_over = newest.is_some_and(|millis| self.engine.clock.unix_millis() - millis > kept);
            let count = if is_over { earlier.len().min(DELETES_AT_ONCE_MAX) } else { 0 };
            earlier.drain(..count).collect()
        };
        for (index, (key, _)) in due.iter().enumerate() {
            if let Err(error) = self.engine.store.delete(key).await {
                self.earlier.lock().extend(due[index..].iter().cloned());
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Takes the files to delete out of `state`, and forgets openings that were kept long enough.
fn take_superfluous(state: &mut State, options: &Options, now: Duration, unix_millis: i64) -> Vec<KnownFile> {
    let kept = options.openings_kept.as_millis() as i64;
    let is_old = |known: &KnownFile| now - known.since > options.collect_after;
    let checkpoints = state.files.iter().filter_map(|known| match known.file {
        CatalogFile::Checkpoint(slot) if is_old(known) => Some(slot + 1),
        _ => None,
    });
    let covered = checkpoints.max().unwrap_or(0);
    state.openings.retain(|(slot, millis)| *slot >= covered || unix_millis - millis <= kept);
    let mut superfluous = Vec::new();
    let mut left = VecDeque::with_capacity(state.files.len());
    for known in std::mem::take(&mut state.files) {
        let is_needed = match known.file {
            CatalogFile::Ready => true,
            CatalogFile::Checkpoint(slot) => slot + 1 >= covered,
            CatalogFile::Commit(slot) => slot >= covered || state.is_opening(slot),
        };
        if is_needed || !is_old(&known) || superfluous.len() >= DELETES_AT_ONCE_MAX {
            left.push_back(known);
        } else {
            superfluous.push(known);
        }
    }
    state.files = left;
    superfluous
}
