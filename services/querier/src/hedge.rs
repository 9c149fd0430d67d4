//! When a unit is slow, and whether a second leaf may be asked for it as well.
//!
//! Owns: the recent durations of units, the budget of second calls. Does not own: the calls (`dispatch`).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Each unit earns credits and each hedge costs [`PRICE`] of them: at most one unit in twenty is hedged. Saved credits
/// allow at most ten hedges in a row.
const EARNED_PER_UNIT: i64 = 5;
const PRICE: i64 = 100;
const SAVED_MAX: i64 = 10 * PRICE;

/// A unit is slow if it takes longer than this percentage of the recent units of its size.
const QUANTILE: usize = 95;
const RECENT_UNITS: usize = 128;
/// The delay while fewer than [`RECENT_UNITS_MIN`] units of a size are known.
const DELAY_UNKNOWN: Duration = Duration::from_secs(1);
const RECENT_UNITS_MIN: usize = 16;
/// No unit is slow before this time.
const DELAY_MIN: Duration = Duration::from_millis(20);

/// Units are compared with units of the same size class. These are the largest bytes of each class.
const CLASSES: [u64; 4] = [256 << 10, 2 << 20, 16 << 20, u64::MAX];

pub(crate) struct Hedging {
    recent: [Mutex<RecentDurations>; CLASSES.len()],
    /// Credits.
    saved: AtomicI64,
}

#[derive(Default)]
struct RecentDurations {
    /// A ring of the last [`RECENT_UNITS`] durations.
    took: Vec<Duration>,
    next: usize,
    /// The [`QUANTILE`] of `took`, updated every [`RECENT_UNITS_MIN`] units.
    slow: Option<Duration>,
}

impl Hedging {
    pub(crate) fn new() -> Self {
        Self { recent: Default::default(), saved: AtomicI64::new(SAVED_MAX / 2) }
    }

    fn recent(&self, bytes: u64) -> &Mutex<RecentDurations> {
        let class = CLASSES.iter().position(|max| bytes <= *max);
        &self.recent[class.unwrap_or(CLASSES.len() - 1)]
    }

    /// The time after which a unit of `bytes` is slow.
    pub(crate) fn delay(&self, bytes: u64) -> Duration {
        self.recent(bytes).lock().slow.unwrap_or(DELAY_UNKNOWN).max(DELAY_MIN)
    }

    /// Records the time that a unit of `bytes` took.
    pub(crate) fn took(&self, bytes: u64, took: Duration) {
        let saved = self.saved.fetch_add(EARNED_PER_UNIT, Ordering::Relaxed);
        if saved >= SAVED_MAX {
            self.saved.fetch_sub(EARNED_PER_UNIT, Ordering::Relaxed);
        }
        self.recent(bytes).lock().add(took);
    }

    /// Pays for one hedge. Returns false if there are too few credits.
    pub(crate) fn pay(&self) -> bool {
        let pay = |saved: i64| (saved >= PRICE).then_some(saved - PRICE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

impl RecentDurations {
    fn add(&mut self, took: Duration) {
        match self.took.get_mut(self.next) {
            Some(oldest) => *oldest = took,
            None => self.took.push(took),
        }
        self.next = (self.next + 1) % RECENT_UNITS;
        if self.took.len() >= RECENT_UNITS_MIN && self.next.is_multiple_of(RECENT_UNITS_MIN) {
            let mut sorted = self.took.clone();
            let index = (sorted.len() * QUANTILE / 100).min(sorted.len() - 1);
            self.slow = Some(*sorted.select_nth_unstable(index).1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn the_delay_follows_the_recent_units_of_the_same_size() {
        let hedging = Hedging::new();
        assert_eq!(hedging.delay(1), DELAY_UNKNOWN);
        (1..=128).for_each(|millis| hedging.took(1, MILLI * millis));
        assert_eq!(hedging.delay(1), MILLI * 122);
        assert_eq!(hedging.delay(64 << 20), DELAY_UNKNOWN);
        (0..128).for_each(|_| hedging.took(1, MILLI));
        assert_eq!(hedging.delay(1), DELAY_MIN);
    }

    #[test]
    fn one_unit_in_twenty_is_hedged() {
        let hedging = Hedging::new();
        let in_a_row = (0..100).filter(|_| hedging.pay()).count();
        assert_eq!(in_a_row, 5);
        let mut paid = 0;
        for _ in 0..10_000 {
            hedging.took(1, MILLI);
            paid += usize::from(hedging.pay());
        }
        assert_eq!(paid, 500);
        (0..10_000).for_each(|_| hedging.took(1, MILLI));
        assert_eq!((0..100).filter(|_| hedging.pay()).count(), 10);
    }
}
