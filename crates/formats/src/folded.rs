//! Folded stacks: lines of text, frames root first with `;` between them.
//!
//! Owns: the two dialects, and the profile made of such text: one value column, one function and one location per
//! frame name, an invented mapping. Does not own: the type of the values ([`crate::ingest`]).

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use model::{Function, Line, Mapping, Profile, Strings, ValueType};

use crate::ingest::Column;

/// Longest line: the limit of Pyroscope's line scanner.
pub const LINE_BYTES_MAX: usize = (64 << 10) - 1;

/// Length of the excerpt of a line or a name in an error, in bytes.
const SHOWN_BYTES_MAX: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line} ends in {count:?}, which is not a count")]
    Count { line: usize, count: String },
    #[error(
        "none of {lines} lines ends in a space and a count, as in \"main;work 12\"; line {line} is \"{text}\""
    )]
    NoCounts { lines: usize, line: usize, text: String },
    #[error("line {line} is longer than the limit of {LINE_BYTES_MAX} bytes")]
    LineTooLong { line: usize },
    #[error("line {line} has a frame that is not UTF-8: \"{frame}\"")]
    NotUtf8 { line: usize, frame: String },
    #[error("counts of the stack of line {line} are together more than 2^63 - 1")]
    Sum { line: usize },
    #[error("{0}")]
    Overflow(#[from] Overflow),
    #[error("text of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

/// A value that overflows when it is scaled by the sampling period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a count of {count} at {period} ns each (sampleRate) is more than 2^63 - 1 ns")]
pub struct Overflow {
    count: i64,
    period: i64,
}

/// A profile made of text, and the numbers of the lines that are not in it.
#[derive(Clone, Debug)]
pub struct Groups {
    pub profile: Profile,
    pub skipped: SkippedLines,
}

/// Numbers of lines that are not blank and were left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SkippedLines {
    /// Lines without any space or tab, and so without a count.
    pub without_count: usize,
    /// The first line that is longer than [`LINE_BYTES_MAX`], and all after it.
    pub from_long_line: usize,
}

/// Decodes lines `root;…;leaf count`, with a space or a tab before the count. Lines without either are skipped; a
/// line that is too long ends the text.
///
/// Equal stacks become one sample. `time_nanos` is the time of the profile.
///
/// # Errors
/// [`Error::Count`] for a count that is not a 64-bit number; [`Error::NoCounts`] or [`Error::LineTooLong`] if all
/// lines were left out; others if a value or a name cannot be kept unchanged.
pub fn decode_groups(text: Bytes, column: &Column, time_nanos: i64) -> Result<Groups, Error> {
    let mut builder = Builder::new(&text)?;
    let mut skipped = SkippedLines::default();
    let mut first_skipped = None;
    let mut lines = lines(&text).filter(|(_, line)| !line.trim_ascii().is_empty());
    while let Some((number, line)) = lines.next() {
        if line.len() > LINE_BYTES_MAX {
            first_skipped.get_or_insert(Error::LineTooLong { line: number });
            skipped.from_long_line = 1 + lines.count();
            break;
        }
        let Some(space) = memchr::memrchr2(b' ', b'\t', line) else {
            skipped.without_count += 1;
            first_skipped.get_or_insert_with(|| Error::NoCounts {
                lines: 0,
                line: number,
                text: shown(line),
            });
            continue;
        };
        let count = &line[space + 1..];
        let value = std::str::from_utf8(count).ok().and_then(|count| count.parse().ok());
        let value = value.ok_or_else(|| Error::Count { line: number, count: lossy(count) })?;
        builder.add(number, &line[..space], value)?;
    }
    if builder.profile.samples.is_empty()
        && let Some(error) = first_skipped
    {
        return Err(match error {
            Error::NoCounts { line, text, .. } => {
                Error::NoCounts { lines: skipped.without_count, line, text }
            }
            other => other,
        });
    }
    Ok(Groups { profile: builder.finish(column, time_nanos)?, skipped })
}

fn head(text: &[u8]) -> &[u8] {
    &text[..text.len().min(SHOWN_BYTES_MAX)]
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(head(text)).into_owned()
}

/// An excerpt with everything but printable ASCII escaped.
fn shown(text: &[u8]) -> String {
    head(text).escape_ascii().to_string()
}

/// Decodes lines `root;…;leaf`, each of which counts one. Empty lines are skipped; equal stacks become one sample.
///
/// # Errors
/// [`Error::LineTooLong`]; others if a value or a name cannot be kept unchanged.
pub fn decode_lines(text: Bytes, column: &Column, time_nanos: i64) -> Result<Profile, Error> {
    let mut builder = Builder::new(&text)?;
    for (number, line) in lines(&text) {
        if line.len() > LINE_BYTES_MAX {
            return Err(Error::LineTooLong { line: number });
        }
        if !line.is_empty() {
            builder.add(number, line, 1)?;
        }
    }
    Ok(builder.finish(column, time_nanos)?)
}

