//! How many questions run at once and how many may wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Error;

pub(crate) struct Admission {
    running: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Admission {
    pub(crate) fn new(running_max: usize, waiting_max: usize) -> Self {
        Self { running: Semaphore::new(running_max.max(1)), waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Waits for a turn; the question may run while the permit is held.
    ///
    /// # Errors
    /// `Exhausted` if too many wait already.
    pub(crate) async fn enter(&self) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.running.try_acquire() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > self.waiting_max {
            return Err(Error::Exhausted {
                message: format!("more than {} queries wait for their turn", self.waiting_max),
                retry_after: Duration::from_secs(1),
            });
        }
        self.running.acquire().await.map_err(|_| Error::Internal("the querier stops".into()))
    }
}

/// Counts whoever holds it, also when it gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_waits_and_the_next_is_refused() {
        let admission = Admission::new(1, 1);
        let running = admission.enter().await.expect("free");
        let mut waiting = Box::pin(admission.enter());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(matches!(admission.enter().await, Err(Error::Exhausted { .. })));
        drop(running);
        assert!(waiting.await.is_ok());
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }
}
