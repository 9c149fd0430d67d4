//! Symbols of many profiles as one table without duplicates.
//!
//! Two entries are equal if 128-bit hashes over their content are: a known stacktrace costs one lookup, and the
//! symbols that it refers to are not touched. The hash is keyed with random bits that never leave the process, so
//! that no client can choose symbols that collide.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use model::{Function, Line, Mapping, NONE, Symbols};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The hash keys of one process, or of one merge.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    strings: u64,
    /// Odd, so that multiplication loses no bits.
    factors: [u64; 2],
    start: [u64; 2],
}

impl Keys {
    pub(crate) fn random() -> Self {
        let random = RandomState::default();
        let key = |number: u32| random.hash_one(number);
        Self { strings: key(0), factors: [key(1) | 1, key(2) | 1], start: [key(3), key(4)] }
    }

    fn string(&self, text: &[u8]) -> Hash {
        let hash = xxh3_128_with_seed(text, self.strings);
        Hash(hash as u64, (hash >> 64) as u64)
    }

    fn mix(&self) -> Mix<'_> {
        Mix { keys: self, state: self.start }
    }
}

/// A 128-bit hash over the content of a table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hash(u64, u64);

/// Hashes a sequence of 128-bit blocks. Both halves go through both multiplications, so that bits of
/// either half reach the whole state within two blocks.
struct Mix<'a> {
    keys: &'a Keys,
    state: [u64; 2],
}

impl Mix<'_> {
    #[inline]
    fn add(&mut self, low: u64, high: u64) {
        let [a, b] = self.keys.factors;
        let x = u128::from(self.state[0] ^ low) * u128::from(a);
        let y = u128::from(self.state[1] ^ high) * u128::from(b);
        self.state = [x as u64 ^ (y >> 64) as u64, y as u64 ^ (x >> 64) as u64];
    }

    #[inline]
    fn add_hash(&mut self, hash: Hash) {
        self.add(hash.0, hash.1);
    }

    /// `length`: number of elements of the part with variable length.
    #[inline]
    fn finish(mut self, length: usize) -> Hash {
        let [start, _] = self.keys.start;
        self.add(length as u64, start);
        self.add(start, length as u64);
        Hash(self.state[0], self.state[1])
    }
}

/// Hash of an absent value. Real content collides with it only by chance.
const ABSENT: Hash = Hash(0, 0);

/// The hashes of all symbols of one table, except its stacktraces.
#[derive(Default)]
pub(crate) struct Hashes {
    strings: Vec<Hash>,
    mappings: Vec<Hash>,
    functions: Vec<Hash>,
    locations: Vec<Hash>,
}

impl Hashes {
    /// Replaces all hashes; only their memory is used again.
    pub(crate) fn fill(&mut self, keys: &Keys, symbols: &Symbols) {
        let Self { strings, mappings, functions, locations } = self;
        strings.clear();
        strings.extend(symbols.strings.iter().map(|text| keys.string(text)));
        let empty = keys.string(b"");
        let string = |id: u32| strings.get(id as usize).copied().unwrap_or(empty);
        mappings.clear();
        mappings.extend(symbols.mappings.iter().map(|mapping| {
            let mut mix = keys.mix();
            mix.add_hash(string(mapping.filename));
            mix.add_hash(string(mapping.build_id));
            mix.add(mapping.memory_start, mapping.memory_limit);
            let flags = [
                mapping.has_functions,
                mapping.has_filenames,
                mapping.has_line_numbers,
                mapping.has_inline_frames,
            ];
            let flags = flags.iter().enumerate().map(|(bit, set)| u64::from(*set) << bit).sum();
            mix.add(mapping.file_offset, flags);
            mix.finish(0)
        }));
        functions.clear();
        functions.extend(symbols.functions.iter().map(|function| {
            let mut mix = keys.mix();
            mix.add_hash(string(function.name));
            mix.add_hash(string(function.system_name));
            mix.add_hash(string(function.filename));
            mix.add(function.start_line as u64, 0);
            mix.finish(0)
        }));
        locations.clear();
        let from = &symbols.locations;
        locations.extend((0..from.len()).map(|i| {
            let lines = from.lines_of(i as u32);
            let mut mix = keys.mix();
            mix.add_hash(mappings.get(from.mapping[i] as usize).copied().unwrap_or(ABSENT));
            mix.add(from.address[i], u64::from(from.folded[i]));
            for line in lines {
                mix.add_hash(functions.get(line.function as usize).copied().unwrap_or(ABSENT));
                mix.add(line.line as u64, 0);
            }
            mix.finish(lines.len())
        }));
    }

