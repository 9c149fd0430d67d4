//! pprof bytes → columns, in one pass and without copying a string.
//!
//! Owns: the treatment of dangling references, and which flaws of a document are reported to the caller.
//! Does not own: whether a flaw is a reason to reject, size limits of tenants, normalisation (`distributor`).
//!
//! Ids in a pprof are any 64-bit numbers, and a reference may come before its target. So the pass keeps ids as they
//! are, and turns them into indices once everything was read.

use bytes::Bytes;
use hashbrown::HashMap;
use model::{Function, Line, Mapping, NONE, Profile, SampleLabel, StringId, Strings, ValueType};

use super::reader::{Error, Reader};

/// Most elements of each kind in one document, for kinds that take far more memory than their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest document, decompressed. At most 2³¹.
    pub bytes: usize,
    pub samples: usize,
    /// Labels of all samples together.
    pub labels: usize,
    pub mappings: usize,
    pub locations: usize,
    pub functions: usize,
}

impl Default for Limits {
    /// Ten times the counts of the largest known profile of a real program.
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            samples: 1 << 20,
            labels: 1 << 20,
            mappings: 1 << 15,
            locations: 1 << 20,
            functions: 1 << 20,
        }
    }
}

/// A decoded document, safe to work with, and the first reason why it should not be accepted.
///
/// In `profile`, for any input:
/// - string 0 exists and is empty, and every [`StringId`] is in the table;
/// - every sample has as many values as there are sample types: samples with another number are left out;
/// - a location in a stacktrace is an index, or [`NONE`] if the document has no such location or if that
///   location names a function that does not exist: normalisation drops such samples;
/// - a location's mapping is an index, or [`NONE`] if it has none (id 0) or one that does not exist: its frames are
///   known all the same;
/// - strings may be any bytes, not only UTF-8.
///
/// Labels are as sent: a number has `string` 0.
#[derive(Clone, Debug, Default)]
pub struct DecodedProfile {
    pub profile: Profile,
    /// Of several flaws, the first in the order of the variants of [`Flaw`].
    pub flaw: Option<Flaw>,
}

/// Why validation must reject a document that can be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    #[error("location {index} has id 0")]
    LocationIdZero { index: usize },
    #[error("function {index} has id 0")]
    FunctionIdZero { index: usize },
    #[error("sample {sample} has {values} values for {sample_types} sample types")]
    ValueCount { sample: usize, values: usize, sample_types: usize },
    #[error("string table is empty")]
    NoStrings,
    #[error("string 0 has {bytes} bytes, but must be empty")]
    FirstString { bytes: usize },
    #[error("a {holder} refers to a string outside of the table of {strings}")]
    StringIndex { holder: &'static str, strings: usize },
}

/// Decodes one document, already decompressed. Strings of the profile share `data`.
///
/// # Errors
/// If `data` is not a pprof message, or exceeds `limits`. Inconsistent content is no error: see [`DecodedProfile`].
pub fn decode(data: Bytes, limits: &Limits) -> Result<DecodedProfile, Error> {
    decode_as(data, limits, Dialect::Standard)
}

