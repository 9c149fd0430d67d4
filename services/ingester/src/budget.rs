//! The memory that pushes may hold until they are acknowledged.
//!
//! Owns: the limit, the bytes in use, and how many bytes an item is charged.
//! Does not own: how long a charge is held (`push`, `flush`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::PushItem;

use crate::error::Error;
use crate::metrics::Metrics;

/// Memory that pushes may hold until they are acknowledged, in bytes.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    metrics: Metrics,
}

/// A part of the budget, returned to it on drop.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), metrics })
    }

    /// # Errors
    /// [`Error::TooLarge`] if `bytes` can never fit; [`Error::OverBudget`] with `retry_after` if other pushes hold
    /// too much now.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize, retry_after: Duration) -> Result<Charge, Error> {
        let limit = self.limit;
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => {
                self.metrics.inflight_bytes.inc_by(bytes as i64);
                Ok(Charge { budget: self.clone(), bytes })
            }
            Err(used) => Err(Error::OverBudget { bytes, used, limit, retry_after }),
        }
    }

    /// A charge of 0 bytes, to absorb others.
    pub(crate) fn empty_charge(self: &Arc<Self>) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

impl Charge {
    /// Takes over the bytes of `other`.
    pub(crate) fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.metrics.inflight_bytes.dec_by(self.bytes as i64);
    }
}

/// Bytes charged for one item. Items may share a profile, but each is charged for all of it: the segment may not
/// share the appended data.
pub(crate) fn charged_bytes(item: &PushItem) -> usize {
    let rows = |series: &model::SeriesRows| {
        series.labels.byte_len()
            + series.samples.len() * size_of::<u32>()
            + series.spans.len() * size_of::<model::Span>()
    };
    size_of::<PushItem>() + item.byte_len() + item.series.iter().map(rows).sum::<usize>()
}
