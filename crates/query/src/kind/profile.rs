//! All matching samples as one profile, with the symbols they were pushed with.
//!
//! Owns: unifying symbols, cutting a profile to its largest nodes, reducing it for a compiler.
//! Does not own: which samples count ([`crate::scan`]).
//!
//! Symbols of different datasets are equal if their content is: strings by bytes, functions and
//! mappings by their fields, locations by mapping, address and lines, stacktraces by locations.

use std::hash::BuildHasher;

use block::NameTree;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use memory::{Lease, Refusal};
use model::{Function, Line, Mapping, NONE, Symbols};

use crate::fold::{Dataset, FoldError, TooLarge};
pub use crate::query::{GoPgo, ProfileParameters as Parameters};
use crate::scan::add_weights;

/// Most distinct stacktraces of one profile.
pub const STACKTRACES_MAX: usize = 4_000_000;

/// Memory of a slot of a hash table, roughly: an index and a byte of its hash.
const TABLE_SLOT_BYTES: usize = 6;

/// Most bytes of symbols of one profile.
pub const SYMBOL_BYTES_MAX: usize = 1 << 30;

/// Symbols of several datasets, with a value per stacktrace.
#[derive(Clone, Debug)]
pub struct MergedProfile {
    pub symbols: Symbols,
    /// Per stacktrace.
    pub values: Vec<i64>,
    tables: Tables,
    /// Whether the tables contain the symbols. Symbols that were made elsewhere are indexed at the first merge.
    is_indexed: bool,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    hasher: RandomState,
    strings: HashTable<u32>,
    mappings: HashTable<u32>,
    functions: HashTable<u32>,
    locations: HashTable<u32>,
    stacktraces: HashTable<u32>,
}

impl Default for MergedProfile {
    fn default() -> Self {
        let mut merged = Self {
            symbols: Symbols::default(),
            values: Vec::new(),
            tables: Tables::default(),
            is_indexed: true,
        };
        merged.string(b"");
        merged
    }
}

impl MergedProfile {
    /// The answer of another process: `values[s]` belongs to stacktrace `s` of `symbols`, whose ids are all in
    /// range, or `NONE` where that is allowed.
    ///
    /// # Errors
    /// It is larger than an answer may be.
    pub fn from_columns(symbols: Symbols, mut values: Vec<i64>) -> Result<Self, TooLarge> {
        values.resize(symbols.stacktraces.len(), 0);
        let merged = Self { symbols, values, tables: Tables::default(), is_indexed: false };
        merged.check()?;
        Ok(merged)
    }

    pub(crate) fn fold(&mut self, parameters: &Parameters, dataset: Dataset<'_>) -> Result<(), FoldError> {
        let Some(symbols) = &dataset.symbols else { return Ok(()) };
        let mut weights = vec![0i64; symbols.stacktraces.len()];
        dataset.scan_all(|batch| add_weights(&mut weights, &batch, &parameters.filter))?;
        if self.values.is_empty() && parameters.go_pgo.is_none() {
            *self = Self::from_dataset(symbols, &weights, &parameters.filter.call_site);
            return Ok(self.check()?);
        }
        Ok(self.add(symbols, &weights, parameters)?)
    }

    /// The stacktraces of one dataset that have a weight. Symbols of one dataset are distinct, so none is looked up.
    fn from_dataset(from: &Symbols, weights: &[i64], call_site: &[Box<[u8]>]) -> Self {
        let mut symbols = Symbols::default();
        symbols.strings.push(b"");
        let mut import = Import::new(from);
        let mut values = Vec::new();
        let mut locations = Vec::new();
        for (stacktrace, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0) {
            let stack = from.stacktraces.get(stacktrace as u32);
            if stack.is_empty() || !(call_site.is_empty() || begins_with(from, stack, call_site)) {
                continue;
            }
            locations.clear();
            locations.extend(stack.iter().map(|location| import.location(&mut symbols, *location)));
            symbols.stacktraces.push(&locations);
            values.push(*weight);
        }
        Self { symbols, values, tables: Tables::default(), is_indexed: false }
    }

    pub(crate) fn merge(&mut self, other: Self) -> Result<(), TooLarge> {
        if self.values.is_empty() {
            *self = other;
            return Ok(());
        }
        // Both sides are already reduced as the query asks.
        self.add(&other.symbols, &other.values, &Parameters::default())
    }

    /// Bytes held in memory, roughly: tables and vectors have room for more than they hold.
    pub fn byte_len(&self) -> usize {
        let Tables { strings, mappings, functions, locations, stacktraces, .. } = &self.tables;
        let tables = [strings, mappings, functions, locations, stacktraces];
        let slots: usize = tables.iter().map(|table| table.capacity()).sum();
        self.symbols.byte_len() / 2 * 3 + self.values.capacity() * 8 + slots * TABLE_SLOT_BYTES
    }

