//! Orders to delete, as the owner knows them.
//!
//! Owns: which orders are in force, which of them an object still needs, the floor of what is consumed, their bytes.
//! Does not own: how an order is made and finished (`delete`), what it erases (`query`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use catalog::Batch;
use catalog::codec::{DecodeError, Reader, Writer};
use catalog::rows::{self, DatasetSummary, OrderMatcher, OrderState, Row};
use model::{TenantId, WriterId};
use query::selector::Op;
use query::{DeleteOrder, Matcher, Selector};
use storage::{IdTag, Key, Store};
use xxhash_rust::xxh3::xxh3_128;

use crate::live::{Live, What};
use crate::state::State;

/// 2 added the tag of the cluster.
const VERSION: u8 = 2;

/// All orders, by number.
#[derive(Default)]
pub(crate) struct Orders {
    in_force: BTreeMap<u64, InForce>,
    done: BTreeMap<u64, Done>,
    /// The highest number ever given.
    last: u64,
    /// How often an order came into force.
    changes: u64,
}

/// An order that some object may still need.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) order: Arc<DeleteOrder>,
    pub(crate) row: rows::Order,
    positions: BTreeMap<WriterId, u64>,
    /// Whether the catalog has it: only then it is in force.
    pub(crate) is_made: bool,
    /// Once no live object needs it: dead ones that are not swept yet.
    pub(crate) unswept: Option<BTreeSet<Key>>,
}

/// An order of which only the number and a hash are left.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) row: rows::Order,
    /// The version that replaced its row, until no file of the catalog holds what was before.
    pub(crate) replaced: Option<u64>,
}

impl Orders {
    /// Takes in a row of the catalog, as of `version`.
    ///
    /// # Errors
    /// A matcher cannot be understood.
    pub(crate) fn load(&mut self, row: rows::Order, version: u64) -> Result<(), String> {
        match row.state {
            OrderState::InForce { .. } => self.add(row, true),
            OrderState::Done { .. } => {
                self.last = self.last.max(row.number);
                self.done.insert(row.number, Done { row, replaced: Some(version) });
                Ok(())
            }
        }
    }

    /// Takes in an order that is in force, or will be. What is consumed from its positions on has it as floor.
    pub(crate) fn add(&mut self, row: rows::Order, is_made: bool) -> Result<(), String> {
        let OrderState::InForce { matchers, range, positions } = &row.state else {
            return Err(format!("order {} is finished", row.number));
        };
        let matchers = matchers.iter().map(matcher).collect::<Result<Vec<_>, String>>()?;
        if matchers.is_empty() {
            return Err(format!("order {} has no matcher", row.number));
        }
        let order = DeleteOrder {
            number: row.number,
            tenant: row.tenant.clone(),
            selector: Selector { matchers },
            range: *range,
        };
        let positions = positions.iter().copied().collect();
        self.last = self.last.max(row.number);
        let order = Arc::new(order);
        self.changes += u64::from(is_made);
        self.in_force.insert(row.number, InForce { order, row, positions, is_made, unswept: None });
        Ok(())
    }

    /// Puts an order that was added in force.
    pub(crate) fn made(&mut self, number: u64) {
        if let Some(order) = self.in_force.get_mut(&number) {
            order.is_made = true;
            self.changes += 1;
        }
    }

    /// Forgets an order that was added and cannot be made. Its number is not given again.
    pub(crate) fn give_up(&mut self, number: u64) {
        self.in_force.remove(&number);
    }

    /// Forgets what an order was about. Its row was replaced in `version`.
    pub(crate) fn finish(&mut self, row: rows::Order, version: u64) {
        self.in_force.remove(&row.number);
        self.done.insert(row.number, Done { row, replaced: Some(version) });
    }

    /// Numbers up to `floor` were given.
    pub(crate) fn saw_floor(&mut self, floor: u64) {
        self.last = self.last.max(floor);
    }

