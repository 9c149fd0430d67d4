//! Makes few blocks of many objects.
//!
//! Owns: unifying symbols and series, dividing rows by tenant and window, masks, taking out what is erased.
//! Does not own: which objects to merge, where outputs go, when inputs may be deleted.
//!
//! One dataset of one tenant is in memory at a time, beside the finished bytes of that tenant's outputs. What of a
//! service does not fit at once is merged in parts, which become datasets of their own in the same outputs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use clock::Pool;
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashMap;
use memory::{Account, Lease, Refused};
use model::{DAY, JobId, NONE, Shard, Span, Symbols, TenantId, ValueSchema, Window};

use crate::head::SeriesTable;
use crate::intern::{Hashes, Import, Interner, Keys, Scratch};
use crate::roll::lengths;
use crate::rows::{NewDataset, NewProfile};
use crate::scan::{DatasetRows, DecodedRows};
use crate::sort::{sort, subset};
use crate::symbols::EncodedSymbols;
use crate::writer::{ObjectWriter, WriterOptions};
use crate::{
    DatasetEntry, DatasetIndex, Encoded, Error, Fetched, NameTree, Origin, Reader, VALUE_COLUMNS_MAX, Want,
};

/// What a value of a stored column takes at most, about, compressed.
const STORED_VALUE_BYTES: u64 = 3;

/// Symbols in other order, those of one window, and what is encoded of them, beside those that were gathered.
const COPIES_OF_SYMBOLS: u64 = 3;

/// Rows in other order, as they are stored, and as sums.
const COPIES_OF_ROWS: u64 = 3;

/// Requests to the store at once.
const PARALLEL_FETCHES: usize = 16;

/// An object to merge.
pub struct MergeInput {
    /// Opened with a cache of the merge's own: its contents will not be asked for again.
    pub block: Reader,
    /// Ordinals of push items that do not count.
    pub masked: Vec<u32>,
    /// Positions of the datasets that go on, sorted; all, if absent.
    pub datasets: Option<Vec<u32>>,
    pub erase: Option<Erase>,
}

/// Says what of a dataset is erased: sorted by schema, column and profile, without overlap.
pub type Erase = Arc<dyn Fn(&DatasetEntry, &DatasetIndex) -> Vec<Erased> + Send + Sync>;

/// Neighbouring profiles of one schema that lose one value column. What loses all of them is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erased {
    pub schema: u32,
    pub column: u32,
    /// Indices into the profiles of the dataset; at least one.
    pub profiles: Range<u32>,
}

impl MergeInput {
    /// An object of which everything counts.
    pub fn whole(block: Reader) -> Self {
        Self { block, masked: Vec::new(), datasets: None, erase: None }
    }
}

pub struct MergeOptions {
    pub job: JobId,
    pub attempt: u32,
    /// Of the outputs; at least 1.
    pub level: u8,
    pub created_millis: i64,
    /// Sorted, without overlap. Rows outside all of them go to the day of their time.
    pub windows: Vec<Window>,
    /// Rows are divided by this many bits of the hash of their service as well ([`shard_of`]).
    pub shard_bits: u8,
    /// What the merge may hold.
    pub memory: Account,
}

/// The shard that `service` belongs to, of two to the power of `bits`.
pub fn shard_of(service: &str, bits: u8) -> Shard {
    let hash = xxhash_rust::xxh3::xxh3_64(service.as_bytes());
    Shard { bits, number: (hash >> 32 >> (32 - bits.min(32))) as u32 }
}

pub struct MergeOutput {
    pub tenant: TenantId,
    pub window: Window,
    pub shard: Shard,
    /// Its origin has the number of this output among all as `part`.
    pub encoded: Encoded,
}

/// The window that a profile of this time belongs to.
pub fn window_of(time_nanos: i64, windows: &[Window]) -> Window {
    let second = time_nanos.div_euclid(1_000_000_000);
    let after = windows.partition_point(|window| window.start <= second);
    let window = after.checked_sub(1).map(|i| windows[i]).filter(|window| window.contains(second));
    window.unwrap_or_else(|| Window::around(second, DAY))
}

