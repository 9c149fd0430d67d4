//! Text never makes more samples than it has lines, nor values other than its counts; parameters never panic.
#![no_main]

use bytes::Bytes;
use formats::{folded, ingest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let column = ingest::column("goroutines", 100).expect("a known column");
    let text = Bytes::copy_from_slice(data);
    let lines = data.split(|byte| *byte == b'\n').count();
    let groups = folded::decode_groups(text.clone(), &column, 0).map(|groups| {
        let skipped = groups.skipped.without_count + groups.skipped.from_long_line;
        assert!(groups.profile.samples.len() + skipped <= lines);
        groups.profile
    });
    for decoded in [groups, folded::decode_lines(text.clone(), &column, 0)] {
        if let Ok(profile) = decoded {
            assert!(profile.samples.len() <= lines);
            assert_eq!(profile.samples.values.len(), profile.samples.len());
            assert!(profile.symbols.strings.len() >= profile.symbols.functions.len());
        }
    }
    let text = String::from_utf8_lossy(data);
    let _ = ingest::AppName::parse(&text).map(|name| name.split_column() == ("", ""));
    ingest::attime(&text, 1_750_000_000_000_000_000);
    let _ = ingest::SampleTypeConfig::parse(data);
});
