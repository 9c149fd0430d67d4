//! Measures the effort of one scan request. Every method is a no-op if the request did not ask for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use block::{Cache, Reads};
use clock::Clock;
use parking_lot::Mutex;
use rpc::Effort;

pub(super) struct Meter {
    clock: Clock,
    counters: Option<Counters>,
}

struct Counters {
    began: Duration,
    reads: Arc<Reads>,
    effort: Mutex<Effort>,
}

impl Meter {
    pub(super) fn new(clock: &Clock, is_on: bool) -> Self {
        let counters = is_on.then(|| Counters {
            began: clock.monotonic(),
            reads: Arc::default(),
            effort: Mutex::default(),
        });
        Self { clock: clock.clone(), counters }
    }

    /// A handle of `cache` whose reads are counted here.
    pub(super) fn count_reads(&self, cache: &Cache) -> Cache {
        match &self.counters {
            Some(counters) => cache.counted(counters.reads.clone()),
            None => cache.clone(),
        }
    }

    /// Datasets that were answered from the snapshot.
    pub(super) fn known_datasets(&self, count: usize) {
        if let Some(counters) = &self.counters {
            counters.effort.lock().known_datasets = count as u64;
        }
    }

    /// Adds the time of `work` to a step of the effort.
    pub(super) async fn time<T>(
        &self,
        step: fn(&mut Effort) -> &mut Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(counters) = &self.counters else {
            return work.await;
        };
        let began = self.clock.monotonic();
        let output = work.await;
        *step(&mut counters.effort.lock()) += self.clock.monotonic().saturating_sub(began);
        output
    }

    pub(super) fn into_effort(self) -> Option<Effort> {
        let Counters { began, reads, effort } = self.counters?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(Effort {
            took: self.clock.monotonic().saturating_sub(began),
            memory_hits: count(&reads.memory_hits),
            memory_misses: count(&reads.memory_misses),
            disk_bytes: count(&reads.disk_bytes),
            store_bytes: count(&reads.store_bytes),
            store_requests: count(&reads.store_requests),
            ..effort.into_inner()
        })
    }
}
