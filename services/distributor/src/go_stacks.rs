//! Completes stacktraces that Go's runtime cut.
//!
//! The runtime records so many frames and drops those nearest to the root, so that one deep path would begin at
//! many different frames. A stacktrace that is about as deep as that is continued as others go on from where it
//! ends, if they pass through the same [`TOKEN`] locations.
//!
//! Owns: which stacktraces are continued, and how. Does not own: which samples count (`normalise`).
//!
//! What is chosen among several, and which few are left alone, is as in the recorded answers of Pyroscope: the
//! same profiles give the same flame graphs.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::{Line, NONE, Profile, Stacktraces, Symbols};

/// Locations that two stacktraces share where one continues the other.
const TOKEN: usize = 16;

/// Locations at the root end of a stacktrace that are compared. Those with fewer are complete.
const SUFFIX: usize = 24;

/// Deepest stacktrace of Go's heap profiles. With a deeper one, the runtime was told not to cut.
const HEAP_DEPTH: usize = 32;

/// Deepest stacktrace of Go's CPU profiles.
const CPU_DEPTH: usize = 64;

/// Most locations that are added to one stacktrace.
const ADDED_MAX: usize = 128;

/// Continues the stacktraces of a Go heap or CPU profile that seem to be cut; others stay as they are.
pub(crate) fn complete(profile: &mut Profile) {
    let Some(limit) = depth_limit(profile) else {
        return;
    };
    let offsets = &profile.symbols.stacktraces.offsets;
    let deepest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default() as usize;
    if deepest < SUFFIX || deepest > limit || !is_go(&profile.symbols) {
        return;
    }
    let suffixes = Suffixes::of(&profile.symbols);
    let continued = suffixes.continued(&profile.symbols.stacktraces);
    if continued.added.is_empty() {
        return;
    }
    let old = std::mem::take(&mut profile.symbols.stacktraces);
    let new = &mut profile.symbols.stacktraces;
    for (stacktrace, rank) in suffixes.rank_of.iter().enumerate() {
        new.locations.extend_from_slice(old.get(stacktrace as u32));
        new.push(continued.of(*rank));
    }
}

/// How deep the runtime records stacktraces of such a profile.
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

/// The root end of a stacktrace. Its words are locations, equal for locations that say the same.
type Words = [u32; SUFFIX];

fn end_of(words: &Words) -> &[u32] {
    &words[SUFFIX - TOKEN..]
}

/// The root ends of all deep stacktraces, each once and in order: their rank.
struct Suffixes {
    /// With a stacktrace that has it.
    suffixes: Vec<(Words, u32)>,
    /// By stacktrace; [`NONE`] for those that are not deep.
    rank_of: Vec<u32>,
}

impl Suffixes {
    fn of(symbols: &Symbols) -> Self {
        let words = words(symbols);
        let stacktraces = &symbols.stacktraces;
        let mut suffixes = Vec::new();
        for stacktrace in 0..stacktraces.len() as u32 {
            if let Some(end) = stacktraces.get(stacktrace).last_chunk::<SUFFIX>() {
                let word = |location: u32| words.get(location as usize).copied().unwrap_or(NONE);
                suffixes.push((end.map(word), stacktrace));
            }
        }
        suffixes.sort_unstable();
        let mut rank_of = vec![NONE; stacktraces.len()];
        let mut unique = Vec::<(Words, u32)>::new();
        for (words, stacktrace) in suffixes {
            if unique.last().is_none_or(|last| last.0 != words) {
                unique.push((words, stacktrace));
            }
            rank_of[stacktrace as usize] = unique.len() as u32 - 1;
        }
        Self { suffixes: unique, rank_of }
    }

