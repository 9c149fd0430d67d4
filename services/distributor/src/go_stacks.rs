//! Restores the root ends of stacktraces that Go's runtime cut.
//!
//! The runtime records a limited number of frames and drops those nearest to the root, so one deep path would begin
//! at many different frames. A stacktrace of about that depth is continued like another one that passes through its
//! last [`TOKEN`] locations.
//!
//! Owns: which stacktraces are continued, and how. Does not own: which samples count (`normalise`).
//!
//! The choice among several continuations, and the few stacktraces that stay cut, match the recorded answers of
//! Pyroscope: the same profiles make the same flame graphs.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::{Line, NONE, Profile, Stacktraces, Symbols};

/// Number of locations that two stacktraces must share for one to continue the other.
const TOKEN: usize = 16;

/// Number of locations at the root end of a stacktrace that are compared. Stacktraces with fewer are complete.
const SUFFIX: usize = 24;

/// Deepest stacktrace of Go's heap profiles. A deeper one means that the runtime was configured not to cut.
const HEAP_DEPTH: usize = 32;

/// Deepest stacktrace of Go's CPU profiles.
const CPU_DEPTH: usize = 64;

/// Continues the stacktraces of a Go heap or CPU profile that seem to be cut; others stay as they are.
pub(crate) fn restore_cut_stacktraces(profile: &mut Profile) {
    let Some(limit) = depth_limit(profile) else {
        return;
    };
    let offsets = &profile.symbols.stacktraces.offsets;
    let deepest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default() as usize;
    if deepest < SUFFIX || deepest > limit || !is_go(&profile.symbols) {
        return;
    }
    let suffixes = Suffixes::of(&profile.symbols);
    let tails = suffixes.tails(&profile.symbols.stacktraces);
    if tails.iter().all(|tail| tail.count == 0) {
        return;
    }
    let old = std::mem::take(&mut profile.symbols.stacktraces);
    let new = &mut profile.symbols.stacktraces;
    for (stacktrace, rank) in suffixes.rank_of.iter().enumerate() {
        new.locations.extend_from_slice(old.get(stacktrace as u32));
        let tail = tails.get(*rank as usize).map(|tail| tail.of(&old));
        new.push(tail.unwrap_or_default());
    }
}

/// Depth at which the runtime cuts stacktraces of this profile's type; `None` for other types.
fn depth_limit(profile: &Profile) -> Option<usize> {
    let strings = &profile.symbols.strings;
    profile.sample_types.iter().find_map(|sample_type| match strings.get(sample_type.r#type) {
        b"alloc_objects" | b"alloc_space" | b"inuse_objects" | b"inuse_space" => Some(HEAP_DEPTH),
        b"cpu" => Some(CPU_DEPTH),
        _ => None,
    })
}

fn is_go(symbols: &Symbols) -> bool {
    symbols.functions.iter().any(|function| symbols.strings.get(function.filename).ends_with(b".go"))
}

/// The root end of a stacktrace, as words: see [`words`].
type Words = [u32; SUFFIX];

fn end_of(words: &Words) -> &[u32] {
    &words[SUFFIX - TOKEN..]
}

/// The distinct root ends of all deep stacktraces, sorted. The index of a suffix is its rank.
struct Suffixes {
    /// Each suffix with the greatest stacktrace that ends in it.
    suffixes: Vec<(Words, u32)>,
    /// By stacktrace; [`NONE`] for stacktraces that are not deep.
    rank_of: Vec<u32>,
}

impl Suffixes {
    fn of(symbols: &Symbols) -> Self {
        let words = words(symbols);
        let word = |location: u32| words.get(location as usize).copied().unwrap_or(NONE);
        let stacktraces = &symbols.stacktraces;
        let mut suffixes = Vec::new();
        for stacktrace in 0..stacktraces.len() as u32 {
            if let Some(end) = stacktraces.get(stacktrace).last_chunk::<SUFFIX>() {
                suffixes.push((end.map(word), stacktrace));
            }
        }
        suffixes.sort_unstable();
        let whole = |stacktrace: u32| stacktraces.get(stacktrace).iter().map(|location| word(*location));
        let mut rank_of = vec![NONE; stacktraces.len()];
        let mut unique = Vec::<(Words, u32)>::new();
        for (words, stacktrace) in suffixes {
            match unique.last_mut() {
                Some((last, greatest)) if *last == words => {
                    if whole(*greatest).lt(whole(stacktrace)) {
                        *greatest = stacktrace;
                    }
                }
                _ => unique.push((words, stacktrace)),
            }
            rank_of[stacktrace as usize] = unique.len() as u32 - 1;
        }
        Self { suffixes: unique, rank_of }
    }

