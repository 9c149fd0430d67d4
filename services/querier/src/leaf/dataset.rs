//! Answers a query from one dataset: match series, fetch the sections and rows that are needed, fold.
//!
//! Owns: the estimates of bytes and memory, the choice between cells and rows.
//! Does not own: matching and folding themselves (`query`), the encoding of sections (`block`).

use std::sync::Arc;

use block::{
    Batch, DatasetEntry, DatasetIndex, FetchedCellRows, FetchedCells, FetchedSamples, FetchedSections,
    Reader, Sections,
};
use memory::Lease;
use query::cells::{CellPart, Plan};
use query::deletion::erased;
use query::scan::{Samples, Selection, select};
use query::{Dataset, Deletion, FoldError, Needs, Partial, Query};
use rpc::{Error, ErrorKind, FoundDataset};

use crate::leaf::scan::Scan;
use crate::reason::{no_memory, too_large, unreadable};

/// Datasets with at most this many profiles are matched inline: a round trip to the pool costs more.
const INLINE_PROFILES_MAX: usize = 4096;

/// Memory of a row that is read: a stacktrace and a value, decompressed and decoded; with its span.
const ROW_BYTES: u64 = 24;
const SPAN_ROW_BYTES: u64 = 72;

impl Scan<'_> {
    /// Returns the answer of a dataset; none if no profile of it matches.
    pub(super) async fn dataset(
        &self,
        reader: &Reader,
        exclusions: &Exclusions,
        dataset: &FoundDataset,
    ) -> Result<Option<Partial>, Error> {
        let position = dataset.position as usize;
        let entry = entry_of(reader, dataset)?;
        let query = &self.query;
        let needs = query.needs();
        let plan = match self.leaf.uses_rollups && exclusions.is_empty() {
            true => Plan::new(query, entry),
            false => Plan::rows_only(query),
        };
        let bytes = encoded_bytes(entry, &plan, needs);
        let budget = self.leaf.take_read_budget(bytes);
        let _budget = self.meter.time(|effort| &mut effort.fetch, budget).await?;
        // Held until the dataset is folded.
        let working = self.memory.lease();
        working.grow(bytes).map_err(|refusal| no_memory(&refusal))?;

        let profiles = if plan.rows.is_empty() { 0 } else { entry.profiles as usize };
        let is_small = profiles <= INLINE_PROFILES_MAX;
        let matches = self.find_matches(reader, exclusions, position, plan, &working, is_small).await?;
        if matches.is_empty() {
            return Ok(None);
        }

        let wanted = Sections { index: false, symbols: needs.symbols, tree: needs.tree };
        let fetch = async {
            futures::try_join!(
                reader.fetch(position, wanted),
                fetch_samples(reader, position, &matches, needs),
                fetch_sums(&matches, needs)
            )
        };
        let (sections, samples, sums) =
            self.meter.time(|effort| &mut effort.fetch, fetch).await.map_err(unreadable)?;
        let sections = sections.charged_to(working.clone());
        let (owned_query, memory) = (query.clone(), self.memory.clone());
        let rows = FetchedRows { samples, sums };
        let fold = move || {
            let partial = fold(&owned_query, &matches, &sections, rows, bytes, &working)?;
            drop((sections, matches, working));
            Ok::<_, FoldError>(partial.charged_to(&memory)?)
        };
        let is_light = is_small && needs == Needs::default();
        match self.meter.time(|effort| &mut effort.scan, self.leaf.run(is_light, fold)).await {
            Ok(partial) => Ok(Some(partial)),
            Err(FoldError::Block(error)) => Err(unreadable(error)),
            Err(FoldError::TooLarge(error)) => Err(too_large(error)),
            Err(FoldError::Memory(refusal)) => Err(no_memory(&refusal)),
        }
    }

    /// Fetches the index and the heads of the cells that the plan needs, and matches the query.
    async fn find_matches(
        &self,
        reader: &Reader,
        exclusions: &Exclusions,
        position: usize,
        plan: Plan,
        working: &Lease,
        is_small: bool,
    ) -> Result<Matches, Error> {
        let wanted = Sections { index: !plan.rows.is_empty(), ..Sections::default() };
        let cells: Vec<usize> = plan.cells.iter().map(|(index, _)| *index).collect();
        let fetch = async {
            futures::try_join!(reader.fetch(position, wanted), reader.fetch_cells(position, &cells))
        };
        let (fetched, heads) =
            self.meter.time(|effort| &mut effort.fetch, fetch).await.map_err(unreadable)?;
        let fetched = fetched.charged_to(working.clone());
        let (query, exclusions, reader) = (self.query.clone(), exclusions.clone(), reader.clone());
        let match_series = move || {
            let entry = &reader.directory().datasets[position];
            Matches::new(&query, &exclusions, entry, plan, fetched, heads)
        };
        let matches = self.leaf.run(is_small, match_series);
        self.meter.time(|effort| &mut effort.scan, matches).await.map_err(unreadable)
    }
}

fn entry_of<'a>(reader: &'a Reader, dataset: &FoundDataset) -> Result<&'a DatasetEntry, Error> {
    let entry = reader.directory().datasets.get(dataset.position as usize);
    entry.filter(|entry| entry.tenant == dataset.tenant).ok_or_else(|| {
        let text =
            format!("object {} has no dataset {} of {}", reader.key(), dataset.position, dataset.tenant);
        Error::new(ErrorKind::Corrupt, text)
    })
}

/// Profiles of a dataset that are stored in its object but do not count.
#[derive(Clone)]
pub(super) struct Exclusions {
    /// Ordinals of push items that are counted elsewhere; sorted.
    pub(super) masked: Arc<[u32]>,
    /// Deletions that may touch the dataset and are above the object's floor.
    pub(super) deletions: Arc<[Arc<Deletion>]>,
}

