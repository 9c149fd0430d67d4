//! Cells answer exactly as the rows that they are sums of.

#![allow(clippy::expect_used, reason = "a test that cannot go on stops where it is")]

use std::sync::Arc;

use block::{Cache, EncodedObject, Head, MergeInput, MergeOptions, Origin, Reader, merge};
use clock::Pool;
use model::{
    Function, ItemKey, JobId, Labels, Line, NONE, Profile, PushItem, Samples, SeriesRows, Span, Symbols,
    TenantId, TimeRange, ValueSchema, Window, WriterId,
};
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use query::flamegraph::{Real, finish};
use query::kind::series::{Aggregation, Line as SeriesLine};
use query::kind::{profile, series};
use query::{Answer, Kind, Partial, Query, SampleFilter, Selector, Stats};
use rpc::{FoundDataset, FoundObject, Leaf as _, ScanRequest};
use storage::{Key, Store};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const START: i64 = 19_700 * DAY;
const FUNCTIONS: u32 = 3;

/// Random pushes and queries, from a seed.
struct Random(TestRng);

impl Random {
    fn below(&mut self, limit: i64) -> i64 {
        (self.0.next_u64() % limit.max(1) as u64) as i64
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as i64) as usize]
    }

    /// A time that is often on a boundary of cells, or one step beside it.
    fn time(&mut self, from: i64, to: i64) -> i64 {
        let time = from + self.below(to - from);
        let grid = self.one_of(&[1, 1_000_000, MINUTE, 5 * MINUTE, HOUR, DAY]);
        let offset = self.one_of(&[0, 0, 0, 1, -1, 1_000_000]);
        (time.div_euclid(grid) * grid + offset).clamp(from, to - 1)
    }
}

fn symbols() -> Symbols {
    let mut symbols = Symbols::default();
    symbols.strings.push(b"");
    for number in 0..FUNCTIONS {
        let name = symbols.strings.push(format!("f{number}").as_bytes());
        symbols.functions.push(Function { name, system_name: name, ..Function::default() });
        symbols.locations.push(NONE, u64::from(number), false, &[Line { function: number, line: 1 }]);
    }
    symbols
}

fn item(random: &mut Random, from: i64, to: i64) -> PushItem {
    let (name, types) = random.one_of(&[("process_cpu", 3), ("memory", 2)]);
    let mut symbols = symbols();
    let mut values = Vec::new();
    let samples = random.below(7) as u32;
    for _ in 0..samples {
        let depth = random.below(2);
        let stack: Vec<u32> = (0..=depth).map(|_| random.below(FUNCTIONS.into()) as u32).collect();
        symbols.stacktraces.push(&stack);
        let value = match random.below(20) {
            0 => i64::MAX - random.below(9),
            1 => -random.below(1000),
            2 => 0,
            _ => 10 * random.below(50),
        };
        values.extend(
            (0..types as i64).map(|column| if column == 2 { 0 } else { value.wrapping_mul(column + 1) }),
        );
    }
    let columns = ["cpu", "samples", "nothing"];
    let schema = ValueSchema {
        name: name.to_owned(),
        columns: columns[..types].iter().map(|name| ((*name).to_owned(), "unit".to_owned())).collect(),
        period: Some(("cpu".into(), "nanoseconds".into())),
    };
    let mut labels = Labels::from_pairs([
        ("service_name", "shop".to_owned()),
        ("pod", format!("shop-{}", random.below(70))),
        ("zone", format!("zone-{}", random.below(2))),
    ]);
    if random.below(3) > 0 {
        labels.set("version", random.one_of(&["1", "2"]));
    }
    let spans = random.below(4) == 0;
    let rows = SeriesRows {
        labels,
        schema: Arc::new(schema),
        samples: (0..samples).collect(),
        spans: (0..samples).filter(|_| spans).map(|i| Span { span_id: i.into(), trace_id: 1 }).collect(),
    };
    let profile = Profile {
        symbols,
        samples: Samples { label_offsets: vec![0; samples as usize + 1], values, labels: Vec::new() },
        sample_types: vec![Default::default(); types],
        time_nanos: random.time(from, to),
        ..Profile::default()
    };
    PushItem {
        tenant: TenantId::parse("t").expect("valid"),
        key: ItemKey(u128::from(random.0.next_u64()) << 64 | u128::from(random.0.next_u64())),
        profile: Arc::new(profile),
        series: [rows].into(),
    }
}

