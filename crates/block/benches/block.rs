//! The cost of a profile in this crate, from append to scan, as a table. Run: `cargo bench -p block`.

#![allow(clippy::expect_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use block::{Batch, Cache, EncodedObject, Head, MergeInput, MergeOptions, Origin, Reader, Sections, merge};
use clock::Pool;
use model::{JobId, PushItem, WriterId};
use storage::{Key, Store};
use support::{Program, Random, Shape, item};

const SAMPLES: usize = 560;

/// Midnight.
const START_SECONDS: i64 = 1_700_006_400;

/// Profiles of two services and two types, one per pod every 15 s.
fn profiles(count: usize) -> Vec<PushItem> {
    profiles_every(count, 15)
}

/// As [`profiles`], with this many seconds between two profiles of a pod.
fn profiles_every(count: usize, seconds: i64) -> Vec<PushItem> {
    let programs = [Program::new(1), Program::new(2)];
    let mut random = Random::new(3);
    (0..count)
        .map(|i| {
            let service = i % 2;
            let shape = Shape {
                tenant: "anonymous".into(),
                service: format!("service-{service}"),
                pod: i / 4 % 10,
                samples: SAMPLES,
                types: if i % 4 < 2 { 2 } else { 4 },
                time_nanos: (START_SECONDS + i as i64 / 40 * seconds) * 1_000_000_000,
                spans: false,
            };
            item(&programs[service], &mut random, &shape)
        })
        .collect()
}

struct Bench {
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// Measures processor time, so that other programs on the machine do not count.
    fn time<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let now = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let start = now();
        let result = work();
        (result, now() - start)
    }

    fn put(&self, name: &str, encoded: EncodedObject, cache: &Cache) -> Reader {
        let key = Key::from_text(name);
        let bytes_len = encoded.bytes.len() as u64;
        self.runtime.block_on(async {
            self.store.settle_create(&key, encoded.bytes).await.expect("in memory");
            Reader::open(&self.store, &key, bytes_len, cache).await.expect("opens")
        })
    }

    fn segments(&self, items: &[PushItem], per_segment: usize) -> Vec<EncodedObject> {
        let mut append = Duration::ZERO;
        let mut encode = Duration::ZERO;
        let mut head = Head::new();
        let mut segments = Vec::new();
        for chunk in items.chunks(per_segment) {
            append += self.time(|| chunk.iter().filter(|item| !head.append(item).duplicate).count()).1;
            let origin = Origin::Segment { writer: WriterId(1), seq: segments.len() as u64 };
            let (encoded, spent) = self.time(|| head.cut().encode(origin, 0).expect("encodes"));
            encode += spent;
            segments.push(encoded);
        }
        let (profiles, samples) = (items.len() as f64, (items.len() * SAMPLES) as f64);
        let bytes: usize = segments.iter().map(|s| s.bytes.len()).sum();
        let datasets = || segments.iter().flat_map(|s| &s.directory.datasets);
        let symbols: u64 = datasets().map(|d| u64::from(d.strings.bytes) + u64::from(d.symbols.bytes)).sum();
        row(
            &format!("append, {per_segment} per segment"),
            append.as_secs_f64() * 1e6 / profiles,
            "µs/profile",
        );
        row(
            &format!("cut and encode, {per_segment} per segment"),
            encode.as_secs_f64() * 1e6 / profiles,
            "µs/profile",
        );
        row("  stored", bytes as f64 / samples, "B/sample");
        row("  of it symbols", symbols as f64 / samples, "B/sample");
        segments
    }

    fn merge(&self, name: &str, inputs: Vec<Reader>, level: u8, samples: f64) -> Vec<Reader> {
        let inputs: Vec<MergeInput> = inputs.into_iter().map(MergeInput::whole).collect();
        let options = MergeOptions {
            job: JobId(u128::from(level)),
            attempt: 1,
            level,
            created_millis: 0,
            windows: Vec::new(),
            shard_bits: 0,
            memory: Default::default(),
        };
        let (outputs, spent) =
            self.time(|| self.runtime.block_on(merge(inputs, &options, &Pool::inline())).expect("merges"));
        let bytes: usize = outputs.iter().map(|o| o.encoded.bytes.len()).sum();
        let datasets = || outputs.iter().flat_map(|o| &o.encoded.directory.datasets);
        let symbols: u64 = datasets().map(|d| u64::from(d.strings.bytes) + u64::from(d.symbols.bytes)).sum();
        let trees: u64 = datasets().filter_map(|d| d.tree).map(|t| u64::from(t.bytes)).sum();
        row(name, spent.as_secs_f64() * 1e9 / samples, "ns/sample");
        row("  the same", spent.as_secs_f64() * 1e6 / samples * SAMPLES as f64, "µs/profile");
        row("  stored", bytes as f64 / samples, "B/sample");
        row("  of it symbols", symbols as f64 / samples, "B/sample");
        row("  of it trees", trees as f64 / samples, "B/sample");
        let cells = datasets().flat_map(|d| &d.cells);
        let cell_bytes: u64 = cells.map(|c| u64::from(c.head.bytes) + u64::from(c.chunk_bytes)).sum();
        row("  of it cells", cell_bytes as f64 / samples, "B/sample");
        let cache = Cache::new(0);
        outputs
            .into_iter()
            .enumerate()
            .map(|(part, output)| self.put(&format!("block/{level}/{part}"), output.encoded, &cache))
            .collect()
    }

    /// Adds the weight of every stacktrace of one dataset up to the root, as a flame graph does.
    fn flame(&self, block: &Reader) -> (u64, i64) {
        let fetched = self
            .runtime
            .block_on(block.fetch(0, Sections { index: true, tree: true, symbols: false }))
            .expect("fetches");
        let index = fetched.index().expect("whole");
        let tree = fetched.tree().expect("whole");
        let rows = 0..index.profiles.row_starts.last().copied().unwrap_or(0);
        let samples = self
            .runtime
            .block_on(block.fetch_samples(0, std::slice::from_ref(&rows), index.columns[0][0], false))
            .expect("fetches");
        let mut weights = vec![0_i64; block.stacktraces(0)];
        samples
            .for_each(|batch| {
                for (stack, value) in batch.stacks.iter().zip(batch.values) {
                    weights[*stack as usize] += value;
                }
            })
            .expect("whole");
        let mut sums = vec![0_i64; tree.len()];
        for (leaf, weight) in tree.leaves.iter().zip(&weights) {
            sums[*leaf as usize] += weight;
        }
        for node in 1..sums.len() {
            sums[node] += sums[node - 1];
        }
        (rows.end.into(), sums[sums.len() - 1])
    }

    fn scan(&self, name: &str, block: &Reader) {
        for (state, cache) in [("cold", Cache::new(0)), ("warm", Cache::new(1 << 30))] {
            let block = self
                .runtime
                .block_on(Reader::open(&self.store, block.key(), self.len(block), &cache))
                .expect("opens");
            if state == "warm" {
                self.flame(&block);
            }
            let ((rows, _), spent) = self.time(|| self.flame(&block));
            row(&format!("flame graph of one service, {name}, {state}"), spent.as_secs_f64() * 1e3, "ms");
            row("  the same", spent.as_secs_f64() * 1e9 / rows as f64, "ns/row");
        }
    }

    /// Sums the weight of every stacktrace of one type of one dataset from its cells of each length.
    fn sums(&self, block: &Reader) {
        let entry = &block.directory().datasets[0];
        for (position, section) in entry.cells.iter().enumerate() {
            let ((rows, weights), spent) = self.time(|| {
                let mut heads = self.runtime.block_on(block.fetch_cells(0, &[position])).expect("fetches");
                let head = heads.pop().expect("there is one");
                let cells = head.cells().expect("whole");
                let schema = cells.schema(0);
                let count = (0..cells.len()).take_while(|cell| cells.schema(*cell) == schema).count() as u32;
                let all = 0..count;
                let columns = std::iter::once((schema, 0, std::slice::from_ref(&all)));
                let sums = self.runtime.block_on(head.fetch_rows(columns)).expect("fetches");
                let mut weights = vec![0_i64; block.stacktraces(0)];
                let add = |batch: Batch<'_>| {
                    for (stack, value) in batch.stacks.iter().zip(batch.values) {
                        weights[*stack as usize] += value;
                    }
                };
                sums.for_each(add).expect("whole");
                (cells.rows(&all), weights)
            });
            let name = format!("stacktraces of one service, cells of {} s, cold", section.seconds);
            row(&name, spent.as_secs_f64() * 1e3, "ms");
            row("  rows", rows as f64, "");
            assert!(weights.iter().any(|weight| *weight != 0));
        }
    }

    fn len(&self, block: &Reader) -> u64 {
        self.runtime.block_on(self.store.get(block.key())).expect("in memory").len() as u64
    }
}

