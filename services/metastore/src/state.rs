//! The owner's state: the rows of the catalog, in memory, so that calls are answered without a read.
//!
//! Owns: live, quarantined and dead objects, logs, jobs, deletions and the keys of push items; each step from one state
//! to the next, with the rows that make it durable.
//! Does not own: when a step is taken (`consume`, `jobs`, `retention`), commits (`commit`).
//!
//! One [`Metastore`](crate::Metastore) owns it, behind a lock that is never held over an await. Most fields are
//! private to this module: other files read by named methods and change it by steps; `deletions` has steps of its own.
//! Collections that are iterated are sorted, so that the same requests lead to the same steps.

mod death;
mod erasure;
mod logs;
mod object_rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catalog::Batch;
use catalog::rows::{self, Block, DatasetSummary, Quarantine, Row, Segment};
use model::{ItemKey, JobId, TenantId, Times, WriterId};
use rpc::{FindRequest, Snapshot};
use storage::Key;

use crate::agenda::{Agenda, Changes};
use crate::config::Config;
use crate::dead::DeadObjects;
use crate::dedup::{Dedup, Minute};
use crate::deletions::Deletions;
use crate::find::{Index, Object};
use crate::live::{LiveObject, ObjectKind, Objects};
use crate::record::Record;

pub(crate) use death::Death;
pub(crate) use logs::{Data, LogState, Slot};
pub(crate) use object_rows::{put_block, row_count, summaries};

pub(crate) struct State {
    index: Index,
    live: Objects,
    agenda: Agenda,
    quarantined: BTreeMap<Key, QuarantinedObject>,
    logs: BTreeMap<WriterId, LogState>,
    jobs: BTreeMap<JobId, JobState>,
    dead: DeadObjects,
    pub(crate) deletions: Deletions,
    dedup: Dedup,
    /// Dedup rows in the catalog, by minute: their ordinals.
    dedup_rows: BTreeMap<Minute, Vec<u64>>,
    pending: Pending,
    /// Version of the last commit.
    pub(crate) version: u64,
    /// When the catalog was made from an older bucket, in Unix milliseconds; `None` if it began with the bucket.
    pub(crate) founded_millis: Option<i64>,
    /// Whether rows of an earlier version lack datasets.
    pub(crate) lacks_datasets: bool,
}

/// An object that cannot be read, so that no answer includes it.
#[derive(Clone, Debug)]
pub(crate) struct QuarantinedObject {
    pub(crate) quarantine: Quarantine,
    /// Its datasets; empty if unknown, then it may hold any.
    pub(crate) datasets: Vec<DatasetSummary>,
}

#[derive(Clone, Debug)]
pub(crate) struct JobState {
    pub(crate) row: rows::Job,
    /// When the open attempt lapses, or when the next attempt may begin, on the monotonic clock.
    pub(crate) due: Duration,
}

/// Steps that finds already see and the catalog does not.
#[derive(Default)]
struct Pending {
    segments: Vec<Segment>,
    logs: BTreeSet<WriterId>,
    keys: BTreeMap<Minute, Vec<ItemKey>>,
    /// All other rows.
    batch: Batch,
}

