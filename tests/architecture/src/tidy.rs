//! Checks how the Rust files are written: headers, lengths, words of comments.

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files begin with a `//!` header.
const LINES_WITHOUT_HEADER_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that are longer, with their lengths. Entries may only go or shrink.
const LONG_FUNCTIONS: &[(&str, usize)] = &[
    ("services/metastore/src/tests/exactly_once.rs check_exactly_once", 216),
    ("tests/simulation/src/fleet.rs start", 94),
    ("tests/simulation/src/storm.rs strike", 83),
    ("crates/block/src/merge.rs add", 81),
    ("crates/formats/tests/oracle/mod.rs same", 78),
    ("tests/simulation/src/run.rs direct", 78),
    ("services/querier/src/http/pprof.rs encode", 76),
    ("crates/block/src/sort.rs select", 71),
];
/// Most comment lines, in percent, that may say "what" where mostly a noun exists.
const WHAT_PERCENT_MAX: usize = 1;
/// Words of comments that say less than a noun.
const VAGUE_WORDS: &[&str] = &["nobody", "somebody", "whoever", "so many", "told", "ripe", "afresh", "asker"];
/// Names on the wire and in metrics that call a query a question.
const QUESTIONS: &[&str] = &["\"question\"", "\"questions\"", "\\\"questions\\\""];
/// Its error texts begin with the name of a share.
const NAMES_SHARES: &str = "crates/memory/src/share.rs";

struct Source {
    /// Relative to the repository.
    path: String,
    lines: Vec<String>,
}

impl Source {
    fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().map(|line| line.trim()).enumerate();
        lines.filter(|(_, line)| line.starts_with("//")).map(|(index, line)| (index + 1, line))
    }

    /// Name and number of lines of each function.
    fn functions(&self) -> Vec<(String, usize)> {
        let end_of = |start: usize| {
            let line = &self.lines[start];
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            self.lines[start..].iter().position(|line| *line == end).map(|length| length + 1)
        };
        let starts = (0..self.lines.len()).filter_map(|at| Some((at, function_name(&self.lines[at])?)));
        starts.filter_map(|(at, name)| Some((format!("{} {name}", self.path), end_of(at)?))).collect()
    }
}

/// The name of the function with a body that begins in `line`.
fn function_name(line: &str) -> Option<&str> {
    if line.ends_with('}') || line.ends_with(';') {
        return None;
    }
    let mut words = line.trim_start().split(' ');
    words
        .find(|word| !["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"].contains(word))
        .filter(|word| *word == "fn")?;
    words.next()?.split(['(', '<']).next()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders: Vec<PathBuf> =
        ["crates", "services", "tests", "bench"].map(|name| root.join(name)).into();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("is a folder").map(|entry| entry.expect("is there").path())
        {
            if entry.is_dir() {
                if !["target", "node_modules"].iter().any(|name| entry.ends_with(name)) {
                    folders.push(entry);
                }
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&entry).expect("is UTF-8");
                let path = entry.strip_prefix(&root).expect("is below the root").display().to_string();
                sources.push(Source { path, lines: text.lines().map(str::to_owned).collect() });
            }
        }
    }
    assert!(sources.len() > 200, "{} files", sources.len());
    sources
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '`';
    let line = line.to_lowercase();
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

#[test]
fn long_files_have_a_header() {
    for source in sources() {
        let is_short = source.lines.len() <= LINES_WITHOUT_HEADER_MAX;
        assert!(is_short || source.lines[0].starts_with("//!"), "{} has no header", source.path);
    }
}

#[test]
fn functions_are_short() {
    let all: Vec<(String, usize)> = sources().iter().flat_map(Source::functions).collect();
    assert!(all.len() > 2_000, "{} functions", all.len());
    for (name, length) in &all {
        let allowed = LONG_FUNCTIONS.iter().find(|(long, _)| long == name).map(|(_, length)| *length);
        let limit = allowed.unwrap_or(FUNCTION_LINES_MAX);
        assert!(*length <= limit, "{name} has {length} lines, at most {limit} are allowed");
    }
    for (name, length) in LONG_FUNCTIONS {
        let is_there = all.iter().any(|found| found.0 == *name && found.1 == *length);
        assert!(is_there, "{name} has no longer {length} lines: correct LONG_FUNCTIONS");
    }
}

#[test]
fn comments_use_nouns() {
    let (mut lines, mut with_what) = (0, 0);
    for source in sources().iter().filter(|source| !source.path.ends_with("architecture/src/tidy.rs")) {
        for (number, comment) in source.comments() {
            lines += 1;
            with_what += usize::from(has_word(comment, "what"));
            for word in VAGUE_WORDS {
                assert!(!has_word(comment, word), "{}:{number} says {word:?}", source.path);
            }
        }
    }
    assert!(with_what * 100 <= lines * WHAT_PERCENT_MAX, "{with_what} of {lines} comment lines say \"what\"");
}

#[test]
fn a_request_to_the_querier_is_called_a_query() {
    let is_exempt = |path: &str| path == NAMES_SHARES || path.ends_with("architecture/src/tidy.rs");
    for source in sources().iter().filter(|source| !is_exempt(&source.path)) {
        for (index, line) in source.lines.iter().enumerate() {
            let prose = QUESTIONS.iter().fold(line.to_lowercase(), |line, name| line.replace(name, ""));
            assert!(!prose.contains("question"), "{}:{} says \"question\"", source.path, index + 1);
        }
    }
}
