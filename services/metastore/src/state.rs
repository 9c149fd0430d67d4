//! What the owner knows: the catalog's rows, as memory that answers at once.
//!
//! Owns: the steps from one state to the next, each with the rows that make it durable.
//! Does not own: when steps happen (`consume`, `publish`, `retention`), commits (`lib`).
//!
//! What is walked through is sorted, so that one history of requests makes one history of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catalog::Batch;
use catalog::rows::{self, Block, Dataset, DatasetSummary, Quarantine, Row, Segment};
use clock::Now;
use model::{HOUR, ItemKey, JobId, Times, WriterId};
use storage::Key;

use crate::agenda::Agenda;
use crate::config::Config;
use crate::dead::DeadObjects;
use crate::dedup::{Dedup, Minute};
use crate::deletions::Deletions;
use crate::find::{Index, Object};
use crate::live::{Live, Objects, What};
use crate::record::Record;

pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) live: Objects,
    pub(crate) agenda: Agenda,
    pub(crate) quarantined: BTreeMap<Key, Quarantined>,
    pub(crate) logs: BTreeMap<WriterId, LogState>,
    pub(crate) jobs: BTreeMap<JobId, JobState>,
    pub(crate) dead: DeadObjects,
    pub(crate) deletions: Deletions,
    pub(crate) dedup: Dedup,
    /// Dedup rows in the catalog, by minute: their ordinals.
    dedup_rows: BTreeMap<Minute, Vec<u64>>,
    pub(crate) pending: Pending,
    /// Of the last commit.
    pub(crate) version: u64,
    /// When the catalog was made from an older bucket, in Unix milliseconds; `None` if it began with the bucket.
    pub(crate) founded_millis: Option<i64>,
    /// Whether rows of an earlier version lack datasets.
    pub(crate) lacks_datasets: bool,
}

/// An object that no answer can include.
#[derive(Clone, Debug)]
pub(crate) struct Quarantined {
    pub(crate) why: Quarantine,
    /// What it holds; empty if unknown, then anything.
    pub(crate) datasets: Vec<DatasetSummary>,
}

#[derive(Clone, Debug)]
pub(crate) struct LogState {
    pub(crate) row: rows::Log,
    /// When the log last moved or was first heard of, by own clock.
    pub(crate) moved: Duration,
    pub(crate) probed: Duration,
    /// Whether the last slot was found by looking instead of by a hint.
    pub(crate) is_hinted: bool,
    /// When the next slot was last seen absent, in Unix milliseconds.
    pub(crate) absent_millis: Option<i64>,
}

#[derive(Clone, Debug)]
pub(crate) struct JobState {
    pub(crate) row: rows::Job,
    /// Until when its attempt is left alone, or when the next may begin, by own clock.
    pub(crate) due: Duration,
}

/// Steps that finds see already and the catalog does not.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) segments: Vec<Segment>,
    pub(crate) logs: BTreeSet<WriterId>,
    pub(crate) keys: BTreeMap<Minute, Vec<ItemKey>>,
    /// Anything else.
    pub(crate) batch: Batch,
}

/// What a log's next slot turned out to hold.
pub(crate) enum Slot {
    Data(Data),
    Seal,
}

pub(crate) enum Data {
    Segment { bytes: u64, directory: block::Directory },
    Unreadable(String),
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

    /// The log of `writer`, new if it was never heard of.
    pub(crate) fn log(&mut self, writer: WriterId, now: Duration) -> &mut LogState {
        self.logs.entry(writer).or_insert_with(|| LogState {
            row: rows::Log { writer, next: 0, sealed: false, moved_millis: 0 },
            moved: now,
            probed: Duration::ZERO,
            is_hinted: false,
            absent_millis: None,
        })
    }

    /// Consumes slot `seq` if it is the next of its log; otherwise nothing happens. Gives the number of items masked.
    pub(crate) fn consume(&mut self, writer: WriterId, seq: u64, slot: Slot, now: Now) -> Option<usize> {
        let log = self.log(writer, now.monotonic);
        if log.row.sealed || log.row.next != seq {
            return None;
        }
        log.moved = now.monotonic;
        log.absent_millis = None;
        let Slot::Data(data) = slot else {
            log.row.sealed = true;
            log.row.moved_millis = now.unix_millis;
            self.pending.logs.insert(writer);
            return Some(0);
        };
        log.row.next = seq + 1;
        let before_millis = if seq == 0 { now.unix_millis } else { log.row.moved_millis };
        if let Data::Segment { directory, .. } = &data {
            log.row.moved_millis = directory.created_millis;
        }
        self.pending.logs.insert(writer);
        let segment = self.segment_of(writer, seq, data, before_millis, now.unix_millis);
        let masked = segment.masked.len();
        self.add_segment(&segment, false);
        self.pending.segments.push(segment);
        Some(masked)
    }

