//! Records all pushes, creates and answers, and reports broken invariants.
//!
//! Owns: the checks, each with the number of its invariant (docs/simulation.md).
//! Does not own: when they are made.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use block::Seal;
use bytes::Bytes;
use model::{ItemKey, TenantId, TimeRange, WriterId};
use parking_lot::Mutex;
use storage::Key;
use xxhash_rust::xxh3::xxh3_64;

use crate::bucket::Objects;
use crate::contents::ObjectContents;
use crate::deletions::DeletionTarget;
use crate::journal::Journal;
use crate::load::{ALIKE, PAST};

/// Most items that share one stacktrace: the number of base-4 digits in a sum.
const ALIKE_MAX: u32 = 31;

/// Longest time of a query, and so the least time for which the objects of its snapshot must stay.
pub(crate) const SNAPSHOT_LIFE: Duration = Duration::from_secs(60);

/// Time after which every late or repeated request has arrived.
pub(crate) const DELIVERED_WITHIN: Duration = Duration::from_secs(100);

/// The oracle of one run; cheap to clone.
#[derive(Clone)]
pub(crate) struct Oracle(Arc<Mutex<State>>, Journal);

#[derive(Default)]
struct State {
    items: Vec<Item>,
    deletions: Vec<Deletion>,
    by_key: BTreeMap<ItemKey, u64>,
    /// Hash of the bytes that each key was created with.
    contents: BTreeMap<Key, u64>,
    logs: BTreeMap<WriterId, Log>,
    /// The latest time at which a snapshot named the object.
    named: BTreeMap<Key, Duration>,
    /// Deleted keys. No process creates them again, but the network may repeat an old create.
    deleted: BTreeSet<Key>,
    /// The highest version in an answer.
    version: u64,
    /// Epoch of the newest owner of the catalog.
    epoch: u64,
    /// Whether all data of the service [`PAST`] have to be gone.
    is_past_expired: bool,
    violations: Vec<Violation>,
}

/// One pushed profile.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) tenant: TenantId,
    pub(crate) service: &'static str,
    pub(crate) time_nanos: i64,
    pub(crate) key: ItemKey,
    /// Value of the stacktrace that all items have.
    pub(crate) shared: i64,
    /// The item's other stacktrace. If several items share it, each has a digit of its sum, to base 4.
    pub(crate) stack: String,
    pub(crate) digit: u32,
    /// Whether an ingester has acknowledged it.
    pub(crate) is_acknowledged: bool,
    /// Whether it must be in every answer from now on: it was acknowledged after the owner took its hint, or an
    /// answer had it already.
    pub(crate) is_visible: bool,
    /// Whether it may be gone by its age, or by a deletion that was being made when it was pushed.
    pub(crate) may_be_gone: bool,
    /// Time from which on no answer may have it.
    pub(crate) erased: Option<Duration>,
}

impl Item {
    /// Value of the stacktrace that few items have.
    pub(crate) fn own(&self) -> i64 {
        1 << (2 * self.digit)
    }

    pub(crate) fn pod(&self) -> String {
        format!("pod-{}", self.number % 3)
    }
}

/// Index of a deletion among all of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeletionId(usize);

struct Deletion {
    about: DeletionTarget,
    /// Matching items that were acknowledged, or in an answer, before the deletion was requested.
    covered: Vec<u64>,
    /// Unfinished requests: the client's, and those that arrived at a metastore.
    running: usize,
    /// Time at which a request was last sent, arrived or ended.
    last_step: Duration,
}

impl Deletion {
    /// Whether it may erase items that are pushed now.
    fn may_erase(&self, now: Duration) -> bool {
        self.running > 0 || now < self.last_step + DELIVERED_WITHIN
    }
}

#[derive(Default)]
struct Log {
    slots: BTreeMap<u64, Content>,
    /// Slots whose hints the owner took.
    hinted: BTreeSet<u64>,
}

enum Content {
    Seal,
    Items(Vec<ItemKey>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its number in docs/simulation.md: "I4".
    pub invariant: &'static str,
    pub details: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.details)
    }
}

/// The data that a query selects: of these tenants, of all services or one, in a time range.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) service: Option<&'static str>,
    pub(crate) range: TimeRange,
}

/// How often each item counts, and the sum of the shared stacktrace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) items: BTreeMap<u64, i64>,
    pub(crate) shared: i64,
}

/// Step of a request for a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeletionStep {
    Sent,
    Arrived,
    Ended,
}

/// How strictly an answer is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strictness {
    /// For an answer that calls itself partial, or stale as of this time.
    Partial(Duration),
    /// For a running cluster: an acknowledged item may take a moment to become visible.
    Running,
    /// For all durable data: every acknowledged item counts.
    Settled,
}

