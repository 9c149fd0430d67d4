//! Samples of a recording by kind of event, and the profiles made of them.
//!
//! Owns: types, units and periods of each kind; summing samples with equal stacktraces and labels.
//! Does not own: which event counts as what (`events.rs`).

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::{Function, Line, Mapping, NONE, Profile, SampleLabel, StringId, ValueType};

use super::labels::Labels;
use super::symbols::Symbols;
use super::{Error, Flaw, LABELS_MAX, LOCATIONS_MAX, NamedProfile, Options};

/// A kind of samples; each becomes one profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measure {
    Cpu,
    /// CPU time of samples that know how much they stand for; replaces [`Self::Cpu`] where there is both.
    MeteredCpu,
    Wall,
    InNewTlab,
    OutsideTlab,
    SampledAllocation,
    Mutex,
    Block,
    Live,
    Malloc,
}

pub(super) const MEASURES: [Measure; 10] = [
    Measure::Cpu,
    Measure::MeteredCpu,
    Measure::Wall,
    Measure::InNewTlab,
    Measure::OutsideTlab,
    Measure::SampledAllocation,
    Measure::Mutex,
    Measure::Block,
    Measure::Live,
    Measure::Malloc,
];

type TypeAndUnit = (&'static str, &'static str);

/// `__name__`, the columns and the period of a profile.
struct Schema {
    name: &'static str,
    columns: &'static [TypeAndUnit],
    period: Option<TypeAndUnit>,
}

impl Measure {
    fn schema(self) -> Schema {
        const CPU: TypeAndUnit = ("cpu", "nanoseconds");
        const WALL: TypeAndUnit = ("wall", "nanoseconds");
        const WAITS: &[TypeAndUnit] = &[("contentions", "count"), ("delay", "nanoseconds")];
        let memory = |columns, period| Schema { name: "memory", columns, period };
        let space = Some(("space", "bytes"));
        match self {
            Self::Cpu | Self::MeteredCpu => {
                Schema { name: "process_cpu", columns: &[CPU], period: Some(CPU) }
            }
            Self::Wall => Schema { name: "wall", columns: &[WALL], period: Some(WALL) },
            Self::InNewTlab => {
                memory(&[("alloc_in_new_tlab_objects", "count"), ("alloc_in_new_tlab_bytes", "bytes")], space)
            }
            Self::OutsideTlab => memory(
                &[("alloc_outside_tlab_objects", "count"), ("alloc_outside_tlab_bytes", "bytes")],
                space,
            ),
            Self::SampledAllocation => {
                memory(&[("alloc_sample_objects", "count"), ("alloc_sample_bytes", "bytes")], space)
            }
            Self::Mutex => Schema { name: "mutex", columns: WAITS, period: Some(("mutex", "count")) },
            Self::Block => Schema { name: "block", columns: WAITS, period: Some(("block", "count")) },
            Self::Live => memory(&[("live", "count")], Some(("objects", "count"))),
            Self::Malloc => memory(&[("malloc_objects", "count"), ("malloc_bytes", "bytes")], None),
        }
    }
}

/// What distinguishes samples of one measure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Key {
    pub(super) stacktrace: u32,
    /// The ids below are 0 if absent.
    pub(super) context: u64,
    pub(super) span: u64,
    /// Id of a string of the labels.
    pub(super) span_name: u64,
    pub(super) trace: u128,
}

/// The samples of one measure, in the order of their first events.
#[derive(Default)]
pub(super) struct Samples {
    hasher: DefaultHashBuilder,
    positions: HashTable<u32>,
    rows: Vec<(Key, [i64; 2])>,
}

impl Samples {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds values, of which the second is unused in a measure with one column.
    ///
    /// # Errors
    /// If a sum does not fit 63 bits.
    pub(super) fn add(&mut self, key: Key, values: [i64; 2]) -> Result<(), Flaw> {
        let Self { hasher, rows, .. } = self;
        let hash = hasher.hash_one(key);
        let known = self.positions.find(hash, |position| rows[*position as usize].0 == key);
        let Some(position) = known else {
            self.positions.insert_unique(hash, rows.len() as u32, |position| {
                hasher.hash_one(rows[*position as usize].0)
            });
            rows.push((key, values));
            return Ok(());
        };
        for (sum, value) in rows[*position as usize].1.iter_mut().zip(values) {
            *sum = sum.checked_add(value).ok_or(Flaw::Sum)?;
        }
        Ok(())
    }
}

/// Makes the profiles of a recording.
pub(super) struct Builder<'r> {
    pub(super) symbols: &'r Symbols,
    pub(super) labels: &'r Labels<'r>,
    pub(super) options: &'r Options,
    /// Elements of all profiles so far.
    pub(super) location_count: usize,
    pub(super) label_count: usize,
}

