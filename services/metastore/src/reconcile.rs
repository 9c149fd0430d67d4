//! Compares the bucket with the catalog, once a day.
//!
//! Owns: which objects nobody needs, which rows have lost their object.
//! Does not own: deleting (`sweep` lists what is buried here, `compactor` deletes it), consuming logs.
//!
//! Only what was there before the look at the catalog and is old by the store's own time is judged:
//! a merge or a put that is under way is younger. An object of a log that is no slot's yet is never
//! judged by age, it is data that `consume` has not met. An order to delete needs no age: what is under
//! way is this owner's, which knows it.

use catalog::Batch;
use catalog::rows::{JobState as Progress, Row};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::{HashMap, HashSet};
use model::{JobId, WriterId};
use rpc::Error;
use storage::{Key, Object};
use tracing::{error, info, warn};

use crate::Metastore;
use crate::error::{of_header, of_store};
use crate::header::Header;
use crate::live::Live;
use crate::orders;
use crate::record::Record;
use crate::state::State;

/// Objects read at once.
const READS_AT_ONCE: usize = 8;
/// A publish record outlives what it tells of by so much that no paused process can bring that back.
const RECORD_KEPT_MILLIS: i64 = 7 * 24 * 3_600_000;

/// What one comparison found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Reconciled {
    /// Outputs of attempts that never published, slots that are no data, orders that never were in force.
    pub(crate) orphans: usize,
    /// Publish records that tell of nothing any more.
    pub(crate) records: usize,
    /// Objects that rows name and the bucket lacks.
    pub(crate) missing: usize,
}

/// The bucket, as it was listed.
struct Listing {
    blocks: Vec<Object>,
    slots: Vec<Object>,
    records: Vec<Object>,
    orders: Vec<Object>,
    keys: HashSet<Key>,
}

