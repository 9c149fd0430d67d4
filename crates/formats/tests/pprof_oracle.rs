//! Our decoder and prost must agree on the same bytes.

mod corpus;
mod oracle;

use bytes::Bytes;
use formats::{gzip, pprof};
use proptest::prelude::*;
use prost::Message;
use wire::google::v1 as proto;

#[test]
fn every_profile_of_the_corpus_reads_as_prost_reads_it() {
    let mut compared = 0;
    for (path, bytes) in corpus::files(&["pprof", "corrupt"]) {
        let Ok(raw) = gzip::content(bytes.into(), 256 << 20) else {
            continue;
        };
        compared += usize::from(oracle::compare(raw, &path.display().to_string()));
    }
    eprintln!("{compared} profiles compared");
}

#[test]
fn every_profile_of_the_corpus_survives_encoding() {
    for (path, bytes) in corpus::files(&["pprof"]) {
        let Ok(raw) = gzip::content(bytes.into(), 256 << 20) else {
            continue;
        };
        let limits = pprof::Limits::default();
        let Ok(first) = pprof::decode(raw, &limits) else {
            continue;
        };
        let encoded = pprof::encode(&first.profile);
        let second = pprof::decode(encoded.clone().into(), &limits).unwrap();
        assert_eq!(pprof::encode(&second.profile), encoded, "{}", path.display());
    }
}

prop_compose! {
    fn value_type()(r#type in -1..8_i64, unit in 0..8_i64) -> proto::ValueType {
        proto::ValueType { r#type, unit }
    }
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..6_u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

prop_compose! {
    fn sample()(
        location_id in prop::collection::vec(id(), 0..5),
        value in prop::collection::vec(prop_oneof![0..3_i64, any::<i64>()], 1..3),
        labels in prop::collection::vec((0..8_i64, 0..8_i64, any::<i64>(), 0..9_i64), 0..3),
    ) -> proto::Sample {
        let label = labels.into_iter().map(|(key, str, num, num_unit)| proto::Label { key, str, num, num_unit });
        proto::Sample { location_id, value, label: label.collect() }
    }
}

prop_compose! {
    fn profile()(
        sample_type in prop::collection::vec(value_type(), 0..3),
        sample in prop::collection::vec(sample(), 0..6),
        mapping in prop::collection::vec((id(), any::<u64>(), any::<[bool; 4]>(), 0..8_i64), 0..4),
        location in prop::collection::vec(
            (id(), id(), any::<u64>(), prop::collection::vec((id(), any::<i64>()), 0..3), any::<bool>()),
            0..6,
        ),
        function in prop::collection::vec((id(), 0..8_i64, 0..8_i64, -1..8_i64, any::<i64>()), 0..6),
        string_table in prop::collection::vec("[a-zé]{0,3}", 0..9),
        numbers in any::<[i64; 3]>(),
        ids in prop::array::uniform3(-1..9_i64),
        period_type in prop::option::of(value_type()),
        comment in prop::collection::vec(-1..9_i64, 0..3),
    ) -> proto::Profile {
        proto::Profile {
            sample_type,
            sample,
            mapping: mapping.into_iter().map(|(id, number, flags, string)| proto::Mapping {
                id,
                memory_start: number,
                memory_limit: number / 2,
                file_offset: number / 3,
                filename: string,
                build_id: string / 2,
                has_functions: flags[0],
                has_filenames: flags[1],
                has_line_numbers: flags[2],
                has_inline_frames: flags[3],
            }).collect(),
            location: location.into_iter().map(|(id, mapping_id, address, lines, is_folded)| proto::Location {
                id,
                mapping_id,
                address,
                line: lines.into_iter().map(|(function_id, line)| proto::Line { function_id, line }).collect(),
                is_folded,
            }).collect(),
            function: function.into_iter().map(|(id, name, system_name, filename, start_line)| proto::Function {
                id, name, system_name, filename, start_line,
            }).collect(),
            string_table,
            drop_frames: ids[0],
            keep_frames: ids[1],
            default_sample_type: ids[2],
            time_nanos: numbers[0],
            duration_nanos: numbers[1],
            period: numbers[2],
            period_type,
            comment,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_reads_as_prost_reads_it(profile in profile()) {
        prop_assert!(oracle::compare(profile.encode_to_vec().into(), "generated"));
    }

    #[test]
    fn every_mutation_reads_as_prost_reads_it(
        profile in profile(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = profile.encode_to_vec();
        if !bytes.is_empty() {
            for (position, byte) in edits {
                let position = position.index(bytes.len());
                bytes[position] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        }
        oracle::compare(bytes.into(), "mutated");
    }

    #[test]
    fn random_bytes_read_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        oracle::compare(Bytes::from(bytes), "rubbish");
    }
}