fn row(name: &str, value: f64, unit: &str) {
    println!("{name:<52} {value:>10.2} {unit}");
}

fn main() {
    let bench = Bench {
        store: Store::in_memory(),
        runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
    };
    let items = profiles(1200);
    let samples = (items.len() * SAMPLES) as f64;
    println!("{} profiles of {SAMPLES} samples, 2 services, one thread", items.len());
    bench.segments(&items, 300);
    let segments = bench.segments(&items, 25);
    let cache = Cache::new(0);
    let inputs: Vec<Reader> = segments
        .into_iter()
        .enumerate()
        .map(|(number, encoded)| bench.put(&format!("log/x/{number:012}"), encoded, &cache))
        .collect();
    bench.scan("one segment", &inputs[0]);
    let blocks = bench.merge("merge of segments", inputs, 1, samples);
    let blocks = bench.merge("merge of a block", blocks, 2, samples);
    bench.scan("one block", &blocks[0]);

    println!("the same, over a day");
    let items = profiles_every(2400, 1_400);
    let segments = bench.segments(&items, 300);
    let inputs = segments
        .into_iter()
        .enumerate()
        .map(|(number, encoded)| bench.put(&format!("log/y/{number:012}"), encoded, &cache))
        .collect();
    let blocks = bench.merge("merge of segments", inputs, 3, (items.len() * SAMPLES) as f64);
    bench.scan("one day", &blocks[0]);
    bench.sums(&blocks[0]);
}
