//! Makes the catalog anew from the bucket alone.
//!
//! Owns: the state that follows from publish records, headers and keys of objects.
//! Does not own: which objects are live (`lineage`), the rows (`state`), putting the new catalog in force
//! (`catalog::numbered`).
//!
//! Merged segments keep the masks of their records. Masks of the others are decided anew, in the order of floor, creation
//! time, writer and slot.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use catalog::rows::{self, Block, DatasetSummary, Founding, JobProgress, Quarantine, Row};
use catalog::{Batch, Catalog, NumberedCatalog, numbered};
use clock::{Clock, Now};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::{HashMap, HashSet};
use model::{BlockId, ItemKey, WriterId};
use storage::{Key, Object, Store};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::consume::slot_of;
use crate::deletion_lifecycle::{read_deletions, unreadable_deletion};
use crate::deletions::{self, DeletionObject};
use crate::error::OpenError;
use crate::header::{Bucket, Header, Headers};
use crate::lineage::Lineage;
use crate::listing::Listing;
use crate::record::{Output, Record};
use crate::retention::SEAL_KEPT_MILLIS;
use crate::state::{Data, Slot, State, put_block, row_count, summaries};

/// Objects read at once.
const READS_AT_ONCE: usize = 16;
/// A catalog with a younger commit than this may have an owner.
const QUIET_FOR: Duration = Duration::from_secs(60);
/// Between looks for a new commit.
const QUIET_INTERVAL: Duration = Duration::from_secs(5);
/// Between log lines about the progress of a rebuild.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Most changes of one commit.
const CHANGES_MAX: usize = 10_000;

/// Counts of a rebuilt catalog, and of the objects it was made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RebuildCounts {
    pub logs: usize,
    pub segments: usize,
    pub blocks: usize,
    pub dead: usize,
    /// Publish records that are not in force: their outputs are missing, or they repeat an earlier one.
    pub undone_merges: usize,
    /// Blocks of the bucket that no publish record names, and their bytes. They are kept.
    pub unrecorded: usize,
    pub unrecorded_bytes: u64,
}

impl fmt::Display for RebuildCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logs, segments, blocks, dead, undone_merges, unrecorded, unrecorded_bytes } = self;
        write!(
            f,
            "rebuilt the catalog: {segments} segments of {logs} logs, {blocks} blocks, {dead} dead objects"
        )?;
        if *undone_merges > 0 {
            write!(f, "; {undone_merges} merges undone, their inputs count instead")?;
        }
        if *unrecorded > 0 {
            write!(
                f,
                "; {unrecorded} blocks of {unrecorded_bytes} bytes have no publish record and are left alone"
            )?;
        }
        Ok(())
    }
}

/// The progress of a rebuild; read by other tasks.
#[derive(Default)]
pub struct Progress {
    is_running: AtomicBool,
    read: AtomicUsize,
    total: AtomicUsize,
}

impl Progress {
    fn add(&self, objects: usize) {
        self.total.fetch_add(objects, Ordering::Relaxed);
    }

    fn advance(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self) {
        self.end();
        self.is_running.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.is_running.store(false, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
    }

    pub fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, total) = (self.read.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        write!(f, "rebuilding the catalog: {read} of {total} objects read")
    }
}

/// Replaces the catalog of `store`, readable or not, by one made from the other objects. Unless `force` is set, or no
/// other process can have the store open, it first waits for a minute without a commit.
///
/// # Errors
/// `Alive` if there is a commit meanwhile; `Object` if a publish record or a deletion cannot be read. Segments and
/// blocks that cannot be read are quarantined.
pub async fn rebuild(
    store: &Store,
    clock: &Clock,
    config: &Config,
    force: bool,
    progress: &Progress,
) -> Result<RebuildCounts, OpenError> {
    if !force && !store.is_exclusive() {
        wait_until_quiet(store, clock).await?;
    }
    rebuild_with(store, clock, &Bucket::new(store.clone()), config, progress).await
}

pub(crate) async fn rebuild_with(
    store: &Store,
    clock: &Clock,
    headers: &dyn Headers,
    config: &Config,
    progress: &Progress,
) -> Result<RebuildCounts, OpenError> {
    progress.begin();
    log_progress(clock, progress, replace_catalog(store, clock, headers, config, progress)).await
}

