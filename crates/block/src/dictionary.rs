//! Symbols of services that outlive the segments they arrived in.
//!
//! Owns: one table of symbols per tenant and service, their memory limit and eviction, extracting the symbols
//! that one segment uses.
//! Does not own: rows, and when a segment ends (`head`).
//!
//! A service sends the same stacktraces minute after minute. A known stacktrace costs one lookup, instead of its
//! strings, functions and locations.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use hashbrown::HashMap;
use model::{Function, Line, Mapping, NONE, Symbols, TenantId};
use parking_lot::Mutex;

use crate::intern::{Interner, Keys};
use crate::symbols::EncodedSymbols;

/// A dictionary that holds more than 1 / `SHARE_OF_ONE` of the limit of all is replaced by an empty one.
const SHARE_OF_ONE: usize = 4;
/// Above the limit, dictionaries are evicted until 1 / `FREED_PART` of it is free.
const FREED_PART: usize = 8;
/// Memory of an empty dictionary and its table entry, roughly, in bytes.
const EMPTY_BYTES: usize = 1024;

/// The dictionaries of one ingester, shared by its segments. Cheap to clone.
#[derive(Clone)]
pub struct Dictionaries {
    table: Arc<Mutex<Table>>,
    pub(crate) keys: Keys,
}

struct Table {
    by_name: HashMap<TenantId, HashMap<Box<str>, Entry>>,
    bytes: usize,
    limit: usize,
    /// Number of times that a segment took a dictionary.
    takes: u64,
}

struct Entry {
    dictionary: Arc<Mutex<Dictionary>>,
    bytes: usize,
    /// Value of [`Table::takes`] when it was last taken.
    last_take: u64,
}

impl Dictionaries {
    /// Dictionaries that hold `bytes_max` in total, roughly. The least recently used is evicted
    /// first, as a whole; an open segment that uses it keeps it until it is cut.
    pub fn new(bytes_max: usize) -> Self {
        let table = Table { by_name: HashMap::new(), bytes: 0, limit: bytes_max, takes: 0 };
        Self { table: Arc::new(Mutex::new(table)), keys: Keys::random() }
    }

    /// Evicts each dictionary between one and two times `unused` after a segment last took it. Never returns.
    pub async fn evict_unused(self, unused: Duration, clock: Clock) {
        let mut takes_before = self.table.lock().takes;
        loop {
            clock.sleep(unused).await;
            let mut table = self.table.lock();
            table.evict_oldest(0, takes_before);
            takes_before = table.takes;
        }
    }

    /// Approximate bytes held for later segments.
    pub fn byte_len(&self) -> usize {
        self.table.lock().bytes
    }

    /// The dictionary of a service, for one segment.
    pub(crate) fn take(&self, tenant: &TenantId, service: &str) -> Arc<Mutex<Dictionary>> {
        let mut table = self.table.lock();
        table.takes += 1;
        let (now, one_max) = (table.takes, table.limit / SHARE_OF_ONE);
        let Table { by_name, bytes, .. } = &mut *table;
        let entry = by_name.get_mut(tenant).and_then(|services| services.get_mut(service));
        if let Some(entry) = entry
            && entry.bytes <= one_max
        {
            entry.last_take = now;
            return entry.dictionary.clone();
        }
        let dictionary = Arc::new(Mutex::new(Dictionary::new(self.keys)));
        let entry = Entry { dictionary: dictionary.clone(), bytes: EMPTY_BYTES, last_take: now };
        *bytes += EMPTY_BYTES;
        let before = by_name.entry(tenant.clone()).or_default().insert(service.into(), entry);
        *bytes -= before.map_or(0, |entry| entry.bytes);
        table.enforce_limit();
        dictionary
    }

    /// Records that a dictionary has grown by `bytes`.
    pub(crate) fn grown(
        &self,
        tenant: &TenantId,
        service: &str,
        dictionary: &Arc<Mutex<Dictionary>>,
        bytes: usize,
    ) {
        let mut table = self.table.lock();
        let entry = table.by_name.get_mut(tenant).and_then(|services| services.get_mut(service));
        let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.dictionary, dictionary)) else {
            return;
        };
        entry.bytes += bytes;
        table.bytes += bytes;
        table.enforce_limit();
    }
}

impl Table {
    fn enforce_limit(&mut self) {
        if self.bytes > self.limit {
            self.evict_oldest(self.limit - self.limit / FREED_PART, u64::MAX);
        }
    }