impl Strictness {
    fn as_of(self) -> Duration {
        match self {
            Self::Partial(time) => time,
            Self::Running | Self::Settled => Duration::MAX,
        }
    }
}

/// The items that an answer must and must not have, as of the start of its query.
pub(crate) struct Expectation {
    visible: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    /// Items that must not be in the answer.
    erased: BTreeSet<u64>,
}

impl Oracle {
    pub(crate) fn new(journal: Journal) -> Self {
        Self(Arc::default(), journal)
    }

    pub(crate) fn violate(&self, invariant: &'static str, details: impl Into<String>) {
        self.add(&mut self.0.lock(), invariant, details);
    }

    fn add(&self, state: &mut State, invariant: &'static str, details: impl Into<String>) {
        let violation = Violation { invariant, details: details.into() };
        self.1.note(format_args!("VIOLATION {violation}"));
        state.violations.push(violation);
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.0.lock().violations.clone()
    }

    pub(crate) fn has_failed(&self) -> bool {
        !self.0.lock().violations.is_empty()
    }

    /// Registers an item; its number is its index.
    pub(crate) fn push(&self, now: Duration, make: impl FnOnce(u64) -> Item) -> Item {
        let mut state = self.0.lock();
        let mut item = make(state.items.len() as u64);
        if item.service == ALIKE {
            let is_alike = |other: &&Item| other.service == ALIKE && other.tenant == item.tenant;
            let before = state.items.iter().filter(is_alike).count() as u32;
            item.stack = format!("alike-{}-{}", item.tenant, before / ALIKE_MAX);
            item.digit = before % ALIKE_MAX;
        }
        item.may_be_gone =
            state.deletions.iter().any(|deletion| deletion.may_erase(now) && deletion.about.is_about(&item));
        state.by_key.insert(item.key, item.number);
        state.items.push(item.clone());
        item
    }

    /// How often each item counts in the sums of stacktraces that few items have.
    pub(crate) fn items_in(&self, sums: &BTreeMap<String, i64>) -> BTreeMap<u64, i64> {
        let state = self.0.lock();
        let counts = state.items.iter().filter_map(|item| {
            let sum = *sums.get(&item.stack)?;
            let count = if item.service == ALIKE { (sum >> (2 * item.digit)) & 3 } else { sum };
            (count != 0).then_some((item.number, count))
        });
        counts.collect()
    }

    pub(crate) fn items(&self) -> Vec<Item> {
        self.0.lock().items.clone()
    }

    pub(crate) fn set_may_be_gone(&self, may: impl Fn(&Item) -> bool) {
        for item in &mut self.0.lock().items {
            item.may_be_gone |= may(item);
        }
    }

    /// From now on no answer may have data past their retention.
    pub(crate) fn past_has_expired(&self) {
        self.0.lock().is_past_expired = true;
    }

    /// Registers a deletion that is going to be requested.
    pub(crate) fn deletion(&self, make: impl FnOnce(usize) -> DeletionTarget, now: Duration) -> DeletionId {
        let mut state = self.0.lock();
        let id = DeletionId(state.deletions.len());
        let about = make(id.0);
        let mut covered = Vec::new();
        for item in state.items.iter_mut().filter(|item| about.is_about(item)) {
            item.may_be_gone = true;
            if item.is_acknowledged || item.is_visible {
                covered.push(item.number);
            }
        }
        state.deletions.push(Deletion { about, covered, running: 1, last_step: now });
        id
    }

    pub(crate) fn request_of(&self, deletion: DeletionId) -> rpc::DeleteRequest {
        self.0.lock().deletions[deletion.0].about.request.clone()
    }

    /// Notes that a request for a deletion was sent, has arrived at a metastore, or has ended there.
    pub(crate) fn note_deletion_step(&self, request: &rpc::DeleteRequest, now: Duration, step: DeletionStep) {
        let mut state = self.0.lock();
        let selector = request.selector.to_string();
        let is_it = |deletion: &&mut Deletion| deletion.about.request.selector.to_string() == selector;
        if let Some(deletion) = state.deletions.iter_mut().find(is_it) {
            deletion.last_step = now;
            match step {
                DeletionStep::Sent => {}
                DeletionStep::Arrived => deletion.running += 1,
                DeletionStep::Ended => deletion.running -= 1,
            }
        }
    }

    /// Notes that the client of the deletion does not retry any more.
    pub(crate) fn stop_asking(&self, deletion: DeletionId, now: Duration) {
        let deletion = &mut self.0.lock().deletions[deletion.0];
        deletion.running -= 1;
        deletion.last_step = now;
    }

    /// Notes that the client of the deletion got the answer that it is in force.
    pub(crate) fn answered(&self, deletion: DeletionId, now: Duration) {
        let mut state = self.0.lock();
        let state = &mut *state;
        for number in &state.deletions[deletion.0].covered {
            state.items[*number as usize].erased.get_or_insert(now);
        }
    }

