//! Computes the rollups of a dataset: sums of its rows by cell, where these are much smaller than the rows.
//!
//! Owns: the choice of lengths and labels, the sums.
//! Does not own: the encoding of cells (`cells`), their position in the object (`writer`).

use std::collections::HashMap;
use std::ops::Range;

use model::{DAY, HOUR, Labels};

use crate::cells::{CHUNK_ROWS, CellTotal, Cells, Chunk, PackedColumn, Total, encode_stacks};
use crate::codec::{pack, put_signed};
use crate::rows::PreparedDataset;
use crate::{Error, Series};

/// Cells of one length are written if the dataset has at least this many rows per row of the cells, and at least this
/// many profiles per cell.
const ROWS_PER_CELL_ROW: u64 = 8;

/// A label with this many values or more is never kept.
const LABEL_VALUES_MAX: usize = 50;

/// Most labels with several values that are tried.
const LABELS_TRIED_MAX: usize = 8;

const NANOS: i64 = 1_000_000_000;

/// Lengths of cells, in seconds and the longest first, for a block whose window has `window_seconds`. If all
/// profiles are in one window of the shorter length, the longer one adds no information and is left out.
pub(crate) fn lengths(window_seconds: i64, dataset: &PreparedDataset) -> Vec<u32> {
    let [long, short] = if window_seconds > HOUR { [DAY, HOUR] } else { [HOUR, 300] };
    let window = |time: &i64| time.div_euclid(short * NANOS);
    let times = &dataset.index.profiles.time_nanos;
    match times.iter().map(window).min() == times.iter().map(window).max() {
        true => vec![short as u32],
        false => vec![long as u32, short as u32],
    }
}

/// Cells of one length, ready to be stored.
pub(crate) struct CellSet {
    pub(crate) seconds: u32,
    /// Names of the labels that are kept, sorted.
    pub(crate) labels: Vec<String>,
    pub(crate) head: Cells,
    pub(crate) chunks: Vec<u8>,
}

/// Returns `None` if the cells would not be much smaller than the rows.
pub(crate) fn roll(
    dataset: &PreparedDataset,
    seconds: u32,
    zstd_level: i32,
) -> Result<Option<CellSet>, Error> {
    let profiles = &dataset.index.profiles;
    let limit = dataset.stacks.len() as u64 / ROWS_PER_CELL_ROW;
    let cells_max = profiles.len() as u64 / ROWS_PER_CELL_ROW;
    let length = i64::from(seconds) * NANOS;
    let mut roller = Roller {
        dataset,
        window: profiles.time_nanos.iter().map(|time| time.div_euclid(length)).collect(),
        group_of_series: vec![0; dataset.index.series.len()],
        seen: vec![0; dataset.symbols.stacktraces],
        run: 0,
    };
    let mut kept: Vec<&str> = Vec::new();
    let candidates = candidates(&dataset.index.series);
    let single = candidates.iter().take_while(|(values, _)| *values == 1).count();
    kept.extend(candidates[..single].iter().map(|(_, name)| *name));
    roller.group(&kept);
    if !roller.fits(limit, cells_max) {
        return Ok(None);
    }
    for (_, name) in candidates[single..].iter().take(LABELS_TRIED_MAX) {
        kept.push(name);
        roller.group(&kept);
        if !roller.fits(limit, cells_max) {
            kept.pop();
        }
    }
    kept.sort_unstable();
    let groups = roller.group(&kept);
    let (head, chunks) = roller.add_up(groups, seconds, zstd_level)?;
    let labels = kept.into_iter().map(str::to_owned).collect();
    Ok(Some(CellSet { seconds, labels, head, chunks }))
}

/// Labels that may be kept, with their number of values, the fewest first. A missing value counts as one value.
fn candidates(series: &[Series]) -> Vec<(usize, &str)> {
    let mut values: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut series_with: HashMap<&str, usize> = HashMap::new();
    for series in series {
        for (name, value) in series.labels.iter() {
            let values = values.entry(name).or_default();
            *series_with.entry(name).or_default() += 1;
            if values.len() < LABEL_VALUES_MAX && !values.contains(&value) {
                values.push(value);
            }
        }
    }
    let mut candidates: Vec<(usize, &str)> = values
        .into_iter()
        .map(|(name, values)| (values.len() + usize::from(series_with[name] < series.len()), name))
        .filter(|(values, _)| *values < LABEL_VALUES_MAX)
        .collect();
    candidates.sort_unstable();
    candidates
}

