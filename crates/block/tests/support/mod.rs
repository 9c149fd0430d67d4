//! Profiles like those of real programs, made from a seed: call trees with few distinct edges, values in
//! steps of the sampling period, stacktraces that repeat between profiles.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{Cache, DatasetIndex, Reader, Sections};
use model::{
    Function, ItemKey, Labels, Line, Mapping, Profile, PushItem, Samples, SeriesRows, Span, StringId,
    Symbols, TenantId, ValueSchema, ValueType,
};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 33) as usize) % limit.max(1)
    }

    /// Small numbers much more often than large ones.
    pub fn skewed(&mut self, limit: usize) -> usize {
        let a = self.below(limit);
        let b = self.below(limit);
        let c = self.below(limit);
        a.min(b).min(c)
    }
}

/// A program: functions and the calls between them.
pub struct Program {
    seed: u64,
    functions: usize,
    stacks: usize,
    fan_out: usize,
}

impl Program {
    pub fn new(seed: u64) -> Self {
        Self { seed, functions: 4000, stacks: 8000, fan_out: 3 }
    }

    /// A program small enough for property tests.
    pub fn small(seed: u64) -> Self {
        Self { seed, functions: 40, stacks: 60, fan_out: 3 }
    }

    /// The function that `caller` calls at its `choice`th call.
    fn callee(&self, caller: usize, choice: usize) -> usize {
        let mut random = Random::new(self.seed ^ ((caller * 31 + choice) as u64) << 8);
        random.next();
        random.below(self.functions)
    }

    fn profile(&self, random: &mut Random, samples: usize, types: usize, time_nanos: i64) -> Profile {
        let mut symbols = Symbols::default();
        symbols.strings.push(b"");
        let filename = symbols.strings.push(b"/usr/bin/program");
        let build_id = symbols.strings.push(b"0123456789abcdef");
        symbols.mappings.push(Mapping {
            memory_start: 0x40_0000,
            memory_limit: 0x80_0000,
            filename,
            build_id,
            has_functions: true,
            ..Mapping::default()
        });
        let mut known: BTreeMap<usize, u32> = BTreeMap::new();
        let mut values = Vec::new();
        let mut stack = Vec::new();
        for _ in 0..samples {
            // Samples of a program fall on the same few thousand stacktraces.
            let mut path = Random::new(self.seed ^ (random.skewed(self.stacks) as u64) << 20);
            path.next();
            stack.clear();
            let mut function = path.skewed(8);
            for _ in 0..4 + path.below(36) {
                stack.push(self.location(&mut symbols, &mut known, function));
                function = self.callee(function, path.skewed(self.fan_out));
            }
            stack.reverse();
            symbols.stacktraces.push(&stack);
            let count = 1 + random.skewed(20) as i64;
            values.push(count);
            for column in 1..types {
                values.push(if column % 2 == 1 {
                    count * 10_000_000
                } else {
                    random.below(1000) as i64 * 16
                });
            }
        }
        Profile {
            symbols,
            samples: Samples { values, label_offsets: vec![0; samples + 1], labels: Vec::new() },
            sample_types: vec![ValueType::default(); types],
            period: 10_000_000,
            time_nanos,
            duration_nanos: 15_000_000_000,
            ..Profile::default()
        }
    }

    /// The location of function number `n`: every 11th has an inlined line, every 53rd has no lines.
    fn location(&self, symbols: &mut Symbols, known: &mut BTreeMap<usize, u32>, n: usize) -> u32 {
        if let Some(location) = known.get(&n) {
            return *location;
        }
        let name = format!("github.com/company/{}/internal/{}.(*Server).handle{n}", self.seed, n % 97);
        let file = format!("/src/company/{}/internal/{}/server_{}.go", self.seed, n % 97, n % 311);
        let name: StringId = symbols.strings.push(name.as_bytes());
        let filename = symbols.strings.push(file.as_bytes());
        let start_line = (n % 500) as i64;
        symbols.functions.push(Function { name, system_name: name, filename, start_line });
        let function = symbols.functions.len() as u32 - 1;
        let mut lines = vec![Line { function, line: start_line + (n % 40) as i64 }];
        if n.is_multiple_of(11) {
            let caller = symbols.strings.push(format!("caller{n}").as_bytes());
            symbols.functions.push(Function { name: caller, system_name: caller, filename, start_line });
            lines.push(Line { function: function + 1, line: 7 });
        }
        if n.is_multiple_of(53) {
            lines.clear();
        }
        let location = symbols.locations.push(0, 0x40_0000 + (n as u64) * 64, false, &lines);
        known.insert(n, location);
        location
    }
}