impl Builder<'_> {
    /// # Errors
    /// If the profiles so far have too many locations or labels.
    pub(super) fn profile(&mut self, measure: Measure, samples: &Samples) -> Result<NamedProfile, Error> {
        let schema = measure.schema();
        let mut profile = Profile {
            time_nanos: self.options.time_nanos,
            duration_nanos: self.options.duration_nanos,
            ..Profile::default()
        };
        let strings = &mut profile.symbols.strings;
        strings.push(b"");
        let mut value_type = |(name, unit): TypeAndUnit| ValueType {
            r#type: strings.push(name.as_bytes()),
            unit: strings.push(unit.as_bytes()),
        };
        profile.sample_types = schema.columns.iter().map(|column| value_type(*column)).collect();
        profile.period_type = schema.period.map(value_type);
        profile.symbols.mappings.push(Mapping { has_functions: true, ..Mapping::default() });
        let mut used = Used {
            functions: vec![NONE; self.symbols.functions()],
            locations: vec![NONE; self.symbols.locations().len()],
        };
        let mut texts = Texts::new(&mut profile);
        let mut stacktrace = Vec::new();
        for (key, values) in &samples.rows {
            let locations = self.symbols.stacktrace(key.stacktrace);
            self.location_count += locations.len();
            if self.location_count > LOCATIONS_MAX {
                return Err(Error::TooMany { kind: "locations in stacktraces", limit: LOCATIONS_MAX });
            }
            stacktrace.clear();
            for location in locations {
                stacktrace.push(used.location(*location, self.symbols, &mut profile));
            }
            profile.symbols.stacktraces.push(&stacktrace);
            profile.samples.values.extend_from_slice(&values[..schema.columns.len()]);
            self.add_labels(key, &mut texts, &mut profile)?;
        }
        Ok(NamedProfile { name: schema.name, profile })
    }

    fn add_labels(&mut self, key: &Key, texts: &mut Texts, profile: &mut Profile) -> Result<(), Error> {
        let before = profile.samples.labels.len();
        for (name, value) in self.labels.of(key.context) {
            let label = (texts.get(*name, self.labels, profile), texts.get(*value, self.labels, profile));
            push_label(profile, label);
        }
        if key.span != 0 {
            let value = profile.symbols.strings.push(format!("{:016x}", key.span).as_bytes());
            push_label(profile, (texts.span_id, value));
        }
        if key.trace != 0 {
            let value = profile.symbols.strings.push(format!("{:032x}", key.trace).as_bytes());
            push_label(profile, (texts.trace_id, value));
        }
        if key.span_name != 0 && !self.labels.string(key.span_name).is_empty() {
            let value = texts.get(key.span_name, self.labels, profile);
            push_label(profile, (texts.span_name, value));
        }
        profile.samples.label_offsets.push(profile.samples.labels.len() as u32);
        self.label_count += profile.samples.labels.len() - before;
        match self.label_count > LABELS_MAX {
            true => Err(Error::TooMany { kind: "labels of samples", limit: LABELS_MAX }),
            false => Ok(()),
        }
    }
}

fn push_label(profile: &mut Profile, (key, string): (StringId, StringId)) {
    profile.samples.labels.push(SampleLabel { key, string, ..SampleLabel::default() });
}

/// Strings of one profile that labels use.
struct Texts {
    span_id: StringId,
    trace_id: StringId,
    span_name: StringId,
    /// By the id in the labels.
    others: HashMap<u64, StringId>,
}

impl Texts {
    fn new(profile: &mut Profile) -> Self {
        let strings = &mut profile.symbols.strings;
        Self {
            span_id: strings.push(b"span_id"),
            trace_id: strings.push(b"trace_id"),
            span_name: strings.push(b"span_name"),
            others: HashMap::new(),
        }
    }

    fn get(&mut self, id: u64, labels: &Labels, profile: &mut Profile) -> StringId {
        *self.others.entry(id).or_insert_with(|| match labels.string(id) {
            b"" => 0,
            text => profile.symbols.strings.push(String::from_utf8_lossy(text).as_bytes()),
        })
    }
}

/// Indices in a profile of the functions and locations of the recording; [`NONE`] if not used so far.
struct Used {
    functions: Vec<u32>,
    locations: Vec<u32>,
}

impl Used {
    fn location(&mut self, location: u32, symbols: &Symbols, profile: &mut Profile) -> u32 {
        let known = &mut self.locations[location as usize];
        if *known == NONE {
            let of = symbols.locations()[location as usize];
            let function = &mut self.functions[of.function as usize];
            let symbols_of_profile = &mut profile.symbols;
            if *function == NONE {
                *function = symbols_of_profile.functions.len() as u32;
                let name = symbols_of_profile.strings.push(symbols.name(of.function));
                symbols_of_profile.functions.push(Function { name, ..Function::default() });
            }
            let line = Line { function: *function, line: of.line };
            *known = symbols_of_profile.locations.push(0, 0, false, &[line]);
        }
        *known
    }
}
