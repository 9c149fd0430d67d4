//! Divides what a question must read into units: what one leaf is asked for at once, and what is asked of
//! another one if that one fails.

use query::Query;
use rpc::{Error, ErrorKind, Found, FoundDataset};

use crate::leaves::{NamedLeaf, rank};

/// A unit is full when it costs this much. Larger: fewer calls; smaller: less is lost with a leaf that dies,
/// and the slowest one ends sooner.
const UNIT_BYTES: u64 = 32 << 20;
const UNIT_OBJECTS_MAX: usize = 128;

/// Each dataset of an object of this size has a place of its own, so that several leaves share the object.
const SHARED_OBJECT_BYTES: u64 = 64 << 20;

/// What a question that needs no samples reads of a dataset: one part in so many.
const INDEX_PART: u64 = 16;

/// Part of the objects of a snapshot.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) objects: Vec<Found>,
    /// What reading it costs, roughly.
    pub(crate) bytes: u64,
    /// Places of the leaf that it belongs to, and of the one that is asked next.
    pub(crate) first: usize,
    pub(crate) second: Option<usize>,
}

/// Encoded bytes that answering from a dataset reads, roughly.
pub(crate) fn cost(query: &Query, dataset: &FoundDataset) -> u64 {
    let parts = if query.needs().samples { 1 } else { INDEX_PART };
    let length = i128::from(dataset.times.last) - i128::from(dataset.times.first) + 1;
    let start = i128::from(query.range.start.max(dataset.times.first));
    let end = i128::from(query.range.end).min(i128::from(dataset.times.last) + 1);
    let asked = (end - start).clamp(1, length.max(1));
    let bytes = i128::from(dataset.bytes) * asked / length.max(1) / i128::from(parts);
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// What all of `objects` cost.
pub(crate) fn cost_of_all(query: &Query, objects: &[Found]) -> u64 {
    let datasets = objects.iter().flat_map(|object| &object.datasets);
    datasets.map(|dataset| cost(query, dataset)).fold(0, u64::saturating_add)
}

/// The units of `objects`, those of each leaf in the order of the snapshot.
///
/// # Errors
/// `Unavailable` if there is no leaf.
pub(crate) fn divide(query: &Query, objects: Vec<Found>, leaves: &[NamedLeaf]) -> Result<Vec<Unit>, Error> {
    if leaves.is_empty() && !objects.is_empty() {
        return Err(Error::new(ErrorKind::Unavailable, "there is no querier to scan"));
    }
    let mut open: Vec<Option<Unit>> = leaves.iter().map(|_| None).collect();
    let mut units = Vec::new();
    for object in objects {
        if object.bytes < SHARED_OBJECT_BYTES {
            let places = rank(object.key.as_str(), leaves);
            add(query, object, &places, &mut open, &mut units);
            continue;
        }
        for dataset in &object.datasets {
            let places = rank(&format!("{}#{}", object.key, dataset.position), leaves);
            let part = Found { datasets: vec![dataset.clone()], ..object.clone() };
            add(query, part, &places, &mut open, &mut units);
        }
    }
    units.extend(open.into_iter().flatten());
    Ok(units)
}

fn add(query: &Query, object: Found, places: &[usize], open: &mut [Option<Unit>], full: &mut Vec<Unit>) {
    let Some(first) = places.first().copied() else { return };
    let bytes = cost_of_all(query, std::slice::from_ref(&object));
    let new = || Unit { objects: Vec::new(), bytes: 0, first, second: places.get(1).copied() };
    let unit = open[first].get_or_insert_with(new);
    unit.bytes = unit.bytes.saturating_add(bytes);
    match unit.objects.last_mut() {
        // Datasets of one object that meet again.
        Some(last) if last.key == object.key => last.datasets.extend(object.datasets),
        _ => unit.objects.push(object),
    }
    if unit.bytes >= UNIT_BYTES || unit.objects.len() >= UNIT_OBJECTS_MAX {
        full.extend(open[first].take());
    }
}
