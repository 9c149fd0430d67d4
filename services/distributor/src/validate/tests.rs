use limits::Duration;
use model::{SampleLabel, ValueType};

use super::*;

const NOW: i64 = 1_800_000_000_000_000_000;
const MILLI: i64 = 1_000_000;
const HOUR: i64 = 3_600_000 * MILLI;

/// A profile with one sample of `depth` locations, and `strings` besides "" and "cpu".
fn decoded(depth: u32, strings: &[&[u8]]) -> Decoded {
    let mut profile = Profile::default();
    for string in [&b""[..], b"cpu"].iter().chain(strings) {
        profile.symbols.strings.push(string);
    }
    profile.sample_types = vec![ValueType { r#type: 1, unit: 0 }];
    let locations: Vec<u32> = (0..depth).collect();
    profile.symbols.stacktraces.push(&locations);
    profile.samples.values.push(1);
    profile.samples.label_offsets.push(0);
    Decoded { profile, flaw: None }
}

fn refusal(decoded: Decoded, limits: &Limits) -> Option<&'static str> {
    validate(decoded, &Labels::default(), limits, NOW).err().map(|e| e.reason())
}

#[test]
fn the_ingestion_window_is_open_at_both_ends() {
    let check = |older, newer, time, expected: Option<&str>| {
        let limits = Limits { reject_older_than: older, reject_newer_than: newer, ..Limits::default() };
        let mut sent = decoded(1, &[]);
        sent.profile.time_nanos = time;
        assert_eq!(refusal(sent, &limits), expected, "{}", time - NOW);
    };
    let outside = Some("not_in_ingestion_window");
    let (hour, ten) = (Duration::from_hours(1), Duration::from_secs(600));
    check(hour, ten, NOW, None);
    check(hour, ten, NOW - HOUR, outside);
    check(hour, ten, NOW - HOUR + MILLI - 1, outside);
    check(hour, ten, NOW - HOUR + MILLI, None);
    check(hour, ten, NOW + HOUR / 6, outside);
    check(hour, ten, NOW + HOUR / 6 - MILLI, None);
    check(Duration::ZERO, ten, 1, None);
    check(hour, Duration::ZERO, i64::MAX, None);
}

#[test]
fn a_profile_without_time_is_of_now() {
    for time in [0, -1] {
        let mut sent = decoded(1, &[]);
        sent.profile.time_nanos = time;
        let profile = validate(sent, &Labels::default(), &Limits::default(), NOW).unwrap();
        assert_eq!(profile.time_nanos, NOW);
    }
}

#[test]
fn sample_types_are_needed_bounded_and_have_no_hyphen() {
    let mut none = decoded(1, &[]);
    none.profile.sample_types.clear();
    assert_eq!(refusal(none, &Limits::default()), Some("malformed_profile"));
    let mut many = decoded(1, &[]);
    many.profile.sample_types = vec![ValueType::default(); 65];
    assert_eq!(refusal(many, &Limits::default()), Some("malformed_profile"));
    let mut hyphen = decoded(1, &[b"wall-time"]);
    hyphen.profile.sample_types[0].r#type = 2;
    assert_eq!(refusal(hyphen, &Limits::default()), Some("malformed_profile"));
}

#[test]
fn samples_and_their_labels_are_counted() {
    let limits = Limits {
        max_profile_stacktrace_samples: 1,
        max_profile_stacktrace_sample_labels: 2,
        ..Limits::default()
    };
    assert_eq!(refusal(decoded(1, &[]), &limits), None);

    let mut two = decoded(1, &[]);
    two.profile.samples.label_offsets.push(0);
    two.profile.samples.values.push(1);
    two.profile.symbols.stacktraces.push(&[0]);
    assert_eq!(refusal(two, &limits), Some("samples_limit"));

    let labelled = |count: u32| {
        let mut sent = decoded(1, &[]);
        sent.profile.samples.labels = vec![SampleLabel::default(); count as usize];
        sent.profile.samples.label_offsets = vec![0, count];
        sent
    };
    assert_eq!(refusal(labelled(2), &limits), None);
    assert_eq!(refusal(labelled(3), &limits), Some("sample_labels_limit"));
}

#[test]
fn deep_stacktraces_keep_their_root_side() {
    let limits = Limits { max_profile_stacktrace_depth: 3, ..Limits::default() };
    let cut = |depth| {
        let profile = validate(decoded(depth, &[]), &Labels::default(), &limits, NOW).unwrap();
        profile.symbols.stacktraces.get(0).to_vec()
    };
    assert_eq!(cut(3), [0, 1, 2]);
    assert_eq!(cut(5), [2, 3, 4]);
}

#[test]
fn long_strings_keep_their_end_and_must_be_text_afterwards() {
    let limits = Limits { max_profile_symbol_value_length: 3, ..Limits::default() };
    let profile = validate(decoded(1, &[b"abcdef"]), &Labels::default(), &limits, NOW).unwrap();
    assert_eq!(profile.symbols.strings.get(2), b"def");
    // The cut falls inside the second character.
    assert_eq!(refusal(decoded(1, &["aüab".as_bytes()]), &limits), Some("malformed_profile"));
    assert_eq!(refusal(decoded(1, &[b"a\xff"]), &Limits::default()), Some("malformed_profile"));
}

#[test]
fn a_flaw_of_the_document_is_told() {
    let sent = Decoded { flaw: Some(Flaw::NoStrings), ..decoded(1, &[]) };
    assert_eq!(refusal(sent, &Limits::default()), Some("malformed_profile"));
}