async fn replace_catalog(
    store: &Store,
    clock: &Clock,
    headers: &dyn Headers,
    config: &Config,
    progress: &Progress,
) -> Result<RebuildCounts, OpenError> {
    let engine = NumberedCatalog::new(store.clone(), clock.clone(), numbered::Options::default());
    let listing = Listing::read(store).await?;
    progress.add(listing.records.len());
    // A rebuild that cannot succeed fails before it leaves anything in the bucket.
    let records = read_records(store, &listing, progress).await?;
    Lineage::trace(records, &listing, clock.unix_millis())?;
    let rebuilding = engine.rebuild(newest_millis(&listing)).await?;
    // Read again: earlier owners could publish until now.
    let contents = Contents::read(store, headers, clock.unix_millis(), progress).await?;
    let (mut state, mut batch) = assemble(&contents, config, clock)?;
    let rebuilt = contents.summary(&state);
    Founding { millis: clock.unix_millis() }.put_into(&mut batch);
    let (rows, _) = state.take_pending(config.dedup_millis(), clock.unix_millis());
    batch.changes.extend(rows.changes);
    commit(rebuilding.catalog(), batch).await?;
    rebuilding.replace().await?;
    Ok(rebuilt)
}

/// When the newest object was made, in Unix milliseconds of the store's clock; 0 if there is none.
fn newest_millis(listing: &Listing) -> i64 {
    let objects = listing.blocks.iter().chain(&listing.slots).chain(&listing.records);
    objects.map(|object| object.modified_millis).max().unwrap_or(0)
}

/// Waits until the last commit is [`QUIET_FOR`] old, by the store's clock and by the own one.
pub(crate) async fn wait_until_quiet(store: &Store, clock: &Clock) -> Result<(), OpenError> {
    let (first, began) = (last_commit(store).await?, clock.monotonic());
    let Some((_, millis)) = &first else {
        return Ok(());
    };
    let age = Duration::from_millis(u64::try_from(clock.unix_millis() - millis).unwrap_or(0));
    if age < QUIET_FOR {
        let wait = QUIET_FOR - age;
        info!(?wait, "the catalog was committed to {age:?} ago: waiting to see whether its owner is alive");
    }
    while age + (clock.monotonic() - began) < QUIET_FOR {
        clock.sleep(QUIET_INTERVAL).await;
        let last = last_commit(store).await?;
        if last != first {
            let object = last.map_or_else(String::new, |(key, _)| key.to_string());
            return Err(OpenError::Alive { object });
        }
    }
    Ok(())
}

/// The newest file of the catalog, with its time in Unix milliseconds.
async fn last_commit(store: &Store) -> Result<Option<(Key, i64)>, OpenError> {
    let files = store.list("catalog").await?.into_iter();
    Ok(files.map(|file| (file.modified_millis, file.key)).max().map(|(millis, key)| (key, millis)))
}

/// Logs the progress of `reading` until it ends.
async fn log_progress<T>(clock: &Clock, progress: &Progress, reading: impl Future<Output = T>) -> T {
    let mut reading = std::pin::pin!(reading);
    loop {
        match clock.timeout(PROGRESS_INTERVAL, &mut reading).await {
            Some(done) => return done,
            None => info!("{progress}"),
        }
    }
}

async fn commit(catalog: &dyn Catalog, batch: Batch) -> Result<(), OpenError> {
    for changes in batch.changes.chunks(CHANGES_MAX) {
        catalog.commit(Batch { changes: changes.to_vec() }).await?;
    }
    Ok(())
}

/// The contents of the bucket.
struct Contents {
    listing: Listing,
    lineage: Lineage,
    slots: BTreeMap<WriterId, BTreeMap<u64, Header>>,
    /// Live blocks.
    blocks: Vec<(Output, Header)>,
    deletions: Vec<DeletionObject>,
}

