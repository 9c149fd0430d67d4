//! Segments read back exactly the appended profiles.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use block::{Dictionaries, Error, Head, Origin, Sections};
use model::{PushItem, WriterId};
use proptest::prelude::*;
use support::{Program, Random, Shape, item, open, sums_of_items, sums_of_object};

fn origin() -> Origin {
    Origin::Segment { writer: WriterId(1), seq: 0 }
}

fn items(seed: u64, count: usize, spans: bool) -> Vec<PushItem> {
    let program = Program::small(seed);
    let mut random = Random::new(seed + 1);
    (0..count)
        .map(|i| {
            let shape = Shape {
                tenant: format!("tenant-{}", random.below(2)),
                service: format!("service-{}", random.below(3)),
                pod: random.below(3),
                samples: random.below(40),
                types: 1 + random.below(4),
                time_nanos: 1_700_000_000_000_000_000 + random.below(5) as i64 * 1_000_000_000 + i as i64 % 2,
                spans: spans && random.below(2) == 0,
            };
            item(&program, &mut random, &shape)
        })
        .filter(|item| !item.series.is_empty())
        .collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_segment_holds_exactly_the_appended_samples(seed in 0_u64..1 << 40, count in 0_usize..12, spans: bool) {
        let items = items(seed, count, spans);
        let mut head = Head::new();
        for item in &items {
            prop_assert!(!head.append(item).duplicate);
        }
        let encoded = head.cut().encode(origin(), 5).expect("encodes");
        prop_assert!(head.is_empty());
        let sums = block_on(async {
            let block = open(encoded.bytes).await?;
            assert_eq!(block.directory(), &encoded.directory);
            sums_of_object(&block, &[]).await
        });
        prop_assert_eq!(sums.expect("reads"), sums_of_items(&items));
    }

    #[test]
    fn segments_with_shared_dictionaries_hold_exactly_their_own_samples(
        seed in 0_u64..1 << 40,
        count in 2_usize..12,
        bytes_max in prop::sample::select(vec![0, 8_000, 1 << 20]),
    ) {
        let items = items(seed, count, true);
        let dictionaries = Dictionaries::new(bytes_max);
        // Two heads at once, as while a cut segment waits for its encoding.
        let mut heads = [0, 1].map(|_| Head::with(dictionaries.clone()));
        let mut appended = [Vec::new(), Vec::new()];
        for (number, item) in items.iter().enumerate() {
            let index = number % 2;
            prop_assert!(!heads[index].append(item).duplicate);
            appended[index].push(item);
            if number % 5 < 4 {
                continue;
            }
            let encoded = heads[index].cut().encode(origin(), 5).expect("encodes");
            let items = std::mem::take(&mut appended[index]);
            let sums = block_on(async { sums_of_object(&open(encoded.bytes).await?, &[]).await });
            prop_assert_eq!(sums.expect("reads"), sums_of_items(items));
            prop_assert!(dictionaries.byte_len() <= bytes_max);
        }
        for (mut head, items) in heads.into_iter().zip(appended) {
            let encoded = head.cut().encode(origin(), 5).expect("encodes");
            let sums = block_on(async { sums_of_object(&open(encoded.bytes).await?, &[]).await });
            prop_assert_eq!(sums.expect("reads"), sums_of_items(items));
        }
    }

    #[test]
    fn flipped_bits_are_errors_or_harmless_and_never_panic(seed in 0_u64..1 << 40, fraction in 0.0..1.0_f64, bit in 0_u8..8) {
        let items = items(seed, 4, true);
        let mut head = Head::new();
        for item in &items {
            head.append(item);
        }
        let encoded = head.cut().encode(origin(), 5).expect("encodes");
        let mut bytes = encoded.bytes.to_vec();
        let position = (bytes.len() as f64 * fraction) as usize;
        bytes[position] ^= 1 << bit;
        let sums = block_on(async {
            let block = open(bytes.into()).await?;
            sums_of_object(&block, &[]).await
        });
        if let Ok(sums) = sums {
            prop_assert_eq!(sums, sums_of_items(&items));
        }
    }
}

