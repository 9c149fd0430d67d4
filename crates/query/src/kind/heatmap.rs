//! Heat maps: counts of profiles, or of spans, by time and value.
//!
//! Owns: points, value buckets, time slots, exemplars.
//! Does not own: which profiles count ([`crate::scan`]).

use std::cmp::Reverse;
use std::sync::Arc;

use hashbrown::HashMap;
use model::Labels;

use crate::fold::{Dataset, FoldError, TooLarge};
use crate::group::group_labels;
pub use crate::query::{HeatmapParameters as Parameters, PointKind};
use crate::scan::{ColumnSelection, DerivedLabels, ProfileOfRow};

/// Most profiles or spans in one heat map.
pub const HEATMAP_POINTS_MAX: usize = 4_000_000;

/// Rows of a heat map.
const VALUE_BUCKETS: usize = 20;

/// One point per profile or span.
#[derive(Clone, Debug, Default)]
pub struct Points(Vec<Point>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    pub group: Arc<Labels>,
    pub time_nanos: i64,
    pub value: i64,
    pub id: Id,
    /// Labels outside the group; only if the query asks for exemplars.
    pub labels: Labels,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Id {
    Profile(u64),
    Span { span: u64, trace: u128 },
}

/// One series of the answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Map {
    pub labels: Labels,
    /// Sorted by time; only slots with a point.
    pub slots: Vec<Slot>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Slot {
    pub time_millis: i64,
    pub counts: Vec<i32>,
    /// By value bucket.
    pub exemplars: Vec<Point>,
}

/// A finished heat map.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Heatmap {
    /// Lower bounds of the value buckets, the same for every slot.
    pub y_min: Vec<f64>,
    pub maps: Vec<Map>,
}

impl Points {
    /// # Errors
    /// There are more than [`HEATMAP_POINTS_MAX`].
    pub fn new(points: Vec<Point>) -> Result<Self, TooLarge> {
        let mut all = Self::default();
        all.merge(Self(points))?;
        Ok(all)
    }

    /// Bytes held in memory, roughly.
    pub(crate) fn byte_len(&self) -> usize {
        let labels: usize = self.0.iter().map(|point| point.labels.byte_len()).sum();
        labels + self.0.capacity() * size_of::<Point>()
    }

    /// In no particular order.
    pub fn as_slice(&self) -> &[Point] {
        &self.0
    }

    pub(crate) fn fold(&mut self, parameters: &Parameters, dataset: Dataset<'_>) -> Result<(), FoldError> {
        let index = dataset.index;
        // Within one group, all series of one profile are one point.
        let mut found: HashMap<(Arc<Labels>, i64, Id), Point> = HashMap::new();
        for (number, column) in dataset.selection.columns.iter().enumerate() {
            let profiles = profile_labels(parameters, &dataset, column);
            let mut add = |place: usize, id: Id, value: i64| {
                let ProfileLabels { group, labels, profile } = &profiles[place];
                let time_nanos = index.profiles.time_nanos[*profile];
                let whole = found.entry((group.clone(), time_nanos, id)).or_insert_with(|| Point {
                    group: group.clone(),
                    time_nanos,
                    value: 0,
                    id,
                    labels: (**labels).clone(),
                });
                whole.value = whole.value.saturating_add(value);
                whole.labels.retain(|name, value| labels.get(name) == Some(value));
            };
            match (parameters.point_kind, dataset.samples) {
                (PointKind::Profiles, _) => {
                    for (place, (_, profile)) in column.profiles().enumerate() {
                        let total = index.profiles.total(profile, column.column as usize);
                        add(place, Id::Profile(index.profiles.id[profile]), total);
                    }
                }
                (PointKind::Spans, Some(samples)) => {
                    let mut walk = ProfileOfRow::new(index, column);
                    samples.scan(number, &mut |batch| {
                        let rows = batch.spans.iter().zip(batch.values).zip(batch.first_row..);
                        for ((span, value), row) in rows.filter(|((span, _), _)| span.span_id != 0) {
                            if let Some(place) = walk.place(row) {
                                let id = Id::Span { span: span.span_id, trace: span.trace_id };
                                add(place, id, *value);
                            }
                        }
                    })?;
                }
                (PointKind::Spans, None) => {}
            }
            if self.0.len() + found.len() > HEATMAP_POINTS_MAX {
                let limit = HEATMAP_POINTS_MAX;
                return Err(TooLarge { resource: "points", limit }.into());
            }
        }
        self.0.extend(found.into_values());
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: Self) -> Result<(), TooLarge> {
        self.0.extend(other.0);
        if self.0.len() > HEATMAP_POINTS_MAX {
            return Err(TooLarge { resource: "points", limit: HEATMAP_POINTS_MAX });
        }
        Ok(())
    }