impl Contents {
    async fn read(
        store: &Store,
        headers: &dyn Headers,
        unix_millis: i64,
        progress: &Progress,
    ) -> Result<Self, OpenError> {
        let listing = Listing::read(store).await?;
        progress.add(listing.records.len() + listing.slots.len());
        let records = read_records(store, &listing, progress).await?;
        let lineage = Lineage::trace(records, &listing, unix_millis)?;
        progress.add(lineage.live_blocks().len());
        let mut slots: BTreeMap<WriterId, BTreeMap<u64, Header>> = BTreeMap::new();
        let listed = listing.slots.iter();
        let listed: Vec<(Object, (WriterId, u64))> =
            listed.filter_map(|object| Some((object.clone(), object.key.parse_log_slot()?))).collect();
        let read = stream::iter(listed).map(|(object, slot)| async move {
            let header = headers.read(&object.key, Some(object.bytes)).await?;
            progress.advance();
            Ok::<_, OpenError>((slot, header))
        });
        let mut read = read.buffered(READS_AT_ONCE);
        while let Some(((writer, seq), header)) = read.try_next().await? {
            slots.entry(writer).or_default().insert(seq, header);
        }
        drop(read);
        let read = stream::iter(lineage.live_blocks().to_vec()).map(|output| async move {
            let header = headers.read(&output.key, Some(output.bytes)).await?;
            progress.advance();
            Ok::<_, OpenError>((output, header))
        });
        let blocks = read.buffered(READS_AT_ONCE).try_collect().await?;
        let deletions = read_deletions(store).await?;
        Ok(Self { listing, lineage, slots, blocks, deletions })
    }

    fn summary(&self, state: &State) -> RebuildCounts {
        let outputs = self.lineage.records().iter().flat_map(|record| &record.outputs);
        let recorded: HashSet<&Key> = outputs.map(|output| &output.key).collect();
        let unrecorded = self.listing.blocks.iter().filter(|object| !recorded.contains(&object.key));
        RebuildCounts {
            logs: state.logs().len(),
            segments: state.live().segment_count(),
            blocks: state.live().block_count(),
            dead: state.dead().len(),
            undone_merges: self.lineage.undone_records().count(),
            unrecorded: unrecorded.clone().count(),
            unrecorded_bytes: unrecorded.map(|object| object.bytes).sum(),
        }
    }
}

async fn read_records(
    store: &Store,
    listing: &Listing,
    progress: &Progress,
) -> Result<Vec<Record>, OpenError> {
    let keys: Vec<Key> = listing.records.iter().map(|object| object.key.clone()).collect();
    let read = stream::iter(keys).map(|key| async move {
        let record = read_record(store, &key).await;
        progress.advance();
        record
    });
    read.buffered(READS_AT_ONCE).try_collect().await
}

pub(crate) async fn read_record(store: &Store, key: &Key) -> Result<Record, OpenError> {
    let bytes = store.get(key).await?;
    Record::decode(&bytes)
        .map_err(|error| OpenError::Object { object: key.to_string(), reason: error.to_string() })
}

/// The state of a new catalog, and its rows, without those that are pending in the state.
fn assemble(contents: &Contents, config: &Config, clock: &Clock) -> Result<(State, Batch), OpenError> {
    let mut state = State::new(config);
    let mut batch = Batch::default();
    let now = clock.now();
    for (number, DeletionObject { row, .. }) in deletions::settle(contents.deletions.clone()) {
        row.put_into(&mut batch);
        state.deletions.load(row, 0).map_err(|reason| unreadable_deletion(number, reason))?;
    }
    for (output, header) in &contents.blocks {
        if let Some((block, datasets)) = block_of(output, header) {
            put_block(&block, &datasets, &mut batch);
            state.add_block(&block, datasets);
        }
    }
    let Segments { mut merged, mut open } = add_logs(contents, &mut state, now);
    // Keys of merged segments have been counted, whenever they were created.
    for segment in merged.values_mut() {
        state.count_keys(&std::mem::take(&mut segment.keys), segment.created_millis);
    }
    // Segments before a deletion were consumed before those after it: a resend must not count instead of an erased
    // item.
    open.sort_by_key(|segment| {
        let OpenSegment { created_millis, writer, seq, .. } = *segment;
        (state.deletions.floor_of(writer, seq), created_millis, writer, seq)
    });
    for OpenSegment { created_millis, writer, seq, data } in open {
        // After the window keys count again, as they did the first time.
        state.forget_keys_before(created_millis - config.dedup_millis());
        let segment = state.segment_of(writer, seq, data, created_millis, now.unix_millis);
        state.add_pending_segment(segment);
    }
    add_records(contents, &merged, &mut state, &mut batch);
    bury_undone(contents, now.unix_millis, &mut state, &mut batch);
    Ok((state, batch))
}