    /// The row of a slot, with what it must not count. `before_millis` is when an unreadable one was
    /// created, as far as is known.
    pub(crate) fn segment_of(
        &mut self,
        writer: WriterId,
        seq: u64,
        data: Data,
        before_millis: i64,
        unix_millis: i64,
    ) -> Segment {
        let floor = self.deletions.floor_of(writer, seq);
        match data {
            Data::Segment { bytes, directory } => Segment {
                writer,
                seq,
                created_millis: directory.created_millis,
                bytes,
                masked: self.decide(&directory.keys, directory.created_millis),
                quarantine: None,
                datasets: summaries(&directory),
                floor,
                rows: rows_of(&directory),
            },
            // It may hold anything that was pushed about then.
            Data::Unreadable(reason) => Segment {
                writer,
                seq,
                created_millis: before_millis,
                bytes: 0,
                masked: Vec::new(),
                quarantine: Some(Quarantine {
                    reason,
                    times: Times {
                        first: (before_millis - HOUR * 1_000).saturating_mul(1_000_000),
                        last: unix_millis.saturating_mul(1_000_000),
                    },
                }),
                datasets: Vec::new(),
                floor,
                rows: 0,
            },
        }
    }

    /// Forgets the keys of segments created before `millis`.
    pub(crate) fn forget_keys_before(&mut self, millis: i64) {
        self.dedup.forget_before(millis.div_euclid(60_000));
    }

    /// Counts keys that a merged segment holds.
    pub(crate) fn count(&mut self, keys: &[ItemKey], created_millis: i64) {
        self.decide(keys, created_millis);
    }

    /// Ordinals of the keys that were counted before.
    fn decide(&mut self, keys: &[ItemKey], created_millis: i64) -> Vec<u32> {
        let minute = created_millis.div_euclid(60_000);
        let mut masked = Vec::new();
        let mut first = Vec::new();
        for (ordinal, key) in keys.iter().enumerate() {
            if self.dedup.insert(*key, minute) {
                first.push(*key);
            } else {
                masked.push(ordinal as u32);
            }
        }
        if !first.is_empty() {
            self.pending.keys.entry(minute).or_default().append(&mut first);
        }
        masked
    }

    pub(crate) fn add_segment(&mut self, segment: &Segment, is_committed: bool) {
        let Segment { writer, seq, created_millis, bytes, floor, rows, .. } = *segment;
        let key = Key::log_slot(writer, seq);
        let what = What::Segment { writer, seq };
        let object = Object {
            key: key.clone(),
            bytes,
            masked: segment.masked.clone(),
            floor,
            datasets: segment.datasets.clone(),
        };
        let live = Live {
            what,
            bytes,
            created_millis,
            id: None,
            claimed: None,
            is_committed,
            floor,
            rows,
            live_rows: 0,
        };
        self.add(key, live, object, segment.quarantine.clone());
    }

    pub(crate) fn add_block(&mut self, block: &Block, datasets: Vec<DatasetSummary>) {
        let key = block.key.clone();
        let (tenant, level, window) = (block.tenant.clone(), block.level, block.window);
        let what = What::Block { id: block.id, tenant, level, window };
        let Block { bytes, created_millis, floor, rows, .. } = *block;
        let object = Object { key: key.clone(), bytes, masked: Vec::new(), floor, datasets };
        let live = Live {
            what,
            bytes,
            created_millis,
            id: None,
            claimed: None,
            is_committed: true,
            floor,
            rows,
            live_rows: 0,
        };
        self.add(key, live, object, block.quarantine.clone());
    }

    fn add(&mut self, key: Key, mut live: Live, object: Object, quarantine: Option<Quarantine>) {
        self.deletions.saw_floor(live.floor);
        live.live_rows = object.datasets.iter().map(|dataset| dataset.rows).sum();
        live.id = match quarantine {
            None => Some(self.index.insert(object)),
            Some(why) => {
                let datasets = object.datasets;
                self.quarantined.insert(key.clone(), Quarantined { why, datasets });
                None
            }
        };
        self.live.insert(key, live);
    }