/// Merges whole objects; outputs are sorted by (tenant, window, shard).
///
/// Every profile that is neither masked nor erased is in exactly one output, with the sums that it had. Profiles are
/// never merged with one another, however equal.
///
/// # Errors
/// `Storage` and `Corrupt` name the input; `TooLarge` if one service has more in one window than a block can hold;
/// `Memory` if there is no room for a single dataset beside the outputs.
pub async fn merge(
    inputs: Vec<MergeInput>,
    options: &MergeOptions,
    pool: &Pool,
) -> Result<Vec<MergeOutput>, Error> {
    let inputs = Arc::new(inputs);
    let mut tenants: BTreeMap<TenantId, BTreeMap<String, Vec<Place>>> = BTreeMap::new();
    for (input, MergeInput { block, datasets, .. }) in inputs.iter().enumerate() {
        for (dataset, entry) in block.directory().datasets.iter().enumerate() {
            if datasets.as_ref().is_some_and(|live| live.binary_search(&(dataset as u32)).is_err()) {
                continue;
            }
            let services = tenants.entry(entry.tenant.clone()).or_default();
            services.entry(entry.service.clone()).or_default().push(Place { input, dataset });
        }
    }
    let mut outputs = Vec::new();
    for (tenant, services) in tenants {
        let made = merge_tenant(&inputs, &tenant, services, outputs.len() as u32, options, pool).await?;
        outputs.extend(made);
    }
    Ok(outputs)
}

/// A dataset of an input.
#[derive(Clone, Copy)]
struct Place {
    input: usize,
    dataset: usize,
}

/// Outputs that are being written.
struct Writers {
    by_place: BTreeMap<(Window, Shard), ObjectWriter>,
    windows: Vec<Window>,
    shard_bits: u8,
    template: WriterOptions,
}

async fn merge_tenant(
    inputs: &Arc<Vec<MergeInput>>,
    tenant: &TenantId,
    services: BTreeMap<String, Vec<Place>>,
    first_part: u32,
    options: &MergeOptions,
    pool: &Pool,
) -> Result<Vec<MergeOutput>, Error> {
    let mut value_columns = 0;
    let mut spans = false;
    let mut indexes = stream::iter(services.values().flatten().copied())
        .map(|place| {
            let block = inputs[place.input].block.clone();
            async move { block.fetch(place.dataset, Want { index: true, ..Want::default() }).await }
        })
        .buffered(PARALLEL_FETCHES);
    while let Some(fetched) = indexes.try_next().await? {
        let widest = fetched.index()?.schemas.iter().map(|schema| schema.columns.len()).max();
        value_columns = value_columns.max(widest.unwrap_or(0));
        spans |= fetched.block().parts.layout.spans;
    }
    drop(indexes);
    let mut writers = Writers {
        by_place: BTreeMap::new(),
        windows: options.windows.clone(),
        shard_bits: options.shard_bits,
        template: WriterOptions {
            origin: Origin::Block {
                job: options.job,
                attempt: options.attempt,
                part: 0,
                level: options.level,
            },
            created_millis: options.created_millis,
            keys: Vec::new(),
            value_columns,
            spans,
        },
    };
    let finished = options.memory.lease();
    for (service, places) in services {
        let mut left = VecDeque::from([places]);
        while let Some(places) = left.pop_front() {
            let bytes = places.iter().map(|place| encoded_bytes(&inputs[place.input].block, *place)).sum();
            let working = options.memory.lease();
            let merged = match finished.grow(bytes) {
                Ok(()) => {
                    let part = Part { inputs, tenant, service: &service, places: &places, working };
                    part.merge(writers, pool).await
                }
                Err(refused) => Ok((writers, Err(refused))),
            };
            let outcome;
            (writers, outcome) = merged?;
            let Err(refused) = outcome else { continue };
            finished.shrink_to(finished.bytes().saturating_sub(bytes));
            if places.len() < 2 {
                let what = format!("tenant {tenant}: merging service {service:?}");
                return Err(Error::Memory { what, refused });
            }
            let mut first = places;
            let second = first.split_off(first.len() / 2);
            left.push_front(second);
            left.push_front(first);
        }
    }
    let tenant = tenant.clone();
    pool.run(move || {
        let numbered = writers.by_place.into_iter().zip(first_part..);
        numbered
            .map(|(((window, shard), mut writer), part)| {
                writer.set_part(part);
                Ok(MergeOutput { tenant: tenant.clone(), window, shard, encoded: writer.finish()? })
            })
            .collect()
    })
    .await
}