struct Roller<'a> {
    dataset: &'a PreparedDataset,
    /// Per profile.
    window: Vec<i64>,
    group_of_series: Vec<u32>,
    /// Per stacktrace, the last run that it occurred in.
    seen: Vec<u32>,
    /// Counts walks over the rows of one cell.
    run: u32,
}

impl Roller<'_> {
    /// Groups series by these labels; returns the groups, sorted by (schema, labels).
    fn group(&mut self, kept: &[&str]) -> Vec<Series> {
        let series = &self.dataset.index.series;
        let mut keys: Vec<(u32, Labels, u32)> = series
            .iter()
            .zip(0..)
            .map(|(series, id)| {
                let labels = series.labels.iter().filter(|(name, _)| kept.contains(name));
                (series.schema, Labels::from_pairs(labels), id)
            })
            .collect();
        keys.sort_unstable();
        let mut groups: Vec<Series> = Vec::new();
        for (schema, labels, id) in keys {
            if groups.last().is_none_or(|last| (last.schema, &last.labels) != (schema, &labels)) {
                groups.push(Series { schema, labels });
            }
            self.group_of_series[id as usize] = groups.len() as u32 - 1;
        }
        groups
    }

    /// Profiles in the order of their cells, with the cell of each: (schema, window, group).
    fn order(&self) -> Vec<(u32, i64, u32, u32)> {
        let index = &self.dataset.index;
        let mut order: Vec<(u32, i64, u32, u32)> = (0..index.profiles.len())
            .map(|profile| {
                let series = index.profiles.series[profile] as usize;
                let group = self.group_of_series[series];
                (index.series[series].schema, self.window[profile], group, profile as u32)
            })
            .collect();
        order.sort_unstable();
        order
    }

    /// Whether the current groups make at most `cells_max` cells with at most `rows_max` stacktraces in total.
    fn fits(&mut self, rows_max: u64, cells_max: u64) -> bool {
        let order = self.order();
        let cells = || order.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2));
        let profiles = &self.dataset.index.profiles;
        // Without spans a stacktrace occurs once per profile: a cell has at least the stacktraces of its largest one.
        let largest = |cell: &[(u32, i64, u32, u32)]| {
            cell.iter().map(|(.., profile)| u64::from(profiles.rows(*profile as usize).len() as u32)).max()
        };
        let has_spans = !self.dataset.spans.is_empty();
        if cells().count() as u64 > cells_max
            || (!has_spans && cells().filter_map(largest).sum::<u64>() > rows_max)
        {
            return false;
        }
        let mut rows = 0;
        for cell in cells() {
            self.run += 1;
            for (.., profile) in cell {
                for stack in &self.dataset.stacks[rows_of(self.dataset, *profile)] {
                    let seen = &mut self.seen[*stack as usize];
                    rows += u64::from(*seen != self.run);
                    *seen = self.run;
                }
            }
            if rows > rows_max {
                return false;
            }
        }
        true
    }

    fn add_up(
        &mut self,
        groups: Vec<Series>,
        seconds: u32,
        zstd_level: i32,
    ) -> Result<(Cells, Vec<u8>), Error> {
        let index = &self.dataset.index;
        let mut cells = Cells {
            seconds,
            schemas: index.schemas.clone(),
            columns: index.columns.clone(),
            groups,
            row_starts: vec![0],
            total_starts: vec![0],
            ..Cells::default()
        };
        let mut chunks = Chunks { out: Vec::new(), zstd_level };
        let mut open = OpenChunk::default();
        let mut sums: Vec<Vec<i64>> = Vec::new();
        let order = self.order();
        for schema_profiles in order.chunk_by(|a, b| a.0 == b.0) {
            let schema = schema_profiles[0].0 as usize;
            let values = &self.dataset.schemas[schema].values;
            let first_row = self.dataset.schemas[schema].rows.start;
            sums.resize(values.len(), Vec::new());
            sums.iter_mut().for_each(|sums| sums.resize(self.seen.len(), 0));
            open.values.resize(values.len(), Vec::new());
            for cell in schema_profiles.chunk_by(|a, b| (a.1, a.2) == (b.1, b.2)) {
                self.run += 1;
                let mut stacks: Vec<u32> = Vec::new();
                for (.., profile) in cell {
                    for row in rows_of(self.dataset, *profile) {
                        let stack = self.dataset.stacks[row];
                        let seen = &mut self.seen[stack as usize];
                        let is_new = *seen != self.run;
                        *seen = self.run;
                        if is_new {
                            stacks.push(stack);
                        }
                        for (sums, values) in sums.iter_mut().zip(values) {
                            let sum = &mut sums[stack as usize];
                            let before = if is_new { 0 } else { *sum };
                            *sum = before.wrapping_add(values[row - first_row]);
                        }
                    }
                }
                stacks.sort_unstable();
                stacks.retain(|stack| sums.iter().any(|sums| sums[*stack as usize] != 0));
                for (sums, into) in sums.iter().zip(&mut open.values) {
                    stacks.iter().for_each(|stack| put_signed(into, sums[*stack as usize]));
                }
                encode_stacks(std::iter::once(stacks.as_slice()), &mut open.stacks);
                open.rows += stacks.len();
                open.cells += 1;
                self.push_cell(cell, stacks.len() as u32, &mut cells)?;
                if open.rows >= CHUNK_ROWS {
                    cells.chunks.push(chunks.pack(&mut open, cells.group.len() as u32)?);
                }
            }
            if open.cells > 0 {
                cells.chunks.push(chunks.pack(&mut open, cells.group.len() as u32)?);
            }
        }
        Ok((cells, chunks.out))
    }

    fn push_cell(
        &self,
        profiles: &[(u32, i64, u32, u32)],
        rows: u32,
        cells: &mut Cells,
    ) -> Result<(), Error> {
        let (schema, window, group, _) = profiles[0];
        let index = &self.dataset.index;
        cells.group.push(group);
        cells.window.push(window);
        // Does not overflow: cells have fewer rows than the dataset.
        cells.row_starts.push(cells.row_starts.last().copied().unwrap_or(0) + rows);
        let start_millis = window * i64::from(cells.seconds) * 1_000;
        for column in 0..index.schemas[schema as usize].columns.len() {
            let mut total = CellTotal::default();
            for (.., profile) in profiles {
                let millis = index.profiles.time_nanos[*profile as usize].div_euclid(1_000_000);
                let Total { profiles, sum } =
                    if millis == start_millis { &mut total.first } else { &mut total.later };
                let value = index.profiles.total(*profile as usize, column);
                *profiles += u64::from(value != 0);
                *sum = sum.wrapping_add(value);
            }
            cells.totals.push(total);
        }
        cells.total_starts.push(cells.totals.len() as u32);
        Ok(())
    }
}

