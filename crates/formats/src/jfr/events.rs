//! Events of a recording → samples.
//!
//! Owns: which events count, which of their fields, and as what.
//! Does not own: how fields are read (`layout.rs`), what settings mean (`settings.rs`).

use hashbrown::HashMap;

use super::chunk::{Chunk, Event};
use super::constants::{Pools, STACK_TRACE, THREAD_STATE};
use super::labels::Labels;
use super::layout::{Compiler, Kind, Layout, Value, Wanted};
use super::metadata::Metadata;
use super::profiles::{Builder, Key, MEASURES, Measure, Samples};
use super::reader::{Reader, Text};
use super::settings::Settings;
use super::symbols::{Symbols, at};
use super::{Error, Fault, Flaw, Options, Recording, SAMPLES_MAX};

const EXECUTION_SAMPLE: &str = "jdk.ExecutionSample";
const ACTIVE_SETTING: &str = "jdk.ActiveSetting";

/// What an event with a stacktrace stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meaning {
    Execution,
    /// A number of equal samples of one thread.
    WallBatch,
    /// A time of its own, in ticks.
    CpuTime,
    /// One event, and a value of its own.
    Pair(Measure),
}

/// Names of the events that count, and of the field with their value.
const EVENTS: [(&str, Meaning, &[&str]); 10] = [
    (EXECUTION_SAMPLE, Meaning::Execution, &[]),
    ("profiler.WallClockSample", Meaning::WallBatch, &["samples"]),
    ("jdk.CPUTimeSample", Meaning::CpuTime, &["samplingPeriod"]),
    ("jdk.ObjectAllocationInNewTLAB", Meaning::Pair(Measure::InNewTlab), &["tlabSize"]),
    ("jdk.ObjectAllocationOutsideTLAB", Meaning::Pair(Measure::OutsideTlab), &["allocationSize"]),
    ("jdk.ObjectAllocationSample", Meaning::Pair(Measure::SampledAllocation), &["weight"]),
    ("jdk.JavaMonitorEnter", Meaning::Pair(Measure::Mutex), &["duration"]),
    ("jdk.ThreadPark", Meaning::Pair(Measure::Block), &["duration"]),
    ("profiler.LiveObject", Meaning::Pair(Measure::Live), &[]),
    ("profiler.Malloc", Meaning::Pair(Measure::Malloc), &["size"]),
];

/// The fields of an event that count; absent ones are 0.
#[derive(Clone, Copy, Default)]
struct Fields {
    stack_trace: u64,
    state: u64,
    value: i64,
    context: u64,
    span: u64,
    span_name: u64,
    trace: [u64; 2],
}

const SETTING: [Wanted; 3] = [
    Wanted { path: &["id"], kind: Kind::Number },
    Wanted { path: &["name"], kind: Kind::Text },
    Wanted { path: &["value"], kind: Kind::Text },
];

fn wanted(value: &'static [&'static str]) -> [Wanted; 8] {
    let number = |path| Wanted { path, kind: Kind::Number };
    [
        Wanted { path: &["stackTrace"], kind: Kind::KeyOf(STACK_TRACE) },
        Wanted { path: &["state"], kind: Kind::KeyOf(THREAD_STATE) },
        number(&["contextId"]),
        number(&["spanId"]),
        number(&["spanName"]),
        number(&["traceIdHi"]),
        number(&["traceIdLo"]),
        number(value),
    ]
}

impl Fields {
    fn read(event: &Event, layout: &Layout) -> Result<Self, Fault> {
        let mut fields = Self::default();
        let mut from = event.fields;
        layout.read(&mut from, &mut |slot, value| {
            let Value::Number(number) = value else { return };
            match slot {
                0 => fields.stack_trace = number as u64,
                1 => fields.state = number as u64,
                2 => fields.context = number as u64,
                3 => fields.span = number as u64,
                4 => fields.span_name = number as u64,
                5 => fields.trace[0] = number as u64,
                6 => fields.trace[1] = number as u64,
                _ => fields.value = number,
            }
        })?;
        Ok(fields)
    }
}

/// The state of the thread of a sample, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not among the constants.
    Unknown,
    Default,
    Runnable,
    Sleeping,
    Other,
}

/// Reads the chunks of a recording one after the other.
pub(super) struct Recorder<'o> {
    options: &'o Options,
    settings: Settings,
    symbols: Symbols,
    samples: [Samples; MEASURES.len()],
}

/// What is known about the current chunk.
struct Context<'p, 'a> {
    pools: &'p Pools<'a>,
    ticks_per_second: i64,
    states: HashMap<u64, State>,
}

impl<'o> Recorder<'o> {
    pub(super) fn new(options: &'o Options) -> Self {
        Self {
            options,
            settings: Settings::default(),
            symbols: Symbols::default(),
            samples: Default::default(),
        }
    }

    /// # Errors
    /// If the chunk is malformed, or a limit is exceeded.
    pub(super) fn read(&mut self, chunk: &Chunk) -> Result<(), Fault> {
        let metadata = Metadata::read(chunk)?;
        let mut compiler = Compiler::new(&metadata);
        let place = at(chunk.metadata);
        let setting = metadata.named(ACTIVE_SETTING);
        let mut settings = Vec::new();
        let pools = Pools::read(chunk, &metadata, &mut compiler, |event| {
            if setting.is_some_and(|setting| setting.id == event.kind) {
                settings.push(event.fields);
            }
        })?;
        if let Some(setting) = setting {
            let layout = compiler.layout(setting, &SETTING).map_err(&place)?;
            let samples = metadata.named(EXECUTION_SAMPLE).map(|described| described.id);
            self.read_settings(settings, &layout, &pools, samples)?;
        }
        let mut events = HashMap::new();
        for described in metadata.types() {
            let name = metadata.name_of(described);
            if let Some((_, meaning, value)) = EVENTS.iter().find(|(known, ..)| *known == name) {
                let layout = compiler.layout(described, &wanted(value)).map_err(&place)?;
                events.insert(described.id, (*meaning, layout));
            }
        }
        self.symbols.begin_chunk();
        let mut context =
            Context { pools: &pools, ticks_per_second: chunk.ticks_per_second, states: HashMap::new() };
        chunk.for_each(|event| match events.get(&event.kind) {
            Some((meaning, layout)) => {
                let fields = Fields::read(&event, layout)?;
                self.add(*meaning, &fields, &mut context).map_err(at(event.fields.at()))
            }
            None => Ok(()),
        })
    }

