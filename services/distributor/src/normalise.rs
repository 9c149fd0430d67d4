//! Makes an accepted profile uniform: drops samples that cannot count, removes differences without meaning.
//!
//! Owns: which samples count. Does not own: summing equal stacktraces (the ingester does, when it appends rows),
//! or removing symbols without a counted sample (they are never appended).

use memchr::memmem;
use model::{Mapping, NONE, Profile, Symbols};

use crate::receipt::{DiscardCounts, Reason};

const GO_SHAPE: &[u8] = b"[go.shape.";

/// The samples that count, and the number of those that do not.
#[derive(Debug)]
pub(crate) struct CountedSamples {
    /// Indices, in order.
    pub(crate) samples: Vec<u32>,
    /// Without samples that have zeros only.
    pub(crate) discarded: DiscardCounts,
}

/// Finds the samples that count, and makes the symbols uniform.
///
/// Drops samples with a negative value, with zeros only, or with a location that is unknown or empty (no line and
/// no address). Locations without mapping get an empty one. Locations of mappings whose functions are known lose
/// their addresses, which differ between processes.
pub(crate) fn normalise(profile: &mut Profile) -> CountedSamples {
    let broken = BrokenLocations::of(&profile.symbols);
    let columns = profile.sample_types.len();
    let mut samples = Vec::with_capacity(profile.samples.len());
    let (mut negative, mut unknown_location) = (0, 0);
    for sample in 0..profile.samples.len() {
        let values = &profile.samples.values[sample * columns..(sample + 1) * columns];
        // The sign bit of the union is set if any value is negative.
        match values.iter().fold(0, |all, value| all | *value) {
            ..0 => negative += 1,
            0 => {}
            _ if broken.touches(profile.symbols.stacktraces.get(sample as u32)) => unknown_location += 1,
            _ => samples.push(sample as u32),
        }
    }
    add_missing_mapping(&mut profile.symbols);
    drop_addresses_of_known_functions(&mut profile.symbols);
    let mut discarded = DiscardCounts::default();
    discarded.count(Reason::NegativeValue, negative);
    discarded.count(Reason::UnknownLocation, unknown_location);
    CountedSamples { samples, discarded }
}

/// Locations that invalidate every sample they are in.
enum BrokenLocations {
    None,
    /// Whether location `i` is broken; unknown locations are broken too.
    Some(Vec<bool>),
}

impl BrokenLocations {
    fn of(symbols: &Symbols) -> Self {
        let locations = &symbols.locations;
        let is_empty = |i: usize| {
            locations.address[i] == 0 && locations.line_offsets[i] == locations.line_offsets[i + 1]
        };
        let has_unknown = symbols.stacktraces.locations.contains(&NONE);
        if !has_unknown && !(0..locations.len()).any(is_empty) {
            return Self::None;
        }
        Self::Some((0..locations.len()).map(is_empty).collect())
    }

    fn touches(&self, stacktrace: &[u32]) -> bool {
        match self {
            Self::None => false,
            Self::Some(broken) => {
                let is_broken = |location: u32| broken.get(location as usize).is_none_or(|b| *b);
                stacktrace.iter().any(|location| is_broken(*location))
            }
        }
    }
}

fn add_missing_mapping(symbols: &mut Symbols) {
    if !symbols.locations.mapping.contains(&NONE) {
        return;
    }
    let added = symbols.mappings.len() as u32;
    symbols.mappings.push(Mapping::default());
    for mapping in symbols.locations.mapping.iter_mut().filter(|mapping| **mapping == NONE) {
        *mapping = added;
    }
}

fn drop_addresses_of_known_functions(symbols: &mut Symbols) {
    for mapping in symbols.mappings.iter_mut().filter(|mapping| mapping.has_functions) {
        (mapping.memory_start, mapping.memory_limit, mapping.file_offset) = (0, 0, 0);
    }
    let locations = symbols.locations.address.iter_mut().zip(&symbols.locations.mapping);
    for (address, mapping) in locations {
        if symbols.mappings[*mapping as usize].has_functions {
            *address = 0;
        }
    }
}

/// Removes the type parameters that Go's compiler adds to names of generic functions, so that
/// `f[go.shape.int]` and `f[go.shape.string]` are one function.
pub(crate) fn strip_go_shapes(profile: &mut Profile) {
    let strings = &mut profile.symbols.strings;
    let finder = memmem::Finder::new(GO_SHAPE);
    // Searches all bytes once first: few profiles have any.
    if !strings.raw().iter().any(|bytes| finder.find(bytes).is_some()) {
        return;
    }
    for id in 0..strings.len() as u32 {
        if let Some(stripped) = without_go_shapes(strings.get(id), &finder) {
            strings.replace(id, &stripped);
        }
    }
}

/// `name` without balanced `[go.shape.…]` parts; `None` if it has none.
fn without_go_shapes(name: &[u8], finder: &memmem::Finder) -> Option<Vec<u8>> {
    let mut stripped = Vec::new();
    let mut rest = name;
    while let Some(start) = finder.find(rest) {
        let Some(length) = bracketed(&rest[start..]) else {
            break;
        };
        stripped.extend_from_slice(&rest[..start]);
        rest = &rest[start + length..];
    }
    if rest.len() == name.len() {
        return None;
    }
    stripped.extend_from_slice(rest);
    Some(stripped)
}

/// Length from the `[` at the start to its closing `]`, both included; `None` if it is never closed.
fn bracketed(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    for (i, byte) in text.iter().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests;