pub struct Shape {
    pub tenant: String,
    pub service: String,
    pub pod: usize,
    pub samples: usize,
    pub types: usize,
    pub time_nanos: i64,
    pub spans: bool,
}

/// One pushed document: its samples divided over one or two series.
pub fn item(program: &Program, random: &mut Random, shape: &Shape) -> PushItem {
    let profile = program.profile(random, shape.samples, shape.types, shape.time_nanos);
    let columns = [("samples", "count"), ("cpu", "nanoseconds"), ("alloc", "bytes"), ("space", "bytes")];
    let schema = Arc::new(ValueSchema {
        name: if shape.types == 2 { "process_cpu".into() } else { format!("memory{}", shape.types) },
        columns: (0..shape.types)
            .map(|i| (columns[i % 4].0.to_owned(), columns[i % 4].1.to_owned()))
            .collect(),
        period: Some(("cpu".into(), "nanoseconds".into())),
    });
    let labels = |endpoint: &str| {
        Labels::from_pairs([
            ("service_name", shape.service.clone()),
            ("pod", format!("{}-{}", shape.service, shape.pod)),
            ("endpoint", endpoint.to_owned()),
        ])
    };
    let cut = if random.below(4) == 0 { shape.samples / 2 } else { shape.samples };
    let mut series = Vec::new();
    for (endpoint, samples) in [("a", 0..cut), ("b", cut..shape.samples)] {
        if samples.is_empty() {
            continue;
        }
        let samples: Vec<u32> = samples.map(|i| i as u32).collect();
        let spans = match shape.spans {
            true => samples
                .iter()
                .map(|i| Span { span_id: u64::from(i % 3), trace_id: u128::from(i % 2) << 70 | 5 })
                .collect(),
            false => Vec::new(),
        };
        series.push(SeriesRows { labels: labels(endpoint), schema: schema.clone(), samples, spans });
    }
    let key = (u128::from(random.next()) << 64) | u128::from(random.next());
    PushItem {
        tenant: TenantId::parse(&shape.tenant).expect("valid"),
        key: ItemKey(key),
        profile: Arc::new(profile),
        series: series.into(),
    }
}

/// The content of an object as text: (tenant, service, schema, labels, time, profile id, frames, span) to the
/// sums of the values.
pub type Sums = BTreeMap<Row, Vec<i64>>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    pub tenant: String,
    pub service: String,
    pub schema: ValueSchema,
    pub labels: Labels,
    pub time_nanos: i64,
    pub profile: u64,
    pub frames: Vec<String>,
    pub span: Span,
}

pub fn frames(symbols: &Symbols, stack: u32) -> Vec<String> {
    let mut frames = Vec::new();
    for location in symbols.stacktraces.get(stack) {
        let i = *location as usize;
        let mapping = symbols.mappings[symbols.locations.mapping[i] as usize];
        let address =
            format!("{} {:x}", symbols.strings.text(mapping.filename), symbols.locations.address[i]);
        frames.push(address);
        for line in symbols.locations.lines_of(*location) {
            let function = symbols.functions[line.function as usize];
            let text = |id| symbols.strings.text(id).into_owned();
            frames.push(format!("{} {} {}", text(function.name), text(function.filename), line.line));
        }
    }
    frames
}

