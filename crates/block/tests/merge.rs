//! Merging keeps every sum and puts every profile into the output of its tenant, window and shard.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use block::{
    Cache, ErasedProfiles, Erasure, Head, MergeInput, MergeOptions, Origin, Reader, merge, shard_of,
    window_of,
};
use clock::Pool;
use memory::Share;
use model::{JobId, Window, WriterId};
use proptest::prelude::*;
use storage::{Key, Store};
use support::{Program, Random, Shape, Sums, item, sums_of_items, sums_of_object};

const START_SECONDS: i64 = 1_700_000_100;

fn options(level: u8) -> MergeOptions {
    MergeOptions {
        job: JobId(9),
        attempt: 1,
        level,
        created_millis: 7,
        windows: [0, 2].map(|after| Window { start: START_SECONDS + after, length: 2 }).to_vec(),
        shard_bits: level - 1,
        memory: Default::default(),
    }
}

async fn put(
    store: &Store,
    cache: &Cache,
    number: usize,
    bytes: bytes::Bytes,
) -> Result<Reader, block::Error> {
    let key = Key::from_text(format!("log/test/{number:012}"));
    let bytes_len = bytes.len() as u64;
    store.settle_create(&key, bytes).await?;
    Reader::open(store, &key, bytes_len, cache).await
}

