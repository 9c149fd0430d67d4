//! The encoding of the symbols of one dataset: strings, mappings, functions, locations, stacktraces.
//!
//! Owns: the bytes of both sections, as defined in `FORMAT.md`, and the limits of decoding.
//! Does not own: compression and checksums (`codec`), the order of symbols (`sort`).

use bytes::Bytes;
use model::{Function, Line, Locations, Mapping, NONE, Stacktraces, Strings, Symbols};

use crate::codec::{Cursor, Delta, put, put_signed};
use crate::error::Malformed;

/// Most locations of all stacktraces of a dataset together. Stacktraces are stored as differences to one
/// another, so the size of the section does not bound the number of locations.
pub(crate) const STACK_LOCATIONS_MAX: usize = 1 << 27;

/// Most bytes of all strings of a dataset together, for the same reason.
pub(crate) const STRING_BYTES_MAX: usize = 1 << 30;

/// Encodes symbols for [`decode`], without compression. Strings and stacktraces are written as differences to the one
/// before.
pub fn encode(symbols: &Symbols) -> Vec<u8> {
    let mut out = Vec::with_capacity(symbols.strings.byte_len() + symbols.stacktraces.locations.len() + 1024);
    encode_strings(&mut out, symbols.strings.iter().skip(1));
    encode_tables(&mut out, symbols);
    out
}

/// The two sections of the symbols of a dataset, before compression, and the counts that limits apply to.
pub(crate) struct EncodedSymbols {
    pub(crate) strings: Vec<u8>,
    pub(crate) tables: Vec<u8>,
    pub(crate) string_count: usize,
    pub(crate) string_bytes: usize,
    pub(crate) stacktraces: usize,
    pub(crate) stack_locations: usize,
}

impl EncodedSymbols {
    pub(crate) fn new(symbols: &Symbols) -> Self {
        Self::with_strings(symbols.strings.iter().skip(1), symbols)
    }

    /// Encodes `strings` in place of those in `symbols`: all but the empty string with id 0.
    pub(crate) fn with_strings<'a>(
        strings: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        symbols: &Symbols,
    ) -> Self {
        let (string_count, string_bytes) = (strings.len() + 1, strings.clone().map(<[u8]>::len).sum());
        let stack_locations = symbols.stacktraces.locations.len();
        let mut encoded = Self {
            strings: Vec::with_capacity(string_count * 3 + string_bytes),
            tables: Vec::with_capacity(stack_locations * 2 + symbols.locations.len() * 8),
            string_count,
            string_bytes,
            stacktraces: symbols.stacktraces.len(),
            stack_locations,
        };
        encode_strings(&mut encoded.strings, strings);
        encode_tables(&mut encoded.tables, symbols);
        encoded
    }
}

fn encode_tables(out: &mut Vec<u8>, symbols: &Symbols) {
    encode_mappings(out, &symbols.mappings);
    encode_functions(out, &symbols.functions);
    encode_locations(out, symbols);
    encode_stacktraces(out, &symbols.stacktraces);
}

/// Decodes the output of [`encode`]. Every id in the result is in range, or `NONE` where that is allowed.
///
/// # Errors
/// Names the byte at which the input is invalid.
pub fn decode(bytes: &[u8]) -> Result<Symbols, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let strings = decode_strings(&mut cursor)?;
    decode_tables(&mut cursor, strings)
}

/// Decodes all tables but the strings, to the end of the input.
pub(crate) fn decode_tables(cursor: &mut Cursor<'_>, strings: Strings) -> Result<Symbols, Malformed> {
    let mappings = decode_mappings(cursor, strings.len())?;
    let functions = decode_functions(cursor, strings.len())?;
    let locations = decode_locations(cursor, mappings.len(), &functions)?;
    let stacktraces = decode_stacktraces(cursor, locations.len())?;
    cursor.end()?;
    Ok(Symbols { strings, mappings, functions, locations, stacktraces })
}

/// Length of the common prefix of two slices.
fn shared_prefix<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Writes the lengths that strings share with the one before, the lengths of the rests, then all rests. `strings` are
/// all but the empty one with id 0.
fn encode_strings<'a>(out: &mut Vec<u8>, strings: impl ExactSizeIterator<Item = &'a [u8]> + Clone) {
    let mut shares = Vec::with_capacity(strings.len());
    put(out, strings.len() as u64);
    let mut before: &[u8] = b"";
    for string in strings.clone() {
        let shared = shared_prefix(before, string);
        shares.push(shared);
        put(out, shared as u64);
        before = string;
    }
    for (string, shared) in strings.clone().zip(&shares) {
        put(out, (string.len() - shared) as u64);
    }
    for (string, shared) in strings.zip(&shares) {
        out.extend_from_slice(&string[*shared..]);
    }
}

