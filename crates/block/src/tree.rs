use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use model::{Line, NONE, Strings, Symbols};

use crate::codec::{Cursor, Delta, put};
use crate::error::Malformed;
use crate::symbols::{decode_strings, encode_strings};

/// The stacktraces of a dataset as one tree of function names: all that flame graphs need.
///
/// Node 0 is the root and has no name. A parent precedes its children (`parents[i] < i`), so totals
/// are one backward pass. Inlined lines are nodes of their own; a location without lines is named
/// `<binary>!0x<address>`. Children of one parent have distinct names.
#[derive(Clone, Debug, Default)]
pub struct NameTree {
    pub names: Strings,
    /// Index into `names` per node.
    pub name: Vec<u32>,
    /// Parent per node; the root's is 0.
    pub parents: Vec<u32>,
    /// Per stacktrace id of the dataset, the node that its leaf is.
    pub leaves: Vec<u32>,
}

impl NameTree {
    /// Builds the tree of all stacktraces of `symbols`.
    pub fn build(symbols: &Symbols) -> Self {
        Builder::new(symbols).build()
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        self.names.byte_len() + (self.name.len() * 2 + self.leaves.len()) * 4
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.names.byte_len() + self.name.len() * 3 + self.leaves.len() * 2);
        encode_strings(&mut out, &self.names);
        put(&mut out, self.name.len() as u64 - 1);
        for name in &self.name[1..] {
            put(&mut out, u64::from(*name));
        }
        for (node, parent) in self.parents.iter().enumerate().skip(1) {
            put(&mut out, node as u64 - 1 - u64::from(*parent));
        }
        put(&mut out, self.leaves.len() as u64);
        let mut leaf = Delta::default();
        for node in &self.leaves {
            leaf.put(&mut out, i64::from(*node));
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let cursor = &mut cursor;
        let names = decode_strings(cursor)?;
        let count = cursor.count()?;
        let mut name = Vec::with_capacity(count + 1);
        name.push(0);
        for _ in 0..count {
            name.push(cursor.index(names.len(), "a node's name does not exist")?);
        }
        let mut parents = Vec::with_capacity(count + 1);
        parents.push(0);
        for node in 1..=count {
            let distance = cursor.index(node, "a node's parent does not precede it")?;
            parents.push(node as u32 - 1 - distance);
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
        Ok(Self { names, name, parents, leaves })
    }
}

struct Builder<'a> {
    symbols: &'a Symbols,
    tree: NameTree,
    hasher: RandomState,
    /// Nodes by (parent, name).
    children: HashTable<u32>,
    /// Name in the tree of each string of the symbols; 0 if not used yet.
    name_of_string: Vec<u32>,
    /// Nodes of the stacktrace added last, root first, one per location: its innermost line.
    path: Vec<u32>,
}

impl<'a> Builder<'a> {
    fn new(symbols: &'a Symbols) -> Self {
        let mut tree = NameTree::default();
        tree.names.push(b"");
        tree.name.push(0);
        tree.parents.push(0);
        Self {
            symbols,
            tree,
            hasher: RandomState::default(),
            children: HashTable::new(),
            name_of_string: vec![0; symbols.strings.len()],
            path: Vec::new(),
        }
    }

    fn build(mut self) -> NameTree {
        let symbols = self.symbols;
        let mut address_names: Vec<u32> = vec![0; symbols.locations.len()];
        let mut name_by_text: HashMap<String, u32> = HashMap::new();
        let mut before: &[u32] = &[];
        self.tree.leaves.reserve(symbols.stacktraces.len());
        for id in 0..symbols.stacktraces.len() as u32 {
            let stack = symbols.stacktraces.get(id);
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
        self.tree
    }

    fn line_name(&mut self, line: &Line) -> u32 {
        let Some(function) = self.symbols.functions.get(line.function as usize) else {
            return 0;
        };
        if function.name == 0 {
            return 0;
        }
        let known = &mut self.name_of_string[function.name as usize];
        if *known == 0 {
            *known = self.tree.names.push(self.symbols.strings.get(function.name));
        }
        *known
    }

    fn child(&mut self, parent: u32, name: u32) -> u32 {
        let Self { tree, hasher, children, .. } = self;
        let hash_of = |parent: u32, name: u32| hasher.hash_one((u64::from(parent) << 32) | u64::from(name));
        let same = |node: &u32| tree.parents[*node as usize] == parent && tree.name[*node as usize] == name;
        let rehash = |node: &u32| hash_of(tree.parents[*node as usize], tree.name[*node as usize]);
        match children.entry(hash_of(parent, name), same, rehash) {
            hashbrown::hash_table::Entry::Occupied(found) => *found.get(),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let node = tree.name.len() as u32;
                vacant.insert(node);
                tree.name.push(name);
                tree.parents.push(parent);
                node
            }
        }
    }
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
        let path = |leaf: u32| {
            let mut path = Vec::new();
            let mut node = leaf;
            while node != 0 {
                path.push(tree.names.text(tree.name[node as usize]).into_owned());
                node = tree.parents[node as usize];
            }
            path.join(" < ")
        };
        let paths: Vec<String> = tree.leaves.iter().map(|leaf| path(*leaf)).collect();
        assert_eq!(paths, ["inlined < work < main", "app!0xbeef < main", "app!0xbeef < main", "main", ""]);
        assert_eq!(tree.leaves[1], tree.leaves[2]);
        let decoded = NameTree::decode(&tree.encode()).expect("reads");
        assert_eq!((decoded.name, decoded.parents, decoded.leaves), (tree.name, tree.parents, tree.leaves));
    }
}