/// Bytes of a dataset as it is stored; what a merge makes of it is hardly larger.
fn encoded_bytes(block: &Reader, place: Place) -> u64 {
    let Some(entry) = block.directory().datasets.get(place.dataset) else { return 0 };
    let sections = [Some(entry.index), Some(entry.strings), Some(entry.symbols), entry.tree];
    let sections: u64 = sections.iter().flatten().map(|section| u64::from(section.bytes)).sum();
    let columns = block.parts.layout.stored_columns() as u64;
    sections + (entry.rows.end - entry.rows.start) * columns * STORED_VALUE_BYTES
}

/// Datasets of one service that are merged at once.
struct Part<'a> {
    inputs: &'a Arc<Vec<MergeInput>>,
    tenant: &'a TenantId,
    service: &'a str,
    places: &'a [Place],
    /// What is held until the part is written.
    working: Lease,
}

impl Part<'_> {
    /// Adds the datasets to `writers`, or leaves these as they are if there is no room for them.
    async fn merge(self, mut writers: Writers, pool: &Pool) -> Result<(Writers, Result<(), Refused>), Error> {
        let Self { inputs, tenant, service, places, working } = self;
        let encoded = places.iter().map(|place| encoded_bytes(&inputs[place.input].block, *place)).sum();
        if let Err(refused) = working.grow(encoded) {
            return Ok((writers, Err(refused)));
        }
        let fetched: Vec<(Fetched, DatasetRows)> = stream::iter(places.to_vec())
            .map(|place| fetch(inputs[place.input].block.clone(), place))
            .buffered(PARALLEL_FETCHES)
            .try_collect()
            .await?;
        let (inputs, places) = (inputs.clone(), places.to_vec());
        let (tenant, service) = (tenant.clone(), service.to_owned());
        pool.run(move || {
            let gathering = working.sibling();
            let mut gathered = Gathered::new(tenant, service);
            let gather = || {
                for (place, fetched) in places.iter().zip(fetched) {
                    let input = &inputs[place.input];
                    let entry = &input.block.directory().datasets[place.dataset];
                    let decoding = gathering.sibling();
                    let rows = entry.rows.end - entry.rows.start;
                    grow(&decoding, rows * decoded_row_bytes(&input.block))?;
                    let (sections, rows) = fetched;
                    let fetched = (sections.charged_to(decoding), rows);
                    gathered.add(fetched, input, entry, &writers.windows)?;
                    resize(&gathering, gathered.byte_len() as u64)?;
                }
                Ok(())
            };
            let outcome = gather().and_then(|()| gathered.write(&mut writers, &gathering));
            match outcome {
                Ok(()) => Ok((writers, Ok(()))),
                Err(Error::Memory { refused, .. }) => Ok((writers, Err(refused))),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

fn grow(lease: &Lease, bytes: u64) -> Result<(), Error> {
    lease.grow(bytes).map_err(|refused| Error::Memory { what: String::new(), refused })
}

fn resize(lease: &Lease, bytes: u64) -> Result<(), Error> {
    lease.resize(bytes).map_err(|refused| Error::Memory { what: String::new(), refused })
}

/// Memory of a row while it is decoded and added: decompressed, and as columns.
fn decoded_row_bytes(block: &Reader) -> u64 {
    16 * block.parts.layout.stored_columns() as u64
}

async fn fetch(block: Reader, place: Place) -> Result<(Fetched, DatasetRows), Error> {
    let sections = block.fetch(place.dataset, Want { index: true, symbols: true, tree: false }).await?;
    Ok((sections, block.fetch_rows(place.dataset).await?))
}

/// All rows of one dataset, from all inputs.
struct Gathered {
    tenant: TenantId,
    service: String,
    keys: Keys,
    interner: Interner,
    hashes: Hashes,
    scratch: Scratch,
    series: SeriesTable,
    by_window: BTreeMap<Window, WindowRows>,
}

/// A profile of which nothing is erased keeps all columns, however many it has.
const ALL_COLUMNS: u64 = u64::MAX;

/// Per profile, the columns that are left, as bits; empty if nothing at all is erased.
fn kept_columns(index: &DatasetIndex, erased: &[Erased]) -> Vec<u64> {
    if erased.is_empty() {
        return Vec::new();
    }
    let mut kept = vec![ALL_COLUMNS; index.profiles.len()];
    for Erased { schema, column, profiles } in erased {
        let columns = index.schemas[*schema as usize].columns.len();
        for kept in &mut kept[profiles.start as usize..profiles.end as usize] {
            if *kept == ALL_COLUMNS {
                *kept = ALL_COLUMNS >> (VALUE_COLUMNS_MAX - columns);
            }
            *kept &= !(1 << column);
        }
    }
    kept
}

/// The schema without the columns that are not `kept`, and which are.
fn narrowed(schema: &ValueSchema, kept: u64) -> (ValueSchema, Vec<usize>) {
    let columns: Vec<usize> = (0..schema.columns.len()).filter(|column| kept >> column & 1 == 1).collect();
    let narrow = ValueSchema {
        columns: columns.iter().map(|column| schema.columns[*column].clone()).collect(),
        ..schema.clone()
    };
    (narrow, columns)
}

/// Rows as they came; stack ids are those of the interner.
#[derive(Default)]
struct WindowRows {
    profiles: Vec<NewProfile>,
    stacks: Vec<u32>,
    values: Vec<i64>,
    spans: Vec<Span>,
}

impl Gathered {
    fn new(tenant: TenantId, service: String) -> Self {
        let keys = Keys::random();
        Self {
            tenant,
            service,
            keys,
            interner: Interner::new(keys),
            hashes: Hashes::default(),
            scratch: Scratch::default(),
            series: SeriesTable::default(),
            by_window: BTreeMap::new(),
        }
    }

    fn add(
        &mut self,
        (sections, rows): (Fetched, DatasetRows),
        input: &MergeInput,
        entry: &DatasetEntry,
        windows: &[Window],
    ) -> Result<(), Error> {
        let index = sections.index()?;
        let erased = input.erase.as_ref().map(|erase| erase(entry, &index)).unwrap_or_default();
        let kept = kept_columns(&index, &erased);
        let mut narrow_ids: HashMap<(usize, u64), (u32, Vec<usize>)> = HashMap::new();
        let symbols = sections.symbols()?;
        let rows = rows.decode()?;
        self.hashes.fill(&self.keys, &symbols);
        let mut import = Import::new(&symbols, &self.hashes, &mut self.scratch);
        let mut stack_ids = vec![NONE; symbols.stacktraces.len()];
        let mut series_ids = vec![NONE; index.series.len()];
        let profiles = &index.profiles;
        for i in 0..profiles.len() {
            let kept = kept.get(i).copied().unwrap_or(ALL_COLUMNS);
            if kept == 0 || input.masked.binary_search(&profiles.item[i]).is_ok() {
                continue;
            }
            let into = self.by_window.entry(window_of(profiles.time_nanos[i], windows)).or_default();
            let old_series = profiles.series[i] as usize;
            let schema = index.series[old_series].schema as usize;
            let labels = &index.series[old_series].labels;
            let range = profiles.rows(i).start as usize..profiles.rows(i).end as usize;
            let row_start = into.stacks.len();
            let value_start = into.values.len();
            let mut import_stack = |stack: u32| {
                let id = &mut stack_ids[stack as usize];
                if *id == NONE {
                    *id = import.stacktrace(&mut self.interner, stack);
                }
                *id
            };
            let series = if kept == ALL_COLUMNS {
                if series_ids[old_series] == NONE {
                    series_ids[old_series] = self.series.id(&index.schemas[schema], labels);
                }
                into.stacks.extend(rows.stacks[range.clone()].iter().map(|stack| import_stack(*stack)));
                into.push_values(&index, schema, &rows.values, range.clone());
                if !rows.spans.is_empty() {
                    into.spans.resize(row_start, Span::default());
                    into.spans.extend_from_slice(&rows.spans[range]);
                }
                series_ids[old_series]
            } else {
                let (series, columns) = narrow_ids.entry((old_series, kept)).or_insert_with(|| {
                    let (schema, columns) = narrowed(&index.schemas[schema], kept);
                    (self.series.id(&Arc::new(schema), labels), columns)
                });
                into.push_narrowed(&index, schema, columns, &rows, range, import_stack);
                *series
            };
            if !into.spans.is_empty() {
                into.spans.resize(into.stacks.len(), Span::default());
            }
            into.profiles.push(NewProfile {
                series,
                time_nanos: profiles.time_nanos[i],
                duration_nanos: profiles.duration_nanos[i],
                period: profiles.period[i],
                id: profiles.id[i],
                item: 0,
                row_start: row_start as u32,
                rows: (into.stacks.len() - row_start) as u32,
                value_start: value_start as u64,
            });
            if into.stacks.len() > u32::MAX as usize {
                return Err(Error::TooLarge {
                    dataset: self.service.clone(),
                    what: "rows",
                    count: into.stacks.len() as u64,
                    limit: u32::MAX.into(),
                });
            }
        }
        Ok(())
    }

    /// Bytes held, roughly.
    fn byte_len(&self) -> usize {
        self.interner.byte_len() + self.row_bytes()
    }

    fn row_bytes(&self) -> usize {
        self.by_window.values().map(WindowRows::byte_len).sum()
    }

    /// All that may be refused is refused before anything is added to `writers`.
    fn write(self, writers: &mut Writers, lease: &Lease) -> Result<(), Error> {
        let symbols = self.interner.symbols.byte_len() as u64;
        let largest = self.by_window.values().map(WindowRows::byte_len).max().unwrap_or_default() as u64;
        grow(lease, symbols * COPIES_OF_SYMBOLS + largest * COPIES_OF_ROWS)?;
        let Self { tenant, service, interner, series, by_window, .. } = self;
        let shard = shard_of(&service, writers.shard_bits);
        // Windows share most of their stacktraces: these are sorted once for all.
        let used = vec![true; interner.symbols.stacktraces.len()];
        let (sorted, stack_ids) = sort(&interner.symbols, &used);
        drop(interner);
        let tree = lease.sibling();
        grow(&tree, NameTree::building_bytes(&sorted))?;
        for (window, mut rows) in by_window {
            rows.sort_rows(&stack_ids, &series);
            let symbols = rows.narrow_symbols(&sorted);
            let tree = NameTree::build(&symbols);
            let symbols = EncodedSymbols::new(&symbols);
            let dataset = rows.into_dataset(&tenant, &service, &series, symbols).prepare();
            let lengths = lengths(window.length, &dataset);
            writers.of(window, shard)?.add(&dataset, Some(&tree), &lengths)?;
        }
        Ok(())
    }
}

impl WindowRows {
    /// Bytes held, roughly.
    fn byte_len(&self) -> usize {
        self.profiles.capacity() * size_of::<NewProfile>()
            + self.stacks.capacity() * 4
            + self.values.capacity() * 8
            + self.spans.capacity() * size_of::<Span>()
    }

    fn push_values(&mut self, index: &DatasetIndex, schema: usize, values: &[Vec<i64>], rows: Range<usize>) {
        let columns = &index.columns[schema];
        let start = self.values.len();
        self.values.resize(start + columns.len() * rows.len(), 0);
        for (column, stored) in columns.iter().enumerate() {
            let Some(from) = values.get(stored.value as usize) else {
                continue;
            };
            let into = self.values[start..].iter_mut().skip(column).step_by(columns.len());
            for (into, value) in into.zip(&from[rows.clone()]) {
                *into = value.wrapping_mul(stored.factor);
            }
        }
    }

    /// Adds some value columns of a profile, and of its rows those that have a value there: what only the other
    /// columns had is gone with them.
    fn push_narrowed(
        &mut self,
        index: &DatasetIndex,
        schema: usize,
        kept: &[usize],
        rows: &DecodedRows,
        range: Range<usize>,
        mut import_stack: impl FnMut(u32) -> u32,
    ) {
        let mut row_values = vec![0; kept.len()];
        for row in range {
            for (into, column) in row_values.iter_mut().zip(kept) {
                let stored = index.columns[schema][*column];
                let value = rows.values.get(stored.value as usize).map_or(0, |values| values[row]);
                *into = value.wrapping_mul(stored.factor);
            }
            if row_values.iter().all(|value| *value == 0) {
                continue;
            }
            self.stacks.push(import_stack(rows.stacks[row]));
            self.values.extend_from_slice(&row_values);
            if let Some(span) = rows.spans.get(row) {
                self.spans.resize(self.stacks.len() - 1, Span::default());
                self.spans.push(*span);
            }
        }
    }

    /// The symbols that this window uses, out of all; its rows are numbered anew.
    fn narrow_symbols(&mut self, sorted: &Symbols) -> Symbols {
        let mut used = vec![false; sorted.stacktraces.len()];
        for stack in &self.stacks {
            used[*stack as usize] = true;
        }
        let (symbols, stack_ids) = subset(sorted, &used);
        for stack in &mut self.stacks {
            *stack = stack_ids[*stack as usize];
        }
        symbols
    }

    fn into_dataset(
        self,
        tenant: &TenantId,
        service: &str,
        series: &SeriesTable,
        symbols: EncodedSymbols,
    ) -> NewDataset {
        let mut dataset = NewDataset {
            tenant: tenant.clone(),
            service: service.to_owned(),
            schemas: series.schemas.clone(),
            series: series.series.clone(),
            profiles: self.profiles,
            stacks: self.stacks,
            values: self.values,
            spans: self.spans,
            symbols,
        };
        dataset.drop_unused_series();
        dataset
    }

    /// Brings stacktraces, and with them the rows of each profile, into their final order.
    fn sort_rows(&mut self, stack_ids: &[u32], series: &SeriesTable) {
        let mut order: Vec<u64> = Vec::new();
        let mut values: Vec<i64> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        for profile in &self.profiles {
            let start = profile.row_start as usize;
            let rows = profile.rows as usize;
            let schema = series.series[profile.series as usize].schema as usize;
            let width = series.schemas[schema].columns.len();
            order.clear();
            let stacks = &mut self.stacks[start..start + rows];
            order.extend(
                stacks
                    .iter()
                    .enumerate()
                    .map(|(row, stack)| (u64::from(stack_ids[*stack as usize]) << 32) | row as u64),
            );
            order.sort_unstable();
            for (into, entry) in stacks.iter_mut().zip(&order) {
                *into = (entry >> 32) as u32;
            }
            let value_start = profile.value_start as usize;
            let old = &mut self.values[value_start..value_start + rows * width];
            values.clear();
            for entry in &order {
                let row = *entry as u32 as usize * width;
                values.extend_from_slice(&old[row..row + width]);
            }
            old.copy_from_slice(&values);
            if !self.spans.is_empty() {
                let old = &mut self.spans[start..start + rows];
                spans.clear();
                spans.extend(order.iter().map(|entry| old[*entry as u32 as usize]));
                old.copy_from_slice(&spans);
            }
        }
    }
}

impl Writers {
    fn of(&mut self, window: Window, shard: Shard) -> Result<&mut ObjectWriter, Error> {
        match self.by_place.entry((window, shard)) {
            std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(new) => {
                Ok(new.insert(ObjectWriter::new(self.template.clone())?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_outside_all_windows_belongs_to_its_day() {
        let window = |start: i64, length: i64| Window { start, length };
        let windows = [window(86_400, 300), window(86_700, 300)];
        let second = 1_000_000_000;
        assert_eq!(window_of(86_400 * second, &windows), windows[0]);
        assert_eq!(window_of(86_699_999_999_999, &windows), windows[0]);
        assert_eq!(window_of(86_700 * second, &windows), windows[1]);
        assert_eq!(window_of(87_000 * second, &windows), window(DAY, DAY));
        assert_eq!(window_of(-1, &windows), window(-DAY, DAY));
    }
}