fn rows_of(dataset: &PreparedDataset, profile: u32) -> Range<usize> {
    let rows = dataset.index.profiles.rows(profile as usize);
    rows.start as usize..rows.end as usize
}

/// Columns of the cells of the next chunk.
#[derive(Default)]
struct OpenChunk {
    cells: u32,
    rows: usize,
    stacks: Vec<u8>,
    values: Vec<Vec<u8>>,
}

struct Chunks {
    out: Vec<u8>,
    zstd_level: i32,
}

impl Chunks {
    /// Closes the open chunk, whose last cell is the one before `end`.
    fn pack(&mut self, open: &mut OpenChunk, end: u32) -> Result<Chunk, Error> {
        let mut columns = Vec::with_capacity(open.values.len() + 1);
        for raw in std::iter::once(&mut open.stacks).chain(&mut open.values) {
            let (packed, section) = pack(raw, self.zstd_level)?;
            let offset = u32::try_from(self.out.len()).map_err(|e| Error::encode("cells", e))?;
            columns.push(PackedColumn {
                offset,
                bytes: section.bytes,
                raw_bytes: section.raw_bytes,
                checksum: section.checksum,
            });
            self.out.extend_from_slice(&packed);
            raw.clear();
        }
        let chunk = Chunk { cells: end - open.cells..end, columns };
        open.cells = 0;
        open.rows = 0;
        Ok(chunk)
    }
}
