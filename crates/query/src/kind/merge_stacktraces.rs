//! All matching samples as one tree of function names per dataset; joined when all are there.

use memory::Lease;

use crate::flamegraph::{JOINED_NODE_BYTES, Part};
use crate::partial::{Dataset, FoldError};
use crate::query::SampleFilter;
use crate::scan::add_weights;

/// Over so many nodes in all, parts are joined early, so that a question over very many datasets
/// holds what is distinct instead of what was read.
const NODES_MAX: usize = 16 << 20;

/// Parts that hold this part of the memory are joined, while that still fits: it takes four times as much as they hold.
/// Not earlier: joining looks at every node, while an answer shows but the largest.
const JOIN_PART: u64 = 6;

pub(crate) fn fold(
    parts: &mut Vec<Part>,
    filter: &SampleFilter,
    dataset: Dataset<'_>,
) -> Result<(), FoldError> {
    let Some(tree) = &dataset.tree else { return Ok(()) };
    let mut weights = vec![0i64; tree.leaves.len()];
    dataset.scan_all(|batch| add_weights(&mut weights, &batch, filter))?;
    let part = Part::new(tree.clone(), &weights, &filter.call_site);
    if !part.is_empty() {
        parts.push(part);
    }
    Ok(())
}

pub(crate) fn merge(parts: &mut Vec<Part>, others: Vec<Part>, lease: &Lease) {
    parts.extend(others);
    compact(parts, lease);
}

/// Joins the parts if there are many nodes. If joining finds no room they stay as they are, which costs nothing more.
fn compact(parts: &mut Vec<Part>, lease: &Lease) {
    let nodes: usize = parts.iter().map(Part::nodes).sum();
    let largest = parts.iter().map(Part::nodes).max().unwrap_or_default();
    let bytes: u64 = parts.iter().map(|part| part.byte_len() as u64).sum();
    let is_much = nodes > NODES_MAX || bytes > lease.limit() / JOIN_PART;
    // Each node is joined a few times at most: what was joined before waits for as many new nodes.
    if is_much && nodes >= largest * 2 {
        let held = lease.bytes();
        if lease.grow(nodes as u64 * JOINED_NODE_BYTES).is_ok() {
            *parts = vec![Part::join(parts)];
            lease.shrink_to(held);
        }
    }
}
