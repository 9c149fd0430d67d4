//! Checks that a catalog matches its bucket.
//!
//! Owns: recognising a catalog that is older than its bucket, or newer, as after a restore or in a copy.
//! Does not own: the rebuild that follows (`rebuild`), objects that are lost for good (`reconcile`).
//!
//! Three listings are enough for a sound catalog: every live object is in the bucket, and every block in the bucket
//! that has a publish record is live or dead. Otherwise the publish records are read: they show whether a rebuild
//! would find data that the catalog does not name.

use std::collections::{BTreeMap, BTreeSet};

use catalog::rows::JobProgress;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::{HashMap, HashSet};
use model::{BlockId, JobId};
use storage::{Key, Store};
use tracing::warn;

use crate::error::OpenError;
use crate::lineage::Lineage;
use crate::listing::Listing;
use crate::live::ObjectKind;
use crate::rebuild::read_record;
use crate::record::{Output, Record};
use crate::state::State;

/// Records read at once.
const READS_AT_ONCE: usize = 16;

/// Why the catalog must be rebuilt, in words; `None` if it need not be. `state` is the catalog before it consumed any
/// segment.
pub(crate) async fn reason_to_rebuild(
    store: &Store,
    state: &State,
    listing: &Listing,
    unix_millis: i64,
) -> Result<Option<String>, OpenError> {
    if state.lacks_datasets {
        let reason =
            "an earlier version wrote it, which kept one dataset of those that a service has in a block";
        return Ok(Some(reason.to_owned()));
    }
    let is_missing = |key: &&Key| !listing.contains(key);
    let readable = state.live().iter().filter(|(_, live)| live.index_id.is_some()).map(|(key, _)| key);
    let missing = readable.filter(is_missing).count();
    if missing == 0 && !names_unknown_block(store, state, listing).await? {
        return Ok(None);
    }
    let records = all_records(store, state, listing).await?;
    let lineage = Lineage::trace(records, listing, unix_millis)?;
    // Objects that the catalog holds as merged, but without a record of the merge in the bucket.
    let merged = state.dead().rows().filter(|dead| dead.job.is_some()).map(|dead| &dead.key);
    let unreplaced = merged.filter(|key| listing.contains(key) && !lineage.is_replaced(key));
    let holding = lineage.live_blocks().iter().map(|output| &output.key).chain(lineage.restored());
    let unknown: BTreeSet<&Key> = holding.filter(|key| !is_accounted(state, key)).chain(unreplaced).collect();
    let Some(first) = unknown.first() else {
        return Ok(None);
    };
    Ok(Some(format!(
        "{} objects hold data that the catalog does not name, {first} first, and {missing} that it names are missing",
        unknown.len(),
    )))
}

/// Publish records of live blocks that are missing from the bucket, as in a copy, made from the rows of the catalog: a
/// rebuild would leave their blocks out. The masks of their inputs are no longer known.
pub(crate) fn missing_records(state: &State, listing: &Listing) -> Vec<Record> {
    let listed: HashSet<JobId> =
        listing.records.iter().filter_map(|object| object.key.parse_publish()).collect();
    let is_pending = |job: &JobId| {
        state
            .jobs()
            .get(job)
            .is_some_and(|job| matches!(job.row.state, JobProgress::Published { record: Some(_) }))
    };
    let mut records: BTreeMap<JobId, Record> = BTreeMap::new();
    for (key, live) in state.live().iter() {
        let (Some(BlockId { job, attempt, .. }), ObjectKind::Block { window, .. }) =
            (key.parse_block(), &live.kind)
        else {
            continue;
        };
        if listed.contains(&job) || is_pending(&job) {
            continue;
        }
        let (bytes, window, floor) = (live.bytes, *window, live.floor);
        let record = records.entry(job).or_insert_with(|| Record {
            job,
            attempt,
            published_millis: live.created_millis,
            inputs: Vec::new(),
            outputs: Vec::new(),
            records_deaths: true,
        });
        record.outputs.push(Output { key: key.clone(), bytes, window, floor });
    }
    if !records.is_empty() {
        for dead in state.dead().rows() {
            if let Some(record) = dead.job.and_then(|job| records.get_mut(&job)) {
                record.inputs.push((dead.key.clone(), Vec::new()));
            }
        }
    }
    records.into_values().collect()
}

/// Whether the object is live, or dead without a publish.
fn is_accounted(state: &State, key: &Key) -> bool {
    state.live().contains_key(key) || state.dead().get(key).is_some_and(|dead| dead.job.is_none())
}

/// Whether a publish record names a block of the bucket that the catalog does not name.
async fn names_unknown_block(store: &Store, state: &State, listing: &Listing) -> Result<bool, OpenError> {
    let records: HashMap<JobId, &Key> = listing
        .records
        .iter()
        .filter_map(|object| Some((object.key.parse_publish()?, &object.key)))
        .collect();
    let unnamed = listing.blocks.iter().map(|object| &object.key);
    let unnamed = unnamed.filter(|key| !state.live().contains_key(key) && !state.dead().contains_key(key));
    let unnamed: Vec<(JobId, &Key)> =
        unnamed.filter_map(|key| key.parse_block().map(|block| (block.job, key))).collect();
    let made_by: BTreeSet<Key> =
        unnamed.iter().filter_map(|(job, _)| records.get(job)).map(|key| (*key).clone()).collect();
    let records = read_all(store, made_by.into_iter().collect()).await?;
    let outputs = records.iter().flat_map(|record| &record.outputs);
    let outputs: HashSet<&Key> = outputs.map(|output| &output.key).collect();
    Ok(unnamed.iter().any(|(_, key)| outputs.contains(key)))
}

/// The records of the bucket, and those in the catalog that are not created yet.
async fn all_records(store: &Store, state: &State, listing: &Listing) -> Result<Vec<Record>, OpenError> {
    let keys = listing.records.iter().map(|object| object.key.clone()).collect();
    let mut records = read_all(store, keys).await?;
    let known: HashSet<JobId> = records.iter().map(|record| record.job).collect();
    let pending = state.jobs().values().filter_map(|job| match &job.row.state {
        JobProgress::Published { record: Some(bytes) } if !known.contains(&job.row.id) => {
            Record::decode(bytes).ok()
        }
        _ => None,
    });
    records.extend(pending);
    Ok(records)
}

/// Records that exist and can be read. A rebuild reports those that cannot.
async fn read_all(store: &Store, keys: Vec<Key>) -> Result<Vec<Record>, OpenError> {
    let read = stream::iter(keys).map(|key| async move { read_if_possible(store, &key).await });
    let read: Vec<Option<Record>> = read.buffered(READS_AT_ONCE).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

async fn read_if_possible(store: &Store, key: &Key) -> Result<Option<Record>, OpenError> {
    match read_record(store, key).await {
        Ok(record) => Ok(Some(record)),
        Err(OpenError::Store(storage::Error::NotFound(_))) => Ok(None),
        Err(OpenError::Object { object, reason }) => {
            warn!(%object, reason, "publish record cannot be read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