    /// Most bytes that merging `other` into it takes, beside both.
    pub(crate) fn merging_bytes(&self, other: &Self) -> u64 {
        let (own, new) = (self.byte_len(), other.byte_len());
        let bytes = match (self.values.is_empty(), self.is_indexed) {
            (true, _) => 0,
            // A vector that grows moves to an allocation of twice its size.
            (false, true) => own / 2 + new * 2,
            (false, false) => own * 2 + new * 2,
        };
        bytes as u64
    }

    /// Adds symbols that were made elsewhere to the tables.
    fn index(&mut self) -> Result<(), TooLarge> {
        if self.is_indexed {
            return Ok(());
        }
        let plain = std::mem::take(self);
        self.add(&plain.symbols, &plain.values, &Parameters::default())
    }

    fn check(&self) -> Result<(), TooLarge> {
        if self.symbols.stacktraces.len() > STACKTRACES_MAX {
            return Err(TooLarge { resource: "stacktraces", limit: STACKTRACES_MAX });
        }
        if self.symbols.byte_len() > SYMBOL_BYTES_MAX {
            return Err(TooLarge { resource: "bytes of symbols", limit: SYMBOL_BYTES_MAX });
        }
        Ok(())
    }

    fn add(&mut self, from: &Symbols, weights: &[i64], parameters: &Parameters) -> Result<(), TooLarge> {
        self.index()?;
        let mut import = Import::new(from);
        let call_site = &parameters.filter.call_site;
        let mut locations = Vec::new();
        for (stacktrace, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0) {
            let stack = from.stacktraces.get(stacktrace as u32);
            if stack.is_empty() {
                continue;
            }
            if !call_site.is_empty() && !begins_with(from, stack, call_site) {
                continue;
            }
            let keep = match parameters.go_pgo {
                Some(pgo) if pgo.keep_locations > 0 => pgo.keep_locations as usize,
                _ => stack.len(),
            };
            locations.clear();
            for location in stack.iter().take(keep) {
                locations.push(import.location(self, *location));
            }
            self.add_stacktrace(&locations, *weight);
            if self.symbols.stacktraces.len() > STACKTRACES_MAX {
                return Err(TooLarge { resource: "stacktraces", limit: STACKTRACES_MAX });
            }
        }
        self.check()
    }

