//! Makes the catalog anew from the bucket alone.
//!
//! Owns: what publish records, headers and keys of objects add up to.
//! Does not own: the rows (`state`), putting the new catalog in force (`catalog::numbered`).
//!
//! Live blocks are the outputs of publish records that no other record has as input; live segments are the data
//! of logs that no record has as input. What was masked stays masked; the rest is decided anew, in
//! the order of creation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use catalog::rows::{self, Block, BlockId, JobState as Progress, Quarantine, Row, Segment};
use catalog::{Batch, Catalog, Numbered, numbered};
use clock::Clock;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::{HashMap, HashSet};
use model::{ItemKey, WriterId};
use storage::{Key, Object, Store};
use tracing::{error, warn};

use crate::config::Config;
use crate::consume::slot_of;
use crate::delete::{read_orders, unreadable_order};
use crate::error::OpenError;
use crate::header::{Bucket, Header, Headers};
use crate::orders::{self, OrderObject};
use crate::record::Record;
use crate::state::{Data, Slot, State, put_block, rows_of, summaries};

/// Objects read at once.
const READS_AT_ONCE: usize = 16;
/// A catalog written to more recently than this has an owner.
const ALIVE_MILLIS: i64 = 60_000;
/// Most changes of one commit.
const CHANGES_MAX: usize = 10_000;

/// What a rebuilt catalog names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    pub logs: usize,
    pub segments: usize,
    pub blocks: usize,
    pub dead: usize,
}

impl fmt::Display for Rebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logs, segments, blocks, dead } = self;
        write!(
            f,
            "rebuilt the catalog: {segments} segments of {logs} logs, {blocks} blocks, {dead} dead objects"
        )
    }
}

/// Replaces the catalog of `store` by one made from its objects.
///
/// # Errors
/// `Alive` if the catalog was written to within the last minute, unless `force` is set: then its owner
/// is fenced. An object that cannot be read is quarantined, not an error; a publish record is.
pub async fn rebuild(store: &Store, clock: &Clock, force: bool) -> Result<Rebuilt, OpenError> {
    rebuild_with(store, clock, &Bucket::new(store.clone()), &Config::default(), force).await
}

pub(crate) async fn rebuild_with(
    store: &Store,
    clock: &Clock,
    headers: &dyn Headers,
    config: &Config,
    force: bool,
) -> Result<Rebuilt, OpenError> {
    if !force {
        refuse_if_alive(store, clock).await?;
    }
    let engine = Numbered::new(store.clone(), clock.clone(), numbered::Options::default());
    let rebuilding = engine.rebuild().await?;
    let bucket = read_bucket(store, headers).await?;
    let (mut state, mut batch) = assemble(bucket, config, clock)?;
    let rebuilt = Rebuilt {
        logs: state.logs.len(),
        segments: state.live.segment_count(),
        blocks: state.live.block_count(),
        dead: state.dead.len(),
    };
    let window_millis = (config.dedup_window.0 + config.dedup_slack.0).as_millis() as i64;
    let (rows, _) = state.take_pending(window_millis, clock.unix_millis());
    batch.changes.extend(rows.changes);
    commit(rebuilding.catalog(), batch).await?;
    rebuilding.replace().await?;
    Ok(rebuilt)
}

async fn refuse_if_alive(store: &Store, clock: &Clock) -> Result<(), OpenError> {
    let files = store.list("catalog").await?;
    let newest = files.iter().map(|file| file.modified_millis).max();
    let age = newest.map_or(i64::MAX, |newest| clock.unix_millis().saturating_sub(newest));
    match age {
        ..ALIVE_MILLIS => Err(OpenError::Alive { seconds: age / 1_000 }),
        _ => Ok(()),
    }
}

async fn commit(catalog: &dyn Catalog, batch: Batch) -> Result<(), OpenError> {
    for changes in batch.changes.chunks(CHANGES_MAX) {
        catalog.commit(Batch { changes: changes.to_vec() }).await?;
    }
    Ok(())
}

/// All that the bucket says.
struct Found {
    records: Vec<(Record, i64)>,
    /// Headers of slots and of live blocks.
    slots: BTreeMap<WriterId, BTreeMap<u64, Header>>,
    blocks: Vec<(crate::record::Output, Header)>,
    /// Inputs of records that are still in the bucket.
    present: HashSet<Key>,
    orders: Vec<OrderObject>,
}

