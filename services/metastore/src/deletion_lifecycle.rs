//! The life of a deletion: made, applied by merges, finished.
//!
//! Owns: when a deletion is durable and in force, when its data are gone from the bucket, forgetting its selector.
//! Does not own: which objects still need it (`deletions`, `state/erasure`), rewriting (`plan`, `compactor`), deleting
//! objects (`compactor`).
//!
//! A deletion erases rows that were stored before it: the logs are consumed to their ends first, and these ends are
//! part of the deletion. From its commit on, every find returns it with the objects that it touches, and merges apply
//! it. Once no live object needs it and the dead ones are swept, a hash replaces its selector.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use catalog::Batch;
use catalog::rows::{self, Dead, DeletionState, Row};
use futures::{StreamExt, TryStreamExt, stream};
use model::{TenantId, WriterId};
use parking_lot::Mutex;
use query::Deletion;
use rpc::{DeleteRequest, DeletionProgress, DeletionStatus, Error, ErrorKind};
use storage::{CreateOutcome, Key};
use tracing::{info, warn};

use crate::deletions::{self, DeletionInForce, DeletionObject};
use crate::error::{OpenError, of_header, of_store};
use crate::reconcile::is_orphan;
use crate::state::State;
use crate::{Metastore, header};

/// Most deletions of one tenant that live objects need: a find compares each with every object of the tenant it
/// returns.
pub(crate) const DELETIONS_MAX: usize = 100;
/// Most deletions of one tenant that no live object needs. They have a limit of their own, so that deletions without
/// effect do not use up the other one.
pub(crate) const UNNEEDED_MAX: usize = 200;
/// Most finished deletions in one list.
const FINISHED_LISTED_MAX: usize = 100;
/// Logs or deletions read at once.
const READS_AT_ONCE: usize = 8;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The number of a deletion that is not in force yet. Dropping it gives the number up, unless the object of the
/// deletion may be in the bucket: then the next owner puts the deletion in force, and no merge may count it as
/// applied.
struct Reservation<'a> {
    state: &'a Mutex<State>,
    object: DeletionObject,
    deletion: Arc<Deletion>,
    may_be_durable: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.may_be_durable {
            self.state.lock().deletions.give_up(self.object.row.number);
        }
    }
}