    /// Evicts the least recently used until all together hold at most `goal` bytes, but none whose last take is
    /// after `last_take_max`.
    fn evict_oldest(&mut self, goal: usize, last_take_max: u64) {
        if self.bytes <= goal {
            return;
        }
        let entries = self.by_name.values().flat_map(|services| services.values());
        let mut ages: Vec<(u64, usize)> = entries
            .filter(|entry| entry.last_take <= last_take_max)
            .map(|entry| (entry.last_take, entry.bytes))
            .collect();
        ages.sort_unstable();
        let mut last_evicted = 0;
        for (last_take, bytes) in ages {
            if self.bytes <= goal {
                break;
            }
            self.bytes -= bytes;
            last_evicted = last_take;
        }
        self.by_name.retain(|_, services| {
            services.retain(|_, entry| entry.last_take > last_evicted);
            !services.is_empty()
        });
    }
}

/// The remembered symbols of one service.
pub(crate) struct Dictionary {
    pub(crate) interner: Interner,
    used: UsedSymbols,
}

/// The symbols of a dictionary that one segment uses. Between two extractions none is marked.
#[derive(Default)]
struct UsedSymbols {
    stacktraces: Marks,
    locations: Marks,
    functions: Marks,
    mappings: Marks,
    strings: Marks,
}

impl Dictionary {
    fn new(keys: Keys) -> Self {
        Self { interner: Interner::new(keys), used: UsedSymbols::default() }
    }

    /// Bytes held in memory, roughly, including the marks and ids that extraction needs.
    pub(crate) fn byte_len(&self) -> usize {
        let symbols = &self.interner.symbols;
        let entries = symbols.stacktraces.len()
            + symbols.locations.len()
            + symbols.functions.len()
            + symbols.mappings.len()
            + symbols.strings.len();
        self.interner.byte_len() + entries * size_of::<u32>() + entries / 8
    }

    /// Returns the stacktraces in `rows` and the symbols that they need, and no others, in the order of the
    /// dictionary. Renumbers `rows` by the new ids.
    pub(crate) fn extract(&mut self, rows: &mut [u32]) -> EncodedSymbols {
        let from = &self.interner.symbols;
        let UsedSymbols { stacktraces, locations, functions, mappings, strings } = &mut self.used;
        stacktraces.cover(from.stacktraces.len());
        locations.cover(from.locations.len());
        functions.cover(from.functions.len());
        mappings.cover(from.mappings.len());
        strings.cover(from.strings.len());

        rows.iter().for_each(|stack| stacktraces.mark(*stack));
        let used_stacktraces = stacktraces.number();
        rows.iter_mut().for_each(|stack| *stack = stacktraces.id(*stack));
        let mut stack_locations = 0;
        for stack in &used_stacktraces {
            let stack = from.stacktraces.get(*stack);
            stack.iter().for_each(|location| locations.mark(*location));
            stack_locations += stack.len();
        }
        let used_locations = locations.number();
        for location in &used_locations {
            mappings.mark(from.locations.mapping[*location as usize]);
            from.locations.lines_of(*location).iter().for_each(|line| functions.mark(line.function));
        }
        let used_functions = functions.number();
        let used_mappings = mappings.number();
        strings.mark(0);
        for function in used_functions.iter().map(|id| &from.functions[*id as usize]) {
            [function.name, function.system_name, function.filename]
                .into_iter()
                .for_each(|id| strings.mark(id));
        }
        for mapping in used_mappings.iter().map(|id| &from.mappings[*id as usize]) {
            [mapping.filename, mapping.build_id].into_iter().for_each(|id| strings.mark(id));
        }
        let used_strings = strings.number();

        let mut into = Symbols::default();
        into.mappings.extend(used_mappings.iter().map(|id| {
            let mapping = from.mappings[*id as usize];
            let (filename, build_id) = (strings.id(mapping.filename), strings.id(mapping.build_id));
            Mapping { filename, build_id, ..mapping }
        }));
        into.functions.extend(used_functions.iter().map(|id| {
            let function = &from.functions[*id as usize];
            Function {
                name: strings.id(function.name),
                system_name: strings.id(function.system_name),
                filename: strings.id(function.filename),
                start_line: function.start_line,
            }
        }));
        into.locations.reserve(used_locations.len(), used_locations.len());
        let mut lines = Vec::new();
        for id in &used_locations {
            let index = *id as usize;
            let moved = |line: &Line| Line { function: functions.id(line.function), line: line.line };
            lines.clear();
            lines.extend(from.locations.lines_of(*id).iter().map(moved));
            let mapping = mappings.id(from.locations.mapping[index]);
            into.locations.push(mapping, from.locations.address[index], from.locations.folded[index], &lines);
        }
        into.stacktraces.reserve(used_stacktraces.len(), stack_locations);
        for id in &used_stacktraces {
            let stack = from.stacktraces.get(*id).iter().map(|location| locations.id(*location));
            into.stacktraces.locations.extend(stack);
            into.stacktraces.offsets.push(into.stacktraces.locations.len() as u32);
        }
        let strings = used_strings[1..].iter().map(|id| from.strings.get(*id));
        EncodedSymbols::with_strings(strings, &into)
    }
}

