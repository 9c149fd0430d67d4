//! Lists the dead objects that may be deleted.
//!
//! Owns: the conditions for it. Does not own: since when each is dead (`dead`), deleting (`compactor`).
//!
//! The grace counts from when this owner learnt of the death, on its monotonic clock: an owner whose wall clock is
//! set, or is an hour ahead of its predecessor's, must not delete an object that a query still reads.
//!
//! A segment stays longer than a block. A rebuild decides anew which equal items count among the segments that no
//! publish record names, and needs the keys of every segment that could hold a duplicate.

use catalog::rows::{Dead, JobProgress};
use rpc::DeadObject;
use storage::Key;

use crate::Metastore;
use crate::state::State;

impl Metastore {
    pub(crate) fn list_sweepable(&self, limit: usize) -> Vec<DeadObject> {
        let unix_millis = self.clock.unix_millis();
        let mut state = self.state.lock();
        let now = self.clock.monotonic();
        let keys_needed_from = state.watermark(unix_millis).min(state.oldest_segment_millis(unix_millis))
            - self.config.dedup_millis();
        state.begin_graces(now);
        state.end_graces(now, self.config.sweep_grace.get());
        let sweepable = state.dead().past_grace(keys_needed_from).filter(|dead| is_recorded(&state, dead));
        sweepable.take(limit).map(|dead| DeadObject { key: dead.key.clone() }).collect()
    }

    pub(crate) fn forget_swept(&self, keys: &[Key]) {
        let unix_millis = self.clock.unix_millis();
        let mut state = self.state.lock();
        for key in keys {
            state.forget_swept(key, unix_millis);
        }
        self.metrics.count(&state);
        self.work.notify_one();
    }
}

/// Whether the publish record that replaced the object is in the bucket.
fn is_recorded(state: &State, dead: &Dead) -> bool {
    let job = dead.job.and_then(|job| state.jobs().get(&job));
    job.is_none_or(|job| !matches!(job.row.state, JobProgress::Published { record: Some(_) }))
}
