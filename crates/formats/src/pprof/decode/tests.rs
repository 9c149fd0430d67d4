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

fn decoded(fields: &[(u8, &[u8])]) -> Decoded {
    let fields: Vec<_> = [TYPE]
        .iter()
        .chain(fields)
        .chain(&STRINGS)
        .copied()
        .collect();
    decode(document(&fields), &Limits::default()).unwrap()
}

fn stack(decoded: &Decoded, sample: u32) -> &[u32] {
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
    assert_eq!(
        symbols.locations.lines_of(0),
        [Line {
            function: 0,
            line: 0
        }]
    );
    assert_eq!(symbols.strings.get(symbols.functions[0].name), b"main");
    assert_eq!(got.profile.samples.values, [5]);
}
