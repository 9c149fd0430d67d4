//! The stacktraces of a dataset as one tree of function names.
//!
//! Owns: building the tree from symbols, the order of its nodes, its encoding.
//! Does not own: weights and flame graphs (`query::flamegraph`).

use std::convert::Infallible;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use memory::{Lease, Refusal};
use model::{Line, NONE, Strings, Symbols};

use crate::codec::{Cursor, Delta, put};
use crate::error::Malformed;

/// The stacktraces of a dataset as one tree of function names: all that flame graphs need.
///
/// Node 0 is the root and has no name. Nodes are in pre-order: the descendants of node `i` are the nodes
/// `i + 1..ends[i]`, so a total is the difference of two prefix sums. Inlined lines are nodes of their own; a
/// location without lines is named `<binary>!0x<address>`. Children of one parent have distinct names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameTree {
    pub names: Strings,
    /// Index into `names` per node.
    pub name: Vec<u32>,
    /// Per node, the first node after its descendants.
    pub ends: Vec<u32>,
    /// Per stacktrace id of the dataset, the node of its leaf.
    pub leaves: Vec<u32>,
}

impl Default for NameTree {
    /// The root alone.
    fn default() -> Self {
        let mut names = Strings::default();
        names.push(b"");
        Self { names, name: vec![0], ends: vec![1], leaves: Vec::new() }
    }
}

impl NameTree {
    /// Builds the tree of all stacktraces of `symbols`; its first names are their strings.
    pub fn build(symbols: &Symbols) -> Self {
        let mut builder = Builder::new(symbols);
        builder.add_all(|_| Ok::<(), Infallible>(())).unwrap_or_else(|never| match never {});
        builder.finish()
    }

    /// As [`Self::build`]; charges `lease` for the memory of building, and at the end only for the tree.
    ///
    /// # Errors
    /// There is no room.
    pub fn build_within(symbols: &Symbols, lease: &Lease) -> Result<Self, Refusal> {
        let held = lease.bytes();
        let fixed = symbols.strings.byte_len() + symbols.stacktraces.len() * 8 + symbols.locations.len() * 4;
        lease.grow(fixed as u64)?;
        let mut builder = Builder::new(symbols);
        builder.add_all(|nodes| lease.grow((nodes * BUILDING_NODE_BYTES) as u64))?;
        let tree = builder.finish();
        lease.shrink_to(held.saturating_add(tree.byte_len() as u64));
        Ok(tree)
    }

    /// Memory that [`Self::build`] needs, a rough upper bound, if stacktraces are sorted from the root: neighbours
    /// then share their callers.
    pub(crate) fn building_bytes(symbols: &Symbols) -> u64 {
        let mut nodes = 1;
        let mut before: &[u32] = &[];
        for id in 0..symbols.stacktraces.len() as u32 {
            let stack = symbols.stacktraces.get(id);
            let shared = before.iter().rev().zip(stack.iter().rev()).take_while(|(a, b)| a == b).count();
            let new = &stack[..stack.len() - shared];
            nodes +=
                new.iter().map(|location| symbols.locations.lines_of(*location).len().max(1)).sum::<usize>();
            before = stack;
        }
        (nodes * BUILDING_NODE_BYTES + symbols.strings.byte_len()) as u64
    }

    /// Makes a tree of nodes in any order in which parents precede their children. Siblings keep their
    /// order; `leaves` are renumbered.
    pub fn from_parents(names: Strings, name: &[u32], parents: &[u32], mut leaves: Vec<u32>) -> Self {
        let mut sizes = vec![1_u32; name.len()];
        for node in (1..name.len()).rev() {
            sizes[parents[node] as usize] += sizes[node];
        }
        // Per node, the place of its next child; relative until the node itself is placed.
        let mut free = vec![1_u32; name.len()];
        let mut places = vec![0_u32; name.len()];
        let mut tree =
            Self { names, name: vec![0; name.len()], ends: vec![0; name.len()], leaves: Vec::new() };
        for node in 0..name.len() {
            if node > 0 {
                let next = &mut free[parents[node] as usize];
                places[node] = *next;
                *next += sizes[node];
                free[node] = places[node] + 1;
            }
            let place = places[node] as usize;
            tree.name[place] = name[node];
            tree.ends[place] = places[node] + sizes[node];
        }
        leaves.iter_mut().for_each(|leaf| *leaf = places[*leaf as usize]);
        tree.leaves = leaves;
        tree
    }

