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
use block::{
    Batch, Cache, DatasetEntry, DatasetIndex, Fetched, FetchedCellRows, FetchedCells, FetchedSamples, Reader,
    Reads, Want,
};
use clock::{Clock, Pool};
use futures::stream::{self, StreamExt};
use memory::{Account, Lease, Refused, Share};
use model::ProfileType;
use parking_lot::Mutex;
use query::cells::{CellPart, Plan};
use query::deletion::erased;
use query::scan::{Samples, Selection, select};
use query::{Answer, Dataset, Deletion, FoldError, MergeError, Needs, Partial, Query};
use rpc::{Effort, Error, ErrorKind, Found, FoundDataset, Missing, ScanRequest, Scanned};
use storage::{Key, Store};
use tokio::sync::Semaphore;

use crate::Config;

/// Datasets with at most so many profiles are matched where the answer is awaited: going to the pool
/// and back would take longer.
const INLINE_PROFILES_MAX: usize = 4096;

/// Bytes that one permit of the budget stands for.
const PERMIT_BYTES: u64 = 16 << 10;

/// What questions read may take this part of their memory; the rest is for what they make of it.
const READING_PART: u64 = 2;

/// Decoded bytes, about, of an encoded byte.
const DECODED_PER_ENCODED: u64 = 6;

/// Memory of a row that is read: a stacktrace and a value, decompressed and decoded; of its span, too.
const ROW_BYTES: u64 = 24;
const SPAN_ROW_BYTES: u64 = 72;

/// Answers for the objects that a root names.
pub struct Leaf {
    store: Store,
    cache: Cache,
    pool: Pool,
    clock: Clock,
    parallel_objects: usize,
    uses_rollups: bool,
    memory: Share,
    /// Decoded bytes that scans hold, in units of [`PERMIT_BYTES`].
    budget: Semaphore,
    permits_max: u32,
}

