//! Joins the trees of many datasets by name, and cuts the result to its largest nodes.
//!
//! Owns: exact truncation, the node `other`, the order of names and nodes.
//! Does not own: weights ([`Part`]), encodings (`encode`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use block::NameTree;
use hashbrown::HashTable;
use memory::{Lease, Refusal};
use model::Strings;

use super::{Flame, JOINED_NODE_BYTES, Node, Part};

/// The treatment of functions whose real name is `other`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Real {
    /// Fold such a function, with everything below it, into the node `other` of left-out children.
    Fold,
    /// Keep it, and add the weights of left-out siblings to it.
    Keep,
}

/// The name of the node that stands for the left-out children of a parent.
const OTHER: &[u8] = b"other";

/// Joins the parts of each side and keeps the `max_nodes` largest nodes, and those as large as the
/// smallest of them. With several sides a node is as large as on its largest side.
///
/// The left-out children of a parent become one child `other`. `max_nodes` of 0 keeps everything.
pub fn finish<const S: usize>(sides: [&[Part]; S], max_nodes: usize, real: Real) -> Flame<S> {
    let mut joined = JoinedTree::new(sides);
    joined.expand(max_nodes, |_| Ok::<(), Infallible>(())).unwrap_or_else(|never| match never {});
    joined.assemble(real)
}

/// As [`finish`]; charges `lease` for the memory of joining, beside the parts.
///
/// # Errors
/// There is no room.
pub fn finish_within<const S: usize>(
    sides: [&[Part]; S],
    max_nodes: usize,
    real: Real,
    lease: &Lease,
) -> Result<Flame<S>, Refusal> {
    let names = sides.iter().flat_map(|parts| parts.iter()).map(|part| part.tree.names.len() as u64 * 4);
    lease.grow(names.sum())?;
    let mut joined = JoinedTree::new(sides);
    joined.expand(max_nodes, |nodes| lease.grow(nodes as u64 * JOINED_NODE_BYTES))?;
    Ok(joined.assemble(real))
}

/// One part with the weights of all.
pub(super) fn join(parts: &[Part]) -> Part {
    let mut joined = JoinedTree::<1>::new([parts]);
    joined.expand(0, |_| Ok::<(), Infallible>(())).unwrap_or_else(|never| match never {});
    let mut names = Strings::default();
    for name in &joined.names.bytes {
        names.push(name);
    }
    let (mut name, mut parents) = (vec![0], vec![0]);
    let (mut leaves, mut weights) = (Vec::new(), Vec::new());
    for node in &joined.nodes[1..] {
        name.push(node.name);
        parents.push(node.parent);
        leaves.push(name.len() as u32 - 1);
        weights.push(node.own[0]);
    }
    let tree = NameTree::from_parents(names, &name, &parents, leaves);
    Part::new(Arc::new(tree), &weights, &[])
}

struct JoinedTree<'a, const S: usize> {
    sources: Vec<Source<'a>>,
    names: Names<'a>,
    /// All joined nodes so far, parents first; the root is the first.
    candidates: Vec<Candidate<S>>,
    /// The nodes that a candidate joins: `(source, node)`.
    members: Vec<(u32, u32)>,
    /// The kept nodes, parents first; `parent` is an index into this list.
    nodes: Vec<JoinedNode<S>>,
}

struct Source<'a> {
    side: usize,
    part: &'a Part,
    /// Joined name of each name of the part, [`NOWHERE`] if it is not needed yet.
    names: Vec<u32>,
}

/// A joined node that is not kept yet, and whose children are not joined yet.
struct Candidate<const S: usize> {
    /// Index into the kept nodes.
    parent: u32,
    name: u32,
    members: Range<u32>,
    total: [i64; S],
}

/// A kept node.
struct JoinedNode<const S: usize> {
    parent: u32,
    name: u32,
    own: [i64; S],
    total: [i64; S],
}

/// A child of one source.
struct Child {
    name: u32,
    member: (u32, u32),
    total: i64,
}

impl<'a, const S: usize> JoinedTree<'a, S> {
    fn new(sides: [&'a [Part]; S]) -> Self {
        let mut sources = Vec::new();
        for (side, parts) in sides.into_iter().enumerate() {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                sources.push(Source { side, part, names: vec![NOWHERE; part.tree.names.len()] });
            }
        }
        let members: Vec<(u32, u32)> = (0..sources.len() as u32).map(|source| (source, 0)).collect();
        let mut total = [0; S];
        for source in &sources {
            add(&mut total[source.side], source.part.total(0));
        }
        let root = Candidate { parent: 0, name: NOWHERE, members: 0..members.len() as u32, total };
        Self { sources, names: Names::default(), candidates: vec![root], members, nodes: Vec::new() }
    }

