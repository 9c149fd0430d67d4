//! Scans objects: open, match series, fetch what the question needs, fold.
//!
//! Owns: how many objects and bytes are in flight, what runs on the pool.
//! Does not own: the bytes of an object (`block`), what a dataset answers (`query`).
//!
//! Fetching waits on the executor; decoding and folding run on the pool. Nothing is spawned, so
//! whoever drops the future stops everything but the pieces that compute at that moment.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use block::{Batch, Block, Cache, DatasetIndex, Fetched, FetchedSamples, Reads, Want};
use clock::{Clock, Pool};
use futures::stream::{self, StreamExt};
use model::ProfileType;
use parking_lot::Mutex;
use query::order::erased;
use query::scan::{Samples, Selection, select};
use query::{Answer, Dataset, DeleteOrder, FoldError, Needs, Partial, Query};
use rpc::{Effort, Error, ErrorKind, Found, FoundDataset, Missing, ScanRequest, Scanned};
use storage::{Key, Store};
use tokio::sync::Semaphore;

use crate::Config;

/// Datasets with at most so many profiles are matched where the answer is awaited: going to the pool
/// and back would take longer.
const INLINE_PROFILES_MAX: usize = 4096;

/// Bytes that one permit of the budget stands for.
const PERMIT_BYTES: u64 = 16 << 10;

/// Answers for the objects that a root names.
pub struct Leaf {
    store: Store,
    cache: Cache,
    pool: Pool,
    clock: Clock,
    parallel_objects: usize,
    /// Encoded bytes in flight, in units of [`PERMIT_BYTES`].
    budget: Semaphore,
    permits_max: u32,
}

impl Leaf {
    pub fn new(config: &Config, store: Store, cache: Cache, pool: Pool, clock: Clock) -> Self {
        let permits = (config.max_inflight_bytes / PERMIT_BYTES).clamp(1, 1 << 28) as u32;
        Self {
            store,
            cache,
            pool,
            clock,
            parallel_objects: config.max_parallel_objects.max(1),
            budget: Semaphore::new(permits as usize),
            permits_max: permits,
        }
    }

    async fn scan_all(&self, request: ScanRequest) -> Result<Scanned, Error> {
        let ScanRequest { query, objects, skip_gone, skip_unavailable, explain, .. } = request;
        let meter = explain.then(|| Meter::new(&self.clock));
        let cache = match &meter {
            Some(meter) => self.cache.counted(meter.reads.clone()),
            None => self.cache.clone(),
        };
        let scan = Scan { leaf: self, query: Arc::new(query), cache, skip_gone, skip_unavailable, meter };
        let mut merged = Partial::empty(&scan.query);
        let all = objects.iter().map(|object| object.datasets.len()).sum::<usize>();
        let objects = answer_known(&scan.query, objects, &mut merged);
        let left = objects.iter().map(|object| object.datasets.len()).sum::<usize>();
        scan.meter.iter().for_each(|meter| meter.effort.lock().known_datasets = (all - left) as u64);
        let mut missing = Vec::new();
        let mut scans =
            stream::iter(objects).map(|found| scan.object(found)).buffer_unordered(self.parallel_objects);
        while let Some(scanned) = scans.next().await {
            let (partial, lacks) = scanned?;
            missing.extend(lacks);
            let merge = async {
                match merged.is_heavy() {
                    false => merged.merge(partial).map(|()| merged),
                    // Symbols are hashed again when two profiles are joined.
                    true => self.pool.run(move || merged.merge(partial).map(|()| merged)).await,
                }
            };
            merged = scan.timed(|effort| &mut effort.merge, merge).await.map_err(too_large)?;
        }
        drop(scans);
        Ok(Scanned { partial: merged, missing, effort: scan.meter.map(|meter| meter.finish(&self.clock)) })
    }

    /// Runs `work` here if it is little, and on the pool if not.
    async fn run<T: Send + 'static>(&self, little: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
        if little { work() } else { self.pool.run(work).await }
    }
}

/// One request on its way.
struct Scan<'a> {
    leaf: &'a Leaf,
    query: Arc<Query>,
    cache: Cache,
    skip_gone: bool,
    skip_unavailable: bool,
    /// If the effort is to be measured.
    meter: Option<Meter>,
}

struct Meter {
    began: Duration,
    reads: Arc<Reads>,
    effort: Mutex<Effort>,
}

impl Meter {
    fn new(clock: &Clock) -> Self {
        Self { began: clock.monotonic(), reads: Arc::default(), effort: Mutex::default() }
    }

