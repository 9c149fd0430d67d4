//! Any bytes make valid profiles or an error: every index is within bounds, and tables are as long as they should be.
//! The input is a recording, behind one byte with the length of the labels that come first.
#![no_main]

use formats::jfr::{self, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let (labels, recording) = rest.split_at(rest.len().min(usize::from(*length)));
    let options = Options { sample_rate: (length % 2 == 0).then_some(100), ..Options::default() };
    let Ok(recording) = jfr::decode(recording, labels, &options) else {
        return;
    };
    for named in recording.profiles {
        let profile = named.profile;
        let symbols = &profile.symbols;
        let strings = symbols.strings.len() as u32;
        assert!(symbols.strings.get(0).is_empty());
        assert!(symbols.strings.iter().all(|string| std::str::from_utf8(string).is_ok()));
        assert!(symbols.functions.iter().all(|function| function.name < strings));
        assert!(symbols.locations.mapping.iter().all(|mapping| *mapping == 0));
        for location in 0..symbols.locations.len() as u32 {
            let [line] = symbols.locations.lines_of(location) else { panic!("not one line") };
            assert!((line.function as usize) < symbols.functions.len() && line.line >= 0);
        }
        assert!(symbols.stacktraces.locations.iter().all(|l| (*l as usize) < symbols.locations.len()));
        assert_eq!(symbols.stacktraces.len(), profile.samples.len());
        assert_eq!(profile.samples.values.len(), profile.samples.len() * profile.sample_types.len());
        for label in &profile.samples.labels {
            assert!(label.key.max(label.string) < strings);
        }
    }
});
