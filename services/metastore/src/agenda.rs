//! The free objects that may have to be merged next, updated as objects come, change and go.
//!
//! Owns: free segments by age, blocks to rewrite, blocks by group, when a group is judged again.
//! Does not own: when a group is ready (`group`), which merge is next (`plan`).
//!
//! An update costs as much as has changed, whatever the number of live objects. Only a new deletion is compared with
//! all of them, once.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use model::Window;
use storage::Key;

use crate::config::Config;
use crate::group::{self, Blocks, Group, Merge, Readiness, shard_of_block};
use crate::live::{LiveObject, ObjectKind, Objects};

#[derive(Default)]
pub(crate) struct Agenda {
    /// Each free object, with its entry below.
    entries: HashMap<Key, Entry>,
    /// Free segments, by creation time in Unix milliseconds.
    pub(crate) segments: BTreeSet<(i64, Key)>,
    pub(crate) segment_bytes: u64,
    /// Free blocks with rows that must leave the bucket.
    pub(crate) rewrites: BTreeSet<Key>,
    groups: BTreeMap<Group, Members>,
    /// When to judge a group again although no block came or went, in Unix milliseconds.
    due: BTreeSet<(i64, Group)>,
    /// Ready groups, by the time at which they became ready, in Unix milliseconds.
    ready: BTreeSet<(i64, Group)>,
    /// [`Changes::deletions`] when all blocks were last compared with the deletions.
    deletions_seen: u64,
}

enum Entry {
    Segment { created_millis: i64, bytes: u64 },
    Block { group: Option<Group> },
}

#[derive(Default)]
struct Members {
    keys: BTreeSet<Key>,
    /// Times under which the group is in [`Agenda::due`] and in [`Agenda::ready`].
    due: Option<i64>,
    ready: Option<i64>,
}

/// Input of an update of the agenda.
pub(crate) struct Changes<'a> {
    pub(crate) live: &'a Objects,
    /// Whether a block holds rows that must leave the bucket.
    pub(crate) must_rewrite: &'a dyn Fn(&Key, &LiveObject) -> bool,
    /// How often a deletion came into force.
    pub(crate) deletions: u64,
    pub(crate) config: &'a Config,
    pub(crate) unix_millis: i64,
}

impl Agenda {
    /// Takes in the changes of the objects `keys`.
    pub(crate) fn update(&mut self, keys: BTreeSet<Key>, changes: &Changes<'_>) {
        let mut touched: BTreeSet<Group> = BTreeSet::new();
        for key in keys {
            self.remove(&key, &mut touched);
            if let Some(live) = changes.live.get(&key).filter(|live| live.is_free()) {
                self.add(&key, live, changes, &mut touched);
            }
        }
        if self.deletions_seen != changes.deletions {
            self.deletions_seen = changes.deletions;
            let must =
                |(key, live): &(&Key, &LiveObject)| live.is_free() && (changes.must_rewrite)(key, live);
            self.rewrites = changes.live.iter().filter(must).map(|(key, _)| key.clone()).collect();
        }
        while let Some((due, group)) = self.due.first()
            && *due <= changes.unix_millis
        {
            let group = group.clone();
            self.unlist(&group);
            touched.insert(group);
        }
        while let Some(group) = touched.pop_first() {
            self.judge(group, changes, &mut touched);
        }
    }