    /// Checks that no object holds an erased item, or the text of a deletion.
    pub(crate) fn judge_erased(&self, contents: &[ObjectContents]) {
        let mut state = self.0.lock();
        let mut left = Vec::new();
        let contents = contents.iter().filter(|object| !state.deleted.contains(&object.key));
        for ObjectContents { key, items, bytes, .. } in contents {
            let is_erased = |number: &&u64| state.items[**number as usize].erased.is_some();
            left.extend(
                items.iter().find(is_erased).map(|item| format!("{key} holds item {item}, which is erased")),
            );
            let says = |deletion: &&Deletion| {
                let mark = deletion.about.mark.as_bytes();
                bytes.windows(mark.len()).any(|text| text == mark)
            };
            let said = state.deletions.iter().find(says);
            left.extend(said.map(|deletion| format!("{key} still contains {:?}", deletion.about.mark)));
        }
        left.into_iter().for_each(|details| self.add(&mut state, "I16", details));
    }

    /// Notes that an ingester acknowledged these items.
    pub(crate) fn acknowledged(&self, keys: &[ItemKey]) {
        let mut state = self.0.lock();
        for key in keys {
            let place = state.logs.values().find_map(|log| log.place_of(key));
            let Some(number) = state.by_key.get(key).copied() else {
                continue;
            };
            match place {
                None => {
                    let details =
                        format!("item {number} is acknowledged and in no log below its first gap and seal");
                    self.add(&mut state, "I2", details);
                }
                Some(is_hinted) => {
                    let item = &mut state.items[number as usize];
                    item.is_acknowledged = true;
                    item.is_visible |= is_hinted;
                }
            }
        }
    }

    /// Notes that the owner has taken a hint.
    pub(crate) fn hinted(&self, writer: WriterId, seq: u64) {
        self.0.lock().logs.entry(writer).or_default().hinted.insert(seq);
    }

    pub(crate) fn created(&self, key: &Key, bytes: &Bytes) {
        let mut state = self.0.lock();
        let content = xxh3_64(bytes);
        let is_other = state.contents.insert(key.clone(), content).is_some_and(|before| before != content);
        // An old request may arrive after its slot of the catalog was collected; slots below a checkpoint are not read.
        if is_other && !key.as_str().starts_with("catalog/") {
            let details = format!("{key} was created a second time, with other bytes");
            self.add(&mut state, "I1", details);
        }
        let Some((writer, seq)) = key.parse_log_slot() else {
            return;
        };
        let content = match Seal::decode(bytes) {
            Some(_) => Content::Seal,
            None => Content::Items(keys_of(key, bytes)),
        };
        let log = state.logs.entry(writer).or_default();
        let seal =
            log.slots.iter().find(|(_, content)| matches!(content, Content::Seal)).map(|(seal, _)| *seal);
        if let Some(seal) = seal
            && seq < seal
            && !log.slots.contains_key(&seq)
        {
            let details = format!("slot {seq} of log {writer} was filled after its seal {seal}");
            self.add(&mut state, "I3", details);
        } else {
            log.slots.entry(seq).or_insert(content);
        }
    }

    pub(crate) fn deleted(&self, key: &Key, now: Duration) {
        let mut state = self.0.lock();
        state.deleted.insert(key.clone());
        let Some(named) = state.named.get(key) else {
            return;
        };
        let age = now.saturating_sub(*named);
        if age < SNAPSHOT_LIFE {
            let details = format!("{key} was deleted {age:?} after a snapshot named it");
            self.add(&mut state, "I19", details);
        }
    }

    /// Notes that the catalog has an owner with this epoch now.
    pub(crate) fn opened(&self, epoch: u64) {
        let mut state = self.0.lock();
        state.epoch = state.epoch.max(epoch);
    }

    pub(crate) fn newest_epoch(&self) -> u64 {
        self.0.lock().epoch
    }

    /// The highest version in an answer so far.
    pub(crate) fn highest_version(&self) -> u64 {
        self.0.lock().version
    }

    /// Checks the answer to a find that began when `before` was the highest version.
    pub(crate) fn found(&self, snapshot: &rpc::Snapshot, before: u64, now: Duration) {
        let mut state = self.0.lock();
        if snapshot.version < before {
            let details = format!("version {} was answered after version {before}", snapshot.version);
            self.add(&mut state, "I18", details);
        }
        state.version = state.version.max(snapshot.version);
        for object in &snapshot.objects {
            state.named.insert(object.key.clone(), now);
        }
    }