    /// The rows that change when an object dies.
    pub(crate) fn rows_of_death(
        &self,
        key: &Key,
        job: Option<JobId>,
        unix_millis: i64,
        batch: &mut Batch,
    ) -> Option<rows::Dead> {
        let live = self.live.get(key)?;
        let object = live.id.and_then(|id| self.index.get(id));
        let datasets = match (object, self.quarantined.get(key)) {
            (Some(object), _) => &object.datasets[..],
            (None, Some(quarantined)) => &quarantined.datasets[..],
            (None, None) => &[],
        };
        delete_rows(live, datasets, batch);
        let segment_millis = match live.what {
            What::Segment { .. } => Some(live.created_millis),
            What::Block { .. } => None,
        };
        let dead = rows::Dead { key: key.clone(), died_millis: unix_millis, job, segment_millis };
        dead.put_into(batch);
        Some(dead)
    }

    /// Takes an object out of every answer.
    pub(crate) fn bury(&mut self, key: &Key, job: Option<JobId>, unix_millis: i64, batch: &mut Batch) {
        let Some(dead) = self.rows_of_death(key, job, unix_millis, batch) else {
            return;
        };
        if let Some(live) = self.live.remove(key) {
            live.id.and_then(|id| self.index.remove(id));
        }
        self.quarantined.remove(key);
        self.dead.insert(dead);
    }

    /// Buries an object that no row names; gives its new row.
    pub(crate) fn bury_unnamed(&mut self, key: Key, unix_millis: i64) -> rows::Dead {
        let dead = rows::Dead { key, died_millis: unix_millis, job: None, segment_millis: None };
        self.add_dead(dead.clone());
        dead
    }

    pub(crate) fn add_dead(&mut self, dead: rows::Dead) {
        // Whoever sweeps a dead deletion late must not meet another one of its number.
        if let Some((_, number, _)) = dead.key.parse_deletion() {
            self.deletions.saw_floor(number);
        }
        self.dead.insert(dead);
    }

    /// Takes datasets, by their positions, out of every answer; at least one must be left.
    pub(crate) fn drop_datasets(&mut self, key: &Key, positions: &BTreeSet<u32>, batch: &mut Batch) {
        let Some(live) = self.live.get_mut(key) else {
            return;
        };
        let Some(object) = live.id.take().and_then(|id| self.index.remove(id)) else {
            return;
        };
        let datasets = object.datasets.iter().cloned();
        let (gone, left) = datasets.partition(|dataset| positions.contains(&dataset.position));
        let object = Object { datasets: left, ..(*object).clone() };
        live.live_rows = object.datasets.iter().map(|dataset| dataset.rows).sum();
        match &live.what {
            What::Segment { .. } => put_object(key, live, &object, None, batch),
            What::Block { id, window, .. } => {
                let gone: Vec<DatasetSummary> = gone;
                for summary in &gone {
                    batch.delete(rows::dataset_key(summary, window.day(), *id));
                }
            }
        }
        live.id = Some(self.index.insert(object));
    }

    /// Moves an object that cannot be read out of the answers that it would spoil.
    pub(crate) fn quarantine(&mut self, key: &Key, reason: String, batch: &mut Batch) {
        let Some(live) = self.live.get_mut(key) else {
            return;
        };
        let Some(object) = live.id.take().and_then(|id| self.index.remove(id)) else {
            return;
        };
        let always = Times { first: i64::MIN, last: i64::MAX };
        let why = Quarantine {
            reason,
            times: object.datasets.iter().map(|d| d.times).reduce(Times::join).unwrap_or(always),
        };
        let quarantine = Some(why.clone());
        put_object(key, live, &object, quarantine, batch);
        let datasets = object.datasets.clone();
        self.quarantined.insert(key.clone(), Quarantined { why, datasets });
    }

    /// Has records created that are not in the bucket, beside those of new publishes.
    pub(crate) fn publish_again(&mut self, records: Vec<Record>) {
        for record in records {
            let state = rows::JobProgress::Published { record: Some(record.encode()) };
            let Record { job: id, attempt, published_millis: created_millis, .. } = record;
            let row = rows::Job { id, created_millis, attempt, tries: 0, floor: 0, state };
            row.put_into(&mut self.pending.batch);
            self.jobs.insert(id, JobState { row, due: Duration::ZERO });
        }
    }