    /// Nodes, the root included.
    pub fn len(&self) -> usize {
        self.name.len()
    }

    /// Whether the tree is the root alone.
    pub fn is_empty(&self) -> bool {
        self.name.len() <= 1
    }

    /// The name of a node; empty for the root.
    pub fn name_of(&self, node: u32) -> &[u8] {
        self.names.get(self.name[node as usize])
    }

    /// The children of a node, in their order.
    pub fn children(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let end = self.ends[node as usize];
        let mut next = node + 1;
        std::iter::from_fn(move || {
            let child = next;
            (child < end).then(|| {
                next = self.ends[child as usize];
                child
            })
        })
    }

    /// The parent of every node; the root's is 0.
    pub fn parents(&self) -> Vec<u32> {
        let mut parents = Vec::with_capacity(self.len());
        let mut path: Vec<u32> = Vec::new();
        for node in 0..self.len() as u32 {
            while path.last().is_some_and(|above| self.ends[*above as usize] <= node) {
                path.pop();
            }
            parents.push(path.last().copied().unwrap_or(0));
            path.push(node);
        }
        parents
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        self.names.byte_len() + (self.name.len() * 2 + self.leaves.len()) * 4
    }

    /// `strings`: number of leading names that are the strings of the symbols; they are not written again.
    pub(crate) fn encode(&self, strings: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.name.len() * 3 + self.leaves.len() * 2);
        put(&mut out, (self.names.len() - strings) as u64);
        for name in self.names.iter().skip(strings) {
            put(&mut out, name.len() as u64);
            out.extend_from_slice(name);
        }
        put(&mut out, self.name.len() as u64 - 1);
        for name in &self.name[1..] {
            put(&mut out, u64::from(*name));
        }
        let mut path = vec![0_u32];
        for node in 1..self.name.len() as u32 {
            let before = path.len();
            while path.last().is_some_and(|above| self.ends[*above as usize] <= node) {
                path.pop();
            }
            put(&mut out, (before - path.len()) as u64);
            path.push(node);
        }
        put(&mut out, self.leaves.len() as u64);
        let mut leaf = Delta::default();
        for node in &self.leaves {
            leaf.put(&mut out, i64::from(*node));
        }
        out
    }

    /// `strings` are those of the symbols.
    pub(crate) fn decode(bytes: &[u8], strings: Strings) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let cursor = &mut cursor;
        let mut names = strings;
        if names.is_empty() {
            return Err(cursor.malformed("a tree has no name for its root"));
        }
        for _ in 0..cursor.count()? {
            let length = cursor.count()?;
            names.push(cursor.take(length)?);
        }
        let count = cursor.count()?;
        let mut name = Vec::with_capacity(count + 1);
        name.push(0);
        for _ in 0..count {
            name.push(cursor.index(names.len(), "a node's name does not exist")?);
        }
        let mut ends = vec![count as u32 + 1; count + 1];
        let mut path = vec![0_u32];
        for node in 1..=count as u32 {
            for _ in 0..cursor.index(path.len(), "a node has no parent")? {
                if let Some(left) = path.pop() {
                    ends[left as usize] = node;
                }
            }
            path.push(node);
        }
        let leaf_count = cursor.count()?;
        let mut leaves = Vec::with_capacity(leaf_count);
        let mut leaf = Delta::default();
        for _ in 0..leaf_count {
            let node = leaf.read(cursor)?;
            if node < 0 || node > count as i64 {
                return Err(cursor.malformed("a leaf's node does not exist"));
            }
            leaves.push(node as u32);
        }
        cursor.end()?;
        Ok(Self { names, name, ends, leaves })
    }
}