    /// For each suffix, the rank of the one that continues it, and the number of locations that this adds. The
    /// longest continuation wins; of equally long ones, the first.
    fn next(&self) -> Vec<Option<(u32, u32)>> {
        let hasher = DefaultHashBuilder::default();
        let hash = |token: &[u32]| hasher.hash_one(token);
        let token = |(rank, begin): (u32, usize)| &self.suffixes[rank as usize].0[begin..begin + TOKEN];
        let mut tokens = HashTable::<(u32, usize)>::with_capacity(self.suffixes.len() * (SUFFIX - TOKEN));
        for begin in 0..SUFFIX - TOKEN {
            for rank in 0..self.suffixes.len() as u32 {
                let position = (rank, begin);
                let equal = |other: &(u32, usize)| token(*other) == token(position);
                tokens.entry(hash(token(position)), equal, |other| hash(token(*other))).or_insert(position);
            }
        }
        let next = |(words, _): &(Words, u32)| {
            let end = end_of(words);
            let (rank, begin) = tokens.find(hash(end), |other| token(*other) == end)?;
            Some((*rank, (SUFFIX - TOKEN - begin) as u32))
        };
        self.suffixes.iter().map(next).collect()
    }

    /// The tail for the stacktraces of each suffix, by rank. Stacktraces of ranks past the end stay as they are.
    fn tails(&self, stacktraces: &Stacktraces) -> Vec<Tail> {
        let next = self.next();
        // For each suffix, the end of the chain that begins there and the number of locations to it.
        let mut ends = vec![None::<(u32, u32)>; next.len()];
        let mut passed = vec![false; next.len()];
        let mut chain = Vec::new();
        let mut tails = Vec::new();
        // The last suffix in order is left alone.
        for start in 0..next.len().saturating_sub(1) as u32 {
            let mut current = start;
            let (end, mut count) = loop {
                if let Some(known) = ends[current as usize] {
                    break known;
                }
                match next[current as usize] {
                    // Recursion that continues itself ends a chain too: its depth is not known.
                    Some((rank, count)) if rank != current => {
                        if std::mem::replace(&mut passed[current as usize], true) {
                            // A cycle of suffixes that continue one another: the rest is unknown.
                            return tails;
                        }
                        chain.push((current, count));
                        current = rank;
                    }
                    _ => break (current, 0),
                }
            };
            ends[current as usize] = Some((end, count));
            for (rank, further) in chain.drain(..).rev() {
                count += further;
                ends[rank as usize] = Some((end, count));
            }
            let donor = self.suffixes[end as usize].1;
            // A chain may be longer than the stacktrace at its end.
            let is_known = (count as usize) < stacktraces.get(donor).len();
            tails.push(Tail { donor, count: if is_known { count } else { 0 } });
        }
        tails
    }
}

/// The last `count` locations of stacktrace `donor`.
struct Tail {
    donor: u32,
    count: u32,
}

impl Tail {
    fn of<'a>(&self, stacktraces: &'a Stacktraces) -> &'a [u32] {
        let donor = stacktraces.get(self.donor);
        &donor[donor.len() - self.count as usize..]
    }
}

