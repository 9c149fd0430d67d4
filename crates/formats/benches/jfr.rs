//! JFR decoding, on recordings of the corpus, small to huge.

#[path = "../tests/corpus/mod.rs"]
mod corpus;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use formats::gzip;
use formats::jfr::{self, Options};

const CORPUS: [&str; 4] = [
    "cortex-dev-01__kafka-0__cpu_lock0_alloc0__0.jfr.gz",
    "async-profiler.jfr.gz",
    "goland-multichunk.jfr.gz",
    "jmc-hotmethods.jfr",
];

fn decoding(criterion: &mut Criterion) {
    let options = Options { sample_rate: Some(100), ..Options::default() };
    for (path, bytes) in corpus::files_in("corpus", &["jfr"]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if CORPUS.contains(&name.as_str())
            && let Ok(raw) = gzip::content(bytes.into(), 256 << 20)
        {
            let mut group = criterion.benchmark_group(format!("decode {name}, {} bytes", raw.len()));
            group.throughput(Throughput::Bytes(raw.len() as u64));
            group.bench_function("ours", |bencher| bencher.iter(|| jfr::decode(&raw, b"", &options)));
            group.finish();
        }
    }
}

criterion_group!(benches, decoding);
criterion_main!(benches);