impl State {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            index: Index::default(),
            live: Objects::default(),
            agenda: Agenda::default(),
            quarantined: BTreeMap::new(),
            logs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            dead: DeadObjects::default(),
            deletions: Deletions::default(),
            dedup: Dedup::new(config.dedup_keys_max),
            dedup_rows: BTreeMap::new(),
            pending: Pending::default(),
            version: 0,
            founded_millis: None,
            lacks_datasets: false,
        }
    }

    pub(crate) fn live(&self) -> &Objects {
        &self.live
    }

    /// A live object as finds return it; `None` while it is quarantined.
    pub(crate) fn object(&self, key: &Key) -> Option<&Arc<Object>> {
        self.index.get(self.live.get(key)?.index_id?)
    }

    pub(crate) fn quarantined(&self, key: &Key) -> Option<&QuarantinedObject> {
        self.quarantined.get(key)
    }

    pub(crate) fn quarantined_count(&self) -> usize {
        self.quarantined.len()
    }

    /// Datasets of a live object, quarantined or not; empty if they are not known.
    pub(crate) fn datasets_of(&self, key: &Key, live: &LiveObject) -> &[DatasetSummary] {
        match live.index_id.and_then(|id| self.index.get(id)) {
            Some(object) => &object.datasets,
            None => self.quarantined.get(key).map_or(&[], |quarantined| &quarantined.datasets),
        }
    }

    pub(crate) fn dead(&self) -> &DeadObjects {
        &self.dead
    }

    pub(crate) fn logs(&self) -> &BTreeMap<WriterId, LogState> {
        &self.logs
    }

    pub(crate) fn dedup(&self) -> &Dedup {
        &self.dedup
    }

    pub(crate) fn agenda(&self) -> &Agenda {
        &self.agenda
    }

    pub(crate) fn jobs(&self) -> &BTreeMap<JobId, JobState> {
        &self.jobs
    }

    pub(crate) fn job_mut(&mut self, id: JobId) -> Option<&mut JobState> {
        self.jobs.get_mut(&id)
    }

    pub(crate) fn insert_job(&mut self, job: JobState) {
        self.jobs.insert(job.row.id, job);
    }

    pub(crate) fn remove_job(&mut self, id: JobId) -> Option<JobState> {
        self.jobs.remove(&id)
    }

    /// Reserves a live object for a job.
    pub(crate) fn claim(&mut self, key: &Key, job: JobId) {
        if let Some(live) = self.live.get_mut(key) {
            live.claimed = Some(job);
        }
    }

    /// Frees a live object for other jobs. Returns the job that had claimed it.
    pub(crate) fn release(&mut self, key: &Key) -> Option<JobId> {
        self.live.get_mut(key)?.claimed.take()
    }

    /// Objects for `request`. Datasets that end before `kept_from(tenant, service)` are left out.
    pub(crate) fn snapshot(
        &self,
        request: &FindRequest,
        epoch: u64,
        kept_from: impl Fn(&TenantId, &str) -> i64,
    ) -> Snapshot {
        let objects = self.index.find(request, &self.deletions, &kept_from);
        let pruned = request.explain.then(|| self.index.pruned(request, &kept_from));
        let is_asked_for = |dataset: &DatasetSummary| {
            request.tenants.contains(&dataset.tenant)
                && request
                    .services
                    .as_ref()
                    .is_none_or(|names| names.iter().any(|name| **name == *dataset.service))
                && request.profile_type.as_ref().is_none_or(|wanted| dataset.profile_types.contains(wanted))
                && request.range.overlaps(dataset.times)
        };
        let quarantined = self.quarantined.iter().filter(|(_, quarantined)| {
            let datasets = &quarantined.datasets;
            // If its datasets are not known, it may hold any.
            request.range.overlaps(quarantined.quarantine.times)
                && (datasets.is_empty() || datasets.iter().any(is_asked_for))
        });
        let quarantined = quarantined.map(|(key, q)| (key.clone(), q.quarantine.reason.clone())).collect();
        Snapshot { version: self.version, epoch, stale: None, objects, quarantined, pruned }
    }

    /// Brings the agenda up to date with all changes until `unix_millis`.
    pub(crate) fn update_agenda(&mut self, config: &Config, unix_millis: i64) {
        let mut agenda = std::mem::take(&mut self.agenda);
        let keys = self.live.take_changed();
        let changes = Changes {
            live: &self.live,
            must_rewrite: &|key, live| self.must_rewrite(key, live),
            deletions: self.deletions.changes(),
            config,
            unix_millis,
        };
        agenda.update(keys, &changes);
        self.agenda = agenda;
    }

    pub(crate) fn add_segment(&mut self, segment: &Segment, is_committed: bool) {
        let Segment { writer, seq, created_millis, bytes, floor, rows, .. } = *segment;
        let key = Key::log_slot(writer, seq);
        let kind = ObjectKind::Segment { writer, seq };
        let object = Object {
            key: key.clone(),
            bytes,
            masked: segment.masked.clone(),
            floor,
            datasets: segment.datasets.clone(),
        };
        let live = LiveObject {
            kind,
            bytes,
            created_millis,
            index_id: None,
            claimed: None,
            is_committed,
            floor,
            rows,
            live_rows: 0,
        };
        self.add(key, live, object, segment.quarantine.clone());
    }

    /// Adds a segment whose row the next commit writes.
    pub(crate) fn add_pending_segment(&mut self, segment: Segment) {
        self.add_segment(&segment, false);
        self.pending.segments.push(segment);
    }

    pub(crate) fn add_block(&mut self, block: &Block, datasets: Vec<DatasetSummary>) {
        let key = block.key.clone();
        let (tenant, level, window) = (block.tenant.clone(), block.level, block.window);
        let kind = ObjectKind::Block { id: block.id, tenant, level, window };
        let Block { bytes, created_millis, floor, rows, .. } = *block;
        let object = Object { key: key.clone(), bytes, masked: Vec::new(), floor, datasets };
        let live = LiveObject {
            kind,
            bytes,
            created_millis,
            index_id: None,
            claimed: None,
            is_committed: true,
            floor,
            rows,
            live_rows: 0,
        };
        self.add(key, live, object, block.quarantine.clone());
    }

    fn add(&mut self, key: Key, mut live: LiveObject, object: Object, quarantine: Option<Quarantine>) {
        self.deletions.saw_floor(live.floor);
        live.live_rows = object.datasets.iter().map(|dataset| dataset.rows).sum();
        live.index_id = match quarantine {
            None => Some(self.index.insert(object)),
            Some(quarantine) => {
                let datasets = object.datasets;
                self.quarantined.insert(key.clone(), QuarantinedObject { quarantine, datasets });
                None
            }
        };
        self.live.insert(key, live);
    }

    /// Takes datasets, by their positions, out of every answer; at least one must be left.
    pub(crate) fn drop_datasets(&mut self, key: &Key, positions: &BTreeSet<u32>, batch: &mut Batch) {
        let Some(live) = self.live.get_mut(key) else {
            return;
        };
        let Some(object) = live.index_id.take().and_then(|id| self.index.remove(id)) else {
            return;
        };
        let datasets = object.datasets.iter().cloned();
        let (gone, left) = datasets.partition(|dataset| positions.contains(&dataset.position));
        let object = Object { datasets: left, ..(*object).clone() };
        live.live_rows = object.datasets.iter().map(|dataset| dataset.rows).sum();
        match &live.kind {
            ObjectKind::Segment { .. } => object_rows::put_object(key, live, &object, None, batch),
            ObjectKind::Block { id, window, .. } => {
                let gone: Vec<DatasetSummary> = gone;
                for summary in &gone {
                    batch.delete(rows::dataset_key(summary, window.day(), *id));
                }
            }
        }
        live.index_id = Some(self.index.insert(object));
    }

    /// Moves an object that cannot be read out of the index of finds.
    pub(crate) fn quarantine(&mut self, key: &Key, reason: String, batch: &mut Batch) {
        let Some(live) = self.live.get_mut(key) else {
            return;
        };
        let Some(object) = live.index_id.take().and_then(|id| self.index.remove(id)) else {
            return;
        };
        let always = Times { first: i64::MIN, last: i64::MAX };
        let quarantine = Quarantine {
            reason,
            times: object.datasets.iter().map(|d| d.times).reduce(Times::join).unwrap_or(always),
        };
        object_rows::put_object(key, live, &object, Some(quarantine.clone()), batch);
        let datasets = object.datasets.clone();
        self.quarantined.insert(key.clone(), QuarantinedObject { quarantine, datasets });
    }

    /// Adds published jobs whose records are missing from the bucket, so that they are created with those of new jobs.
    pub(crate) fn publish_again(&mut self, records: Vec<Record>) {
        for record in records {
            let state = rows::JobProgress::Published { record: Some(record.encode()) };
            let Record { job: id, attempt, published_millis: created_millis, .. } = record;
            let row = rows::Job { id, created_millis, attempt, tries: 0, floor: 0, state };
            row.put_into(&mut self.pending.batch);
            self.insert_job(JobState { row, due: Duration::ZERO });
        }
    }

    /// Creation time of the oldest segment that no publish record names yet, or `unix_millis`.
    ///
    /// Quarantined segments do not count: they are never merged, so they would stop every sweep.
    pub(crate) fn oldest_segment_millis(&self, unix_millis: i64) -> i64 {
        let segments = self.live.segments().filter(|(_, live)| live.index_id.is_some());
        segments.map(|(_, live)| live.created_millis).min().unwrap_or(unix_millis)
    }

    /// Rows that the next commit writes.
    pub(crate) fn pending_rows(&mut self) -> &mut Batch {
        &mut self.pending.batch
    }

    pub(crate) fn pending_segment_count(&self) -> usize {
        self.pending.segments.len()
    }

    pub(crate) fn drop_pending(&mut self) {
        self.pending = Pending::default();
    }

    /// Takes the rows of all pending steps, and the keys of the segments among them. The caller must commit the rows.
    pub(crate) fn take_pending(&mut self, window_millis: i64, unix_millis: i64) -> (Batch, Vec<Key>) {
        let pending = std::mem::take(&mut self.pending);
        let mut batch = pending.batch;
        for writer in &pending.logs {
            if let Some(log) = self.logs.get(writer) {
                log.row.put_into(&mut batch);
            }
        }
        let mut keys = Vec::with_capacity(pending.segments.len());
        for segment in &pending.segments {
            let key = Key::log_slot(segment.writer, segment.seq);
            // It may have died since.
            if self.live.contains_key(&key) {
                segment.put_into(&mut batch);
                keys.push(key);
            }
        }
        for (minute, keys) in pending.keys {
            let ordinals = self.dedup_rows.entry(minute).or_default();
            let ordinal = ordinals.last().map_or(0, |last| last + 1);
            ordinals.push(ordinal);
            rows::Dedup { minute, ordinal, keys }.put_into(&mut batch);
        }
        if !batch.is_empty() {
            self.forget_keys(window_millis, unix_millis, &mut batch);
        }
        (batch, keys)
    }

    /// Notes that the rows of these segments are in the catalog.
    pub(crate) fn are_committed(&mut self, segments: &[Key]) {
        for key in segments {
            if let Some(live) = self.live.get_mut(key) {
                live.is_committed = true;
            }
        }
    }
}
