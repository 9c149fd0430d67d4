use std::sync::Arc;

use block::NameTree;
use hashbrown::HashTable;
use model::Strings;

use super::{Flame, Node, Part};

/// What to do with a function that is really called `other`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Real {
    /// Fold it, with everything below it, into the node `other` of what was left out.
    Fold,
    /// Keep it; what was left out beside it is added to it.
    Keep,
}

/// The name of what was left out at a parent.
const OTHER: &[u8] = b"other";

/// Joins the parts of each side and keeps the `max_nodes` largest nodes, and those as large as the
/// smallest of them. With several sides a node is as large as on its largest side.
///
/// What is left out at a parent becomes one child `other`. `max_nodes` of 0 keeps everything.
pub fn finish<const S: usize>(sides: [&[Part]; S], max_nodes: usize, real: Real) -> Flame<S> {
    let max_nodes = if max_nodes == 0 { usize::MAX } else { max_nodes };
    let sources = sides.iter().map(|parts| parts.len()).max().unwrap_or_default();
    let least = sides
        .iter()
        .flat_map(|parts| parts.iter())
        .filter_map(|part| nth_largest(&part.total[1..], max_nodes))
        .max();
    let mut floor = least.map_or(0, |least| least / sources.max(1) as i64);
    let count = |from: i64| {
        let nodes = sides.iter().flat_map(|parts| parts.iter());
        nodes.map(|part| part.total.iter().filter(|t| **t >= from).count()).sum::<usize>()
    };
    if floor > 0 && count(floor) > count(0) / 2 {
        // Two passes over nearly everything would cost more than one.
        floor = 0;
    }
    Joined::new(sides, floor).cut(max_nodes, least.unwrap_or_default(), real)
}

/// One part with the weights of all.
pub(super) fn join(parts: &[Part]) -> Part {
    let joined = Joined::<1>::new([parts], 0);
    let mut names = Strings::default();
    for name in &joined.names.bytes {
        names.push(name);
    }
    Part {
        names: Arc::new(NameTree { names, ..NameTree::default() }),
        name: joined.name,
        parent: joined.parent,
        own: joined.own.into_iter().map(|[own]| own).collect(),
        total: joined.total.into_iter().map(|[total]| total).collect(),
    }
}

/// The `n`-th largest, if there are more than `n`.
pub(crate) fn nth_largest(values: &[i64], n: usize) -> Option<i64> {
    if values.len() <= n {
        return None;
    }
    let mut values = values.to_vec();
    let (_, nth, _) = values.select_nth_unstable_by(n - 1, |a, b| b.cmp(a));
    Some(*nth)
}

struct Joined<'a, const S: usize> {
    names: Names<'a>,
    name: Vec<u32>,
    parent: Vec<u32>,
    own: Vec<[i64; S]>,
    total: Vec<[i64; S]>,
}

