//! Says which dead objects may be deleted.
//!
//! Owns: the grace. Does not own: deleting (`compactor`).
//!
//! The grace counts from when this owner learnt of the death, by its monotonic clock: an owner whose wall clock is an
//! hour ahead of its predecessor's, or is set, must not delete what a question of this moment reads.
//!
//! A segment stays longer than a block: a rebuild decides anew which equal items count among the
//! segments that no publish record names, and for that it needs the keys of all that could meet them.

use std::time::Duration;

use catalog::rows::{Dead, JobState, Row};
use hashbrown::HashMap;
use model::WriterId;
use rpc::DeadObject;
use storage::Key;

use crate::Metastore;
use crate::state::State;

impl Metastore {
    pub(crate) fn list_sweepable(&self, limit: usize) -> Vec<DeadObject> {
        let unix_millis = self.clock.unix_millis();
        let state = self.state.lock();
        let mut dead_since = self.dead_since.lock();
        let now = self.clock.monotonic();
        note_dead(&state, &mut dead_since, now);
        let keys_needed_from =
            state.watermark(unix_millis).min(state.oldest_segment_millis(unix_millis)) - self.window_millis();
        let sweepable = state.dead.values().filter(|dead| {
            dead_since.get(&dead.key).is_some_and(|since| now - *since >= self.config.sweep_grace.0)
                && dead.segment_millis.is_none_or(|millis| millis < keys_needed_from)
                && is_recorded(&state, dead)
        });
        sweepable.take(limit).map(|dead| DeadObject { key: dead.key.clone() }).collect()
    }

    /// Lets the grace begin for what has died since the last call.
    pub(crate) fn begin_graces(&self, state: &State) {
        note_dead(state, &mut self.dead_since.lock(), self.clock.monotonic());
    }

    pub(crate) fn forget_swept(&self, keys: &[Key]) {
        let unix_millis = self.clock.unix_millis();
        let mut state = self.state.lock();
        for key in keys {
            if state.dead.remove(key).is_none() {
                continue;
            }
            state.pending.batch.delete(Dead::key_of(key));
            if let Some((writer, seq)) = key.parse_log_slot() {
                forget_slot(&mut state, writer, seq, unix_millis);
            }
        }
        self.metrics.count(&state);
        self.work.notify_one();
    }
}

fn note_dead(state: &State, dead_since: &mut HashMap<Key, Duration>, now: Duration) {
    dead_since.retain(|key, _| state.dead.contains_key(key));
    for key in state.dead.keys() {
        if !dead_since.contains_key(key) {
            dead_since.insert(key.clone(), now);
        }
    }
}

/// A log goes with its seal, which stays for a while after all else.
fn forget_slot(state: &mut State, writer: WriterId, seq: u64, unix_millis: i64) {
    let Some(log) = state.logs.get_mut(&writer) else {
        return;
    };
    if !log.row.sealed {
        return;
    }
    if seq != log.row.next {
        log.row.moved_millis = unix_millis;
        state.pending.logs.insert(writer);
    } else if let Some(log) = state.logs.remove(&writer) {
        state.pending.logs.remove(&writer);
        state.pending.batch.delete(log.row.key());
    }
}

/// Whether the publish record that replaced the object is in the bucket.
fn is_recorded(state: &State, dead: &Dead) -> bool {
    let job = dead.job.and_then(|job| state.jobs.get(&job));
    job.is_none_or(|job| !matches!(job.row.state, JobState::Published { record: Some(_) }))
}