/// Merges `segments` segments, then the outputs of that merge, and compares sums each time.
async fn check(seed: u64, segments: usize, spans: bool) -> Result<(), block::Error> {
    let (store, cache, pool) = (Store::in_memory(), Cache::new(1 << 20), Pool::inline());
    let program = Program::small(seed);
    let mut random = Random::new(seed + 1);
    let mut inputs = Vec::new();
    let mut expected = Sums::new();
    for number in 0..segments {
        let mut head = Head::new();
        let mut counted = Vec::new();
        let mut masked = Vec::new();
        for _ in 0..random.below(5) {
            let shape = Shape {
                tenant: format!("tenant-{}", random.below(2)),
                service: format!("service-{}", random.below(4)),
                pod: random.below(3),
                samples: 1 + random.below(30),
                types: 1 + random.below(4),
                time_nanos: (START_SECONDS + random.below(6) as i64) * 1_000_000_000,
                spans: spans && random.below(2) == 0,
            };
            let item = item(&program, &mut random, &shape);
            let ordinal = head.append(&item).ordinal;
            if random.below(4) == 0 {
                masked.push(ordinal);
            } else {
                counted.push(item);
            }
        }
        expected.extend(sums_of_items(&counted));
        let origin = Origin::Segment { writer: WriterId(1), seq: number as u64 };
        let block = put(&store, &cache, number, head.cut().encode(origin, 5)?.bytes).await?;
        assert_eq!(sums_of_object(&block, &masked).await?, sums_of_items(&counted));
        inputs.push(MergeInput { masked, ..MergeInput::whole(block) });
    }
    for level in 1..3 {
        let options = options(level);
        let outputs = merge(inputs, &options, &pool).await?;
        let mut found = Sums::new();
        inputs = Vec::new();
        for (part, output) in outputs.into_iter().enumerate() {
            let origin = Origin::Block { job: JobId(9), attempt: 1, part: part as u32, level };
            assert_eq!(output.encoded.directory.origin, origin);
            let number = 1000 * usize::from(level) + part;
            let block = put(&store, &cache, number, output.encoded.bytes).await?;
            let sums = sums_of_object(&block, &[]).await?;
            for row in sums.keys() {
                assert_eq!(row.tenant, output.tenant.as_str());
                assert_eq!(window_of(row.time_nanos, &options.windows), output.window);
                assert_eq!(shard_of(&row.service, options.shard_bits), output.shard);
            }
            found.extend(sums);
            inputs.push(MergeInput::whole(block));
        }
        assert_eq!(found, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn merging_keeps_every_sum(seed in 0_u64..1 << 40, segments in 0_usize..6, spans: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(check(seed, segments, spans)).expect("merges");
    }
}

#[test]
fn profiles_that_are_equal_in_all_but_their_key_both_count() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (store, cache, pool) = (Store::in_memory(), Cache::new(1 << 20), Pool::inline());
    let shape = Shape {
        tenant: "t".into(),
        service: "s".into(),
        pod: 0,
        samples: 10,
        types: 2,
        time_nanos: START_SECONDS * 1_000_000_000,
        spans: false,
    };
    let one = item(&Program::small(1), &mut Random::new(1), &shape);
    let mut two = one.clone();
    two.key.0 += 1;
    let outputs = runtime.block_on(async {
        let mut inputs = Vec::new();
        for (number, item) in [&one, &two].into_iter().enumerate() {
            let mut head = Head::new();
            head.append(item);
            let origin = Origin::Segment { writer: WriterId(1), seq: number as u64 };
            let encoded = head.cut().encode(origin, 5).expect("encodes");
            let block = put(&store, &cache, number, encoded.bytes).await.expect("opens");
            inputs.push(MergeInput::whole(block));
        }
        merge(inputs, &options(1), &pool).await.expect("merges")
    });
    assert_eq!(outputs.len(), 1);
    let dataset = &outputs[0].encoded.directory.datasets[0];
    assert_eq!(dataset.profiles, 2 * one.series.len() as u32);
    assert!(dataset.tree.is_some());
}

#[test]
fn erased_profiles_leave_no_rows_symbols_or_labels_and_the_rest_is_unchanged() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (store, cache, pool) = (Store::in_memory(), Cache::new(1 << 20), Pool::inline());
    let shape = |pod, spans| Shape {
        tenant: "t".into(),
        service: "s".into(),
        pod,
        samples: 20,
        types: 2,
        time_nanos: START_SECONDS * 1_000_000_000,
        spans,
    };
    for spans in [false, true] {
        // Programs name their functions by their number.
        let [gone, narrow, kept] = [0, 1, 2]
            .map(|pod| item(&Program::small(pod), &mut Random::new(pod + 1), &shape(pod as usize, spans)));
        let (block, merged, left) = runtime.block_on(async {
            let mut head = Head::new();
            for item in [&gone, &narrow, &kept] {
                head.append(item);
            }
            let origin = Origin::Segment { writer: WriterId(1), seq: 0 };
            let encoded = head.cut().encode(origin, 5).expect("encodes");
            let number = usize::from(spans) * 10;
            let block = put(&store, &cache, number, encoded.bytes).await.expect("opens");
            let erase: Erasure = Arc::new(|_, index| {
                let pod = |i: usize| index.series[index.profiles.series[i] as usize].labels.get("pod");
                let all = 0..index.profiles.len() as u32;
                let one = |column, i: u32| ErasedProfiles { schema: 0, column, profiles: i..i + 1 };
                let first = all.clone().filter(|i| pod(*i as usize) == Some("s-0")).map(|i| one(0, i));
                let second = all.filter(|i| pod(*i as usize) != Some("s-2")).map(|i| one(1, i));
                first.chain(second).collect()
            });
            let input = MergeInput { erase: Some(erase), ..MergeInput::whole(block.clone()) };
            let mut outputs = merge(vec![input], &options(1), &pool).await.expect("merges");
            let bytes = outputs.remove(0).encoded.bytes;
            let merged = put(&store, &cache, number + 1, bytes).await.expect("opens");
            let none = MergeInput { datasets: Some(Vec::new()), ..MergeInput::whole(block.clone()) };
            let left = merge(vec![none], &options(1), &pool).await.expect("merges");
            (block, merged, left)
        });
        assert!(left.is_empty(), "an object without live datasets makes no output");
        let sums = |block: &Reader| runtime.block_on(sums_of_object(block, &[])).expect("reads");
        let mut expected = sums(&block);
        expected.retain(|row, _| row.labels.get("pod") != Some("s-0"));
        let mut expected: Vec<_> = expected
            .into_iter()
            .map(|(row, values)| match row.labels.get("pod") == Some("s-1") {
                true => (row.labels, row.frames, values[..1].to_vec()),
                false => (row.labels, row.frames, values),
            })
            .collect();
        let mut found: Vec<_> =
            sums(&merged).into_iter().map(|(row, values)| (row.labels, row.frames, values)).collect();
        // A narrower schema has another position in the order.
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        let wanted = block::Sections { symbols: true, index: true, tree: true };
        let fetched = runtime.block_on(merged.fetch(0, wanted)).expect("fetches");
        let symbols = fetched.symbols().expect("decodes");
        let strings: Vec<String> =
            (0..symbols.strings.len() as u32).map(|id| symbols.strings.text(id).into_owned()).collect();
        assert!(strings.iter().any(|s| s.contains("/1/")) && strings.iter().any(|s| s.contains("/2/")));
        assert!(!strings.iter().any(|s| s.contains("/0/")), "{strings:?}");
        let index = fetched.index().expect("decodes");
        assert_eq!(index.schemas.len(), 2);
    }
}