/// Decodes the documents that the .NET client sends to `/ingest`: functions without ids take the ids of the
/// locations at the same indices, and `-` in sample types becomes `_`.
///
/// # Errors
/// As [`decode`].
pub fn decode_dotnet(data: Bytes, limits: &Limits) -> Result<DecodedProfile, Error> {
    let mut decoded = decode_as(data, limits, Dialect::Dotnet)?;
    let profile = &mut decoded.profile;
    for sample_type in &profile.sample_types {
        let strings = &mut profile.symbols.strings;
        let name = strings.get(sample_type.r#type);
        if memchr::memchr(b'-', name).is_some() {
            let name: Vec<u8> = name.iter().map(|&b| if b == b'-' { b'_' } else { b }).collect();
            // Replaced in place, so that many types with one name cost no more than one.
            strings.replace(sample_type.r#type, &name);
        }
    }
    Ok(decoded)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Standard,
    Dotnet,
}

fn decode_as(data: Bytes, limits: &Limits, dialect: Dialect) -> Result<DecodedProfile, Error> {
    let limit = limits.bytes.min(1 << 31);
    if data.len() > limit {
        return Err(Error::TooLarge { bytes: data.len(), limit });
    }
    let mut pass = Pass::new(limits, Ids::default(), data.len());
    pass.profile(Reader::new(&data))?;
    if pass.ids.too_wide {
        let ids = Ids { wide: Some(HashMap::default()), too_wide: false };
        pass = Pass::new(limits, ids, data.len());
        pass.profile(Reader::new(&data))?;
    }
    Ok(pass.finish(data, dialect))
}

/// Maps 64-bit ids to 32-bit ones. Nearly every writer counts from 1, so ids are usually kept. If one does not fit,
/// the document is read again, and each distinct id gets the next number. 0 stays 0.
#[derive(Default)]
struct Ids {
    wide: Option<HashMap<u64, u32>>,
    too_wide: bool,
}

impl Ids {
    #[inline(always)]
    fn narrow(&mut self, id: u64) -> u32 {
        if self.wide.is_none() && id < u64::from(NONE) {
            return id as u32;
        }
        self.number(id)
    }

    #[cold]
    fn number(&mut self, id: u64) -> u32 {
        let Some(numbers) = &mut self.wide else {
            self.too_wide = true;
            return 0;
        };
        if id == 0 {
            return 0;
        }
        let next = numbers.len() as u32 + 1;
        *numbers.entry(id).or_insert(next)
    }
}

/// The pass over the bytes. References in `out` are ids until [`Pass::finish`] makes them indices.
struct Pass<'l> {
    limits: &'l Limits,
    ids: Ids,
    out: Profile,
    strings: Vec<(u32, u32)>,
    mapping_ids: Vec<u32>,
    location_ids: Vec<u32>,
    function_ids: Vec<u32>,
    /// End of the values of each sample; kept only once two samples differ in their number of values.
    value_ends: Option<Vec<u32>>,
}

/// A string index of the document. An index that does not fit 32 bits, or is negative, becomes one outside of any
/// table.
#[inline(always)]
fn string_id(index: u64) -> StringId {
    index.min(u64::from(NONE)) as u32
}

#[inline(always)]
fn check_count(kind: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    match count < limit {
        true => Ok(()),
        false => Err(Error::TooMany { kind, limit }),
    }
}

impl<'l> Pass<'l> {
    fn new(limits: &'l Limits, ids: Ids, bytes: usize) -> Self {
        let mut out = Profile::default();
        // Typical proportions of a document, so that columns seldom have to grow.
        out.symbols.stacktraces.locations.reserve(bytes / 8);
        out.symbols.locations.lines.reserve(bytes / 48);
        out.symbols.functions.reserve(bytes / 64);
        Self {
            limits,
            ids,
            out,
            strings: Vec::with_capacity(bytes / 48),
            mapping_ids: Vec::new(),
            location_ids: Vec::with_capacity(bytes / 48),
            function_ids: Vec::with_capacity(bytes / 64),
            value_ends: None,
        }
    }

    fn profile(&mut self, mut from: Reader) -> Result<(), Error> {
        while !from.is_done() {
            match from.tag()? {
                0x0a => {
                    let mut sample_type = ValueType::default();
                    value_type(from.message()?, &mut sample_type)?;
                    self.out.sample_types.push(sample_type);
                }
                0x12 => self.sample(from.message()?)?,
                0x1a => self.mapping(from.message()?)?,
                0x22 => self.location(from.message()?)?,
                0x2a => self.function(from.message()?)?,
                0x32 => {
                    let string = from.message()?;
                    self.strings.push((string.offset() as u32, string.left() as u32));
                }
                0x38 => self.out.drop_frames = string_id(from.varint()?),
                0x40 => self.out.keep_frames = string_id(from.varint()?),
                0x48 => self.out.time_nanos = from.varint()? as i64,
                0x50 => self.out.duration_nanos = from.varint()? as i64,
                0x5a => {
                    // A repeated message is merged, field by field.
                    let mut period_type = self.out.period_type.unwrap_or_default();
                    value_type(from.message()?, &mut period_type)?;
                    self.out.period_type = Some(period_type);
                }
                0x60 => self.out.period = from.varint()? as i64,
                0x68 => self.out.comments.push(string_id(from.varint()?)),
                0x6a => {
                    let mut packed = from.message()?;
                    while !packed.is_done() {
                        self.out.comments.push(string_id(packed.varint()?));
                    }
                }
                0x70 => self.out.default_sample_type = string_id(from.varint()?),
                tag => from.skip(tag, "profile", 14)?,
            }
        }
        Ok(())
    }

    fn sample(&mut self, mut from: Reader) -> Result<(), Error> {
        check_count("samples", self.out.samples.len(), self.limits.samples)?;
        let stacktraces = &mut self.out.symbols.stacktraces;
        let samples = &mut self.out.samples;
        let first_value = samples.values.len();
        while !from.is_done() {
            match from.tag()? {
                0x0a => {
                    let mut packed = from.message()?;
                    // At most one id per byte; `extend` would reserve again for each.
                    stacktraces.locations.reserve(packed.left());
                    while !packed.is_done() {
                        stacktraces.locations.push(self.ids.narrow(packed.varint()?));
                    }
                }
                0x08 => stacktraces.locations.push(self.ids.narrow(from.varint()?)),
                0x12 => {
                    let mut packed = from.message()?;
                    while !packed.is_done() {
                        samples.values.push(packed.varint()? as i64);
                    }
                }
                0x10 => samples.values.push(from.varint()? as i64),
                0x1a => {
                    check_count("labels", samples.labels.len(), self.limits.labels)?;
                    samples.labels.push(label(from.message()?)?);
                }
                tag => from.skip(tag, "sample", 3)?,
            }
        }
        stacktraces.offsets.push(stacktraces.locations.len() as u32);
        samples.label_offsets.push(samples.labels.len() as u32);

        let count = samples.len();
        let is_regular = (samples.values.len() - first_value) * count == samples.values.len();
        if !is_regular && self.value_ends.is_none() {
            let each = first_value / (count - 1).max(1);
            self.value_ends = Some((1..count).map(|i| (i * each) as u32).collect());
        }
        if let Some(ends) = &mut self.value_ends {
            ends.push(samples.values.len() as u32);
        }
        Ok(())
    }

    fn mapping(&mut self, mut from: Reader) -> Result<(), Error> {
        check_count("mappings", self.mapping_ids.len(), self.limits.mappings)?;
        let mut id = 0;
        let mut mapping = Mapping::default();
        while !from.is_done() {
            match from.tag()? {
                0x08 => id = from.varint()?,
                0x10 => mapping.memory_start = from.varint()?,
                0x18 => mapping.memory_limit = from.varint()?,
                0x20 => mapping.file_offset = from.varint()?,
                0x28 => mapping.filename = string_id(from.varint()?),
                0x30 => mapping.build_id = string_id(from.varint()?),
                0x38 => mapping.has_functions = from.varint()? != 0,
                0x40 => mapping.has_filenames = from.varint()? != 0,
                0x48 => mapping.has_line_numbers = from.varint()? != 0,
                0x50 => mapping.has_inline_frames = from.varint()? != 0,
                tag => from.skip(tag, "mapping", 10)?,
            }
        }
        self.mapping_ids.push(self.ids.narrow(id));
        self.out.symbols.mappings.push(mapping);
        Ok(())
    }

    fn location(&mut self, mut from: Reader) -> Result<(), Error> {
        check_count("locations", self.location_ids.len(), self.limits.locations)?;
        let locations = &mut self.out.symbols.locations;
        let (mut id, mut mapping, mut address, mut folded) = (0, 0, 0, false);
        while !from.is_done() {
            match from.tag()? {
                0x08 => id = from.varint()?,
                0x10 => mapping = from.varint()?,
                0x18 => address = from.varint()?,
                0x22 => {
                    let mut line = from.message()?;
                    let (mut function, mut number) = (0, 0);
                    while !line.is_done() {
                        match line.tag()? {
                            0x08 => function = line.varint()?,
                            0x10 => number = line.varint()? as i64,
                            tag => line.skip(tag, "line", 2)?,
                        }
                    }
                    let function = self.ids.narrow(function);
                    locations.lines.push(Line { function, line: number });
                }
                0x28 => folded = from.varint()? != 0,
                tag => from.skip(tag, "location", 5)?,
            }
        }
        self.location_ids.push(self.ids.narrow(id));
        locations.push(self.ids.narrow(mapping), address, folded, &[]);
        Ok(())
    }

    fn function(&mut self, mut from: Reader) -> Result<(), Error> {
        check_count("functions", self.function_ids.len(), self.limits.functions)?;
        let mut id = 0;
        let mut function = Function::default();
        while !from.is_done() {
            match from.tag()? {
                0x08 => id = from.varint()?,
                0x10 => function.name = string_id(from.varint()?),
                0x18 => function.system_name = string_id(from.varint()?),
                0x20 => function.filename = string_id(from.varint()?),
                0x28 => function.start_line = from.varint()? as i64,
                tag => from.skip(tag, "function", 5)?,
            }
        }
        self.function_ids.push(self.ids.narrow(id));
        self.out.symbols.functions.push(function);
        Ok(())
    }

    fn finish(mut self, data: Bytes, dialect: Dialect) -> DecodedProfile {
        let functions_lack_ids =
            self.function_ids.len() == self.location_ids.len() && self.function_ids.iter().all(|id| *id == 0);
        if dialect == Dialect::Dotnet && functions_lack_ids {
            self.function_ids.clone_from(&self.location_ids);
        }
        // In the order of `Flaw`.
        let location_zero = self.location_ids.iter().position(|id| *id == 0);
        let function_zero = self.function_ids.iter().position(|id| *id == 0);
        self.resolve_references();
        let value_count = self.drop_irregular_samples();
        let strings = self.settle_strings();
        self.out.symbols.strings = Strings::new(data, self.strings);
        DecodedProfile {
            profile: self.out,
            flaw: location_zero
                .map(|index| Flaw::LocationIdZero { index })
                .or(function_zero.map(|index| Flaw::FunctionIdZero { index }))
                .or(value_count)
                .or(strings),
        }
    }

    /// Turns ids into indices.
    fn resolve_references(&mut self) {
        let symbols = &mut self.out.symbols;
        Index::of(&self.function_ids)
            .resolve(symbols.locations.lines.iter_mut().map(|line| &mut line.function));

        Index::of(&self.mapping_ids).resolve(symbols.locations.mapping.iter_mut());

        Index::of(&self.location_ids).resolve(symbols.stacktraces.locations.iter_mut());
        if symbols.locations.lines.iter().any(|line| line.function == NONE) {
            let lacks_function = |i| symbols.locations.lines_of(i).iter().any(|line| line.function == NONE);
            let is_broken: Vec<bool> = (0..symbols.locations.len() as u32).map(lacks_function).collect();
            for location in &mut symbols.stacktraces.locations {
                if is_broken.get(*location as usize) == Some(&true) {
                    *location = NONE;
                }
            }
        }
    }

    /// Leaves out samples that do not have one value per sample type.
    fn drop_irregular_samples(&mut self) -> Option<Flaw> {
        let sample_types = self.out.sample_types.len();
        let samples = &self.out.samples;
        let (count, values) = (samples.len(), samples.values.len());
        let ends = match self.value_ends.take() {
            Some(ends) => ends,
            None if values == count * sample_types => return None,
            None => {
                let each = values / count.max(1);
                (1..=count).map(|i| (i * each) as u32).collect()
            }
        };
        let old = std::mem::take(&mut self.out.samples);
        let stacktraces = std::mem::take(&mut self.out.symbols.stacktraces);
        let mut flaw = None;
        let mut start = 0;
        for (sample, end) in ends.into_iter().enumerate() {
            let row = &old.values[start as usize..end as usize];
            start = end;
            if row.len() == sample_types {
                let samples = &mut self.out.samples;
                samples.values.extend_from_slice(row);
                samples.labels.extend_from_slice(old.labels_of(sample));
                samples.label_offsets.push(samples.labels.len() as u32);
                self.out.symbols.stacktraces.push(stacktraces.get(sample as u32));
            } else if flaw.is_none() {
                flaw = Some(Flaw::ValueCount { sample, values: row.len(), sample_types });
            }
        }
        flaw
    }

    /// Makes every string id valid, and string 0 the empty one.
    fn settle_strings(&mut self) -> Option<Flaw> {
        let strings = self.strings.len();
        let mut flaw = match self.strings.first_mut() {
            None => {
                self.strings.push((0, 0));
                Some(Flaw::NoStrings)
            }
            Some((_, 0)) => None,
            Some(first) => {
                let bytes = first.1 as usize;
                *first = (0, 0);
                Some(Flaw::FirstString { bytes })
            }
        };
        let length = self.strings.len() as u32;
        let mut settle = |holder, ids: &mut dyn Iterator<Item = &mut StringId>| {
            let mut outside = false;
            for id in ids.filter(|id| **id >= length) {
                *id = 0;
                outside = true;
            }
            if outside && flaw.is_none() {
                flaw = Some(Flaw::StringIndex { holder, strings });
            }
        };

        let out = &mut self.out;
        settle("sample type", &mut out.sample_types.iter_mut().map(|t| &mut t.r#type));
        let outside = |label: &SampleLabel| label.key.max(label.string) >= length;
        if out.samples.labels.iter().any(outside) {
            let ids = out.samples.labels.iter_mut().flat_map(|l| [&mut l.key, &mut l.string]);
            settle("sample label", &mut { ids });
        }
        let outside = |f: &Function| f.name.max(f.system_name).max(f.filename) >= length;
        if out.symbols.functions.iter().any(outside) {
            let ids = out.symbols.functions.iter_mut();
            let ids = ids.flat_map(|f| [&mut f.name, &mut f.system_name, &mut f.filename]);
            settle("function", &mut { ids });
        }
        let ids = out.symbols.mappings.iter_mut().flat_map(|m| [&mut m.filename, &mut m.build_id]);
        settle("mapping", &mut { ids });

        // Dangling references that are no reason to reject a document.
        let units = out.sample_types.iter_mut().map(|t| &mut t.unit);
        let units = units.chain(out.samples.labels.iter_mut().map(|l| &mut l.unit));
        let period = out.period_type.iter_mut().flat_map(|p| [&mut p.r#type, &mut p.unit]);
        let rest = [&mut out.default_sample_type, &mut out.drop_frames, &mut out.keep_frames];
        for id in units.chain(period).chain(rest).chain(&mut out.comments) {
            if *id >= length {
                *id = 0;
            }
        }
        flaw
    }
}

fn value_type(mut from: Reader, into: &mut ValueType) -> Result<(), Error> {
    while !from.is_done() {
        match from.tag()? {
            0x08 => into.r#type = string_id(from.varint()?),
            0x10 => into.unit = string_id(from.varint()?),
            tag => from.skip(tag, "value type", 2)?,
        }
    }
    Ok(())
}

fn label(mut from: Reader) -> Result<SampleLabel, Error> {
    let mut label = SampleLabel::default();
    while !from.is_done() {
        match from.tag()? {
            0x08 => label.key = string_id(from.varint()?),
            0x10 => label.string = string_id(from.varint()?),
            0x18 => label.number = from.varint()? as i64,
            0x20 => label.unit = string_id(from.varint()?),
            tag => from.skip(tag, "label", 4)?,
        }
    }
    Ok(label)
}

/// The index of each id. Of equal ids the last one counts; id 0 has no index.
enum Index {
    /// Ids are 1, 2, … n.
    Counted(u32),
    /// Indices by id.
    Table(Vec<u32>),
    Map(HashMap<u32, u32>),
}

impl Index {
    fn of(ids: &[u32]) -> Self {
        if ids.iter().zip(1..).all(|(id, expected)| *id == expected) {
            return Self::Counted(ids.len() as u32);
        }
        let pairs = ids.iter().zip(0..).filter(|(id, _)| **id != 0);
        let largest = ids.iter().max().map_or(0, |id| *id as usize);
        if largest / 4 > ids.len() {
            return Self::Map(pairs.map(|(id, index)| (*id, index)).collect());
        }
        let mut table = vec![NONE; largest + 1];
        for (id, index) in pairs {
            table[*id as usize] = index;
        }
        Self::Table(table)
    }

    fn get(&self, id: u32) -> u32 {
        match self {
            Self::Counted(count) => counted(id, *count),
            Self::Table(table) => table.get(id as usize).copied().unwrap_or(NONE),
            Self::Map(map) => map.get(&id).copied().unwrap_or(NONE),
        }
    }

    /// Replaces each id by its index, or by [`NONE`].
    fn resolve<'a>(&self, ids: impl Iterator<Item = &'a mut u32>) {
        match self {
            // A separate case, because this loop needs no branch.
            Self::Counted(count) => ids.for_each(|id| *id = counted(*id, *count)),
            _ => ids.for_each(|id| *id = self.get(*id)),
        }
    }
}

#[inline(always)]
fn counted(id: u32, count: u32) -> u32 {
    let index = id.wrapping_sub(1);
    if index < count { index } else { NONE }
}

#[cfg(test)]
mod tests;