pub fn add(sums: &mut Sums, row: Row, values: &[i64]) {
    let sum = sums.entry(row).or_insert_with(|| vec![0; values.len()]);
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum = sum.wrapping_add(*value);
    }
}

pub fn sums_of_items<'a>(items: impl IntoIterator<Item = &'a PushItem>) -> Sums {
    let mut sums = Sums::new();
    for item in items {
        let width = item.profile.sample_types.len();
        for series in item.series.iter() {
            for (i, sample) in series.samples.iter().enumerate() {
                let start = *sample as usize * width;
                let row = Row {
                    tenant: item.tenant.to_string(),
                    service: series.labels.get("service_name").unwrap_or_default().to_owned(),
                    schema: (*series.schema).clone(),
                    labels: series.labels.clone(),
                    time_nanos: item.profile.time_nanos,
                    profile: model::ProfileId::of(item.key).0,
                    frames: frames(&item.profile.symbols, *sample),
                    span: series.spans.get(i).copied().unwrap_or_default(),
                };
                add(&mut sums, row, &item.profile.samples.values[start..start + width]);
            }
        }
    }
    sums
}

/// All samples of an object, read through the public interface.
pub async fn sums_of_object(block: &Reader, masked: &[u32]) -> Result<Sums, block::Error> {
    let mut sums = Sums::new();
    for (position, entry) in block.directory().datasets.iter().enumerate() {
        let fetched = block.fetch(position, Sections { index: true, symbols: true, tree: true }).await?;
        let index = fetched.index()?;
        let symbols = fetched.symbols()?;
        assert_eq!(fetched.tree()?.leaves.len(), symbols.stacktraces.len());
        for i in 0..index.profiles.len() {
            if masked.contains(&index.profiles.item[i]) {
                continue;
            }
            let rows = profile_rows(block, position, &index, i).await?;
            let series = &index.series[index.profiles.series[i] as usize];
            for (stack, span, values) in rows {
                let row = Row {
                    tenant: entry.tenant.to_string(),
                    service: entry.service.clone(),
                    schema: (*index.schemas[series.schema as usize]).clone(),
                    labels: series.labels.clone(),
                    time_nanos: index.profiles.time_nanos[i],
                    profile: index.profiles.id[i],
                    frames: frames(&symbols, stack),
                    span,
                };
                add(&mut sums, row, &values);
            }
        }
    }
    Ok(sums)
}

type Rows = Vec<(u32, Span, Vec<i64>)>;

async fn profile_rows(
    block: &Reader,
    dataset: usize,
    index: &DatasetIndex,
    profile: usize,
) -> Result<Rows, block::Error> {
    let schema = index.series[index.profiles.series[profile] as usize].schema as usize;
    let mut rows = Rows::new();
    for (column, stored) in index.columns[schema].iter().enumerate() {
        let range = index.profiles.rows(profile);
        let fetched = block.fetch_samples(dataset, std::slice::from_ref(&range), *stored, true).await?;
        let mut total = 0_i64;
        fetched.for_each(|batch| {
            for i in 0..batch.stacks.len() {
                let span = batch.spans.get(i).copied().unwrap_or_default();
                let row = (batch.first_row - range.start) as usize + i;
                if column == 0 {
                    rows.push((batch.stacks[i], span, Vec::new()));
                }
                rows[row].2.push(batch.values[i]);
                total = total.wrapping_add(batch.values[i]);
            }
        })?;
        assert_eq!(total, index.profiles.total(profile, column));
    }
    Ok(rows)
}

/// Puts an object into a store of its own and opens it.
pub async fn open(bytes: bytes::Bytes) -> Result<Reader, block::Error> {
    let store = storage::Store::in_memory();
    let key = storage::Key::from_text("log/test/000000000000");
    let bytes_len = bytes.len() as u64;
    store.settle_create(&key, bytes).await.expect("the store is in memory");
    Reader::open(&store, &key, bytes_len, &Cache::new(64 << 20)).await
}