/// Memory of a node while a tree is built and then ordered. Vectors may have twice the capacity that is used.
const BUILDING_NODE_BYTES: usize = 64;

/// Number of nodes that are charged for at once.
const NODES_PER_CHARGE: usize = 16 << 10;

/// Most children of one node that are searched one by one; for more, a table is made.
const CHILDREN_LISTED_MAX: u32 = 12;

/// A node in the list of its parent's children.
#[derive(Clone, Copy)]
struct Sibling {
    name: u32,
    /// The child of the same parent that was added before; 0 if there is none.
    before: u32,
}

#[derive(Clone, Copy, Default)]
struct Children {
    /// The one added last; 0 if there is none.
    last: u32,
    count: u32,
}

struct Builder<'a> {
    symbols: &'a Symbols,
    tree: UnorderedTree,
    siblings: Vec<Sibling>,
    children: Vec<Children>,
    hasher: RandomState,
    /// Nodes by (parent, name), for parents with more than [`CHILDREN_LISTED_MAX`] children.
    many: HashTable<u32>,
    /// Nodes of the stacktrace added last, root first, one per location: its innermost line.
    path: Vec<u32>,
}

/// A tree whose nodes are numbered in the order of their discovery.
struct UnorderedTree {
    names: Strings,
    name: Vec<u32>,
    parents: Vec<u32>,
    leaves: Vec<u32>,
}

impl<'a> Builder<'a> {
    fn new(symbols: &'a Symbols) -> Self {
        let mut names = symbols.strings.clone();
        if names.is_empty() {
            names.push(b"");
        }
        Self {
            symbols,
            tree: UnorderedTree { names, name: vec![0], parents: vec![0], leaves: Vec::new() },
            siblings: vec![Sibling { name: 0, before: 0 }],
            children: vec![Children::default()],
            hasher: RandomState::default(),
            many: HashTable::new(),
            path: Vec::new(),
        }
    }

    /// Adds all stacktraces; calls `grow` with a number of nodes before it adds that many more.
    fn add_all<E>(&mut self, mut grow: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        let symbols = self.symbols;
        let mut charged = 0;
        let mut address_names: Vec<u32> = vec![0; symbols.locations.len()];
        let mut name_by_text: HashMap<String, u32> = HashMap::new();
        let mut before: &[u32] = &[];
        self.tree.leaves.reserve(symbols.stacktraces.len());
        for id in 0..symbols.stacktraces.len() as u32 {
            let stack = symbols.stacktraces.get(id);
            while charged < self.tree.name.len() + stack.len() {
                grow(NODES_PER_CHARGE)?;
                charged += NODES_PER_CHARGE;
            }
            let shared = before.iter().rev().zip(stack.iter().rev()).take_while(|(a, b)| a == b).count();
            self.path.truncate(shared);
            let mut node = self.path.last().copied().unwrap_or(0);
            for location in stack[..stack.len() - shared].iter().rev() {
                let lines = symbols.locations.lines_of(*location);
                for line in lines.iter().rev() {
                    let name = self.line_name(line);
                    node = self.child(node, name);
                }
                if lines.is_empty() {
                    let known = &mut address_names[*location as usize];
                    if *known == 0 {
                        let names = &mut self.tree.names;
                        let text = address_name(symbols, *location);
                        // One binary may be mapped twice, so two locations may have one name.
                        let id =
                            name_by_text.entry(text).or_insert_with_key(|text| names.push(text.as_bytes()));
                        *known = *id;
                    }
                    node = self.child(node, *known);
                }
                self.path.push(node);
            }
            self.tree.leaves.push(node);
            before = stack;
        }
        Ok(())
    }

    fn finish(self) -> NameTree {
        let UnorderedTree { names, name, parents, leaves } = self.tree;
        NameTree::from_parents(names, &name, &parents, leaves)
    }