impl Leaf {
    /// `memory` is what all questions of this process may hold.
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
            budget: Semaphore::new(permits as usize),
            permits_max: permits,
        }
    }

    async fn scan_all(&self, request: ScanRequest) -> Result<Scanned, Error> {
        let ScanRequest { query, objects, skip_gone, skip_unavailable, explain, memory, .. } = request;
        let memory = if memory.is_counted() { memory } else { self.memory.account() };
        let meter = explain.then(|| Meter::new(&self.clock));
        let cache = match &meter {
            Some(meter) => self.cache.counted(meter.reads.clone()),
            None => self.cache.clone(),
        };
        let query = Arc::new(query);
        let scan = Scan { leaf: self, query, cache, skip_gone, skip_unavailable, memory, meter };
        let mut merged = Partial::empty(&scan.query);
        let all = objects.iter().map(|object| object.datasets.len()).sum::<usize>();
        let objects = answer_known(&scan.query, objects, &mut merged);
        merged = merged.charged_to(&scan.memory).map_err(|refused| no_room(&refused))?;
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
            merged = scan.timed(|effort| &mut effort.merge, merge).await.map_err(unmergeable)?;
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
    /// What the question holds.
    memory: Account,
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
            true => Ok(Missing {
                key: key.clone(),
                reason: reason(key, &error),
                is_damaged: error.kind == ErrorKind::Corrupt,
            }),
            false => Err(error),
        }
    }

    /// Gives what the object answers, and what is to be told of it if that is not all.
    async fn object(&self, found: Found) -> Result<(Partial, Option<Missing>), Error> {
        let mut partial = Partial::empty(&self.query);
        let mut missing: Option<Missing> = None;
        let mut opened = self.open(&found, &self.cache).await;
        // A cache that holds wrong bytes says nothing of the object: only the store can, and once it did it is not asked again.
        let mut is_afresh = is_damaged(&opened);
        if is_afresh {
            opened = self.open(&found, &self.cache.afresh()).await;
        }
        let mut block = match opened {
            Ok(block) => block,
            Err(error) => return Ok((partial, Some(self.lack(&found.key, error)?))),
        };
        let masked: Arc<[u32]> = found.masked.as_slice().into();
        for dataset in &found.datasets {
            let deletions: Arc<[_]> = found.deletions_of(dataset).cloned().collect();
            let uncounted = Uncounted { masked: &masked, deletions: &deletions };
            if uncounted.is_nothing() && self.add_known(&block, dataset, &mut partial) {
                partial.stats.objects = 1;
                continue;
            }
            let mut answer = self.dataset(&block, &masked, &deletions, dataset).await;
            if is_damaged(&answer) && !is_afresh {
                answer = match self.open(&found, &self.cache.afresh()).await {
                    Ok(afresh) => {
                        (block, is_afresh) = (afresh, true);
                        self.dataset(&block, &masked, &deletions, dataset).await
                    }
                    Err(error) => Err(error),
                };
            }
            match answer {
                Ok(answer) => {
                    answer.map_or(Ok(()), |answer| partial.merge(answer)).map_err(unmergeable)?;
                    partial.stats.objects = 1;
                }
                Err(error) => {
                    let lack = self.lack(&found.key, error)?;
                    if missing.as_ref().is_none_or(|told| lack.is_damaged && !told.is_damaged) {
                        missing = Some(lack);
                    }
                }
            }
        }
        Ok((partial, missing))
    }

    /// Whether the directory alone answers for a dataset, all of which counts.
    fn add_known(&self, block: &Reader, dataset: &FoundDataset, partial: &mut Partial) -> bool {
        let Answer::Labels(labels) = &mut partial.answer else { return false };
        let Some(entry) = block.directory().datasets.get(dataset.position as usize) else { return false };
        entry.tenant == dataset.tenant
            && self.query.counts_all(dataset.times)
            && labels.add_known(
                &self.query.kind,
                &entry.service,
                &entry.profile_types,
                Some(&entry.label_names),
            )
    }

    async fn open(&self, found: &Found, cache: &Cache) -> Result<Reader, Error> {
        let open = Reader::open(&self.leaf.store, &found.key, found.bytes, cache);
        self.timed(|effort| &mut effort.fetch, open).await.map_err(failed)
    }

    /// Gives nothing if nothing of the dataset matches.
    async fn dataset(
        &self,
        block: &Reader,
        masked: &Arc<[u32]>,
        deletions: &Arc<[Arc<Deletion>]>,
        dataset: &FoundDataset,
    ) -> Result<Option<Partial>, Error> {
        let at = dataset.position as usize;
        let named = block.directory().datasets.get(at).filter(|entry| entry.tenant == dataset.tenant);
        let Some(entry) = named else {
            let what = format!("object {} has no dataset {at} of {}", block.key(), dataset.tenant);
            return Err(Error::new(ErrorKind::Corrupt, what));
        };
        let query = &self.query;
        let needs = query.needs();
        let plan = match self.leaf.uses_rollups && (Uncounted { masked, deletions }).is_nothing() {
            true => Plan::new(query, entry),
            false => Plan::rows_only(query),
        };
        let bytes = bytes_of(entry, &plan, needs);
        let decoded = bytes.saturating_mul(DECODED_PER_ENCODED);
        let permits = u32::try_from(decoded / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let permit = self.leaf.budget.acquire_many(permits.min(self.leaf.permits_max));
        let budget = self.timed(|effort| &mut effort.fetch, permit).await;
        let _budget = budget.map_err(|_| Error::new(ErrorKind::Unavailable, "the leaf stops"))?;
        // Held until the dataset is folded.
        let working = self.memory.lease();
        working.grow(bytes).map_err(|refused| no_room(&refused))?;

        let index = Want { index: !plan.rows.is_empty(), ..Want::default() };
        let places: Vec<usize> = plan.cells.iter().map(|(place, _)| *place).collect();
        let fetch = async { futures::try_join!(block.fetch(at, index), block.fetch_cells(at, &places)) };
        let (fetched, heads) = self.timed(|effort| &mut effort.fetch, fetch).await.map_err(failed)?;
        let fetched = fetched.charged_to(working.clone());
        let profiles = if index.index { entry.profiles as usize } else { 0 };
        let small = profiles <= INLINE_PROFILES_MAX;
        let (of, masks, deletions, named) = (query.clone(), masked.clone(), deletions.clone(), block.clone());
        let match_series = move || {
            let entry = &named.directory().datasets[at];
            Matched::new(
                &of,
                Uncounted { masked: &masks, deletions: &deletions },
                entry,
                plan,
                fetched,
                heads,
            )
        };
        let matched = self
            .timed(|effort| &mut effort.scan, self.leaf.run(small, match_series))
            .await
            .map_err(failed)?;
        if matched.is_empty() {
            return Ok(None);
        }

        let want = Want { index: false, symbols: needs.symbols, tree: needs.tree };
        let fetch = async {
            futures::try_join!(
                block.fetch(at, want),
                fetch_samples(block, at, &matched, needs),
                fetch_sums(&matched, needs)
            )
        };
        let (sections, samples, sums) =
            self.timed(|effort| &mut effort.fetch, fetch).await.map_err(failed)?;
        let sections = sections.charged_to(working.clone());
        let (of, memory) = (query.clone(), self.memory.clone());
        let read = Read { samples, sums };
        let fold = move || {
            let partial = fold(&of, &matched, &sections, read, bytes, &working)?;
            drop((sections, matched, working));
            Ok::<_, FoldError>(partial.charged_to(&memory)?)
        };
        let light = small && needs == Needs::default();
        match self.timed(|effort| &mut effort.scan, self.leaf.run(light, fold)).await {
            Ok(partial) => Ok(Some(partial)),
            Err(FoldError::Block(error)) => Err(failed(error)),
            Err(FoldError::TooLarge(error)) => Err(too_large(error)),
            Err(FoldError::Memory(refused)) => Err(no_room(&refused)),
        }
    }
}

