//! pprof decoding: our decoder and prost, over the same bytes.

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use formats::{gzip, pprof};
use model::{Function, Line, Mapping, Profile, SampleLabel, ValueType};
use prost::Message;
use wire::google::v1 as proto;

/// Representative profiles of the corpus, small to huge.
const CORPUS: [&str; 4] =
    ["flameshow-profile-10seconds.out", "badger-2026-06-cpu.prof", "og-heap.pb.gz", "large.cpu"];

/// A CPU profile of a Go service, as agents send one every 15 s: 550 samples, about 105 kB.
fn synthetic() -> Profile {
    let mut profile = Profile::default();
    let symbols = &mut profile.symbols;
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    symbols.strings.push(b"");
    let mut value_type = |r#type: &str, unit: &str| ValueType {
        r#type: symbols.strings.push(r#type.as_bytes()),
        unit: symbols.strings.push(unit.as_bytes()),
    };
    profile.sample_types = vec![value_type("samples", "count"), value_type("cpu", "nanoseconds")];
    profile.period_type = Some(value_type("cpu", "nanoseconds"));
    profile.period = 10_000_000;
    profile.time_nanos = 1_750_000_000_000_000_000;
    profile.duration_nanos = 15_000_000_000;
    let label_key = symbols.strings.push(b"endpoint");
    let label_value = symbols.strings.push(b"/api/v1/orders");
    symbols.mappings.push(Mapping { has_functions: true, memory_limit: 1 << 24, ..Mapping::default() });
    let files: Vec<_> = (0..150)
        .map(|i| {
            symbols.strings.push(format!("/go/src/example.com/shop/pkg{}/file{i}.go", i % 20).as_bytes())
        })
        .collect();
    for i in 0..850 {
        let name = format!("example.com/shop/pkg{}.(*Service{}).handleRequest{i}", i % 20, i % 70);
        let name = symbols.strings.push(name.as_bytes());
        symbols.functions.push(Function {
            name,
            system_name: name,
            filename: files[random(150) as usize],
            start_line: random(900) as i64,
        });
    }
    for i in 0..1150 {
        let lines: Vec<Line> = (0..1 + random(10) / 8)
            .map(|_| Line { function: random(850) as u32, line: random(2000) as i64 })
            .collect();
        symbols.locations.push(0, 0x40_0000 + i * 977, false, &lines);
    }
    for _ in 0..550 {
        let depth = 6 + random(26);
        let stack: Vec<u32> = (0..depth).map(|_| random(1150) as u32).collect();
        symbols.stacktraces.push(&stack);
        let count = 1 + random(4) as i64;
        profile.samples.values.extend([count, count * 10_000_000]);
        if random(2) == 0 {
            profile.samples.labels.push(SampleLabel {
                key: label_key,
                string: label_value,
                ..SampleLabel::default()
            });
        }
        profile.samples.label_offsets.push(profile.samples.labels.len() as u32);
    }
    profile
}

fn decoding(criterion: &mut Criterion) {
    let mut documents = vec![("synthetic".to_owned(), Bytes::from(pprof::encode(&synthetic())))];
    for (path, bytes) in corpus::files(&["pprof"]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if CORPUS.contains(&name.as_str())
            && let Ok(raw) = gzip::content(bytes.into(), 256 << 20)
        {
            documents.push((name, raw));
        }
    }
    for (name, raw) in documents {
        let mut group = criterion.benchmark_group(format!("decode {name}, {} bytes", raw.len()));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function("ours", |bencher| {
            bencher.iter(|| pprof::decode(raw.clone(), &pprof::Limits::default()));
        });
        group.bench_function("prost", |bencher| {
            bencher.iter(|| proto::Profile::decode(raw.clone()));
        });
        group.finish();

        let zipped = gzip::compress(&raw, 6);
        let mut group = criterion.benchmark_group(format!("gunzip {name}, {} bytes", zipped.len()));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function("ours", |bencher| {
            bencher.iter(|| gzip::decompress(&zipped, 256 << 20));
        });
        group.finish();
    }
}

criterion_group!(benches, decoding);
criterion_main!(benches);