    fn line_name(&self, line: &Line) -> u32 {
        self.symbols.functions.get(line.function as usize).map_or(0, |function| function.name)
    }

    /// The child with this name, added if missing. In sorted stacktraces it is usually the last added one, or new.
    fn child(&mut self, parent: u32, name: u32) -> u32 {
        let Children { last, count } = self.children[parent as usize];
        if count > CHILDREN_LISTED_MAX {
            return self.child_of_many(parent, name);
        }
        let mut child = last;
        while child != 0 {
            let sibling = self.siblings[child as usize];
            if sibling.name == name {
                return child;
            }
            child = sibling.before;
        }
        let node = self.add(parent, name);
        if count == CHILDREN_LISTED_MAX {
            let mut child = node;
            while child != 0 {
                let Sibling { name, before } = self.siblings[child as usize];
                self.many.insert_unique(hash(&self.hasher, parent, name), child, |node| {
                    rehash(&self.hasher, &self.tree, *node)
                });
                child = before;
            }
        }
        node
    }

    #[inline(never)]
    fn child_of_many(&mut self, parent: u32, name: u32) -> u32 {
        let hash = hash(&self.hasher, parent, name);
        let tree = &self.tree;
        let same = |node: &u32| tree.parents[*node as usize] == parent && tree.name[*node as usize] == name;
        if let Some(found) = self.many.find(hash, same) {
            return *found;
        }
        let node = self.add(parent, name);
        self.many.insert_unique(hash, node, |node| rehash(&self.hasher, &self.tree, *node));
        node
    }

    fn add(&mut self, parent: u32, name: u32) -> u32 {
        let node = self.tree.name.len() as u32;
        self.tree.name.push(name);
        self.tree.parents.push(parent);
        let children = &mut self.children[parent as usize];
        self.siblings.push(Sibling { name, before: children.last });
        *children = Children { last: node, count: children.count + 1 };
        self.children.push(Children::default());
        node
    }
}

fn hash(hasher: &RandomState, parent: u32, name: u32) -> u64 {
    hasher.hash_one((u64::from(parent) << 32) | u64::from(name))
}

fn rehash(hasher: &RandomState, tree: &UnorderedTree, node: u32) -> u64 {
    hash(hasher, tree.parents[node as usize], tree.name[node as usize])
}

/// `<binary>!0x<address>`, or `0x<address>` without a binary.
fn address_name(symbols: &Symbols, location: u32) -> String {
    let address = symbols.locations.address[location as usize];
    let mapping = symbols.locations.mapping[location as usize];
    let filename = match mapping {
        NONE => 0,
        mapping => symbols.mappings[mapping as usize].filename,
    };
    let text = symbols.strings.text(filename);
    match text.rsplit('/').next().unwrap_or_default() {
        "" => format!("0x{address:x}"),
        binary => format!("{binary}!0x{address:x}"),
    }
}

#[cfg(test)]
mod tests {
    use model::{Function, Mapping};

    use super::*;

    #[test]
    fn children_of_one_parent_have_distinct_names_for_any_number_of_children() {
        let check = |children: u32| {
            let mut symbols = Symbols::default();
            symbols.strings.push(b"");
            let main = symbols.strings.push(b"main");
            let names: Vec<u32> = (0..children).map(|i| symbols.strings.push(&i.to_le_bytes())).collect();
            for name in names.iter().chain([&main, &main]) {
                symbols.functions.push(Function { name: *name, ..Function::default() });
            }
            let line = |function| Line { function, line: 1 };
            let locations: Vec<u32> = (0..children + 2)
                .map(|function| symbols.locations.push(NONE, 0, false, &[line(function)]))
                .collect();
            for caller in [children, children + 1] {
                for child in 0..children {
                    symbols.stacktraces.push(&[locations[child as usize], locations[caller as usize]]);
                }
            }
            let tree = NameTree::build(&symbols);
            assert_eq!(tree.name.len() as u32, children + 2);
            let (first, second) = tree.leaves.split_at(children as usize);
            assert_eq!(first, second);
        };
        for children in [1, CHILDREN_LISTED_MAX, CHILDREN_LISTED_MAX + 1, CHILDREN_LISTED_MAX * 9] {
            check(children);
        }
    }

