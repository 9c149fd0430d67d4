//! Which sums of whole windows may stand for the rows of a dataset.
//!
//! Owns: when cells answer a question exactly as the rows would, and for which time; which cells match.
//! Does not own: which cells there are (`block`), what becomes of the sums ([`crate::kind`]).

use std::ops::Range;
use std::sync::Arc;

use block::{CellSection, Cells, DatasetEntry};
use model::TimeRange;
use model::label_names::stored_name;

use crate::kind::series;
use crate::query::{Kind, Query};
use crate::scan::{Derived, has_type, stored};

/// Most windows of one length that a dataset is divided into; of more no cells are used.
const WINDOWS_MAX: i64 = 10_000;

const NANOS: i64 = 1_000_000_000;

/// What of a dataset its cells answer, and what is left for its rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Places of cells in the directory, with the numbers of their windows; sorted, without overlap.
    pub cells: Vec<(usize, Vec<Range<i64>>)>,
    /// Times whose profiles are looked at one by one; sorted, without overlap.
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
    /// Whoever calls this must know that every profile of the dataset counts as it is: cells know of no
    /// masks and of nothing that was deleted since they were written.
    pub fn new(query: &Query, dataset: &DatasetEntry) -> Self {
        if !query.may_use_sums() {
            return Self::rows_only(query);
        }
        let steps = match &query.kind {
            Kind::Series(question) => Some(question),
            _ => None,
        };
        let (first, last) = (dataset.times.first, dataset.times.last);
        let data = TimeRange { start: first, end: last.saturating_add(1) };
        let mut rest = vec![intersection(data, query.range)];
        rest.retain(|range| range.start < range.end);
        let mut plan = Self { cells: Vec::new(), rows: Vec::new() };
        for (at, section) in dataset.cells.iter().enumerate() {
            if !keeps(query, section, dataset) {
                continue;
            }
            let mut used = Vec::new();
            let mut left = Vec::new();
            for range in rest {
                divide(range, data, section.seconds, steps, &mut used, &mut left);
            }
            rest = left;
            if !used.is_empty() {
                plan.cells.push((at, used));
            }
        }
        // The totals of all profiles lie in one section: whoever reads it for some needs no cells for others.
        if !rest.is_empty() && !query.needs().samples {
            return Self::rows_only(query);
        }
        plan.rows = rest;
        plan
    }
}

/// Whether every label that the question looks at is kept, or none of the dataset's series has it.
fn keeps(query: &Query, section: &CellSection, dataset: &DatasetEntry) -> bool {
    let groups: &[String] = match &query.kind {
        Kind::Series(question) => &question.group_by,
        _ => &[],
    };
    let matched = query.selector.matchers.iter().map(|matcher| &*matcher.name);
    matched.chain(groups.iter().map(String::as_str)).map(stored_name).all(|name| {
        let is = |other: &String| other == name;
        section.labels.iter().any(is) || !dataset.label_names.iter().any(is)
    })
}

/// Divides `range` into windows that cells may answer, as numbers, and what is `left`. Times without
/// data belong to whatever is beside them.
fn divide(
    range: TimeRange,
    data: TimeRange,
    seconds: u32,
    steps: Option<&series::Question>,
    used: &mut Vec<Range<i64>>,
    left: &mut Vec<TimeRange>,
) {
    let length = i64::from(seconds) * NANOS;
    let number = |time: i64| time.div_euclid(length);
    // The times of the window's data.
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
        if steps.is_some_and(|steps| cuts(steps, window(number), number.saturating_mul(length))) {
            close(run..number);
            run = number + 1;
        }
    }
    close(run..end);
    if done < range.end {
        left.push(TimeRange { start: done, end: range.end });
    }
}

/// Whether the grid divides the window that begins at `start`, other than behind its first millisecond.
fn cuts(steps: &series::Question, window: TimeRange, start: i64) -> bool {
    let later = later_than_first(start, window.start);
    later < window.end && steps.bucket(later) != steps.bucket(window.end - 1)
}

/// A time that profiles may have which are not of the first millisecond of the window from `start` on;
/// none is before `time_min`.
pub(crate) fn later_than_first(start: i64, time_min: i64) -> i64 {
    start.saturating_add(1_000_000).max(time_min)
}

fn intersection(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange { start: a.start.max(b.start), end: a.end.min(b.end) }
}

impl CellPart {
    /// Finds what `query` asks of the cells of some windows.
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
                let derived = Derived::new(value_schema, column);
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

    /// Stacktraces of all matching cells.
    pub fn rows(&self) -> u64 {
        self.columns.iter().flat_map(|column| &column.cells).map(|cells| self.cells.rows(cells)).sum()
    }

    /// Profiles in all matching cells that have samples of the column.
    pub fn profiles(&self) -> u64 {
        let of = |column: &CellColumn| -> u64 {
            let cells = column.cells.iter().cloned().flatten();
            let totals = cells.map(|cell| self.cells.total(cell as usize, column.column as usize));
            totals.map(|total| total.first.profiles.saturating_add(total.later.profiles)).sum()
        };
        self.columns.iter().map(of).sum()
    }
}

/// How many cells from `start` on are of its schema.
fn same_schema(cells: &Cells, start: usize) -> usize {
    let schema = cells.schema(start);
    cells.group[start..].partition_point(|group| cells.groups[*group as usize].schema == schema)
}

/// Of cells of one schema, which are sorted by window.
fn matching_cells(
    cells: &Cells,
    of: Range<usize>,
    windows: &[Range<i64>],
    matching: &[bool],
) -> Vec<Range<u32>> {
    let mut found: Vec<Range<u32>> = Vec::new();
    let sorted = &cells.window[of.clone()];
    for windows in windows {
        let first = of.start + sorted.partition_point(|window| *window < windows.start);
        let end = of.start + sorted.partition_point(|window| *window < windows.end);
        for cell in (first..end).filter(|cell| matching[cells.group[*cell] as usize]) {
            match found.last_mut() {
                Some(last) if last.end as usize == cell => last.end += 1,
                _ => found.push(cell as u32..cell as u32 + 1),
            }
        }
    }
    found
}