/// The segments in the bucket, each up to the end of its log.
#[derive(Default)]
struct Segments {
    merged: MergedSegments,
    open: Vec<OpenSegment>,
}

/// Merged segments, by log and slot.
type MergedSegments = BTreeMap<(WriterId, u64), MergedSegment>;

struct MergedSegment {
    created_millis: i64,
    /// Its keys that were not masked.
    keys: Vec<ItemKey>,
}

/// A segment that no record in force names.
struct OpenSegment {
    created_millis: i64,
    writer: WriterId,
    seq: u64,
    data: Data,
}

/// Adds all logs to the state. Returns their segments.
fn add_logs(contents: &Contents, state: &mut State, now: Now) -> Segments {
    let inputs = contents.lineage.in_force().flat_map(|record| &record.inputs);
    let masks: HashMap<&Key, &[u32]> = inputs.map(|(key, masked)| (key, &masked[..])).collect();
    let merged_to = merged_to(contents.lineage.records());
    let mut segments = Segments::default();
    for (writer, slots) in &contents.slots {
        // Merged slots may be swept, so an absent slot below a merged one does not end the log.
        let next = merged_to.get(writer).map_or(0, |(next, _)| *next);
        state.set_log(segments.add_log(*writer, slots, next, &masks, now), now.monotonic);
    }
    // A log whose slots are all merged and swept may continue: a seal would be kept for `SEAL_KEPT_MILLIS`.
    for (writer, (next, merged_millis)) in &merged_to {
        if !contents.slots.contains_key(writer) && now.unix_millis - merged_millis < SEAL_KEPT_MILLIS {
            let (writer, next, moved_millis) = (*writer, *next, *merged_millis);
            state.set_log(rows::Log { writer, next, sealed: false, moved_millis }, now.monotonic);
        }
    }
    segments
}

impl Segments {
    /// Adds the segments of one log. `next` is the slot after the last merged one. Returns the row of the log.
    fn add_log(
        &mut self,
        writer: WriterId,
        slots: &BTreeMap<u64, Header>,
        mut next: u64,
        masks: &HashMap<&Key, &[u32]>,
        now: Now,
    ) -> rows::Log {
        let mut last_created = 0;
        for (seq, header) in slots {
            let seq = *seq;
            if seq > next {
                break;
            }
            let masked = masks.get(&Key::log_slot(writer, seq)).copied();
            match (slot_of(writer, seq, header.clone()), masked) {
                (None, _) => {}
                (Some(Slot::Seal), _) => {
                    return rows::Log { writer, next: seq, sealed: true, moved_millis: now.unix_millis };
                }
                (Some(Slot::Data(Data::Segment { directory, .. })), Some(masked)) => {
                    let created_millis = directory.created_millis;
                    last_created = created_millis;
                    let ordinals = directory.keys.iter().enumerate();
                    let kept = ordinals.filter(|(i, _)| masked.binary_search(&(*i as u32)).is_err());
                    let keys = kept.map(|(_, key)| *key).collect();
                    self.merged.insert((writer, seq), MergedSegment { created_millis, keys });
                }
                (Some(Slot::Data(Data::Unreadable(_))), Some(_)) => {}
                (Some(Slot::Data(data)), None) => {
                    if let Data::Segment { directory, .. } = &data {
                        last_created = directory.created_millis;
                    }
                    self.open.push(OpenSegment { created_millis: last_created, writer, seq, data });
                }
            }
            next = next.max(seq + 1);
        }
        rows::Log { writer, next, sealed: false, moved_millis: last_created }
    }
}

