//! Tests of each validation rule, with profiles built in memory.

use limits::Duration;
use model::{SampleLabel, ValueType};

use super::*;

const NOW: i64 = 1_800_000_000_000_000_000;
const MILLI: i64 = 1_000_000;
const HOUR: i64 = 3_600_000 * MILLI;

/// A profile with one sample of `depth` locations, and `strings` besides "" and "cpu".
fn decoded(depth: u32, strings: &[&[u8]]) -> DecodedProfile {
    let mut profile = Profile::default();
    for string in [&b""[..], b"cpu"].iter().chain(strings) {
        profile.symbols.strings.push(string);
    }
    profile.sample_types = vec![ValueType { r#type: 1, unit: 0 }];
    let locations: Vec<u32> = (0..depth).collect();
    profile.symbols.stacktraces.push(&locations);
    profile.samples.values.push(1);
    profile.samples.label_offsets.push(0);
    DecodedProfile { profile, flaw: None }
}

fn refusal(decoded: DecodedProfile, limits: &Limits) -> Option<&'static str> {
    validate(decoded, &Labels::default(), limits, NOW).err().map(|e| e.reason())
}

#[test]
fn the_ingestion_window_is_open_at_both_ends() {
    let check = |older, newer, time, expected: Option<&str>| {
        let limits = Limits {
            reject_older_than: older,
            reject_newer_than: newer,
            retention_period: Duration::ZERO,
            ..Limits::default()
        };
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
    check(hour, Duration::ZERO, TIME_NANOS_MAX, None);
    check(hour, Duration::ZERO, TIME_NANOS_MAX + 1, outside);
    check(hour, Duration::ZERO, i64::MAX, outside);
}

#[test]
fn a_profile_older_than_the_retention_of_its_service_is_refused_with_the_setting() {
    let limits = Limits {
        reject_older_than: Duration::ZERO,
        retention_period: Duration::from_days(31),
        retention_by_service: vec![limits::ServiceRetention {
            service: limits::ServicePattern::parse("short|tiny").unwrap(),
            period: Duration::from_hours(1),
        }],
        ..Limits::default()
    };
    let outcome = |service: &str, age: i64, limits: &Limits| {
        let mut sent = decoded(1, &[]);
        sent.profile.time_nanos = NOW - age;
        let labels = Labels::from_pairs([("service_name", service)]);
        validate(sent, &labels, limits, NOW).map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = outcome("app", 31 * 24 * HOUR + 1, &limits).unwrap_err();
    assert!(refused.contains("retention_period is 31d"), "{refused}");
    assert!(refused.contains(&format!("its time is {} ms", (NOW - 31 * 24 * HOUR - 1) / MILLI)), "{refused}");
    // Another process, whose clock is ahead, may already hide it.
    assert!(outcome("app", 31 * 24 * HOUR - CLOCKS_APART_NANOS + 1, &limits).is_err());
    assert_eq!(outcome("app", 31 * 24 * HOUR - CLOCKS_APART_NANOS, &limits), Ok(()));
    let refused = outcome("short", HOUR, &limits).unwrap_err();
    assert!(refused.contains("retention_by_service is 1h"), "{refused}");
    assert_eq!(outcome("short", HOUR / 2, &limits), Ok(()));
    let minute = Limits { retention_period: Duration::from_secs(60), ..limits.clone() };
    assert_eq!(outcome("app", 50_000 * MILLI, &minute), Ok(()), "the margin is a part of a short retention");
    let unlimited = Limits { retention_period: Duration::ZERO, ..limits };
    assert_eq!(outcome("app", NOW - 1, &unlimited), Ok(()));
}

#[test]
fn a_profile_without_time_gets_the_current_time() {
    for time in [0, -1] {
        let mut sent = decoded(1, &[]);
        sent.profile.time_nanos = time;
        let profile = validate(sent, &Labels::default(), &Limits::default(), NOW).unwrap();
        assert_eq!(profile.time_nanos, NOW);
    }
}

#[test]
fn sample_types_are_required_and_bounded_and_have_no_hyphen() {
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
fn parts_of_a_profile_type_have_no_colon() {
    let refused = |change: fn(&mut Profile)| {
        let mut sent = decoded(1, &[b"a:b"]);
        change(&mut sent.profile);
        validate(sent, &Labels::default(), &Limits::default(), NOW).unwrap_err().to_string()
    };
    let cases: [(&str, fn(&mut Profile)); 4] = [
        ("sample type", |profile| profile.sample_types[0].r#type = 2),
        ("sample unit", |profile| profile.sample_types[0].unit = 2),
        ("period type", |profile| profile.period_type = Some(ValueType { r#type: 2, unit: 1 })),
        ("period unit", |profile| profile.period_type = Some(ValueType { r#type: 1, unit: 2 })),
    ];
    for (part, change) in cases {
        let text = refused(change);
        assert!(text.starts_with(&format!("{part} \"a:b\" contains ':'")), "{text}");
    }
}

/// A checked profile with one sample of each value.
fn valued(values: &[i64]) -> Profile {
    let mut profile = decoded(1, &[b"pprof::base"]).profile;
    profile.samples.values = values.to_vec();
    profile.samples.label_offsets = vec![0; values.len() + 1];
    profile
}

#[test]
fn a_profile_without_valid_samples_is_refused_but_one_of_zeros_is_not() {
    let mut discarded = DiscardCounts::default();
    assert!(check_counted(&valued(&[0]), &[], &discarded).is_ok());
    discarded.count(crate::receipt::Reason::NegativeValue, 1);
    let refused = check_counted(&valued(&[0, -1]), &[], &discarded).unwrap_err();
    assert_eq!(refused.to_string(), "none of 2 samples of the profile can be kept: 1 with a negative value");
    assert!(check_counted(&valued(&[5, -1]), &[0], &discarded).is_ok());
}

#[test]
fn a_difference_of_two_profiles_is_refused_as_one() {
    let mut discarded = DiscardCounts::default();
    discarded.count(crate::receipt::Reason::NegativeValue, 1);
    let mut profile = valued(&[5, -1]);
    profile.samples.labels = vec![SampleLabel { key: 2, string: 1, ..SampleLabel::default() }];
    profile.samples.label_offsets = vec![0, 0, 1];
    let refused = check_counted(&profile, &[0], &discarded).unwrap_err();
    assert!(matches!(refused, Error::Difference { .. }), "{refused}");
    assert!(check_counted(&profile, &[0], &DiscardCounts::default()).is_ok(), "no value was subtracted");
}

#[test]
fn sums_of_a_column_fit_63_bits() {
    let none = DiscardCounts::default();
    assert!(check_counted(&valued(&[i64::MAX]), &[0], &none).is_ok());
    let refused = check_counted(&valued(&[i64::MAX, 1]), &[0, 1], &none).unwrap_err();
    assert_eq!(refused.to_string(), "values of sample type \"cpu\" are together more than 2^63 - 1");
    assert!(check_counted(&valued(&[i64::MAX, 1]), &[1], &none).is_ok());
}

#[test]
fn a_string_that_is_not_utf8_is_named_by_its_holder() {
    let refused = |change: fn(&mut Profile)| {
        let mut sent = decoded(1, &[b"caf\xe9", b"digest"]);
        change(&mut sent.profile);
        validate(sent, &Labels::default(), &Limits::default(), NOW).unwrap_err().to_string()
    };
    let cases: [(&str, fn(&mut Profile)); 5] = [
        ("string 2 of the profile", |_| {}),
        ("value of sample label \"digest\"", |profile| {
            profile.samples.labels = vec![SampleLabel { key: 3, string: 2, ..SampleLabel::default() }];
            profile.samples.label_offsets = vec![0, 1];
        }),
        ("type or unit", |profile| profile.sample_types[0].unit = 2),
        ("name of function 0", |profile| {
            profile.symbols.functions.push(model::Function { name: 2, ..Default::default() });
        }),
        ("file or build id of mapping 0", |profile| {
            profile.symbols.mappings.push(model::Mapping { filename: 2, ..Default::default() });
        }),
    ];
    for (holder, change) in cases {
        assert_eq!(refused(change), format!("{holder} is not UTF-8: \"caf\\xe9\""));
    }
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
fn a_flaw_of_the_document_is_reported() {
    let sent = DecodedProfile { flaw: Some(Flaw::NoStrings), ..decoded(1, &[]) };
    assert_eq!(refusal(sent, &Limits::default()), Some("malformed_profile"));
}
