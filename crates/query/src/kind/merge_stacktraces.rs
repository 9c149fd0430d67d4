//! All matching samples as one tree of function names per dataset; joined when the answer is finished.

use memory::Lease;

use crate::flamegraph::{JOINED_NODE_BYTES, Part};
use crate::fold::{Dataset, FoldError};
use crate::query::SampleFilter;
use crate::scan::add_weights;

/// Above this total number of nodes, parts are joined early, so that a query over very many datasets
/// holds distinct nodes instead of all nodes that were read.
const NODES_MAX: usize = 16 << 20;

/// Parts that hold more than 1 / `JOIN_PART` of the memory limit are joined, while that still fits: joining takes four
/// times their memory. Not earlier: joining visits every node, but an answer shows only the largest.
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

/// Joins the parts if there are many nodes. Without memory for joining, they stay separate.
fn compact(parts: &mut Vec<Part>, lease: &Lease) {
    let nodes: usize = parts.iter().map(Part::nodes).sum();
    let largest = parts.iter().map(Part::nodes).max().unwrap_or_default();
    let bytes: u64 = parts.iter().map(|part| part.byte_len() as u64).sum();
    let is_much = nodes > NODES_MAX || bytes > lease.limit() / JOIN_PART;
    // Each node is joined only a few times: a joined part waits for as many new nodes.
    if is_much && nodes >= largest * 2 {
        let held = lease.bytes();
        if lease.grow(nodes as u64 * JOINED_NODE_BYTES).is_ok() {
            *parts = vec![Part::join(parts)];
            lease.shrink_to(held);
        }
    }
}
