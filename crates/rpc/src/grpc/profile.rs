//! The columns of a [`Profile`], without any change to them: this code is on the path of every push.
//!
//! Absent references stay absent. Ids of strings are not checked, because no reader relies on them.

use block::codec::{Cursor, Delta, Malformed, put, put_signed};
use bytes::Bytes;
use model::{
    Function, Line, Locations, Mapping, Profile, SampleLabel, Samples, Stacktraces, Strings, Symbols,
    ValueType,
};

use super::columns::{index, put_index, put_strings, put_values, strings, values};

pub(super) fn encode(profile: &Profile) -> Bytes {
    let symbols = &profile.symbols;
    let mut out = Vec::with_capacity(
        symbols.strings.byte_len()
            + symbols.stacktraces.locations.len() * 2
            + profile.samples.values.len() * 2
            + symbols.locations.len() * 12
            + symbols.functions.len() * 8,
    );
    put_symbols(&mut out, symbols);
    put_samples(&mut out, &profile.samples);
    put(&mut out, profile.sample_types.len() as u64);
    profile.sample_types.iter().for_each(|value_type| put_value_type(&mut out, *value_type));
    put_index(&mut out, profile.default_sample_type);
    match profile.period_type {
        Some(value_type) => {
            out.push(1);
            put_value_type(&mut out, value_type);
        }
        None => out.push(0),
    }
    put_signed(&mut out, profile.period);
    put_signed(&mut out, profile.time_nanos);
    put_signed(&mut out, profile.duration_nanos);
    put_index(&mut out, profile.drop_frames);
    put_index(&mut out, profile.keep_frames);
    put(&mut out, profile.comments.len() as u64);
    profile.comments.iter().for_each(|comment| put_index(&mut out, *comment));
    out.into()
}

/// The strings of the profile share `bytes`.
pub(super) fn decode(bytes: &Bytes) -> Result<Profile, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let cursor = &mut cursor;
    let symbols = symbols(cursor, bytes)?;
    let samples = samples(cursor)?;
    let sample_types = repeated(cursor, value_type)?;
    let default_sample_type = string_id(cursor)?;
    let period_type = if flag(cursor)? { Some(value_type(cursor)?) } else { None };
    let profile = Profile {
        symbols,
        samples,
        sample_types,
        default_sample_type,
        period_type,
        period: cursor.signed()?,
        time_nanos: cursor.signed()?,
        duration_nanos: cursor.signed()?,
        drop_frames: string_id(cursor)?,
        keep_frames: string_id(cursor)?,
        comments: repeated(cursor, string_id)?,
    };
    cursor.end()?;
    Ok(profile)
}

fn put_symbols(out: &mut Vec<u8>, symbols: &Symbols) {
    put_strings(out, symbols.strings.iter().collect::<Vec<_>>().iter().copied());
    put(out, symbols.mappings.len() as u64);
    for mapping in &symbols.mappings {
        put(out, mapping.memory_start);
        put(out, mapping.memory_limit);
        put(out, mapping.file_offset);
        put_index(out, mapping.filename);
        put_index(out, mapping.build_id);
        let flags = [
            mapping.has_functions,
            mapping.has_filenames,
            mapping.has_line_numbers,
            mapping.has_inline_frames,
        ];
        out.push(flags.iter().enumerate().map(|(bit, set)| u8::from(*set) << bit).sum());
    }
    put(out, symbols.functions.len() as u64);
    for function in &symbols.functions {
        put_index(out, function.name);
        put_index(out, function.system_name);
        put_index(out, function.filename);
        put_signed(out, function.start_line);
    }
    let locations = &symbols.locations;
    put(out, locations.len() as u64);
    locations.mapping.iter().for_each(|mapping| put_index(out, *mapping));
    let mut address = Delta::default();
    locations.address.iter().for_each(|value| address.put(out, *value as i64));
    out.extend(locations.folded.iter().map(|folded| u8::from(*folded)));
    put_lengths(out, &locations.line_offsets);
    for line in &locations.lines {
        put_index(out, line.function);
        put_signed(out, line.line);
    }
    put(out, symbols.stacktraces.len() as u64);
    put_lengths(out, &symbols.stacktraces.offsets);
    symbols.stacktraces.locations.iter().for_each(|location| put_index(out, *location));
}

