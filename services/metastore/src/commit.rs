//! Commits, and the right to make them.
//!
//! Owns: the turn (the lock that orders all commits), whether this process still owns the catalog, the last commit.
//! Does not own: the rows of a commit (`state`), when pending rows are committed (`run`).
//!
//! Lock order: the turn, then the state. A step takes the turn, checks its conditions and commits; the turn is held
//! until the state in memory holds the step. Some steps change the state before their commit, others after it.

use std::time::Duration;

use catalog::Batch;
use catalog::rows::{Resignation, Row as _};
use rpc::{Error, ErrorKind};
use tokio::sync::MutexGuard;
use tracing::warn;

use crate::error::of_catalog;
use crate::{CONFIRMATION_LIFETIME, Metastore};

/// Longest wait of a drain for its last commit: a process that stops must not wait for a store that is down.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(5);

impl Metastore {
    /// Answers no more calls, and commits the pending rows with a resignation for the next owner, within `DRAIN_MAX`.
    pub async fn drain(&self) {
        self.stop.send_replace(true);
        match self.clock.timeout(DRAIN_MAX, self.resign()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => warn!(%error, "the last commit failed: the next owner reads more, and waits"),
            None => {
                warn!(limit = ?DRAIN_MAX, "the last commit takes too long: the next owner reads more, and waits")
            }
        }
    }

    /// Call after the stop is set. A find checks the stop and takes its snapshot under one lock of the state, so a find
    /// that missed the stop took its snapshot before the pending rows are taken here. Nothing is committed afterwards:
    /// a successor that reads the resignation row has every row that such a find can return.
    async fn resign(&self) -> Result<(), catalog::Error> {
        let turn = self.turn.lock().await;
        let (mut batch, _) = self.take_pending();
        Resignation { epoch: self.catalog.epoch() }.put_into(&mut batch);
        self.append(&turn, batch).await
    }

    /// Commits all pending steps at once; does nothing if there are none, or after the stop.
    pub(crate) async fn commit_pending(&self) -> Result<(), catalog::Error> {
        let turn = self.turn.lock().await;
        if *self.stop.borrow() {
            return Ok(());
        }
        let (batch, segments) = self.take_pending();
        if batch.is_empty() {
            return Ok(());
        }
        self.append(&turn, batch).await?;
        let mut state = self.state.lock();
        state.are_committed(&segments);
        self.metrics.count(&state);
        Ok(())
    }

    /// Takes the rows of all pending steps, and the keys of the segments among them. The caller must commit the rows.
    pub(crate) fn take_pending(&self) -> (Batch, Vec<storage::Key>) {
        self.state.lock().take_pending(self.config.dedup_millis(), self.clock.unix_millis())
    }

    /// The right to commit, which is refused after the stop.
    pub(crate) async fn take_turn(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let turn = self.turn.lock().await;
        self.ensure_not_stopped()?;
        Ok(turn)
    }

    pub(crate) fn ensure_not_stopped(&self) -> Result<(), Error> {
        match *self.stop.borrow() {
            true => Err(Error::new(ErrorKind::Unavailable, "this metastore does not own the catalog now")),
            false => Ok(()),
        }
    }

    pub(crate) async fn commit_in_turn(&self, turn: &MutexGuard<'_, ()>, batch: Batch) -> Result<(), Error> {
        self.append(turn, batch).await.map_err(of_catalog)
    }

    async fn append(&self, _turn: &MutexGuard<'_, ()>, batch: Batch) -> Result<(), catalog::Error> {
        let began = self.clock.monotonic();
        let version = self.catalog.commit(batch).await.inspect_err(|error| self.end_if_fenced(error))?;
        self.metrics.commits.inc();
        self.metrics.commit_seconds.observe(self.clock.monotonic() - began);
        self.state.lock().version = version;
        // A check that holds the lock now is about to set it.
        if let Ok(mut confirmed_at) = self.confirmed_at.try_lock() {
            *confirmed_at = began;
        }
        Ok(())
    }

    /// Once another owner has opened the catalog, no pending row can be committed any more.
    fn end_if_fenced(&self, error: &catalog::Error) {
        if matches!(error, catalog::Error::Fenced { .. }) {
            self.stop.send_replace(true);
            self.state.lock().drop_pending();
        }
    }

    /// Asks the store right now whether another owner has opened the catalog.
    pub(crate) async fn check_catalog(&self) -> Result<(), Error> {
        self.catalog.check().await.inspect_err(|error| self.end_if_fenced(error)).map_err(of_catalog)
    }

    /// Refuses to answer for a catalog that may have another owner by now.
    pub(crate) async fn ensure_owner(&self) -> Result<(), Error> {
        self.ensure_owner_within(CONFIRMATION_LIFETIME).await
    }

    /// Asks the store, unless it was asked less than `lifetime` ago.
    pub(crate) async fn ensure_owner_within(&self, lifetime: Duration) -> Result<(), Error> {
        if self.is_alone {
            return Ok(());
        }
        let mut confirmed_at = self.confirmed_at.lock().await;
        let now = self.clock.monotonic();
        if now - *confirmed_at >= lifetime {
            self.check_catalog().await?;
            *confirmed_at = now;
        }
        Ok(())
    }
}