    /// The hash over those of the `locations` that exist, in order.
    fn stacktrace(&self, keys: &Keys, locations: &[u32]) -> Hash {
        let mut mix = keys.mix();
        let mut length = 0;
        for location in locations {
            if let Some(hash) = self.locations.get(*location as usize) {
                mix.add_hash(*hash);
                length += 1;
            }
        }
        mix.finish(length)
    }
}

/// Ids by the hash of the content.
#[derive(Default)]
struct Ids(HashTable<Slot>);

/// Aligned to four bytes: with eight, padding would add a fifth to the table.
#[derive(Clone, Copy)]
struct Slot {
    hash: [u32; 4],
    id: u32,
}

impl Slot {
    /// The part of the hash that is the table's hash.
    fn table_hash(&self) -> u64 {
        u64::from(self.hash[0]) << 32 | u64::from(self.hash[1])
    }
}

impl Ids {
    #[inline]
    fn get(&self, hash: Hash) -> Option<u32> {
        let wanted = words(hash);
        self.0.find(hash.0, |slot| slot.hash == wanted).map(|slot| slot.id)
    }

    fn insert(&mut self, hash: Hash, id: u32) {
        self.0.insert_unique(hash.0, Slot { hash: words(hash), id }, Slot::table_hash);
    }

    /// The id of this hash; if there is none, the id that `add` returns.
    #[inline]
    fn get_or_add(&mut self, hash: Hash, add: impl FnOnce() -> u32) -> u32 {
        let wanted = words(hash);
        match self.0.entry(hash.0, |slot| slot.hash == wanted, Slot::table_hash) {
            Entry::Occupied(slot) => slot.get().id,
            Entry::Vacant(slot) => {
                let id = add();
                slot.insert(Slot { hash: wanted, id });
                id
            }
        }
    }

    fn byte_len(&self) -> usize {
        self.0.capacity() * (size_of::<Slot>() + 1)
    }
}

fn words(Hash(a, b): Hash) -> [u32; 4] {
    [(a >> 32) as u32, a as u32, (b >> 32) as u32, b as u32]
}

/// A growing table of symbols, each once.
pub(crate) struct Interner {
    pub(crate) symbols: Symbols,
    keys: Keys,
    strings: Ids,
    mappings: Ids,
    functions: Ids,
    locations: Ids,
    stacktraces: Ids,
}

impl Interner {
    pub(crate) fn new(keys: Keys) -> Self {
        let mut symbols = Symbols::default();
        let empty = symbols.strings.push(b"");
        let mut strings = Ids::default();
        strings.insert(keys.string(b""), empty);
        Self {
            symbols,
            keys,
            strings,
            mappings: Ids::default(),
            functions: Ids::default(),
            locations: Ids::default(),
            stacktraces: Ids::default(),
        }
    }

    /// Bytes held in memory, roughly.
    pub(crate) fn byte_len(&self) -> usize {
        let tables = [&self.strings, &self.mappings, &self.functions, &self.locations, &self.stacktraces];
        self.symbols.byte_len() + tables.iter().map(|ids| ids.byte_len()).sum::<usize>()
    }
}

/// Memory of an [`Import`] that the next one reuses.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Id in the interner of each location; [`NONE`] if not imported yet.
    locations: Vec<u32>,
    stack: Vec<u32>,
    lines: Vec<Line>,
}

/// Imports stacktraces of one table of symbols into an [`Interner`], each with only the symbols that it needs.
///
/// `hashes` must be those of the table, by the interner's keys.
pub(crate) struct Import<'a> {
    from: &'a Symbols,
    hashes: &'a Hashes,
    scratch: &'a mut Scratch,
}

