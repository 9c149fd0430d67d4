//! Symbols of many profiles as one table without doubles.
//!
//! Everything is compared by content, never by hash alone: symbols come from outside, and two
//! stacktraces must not become one because somebody found two texts with one hash.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use model::{Function, Line, Mapping, NONE, Symbols};

/// Ids of equal things, found by 32 bits of their hash first.
#[derive(Default)]
struct Ids(HashTable<Slot>);

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    id: u32,
}

/// Spreads 32 bits over the 64 that the table looks at.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Ids {
    /// The id for which `same` holds, or the one that `add` gives.
    #[inline]
    fn get_or_add(&mut self, hash: u64, same: impl Fn(u32) -> bool, add: impl FnOnce() -> u32) -> u32 {
        let hash = (hash ^ (hash >> 32)) as u32;
        let found = |slot: &Slot| slot.hash == hash && same(slot.id);
        match self.0.entry(spread(hash), found, |slot| spread(slot.hash)) {
            Entry::Occupied(slot) => slot.get().id,
            Entry::Vacant(slot) => {
                let id = add();
                slot.insert(Slot { hash, id });
                id
            }
        }
    }

    fn byte_len(&self) -> usize {
        self.0.capacity() * (size_of::<Slot>() + 1)
    }
}

/// A growing table of symbols, each once.
pub(crate) struct Interner {
    pub(crate) symbols: Symbols,
    hasher: RandomState,
    strings: Ids,
    mappings: Ids,
    functions: Ids,
    locations: Ids,
    stacktraces: Ids,
}

impl Default for Interner {
    fn default() -> Self {
        let mut symbols = Symbols::default();
        symbols.strings.push(b"");
        Self {
            symbols,
            hasher: RandomState::default(),
            strings: Ids::default(),
            mappings: Ids::default(),
            functions: Ids::default(),
            locations: Ids::default(),
            stacktraces: Ids::default(),
        }
    }
}

impl Interner {
    /// Bytes held in memory, roughly.
    pub(crate) fn byte_len(&self) -> usize {
        let tables = [&self.strings, &self.mappings, &self.functions, &self.locations, &self.stacktraces];
        self.symbols.byte_len() + tables.iter().map(|ids| ids.byte_len()).sum::<usize>()
    }

    fn string(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let strings = std::cell::RefCell::new(&mut self.symbols.strings);
        let same = |id: u32| strings.borrow().get(id) == text;
        let add = || strings.borrow_mut().push(text);
        self.strings.get_or_add(self.hasher.hash_one(text), same, add)
    }

    fn mapping(&mut self, mapping: Mapping) -> u32 {
        intern_value(&mut self.mappings, &mut self.symbols.mappings, &self.hasher, mapping)
    }

    fn function(&mut self, function: Function) -> u32 {
        intern_value(&mut self.functions, &mut self.symbols.functions, &self.hasher, function)
    }

    fn location(&mut self, mapping: u32, address: u64, folded: bool, lines: &[Line]) -> u32 {
        let hash = self.hasher.hash_one((mapping, address, folded, lines));
        let locations = std::cell::RefCell::new(&mut self.symbols.locations);
        let same = |id: u32| {
            let known = locations.borrow();
            let i = id as usize;
            known.address[i] == address
                && known.mapping[i] == mapping
                && known.folded[i] == folded
                && known.lines_of(id) == lines
        };
        let add = || locations.borrow_mut().push(mapping, address, folded, lines);
        self.locations.get_or_add(hash, same, add)
    }

    fn stacktrace(&mut self, locations: &[u32]) -> u32 {
        let stacktraces = std::cell::RefCell::new(&mut self.symbols.stacktraces);
        let same = |id: u32| stacktraces.borrow().get(id) == locations;
        let add = || stacktraces.borrow_mut().push(locations);
        self.stacktraces.get_or_add(self.hasher.hash_one(locations), same, add)
    }
}

fn intern_value<T: Copy + Eq + Hash>(
    ids: &mut Ids,
    values: &mut Vec<T>,
    hasher: &RandomState,
    value: T,
) -> u32 {
    let values = std::cell::RefCell::new(values);
    let same = |id: u32| values.borrow()[id as usize] == value;
    let add = || {
        let mut values = values.borrow_mut();
        values.push(value);
        (values.len() - 1) as u32
    };
    ids.get_or_add(hasher.hash_one(value), same, add)
}

/// Brings stacktraces of one table of symbols into an [`Interner`], and with each only what it needs.
pub(crate) struct Import<'a> {
    from: &'a Symbols,
    /// Id in the interner of each thing of `from`; [`NONE`] if not brought over yet.
    strings: Vec<u32>,
    mappings: Vec<u32>,
    functions: Vec<u32>,
    locations: Vec<u32>,
    stack: Vec<u32>,
    lines: Vec<Line>,
}

impl<'a> Import<'a> {
    pub(crate) fn new(from: &'a Symbols) -> Self {
        Self {
            from,
            strings: vec![NONE; from.strings.len()],
            mappings: vec![NONE; from.mappings.len()],
            functions: vec![NONE; from.functions.len()],
            locations: vec![NONE; from.locations.len()],
            stack: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The id in `into` of stacktrace `id`. What refers to nothing is left out.
    pub(crate) fn stacktrace(&mut self, into: &mut Interner, id: u32) -> u32 {
        let from = self.from;
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        if (id as usize) < from.stacktraces.len() {
            for location in from.stacktraces.get(id) {
                match self.locations.get(*location as usize) {
                    None => continue,
                    Some(&NONE) => stack.push(self.location(into, *location)),
                    Some(known) => stack.push(*known),
                }
            }
        }
        let found = into.stacktrace(&stack);
        self.stack = stack;
        found
    }

    #[inline(never)]
    fn location(&mut self, into: &mut Interner, id: u32) -> u32 {
        let from = &self.from.locations;
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for line in from.lines_of(id) {
            lines.push(Line { function: self.function(into, line.function), line: line.line });
        }
        let i = id as usize;
        let mapping = self.mapping(into, from.mapping[i]);
        let found = into.location(mapping, from.address[i], from.folded[i], &lines);
        self.lines = lines;
        self.locations[i] = found;
        found
    }

    fn function(&mut self, into: &mut Interner, id: u32) -> u32 {
        let known = match self.functions.get(id as usize) {
            None => return NONE,
            Some(known) => *known,
        };
        if known != NONE {
            return known;
        }
        let function = self.from.functions[id as usize];
        let function = Function {
            name: self.string(into, function.name),
            system_name: self.string(into, function.system_name),
            filename: self.string(into, function.filename),
            start_line: function.start_line,
        };
        let found = into.function(function);
        self.functions[id as usize] = found;
        found
    }

    fn mapping(&mut self, into: &mut Interner, id: u32) -> u32 {
        let known = match self.mappings.get(id as usize) {
            None => return NONE,
            Some(known) => *known,
        };
        if known != NONE {
            return known;
        }
        let mapping = self.from.mappings[id as usize];
        let mapping = Mapping {
            filename: self.string(into, mapping.filename),
            build_id: self.string(into, mapping.build_id),
            ..mapping
        };
        let found = into.mapping(mapping);
        self.mappings[id as usize] = found;
        found
    }

    fn string(&mut self, into: &mut Interner, id: u32) -> u32 {
        let known = match self.strings.get(id as usize) {
            None => return 0,
            Some(known) => *known,
        };
        if known != NONE {
            return known;
        }
        let found = into.string(self.from.strings.get(id));
        self.strings[id as usize] = found;
        found
    }
}
