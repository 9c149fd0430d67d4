//! The deletions that the owner knows.
//!
//! Owns: which deletions are in force, which of them an object still needs, the floor of consumed segments, the bytes
//! of deletion objects. Does not own: how a deletion is made and finished (`deletion_lifecycle`), which rows it erases
//! (`query`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use catalog::Batch;
use catalog::codec::{DecodeError, Reader, Writer};
use catalog::rows::{self, DatasetSummary, DeletionMatcher, DeletionState, Row};
use model::{TenantId, WriterId};
use query::selector::Op;
use query::{Deletion, Matcher, Selector};
use storage::{IdTag, Key, Store};
use xxhash_rust::xxh3::xxh3_128;

/// Version of deletion objects; 2 added the tag of the cluster.
const VERSION: u8 = 2;

/// All deletions, by number.
#[derive(Default)]
pub(crate) struct Deletions {
    in_force: BTreeMap<u64, DeletionInForce>,
    done: BTreeMap<u64, FinishedDeletion>,
    /// The highest number ever taken.
    last: u64,
    /// How often a deletion came into force.
    changes: u64,
}

/// A deletion that some object may still need.
#[derive(Debug)]
pub(crate) struct DeletionInForce {
    pub(crate) deletion: Arc<Deletion>,
    pub(crate) row: rows::Deletion,
    /// The next slot of each log when the deletion was made: it erases from the slots before.
    positions: BTreeMap<WriterId, u64>,
    /// Whether the catalog has it. Until then its number is only reserved.
    pub(crate) is_made: bool,
    /// If no live object needs it: the dead objects that may hold its rows and are not swept yet.
    pub(crate) unswept: Option<BTreeSet<Key>>,
}

/// A finished deletion: only its number and a hash are left.
#[derive(Clone, Debug)]
pub(crate) struct FinishedDeletion {
    pub(crate) row: rows::Deletion,
    /// The version that replaced its row; `None` once no file of the catalog holds the earlier row.
    pub(crate) replaced: Option<u64>,
}

impl Deletions {
    /// Takes in a row of the catalog, as of `version`.
    ///
    /// # Errors
    /// A matcher cannot be parsed.
    pub(crate) fn load(&mut self, row: rows::Deletion, version: u64) -> Result<(), String> {
        match row.state {
            DeletionState::InForce { .. } => self.add(row, true).map(drop),
            DeletionState::Done { .. } => {
                self.last = self.last.max(row.number);
                self.done.insert(row.number, FinishedDeletion { row, replaced: Some(version) });
                Ok(())
            }
        }
    }

    /// Adds a deletion that is in force (`is_made`), or whose number is reserved. Slots from its positions on have it
    /// as floor.
    pub(crate) fn add(&mut self, row: rows::Deletion, is_made: bool) -> Result<Arc<Deletion>, String> {
        let DeletionState::InForce { matchers, range, positions } = &row.state else {
            return Err(format!("deletion {} is finished", row.number));
        };
        let matchers = matchers.iter().map(matcher).collect::<Result<Vec<_>, String>>()?;
        if matchers.is_empty() {
            return Err(format!("deletion {} has no matcher", row.number));
        }
        let deletion = Deletion {
            number: row.number,
            tenant: row.tenant.clone(),
            selector: Selector { matchers },
            range: *range,
        };
        let positions = positions.iter().copied().collect();
        self.last = self.last.max(row.number);
        let deletion = Arc::new(deletion);
        self.changes += u64::from(is_made);
        let in_force = DeletionInForce { deletion: deletion.clone(), row, positions, is_made, unswept: None };
        self.in_force.insert(deletion.number, in_force);
        Ok(deletion)
    }

    /// Puts a reserved deletion in force.
    pub(crate) fn made(&mut self, number: u64) {
        if let Some(deletion) = self.in_force.get_mut(&number) {
            deletion.is_made = true;
            self.changes += 1;
        }
    }

    /// Forgets a reserved deletion. Its number is not taken again.
    pub(crate) fn give_up(&mut self, number: u64) {
        self.in_force.remove(&number);
    }

