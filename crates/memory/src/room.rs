use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Percentage of the limit from which the process is full: work that can wait or be refused gets no more memory.
const FULL_PERCENT: u64 = 85;

/// The memory that the whole process uses, as measured by the system. Leases are estimates, and freed memory returns
/// to the system late, so shares check this as well. Cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Inner>);

struct Inner {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// The room of a process that may use `limit` bytes; 0 bytes are in use until [`Self::measured`].
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicU64::new(0) }))
    }

    /// Records the bytes that the process uses now.
    pub fn measured(&self, used: u64) {
        self.0.used.store(used, Ordering::Relaxed);
    }

    /// Bytes that the process may use.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes that the process used at the last measurement.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether there is no memory left for work that can wait or be refused.
    pub fn is_full(&self) -> bool {
        self.used() / FULL_PERCENT >= self.0.limit / 100
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({} of {})", self.used(), self.limit())
    }
}
