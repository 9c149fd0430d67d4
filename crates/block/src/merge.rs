//! Merges many objects into few blocks.
//!
//! Owns: unifying symbols and series, dividing rows by tenant, window and shard, masks, removing erased profiles.
//! Does not own: which objects to merge, where outputs are stored, when inputs may be deleted.
//!
//! Memory holds one service of one tenant at a time, beside the encoded outputs. If the datasets of a
//! service do not fit together, they are merged in parts; each part becomes a dataset of its own in the same outputs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use clock::Pool;
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashMap;
use memory::{Account, Lease, Refusal};
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
    DatasetEntry, DatasetIndex, EncodedObject, Error, FetchedSections, NameTree, Origin, Reader, Sections,
    VALUE_COLUMNS_MAX,
};

/// Compressed bytes of one value of a stored column, a rough upper bound.
const STORED_VALUE_BYTES: u64 = 3;

/// Copies of the collected symbols while they are written: sorted, those of one window, encoded.
const COPIES_OF_SYMBOLS: u64 = 3;

/// Copies of the rows of one window while they are written: sorted, encoded, added up to cells.
const COPIES_OF_ROWS: u64 = 3;

/// Concurrent requests to the store.
const PARALLEL_FETCHES: usize = 16;

/// An object to merge.
pub struct MergeInput {
    /// Opened with a cache that only the merge uses: its contents are read once.
    pub block: Reader,
    /// Ordinals of the push items that do not count, sorted.
    pub masked: Vec<u32>,
    /// Positions of the datasets to merge, sorted; `None` merges all.
    pub datasets: Option<Vec<u32>>,
    pub erase: Option<Erasure>,
}

/// Returns the erased profiles of a dataset, sorted by schema, column and profile, without overlap.
pub type Erasure = Arc<dyn Fn(&DatasetEntry, &DatasetIndex) -> Vec<ErasedProfiles> + Send + Sync>;

/// Adjacent profiles of one schema that lose one value column. A profile that loses all columns is removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErasedProfiles {
    pub schema: u32,
    pub column: u32,
    /// Indices into the profiles of the dataset; at least one.
    pub profiles: Range<u32>,
}

impl MergeInput {
    /// An object whose profiles all count.
    pub fn whole(block: Reader) -> Self {
        Self { block, masked: Vec::new(), datasets: None, erase: None }
    }
}

pub struct MergeOptions {
    pub job: JobId,
    pub attempt: u32,
    /// Level of the outputs; at least 1.
    pub level: u8,
    pub created_millis: i64,
    /// Sorted, without overlap. A row outside all of them belongs to the day of its time.
    pub windows: Vec<Window>,
    /// Number of bits of the service's hash that divide rows into shards ([`shard_of`]).
    pub shard_bits: u8,
    /// Charged for the memory of the merge.
    pub memory: Account,
}

/// The shard of `service` among 2^`bits` shards.
pub fn shard_of(service: &str, bits: u8) -> Shard {
    let hash = xxhash_rust::xxh3::xxh3_64(service.as_bytes());
    Shard { bits, number: (hash >> 32 >> (32 - bits.min(32))) as u32 }
}

pub struct MergeOutput {
    pub tenant: TenantId,
    pub window: Window,
    pub shard: Shard,
    /// The `part` of its origin is the index of this output among all outputs.
    pub encoded: EncodedObject,
}

/// The window that a profile of this time belongs to.
pub fn window_of(time_nanos: i64, windows: &[Window]) -> Window {
    let second = time_nanos.div_euclid(1_000_000_000);
    let after = windows.partition_point(|window| window.start <= second);
    let window = after.checked_sub(1).map(|i| windows[i]).filter(|window| window.contains(second));
    window.unwrap_or_else(|| Window::around(second, DAY))
}

/// Merges the selected datasets of all inputs; outputs are sorted by (tenant, window, shard).
///
/// Every profile that is neither masked nor erased is in exactly one output, with unchanged sums. Two profiles are
/// never merged into one, even if they are equal.
///
/// # Errors
/// `Storage` and `Corrupt` name the input; `TooLarge` if one service exceeds in one window the limits of a block;
/// `Memory` if there is no room for a single dataset beside the outputs.
pub async fn merge(
    inputs: Vec<MergeInput>,
    options: &MergeOptions,
    pool: &Pool,
) -> Result<Vec<MergeOutput>, Error> {
    let inputs = Arc::new(inputs);
    let mut tenants: BTreeMap<TenantId, BTreeMap<String, Vec<InputDataset>>> = BTreeMap::new();
    for (input, MergeInput { block, datasets, .. }) in inputs.iter().enumerate() {
        for (position, entry) in block.directory().datasets.iter().enumerate() {
            if datasets.as_ref().is_some_and(|live| live.binary_search(&(position as u32)).is_err()) {
                continue;
            }
            let services = tenants.entry(entry.tenant.clone()).or_default();
            services.entry(entry.service.clone()).or_default().push(InputDataset { input, position });
        }
    }
    let mut outputs = Vec::new();
    for (tenant, services) in tenants {
        let first_part = outputs.len() as u32;
        outputs.extend(merge_tenant(&inputs, &tenant, services, first_part, options, pool).await?);
    }
    Ok(outputs)
}