#[test]
fn a_merge_may_run_on_any_thread() {
    fn check<T: Send>(_: T) {}
    check(merge(Vec::new(), &options(1), &Pool::inline()));
}

/// One service with `count` objects, and their sums.
async fn objects(store: &Store, cache: &Cache, count: usize) -> (Vec<MergeInput>, Sums) {
    let program = Program::small(5);
    let mut random = Random::new(6);
    let (mut inputs, mut expected) = (Vec::new(), Sums::new());
    for number in 0..count {
        let mut head = Head::new();
        let shape = Shape {
            tenant: "t".into(),
            service: "s".into(),
            pod: number,
            samples: 200,
            types: 2,
            time_nanos: (START_SECONDS + number as i64 % 4) * 1_000_000_000,
            spans: false,
        };
        let item = item(&program, &mut random, &shape);
        head.append(&item);
        let origin = Origin::Segment { writer: WriterId(1), seq: number as u64 };
        let encoded = head.cut().encode(origin, 5).expect("encodes");
        inputs.push(MergeInput::whole(put(store, cache, number, encoded.bytes).await.expect("opens")));
        expected.extend(sums_of_items(&[item]));
    }
    (inputs, expected)
}

#[test]
fn a_large_service_is_merged_in_parts_with_the_same_sums_or_refused_with_bytes_and_setting() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (store, cache, pool) = (Store::in_memory(), Cache::new(1 << 20), Pool::inline());
    let (mut datasets, mut refusals) = (Vec::new(), Vec::new());
    for bits in (10..24).rev() {
        let share = Share::new("merges", "compactor.max_memory_bytes", 1 << bits);
        let options = MergeOptions { memory: share.account(), ..options(1) };
        let merged = runtime.block_on(async {
            let (inputs, expected) = objects(&store, &cache, 12).await;
            let outputs = merge(inputs, &options, &pool).await?;
            let mut found = Sums::new();
            let mut count = 0;
            for (part, output) in outputs.into_iter().enumerate() {
                let block = put(&store, &cache, bits * 1000 + part, output.encoded.bytes).await?;
                count += block.directory().datasets.len();
                found.extend(sums_of_object(&block, &[]).await?);
            }
            assert_eq!(found, expected);
            Ok::<_, block::Error>(count)
        });
        match merged {
            Ok(count) => datasets.push(count),
            Err(error) => refusals.push(error.to_string()),
        }
        assert_eq!(share.held(), 0);
    }
    assert!(datasets.first() < datasets.last(), "parts are datasets of their own: {datasets:?}");
    let smallest = refusals.last().expect("1 KiB is too little for any dataset");
    assert!(smallest.contains("service \"s\""), "{smallest}");
    assert!(smallest.contains("1024 bytes (compactor.max_memory_bytes)"), "{smallest}");
}
