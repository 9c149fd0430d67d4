//! The symbol tables of a profile: strings, mappings, functions, locations and stacktraces, as columns.

use bytes::Bytes;

/// Index into [`Strings`]. Index 0 is always the empty string.
pub type StringId = u32;

/// No reference: a location without mapping, a line without function.
pub const NONE: u32 = u32::MAX;

/// A table of byte strings, addressed by [`StringId`].
///
/// Strings of the decoded document stay in `data` uncopied; strings added later are in `added`.
/// Strings are UTF-8 once a profile was validated; before that they may be any bytes.
#[derive(Clone, Default, Debug)]
pub struct Strings {
    data: Bytes,
    added: Vec<u8>,
    /// `(offset, length)`; an offset at or past `data.len()` points into `added`.
    spans: Vec<(u32, u32)>,
}

/// Compares content, not its position.
impl PartialEq for Strings {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Strings {}

impl Strings {
    /// A table over `data`, with `(offset, length)` of each string in it.
    ///
    /// # Panics
    /// If a span is outside of `data`: the decoder must check its bounds.
    pub fn new(data: Bytes, spans: Vec<(u32, u32)>) -> Self {
        for (offset, length) in &spans {
            assert!(*offset as usize + *length as usize <= data.len());
        }
        Self { data, added: Vec::new(), spans }
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of string `id`; empty for an id outside the table.
    pub fn get(&self, id: StringId) -> &[u8] {
        match self.spans.get(id as usize) {
            Some(span) => self.slice(*span),
            None => b"",
        }
    }

    /// String `id` as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self, id: StringId) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.get(id))
    }

    /// Reserves space for `strings` more strings of `bytes` bytes in total.
    pub fn reserve(&mut self, strings: usize, bytes: usize) {
        self.spans.reserve(strings);
        self.added.reserve(bytes);
    }

    /// Appends a string, without looking for an equal one.
    pub fn push(&mut self, string: &[u8]) -> StringId {
        let span = self.add(string);
        self.spans.push(span);
        (self.spans.len() - 1) as StringId
    }

    /// Replaces the content of string `id`.
    pub fn replace(&mut self, id: StringId, string: &[u8]) {
        self.spans[id as usize] = self.add(string);
    }

    /// Shortens string `id` to the bytes from `from` on.
    pub fn cut_front(&mut self, id: StringId, from: u32) {
        let (offset, length) = self.spans[id as usize];
        self.spans[id as usize] = (offset + from, length - from);
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.spans.iter().map(|span| self.slice(*span))
    }

    /// All bytes of all strings, for a quick search over many strings at once.
    pub fn raw(&self) -> [&[u8]; 2] {
        [&self.data, &self.added]
    }

    /// Bytes held in memory.
    pub fn byte_len(&self) -> usize {
        self.data.len() + self.added.len() + self.spans.len() * 8
    }

    fn add(&mut self, string: &[u8]) -> (u32, u32) {
        let offset = self.data.len() + self.added.len();
        self.added.extend_from_slice(string);
        (offset as u32, string.len() as u32)
    }

    fn slice(&self, (offset, length): (u32, u32)) -> &[u8] {
        let (offset, length) = (offset as usize, length as usize);
        match offset.checked_sub(self.data.len()) {
            Some(start) if length > 0 => &self.added[start..start + length],
            Some(_) => b"",
            None => &self.data[offset..offset + length],
        }
    }
}

/// A loaded binary or library.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mapping {
    pub memory_start: u64,
    pub memory_limit: u64,
    pub file_offset: u64,
    pub filename: StringId,
    pub build_id: StringId,
    pub has_functions: bool,
    pub has_filenames: bool,
    pub has_line_numbers: bool,
    pub has_inline_frames: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Function {
    pub name: StringId,
    pub system_name: StringId,
    pub filename: StringId,
    pub start_line: i64,
}

/// One source line of a location. `function` is an index or [`NONE`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Line {
    pub function: u32,
    pub line: i64,
}

