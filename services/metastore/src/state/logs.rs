//! Steps of the writers' logs: slots consumed, keys counted once, logs forgotten.
//!
//! Does not own: reading slots (`consume`), the table of keys (`dedup`).

use std::time::Duration;

use catalog::Batch;
use catalog::rows::{self, Quarantine, Row, Segment};
use clock::Now;
use model::{HOUR, ItemKey, Times, WriterId};

use super::{State, row_count, summaries};

#[derive(Clone, Debug)]
pub(crate) struct LogState {
    pub(crate) row: rows::Log,
    /// When the log last moved, or became known, on the monotonic clock.
    pub(crate) moved: Duration,
    /// When its next slot was last read, on the monotonic clock.
    pub(crate) probed: Duration,
    /// Whether the last slot came by a hint, and not by a probe.
    pub(crate) is_hinted: bool,
    /// When the next slot was last seen absent, in Unix milliseconds.
    pub(crate) absent_millis: Option<i64>,
}

/// Contents of a log's next slot.
pub(crate) enum Slot {
    Data(Data),
    Seal,
}

pub(crate) enum Data {
    Segment { bytes: u64, directory: block::Directory },
    Unreadable(String),
}

impl State {
    /// The log of `writer`, created if it is not known.
    pub(crate) fn log(&mut self, writer: WriterId, now: Duration) -> &mut LogState {
        self.logs.entry(writer).or_insert_with(|| LogState {
            row: rows::Log { writer, next: 0, sealed: false, moved_millis: 0 },
            moved: now,
            probed: Duration::ZERO,
            is_hinted: false,
            absent_millis: None,
        })
    }

    /// Takes in the row of a log that the catalog holds.
    pub(crate) fn load_log(&mut self, row: rows::Log, now: Duration) {
        let log = LogState { row, moved: now, probed: Duration::ZERO, is_hinted: false, absent_millis: None };
        self.logs.insert(log.row.writer, log);
    }

    /// Replaces the row of a log; the next commit writes it.
    pub(crate) fn set_log(&mut self, row: rows::Log, now: Duration) {
        let writer = row.writer;
        self.log(writer, now).row = row;
        self.pending.logs.insert(writer);
    }

    /// Consumes slot `seq` if it is the next of its log; otherwise changes nothing. Returns the number of masked items.
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
        self.add_pending_segment(segment);
        Some(masked)
    }

    /// The row of a slot, with the items that must not count. `before_millis` is when an unreadable slot was created,
    /// as far as is known.
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
                masked: self.mask(&directory.keys, directory.created_millis),
                quarantine: None,
                datasets: summaries(&directory),
                floor,
                rows: row_count(&directory),
            },
            // It may hold anything that was pushed around that time.
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

    /// Forgets a swept slot. A log is forgotten with its seal, which is kept for some days after its segments.
    pub(super) fn forget_slot(&mut self, writer: WriterId, seq: u64, unix_millis: i64) {
        let Some(log) = self.logs.get_mut(&writer) else {
            return;
        };
        if !log.row.sealed {
            return;
        }
        if seq != log.row.next {
            log.row.moved_millis = unix_millis;
            self.pending.logs.insert(writer);
        } else if let Some(log) = self.logs.remove(&writer) {
            self.pending.logs.remove(&writer);
            self.pending.batch.delete(log.row.key());
        }
    }

    /// Creation time, in Unix milliseconds, before which all segments are consumed, as far as this owner knows.
    pub(crate) fn watermark(&self, unix_millis: i64) -> i64 {
        let open = self.logs.values().filter(|log| !log.row.sealed);
        let consumed = open.map(|log| match log.absent_millis {
            Some(millis) => millis,
            None if log.row.next == 0 => unix_millis,
            None => log.row.moved_millis,
        });
        consumed.min().unwrap_or(unix_millis).min(unix_millis)
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

    /// Counts the keys of a segment that is merged already.
    pub(crate) fn count_keys(&mut self, keys: &[ItemKey], created_millis: i64) {
        self.mask(keys, created_millis);
    }

    /// Counts keys. Returns the ordinals of those that were counted before.
    fn mask(&mut self, keys: &[ItemKey], created_millis: i64) -> Vec<u32> {
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

    /// Forgets the keys of segments created before `millis`.
    pub(crate) fn forget_keys_before(&mut self, millis: i64) {
        self.dedup.forget_before(millis.div_euclid(60_000));
    }

    /// Forgets keys that left the window, with their rows.
    pub(super) fn forget_keys(&mut self, window_millis: i64, unix_millis: i64, batch: &mut Batch) {
        let first = (self.watermark(unix_millis) - window_millis).div_euclid(60_000);
        self.dedup.forget_before(first);
        let kept = self.dedup_rows.split_off(&self.dedup.first_minute());
        for (minute, ordinals) in std::mem::replace(&mut self.dedup_rows, kept) {
            for ordinal in ordinals {
                batch.delete(rows::Dedup::key_of(minute, ordinal));
            }
        }
    }
}
