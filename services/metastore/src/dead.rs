//! Dead objects: in the bucket, and in no answer.
//!
//! Owns: how long each must stay: for its grace, and a segment until its keys have left the window.
//! Does not own: why they died (`state`), which may be deleted (`sweep`).
//!
//! Thousands wait at any time. They are sorted by the end of the wait, so that listing the deletable ones costs no more
//! than their number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use catalog::rows;
use storage::Key;

/// All dead objects, by key.
#[derive(Default)]
pub(crate) struct DeadObjects {
    by_key: BTreeMap<Key, Dead>,
    /// Objects added since [`Self::begin_graces`] was last called.
    without_grace: Vec<Key>,
    /// Objects in their grace, with the time at which it began, the oldest first. Some may have been removed since.
    in_grace: VecDeque<(Duration, Key)>,
    /// Segments whose grace is over, by creation time.
    segments: BTreeSet<(i64, Key)>,
    /// Other objects whose grace is over.
    others: BTreeSet<Key>,
}

struct Dead {
    row: rows::Dead,
    /// On the monotonic clock.
    grace_began: Option<Duration>,
}

impl DeadObjects {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn contains_key(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&rows::Dead> {
        self.by_key.get(key).map(|dead| &dead.row)
    }

    /// All rows, sorted by key.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &rows::Dead> {
        self.by_key.values().map(|dead| &dead.row)
    }

    /// All keys, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// Keys from `first` on, sorted.
    pub(crate) fn keys_from(&self, first: &Key) -> impl Iterator<Item = &Key> {
        self.by_key.range(first..).map(|(key, _)| key)
    }

    /// When the first object died, in Unix milliseconds.
    pub(crate) fn oldest_millis(&self) -> Option<i64> {
        self.by_key.values().map(|dead| dead.row.died_millis).min()
    }

    pub(crate) fn insert(&mut self, row: rows::Dead) {
        self.remove(&row.key);
        self.without_grace.push(row.key.clone());
        self.by_key.insert(row.key.clone(), Dead { row, grace_began: None });
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<rows::Dead> {
        let Dead { row, .. } = self.by_key.remove(key)?;
        match row.segment_millis {
            Some(millis) => self.segments.remove(&(millis, key.clone())),
            None => self.others.remove(key),
        };
        Some(row)
    }

    /// Begins the graces of objects added since the last call. `now` is on the monotonic clock.
    pub(crate) fn begin_graces(&mut self, now: Duration) {
        for key in self.without_grace.drain(..) {
            if let Some(dead) = self.by_key.get_mut(&key)
                && dead.grace_began.is_none()
            {
                dead.grace_began = Some(now);
                self.in_grace.push_back((now, key));
            }
        }
    }

    /// Ends the graces that began `grace` ago.
    pub(crate) fn end_graces(&mut self, now: Duration, grace: Duration) {
        while let Some((began, key)) =
            self.in_grace.pop_front_if(|(began, _)| now.saturating_sub(*began) >= grace)
        {
            let Some(dead) = self.by_key.get(&key).filter(|dead| dead.grace_began == Some(began)) else {
                continue;
            };
            match dead.row.segment_millis {
                Some(millis) => self.segments.insert((millis, key)),
                None => self.others.insert(key),
            };
        }
    }

    /// Objects whose grace is over; segments only if created before `keys_needed_from`, in Unix milliseconds.
    pub(crate) fn past_grace(&self, keys_needed_from: i64) -> impl Iterator<Item = &rows::Dead> {
        let unneeded = self.segments.iter().take_while(move |(millis, _)| *millis < keys_needed_from);
        let keys = self.others.iter().chain(unneeded.map(|(_, key)| key));
        keys.filter_map(|key| self.by_key.get(key)).map(|dead| &dead.row)
    }
}

#[cfg(test)]
mod tests {
    use model::{BlockId, DAY, JobId, Shard, TenantId, Window, WriterId};
    use storage::Place;

    use super::*;

    const GRACE: Duration = Duration::from_secs(900);

    fn block(job: u128, died_millis: i64) -> rows::Dead {
        let place = Place { level: 3, window: Window { start: 0, length: DAY }, shard: Shard::ALL };
        let key = Key::block(&TenantId::anonymous(), place, BlockId { job: JobId(job), attempt: 0, part: 0 });
        rows::Dead { key, died_millis, job: None, segment_millis: None }
    }

    fn segment(seq: u64, millis: i64) -> rows::Dead {
        let key = Key::log_slot(WriterId(1), seq);
        rows::Dead { key, died_millis: 10, job: None, segment_millis: Some(millis) }
    }

    fn listed(dead: &mut DeadObjects, seconds: u64, keys_needed_from: i64) -> Vec<Key> {
        let now = Duration::from_secs(seconds);
        dead.begin_graces(now);
        dead.end_graces(now, GRACE);
        dead.past_grace(keys_needed_from).map(|row| row.key.clone()).collect()
    }

    #[test]
    fn a_grace_begins_when_the_death_is_noticed_and_a_segment_also_waits_for_its_keys() {
        let mut dead = DeadObjects::default();
        dead.insert(block(1, 20));
        dead.insert(segment(1, 5_000));
        dead.insert(segment(2, 6_000));
        assert_eq!(dead.oldest_millis(), Some(10));
        assert_eq!(listed(&mut dead, 100, i64::MAX), []);
        assert_eq!(listed(&mut dead, 999, i64::MAX), []);
        assert_eq!(listed(&mut dead, 1_000, 6_000), [block(1, 20).key, segment(1, 5_000).key]);
        assert_eq!(listed(&mut dead, 1_000, i64::MAX).len(), 3);
    }

    #[test]
    fn a_time_read_before_a_grace_began_does_not_end_it() {
        let mut dead = DeadObjects::default();
        dead.insert(block(1, 20));
        dead.begin_graces(Duration::from_secs(5));
        dead.end_graces(Duration::from_secs(4), GRACE);
        assert_eq!(dead.past_grace(i64::MAX).count(), 0);
    }

    #[test]
    fn an_object_that_is_removed_and_dies_again_has_a_whole_grace() {
        let mut dead = DeadObjects::default();
        for row in [block(1, 20), segment(1, 0)] {
            dead.insert(row.clone());
            assert_eq!(listed(&mut dead, 0, i64::MAX), []);
            assert_eq!(dead.remove(&row.key), Some(row.clone()));
            dead.insert(row.clone());
            assert_eq!(listed(&mut dead, 500, i64::MAX), []);
            assert_eq!(listed(&mut dead, 900, i64::MAX), []);
            assert_eq!(listed(&mut dead, 1_400, i64::MAX), std::slice::from_ref(&row.key));
            dead.remove(&row.key);
            assert_eq!(listed(&mut dead, 9_000, i64::MAX), []);
            assert_eq!((dead.len(), dead.oldest_millis()), (0, None));
        }
    }
}
