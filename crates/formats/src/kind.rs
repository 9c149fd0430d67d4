//! Recognises files that profilers write, so that an error can name a file sent by mistake.
//!
//! Owns: the signature of each kind, and the advice on alternatives.
//! Does not own: whether a kind is accepted ([`crate::ingest::Format`]). Nothing here decodes.

use std::fmt;

use bytes::Bytes;

use crate::pprof;

/// Length of the inspected start of a file, in bytes.
const HEAD_BYTES: usize = 4096;

/// A kind of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// A noun phrase: `an HTML page`.
    pub name: &'static str,
    /// Advice in the imperative; may be empty.
    pub advice: &'static str,
}

/// `it looks like an HTML page: check the URL that the file came from`
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.advice.is_empty() { "" } else { ": " };
        write!(f, "it looks like {}{colon}{}", self.name, self.advice)
    }
}

const GO_TEXT: Kind = Kind { name: "the text form of a Go profile", advice: "fetch it without debug=1" };
const CONVERT: &str = "convert it to pprof or to folded text";
const SPEEDSCOPE: &str = "this format is not accepted yet, send pprof or folded text";

/// First bytes of binary kinds.
const MAGICS: &[(&[u8], Kind)] = &[
    (
        b"FLR\0",
        Kind { name: "a JFR recording", advice: "send it to /ingest with format=jfr, or without a format" },
    ),
    (
        b"PERFILE2",
        Kind { name: "a perf.data file", advice: "send the output of `perf script` as folded text" },
    ),
    (b"\x7fELF", Kind { name: "an ELF binary", advice: "" }),
    (b"PK\x03\x04", Kind { name: "a zip archive", advice: "send one file of it" }),
    (b"BZh", Kind { name: "bzip2 data", advice: "compress with gzip or zstd" }),
    (b"\xfd7zXZ\0", Kind { name: "xz data", advice: "compress with gzip or zstd" }),
    (b"MOJ", Kind { name: "a MOJO file of Austin", advice: "convert it with austin2pprof or mojo2austin" }),
    (b"NYTProf ", Kind { name: "a file of NYTProf", advice: "convert it with nytprofcalls" }),
    (b"HCAT", Kind { name: "a binary profile of Python", advice: CONVERT }),
    (
        b"\x04\x08{",
        Kind { name: "a Ruby dump of stackprof", advice: "convert it with stackprof --stackcollapse" },
    ),
    (b"\xff\xfe", Kind { name: "text in UTF-16", advice: "send it as UTF-8" }),
    (b"\xfe\xff", Kind { name: "text in UTF-16", advice: "send it as UTF-8" }),
    // The header of a CPU profile of gperftools: 0 and 3 as words of 8 or 4 bytes, in either byte order.
    (b"\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0", GPERFTOOLS_CPU),
    (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03", GPERFTOOLS_CPU),
    (b"\0\0\0\0\x03\0\0\0\0\0\0\0", GPERFTOOLS_CPU),
    (b"\0\0\0\0\0\0\0\x03\0\0\0\0", GPERFTOOLS_CPU),
];

const GPERFTOOLS_CPU: Kind =
    Kind { name: "a CPU profile of gperftools", advice: "convert it with `pprof -proto`" };
const GPERFTOOLS_HEAP: Kind =
    Kind { name: "a text profile of gperftools", advice: "convert it with `pprof -proto`" };

/// First words of text kinds, after white space.
const BEGINNINGS: &[(&str, Kind)] = &[
    ("<!doctype html", HTML),
    ("<html", HTML),
    ("<?xml", Kind { name: "an XML document", advice: "" }),
    ("heap profile: ", Kind { name: "a heap profile as text", advice: HEAP_ADVICE }),
    ("goroutine profile: ", GO_TEXT),
    ("goroutineleak profile: ", GO_TEXT),
    ("threadcreate profile: ", GO_TEXT),
    ("--- mutex:", GO_TEXT),
    ("--- contention", Kind { name: "a contention profile as text", advice: HEAP_ADVICE }),
    ("--- threadz", GPERFTOOLS_HEAP),
    ("--- symbol", GPERFTOOLS_HEAP),
    (
        "goroutine 1 [",
        Kind { name: "a dump of Go's goroutines", advice: "fetch the profile without debug=2" },
    ),
    ("heap_v2/", Kind { name: "a heap dump of jemalloc", advice: "convert it with jeprof" }),
    ("# callgrind format", CALLGRIND),
    ("version: 1\ncreator: ", CALLGRIND),
    ("events: ", CALLGRIND),
    ("desc: ", Kind { name: "a file of massif", advice: CONVERT }),
    ("# austin: ", Kind { name: "a file of Austin", advice: "convert it with austin2pprof" }),
    ("sample.interval=", RPROF),
    ("line profiling: ", RPROF),
    ("gc profiling: ", RPROF),
    ("memory profiling: ", RPROF),
    ("%% analysis results", Kind { name: "an analysis of Erlang's fprof", advice: CONVERT }),
    ("# ========", PERF_SCRIPT),
];

const HTML: Kind = Kind { name: "an HTML page", advice: "check the URL that it was fetched from" };
const HEAP_ADVICE: &str = "of Go, fetch it without debug=1; of gperftools, convert it with `pprof -proto`";
const CALLGRIND: Kind = Kind { name: "a file of callgrind or cachegrind", advice: CONVERT };
const RPROF: Kind = Kind { name: "a file of R's Rprof", advice: CONVERT };
const PERF_SCRIPT: Kind = Kind {
    name: "the output of `perf script`",
    advice: "convert it to folded text with stackcollapse-perf.pl or inferno",
};
const PPROF: Kind = Kind { name: "a pprof", advice: "send it with format=pprof, or without a format" };
const FOLDED: Kind = Kind { name: "folded text", advice: "send it with format=folded, or without a format" };

/// Words near the start of JSON kinds.
const JSON: &[(&str, Kind)] = &[
    ("speedscope.app/file-format-schema", Kind { name: "a speedscope file", advice: SPEEDSCOPE }),
    ("\"dhatFileVersion\"", Kind { name: "a file of DHAT", advice: CONVERT }),
    ("\"traceEvents\"", Kind { name: "a Chrome trace", advice: CONVERT }),
    ("\"callFrame\"", Kind { name: "a profile of V8 as JSON", advice: CONVERT }),
    ("\"resourceProfiles\"", Kind { name: "OTLP as JSON", advice: "this format is not accepted yet" }),
];

/// The kind of file whose signature `bytes`, decompressed, begin with; `None` if unknown or plain text.
pub fn recognise(bytes: &[u8]) -> Option<Kind> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(*kind);
    }
    let text = text_of(head)?;
    let lower = text.trim_start().to_ascii_lowercase();
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| lower.starts_with(beginning)) {
        return Some(*kind);
    }
    if is_json(&lower) {
        let known = JSON.iter().find(|(word, _)| text.contains(word)).map(|(_, kind)| *kind);
        return Some(known.unwrap_or(Kind { name: "JSON", advice: "send pprof or folded text" }));
    }
    if is_heaptrack(text) {
        return Some(Kind { name: "a file of heaptrack", advice: "convert it with heaptrack_print -F" });
    }
    is_perf_script(text).then_some(PERF_SCRIPT)
}

