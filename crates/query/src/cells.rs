//! Which sums of whole windows may replace the rows of a dataset.
//!
//! Owns: when, and for which time ranges, cells answer a query exactly as the rows would; which cells match.
//! Does not own: which cells exist (`block`), folding the sums into answers ([`crate::kind`]).

use std::ops::Range;
use std::sync::Arc;

use block::{CellSection, Cells, DatasetEntry};
use model::TimeRange;
use model::label_names::stored_name;

use crate::grid::Grid;
use crate::query::{Kind, Query};
use crate::scan::{DerivedLabels, has_type, stored};

/// Most windows of one length in a time range; cells are not used for a range with more.
const WINDOWS_MAX: i64 = 10_000;

const NANOS: i64 = 1_000_000_000;

/// The division of a dataset's time into a part that cells answer and a part that rows answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Positions of cells in the directory, with the numbers of their windows; sorted, without overlap.
    pub cells: Vec<(usize, Vec<Range<i64>>)>,
    /// Time ranges whose profiles are scanned one by one; sorted, without overlap.
    pub rows: Vec<TimeRange>,
}

/// The matching cells of one length.
#[derive(Debug)]
pub struct CellPart {
    pub cells: Arc<Cells>,
    /// No profile of the dataset is earlier.
    pub time_min: i64,
    pub columns: Vec<CellColumn>,
}

/// Matching cells of one value column of one schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CellColumn {
    pub schema: u32,
    pub column: u32,
    /// Sorted; neighbours are joined.
    pub cells: Vec<Range<u32>>,
}

impl Plan {
    /// Rows answer everything.
    pub fn rows_only(query: &Query) -> Self {
        Self { cells: Vec::new(), rows: vec![query.range] }
    }

    /// Cells for all whole windows, the longest first; rows for the rest.
    ///
    /// Only for a dataset whose profiles all count whole: cells do not reflect masks, nor deletions since
    /// they were written.
    pub fn new(query: &Query, dataset: &DatasetEntry) -> Self {
        if !query.may_use_sums() {
            return Self::rows_only(query);
        }
        let grid = match &query.kind {
            Kind::Series(parameters) => Some(parameters.grid()),
            _ => None,
        };
        let (first, last) = (dataset.times.first, dataset.times.last);
        let data = TimeRange { start: first, end: last.saturating_add(1) };
        let mut rest = vec![intersection(data, query.range)];
        rest.retain(|range| range.start < range.end);
        let mut plan = Self { cells: Vec::new(), rows: Vec::new() };
        for (position, section) in dataset.cells.iter().enumerate() {
            if !keeps(query, section, dataset) {
                continue;
            }
            let mut used = Vec::new();
            let mut left = Vec::new();
            for range in rest {
                divide(range, data, section.seconds, grid, &mut used, &mut left);
            }
            rest = left;
            if !used.is_empty() {
                plan.cells.push((position, used));
            }
        }
        // The totals of all profiles are in one section: if some are needed, cells for the others save nothing.
        if !rest.is_empty() && !query.needs().samples {
            return Self::rows_only(query);
        }
        plan.rows = rest;
        plan
    }
}

/// Whether every label that the query uses is kept, or absent from all series of the dataset.
fn keeps(query: &Query, section: &CellSection, dataset: &DatasetEntry) -> bool {
    let groups: &[String] = match &query.kind {
        Kind::Series(parameters) => &parameters.group_by,
        _ => &[],
    };
    let matched = query.selector.matchers.iter().map(|matcher| &*matcher.name);
    matched.chain(groups.iter().map(String::as_str)).map(stored_name).all(|name| {
        let is = |other: &String| other == name;
        section.labels.iter().any(is) || !dataset.label_names.iter().any(is)
    })
}

/// Divides `range` into windows that cells may answer (`used`, by their numbers) and the rest (`left`). A window
/// is whole if `range` covers its part of `data`.
fn divide(
    range: TimeRange,
    data: TimeRange,
    seconds: u32,
    grid: Option<Grid>,
    used: &mut Vec<Range<i64>>,
    left: &mut Vec<TimeRange>,
) {
    let length = i64::from(seconds) * NANOS;
    let number = |time: i64| time.div_euclid(length);
    // The part of `data` in a window.
    let window = |number: i64| {
        let start = number.saturating_mul(length);
        intersection(TimeRange { start, end: start.saturating_add(length) }, data)
    };
    let (mut first, mut end) = (number(range.start), number(range.end - 1) + 1);
    if end - first > WINDOWS_MAX {
        left.push(range);
        return;
    }
    if window(first).start < range.start {
        first += 1;
    }
    if first < end && window(end - 1).end > range.end {
        end -= 1;
    }
    if first >= end {
        left.push(range);
        return;
    }
    let mut done = range.start;
    let mut run = first;
    let mut close = |run: Range<i64>| {
        if run.is_empty() {
            return;
        }
        let (start, end) = (window(run.start).start, window(run.end - 1).end);
        if done < start {
            left.push(TimeRange { start: done, end: start });
        }
        done = end;
        used.push(run);
    };
    for number in first..end {
        if grid.is_some_and(|grid| cuts(grid, window(number), number.saturating_mul(length))) {
            close(run..number);
            run = number + 1;
        }
    }
    close(run..end);
    if done < range.end {
        left.push(TimeRange { start: done, end: range.end });
    }
}