    /// Replaces a deletion by its hash. Its row was replaced in `version`.
    pub(crate) fn finish(&mut self, row: rows::Deletion, version: u64) {
        self.in_force.remove(&row.number);
        self.done.insert(row.number, FinishedDeletion { row, replaced: Some(version) });
    }

    /// Notes that numbers up to `floor` are taken.
    pub(crate) fn saw_floor(&mut self, floor: u64) {
        self.last = self.last.max(floor);
    }

    /// How often a deletion came into force.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The highest number ever taken.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The newest deletion that a merge that begins now applies: it and all before it are in force or finished.
    pub(crate) fn floor(&self) -> u64 {
        let unmade = self.in_force.values().find(|deletion| !deletion.is_made);
        unmade.map_or(self.last, |deletion| deletion.deletion.number - 1)
    }

    /// The floor of a segment: the newest deletion that was made before the segment was consumed.
    pub(crate) fn floor_of(&self, writer: WriterId, seq: u64) -> u64 {
        let before =
            |deletion: &&DeletionInForce| deletion.positions.get(&writer).is_some_and(|next| seq < *next);
        self.in_force.values().find(before).map_or(self.last, |deletion| deletion.deletion.number - 1)
    }

    pub(crate) fn row(&self, number: u64) -> Option<&rows::Deletion> {
        let in_force = self.in_force.get(&number).map(|deletion| &deletion.row);
        in_force.or_else(|| self.done.get(&number).map(|done| &done.row))
    }

    /// Deletions in force above `floor`, oldest first.
    pub(crate) fn above(&self, floor: u64) -> impl DoubleEndedIterator<Item = &DeletionInForce> {
        self.in_force
            .range(floor.saturating_add(1)..)
            .map(|(_, deletion)| deletion)
            .filter(|deletion| deletion.is_made)
    }

    /// Deletions above `floor` that touch one of `datasets`.
    pub(crate) fn needed_by(&self, floor: u64, datasets: &[DatasetSummary]) -> Vec<Arc<Deletion>> {
        let touching =
            self.above(floor).filter(|in_force| datasets.iter().any(|d| touches(&in_force.deletion, d)));
        touching.map(|in_force| in_force.deletion.clone()).collect()
    }

    pub(crate) fn in_force_mut(&mut self) -> impl Iterator<Item = &mut DeletionInForce> {
        self.in_force.values_mut().filter(|deletion| deletion.is_made)
    }

    pub(crate) fn done(&self) -> impl DoubleEndedIterator<Item = &FinishedDeletion> {
        self.done.values()
    }

    pub(crate) fn done_mut(&mut self) -> impl Iterator<Item = &mut FinishedDeletion> {
        self.done.values_mut()
    }

    /// When the oldest deletion was made whose data may still be in the bucket, in Unix milliseconds.
    pub(crate) fn unfinished_since_millis(&self) -> Option<i64> {
        let in_force = self.in_force.values().map(|deletion| &deletion.row);
        let replaced = self.done.values().filter(|done| done.replaced.is_some()).map(|done| &done.row);
        in_force.chain(replaced).map(|row| row.created_millis).min()
    }

    /// Number of deletions of `tenant` in force that live objects need, or that none needs, as of the last update of
    /// [`DeletionInForce::unswept`].
    pub(crate) fn count_of(&self, tenant: &TenantId, is_needed: bool) -> usize {
        let is_counted = |in_force: &&DeletionInForce| {
            in_force.deletion.tenant == *tenant && in_force.unswept.is_none() == is_needed
        };
        self.in_force.values().filter(is_counted).count()
    }

    /// Number of dead objects that may still hold rows of a deletion; 0 if that is not known.
    pub(crate) fn unswept_count(&self, number: u64) -> usize {
        let unswept = self.in_force.get(&number).and_then(|in_force| in_force.unswept.as_ref());
        unswept.map_or(0, BTreeSet::len)
    }

    /// Number of deletions in force, of all tenants.
    pub(crate) fn len(&self) -> usize {
        self.in_force.len()
    }
}

/// Whether a dataset may hold rows that the deletion erases.
pub(crate) fn touches(deletion: &Deletion, dataset: &DatasetSummary) -> bool {
    deletion.touches(&dataset.tenant, &dataset.service, &dataset.profile_types, dataset.times)
}