impl<'a, const S: usize> Joined<'a, S> {
    /// All nodes that have at least `floor` in one part, with the weights of all parts.
    fn new(sides: [&'a [Part]; S], floor: i64) -> Self {
        let parts: Vec<(usize, &Part)> = sides
            .iter()
            .enumerate()
            .flat_map(|(side, parts)| parts.iter().map(move |part| (side, part)))
            .collect();
        let most = parts.iter().map(|(_, part)| part.total.len()).max().unwrap_or(1);
        let mut joined = Self {
            names: Names::default(),
            name: Vec::with_capacity(most),
            parent: Vec::with_capacity(most),
            own: Vec::with_capacity(most),
            total: Vec::with_capacity(most),
        };
        joined.push(0, 0);
        if let [(side, part)] = parts[..]
            && floor == 0
        {
            joined.copy(side, part);
            return joined;
        }
        let mut children = Children::default();
        let mut maps: Vec<Vec<u32>> = Vec::with_capacity(parts.len());
        for (side, part) in &parts {
            maps.push(joined.add_large(*side, part, floor, &mut children));
        }
        if floor > 0 {
            for ((side, part), map) in parts.iter().zip(&mut maps) {
                joined.add_small(*side, part, floor, &children, map);
            }
        }
        joined
    }

    fn push(&mut self, parent: u32, name: u32) -> u32 {
        self.name.push(name);
        self.parent.push(parent);
        self.own.push([0; S]);
        self.total.push([0; S]);
        (self.name.len() - 1) as u32
    }

    fn add(&mut self, node: u32, side: usize, part: &Part, of: usize) {
        let own = &mut self.own[node as usize][side];
        *own = own.saturating_add(part.own[of]);
        let total = &mut self.total[node as usize][side];
        *total = total.saturating_add(part.total[of]);
    }

    /// Takes the only part over: its children have distinct names already.
    fn copy(&mut self, side: usize, part: &'a Part) {
        self.names.bytes = part.names.names.iter().collect();
        self.add(0, side, part, 0);
        for of in 1..part.total.len() {
            let node = self.push(part.parent[of], part.name[of]);
            self.add(node, side, part, of);
        }
    }

    /// Gives, per node of the part, the joined node, or [`NOWHERE`] if it is small.
    fn add_large(&mut self, side: usize, part: &'a Part, floor: i64, children: &mut Children) -> Vec<u32> {
        let mut names = vec![NOWHERE; part.names.names.len()];
        let mut map = vec![NOWHERE; part.total.len()];
        map[0] = 0;
        self.add(0, side, part, 0);
        for of in 1..part.total.len() {
            // A large node's parent is at least as large, so it is in the map.
            if part.total[of] < floor {
                continue;
            }
            let name = &mut names[part.name[of] as usize];
            if *name == NOWHERE {
                *name = self.names.intern(part.name_of(of));
            }
            let (name, parent) = (*name, map[part.parent[of] as usize]);
            let node = match children.find(parent, name, self) {
                Some(node) => node,
                None => {
                    let node = self.push(parent, name);
                    children.insert(node, self);
                    node
                }
            };
            map[of] = node;
            self.add(node, side, part, of);
        }
        map
    }

    /// Adds the part's small shares of nodes that exist.
    fn add_small(&mut self, side: usize, part: &Part, floor: i64, children: &Children, map: &mut [u32]) {
        // One more than the joined name; 0 is "not yet looked up".
        let mut names = vec![0u32; part.names.names.len()];
        for of in 1..part.total.len() {
            let parent = map[part.parent[of] as usize];
            if part.total[of] >= floor || parent == NOWHERE {
                continue;
            }
            let name = &mut names[part.name[of] as usize];
            if *name == 0 {
                *name = self.names.find(part.name_of(of)).map_or(NOWHERE, |name| name + 1);
            }
            if *name == NOWHERE {
                continue;
            }
            if let Some(node) = children.find(parent, *name - 1, self) {
                map[of] = node;
                self.add(node, side, part, of);
            }
        }
    }

    /// `least` is a total that every kept node has, 0 if that is not known.
    fn cut(self, max_nodes: usize, least: i64, real: Real) -> Flame<S> {
        let size: Vec<i64> =
            self.total.iter().map(|sides| sides.iter().copied().max().unwrap_or_default()).collect();
        let threshold = nth_largest(&size[1..], max_nodes).unwrap_or_default().max(least);

        // Kept children of every node, neighbours.
        let is_other: Vec<bool> = self.names.bytes.iter().map(|name| *name == OTHER).collect();
        let kept = |node: usize| {
            size[node] >= threshold && !(real == Real::Fold && is_other[self.name[node] as usize])
        };
        let mut starts = vec![0u32; size.len() + 1];
        for node in 1..size.len() {
            if kept(node) {
                starts[self.parent[node] as usize + 1] += 1;
            }
        }
        for node in 0..size.len() {
            starts[node + 1] += starts[node];
        }
        let mut filled = starts.clone();
        let mut children = vec![0u32; starts[size.len()] as usize];
        for node in 1..size.len() {
            if kept(node) {
                let at = &mut filled[self.parent[node] as usize];
                children[*at as usize] = node as u32;
                *at += 1;
            }
        }
        let ranks = self.ranks(&children);

        let mut nodes =
            vec![Node { name: NOWHERE, first_child: 0, children: 0, own: self.own[0], total: self.total[0] }];
        let mut origin = vec![0u32];
        let mut next = 0;
        while next < nodes.len() {
            let from = origin[next];
            nodes[next].first_child = nodes.len() as u32;
            if from != NOWHERE {
                let below = &mut children[starts[from as usize] as usize..starts[from as usize + 1] as usize];
                below.sort_unstable_by_key(|node| ranks[self.name[*node as usize] as usize]);
                let mut left = nodes[next].total;
                subtract(&mut left, &nodes[next].own);
                let mut other = None;
                for node in below.iter().map(|node| *node as usize) {
                    subtract(&mut left, &self.total[node]);
                    if is_other[self.name[node] as usize] {
                        other = Some(nodes.len());
                    }
                    nodes.push(Node {
                        name: self.name[node],
                        first_child: 0,
                        children: 0,
                        own: self.own[node],
                        total: self.total[node],
                    });
                    origin.push(node as u32);
                }
                let left = left.map(|left| left.max(0));
                match other {
                    _ if left == [0; S] => {}
                    Some(other) => {
                        let Node { own, total, .. } = &mut nodes[other];
                        for (side, left) in left.iter().enumerate() {
                            own[side] = own[side].saturating_add(*left);
                            total[side] = total[side].saturating_add(*left);
                        }
                    }
                    None => {
                        let name = OTHER_NAME;
                        nodes.push(Node { name, first_child: 0, children: 0, own: left, total: left });
                        origin.push(NOWHERE);
                    }
                }
            }
            nodes[next].children = nodes.len() as u32 - nodes[next].first_child;
            next += 1;
        }
        self.name_nodes(nodes)
    }

    /// The place of every name that a node of `nodes` has in the order of their bytes.
    fn ranks(&self, nodes: &[u32]) -> Vec<u32> {
        let mut used: Vec<u32> = nodes.iter().map(|node| self.name[*node as usize]).collect();
        used.sort_unstable();
        used.dedup();
        used.sort_unstable_by_key(|name| self.names.bytes[*name as usize]);
        let mut ranks = vec![0; self.names.bytes.len()];
        for (rank, name) in used.iter().enumerate() {
            ranks[*name as usize] = rank as u32;
        }
        ranks
    }

    /// Numbers the names in the order of a walk that visits the last child first, as clients
    /// have always seen them.
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
        while let Some(at) = stack.pop() {
            let node = &mut nodes[at as usize];
            stack.extend(node.first_child..node.first_child + node.children);
            if at == 0 {
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

fn subtract<const S: usize>(from: &mut [i64; S], by: &[i64; S]) {
    from.iter_mut().zip(by).for_each(|(from, by)| *from = from.saturating_sub(*by));
}

const NOWHERE: u32 = u32::MAX;

/// The name of a node that stands for what was left out.
const OTHER_NAME: u32 = u32::MAX - 1;

#[derive(Default)]
struct Names<'a> {
    bytes: Vec<&'a [u8]>,
    table: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
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

    fn find(&self, name: &[u8]) -> Option<u32> {
        let hash = hash_bytes(&self.hasher, name);
        self.table.find(hash, |other| self.bytes[*other as usize] == name).copied()
    }
}

fn hash_bytes(hasher: &foldhash::fast::FixedState, bytes: &[u8]) -> u64 {
    std::hash::BuildHasher::hash_one(hasher, bytes)
}

/// Joined nodes by parent and name.
#[derive(Default)]
struct Children {
    table: HashTable<u32>,
}

impl Children {
    fn find<const S: usize>(&self, parent: u32, name: u32, nodes: &Joined<S>) -> Option<u32> {
        let same = |node: &u32| nodes.parent[*node as usize] == parent && nodes.name[*node as usize] == name;
        self.table.find(hash_child(parent, name), same).copied()
    }

    fn insert<const S: usize>(&mut self, node: u32, nodes: &Joined<S>) {
        let hash = |node: &u32| hash_child(nodes.parent[*node as usize], nodes.name[*node as usize]);
        self.table.insert_unique(hash(&node), node, hash);
    }
}

fn hash_child(parent: u32, name: u32) -> u64 {
    let key = (u64::from(parent) << 32 | u64::from(name)) ^ 0x9e37_79b9_7f4a_7c15;
    let product = u128::from(key) * 0xd6e8_feb8_6659_fd93;
    (product >> 64) as u64 ^ product as u64
}