    /// How often an order came into force.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The highest number ever given.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The newest order that is in force or finished: what a merge that begins now applies.
    pub(crate) fn floor(&self) -> u64 {
        let unmade = self.in_force.values().find(|order| !order.is_made);
        unmade.map_or(self.last, |order| order.order.number - 1)
    }

    /// The floor of a segment: the last of the orders that it was consumed after.
    pub(crate) fn floor_of(&self, writer: WriterId, seq: u64) -> u64 {
        let before = |order: &&InForce| order.positions.get(&writer).is_some_and(|next| seq < *next);
        self.in_force.values().find(before).map_or(self.last, |order| order.order.number - 1)
    }

    pub(crate) fn row(&self, number: u64) -> Option<&rows::Order> {
        let in_force = self.in_force.get(&number).map(|order| &order.row);
        in_force.or_else(|| self.done.get(&number).map(|done| &done.row))
    }

    /// Those above `floor`, oldest first.
    pub(crate) fn above(&self, floor: u64) -> impl DoubleEndedIterator<Item = &InForce> {
        self.in_force.range(floor.saturating_add(1)..).map(|(_, order)| order).filter(|order| order.is_made)
    }

    pub(crate) fn in_force_mut(&mut self) -> impl Iterator<Item = &mut InForce> {
        self.in_force.values_mut().filter(|order| order.is_made)
    }

    pub(crate) fn done(&self) -> impl DoubleEndedIterator<Item = &Done> {
        self.done.values()
    }

    pub(crate) fn done_mut(&mut self) -> impl Iterator<Item = &mut Done> {
        self.done.values_mut()
    }

    /// When the oldest of which something may be left in the bucket was made, in Unix milliseconds.
    pub(crate) fn unfinished_since_millis(&self) -> Option<i64> {
        let in_force = self.in_force.values().map(|order| &order.row);
        let replaced = self.done.values().filter(|done| done.replaced.is_some()).map(|done| &done.row);
        in_force.chain(replaced).map(|row| row.created_millis).min()
    }

    /// How many are in force, of all tenants.
    pub(crate) fn len(&self) -> usize {
        self.in_force.len()
    }
}

/// Orders above `floor` that touch one of `datasets`.
pub(crate) fn needed<'a>(
    orders: &Orders,
    floor: u64,
    datasets: impl Iterator<Item = &'a DatasetSummary> + Clone,
) -> Vec<Arc<DeleteOrder>> {
    let touching =
        orders.above(floor).filter(|in_force| datasets.clone().any(|d| touches(&in_force.order, d)));
    touching.map(|in_force| in_force.order.clone()).collect()
}

fn touches(order: &DeleteOrder, d: &DatasetSummary) -> bool {
    order.touches(&d.tenant, &d.service, &d.profile_types, d.times)
}

/// Live objects that may hold something that the order erases.
pub(crate) fn touched<'a>(
    state: &'a State,
    order: &'a DeleteOrder,
) -> impl Iterator<Item = (&'a Key, &'a Live)> {
    state.live.iter().filter(|(key, live)| is_touched(state, key, live, order))
}

pub(crate) fn is_touched(state: &State, key: &Key, live: &Live, order: &DeleteOrder) -> bool {
    if live.floor >= order.number {
        return false;
    }
    let window_times = match &live.what {
        What::Block { tenant, .. } if *tenant != order.tenant => return false,
        What::Block { window, .. } => Some(window.times()),
        What::Segment { .. } => None,
    };
    let object = live.id.and_then(|id| state.index.get(id));
    let quarantined = state.quarantined.get(key);
    let datasets = match (object, quarantined) {
        (Some(object), _) => &object.datasets[..],
        (None, Some(quarantined)) => &quarantined.datasets[..],
        (None, None) => &[],
    };
    if datasets.iter().any(|dataset| touches(order, dataset)) {
        return true;
    }
    // What else is in the object was forgotten when its time was over, or never known.
    let holds_more = live.live_rows < live.rows || (quarantined.is_some() && datasets.is_empty());
    holds_more && window_times.is_none_or(|times| order.range.overlaps(times))
}