struct Bucket {
    store: Store,
    objects: Vec<FoundObject>,
}

impl Bucket {
    async fn put(&self, name: String, encoded: EncodedObject) -> FoundObject {
        let key = Key::from_text(name);
        self.store.settle_create(&key, encoded.bytes.clone()).await.expect("in memory");
        let datasets = encoded.directory.datasets.iter().zip(0..).map(|(entry, position)| FoundDataset {
            position,
            tenant: entry.tenant.clone(),
            service: entry.service.as_str().into(),
            times: entry.times,
            profile_types: entry.profile_types.clone().into(),
            bytes: 0,
        });
        FoundObject {
            key,
            bytes: encoded.bytes.len() as u64,
            masked: Vec::new(),
            deletions: Vec::new(),
            datasets: datasets.collect(),
        }
    }

    /// Merges pushes to blocks of these windows, and of days outside them.
    async fn merge(&mut self, number: u32, items: &[PushItem], windows: Vec<Window>) {
        let cache = Cache::new(1 << 20);
        let mut inputs = Vec::new();
        for (seq, items) in items.chunks(200).enumerate() {
            let mut head = Head::new();
            for item in items {
                head.append(item);
            }
            let origin = Origin::Segment { writer: WriterId(number.into()), seq: seq as u64 };
            let encoded = head.cut().encode(origin, 0).expect("encodes");
            let found = self.put(format!("log/{number}/{seq:012}"), encoded).await;
            let block = Reader::open(&self.store, &found.key, found.bytes, &cache).await.expect("opens");
            inputs.push(MergeInput::whole(block));
        }
        let options = MergeOptions {
            job: JobId(number.into()),
            attempt: 1,
            level: 1,
            created_millis: 0,
            windows,
            shard_bits: 0,
            memory: Default::default(),
        };
        let outputs = merge(inputs, &options, &Pool::inline()).await.expect("merges");
        for (part, output) in outputs.into_iter().enumerate() {
            let found = self.put(format!("block/{number}/{part}"), output.encoded).await;
            self.objects.push(found);
        }
    }

    /// Returns the answer from cells where they fit, or from rows alone.
    async fn ask(&self, query: &Query, rollups_enabled: bool) -> Partial {
        let (cache, pool, clock) = (Cache::new(1 << 20), Pool::inline(), clock::Clock::system());
        let config = querier::Config { rollups_enabled, ..Default::default() };
        let leaf =
            querier::Leaf::new(&config, memory::Share::unlimited(), self.store.clone(), cache, pool, clock);
        let request = ScanRequest {
            query: query.clone(),
            objects: self.objects.clone(),
            time_left: None,
            skip_gone: false,
            skip_unavailable: false,
            explain: false,
            memory: Default::default(),
        };
        leaf.scan(request).await.expect("answers").partial
    }
}

#[derive(PartialEq, Debug)]
enum FinishedAnswer {
    Tree(query::flamegraph::Flame<1>),
    Profile(Vec<(Vec<String>, i64)>),
    Series(Vec<SeriesLine>, Vec<SeriesLine>),
}

fn finished(query: &Query, partial: Partial) -> FinishedAnswer {
    match (partial.answer, &query.kind) {
        (Answer::MergeStacktraces(parts), _) => FinishedAnswer::Tree(finish([&parts], 8, Real::Keep)),
        (Answer::MergeProfile(merged), _) => {
            let symbols = &merged.symbols;
            let name = |location: &u32| {
                let line = symbols.locations.lines_of(*location)[0];
                symbols.strings.text(symbols.functions[line.function as usize].name).into_owned()
            };
            let stacks = 0..symbols.stacktraces.len() as u32;
            let mut samples: Vec<(Vec<String>, i64)> = stacks
                .zip(&merged.values)
                .map(|(id, value)| (symbols.stacktraces.get(id).iter().map(name).collect(), *value))
                .collect();
            samples.sort();
            FinishedAnswer::Profile(samples)
        }
        (Answer::Series(grouped), Kind::Series(parameters)) => FinishedAnswer::Series(
            grouped.clone().finish(parameters, Aggregation::Sum, 0),
            grouped.finish(parameters, Aggregation::Average, 0),
        ),
        (answer, _) => panic!("an answer to another query: {answer:?}"),
    }
}

