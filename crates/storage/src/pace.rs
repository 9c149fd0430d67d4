//! How often a request may be sent again, and when it is worth sending it twice.
//!
//! Owns: the budgets that keep a sick store from getting more requests than a healthy one; how long a read
//! usually takes. Does not own: the requests themselves (`store`).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Requests beyond the first ones: each first one earns a share of one, up to a store of them.
pub(crate) struct Budget {
    /// In thousandths of a request.
    left: AtomicI64,
    earned: i64,
    max: i64,
}

impl Budget {
    /// A fifth of all requests, and a hundred at once after a quiet time.
    pub(crate) fn of_retries() -> Self {
        Self::new(200, 100)
    }

    /// A twentieth of all requests, and ten at once.
    fn of_hedges() -> Self {
        Self::new(50, 10)
    }

    fn new(earned: i64, max: i64) -> Self {
        Self { left: AtomicI64::new(max * 1_000), earned, max: max * 1_000 }
    }

    pub(crate) fn earn(&self) {
        let more = |left: i64| Some((left + self.earned).min(self.max));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether there is one left; takes it.
    pub(crate) fn spend(&self) -> bool {
        let less = |left: i64| (left >= 1_000).then(|| left - 1_000);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Reads are compared with others of about their size: up to these many bytes, and larger.
const SIZES: [u64; 2] = [256 << 10, 4 << 20];
/// Before so many reads of a size were seen, nobody knows what is slow.
const SEEN_MIN: u32 = 32;
/// After so many, older ones count half.
const SEEN_MAX: u32 = 1_024;
/// One read in so many is slow.
const SLOW_SHARE: u32 = 20;
/// Bounds of each bucket are this much longer than those of the one before: four to an octave.
const BUCKETS_PER_OCTAVE: f64 = 4.0;
const SHORTEST: Duration = Duration::from_millis(1);
const BUCKETS: usize = 64;
/// A second request is not sent sooner, nor later, than this after the first.
const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(3);

/// When a read takes so long that asking a second time is likely to be answered sooner.
pub(crate) struct Hedging {
    by_size: [Mutex<Seen>; SIZES.len() + 1],
    budget: Budget,
}

/// How long the last reads of one size took.
struct Seen {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Hedging {
    pub(crate) fn new() -> Self {
        let seen = || Mutex::new(Seen { counts: [0; BUCKETS], total: 0 });
        Self { by_size: [seen(), seen(), seen()], budget: Budget::of_hedges() }
    }

    pub(crate) fn took(&self, bytes: u64, took: Duration) {
        self.budget.earn();
        self.seen(bytes).lock().add(took);
    }

    /// How long to wait for a read before it is sent again; `None` as long as that is not known.
    pub(crate) fn delay(&self, bytes: u64) -> Option<Duration> {
        self.seen(bytes).lock().slow().map(|slow| slow.clamp(DELAY_MIN, DELAY_MAX))
    }

    /// Whether another read may be sent a second time.
    pub(crate) fn spend(&self) -> bool {
        self.budget.spend()
    }

    fn seen(&self, bytes: u64) -> &Mutex<Seen> {
        &self.by_size[SIZES.iter().filter(|limit| bytes > **limit).count()]
    }
}

impl Seen {
    fn add(&mut self, took: Duration) {
        let octaves = (took.as_secs_f64() / SHORTEST.as_secs_f64()).max(1.0).log2();
        let bucket = ((octaves * BUCKETS_PER_OCTAVE) as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.total += 1;
        if self.total >= SEEN_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// What only one read in [`SLOW_SHARE`] takes longer than.
    fn slow(&self) -> Option<Duration> {
        if self.total < SEEN_MIN {
            return None;
        }
        let mut slower = self.total;
        let bucket = self.counts.iter().position(|count| {
            slower -= count;
            slower <= self.total / SLOW_SHARE
        });
        let octaves = (bucket.unwrap_or(BUCKETS - 1) + 1) as f64 / BUCKETS_PER_OCTAVE;
        Some(SHORTEST.mul_f64(octaves.exp2()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated() {
        let budget = Budget::of_retries();
        assert_eq!((0..200).filter(|_| budget.spend()).count(), 100);
        for _ in 0..50 {
            budget.earn();
        }
        assert_eq!((0..200).filter(|_| budget.spend()).count(), 10);
    }

    #[test]
    fn what_one_read_in_twenty_takes_is_slow() {
        let hedging = Hedging::new();
        assert_eq!(hedging.delay(1), None);
        for n in 0..100 {
            hedging.took(1, Duration::from_millis(if n % 25 == 0 { 900 } else { 20 }));
        }
        let delay = hedging.delay(1).expect("known by now");
        assert!((20..30).contains(&delay.as_millis()), "{delay:?}");
        assert_eq!(hedging.delay(100 << 20), None, "of large reads nothing is known");
    }

    #[test]
    fn what_is_slow_follows_the_store() {
        let hedging = Hedging::new();
        (0..1_000).for_each(|_| hedging.took(1, Duration::from_millis(20)));
        (0..3_000).for_each(|_| hedging.took(1, Duration::from_millis(200)));
        let delay = hedging.delay(1).expect("known by now");
        assert!((200..300).contains(&delay.as_millis()), "{delay:?}");
    }
}
