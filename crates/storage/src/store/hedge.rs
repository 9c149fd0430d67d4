//! Sending a slow read a second time, and taking the first answer.
//!
//! Owns: the usual duration of a read by its size, the delay before the second request, its budget.
//! Does not own: sending a failed request again (`retry`).

use std::pin::pin;
use std::time::Duration;

use clock::Clock;
use futures::future::{Either, select};
use parking_lot::Mutex;

use super::budget::Budget;
use crate::metrics::Hedge;
use crate::{Error, Metrics};

/// Upper bounds, in bytes, of the size classes. Durations of reads are compared within one class.
const SIZES: [u64; 2] = [256 << 10, 4 << 20];
/// Reads of a size that must be seen before any of them counts as slow.
const SEEN_MIN: u32 = 32;
/// At this many all counts are halved, so that later reads weigh more.
const SEEN_MAX: u32 = 1_024;
/// One read in 20 is slow.
const SLOW_SHARE: u32 = 20;
/// Buckets per doubling of the duration.
const BUCKETS_PER_OCTAVE: f64 = 4.0;
const SHORTEST: Duration = Duration::from_millis(1);
const BUCKETS: usize = 64;
/// Shortest and longest delay of a second request.
const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(3);

/// Decides when a read takes so long that a second request is likely to be answered sooner.
pub(super) struct Hedging {
    by_size: [Mutex<Durations>; SIZES.len() + 1],
    budget: Budget,
    clock: Clock,
    metrics: Metrics,
}

/// Histogram of the durations of the last reads of one size.
struct Durations {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Hedging {
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Self {
        let durations = || Mutex::new(Durations { counts: [0; BUCKETS], total: 0 });
        let by_size = [durations(), durations(), durations()];
        Self { by_size, budget: Budget::of_hedges(), clock, metrics }
    }

    /// The answer to `attempt`, or to a second one if the first takes unusually long, whichever succeeds first.
    pub(super) async fn first_answer<T, F>(&self, bytes: u64, attempt: &impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let began = self.clock.monotonic();
        let answer = match self.delay(bytes) {
            None => attempt().await,
            Some(delay) => self.first_of_two(delay, attempt).await,
        };
        if answer.is_ok() {
            // If the second was quicker, the first would have taken longer still.
            self.record(bytes, self.clock.monotonic().saturating_sub(began));
        }
        answer
    }

    async fn first_of_two<T, F>(&self, delay: Duration, attempt: &impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut first = pin!(attempt());
        if let Either::Left((answer, _)) = select(first.as_mut(), pin!(self.clock.sleep(delay))).await {
            return answer;
        }
        if !self.budget.spend() {
            self.metrics.hedge(Hedge::over_budget);
            return first.await;
        }
        let (outcome, answer) = match select(first, pin!(attempt())).await {
            Either::Left((Err(_), second)) => (Hedge::won, second.await),
            Either::Left((answer, _)) => (Hedge::lost, answer),
            Either::Right((Err(_), first)) => (Hedge::lost, first.await),
            Either::Right((answer, _)) => (Hedge::won, answer),
        };
        self.metrics.hedge(outcome);
        answer
    }

    fn record(&self, bytes: u64, took: Duration) {
        self.budget.earn();
        self.durations(bytes).lock().add(took);
    }

    /// Time to wait for a read before it is sent again; `None` while too few reads of its size were seen.
    fn delay(&self, bytes: u64) -> Option<Duration> {
        self.durations(bytes).lock().slow().map(|slow| slow.clamp(DELAY_MIN, DELAY_MAX))
    }

    fn durations(&self, bytes: u64) -> &Mutex<Durations> {
        &self.by_size[SIZES.iter().filter(|limit| bytes > **limit).count()]
    }
}

impl Durations {
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

    /// The duration that one read in [`SLOW_SHARE`] exceeds; `None` if too few were seen.
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

    fn hedging() -> Hedging {
        Hedging::new(Clock::system(), Metrics::default())
    }

    #[test]
    fn the_slowest_twentieth_of_reads_is_slow() {
        let hedging = hedging();
        assert_eq!(hedging.delay(1), None);
        for n in 0..100 {
            hedging.record(1, Duration::from_millis(if n % 25 == 0 { 900 } else { 20 }));
        }
        let delay = hedging.delay(1).expect("known by now");
        assert!((20..30).contains(&delay.as_millis()), "{delay:?}");
        assert_eq!(hedging.delay(100 << 20), None, "no large read was seen");
    }

    #[test]
    fn the_delay_follows_the_store() {
        let hedging = hedging();
        (0..1_000).for_each(|_| hedging.record(1, Duration::from_millis(20)));
        (0..3_000).for_each(|_| hedging.record(1, Duration::from_millis(200)));
        let delay = hedging.delay(1).expect("known by now");
        assert!((200..300).contains(&delay.as_millis()), "{delay:?}");
    }
}