impl Exclusions {
    /// True if all profiles count as they are stored: only then are the sums of cells right.
    pub(super) fn is_empty(&self) -> bool {
        self.masked.is_empty() && self.deletions.is_empty()
    }
}

/// Encoded bytes that an answer from a dataset reads, roughly.
fn encoded_bytes(entry: &DatasetEntry, plan: &Plan, needs: Needs) -> u64 {
    let tree = entry.tree.filter(|_| needs.tree);
    let symbols = needs.symbols || (needs.tree && tree.is_none());
    let cells = plan.cells.iter().filter_map(|(index, _)| entry.cells.get(*index)).map(|cells| {
        u64::from(cells.head.bytes) + if needs.samples { u64::from(cells.chunk_bytes) } else { 0 }
    });
    let rows = match (plan.rows.is_empty(), needs.samples) {
        (true, _) => 0,
        (false, false) => u64::from(entry.index.bytes),
        (false, true) => u64::from(entry.index.bytes) + (entry.rows.end - entry.rows.start) * 3,
    };
    u64::from(tree.map_or(0, |section| section.bytes))
        + if needs.tree || symbols { u64::from(entry.strings.bytes) } else { 0 }
        + if symbols { u64::from(entry.symbols.bytes) } else { 0 }
        + cells.sum::<u64>()
        + rows
}

/// The series, profiles and cells of a dataset that a query matches.
struct Matches {
    index: Arc<DatasetIndex>,
    selection: Selection,
    /// `heads[i]` is the source of the sums of `cells[i]`.
    heads: Vec<FetchedCells>,
    cells: Vec<CellPart>,
}

impl Matches {
    fn new(
        query: &Query,
        exclusions: &Exclusions,
        entry: &DatasetEntry,
        plan: Plan,
        fetched: FetchedSections,
        heads: Vec<FetchedCells>,
    ) -> Result<Self, block::Error> {
        let index = if plan.rows.is_empty() { Arc::default() } else { fetched.index()? };
        let erased = erased(&index, exclusions.deletions.iter().map(|deletion| &**deletion));
        let selection = select(&index, &exclusions.masked, &erased, query, &plan.rows);
        let mut cells = Vec::with_capacity(heads.len());
        for (head, (_, windows)) in heads.iter().zip(&plan.cells) {
            cells.push(CellPart::select(head.cells()?, windows, entry, query));
        }
        Ok(Self { index, selection, heads, cells })
    }

    fn is_empty(&self) -> bool {
        self.selection.is_empty() && self.cells.iter().all(|part| part.columns.is_empty())
    }
}

/// Fetches the rows of every column of the selection, if the query needs samples.
async fn fetch_samples(
    reader: &Reader,
    position: usize,
    matches: &Matches,
    needs: Needs,
) -> Result<Vec<FetchedSamples>, block::Error> {
    let index = &matches.index;
    let mut samples = Vec::new();
    for column in matches.selection.columns.iter().filter(|_| needs.samples) {
        let stored = index.columns[column.schema as usize][column.column as usize];
        samples.push(reader.fetch_samples(position, &column.rows(index), stored, needs.spans).await?);
    }
    Ok(samples)
}

/// Fetches the stacktraces of every matching cell, if the query needs samples.
async fn fetch_sums(matches: &Matches, needs: Needs) -> Result<Vec<FetchedCellRows>, block::Error> {
    let mut sums = Vec::new();
    for (head, part) in matches.heads.iter().zip(&matches.cells).filter(|_| needs.samples) {
        let columns = part.columns.iter().map(|column| (column.schema, column.column, &*column.cells));
        sums.push(head.fetch_rows(columns).await?);
    }
    Ok(sums)
}

fn fold(
    query: &Query,
    matches: &Matches,
    sections: &FetchedSections,
    fetched: FetchedRows,
    bytes: u64,
    working: &Lease,
) -> Result<Partial, FoldError> {
    let needs = query.needs();
    if needs.samples {
        let cells: u64 = matches.cells.iter().map(CellPart::rows).sum();
        let rows = matches.selection.rows(&matches.index).saturating_add(cells);
        let row_bytes = if needs.spans { SPAN_ROW_BYTES } else { ROW_BYTES };
        working.grow(rows.saturating_mul(row_bytes))?;
    }
    let mut partial = Partial::empty(query);
    partial.stats.bytes = bytes;
    let tree = if needs.tree { Some(sections.tree()?) } else { None };
    let symbols = if needs.symbols { Some(sections.symbols()?) } else { None };
    // Memory of the fold: a sum for each stacktrace and node, and a copy of the symbols that have weight.
    let nodes = tree.as_ref().map_or(0, |tree| tree.len() + tree.leaves.len()) as u64;
    let copied = symbols.as_ref().map_or(0, |symbols| symbols.byte_len()) as u64;
    working.grow(nodes * 8 + copied * 2)?;
    let dataset = Dataset {
        index: &matches.index,
        selection: &matches.selection,
        cells: &matches.cells,
        tree,
        symbols,
        samples: if needs.samples { Some(&fetched) } else { None },
    };
    partial.fold(query, dataset)?;
    Ok(partial)
}

/// Rows by column of the selection, and sums by length of cells.
struct FetchedRows {
    samples: Vec<FetchedSamples>,
    sums: Vec<FetchedCellRows>,
}

impl Samples for FetchedRows {
    fn scan(&self, column: usize, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        match self.samples.get(column) {
            Some(samples) => samples.for_each(each),
            None => Ok(()),
        }
    }

    fn scan_cells(&self, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        self.sums.iter().try_for_each(|sums| sums.for_each(&mut *each))
    }
}