fn random_query(random: &mut Random, from: i64, to: i64) -> Query {
    let (mut start, mut end) = match random.below(2) {
        0 => (random.time(from - HOUR, from + 1), random.time(to, to + HOUR)),
        _ => (random.time(from - HOUR, to), random.time(from, to + HOUR)),
    };
    if start > end {
        (start, end) = (end, start);
    }
    let (start_millis, end_millis) = (start.div_euclid(1_000_000), end.div_euclid(1_000_000));
    let group_by: Vec<String> = ["zone", "version", "absent", "__type__", "pod", "__service_name__"]
        .iter()
        .filter(|_| random.below(4) == 0)
        .map(|name| (*name).to_owned())
        .collect();
    let filter = SampleFilter {
        call_site: if random.below(4) == 0 { vec![Box::from(&b"f1"[..])] } else { Vec::new() },
        spans: if random.below(12) == 0 { vec![1] } else { Vec::new() },
        ..SampleFilter::default()
    };
    let step_millis = random.one_of(&[MINUTE, 5 * MINUTE, HOUR, 7 * HOUR, DAY]) / 1_000_000;
    let kind = match random.below(3) {
        0 => Kind::MergeStacktraces(filter),
        1 => Kind::MergeProfile(profile::Parameters { filter, go_pgo: None }),
        _ => Kind::Series(series::Parameters {
            start_millis,
            end_millis,
            step_millis,
            group_by,
            exemplars: random.below(12) == 0,
            call_site: Vec::new(),
        }),
    };
    let selector = random.one_of(&[
        "{}",
        "{}",
        r#"{zone="zone-1"}"#,
        r#"{version=""}"#,
        r#"{version!="1",zone=~"zone-.*"}"#,
        r#"{pod="shop-3"}"#,
        r#"{absent=""}"#,
        r#"{absent="x"}"#,
        r#"{service_name="shop"}"#,
        r#"{__service_name__=~"sh.+"}"#,
        r#"{__type__="cpu"}"#,
    ]);
    let types = ["process_cpu:cpu:unit:cpu:nanoseconds", "memory:samples:unit:cpu:nanoseconds"];
    let profile_type = random.one_of(&[Some(types[0]), Some(types[1]), None]);
    let from = if matches!(kind, Kind::Series(_)) { start_millis - step_millis } else { start_millis };
    Query {
        range: TimeRange::from_millis_inclusive(from, end_millis),
        selector: Selector::parse(selector).expect(selector),
        profile_type: profile_type.map(|id| id.parse().expect(id)),
        kind,
    }
}

/// Merges pushes of some hours and late pushes apart, and compares cells with rows. Returns the stats of all queries.
async fn check(rng: TestRng) -> Stats {
    let mut random = Random(rng);
    let hours = random.one_of(&[1, 3, 30]);
    let (from, to) = (START, START + hours * HOUR);
    let mut bucket = Bucket { store: Store::in_memory(), objects: Vec::new() };
    let count = random.one_of(&[50, 1500, 1500]);
    let items: Vec<PushItem> = (0..count).map(|_| item(&mut random, from, to)).collect();
    // Hour blocks hold 5 min and hour cells, day blocks hour and day cells.
    let windows = match random.below(2) {
        0 if hours < 24 => (0..hours)
            .map(|hour| Window { start: (START + hour * HOUR) / SECOND, length: HOUR / SECOND })
            .collect(),
        _ => Vec::new(),
    };
    bucket.merge(1, &items, windows).await;
    let late: Vec<PushItem> = (0..random.below(300)).map(|_| item(&mut random, from, to)).collect();
    bucket.merge(2, &late, Vec::new()).await;
    let mut stats = Stats::default();
    for _ in 0..24 {
        let query = random_query(&mut random, from, to);
        let (sums, rows) = (bucket.ask(&query, true).await, bucket.ask(&query, false).await);
        stats.merge(sums.stats);
        assert_eq!(rows.stats.summed, 0);
        assert_eq!(finished(&query, sums), finished(&query, rows), "{query:?}");
    }
    stats
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn cells_answer_as_the_rows_do(seed: [u8; 32]) {
        runtime().block_on(check(TestRng::from_seed(Default::default(), &seed)));
    }
}

#[test]
fn many_queries_are_answered_from_cells() {
    let mut stats = Stats::default();
    for seed in 0..6 {
        let rng = TestRng::from_seed(Default::default(), &[seed; 32]);
        stats.merge(runtime().block_on(check(rng)));
    }
    assert!(stats.summed * 8 > stats.datasets, "{stats:?}");
}
