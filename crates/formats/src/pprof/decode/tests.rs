//! Tests of the pprof decoder, with documents built from bytes.

use super::*;
use crate::pprof::encode;

/// A document in bytes: `(field, content)` of length-delimited fields.
fn document(fields: &[(u8, &[u8])]) -> Bytes {
    let mut bytes = Vec::new();
    for (field, content) in fields {
        bytes.push(field << 3 | 2);
        bytes.push(content.len() as u8);
        bytes.extend_from_slice(content);
    }
    bytes.into()
}

const TYPE: (u8, &[u8]) = (1, &[0x08, 1, 0x10, 2]);
const STRINGS: [(u8, &[u8]); 4] = [(6, b""), (6, b"cpu"), (6, b"ns"), (6, b"main")];

fn decoded(fields: &[(u8, &[u8])]) -> DecodedProfile {
    let fields: Vec<_> = [TYPE].iter().chain(fields).chain(&STRINGS).copied().collect();
    decode(document(&fields), &Limits::default()).unwrap()
}

fn stack(decoded: &DecodedProfile, sample: u32) -> &[u32] {
    decoded.profile.symbols.stacktraces.get(sample)
}

#[test]
fn references_are_resolved_whatever_the_order_of_fields_and_ids() {
    let got = decoded(&[
        (2, &[0x0a, 2, 9, 7, 0x12, 1, 5]),
        (4, &[0x08, 7, 0x10, 3, 0x22, 2, 0x08, 100]),
        (4, &[0x08, 9, 0x18, 0x10]),
        (5, &[0x08, 100, 0x10, 3]),
        (3, &[0x08, 3]),
    ]);
    assert_eq!(got.flaw, None);
    assert_eq!(stack(&got, 0), [1, 0]);
    let symbols = &got.profile.symbols;
    assert_eq!(symbols.locations.mapping, [0, NONE]);
    assert_eq!(symbols.locations.lines_of(0), [Line { function: 0, line: 0 }]);
    assert_eq!(symbols.strings.get(symbols.functions[0].name), b"main");
    assert_eq!(got.profile.samples.values, [5]);
}

#[test]
fn ids_may_be_any_64_bit_numbers() {
    let id = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let sample = [&[0x08][..], &id, &[0x08, 1, 0x10, 5]].concat();
    let location = [&[0x08][..], &id].concat();
    let got = decoded(&[(2, &sample), (4, &[0x08, 1]), (4, &location)]);
    assert_eq!(got.flaw, None);
    assert_eq!(stack(&got, 0), [1, 0]);
}

#[test]
fn ids_far_apart_are_found() {
    let got = decoded(&[
        (2, &[0x0a, 4, 0x80, 0x80, 0x40, 3, 0x12, 1, 5]),
        (4, &[0x08, 3]),
        (4, &[0x08, 0x80, 0x80, 0x40]),
    ]);
    assert_eq!(stack(&got, 0), [1, 0]);
}

#[test]
fn the_last_of_equal_ids_counts() {
    let got = decoded(&[(2, &[0x08, 2, 0x10, 5]), (4, &[0x08, 2]), (4, &[0x08, 2])]);
    assert_eq!(stack(&got, 0), [1]);
}

#[test]
fn dangling_references_and_broken_locations_become_none_but_a_mapping_may_be_missing() {
    let got = decoded(&[
        (2, &[0x0a, 4, 1, 2, 3, 9, 0x12, 1, 5]),
        (4, &[0x08, 1]),
        (4, &[0x08, 2, 0x10, 77]),
        (4, &[0x08, 3, 0x22, 2, 0x08, 88]),
    ]);
    assert_eq!(got.flaw, None);
    assert_eq!(stack(&got, 0), [0, 1, NONE, NONE]);
    assert_eq!(got.profile.symbols.locations.mapping[1], NONE);
}

#[test]
fn flaws_are_reported_in_the_order_of_validation() {
    let check = |fields: &[(u8, &[u8])], expected: Flaw| {
        assert_eq!(decoded(fields).flaw, Some(expected), "{fields:?}");
    };
    let bad_function = (5, &[0x08, 1, 0x10, 4][..]);
    check(&[(5, &[]), (4, &[])], Flaw::LocationIdZero { index: 0 });
    check(&[(5, &[0x08, 1]), (5, &[]), (2, &[0x10, 1, 0x10, 2])], Flaw::FunctionIdZero { index: 1 });
    check(
        &[bad_function, (2, &[0x10, 1]), (2, &[0x10, 1, 0x10, 2])],
        Flaw::ValueCount { sample: 1, values: 2, sample_types: 1 },
    );
    let outside = |holder| Flaw::StringIndex { holder, strings: 4 };
    check(&[bad_function], outside("function"));
    check(&[(1, &[0x08, 9]), bad_function], outside("sample type"));
    check(&[(2, &[0x10, 1, 0x1a, 2, 0x08, 4])], outside("sample label"));
    check(&[(3, &[0x08, 1, 0x30, 5])], outside("mapping"));
    let none = decode(document(&[]), &Limits::default()).unwrap();
    assert_eq!(none.flaw, Some(Flaw::NoStrings));
    let first = decode(document(&[(6, b"cpu")]), &Limits::default()).unwrap();
    assert_eq!(first.flaw, Some(Flaw::FirstString { bytes: 3 }));
    assert_eq!(first.profile.symbols.strings.get(0), b"");
}