    /// Ready groups with their blocks, the one that has waited longest first.
    pub(crate) fn ready<'a>(
        &'a self,
        live: &'a Objects,
        config: &'a Config,
        unix_millis: i64,
    ) -> impl Iterator<Item = (&'a Group, Merge<'a>)> {
        self.ready.iter().filter_map(move |(_, group)| {
            let blocks = blocks(live, &self.groups.get(group)?.keys);
            match group::judge(&blocks, group.window, config, unix_millis) {
                Readiness::Ready(merge) => Some((group, merge)),
                // The wall clock was set back since.
                Readiness::Waiting { .. } => None,
            }
        })
    }

    /// Windows of the ready groups, each with the time at which its group became ready, in Unix milliseconds.
    pub(crate) fn ready_since(&self) -> impl Iterator<Item = (Window, i64)> {
        self.ready.iter().map(|(since, group)| (group.window, *since))
    }

    fn add(&mut self, key: &Key, live: &LiveObject, changes: &Changes<'_>, touched: &mut BTreeSet<Group>) {
        let entry = match &live.kind {
            ObjectKind::Segment { .. } => {
                let LiveObject { created_millis, bytes, .. } = *live;
                self.segments.insert((created_millis, key.clone()));
                self.segment_bytes += bytes;
                Entry::Segment { created_millis, bytes }
            }
            ObjectKind::Block { tenant, window, .. } => {
                if (changes.must_rewrite)(key, live) {
                    self.rewrites.insert(key.clone());
                }
                let group = group::is_small(live, changes.config).then(|| Group {
                    tenant: tenant.clone(),
                    window: group::target(*window, changes.config, changes.unix_millis),
                    shard: shard_of_block(key),
                });
                if let Some(group) = &group {
                    self.groups.entry(group.clone()).or_default().keys.insert(key.clone());
                    touched.insert(group.clone());
                }
                Entry::Block { group }
            }
        };
        self.entries.insert(key.clone(), entry);
    }

    fn remove(&mut self, key: &Key, touched: &mut BTreeSet<Group>) {
        match self.entries.remove(key) {
            None => {}
            Some(Entry::Segment { created_millis, bytes }) => {
                self.segments.remove(&(created_millis, key.clone()));
                self.segment_bytes -= bytes;
            }
            Some(Entry::Block { group }) => {
                self.rewrites.remove(key);
                let Some(group) = group else { return };
                if let Some(members) = self.groups.get_mut(&group) {
                    members.keys.remove(key);
                }
                touched.insert(group);
            }
        }
    }

    /// Lists a group anew. The blocks of an hour that has closed move to the group of its day.
    fn judge(&mut self, group: Group, changes: &Changes<'_>, touched: &mut BTreeSet<Group>) {
        let Changes { live, config, unix_millis, .. } = *changes;
        self.unlist(&group);
        let Some(members) = self.groups.get_mut(&group) else {
            return;
        };
        if members.keys.is_empty() {
            self.groups.remove(&group);
            return;
        }
        let window = group::target(group.window, config, unix_millis);
        if window != group.window {
            let keys = std::mem::take(&mut members.keys);
            self.groups.remove(&group);
            let day = Group { window, ..group };
            for key in &keys {
                self.entries.insert(key.clone(), Entry::Block { group: Some(day.clone()) });
            }
            self.groups.entry(day.clone()).or_default().keys.extend(keys);
            touched.insert(day);
            return;
        }
        let (ready, due) = match group::judge(&blocks(live, &members.keys), window, config, unix_millis) {
            Readiness::Ready(merge) => (Some(merge.ready_millis), group::move_millis(window, config)),
            Readiness::Waiting { until_millis } => (None, until_millis),
        };
        (members.ready, members.due) = (ready, due);
        if let Some(since) = ready {
            self.ready.insert((since, group.clone()));
        }
        if let Some(due) = due {
            self.due.insert((due, group));
        }
    }

    fn unlist(&mut self, group: &Group) {
        let Some(members) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(since) = members.ready.take() {
            self.ready.remove(&(since, group.clone()));
        }
        if let Some(due) = members.due.take() {
            self.due.remove(&(due, group.clone()));
        }
    }
}

fn blocks<'a>(live: &'a Objects, keys: &'a BTreeSet<Key>) -> Blocks<'a> {
    keys.iter().filter_map(|key| Some((key, live.get(key)?))).collect()
}

#[cfg(test)]
mod tests {
    use catalog::Batch;
    use catalog::rows::{Block, DatasetSummary, Deletion, DeletionState, Segment};
    use model::{BlockId, DAY, HOUR, JobId, Shard, TenantId, TimeRange, Times, WriterId};
    use storage::Place;

