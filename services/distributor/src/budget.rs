//! The memory that all requests in flight may hold together.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;

use crate::error::Error;

/// Bytes that all requests in flight may hold together.
pub(crate) struct Budget {
    /// Both the counter and the exported metric: a second counter could disagree.
    held: Gauge,
    limit: usize,
}

/// A part of the budget, returned on drop.
pub(crate) struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize, held: Gauge) -> Arc<Self> {
        Arc::new(Self { held, limit })
    }

    /// # Errors
    /// [`Error::Busy`] if less than `bytes` is free. An idle budget accepts a profile of any size.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Lease, Error> {
        let held = self.held.inc_by(bytes as i64) as usize;
        let lease = Lease { budget: self.clone(), bytes };
        if held > 0 && held + bytes > self.limit {
            return Err(Error::Busy { held, wanted: bytes, limit: self.limit });
        }
        Ok(lease)
    }
}

impl Lease {
    /// Enlarges the lease by `bytes`.
    ///
    /// # Errors
    /// [`Error::Busy`] if others hold the rest.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let held = self.budget.held.inc_by(bytes as i64) as usize;
        let others = held.saturating_sub(self.bytes);
        self.bytes += bytes;
        if others > 0 && held + bytes > self.budget.limit {
            return Err(Error::Busy { held, wanted: bytes, limit: self.budget.limit });
        }
        Ok(())
    }
}

impl Lease {
    /// Sets the size of the lease to `bytes`.
    ///
    /// # Errors
    /// [`Error::Busy`] if it would grow, and others hold the rest.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.budget.held.dec_by((self.bytes - bytes) as i64);
                self.bytes = bytes;
                Ok(())
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.held.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_leases_can_be_taken_again() {
        let budget = Budget::new(10, Gauge::default());
        let first = budget.take(6).unwrap();
        assert!(matches!(budget.take(5), Err(Error::Busy { held: 6, wanted: 5, limit: 10 })));
        let second = budget.take(4).unwrap();
        drop((first, second));
        assert!(budget.take(10).is_ok());
        assert_eq!(budget.held.get(), 0);
    }

    #[test]
    fn one_large_profile_passes_while_nothing_else_is_held() {
        let budget = Budget::new(10, Gauge::default());
        let large = budget.take(11).unwrap();
        assert!(budget.take(1).is_err());
        drop(large);
        assert!(budget.take(1).is_ok());
    }

    #[test]
    fn a_growing_lease_counts_in_full_and_may_take_all_that_others_do_not_hold() {
        let budget = Budget::new(10, Gauge::default());
        let mut first = budget.take(6).unwrap();
        let mut second = budget.take(2).unwrap();
        assert!(first.grow(2).is_ok());
        assert!(matches!(second.grow(1), Err(Error::Busy { held: 10, wanted: 1, limit: 10 })));
        drop(second);
        assert!(first.grow(50).is_ok());
        assert!(first.resize(3).is_ok() && budget.held.get() == 3);
        assert!(first.resize(10).is_ok() && budget.held.get() == 10);
        drop(first);
        assert_eq!(budget.held.get(), 0);
    }
}