/// Lines and their numbers from 1, without `\n` or `\r\n`.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n');
    (1..).zip(lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
}

struct Builder<'t> {
    text: &'t Bytes,
    /// Sample of each stack, as text.
    stacks: HashMap<&'t [u8], u32>,
    /// Function of each frame name.
    frames: HashMap<&'t [u8], u32>,
    spans: Vec<(u32, u32)>,
    stack: Vec<u32>,
    profile: Profile,
}

impl<'t> Builder<'t> {
    fn new(text: &'t Bytes) -> Result<Self, Error> {
        let limit = 1 << 31;
        if text.len() > limit {
            return Err(Error::TooLarge { bytes: text.len(), limit });
        }
        Ok(Self {
            text,
            stacks: HashMap::default(),
            frames: HashMap::default(),
            spans: vec![(0, 0)],
            stack: Vec::new(),
            profile: Profile::default(),
        })
    }

    fn add(&mut self, line: usize, stack: &'t [u8], value: i64) -> Result<(), Error> {
        let samples = &mut self.profile.samples;
        match self.stacks.entry(stack) {
            Entry::Occupied(sample) => {
                let sum = &mut samples.values[*sample.get() as usize];
                *sum = sum.checked_add(value).ok_or(Error::Sum { line })?;
                return Ok(());
            }
            Entry::Vacant(vacant) => vacant.insert(samples.len() as u32),
        };
        self.stack.clear();
        // A separator at the end does not begin a frame.
        let stack = stack.strip_suffix(b";").unwrap_or(stack);
        for frame in stack.rsplit(|byte| *byte == b';') {
            let next = self.frames.len() as u32;
            let function = match self.frames.entry(frame) {
                Entry::Occupied(function) => *function.get(),
                Entry::Vacant(vacant) => {
                    if std::str::from_utf8(frame).is_err() {
                        return Err(Error::NotUtf8 { line, frame: shown(frame) });
                    }
                    let offset = frame.as_ptr().addr() - self.text.as_ptr().addr();
                    self.spans.push((offset as u32, frame.len() as u32));
                    *vacant.insert(next)
                }
            };
            self.stack.push(function);
        }
        self.profile.symbols.stacktraces.push(&self.stack);
        samples.values.push(value);
        samples.label_offsets.push(0);
        Ok(())
    }

    fn finish(self, column: &Column, time_nanos: i64) -> Result<Profile, Overflow> {
        let strings = Strings::new(self.text.clone(), self.spans);
        with_symbols(self.profile, strings, self.frames.len() as u32, column, time_nanos)
    }
}