/// Decodes the output of [`encode_strings`].
pub(crate) fn decode_strings(cursor: &mut Cursor<'_>) -> Result<Strings, Malformed> {
    let count = cursor.count()?;
    let mut shares = Vec::with_capacity(count);
    for _ in 0..count {
        shares.push(cursor.u32()?);
    }
    let mut spans: Vec<(u32, u32)> = Vec::with_capacity(count + 1);
    spans.push((0, 0));
    let mut rests = Vec::with_capacity(count);
    let mut length_before = 0_u32;
    let mut offset = 0_usize;
    for shared in &shares {
        let rest = cursor.u32()?;
        if *shared > length_before {
            return Err(cursor.malformed("a string shares more than the one before it has"));
        }
        let Some(length) = shared.checked_add(rest) else {
            return Err(cursor.malformed("a string is too long"));
        };
        rests.push(rest);
        spans.push((offset as u32, length));
        offset += length as usize;
        if offset > STRING_BYTES_MAX {
            return Err(cursor.malformed("strings are longer than allowed"));
        }
        length_before = length;
    }
    let mut data: Vec<u8> = Vec::with_capacity(offset);
    let mut start_before = 0;
    for (shared, rest) in shares.iter().zip(&rests) {
        let start = data.len();
        data.extend_from_within(start_before..start_before + *shared as usize);
        data.extend_from_slice(cursor.take(*rest as usize)?);
        start_before = start;
    }
    Ok(Strings::new(Bytes::from(data), spans))
}

fn encode_mappings(out: &mut Vec<u8>, mappings: &[Mapping]) {
    put(out, mappings.len() as u64);
    for mapping in mappings {
        put(out, mapping.memory_start);
        put(out, mapping.memory_limit.wrapping_sub(mapping.memory_start));
        put(out, mapping.file_offset);
        put(out, u64::from(mapping.filename));
        put(out, u64::from(mapping.build_id));
        let flags = [
            mapping.has_functions,
            mapping.has_filenames,
            mapping.has_line_numbers,
            mapping.has_inline_frames,
        ];
        out.push(flags.iter().enumerate().map(|(bit, set)| u8::from(*set) << bit).sum());
    }
}

fn decode_mappings(cursor: &mut Cursor<'_>, strings: usize) -> Result<Vec<Mapping>, Malformed> {
    let count = cursor.count()?;
    let mut mappings = Vec::new();
    for _ in 0..count {
        let memory_start = cursor.varint()?;
        let memory_limit = memory_start.wrapping_add(cursor.varint()?);
        let file_offset = cursor.varint()?;
        let filename = cursor.index(strings, "a mapping's file name does not exist")?;
        let build_id = cursor.index(strings, "a mapping's build id does not exist")?;
        let flags = cursor.byte()?;
        mappings.push(Mapping {
            memory_start,
            memory_limit,
            file_offset,
            filename,
            build_id,
            has_functions: flags & 1 != 0,
            has_filenames: flags & 2 != 0,
            has_line_numbers: flags & 4 != 0,
            has_inline_frames: flags & 8 != 0,
        });
    }
    Ok(mappings)
}

fn encode_functions(out: &mut Vec<u8>, functions: &[Function]) {
    put(out, functions.len() as u64);
    let mut name = Delta::default();
    for function in functions {
        name.put(out, i64::from(function.name));
    }
    for function in functions {
        put_signed(out, i64::from(function.system_name) - i64::from(function.name));
    }
    let mut filename = Delta::default();
    for function in functions {
        filename.put(out, i64::from(function.filename));
    }
    for function in functions {
        put_signed(out, function.start_line);
    }
}

fn decode_functions(cursor: &mut Cursor<'_>, strings: usize) -> Result<Vec<Function>, Malformed> {
    let string = |cursor: &Cursor<'_>, value: i64| {
        if value < 0 || value >= strings as i64 {
            return Err(cursor.malformed("a function's string does not exist"));
        }
        Ok(value as u32)
    };
    let count = cursor.count()?;
    let mut functions = Vec::with_capacity(count);
    let mut name = Delta::default();
    for _ in 0..count {
        let name = name.read(cursor)?;
        functions.push(Function { name: string(cursor, name)?, ..Function::default() });
    }
    for function in &mut functions {
        let system_name = i64::from(function.name).wrapping_add(cursor.signed()?);
        function.system_name = string(cursor, system_name)?;
    }
    let mut filename = Delta::default();
    for function in &mut functions {
        let filename = filename.read(cursor)?;
        function.filename = string(cursor, filename)?;
    }
    for function in &mut functions {
        function.start_line = cursor.signed()?;
    }
    Ok(functions)
}

fn encode_locations(out: &mut Vec<u8>, symbols: &Symbols) {
    let locations = &symbols.locations;
    put(out, locations.len() as u64);
    for i in 0..locations.len() {
        // Twice the mapping, plus 1 if the location is folded; the number of mappings means none.
        let mapping = match locations.mapping[i] {
            NONE => symbols.mappings.len() as u64,
            mapping => u64::from(mapping),
        };
        put(out, mapping * 2 + u64::from(locations.folded[i]));
    }
    let mut address = Delta::default();
    for value in &locations.address {
        address.put(out, *value as i64);
    }
    for ends in locations.line_offsets.windows(2) {
        put(out, u64::from(ends[1] - ends[0]));
    }
    let mut function = Delta::default();
    for line in &locations.lines {
        let value = if line.function == NONE { symbols.functions.len() as u32 } else { line.function };
        function.put(out, i64::from(value));
    }
    for line in &locations.lines {
        let start = symbols.functions.get(line.function as usize).map_or(0, |f| f.start_line);
        put_signed(out, line.line.wrapping_sub(start));
    }
}

