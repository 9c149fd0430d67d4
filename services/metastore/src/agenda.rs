//! What may have to be merged next, kept as objects come, change and go.
//!
//! Owns: free segments by age, blocks to rewrite, blocks by the group they are merged in, when a group is looked at again.
//! Does not own: when a group is ripe (`plan`).
//!
//! Following costs as much as changed, whatever the number of live objects. Only a new deletion is compared
//! with all of them, once.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use model::{Shard, TenantId, Window};
use storage::Key;

use crate::config::Config;
use crate::live::{Live, Objects, What};
use crate::plan::{self, Blocks, Judgement, Ripe};
use crate::state::State;

/// Blocks that belong into one block, or into a few: of one tenant, in one window, of one shard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Group {
    pub(crate) tenant: TenantId,
    /// An hour that is open, or a day.
    pub(crate) window: Window,
    pub(crate) shard: Shard,
}

#[derive(Default)]
pub(crate) struct Agenda {
    /// Of each free object, under what it is noted.
    notes: HashMap<Key, Note>,
    /// Free segments, by creation time in Unix milliseconds.
    pub(crate) segments: BTreeSet<(i64, Key)>,
    pub(crate) segment_bytes: u64,
    /// Free blocks that hold what must go from the bucket.
    pub(crate) rewrites: BTreeSet<Key>,
    groups: BTreeMap<Group, Members>,
    /// When to look at a group again although nothing changed in it, in Unix milliseconds.
    due: BTreeSet<(i64, Group)>,
    /// Groups that are ripe, by since when they are, in Unix milliseconds.
    ripe: BTreeSet<(i64, Group)>,
    /// How often the deletions in force had changed when all blocks were last compared with them.
    deletions_seen: u64,
}

enum Note {
    Segment { created_millis: i64, bytes: u64 },
    Block { group: Option<Group> },
}

#[derive(Default)]
struct Members {
    keys: BTreeSet<Key>,
    /// Where it is listed among those that are due, and that are ripe.
    due: Option<i64>,
    ripe: Option<i64>,
}

impl Agenda {
    /// Takes note of what changed in `state` until `unix_millis`.
    pub(crate) fn follow(state: &mut State, config: &Config, unix_millis: i64) {
        let changed = state.live.take_changed();
        let mut agenda = std::mem::take(&mut state.agenda);
        let mut touched: BTreeSet<Group> = BTreeSet::new();
        for key in changed {
            agenda.forget(&key, &mut touched);
            if let Some(live) = state.live.get(&key).filter(|live| live.is_free()) {
                agenda.note(state, &key, live, config, unix_millis, &mut touched);
            }
        }
        if agenda.deletions_seen != state.deletions.changes() {
            agenda.deletions_seen = state.deletions.changes();
            let must = |(key, live): &(&Key, &Live)| live.is_free() && plan::must_rewrite(state, key, live);
            agenda.rewrites = state.live.iter().filter(must).map(|(key, _)| key.clone()).collect();
        }
        while let Some((at, group)) = agenda.due.first()
            && *at <= unix_millis
        {
            let group = group.clone();
            agenda.unlist(&group);
            touched.insert(group);
        }
        while let Some(group) = touched.pop_first() {
            agenda.judge(&state.live, group, config, unix_millis, &mut touched);
        }
        state.agenda = agenda;
    }