/// As [`recognise`], and text of any other kind.
pub fn recognise_text(bytes: &[u8]) -> Option<Kind> {
    recognise(bytes).or_else(|| {
        let text = text_of(&bytes[..bytes.len().min(HEAD_BYTES)])?;
        let is_folded = text.lines().next().is_some_and(ends_in_count);
        Some(if is_folded { FOLDED } else { Kind { name: "text", advice: "" } })
    })
}

/// The kind of a pprof, if all of `bytes` decode as one with types and strings; other content is unlikely to.
pub fn of_pprof(bytes: &[u8]) -> Option<Kind> {
    is_pprof(bytes).then_some(PPROF)
}

fn is_pprof(bytes: &[u8]) -> bool {
    // Fields 1 to 6, all of them messages: types, samples, symbols, strings.
    let begins = bytes.first().is_some_and(|tag| matches!(tag, 0x0a | 0x12 | 0x1a | 0x22 | 0x2a | 0x32));
    let decoded = begins.then(|| {
        let limits = pprof::Limits { bytes: bytes.len(), ..pprof::Limits::default() };
        pprof::decode(Bytes::copy_from_slice(bytes), &limits).ok()
    });
    decoded.flatten().is_some_and(|decoded| {
        !decoded.profile.sample_types.is_empty() && decoded.profile.symbols.strings.len() > 1
    })
}

/// Whether the start of `bytes` cannot be text: it has a zero byte, or is not UTF-8 and has control characters.
pub fn is_binary(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    head.contains(&0) || (text_of(head).is_none() && head.iter().any(is_control))
}

