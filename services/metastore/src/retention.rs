//! Retention: ends data that are past their time.
//!
//! Owns: when datasets and whole objects expire, and when the seal of a log does.
//! Does not own: the periods (`limits`), rewriting (`plan`), deleting (`sweep`).
//!
//! Finds leave an expired dataset out at once; later it is dropped from the catalog. Its object dies when no dataset is
//! left, and is rewritten when less than half of its rows are. An object that a job has claimed waits for the job.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::Batch;
use catalog::rows::{self, JobProgress, Row};
use clock::Clock;
use model::{DAY, TenantId};
use storage::Key;

use crate::Metastore;
use crate::live::ObjectKind;
use crate::plan::INPUTS_MAX;
use crate::record::Record;
use crate::state::{JobState, State};

/// How long data of a tenant's service are kept; `None` means for ever. Without a service: the longest period of the
/// tenant's services.
pub type Retention = Arc<dyn Fn(&TenantId, Option<&str>) -> Option<Duration> + Send + Sync>;

/// Seals outlive the segments of their log, so that a process that was stopped for days still meets the seal of its
/// own.
pub(crate) const SEAL_KEPT_MILLIS: i64 = 7 * DAY * 1_000;

/// Data that end before this time are expired; in Unix nanoseconds.
pub(crate) fn kept_from(
    retention: &Retention,
    clock: &Clock,
    tenant: &TenantId,
    service: Option<&str>,
) -> i64 {
    match retention(tenant, service) {
        Some(period) => {
            let period = i64::try_from(period.as_nanos()).unwrap_or(i64::MAX);
            clock.unix_nanos().saturating_sub(period)
        }
        None => i64::MIN,
    }
}

impl Metastore {
    pub(crate) fn kept_from(&self, tenant: &TenantId, service: Option<&str>) -> i64 {
        kept_from(&self.retention, &self.clock, tenant, service)
    }

    /// Drops expired datasets from the catalog, and buries objects that hold no other.
    ///
    /// Objects die by a publish without outputs. Without that record a rebuild would take a missing segment for the end
    /// of its log, and a missing block for one that was not copied.
    pub(crate) fn expire(&self, state: &mut State) {
        let unix_millis = self.clock.unix_millis();
        // Objects with their masks, and the positions of expired datasets in other objects.
        let mut expired: Vec<(Key, Vec<u32>)> = Vec::new();
        let mut partly: Vec<(Key, BTreeSet<u32>)> = Vec::new();
        for (key, live) in state.live().iter() {
            if live.claimed.is_some() || !live.is_committed {
                continue;
            }
            let object = state.object(key);
            let datasets = state.datasets_of(key, live);
            let past = datasets.iter().filter(|d| d.times.last < self.kept_from(&d.tenant, Some(&d.service)));
            let past: BTreeSet<u32> = past.map(|dataset| dataset.position).collect();
            let is_past = match (&live.kind, state.quarantined(key)) {
                _ if object.is_some() || !datasets.is_empty() => past.len() == datasets.len(),
                (ObjectKind::Block { tenant, .. }, Some(quarantined)) => {
                    quarantined.quarantine.times.last < self.kept_from(tenant, None)
                }
                // An unreadable segment may hold data of any tenant, so the longest of all periods may apply.
                _ => false,
            };
            match live.kind {
                _ if !is_past && !past.is_empty() && object.is_some() => partly.push((key.clone(), past)),
                _ if !is_past => {}
                ObjectKind::Block { .. } | ObjectKind::Segment { .. } => {
                    let masked = object.map(|object| object.masked.clone()).unwrap_or_default();
                    expired.push((key.clone(), masked));
                }
            }
        }
        self.metrics.objects_expired.inc_by(expired.len() as u64);
        let mut batch = Batch::default();
        for (key, past) in &partly {
            self.metrics.datasets_expired.inc_by(past.len() as u64);
            state.drop_datasets(key, past, &mut batch);
        }
        expired.sort();
        for inputs in expired.chunks(INPUTS_MAX) {
            let job = self.new_job();
            for (key, _) in inputs {
                state.bury(key, Some(job), unix_millis, &mut batch);
            }
            let (attempt, inputs, outputs) = (0, inputs.to_vec(), Vec::new());
            let published_millis = unix_millis;
            let record = Record { job, attempt, published_millis, inputs, outputs, records_deaths: true };
            let row = rows::Job {
                id: job,
                created_millis: unix_millis,
                attempt,
                tries: 0,
                floor: 0,
                state: JobProgress::Published { record: Some(record.encode()) },
            };
            row.put_into(&mut batch);
            state.insert_job(JobState { row, due: Duration::ZERO });
        }
        state.pending_rows().changes.extend(batch.changes);
    }

    /// Buries the seals of logs whose segments were swept more than [`SEAL_KEPT_MILLIS`] ago.
    pub(crate) fn end_logs(&self, state: &mut State) {
        let unix_millis = self.clock.unix_millis();
        let is_swept = |writer| {
            let first = Key::log_slot(writer, 0);
            let mut next =
                state.live().keys_from(&first).take(1).chain(state.dead().keys_from(&first).take(1));
            next.all(|key| key.parse_log_slot().is_none_or(|(owner, _)| owner != writer))
        };
        let old = state.logs().values().filter(|log| {
            let row = &log.row;
            row.sealed && unix_millis - row.moved_millis > SEAL_KEPT_MILLIS && is_swept(row.writer)
        });
        for key in old.map(|log| Key::log_slot(log.row.writer, log.row.next)).collect::<Vec<_>>() {
            let dead = state.bury_unnamed(key, unix_millis);
            dead.put_into(state.pending_rows());
        }
    }
}