    fn finish(self, clock: &Clock) -> Effort {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Effort {
            took: clock.monotonic().saturating_sub(self.began),
            memory_hits: count(&self.reads.memory_hits),
            memory_misses: count(&self.reads.memory_misses),
            disk_bytes: count(&self.reads.disk_bytes),
            store_bytes: count(&self.reads.store_bytes),
            store_requests: count(&self.reads.store_requests),
            ..self.effort.into_inner()
        }
    }
}

impl Scan<'_> {
    /// Adds what `work` takes to a step of the effort.
    async fn timed<T>(&self, step: fn(&mut Effort) -> &mut Duration, work: impl Future<Output = T>) -> T {
        let Some(meter) = &self.meter else {
            return work.await;
        };
        let began = self.leaf.clock.monotonic();
        let done = work.await;
        *step(&mut meter.effort.lock()) += self.leaf.clock.monotonic().saturating_sub(began);
        done
    }

    /// What is to be told of an object that cannot be read; an error if the whole request fails for it.
    fn lack(&self, key: &Key, error: Error) -> Result<Missing, Error> {
        let skipped = match error.kind {
            ErrorKind::Corrupt => true,
            ErrorKind::NotFound => self.skip_gone,
            ErrorKind::Unavailable => self.skip_unavailable,
            _ => false,
        };
        match skipped {
            true => Ok(Missing { key: key.clone(), reason: with_causes(&error) }),
            false => Err(error),
        }
    }

    async fn object(&self, found: Found) -> Result<(Partial, Vec<Missing>), Error> {
        let mut partial = Partial::empty(&self.query);
        let open = Block::open(&self.leaf.store, &found.key, found.bytes, &self.cache);
        let block = match self.timed(|effort| &mut effort.fetch, open).await {
            Ok(block) => block,
            Err(error) => return Ok((partial, vec![self.lack(&found.key, failed(error))?])),
        };
        partial.stats.objects = 1;
        let masked: Arc<[u32]> = found.masked.as_slice().into();
        let mut missing = Vec::new();
        for dataset in &found.datasets {
            let orders: Arc<[_]> = found.orders_of(dataset).cloned().collect();
            if let (Answer::Labels(labels), Some(entry)) =
                (&mut partial.answer, block.directory().datasets.get(dataset.position as usize))
                && entry.tenant == dataset.tenant
                && masked.is_empty()
                && orders.is_empty()
                && self.query.counts_all(dataset.time_min, dataset.time_max)
                && labels.add_known(
                    &self.query.kind,
                    &entry.service,
                    &entry.profile_types,
                    Some(&entry.label_names),
                )
            {
                continue;
            }
            match self.dataset(&block, &masked, &orders, dataset).await {
                Ok(Some(answer)) => partial.merge(answer).map_err(too_large)?,
                Ok(None) => {}
                Err(error) => missing.push(self.lack(block.key(), error)?),
            }
        }
        Ok((partial, missing))
    }

    /// Gives nothing if nothing of the dataset matches.
    async fn dataset(
        &self,
        block: &Block,
        masked: &Arc<[u32]>,
        orders: &Arc<[Arc<DeleteOrder>]>,
        dataset: &FoundDataset,
    ) -> Result<Option<Partial>, Error> {
        let at = dataset.position as usize;
        let named = block.directory().datasets.get(at);
        if named.is_none_or(|entry| entry.tenant != dataset.tenant) {
            let what = format!("object {} has no dataset {at} of {}", block.key(), dataset.tenant);
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        let query = &self.query;
        let needs = query.needs();
        let bytes = named.map_or(0, |entry| {
            let tree = entry.tree.filter(|_| needs.tree);
            let symbols = needs.symbols || (needs.tree && tree.is_none());
            let rows = if needs.samples { (entry.rows.end - entry.rows.start) * 3 } else { 0 };
            u64::from(entry.index.bytes)
                + u64::from(tree.map_or(0, |section| section.bytes))
                + if symbols { u64::from(entry.symbols.bytes) } else { 0 }
                + rows
        });
        let permits = u32::try_from(bytes / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let turn = self.leaf.budget.acquire_many(permits.min(self.leaf.permits_max));
        let budget = self.timed(|effort| &mut effort.fetch, turn).await;
        let _budget = budget.map_err(|_| Error::new(ErrorKind::Unavailable, "the leaf stops"))?;

        let want = Want { index: true, ..Want::default() };
        let fetch = block.fetch(at, want);
        let fetched = self.timed(|effort| &mut effort.fetch, fetch).await.map_err(failed)?;
        let profiles = named.map_or(0, |entry| entry.profiles) as usize;
        let small = profiles <= INLINE_PROFILES_MAX;
        let (of, masks, orders) = (query.clone(), masked.clone(), orders.clone());
        let match_series = move || {
            let index = fetched.index()?;
            let erased = erased(&index, orders.iter().map(|order| &**order));
            let selection = select(&index, &masks, &erased, &of);
            Ok((index, selection))
        };
        let (index, selection): (Arc<DatasetIndex>, Selection) = self
            .timed(|effort| &mut effort.scan, self.leaf.run(small, match_series))
            .await
            .map_err(failed)?;
        if selection.is_empty() {
            return Ok(None);
        }

        let want = Want { index: false, symbols: needs.symbols, tree: needs.tree };
        let fetch = async {
            futures::try_join!(block.fetch(at, want), fetch_samples(block, at, &index, &selection, needs))
        };
        let (sections, samples) = self.timed(|effort| &mut effort.fetch, fetch).await.map_err(failed)?;
        let of = query.clone();
        let fold = move || fold(&of, &index, &selection, &sections, samples, bytes);
        let light = small && needs == Needs::default();
        match self.timed(|effort| &mut effort.scan, self.leaf.run(light, fold)).await {
            Ok(partial) => Ok(Some(partial)),
            Err(FoldError::Block(error)) => Err(failed(error)),
            Err(FoldError::TooLarge(error)) => Err(too_large(error)),
        }
    }
}

/// Gets the rows of every column of the selection, if the question looks at samples.
async fn fetch_samples(
    block: &Block,
    dataset: usize,
    index: &DatasetIndex,
    selection: &Selection,
    needs: Needs,
) -> Result<Vec<FetchedSamples>, block::Error> {
    let mut samples = Vec::new();
    for column in selection.columns.iter().filter(|_| needs.samples) {
        let stored = index.columns[column.schema as usize][column.column as usize];
        samples.push(block.fetch_samples(dataset, &column.rows(index), stored, needs.spans).await?);
    }
    Ok(samples)
}

fn fold(
    query: &Query,
    index: &DatasetIndex,
    selection: &Selection,
    sections: &Fetched,
    samples: Vec<FetchedSamples>,
    bytes: u64,
) -> Result<Partial, FoldError> {
    let needs = query.needs();
    let mut partial = Partial::empty(query);
    partial.stats.bytes = bytes;
    let samples = ColumnSamples(samples);
    let dataset = Dataset {
        index,
        selection,
        tree: if needs.tree { Some(sections.tree()?) } else { None },
        symbols: if needs.symbols { Some(sections.symbols()?) } else { None },
        samples: if needs.samples { Some(&samples) } else { None },
    };
    partial.fold(query, dataset)?;
    Ok(partial)
}

struct ColumnSamples(Vec<FetchedSamples>);

impl Samples for ColumnSamples {
    fn scan(&self, at: usize, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        match self.0.get(at) {
            Some(samples) => samples.for_each(each),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl rpc::Leaf for Leaf {
    async fn scan(&self, request: ScanRequest) -> Result<Scanned, Error> {
        let Some(limit) = request.time_left else {
            return self.scan_all(request).await;
        };
        let scanned = self.clock.timeout(limit, self.scan_all(request)).await;
        scanned.unwrap_or_else(|| {
            let what = format!("the scan was not done within the {limit:?} that were left");
            Err(Error::new(ErrorKind::DeadlineExceeded, what))
        })
    }
}

/// Answers from the snapshot what it knows; gives the objects that must be read.
fn answer_known(query: &Query, mut objects: Vec<Found>, answer: &mut Partial) -> Vec<Found> {
    let Answer::Labels(labels) = &mut answer.answer else { return objects };
    // Datasets with the same types share one list, those of one service its name.
    let mut known: HashSet<(*const ProfileType, *const u8)> = HashSet::new();
    objects.retain_mut(|found| {
        let mut datasets = std::mem::take(&mut found.datasets);
        datasets.retain(|dataset| {
            let whole = found.masked.is_empty() && found.orders_of(dataset).next().is_none();
            if !whole || !query.counts_all(dataset.time_min, dataset.time_max) {
                return true;
            }
            let is_new = known.insert((dataset.profile_types.as_ptr(), dataset.service.as_ptr()));
            let types = if is_new { &*dataset.profile_types } else { &[] };
            !labels.add_known(&query.kind, &dataset.service, types, None)
        });
        found.datasets = datasets;
        !found.datasets.is_empty()
    });
    objects
}

/// What a leaf says of an object that it cannot read.
fn failed(error: block::Error) -> Error {
    let kind = match &error {
        block::Error::Storage(storage::Error::NotFound(_)) => ErrorKind::NotFound,
        block::Error::Storage(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Corrupt,
    };
    Error::with_source(kind, error.to_string(), error)
}

/// An error with what led to it, for people.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn too_large(error: query::TooLarge) -> Error {
    Error::with_source(ErrorKind::InvalidArgument, error.to_string(), error)
}
