//! A leaf: answers a query for the objects that a root names.
//!
//! Owns: how many objects and bytes are in flight, work on the pool or inline, the deadline of a request.
//! Does not own: the scan of one object (`scan`) or dataset (`dataset`), the bytes of an object (`block`), the answer of
//! a dataset (`query`).
//!
//! Fetching waits on the executor; decoding and folding run on the pool. Nothing is spawned, so dropping the future
//! stops everything but the pieces that compute at that moment.

mod dataset;
mod known;
mod meter;
mod scan;

use std::sync::Arc;

use async_trait::async_trait;
use block::Cache;
use clock::{Clock, Pool};
use futures::stream::{self, StreamExt};
use memory::Share;
use query::Partial;
use rpc::{Error, ErrorKind, FoundObject, ScanAnswer, ScanRequest};
use storage::Store;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Config;
use crate::leaf::known::answer_from_snapshot;
use crate::leaf::meter::Meter;
use crate::leaf::scan::Scan;
use crate::reason::{no_memory, unmergeable};

/// Bytes of the read budget that one permit stands for.
const PERMIT_BYTES: u64 = 16 << 10;

/// Reads take at most 1 / `READING_PART` of the memory of queries; the rest is for the answers that are made of them.
const READING_PART: u64 = 2;

/// Decoded bytes of one encoded byte, roughly.
const DECODED_PER_ENCODED: u64 = 6;

/// Scans objects for roots, in this process or in others.
pub struct Leaf {
    store: Store,
    cache: Cache,
    pool: Pool,
    clock: Clock,
    parallel_objects: usize,
    uses_rollups: bool,
    memory: Share,
    /// Decoded bytes that scans hold, in units of [`PERMIT_BYTES`].
    read_budget: Semaphore,
    permits_max: u32,
}

impl Leaf {
    /// `memory` limits all queries of this process together.
    pub fn new(config: &Config, memory: Share, store: Store, cache: Cache, pool: Pool, clock: Clock) -> Self {
        let reading = config.max_inflight_bytes.min(memory.limit() / READING_PART);
        let permits = (reading / PERMIT_BYTES).clamp(1, 1 << 28) as u32;
        Self {
            store,
            cache,
            pool,
            clock,
            parallel_objects: config.max_parallel_objects.max(1),
            uses_rollups: config.rollups_enabled,
            memory,
            read_budget: Semaphore::new(permits as usize),
            permits_max: permits,
        }
    }

    async fn scan_all(&self, request: ScanRequest) -> Result<ScanAnswer, Error> {
        let ScanRequest { query, objects, skip_gone, skip_unavailable, explain, memory, .. } = request;
        let memory = if memory.is_counted() { memory } else { self.memory.account() };
        let meter = Meter::new(&self.clock, explain);
        let cache = meter.count_reads(&self.cache);
        let scan =
            Scan { leaf: self, query: Arc::new(query), cache, skip_gone, skip_unavailable, memory, meter };
        let mut merged = Partial::empty(&scan.query);
        let all_datasets = count_datasets(&objects);
        let objects = answer_from_snapshot(&scan.query, objects, &mut merged);
        merged = merged.charged_to(&scan.memory).map_err(|refusal| no_memory(&refusal))?;
        scan.meter.known_datasets(all_datasets - count_datasets(&objects));
        let mut missing = Vec::new();
        let mut results =
            stream::iter(objects).map(|found| scan.object(found)).buffer_unordered(self.parallel_objects);
        while let Some(result) = results.next().await {
            let (partial, unread) = result?;
            missing.extend(unread);
            let merge = async {
                match merged.is_heavy() {
                    false => merged.merge(partial).map(|()| merged),
                    // Merging two profiles hashes their symbols again.
                    true => self.pool.run(move || merged.merge(partial).map(|()| merged)).await,
                }
            };
            merged = scan.meter.time(|effort| &mut effort.merge, merge).await.map_err(unmergeable)?;
        }
        drop(results);
        Ok(ScanAnswer { partial: merged, missing, effort: scan.meter.into_effort() })
    }

    /// Waits until `encoded` bytes, decoded, fit into the read budget. A read larger than the budget takes all of it.
    async fn take_read_budget(&self, encoded: u64) -> Result<SemaphorePermit<'_>, Error> {
        let decoded = encoded.saturating_mul(DECODED_PER_ENCODED);
        let permits = u32::try_from(decoded / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let taken = self.read_budget.acquire_many(permits.min(self.permits_max)).await;
        taken.map_err(|_| Error::new(ErrorKind::Unavailable, "the leaf stops"))
    }

    /// Runs small work inline, and other work on the pool.
    async fn run<T: Send + 'static>(&self, is_small: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
        if is_small { work() } else { self.pool.run(work).await }
    }
}

#[async_trait]
impl rpc::Leaf for Leaf {
    async fn scan(&self, request: ScanRequest) -> Result<ScanAnswer, Error> {
        let Some(limit) = request.time_left else {
            return self.scan_all(request).await;
        };
        let scanned = self.clock.timeout(limit, self.scan_all(request)).await;
        scanned.unwrap_or_else(|| {
            let text = format!("the scan was not done within the {limit:?} that were left");
            Err(Error::new(ErrorKind::DeadlineExceeded, text))
        })
    }
}

fn count_datasets(objects: &[FoundObject]) -> usize {
    objects.iter().map(|object| object.datasets.len()).sum()
}