    use super::*;
    use crate::plan;
    use crate::state::State;

    /// 2023-11-15 21:40:00 UTC, so that a day closes on the way.
    const START: i64 = 1_700_084_400;

    /// A state that takes the steps of a metastore in random order.
    struct World {
        state: State,
        config: Config,
        unix_millis: i64,
        random: u64,
        number: u64,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let config = Config { job_bytes_max: 1 << 12, merge_bytes: 1 << 10, ..Config::default() };
            let state = State::new(&config);
            Self { state, config, unix_millis: START * 1_000, random: seed + 1, number: 0 }
        }

        fn below(&mut self, end: u64) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % end
        }

        fn dataset(&mut self, tenant: &TenantId, seconds: i64) -> DatasetSummary {
            let time = seconds * 1_000_000_000;
            let service = ["a", "b"][self.below(2) as usize].into();
            let rows = 1 + self.below(9);
            let profile_types = Vec::new().into();
            let tenant = tenant.clone();
            DatasetSummary {
                position: 0,
                tenant,
                service,
                times: Times { first: time, last: time },
                rows,
                profile_types,
            }
        }

        fn tenant(&mut self) -> TenantId {
            TenantId::parse(["x", "y"][self.below(2) as usize]).expect("valid")
        }

        fn add_segment(&mut self) {
            self.number += 1;
            let tenant = self.tenant();
            let seconds = self.unix_millis / 1_000 - self.below(2 * HOUR as u64) as i64;
            let segment = Segment {
                writer: WriterId(7),
                seq: self.number,
                created_millis: self.unix_millis - self.below(40_000) as i64,
                bytes: self.below(300),
                masked: Vec::new(),
                quarantine: None,
                datasets: vec![self.dataset(&tenant, seconds)],
                floor: self.state.deletions.last(),
                rows: 9,
            };
            let is_committed = self.below(2) == 0;
            self.state.add_segment(&segment, is_committed);
        }

        fn add_block(&mut self) {
            let tenant = self.tenant();
            let length = [300, HOUR, DAY][self.below(3) as usize];
            let seconds = self.unix_millis / 1_000 - self.below(DAY as u64 + 3_000) as i64;
            self.add_block_of(tenant, Window::around(seconds, length));
        }

        fn add_block_of(&mut self, tenant: TenantId, window: Window) {
            self.number += 1;
            let level = if window.length == DAY { 3 } else { 2 };
            let shards = [Shard::ALL, Shard { bits: 4, number: 3 }, Shard { bits: 4, number: 4 }];
            let shard = shards[self.below(3) as usize];
            let id = BlockId { job: JobId(self.number.into()), attempt: 1, part: 0 };
            let dataset = self.dataset(&tenant, window.start);
            let magnitude = self.below(12);
            let bytes = 1 + self.below(2 << magnitude);
            let block = Block {
                id,
                key: Key::block(&tenant, Place { level, window, shard }, id),
                tenant,
                level,
                window,
                bytes,
                created_millis: self.unix_millis - self.below(60_000) as i64,
                quarantine: None,
                floor: self.state.deletions.last() - self.below(2).min(self.state.deletions.last()),
                rows: dataset.rows + [0, 0, 20][self.below(3) as usize],
            };
            self.state.add_block(&block, vec![dataset]);
        }

        fn any_key(&mut self) -> Option<Key> {
            let count = self.state.live().iter().count() as u64;
            let index = self.below(count.max(1)) as usize;
            self.state.live().iter().nth(index).map(|(key, _)| key.clone())
        }

        fn step(&mut self) {
            let batch = &mut Batch::default();
            match self.below(12) {
                0..=2 => self.add_segment(),
                3..=5 => self.add_block(),
                6 => self.unix_millis += self.below(20_000) as i64,
                7 => self.unix_millis += self.below(1_200_000) as i64,
                8 => {
                    let keys: Vec<Key> = self.state.live().iter().map(|(key, _)| key.clone()).collect();
                    self.state.are_committed(&keys);
                }
                9 => {
                    let Some(key) = self.any_key() else { return };
                    match self.below(3) {
                        0 => self.state.quarantine(&key, "bad".into(), batch),
                        1 => self.state.bury(&key, None, self.unix_millis, batch),
                        _ => self.state.drop_datasets(&key, &BTreeSet::from([7]), batch),
                    }
                }
                10 if self.below(4) == 0 => self.deletion(),
                _ => self.work(),
            }
        }

        fn deletion(&mut self) {
            let selector = query::Selector::parse(r#"{service_name="a"}"#).expect("a selector");
            let row = Deletion {
                number: self.state.deletions.last() + 1,
                tenant: self.tenant(),
                created_millis: 0,
                state: DeletionState::InForce {
                    matchers: crate::deletions::matchers_of(&selector),
                    range: TimeRange { start: i64::MIN, end: i64::MAX },
                    positions: Vec::new(),
                },
            };
            let number = row.number;
            self.state.deletions.add(row, false).expect("is valid");
            self.check();
            self.state.deletions.made(number);
        }

        /// Claims a job, and in some cases publishes it at once.
        fn work(&mut self) {
            let Some(work) = plan::next(&mut self.state, &self.config, self.unix_millis) else { return };
            for key in &work.inputs {
                self.state.claim(key, JobId(1));
            }
            self.check();
            if self.below(3) == 0 {
                return;
            }
            for key in &work.inputs {
                self.state.bury(key, None, self.unix_millis, &mut Batch::default());
            }
            let tenant = self.tenant();
            let window = work.windows.first().copied().unwrap_or(Window::around(START, DAY));
            self.add_block_of(tenant, window);
        }

        /// The agenda as made from all live objects.
        fn scratch(&self) -> Agenda {
            let mut agenda = Agenda::default();
            let mut groups: BTreeMap<Group, Blocks<'_>> = BTreeMap::new();
            for (key, live) in self.state.live().iter().filter(|(_, live)| live.is_free()) {
                let ObjectKind::Block { tenant, window, .. } = &live.kind else {
                    agenda.segments.insert((live.created_millis, key.clone()));
                    agenda.segment_bytes += live.bytes;
                    continue;
                };
                if self.state.must_rewrite(key, live) {
                    agenda.rewrites.insert(key.clone());
                }
                if group::is_small(live, &self.config) {
                    let window = group::target(*window, &self.config, self.unix_millis);
                    let group = Group { tenant: tenant.clone(), window, shard: shard_of_block(key) };
                    groups.entry(group).or_default().push((key, live));
                }
            }
            for (group, blocks) in groups {
                let readiness = group::judge(&blocks, group.window, &self.config, self.unix_millis);
                if let Readiness::Ready(merge) = readiness {
                    agenda.ready.insert((merge.ready_millis, group));
                }
            }
            agenda
        }

        fn check(&mut self) {
            self.state.update_agenda(&self.config, self.unix_millis);
            let (updated, scratch) = (self.state.agenda(), self.scratch());
            assert_eq!(updated.segments, scratch.segments);
            assert_eq!(updated.segment_bytes, scratch.segment_bytes);
            assert_eq!(updated.rewrites, scratch.rewrites);
            assert_eq!(updated.ready, scratch.ready);
        }
    }

    #[test]
    fn updates_lead_to_the_same_agenda_as_a_look_at_all_objects() {
        let (mut ready, mut rewrites) = (0, 0);
        for seed in 0..60 {
            let mut world = World::new(seed * 7_919);
            for _ in 0..200 {
                world.step();
                world.check();
                ready += usize::from(!world.state.agenda().ready.is_empty());
                rewrites += usize::from(!world.state.agenda().rewrites.is_empty());
            }
        }
        assert!(ready.min(rewrites) > 1_000, "only {ready} steps had a ready group, {rewrites} a rewrite");
    }
}
