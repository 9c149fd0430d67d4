//! All matching samples as one tree of function names per dataset; joined when all are there.

use crate::flamegraph::Part;
use crate::partial::{Dataset, FoldError};
use crate::query::SampleFilter;
use crate::scan::add_weights;

/// Over so many nodes in all, parts are joined early, so that a question over very many datasets
/// holds what is distinct instead of what was read.
const NODES_MAX: usize = 16 << 20;

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
        compact(parts);
    }
    Ok(())
}

pub(crate) fn merge(parts: &mut Vec<Part>, others: Vec<Part>) {
    parts.extend(others);
    compact(parts);
}

fn compact(parts: &mut Vec<Part>) {
    let nodes: usize = parts.iter().map(Part::nodes).sum();
    if parts.len() > 1 && nodes > NODES_MAX {
        *parts = vec![Part::join(parts)];
    }
}
