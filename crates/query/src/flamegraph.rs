//! Weighted stacktraces of many datasets as one tree of function names, cut to size.
//!
//! Owns: totals, joining trees by name, exact truncation, the encodings of trees for clients.
//! Does not own: which samples count ([`crate::scan`]), building name trees (`block`).
//!
//! Every dataset has a tree with its own numbers of names and nodes. Trees are joined from the root on, always
//! below the largest remaining node: no node is larger than its parent, so the first `max_nodes` are the largest
//! of all, and nodes whose parent is not kept are never visited.

mod encode;
mod join;

pub use encode::{FlameGraph, encode_levels, encode_tree};
pub use join::{Real, finish, finish_within};

use std::ops::Range;
use std::sync::Arc;

use block::NameTree;

/// Memory of a node while parts are joined, beside the parts: as a candidate, as a kept node, in the queue, and in the
/// joined tree.
pub(crate) const JOINED_NODE_BYTES: u64 = 128;

/// One dataset's weights as a tree.
#[derive(Clone, Debug)]
pub struct Part {
    tree: Arc<NameTree>,
    /// `sums[i]` is the weight of all stacktraces that end at a node before `i`; one more entry than nodes.
    sums: Vec<i64>,
}

impl Part {
    /// `weights[s]` is the weight of stacktrace `s` of the dataset; those below 1 are ignored.
    ///
    /// With a call site, only stacktraces whose first frames, from the root, are exactly `call_site`.
    pub fn new(tree: Arc<NameTree>, weights: &[i64], call_site: &[Box<[u8]>]) -> Self {
        let counted = below_call_site(&tree, call_site);
        let mut sums = vec![0i64; tree.len() + 1];
        for (weight, leaf) in weights.iter().zip(&tree.leaves) {
            // A stacktrace without any location is in no tree.
            if *weight > 0 && *leaf != 0 && counted.contains(leaf) {
                let own = &mut sums[*leaf as usize + 1];
                *own = own.saturating_add(*weight);
            }
        }
        let mut sum = 0i64;
        for entry in &mut sums {
            sum = sum.saturating_add(*entry);
            *entry = sum;
        }
        Self { tree, sums }
    }

    /// `own[i]` is the weight of the stacktraces that end at node `i` of the tree. Negative weights count as 0.
    pub fn from_own(tree: Arc<NameTree>, own: &[i64]) -> Self {
        let mut sums = Vec::with_capacity(tree.len() + 1);
        let mut sum = 0i64;
        sums.push(sum);
        for node in 0..tree.len() {
            sum = sum.saturating_add(own.get(node).copied().unwrap_or(0).max(0));
            sums.push(sum);
        }
        Self { tree, sums }
    }

    pub fn tree(&self) -> &NameTree {
        &self.tree
    }

    /// One part with the weights of all.
    pub fn join(parts: &[Self]) -> Self {
        join::join(parts)
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        self.tree.byte_len() + self.sums.len() * 8
    }

    /// Number of nodes, including the root and nodes without weight.
    pub fn nodes(&self) -> usize {
        self.tree.len()
    }

    /// Whether no node has a weight.
    pub fn is_empty(&self) -> bool {
        self.total(0) == 0
    }

    /// Weight of the stacktraces that end at `node` or below it.
    pub fn total(&self, node: u32) -> i64 {
        self.sums[self.tree.ends[node as usize] as usize] - self.sums[node as usize]
    }

    /// Weight of the stacktraces that end at `node`.
    pub fn own(&self, node: u32) -> i64 {
        self.sums[node as usize + 1] - self.sums[node as usize]
    }
}

/// The nodes whose path begins with `call_site`. They are adjacent: a tree has at most one node with this path.
pub(crate) fn below_call_site(tree: &NameTree, call_site: &[Box<[u8]>]) -> Range<u32> {
    let mut node = 0;
    for name in call_site {
        match tree.children(node).find(|child| **name == *tree.name_of(*child)) {
            Some(child) => node = child,
            None => return 0..0,
        }
    }
    node..tree.ends[node as usize]
}

/// A finished tree of one (`S` = 1) or two (`S` = 2) weights per node, ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flame<const S: usize> {
    /// The first is `total`, the name of the root.
    pub names: Vec<String>,
    /// Breadth first: children of one node are adjacent, sorted by name, a node for left-out children last.
    pub nodes: Vec<Node<S>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node<const S: usize> {
    /// Index into the names.
    pub name: u32,
    /// Index of the first child.
    pub first_child: u32,
    pub children: u32,
    /// Weight of stacktraces that end here.
    pub own: [i64; S],
    /// Own weight and that of all children.
    pub total: [i64; S],
}

#[cfg(test)]
mod tests;