    #[test]
    fn a_tree_has_inlined_lines_and_names_for_bare_addresses() {
        let mut symbols = Symbols::default();
        let ids: Vec<u32> = [&b""[..], b"main", b"work", b"inlined", b"/usr/bin/app"]
            .iter()
            .map(|text| symbols.strings.push(text))
            .collect();
        symbols.functions =
            ids[1..4].iter().map(|name| Function { name: *name, ..Function::default() }).collect();
        symbols.mappings = vec![Mapping { filename: ids[4], ..Mapping::default() }; 2];
        let line = |function| Line { function, line: 1 };
        let main = symbols.locations.push(0, 1, false, &[line(0)]);
        let work = symbols.locations.push(0, 2, false, &[line(2), line(1)]);
        let bare = symbols.locations.push(0, 0xbeef, false, &[]);
        let same_bare = symbols.locations.push(1, 0xbeef, false, &[]);
        for stack in [&[work, main][..], &[bare, main], &[same_bare, main], &[main], &[]] {
            symbols.stacktraces.push(stack);
        }
        let tree = NameTree::build(&symbols);
        let parents = tree.parents();
        let path = |leaf: u32| {
            let mut path = Vec::new();
            let mut node = leaf;
            while node != 0 {
                path.push(tree.names.text(tree.name[node as usize]).into_owned());
                node = parents[node as usize];
            }
            path.join(" < ")
        };
        let paths: Vec<String> = tree.leaves.iter().map(|leaf| path(*leaf)).collect();
        assert_eq!(paths, ["inlined < work < main", "app!0xbeef < main", "app!0xbeef < main", "main", ""]);
        assert_eq!(tree.leaves[1], tree.leaves[2]);
        assert_eq!(
            NameTree::decode(&tree.encode(symbols.strings.len()), symbols.strings.clone()).expect("reads"),
            tree
        );
    }

    #[test]
    fn descendants_follow_their_node_whatever_the_order_of_discovery() {
        let mut names = Strings::default();
        for name in ["", "a", "b", "c", "d", "e"] {
            names.push(name.as_bytes());
        }
        // root → a → (b → e, d), root → c; d and e come after c.
        let tree = NameTree::from_parents(names, &[0, 1, 2, 3, 4, 5], &[0, 0, 1, 0, 1, 2], vec![3, 4, 5]);
        let order: Vec<&[u8]> = (0..tree.len() as u32).map(|node| tree.name_of(node)).collect();
        assert_eq!(order, [&b""[..], b"a", b"b", b"e", b"d", b"c"]);
        assert_eq!(tree.ends, [6, 5, 4, 4, 5, 6]);
        assert_eq!(tree.leaves, [5, 4, 3]);
        assert_eq!(tree.parents(), [0, 0, 1, 2, 1, 0]);
        assert_eq!(tree.children(1).collect::<Vec<_>>(), [2, 4]);
        let mut first_names = Strings::default();
        first_names.push(b"");
        first_names.push(b"a");
        assert_eq!(NameTree::decode(&tree.encode(2), first_names).expect("reads"), tree);
    }

    #[test]
    fn a_damaged_tree_is_refused() {
        let names = NameTree::default().names;
        let sound = NameTree::default().encode(1);
        assert!(NameTree::decode(&sound, names.clone()).is_ok());
        // No further names; one node that climbs above the root; then the leaves.
        assert!(NameTree::decode(&[0, 1, 0, 1, 0], names.clone()).is_err());
        assert!(NameTree::decode(&sound, Strings::default()).is_err());
        assert!(NameTree::decode(&[], names).is_err());
    }
}