    /// Keeps the root, the `max_nodes` largest nodes below it, and those as large as the smallest of them; all, if
    /// `max_nodes` is 0. Calls `grow` with a number of nodes before it holds that many more.
    fn expand<E>(&mut self, max_nodes: usize, mut grow: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        let max_nodes = if max_nodes == 0 { usize::MAX } else { max_nodes };
        let mut charged = 0;
        let mut children = Vec::new();
        // By size; of equal ones the first candidate.
        let mut largest: BinaryHeap<(i64, Reverse<u32>)> = BinaryHeap::new();
        self.keep(0, &mut children);
        let mut seen = 1;
        let mut least = 0;
        loop {
            for node in seen..self.candidates.len() {
                let size = self.candidates[node].total.iter().copied().max().unwrap_or_default();
                largest.push((size, Reverse(node as u32)));
            }
            seen = self.candidates.len();
            let Some((size, Reverse(node))) = largest.pop() else { break };
            if self.nodes.len() > max_nodes && size < least {
                break;
            }
            least = size;
            // A member is smaller than a candidate, but each source has its own.
            while charged < self.candidates.len() + self.members.len() / 4 {
                grow(NODES_PER_CHARGE)?;
                charged += NODES_PER_CHARGE;
            }
            self.keep(node, &mut children);
        }
        Ok(())
    }

    /// Keeps a candidate, and adds its joined children to the candidates.
    fn keep(&mut self, node: u32, children: &mut Vec<Child>) {
        let Candidate { parent, name, ref members, total } = self.candidates[node as usize];
        let kept = self.nodes.len() as u32;
        let mut own = [0; S];
        children.clear();
        for member in members.clone() {
            let (source, node) = self.members[member as usize];
            let Source { side, part, names } = &mut self.sources[source as usize];
            add(&mut own[*side], part.own(node));
            for child in part.tree.children(node) {
                let total = part.total(child);
                if total > 0 {
                    let name = &mut names[part.tree.name[child as usize] as usize];
                    if *name == NOWHERE {
                        *name = self.names.intern(part.tree.name_of(child));
                    }
                    children.push(Child { name: *name, member: (source, child), total });
                }
            }
        }
        self.nodes.push(JoinedNode { parent, name, own, total });
        if members.len() > 1 {
            children.sort_unstable_by_key(|child| (child.name, child.member));
        }
        for same in children.chunk_by(|a, b| a.name == b.name) {
            let start = self.members.len() as u32;
            let mut total = [0; S];
            for child in same {
                self.members.push(child.member);
                add(&mut total[self.sources[child.member.0 as usize].side], child.total);
            }
            let members = start..self.members.len() as u32;
            self.candidates.push(Candidate { parent: kept, name: same[0].name, members, total });
        }
    }

