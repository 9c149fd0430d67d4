//! Compares the bucket with the catalog, once a day.
//!
//! Owns: finding objects that are not needed, and rows whose object is gone.
//! Does not own: deleting (`sweep` lists the objects buried here, `compactor` deletes them), consuming logs.
//!
//! An object is deleted only on proof, never because no row names it. These are deleted:
//! - a block that is an input of a record, or whose own job has a record that names other outputs;
//! - a block of a job without a record, if its attempt can no longer publish and this catalog was in force before the
//!   block was made;
//! - a slot of a log that continued past it, or that was closed below it.
//!
//! Each must be old by the store's own time: objects of a merge or a put in progress are younger. A block that a record
//! names as its output, and that no record has as an input, shows that the catalog lacks a merge: then no object is
//! deleted, and the catalog is opened anew, which rebuilds it. The object of a deletion needs no age: only this owner
//! makes deletions, and it knows those in progress.

use std::sync::atomic::Ordering;

use catalog::Batch;
use catalog::rows::{JobProgress, Row};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::{HashMap, HashSet};
use model::{BlockId, DAY, JobId, WriterId};
use rpc::{Error, ErrorKind};
use storage::{Key, Object};
use tracing::{error, info, warn};

use crate::Metastore;
use crate::deletions::DeletionObject;
use crate::error::{of_header, of_store};
use crate::header::Header;
use crate::listing::Listing;
use crate::live::LiveObject;
use crate::record::Record;
use crate::state::State;

/// Objects read at once.
const READS_AT_ONCE: usize = 8;
/// Blocks without a record are few and small. A comparison that finds more bytes of them than this, and than
/// `orphan_percent_max` of the live bytes, deletes none of them.
const UNRECORDED_BYTES_MAX: u64 = 4 << 20;
/// A publish record is kept this long: a paused process may still put an object that only its record shows to be
/// superfluous.
const RECORD_KEPT_MILLIS: i64 = 7 * DAY * 1_000;

/// Counts of one comparison.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct ReconcileCounts {
    /// Outputs of attempts that never published, slots without data, deletions that never were in force.
    pub(crate) orphans: usize,
    /// Publish records that a rebuild no longer needs.
    pub(crate) records: usize,
    /// Objects that rows name and the bucket lacks.
    pub(crate) missing: usize,
}

/// Old blocks that no row names and that can no longer be published, by the proof against them.
#[derive(Default)]
struct UnnamedBlocks {
    /// Their job published other outputs, or closed their attempt; or they were merged or have expired.
    superfluous: Vec<Key>,
    /// Without a record, made while this catalog was in force, so their jobs were given up; with their bytes.
    unrecorded: Vec<(Key, u64)>,
    /// Number of blocks without a record that are older than this catalog.
    unknown: usize,
    /// Outputs of a merge that the catalog lacks.
    published: Vec<Key>,
}

