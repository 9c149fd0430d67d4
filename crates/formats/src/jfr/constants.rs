//! The constants of a chunk: stacktraces, methods, classes and texts, by their keys.
//!
//! Owns: checkpoints, and finding and reading one constant. Of each only its position is kept.
//! Does not own: names of functions (`symbols.rs`).

use std::borrow::Cow;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::chunk::{CHECKPOINT, Chunk, Event};
use super::layout::{Compiler, Kind, Layout, Value, Wanted};
use super::metadata::Metadata;
use super::reader::{Reader, Text, Width};
use super::{CONSTANTS_MAX, Fault, Flaw};

pub(super) const STACK_TRACE: &str = "jdk.types.StackTrace";
pub(super) const THREAD_STATE: &str = "jdk.types.ThreadState";
const METHOD: &str = "jdk.types.Method";
const CLASS: &str = "java.lang.Class";
const SYMBOL: &str = "jdk.types.Symbol";
const STRING: &str = "java.lang.String";

/// A kind of constants that is kept. Others are skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
    StackTraces,
    Methods,
    Classes,
    Symbols,
    Strings,
    States,
}

const POOLS: [(Pool, &str, &[Wanted]); 6] = [
    (
        Pool::StackTraces,
        STACK_TRACE,
        &[
            Wanted { path: &["frames", "method"], kind: Kind::KeyOf(METHOD) },
            Wanted { path: &["frames", "lineNumber"], kind: Kind::Number },
        ],
    ),
    (
        Pool::Methods,
        METHOD,
        &[
            Wanted { path: &["type"], kind: Kind::KeyOf(CLASS) },
            Wanted { path: &["name"], kind: Kind::KeyOf(SYMBOL) },
        ],
    ),
    (Pool::Classes, CLASS, &[Wanted { path: &["name"], kind: Kind::KeyOf(SYMBOL) }]),
    (Pool::Symbols, SYMBOL, &[Wanted { path: &["string"], kind: Kind::Text }]),
    (Pool::Strings, STRING, &[Wanted { path: &[], kind: Kind::Text }]),
    (Pool::States, THREAD_STATE, &[Wanted { path: &["name"], kind: Kind::Text }]),
];

/// The kept constants of one kind.
#[derive(Default)]
struct Constants {
    layout: Layout,
    /// Key and position of each, by key.
    positions: Vec<(u64, u32)>,
}

/// All kept constants of a chunk.
pub(super) struct Pools<'a> {
    reader: Reader<'a>,
    pools: [Constants; POOLS.len()],
}

/// How to skip the constants of a type, and where to note them.
struct Skipper {
    pool: Option<Pool>,
    layout: Layout,
}

/// One frame of a stacktrace, leaf first.
#[derive(Clone, Copy, Default)]
pub(super) struct Frame {
    /// Key of a method.
    pub(super) method: u64,
    pub(super) line: i64,
}

impl<'a> Pools<'a> {
    /// Notes the constants of all checkpoints of a chunk. `other` receives the other events.
    ///
    /// # Errors
    /// If one is malformed, or there are more than [`CONSTANTS_MAX`].
    pub(super) fn read<'m>(
        chunk: &Chunk<'a>,
        metadata: &'m Metadata<'a>,
        compiler: &mut Compiler<'m, 'a>,
        mut other: impl FnMut(Event<'a>),
    ) -> Result<Self, Fault> {
        let mut pools = Self { reader: chunk.reader(), pools: Default::default() };
        let mut skippers = HashMap::new();
        let mut kept = 0;
        // Every checkpoint is an event: following their deltas as well could only lead to the same ones.
        chunk.for_each(|event| match event.kind {
            CHECKPOINT => pools.checkpoint(event.fields, metadata, compiler, &mut skippers, &mut kept),
            _ => {
                other(event);
                Ok(())
            }
        })?;
        for (pool, name, wanted) in POOLS {
            let constants = &mut pools.pools[pool as usize];
            // Of equal keys the last one counts: the sort is stable.
            constants.positions.sort_by_key(|(key, _)| *key);
            if let Some(described) = metadata.named(name).filter(|_| !constants.positions.is_empty()) {
                let fault = |flaw| Fault::new(chunk.metadata, flaw);
                constants.layout = compiler.layout(described, wanted).map_err(fault)?;
            }
        }
        Ok(pools)
    }