/// Adds types, mapping, functions and `frames` locations to a profile with samples. The function of location `i` is
/// named by string `i + 1`.
///
/// # Errors
/// [`Overflow`] if a value times the period of `column` does not fit 63 bits.
pub(crate) fn with_symbols(
    mut profile: Profile,
    strings: Strings,
    frames: u32,
    column: &Column,
    time_nanos: i64,
) -> Result<Profile, Overflow> {
    let symbols = &mut profile.symbols;
    for function in 0..frames {
        symbols.functions.push(Function { name: function + 1, ..Function::default() });
        symbols.locations.push(0, 0, false, &[Line { function, line: 0 }]);
    }
    symbols.mappings.push(Mapping { has_functions: true, ..Mapping::default() });
    symbols.strings = strings;
    profile.sample_types.push(ValueType {
        r#type: symbols.strings.push(column.sample_type.as_bytes()),
        unit: symbols.strings.push(column.unit.as_bytes()),
    });
    if column.period != 0 {
        profile.period = column.period;
        profile.period_type = Some(ValueType {
            r#type: symbols.strings.push(b"cpu"),
            unit: symbols.strings.push(b"nanoseconds"),
        });
        for value in &mut profile.samples.values {
            let overflow = Overflow { count: *value, period: column.period };
            *value = value.checked_mul(column.period).ok_or(overflow)?;
        }
    }
    profile.time_nanos = time_nanos;
    Ok(profile)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ingest::column;

    /// Stacks root first with their values, as text again.
    pub(crate) fn stacks(profile: &Profile) -> Vec<String> {
        let symbols = &profile.symbols;
        (0..profile.samples.len())
            .map(|sample| {
                let stack = symbols.stacktraces.get(sample as u32).iter().rev();
                let names: Vec<_> = stack
                    .map(|location| {
                        let line = symbols.locations.lines_of(*location)[0];
                        symbols.strings.text(symbols.functions[line.function as usize].name)
                    })
                    .collect();
                format!("{} {}", names.join(";"), profile.samples.values[sample])
            })
            .collect()
    }

    fn groups(text: &'static str) -> Result<Vec<String>, Error> {
        let column = column("goroutines", 100).unwrap();
        decode_groups(Bytes::from_static(text.as_bytes()), &column, 7).map(|groups| stacks(&groups.profile))
    }

    #[test]
    fn groups_are_stacks_with_counts() {
        let cases: [(&str, &[&str]); 11] = [
            ("a;b; 1", &["a;b 1"]),
            ("main;foo 3\nmain;bar 1\n", &["main;foo 3", "main;bar 1"]),
            ("a b;c d 2\r\n", &["a b;c d 2"]),
            ("a;b 1\na;b 2", &["a;b 3"]),
            ("no-count\n\na 1", &["a 1"]),
            ("a;;b 1", &["a;;b 1"]),
            ("a -5", &["a -5"]),
            ("a;b\t3\nc d\t4", &["a;b 3", "c d 4"]),
            ("a;b 1\t2", &["a;b 1 2"]),
            (" \t\r\n\n", &[]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|s| s.to_string()).collect();
            assert_eq!(groups(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn an_invalid_count_is_refused() {
        for (text, count) in [("a 1\nb x", "x"), ("b\nc ", ""), ("\na 1.5", "1.5")] {
            let count = count.to_owned();
            assert_eq!(groups(text), Err(Error::Count { line: 2, count }), "{text:?}");
        }
    }

    #[test]
    fn lines_without_a_count_are_counted_and_refused_if_there_are_no_others() {
        let column = column("cpu", 100).unwrap();
        let skipped =
            |text: &'static str| decode_groups(Bytes::from(text), &column, 0).map(|groups| groups.skipped);
        assert_eq!(skipped("no-count\n\na 1\nb"), Ok(SkippedLines { without_count: 2, from_long_line: 0 }));
        let error = skipped("\nmain;w\u{f6}rk\nmain;idle").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"none of 2 lines ends in a space and a count, as in "main;work 12"; line 2 is "main;w\xc3\xb6rk""#
        );
    }

    #[test]
    fn values_and_names_that_cannot_be_kept_are_refused() {
        let column = column("cpu", 100).unwrap();
        let refused = |text: &'static [u8]| {
            decode_groups(Bytes::from_static(text), &column, 0).map(|groups| groups.skipped).unwrap_err()
        };
        assert_eq!(refused(b"a 9223372036854775807\na 1"), Error::Sum { line: 2 });
        assert_eq!(
            refused(b"a 1\nb 922337203686").to_string(),
            "a count of 922337203686 at 10000000 ns each (sampleRate) is more than 2^63 - 1 ns"
        );
        assert_eq!(
            refused(b"main;ok 1\nmain;caf\xe9 3").to_string(),
            "line 2 has a frame that is not UTF-8: \"caf\\xe9\""
        );
    }

    #[test]
    fn a_line_that_is_too_long_ends_groups_and_refuses_lines() {
        let text: Bytes = format!("a 1\n{} 1\nb 1", "x".repeat(LINE_BYTES_MAX)).into();
        let column = column("goroutines", 100).unwrap();
        let groups = decode_groups(text.clone(), &column, 0).unwrap();
        assert_eq!(stacks(&groups.profile), ["a 1"]);
        assert_eq!(groups.skipped, SkippedLines { without_count: 0, from_long_line: 2 });
        let only_long = decode_groups(text.slice(4..), &column, 0).map(|groups| groups.skipped);
        assert_eq!(only_long, Err(Error::LineTooLong { line: 1 }));
        let refused = decode_lines(text, &column, 0).map(|p| stacks(&p));
        assert_eq!(refused, Err(Error::LineTooLong { line: 2 }));
    }

    #[test]
    fn lines_count_themselves_and_cpu_is_scaled_by_the_rate() {
        let column = column("cpu", 100).unwrap();
        let text = Bytes::from_static(b"a;b\n\na;b\nc");
        let profile = decode_lines(text, &column, 7).unwrap();
        assert_eq!(stacks(&profile), ["a;b 20000000", "c 10000000"]);
        let strings = &profile.symbols.strings;
        let period = profile.period_type.unwrap();
        assert_eq!(strings.get(period.r#type), b"cpu");
        assert_eq!((profile.period, profile.time_nanos), (10_000_000, 7));
        assert_eq!(profile.symbols.functions.len(), 3);
        assert!(profile.symbols.mappings[0].has_functions);
    }
}
