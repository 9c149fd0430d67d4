//! The loops of an owner: commits, probes of logs, retention and comparisons, deletions, lags.
//!
//! Owns: how often each step runs. A failed step is logged, and its next run tries again. This owner ends when
//! a commit meets the fence of another one.
//! Does not own: the steps themselves.

use std::time::Duration;

use tracing::{error, warn};

use crate::{Metastore, plan};

/// Between updates of the lags.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);
/// Between looks whether deletions are finished.
const DELETIONS_INTERVAL: Duration = Duration::from_secs(5);

impl Metastore {
    /// Runs all loops until the stop.
    pub(crate) async fn keep_all(&self) {
        futures::join!(
            self.keep_committing(),
            self.keep_looking(),
            self.keep_tending(),
            self.keep_observing(),
            self.keep_deleting()
        );
    }

    async fn keep_committing(&self) {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.work.notified() => {}
            }
            if let Err(error) = self.commit_pending().await {
                error!(%error, "cannot commit, the catalog has another owner");
                self.stop.send_replace(true);
                return;
            }
            if let Err(error) = self.catalog.maintain().await {
                warn!(%error, "cannot tidy up the catalog's files, trying again later");
            }
            if !self.pause(self.config.commit_interval.get()).await {
                return;
            }
        }
    }

    async fn keep_looking(&self) {
        let mut listed = self.clock.monotonic();
        while self.pause(self.config.probe_interval.get()).await {
            if let Err(error) = self.look(&mut listed).await {
                warn!(%error, "cannot look for new segments, trying again");
            }
        }
    }

    async fn keep_tending(&self) {
        let mut reconciled = None;
        while self.pause(self.config.retention_interval.get()).await {
            self.tend();
            // Publish records name committed deaths only.
            if let Err(error) = self.commit_pending().await {
                warn!(%error, "cannot commit expired data");
                continue;
            }
            if let Err(error) = self.create_records().await {
                warn!(%error, "cannot create publish records, trying again");
            }
            let now = self.clock.monotonic();
            if reconciled.is_none_or(|last| now - last >= self.config.reconcile_interval.get()) {
                match self.reconcile().await {
                    Ok(_) => reconciled = Some(now),
                    Err(error) => warn!(%error, "cannot compare the bucket with the catalog, trying again"),
                }
            }
        }
    }

    async fn keep_deleting(&self) {
        while self.pause(DELETIONS_INTERVAL).await {
            if let Err(error) = self.advance_deletions().await {
                warn!(%error, "cannot finish a deletion, trying again");
            }
        }
    }

    async fn keep_observing(&self) {
        loop {
            self.observe();
            if !self.pause(OBSERVE_INTERVAL).await {
                return;
            }
        }
    }

    /// Updates the metrics that say how far behind the catalog and its merges are.
    pub(crate) fn observe(&self) {
        let unix_millis = self.clock.unix_millis();
        let mut state = self.state.lock();
        state.begin_graces(self.clock.monotonic());
        let merges = plan::lags(&mut state, &self.config, unix_millis);
        self.metrics.count(&state);
        self.metrics.lags(&state, merges, unix_millis);
        let first_minute = state.dedup().first_minute();
        let first_millis =
            (unix_millis - self.config.dedup_millis()).max(first_minute.saturating_mul(60_000));
        self.metrics.dedup_window.set((unix_millis - first_millis) as f64 / 1e3);
    }

    /// Ends data, logs and jobs that are past their time.
    pub(crate) fn tend(&self) {
        let unix_millis = self.clock.unix_millis();
        let mut state = self.state.lock();
        self.expire(&mut state);
        self.end_logs(&mut state);
        self.forget_jobs(&mut state, unix_millis);
        self.metrics.count(&state);
        self.work.notify_one();
    }

    /// Waits. Returns false if the owner stops.
    pub(crate) async fn pause(&self, duration: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        self.clock.timeout(duration, stop.wait_for(|stop| *stop)).await.is_none()
    }
}
