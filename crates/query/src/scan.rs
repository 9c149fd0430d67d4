//! The loop over a dataset: matching series, the profiles of them that count, and their rows.
//!
//! Owns: derived labels as matchers see them, time ranges, masks, erased profiles, sums per stacktrace.
//! Does not own: reading objects (the leaf), folding the sums into answers ([`crate::kind`]).

use std::cell::OnceCell;
use std::ops::Range;

use block::{Batch, DatasetIndex, ErasedProfiles};
use model::label_names::{PROFILE_TYPE, TYPE_PARTS, stored_name};
use model::{Labels, ProfileType, TimeRange, ValueSchema};

use crate::query::{Query, SampleFilter};
use crate::selector::Matcher;

/// The matching profiles of one dataset.
#[derive(Debug, Default)]
pub struct Selection {
    pub columns: Vec<ColumnSelection>,
}

/// Matching profiles of one value column of one schema.
#[derive(Debug)]
pub struct ColumnSelection {
    pub schema: u32,
    pub column: u32,
    /// In the order of the index.
    pub runs: Vec<Run>,
}

/// Adjacent profiles of one series; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Index into the series of the dataset.
    pub series: u32,
    /// Indices into the profiles of the dataset.
    pub profiles: Range<u32>,
}

/// The samples of a selection, decoded on request.
pub trait Samples {
    /// Calls `each` with the rows of the selection's column number `column`, in the order of the dataset.
    ///
    /// # Errors
    /// The object is damaged.
    fn scan(&self, column: usize, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error>;

    /// Calls `each` with the sums of all matching cells.
    ///
    /// # Errors
    /// The object is damaged.
    fn scan_cells(&self, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error>;
}

impl Selection {
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn profiles(&self) -> u64 {
        let runs = self.columns.iter().flat_map(|column| &column.runs);
        runs.map(|run| u64::from(run.profiles.end - run.profiles.start)).sum()
    }

    /// Rows of all selected profiles.
    pub fn rows(&self, index: &DatasetIndex) -> u64 {
        let starts = &index.profiles.row_starts;
        let rows =
            |run: &Run| u64::from(starts[run.profiles.end as usize] - starts[run.profiles.start as usize]);
        self.columns.iter().flat_map(|column| &column.runs).map(rows).sum()
    }
}

impl ColumnSelection {
    /// Rows to read, relative to the dataset's first row; neighbours are joined.
    pub fn rows(&self, index: &DatasetIndex) -> Vec<Range<u32>> {
        let mut rows: Vec<Range<u32>> = Vec::new();
        for run in &self.runs {
            let start = index.profiles.row_starts[run.profiles.start as usize];
            let end = index.profiles.row_starts[run.profiles.end as usize];
            match rows.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => rows.push(start..end),
            }
        }
        rows
    }

    /// Every profile with its series.
    pub fn profiles(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        let with_series = |run: &Run| {
            let series = run.series;
            run.profiles.clone().map(move |profile| (series, profile as usize))
        };
        self.runs.iter().flat_map(with_series)
    }
}

/// Selects the profiles of a dataset that `query` counts within the sorted time ranges `within`. `masked`
/// are the sorted ordinals of push items that are counted elsewhere; `erased` are the profiles that
/// deletions erase ([`crate::deletion::erased`]).
pub fn select(
    index: &DatasetIndex,
    masked: &[u32],
    erased: &[ErasedProfiles],
    query: &Query,
    within: &[TimeRange],
) -> Selection {
    let mut selection = Selection::default();
    let filter = query.profiles();
    let by_totals = !query.needs().samples;
    let one_is_enough = query.kind.is_about_labels();
    for (schema, value_schema) in index.schemas.iter().enumerate() {
        for column in 0..value_schema.columns.len() {
            if query.profile_type.as_ref().is_some_and(|t| !has_type(value_schema, column, t)) {
                continue;
            }
            let derived = DerivedLabels::new(value_schema, column);
            let Some(matchers) = derived.narrow(&query.selector.matchers) else {
                continue;
            };
            let mut runs = Vec::new();
            let counts = |profile: u32| {
                let profile = profile as usize;
                let is_masked = masked.binary_search(&index.profiles.item[profile]).is_ok();
                let is_named =
                    filter.is_none_or(|filter| filter.profiles.contains(&index.profiles.id[profile]));
                // A column of zeros is a profile type without samples in the document.
                let is_empty = by_totals && index.profiles.total(profile, column) == 0;
                !is_masked && is_named && !is_empty
            };
            let all_count = masked.is_empty() && filter.is_none() && !by_totals;
            let erased = erased_in_column(erased, schema, column);
            select_runs(index, schema as u32, &matchers, |series, profiles| {
                let within = within.iter().map(|range| in_range(index, profiles.clone(), *range));
                let remaining = within.flat_map(|profiles| without(profiles, erased));
                if all_count {
                    remaining.for_each(|profiles| push_run(series, profiles, &mut runs));
                } else if one_is_enough {
                    let found = remaining.flatten().find(|profile| counts(*profile));
                    found.into_iter().for_each(|profile| push_run(series, profile..profile + 1, &mut runs));
                } else {
                    let counted = remaining.flatten().filter(|profile| counts(*profile));
                    counted.for_each(|profile| push_run(series, profile..profile + 1, &mut runs));
                }
            });
            if !runs.is_empty() {
                let (schema, column) = (schema as u32, column as u32);
                selection.columns.push(ColumnSelection { schema, column, runs });
            }
        }
    }
    selection
}

/// The erased profiles of one value column.
fn erased_in_column(erased: &[ErasedProfiles], schema: usize, column: usize) -> &[ErasedProfiles] {
    let key = (schema as u32, column as u32);
    let start = erased.partition_point(|e| (e.schema, e.column) < key);
    let len = erased[start..].partition_point(|e| (e.schema, e.column) == key);
    &erased[start..start + len]
}

/// The ranges of `profiles` that are not erased, in order; `erased` is of one column.
fn without(profiles: Range<u32>, erased: &[ErasedProfiles]) -> impl Iterator<Item = Range<u32>> {
    let first = erased.partition_point(|e| e.profiles.end <= profiles.start);
    let gaps = erased[first..].iter().map(|e| e.profiles.clone());
    let mut gaps = gaps.take_while(move |gap| gap.start < profiles.end).fuse();
    let mut next = profiles.start;
    let mut is_over = false;
    std::iter::from_fn(move || {
        while !is_over {
            let start = next;
            let end = match gaps.next() {
                Some(gap) => {
                    next = gap.end;
                    gap.start.max(start)
                }
                None => {
                    is_over = true;
                    profiles.end
                }
            };
            if start < end {
                return Some(start..end);
            }
        }
        None
    })
}

pub(crate) fn has_type(schema: &ValueSchema, column: usize, wanted: &ProfileType) -> bool {
    let (sample_type, sample_unit) = &schema.columns[column];
    let (period_type, period_unit) =
        schema.period.as_ref().map_or(("", ""), |(r#type, unit)| (r#type.as_str(), unit.as_str()));
    schema.name == wanted.name
        && *sample_type == wanted.sample_type
        && *sample_unit == wanted.sample_unit
        && period_type == wanted.period_type
        && period_unit == wanted.period_unit
}

/// Calls `found` with the profiles of every series of `schema` that matches.
pub(crate) fn select_runs(
    index: &DatasetIndex,
    schema: u32,
    matchers: &[&Matcher],
    mut found: impl FnMut(u32, Range<usize>),
) {
    let series_of = &index.profiles.series;
    let mut start = 0;
    while start < series_of.len() {
        let series = series_of[start];
        let end = start + series_of[start..].partition_point(|other| *other == series);
        let described = &index.series[series as usize];
        let matches = |matcher: &&Matcher| {
            matcher.matches(stored(&described.labels, &matcher.name).unwrap_or_default())
        };
        if described.schema == schema && matchers.iter().all(matches) {
            found(series, start..end);
        }
        start = end;
    }
}

/// The `profiles` of one series, which are sorted by time, that are within `range`.
pub(crate) fn in_range(index: &DatasetIndex, profiles: Range<usize>, range: TimeRange) -> Range<u32> {
    let times = &index.profiles.time_nanos[profiles.clone()];
    let first = times.partition_point(|time| *time < range.start);
    let end = times.partition_point(|time| *time < range.end);
    (profiles.start + first) as u32..(profiles.start + end.max(first)) as u32
}

/// Adds profiles to the last run if they follow it, or else as a new run.
fn push_run(series: u32, profiles: Range<u32>, runs: &mut Vec<Run>) {
    match runs.last_mut() {
        _ if profiles.is_empty() => {}
        Some(last) if last.series == series && last.profiles.end == profiles.start => {
            last.profiles.end = profiles.end;
        }
        _ => runs.push(Run { series, profiles }),
    }
}

/// The value of a stored label, or of another name of one.
pub(crate) fn stored<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    labels.get(stored_name(name))
}

/// The labels that series have from their value column; as [`ValueSchema::series_labels`], without copies.
pub(crate) struct DerivedLabels<'a> {
    type_parts: [&'a str; 5],
    id: OnceCell<String>,
}

impl<'a> DerivedLabels<'a> {
    pub(crate) fn new(schema: &'a ValueSchema, column: usize) -> Self {
        Self { type_parts: schema.type_parts(column), id: OnceCell::new() }
    }

    /// The matchers on stored labels; `None` if a derived label does not match.
    pub(crate) fn narrow<'m>(&self, matchers: &'m [Matcher]) -> Option<Vec<&'m Matcher>> {
        let mut remaining = Vec::new();
        for matcher in matchers {
            match self.own(&matcher.name) {
                Some(value) if !matcher.matches(value) => return None,
                Some(_) => {}
                None => remaining.push(matcher),
            }
        }
        Some(remaining)
    }