/// Whether the grid divides the window that begins at `start`, except directly after its first millisecond.
fn cuts(grid: Grid, window: TimeRange, start: i64) -> bool {
    let later = time_after_first_milli(start, window.start);
    later < window.end && grid.bucket(later) != grid.bucket(window.end - 1)
}

/// The earliest possible time of a profile after the first millisecond of the window that begins at `start`, if no
/// profile is before `time_min`.
pub(crate) fn time_after_first_milli(start: i64, time_min: i64) -> i64 {
    start.saturating_add(1_000_000).max(time_min)
}

fn intersection(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange { start: a.start.max(b.start), end: a.end.min(b.end) }
}

impl CellPart {
    /// Selects the cells of some windows that `query` counts.
    pub fn select(cells: Arc<Cells>, windows: &[Range<i64>], dataset: &DatasetEntry, query: &Query) -> Self {
        let mut columns = Vec::new();
        let mut start = 0;
        while start < cells.len() {
            let schema = cells.schema(start);
            let end = start + same_schema(&cells, start);
            let value_schema = &cells.schemas[schema as usize];
            for column in 0..value_schema.columns.len() {
                if query.profile_type.as_ref().is_some_and(|t| !has_type(value_schema, column, t)) {
                    continue;
                }
                let derived = DerivedLabels::new(value_schema, column);
                let Some(matchers) = derived.narrow(&query.selector.matchers) else { continue };
                let matching: Vec<bool> = cells
                    .groups
                    .iter()
                    .map(|group| {
                        let value = |name: &str| stored(&group.labels, name).unwrap_or_default();
                        matchers.iter().all(|matcher| matcher.matches(value(&matcher.name)))
                    })
                    .collect();
                let found = matching_cells(&cells, start..end, windows, &matching);
                if !found.is_empty() {
                    columns.push(CellColumn { schema, column: column as u32, cells: found });
                }
            }
            start = end;
        }
        Self { cells, time_min: dataset.times.first, columns }
    }

    /// Number of stacktraces of all matching cells.
    pub fn rows(&self) -> u64 {
        self.columns.iter().flat_map(|column| &column.cells).map(|cells| self.cells.rows(cells)).sum()
    }

    /// Number of profiles in all matching cells with samples in the column.
    pub fn profiles(&self) -> u64 {
        let profiles = |column: &CellColumn| -> u64 {
            let cells = column.cells.iter().cloned().flatten();
            let totals = cells.map(|cell| self.cells.total(cell as usize, column.column as usize));
            totals.map(|total| total.first.profiles.saturating_add(total.later.profiles)).sum()
        };
        self.columns.iter().map(profiles).sum()
    }
}

/// Number of adjacent cells from `start` on with the same schema.
fn same_schema(cells: &Cells, start: usize) -> usize {
    let schema = cells.schema(start);
    cells.group[start..].partition_point(|group| cells.groups[*group as usize].schema == schema)
}

/// The matching cells of one schema. `schema_cells` are sorted by window.
fn matching_cells(
    cells: &Cells,
    schema_cells: Range<usize>,
    windows: &[Range<i64>],
    matching: &[bool],
) -> Vec<Range<u32>> {
    let mut found: Vec<Range<u32>> = Vec::new();
    let sorted = &cells.window[schema_cells.clone()];
    for windows in windows {
        let first = schema_cells.start + sorted.partition_point(|window| *window < windows.start);
        let end = schema_cells.start + sorted.partition_point(|window| *window < windows.end);
        for cell in (first..end).filter(|cell| matching[cells.group[*cell] as usize]) {
            match found.last_mut() {
                Some(last) if last.end as usize == cell => last.end += 1,
                _ => found.push(cell as u32..cell as u32 + 1),
            }
        }
    }
    found
}