    /// For each suffix, the one that continues it and by how many locations: the one that goes on longest, of
    /// equals the first.
    fn next(&self) -> Vec<Option<(u32, usize)>> {
        let hasher = DefaultHashBuilder::default();
        let hash = |token: &[u32]| hasher.hash_one(token);
        let token = |(rank, begin): (u32, usize)| &self.suffixes[rank as usize].0[begin..begin + TOKEN];
        let mut found = HashTable::<(u32, usize)>::with_capacity(self.suffixes.len() * (SUFFIX - TOKEN));
        for begin in 0..SUFFIX - TOKEN {
            for rank in 0..self.suffixes.len() as u32 {
                let at = (rank, begin);
                let equal = |other: &(u32, usize)| token(*other) == token(at);
                found.entry(hash(token(at)), equal, |other| hash(token(*other))).or_insert(at);
            }
        }
        let next = |(words, _): &(Words, u32)| {
            let end = end_of(words);
            let (rank, begin) = found.find(hash(end), |other| token(*other) == end)?;
            Some((*rank, SUFFIX - TOKEN - begin))
        };
        self.suffixes.iter().map(next).collect()
    }

    /// What is added to the stacktraces of each suffix.
    fn continued(&self, stacktraces: &Stacktraces) -> Continued {
        let next = self.next();
        let mut continued = Continued { ends: Vec::new(), added: Vec::new() };
        let mut passed = vec![NONE; next.len()];
        // The last one in order is left alone.
        for start in 0..next.len().saturating_sub(1) {
            let before = continued.added.len();
            let mut at = start;
            while let Some((rank, count)) = next[at] {
                let rank = rank as usize;
                if rank == at {
                    // Recursion that goes on by itself: how far is not known.
                    break;
                }
                passed[at] = start as u32;
                if passed[rank] == start as u32 {
                    // Several that continue one another. From here on nothing can be told.
                    continued.added.truncate(before);
                    return continued;
                }
                let donor = stacktraces.get(self.suffixes[rank].1);
                continued.added.extend_from_slice(&donor[donor.len() - count..]);
                at = rank;
                if continued.added.len() - before > ADDED_MAX {
                    continued.added.truncate(before);
                    break;
                }
            }
            continued.ends.push(continued.added.len());
        }
        continued
    }
}

/// Locations that are added, by rank.
struct Continued {
    /// Where those of rank `i` end in `added`; of ranks past the end there are none.
    ends: Vec<usize>,
    added: Vec<u32>,
}

impl Continued {
    fn of(&self, rank: u32) -> &[u32] {
        let rank = rank as usize;
        match self.ends.get(rank) {
            Some(end) => &self.added[rank.checked_sub(1).map_or(0, |before| self.ends[before])..*end],
            None => &[],
        }
    }
}

/// A word for each location that is in the root end of a deep stacktrace: that of the first such one with the
/// same lines.
///
/// Words compare as the ids of the locations, counted from 1, do as bytes with the lowest first.
fn words(symbols: &Symbols) -> Vec<u32> {
    let locations = &symbols.locations;
    let mut words = vec![NONE; locations.len()];
    let word = |location: usize| (location as u32 + 1).swap_bytes();
    for stacktrace in 0..symbols.stacktraces.len() as u32 {
        for location in symbols.stacktraces.get(stacktrace).last_chunk::<SUFFIX>().into_iter().flatten() {
            if let Some(wanted) = words.get_mut(*location as usize) {
                *wanted = word(*location as usize);
            }
        }
    }
    let mut functions = Functions { symbols, known: HashMap::new(), first: HashMap::new() };
    let mut first = HashMap::<Vec<Line>, u32>::new();
    for location in
        (0..words.len()).filter(|location| word(*location) == words[*location]).collect::<Vec<_>>()
    {
        let lines = locations.lines_of(location as u32);
        if !lines.is_empty() {
            let lines = lines.iter().map(|line| Line { function: functions.first(line.function), ..*line });
            words[location] = *first.entry(lines.collect()).or_insert(word(location));
        }
    }
    words
}

/// Functions that say the same are one.
struct Functions<'a> {
    symbols: &'a Symbols,
    known: HashMap<u32, u32>,
    /// By name and file.
    first: HashMap<(&'a [u8], &'a [u8]), u32>,
}