#[test]
fn units_outside_of_the_table_are_no_flaw() {
    let got = decoded(&[(1, &[0x08, 1, 0x10, 99]), (2, &[0x12, 2, 1, 1]), (11, &[0x08, 98])]);
    assert_eq!(got.flaw, None);
    assert_eq!(got.profile.sample_types[1].unit, 0);
    assert_eq!(got.profile.period_type, Some(ValueType::default()));
}

#[test]
fn samples_with_another_number_of_values_are_left_out() {
    let check = |counts: &[u8], expected: &[i64]| {
        let samples: Vec<Vec<u8>> =
            (1..).zip(counts).map(|(value, count)| [0x10, value].repeat(*count as usize)).collect();
        let fields: Vec<(u8, &[u8])> = samples.iter().map(|sample| (2, &sample[..])).collect();
        let got = decoded(&fields);
        assert_eq!(got.profile.samples.values, expected, "{counts:?}");
        assert_eq!(got.profile.samples.len(), expected.len());
        assert_eq!(got.profile.symbols.stacktraces.len(), expected.len());
        assert_eq!(got.flaw.is_none(), counts.iter().all(|count| *count == 1));
    };
    check(&[1, 1, 1], &[1, 2, 3]);
    check(&[2, 1, 0, 1], &[2, 4]);
    check(&[0, 1], &[2]);
    check(&[1, 1, 0], &[1, 2]);
    check(&[0, 0], &[]);
    check(&[2, 2], &[]);
    check(&[0, 2], &[]);
    check(&[], &[]);
}

#[test]
fn a_document_of_dotnet_gets_its_ids_and_names() {
    let fields = [
        (1, &[0x08, 1][..]),
        (2, &[0x08, 5, 0x10, 1]),
        (4, &[0x08, 5, 0x22, 2, 0x08, 5]),
        (5, &[0x10, 1]),
        (6, b""),
        (6, b"inuse-space"),
    ];
    let limits = Limits::default();
    let standard = decode(document(&fields), &limits).unwrap();
    assert_eq!(standard.flaw, Some(Flaw::FunctionIdZero { index: 0 }));
    let dotnet = decode_dotnet(document(&fields), &limits).unwrap();
    assert_eq!(dotnet.flaw, None);
    assert_eq!(stack(&dotnet, 0), [0]);
    assert_eq!(dotnet.profile.symbols.locations.lines[0].function, 0);
    let name = dotnet.profile.sample_types[0].r#type;
    assert_eq!(dotnet.profile.symbols.strings.get(name), b"inuse_space");
}

#[test]
fn limits_bound_every_kind_of_element() {
    let none = Limits { bytes: 100, samples: 0, labels: 0, mappings: 0, locations: 0, functions: 0 };
    let check = |field: (u8, &[u8]), limits: Limits, kind: &'static str| {
        let refused = decode(document(&[field]), &limits).unwrap_err();
        assert_eq!(refused, Error::TooMany { kind, limit: 0 });
    };
    check((2, &[]), none, "samples");
    check((2, &[0x1a, 0]), Limits { samples: 1, ..none }, "labels");
    check((3, &[]), none, "mappings");
    check((4, &[]), none, "locations");
    check((5, &[]), none, "functions");
    let refused = decode(Bytes::from(vec![0; 101]), &none).unwrap_err();
    assert_eq!(refused, Error::TooLarge { bytes: 101, limit: 100 });
}

#[test]
fn a_known_field_of_another_wire_type_is_refused() {
    let refused = decode(Bytes::from_static(&[0x10, 1]), &Limits::default()).unwrap_err();
    assert!(matches!(refused, Error::WireType { message: "profile", field: 2, .. }));
}

#[test]
fn encoding_and_decoding_returns_the_same_profile() {
    let got = decoded(&[
        (2, &[0x0a, 2, 1, 2, 0x12, 1, 5, 0x1a, 4, 0x08, 1, 0x10, 2]),
        (2, &[0x12, 1, 0]),
        (3, &[0x08, 1, 0x10, 5, 0x28, 3, 0x38, 1]),
        (4, &[0x08, 1, 0x10, 1, 0x22, 2, 0x08, 1, 0x22, 4, 0x08, 1, 0x10, 7]),
        (4, &[0x08, 2, 0x18, 9, 0x28, 1]),
        (5, &[0x08, 1, 0x10, 3, 0x28, 4]),
        (11, &[0x08, 1]),
        (13, &[1, 2]),
    ]);
    assert_eq!(got.flaw, None);
    let again = decode(encode(&got.profile).into(), &Limits::default()).unwrap();
    assert_eq!(encode(&again.profile), encode(&got.profile));
    // Strings are stored elsewhere now; everything else is the same.
    let (mut a, mut b) = (got.profile, again.profile);
    assert!(a.symbols.strings.iter().eq(b.symbols.strings.iter()));
    (a.symbols.strings, b.symbols.strings) = Default::default();
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}