    /// Makes the finished tree; the left-out children of a parent become its child `other`.
    fn assemble(self, real: Real) -> Flame<S> {
        // `children[starts[i]..starts[i + 1]]` are the kept children of node `i`.
        let is_other: Vec<bool> = self.names.bytes.iter().map(|name| *name == OTHER).collect();
        let shown = |node: &&JoinedNode<S>| !(real == Real::Fold && is_other[node.name as usize]);
        let mut starts = vec![0u32; self.nodes.len() + 1];
        for node in self.nodes.iter().skip(1).filter(shown) {
            starts[node.parent as usize + 1] += 1;
        }
        for node in 0..self.nodes.len() {
            starts[node + 1] += starts[node];
        }
        let mut filled = starts.clone();
        let mut children = vec![0u32; starts[self.nodes.len()] as usize];
        for (id, node) in self.nodes.iter().enumerate().skip(1).filter(|(_, node)| shown(node)) {
            let next = &mut filled[node.parent as usize];
            children[*next as usize] = id as u32;
            *next += 1;
        }
        let ranks = self.ranks(&children);

        let node = |name: u32, own: [i64; S], total: [i64; S]| Node {
            name,
            first_child: 0,
            children: 0,
            own,
            total,
        };
        let root = &self.nodes[0];
        let mut nodes = vec![node(NOWHERE, root.own, root.total)];
        let mut origin = vec![0u32];
        let mut next = 0;
        while next < nodes.len() {
            let from = origin[next];
            nodes[next].first_child = nodes.len() as u32;
            if from != NOWHERE {
                let below = &mut children[starts[from as usize] as usize..starts[from as usize + 1] as usize];
                below.sort_unstable_by_key(|child| ranks[self.nodes[*child as usize].name as usize]);
                let mut left = nodes[next].total;
                subtract(&mut left, &nodes[next].own);
                let mut other = None;
                for id in below.iter() {
                    let child = &self.nodes[*id as usize];
                    subtract(&mut left, &child.total);
                    if is_other[child.name as usize] {
                        other = Some(nodes.len());
                    }
                    nodes.push(node(child.name, child.own, child.total));
                    origin.push(*id);
                }
                let left = left.map(|left| left.max(0));
                match other {
                    _ if left == [0; S] => {}
                    Some(other) => {
                        for (side, left) in left.iter().enumerate() {
                            add(&mut nodes[other].own[side], *left);
                            add(&mut nodes[other].total[side], *left);
                        }
                    }
                    None => {
                        nodes.push(node(OTHER_NAME, left, left));
                        origin.push(NOWHERE);
                    }
                }
            }
            nodes[next].children = nodes.len() as u32 - nodes[next].first_child;
            next += 1;
        }
        self.name_nodes(nodes)
    }

    /// The rank of every name of the `nodes`, in the order of their bytes.
    fn ranks(&self, nodes: &[u32]) -> Vec<u32> {
        let mut used: Vec<u32> = nodes.iter().map(|node| self.nodes[*node as usize].name).collect();
        used.sort_unstable();
        used.dedup();
        used.sort_unstable_by_key(|name| self.names.bytes[*name as usize]);
        let mut ranks = vec![0; self.names.bytes.len()];
        for (rank, name) in used.iter().enumerate() {
            ranks[*name as usize] = rank as u32;
        }
        ranks
    }

    /// Numbers the names in the order of a walk that visits the last child first: clients
    /// have always received this order.
    fn name_nodes(&self, mut nodes: Vec<Node<S>>) -> Flame<S> {
        let mut names = vec!["total".to_owned()];
        let mut numbers = vec![NOWHERE; self.names.bytes.len()];
        let mut other = NOWHERE;
        for (name, bytes) in self.names.bytes.iter().enumerate() {
            if *bytes == b"total" {
                numbers[name] = 0;
            }
        }
        let mut stack = vec![0u32];
        while let Some(index) = stack.pop() {
            let node = &mut nodes[index as usize];
            stack.extend(node.first_child..node.first_child + node.children);
            if index == 0 {
                node.name = 0;
                continue;
            }
            let bytes = if node.name == OTHER_NAME { OTHER } else { self.names.bytes[node.name as usize] };
            let number = if bytes == OTHER { &mut other } else { &mut numbers[node.name as usize] };
            if *number == NOWHERE {
                *number = names.len() as u32;
                names.push(String::from_utf8_lossy(bytes).into_owned());
            }
            node.name = *number;
        }
        Flame { names, nodes }
    }
}

fn add(to: &mut i64, by: i64) {
    *to = to.saturating_add(by);
}

fn subtract<const S: usize>(from: &mut [i64; S], by: &[i64; S]) {
    from.iter_mut().zip(by).for_each(|(from, by)| *from = from.saturating_sub(*by));
}

const NOWHERE: u32 = u32::MAX;

/// Number of nodes that are charged for at once.
const NODES_PER_CHARGE: usize = 8 << 10;

/// The name of a node that stands for left-out children.
const OTHER_NAME: u32 = u32::MAX - 1;

#[derive(Default)]
struct Names<'a> {
    bytes: Vec<&'a [u8]>,
    table: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl<'a> Names<'a> {
    fn intern(&mut self, name: &'a [u8]) -> u32 {
        let Self { bytes, table, hasher } = self;
        let hash = hash_bytes(hasher, name);
        let entry = table.entry(
            hash,
            |other| bytes[*other as usize] == name,
            |other| hash_bytes(hasher, bytes[*other as usize]),
        );
        *entry
            .or_insert_with(|| {
                bytes.push(name);
                (bytes.len() - 1) as u32
            })
            .get()
    }
}

fn hash_bytes(hasher: &foldhash::fast::RandomState, bytes: &[u8]) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, bytes)
}