    fn add_stacktrace(&mut self, locations: &[u32], value: i64) {
        let Self { symbols, values, tables: Tables { hasher, stacktraces: table, .. }, .. } = self;
        let stacktraces = &mut symbols.stacktraces;
        let hash = hasher.hash_one(locations);
        if let Some(found) = table.find(hash, |id| stacktraces.get(*id) == locations) {
            let sum = &mut values[*found as usize];
            *sum = sum.wrapping_add(value);
            return;
        }
        let id = stacktraces.push(locations);
        values.push(value);
        table.insert_unique(hash, id, |id| hasher.hash_one(stacktraces.get(*id)));
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|value| *value == 0)
    }

    /// The form of a whole answer that is sent: with callees aggregated, cut to `max_nodes`. Charges `lease` for the
    /// memory beside the answer.
    ///
    /// # Errors
    /// There is no room.
    pub fn finish(self, go_pgo: Option<GoPgo>, max_nodes: usize, lease: &Lease) -> Result<Self, Refusal> {
        match go_pgo.is_some_and(|pgo| pgo.aggregate_callees) {
            true => {
                lease.grow(self.byte_len() as u64 * 2)?;
                self.without_leaf_lines().truncate(max_nodes, lease)
            }
            false => self.truncate(max_nodes, lease),
        }
    }

    /// Drops the line of the innermost function of every leaf. A location that is a leaf of one stacktrace
    /// loses it in all stacktraces.
    fn without_leaf_lines(self) -> Self {
        let mut is_leaf = vec![false; self.symbols.locations.len()];
        for stacktrace in 0..self.symbols.stacktraces.len() as u32 {
            if let Some(leaf) = self.symbols.stacktraces.get(stacktrace).first() {
                is_leaf[*leaf as usize] = true;
            }
        }
        let mut symbols = self.symbols;
        for location in (0..is_leaf.len()).filter(|location| is_leaf[*location]) {
            let locations = &mut symbols.locations;
            let lines = locations.line_offsets[location]..locations.line_offsets[location + 1];
            if !lines.is_empty() {
                locations.lines[lines.start as usize].line = 0;
            }
        }
        let mut aggregated = Self::default();
        let mut import = Import::new(&symbols);
        let mut locations = Vec::new();
        for (stacktrace, value) in self.values.iter().enumerate() {
            locations.clear();
            for location in symbols.stacktraces.get(stacktrace as u32) {
                locations.push(import.location(&mut aggregated, *location));
            }
            aggregated.add_stacktrace(&locations, *value);
        }
        aggregated
    }

    /// Keeps the `max_nodes` largest nodes of the tree of function names, those as large as the smallest of
    /// them, and the children of all these. A longer stacktrace ends in a location `other`. 0 keeps all.
    fn truncate(self, max_nodes: usize, lease: &Lease) -> Result<Self, Refusal> {
        if max_nodes == 0 {
            return Ok(self);
        }
        let tree = NameTree::build_within(&self.symbols, lease)?;
        let totals_and_parents = tree.len() as u64 * 28;
        lease.grow(totals_and_parents + self.byte_len() as u64)?;
        let parents = tree.parents();
        let mut total = vec![0i64; tree.len()];
        for (leaf, value) in tree.leaves.iter().zip(&self.values).filter(|(_, value)| **value > 0) {
            total[*leaf as usize] = total[*leaf as usize].saturating_add(*value);
        }
        for node in (1..total.len()).rev() {
            let parent = parents[node] as usize;
            total[parent] = total[parent].saturating_add(total[node]);
        }
        let mut sizes = total[1..].to_vec();
        sizes.retain(|size| *size > 0);
        let Some(threshold) = nth_largest(&sizes, max_nodes) else { return Ok(self) };

        let mut cut = Self::default();
        let other = {
            let name = cut.string(b"other");
            let function = cut.function(Function { name, system_name: name, ..Function::default() });
            cut.location(NONE, 0, false, &[Line { function, line: 0 }])
        };
        let mut import = Import::new(&self.symbols);
        let mut path = Vec::new();
        let mut locations = Vec::new();
        for (stacktrace, value) in self.values.iter().enumerate().filter(|(_, value)| **value > 0) {
            path.clear();
            let mut node = tree.leaves[stacktrace];
            while node != 0 {
                path.push(node);
                node = parents[node as usize];
            }
            let large = path.iter().rev().take_while(|node| total[**node as usize] >= threshold).count();
            let mut kept = large + 1;
            let stack = self.symbols.stacktraces.get(stacktrace as u32);
            locations.clear();
            for location in stack.iter().rev() {
                let frames = self.symbols.locations.lines_of(*location).len().max(1);
                if frames > kept {
                    locations.push(other);
                    break;
                }
                kept -= frames;
                locations.push(import.location(&mut cut, *location));
            }
            locations.reverse();
            cut.add_stacktrace(&locations, *value);
        }
        Ok(cut)
    }
}

/// The `n`-th largest, if there are more than `n`.
fn nth_largest(values: &[i64], n: usize) -> Option<i64> {
    if values.len() <= n {
        return None;
    }
    let mut values = values.to_vec();
    let (_, nth, _) = values.select_nth_unstable_by(n - 1, |a, b| b.cmp(a));
    Some(*nth)
}

fn intern<T: Copy + Eq + std::hash::Hash>(
    table: &mut HashTable<u32>,
    hasher: &RandomState,
    all: &mut Vec<T>,
    one: T,
) -> u32 {
    let hash = hasher.hash_one(one);
    if let Some(found) = table.find(hash, |id| all[*id as usize] == one) {
        return *found;
    }
    let id = all.len() as u32;
    all.push(one);
    table.insert_unique(hash, id, |id| hasher.hash_one(all[*id as usize]));
    id
}

/// Whether the first functions from the root are exactly `call_site`.
fn begins_with(symbols: &Symbols, stack: &[u32], call_site: &[Box<[u8]>]) -> bool {
    let frames = stack.iter().rev().flat_map(|location| {
        let lines = symbols.locations.lines_of(*location).iter().rev();
        lines.map(|line| match symbols.functions.get(line.function as usize) {
            Some(function) => symbols.strings.get(function.name),
            None => b"".as_slice(),
        })
    });
    let mut wanted = call_site.iter();
    let same = frames.zip(&mut wanted).all(|(frame, name)| frame == &**name);
    same && wanted.next().is_none()
}

/// A table of symbols that others are moved into.
trait Target {
    fn string(&mut self, bytes: &[u8]) -> u32;
    fn mapping(&mut self, mapping: Mapping) -> u32;
    fn function(&mut self, function: Function) -> u32;
    fn location(&mut self, mapping: u32, address: u64, folded: bool, lines: &[Line]) -> u32;
}

impl Target for MergedProfile {
    fn string(&mut self, bytes: &[u8]) -> u32 {
        let Self { symbols, tables: Tables { hasher, strings: table, .. }, .. } = self;
        let strings = &mut symbols.strings;
        let hash = hasher.hash_one(bytes);
        if let Some(found) = table.find(hash, |id| strings.get(*id) == bytes) {
            return *found;
        }
        let id = strings.push(bytes);
        table.insert_unique(hash, id, |id| hasher.hash_one(strings.get(*id)));
        id
    }