fn symbols(cursor: &mut Cursor<'_>, all: &Bytes) -> Result<Symbols, Malformed> {
    let (data, spans) = strings(cursor, all)?;
    let strings = Strings::new(data, spans);
    let mappings = repeated(cursor, |cursor| {
        let mut mapping = Mapping {
            memory_start: cursor.varint()?,
            memory_limit: cursor.varint()?,
            file_offset: cursor.varint()?,
            filename: string_id(cursor)?,
            build_id: string_id(cursor)?,
            ..Mapping::default()
        };
        let flags = cursor.byte()?;
        mapping.has_functions = flags & 1 != 0;
        mapping.has_filenames = flags & 2 != 0;
        mapping.has_line_numbers = flags & 4 != 0;
        mapping.has_inline_frames = flags & 8 != 0;
        Ok(mapping)
    })?;
    let functions = repeated(cursor, |cursor| {
        Ok(Function {
            name: string_id(cursor)?,
            system_name: string_id(cursor)?,
            filename: string_id(cursor)?,
            start_line: cursor.signed()?,
        })
    })?;
    let count = cursor.count()?;
    let mut locations = Locations::default();
    locations.mapping.reserve(count);
    for _ in 0..count {
        locations.mapping.push(index(cursor, mappings.len(), "a location's mapping does not exist")?);
    }
    let mut address = Delta::default();
    for _ in 0..count {
        locations.address.push(address.read(cursor)? as u64);
    }
    for _ in 0..count {
        locations.folded.push(flag(cursor)?);
    }
    locations.line_offsets = offsets(cursor, count)?;
    for _ in 0..total(&locations.line_offsets) {
        let function = index(cursor, functions.len(), "a line's function does not exist")?;
        locations.lines.push(Line { function, line: cursor.signed()? });
    }
    let count = cursor.count()?;
    let mut stacktraces = Stacktraces { offsets: offsets(cursor, count)?, locations: Vec::new() };
    stacktraces.locations.reserve(total(&stacktraces.offsets));
    for _ in 0..total(&stacktraces.offsets) {
        let location = index(cursor, locations.len(), "a stacktrace's location does not exist")?;
        stacktraces.locations.push(location);
    }
    Ok(Symbols { strings, mappings, functions, locations, stacktraces })
}

fn put_samples(out: &mut Vec<u8>, samples: &Samples) {
    put(out, samples.values.len() as u64);
    put_values(out, &samples.values);
    put(out, samples.len() as u64);
    put_lengths(out, &samples.label_offsets);
    for label in &samples.labels {
        put_index(out, label.key);
        put_index(out, label.string);
        put_signed(out, label.number);
        put_index(out, label.unit);
    }
}

fn samples(cursor: &mut Cursor<'_>) -> Result<Samples, Malformed> {
    let count = cursor.count()?;
    let values = values(cursor, count)?;
    let count = cursor.count()?;
    let label_offsets = offsets(cursor, count)?;
    let mut labels = Vec::new();
    for _ in 0..total(&label_offsets) {
        labels.push(SampleLabel {
            key: string_id(cursor)?,
            string: string_id(cursor)?,
            number: cursor.signed()?,
            unit: string_id(cursor)?,
        });
    }
    Ok(Samples { values, label_offsets, labels })
}

fn put_value_type(out: &mut Vec<u8>, value_type: ValueType) {
    put_index(out, value_type.r#type);
    put_index(out, value_type.unit);
}

fn value_type(cursor: &mut Cursor<'_>) -> Result<ValueType, Malformed> {
    Ok(ValueType { r#type: string_id(cursor)?, unit: string_id(cursor)? })
}

fn string_id(cursor: &mut Cursor<'_>) -> Result<u32, Malformed> {
    index(cursor, u32::MAX as usize, "a string's id has more than 32 bits")
}

fn flag(cursor: &mut Cursor<'_>) -> Result<bool, Malformed> {
    match cursor.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(cursor.malformed("a flag is neither 0 nor 1")),
    }
}

fn repeated<T>(
    cursor: &mut Cursor<'_>,
    mut each: impl FnMut(&mut Cursor<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = cursor.count()?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(each(cursor)?);
    }
    Ok(all)
}

fn put_lengths(out: &mut Vec<u8>, offsets: &[u32]) {
    offsets.windows(2).for_each(|pair| put(out, u64::from(pair[1] - pair[0])));
}

/// Offsets of `count` lists. Each element takes at least one of the following bytes.
fn offsets(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<u32>, Malformed> {
    if count > cursor.remaining() {
        return Err(cursor.malformed("there are fewer lists than there must be"));
    }
    let mut offsets = Vec::with_capacity(count + 1);
    offsets.push(0);
    let mut total = 0_u32;
    for _ in 0..count {
        total = total.saturating_add(cursor.u32()?);
        offsets.push(total);
    }
    if total as usize > cursor.remaining() {
        return Err(cursor.malformed("lists have more elements than follow"));
    }
    Ok(offsets)
}

fn total(offsets: &[u32]) -> usize {
    offsets.last().copied().unwrap_or(0) as usize
}
