//! The death of objects: out of every answer, into the list that the sweep deletes.
//!
//! The death of a job's inputs is prepared before its commit and applied after it: until the commit, finds return
//! them. Objects that no find needs any more are buried at once, with rows that are pending.

use std::time::Duration;

use catalog::Batch;
use catalog::rows::{self, Row};
use model::JobId;
use storage::Key;

use super::State;
use super::object_rows::delete_rows;
use crate::live::ObjectKind;

/// A death whose rows are in a batch and that memory does not show yet.
pub(crate) struct Death {
    row: rows::Dead,
}

impl State {
    /// Puts the rows of a death into `batch`; `None` if the object is not live.
    pub(crate) fn prepare_death(
        &self,
        key: &Key,
        job: Option<JobId>,
        unix_millis: i64,
        batch: &mut Batch,
    ) -> Option<Death> {
        let live = self.live.get(key)?;
        delete_rows(live, self.datasets_of(key, live), batch);
        let segment_millis = match live.kind {
            ObjectKind::Segment { .. } => Some(live.created_millis),
            ObjectKind::Block { .. } => None,
        };
        let row = rows::Dead { key: key.clone(), died_millis: unix_millis, job, segment_millis };
        row.put_into(batch);
        Some(Death { row })
    }

    /// Takes the object out of every answer. The rows of the death are committed, or pending.
    pub(crate) fn apply(&mut self, death: Death) {
        let Death { row } = death;
        let Some(live) = self.live.remove(&row.key) else {
            return;
        };
        live.index_id.and_then(|id| self.index.remove(id));
        self.quarantined.remove(&row.key);
        self.dead.insert(row);
    }

    /// Prepares a death and applies it at once: for steps whose rows are committed later.
    pub(crate) fn bury(&mut self, key: &Key, job: Option<JobId>, unix_millis: i64, batch: &mut Batch) {
        if let Some(death) = self.prepare_death(key, job, unix_millis, batch) {
            self.apply(death);
        }
    }

    /// Lists an object without a row as dead. Returns its new row.
    pub(crate) fn bury_unnamed(&mut self, key: Key, unix_millis: i64) -> rows::Dead {
        let dead = rows::Dead { key, died_millis: unix_millis, job: None, segment_millis: None };
        self.add_dead(dead.clone());
        dead
    }

    pub(crate) fn add_dead(&mut self, dead: rows::Dead) {
        // A late sweep of a dead deletion must not delete another deletion with the same number.
        if let Some((_, number, _)) = dead.key.parse_deletion() {
            self.deletions.saw_floor(number);
        }
        self.dead.insert(dead);
    }

    /// Forgets an object that was deleted from the bucket.
    pub(crate) fn forget_swept(&mut self, key: &Key, unix_millis: i64) {
        if self.dead.remove(key).is_none() {
            return;
        }
        self.pending.batch.delete(rows::Dead::key_of(key));
        if let Some((writer, seq)) = key.parse_log_slot() {
            self.forget_slot(writer, seq, unix_millis);
        }
    }

    /// Begins the graces of objects that died since the last call.
    pub(crate) fn begin_graces(&mut self, now: Duration) {
        self.dead.begin_graces(now);
    }

    /// Ends the graces that began `grace` ago.
    pub(crate) fn end_graces(&mut self, now: Duration, grace: Duration) {
        self.dead.end_graces(now, grace);
    }
}
