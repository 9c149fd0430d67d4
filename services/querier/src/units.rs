//! Divides the objects of a query into units: one unit is one call to a leaf, and is retried as a whole on another.

use query::Query;
use rpc::{Error, ErrorKind, FoundDataset, FoundObject};

use crate::leaves::{NamedLeaf, rank};

/// A unit is full when it costs this much. Larger: fewer calls; smaller: less work is lost when a leaf dies,
/// and the slowest unit ends sooner.
const UNIT_BYTES: u64 = 32 << 20;
const UNIT_OBJECTS_MAX: usize = 128;

/// Datasets of objects of at least this size are ranked one by one, so that several leaves share the object.
const SHARED_OBJECT_BYTES: u64 = 64 << 20;

/// A query that needs no samples reads only the index: about 1 / `INDEX_PART` of a dataset.
const INDEX_PART: u64 = 16;

/// Part of the objects of a snapshot.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) objects: Vec<FoundObject>,
    /// Bytes to read, roughly.
    pub(crate) bytes: u64,
    /// Indices of the leaf that the unit belongs to, and of the leaf that is asked next.
    pub(crate) first: usize,
    pub(crate) second: Option<usize>,
}

/// Encoded bytes that an answer from a dataset reads, roughly.
pub(crate) fn cost(query: &Query, dataset: &FoundDataset) -> u64 {
    let parts = if query.needs().samples { 1 } else { INDEX_PART };
    let length = i128::from(dataset.times.last) - i128::from(dataset.times.first) + 1;
    let start = i128::from(query.range.start.max(dataset.times.first));
    let end = i128::from(query.range.end).min(i128::from(dataset.times.last) + 1);
    let asked = (end - start).clamp(1, length.max(1));
    let bytes = i128::from(dataset.bytes) * asked / length.max(1) / i128::from(parts);
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// The cost of all `objects`.
pub(crate) fn cost_of_all(query: &Query, objects: &[FoundObject]) -> u64 {
    let datasets = objects.iter().flat_map(|object| &object.datasets);
    datasets.map(|dataset| cost(query, dataset)).fold(0, u64::saturating_add)
}

/// Returns the units of `objects`; objects of one leaf keep the order of the snapshot.
///
/// # Errors
/// `Unavailable` if there is no leaf.
pub(crate) fn divide(
    query: &Query,
    objects: Vec<FoundObject>,
    leaves: &[NamedLeaf],
) -> Result<Vec<Unit>, Error> {
    if leaves.is_empty() && !objects.is_empty() {
        return Err(Error::new(ErrorKind::Unavailable, "there is no querier to scan"));
    }
    let mut open: Vec<Option<Unit>> = leaves.iter().map(|_| None).collect();
    let mut units = Vec::new();
    for object in objects {
        if object.bytes < SHARED_OBJECT_BYTES {
            let ranking = rank(object.key.as_str(), leaves);
            add(query, object, &ranking, &mut open, &mut units);
            continue;
        }
        for dataset in &object.datasets {
            let ranking = rank(&format!("{}#{}", object.key, dataset.position), leaves);
            let part = FoundObject { datasets: vec![dataset.clone()], ..object.clone() };
            add(query, part, &ranking, &mut open, &mut units);
        }
    }
    units.extend(open.into_iter().flatten());
    Ok(units)
}

/// Adds an object to the open unit of its first leaf; moves the unit to `full` if it is full.
fn add(
    query: &Query,
    object: FoundObject,
    ranking: &[usize],
    open: &mut [Option<Unit>],
    full: &mut Vec<Unit>,
) {
    let Some(first) = ranking.first().copied() else { return };
    let bytes = cost_of_all(query, std::slice::from_ref(&object));
    let new = || Unit { objects: Vec::new(), bytes: 0, first, second: ranking.get(1).copied() };
    let unit = open[first].get_or_insert_with(new);
    unit.bytes = unit.bytes.saturating_add(bytes);
    match unit.objects.last_mut() {
        // Datasets of one object that go to the same leaf.
        Some(last) if last.key == object.key => last.datasets.extend(object.datasets),
        _ => unit.objects.push(object),
    }
    if unit.bytes >= UNIT_BYTES || unit.objects.len() >= UNIT_OBJECTS_MAX {
        full.extend(open[first].take());
    }
}
