//! Values over time: the totals of matching profiles, on a grid that begins at the query's start.
//!
//! Owns: points by group and grid point, exemplars.
//! Does not own: the grid ([`crate::grid`]), which profiles count ([`crate::scan`]).

use hashbrown::HashMap;
use model::Labels;

use crate::cells::{CellPart, time_after_first_milli};
use crate::flamegraph::below_call_site;
use crate::fold::{Dataset, FoldError, TooLarge};
use crate::group::group_labels;
pub use crate::query::SeriesParameters as Parameters;
use crate::scan::{ColumnSelection, DerivedLabels, ProfileOfRow};

const NANOS: i64 = 1_000_000_000;

/// Memory of a group without its labels and points, roughly.
const GROUP_BYTES: usize = 128;

/// Most points of all series together.
pub const POINTS_MAX: usize = 2_000_000;

/// Points by the number of their grid point.
pub type PointsByBucket = HashMap<i64, Point>;

/// Points by group and grid point.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupedSeries {
    groups: HashMap<Labels, PointsByBucket>,
    points: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Point {
    pub sum: i64,
    /// Number of profiles.
    pub count: u64,
    pub exemplar: Option<Exemplar>,
}

/// The profile with the highest value of a point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exemplar {
    pub value: i64,
    pub time_nanos: i64,
    /// [`model::ProfileId`].
    pub profile: u64,
    /// Labels outside the group.
    pub labels: Labels,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aggregation {
    Sum,
    Average,
}

/// One series of the answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    pub labels: Labels,
    /// Sorted by time; `(Unix milliseconds, value, exemplar)`.
    pub points: Vec<(i64, f64, Option<Exemplar>)>,
}