fn matcher(row: &DeletionMatcher) -> Result<Matcher, String> {
    let DeletionMatcher { name, value, is_regex, is_negated } = row;
    match (is_regex, is_negated) {
        (false, false) => Ok(Matcher::equal(name, value)),
        (false, true) => Ok(Matcher { op: Op::NotEqual, ..Matcher::equal(name, value) }),
        (true, negated) => Matcher::regex(name, value, *negated),
    }
}

pub(crate) fn matchers_of(selector: &Selector) -> Vec<DeletionMatcher> {
    let row = |matcher: &Matcher| DeletionMatcher {
        name: matcher.name.to_string(),
        value: matcher.value.to_string(),
        is_regex: matches!(matcher.op, Op::Matches(_) | Op::MatchesNot(_)),
        is_negated: matches!(matcher.op, Op::NotEqual | Op::MatchesNot(_)),
    };
    selector.matchers.iter().map(row).collect()
}

/// The row of a finished deletion, with a hash instead of its selector and range.
pub(crate) fn done_of(row: &rows::Deletion, unix_millis: i64) -> rows::Deletion {
    let mut out = Writer::default();
    let without_positions = rows::Deletion {
        state: match &row.state {
            DeletionState::InForce { matchers, range, .. } => {
                DeletionState::InForce { matchers: matchers.clone(), range: *range, positions: Vec::new() }
            }
            done @ DeletionState::Done { .. } => done.clone(),
        },
        ..row.clone()
    };
    without_positions.encode(&mut out);
    let state = DeletionState::Done { hash: xxh3_128(&out.0), finished_millis: unix_millis };
    rows::Deletion { state, ..row.clone() }
}

/// A deletion as an object of the bucket. The objects are the truth; rows repeat them.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct DeletionObject {
    /// Epoch of the owner that wrote it.
    pub(crate) epoch: u64,
    /// Tag of its cluster; `None` if that has none, or an earlier version wrote the object.
    pub(crate) id_tag: Option<IdTag>,
    pub(crate) row: rows::Deletion,
}

impl DeletionObject {
    /// Whether it is a deletion of another cluster that was copied into this bucket.
    pub(crate) fn is_of_another_cluster(&self, store: &Store) -> bool {
        store.id_tag().zip(self.id_tag).is_some_and(|(own, tag)| own != tag)
    }

    pub(crate) fn key(&self) -> Key {
        key_of(&self.row)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.epoch);
        out.u64(self.id_tag.map_or(0, |tag| u64::from(tag.0) + 1));
        let mut batch = Batch::default();
        self.row.put_into(&mut batch);
        for (key, value) in &batch.changes {
            out.bytes(key);
            out.bytes(value.as_deref().unwrap_or_default());
        }
        out.0.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "deletion");
        reader.read_version(VERSION)?;
        let epoch = reader.u64()?;
        let id_tag = match reader.version() {
            1 => None,
            _ => reader.u64()?.checked_sub(1).map(|tag| IdTag(tag as u32)),
        };
        let row = rows::Deletion::read(reader.bytes()?, reader.bytes()?)?;
        reader.end()?;
        Ok(Self { epoch, id_tag, row })
    }
}

pub(crate) fn key_of(row: &rows::Deletion) -> Key {
    Key::deletion(&row.tenant, row.number, matches!(row.state, DeletionState::Done { .. }))
}

