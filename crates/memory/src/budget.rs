//! A limit of bytes, and the charges that hold them.
//!
//! Owns: counting, refusals with numbers. Does not own: the text of a refusal, the weight of a structure (the callers).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::gauge::Gauge;

/// A limit of bytes, and the bytes that its charges hold; cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    limit: usize,
    /// Whether a charge may exceed the limit while no other charge holds bytes.
    admits_lone: bool,
    /// Both the counter and the exported metric: a second counter could disagree.
    held: Gauge,
}

/// Bytes of a budget, returned on drop.
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

/// The bytes do not fit in the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverBudget {
    /// Bytes that the refused charge holds.
    pub own: usize,
    /// Bytes that all charges hold, with `own`.
    pub held: usize,
    /// Bytes that were refused.
    pub wanted: usize,
    pub limit: usize,
}

impl Budget {
    /// `held` counts the bytes of all charges.
    pub fn new(limit: usize, held: Gauge) -> Self {
        Self(Arc::new(Inner { limit, admits_lone: false, held }))
    }

    /// As [`Self::new`], but a charge may exceed the limit while no other charge holds bytes, so that work of any size
    /// can be done alone.
    pub fn admitting_lone(limit: usize, held: Gauge) -> Self {
        Self(Arc::new(Inner { limit, admits_lone: true, held }))
    }

    /// A charge of `bytes`.
    ///
    /// # Errors
    /// They do not fit.
    pub fn charge(&self, bytes: usize) -> Result<Charge, OverBudget> {
        let mut charge = self.empty_charge();
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// A charge of 0 bytes, to grow or to absorb others.
    pub fn empty_charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

impl Charge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// They do not fit; the charge does not change.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let Inner { limit, admits_lone, held } = &*self.budget.0;
        let add = |held: i64| {
            let is_alone = held as usize == self.bytes;
            let sum = (held as usize).checked_add(bytes)?;
            (sum <= *limit || *admits_lone && is_alone).then_some(sum as i64)
        };
        held.inner().fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|held| OverBudget {
            own: self.bytes,
            held: held as usize,
            wanted: bytes,
            limit: *limit,
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Returns the bytes beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.0.held.dec_by(less as i64);
        self.bytes -= less;
    }

    /// Sets the charge to `bytes`, more or less than before.
    ///
    /// # Errors
    /// More bytes do not fit; the charge does not change.
    pub fn resize(&mut self, bytes: usize) -> Result<(), OverBudget> {
        match bytes.saturating_sub(self.bytes) {
            0 => {
                self.shrink_to(bytes);
                Ok(())
            }
            more => self.grow(more),
        }
    }

    /// Moves `bytes`, or all if there are fewer, into a charge of their own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), bytes }
    }

    /// Takes over the bytes of `other`, of the same budget.
    pub fn absorb(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget.0, &other.budget.0), "charges of two budgets");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_dropped_charge_can_be_charged_again() {
        let held = Gauge::default();
        let budget = Budget::new(10, held.clone());
        let first = budget.charge(6).unwrap();
        let refused = budget.charge(5).unwrap_err();
        assert_eq!(refused, OverBudget { own: 0, held: 6, wanted: 5, limit: 10 });
        let second = budget.charge(4).unwrap();
        assert_eq!(held.get(), 10);
        drop((first, second));
        assert!(budget.charge(10).is_ok());
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn a_refused_charge_does_not_change() {
        let held = Gauge::default();
        let budget = Budget::new(10, held.clone());
        let _other = budget.charge(3).unwrap();
        let mut charge = budget.charge(4).unwrap();
        assert_eq!(charge.grow(4), Err(OverBudget { own: 4, held: 7, wanted: 4, limit: 10 }));
        assert_eq!(charge.resize(8), Err(OverBudget { own: 4, held: 7, wanted: 4, limit: 10 }));
        assert!(charge.grow(usize::MAX).is_err());
        assert_eq!((charge.bytes(), held.get()), (4, 7));
    }

    #[test]
    fn no_charge_exceeds_the_limit() {
        let budget = Budget::new(10, Gauge::default());
        assert_eq!(budget.charge(11).unwrap_err(), OverBudget { own: 0, held: 0, wanted: 11, limit: 10 });
        let mut charge = budget.charge(10).unwrap();
        assert!(charge.grow(1).is_err());
    }

    #[test]
    fn a_lone_charge_may_exceed_the_limit_if_the_budget_admits_it() {
        let budget = Budget::admitting_lone(10, Gauge::default());
        let large = budget.charge(11).unwrap();
        assert!(budget.charge(1).is_err());
        drop(large);
        assert!(budget.charge(1).is_ok());
    }

    #[test]
    fn a_growing_charge_counts_in_full_and_is_alone_once_the_others_are_dropped() {
        let held = Gauge::default();
        let budget = Budget::admitting_lone(10, held.clone());
        let mut first = budget.charge(6).unwrap();
        let mut second = budget.charge(2).unwrap();
        first.grow(2).unwrap();
        assert_eq!(second.grow(1), Err(OverBudget { own: 2, held: 10, wanted: 1, limit: 10 }));
        drop(second);
        first.grow(50).unwrap();
        first.resize(3).unwrap();
        assert_eq!((first.bytes(), held.get()), (3, 3));
        first.resize(10).unwrap();
        first.shrink_to(20);
        assert_eq!((first.bytes(), held.get()), (10, 10));
    }

    #[test]
    fn a_split_charge_returns_each_part_once() {
        let held = Gauge::default();
        let mut rest = Budget::new(10, held.clone()).charge(10).unwrap();
        let part = rest.split(4);
        assert_eq!((part.bytes(), rest.bytes(), held.get()), (4, 6, 10));
        drop(part);
        assert_eq!(held.get(), 6);
        let all = rest.split(7);
        assert_eq!((all.bytes(), rest.bytes(), held.get()), (6, 0, 6));
        drop((all, rest));
        assert_eq!(held.get(), 0);
    }

    #[test]
    fn absorbed_bytes_are_returned_once() {
        let held = Gauge::default();
        let budget = Budget::new(100, held.clone());
        let mut all = budget.empty_charge();
        all.absorb(budget.charge(7).unwrap());
        all.absorb(budget.charge(5).unwrap());
        assert_eq!((all.bytes(), held.get()), (12, 12));
        drop(all);
        assert_eq!(held.get(), 0);
    }
}