impl Metastore {
    /// Makes a deletion. When this returns, no answer that starts later contains the rows that it erases.
    pub(crate) async fn make_deletion(
        self: Arc<Self>,
        request: DeleteRequest,
    ) -> Result<DeletionStatus, Error> {
        if request.selector.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a deletion needs at least one matcher"));
        }
        if request.range.start >= request.range.end {
            return Err(Error::new(ErrorKind::InvalidArgument, "the time range of the deletion is empty"));
        }
        self.ensure_owner().await?;
        self.consume_all().await.map_err(of_header)?;
        // The next commit is the deletion, together with all pending steps.
        let turn = self.take_turn().await?;
        self.check_catalog().await?;
        let reservation = loop {
            let mut reservation = self.reserve_deletion(&request)?;
            if self.create_deletion(&mut reservation).await? == CreateOutcome::Mine {
                break reservation;
            }
            // The object belongs to an owner that was replaced before it could commit, or to this owner's successor.
            warn!(
                deletion = reservation.object.row.number,
                "a deletion of an earlier owner has this number, taking the next"
            );
            drop(reservation);
            self.check_catalog().await?;
        };
        let row = &reservation.object.row;
        let (mut batch, segments) = self.take_pending();
        row.put_into(&mut batch);
        self.commit_in_turn(&turn, batch).await?;
        let mut state = self.state.lock();
        state.are_committed(&segments);
        state.deletions.made(row.number);
        self.metrics.deletions.inc();
        self.metrics.count(&state);
        state.update_unswept();
        info!(deletion = row.number, tenant = %row.tenant, "deletion is in force");
        Ok(status(&state, &reservation.deletion, row.created_millis))
    }

    /// Reserves the next number for a deletion of the rows consumed until now.
    fn reserve_deletion(&self, request: &DeleteRequest) -> Result<Reservation<'_>, Error> {
        let mut state = self.state.lock();
        let deletion = Deletion {
            number: state.deletions.last() + 1,
            tenant: request.tenant.clone(),
            selector: request.selector.clone(),
            range: request.range,
        };
        let is_needed = state.touched_by(&deletion).next().is_some();
        let (limit, kind_of_deletion) = match is_needed {
            true => (DELETIONS_MAX, "that live objects need"),
            false => (UNNEEDED_MAX, "that match no stored data, or only objects that wait to be swept,"),
        };
        if state.deletions.count_of(&request.tenant, is_needed) >= limit {
            let message = format!(
                "{limit} deletions of tenant {} {kind_of_deletion} are not finished, which is the limit",
                request.tenant
            );
            let kind = ErrorKind::Exhausted { retry_after: Duration::from_secs(60) };
            return Err(Error::new(kind, message));
        }
        let positions = state.logs().values().map(|log| (log.row.writer, log.row.next)).collect();
        let row = rows::Deletion {
            number: deletion.number,
            tenant: deletion.tenant,
            created_millis: self.clock.unix_millis(),
            state: DeletionState::InForce {
                matchers: deletions::matchers_of(&request.selector),
                range: request.range,
                positions,
            },
        };
        let deletion = state.deletions.add(row.clone(), false);
        let deletion = deletion.map_err(|reason| Error::new(ErrorKind::InvalidArgument, reason))?;
        let object = DeletionObject { epoch: self.catalog.epoch(), id_tag: self.store.id_tag(), row };
        Ok(Reservation { state: &self.state, object, deletion, may_be_durable: false })
    }

    /// Consumes every segment that was acknowledged before the call.
    async fn consume_all(&self) -> Result<(), header::Error> {
        let folders = self.store.list_folders("log").await?;
        let now = self.clock.monotonic();
        let open: BTreeSet<WriterId> = {
            let mut state = self.state.lock();
            for writer in folders.iter().filter_map(Key::parse_log_folder) {
                state.log(writer, now);
            }
            state.logs().values().filter(|log| !log.row.sealed).map(|log| log.row.writer).collect()
        };
        let probes = stream::iter(open).map(|writer| self.probe(writer)).buffer_unordered(READS_AT_ONCE);
        probes.try_collect::<()>().await
    }

    /// Creates the object of a deletion, however long that takes: a deletion in doubt must not be followed by another
    /// one.
    async fn create_deletion(&self, reservation: &mut Reservation<'_>) -> Result<CreateOutcome, Error> {
        let (key, bytes) = (reservation.object.key(), reservation.object.encode());
        reservation.may_be_durable = true;
        loop {
            match self.store.settle_create(&key, bytes.clone()).await {
                Ok(created) => {
                    reservation.may_be_durable = created == CreateOutcome::Mine;
                    return Ok(created);
                }
                Err(error) => warn!(%key, %error, "a deletion is in doubt, asking again"),
            }
            if !self.pause(RETRY_PAUSE).await {
                let message = "this metastore stops; the deletion may be in force all the same";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
    }

    /// Takes over deletions that an earlier owner made durable and did not commit; buries objects of deletions that
    /// never were in force.
    pub(crate) async fn adopt_deletions(&self) -> Result<(), OpenError> {
        let objects = read_deletions(&self.store).await?;
        let unix_millis = self.clock.unix_millis();
        let mut state = self.state.lock();
        let state = &mut *state;
        let last = state.deletions.last();
        let keys: Vec<Key> = objects.iter().map(DeletionObject::key).collect();
        for (number, object) in deletions::settle(objects) {
            if number > last {
                info!(deletion = number, "deletion of an earlier owner is in force");
                object.row.put_into(state.pending_rows());
                let version = state.version;
                let loaded = state.deletions.load(object.row, version);
                loaded.map_err(|reason| unreadable_deletion(number, reason))?;
            }
        }
        for key in keys.into_iter().filter(|key| state.is_superfluous_deletion(key)).collect::<Vec<_>>() {
            let dead = state.bury_unnamed(key, unix_millis);
            dead.put_into(state.pending_rows());
        }
        Ok(())
    }

    /// Finishes deletions whose data are gone. Returns the number of unfinished ones.
    pub(crate) async fn advance_deletions(&self) -> Result<usize, Error> {
        if !self.state.lock().update_unswept() {
            return Ok(0);
        }
        self.ensure_owner().await?;
        self.commit_pending().await.map_err(crate::error::of_catalog)?;
        for row in self.finishable() {
            if self.bury_outputs_of(&row.tenant).await? == 0 {
                self.finish_deletion(row).await?;
            }
        }
        let replaced: Vec<u64> = {
            let mut state = self.state.lock();
            let forgotten = |version: u64| self.catalog.has_forgotten(version);
            for done in state.deletions.done_mut() {
                done.replaced = done.replaced.filter(|version| !forgotten(*version));
            }
            state.deletions.done().filter_map(|done| done.replaced).collect()
        };
        if let Some(version) = replaced.iter().max() {
            self.catalog.compact(*version).await.map_err(crate::error::of_catalog)?;
            self.catalog.maintain().await.map_err(crate::error::of_catalog)?;
        }
        Ok(self.state.lock().deletions.len() + replaced.len())
    }

    fn finishable(&self) -> Vec<rows::Deletion> {
        let state = self.state.lock();
        let is_over = |in_force: &&DeletionInForce| in_force.unswept.as_ref().is_some_and(BTreeSet::is_empty);
        state.deletions.above(0).filter(is_over).map(|in_force| in_force.row.clone()).collect()
    }

    /// Buries outputs of attempts that can no longer publish: they may hold erased rows, and reconciliation would leave
    /// them for a day. Returns their number.
    async fn bury_outputs_of(&self, tenant: &TenantId) -> Result<usize, Error> {
        let listed = self.store.list(&Key::blocks_of(tenant)).await.map_err(of_store)?;
        let turn = self.take_turn().await?;
        let unix_millis = self.clock.unix_millis();
        let mut batch = Batch::default();
        let count = {
            let mut state = self.state.lock();
            let is_closed = |key: &Key| {
                key.parse_block().is_some_and(|block| state.jobs().contains_key(&block.job))
                    && is_orphan(&state, key)
            };
            let orphans: Vec<Key> = listed.into_iter().map(|o| o.key).filter(is_closed).collect();
            for key in &orphans {
                state.bury_unnamed(key.clone(), unix_millis).put_into(&mut batch);
            }
            for in_force in
                state.deletions.in_force_mut().filter(|in_force| in_force.deletion.tenant == *tenant)
            {
                in_force.unswept.iter_mut().for_each(|unswept| unswept.extend(orphans.iter().cloned()));
            }
            orphans.len()
        };
        if count > 0 {
            self.commit_in_turn(&turn, batch).await?;
        }
        Ok(count)
    }

    /// Replaces the selector of a deletion by a hash.
    async fn finish_deletion(&self, row: rows::Deletion) -> Result<(), Error> {
        let done = deletions::done_of(&row, self.clock.unix_millis());
        let id_tag = self.store.id_tag();
        let object = DeletionObject { epoch: self.catalog.epoch(), id_tag, row: done.clone() };
        // An object that exists already differs at most in its time.
        self.store.settle_create(&object.key(), object.encode()).await.map_err(of_store)?;
        let turn = self.take_turn().await?;
        let mut batch = Batch::default();
        done.put_into(&mut batch);
        let key = deletions::key_of(&row);
        let unix_millis = self.clock.unix_millis();
        let dead = Dead { key: key.clone(), died_millis: unix_millis, job: None, segment_millis: None };
        dead.put_into(&mut batch);
        self.commit_in_turn(&turn, batch).await?;
        {
            let mut state = self.state.lock();
            let version = state.version;
            state.add_dead(dead);
            state.deletions.finish(done, version);
            self.metrics.count(&state);
        }
        drop(turn);
        info!(deletion = row.number, tenant = %row.tenant, "the data of the deletion are gone from the bucket");
        // No snapshot names it, so it needs no grace; if this fails, the sweep deletes it.
        if let Err(error) = self.store.delete(&key).await {
            warn!(%key, %error, "cannot delete the object of a finished deletion now, the sweep will");
        }
        Ok(())
    }

    /// Deletions of `tenant`, newest first, with at most [`FINISHED_LISTED_MAX`] finished ones.
    pub(crate) fn list_deletions(&self, tenant: &TenantId) -> Vec<DeletionStatus> {
        let state = self.state.lock();
        let in_force = state.deletions.above(0).rev().filter(|in_force| in_force.deletion.tenant == *tenant);
        let mut all: Vec<DeletionStatus> = in_force
            .map(|in_force| status(&state, &in_force.deletion, in_force.row.created_millis))
            .collect();
        let done = state.deletions.done().rev().filter(|done| done.row.tenant == *tenant);
        all.extend(done.take(FINISHED_LISTED_MAX).map(|done| {
            let progress = match (&done.row.state, done.replaced) {
                (DeletionState::Done { finished_millis, .. }, None) => {
                    DeletionProgress::Finished { millis: *finished_millis }
                }
                _ => DeletionProgress::Sweeping { objects: 0 },
            };
            DeletionStatus {
                number: done.row.number,
                created_millis: done.row.created_millis,
                deletion: None,
                progress,
            }
        }));
        all.sort_by_key(|status| std::cmp::Reverse(status.number));
        all
    }
}

/// Reads every deletion of the bucket.
pub(crate) async fn read_deletions(store: &storage::Store) -> Result<Vec<DeletionObject>, OpenError> {
    let keys = store.list("delete").await?.into_iter().map(|object| object.key);
    let read = stream::iter(keys.filter(|key| key.parse_deletion().is_some())).map(|key| async move {
        let bytes = match store.get(&key).await {
            Ok(bytes) => bytes,
            Err(storage::Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let object = DeletionObject::decode(&bytes)
            .map_err(|error| OpenError::Object { object: key.to_string(), reason: error.to_string() })?;
        if object.key() != key {
            let reason = format!("it says that it is deletion {}", object.row.number);
            return Err(OpenError::Object { object: key.to_string(), reason });
        }
        if object.is_of_another_cluster(store) {
            warn!(%key, "a deletion of another cluster is in the bucket: it is left alone");
            return Ok(None);
        }
        Ok(Some(object))
    });
    let objects: Vec<Option<DeletionObject>> = read.buffered(READS_AT_ONCE).try_collect().await?;
    Ok(objects.into_iter().flatten().collect())
}

pub(crate) fn unreadable_deletion(number: u64, reason: String) -> OpenError {
    OpenError::Object { object: format!("deletion {number}"), reason }
}

fn status(state: &State, deletion: &Arc<Deletion>, created_millis: i64) -> DeletionStatus {
    let (mut objects, mut unreadable) = (0, 0);
    for (_, live) in state.touched_by(deletion) {
        if live.index_id.is_some() { objects += 1 } else { unreadable += 1 }
    }
    let progress = match objects + unreadable {
        0 => DeletionProgress::Sweeping { objects: state.deletions.unswept_count(deletion.number) },
        _ => DeletionProgress::Rewriting { objects, unreadable },
    };
    DeletionStatus { number: deletion.number, created_millis, deletion: Some(deletion.clone()), progress }
}