/// Chooses one object for each number: the finished deletion, else that of the latest owner. The others were written by
/// owners that had been replaced without knowing, and were never confirmed to a client.
pub(crate) fn settle(objects: Vec<DeletionObject>) -> BTreeMap<u64, DeletionObject> {
    let mut settled: BTreeMap<u64, DeletionObject> = BTreeMap::new();
    for object in objects {
        let rank = |object: &DeletionObject| {
            let is_done = matches!(object.row.state, DeletionState::Done { .. });
            (is_done, object.epoch, object.row.tenant.clone())
        };
        match settled.get(&object.row.number) {
            Some(other) if rank(other) >= rank(&object) => {}
            _ => {
                settled.insert(object.row.number, object);
            }
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use model::TimeRange;

    use super::*;

    fn row(number: u64, positions: &[(u128, u64)]) -> rows::Deletion {
        let selector = Selector::parse(r#"{pod="p\"é",env!~"a|b"}"#).expect("a selector");
        let state = DeletionState::InForce {
            matchers: matchers_of(&selector),
            range: TimeRange { start: -5, end: i64::MAX },
            positions: positions.iter().map(|(writer, next)| (WriterId(*writer), *next)).collect(),
        };
        rows::Deletion { number, tenant: TenantId::anonymous(), created_millis: 9, state }
    }

    #[test]
    fn a_deletion_reads_back_and_a_cut_one_is_refused() {
        let object = DeletionObject { epoch: 3, id_tag: Some(IdTag(0)), row: row(7, &[(1, 2)]) };
        let bytes = object.encode();
        assert_eq!(DeletionObject::decode(&bytes), Ok(object.clone()));
        for len in 0..bytes.len() {
            assert!(DeletionObject::decode(&bytes[..len]).is_err());
        }
        let mut deletions = Deletions::default();
        deletions.add(object.row, true).expect("is valid");
        let selector = deletions.above(0).next().expect("in force").deletion.selector.to_string();
        assert_eq!(selector, r#"{pod="p\"é",env!~"a|b"}"#);
    }

    #[test]
    fn a_segment_is_older_than_the_deletions_whose_positions_include_it() {
        let mut deletions = Deletions::default();
        deletions.add(row(4, &[(1, 3)]), true).expect("is valid");
        deletions.add(row(5, &[(1, 6), (2, 1)]), true).expect("is valid");
        let floors = |writer, seqs: &[u64]| -> Vec<u64> {
            seqs.iter().map(|seq| deletions.floor_of(WriterId(writer), *seq)).collect()
        };
        assert_eq!(floors(1, &[0, 2, 3, 5, 6]), [3, 3, 4, 4, 5]);
        assert_eq!(floors(2, &[0, 1]), [4, 5]);
        assert_eq!(floors(3, &[0]), [5], "a log that became known later");
    }

    #[test]
    fn a_deletion_is_unfinished_until_no_file_of_the_catalog_holds_it() {
        let mut deletions = Deletions::default();
        assert_eq!(deletions.unfinished_since_millis(), None);
        deletions.add(row(7, &[]), true).expect("is valid");
        deletions.add(rows::Deletion { created_millis: 12, ..row(8, &[]) }, true).expect("is valid");
        assert_eq!(deletions.unfinished_since_millis(), Some(9));
        deletions.finish(done_of(&row(7, &[]), 20), 3);
        assert_eq!(deletions.unfinished_since_millis(), Some(9));
        deletions.done_mut().for_each(|done| done.replaced = None);
        assert_eq!(deletions.unfinished_since_millis(), Some(12));
    }

    #[test]
    fn a_finished_deletion_holds_nothing_of_its_selector() {
        let done = done_of(&row(7, &[(1, 2)]), 11);
        assert_eq!(done, done_of(&row(7, &[(8, 9)]), 11), "positions do not matter");
        let bytes = DeletionObject { epoch: 1, id_tag: None, row: done }.encode();
        assert!(!bytes.windows(3).any(|bytes| bytes == b"env"));
    }

    #[test]
    fn among_deletions_with_one_number_the_finished_or_the_latest_counts() {
        let tenant = |name: &str| TenantId::parse(name).expect("valid");
        let object = |name: &str, epoch| DeletionObject {
            epoch,
            id_tag: None,
            row: rows::Deletion { tenant: tenant(name), ..row(7, &[]) },
        };
        let done = DeletionObject { epoch: 1, id_tag: None, row: done_of(&object("c", 1).row, 3) };
        let settled = settle(vec![object("a", 4), object("b", 5), object("a", 3)]);
        assert_eq!(settled[&7].row.tenant, tenant("b"));
        let settled = settle(vec![object("a", 4), done, object("b", 5)]);
        assert_eq!(settled[&7].row.tenant, tenant("c"));
    }
}
