//! Consumes writers' logs, each strictly in slot order.
//!
//! Owns: the sources of new segments (hints, probes, listings), closing silent logs.
//! Does not own: the change that consuming a slot makes (`state/logs`), when it is committed (`run`).
//!
//! A segment is visible to finds as soon as it is consumed. A crash before its rows are committed
//! loses only the decision which of two equal items counts; the next owner makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use block::{Directory, Origin, Seal};
use cluster::Role;
use futures::{StreamExt, TryStreamExt, stream};
use model::WriterId;
use rpc::{Error, ErrorKind, SegmentHint};
use storage::{CreateOutcome, Key};
use tracing::{info, warn};

use crate::error::{OpenError, of_header};
use crate::header::{self, Header};
use crate::state::{Data, LogState, Slot};
use crate::{Metastore, PENDING_SEGMENTS_MAX};

/// Logs read at once.
const LOGS_AT_ONCE: usize = 8;
/// Slots of one log read ahead while catching up.
const SLOTS_AHEAD: usize = 8;

impl Metastore {
    /// Consumes a segment that its writer reports, and the slots before it that are not consumed yet.
    pub(crate) async fn take_hint(&self, hint: SegmentHint) -> Result<(), Error> {
        self.ensure_not_stopped()?;
        if self.is_behind() {
            let message = format!("{PENDING_SEGMENTS_MAX} segments wait for a commit, which is the limit");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let (writer, seq) = (hint.writer, hint.seq);
        let data = Data::Segment { bytes: hint.bytes, directory: hint.directory };
        let slot = Slot::Data(data);
        if !self.consume_hinted(writer, seq, slot) {
            self.probe(writer).await.map_err(of_header)?;
        }
        // The writer relies on the answer: every find includes the segment from now on.
        self.ensure_owner().await
    }

    /// Whether memory holds enough pending segments. A segment that is not consumed now is read later.
    fn is_behind(&self) -> bool {
        self.state.lock().pending_segment_count() >= PENDING_SEGMENTS_MAX
    }

    /// Returns false if slots before `seq` are not consumed yet.
    fn consume_hinted(&self, writer: WriterId, seq: u64, slot: Slot) -> bool {
        let now = self.clock.monotonic();
        {
            let mut state = self.state.lock();
            let log = state.log(writer, now);
            if log.row.sealed || seq < log.row.next {
                return true;
            }
            if seq > log.row.next {
                return false;
            }
            log.is_hinted = true;
        }
        self.consume(writer, seq, slot);
        true
    }

    fn consume(&self, writer: WriterId, seq: u64, slot: Slot) {
        if let Slot::Data(Data::Unreadable(reason)) = &slot {
            let key = Key::log_slot(writer, seq);
            tracing::error!(%key, reason, "segment cannot be read: answers over its time are partial");
            self.metrics.segments_unreadable.inc();
        }
        let consumed = self.state.lock().consume(writer, seq, slot, self.clock.now());
        if let Some(masked) = consumed {
            self.metrics.segments.inc();
            self.metrics.items_masked.inc_by(masked as u64);
            self.work.notify_one();
        }
    }

    /// Consumes a log up to its first absent slot.
    pub(crate) async fn probe(&self, writer: WriterId) -> Result<(), header::Error> {
        loop {
            let now = self.clock.now();
            let next = {
                let mut state = self.state.lock();
                let log = state.log(writer, now.monotonic);
                if log.row.sealed {
                    return Ok(());
                }
                log.row.next
            };
            let header = self.headers.read(&Key::log_slot(writer, next), None).await?;
            let Some(slot) = slot_of(writer, next, header) else {
                let mut state = self.state.lock();
                let log = state.log(writer, now.monotonic);
                log.probed = now.monotonic;
                if log.row.next == next {
                    log.absent_millis = Some(now.unix_millis);
                    return Ok(());
                }
                continue;
            };
            self.state.lock().log(writer, now.monotonic).is_hinted = false;
            self.consume(writer, next, slot);
        }
    }

    /// Consumes a log up to its first absent slot and closes it there.
    pub(crate) async fn seal(&self, writer: WriterId) -> Result<(), header::Error> {
        loop {
            self.probe(writer).await?;
            let now = self.clock.monotonic();
            let seq = {
                let mut state = self.state.lock();
                let log = state.log(writer, now);
                if log.row.sealed {
                    return Ok(());
                }
                log.row.next
            };
            let seal = Seal { writer, seq, created_millis: self.clock.unix_millis() };
            let key = Key::log_slot(writer, seq);
            if self.store.settle_create(&key, seal.encode()).await? == CreateOutcome::Mine {
                info!(%writer, seq, "closed a silent log");
                self.consume(writer, seq, Slot::Seal);
                return Ok(());
            }
        }
    }

    /// Called before the first find: lists `log/` once and consumes every open log to its end. If this process is
    /// alone, no writer of an earlier process is left, so it also closes their logs.
    pub(crate) async fn catch_up(&self, is_alone: bool) -> Result<(), OpenError> {
        let began = self.clock.monotonic();
        let mut listed: BTreeMap<WriterId, BTreeMap<u64, u64>> = BTreeMap::new();
        for object in self.store.list("log").await? {
            if let Some((writer, seq)) = object.key.parse_log_slot() {
                listed.entry(writer).or_default().insert(seq, object.bytes);
            }
        }
        let now = self.clock.monotonic();
        let open: Vec<(WriterId, Vec<(u64, u64)>)> = {
            let mut state = self.state.lock();
            for writer in listed.keys() {
                state.log(*writer, now);
            }
            let open = state.logs().values().filter(|log| !log.row.sealed);
            open.map(|log| {
                let next = log.row.next;
                let slots = listed.remove(&log.row.writer).unwrap_or_default().split_off(&next);
                let until_gap = slots.into_iter().zip(next..).take_while(|((seq, _), next)| seq == next);
                (log.row.writer, until_gap.map(|(slot, _)| slot).collect())
            })
            .collect()
        };
        stream::iter(open)
            .map(|(writer, slots)| async move {
                self.consume_listed(writer, slots).await?;
                if is_alone { self.seal(writer).await } else { self.probe(writer).await }
            })
            .buffer_unordered(LOGS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        *self.logs_read_at.lock() = began;
        Ok(())
    }

    /// `slots` are the listed slots that are not consumed yet, with their lengths.
    async fn consume_listed(&self, writer: WriterId, slots: Vec<(u64, u64)>) -> Result<(), header::Error> {
        let read = |(seq, bytes)| async move {
            let header = self.headers.read(&Key::log_slot(writer, seq), Some(bytes)).await?;
            Ok::<_, header::Error>((seq, header))
        };
        let mut headers = stream::iter(slots.into_iter().map(read)).buffered(SLOTS_AHEAD);
        while let Some((seq, header)) = headers.try_next().await? {
            match slot_of(writer, seq, header) {
                Some(slot) => self.consume(writer, seq, slot),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// One round: probes the logs that are due, lists the folders for unknown logs, closes silent logs.
    pub(crate) async fn look(&self, listed: &mut Duration) -> Result<(), header::Error> {
        if self.is_behind() {
            return Ok(());
        }
        let now = self.clock.monotonic();
        let claimed = self.claimed_logs();
        let (due, silent, unheard) = {
            let state = self.state.lock();
            let open = || state.logs().values().filter(|log| !log.row.sealed);
            let due = open().filter(|log| self.is_due(log, now)).map(|log| log.row.writer);
            let silent = open().filter(|log| {
                let is_unclaimed = claimed.as_ref().is_some_and(|claimed| !claimed.contains(&log.row.writer));
                let config = &self.config;
                let limit =
                    if is_unclaimed { config.seal_unclaimed_after.get() } else { config.seal_after.get() };
                now.saturating_sub(log.moved) >= limit.min(config.seal_after.get())
            });
            let claimed = claimed.iter().flatten().copied();
            let unheard = claimed.filter(|writer| !state.logs().contains_key(writer));
            (
                due.collect::<Vec<_>>(),
                silent.map(|log| log.row.writer).collect::<Vec<_>>(),
                unheard.collect::<Vec<_>>(),
            )
        };
        self.probe_unheard(unheard, now).await?;
        stream::iter(due)
            .map(|writer| self.probe(writer))
            .buffer_unordered(LOGS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        for writer in silent {
            self.seal(writer).await?;
        }
        if now.saturating_sub(*listed) >= self.config.list_interval.get() {
            for folder in self.store.list_folders("log").await? {
                let Some(writer) = folder.parse_log_folder() else {
                    continue;
                };
                if !self.state.lock().logs().contains_key(&writer) {
                    warn!(%writer, "found a log that no hint and no member named");
                    self.probe(writer).await?;
                }
            }
            *listed = now;
        }
        *self.logs_read_at.lock() = now;
        Ok(())
    }

    /// Logs that live ingesters have open; `None` unless all of them report theirs.
    fn claimed_logs(&self) -> Option<BTreeSet<WriterId>> {
        let members = self.membership.as_ref()?.members().borrow().clone();
        let mut ingesters = members.iter().filter(|member| member.has(Role::Ingester));
        let all_report = ingesters.clone().all(|member| member.is_leaving || !member.writers.is_empty());
        let mut claimed = BTreeSet::new();
        ingesters.by_ref().for_each(|member| claimed.extend(&member.writers));
        all_report.then_some(claimed)
    }

    /// Probes slot 0 of writers known from membership alone. A writer has no log until slot 0 exists.
    async fn probe_unheard(&self, unheard: Vec<WriterId>, now: Duration) -> Result<(), header::Error> {
        {
            let mut probed = self.unheard_probed.lock();
            if unheard.is_empty() || now.saturating_sub(*probed) < self.config.probe_interval_silent.get() {
                return Ok(());
            }
            *probed = now;
        }
        let probe = |writer| async move {
            match self.headers.read(&Key::log_slot(writer, 0), None).await? {
                Header::Absent => Ok(()),
                _ => self.probe(writer).await,
            }
        };
        stream::iter(unheard).map(probe).buffer_unordered(LOGS_AT_ONCE).try_collect().await
    }

    fn is_due(&self, log: &LogState, now: Duration) -> bool {
        let (shortest, longest) = (self.config.probe_interval.get(), self.config.probe_interval_silent.get());
        let silence = now.saturating_sub(log.moved);
        // Without hints, a new slot is found after about an eighth of the silence before it.
        let interval = if log.is_hinted { longest } else { (silence / 8).min(longest).max(shortest) };
        now.saturating_sub(log.probed.max(log.moved)) >= interval
    }
}

/// The slot whose header was read; `None` if it is absent.
pub(crate) fn slot_of(writer: WriterId, seq: u64, header: Header) -> Option<Slot> {
    match header {
        Header::Absent => None,
        Header::Seal => Some(Slot::Seal),
        Header::Unreadable(reason) => Some(Slot::Data(Data::Unreadable(reason))),
        Header::Object { bytes, directory } => Some(Slot::Data(match belongs(writer, seq, &directory) {
            Ok(()) => Data::Segment { bytes, directory },
            Err(reason) => Data::Unreadable(reason),
        })),
    }
}

fn belongs(writer: WriterId, seq: u64, directory: &Directory) -> Result<(), String> {
    if directory.origin == (Origin::Segment { writer, seq }) {
        return Ok(());
    }
    Err(format!("its header says that it is {:?}", directory.origin))
}
