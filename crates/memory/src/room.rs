use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of the limit, in percent: a process that uses more has no room for what can wait or be refused.
const FULL_PERCENT: u64 = 85;

/// What the whole process uses of its memory, as the system says. Leases are counted by estimates, and freed memory
/// goes back late: so shares look here as well. Cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Inner>);

struct Inner {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// Of a process that may use `limit` bytes, and uses none yet.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicU64::new(0) }))
    }

    /// Notes how many bytes the process uses now.
    pub fn measured(&self, used: u64) {
        self.0.used.store(used, Ordering::Relaxed);
    }

    /// Bytes that the process may use.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes that the process used when it was measured last.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether there is no room for what can wait or be refused.
    pub fn is_full(&self) -> bool {
        self.used() / FULL_PERCENT >= self.0.limit / 100
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({} of {})", self.used(), self.limit())
    }
}