/// A word for each location, equal for locations with equal content.
///
/// Words compare like the little-endian bytes of location ids. Ids count from 1 and skip locations that equal an
/// earlier one.
fn words(symbols: &Symbols) -> Vec<u32> {
    let locations = &symbols.locations;
    // In most profiles each location has a distinct address, so only addresses need to be compared.
    let mut shared = HashMap::<u64, bool>::with_capacity(locations.len());
    for address in &locations.address {
        shared.entry(*address).and_modify(|shared| *shared = true).or_insert(false);
    }
    let mut functions = Functions { symbols, known: HashMap::new(), first: HashMap::new() };
    let mut first = HashMap::<(u32, u64, bool, Vec<Line>), u32>::new();
    let mut count = 0u32;
    let mut next_word = || {
        count += 1;
        count.swap_bytes()
    };
    let word = |location: usize| {
        let (mapping, address) = (locations.mapping[location], locations.address[location]);
        if !shared.get(&address).is_some_and(|shared| *shared) {
            return next_word();
        }
        let lines = locations.lines_of(location as u32).iter();
        let lines = lines.map(|line| Line { function: functions.first(line.function), ..*line }).collect();
        *first.entry((mapping, address, locations.folded[location], lines)).or_insert_with(&mut next_word)
    };
    (0..locations.len()).map(word).collect()
}

/// Finds the first of several functions with equal content.
struct Functions<'a> {
    symbols: &'a Symbols,
    known: HashMap<u32, u32>,
    /// By names, file and line.
    first: HashMap<([&'a [u8]; 3], i64), u32>,
}

impl Functions<'_> {
    /// The first function looked up with the same content.
    fn first(&mut self, index: u32) -> u32 {
        let Some(function) = self.symbols.functions.get(index as usize) else {
            return NONE;
        };
        let strings = [function.name, function.system_name, function.filename];
        let strings = strings.map(|id| self.symbols.strings.get(id));
        *self
            .known
            .entry(index)
            .or_insert_with(|| *self.first.entry((strings, function.start_line)).or_insert(index))
    }
}

#[cfg(test)]
mod tests {
    use model::{Function, ValueType};

    use super::*;