/// The head as text, without a character cut by its end; `None` if it is not UTF-8 or has zero bytes.
fn text_of(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

/// Whether the text begins with a brace or a bracket and a character that may follow it in JSON; frames of folded
/// text may be in brackets, too.
fn is_json(text: &str) -> bool {
    let mut chars = text.chars();
    let is_open = chars.next().is_some_and(|c| matches!(c, '{' | '['));
    is_open && chars.find(|c| !c.is_whitespace()).is_some_and(|c| matches!(c, '"' | '{' | '[' | '}' | ']'))
}

fn ends_in_count(line: &str) -> bool {
    line.rsplit_once([' ', '\t']).is_some_and(|(_, count)| count.parse::<i64>().is_ok())
}

/// `v 10500 3` and then lines of one letter and its arguments.
fn is_heaptrack(text: &str) -> bool {
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.starts_with("v 1"))
        && lines.next().is_some_and(|line| line.starts_with("X "))
}

/// `comm 1234 56.789: 1 cycles:` above lines that are indented by a tab.
fn is_perf_script(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let head = lines.next().is_some_and(|line| line.trim_end().ends_with(':') && line.contains(": "));
    head && lines.next().is_some_and(|line| line.starts_with(['\t', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_recognised_by_their_first_bytes() {
        let cases: [(&[u8], Option<&str>); 24] = [
            (b"FLR\0\0\x02", Some("a JFR recording")),
            (b"\n <!DOCTYPE html><html>", Some("an HTML page")),
            (b"heap profile: 1: 2 [3: 4] @ heap/1048576", Some("a heap profile as text")),
            (b"goroutine profile: total 9\n7 @ 0x47", Some("the text form of a Go profile")),
            (b"--- contention:\ncycles/second=1", Some("a contention profile as text")),
            (
                &[&[0; 8][..], &[3, 0, 0, 0, 0, 0, 0, 0], &[0; 8]].concat(),
                Some("a CPU profile of gperftools"),
            ),
            (
                b"dd 1111 3725.4: 10101010 cpu-clock: \n\tffff f+0x1 (x)\n",
                Some("the output of `perf script`"),
            ),
            (b"# callgrind format\nversion: 1", Some("a file of callgrind or cachegrind")),
            (b"desc: --massif-out-file=x\ncmd: ./a", Some("a file of massif")),
            (b"{\"dhatFileVersion\":2\n", Some("a file of DHAT")),
            (
                b"{\"$schema\": \"https://www.speedscope.app/file-format-schema.json\"}",
                Some("a speedscope file"),
            ),
            (b"{\"a\": 1}", Some("JSON")),
            (b"[\n  {}]", Some("JSON")),
            (b"[main tid=7];work 3", None),
            (b"v 10500 3\nX ./work 20000\n", Some("a file of heaptrack")),
            (b"sample.interval=20000\n\"a\" \"b\" \n", Some("a file of R's Rprof")),
            (b"NYTProf 5 0\n", Some("a file of NYTProf")),
            (b"# austin: 4.0.0\n", Some("a file of Austin")),
            (b"\xff\xfem\0a\0", Some("text in UTF-16")),
            (b"main;work 3\n", None),
            (b"<module> (app.py:1);main 3\n", None),
            (b"\x0a\x04\x08\x01\x10\x02", None),
            (b"", None),
            (b"caf\xe9;x 3", None),
        ];
        for (bytes, expected) in cases {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(recognise(bytes).map(|kind| kind.name), expected, "{shown}");
        }
    }

    #[test]
    fn accepted_kinds_are_recognised_too() {
        let types_and_strings = b"\x0a\x04\x08\x01\x10\x02\x32\0\x32\x03cpu\x32\x02ns";
        assert_eq!(of_pprof(types_and_strings), Some(PPROF));
        assert_eq!(of_pprof(b"\x0a\x04\x08\x01\x10\x02"), None);
        assert_eq!(of_pprof(b"main;work 3\n"), None);
        assert_eq!(recognise_text(b"main;work 3\n"), Some(FOLDED));
        assert_eq!(recognise_text(b"no count here\n").map(|kind| kind.name), Some("text"));
        assert_eq!(recognise_text(types_and_strings), None);
        assert_eq!(recognise_text(b"\0\0\0"), None);
        assert_eq!(recognise_text(b"").map(|kind| kind.name), Some("text"));
        assert!(is_binary(types_and_strings));
        assert!(!is_binary(b"caf\xe9;x\t3\r\n"));
        assert!(!is_binary("\u{1b}[1mmain;w\u{f6}rk 3".as_bytes()));
        assert!(is_binary(b"\x1b[1mcaf\xe9 3"));
    }

    #[test]
    fn text_cut_by_the_end_of_the_head_is_text() {
        let long = format!("<html>{}", "ü".repeat(HEAD_BYTES));
        assert_eq!(recognise(long.as_bytes()), Some(HTML));
        assert_eq!(recognise(&long.as_bytes()[..HEAD_BYTES - 1]), Some(HTML));
    }
}