impl Functions<'_> {
    /// The first one asked for with the same names.
    fn first(&mut self, index: u32) -> u32 {
        let Some(function) = self.symbols.functions.get(index as usize) else {
            return NONE;
        };
        let strings = &self.symbols.strings;
        let names = (strings.get(function.name), strings.get(function.filename));
        *self.known.entry(index).or_insert_with(|| *self.first.entry(names).or_insert(index))
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
        for function in 0..200u32 {
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
        complete(&mut profile);
        let stacktraces = &profile.symbols.stacktraces;
        (0..stacktraces.len() as u32).map(|i| stacktraces.get(i).to_vec()).collect()
    }

    fn path(from: u32, to: u32) -> Vec<u32> {
        (from..to).collect()
    }

    /// One that sorts last and so is left alone.
    fn last() -> Vec<u32> {
        (170..200).rev().collect()
    }

    #[test]
    fn a_cut_stacktrace_goes_on_as_another_that_shares_its_end() {
        let stacktraces = [path(10, 42), path(26, 50), path(1, 5), last()];
        let expected = [path(10, 50), path(26, 50), path(1, 5), last()];
        assert_eq!(completed("inuse_space", "main.go", &stacktraces), expected);
        assert_eq!(completed("cpu", "main.go", &stacktraces), expected);
    }

    #[test]
    fn it_goes_on_over_several() {
        let stacktraces = [path(10, 42), path(20, 50), path(30, 56), last()];
        let expected = [path(10, 56), path(20, 56), path(30, 56), last()];
        assert_eq!(completed("alloc_space", "main.go", &stacktraces), expected);
    }

    #[test]
    fn what_is_not_cut_by_gos_runtime_stays() {
        let check = |kind: &str, file: &str, stacktraces: &[Vec<u32>]| {
            assert_eq!(completed(kind, file, stacktraces), stacktraces, "{kind} {file}");
        };
        let cut = [path(10, 42), path(26, 50), last()];
        check("inuse_space", "main.rs", &cut);
        check("goroutine", "main.go", &cut);
        // Deeper than the runtime records.
        check("inuse_space", "main.go", &[path(10, 42), path(26, 50), path(60, 93), last()]);
        // Too shallow to tell, or too little in common.
        check("inuse_space", "main.go", &[path(20, 43), path(26, 50), last()]);
        check("inuse_space", "main.go", &[path(10, 42), path(27, 51), last()]);
        check("inuse_space", "main.go", &[]);
    }

    #[test]
    fn equal_locations_are_one_whatever_their_ids() {
        let mut profile = profile("inuse_space", "main.go", &[path(10, 42), path(26, 50), last()]);
        let symbols = &mut profile.symbols;
        let twin = symbols.locations.push(0, 7, false, &[Line { function: 41, line: 1 }]);
        symbols.stacktraces.locations[31] = twin;
        complete(&mut profile);
        let mut expected = path(10, 50);
        expected[31] = twin;
        assert_eq!(profile.symbols.stacktraces.get(0), expected);
    }

    #[test]
    fn recursion_is_not_unrolled() {
        let own: Vec<u32> = (0..32).map(|i| 10 + i % 4).collect();
        assert_eq!(completed("inuse_space", "main.go", &[own.clone(), last()]), [own, last()]);
        // Two that continue each other, and one that would be continued after them.
        let ring = |from: u32| (from..from + 32).map(|i| 10 + i % 20).collect::<Vec<u32>>();
        let stacktraces = [ring(0), ring(5), ring(10), ring(15), path(60, 92), path(76, 100), last()];
        assert_eq!(completed("inuse_space", "main.go", &stacktraces), stacktraces);
    }

    #[test]
    fn unknown_locations_and_functions_do_no_harm() {
        let mut broken = profile("cpu", "main.go", &[vec![NONE; 40], path(10, 42), path(26, 50), last()]);
        broken.symbols.locations.lines[40].function = NONE;
        complete(&mut broken);
        assert_eq!(broken.symbols.stacktraces.get(1), path(10, 50));
    }
}
