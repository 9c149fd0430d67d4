//! Tests of the division into series, with profiles built from label texts.

use model::{Symbols, ValueType};
use proptest::prelude::*;

use super::*;

/// Samples with values 1, 2, 4, …, each with text labels written `key=value`.
fn profile(samples: &[Vec<(String, String)>]) -> Profile {
    let mut profile = Profile {
        sample_types: vec![ValueType { r#type: 1, unit: 2 }],
        period_type: Some(ValueType { r#type: 1, unit: 2 }),
        ..Profile::default()
    };
    for string in ["", "cpu", "nanoseconds"] {
        profile.symbols.strings.push(string.as_bytes());
    }
    for (i, labels) in samples.iter().enumerate() {
        for (key, value) in labels {
            let label = SampleLabel {
                key: id_of(&mut profile.symbols, key),
                string: id_of(&mut profile.symbols, value),
                ..SampleLabel::default()
            };
            profile.samples.labels.push(label);
        }
        profile.samples.label_offsets.push(profile.samples.labels.len() as u32);
        profile.samples.values.push(1 << (i % 60));
        profile.symbols.stacktraces.push(&[]);
    }
    profile
}

fn id_of(symbols: &mut Symbols, string: &str) -> StringId {
    let found = symbols.strings.iter().position(|s| s == string.as_bytes());
    found.map_or_else(|| symbols.strings.push(string.as_bytes()), |id| id as u32)
}

fn written(labels: &str) -> Vec<(String, String)> {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn pushed(labels: &str) -> Labels {
    Labels::from_pairs(written(labels))
}

/// `labels samples spans` of each series.
fn series(samples: &[&str], labels: &str) -> Vec<String> {
    let samples: Vec<_> = samples.iter().map(|labels| written(labels)).collect();
    let profile = profile(&samples);
    let counted = (0..samples.len() as u32).collect();
    let rows = split(&profile, counted, &pushed(labels), &Limits::default()).unwrap();
    let span = |span: &Span| format!(" {:x}/{:x}", span.span_id, span.trace_id);
    rows.iter()
        .map(|rows| {
            let spans: String = rows.spans.iter().map(span).collect();
            format!("{} {} {:?}{spans}", rows.schema.name, rows.labels, rows.samples)
        })
        .collect()
}

const APP: &str = "__name__=cpu,service_name=app";

#[test]
fn samples_without_labels_are_one_series() {
    assert_eq!(series(&["", "", ""], APP), [r#"cpu {service_name="app"} [0, 1, 2]"#]);
}

#[test]
fn text_labels_divide_samples() {
    assert_eq!(
        series(&["thread=a,env=x", "thread=b", "env=x,thread=a", ""], APP),
        [
            r#"cpu {env="x", service_name="app", thread="a"} [0, 2]"#,
            r#"cpu {service_name="app", thread="b"} [1]"#,
            r#"cpu {service_name="app"} [3]"#,
        ]
    );
}

#[test]
fn numbers_are_no_labels() {
    let mut profile = profile(&[written("")]);
    let bytes = profile.symbols.strings.push(b"bytes");
    profile.samples.labels.push(SampleLabel { key: bytes, number: 7, ..SampleLabel::default() });
    profile.samples.label_offsets = vec![0, 1];
    let rows = split(&profile, vec![0], &pushed(APP), &Limits::default()).unwrap();
    assert_eq!(rows[0].labels.to_string(), r#"{service_name="app"}"#);
}

#[test]
fn pushed_labels_win_and_groups_that_become_equal_are_one_series() {
    assert_eq!(
        series(&["env=other", "env=another", "empty="], "__name__=cpu,env=x,service_name=app"),
        [r#"cpu {env="x", service_name="app"} [0, 1, 2]"#]
    );
}

#[test]
fn the_last_value_of_a_repeated_sample_label_counts() {
    // Strings are numbered by first use, so both orders of ids occur.
    assert_eq!(series(&["task=1,task=2"], APP), [r#"cpu {service_name="app", task="2"} [0]"#]);
    assert_eq!(series(&["x=2,task=1,task=2"], APP), [r#"cpu {service_name="app", task="2", x="2"} [0]"#]);
    assert_eq!(series(&["task=2,task=1", "task=1"], APP), [r#"cpu {service_name="app", task="1"} [0, 1]"#]);
}

#[test]
fn keys_with_one_text_and_two_ids_are_one_label() {
    let mut profile = profile(&[written("task=1")]);
    let key = profile.symbols.strings.push(b"task");
    let string = profile.symbols.strings.push(b"2");
    profile.samples.labels.push(SampleLabel { key, string, ..SampleLabel::default() });
    profile.samples.label_offsets = vec![0, 2];
    profile.samples.labels.swap(0, 1);
    let rows = split(&profile, vec![0], &pushed(APP), &Limits::default()).unwrap();
    assert_eq!(rows[0].labels.get("task"), Some("1"));
}

#[test]
fn each_profile_type_of_each_label_set_is_a_series() {
    let mut profile = profile(&[written("a=1"), written("a=2")]);
    profile.sample_types.push(ValueType { r#type: 2, unit: 1 });
    let rows = split(&profile, vec![0, 1], &pushed(APP), &Limits::default()).unwrap();
    let mut hashes = series_hashes(&rows);
    assert_eq!(hashes, series_hashes(&rows));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 4);
}

#[test]
fn empty_pushed_labels_are_dropped_before_sample_labels_are_added() {
    assert_eq!(
        series(&["env=y"], "__name__=cpu,env=,service_name=app"),
        [r#"cpu {env="y", service_name="app"} [0]"#]
    );
}

#[test]
fn spans_are_no_labels_but_keep_their_samples() {
    assert_eq!(
        series(
            &["", "span_id=00000bac2a5ab0c7", "profile_id=0000000000000001,thread=a", "span_id=short"],
            APP
        ),
        [
            r#"cpu {service_name="app"} [0, 1, 3] 0/0 bac2a5ab0c7/0 0/0"#,
            r#"cpu {service_name="app", thread="a"} [2] 1/0"#,
        ]
    );
    assert_eq!(
        series(&["trace_id=0123456789abcdef0123456789abcdef"], APP),
        [r#"cpu {service_name="app"} [0] 0/123456789abcdef0123456789abcdef"#]
    );
}

#[test]
fn spans_stay_with_their_samples_when_groups_merge() {
    assert_eq!(
        series(&["env=a", "env=b,span_id=00000000000000ff", "env=a"], &format!("{APP},env=x")),
        [r#"cpu {env="x", service_name="app"} [0, 2, 1] 0/0 0/0 ff/0"#]
    );
}

#[test]
fn names_are_relabelled_and_make_the_schema() {
    let profile = profile(&[written("")]);
    let labels = pushed("__name__=godeltaprof_memory,service_name=app");
    let rows = split(&profile, vec![0], &labels, &Limits::default()).unwrap();
    assert_eq!(rows[0].schema.profile_type(0).to_string(), "memory:cpu:nanoseconds:cpu:nanoseconds");
    assert_eq!(rows[0].labels.get("__name_replaced__"), Some("godeltaprof_memory"));
    assert_eq!(rows[0].labels.get("__delta__"), None);
}

#[test]
fn one_invalid_group_fails_the_profile() {
    let many: Vec<String> = (0..29).map(|i| format!("l{i}=v")).collect();
    let profile = profile(&[written(""), written(&many.join(","))]);
    let error = split(&profile, vec![0, 1], &pushed(APP), &Limits::default()).unwrap_err();
    assert_eq!(error.reason(), "max_label_names_per_series");
}

#[test]
fn labels_of_many_series_are_bounded_together() {
    let value = "v".repeat(2000);
    let samples: Vec<_> = (0..10_000).map(|i| written(&format!("a={value},b={i}"))).collect();
    // Ids are assigned directly: looking each string up would take long.
    let mut profile = profile(&samples[..1]);
    for i in 1..10_000u32 {
        let unique = profile.symbols.strings.push(i.to_string().as_bytes());
        let mut own = profile.samples.labels[..2].to_vec();
        own[1].string = unique;
        profile.samples.labels.extend(own);
        profile.samples.label_offsets.push(2 * i + 2);
    }
    let counted = (0..10_000).collect();
    let error = split(&profile, counted, &pushed(APP), &Limits::default()).unwrap_err();
    assert_eq!(error.reason(), "series_limit");
}

proptest! {
    #[test]
    fn every_counted_sample_is_in_exactly_one_series(
        labels in proptest::collection::vec(
            proptest::collection::vec(("[abc]", "[xyz]?"), 0..4), 0..60),
        keep in proptest::collection::vec(any::<bool>(), 60),
        env in "[xyz]?",
    ) {
        let profile = profile(&labels);
        let counted: Vec<u32> = (0..labels.len() as u32).filter(|i| keep[*i as usize]).collect();
        let pushed = pushed(&format!("{APP},a={env}"));
        let rows = split(&profile, counted.clone(), &pushed, &Limits::default()).unwrap();
        let sum = |samples: &[u32]| -> i64 {
            samples.iter().map(|sample| profile.samples.values[*sample as usize]).sum()
        };
        prop_assert_eq!(rows.iter().map(|rows| sum(&rows.samples)).sum::<i64>(), sum(&counted));
        let mut all: Vec<u32> = rows.iter().flat_map(|rows| rows.samples.clone()).collect();
        all.sort_unstable();
        prop_assert_eq!(all, counted);
        let mut sets: Vec<_> = rows.iter().map(|rows| rows.labels.clone()).collect();
        sets.sort();
        sets.dedup();
        prop_assert_eq!(sets.len(), rows.len());
    }
}