impl<'a> Import<'a> {
    pub(crate) fn new(from: &'a Symbols, hashes: &'a Hashes, scratch: &'a mut Scratch) -> Self {
        scratch.locations.clear();
        Self { from, hashes, scratch }
    }

    /// Returns the id in `into` of stacktrace `id`. References to symbols that do not exist are left out.
    #[inline]
    pub(crate) fn stacktrace(&mut self, into: &mut Interner, id: u32) -> u32 {
        let stacktraces = &self.from.stacktraces;
        let locations = if (id as usize) < stacktraces.len() { stacktraces.get(id) } else { &[] };
        let hash = self.hashes.stacktrace(&into.keys, locations);
        match into.stacktraces.get(hash) {
            Some(known) => known,
            None => self.new_stacktrace(into, locations, hash),
        }
    }

    #[inline(never)]
    fn new_stacktrace(&mut self, into: &mut Interner, locations: &[u32], hash: Hash) -> u32 {
        self.scratch.locations.resize(self.from.locations.len(), NONE);
        let mut stack = std::mem::take(&mut self.scratch.stack);
        stack.clear();
        for location in locations {
            match self.scratch.locations.get(*location as usize) {
                None => continue,
                Some(&NONE) => stack.push(self.location(into, *location)),
                Some(known) => stack.push(*known),
            }
        }
        let id = into.symbols.stacktraces.push(&stack);
        into.stacktraces.insert(hash, id);
        self.scratch.stack = stack;
        id
    }

    fn location(&mut self, into: &mut Interner, id: u32) -> u32 {
        let i = id as usize;
        let hash = self.hashes.locations[i];
        let found = match into.locations.get(hash) {
            Some(known) => known,
            None => {
                let from = &self.from.locations;
                let mut lines = std::mem::take(&mut self.scratch.lines);
                lines.clear();
                for line in from.lines_of(id) {
                    lines.push(Line { function: self.function(into, line.function), line: line.line });
                }
                let mapping = self.mapping(into, from.mapping[i]);
                let added = into.symbols.locations.push(mapping, from.address[i], from.folded[i], &lines);
                into.locations.insert(hash, added);
                self.scratch.lines = lines;
                added
            }
        };
        self.scratch.locations[i] = found;
        found
    }

    fn function(&self, into: &mut Interner, id: u32) -> u32 {
        let Some(hash) = self.hashes.functions.get(id as usize) else {
            return NONE;
        };
        if let Some(known) = into.functions.get(*hash) {
            return known;
        }
        let function = self.from.functions[id as usize];
        let function = Function {
            name: self.string(into, function.name),
            system_name: self.string(into, function.system_name),
            filename: self.string(into, function.filename),
            start_line: function.start_line,
        };
        into.symbols.functions.push(function);
        let added = into.symbols.functions.len() as u32 - 1;
        into.functions.insert(*hash, added);
        added
    }

    fn mapping(&self, into: &mut Interner, id: u32) -> u32 {
        let Some(hash) = self.hashes.mappings.get(id as usize) else {
            return NONE;
        };
        if let Some(known) = into.mappings.get(*hash) {
            return known;
        }
        let mapping = self.from.mappings[id as usize];
        let mapping = Mapping {
            filename: self.string(into, mapping.filename),
            build_id: self.string(into, mapping.build_id),
            ..mapping
        };
        into.symbols.mappings.push(mapping);
        let added = into.symbols.mappings.len() as u32 - 1;
        into.mappings.insert(*hash, added);
        added
    }

