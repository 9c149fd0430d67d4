//! Tests of the counted samples and of the uniform symbols.

use model::{Function, Line, ValueType};

use super::*;

/// One mapping with functions and one without; locations 0 to 4: with a line in mapping 0, with an address
/// in mapping 1, empty, with a line and without mapping, with an address in mapping 0.
fn profile(samples: &[(&[i64], &[u32])]) -> Profile {
    let mut profile = Profile::default();
    profile.symbols.strings.push(b"");
    profile.symbols.mappings = vec![
        Mapping { memory_start: 1, has_functions: true, ..Mapping::default() },
        Mapping { memory_start: 1, ..Mapping::default() },
    ];
    profile.symbols.functions = vec![Function::default()];
    let line = [Line { function: 0, line: 1 }];
    profile.symbols.locations.push(0, 10, false, &line);
    profile.symbols.locations.push(1, 11, false, &[]);
    profile.symbols.locations.push(0, 0, false, &[]);
    profile.symbols.locations.push(NONE, 13, false, &line);
    profile.symbols.locations.push(0, 14, false, &[]);
    let columns = samples.first().map_or(1, |(values, _)| values.len());
    profile.sample_types = vec![ValueType::default(); columns];
    for (values, stacktrace) in samples {
        profile.samples.values.extend_from_slice(values);
        profile.samples.label_offsets.push(0);
        profile.symbols.stacktraces.push(stacktrace);
    }
    profile
}

#[test]
fn samples_that_cannot_count_are_dropped() {
    let check = |values: &[i64], stacktrace: &[u32], counts: bool| {
        let counted = normalise(&mut profile(&[(values, stacktrace), (&vec![1; values.len()], &[])]));
        let expected: &[u32] = if counts { &[0, 1] } else { &[1] };
        assert_eq!(counted.samples, expected, "{values:?} {stacktrace:?}");
    };
    check(&[1], &[0], true);
    check(&[0], &[0], false);
    check(&[-1], &[0], false);
    check(&[0, 0], &[0], false);
    check(&[0, 5], &[0], true);
    check(&[7, -5], &[0], false);
    check(&[i64::MIN, 1], &[0], false);
    check(&[1], &[], true);
    check(&[1], &[0, NONE], false);
    check(&[1], &[0, 2], false);
    check(&[1], &[4, 1], true);
}

#[test]
fn dropped_samples_are_counted_by_reason_but_zeros_are_not() {
    let samples: [(&[i64], &[u32]); 6] =
        [(&[1], &[0]), (&[0], &[0]), (&[-1], &[0]), (&[-2], &[NONE]), (&[1], &[NONE]), (&[1], &[2])];
    let counted = normalise(&mut profile(&samples));
    assert_eq!(counted.samples, [0]);
    assert_eq!(counted.discarded.header(), "negative_value=2, unknown_location=2");
}

#[test]
fn addresses_stay_only_where_functions_are_unknown() {
    let mut profile = profile(&[(&[1], &[0])]);
    normalise(&mut profile);
    assert_eq!(profile.symbols.locations.address, [0, 11, 0, 13, 0]);
    assert_eq!(profile.symbols.mappings[0].memory_start, 0);
    assert_eq!(profile.symbols.mappings[1].memory_start, 1);
}

#[test]
fn locations_without_mapping_share_an_empty_one() {
    let mut profile = profile(&[(&[1], &[3])]);
    normalise(&mut profile);
    assert_eq!(profile.symbols.mappings.len(), 3);
    assert_eq!(profile.symbols.mappings[2], Mapping::default());
    assert_eq!(profile.symbols.locations.mapping, [0, 1, 0, 2, 0]);
}

#[test]
fn type_parameters_of_go_are_removed() {
    let check = |name: &str, expected: &str| {
        let mut profile = profile(&[]);
        let id = profile.symbols.strings.push(name.as_bytes());
        strip_go_shapes(&mut profile);
        assert_eq!(profile.symbols.strings.text(id), expected);
    };
    check("main.run", "main.run");
    check("foo[go.shape.int].bar", "foo.bar");
    check("foo[go.shape.[]uint8,go.shape.map[string]int].bar", "foo.bar");
    check("a[go.shape.int]b[go.shape.string]c", "abc");
    check("a[go.shape.int]b[go.shape.string", "ab[go.shape.string");
    check("foo[go.shape.int", "foo[go.shape.int");
    check("foo[int]", "foo[int]");
    check("[go.shape.int]", "");
}