    /// The expectation for a query that is sent now.
    pub(crate) fn expected(&self) -> Expectation {
        let state = self.0.lock();
        let numbers = |matches: &dyn Fn(&Item) -> bool| {
            state.items.iter().filter(|item| matches(item)).map(|item| item.number).collect()
        };
        Expectation {
            visible: numbers(&|item| item.is_visible),
            acknowledged: numbers(&|item| item.is_acknowledged),
            erased: numbers(&|item| item.erased.is_some()),
        }
    }

    /// Judges an answer, and marks its items as visible.
    pub(crate) fn judge(
        &self,
        source: &str,
        scope: &Scope,
        expected: &Expectation,
        counts: &Counts,
        strictness: Strictness,
    ) {
        let mut state = self.0.lock();
        let mut violations = Vec::new();
        let mut shared = 0;
        let is_past_expired = state.is_past_expired;
        for item in &mut state.items {
            let count = counts.items.get(&item.number).copied().unwrap_or(0);
            let is_asked = scope.has(item);
            shared += item.shared * count;
            let must = is_asked
                && !item.may_be_gone
                && !matches!(strictness, Strictness::Partial(_))
                && (expected.visible.contains(&item.number)
                    || (strictness == Strictness::Settled && expected.acknowledged.contains(&item.number)));
            // An answer that calls itself stale may have items that were erased since.
            let is_erased = expected.erased.contains(&item.number)
                && item.erased.is_some_and(|erased| erased <= strictness.as_of());
            let is_over = is_past_expired && item.service == PAST;
            let allowed = match (is_erased || is_over, must) {
                (true, _) => 0..=0,
                (_, true) => 1..=1,
                _ => 0..=i64::from(is_asked),
            };
            if !allowed.contains(&count) {
                let invariant = match count {
                    _ if is_over => "retention",
                    _ if is_erased => "I15",
                    _ if !is_asked => "I17",
                    0 if strictness == Strictness::Settled => "I2",
                    0 => "I17",
                    _ => "I4",
                };
                let state = match (item.is_acknowledged, item.is_visible) {
                    (true, true) => "acknowledged and visible",
                    (true, false) => "acknowledged",
                    (false, true) => "visible",
                    (false, false) => "not acknowledged",
                };
                let erased = if is_erased { ", erased" } else { "" };
                violations.push(Violation {
                    invariant,
                    details: format!(
                        "{source}: item {} ({state}{erased}, {} of {}) counts {count} times instead of {allowed:?}",
                        item.number, item.service, item.tenant,
                    ),
                });
            }
            if count > 0 && strictness != Strictness::Settled {
                item.is_visible = true;
            }
        }
        if shared != counts.shared && violations.is_empty() {
            let details = format!("{source}: the items sum up to {shared}, the answer to {}", counts.shared);
            violations.push(Violation { invariant: "I11", details });
        }
        for Violation { invariant, details } in violations {
            self.add(&mut state, invariant, details);
        }
    }

    /// Checks that each object of the snapshot exists.
    pub(crate) fn judge_rows(&self, snapshot: &rpc::Snapshot, objects: &Objects) {
        let keys: BTreeSet<Key> = objects.keys().into_iter().collect();
        for object in snapshot.objects.iter().filter(|object| !keys.contains(&object.key)) {
            self.violate("I6", format!("{} is live and not in the bucket", object.key));
        }
    }
}

impl Log {
    /// Whether the owner took the hint of the item's segment; `None` if the item is not below the first gap and seal.
    fn place_of(&self, key: &ItemKey) -> Option<bool> {
        for (next, (seq, content)) in (0..).zip(&self.slots) {
            match content {
                Content::Items(keys) if *seq == next => {
                    if keys.contains(key) {
                        return Some(self.hinted.contains(seq));
                    }
                }
                _ => return None,
            }
        }
        None
    }
}

impl Scope {
    /// The find request for all objects that the query needs.
    pub(crate) fn find(&self) -> rpc::FindRequest {
        rpc::FindRequest {
            tenants: self.tenants.clone(),
            range: self.range,
            services: self.service.map(|service| vec![service.to_owned()]),
            profile_type: None,
            explain: false,
        }
    }

    fn has(&self, item: &Item) -> bool {
        self.tenants.contains(&item.tenant)
            && self.service.is_none_or(|service| service == item.service)
            && (self.range.start..self.range.end).contains(&item.time_nanos)
    }
}

fn keys_of(key: &Key, bytes: &Bytes) -> Vec<ItemKey> {
    let objects = Objects::one(key, bytes);
    // In memory, so the future never waits.
    let store = objects.store(clock::Clock::system());
    let opening = async {
        let cache = block::Cache::new(0);
        block::Reader::open(&store, key, bytes.len() as u64, &cache).await
    };
    match futures::executor::block_on(opening) {
        Ok(block) => block.directory().keys.clone(),
        Err(_) => Vec::new(),
    }
}
