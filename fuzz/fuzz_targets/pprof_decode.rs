//! Every decoded index is within bounds, and encoding a decoded profile again is a fixed point.
#![no_main]

use bytes::Bytes;
use formats::pprof::{self, Limits};
use libfuzzer_sys::fuzz_target;
use model::NONE;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let data = Bytes::copy_from_slice(data);
    let _ = pprof::decode_dotnet(data.clone(), &limits);
    let Ok(decoded) = pprof::decode(data, &limits) else {
        return;
    };
    let profile = &decoded.profile;
    let symbols = &profile.symbols;
    let strings = symbols.strings.len() as u32;
    let within = |index: u32, count: usize| index == NONE || (index as usize) < count;
    assert!(symbols.strings.get(0).is_empty() && strings > 0);
    assert!(symbols.functions.iter().all(|f| f.name.max(f.system_name).max(f.filename) < strings));
    assert!(symbols.mappings.iter().all(|m| m.filename.max(m.build_id) < strings));
    assert!(symbols.locations.mapping.iter().all(|m| within(*m, symbols.mappings.len())));
    let locations = 0..symbols.locations.len() as u32;
    for line in locations.flat_map(|l| symbols.locations.lines_of(l)) {
        assert!(within(line.function, symbols.functions.len()));
    }
    assert!(symbols.stacktraces.locations.iter().all(|l| within(*l, symbols.locations.len())));
    assert_eq!(symbols.stacktraces.len(), profile.samples.len());
    assert_eq!(profile.samples.values.len(), profile.samples.len() * profile.sample_types.len());
    for sample in 0..profile.samples.len() {
        let labels = profile.samples.labels_of(sample);
        assert!(labels.iter().all(|l| l.key.max(l.string).max(l.unit) < strings));
    }
    let encoded = pprof::encode(profile);
    let again = pprof::decode(encoded.clone().into(), &limits).expect("own encoding");
    assert_eq!(pprof::encode(&again.profile), encoded);
});