impl Metastore {
    /// Buries objects that are not needed, and quarantines live ones that are gone.
    pub(crate) async fn reconcile(&self) -> Result<ReconcileCounts, Error> {
        let named: Vec<Key> = {
            let state = self.state.lock();
            let settled = state.live().iter().filter(|(_, l)| l.is_committed && l.claimed.is_none());
            settled.filter(|(_, live)| live.index_id.is_some()).map(|(key, _)| key.clone()).collect()
        };
        let listing = Listing::read(&self.store).await.map_err(of_store)?;
        let deletions = self.superfluous_deletions().await.map_err(of_store)?;
        let missing = self.missing(named, &listing).await?;
        let records = self.old_records(&listing).await.map_err(of_store)?;
        let unnamed = self.unnamed_blocks(&listing).await.map_err(of_store)?;
        if let Some(first) = unnamed.published.first() {
            let objects = unnamed.published.len();
            // Fails if a successor, which may have published them, has opened the catalog.
            self.check_catalog().await?;
            error!(objects, %first, "the catalog lacks merges that were published: no object is deleted, the catalog is opened anew");
            self.is_outdated.store(true, Ordering::SeqCst);
            self.stop.send_replace(true);
            return Err(Error::new(ErrorKind::Unavailable, "the catalog is older than its bucket"));
        }
        let unrecorded = self.deletable(&unnamed);

        let turn = self.take_turn().await?;
        let unix_millis = self.clock.unix_millis();
        let (batch, found) = {
            let mut state = self.state.lock();
            let mut batch = Batch::default();
            let mut orphans: Vec<&Key> = Vec::new();
            let blocks = unnamed.superfluous.iter().chain(&unrecorded);
            orphans.extend(blocks.filter(|key| is_orphan(&state, key)));
            let old_slots =
                listing.slots.iter().filter(|object| self.is_old(object)).map(|object| &object.key);
            orphans.extend(old_slots.filter(|key| is_without_data(&state, key)));
            orphans.extend(deletions.iter().filter(|key| state.is_superfluous_deletion(key)));
            let records = superfluous_records(&state, &listing, &records);
            let (orphan_count, record_count) = (orphans.len(), records.len());
            for key in orphans.into_iter().chain(records) {
                warn!(%key, "object is not needed, it will be deleted");
                state.bury_unnamed(key.clone(), unix_millis).put_into(&mut batch);
            }
            let mut missing_count = 0;
            for key in &missing {
                let is_settled = |live: &LiveObject| live.claimed.is_none() && live.index_id.is_some();
                if state.live().get(key).is_some_and(is_settled) {
                    error!(%key, "object is gone from the bucket: answers over its time are partial");
                    state.quarantine(key, "it is gone from the bucket".into(), &mut batch);
                    missing_count += 1;
                }
            }
            let found =
                ReconcileCounts { orphans: orphan_count, records: record_count, missing: missing_count };
            self.metrics.count(&state);
            (batch, found)
        };
        self.metrics.objects_orphaned.inc_by(found.orphans as u64);
        self.metrics.objects_missing.inc_by(found.missing as u64);
        if !batch.is_empty() {
            self.commit_in_turn(&turn, batch).await?;
        }
        self.metrics.reconciliations.inc();
        info!(?found, "compared the bucket with the catalog");
        Ok(found)
    }