#[test]
fn a_segment_carries_the_symbols_that_its_rows_use_and_no_others() {
    let items = items(5, 12, false);
    let mut head = Head::new();
    for item in &items {
        head.append(item);
    }
    head.cut();
    for item in items.iter().take(3) {
        head.append(item);
        let encoded = head.cut().encode(origin(), 5).expect("encodes");
        let mut alone = Head::new();
        alone.append(item);
        let expected = alone.cut().encode(origin(), 5).expect("encodes");
        let counts = |bytes| {
            block_on(async {
                let block = open(bytes).await?;
                let symbols =
                    block.fetch(0, Sections { symbols: true, ..Sections::default() }).await?.symbols()?;
                Ok::<_, Error>([
                    symbols.strings.len(),
                    symbols.mappings.len(),
                    symbols.functions.len(),
                    symbols.locations.len(),
                    symbols.stacktraces.len(),
                ])
            })
            .expect("reads")
        };
        assert_eq!(counts(encoded.bytes), counts(expected.bytes));
    }
}

#[test]
fn known_symbols_take_no_memory_again() {
    let items = items(7, 6, false);
    let mut head = Head::new();
    for item in &items {
        head.append(item);
    }
    let first = head.byte_len();
    head.cut();
    for item in &items {
        head.append(item);
    }
    assert!(head.byte_len() < first / 2, "{} of {first}", head.byte_len());
}

#[test]
fn an_equal_item_in_one_segment_counts_once() {
    let items = items(3, 6, false);
    let mut head = Head::new();
    let first = head.append(&items[0]);
    let bytes = head.byte_len();
    let second = head.append(&items[0]);
    assert_eq!((first.ordinal, first.duplicate), (0, false));
    assert_eq!((second.ordinal, second.duplicate), (0, true));
    assert_eq!(head.byte_len(), bytes);
    assert_eq!(head.items(), 1);
    assert_eq!(head.append(&items[1]).ordinal, 1);
}

#[test]
fn every_truncated_object_is_refused() {
    let mut head = Head::new();
    for item in items(3, 3, true) {
        head.append(&item);
    }
    let encoded = head.cut().encode(origin(), 5).expect("encodes");
    for length in (0..encoded.bytes.len()).step_by(97) {
        assert!(block_on(open(encoded.bytes.slice(..length))).is_err());
    }
}

#[test]
fn damage_is_named_by_object_section_and_byte() {
    let mut head = Head::new();
    for item in items(3, 5, true) {
        head.append(&item);
    }
    let encoded = head.cut().encode(origin(), 5).expect("encodes");
    let dataset = &encoded.directory.datasets[0];
    let directory_end = encoded.directory.datasets.last().expect("several").symbols;
    let check = |section: &str, byte: u64| {
        let mut bytes = encoded.bytes.to_vec();
        bytes[byte as usize] ^= 0x10;
        let read = block_on(async {
            let block = open(bytes.into()).await?;
            sums_of_object(&block, &[]).await
        });
        match read {
            Err(Error::Corrupt { object, section: named, .. }) => {
                assert_eq!((object.as_str(), named), ("log/test/000000000000", section));
            }
            other => panic!("damage in {section} at byte {byte}: {:?}", other.map(|sums| sums.len())),
        }
    };
    check("index", dataset.index.offset + 5);
    check("symbols", dataset.symbols.offset + u64::from(dataset.symbols.bytes) / 2);
    check("directory", directory_end.offset + u64::from(directory_end.bytes) + 20);
    check("footer", encoded.bytes.len() as u64 - 1);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let encoded = Head::new().cut().encode(origin(), 5).expect("encodes");
    let mut bytes = encoded.bytes.to_vec();
    let magic = bytes.windows(8).rposition(|window| window == b"PYROGRPH").expect("a trailer");
    bytes[magic - 12] = 9;
    let error = block_on(open(bytes.into())).err().expect("refused");
    assert_eq!(error.to_string(), "object log/test/000000000000 has format version 9, this release reads 2");
}