fn decode_locations(
    cursor: &mut Cursor<'_>,
    mappings: usize,
    functions: &[Function],
) -> Result<Locations, Malformed> {
    let count = cursor.count()?;
    let mut locations = Locations {
        mapping: Vec::with_capacity(count),
        address: Vec::with_capacity(count),
        folded: Vec::with_capacity(count),
        line_offsets: Vec::with_capacity(count + 1),
        lines: Vec::new(),
    };
    for _ in 0..count {
        let value = cursor.index(mappings * 2 + 2, "a location's mapping does not exist")?;
        let mapping = value / 2;
        locations.mapping.push(if mapping as usize == mappings { NONE } else { mapping });
        locations.folded.push(value % 2 == 1);
    }
    let mut address = Delta::default();
    for _ in 0..count {
        locations.address.push(address.read(cursor)? as u64);
    }
    let mut line_count = 0_usize;
    locations.line_offsets.push(0);
    for _ in 0..count {
        line_count += cursor.u32()? as usize;
        // Every line takes at least two of the remaining bytes.
        if line_count > cursor.remaining() {
            return Err(cursor.malformed("locations have more lines than follow"));
        }
        locations.line_offsets.push(line_count as u32);
    }
    let mut function = Delta::default();
    locations.lines.reserve(line_count);
    for _ in 0..line_count {
        let value = function.read(cursor)?;
        if value < 0 || value > functions.len() as i64 {
            return Err(cursor.malformed("a line's function does not exist"));
        }
        let function = if value == functions.len() as i64 { NONE } else { value as u32 };
        locations.lines.push(Line { function, line: 0 });
    }
    for line in &mut locations.lines {
        let start = functions.get(line.function as usize).map_or(0, |f| f.start_line);
        line.line = start.wrapping_add(cursor.signed()?);
    }
    Ok(locations)
}

/// Writes, root first, the numbers of locations shared with the stacktrace before, the numbers of own locations,
/// then all own locations, each as the difference to its caller.
fn encode_stacktraces(out: &mut Vec<u8>, stacktraces: &Stacktraces) {
    put(out, stacktraces.len() as u64);
    let mut shares = Vec::with_capacity(stacktraces.len());
    let mut before: &[u32] = &[];
    for id in 0..stacktraces.len() as u32 {
        let stack = stacktraces.get(id);
        let shared = before.iter().rev().zip(stack.iter().rev()).take_while(|(a, b)| a == b).count();
        shares.push(shared);
        put(out, shared as u64);
        before = stack;
    }
    for (id, shared) in shares.iter().enumerate() {
        put(out, (stacktraces.get(id as u32).len() - shared) as u64);
    }
    for (id, shared) in shares.iter().enumerate() {
        let stack = stacktraces.get(id as u32);
        let own = stack.len() - shared;
        let mut caller = stack.get(own).map_or(0, |location| i64::from(*location));
        for location in stack[..own].iter().rev() {
            put_signed(out, i64::from(*location) - caller);
            caller = i64::from(*location);
        }
    }
}

fn decode_stacktraces(cursor: &mut Cursor<'_>, locations: usize) -> Result<Stacktraces, Malformed> {
    let count = cursor.count()?;
    let mut shares = Vec::with_capacity(count);
    for _ in 0..count {
        shares.push(cursor.u32()?);
    }
    let mut stacktraces = Stacktraces { offsets: Vec::with_capacity(count + 1), locations: Vec::new() };
    stacktraces.offsets.push(0);
    let mut total = 0_usize;
    let mut length_before = 0_u32;
    for shared in &shares {
        let own = cursor.u32()?;
        let length = shared.saturating_add(own);
        total += length as usize;
        if *shared > length_before {
            return Err(cursor.malformed("a stacktrace shares more than the one before it has"));
        }
        if own as usize > cursor.remaining() || total > STACK_LOCATIONS_MAX {
            return Err(cursor.malformed("stacktraces have too many locations"));
        }
        stacktraces.offsets.push(total as u32);
        length_before = length;
    }
    stacktraces.locations.resize(total, 0);
    for (i, shared) in shares.iter().enumerate() {
        let shared = *shared as usize;
        let start = stacktraces.offsets[i] as usize;
        let end = stacktraces.offsets[i + 1] as usize;
        let own_end = end - shared;
        // The shared locations are on the root's side, at the end of both stacktraces.
        stacktraces.locations.copy_within(start - shared..start, own_end);
        let mut caller = match shared {
            0 => 0,
            _ => i64::from(stacktraces.locations[own_end]),
        };
        for slot in (start..own_end).rev() {
            caller = caller.wrapping_add(cursor.signed()?);
            if caller < 0 || caller >= locations as i64 {
                return Err(cursor.malformed("a stacktrace's location does not exist"));
            }
            stacktraces.locations[slot] = caller as u32;
        }
    }
    Ok(stacktraces)
}