/// What of a dataset does not count, although its object has it.
#[derive(Clone, Copy)]
struct Uncounted<'a> {
    /// Ordinals of push items that are counted elsewhere; sorted.
    masked: &'a [u32],
    /// Deletions that may touch it and are newer than the object.
    deletions: &'a [Arc<Deletion>],
}

impl Uncounted<'_> {
    /// Whether all profiles count as they are stored: only then are the sums over them right.
    fn is_nothing(&self) -> bool {
        self.masked.is_empty() && self.deletions.is_empty()
    }
}

/// Encoded bytes that answering from a dataset takes, roughly.
fn bytes_of(entry: &DatasetEntry, plan: &Plan, needs: Needs) -> u64 {
    let tree = entry.tree.filter(|_| needs.tree);
    let symbols = needs.symbols || (needs.tree && tree.is_none());
    let cells = plan.cells.iter().filter_map(|(place, _)| entry.cells.get(*place)).map(|cells| {
        u64::from(cells.head.bytes) + if needs.samples { u64::from(cells.chunk_bytes) } else { 0 }
    });
    let rows = match (plan.rows.is_empty(), needs.samples) {
        (true, _) => 0,
        (false, false) => u64::from(entry.index.bytes),
        (false, true) => u64::from(entry.index.bytes) + (entry.rows.end - entry.rows.start) * 3,
    };
    u64::from(tree.map_or(0, |section| section.bytes))
        + if needs.tree || symbols { u64::from(entry.strings.bytes) } else { 0 }
        + if symbols { u64::from(entry.symbols.bytes) } else { 0 }
        + cells.sum::<u64>()
        + rows
}

/// What of a dataset a question is about.
struct Matched {
    index: Arc<DatasetIndex>,
    selection: Selection,
    /// Beside each part, where its sums come from.
    heads: Vec<FetchedCells>,
    cells: Vec<CellPart>,
}

impl Matched {
    fn new(
        query: &Query,
        uncounted: Uncounted<'_>,
        entry: &DatasetEntry,
        plan: Plan,
        fetched: Fetched,
        heads: Vec<FetchedCells>,
    ) -> Result<Self, block::Error> {
        let index = if plan.rows.is_empty() { Arc::default() } else { fetched.index()? };
        let erased = erased(&index, uncounted.deletions.iter().map(|deletion| &**deletion));
        let selection = select(&index, uncounted.masked, &erased, query, &plan.rows);
        let mut cells = Vec::with_capacity(heads.len());
        for (head, (_, windows)) in heads.iter().zip(&plan.cells) {
            cells.push(CellPart::select(head.cells()?, windows, entry, query));
        }
        Ok(Self { index, selection, heads, cells })
    }

    fn is_empty(&self) -> bool {
        self.selection.is_empty() && self.cells.iter().all(|part| part.columns.is_empty())
    }
}

/// Gets the rows of every column of the selection, if the question looks at samples.
async fn fetch_samples(
    block: &Reader,
    dataset: usize,
    matched: &Matched,
    needs: Needs,
) -> Result<Vec<FetchedSamples>, block::Error> {
    let index = &matched.index;
    let mut samples = Vec::new();
    for column in matched.selection.columns.iter().filter(|_| needs.samples) {
        let stored = index.columns[column.schema as usize][column.column as usize];
        samples.push(block.fetch_samples(dataset, &column.rows(index), stored, needs.spans).await?);
    }
    Ok(samples)
}