    /// Groups with the most points first; equal ones by their labels. `limit` of 0: all.
    pub fn finish(self, parameters: &Parameters, limit: usize) -> Heatmap {
        let values = || self.0.iter().map(|point| point.value);
        let (Some(least), Some(most)) = (values().min(), values().max()) else {
            return Heatmap::default();
        };
        let scale = Scale::new(least, most);
        let mut groups: HashMap<Arc<Labels>, HashMap<i64, SlotCounts>> = HashMap::new();
        for point in self.0 {
            let time = parameters.slot(point.time_nanos);
            let bucket = scale.bucket(point.value);
            let slots = groups.entry(point.group.clone()).or_default();
            slots.entry(time).or_default().add(bucket, point, parameters.exemplars);
        }
        let mut maps: Vec<(i64, Map)> = groups
            .into_iter()
            .map(|(labels, slots)| {
                let mut slots: Vec<Slot> = slots
                    .into_iter()
                    .map(|(time_millis, slot)| Slot {
                        time_millis,
                        counts: slot.counts.to_vec(),
                        exemplars: slot.best.into_iter().flatten().collect(),
                    })
                    .collect();
                slots.sort_unstable_by_key(|slot| slot.time_millis);
                let count = slots.iter().flat_map(|slot| &slot.counts).map(|c| i64::from(*c)).sum();
                (count, Map { labels: (*labels).clone(), slots })
            })
            .collect();
        maps.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.labels.cmp(&y.labels)));
        if limit > 0 {
            maps.truncate(limit);
        }
        Heatmap { y_min: scale.bounds(), maps: maps.into_iter().map(|(_, map)| map).collect() }
    }
}

/// One profile and the labels of its points.
struct ProfileLabels {
    group: Arc<Labels>,
    labels: Arc<Labels>,
    profile: usize,
}

/// The labels of every profile of the column, in its order.
fn profile_labels(
    parameters: &Parameters,
    dataset: &Dataset<'_>,
    column: &ColumnSelection,
) -> Vec<ProfileLabels> {
    let schema = &dataset.index.schemas[column.schema as usize];
    let derived = DerivedLabels::new(schema, column.column as usize);
    let mut profiles = Vec::new();
    let mut last: Option<(u32, Arc<Labels>, Arc<Labels>)> = None;
    for (series, profile) in column.profiles() {
        let (group, labels) = match &last {
            Some((last_series, group, labels)) if *last_series == series => (group.clone(), labels.clone()),
            _ => {
                let own = &dataset.index.series[series as usize].labels;
                let group = Arc::new(group_labels(&parameters.group_by, &derived, own));
                let mut rest = Labels::default();
                if parameters.exemplars {
                    rest = schema.series_labels(column.column as usize, own);
                    rest.retain(|name, _| !parameters.group_by.iter().any(|by| by == name));
                }
                (group, Arc::new(rest))
            }
        };
        last = Some((series, group.clone(), labels.clone()));
        profiles.push(ProfileLabels { group, labels, profile });
    }
    profiles
}

/// Counts and best exemplars of one slot, by value bucket.
#[derive(Default)]
struct SlotCounts {
    counts: [i32; VALUE_BUCKETS],
    best: [Option<Point>; VALUE_BUCKETS],
}

impl SlotCounts {
    fn add(&mut self, bucket: usize, point: Point, exemplars: bool) {
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        let rank = |p: &Point| (Reverse(p.value), p.time_nanos, Reverse(p.id));
        let best = &mut self.best[bucket];
        if exemplars && best.as_ref().is_none_or(|kept| rank(&point) < rank(kept)) {
            *best = Some(point);
        }
    }
}

/// Equal value buckets between the least and the greatest value.
struct Scale {
    least: i64,
    most: i64,
}

impl Scale {
    fn new(least: i64, most: i64) -> Self {
        Self { least, most: if least == most { most.saturating_add(1) } else { most } }
    }

    fn bound(&self, bucket: usize) -> i64 {
        let width = i128::from(self.most) - i128::from(self.least);
        let from_least = bucket as i128 * width / VALUE_BUCKETS as i128;
        (i128::from(self.least) + from_least) as i64
    }

    fn bounds(&self) -> Vec<f64> {
        (0..VALUE_BUCKETS).map(|bucket| self.bound(bucket) as f64).collect()
    }

    fn bucket(&self, value: i64) -> usize {
        (1..VALUE_BUCKETS).take_while(|bucket| self.bound(*bucket) <= value).count()
    }
}

impl Parameters {
    /// The right edge of the slot of a time: edges are at the start plus multiples of the step, and
    /// times after the last edge count there.
    fn slot(&self, time_nanos: i64) -> i64 {
        let millis = time_nanos.div_euclid(1_000_000);
        let step = self.step_millis.max(1);
        let round_up = |time: i64| {
            let steps = (i128::from(time) - i128::from(self.start_millis) + i128::from(step) - 1)
                .div_euclid(i128::from(step));
            (i128::from(self.start_millis) + steps * i128::from(step)) as i64
        };
        round_up(millis).min(round_up(self.end_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_divided_into_twenty_equal_buckets() {
        let scale = Scale::new(10, 315);
        assert_eq!(scale.bounds()[..4], [10.0, 25.0, 40.0, 55.0]);
        assert_eq!(scale.bounds()[19], 299.0);
        assert_eq!(scale.bucket(10), 0);
        assert_eq!(scale.bucket(24), 0);
        assert_eq!(scale.bucket(25), 1);
        assert_eq!(scale.bucket(315), 19);
        assert_eq!(Scale::new(5, 5).bucket(5), 19);
    }

    #[test]
    fn slots_end_at_the_start_and_every_step_after() {
        let parameters = Parameters {
            start_millis: 100,
            end_millis: 140,
            step_millis: 15,
            point_kind: PointKind::Profiles,
            group_by: Vec::new(),
            exemplars: false,
        };
        let slot = |millis: i64| parameters.slot(millis * 1_000_000);
        assert_eq!([slot(100), slot(101), slot(115), slot(116)], [100, 115, 115, 130]);
        assert_eq!(slot(139), 145);
    }
}