    /// Reads the settings of a chunk, before its samples: they are not always written in this order.
    fn read_settings<'a>(
        &mut self,
        events: Vec<Reader<'a>>,
        layout: &Layout,
        pools: &Pools<'a>,
        samples: Option<u64>,
    ) -> Result<(), Fault> {
        for mut event in events {
            let (mut id, mut texts) = (None, [Text::Empty; 2]);
            layout.read(&mut event, &mut |slot, value| match value {
                Value::Number(number) => id = Some(number as u64),
                Value::Text(text) => texts[usize::from(slot == 2)] = text,
                Value::Row => {}
            })?;
            let [name, value] = texts.map(|text| pools.short_text(text));
            self.settings.set(&name, &value, id.is_some() && id == samples);
        }
        Ok(())
    }

    fn add(&mut self, meaning: Meaning, fields: &Fields, context: &mut Context) -> Result<(), Flaw> {
        let state = context.state(fields.state);
        let is_wall = self.settings.is_wall();
        let may_count_asleep = is_wall || self.settings.has_unbatched_wall();
        // Most events of a recording of all threads are of sleeping ones.
        if meaning == Meaning::Execution && state == State::Sleeping && !may_count_asleep {
            return Ok(());
        }
        let Some(stacktrace) = self.symbols.find(context.pools, fields.stack_trace)? else {
            return Ok(());
        };
        let [high, low] = fields.trace.map(u128::from);
        let key = Key {
            stacktrace,
            context: fields.context,
            span: fields.span,
            span_name: fields.span_name,
            trace: high << 64 | low,
        };
        match meaning {
            Meaning::Execution if self.settings.has_unbatched_wall() => match state {
                State::Default => self.add_time(Measure::Cpu, key, 1),
                _ => self.add_time(Measure::Wall, key, 1),
            },
            Meaning::Execution => {
                if !matches!(state, State::Unknown | State::Sleeping) {
                    self.add_time(Measure::Cpu, key, 1)?;
                }
                if is_wall { self.add_time(Measure::Wall, key, 1) } else { Ok(()) }
            }
            Meaning::WallBatch => {
                self.add_time(Measure::Wall, key, fields.value)?;
                match is_wall && state == State::Runnable {
                    true => self.add_time(Measure::Cpu, key, fields.value),
                    false => Ok(()),
                }
            }
            Meaning::CpuTime => self.push(Measure::MeteredCpu, key, [context.nanos(fields.value)?, 0]),
            Meaning::Pair(measure) => self.push(measure, key, [1, fields.value]),
        }
    }

    /// Adds samples, as the time that they stand for.
    fn add_time(&mut self, measure: Measure, key: Key, samples: i64) -> Result<(), Flaw> {
        let nanos = match measure {
            Measure::Wall => self.settings.wall_nanos(self.options.sample_rate),
            _ => self.settings.cpu_nanos(self.options.sample_rate),
        };
        let nanos = samples.checked_mul(nanos).ok_or(Flaw::Sum)?;
        self.push(measure, key, [nanos, 0])
    }

    fn push(&mut self, measure: Measure, key: Key, values: [i64; 2]) -> Result<(), Flaw> {
        let samples = &mut self.samples[measure as usize];
        samples.add(key, values)?;
        match samples.len() > SAMPLES_MAX {
            true => Err(Flaw::TooMany { kind: "samples of one profile", limit: SAMPLES_MAX }),
            false => Ok(()),
        }
    }

    /// # Errors
    /// If the profiles have too many elements.
    pub(super) fn finish(self, labels: &Labels) -> Result<Recording, Error> {
        let mut builder = Builder {
            symbols: &self.symbols,
            labels,
            options: self.options,
            location_count: 0,
            label_count: 0,
        };
        let is_metered = !self.samples[Measure::MeteredCpu as usize].is_empty();
        let mut profiles = Vec::new();
        for measure in MEASURES {
            let samples = &self.samples[measure as usize];
            // A recording with both counts the same work twice.
            let is_replaced = is_metered && measure == Measure::Cpu;
            if !samples.is_empty() && !is_replaced {
                profiles.push(builder.profile(measure, samples)?);
            }
        }
        Ok(Recording { event: self.settings.event, profiles })
    }
}

impl Context<'_, '_> {
    fn state(&mut self, key: u64) -> State {
        let pools = self.pools;
        *self.states.entry(key).or_insert_with(|| match pools.thread_state(key).as_deref() {
            None => State::Unknown,
            Some("STATE_DEFAULT") => State::Default,
            Some("STATE_RUNNABLE") => State::Runnable,
            Some("STATE_SLEEPING") => State::Sleeping,
            Some(_) => State::Other,
        })
    }

    fn nanos(&self, ticks: i64) -> Result<i64, Flaw> {
        let nanos = i128::from(ticks) * 1_000_000_000 / i128::from(self.ticks_per_second.max(1));
        i64::try_from(nanos).map_err(|_| Flaw::Sum)
    }
}