/// A dataset of an input, by the positions of both.
#[derive(Clone, Copy)]
struct InputDataset {
    input: usize,
    position: usize,
}

/// The outputs of one tenant while they are written.
struct Writers {
    by_window_and_shard: BTreeMap<(Window, Shard), ObjectWriter>,
    windows: Vec<Window>,
    shard_bits: u8,
    template: WriterOptions,
}

async fn merge_tenant(
    inputs: &Arc<Vec<MergeInput>>,
    tenant: &TenantId,
    services: BTreeMap<String, Vec<InputDataset>>,
    first_part: u32,
    options: &MergeOptions,
    pool: &Pool,
) -> Result<Vec<MergeOutput>, Error> {
    let datasets = services.values().flatten().copied().collect();
    let (value_columns, has_spans) = columns_and_spans(inputs, datasets).await?;
    let mut writers = Writers {
        by_window_and_shard: BTreeMap::new(),
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
            has_spans,
        },
    };
    let finished = options.memory.lease();
    for (service, datasets) in services {
        let mut waiting = VecDeque::from([datasets]);
        while let Some(datasets) = waiting.pop_front() {
            let encoded = |dataset: &InputDataset| encoded_bytes(&inputs[dataset.input].block, *dataset);
            let bytes = datasets.iter().map(encoded).sum();
            let working = options.memory.lease();
            let merged = match finished.grow(bytes) {
                Ok(()) => {
                    let part = Part { inputs, tenant, service: &service, datasets: &datasets, working };
                    part.merge(writers, pool).await
                }
                Err(refusal) => Ok((writers, Err(refusal))),
            };
            let outcome;
            (writers, outcome) = merged?;
            let Err(refusal) = outcome else { continue };
            finished.shrink_to(finished.bytes().saturating_sub(bytes));
            if datasets.len() < 2 {
                let purpose = format!("tenant {tenant}: merging service {service:?}");
                return Err(Error::Memory { purpose, refusal });
            }
            let mut first_half = datasets;
            let second_half = first_half.split_off(first_half.len() / 2);
            waiting.push_front(second_half);
            waiting.push_front(first_half);
        }
    }
    let tenant = tenant.clone();
    pool.run(move || {
        let numbered = writers.by_window_and_shard.into_iter().zip(first_part..);
        numbered
            .map(|(((window, shard), mut writer), part)| {
                writer.set_part(part);
                Ok(MergeOutput { tenant: tenant.clone(), window, shard, encoded: writer.finish()? })
            })
            .collect()
    })
    .await
}

/// The number of value columns of the widest dataset, and whether any input of them has spans.
async fn columns_and_spans(
    inputs: &Arc<Vec<MergeInput>>,
    datasets: Vec<InputDataset>,
) -> Result<(usize, bool), Error> {
    let mut value_columns = 0;
    let mut has_spans = false;
    let mut indexes = stream::iter(datasets)
        .map(|dataset| {
            let block = inputs[dataset.input].block.clone();
            async move { block.fetch(dataset.position, Sections { index: true, ..Sections::default() }).await }
        })
        .buffered(PARALLEL_FETCHES);
    while let Some(fetched) = indexes.try_next().await? {
        let widest = fetched.index()?.schemas.iter().map(|schema| schema.columns.len()).max();
        value_columns = value_columns.max(widest.unwrap_or(0));
        has_spans |= fetched.block().parts.layout.has_spans;
    }
    Ok((value_columns, has_spans))
}

/// Encoded bytes of a dataset, roughly. Merging hardly makes it larger.
fn encoded_bytes(block: &Reader, dataset: InputDataset) -> u64 {
    let Some(entry) = block.directory().datasets.get(dataset.position) else { return 0 };
    let sections = [Some(entry.index), Some(entry.strings), Some(entry.symbols), entry.tree];
    let sections: u64 = sections.iter().flatten().map(|section| u64::from(section.bytes)).sum();
    let columns = block.parts.layout.stored_columns() as u64;
    sections + (entry.rows.end - entry.rows.start) * columns * STORED_VALUE_BYTES
}

/// Datasets of one service that are merged together.
struct Part<'a> {
    inputs: &'a Arc<Vec<MergeInput>>,
    tenant: &'a TenantId,
    service: &'a str,
    datasets: &'a [InputDataset],
    /// Charged until the part is written.
    working: Lease,
}