    fn mapping(&mut self, mapping: Mapping) -> u32 {
        let Self { symbols, tables: Tables { hasher, mappings: table, .. }, .. } = self;
        intern(table, hasher, &mut symbols.mappings, mapping)
    }

    fn function(&mut self, function: Function) -> u32 {
        let Self { symbols, tables: Tables { hasher, functions: table, .. }, .. } = self;
        intern(table, hasher, &mut symbols.functions, function)
    }

    fn location(&mut self, mapping: u32, address: u64, folded: bool, lines: &[Line]) -> u32 {
        let Self { symbols, tables: Tables { hasher, locations: table, .. }, .. } = self;
        let locations = &mut symbols.locations;
        let hash = hasher.hash_one((mapping, address, folded, lines));
        let same = |id: &u32| {
            let index = *id as usize;
            locations.mapping[index] == mapping
                && locations.address[index] == address
                && locations.folded[index] == folded
                && locations.lines_of(*id) == lines
        };
        if let Some(found) = table.find(hash, same) {
            return *found;
        }
        let id = locations.push(mapping, address, folded, lines);
        table.insert_unique(hash, id, |id| {
            let index = *id as usize;
            let (mapping, address) = (locations.mapping[index], locations.address[index]);
            hasher.hash_one((mapping, address, locations.folded[index], locations.lines_of(*id)))
        });
        id
    }
}

/// Only for distinct symbols: none is looked up.
impl Target for Symbols {
    fn string(&mut self, bytes: &[u8]) -> u32 {
        if bytes.is_empty() { 0 } else { self.strings.push(bytes) }
    }

    fn mapping(&mut self, mapping: Mapping) -> u32 {
        self.mappings.push(mapping);
        self.mappings.len() as u32 - 1
    }

    fn function(&mut self, function: Function) -> u32 {
        self.functions.push(function);
        self.functions.len() as u32 - 1
    }

    fn location(&mut self, mapping: u32, address: u64, folded: bool, lines: &[Line]) -> u32 {
        self.locations.push(mapping, address, folded, lines)
    }
}

/// Moves the used symbols of one table into another.
struct Import<'a> {
    from: &'a Symbols,
    strings: Vec<u32>,
    mappings: Vec<u32>,
    functions: Vec<u32>,
    locations: Vec<u32>,
    lines: Vec<Line>,
}

impl<'a> Import<'a> {
    fn new(from: &'a Symbols) -> Self {
        Self {
            from,
            strings: vec![NONE; from.strings.len()],
            mappings: vec![NONE; from.mappings.len()],
            functions: vec![NONE; from.functions.len()],
            locations: vec![NONE; from.locations.len()],
            lines: Vec::new(),
        }
    }

    fn location(&mut self, to: &mut impl Target, location: u32) -> u32 {
        let index = location as usize;
        if self.locations[index] == NONE {
            let mapping = self.mapping(to, self.from.locations.mapping[index]);
            let mut lines = std::mem::take(&mut self.lines);
            lines.clear();
            for line in self.from.locations.lines_of(location) {
                lines.push(Line { function: self.function(to, line.function), line: line.line });
            }
            let (address, folded) = (self.from.locations.address[index], self.from.locations.folded[index]);
            self.locations[index] = to.location(mapping, address, folded, &lines);
            self.lines = lines;
        }
        self.locations[index]
    }

    fn mapping(&mut self, to: &mut impl Target, mapping: u32) -> u32 {
        let Some(known) = self.mappings.get(mapping as usize) else { return NONE };
        if *known != NONE {
            return *known;
        }
        let from = self.from.mappings[mapping as usize];
        let moved = Mapping {
            filename: self.string(to, from.filename),
            build_id: self.string(to, from.build_id),
            ..from
        };
        self.mappings[mapping as usize] = to.mapping(moved);
        self.mappings[mapping as usize]
    }

    fn function(&mut self, to: &mut impl Target, function: u32) -> u32 {
        let Some(known) = self.functions.get(function as usize) else { return NONE };
        if *known != NONE {
            return *known;
        }
        let from = self.from.functions[function as usize];
        let moved = Function {
            name: self.string(to, from.name),
            system_name: self.string(to, from.system_name),
            filename: self.string(to, from.filename),
            ..from
        };
        self.functions[function as usize] = to.function(moved);
        self.functions[function as usize]
    }

    fn string(&mut self, to: &mut impl Target, string: u32) -> u32 {
        let Some(known) = self.strings.get(string as usize) else { return 0 };
        if *known != NONE {
            return *known;
        }
        self.strings[string as usize] = to.string(self.from.strings.get(string));
        self.strings[string as usize]
    }
}