    fn checkpoint<'m>(
        &mut self,
        mut from: Reader<'a>,
        metadata: &'m Metadata<'a>,
        compiler: &mut Compiler<'m, 'a>,
        skippers: &mut HashMap<u64, Skipper>,
        kept: &mut usize,
    ) -> Result<(), Fault> {
        // Start, duration, and the distance to another checkpoint.
        for _ in 0..3 {
            from.number(Width::Long)?;
        }
        from.byte()?;
        for _ in 0..from.count()? {
            let before = from;
            let of = from.key()?;
            let skipper = match skippers.entry(of) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    vacant.insert(Skipper::of(of, metadata, compiler).map_err(|flaw| before.fault(flaw))?)
                }
            };
            let count = from.count()?;
            let Some(pool) = skipper.pool else {
                for _ in 0..count {
                    from.key()?;
                    skipper.layout.read(&mut from, &mut |_, _| {})?;
                }
                continue;
            };
            *kept += count;
            if *kept > CONSTANTS_MAX {
                return Err(from.fault(Flaw::TooMany { kind: "constants", limit: CONSTANTS_MAX }));
            }
            let positions = &mut self.pools[pool as usize].positions;
            positions.reserve(count);
            for _ in 0..count {
                positions.push((from.key()?, from.at() as u32));
                skipper.layout.read(&mut from, &mut |_, _| {})?;
            }
        }
        Ok(())
    }

    /// Reads the constant `key`, if it exists.
    fn get(&self, pool: Pool, key: u64, mut take: impl FnMut(u8, Value)) -> bool {
        let Constants { layout, positions } = &self.pools[pool as usize];
        let after = positions.partition_point(|(other, _)| *other <= key);
        let Some((found, position)) = after.checked_sub(1).map(|index| positions[index]) else {
            return false;
        };
        let mut from = self.reader.moved_to(position as usize);
        // It was read before, when it was noted.
        found == key && layout.read(&mut from, &mut take).is_ok()
    }

    /// Puts the frames of a stacktrace into `frames`; whether it exists.
    pub(super) fn frames(&self, stack_trace: u64, frames: &mut Vec<Frame>) -> bool {
        frames.clear();
        let mut frame = Frame::default();
        self.get(Pool::StackTraces, stack_trace, |slot, value| match (slot, value) {
            (0, Value::Number(method)) => frame.method = method as u64,
            (1, Value::Number(line)) => frame.line = line,
            (_, Value::Row) => frames.push(std::mem::take(&mut frame)),
            _ => {}
        })
    }

    /// The names of a method and of its class; `None` if one of both is missing.
    pub(super) fn method(&self, key: u64) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
        let (mut class, mut name) = (None, None);
        self.get(Pool::Methods, key, |slot, value| match (slot, value) {
            (0, Value::Number(key)) => class = Some(key as u64),
            (1, Value::Number(key)) => name = Some(key as u64),
            _ => {}
        });
        let mut class_name = None;
        let has_class = self.get(Pool::Classes, class?, |_, value| {
            if let Value::Number(key) = value {
                class_name = Some(key as u64);
            }
        });
        has_class.then(|| (self.symbol(class_name), self.symbol(name)))
    }

    /// The name of a thread state; `None` if it is missing.
    pub(super) fn thread_state(&self, key: u64) -> Option<Cow<'a, str>> {
        let mut name = Text::Empty;
        let exists = self.get(Pool::States, key, |_, value| take_text(value, &mut name));
        exists.then(|| self.short_text(name))
    }

    /// A text of the chunk; empty if it is missing, or too long for a setting or a name of few.
    pub(super) fn short_text(&self, text: Text) -> Cow<'a, str> {
        self.reader.text_of(self.unpooled(text).if_short())
    }

    fn symbol(&self, key: Option<u64>) -> Cow<'a, str> {
        let mut text = Text::Empty;
        if let Some(key) = key {
            self.get(Pool::Symbols, key, |_, value| take_text(value, &mut text));
        }
        self.reader.text_of(self.unpooled(text))
    }

    fn unpooled(&self, text: Text) -> Text {
        let Text::Pooled(key) = text else { return text };
        let mut pooled = Text::Empty;
        self.get(Pool::Strings, key, |_, value| take_text(value, &mut pooled));
        pooled
    }
}

fn take_text(value: Value, into: &mut Text) {
    if let Value::Text(text) = value {
        *into = text;
    }
}

impl Skipper {
    fn of<'m, 'a>(
        id: u64,
        metadata: &'m Metadata<'a>,
        compiler: &mut Compiler<'m, 'a>,
    ) -> Result<Self, Flaw> {
        let described = metadata.by_id(id).ok_or(Flaw::UnknownType { id })?;
        let name = metadata.name_of(described);
        let pool = POOLS.iter().find(|(_, known, _)| *known == name).map(|(pool, ..)| *pool);
        Ok(Self { pool, layout: compiler.layout(described, &[])? })
    }
}