    /// Locations named by numbers; each of its own function.
    fn profile(kind: &str, file: &str, stacktraces: &[Vec<u32>]) -> Profile {
        let mut profile = Profile::default();
        let symbols = &mut profile.symbols;
        symbols.strings.push(b"");
        let filename = symbols.strings.push(file.as_bytes());
        for function in 0..300u32 {
            let name = symbols.strings.push(format!("f{function}").as_bytes());
            symbols.functions.push(Function { name, filename, ..Function::default() });
            symbols.locations.push(0, 0, false, &[Line { function, line: 1 }]);
        }
        for stacktrace in stacktraces {
            symbols.stacktraces.push(stacktrace);
        }
        let r#type = symbols.strings.push(kind.as_bytes());
        profile.sample_types.push(ValueType { r#type, unit: 0 });
        profile
    }

    fn completed(kind: &str, file: &str, stacktraces: &[Vec<u32>]) -> Vec<Vec<u32>> {
        let mut profile = profile(kind, file, stacktraces);
        restore_cut_stacktraces(&mut profile);
        let stacktraces = &profile.symbols.stacktraces;
        (0..stacktraces.len() as u32).map(|i| stacktraces.get(i).to_vec()).collect()
    }

    fn path(from: u32, to: u32) -> Vec<u32> {
        (from..to).collect()
    }

    /// A stacktrace that sorts last and so is left alone.
    fn last() -> Vec<u32> {
        (170..200).rev().collect()
    }

    #[test]
    fn a_cut_stacktrace_is_continued_like_another_that_shares_its_end() {
        let stacktraces = [path(10, 42), path(26, 50), path(1, 5), last()];
        let expected = [path(10, 50), path(26, 50), path(1, 5), last()];
        assert_eq!(completed("inuse_space", "main.go", &stacktraces), expected);
        assert_eq!(completed("cpu", "main.go", &stacktraces), expected);
    }

    #[test]
    fn a_chain_of_several_stacktraces_is_followed() {
        let stacktraces = [path(10, 42), path(20, 50), path(30, 56), last()];
        let expected = [path(10, 56), path(20, 56), path(30, 56), last()];
        assert_eq!(completed("alloc_space", "main.go", &stacktraces), expected);
    }

    #[test]
    fn stacktraces_that_gos_runtime_did_not_cut_stay() {
        let check = |kind: &str, file: &str, stacktraces: &[Vec<u32>]| {
            assert_eq!(completed(kind, file, stacktraces), stacktraces, "{kind} {file}");
        };
        let cut = [path(10, 42), path(26, 50), last()];
        check("inuse_space", "main.rs", &cut);
        check("goroutine", "main.go", &cut);
        // Deeper than the runtime records.
        check("inuse_space", "main.go", &[path(10, 42), path(26, 50), path(60, 93), last()]);
        // Too shallow, or too few locations in common.
        check("inuse_space", "main.go", &[path(20, 43), path(26, 50), last()]);
        check("inuse_space", "main.go", &[path(10, 42), path(27, 51), last()]);
        check("inuse_space", "main.go", &[]);
    }

    #[test]
    fn a_chain_longer_than_the_stacktrace_at_its_end_is_left_alone() {
        let stacktraces = |end: u32| [path(10, 42), path(26, 50), path(34, 58), path(end, 66), last()];
        let known = [path(10, 66), path(26, 66), path(34, 66), path(41, 66), last()];
        assert_eq!(completed("inuse_space", "main.go", &stacktraces(41)), known);
        let unknown = [path(10, 42), path(26, 66), path(34, 66), path(42, 66), last()];
        assert_eq!(completed("inuse_space", "main.go", &stacktraces(42)), unknown);
    }

    #[test]
    fn a_chain_adds_the_end_of_the_greatest_stacktrace_at_its_end() {
        let ends = [[path(110, 118), path(49, 73)].concat(), [path(100, 108), path(49, 73)].concat()];
        let chain = [path(10, 42), path(26, 50), path(34, 58), path(42, 66)];
        let completed = completed("inuse_space", "main.go", &[&chain[..], &ends, &[last()]].concat());
        assert_eq!(completed[0], [path(10, 42), path(111, 118), path(49, 73)].concat());
        assert_eq!(completed[1], path(26, 73));
    }

    #[test]
    fn locations_with_equal_content_are_one_whatever_their_ids() {
        let with_twin = |address: u64| {
            let mut profile = profile("inuse_space", "main.go", &[path(10, 42), path(26, 50), last()]);
            let symbols = &mut profile.symbols;
            let twin = symbols.locations.push(0, address, false, &[Line { function: 41, line: 1 }]);
            symbols.stacktraces.locations[31] = twin;
            restore_cut_stacktraces(&mut profile);
            (profile.symbols.stacktraces.get(0).to_vec(), [path(10, 41), vec![twin]].concat())
        };
        let (completed, cut) = with_twin(0);
        assert_eq!(completed, [cut, path(42, 50)].concat());
        let (completed, cut) = with_twin(7);
        assert_eq!(completed, cut, "another address is another location");
    }

    #[test]
    fn among_equal_continuations_the_first_by_id_bytes_is_taken() {
        let continued_with = |has_twins: bool| {
            let donor = |location: u32| [path(26, 42), vec![location], path(60, 67)].concat();
            let stacktraces = [path(10, 42), donor(254), donor(255), last()];
            let mut profile = profile("inuse_space", "main.go", &stacktraces);
            if has_twins {
                profile.symbols.locations.lines[1].function = 0;
            }
            restore_cut_stacktraces(&mut profile);
            profile.symbols.stacktraces.get(0)[32]
        };
        // Ids 255 and 256; with one location less before them, 254 and 255.
        assert_eq!(continued_with(false), 255);
        assert_eq!(continued_with(true), 254);
    }

    #[test]
    fn recursion_is_not_unrolled() {
        let own: Vec<u32> = (0..32).map(|i| 10 + i % 4).collect();
        assert_eq!(completed("inuse_space", "main.go", &[own.clone(), last()]), [own, last()]);
        // Stacktraces that continue one another, and one that would be continued after them.
        let ring = |from: u32| (from..from + 32).map(|i| 10 + i % 20).collect::<Vec<u32>>();
        let stacktraces = [ring(0), ring(5), ring(10), ring(15), path(60, 92), path(76, 100), last()];
        assert_eq!(completed("inuse_space", "main.go", &stacktraces), stacktraces);
    }

    #[test]
    fn unknown_locations_and_functions_do_no_harm() {
        let mut broken = profile("cpu", "main.go", &[vec![NONE; 40], path(10, 42), path(26, 50), last()]);
        broken.symbols.locations.lines[40].function = NONE;
        restore_cut_stacktraces(&mut broken);
        assert_eq!(broken.symbols.stacktraces.get(1), path(10, 50));
    }
}
