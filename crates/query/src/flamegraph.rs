//! Weighted stacktraces of many datasets as one tree of function names, cut to size.
//!
//! Owns: totals, joining trees by name, exact truncation, the forms in which trees are sent.
//! Does not own: which samples count ([`crate::scan`]), where a name tree comes from (`block`).
//!
//! Every dataset brings a tree whose names and nodes are numbered in its own way. A tree that is
//! asked for at most `max_nodes` nodes is joined without looking at most nodes of its sources:
//!
//! Let T be the largest "`max_nodes`-th total" of any single source. The joined tree has at least
//! `max_nodes` nodes of T and more, so no node below T is kept. A node of T and more has, with n
//! sources, at least T ÷ n in one of them. So only such nodes are joined; what the other sources
//! hold of the same nodes is then looked up and added, and what is left out at a parent is the
//! parent minus its own weight minus its children.

mod encode;
mod join;

pub use encode::{FlameGraph, encode_levels, encode_tree};
pub(crate) use join::nth_largest;
pub use join::{Real, finish};

use std::sync::Arc;

use block::NameTree;

/// One dataset's weights as a tree. Node 0 is the root; parents precede children; every other node
/// has a positive total; children of one parent have distinct names.
#[derive(Clone, Debug)]
pub struct Part {
    /// Only its names are used.
    names: Arc<NameTree>,
    name: Vec<u32>,
    parent: Vec<u32>,
    own: Vec<i64>,
    total: Vec<i64>,
}

impl Part {
    /// `weights[s]` is the weight of stacktrace `s` of the dataset; those below 1 are ignored.
    ///
    /// With a call site, only stacktraces whose first frames, from the root, are exactly `call_site`.
    pub fn new(tree: Arc<NameTree>, weights: &[i64], call_site: &[Box<[u8]>]) -> Self {
        let mut own = vec![0i64; tree.parents.len().max(1)];
        for (weight, leaf) in weights.iter().zip(&tree.leaves) {
            // A stacktrace without any location is in no tree.
            if *weight > 0 && *leaf != 0 {
                let own = &mut own[*leaf as usize];
                *own = own.saturating_add(*weight);
            }
        }
        if !call_site.is_empty() {
            let below = below_call_site(&tree, call_site);
            own.iter_mut().zip(below).filter(|(_, below)| !below).for_each(|(own, _)| *own = 0);
        }
        let mut total = own.clone();
        for node in (1..total.len()).rev() {
            if total[node] > 0 {
                let parent = tree.parents[node] as usize;
                total[parent] = total[parent].saturating_add(total[node]);
            }
        }
        Self::compact(tree, &own, &total)
    }

    /// One part with the weights of all.
    pub fn join(parts: &[Self]) -> Self {
        join::join(parts)
    }

    /// Leaves the nodes without weight out.
    fn compact(tree: Arc<NameTree>, own: &[i64], total: &[i64]) -> Self {
        let count = 1 + total.iter().skip(1).filter(|t| **t > 0).count();
        let mut part = Self {
            names: tree.clone(),
            name: Vec::with_capacity(count),
            parent: Vec::with_capacity(count),
            own: Vec::with_capacity(count),
            total: Vec::with_capacity(count),
        };
        let mut moved = vec![0u32; total.len()];
        for node in 0..total.len() {
            if node > 0 && total[node] <= 0 {
                continue;
            }
            moved[node] = part.name.len() as u32;
            part.name.push(tree.name.get(node).copied().unwrap_or_default());
            part.parent.push(tree.parents.get(node).map_or(0, |parent| moved[*parent as usize]));
            part.own.push(own[node]);
            part.total.push(total[node]);
        }
        part
    }

    /// Nodes, the root not counted.
    pub fn len(&self) -> usize {
        self.total.len() - 1
    }

    /// Whether nothing has any weight.
    pub fn is_empty(&self) -> bool {
        self.total[0] == 0
    }

    fn name_of(&self, node: usize) -> &[u8] {
        self.names.names.get(self.name[node])
    }
}

/// Per node, whether the path to it begins with `call_site`.
pub(crate) fn below_call_site(tree: &NameTree, call_site: &[Box<[u8]>]) -> Vec<bool> {
    // How many names of the call site the path to this node spells; none, once it has strayed.
    let mut depth: Vec<Option<usize>> = vec![None; tree.parents.len().max(1)];
    depth[0] = Some(0);
    for node in 1..depth.len() {
        depth[node] = depth[tree.parents[node] as usize].and_then(|above| match call_site.get(above) {
            None => Some(above),
            Some(name) if **name == *tree.names.get(tree.name[node]) => Some(above + 1),
            Some(_) => None,
        });
    }
    depth.into_iter().map(|depth| depth == Some(call_site.len())).collect()
}

/// A finished tree of one (`S` = 1) or two (`S` = 2) weights per node, ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flame<const S: usize> {
    /// The first is `total`, the root's.
    pub names: Vec<String>,
    /// Breadth first: children of one node are neighbours, sorted by name, folded ones last.
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
