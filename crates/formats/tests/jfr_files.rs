//! Recordings of real programs, where the machine has them, and what other readers made of the same files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop where it is"
)]

mod corpus;

use std::collections::BTreeMap;
use std::path::Path;

use formats::jfr::{self, NamedProfile, Options, Recording};
use formats::{gzip, multipart};

const LIMIT: usize = 256 << 20;

const RATE_100: Options = Options { sample_rate: Some(100), time_nanos: 1, duration_nanos: 0 };

/// Values by stack, root first, each frame with its line.
type Stacks = BTreeMap<String, Vec<i64>>;

fn plain(bytes: Vec<u8>) -> Vec<u8> {
    gzip::content(bytes.into(), LIMIT).unwrap().to_vec()
}

fn decode(recording: &[u8], labels: &[u8], options: &Options) -> Recording {
    jfr::decode(recording, labels, options).unwrap()
}

/// Names of the columns of a profile.
fn columns(profile: &NamedProfile) -> Vec<String> {
    let profile = &profile.profile;
    let strings = &profile.symbols.strings;
    profile.sample_types.iter().map(|column| strings.text(column.r#type).into_owned()).collect()
}

fn frames(profile: &NamedProfile, sample: usize) -> Vec<(String, i64)> {
    let symbols = &profile.profile.symbols;
    let frame = |location: &u32| {
        let line = symbols.locations.lines_of(*location)[0];
        let name = symbols.functions[line.function as usize].name;
        (symbols.strings.text(name).into_owned(), line.line)
    };
    symbols.stacktraces.get(sample as u32).iter().rev().map(frame).collect()
}

fn stacks(profile: &NamedProfile) -> Stacks {
    let width = profile.profile.sample_types.len();
    let mut stacks = Stacks::new();
    for (sample, values) in profile.profile.samples.values.chunks(width).enumerate() {
        let stack =
            frames(profile, sample).iter().map(|(name, line)| format!("{name}:{line}")).collect::<Vec<_>>();
        let sums = stacks.entry(stack.join(";")).or_insert_with(|| vec![0; width]);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    stacks
}

/// Sums of each column, as `name type=sum …` of all profiles.
fn sums(recording: &Recording) -> Vec<String> {
    let mut all = Vec::new();
    for profile in &recording.profiles {
        let mut totals = vec![0; profile.profile.sample_types.len()];
        for values in stacks(profile).values() {
            totals.iter_mut().zip(values).for_each(|(total, value)| *total += value);
        }
        let totals = columns(profile).into_iter().zip(totals);
        all.extend(totals.map(|(column, total)| format!("{} {column}={total}", profile.name)));
    }
    all
}

/// Values of a column whose stack contains the method `function` of any class, together.
fn inclusive(recording: &Recording, column: &str, function: &str) -> i64 {
    let method = format!(".{function}");
    let mut sum = 0;
    for profile in &recording.profiles {
        let Some(position) = columns(profile).iter().position(|name| name == column) else { continue };
        let width = profile.profile.sample_types.len();
        for (sample, values) in profile.profile.samples.values.chunks(width).enumerate() {
            if frames(profile, sample).iter().any(|(name, _)| name.ends_with(&method)) {
                sum += values[position];
            }
        }
    }
    sum
}

/// `root:1;leaf:2 [3 4]`, one stack per line. Unknown lines of -1 were written without their sign.
fn collapsed(text: &str) -> Stacks {
    let line = |line: &str| {
        let (stack, values) = line.rsplit_once(" [").expect("values");
        let values = values.trim_end_matches(']').split_whitespace().map(|value| value.parse().unwrap());
        (stack.replace(":4294967295", ":0"), values.collect::<Vec<i64>>())
    };
    let mut stacks = Stacks::new();
    for (stack, values) in text.lines().map(line) {
        let sums = stacks.entry(stack).or_insert_with(|| vec![0; values.len()]);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    stacks
}

#[test]
fn recordings_of_the_corpus_have_the_stacks_that_another_reader_found() {
    let files = corpus::files(&["jfr"]);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut compared = 0;
    for (path, bytes) in &files {
        let Some(stem) = name(path).strip_suffix(".jfr.gz").map(str::to_owned) else { continue };
        let expected = files.iter().filter(|(other, _)| {
            let other_name = name(other);
            other.parent() == path.parent()
                && other_name.starts_with(&stem)
                && other_name.ends_with("expected_collapsed.txt.gz")
        });
        let mut recording = None;
        for (expected_path, expected) in expected {
            let recording = recording.get_or_insert_with(|| decode(&plain(bytes.clone()), b"", &RATE_100));
            let expected_name = name(expected_path);
            let profile = recording.profiles.iter().find(|profile| {
                let columns = columns(profile).join("__");
                let first = columns.split("__").next().unwrap_or_default();
                expected_name.contains(&format!("_{}_{first}__", profile.name))
            });
            let profile = profile.unwrap_or_else(|| panic!("{expected_name}: {:?}", sums(recording)));
            let expected = collapsed(&String::from_utf8(plain(expected.clone())).unwrap());
            assert_eq!(stacks(profile), expected, "{expected_name}");
            compared += 1;
        }
    }
    eprintln!("{compared} profiles compared");
}

#[test]
fn every_recording_of_the_corpus_is_read_or_refused_with_its_place() {
    let mut read = 0;
    for (path, bytes) in corpus::files(&["jfr", "corrupt"]) {
        let shown = path.display().to_string();
        let Ok(bytes) = gzip::content(bytes.into(), LIMIT) else { continue };
        if !jfr::is_recording(&bytes) {
            continue;
        }
        let decoded = jfr::decode(&bytes, b"", &RATE_100);
        let refused = ["jmc-8u60", "payloadbuilder", "jfr-bad-version", "jfr-truncated"];
        if refused.iter().any(|part| shown.contains(part)) {
            let error = decoded.map(|recording| sums(&recording)).unwrap_err().to_string();
            assert!(error.starts_with("JFR recording: chunk "), "{shown}: {error}");
        } else {
            assert!(
                !decoded.unwrap_or_else(|error| panic!("{shown}: {error}")).profiles.is_empty(),
                "{shown}"
            );
            read += 1;
        }
    }
    eprintln!("{read} recordings read");
}

/// The recordings of a folder of the cases, by name.
fn cases(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let files = corpus::files_in("cases/formats", &[folder]).into_iter();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.map(|(path, bytes)| (name(&path), bytes)).collect()
}

/// As the settings of a recording say, not the request.
const BY_SETTINGS: Options = Options { sample_rate: None, time_nanos: 1, duration_nanos: 0 };

#[test]
fn recordings_of_async_profiler_have_the_known_costs() {
    let cases = cases("async-profiler");
    let case = |name: &str| cases.get(name).map(|bytes| decode(&plain(bytes.clone()), b"", &BY_SETTINGS));
    let Some(cpu) = case("cpu.jfr.gz") else { return };
    assert_eq!(sums(&cpu), ["process_cpu cpu=3410000000"]);
    for (function, samples) in [("spin", 336), ("heavy", 162), ("light", 55)] {
        assert_eq!(inclusive(&cpu, "cpu", function), samples * 10_000_000, "{function}");
    }
    assert_eq!(cpu.event, "cpu");

    let wall = case("wall.jfr.gz").unwrap();
    assert!(sums(&wall).contains(&"wall wall=169900000000".to_owned()), "{:?}", sums(&wall));
    assert_eq!(inclusive(&wall, "wall", "heavy"), 30 * 50_000_000);
    assert_eq!(inclusive(&wall, "wall", "light"), 11 * 50_000_000);

    let both = case("cpu-wall-nobatch.jfr.gz").unwrap();
    assert_eq!(sums(&both), ["process_cpu cpu=1590000000", "wall wall=85850000000"]);
    assert_eq!(inclusive(&both, "cpu", "heavy"), 114 * 10_000_000);
    assert_eq!(inclusive(&both, "wall", "heavy"), 32 * 50_000_000);

    let allocations = case("alloc-live.jfr.gz").unwrap();
    let kept = |column| inclusive(&allocations, column, "keepSmall");
    assert_eq!(kept("alloc_in_new_tlab_objects"), 115);
    assert_eq!(kept("alloc_in_new_tlab_bytes"), 60_293_120);
    assert_eq!(kept("live"), 115);
    assert!(sums(&allocations).contains(&"memory live=116".to_owned()));
    assert!(sums(&allocations).contains(&"memory alloc_in_new_tlab_objects=362".to_owned()));

    let lock = sums(&case("lock.jfr.gz").unwrap());
    assert!(lock[0].starts_with("mutex contentions=3") && lock[1].starts_with("mutex delay=43"), "{lock:?}");
    assert!(
        lock[2].starts_with("block contentions=42") && lock[3].starts_with("block delay=19197"),
        "{lock:?}"
    );

    let native = case("nativemem.jfr.gz").unwrap();
    assert_eq!(sums(&native), ["memory malloc_objects=203", "memory malloc_bytes=20000832"]);

    let all = sums(&case("all.jfr.gz").unwrap());
    for expected in [
        "process_cpu cpu=770000000",
        "memory alloc_in_new_tlab_objects=187",
        "memory live=63",
        "memory malloc_objects=31",
        "mutex contentions=13",
    ] {
        assert!(all.iter().any(|sum| sum == expected), "{expected}: {all:?}");
    }
}

#[test]
fn recordings_of_the_jdk_have_the_known_costs() {
    let cases = cases("jdk-jfr");
    let case = |name: &str| cases.get(name).map(|bytes| decode(&plain(bytes.clone()), b"", &BY_SETTINGS));
    let Some(jdk25) = case("jdk25.jfr.gz") else { return };
    assert!(sums(&jdk25).contains(&"process_cpu cpu=960000000".to_owned()), "{:?}", sums(&jdk25));
    assert!(sums(&jdk25).contains(&"memory alloc_sample_bytes=202752592".to_owned()), "{:?}", sums(&jdk25));
    assert!(sums(&jdk25).contains(&"mutex contentions=15".to_owned()), "{:?}", sums(&jdk25));
    for (function, samples) in [("heavy", 33), ("light", 12), ("lambdas", 47)] {
        assert_eq!(inclusive(&jdk25, "cpu", function), samples * 10_000_000, "{function}");
    }
    let lambdas =
        stacks(&jdk25.profiles[0]).into_iter().filter(|(stack, _)| stack.contains("$$Lambda_.run:0"));
    assert_eq!(lambdas.map(|(_, values)| values[0]).sum::<i64>(), 47 * 10_000_000);

    let jdk17 = case("jdk17.jfr.gz").unwrap();
    for (function, samples) in [("heavy", 16), ("light", 3), ("lambdas", 6)] {
        assert_eq!(inclusive(&jdk17, "cpu", function), samples * 10_000_000, "{function}");
    }
    assert_eq!(inclusive(&jdk17, "alloc_sample_bytes", "allocate"), 310_235_904);

    let tlab = sums(&case("jdk17-tlab.jfr.gz").unwrap());
    assert_eq!(
        tlab,
        [
            "memory alloc_in_new_tlab_objects=65",
            "memory alloc_in_new_tlab_bytes=16862952",
            "memory alloc_outside_tlab_objects=164",
            "memory alloc_outside_tlab_bytes=171969088",
        ]
    );
}

#[test]
fn uploads_of_the_java_agent_have_the_known_costs_and_labels() {
    let cases = cases("pyroscope-java");
    let upload = |name: &str| {
        let body = cases.get(&format!("{name}.multipart"))?.clone();
        let boundary = body[2..].split(|byte| *byte == b'\r').next()?.to_vec();
        let content_type = format!("multipart/form-data; boundary={}", String::from_utf8(boundary).ok()?);
        let form = multipart::Form::parse(&content_type, &body.into()).unwrap();
        let part = |name| form.file(name).map(|part| plain(part.to_vec())).unwrap_or_default();
        Some(decode(&part("jfr"), &part("labels"), &RATE_100))
    };
    let Some(labelled) = upload("upload-labels") else { return };
    let totals = sums(&labelled);
    for expected in ["process_cpu cpu=750000000", "memory alloc_in_new_tlab_objects=784", "memory live=422"] {
        assert!(totals.iter().any(|sum| sum == expected), "{expected}: {totals:?}");
    }
    let mut texts = std::collections::BTreeSet::new();
    for NamedProfile { profile, .. } in &labelled.profiles {
        let strings = &profile.symbols.strings;
        for label in &profile.samples.labels {
            let (key, value) = (strings.text(label.key), strings.text(label.string));
            match &*key {
                "span_id" => assert_eq!(value.len(), 16, "{value}"),
                "trace_id" => assert_eq!(value.len(), 32, "{value}"),
                _ => {
                    texts.insert(format!("{key}={value}"));
                }
            }
        }
    }
    let texts: Vec<_> = texts.into_iter().collect();
    assert_eq!(texts, ["controller=cold", "controller=hot", "span_name=checkout"]);

    let plain = upload("upload-no-labels").unwrap();
    assert!(sums(&plain).contains(&"process_cpu cpu=1310000000".to_owned()), "{:?}", sums(&plain));
}
