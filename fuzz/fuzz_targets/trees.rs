//! Trees and tries never make more samples than they have nodes, nor refer to a missing name.
#![no_main]

use formats::{ingest, trees};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let column = ingest::column("goroutines", 100).expect("a known column");
    for decode in [trees::decode_tree, trees::decode_trie] {
        if let Ok(profile) = decode(data, &column, 0) {
            // A node has at least three bytes.
            assert!(profile.samples.len() <= data.len() / 3);
            assert_eq!(profile.samples.values.len(), profile.samples.len());
            let symbols = &profile.symbols;
            assert_eq!(symbols.stacktraces.len(), profile.samples.len());
            let known = symbols.locations.len() as u32;
            assert!(symbols.stacktraces.locations.iter().all(|location| *location < known));
            assert!(symbols.stacktraces.locations.len() <= trees::LOCATIONS_MAX);
            assert!(symbols.strings.len() > symbols.functions.len());
        }
    }
});
