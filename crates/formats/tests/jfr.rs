//! Recordings of our own making are read as they were written, and damaged ones never do harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop where it is"
)]

mod jfr_writer;

use std::collections::BTreeMap;

use formats::jfr::{self, Error, Flaw, Options, Recording};
use jfr_writer::{Chunk, Field, Fields, Form, Value};
use proptest::prelude::*;

const OPTIONS: Options = Options { sample_rate: Some(100), time_nanos: 5, duration_nanos: 7 };

/// A frame: class, method and line.
type Frame = (String, String, i64);

fn number(name: &'static str, number: i64) -> (&'static str, Value) {
    (name, Value::Number(number))
}

fn text(name: &'static str, text: &str) -> (&'static str, Value) {
    (name, Value::Text(text.to_owned()))
}

/// Keys of constants, spread over all 64 bits.
fn key(index: usize) -> u64 {
    (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const STATES: [&str; 4] = ["STATE_DEFAULT", "STATE_RUNNABLE", "STATE_SLEEPING", "STATE_PARKED"];

/// The checkpoints of stacktraces `stacks`, leaf first; stacktrace `i` has `key(i)`.
fn checkpoints(stacks: &[Vec<Frame>]) -> Vec<Vec<jfr_writer::Pool>> {
    let (mut symbols, mut classes, mut methods, mut traces) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, stack) in stacks.iter().enumerate() {
        let mut rows: Vec<Fields> = Vec::new();
        for (class, method, line) in stack {
            let next = symbols.len();
            symbols.push((key(next), vec![text("string", class)]));
            symbols.push((key(next + 1), vec![text("string", method)]));
            classes.push((key(next), vec![number("name", key(next) as i64)]));
            methods.push((
                key(next),
                vec![number("type", key(next) as i64), number("name", key(next + 1) as i64)],
            ));
            rows.push(vec![number("method", key(next) as i64), number("lineNumber", *line)]);
        }
        traces.push((key(index), vec![("frames", Value::Rows(rows))]));
    }
    let states = STATES.iter().enumerate();
    let states = states.map(|(index, name)| (index as u64, vec![text("name", name)])).collect();
    vec![
        vec![("jdk.types.StackTrace", traces), ("jdk.types.ThreadState", states)],
        vec![("jdk.types.Symbol", symbols)],
        vec![("java.lang.Class", classes), ("jdk.types.Method", methods)],
    ]
}

fn frame(class: &str, method: &str, line: i64) -> Frame {
    (class.to_owned(), method.to_owned(), line)
}

fn setting(name: &str, value: &str) -> (&'static str, Fields) {
    ("jdk.ActiveSetting", vec![text("name", name), text("value", value)])
}

fn event(name: &'static str, stack: usize, rest: Fields) -> (&'static str, Fields) {
    let mut fields = vec![number("stackTrace", key(stack) as i64), number("startTime", 12)];
    fields.extend(rest);
    (name, fields)
}

fn state(name: &str) -> (&'static str, Value) {
    number("state", STATES.iter().position(|state| *state == name).expect("a state") as i64)
}

/// A chunk with one stack `Main.main:1;Work.run:2`, and a stack without frames.
fn chunk(form: Form, events: Vec<(&'static str, Fields)>) -> Chunk {
    let mut chunk = Chunk::new(form);
    chunk.checkpoints = checkpoints(&[vec![frame("Work", "run", 2), frame("Main", "main", 1)], vec![]]);
    chunk.events = events;
    chunk
}

fn decode(bytes: &[u8]) -> Recording {
    jfr::decode(bytes, b"", &OPTIONS).unwrap()
}

/// One line per sample: types, stack with the root first, labels, values.
fn lines(recording: &Recording) -> Vec<String> {
    let mut lines = Vec::new();
    for named in &recording.profiles {
        let profile = &named.profile;
        let (symbols, samples) = (&profile.symbols, &profile.samples);
        let string = |id| symbols.strings.text(id);
        let types: Vec<_> = profile.sample_types.iter().map(|column| string(column.r#type)).collect();
        for sample in 0..samples.len() {
            let locations = symbols.stacktraces.get(sample as u32).iter().rev();
            let stack: Vec<String> = locations
                .map(|location| {
                    let line = symbols.locations.lines_of(*location)[0];
                    let name = symbols.functions[line.function as usize].name;
                    format!("{}:{}", string(name), line.line)
                })
                .collect();
            let labels = samples.labels_of(sample).iter();
            let labels: Vec<_> =
                labels.map(|label| format!(" {}={}", string(label.key), string(label.string))).collect();
            let values = &samples.values[sample * types.len()..(sample + 1) * types.len()];
            let (name, types, stack) = (named.name, types.join(","), stack.join(";"));
            lines.push(format!("{name} {types} {stack}{} {values:?}", labels.concat()));
        }
    }
    lines
}

const STACK: &str = "Main.main:1;Work.run:2";

#[test]
fn each_event_becomes_a_sample_of_its_type() {
    let value = |name| vec![number(name, 64)];
    let cases = [
        ("jdk.ExecutionSample", vec![state("STATE_DEFAULT")], "process_cpu cpu", "[10000000]"),
        ("jdk.ExecutionSample", vec![state("STATE_PARKED")], "process_cpu cpu", "[10000000]"),
        ("profiler.WallClockSample", value("samples"), "wall wall", "[640000000]"),
        ("jdk.CPUTimeSample", value("samplingPeriod"), "process_cpu cpu", "[64]"),
        (
            "jdk.ObjectAllocationInNewTLAB",
            value("tlabSize"),
            "memory alloc_in_new_tlab_objects,alloc_in_new_tlab_bytes",
            "[1, 64]",
        ),
        (
            "jdk.ObjectAllocationOutsideTLAB",
            value("allocationSize"),
            "memory alloc_outside_tlab_objects,alloc_outside_tlab_bytes",
            "[1, 64]",
        ),
        (
            "jdk.ObjectAllocationSample",
            value("weight"),
            "memory alloc_sample_objects,alloc_sample_bytes",
            "[1, 64]",
        ),
        ("jdk.JavaMonitorEnter", value("duration"), "mutex contentions,delay", "[1, 64]"),
        ("jdk.ThreadPark", value("duration"), "block contentions,delay", "[1, 64]"),
        ("profiler.LiveObject", value("allocationSize"), "memory live", "[1]"),
        ("profiler.Malloc", value("size"), "memory malloc_objects,malloc_bytes", "[1, 64]"),
    ];
    for (name, fields, types, values) in cases {
        let recording = decode(&chunk(Form::default(), vec![event(name, 0, fields)]).bytes());
        assert_eq!(lines(&recording), [format!("{types} {STACK} {values}")], "{name}");
        let profile = &recording.profiles[0].profile;
        assert_eq!((profile.time_nanos, profile.duration_nanos), (5, 7));
    }
}

#[test]
fn types_and_periods_are_those_that_clients_know() {
    let names = [
        ("profiler.WallClockSample", "samples"),
        ("jdk.ObjectAllocationInNewTLAB", "tlabSize"),
        ("profiler.LiveObject", "allocationSize"),
        ("profiler.Malloc", "size"),
        ("jdk.ThreadPark", "duration"),
    ];
    let mut types = Vec::new();
    let events = names.map(|(name, value)| event(name, 0, vec![number(value, 1)])).into_iter().collect();
    for named in decode(&chunk(Form::default(), events).bytes()).profiles {
        let strings = &named.profile.symbols.strings;
        let pair =
            |value: &model::ValueType| format!("{}:{}", strings.text(value.r#type), strings.text(value.unit));
        let period = named.profile.period_type.as_ref().map_or(":".to_owned(), pair);
        types.extend(
            named
                .profile
                .sample_types
                .iter()
                .map(|column| format!("{}:{}:{period}", named.name, pair(column))),
        );
    }
    let expected = [
        "wall:wall:nanoseconds:wall:nanoseconds",
        "memory:alloc_in_new_tlab_objects:count:space:bytes",
        "memory:alloc_in_new_tlab_bytes:bytes:space:bytes",
        "block:contentions:count:block:count",
        "block:delay:nanoseconds:block:count",
        "memory:live:count:objects:count",
        "memory:malloc_objects:count::",
        "memory:malloc_bytes:bytes::",
    ];
    assert_eq!(types, expected);
}

#[test]
fn the_setting_of_the_event_tells_cpu_samples_from_wall_samples() {
    let samples = |settings: &[(&str, &str)]| {
        let mut events: Vec<_> = settings.iter().map(|(name, value)| setting(name, value)).collect();
        for name in ["STATE_DEFAULT", "STATE_RUNNABLE", "STATE_SLEEPING"] {
            events.push(event("jdk.ExecutionSample", 0, vec![state(name)]));
        }
        events.push(event(
            "profiler.WallClockSample",
            0,
            vec![state("STATE_RUNNABLE"), number("samples", 10)],
        ));
        let recording = decode(&chunk(Form::default(), events).bytes());
        (recording.event.clone(), lines(&recording))
    };
    let cpu = |samples: i64| format!("process_cpu cpu {STACK} [{}]", samples * 10_000_000);
    let wall = |samples: i64| format!("wall wall {STACK} [{}]", samples * 10_000_000);
    assert_eq!(samples(&[]), (String::new(), vec![cpu(2), wall(10)]));
    assert_eq!(samples(&[("event", "itimer")]), ("itimer".to_owned(), vec![cpu(2), wall(10)]));
    assert_eq!(samples(&[("event", "wall")]), ("wall".to_owned(), vec![cpu(12), wall(13)]));
}

#[test]
fn cpu_time_samples_replace_execution_samples() {
    let events = vec![
        event("jdk.ExecutionSample", 0, vec![state("STATE_RUNNABLE")]),
        event("jdk.CPUTimeSample", 0, vec![number("samplingPeriod", 20)]),
        event("jdk.CPUTimeSample", 0, vec![number("samplingPeriod", 30)]),
    ];
    assert_eq!(
        lines(&decode(&chunk(Form::default(), events).bytes())),
        [format!("process_cpu cpu {STACK} [50]")]
    );
}

#[test]
fn contexts_and_spans_become_labels_and_keep_samples_apart() {
    let labels = b"\x0a\x0a\x08\x07\x12\x06\x0a\x04\x08\x01\x10\x02\x12\x07\x08\x01\x12\x03key\x12\x09\x08\x02\x12\x05value\x12\x06\x12\x04zero";
    let run = |context, span, span_name| {
        let fields = vec![
            state("STATE_DEFAULT"),
            number("contextId", context),
            number("spanId", span),
            number("spanName", span_name),
            number("traceIdHi", 1),
            number("traceIdLo", -1),
        ];
        event("jdk.ExecutionSample", 0, fields)
    };
    let bytes = chunk(Form::default(), vec![run(7, -2, 2), run(7, -2, 2), run(8, 5, 0)]).bytes();
    let recording = jfr::decode(&bytes, labels, &OPTIONS).unwrap();
    let expected = [
        format!(
            "process_cpu cpu {STACK} key=value span_id=fffffffffffffffe trace_id=0000000000000001ffffffffffffffff span_name=value [20000000]"
        ),
        format!(
            "process_cpu cpu {STACK} span_id=0000000000000005 trace_id=0000000000000001ffffffffffffffff [10000000]"
        ),
    ];
    assert_eq!(lines(&recording), expected);
    assert_eq!(jfr::decode(&bytes, b"\x0f", &OPTIONS).map(|r| lines(&r)), Err(Error::Labels { bytes: 1 }));
}

#[test]
fn missing_constants_leave_out_frames_or_events() {
    let mut chunk = chunk(
        Form::default(),
        vec![
            event("profiler.LiveObject", 0, vec![]),
            event("profiler.LiveObject", 1, vec![]),
            event("profiler.LiveObject", 99, vec![]),
            ("jdk.ExecutionSample", vec![number("stackTrace", key(0) as i64), number("state", 99)]),
        ],
    );
    // Of the methods, only the first one.
    chunk.checkpoints[2][1].1.truncate(1);
    assert_eq!(lines(&decode(&chunk.bytes())), ["memory live Work.run:2 [1]", "memory live  [1]"]);
}

#[test]
fn damage_is_refused_with_its_chunk_and_its_place() {
    let good = chunk(Form::default(), vec![event("profiler.LiveObject", 0, vec![])]).bytes();
    let length = good.len();
    let refused =
        |bytes: &[u8]| jfr::decode(bytes, b"", &OPTIONS).map(|recording| lines(&recording)).unwrap_err();
    let twice = [&good[..], &good[..]].concat();
    assert_eq!(lines(&decode(&twice)), [format!("memory live {STACK} [2]")]);
    let at = |chunk, offset, flaw| Error::Chunk { chunk, offset, flaw };
    assert_eq!(refused(b"no"), at(0, 0, Flaw::NoMagic));
    assert_eq!(refused(&[&good[..], b"rest"].concat()), at(1, length, Flaw::NoMagic));
    let left = length - 1;
    let cut = at(1, length, Flaw::ChunkSize { bytes: length as i64, left });
    assert_eq!(refused(&twice[..2 * length - 1]), cut);
    let mut version = good.clone();
    version[5] = 3;
    assert_eq!(
        refused(&version).to_string(),
        "JFR recording: chunk 0, byte 0: version 3.1 is not accepted, only 2"
    );
    let mut empty_event = good.clone();
    empty_event[68..73].fill(0);
    let left = length - 68;
    assert_eq!(refused(&empty_event), at(0, 68, Flaw::EventSize { size: 0, left }));
    assert!(decode(b"").profiles.is_empty());
}

#[test]
fn small_recordings_that_would_need_much_memory_are_refused() {
    let refused = |chunk: &Chunk| {
        let bytes = chunk.bytes();
        assert!(bytes.len() < 4 << 20);
        jfr::decode(&bytes, b"", &OPTIONS).map(|recording| lines(&recording)).unwrap_err().to_string()
    };
    // One deep stacktrace in very many samples.
    let deep = vec![frame("A", "a", 1); 2000];
    let mut chunk = Chunk::new(Form::default());
    chunk.checkpoints = checkpoints(&[deep]);
    let samples = 1..=jfr::LOCATIONS_MAX as i64 / 2000 + 1;
    chunk.events =
        samples.map(|span| event("jdk.JavaMonitorEnter", 0, vec![number("spanId", span)])).collect();
    assert!(refused(&chunk).contains("more locations in stacktraces than the limit of 16777216"));

    // One long name of a class for many methods.
    let mut chunk = Chunk::new(Form::default());
    let methods: Vec<_> = (0..80).map(|i| frame("A", &format!("m{i}"), 1)).collect();
    chunk.checkpoints = checkpoints(&[methods]);
    let classes = &mut chunk.checkpoints[2][0].1;
    let first = classes[0].0 as i64;
    classes.iter_mut().for_each(|(_, fields)| *fields = vec![number("name", first)]);
    chunk.checkpoints[1][0].1[0].1 = vec![text("string", &"x".repeat(1 << 20))];
    chunk.events = vec![event("jdk.ThreadPark", 0, vec![])];
    assert!(refused(&chunk).contains("more bytes of function names than the limit of 67108864"));

    // A type that contains itself.
    let mut chunk = Chunk::new(Form { has_unknown_fields: true, ..Form::default() });
    chunk.events = vec![event("jdk.ThreadPark", 0, vec![])];
    chunk.checkpoints = checkpoints(&[vec![frame("A", "a", 1)]]);
    assert_eq!(decode(&chunk.bytes()).profiles.len(), 1);
    chunk.events.clear();
    chunk.checkpoints.clear();
    let park = chunk.types.iter_mut().find(|described| described.name == "jdk.ThreadPark").unwrap();
    park.fields.push(Field { name: "self", of: "jdk.ThreadPark", is_constant: false, is_array: false });
    assert!(refused(&chunk).contains("type \"jdk.ThreadPark\" contains itself, or too many fields"));
}

fn form() -> impl Strategy<Value = Form> {
    (any::<[bool; 3]>(), 2..6_u8, 0..20_usize).prop_map(|(flags, text_encoding, rotation)| Form {
        is_compressed: flags[0],
        text_encoding,
        has_unknown_fields: flags[1],
        rotation,
        has_constants_first: flags[2],
    })
}

fn stack() -> impl Strategy<Value = Vec<Frame>> {
    prop::collection::vec(("[A-Zé€]{1,3}", "[a-z🌮]{1,3}", 0..2000_i64), 0..5)
}

/// Some of the events, by name, with their value: a stack, a value, a context and a span.
const NAMES: [(&str, &str, &str); 4] = [
    ("jdk.ObjectAllocationInNewTLAB", "tlabSize", "memory alloc_in_new_tlab_objects,alloc_in_new_tlab_bytes"),
    ("jdk.JavaMonitorEnter", "duration", "mutex contentions,delay"),
    ("jdk.ObjectAllocationSample", "weight", "memory alloc_sample_objects,alloc_sample_bytes"),
    ("profiler.Malloc", "size", "memory malloc_objects,malloc_bytes"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read_in_every_form(chunks in prop::collection::vec(
        (
            form(),
            prop::collection::vec(stack(), 1..4),
            prop::collection::vec((0..NAMES.len(), 0..4_usize, 0..i64::from(u32::MAX), 0..3_i64), 0..12),
        ),
        1..4,
    )) {
        let mut bytes = Vec::new();
        let mut expected = BTreeMap::<String, [i64; 2]>::new();
        for (form, stacks, events) in &chunks {
            let mut chunk = Chunk::new(*form);
            chunk.checkpoints = checkpoints(stacks);
            for (name, stack, value, span) in events {
                let (name, field, types) = NAMES[*name];
                let stack = stack % stacks.len();
                chunk.events.push(event(name, stack, vec![number(field, *value), number("spanId", *span)]));
                chunk.events.push(("jdk.CPULoad", Vec::new()));
                let frames = stacks[stack].iter().rev().map(|(class, method, line)| format!("{class}.{method}:{line}"));
                let frames: Vec<_> = frames.collect();
                let has_span = *span != 0 && matches!(field, "tlabSize" | "duration");
                let span = if has_span { format!(" span_id={span:016x}") } else { String::new() };
                let sums = expected.entry(format!("{types} {}{span}", frames.join(";"))).or_default();
                sums[0] += 1;
                sums[1] += value;
            }
            bytes.extend(chunk.bytes());
        }
        let expected: Vec<_> = expected.iter().map(|(sample, values)| format!("{sample} {values:?}")).collect();
        let mut read = lines(&decode(&bytes));
        read.sort();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn damaged_bytes_never_panic_and_never_grow_out_of_proportion(
        form in form(),
        stacks in prop::collection::vec(stack(), 1..3),
        damages in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut chunk = Chunk::new(form);
        chunk.checkpoints = checkpoints(&stacks);
        for (name, field, _) in NAMES {
            chunk.events.push(event(name, 0, vec![number(field, 1)]));
        }
        chunk.events.push(setting("event", "wall"));
        chunk.events.push(event("jdk.ExecutionSample", 0, vec![number("state", 1)]));
        let mut bytes = chunk.bytes();
        for (kind, place, byte) in damages {
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                _ => {
                    let part = bytes[at..bytes.len().min(at + usize::from(byte))].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        // The size of the chunk is repaired, so that damage is met inside of it.
        let size = (bytes.len() as i64).to_be_bytes();
        if bytes.len() >= 68 {
            bytes[8..16].copy_from_slice(&size);
        }
        if let Ok(recording) = jfr::decode(&bytes, b"", &OPTIONS) {
            let held: usize = recording.profiles.iter().map(|named| named.profile.symbols.byte_len()).sum();
            prop_assert!(held <= 64 * bytes.len(), "{} of {}", held, bytes.len());
        }
    }
}