impl Metastore {
    /// Buries what nobody needs, and quarantines what is gone.
    pub(crate) async fn reconcile(&self) -> Result<Reconciled, Error> {
        let named: Vec<Key> = {
            let state = self.state.lock();
            let settled = state.live.iter().filter(|(_, l)| l.is_committed && l.claimed.is_none());
            settled.filter(|(_, live)| live.id.is_some()).map(|(key, _)| key.clone()).collect()
        };
        let listing = self.list_bucket().await.map_err(of_store)?;
        let missing = self.missing(named, &listing).await?;
        let records = self.old_records(&listing).await.map_err(of_store)?;

        let turn = self.take_turn().await?;
        let unix_millis = self.clock.unix_millis();
        let (batch, found) = {
            let mut state = self.state.lock();
            let mut batch = Batch::default();
            let mut orphans: Vec<&Key> = Vec::new();
            let orphan_millis = self.config.orphan_grace.0.as_millis() as i64;
            let is_old = |object: &&Object| unix_millis - object.modified_millis > orphan_millis;
            orphans.extend(
                listing.blocks.iter().filter(is_old).map(|o| &o.key).filter(|k| is_orphan(&state, k)),
            );
            orphans.extend(
                listing.slots.iter().filter(is_old).map(|o| &o.key).filter(|k| is_no_data(&state, k)),
            );
            orphans
                .extend(listing.orders.iter().map(|o| &o.key).filter(|k| orders::is_superfluous(&state, k)));
            let records = superfluous(&state, &listing, &records);
            let (orphan_count, record_count) = (orphans.len(), records.len());
            for key in orphans.into_iter().chain(records) {
                warn!(%key, "nobody needs this object, it will be deleted");
                state.bury_unnamed(key.clone(), unix_millis).put_into(&mut batch);
            }
            let mut missing_count = 0;
            for key in &missing {
                let is_settled = |live: &Live| live.claimed.is_none() && live.id.is_some();
                if state.live.get(key).is_some_and(is_settled) {
                    error!(%key, "object is gone from the bucket: answers over its time are partial");
                    state.quarantine(key, "it is gone from the bucket".into(), &mut batch);
                    missing_count += 1;
                }
            }
            let found = Reconciled { orphans: orphan_count, records: record_count, missing: missing_count };
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

    async fn list_bucket(&self) -> Result<Listing, storage::Error> {
        let blocks = self.store.list("block").await?;
        let slots = self.store.list("log").await?;
        let records = self.store.list("publish").await?;
        let orders = self.store.list("delete").await?;
        let keys = blocks.iter().chain(&slots).map(|object| object.key.clone()).collect();
        Ok(Listing { blocks, slots, records, orders, keys })
    }

    /// Those of `named` that the bucket lacks, by the listing and by asking for each.
    async fn missing(&self, mut named: Vec<Key>, listing: &Listing) -> Result<Vec<Key>, Error> {
        named.retain(|key| !listing.keys.contains(key));
        let asked = stream::iter(named).map(|key| self.if_absent(key));
        let missing: Vec<Option<Key>> = asked.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(missing.into_iter().flatten().collect())
    }

    async fn if_absent(&self, key: Key) -> Result<Option<Key>, Error> {
        let header = self.headers.read(&key, None).await.map_err(of_header)?;
        Ok(matches!(header, Header::Absent).then_some(key))
    }

    /// Publish records that are old enough to go.
    async fn old_records(&self, listing: &Listing) -> Result<Vec<(Key, Record)>, storage::Error> {
        let unix_millis = self.clock.unix_millis();
        let is_old = |object: &&Object| unix_millis - object.modified_millis > RECORD_KEPT_MILLIS;
        let old: Vec<Key> = listing.records.iter().filter(is_old).map(|object| object.key.clone()).collect();
        let read = stream::iter(old).map(|key| self.read_record(key));
        let records: Vec<Option<_>> = read.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// `None` if the record is gone, or cannot be read: then it stays.
    async fn read_record(&self, key: Key) -> Result<Option<(Key, Record)>, storage::Error> {
        match self.store.get(&key).await {
            Ok(bytes) => Ok(Record::decode(&bytes).ok().map(|record| (key, record))),
            Err(storage::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a block will never be live: nothing names it, and its attempt can no longer publish.
pub(crate) fn is_orphan(state: &State, key: &Key) -> bool {
    let Some((job, attempt, _)) = key.parse_block() else {
        return false;
    };
    if state.live.contains_key(key) || state.dead.contains_key(key) {
        return false;
    }
    state.jobs.get(&job).is_none_or(|job| {
        let is_open = matches!(job.row.state, Progress::Working { open: true, .. });
        !is_open || job.row.attempt != attempt
    })
}

/// Whether a slot is neither data nor a seal: it lies above the seal of its log, or was swept before.
fn is_no_data(state: &State, key: &Key) -> bool {
    let Some((writer, seq)) = key.parse_log_slot() else {
        return false;
    };
    let Some(log) = state.logs.get(&writer) else {
        return false;
    };
    let is_known = state.live.contains_key(key) || state.dead.contains_key(key);
    !is_known && (seq < log.row.next || (log.row.sealed && seq > log.row.next))
}

/// Records of which a rebuild needs nothing: all that they name is gone, no record is left that made
/// their inputs, and another says of each log that lives on up to where it was swept.
fn superfluous<'a>(state: &State, listing: &Listing, records: &'a [(Key, Record)]) -> Vec<&'a Key> {
    let recorded: HashSet<JobId> = listing.records.iter().filter_map(|o| o.key.parse_publish()).collect();
    let logs: HashSet<WriterId> =
        listing.keys.iter().filter_map(|key| key.parse_log_slot()).map(|(w, _)| w).collect();
    let mut last_slots: HashMap<WriterId, (u64, JobId)> = HashMap::new();
    for (_, record) in records {
        for (writer, seq) in record.inputs.iter().filter_map(|(key, _)| key.parse_log_slot()) {
            let last = last_slots.entry(writer).or_insert((seq, record.job));
            *last = (*last).max((seq, record.job));
        }
    }
    let is_gone = |key: &Key| {
        !listing.keys.contains(key) && !state.live.contains_key(key) && !state.dead.contains_key(key)
    };
    let is_needed = |record: &Record, input: &Key| match (input.parse_log_slot(), input.parse_block()) {
        (Some((writer, _)), _) => {
            let lives = logs.contains(&writer) || state.logs.contains_key(&writer);
            lives && last_slots.get(&writer).is_some_and(|(_, job)| *job == record.job)
        }
        (None, Some((job, ..))) => recorded.contains(&job),
        (None, None) => true,
    };
    let superfluous = records.iter().filter(|(key, record)| {
        !state.jobs.contains_key(&record.job)
            && !state.dead.contains_key(key)
            && record.outputs.iter().all(|output| is_gone(&output.key))
            && record.inputs.iter().all(|(input, _)| is_gone(input) && !is_needed(record, input))
    });
    superfluous.map(|(key, _)| key).collect()
}