async fn read_bucket(store: &Store, headers: &dyn Headers) -> Result<Found, OpenError> {
    let records: Vec<(Record, i64)> = stream::iter(store.list("publish").await?)
        .map(|object| read_record(store, object))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let used: HashSet<Key> =
        records.iter().flat_map(|(r, _)| r.inputs.iter().map(|(key, _)| key.clone())).collect();
    let mut present: HashSet<Key> = HashSet::new();
    let mut slots: BTreeMap<WriterId, BTreeMap<u64, Header>> = BTreeMap::new();
    let listed = store.list("log").await?.into_iter();
    let mut read = stream::iter(listed.filter_map(|o| o.key.parse_log_slot().map(|slot| (o, slot))))
        .map(|(object, slot)| async move {
            Ok::<_, OpenError>((
                object.key.clone(),
                slot,
                headers.read(&object.key, Some(object.bytes)).await?,
            ))
        })
        .buffered(READS_AT_ONCE);
    while let Some((key, (writer, seq), header)) = read.try_next().await? {
        if used.contains(&key) {
            present.insert(key);
        }
        slots.entry(writer).or_default().insert(seq, header);
    }
    drop(read);
    let in_bucket: HashSet<Key> = store.list("block").await?.into_iter().map(|o| o.key).collect();
    present.extend(in_bucket.iter().filter(|key| used.contains(*key)).cloned());
    // An output that is gone was past its time.
    let live = records.iter().flat_map(|(record, _)| &record.outputs);
    let live = live.filter(|o| !used.contains(&o.key) && in_bucket.contains(&o.key)).cloned();
    let blocks: Vec<_> = stream::iter(live.collect::<Vec<_>>())
        .map(|output| async move {
            let header = headers.read(&output.key, Some(output.bytes)).await?;
            Ok::<_, OpenError>((output, header))
        })
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let orders = read_orders(store).await?;
    Ok(Found { records, slots, blocks, present, orders })
}

async fn read_record(store: &Store, object: Object) -> Result<(Record, i64), OpenError> {
    let bytes = store.get(&object.key).await?;
    let record = Record::decode(&bytes)
        .map_err(|e| OpenError::Object { object: object.key.to_string(), reason: e.to_string() })?;
    Ok((record, object.modified_millis))
}