impl GroupedSeries {
    /// Every group with its points, by grid point; in no particular order.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&Labels, &PointsByBucket)> {
        self.groups.iter()
    }

    /// Bytes held in memory, roughly.
    pub(crate) fn byte_len(&self) -> usize {
        let labels: usize = self.groups.keys().map(|labels| labels.byte_len() + GROUP_BYTES).sum();
        let points = self.groups.values().flat_map(|points| points.values());
        let exemplars: usize = points
            .filter_map(|point| point.exemplar.as_ref())
            .map(|exemplar| exemplar.labels.byte_len())
            .sum();
        let slots: usize = self.groups.values().map(|points| points.capacity()).sum();
        labels + exemplars + slots * (size_of::<(i64, Point)>() + 1)
    }

    /// Adds points to a group.
    ///
    /// # Errors
    /// The answer would outgrow its limit.
    pub fn add_group(&mut self, labels: Labels, points: PointsByBucket) -> Result<(), TooLarge> {
        let groups = HashMap::from_iter([(labels, points)]);
        self.merge(Self { groups, points: 0 })
    }

    pub(crate) fn fold(&mut self, parameters: &Parameters, dataset: Dataset<'_>) -> Result<(), FoldError> {
        let index = dataset.index;
        let grid = parameters.grid();
        for (number, column) in dataset.selection.columns.iter().enumerate() {
            let schema = &index.schemas[column.schema as usize];
            let derived = DerivedLabels::new(schema, column.column as usize);
            let below = match parameters.call_site.is_empty() {
                true => None,
                false => Some(values_below(parameters, &dataset, number, column)?),
            };
            let mut exemplars: HashMap<(Labels, i64, u64), Exemplar> = HashMap::new();
            let mut place = 0;
            let mut start = 0;
            while start < column.runs.len() {
                let series = column.runs[start].series;
                let end = start + column.runs[start..].partition_point(|run| run.series == series);
                let labels = &index.series[series as usize].labels;
                let key = group_labels(&parameters.group_by, &derived, labels);
                let points = self.groups.entry_ref(&key).or_default();
                let before = points.len();
                for profile in column.runs[start..end].iter().flat_map(|run| run.profiles.clone()) {
                    let profile = profile as usize;
                    let value = match &below {
                        None => Some(index.profiles.total(profile, column.column as usize)),
                        Some(values) => values[place],
                    };
                    place += 1;
                    let time = index.profiles.time_nanos[profile];
                    let (Some(value), Some(bucket)) = (value, grid.bucket(time)) else { continue };
                    let point = points.entry(bucket).or_default();
                    point.sum = point.sum.wrapping_add(value);
                    point.count += 1;
                    if parameters.exemplars {
                        let id = index.profiles.id[profile];
                        let mut rest = schema.series_labels(column.column as usize, labels);
                        rest.retain(|name, _| !parameters.group_by.iter().any(|by| by == name));
                        let part = Exemplar { value, time_nanos: time, profile: id, labels: rest };
                        exemplars
                            .entry((key.clone(), bucket, id))
                            .and_modify(|whole| whole.add_part(&part))
                            .or_insert(part);
                    }
                }
                self.points += points.len() - before;
                start = end;
            }
            for ((key, bucket, _), exemplar) in exemplars {
                if let Some(point) = self.groups.get_mut(&key).and_then(|g| g.get_mut(&bucket)) {
                    point.offer(exemplar);
                }
            }
            self.check()?;
        }
        dataset.cells.iter().try_for_each(|part| self.fold_cells(parameters, part))?;
        Ok(())
    }

    fn fold_cells(&mut self, parameters: &Parameters, part: &CellPart) -> Result<(), TooLarge> {
        let cells = &part.cells;
        let grid = parameters.grid();
        for column in &part.columns {
            let derived = DerivedLabels::new(&cells.schemas[column.schema as usize], column.column as usize);
            let mut keys: HashMap<u32, Labels> = HashMap::new();
            for cell in column.cells.iter().cloned().flatten() {
                let cell = cell as usize;
                let group = cells.group[cell];
                let key = keys.entry(group).or_insert_with(|| {
                    group_labels(&parameters.group_by, &derived, &cells.groups[group as usize].labels)
                });
                let points = self.groups.entry_ref(&*key).or_default();
                let before = points.len();
                let start = cells.window[cell].saturating_mul(i64::from(cells.seconds)).saturating_mul(NANOS);
                let total = cells.total(cell, column.column as usize);
                let later = time_after_first_milli(start, part.time_min);
                for (total, time) in [(total.first, start), (total.later, later)] {
                    if total.profiles > 0
                        && let Some(bucket) = grid.bucket(time)
                    {
                        let point = points.entry(bucket).or_default();
                        point.sum = point.sum.wrapping_add(total.sum);
                        point.count = point.count.saturating_add(total.profiles);
                    }
                }
                self.points += points.len() - before;
            }
            self.check()?;
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: Self) -> Result<(), TooLarge> {
        for (key, points) in other.groups {
            let mine = self.groups.entry(key).or_default();
            let before = mine.len();
            for (bucket, point) in points {
                let sum = mine.entry(bucket).or_default();
                sum.sum = sum.sum.wrapping_add(point.sum);
                sum.count = sum.count.saturating_add(point.count);
                if let Some(exemplar) = point.exemplar {
                    sum.offer(exemplar);
                }
            }
            self.points += mine.len() - before;
        }
        self.check()
    }

    fn check(&self) -> Result<(), TooLarge> {
        if self.points > POINTS_MAX {
            return Err(TooLarge { resource: "points", limit: POINTS_MAX });
        }
        Ok(())
    }

    /// The series with the largest sums first; equal ones by their labels. `limit` of 0: all.
    pub fn finish(self, parameters: &Parameters, aggregation: Aggregation, limit: usize) -> Vec<Line> {
        let grid = parameters.grid();
        let mut lines: Vec<(f64, Line)> = Vec::with_capacity(self.groups.len());
        for (labels, points) in self.groups.into_iter().filter(|(_, points)| !points.is_empty()) {
            let mut points: Vec<(i64, f64, Option<Exemplar>)> = points
                .into_iter()
                .map(|(bucket, point)| {
                    let value = match aggregation {
                        Aggregation::Sum => point.sum as f64,
                        Aggregation::Average => point.sum as f64 / point.count.max(1) as f64,
                    };
                    (grid.time(bucket), value, point.exemplar)
                })
                .collect();
            points.sort_unstable_by_key(|(time, _, _)| *time);
            let sum = points.iter().map(|(_, value, _)| value).sum();
            lines.push((sum, Line { labels, points }));
        }
        lines.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.labels.cmp(&y.labels)));
        if limit > 0 {
            lines.truncate(limit);
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

impl Point {
    /// Keeps the better exemplar: the higher value, then the earlier time, then the smaller id.
    fn offer(&mut self, exemplar: Exemplar) {
        let rank = |e: &Exemplar| (std::cmp::Reverse(e.value), e.time_nanos, e.profile);
        if self.exemplar.as_ref().is_none_or(|kept| rank(&exemplar) < rank(kept)) {
            self.exemplar = Some(exemplar);
        }
    }
}

impl Exemplar {
    /// Adds another series of the same profile.
    pub(crate) fn add_part(&mut self, part: &Self) {
        self.value = self.value.saturating_add(part.value);
        self.labels.retain(|name, value| part.labels.get(name) == Some(value));
    }
}

/// Per profile of the column, in its order, the sum of the samples below the call site; `None` without such samples.
/// `number` is the column's position in the selection.
fn values_below(
    parameters: &Parameters,
    dataset: &Dataset<'_>,
    number: usize,
    column: &ColumnSelection,
) -> Result<Vec<Option<i64>>, block::Error> {
    let profiles = column.runs.iter().map(|run| run.profiles.len()).sum();
    let mut values = vec![None; profiles];
    let (Some(tree), Some(samples)) = (&dataset.tree, dataset.samples) else { return Ok(values) };
    let below = below_call_site(tree, &parameters.call_site);
    let mut walk = ProfileOfRow::new(dataset.index, column);
    samples.scan(number, &mut |batch| {
        for ((stacktrace, value), row) in batch.stacks.iter().zip(batch.values).zip(batch.first_row..) {
            let leaf = tree.leaves.get(*stacktrace as usize);
            if leaf.is_some_and(|leaf| below.contains(leaf))
                && let Some(place) = walk.place(row)
            {
                values[place] = Some(values[place].unwrap_or(0i64).saturating_add(*value));
            }
        }
    })?;
    Ok(values)
}