    /// Objects of deletions that never were, or are no longer, in force.
    async fn superfluous_deletions(&self) -> Result<Vec<Key>, storage::Error> {
        let listed = self.store.list("delete").await?.into_iter().map(|object| object.key);
        let listed: Vec<Key> = {
            let state = self.state.lock();
            listed.filter(|key| state.is_superfluous_deletion(key)).collect()
        };
        let mut superfluous = Vec::new();
        for key in listed {
            let bytes = match self.store.get(&key).await {
                Ok(bytes) => bytes,
                Err(storage::Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            let deletion = DeletionObject::decode(&bytes);
            if !deletion.is_ok_and(|deletion| deletion.is_of_another_cluster(&self.store)) {
                superfluous.push(key);
            }
        }
        Ok(superfluous)
    }

    fn is_old(&self, object: &Object) -> bool {
        let age = self.clock.unix_millis() - object.modified_millis;
        age > self.config.orphan_grace.get().as_millis() as i64
    }

    /// Sorts the old blocks that no row names by the proof against them.
    async fn unnamed_blocks(&self, listing: &Listing) -> Result<UnnamedBlocks, storage::Error> {
        let candidates: Vec<&Object> = {
            let state = self.state.lock();
            let old = listing.blocks.iter().filter(|object| self.is_old(object));
            old.filter(|object| is_orphan(&state, &object.key)).collect()
        };
        let record_keys: HashMap<JobId, &Key> = listing
            .records
            .iter()
            .filter_map(|object| Some((object.key.parse_publish()?, &object.key)))
            .collect();
        let slack = self.config.dedup_slack.get().as_millis() as i64;
        let mut unnamed = UnnamedBlocks::default();
        let mut outputs = Vec::new();
        for object in candidates {
            let Some(BlockId { job, .. }) = object.key.parse_block() else {
                continue;
            };
            let record = match record_keys.get(&job) {
                Some(key) => self.read_record((*key).clone()).await?,
                None => None,
            };
            let (is_known, founded) = {
                let state = self.state.lock();
                (state.jobs().contains_key(&job), state.founded_millis)
            };
            match record {
                Some((_, record)) if record.outputs.iter().any(|output| output.key == object.key) => {
                    outputs.push(object.key.clone());
                }
                Some(_) => unnamed.superfluous.push(object.key.clone()),
                None if record_keys.contains_key(&job) => unnamed.unknown += 1,
                None if is_known => unnamed.superfluous.push(object.key.clone()),
                None if self.is_made_after(object, founded.map(|founded| founded + slack)).await => {
                    unnamed.unrecorded.push((object.key.clone(), object.bytes));
                }
                None if self.is_expired(&object.key) => unnamed.superfluous.push(object.key.clone()),
                None => unnamed.unknown += 1,
            }
        }
        if !outputs.is_empty() {
            // A put may come back after the sweep: then a record has the block as an input, of a merge or of its
            // expiry.
            let keys: Vec<Key> = listing.records.iter().map(|object| object.key.clone()).collect();
            let read = stream::iter(keys).map(|key| self.read_record(key));
            let records: Vec<Option<_>> = read.buffered(READS_AT_ONCE).try_collect().await?;
            let inputs = records.iter().flatten().flat_map(|(_, record)| &record.inputs);
            let merged: HashSet<&Key> = inputs.map(|(key, _)| key).collect();
            let (merged, published) = outputs.into_iter().partition(|key| merged.contains(key));
            unnamed.superfluous.extend::<Vec<Key>>(merged);
            unnamed.published = published;
        }
        Ok(unnamed)
    }

    /// Whether a block was made after `millis` by its own header: the store's times change when a bucket is moved.
    async fn is_made_after(&self, object: &Object, millis: Option<i64>) -> bool {
        let Some(millis) = millis else {
            return true;
        };
        match self.headers.read(&object.key, Some(object.bytes)).await {
            Ok(Header::Object { directory, .. }) => directory.created_millis > millis,
            _ => false,
        }
    }

    /// Whether all data that the block can hold are expired.
    fn is_expired(&self, block: &Key) -> bool {
        let Some((tenant, place)) = block.parse_block_tenant().zip(block.parse_block_place()) else {
            return false;
        };
        place.window.times().last < self.kept_from(&tenant, None)
    }

    /// Blocks without a record that may be deleted: all, or none if they have too many bytes.
    fn deletable(&self, unnamed: &UnnamedBlocks) -> Vec<Key> {
        if unnamed.unknown > 0 {
            let blocks = unnamed.unknown;
            info!(blocks, "blocks without a publish record are older than this catalog, and are left alone");
        }
        let bytes: u64 = unnamed.unrecorded.iter().map(|(_, bytes)| bytes).sum();
        let live_bytes: u64 = self.state.lock().live().totals().map(|(_, total)| total.bytes).sum();
        let percent = u64::from(self.config.orphan_percent_max);
        let limit = (live_bytes / 100).saturating_mul(percent).max(UNRECORDED_BYTES_MAX);
        let is_too_much = bytes > limit && percent < 100;
        self.metrics.comparison_stopped.set(i64::from(is_too_much));
        if is_too_much {
            let blocks = unnamed.unrecorded.len();
            error!(
                blocks,
                bytes,
                limit,
                "too many blocks have no publish record, none is deleted: look for a folder publish/ that is not whole; \
                 -metastore.orphan-percent-max=100 deletes them"
            );
            return Vec::new();
        }
        unnamed.unrecorded.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Keys of `named` that are not in the bucket, neither in the listing nor by a request for each.
    async fn missing(&self, mut named: Vec<Key>, listing: &Listing) -> Result<Vec<Key>, Error> {
        named.retain(|key| !listing.contains(key));
        let asked = stream::iter(named).map(|key| self.if_absent(key));
        let missing: Vec<Option<Key>> = asked.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(missing.into_iter().flatten().collect())
    }

    async fn if_absent(&self, key: Key) -> Result<Option<Key>, Error> {
        let header = self.headers.read(&key, None).await.map_err(of_header)?;
        Ok(matches!(header, Header::Absent).then_some(key))
    }

    /// Publish records that are old enough to be deleted.
    async fn old_records(&self, listing: &Listing) -> Result<Vec<(Key, Record)>, storage::Error> {
        let unix_millis = self.clock.unix_millis();
        let is_old = |object: &&Object| unix_millis - object.modified_millis > RECORD_KEPT_MILLIS;
        let old: Vec<Key> = listing.records.iter().filter(is_old).map(|object| object.key.clone()).collect();
        let read = stream::iter(old).map(|key| self.read_record(key));
        let records: Vec<Option<_>> = read.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// `None` if the record is gone, or cannot be decoded: then it stays.
    async fn read_record(&self, key: Key) -> Result<Option<(Key, Record)>, storage::Error> {
        match self.store.get(&key).await {
            Ok(bytes) => Ok(Record::decode(&bytes).ok().map(|record| (key, record))),
            Err(storage::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether no row names a block, and its attempt can no longer publish. The block may still hold data that count if the
/// catalog lacks a merge.
pub(crate) fn is_orphan(state: &State, key: &Key) -> bool {
    let Some(BlockId { job, attempt, .. }) = key.parse_block() else {
        return false;
    };
    if state.live().contains_key(key) || state.dead().contains_key(key) {
        return false;
    }
    state.jobs().get(&job).is_none_or(|job| {
        let is_open = matches!(job.row.state, JobProgress::Working { open: true, .. });
        !is_open || job.row.attempt != attempt
    })
}

/// Whether a slot is neither data nor a seal: it is above the seal of its log, or was swept before.
fn is_without_data(state: &State, key: &Key) -> bool {
    let Some((writer, seq)) = key.parse_log_slot() else {
        return false;
    };
    let Some(log) = state.logs().get(&writer) else {
        return false;
    };
    let is_known = state.live().contains_key(key) || state.dead().contains_key(key);
    !is_known && (seq < log.row.next || (log.row.sealed && seq > log.row.next))
}

/// Records that a rebuild does not need: all objects they name are gone, no record of a job that made their inputs is
/// left, and for each log that still exists another record names a later slot.
fn superfluous_records<'a>(state: &State, listing: &Listing, records: &'a [(Key, Record)]) -> Vec<&'a Key> {
    let recorded: HashSet<JobId> = listing.records.iter().filter_map(|o| o.key.parse_publish()).collect();
    let logs: HashSet<WriterId> =
        listing.keys().filter_map(|key| key.parse_log_slot()).map(|(w, _)| w).collect();
    let mut last_slots: HashMap<WriterId, (u64, JobId)> = HashMap::new();
    for (_, record) in records {
        for (writer, seq) in record.inputs.iter().filter_map(|(key, _)| key.parse_log_slot()) {
            let last = last_slots.entry(writer).or_insert((seq, record.job));
            *last = (*last).max((seq, record.job));
        }
    }
    let is_gone = |key: &Key| {
        !listing.contains(key) && !state.live().contains_key(key) && !state.dead().contains_key(key)
    };
    let is_needed = |record: &Record, input: &Key| match (input.parse_log_slot(), input.parse_block()) {
        (Some((writer, _)), _) => {
            let lives = logs.contains(&writer) || state.logs().contains_key(&writer);
            lives && last_slots.get(&writer).is_some_and(|(_, job)| *job == record.job)
        }
        (None, Some(BlockId { job, .. })) => recorded.contains(&job),
        (None, None) => true,
    };
    let superfluous = records.iter().filter(|(key, record)| {
        !state.jobs().contains_key(&record.job)
            && !state.dead().contains_key(key)
            && record.outputs.iter().all(|output| is_gone(&output.key))
            && record.inputs.iter().all(|(input, _)| is_gone(input) && !is_needed(record, input))
    });
    superfluous.map(|(key, _)| key).collect()
}
