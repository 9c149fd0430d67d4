//! Which slots of this writer's log are taken, and which of them may be acknowledged.
//!
//! Owns: slot numbers and their order. Does not own: segments, or their upload.
//!
//! A reader stops at the first gap. So slot n is acknowledged only when slots 0 to n are all known
//! to be durable, in whatever order their uploads end.

use std::collections::VecDeque;
use std::time::Duration;

use model::WriterId;

/// One opening of a log. `S` is a segment, `D` the data known once it is durable.
pub(crate) struct Log<S, D> {
    writer: WriterId,
    /// Slots below this one are acknowledged.
    acknowledged: u64,
    /// Slots from `acknowledged` on.
    slots: VecDeque<Slot<S, D>>,
    /// Monotonic time at which a slot was last found durable.
    last_durable: Duration,
}

struct Slot<S, D> {
    segment: S,
    durable: Option<D>,
}

impl<S, D> Log<S, D> {
    /// `writer` must be random and new; `now` is monotonic time.
    pub(crate) fn open(writer: WriterId, now: Duration) -> Self {
        Self { writer, acknowledged: 0, slots: VecDeque::new(), last_durable: now }
    }

    pub(crate) fn writer(&self) -> WriterId {
        self.writer
    }

    /// The first slot that is not taken.
    pub(crate) fn next_slot(&self) -> u64 {
        self.acknowledged + self.slots.len() as u64
    }

    /// Slots that are taken and not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Whether no slot became durable for longer than `limit` and no slot is in flight.
    pub(crate) fn is_idle_since(&self, now: Duration, limit: Duration) -> bool {
        self.slots.is_empty() && now.saturating_sub(self.last_durable) > limit
    }

    /// Takes the next slot; returns its number.
    pub(crate) fn take(&mut self, segment: S) -> u64 {
        let slot = self.next_slot();
        self.slots.push_back(Slot { segment, durable: None });
        slot
    }

    /// Notes that `slot` is durable; returns the segments that may now be acknowledged, in slot order.
    pub(crate) fn durable(&mut self, slot: u64, known: D, now: Duration) -> Vec<(S, D)> {
        self.last_durable = now;
        let position = slot.checked_sub(self.acknowledged).map(|position| position as usize);
        if let Some(slot) = position.and_then(|position| self.slots.get_mut(position)) {
            slot.durable = Some(known);
        }
        let mut ready = Vec::new();
        while let Some(mut slot) = self.slots.pop_front() {
            let Some(known) = slot.durable.take() else {
                self.slots.push_front(slot);
                break;
            };
            self.acknowledged += 1;
            ready.push((slot.segment, known));
        }
        ready
    }

    /// Gives the log up; returns the unacknowledged segments with their slots, in slot order.
    pub(crate) fn abandon(self) -> Vec<(u64, S)> {
        let first = self.acknowledged;
        (first..).zip(self.slots.into_iter().map(|slot| slot.segment)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log<char, ()> {
        let mut log = Log::open(WriterId(1), Duration::ZERO);
        assert_eq!(['a', 'b', 'c'].map(|c| log.take(c)), [0, 1, 2]);
        log
    }

    fn ready(log: &mut Log<char, ()>, slot: u64) -> String {
        log.durable(slot, (), Duration::ZERO).iter().map(|(c, ())| c).collect()
    }

    #[test]
    fn slots_are_acknowledged_in_order_however_their_uploads_end() {
        let mut log = log();
        assert_eq!(ready(&mut log, 1), "");
        assert_eq!(ready(&mut log, 2), "");
        assert_eq!(log.in_flight(), 3);
        assert_eq!(ready(&mut log, 0), "abc");
        assert_eq!((log.in_flight(), log.next_slot()), (0, 3));
    }

    #[test]
    fn abandoning_returns_durable_segments_above_a_gap_too() {
        let mut log = log();
        assert_eq!(ready(&mut log, 0), "a");
        assert_eq!(ready(&mut log, 2), "");
        assert_eq!(log.abandon(), [(1, 'b'), (2, 'c')]);
    }

    #[test]
    fn a_log_is_idle_only_while_no_slot_is_in_flight() {
        let (limit, later) = (Duration::from_secs(60), Duration::from_secs(61));
        let mut log = log();
        assert!(!log.is_idle_since(later, limit));
        for slot in 0..3 {
            ready(&mut log, slot);
        }
        assert!(log.is_idle_since(later, limit));
        assert!(!log.is_idle_since(limit, limit));
    }
}
