//! Compares our decoded profile with prost's message, reference by reference.

use bytes::Bytes;
use formats::pprof::{self, Flaw, Limits};
use model::{NONE, Profile};
use prost::Message;
use wire::google::v1 as proto;

/// Returns whether prost accepts the bytes. If it does, our decoder must accept them with the same result. If it does
/// not, our decoder may accept them only if their sole fault is text that is not UTF-8.
pub(crate) fn compare(raw: Bytes, origin: &str) -> bool {
    let ours = pprof::decode(raw.clone(), &Limits::default());
    let theirs = match proto::Profile::decode(raw) {
        Ok(theirs) => theirs,
        Err(error) => {
            let not_utf8 = error.to_string().contains("UTF-8");
            assert!(ours.is_err() || not_utf8, "{origin}: prost says {error}");
            return false;
        }
    };
    let ours = ours.unwrap_or_else(|error| panic!("{origin}: {error}"));
    let expected_flaw = flaw(&theirs);
    assert_eq!(ours.flaw, expected_flaw, "{origin}");
    same(&ours.profile, &theirs, origin);
    true
}

fn flaw(theirs: &proto::Profile) -> Option<Flaw> {
    if let Some(index) = theirs.location.iter().position(|l| l.id == 0) {
        return Some(Flaw::LocationIdZero { index });
    }
    if let Some(index) = theirs.function.iter().position(|f| f.id == 0) {
        return Some(Flaw::FunctionIdZero { index });
    }
    let sample_types = theirs.sample_type.len();
    if let Some(sample) = theirs.sample.iter().position(|s| s.value.len() != sample_types) {
        let values = theirs.sample[sample].value.len();
        return Some(Flaw::ValueCount { sample, values, sample_types });
    }
    match theirs.string_table.first() {
        None => return Some(Flaw::NoStrings),
        Some(first) if !first.is_empty() => return Some(Flaw::FirstString { bytes: first.len() }),
        Some(_) => {}
    }
    let strings = theirs.string_table.len();
    let outside = |ids: &[i64]| ids.iter().any(|id| *id < 0 || *id as usize >= strings);
    let labels = theirs.sample.iter().flat_map(|s| &s.label);
    let holders = [
        ("sample type", theirs.sample_type.iter().any(|t| outside(&[t.r#type]))),
        ("sample label", labels.into_iter().any(|l| outside(&[l.key, l.str]))),
        ("function", theirs.function.iter().any(|f| outside(&[f.name, f.system_name, f.filename]))),
        ("mapping", theirs.mapping.iter().any(|m| outside(&[m.filename, m.build_id]))),
    ];
    let holder = holders.into_iter().find(|(_, is_outside)| *is_outside)?.0;
    Some(Flaw::StringIndex { holder, strings })
}

/// Index of the last element with this id.
fn index(ids: &[u64], id: u64) -> u32 {
    let position = ids.iter().rposition(|other| *other == id && id != 0);
    position.map_or(NONE, |index| index as u32)
}

fn same(ours: &Profile, theirs: &proto::Profile, origin: &str) {
    let symbols = &ours.symbols;
    let table = theirs.string_table.len().max(1);
    let string = |id: i64| {
        if id < 0 || id as usize >= table { 0 } else { id as u32 }
    };
    assert_eq!(symbols.strings.len(), table);
    for (id, text) in theirs.string_table.iter().enumerate().skip(1) {
        assert_eq!(symbols.strings.get(id as u32), text.as_bytes(), "{origin}: string {id}");
    }
    assert!(symbols.strings.get(0).is_empty());

    let functions: Vec<u64> = theirs.function.iter().map(|f| f.id).collect();
    let mappings: Vec<u64> = theirs.mapping.iter().map(|m| m.id).collect();
    assert_eq!(symbols.functions.len(), functions.len());
    for (a, b) in symbols.functions.iter().zip(&theirs.function) {
        let got = (a.name, a.system_name, a.filename, a.start_line);
        let expected = (string(b.name), string(b.system_name), string(b.filename), b.start_line);
        assert_eq!(got, expected, "{origin}");
    }
    assert_eq!(symbols.mappings.len(), mappings.len());
    for (a, b) in symbols.mappings.iter().zip(&theirs.mapping) {
        assert_eq!((a.filename, a.build_id), (string(b.filename), string(b.build_id)));
        let got = (a.memory_start, a.memory_limit, a.file_offset);
        assert_eq!(got, (b.memory_start, b.memory_limit, b.file_offset));
        let got = [a.has_functions, a.has_filenames, a.has_line_numbers, a.has_inline_frames];
        assert_eq!(got, [b.has_functions, b.has_filenames, b.has_line_numbers, b.has_inline_frames]);
    }

    let locations = &symbols.locations;
    assert_eq!(locations.len(), theirs.location.len());
    let mut location_ids = Vec::new();
    let mut broken = Vec::new();
    for (i, b) in theirs.location.iter().enumerate() {
        location_ids.push(b.id);
        let mapping = index(&mappings, b.mapping_id);
        assert_eq!((locations.mapping[i], locations.address[i]), (mapping, b.address));
        assert_eq!(locations.folded[i], b.is_folded);
        let lines = b.line.iter().map(|l| (index(&functions, l.function_id), l.line));
        let lines: Vec<_> = lines.collect();
        let got = locations.lines_of(i as u32).iter().map(|l| (l.function, l.line));
        assert_eq!(got.collect::<Vec<_>>(), lines, "{origin}: location {i}");
        let lacks_function = lines.iter().any(|(function, _)| *function == NONE);
        broken.push(lacks_function);
    }
    // A map, because real profiles have tens of thousands of them; inserted in order, so that the last stays.
    let by_id: std::collections::HashMap<u64, u32> = location_ids.into_iter().zip(0..).collect();
    let location = |id: &u64| match by_id.get(id) {
        Some(index) if *id != 0 && !broken[*index as usize] => *index,
        _ => NONE,
    };

    let each = theirs.sample_type.len();
    let kept: Vec<_> = theirs.sample.iter().filter(|s| s.value.len() == each).collect();
    assert_eq!(ours.samples.len(), kept.len(), "{origin}");
    assert_eq!(ours.samples.values.len(), kept.len() * each);
    assert_eq!(symbols.stacktraces.len(), kept.len());
    for (i, b) in kept.into_iter().enumerate() {
        let stack: Vec<u32> = b.location_id.iter().map(location).collect();
        assert_eq!(symbols.stacktraces.get(i as u32), stack, "{origin}: sample {i}");
        assert_eq!(ours.samples.values[i * each..(i + 1) * each], b.value);
        let labels = b.label.iter();
        let labels = labels.map(|l| (string(l.key), string(l.str), l.num, string(l.num_unit)));
        let got = ours.samples.labels_of(i).iter().map(|l| (l.key, l.string, l.number, l.unit));
        assert!(got.eq(labels), "{origin}: labels of sample {i}");
    }

    let types = theirs.sample_type.iter().map(|t| (string(t.r#type), string(t.unit)));
    assert!(ours.sample_types.iter().map(|t| (t.r#type, t.unit)).eq(types));
    let period_type = theirs.period_type.as_ref().map(|t| (string(t.r#type), string(t.unit)));
    assert_eq!(ours.period_type.map(|t| (t.r#type, t.unit)), period_type);
    let got = (ours.period, ours.time_nanos, ours.duration_nanos);
    assert_eq!(got, (theirs.period, theirs.time_nanos, theirs.duration_nanos));
    let got = [ours.default_sample_type, ours.drop_frames, ours.keep_frames];
    let ids = [theirs.default_sample_type, theirs.drop_frames, theirs.keep_frames];
    assert_eq!(got, ids.map(string));
    assert!(ours.comments.iter().copied().eq(theirs.comment.iter().map(|id| string(*id))));
}