/// Gets the stacktraces of every matching cell, if the question looks at samples.
async fn fetch_sums(matched: &Matched, needs: Needs) -> Result<Vec<FetchedCellRows>, block::Error> {
    let mut sums = Vec::new();
    for (head, part) in matched.heads.iter().zip(&matched.cells).filter(|_| needs.samples) {
        let columns = part.columns.iter().map(|column| (column.schema, column.column, &*column.cells));
        sums.push(head.fetch_rows(columns).await?);
    }
    Ok(sums)
}

fn fold(
    query: &Query,
    matched: &Matched,
    sections: &Fetched,
    read: Read,
    bytes: u64,
    working: &Lease,
) -> Result<Partial, FoldError> {
    let needs = query.needs();
    if needs.samples {
        let cells: u64 = matched.cells.iter().map(CellPart::rows).sum();
        let rows = matched.selection.rows(&matched.index).saturating_add(cells);
        let row_bytes = if needs.spans { SPAN_ROW_BYTES } else { ROW_BYTES };
        working.grow(rows.saturating_mul(row_bytes))?;
    }
    let mut partial = Partial::empty(query);
    partial.stats.bytes = bytes;
    let tree = if needs.tree { Some(sections.tree()?) } else { None };
    let symbols = if needs.symbols { Some(sections.symbols()?) } else { None };
    // What the fold makes of them: a sum for each stacktrace and node, and a copy of what has weight.
    let nodes = tree.as_ref().map_or(0, |tree| tree.len() + tree.leaves.len()) as u64;
    let copied = symbols.as_ref().map_or(0, |symbols| symbols.byte_len()) as u64;
    working.grow(nodes * 8 + copied * 2)?;
    let dataset = Dataset {
        index: &matched.index,
        selection: &matched.selection,
        cells: &matched.cells,
        tree,
        symbols,
        samples: if needs.samples { Some(&read) } else { None },
    };
    partial.fold(query, dataset)?;
    Ok(partial)
}

/// Rows by column of the selection, sums by length of cells.
struct Read {
    samples: Vec<FetchedSamples>,
    sums: Vec<FetchedCellRows>,
}

impl Samples for Read {
    fn scan(&self, at: usize, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        match self.samples.get(at) {
            Some(samples) => samples.for_each(each),
            None => Ok(()),
        }
    }

    fn scan_cells(&self, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        self.sums.iter().try_for_each(|sums| sums.for_each(&mut *each))
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
            let whole = found.masked.is_empty() && found.deletions_of(dataset).next().is_none();
            if !whole || !query.counts_all(dataset.times) {
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
        // A leaf of that release may be there.
        block::Error::Storage(_) | block::Error::Version { .. } => ErrorKind::Unavailable,
        block::Error::Memory { refused, .. } => ErrorKind::of_memory(refused),
        _ => ErrorKind::Corrupt,
    };
    Error::with_source(kind, error.to_string(), error)
}

fn is_damaged<T>(read: &Result<T, Error>) -> bool {
    matches!(read, Err(error) if error.kind == ErrorKind::Corrupt)
}

/// Why an object cannot be read, in words that stand beside its key.
fn reason(key: &Key, error: &Error) -> String {
    let named = format!("object {key}");
    let text = with_causes(error);
    let rest = text.strip_prefix(&named).and_then(|rest| rest.strip_prefix(": "));
    rest.map_or_else(|| text.replace(&named, "it"), str::to_owned)
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

pub(crate) fn unmergeable(error: MergeError) -> Error {
    match error {
        MergeError::TooLarge(error) => too_large(error),
        MergeError::Memory(refused) => no_room(&refused),
    }
}

/// What a question is refused with that has no room; [`refusal_of`] finds why.
pub(crate) fn no_room(refused: &Refused) -> Error {
    let text = format!("the question {refused}; ask for a shorter time range or fewer series");
    Error::with_source(ErrorKind::of_memory(refused), text, refused.clone())
}

/// Why this process had no room, if that is what the error says.
pub(crate) fn refusal_of(error: &Error) -> Option<&Refused> {
    let source = std::error::Error::source(error)?;
    let of_block = source.downcast_ref().and_then(|error| match error {
        block::Error::Memory { refused, .. } => Some(refused),
        _ => None,
    });
    source.downcast_ref().or(of_block)
}