    fn string(&self, into: &mut Interner, id: u32) -> u32 {
        let Some(hash) = self.hashes.strings.get(id as usize) else {
            return 0;
        };
        let Interner { strings, symbols, .. } = into;
        strings.get_or_add(*hash, || symbols.strings.push(self.from.strings.get(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stacktrace of one location with one line, everything set.
    fn symbols() -> Symbols {
        let mut symbols = Symbols::default();
        for text in [&b""[..], b"main", b"_main", b"main.c", b"/bin/app", b"build"] {
            symbols.strings.push(text);
        }
        symbols.mappings.push(Mapping {
            memory_start: 1,
            memory_limit: 2,
            file_offset: 3,
            filename: 4,
            build_id: 5,
            ..Mapping::default()
        });
        symbols.functions.push(Function { name: 1, system_name: 2, filename: 3, start_line: 7 });
        symbols.locations.push(0, 9, false, &[Line { function: 0, line: 8 }]);
        symbols.stacktraces.push(&[0]);
        symbols
    }

    fn import(into: &mut Interner, symbols: &Symbols) -> u32 {
        let mut hashes = Hashes::default();
        hashes.fill(&into.keys, symbols);
        Import::new(symbols, &hashes, &mut Scratch::default()).stacktrace(into, 0)
    }

    #[test]
    fn stacktraces_that_differ_in_one_field_stay_apart() {
        let changes: &[fn(&mut Symbols)] = &[
            |s| s.mappings[0].memory_start = 2,
            |s| s.mappings[0].memory_limit = 3,
            |s| s.mappings[0].file_offset = 4,
            |s| s.mappings[0].filename = 1,
            |s| s.mappings[0].build_id = 1,
            |s| s.mappings[0].has_functions = true,
            |s| s.mappings[0].has_filenames = true,
            |s| s.mappings[0].has_line_numbers = true,
            |s| s.mappings[0].has_inline_frames = true,
            |s| s.functions[0].name = 2,
            |s| s.functions[0].system_name = 1,
            |s| s.functions[0].filename = 1,
            |s| s.functions[0].start_line = 8,
            |s| s.strings.replace(1, b"Main"),
            |s| s.strings.replace(1, b""),
            |s| s.locations.mapping[0] = NONE,
            |s| s.locations.address[0] = 10,
            |s| s.locations.folded[0] = true,
            |s| s.locations.lines[0].line = 7,
            |s| s.locations.lines[0].function = NONE,
            |s| s.locations.lines.push(Line { function: 0, line: 8 }),
            |s| s.stacktraces.locations.push(0),
        ];
        let mut interner = Interner::new(Keys::random());
        let mut known = vec![import(&mut interner, &symbols())];
        for change in changes {
            let mut changed = symbols();
            change(&mut changed);
            // An appended entry belongs to the only location, or to the only stacktrace.
            changed.locations.line_offsets[1] = changed.locations.lines.len() as u32;
            changed.stacktraces.offsets[1] = changed.stacktraces.locations.len() as u32;
            known.push(import(&mut interner, &changed));
        }
        assert_eq!(known, (0..=changes.len() as u32).collect::<Vec<_>>());
        assert_eq!(import(&mut interner, &symbols()), 0);
    }

    #[test]
    fn dangling_references_are_left_out() {
        let mut interner = Interner::new(Keys::random());
        let plain = import(&mut interner, &symbols());
        let mut dangling = symbols();
        dangling.stacktraces.locations.push(77);
        dangling.stacktraces.offsets[1] = 2;
        assert_eq!(import(&mut interner, &dangling), plain);
        let mut nameless = symbols();
        nameless.functions[0].name = 99;
        nameless.locations.lines[0].function = 0;
        let id = import(&mut interner, &nameless);
        let location = interner.symbols.stacktraces.get(id)[0];
        let line = interner.symbols.locations.lines_of(location)[0];
        assert_eq!(interner.symbols.functions[line.function as usize].name, 0);
    }

    #[test]
    fn equal_content_under_other_ids_is_stored_once() {
        let mut moved = symbols();
        moved.strings.push(b"main");
        moved.functions.insert(0, Function::default());
        moved.functions[1].name = 6;
        moved.locations.lines[0].function = 1;
        let mut interner = Interner::new(Keys::random());
        assert_eq!(import(&mut interner, &symbols()), import(&mut interner, &moved));
        assert_eq!(interner.symbols.functions.len(), 1);
        assert_eq!(interner.symbols.strings.len(), 6);
    }
}