/// The used entries of a table, and their new ids.
#[derive(Default)]
struct Marks {
    bits: Vec<u64>,
    /// New ids by old ids; arbitrary for entries that are not used.
    ids: Vec<u32>,
}

impl Marks {
    /// Makes room for a table of `count` entries.
    fn cover(&mut self, count: usize) {
        self.bits.resize(count.div_ceil(64), 0);
        self.ids.resize(count, NONE);
    }

    /// Marks an entry; [`NONE`] has no effect.
    #[inline]
    fn mark(&mut self, id: u32) {
        if let Some(bits) = self.bits.get_mut(id as usize / 64) {
            *bits |= 1 << (id % 64);
        }
    }

    /// Numbers the marked entries in order and clears the marks; returns the old ids.
    fn number(&mut self) -> Vec<u32> {
        let count: u32 = self.bits.iter().map(|bits| bits.count_ones()).sum();
        let mut used = Vec::with_capacity(count as usize);
        for (word, bits) in self.bits.iter_mut().enumerate() {
            let mut left = std::mem::take(bits);
            while left != 0 {
                let old = word as u32 * 64 + left.trailing_zeros();
                left &= left - 1;
                self.ids[old as usize] = used.len() as u32;
                used.push(old);
            }
        }
        used
    }

    #[inline]
    fn id(&self, old: u32) -> u32 {
        self.ids.get(old as usize).copied().unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Cursor;
    use crate::intern::{Hashes, Import, Scratch};
    use crate::symbols::{decode_strings, decode_tables};

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).expect("valid")
    }

    /// One stacktrace per name.
    fn symbols(names: &[&str]) -> Symbols {
        let mut symbols = Symbols::default();
        symbols.strings.push(b"");
        for name in names {
            let name = symbols.strings.push(name.as_bytes());
            symbols.functions.push(Function { name, system_name: name, ..Function::default() });
            let function = symbols.functions.len() as u32 - 1;
            let location = symbols.locations.push(NONE, 0, false, &[Line { function, line: 1 }]);
            symbols.stacktraces.push(&[location]);
        }
        symbols
    }

    fn import(all: &Dictionaries, owner: &str, service: &str, names: &[&str]) -> Vec<u32> {
        let tenant = tenant(owner);
        let taken = all.take(&tenant, service);
        let mut dictionary = taken.lock();
        let before = dictionary.byte_len();
        let symbols = symbols(names);
        let mut hashes = Hashes::default();
        hashes.fill(&all.keys, &symbols);
        let mut scratch = Scratch::default();
        let mut stacks = Import::new(&symbols, &hashes, &mut scratch);
        let ids = (0..names.len() as u32).map(|id| stacks.stacktrace(&mut dictionary.interner, id)).collect();
        all.grown(&tenant, service, &taken, dictionary.byte_len() - before);
        ids
    }

    fn read(encoded: &EncodedSymbols) -> Symbols {
        let strings = decode_strings(&mut Cursor::new(&encoded.strings)).expect("strings");
        decode_tables(&mut Cursor::new(&encoded.tables), strings).expect("tables")
    }

    fn names(symbols: &Symbols) -> Vec<String> {
        (0..symbols.stacktraces.len() as u32)
            .map(|id| {
                let location = symbols.stacktraces.get(id)[0];
                let function = symbols.locations.lines_of(location)[0].function;
                symbols.strings.text(symbols.functions[function as usize].name).into_owned()
            })
            .collect()
    }

    #[test]
    fn each_extraction_has_exactly_the_symbols_of_its_rows() {
        let all = Dictionaries::new(1 << 20);
        let ids = import(&all, "acme", "api", &["a", "b", "c", "d"]);
        let taken = all.take(&tenant("acme"), "api");
        let check = |rows: &[u32], expected_rows: &[u32], expected: &[&str]| {
            let mut rows = rows.to_vec();
            let encoded = taken.lock().extract(&mut rows);
            let symbols = read(&encoded);
            assert_eq!(encoded.stacktraces, expected.len());
            assert_eq!(encoded.string_count, symbols.strings.len());
            assert_eq!(rows, expected_rows);
            assert_eq!(names(&symbols), expected);
            assert_eq!(symbols.functions.len(), expected.len());
            assert_eq!(symbols.locations.len(), expected.len());
            assert_eq!(symbols.strings.len(), expected.len() + 1);
        };
        check(&[ids[3], ids[1], ids[3]], &[1, 0, 1], &["b", "d"]);
        check(&[ids[0]], &[0], &["a"]);
        check(&[], &[], &[]);
        check(&ids, &[0, 1, 2, 3], &["a", "b", "c", "d"]);
    }

    #[test]
    fn a_later_segment_finds_the_symbols_of_an_earlier_one() {
        let all = Dictionaries::new(1 << 20);
        let first = import(&all, "acme", "api", &["a", "b"]);
        let held = all.byte_len();
        assert_eq!(import(&all, "acme", "api", &["b", "a"]), [first[1], first[0]]);
        assert_eq!(all.byte_len(), held);
    }

    #[test]
    fn neither_tenants_nor_services_share_a_dictionary() {
        let all = Dictionaries::new(1 << 20);
        let take = |owner: &str, service: &str| all.take(&tenant(owner), service);
        let api = take("acme", "api");
        assert!(Arc::ptr_eq(&api, &take("acme", "api")));
        assert!(!Arc::ptr_eq(&api, &take("other", "api")));
        assert!(!Arc::ptr_eq(&api, &take("acme", "web")));
        import(&all, "acme", "api", &["secret"]);
        import(&all, "other", "api", &["b"]);
        assert_eq!(names(&take("other", "api").lock().interner.symbols), ["b"]);
    }

    #[test]
    fn the_least_recently_used_are_evicted_whole_and_no_longer_counted() {
        let all = Dictionaries::new(16 * EMPTY_BYTES);
        let first = all.take(&tenant("acme"), "service-0");
        for i in 1..16 {
            all.take(&tenant("acme"), &format!("service-{i}"));
        }
        assert_eq!(all.byte_len(), 16 * EMPTY_BYTES);
        assert!(Arc::ptr_eq(&first, &all.take(&tenant("acme"), "service-0")));
        let second = all.take(&tenant("acme"), "service-1");
        all.take(&tenant("acme"), "one too many");
        assert_eq!(all.byte_len(), 14 * EMPTY_BYTES);
        assert!(Arc::ptr_eq(&first, &all.take(&tenant("acme"), "service-0")));
        assert!(Arc::ptr_eq(&second, &all.take(&tenant("acme"), "service-1")));
        let table = all.table.lock();
        assert_eq!(table.by_name.values().map(|services| services.len()).sum::<usize>(), 14);
        assert!(!table.by_name[&tenant("acme")].contains_key("service-2"));
    }

    #[tokio::test(start_paused = true)]
    async fn unused_dictionaries_are_evicted() {
        let all = Dictionaries::new(64 * EMPTY_BYTES);
        let clock = Clock::system();
        clock.spawn(all.clone().evict_unused(Duration::from_secs(25), clock.clone()));
        let take = |count: usize| (0..count).for_each(|i| drop(all.take(&tenant("acme"), &format!("s-{i}"))));
        take(40);
        for _ in 0..10 {
            clock.sleep(Duration::from_secs(10)).await;
            take(20);
        }
        assert_eq!(all.byte_len(), 20 * EMPTY_BYTES, "those in use stay");
        clock.sleep(Duration::from_secs(51)).await;
        assert_eq!(all.byte_len(), 0);
    }

    #[test]
    fn an_oversized_dictionary_is_replaced_but_stays_in_its_open_segment() {
        let all = Dictionaries::new(64 << 10);
        let name = "n".repeat(17 << 10);
        let ids = import(&all, "acme", "api", &[&name]);
        let old = all.table.lock().by_name[&tenant("acme")]["api"].dictionary.clone();
        let new = all.take(&tenant("acme"), "api");
        assert!(!Arc::ptr_eq(&old, &new));
        assert_eq!(all.byte_len(), EMPTY_BYTES);
        let mut rows = ids;
        assert_eq!(names(&read(&old.lock().extract(&mut rows))), [name]);
        all.grown(&tenant("acme"), "api", &old, 1 << 20);
        assert_eq!(all.byte_len(), EMPTY_BYTES);
    }
}
