//! Columns → pprof bytes, in the order in which Go writes them.
//!
//! Owns: bytes that google/pprof reads. Does not own: merging equal elements; each is written as it is.

use model::{NONE, Profile, Symbols, ValueType};

/// One document, uncompressed. Ids are index + 1; [`NONE`] is written as id 0.
pub fn encode(profile: &Profile) -> Vec<u8> {
    let symbols = &profile.symbols;
    let mut out = Vec::with_capacity(symbols.byte_len() / 2 + profile.samples.values.len() * 4);
    let mut part = Vec::new();
    let mut packed = Vec::new();

    for sample_type in &profile.sample_types {
        value_type(&mut part, sample_type);
        message(&mut out, 1, &mut part);
    }
    samples(&mut out, profile);
    symbol_tables(&mut out, symbols);
    number(&mut out, 7, profile.drop_frames.into());
    number(&mut out, 8, profile.keep_frames.into());
    number(&mut out, 9, profile.time_nanos as u64);
    number(&mut out, 10, profile.duration_nanos as u64);
    if let Some(period_type) = &profile.period_type {
        value_type(&mut part, period_type);
        message(&mut out, 11, &mut part);
    }
    number(&mut out, 12, profile.period as u64);
    for comment in &profile.comments {
        varint(&mut packed, (*comment).into());
    }
    optional_message(&mut out, 13, &mut packed);
    number(&mut out, 14, profile.default_sample_type.into());
    out
}

fn samples(out: &mut Vec<u8>, profile: &Profile) {
    let symbols = &profile.symbols;
    let (mut part, mut packed) = (Vec::new(), Vec::new());
    let values_each = profile.sample_types.len();
    for sample in 0..profile.samples.len() {
        for location in symbols.stacktraces.get(sample as u32) {
            varint(&mut packed, id(*location));
        }
        optional_message(&mut part, 1, &mut packed);
        for value in &profile.samples.values[sample * values_each..(sample + 1) * values_each] {
            varint(&mut packed, *value as u64);
        }
        optional_message(&mut part, 2, &mut packed);
        for label in profile.samples.labels_of(sample) {
            number(&mut packed, 1, label.key.into());
            number(&mut packed, 2, label.string.into());
            number(&mut packed, 3, label.number as u64);
            number(&mut packed, 4, label.unit.into());
            message(&mut part, 3, &mut packed);
        }
        message(out, 2, &mut part);
    }
}

fn symbol_tables(out: &mut Vec<u8>, symbols: &Symbols) {
    let (mut part, mut packed) = (Vec::new(), Vec::new());
    for (index, mapping) in symbols.mappings.iter().enumerate() {
        number(&mut part, 1, index as u64 + 1);
        number(&mut part, 2, mapping.memory_start);
        number(&mut part, 3, mapping.memory_limit);
        number(&mut part, 4, mapping.file_offset);
        number(&mut part, 5, mapping.filename.into());
        number(&mut part, 6, mapping.build_id.into());
        number(&mut part, 7, mapping.has_functions.into());
        number(&mut part, 8, mapping.has_filenames.into());
        number(&mut part, 9, mapping.has_line_numbers.into());
        number(&mut part, 10, mapping.has_inline_frames.into());
        message(out, 3, &mut part);
    }
    let locations = &symbols.locations;
    for index in 0..locations.len() {
        number(&mut part, 1, index as u64 + 1);
        number(&mut part, 2, id(locations.mapping[index]));
        number(&mut part, 3, locations.address[index]);
        for line in locations.lines_of(index as u32) {
            number(&mut packed, 1, id(line.function));
            number(&mut packed, 2, line.line as u64);
            message(&mut part, 4, &mut packed);
        }
        number(&mut part, 5, locations.folded[index].into());
        message(out, 4, &mut part);
    }
    for (index, function) in symbols.functions.iter().enumerate() {
        number(&mut part, 1, index as u64 + 1);
        number(&mut part, 2, function.name.into());
        number(&mut part, 3, function.system_name.into());
        number(&mut part, 4, function.filename.into());
        number(&mut part, 5, function.start_line as u64);
        message(out, 5, &mut part);
    }
    for string in symbols.strings.iter() {
        bytes(out, 6, string);
    }
}

fn id(index: u32) -> u64 {
    if index == NONE { 0 } else { u64::from(index) + 1 }
}

fn value_type(out: &mut Vec<u8>, value_type: &ValueType) {
    number(out, 1, value_type.r#type.into());
    number(out, 2, value_type.unit.into());
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a scalar field, left out if 0.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Writes a length-delimited field; `content` is empty afterwards.
fn message(out: &mut Vec<u8>, field: u8, content: &mut Vec<u8>) {
    bytes(out, field, content);
    content.clear();
}

/// As [`message`], left out if empty.
fn optional_message(out: &mut Vec<u8>, field: u8, content: &mut Vec<u8>) {
    if !content.is_empty() {
        message(out, field, content);
    }
}