    /// Ripe groups with their blocks, the one that has waited longest first.
    pub(crate) fn ripe<'a>(
        &'a self,
        live: &'a Objects,
        config: &'a Config,
        unix_millis: i64,
    ) -> impl Iterator<Item = (&'a Group, Ripe<'a>)> {
        self.ripe.iter().filter_map(move |(_, group)| {
            let blocks = blocks(live, &self.groups.get(group)?.keys);
            match plan::judge(&blocks, group.window, config, unix_millis) {
                Judgement::Ripe(ripe) => Some((group, ripe)),
                // By a clock that was set back.
                Judgement::Unripe { .. } => None,
            }
        })
    }

    /// Since when the longest waiting group of each window's length is ripe, in Unix milliseconds.
    pub(crate) fn ripe_since(&self) -> impl Iterator<Item = (Window, i64)> {
        self.ripe.iter().map(|(since, group)| (group.window, *since))
    }

    fn note(
        &mut self,
        state: &State,
        key: &Key,
        live: &Live,
        config: &Config,
        unix_millis: i64,
        touched: &mut BTreeSet<Group>,
    ) {
        let note = match &live.what {
            What::Segment { .. } => {
                let Live { created_millis, bytes, .. } = *live;
                self.segments.insert((created_millis, key.clone()));
                self.segment_bytes += bytes;
                Note::Segment { created_millis, bytes }
            }
            What::Block { tenant, window, .. } => {
                if plan::must_rewrite(state, key, live) {
                    self.rewrites.insert(key.clone());
                }
                let group = plan::is_small(live, config).then(|| Group {
                    tenant: tenant.clone(),
                    window: plan::target(*window, config, unix_millis),
                    shard: shard_of(key),
                });
                if let Some(group) = &group {
                    self.groups.entry(group.clone()).or_default().keys.insert(key.clone());
                    touched.insert(group.clone());
                }
                Note::Block { group }
            }
        };
        self.notes.insert(key.clone(), note);
    }

    fn forget(&mut self, key: &Key, touched: &mut BTreeSet<Group>) {
        match self.notes.remove(key) {
            None => {}
            Some(Note::Segment { created_millis, bytes }) => {
                self.segments.remove(&(created_millis, key.clone()));
                self.segment_bytes -= bytes;
            }
            Some(Note::Block { group }) => {
                self.rewrites.remove(key);
                let Some(group) = group else { return };
                if let Some(members) = self.groups.get_mut(&group) {
                    members.keys.remove(key);
                }
                touched.insert(group);
            }
        }
    }

    /// Lists a group anew. One whose hour has closed goes to its day.
    fn judge(
        &mut self,
        live: &Objects,
        group: Group,
        config: &Config,
        unix_millis: i64,
        touched: &mut BTreeSet<Group>,
    ) {
        self.unlist(&group);
        let Some(members) = self.groups.get_mut(&group) else {
            return;
        };
        if members.keys.is_empty() {
            self.groups.remove(&group);
            return;
        }
        let window = plan::target(group.window, config, unix_millis);
        if window != group.window {
            let keys = std::mem::take(&mut members.keys);
            self.groups.remove(&group);
            let day = Group { window, ..group };
            for key in &keys {
                self.notes.insert(key.clone(), Note::Block { group: Some(day.clone()) });
            }
            self.groups.entry(day.clone()).or_default().keys.extend(keys);
            touched.insert(day);
            return;
        }
        let (ripe, due) = match plan::judge(&blocks(live, &members.keys), window, config, unix_millis) {
            Judgement::Ripe(ripe) => (Some(ripe.since_millis), plan::moves_at(window, config)),
            Judgement::Unripe { again_millis } => (None, again_millis),
        };
        (members.ripe, members.due) = (ripe, due);
        if let Some(since) = ripe {
            self.ripe.insert((since, group.clone()));
        }
        if let Some(at) = due {
            self.due.insert((at, group));
        }
    }

    fn unlist(&mut self, group: &Group) {
        let Some(members) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(since) = members.ripe.take() {
            self.ripe.remove(&(since, group.clone()));
        }
        if let Some(at) = members.due.take() {
            self.due.remove(&(at, group.clone()));
        }
    }
}

/// The shard of a block's services.
pub(crate) fn shard_of(block: &Key) -> Shard {
    block.parse_block_place().map(|place| place.shard).unwrap_or_default()
}

