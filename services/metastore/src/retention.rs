//! Ends what is past its time.
//!
//! Owns: when whole objects die of age, and when a log's last traces go.
//! Does not own: how long a tenant keeps data (`limits`), deleting (`sweep`).
//!
//! A dataset past its time is left out of finds at once; its object dies when all of its datasets
//! are. An object that a job works on waits for the job.

use std::sync::Arc;
use std::time::Duration;

use catalog::rows::{self, Row};
use model::TenantId;
use storage::Key;

use crate::Metastore;
use crate::state::State;

/// How long a tenant's data are kept; `None` is for ever.
pub type Retention = Arc<dyn Fn(&TenantId) -> Option<Duration> + Send + Sync>;

/// Seals outlive their log, so that a process that was stopped for days still meets its own.
const SEAL_KEPT_MILLIS: i64 = 7 * 24 * 3_600_000;

impl Metastore {
    /// The first instant that `tenant` still keeps, in Unix nanoseconds.
    pub(crate) fn kept_from(&self, tenant: &TenantId) -> i64 {
        match (self.retention)(tenant) {
            Some(period) => {
                let period = i64::try_from(period.as_nanos()).unwrap_or(i64::MAX);
                self.clock.unix_nanos().saturating_sub(period)
            }
            None => i64::MIN,
        }
    }

    /// Buries every object whose datasets are all past their time.
    pub(crate) fn expire(&self, state: &mut State) {
        let unix_millis = self.clock.unix_millis();
        let mut expired: Vec<Key> = Vec::new();
        for (key, live) in &state.live {
            if live.claimed.is_some() || !live.is_committed {
                continue;
            }
            let is_past = match (live.id.and_then(|id| state.index.get(id)), state.quarantined.get(key)) {
                (Some(object), _) => object.datasets.iter().all(|d| d.time_max < self.kept_from(&d.tenant)),
                // Unreadable, so nobody knows whose it is: the longest period of anybody may apply.
                (None, Some(quarantined)) if quarantined.datasets.is_empty() => false,
                (None, Some(quarantined)) => {
                    quarantined.datasets.iter().all(|d| d.time_max < self.kept_from(&d.tenant))
                }
                (None, None) => false,
            };
            if is_past {
                expired.push(key.clone());
            }
        }
        let mut batch = std::mem::take(&mut state.pending.batch);
        for key in &expired {
            state.bury(key, None, unix_millis, &mut batch);
        }
        self.metrics.objects_expired.inc_by(expired.len() as u64);
        state.pending.batch = batch;
    }

    /// Buries the seals of logs that were swept long ago.
    pub(crate) fn end_logs(&self, state: &mut State) {
        let unix_millis = self.clock.unix_millis();
        let old = state
            .logs
            .values()
            .filter(|log| log.row.sealed && unix_millis - log.row.created_millis > SEAL_KEPT_MILLIS);
        let seals = old.map(|log| (log.row.writer, Key::log_slot(log.row.writer, log.row.next)));
        for (writer, key) in seals.collect::<Vec<_>>() {
            let of_writer = |key: &Key| key.parse_log_slot().is_some_and(|(w, _)| w == writer);
            if state.dead.keys().any(of_writer) || state.live.keys().any(of_writer) {
                continue;
            }
            let dead =
                rows::Dead { key: key.clone(), died_millis: unix_millis, job: None, segment_millis: None };
            dead.put_into(&mut state.pending.batch);
            state.dead.insert(key, dead);
        }
    }
}
