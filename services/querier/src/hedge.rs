//! When a unit takes too long, and whether another leaf may be asked for it, too.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// One call in twenty, at most, is asked twice; after a quiet time, so many in a row.
const EARNED_PER_UNIT: i64 = 5;
const PRICE: i64 = 100;
const SAVED_MAX: i64 = 10 * PRICE;

/// A unit is slow if it takes longer than so many of a hundred of the recent ones of its size.
const QUANTILE: usize = 95;
const RECENT_UNITS: usize = 128;
/// What is slow while fewer than [`RECENT_UNITS_MIN`] are known.
const DELAY_UNKNOWN: Duration = Duration::from_secs(1);
const RECENT_UNITS_MIN: usize = 16;
/// Nothing is slow before.
const DELAY_MIN: Duration = Duration::from_millis(20);

/// Units are compared with those of about their size: up to so many bytes.
const SIZES: [u64; 4] = [256 << 10, 2 << 20, 16 << 20, u64::MAX];

pub(crate) struct Hedging {
    recent: [Mutex<Recent>; SIZES.len()],
    saved: AtomicI64,
}

#[derive(Default)]
struct Recent {
    took: Vec<Duration>,
    next: usize,
    /// Of `took`, as of a while ago.
    slow: Option<Duration>,
}

impl Hedging {
    pub(crate) fn new() -> Self {
        Self { recent: Default::default(), saved: AtomicI64::new(SAVED_MAX / 2) }
    }

    fn recent(&self, bytes: u64) -> &Mutex<Recent> {
        let size = SIZES.iter().position(|most| bytes <= *most);
        &self.recent[size.unwrap_or(SIZES.len() - 1)]
    }

    /// How long a unit of `bytes` may take before it is slow.
    pub(crate) fn delay(&self, bytes: u64) -> Duration {
        self.recent(bytes).lock().slow.unwrap_or(DELAY_UNKNOWN).max(DELAY_MIN)
    }

    /// Tells how long a unit of `bytes` took.
    pub(crate) fn took(&self, bytes: u64, took: Duration) {
        let saved = self.saved.fetch_add(EARNED_PER_UNIT, Ordering::Relaxed);
        if saved >= SAVED_MAX {
            self.saved.fetch_sub(EARNED_PER_UNIT, Ordering::Relaxed);
        }
        self.recent(bytes).lock().add(took);
    }

    /// Whether one more may be asked for twice, which is then paid for.
    pub(crate) fn pay(&self) -> bool {
        let pay = |saved: i64| (saved >= PRICE).then_some(saved - PRICE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

impl Recent {
    fn add(&mut self, took: Duration) {
        match self.took.get_mut(self.next) {
            Some(oldest) => *oldest = took,
            None => self.took.push(took),
        }
        self.next = (self.next + 1) % RECENT_UNITS;
        if self.took.len() >= RECENT_UNITS_MIN && self.next.is_multiple_of(RECENT_UNITS_MIN) {
            let mut sorted = self.took.clone();
            let at = (sorted.len() * QUANTILE / 100).min(sorted.len() - 1);
            self.slow = Some(*sorted.select_nth_unstable(at).1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_slow_follows_the_recent_units_of_the_same_size() {
        let hedging = Hedging::new();
        assert_eq!(hedging.delay(1), DELAY_UNKNOWN);
        (1..=128).for_each(|millis| hedging.took(1, MILLI * millis));
        assert_eq!(hedging.delay(1), MILLI * 122);
        assert_eq!(hedging.delay(64 << 20), DELAY_UNKNOWN);
        (0..128).for_each(|_| hedging.took(1, MILLI));
        assert_eq!(hedging.delay(1), DELAY_MIN);
    }

    #[test]
    fn one_unit_in_twenty_is_asked_twice() {
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