/// Adds the jobs of all records in force, and those of their inputs that still exist as dead objects.
fn add_records(contents: &Contents, merged: &MergedSegments, state: &mut State, batch: &mut Batch) {
    for record in contents.lineage.in_force() {
        for (key, _) in record.inputs.iter().filter(|(key, _)| contents.listing.contains(key)) {
            let segment = key.parse_log_slot().and_then(|slot| merged.get(&slot));
            let segment_millis = segment.map(|segment| segment.created_millis);
            let (died_millis, job) = (record.published_millis, Some(record.job));
            let dead = rows::Dead { key: key.clone(), died_millis, job, segment_millis };
            dead.put_into(batch);
            state.add_dead(dead);
        }
        rows::Job {
            id: record.job,
            created_millis: record.published_millis,
            attempt: record.attempt,
            tries: 0,
            floor: 0,
            state: JobProgress::Published { record: None },
        }
        .put_into(batch);
    }
}

/// Buries undone records and their outputs. The inputs hold the data: if a record or its outputs stayed, the next
/// rebuild would find both.
fn bury_undone(contents: &Contents, unix_millis: i64, state: &mut State, batch: &mut Batch) {
    for (index, record) in contents.lineage.undone_records() {
        warn!(job = %record.job, "merge is undone: its outputs are missing, or an earlier merge had its inputs");
        let outputs = record.outputs.iter().map(|output| &output.key);
        let present = outputs.filter(|key| contents.listing.contains(key) && !state.live().contains_key(key));
        let superfluous: Vec<&Key> = present.chain([&contents.listing.records[index].key]).collect();
        for key in superfluous {
            state.bury_unnamed(key.clone(), unix_millis).put_into(batch);
        }
    }
}

/// For each log: the slot after the last one that a record names, and when the newest of these records was made, in
/// Unix milliseconds.
fn merged_to(records: &[Record]) -> BTreeMap<WriterId, (u64, i64)> {
    let mut merged_to: BTreeMap<WriterId, (u64, i64)> = BTreeMap::new();
    for record in records {
        for (writer, seq) in record.inputs.iter().filter_map(|(key, _)| key.parse_log_slot()) {
            let (next, millis) = merged_to.entry(writer).or_default();
            (*next, *millis) = ((*next).max(seq + 1), (*millis).max(record.published_millis));
        }
    }
    merged_to
}

/// The block of an output that exists and cannot be read, made from its key and its record.
fn unreadable_block(output: &Output, header: &Header) -> Option<Block> {
    let Header::Unreadable(reason) = header else {
        return None;
    };
    Some(Block {
        id: output.key.parse_block()?,
        key: output.key.clone(),
        tenant: output.key.parse_block_tenant()?,
        level: output.key.parse_block_place()?.level,
        window: output.window,
        bytes: output.bytes,
        created_millis: output.window.start.saturating_mul(1_000),
        quarantine: Some(Quarantine { reason: reason.clone(), times: output.window.times() }),
        floor: output.floor,
        rows: 0,
    })
}

/// The block of an output, quarantined if it cannot be read; `None` if it is left out.
fn block_of(output: &Output, header: &Header) -> Option<(Block, Vec<DatasetSummary>)> {
    match header {
        Header::Object { bytes, directory } => {
            let block = readable_block(output, *bytes, directory);
            if block.is_none() {
                warn!(block = %output.key, "block belongs to no job and is left out");
            }
            Some((block?, summaries(directory)))
        }
        _ => {
            let block = unreadable_block(output, header);
            match &block {
                Some(_) => {
                    error!(block = %output.key, "block cannot be read: answers over its time are partial");
                }
                None => {
                    warn!(block = %output.key, "block is gone, or is no object of this program, and is left out");
                }
            }
            Some((block?, Vec::new()))
        }
    }
}

fn readable_block(output: &Output, bytes: u64, directory: &block::Directory) -> Option<Block> {
    let block::Origin::Block { job, attempt, part, level } = directory.origin else {
        return None;
    };
    Some(Block {
        id: BlockId { job, attempt, part },
        key: output.key.clone(),
        tenant: directory.datasets.first()?.tenant.clone(),
        level,
        window: output.window,
        bytes,
        created_millis: directory.created_millis,
        quarantine: None,
        floor: output.floor,
        rows: row_count(directory),
    })
}