impl Part<'_> {
    /// Adds the datasets to `writers`. If memory refuses them, returns the writers unchanged and the refusal.
    async fn merge(self, mut writers: Writers, pool: &Pool) -> Result<(Writers, Result<(), Refusal>), Error> {
        let Self { inputs, tenant, service, datasets, working } = self;
        let encoded = |dataset: &InputDataset| encoded_bytes(&inputs[dataset.input].block, *dataset);
        if let Err(refusal) = working.grow(datasets.iter().map(encoded).sum()) {
            return Ok((writers, Err(refusal)));
        }
        let fetched: Vec<(FetchedSections, DatasetRows)> = stream::iter(datasets.to_vec())
            .map(|dataset| fetch(inputs[dataset.input].block.clone(), dataset.position))
            .buffered(PARALLEL_FETCHES)
            .try_collect()
            .await?;
        let (inputs, datasets) = (inputs.clone(), datasets.to_vec());
        let (tenant, service) = (tenant.clone(), service.to_owned());
        pool.run(move || {
            let lease = working.sibling();
            let mut collected = ServiceRows::new(tenant, service);
            let collect = || {
                for (dataset, (sections, rows)) in datasets.iter().zip(fetched) {
                    let input = &inputs[dataset.input];
                    let entry = &input.block.directory().datasets[dataset.position];
                    let decoding = lease.sibling();
                    let row_count = entry.rows.end - entry.rows.start;
                    grow(&decoding, row_count * decoded_row_bytes(&input.block))?;
                    let fetched = (sections.charged_to(decoding), rows);
                    collected.add(fetched, input, entry, &writers.windows)?;
                    resize(&lease, collected.byte_len() as u64)?;
                }
                Ok(())
            };
            let outcome = collect().and_then(|()| collected.write(&mut writers, &lease));
            match outcome {
                Ok(()) => Ok((writers, Ok(()))),
                Err(Error::Memory { refusal, .. }) => Ok((writers, Err(refusal))),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

fn grow(lease: &Lease, bytes: u64) -> Result<(), Error> {
    lease.grow(bytes).map_err(|refusal| Error::Memory { purpose: String::new(), refusal })
}

fn resize(lease: &Lease, bytes: u64) -> Result<(), Error> {
    lease.resize(bytes).map_err(|refusal| Error::Memory { purpose: String::new(), refusal })
}

/// Memory of a row while it is decoded, in bytes: decompressed, and as columns.
fn decoded_row_bytes(block: &Reader) -> u64 {
    16 * block.parts.layout.stored_columns() as u64
}

async fn fetch(block: Reader, dataset: usize) -> Result<(FetchedSections, DatasetRows), Error> {
    let sections = block.fetch(dataset, Sections { index: true, symbols: true, tree: false }).await?;
    Ok((sections, block.fetch_rows(dataset).await?))
}

/// Rows of one service from several datasets, by window.
struct ServiceRows {
    tenant: TenantId,
    service: String,
    keys: Keys,
    interner: Interner,
    hashes: Hashes,
    scratch: Scratch,
    series: SeriesTable,
    by_window: BTreeMap<Window, WindowRows>,
}

/// The bit set of a profile without erased columns, whatever its number of columns.
const ALL_COLUMNS: u64 = u64::MAX;

/// The bit set of remaining columns per profile; empty if the dataset has no erased profiles.
fn kept_columns(index: &DatasetIndex, erased: &[ErasedProfiles]) -> Vec<u64> {
    if erased.is_empty() {
        return Vec::new();
    }
    let mut kept = vec![ALL_COLUMNS; index.profiles.len()];
    for ErasedProfiles { schema, column, profiles } in erased {
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

/// The schema with only the columns in the bit set `kept`, and the positions of these columns.
fn narrowed(schema: &ValueSchema, kept: u64) -> (ValueSchema, Vec<usize>) {
    let columns: Vec<usize> = (0..schema.columns.len()).filter(|column| kept >> column & 1 == 1).collect();
    let narrow = ValueSchema {
        columns: columns.iter().map(|column| schema.columns[*column].clone()).collect(),
        ..schema.clone()
    };
    (narrow, columns)
}

/// Rows of one window in order of arrival; stack ids are those of the interner.
#[derive(Default)]
struct WindowRows {
    profiles: Vec<NewProfile>,
    stacks: Vec<u32>,
    values: Vec<i64>,
    spans: Vec<Span>,
}

impl ServiceRows {
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
        (sections, rows): (FetchedSections, DatasetRows),
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
                    resource: "rows",
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

    /// Adds one dataset per window to `writers`. All memory is charged before the first of them is added.
    fn write(self, writers: &mut Writers, lease: &Lease) -> Result<(), Error> {
        let symbols = self.interner.symbols.byte_len() as u64;
        let largest = self.by_window.values().map(WindowRows::byte_len).max().unwrap_or_default() as u64;
        grow(lease, symbols * COPIES_OF_SYMBOLS + largest * COPIES_OF_ROWS)?;
        let Self { tenant, service, interner, series, by_window, .. } = self;
        let shard = shard_of(&service, writers.shard_bits);
        // Windows share most of their stacktraces: sorted once for all windows.
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
            writers.writer(window, shard)?.add(&dataset, Some(&tree), &lengths)?;
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

    /// Adds the `kept` value columns of a profile. Rows without a value in any of them are left out: their values
    /// were in erased columns.
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

    /// Returns the symbols that this window uses, and renumbers its stacks accordingly.
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

    /// Renumbers stacktraces by `stack_ids`, and sorts the rows of each profile by the new ids.
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
    fn writer(&mut self, window: Window, shard: Shard) -> Result<&mut ObjectWriter, Error> {
        match self.by_window_and_shard.entry((window, shard)) {
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