fn blocks<'a>(live: &'a Objects, keys: &'a BTreeSet<Key>) -> Blocks<'a> {
    keys.iter().filter_map(|key| Some((key, live.get(key)?))).collect()
}

#[cfg(test)]
mod tests {
    use catalog::Batch;
    use catalog::rows::{Block, DatasetSummary, Deletion, DeletionState, Segment};
    use model::{BlockId, DAY, HOUR, JobId, TimeRange, Times, WriterId};
    use storage::Place;

    use super::*;

    /// 2023-11-15 21:40:00 UTC, so that a day closes on the way.
    const START: i64 = 1_700_084_400;

    /// A state that goes through what a metastore may do to it, in any order.
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
            let count = self.state.live.iter().count() as u64;
            let at = self.below(count.max(1)) as usize;
            self.state.live.iter().nth(at).map(|(key, _)| key.clone())
        }

        fn step(&mut self) {
            let batch = &mut Batch::default();
            match self.below(12) {
                0..=2 => self.add_segment(),
                3..=5 => self.add_block(),
                6 => self.unix_millis += self.below(20_000) as i64,
                7 => self.unix_millis += self.below(1_200_000) as i64,
                8 => {
                    let keys: Vec<Key> = self.state.live.iter().map(|(key, _)| key.clone()).collect();
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
            self.state.deletions.add(row, false).expect("is understood");
            self.check();
            self.state.deletions.made(number);
        }

        /// Takes a job, and perhaps publishes it at once.
        fn work(&mut self) {
            let Some(work) = plan::next(&mut self.state, &self.config, self.unix_millis) else { return };
            for key in &work.inputs {
                self.state.live.get_mut(key).expect("is live").claimed = Some(JobId(1));
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

        /// By a look at everything.
        fn scratch(&self) -> Agenda {
            let mut agenda = Agenda::default();
            let mut groups: BTreeMap<Group, Blocks<'_>> = BTreeMap::new();
            for (key, live) in self.state.live.iter().filter(|(_, live)| live.is_free()) {
                let What::Block { tenant, window, .. } = &live.what else {
                    agenda.segments.insert((live.created_millis, key.clone()));
                    agenda.segment_bytes += live.bytes;
                    continue;
                };
                if plan::must_rewrite(&self.state, key, live) {
                    agenda.rewrites.insert(key.clone());
                }
                if plan::is_small(live, &self.config) {
                    let window = plan::target(*window, &self.config, self.unix_millis);
                    let group = Group { tenant: tenant.clone(), window, shard: shard_of(key) };
                    groups.entry(group).or_default().push((key, live));
                }
            }
            for (group, blocks) in groups {
                let judged = plan::judge(&blocks, group.window, &self.config, self.unix_millis);
                if let Judgement::Ripe(ripe) = judged {
                    agenda.ripe.insert((ripe.since_millis, group));
                }
            }
            agenda
        }

        fn check(&mut self) {
            Agenda::follow(&mut self.state, &self.config, self.unix_millis);
            let (followed, scratch) = (&self.state.agenda, self.scratch());
            assert_eq!(followed.segments, scratch.segments);
            assert_eq!(followed.segment_bytes, scratch.segment_bytes);
            assert_eq!(followed.rewrites, scratch.rewrites);
            assert_eq!(followed.ripe, scratch.ripe);
        }
    }

    #[test]
    fn what_was_followed_is_what_a_look_at_everything_finds() {
        let (mut ripe, mut rewrites) = (0, 0);
        for seed in 0..60 {
            let mut world = World::new(seed * 7_919);
            for _ in 0..200 {
                world.step();
                world.check();
                ripe += usize::from(!world.state.agenda.ripe.is_empty());
                rewrites += usize::from(!world.state.agenda.rewrites.is_empty());
            }
        }
        assert!(ripe.min(rewrites) > 1_000, "only {ripe} steps had a ripe group, {rewrites} a rewrite");
    }
}