    /// The value that clients see of a series with these stored labels.
    pub(crate) fn get<'l>(&'l self, labels: &'l Labels, name: &str) -> Option<&'l str> {
        self.own(name).or_else(|| stored(labels, name))
    }

    /// Names of the derived labels that have a value.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [PROFILE_TYPE].into_iter().chain(TYPE_PARTS).filter(|name| self.own(name).is_some())
    }

    fn own(&self, name: &str) -> Option<&str> {
        if name == PROFILE_TYPE {
            return Some(self.id.get_or_init(|| self.type_parts.join(":")));
        }
        let part = TYPE_PARTS.into_iter().position(|part| part == name)?;
        Some(self.type_parts[part]).filter(|value| !value.is_empty())
    }
}

/// Adds up the values per stacktrace; `weights` has one entry per stacktrace of the dataset.
/// Sums wrap: values that do not fit in 64 bits have no meaning to preserve.
pub(crate) fn add_weights(weights: &mut [i64], batch: &Batch<'_>, filter: &SampleFilter) {
    let rows = || batch.stacks.iter().zip(batch.values);
    let mut add = |stacktrace: u32, value: i64| {
        if let Some(weight) = weights.get_mut(stacktrace as usize) {
            *weight = weight.wrapping_add(value);
        }
    };
    if filter.spans.is_empty() && filter.traces.is_empty() {
        rows().for_each(|(stacktrace, value)| add(*stacktrace, *value));
        return;
    }
    for ((stacktrace, value), span) in rows().zip(batch.spans) {
        if filter.spans.contains(&span.span_id) || filter.traces.contains(&span.trace_id) {
            add(*stacktrace, *value);
        }
    }
}

/// Finds the profile of each row of a column, for ascending rows.
pub(crate) struct ProfileOfRow<'a> {
    index: &'a DatasetIndex,
    profiles: Vec<(u32, usize)>,
    next: usize,
}

impl<'a> ProfileOfRow<'a> {
    pub(crate) fn new(index: &'a DatasetIndex, column: &ColumnSelection) -> Self {
        Self { index, profiles: column.profiles().collect(), next: 0 }
    }

    /// The position, among the column's profiles, of the profile that `row` belongs to. Must be called
    /// with ascending rows.
    pub(crate) fn place(&mut self, row: u32) -> Option<usize> {
        while let Some((_, profile)) = self.profiles.get(self.next) {
            let rows = self.index.profiles.rows(*profile);
            if row < rows.end {
                return (row >= rows.start).then_some(self.next);
            }
            self.next += 1;
        }
        None
    }
}