    /// Keys older than this time, in Unix milliseconds, cannot meet their duplicate any more.
    pub(crate) fn watermark(&self, unix_millis: i64) -> i64 {
        let open = self.logs.values().filter(|log| !log.row.sealed);
        let consumed = open.map(|log| match log.absent_millis {
            Some(millis) => millis,
            None if log.row.next == 0 => unix_millis,
            None => log.row.moved_millis,
        });
        consumed.min().unwrap_or(unix_millis).min(unix_millis)
    }

    /// Creation time of the oldest segment that a publish record will name but does not yet, or now.
    ///
    /// A quarantined one is never merged: were it counted, nothing could be swept any more.
    pub(crate) fn oldest_segment_millis(&self, unix_millis: i64) -> i64 {
        let segments = self.live.segments().filter(|(_, live)| live.id.is_some());
        segments.map(|(_, live)| live.created_millis).min().unwrap_or(unix_millis)
    }

    /// The rows of all pending steps. They are taken: the caller must commit them.
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
            self.forget(window_millis, unix_millis, &mut batch);
        }
        (batch, keys)
    }

    /// Takes note that the rows of these segments are in the catalog.
    pub(crate) fn are_committed(&mut self, segments: &[Key]) {
        for key in segments {
            if let Some(live) = self.live.get_mut(key) {
                live.is_committed = true;
            }
        }
    }

    /// Drops keys that left the window.
    fn forget(&mut self, window_millis: i64, unix_millis: i64, batch: &mut Batch) {
        let first = (self.watermark(unix_millis) - window_millis).div_euclid(60_000);
        self.dedup.forget_before(first);
        let kept = self.dedup_rows.split_off(&self.dedup.first_minute());
        for (minute, ordinals) in std::mem::replace(&mut self.dedup_rows, kept) {
            for ordinal in ordinals {
                batch.delete(rows::Dedup::key_of(minute, ordinal));
            }
        }
    }

    /// Takes in a dedup row of an earlier owner.
    pub(crate) fn load_keys(&mut self, row: &rows::Dedup) {
        for key in &row.keys {
            self.dedup.insert(*key, row.minute);
        }
        let ordinals = self.dedup_rows.entry(row.minute).or_default();
        ordinals.push(row.ordinal);
        ordinals.sort_unstable();
    }
}

/// The row of an object itself; those of the datasets of a block are beside it.
fn put_object(key: &Key, live: &Live, object: &Object, quarantine: Option<Quarantine>, batch: &mut Batch) {
    let Live { bytes, created_millis, floor, rows, .. } = *live;
    match &live.what {
        What::Segment { writer, seq } => Segment {
            writer: *writer,
            seq: *seq,
            created_millis,
            bytes,
            masked: object.masked.clone(),
            quarantine,
            datasets: object.datasets.clone(),
            floor,
            rows,
        }
        .put_into(batch),
        What::Block { id, tenant, level, window } => Block {
            id: *id,
            key: key.clone(),
            tenant: tenant.clone(),
            level: *level,
            window: *window,
            bytes,
            created_millis,
            quarantine,
            floor,
            rows,
        }
        .put_into(batch),
    }
}

/// Deletes the rows of an object.
fn delete_rows(live: &Live, datasets: &[DatasetSummary], batch: &mut Batch) {
    match &live.what {
        What::Segment { writer, seq } => batch.delete(rows::segment_key(*writer, *seq)),
        What::Block { id, tenant, level, window } => {
            batch.delete(rows::block_key(tenant, *window, *level, *id));
            for summary in datasets {
                batch.delete(rows::dataset_key(summary, window.day(), *id));
            }
        }
    }
}

/// The rows of a new block.
pub(crate) fn put_block(block: &Block, datasets: &[DatasetSummary], batch: &mut Batch) {
    block.put_into(batch);
    for summary in datasets {
        let day = block.window.day();
        Dataset { block: block.id, day, summary: summary.clone(), has_own_key: true }.put_into(batch);
    }
}

/// Rows of all datasets of an object.
pub(crate) fn rows_of(directory: &block::Directory) -> u64 {
    directory.datasets.iter().map(|entry| entry.rows.end - entry.rows.start).sum()
}

/// What the catalog keeps of a directory.
pub(crate) fn summaries(directory: &block::Directory) -> Vec<DatasetSummary> {
    let datasets = directory.datasets.iter().enumerate();
    datasets
        .map(|(position, entry)| DatasetSummary {
            position: position as u32,
            tenant: entry.tenant.clone(),
            service: entry.service.as_str().into(),
            times: entry.times,
            rows: entry.rows.end - entry.rows.start,
            profile_types: entry.profile_types.as_slice().into(),
        })
        .collect()
}
