//! A budget of extra requests, so that a failing store gets only a limited number of them.

use std::sync::atomic::{AtomicI64, Ordering};

/// Each first request adds a fraction of an extra one, up to a maximum.
pub(super) struct Budget {
    /// In thousandths of a request, as are `earned` and `max`.
    left: AtomicI64,
    earned: i64,
    max: i64,
}

impl Budget {
    /// One retry per five requests, and 100 at once after a quiet time.
    pub(super) fn of_retries() -> Self {
        Self::new(200, 100)
    }

    /// One second read per twenty requests, and 10 at once.
    pub(super) fn of_hedges() -> Self {
        Self::new(50, 10)
    }

    fn new(earned: i64, max: i64) -> Self {
        Self { left: AtomicI64::new(max * 1_000), earned, max: max * 1_000 }
    }

    pub(super) fn earn(&self) {
        let more = |left: i64| Some((left + self.earned).min(self.max));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes one extra request; false if none is left.
    pub(super) fn spend(&self) -> bool {
        let less = |left: i64| (left >= 1_000).then(|| left - 1_000);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
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
}