/// Locations as columns; location `i` is row `i` of each.
#[derive(Clone, Debug)]
pub struct Locations {
    /// Index into the mappings, or [`NONE`].
    pub mapping: Vec<u32>,
    pub address: Vec<u64>,
    pub folded: Vec<bool>,
    /// Lines of location `i` are `lines[line_offsets[i]..line_offsets[i + 1]]`, the innermost inlined one first.
    pub line_offsets: Vec<u32>,
    pub lines: Vec<Line>,
}

impl Default for Locations {
    fn default() -> Self {
        Self {
            mapping: Vec::new(),
            address: Vec::new(),
            folded: Vec::new(),
            line_offsets: vec![0],
            lines: Vec::new(),
        }
    }
}

impl Locations {
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    pub fn lines_of(&self, location: u32) -> &[Line] {
        let i = location as usize;
        &self.lines[self.line_offsets[i] as usize..self.line_offsets[i + 1] as usize]
    }

    /// Reserves space for `locations` more locations with `lines` lines in total.
    pub fn reserve(&mut self, locations: usize, lines: usize) {
        self.mapping.reserve(locations);
        self.address.reserve(locations);
        self.folded.reserve(locations);
        self.line_offsets.reserve(locations);
        self.lines.reserve(lines);
    }

    /// Appends a location; returns its index.
    pub fn push(&mut self, mapping: u32, address: u64, folded: bool, lines: &[Line]) -> u32 {
        self.mapping.push(mapping);
        self.address.push(address);
        self.folded.push(folded);
        self.lines.extend_from_slice(lines);
        self.line_offsets.push(self.lines.len() as u32);
        (self.mapping.len() - 1) as u32
    }
}

/// Stacktraces as one list of location indices; stacktrace `i` is
/// `locations[offsets[i]..offsets[i + 1]]`, leaf first.
#[derive(Clone, Debug)]
pub struct Stacktraces {
    pub offsets: Vec<u32>,
    pub locations: Vec<u32>,
}

impl Default for Stacktraces {
    fn default() -> Self {
        Self { offsets: vec![0], locations: Vec::new() }
    }
}

impl Stacktraces {
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, stacktrace: u32) -> &[u32] {
        let i = stacktrace as usize;
        &self.locations[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Reserves space for `stacktraces` more stacktraces with `locations` locations in total.
    pub fn reserve(&mut self, stacktraces: usize, locations: usize) {
        self.offsets.reserve(stacktraces);
        self.locations.reserve(locations);
    }

    /// Appends a stacktrace, leaf first; returns its index.
    pub fn push(&mut self, locations: &[u32]) -> u32 {
        self.locations.extend_from_slice(locations);
        self.offsets.push(self.locations.len() as u32);
        (self.offsets.len() - 2) as u32
    }
}

/// The tables that stacktraces refer to. Indices are dense and start at 0.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    pub strings: Strings,
    pub mappings: Vec<Mapping>,
    pub functions: Vec<Function>,
    pub locations: Locations,
    pub stacktraces: Stacktraces,
}

impl Symbols {
    /// Approximate size in memory, in bytes.
    pub fn byte_len(&self) -> usize {
        self.strings.byte_len()
            + self.mappings.len() * size_of::<Mapping>()
            + self.functions.len() * size_of::<Function>()
            + self.locations.len() * 17
            + self.locations.lines.len() * size_of::<Line>()
            + (self.stacktraces.offsets.len() + self.stacktraces.locations.len()) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_and_added_strings_read_alike() {
        let mut strings = Strings::new(Bytes::from_static(b"mainfoo"), vec![(0, 0), (0, 4), (4, 3)]);
        let bar = strings.push(b"bar");
        strings.replace(2, b"longer than before");
        assert_eq!(strings.get(1), b"main");
        assert_eq!(strings.get(bar), b"bar");
        assert_eq!(strings.get(2), b"longer than before");
        strings.cut_front(2, 7);
        assert_eq!(strings.get(2), b"than before");
        assert_eq!(strings.push(b""), 4);
        assert_eq!(strings.get(4), b"");
        assert_eq!(strings.get(99), b"");
    }
}