fn matcher(row: &OrderMatcher) -> Result<Matcher, String> {
    let OrderMatcher { name, value, is_regex, is_negated } = row;
    match (is_regex, is_negated) {
        (false, false) => Ok(Matcher::equal(name, value)),
        (false, true) => Ok(Matcher { op: Op::NotEqual, ..Matcher::equal(name, value) }),
        (true, negated) => Matcher::regex(name, value, *negated),
    }
}

pub(crate) fn matchers_of(selector: &Selector) -> Vec<OrderMatcher> {
    let row = |matcher: &Matcher| OrderMatcher {
        name: matcher.name.to_string(),
        value: matcher.value.to_string(),
        is_regex: matches!(matcher.op, Op::Matches(_) | Op::MatchesNot(_)),
        is_negated: matches!(matcher.op, Op::NotEqual | Op::MatchesNot(_)),
    };
    selector.matchers.iter().map(row).collect()
}

/// What is left of an order when it is finished.
pub(crate) fn done_of(row: &rows::Order, unix_millis: i64) -> rows::Order {
    let mut out = Writer::default();
    let about = rows::Order {
        state: match &row.state {
            OrderState::InForce { matchers, range, .. } => {
                OrderState::InForce { matchers: matchers.clone(), range: *range, positions: Vec::new() }
            }
            done @ OrderState::Done { .. } => done.clone(),
        },
        ..row.clone()
    };
    about.encode(&mut out);
    let state = OrderState::Done { hash: xxh3_128(&out.0), finished_millis: unix_millis };
    rows::Order { state, ..row.clone() }
}

/// An order as an object of the bucket: the truth, which rows only repeat.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct OrderObject {
    /// Of the owner that wrote it.
    pub(crate) epoch: u64,
    /// Of its cluster; `None` if that has none, or an earlier version wrote it.
    pub(crate) id_tag: Option<IdTag>,
    pub(crate) row: rows::Order,
}

impl OrderObject {
    /// Whether somebody has put the order of another cluster into this bucket.
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
        let mut reader = Reader::new(bytes, "delete order");
        reader.read_version(VERSION)?;
        let epoch = reader.u64()?;
        let id_tag = match reader.version() {
            1 => None,
            _ => reader.u64()?.checked_sub(1).map(|tag| IdTag(tag as u32)),
        };
        let row = rows::Order::read(reader.bytes()?, reader.bytes()?)?;
        reader.end()?;
        Ok(Self { epoch, id_tag, row })
    }
}

pub(crate) fn key_of(row: &rows::Order) -> Key {
    Key::delete_order(&row.tenant, row.number, matches!(row.state, OrderState::Done { .. }))
}

/// Whether the object of an order says what is not, or no longer, in force: an owner wrote it that had been replaced,
/// or it is finished.
pub(crate) fn is_superfluous(state: &State, key: &Key) -> bool {
    let Some((tenant, number, is_done)) = key.parse_delete_order() else {
        return false;
    };
    let is_known = state.orders.row(number).is_some_and(|row| {
        // What is done in the bucket and not in the catalog will be finished again.
        row.tenant == tenant && (is_done || matches!(row.state, OrderState::InForce { .. }))
    });
    !is_known && !state.dead.contains_key(key)
}

