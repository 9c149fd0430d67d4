//! Folded stacks: lines of text, frames root first with `;` between them.
//!
//! Owns: the two dialects, and the profile that such text stands for: one value column, one function and one
//! location per frame name, a made-up mapping. Does not own: which type the values have ([`crate::ingest`]).

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use model::{Function, Line, Mapping, Profile, Strings, ValueType};

use crate::ingest::Column;

/// Longest line, as the line scanner of the reference has it.
pub const LINE_BYTES_MAX: usize = (64 << 10) - 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("line {line} ends in {count:?}, which is not a count")]
    Count { line: usize, count: String },
    #[error("line {line} is longer than the limit of {LINE_BYTES_MAX} bytes")]
    LineTooLong { line: usize },
    #[error("text of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

/// Lines `root;…;leaf count`. Lines without a space are skipped; a line that is too long ends the text.
///
/// Equal stacks become one sample. `time_nanos` is the time of the profile.
///
/// # Errors
/// [`Error::Count`] for a count that is no 64-bit number.
pub fn decode_groups(text: Bytes, column: &Column, time_nanos: i64) -> Result<Profile, Error> {
    let mut builder = Builder::new(&text)?;
    for (number, line) in lines(&text) {
        if line.len() > LINE_BYTES_MAX {
            break;
        }
        let Some(space) = memchr::memrchr(b' ', line) else {
            continue;
        };
        let count = &line[space + 1..];
        let value = std::str::from_utf8(count).ok().and_then(|count| count.parse().ok());
        let value = value.ok_or_else(|| Error::Count {
            line: number,
            // Enough to recognise it by.
            count: String::from_utf8_lossy(&count[..count.len().min(40)]).into_owned(),
        })?;
        builder.add(&line[..space], value);
    }
    Ok(builder.finish(column, time_nanos))
}

/// Lines `root;…;leaf`, each of which counts one. Empty lines are skipped; equal stacks become one sample.
///
/// # Errors
/// [`Error::LineTooLong`].
pub fn decode_lines(text: Bytes, column: &Column, time_nanos: i64) -> Result<Profile, Error> {
    let mut builder = Builder::new(&text)?;
    for (number, line) in lines(&text) {
        if line.len() > LINE_BYTES_MAX {
            return Err(Error::LineTooLong { line: number });
        }
        if !line.is_empty() {
            builder.add(line, 1);
        }
    }
    Ok(builder.finish(column, time_nanos))
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

    fn add(&mut self, stack: &'t [u8], value: i64) {
        let samples = &mut self.profile.samples;
        match self.stacks.entry(stack) {
            Entry::Occupied(sample) => {
                let sum = &mut samples.values[*sample.get() as usize];
                *sum = sum.saturating_add(value);
                return;
            }
            Entry::Vacant(vacant) => vacant.insert(samples.len() as u32),
        };
        self.stack.clear();
        // A separator at the end begins no frame.
        let stack = stack.strip_suffix(b";").unwrap_or(stack);
        for frame in stack.rsplit(|byte| *byte == b';') {
            let next = self.frames.len() as u32;
            let function = *self.frames.entry(frame).or_insert_with(|| {
                let offset = frame.as_ptr().addr() - self.text.as_ptr().addr();
                self.spans.push((offset as u32, frame.len() as u32));
                next
            });
            self.stack.push(function);
        }
        self.profile.symbols.stacktraces.push(&self.stack);
        samples.values.push(value);
        samples.label_offsets.push(0);
    }

    fn finish(self, column: &Column, time_nanos: i64) -> Profile {
        let strings = Strings::new(self.text.clone(), self.spans);
        complete(self.profile, strings, self.frames.len() as u32, column, time_nanos)
    }
}

/// A profile whose samples are there, over `frames` locations: those of location `i` are named by string `i + 1`.
pub(crate) fn complete(
    mut profile: Profile,
    strings: Strings,
    frames: u32,
    column: &Column,
    time_nanos: i64,
) -> Profile {
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
            *value = value.saturating_mul(column.period);
        }
    }
    profile.time_nanos = time_nanos;
    profile
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
        decode_groups(Bytes::from_static(text.as_bytes()), &column, 7).map(|p| stacks(&p))
    }

    #[test]
    fn groups_are_stacks_with_counts() {
        let cases: [(&str, &[&str]); 8] = [
            ("a;b; 1", &["a;b 1"]),
            ("main;foo 3\nmain;bar 1\n", &["main;foo 3", "main;bar 1"]),
            ("a b;c d 2\r\n", &["a b;c d 2"]),
            ("a;b 1\na;b 2", &["a;b 3"]),
            ("no-count\n\na 1", &["a 1"]),
            ("a;;b 1", &["a;;b 1"]),
            ("a -5", &["a -5"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|s| s.to_string()).collect();
            assert_eq!(groups(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn a_count_that_is_none_is_refused() {
        for (text, count) in [("a 1\nb x", "x"), ("b\nc ", ""), ("\na 1.5", "1.5")] {
            let count = count.to_owned();
            assert_eq!(groups(text), Err(Error::Count { line: 2, count }), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_ends_groups_and_refuses_lines() {
        let text: Bytes = format!("a 1\n{} 1\nb 1", "x".repeat(LINE_BYTES_MAX)).into();
        let column = column("goroutines", 100).unwrap();
        let profile = decode_groups(text.clone(), &column, 0).unwrap();
        assert_eq!(stacks(&profile), ["a 1"]);
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