fn assemble(found: Found, config: &Config, clock: &Clock) -> Result<(State, Batch), OpenError> {
    let window_millis = (config.dedup_window.0 + config.dedup_slack.0).as_millis() as i64;
    let mut state = State::new(config);
    let mut batch = Batch::default();
    let (now, unix_millis) = (clock.monotonic(), clock.unix_millis());
    for (number, OrderObject { row, .. }) in orders::settle(found.orders) {
        row.put_into(&mut batch);
        state.orders.load(row, 0).map_err(|reason| unreadable_order(number, reason))?;
    }
    let masks: HashMap<&Key, &[u32]> =
        found.records.iter().flat_map(|(r, _)| r.inputs.iter().map(|(k, m)| (k, &m[..]))).collect();
    for (output, header) in &found.blocks {
        let Header::Object { bytes, directory } = header else {
            match unreadable_block(output, header) {
                Some(block) => {
                    error!(block = %output.key, "block cannot be read: answers over its time are partial");
                    put_block(&block, &[], &mut batch);
                    state.add_block(&block, Vec::new());
                }
                None => warn!(block = %output.key, "block is gone, or was none of ours, and is left out"),
            }
            continue;
        };
        let Some(block) = block_of(output, *bytes, directory) else {
            warn!(block = %output.key, "block belongs to no job and is left out");
            continue;
        };
        put_block(&block, &summaries(directory), &mut batch);
        state.add_block(&block, summaries(directory));
    }
    let mut created: HashMap<Key, i64> = HashMap::new();
    let mut counted: Vec<(i64, Vec<ItemKey>)> = Vec::new();
    let mut open: Vec<(i64, WriterId, u64, Data)> = Vec::new();
    for (writer, slots) in found.slots {
        let recorded: BTreeSet<u64> = masks
            .keys()
            .filter_map(|key| key.parse_log_slot())
            .filter(|(w, _)| *w == writer)
            .map(|(_, seq)| seq)
            .collect();
        // What was recorded may be swept: a gap below it is no gap.
        let solid = recorded.last().map_or(0, |last| last + 1);
        let mut next = solid;
        let mut is_sealed = false;
        let mut last_created = 0;
        for (seq, header) in slots {
            if seq > next {
                break;
            }
            let key = Key::log_slot(writer, seq);
            match slot_of(writer, seq, header) {
                None => {}
                Some(Slot::Seal) => {
                    is_sealed = true;
                    next = seq;
                    break;
                }
                Some(Slot::Data(Data::Segment { directory, .. })) if recorded.contains(&seq) => {
                    last_created = directory.created_millis;
                    created.insert(key.clone(), directory.created_millis);
                    let masked = masks.get(&key).copied().unwrap_or_default();
                    let ordinals = directory.keys.iter().enumerate();
                    let kept = ordinals.filter(|(i, _)| masked.binary_search(&(*i as u32)).is_err());
                    counted.push((directory.created_millis, kept.map(|(_, key)| *key).collect()));
                }
                Some(_) if recorded.contains(&seq) => {}
                Some(Slot::Data(data)) => {
                    if let Data::Segment { directory, .. } = &data {
                        last_created = directory.created_millis;
                    }
                    open.push((last_created, writer, seq, data));
                }
            }
            next = next.max(seq + 1);
        }
        let log = state.log(writer, now);
        let moved_millis = if is_sealed { unix_millis } else { last_created };
        log.row = rows::Log { writer, next, sealed: is_sealed, moved_millis };
        state.pending.logs.insert(writer);
    }
    // What was merged has been counted, whenever it was created.
    for (created_millis, keys) in counted {
        state.count(&keys, created_millis);
    }
    // What an order erased was consumed before what came after it, and a resend of it must not count instead.
    open.sort_by_key(|(created_millis, writer, seq, _)| {
        (state.orders.floor_of(*writer, *seq), *created_millis, *writer, *seq)
    });
    for (created_millis, writer, seq, data) in open {
        // Keys are counted again after the window, as they were the first time.
        state.forget_keys_before(created_millis - window_millis);
        let segment = state.segment_of(writer, seq, data, created_millis, unix_millis);
        add(&mut state, segment);
    }
    for (record, _) in &found.records {
        for (key, _) in record.inputs.iter().filter(|(key, _)| found.present.contains(key)) {
            let segment_millis = created.get(key).copied();
            let (died_millis, job) = (record.published_millis, Some(record.job));
            let dead = rows::Dead { key: key.clone(), died_millis, job, segment_millis };
            dead.put_into(&mut batch);
            state.dead.insert(dead);
        }
        rows::Job {
            id: record.job,
            created_millis: record.published_millis,
            attempt: record.attempt,
            tries: 0,
            floor: 0,
            state: Progress::Published { record: None },
        }
        .put_into(&mut batch);
    }
    Ok((state, batch))
}

fn add(state: &mut State, segment: Segment) {
    state.add_segment(&segment, false);
    state.pending.segments.push(segment);
}

/// An output that is there and cannot be read, by its key and its record.
fn unreadable_block(output: &crate::record::Output, header: &Header) -> Option<Block> {
    let Header::Unreadable(reason) = header else {
        return None;
    };
    let (job, attempt, part) = output.key.parse_block()?;
    let (tenant, level) = output.key.parse_block_place()?;
    let (start, length) = output.window;
    Some(Block {
        id: BlockId { job, attempt, part },
        key: output.key.clone(),
        tenant,
        level,
        window: output.window,
        bytes: output.bytes,
        created_millis: start.saturating_mul(1_000),
        quarantine: Some(Quarantine {
            reason: reason.clone(),
            time_min: start.saturating_mul(1_000_000_000),
            time_max: start.saturating_add(length).saturating_mul(1_000_000_000),
        }),
        floor: output.floor,
        rows: 0,
    })
}

fn block_of(output: &crate::record::Output, bytes: u64, directory: &block::Directory) -> Option<Block> {
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
        rows: rows_of(directory),
    })
}