/// Of several objects with one number, the one that is an order: a finished one, else that of the latest owner. The
/// others were written by owners that had been replaced without knowing, and nobody was told that they are in force.
pub(crate) fn settle(objects: Vec<OrderObject>) -> BTreeMap<u64, OrderObject> {
    let mut settled: BTreeMap<u64, OrderObject> = BTreeMap::new();
    for object in objects {
        let rank = |object: &OrderObject| {
            let is_done = matches!(object.row.state, OrderState::Done { .. });
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

/// How many orders of `tenant` are in force that live objects need, or that none needs, as of when that was noted last.
pub(crate) fn in_force_of(orders: &Orders, tenant: &TenantId, is_needed: bool) -> usize {
    let counts = |order: &&InForce| order.order.tenant == *tenant && order.unswept.is_none() == is_needed;
    orders.in_force.values().filter(counts).count()
}

#[cfg(test)]
mod tests {
    use model::TimeRange;

    use super::*;

    fn row(number: u64, positions: &[(u128, u64)]) -> rows::Order {
        let selector = Selector::parse(r#"{pod="p\"é",env!~"a|b"}"#).expect("a selector");
        let state = OrderState::InForce {
            matchers: matchers_of(&selector),
            range: TimeRange { start: -5, end: i64::MAX },
            positions: positions.iter().map(|(writer, next)| (WriterId(*writer), *next)).collect(),
        };
        rows::Order { number, tenant: TenantId::anonymous(), created_millis: 9, state }
    }

    #[test]
    fn an_order_reads_back_and_a_cut_one_is_refused() {
        let object = OrderObject { epoch: 3, id_tag: Some(IdTag(0)), row: row(7, &[(1, 2)]) };
        let bytes = object.encode();
        assert_eq!(OrderObject::decode(&bytes), Ok(object.clone()));
        for len in 0..bytes.len() {
            assert!(OrderObject::decode(&bytes[..len]).is_err());
        }
        let mut orders = Orders::default();
        orders.add(object.row, true).expect("is understood");
        let selector = orders.above(0).next().expect("in force").order.selector.to_string();
        assert_eq!(selector, r#"{pod="p\"é",env!~"a|b"}"#);
    }

    #[test]
    fn a_segment_is_older_than_the_orders_that_count_it() {
        let mut orders = Orders::default();
        orders.add(row(4, &[(1, 3)]), true).expect("is understood");
        orders.add(row(5, &[(1, 6), (2, 1)]), true).expect("is understood");
        let floors = |writer, seqs: &[u64]| -> Vec<u64> {
            seqs.iter().map(|seq| orders.floor_of(WriterId(writer), *seq)).collect()
        };
        assert_eq!(floors(1, &[0, 2, 3, 5, 6]), [3, 3, 4, 4, 5]);
        assert_eq!(floors(2, &[0, 1]), [4, 5]);
        assert_eq!(floors(3, &[0]), [5], "a log that was never heard of came later");
    }

    #[test]
    fn an_order_is_unfinished_until_no_file_of_the_catalog_holds_it() {
        let mut orders = Orders::default();
        assert_eq!(orders.unfinished_since_millis(), None);
        orders.add(row(7, &[]), true).expect("is understood");
        orders.add(rows::Order { created_millis: 12, ..row(8, &[]) }, true).expect("is understood");
        assert_eq!(orders.unfinished_since_millis(), Some(9));
        orders.finish(done_of(&row(7, &[]), 20), 3);
        assert_eq!(orders.unfinished_since_millis(), Some(9));
        orders.done_mut().for_each(|done| done.replaced = None);
        assert_eq!(orders.unfinished_since_millis(), Some(12));
    }

    #[test]
    fn a_finished_order_says_nothing_of_what_it_was_about() {
        let done = done_of(&row(7, &[(1, 2)]), 11);
        assert_eq!(done, done_of(&row(7, &[(8, 9)]), 11), "whatever its positions");
        let bytes = OrderObject { epoch: 1, id_tag: None, row: done }.encode();
        assert!(!bytes.windows(3).any(|bytes| bytes == b"env"));
    }

    #[test]
    fn of_orders_with_one_number_the_finished_or_the_latest_counts() {
        let tenant = |name: &str| TenantId::parse(name).expect("valid");
        let of = |name: &str, epoch| OrderObject {
            epoch,
            id_tag: None,
            row: rows::Order { tenant: tenant(name), ..row(7, &[]) },
        };
        let done = OrderObject { epoch: 1, id_tag: None, row: done_of(&of("c", 1).row, 3) };
        let settled = settle(vec![of("a", 4), of("b", 5), of("a", 3)]);
        assert_eq!(settled[&7].row.tenant, tenant("b"));
        let settled = settle(vec![of("a", 4), done, of("b", 5)]);
        assert_eq!(settled[&7].row.tenant, tenant("c"));
    }
}
