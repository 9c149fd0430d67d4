//! Prepares one dataset for an object: sorts rows, reduces value columns to those that must be stored.
//!
//! Owns: the order of series, profiles and rows, common divisors, proportional columns.
//! Does not own: the source of the rows (`head`, `merge`), their encoding (`writer`).

use std::ops::Range;
use std::sync::Arc;

use model::{Span, TenantId, ValueSchema};

use crate::symbols::EncodedSymbols;
use crate::{DatasetIndex, Profiles, Series, StoredColumn};

/// Rows of one dataset, in any order.
pub(crate) struct NewDataset {
    pub(crate) tenant: TenantId,
    pub(crate) service: String,
    pub(crate) schemas: Vec<Arc<ValueSchema>>,
    pub(crate) series: Vec<Series>,
    pub(crate) profiles: Vec<NewProfile>,
    pub(crate) stacks: Vec<u32>,
    /// Row-major; each profile has as many per row as its schema has columns.
    pub(crate) values: Vec<i64>,
    /// As long as `stacks`, or empty if no row has a span.
    pub(crate) spans: Vec<Span>,
    pub(crate) symbols: EncodedSymbols,
}

/// One profile: its rows are `row_start..row_start + rows`, sorted by stacktrace.
#[derive(Clone, Copy)]
pub(crate) struct NewProfile {
    pub(crate) series: u32,
    pub(crate) time_nanos: i64,
    pub(crate) duration_nanos: i64,
    pub(crate) period: i64,
    pub(crate) id: u64,
    pub(crate) item: u32,
    pub(crate) row_start: u32,
    pub(crate) rows: u32,
    pub(crate) value_start: u64,
}

/// Rows of one dataset in storage order.
pub(crate) struct PreparedDataset {
    pub(crate) tenant: TenantId,
    pub(crate) service: String,
    pub(crate) index: DatasetIndex,
    pub(crate) symbols: EncodedSymbols,
    pub(crate) stacks: Vec<u32>,
    pub(crate) spans: Vec<Span>,
    pub(crate) schemas: Vec<SchemaRows>,
}

/// The rows of one schema, which are adjacent.
pub(crate) struct SchemaRows {
    pub(crate) rows: Range<usize>,
    /// Stored columns, each as long as `rows`.
    pub(crate) values: Vec<Vec<i64>>,
}

impl NewDataset {
    /// Sorts profiles by (schema, series, time), and reduces the value columns to those that must be stored.
    pub(crate) fn prepare(mut self) -> PreparedDataset {
        self.sort_series();
        let mut order: Vec<u32> = (0..self.profiles.len() as u32).collect();
        order.sort_unstable_by_key(|i| {
            let profile = &self.profiles[*i as usize];
            (profile.series, profile.time_nanos, profile.item, profile.id, *i)
        });
        let mut index = DatasetIndex {
            columns: Vec::with_capacity(self.schemas.len()),
            profiles: Profiles { row_starts: vec![0], total_starts: vec![0], ..Profiles::default() },
            ..DatasetIndex::default()
        };
        let mut stacks = Vec::with_capacity(self.stacks.len());
        let mut spans = Vec::with_capacity(self.spans.len());
        let mut schemas = Vec::with_capacity(self.schemas.len());
        let mut rest = order.as_slice();
        for (schema_id, schema) in self.schemas.iter().enumerate() {
            let count = rest
                .iter()
                .take_while(|i| {
                    let series = self.profiles[**i as usize].series;
                    self.series[series as usize].schema as usize == schema_id
                })
                .count();
            let (schema_profiles, after) = rest.split_at(count);
            rest = after;
            let rows: usize = schema_profiles.iter().map(|i| self.profiles[*i as usize].rows as usize).sum();
            let width = schema.columns.len();
            let mut columns: Vec<Vec<i64>> = (0..width).map(|_| Vec::with_capacity(rows)).collect();
            let row_start = stacks.len();
            for i in schema_profiles {
                let profile = &self.profiles[*i as usize];
                let first = profile.row_start as usize;
                let end = first + profile.rows as usize;
                stacks.extend_from_slice(&self.stacks[first..end]);
                if !self.spans.is_empty() {
                    spans.extend_from_slice(&self.spans[first..end]);
                }
                let start = profile.value_start as usize;
                let values = &self.values[start..start + profile.rows as usize * width];
                for (column, into) in columns.iter_mut().enumerate() {
                    let before = into.len();
                    into.extend(values.iter().skip(column).step_by(width));
                    let total = into[before..].iter().fold(0_i64, |sum, value| sum.wrapping_add(*value));
                    index.profiles.totals.push(total);
                }
                push_profile(&mut index.profiles, profile, stacks.len() as u32);
            }
            let (stored, values) = reduce(columns);
            index.columns.push(stored);
            schemas.push(SchemaRows { rows: row_start..stacks.len(), values });
        }
        index.schemas = self.schemas;
        index.series = self.series;
        PreparedDataset {
            tenant: self.tenant,
            service: self.service,
            index,
            symbols: self.symbols,
            stacks,
            spans,
            schemas,
        }
    }

    /// Removes the series and schemas without profiles.
    pub(crate) fn drop_unused_series(&mut self) {
        let mut series_used = vec![false; self.series.len()];
        for profile in &self.profiles {
            series_used[profile.series as usize] = true;
        }
        let mut schema_used = vec![false; self.schemas.len()];
        for (series, _) in self.series.iter().zip(&series_used).filter(|(_, used)| **used) {
            schema_used[series.schema as usize] = true;
        }
        let series_ids = retain_used(&mut self.series, &series_used);
        let schema_ids = retain_used(&mut self.schemas, &schema_used);
        for series in &mut self.series {
            series.schema = schema_ids[series.schema as usize];
        }
        for profile in &mut self.profiles {
            profile.series = series_ids[profile.series as usize];
        }
    }

    /// Sorts schemas, and series by (schema, labels), and renumbers the profiles accordingly.
    fn sort_series(&mut self) {
        let schema_ranks = sort_with_ranks(&mut self.schemas);
        for series in &mut self.series {
            series.schema = schema_ranks[series.schema as usize];
        }
        let mut order: Vec<u32> = (0..self.series.len() as u32).collect();
        order.sort_unstable_by(|a, b| {
            let (a, b) = (&self.series[*a as usize], &self.series[*b as usize]);
            (a.schema, &a.labels).cmp(&(b.schema, &b.labels))
        });
        let mut ranks = vec![0; order.len()];
        for (rank, id) in order.iter().enumerate() {
            ranks[*id as usize] = rank as u32;
        }
        for profile in &mut self.profiles {
            profile.series = ranks[profile.series as usize];
        }
        let mut numbered: Vec<(u32, Series)> =
            ranks.into_iter().zip(std::mem::take(&mut self.series)).collect();
        numbered.sort_unstable_by_key(|(rank, _)| *rank);
        self.series = numbered.into_iter().map(|(_, series)| series).collect();
    }
}

impl PreparedDataset {
    /// Parquet value columns that the rows need.
    pub(crate) fn value_columns(&self) -> usize {
        self.schemas.iter().map(|schema| schema.values.len()).max().unwrap_or(0)
    }
}

/// Keeps the used `items`; returns the new position of each old one.
fn retain_used<T>(items: &mut Vec<T>, used: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let ids = used
        .iter()
        .map(|used| {
            let id = next;
            next += u32::from(*used);
            id
        })
        .collect();
    let mut keep = used.iter();
    items.retain(|_| keep.next().copied().unwrap_or(false));
    ids
}

/// Sorts `items`; returns the new position of each old one.
fn sort_with_ranks<T: Ord + Clone>(items: &mut Vec<T>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..items.len() as u32).collect();
    order.sort_by(|a, b| items[*a as usize].cmp(&items[*b as usize]));
    let mut ranks = vec![0; order.len()];
    for (rank, id) in order.iter().enumerate() {
        ranks[*id as usize] = rank as u32;
    }
    *items = order.iter().map(|id| items[*id as usize].clone()).collect();
    ranks
}

fn push_profile(profiles: &mut Profiles, profile: &NewProfile, row_end: u32) {
    profiles.series.push(profile.series);
    profiles.time_nanos.push(profile.time_nanos);
    profiles.duration_nanos.push(profile.duration_nanos);
    profiles.period.push(profile.period);
    profiles.id.push(profile.id);
    profiles.item.push(profile.item);
    profiles.row_starts.push(row_end);
    profiles.total_starts.push(profiles.totals.len() as u32);
}

/// Divides each column by its common divisor, and drops columns that then equal an earlier one.
fn reduce(columns: Vec<Vec<i64>>) -> (Vec<StoredColumn>, Vec<Vec<i64>>) {
    let mut stored = Vec::with_capacity(columns.len());
    let mut kept: Vec<Vec<i64>> = Vec::with_capacity(columns.len());
    for mut column in columns {
        let factor = common_divisor(&column);
        if factor == 0 {
            stored.push(StoredColumn { value: 0, factor: 0 });
            continue;
        }
        if factor > 1 {
            divide(&mut column, factor);
        }
        let known = kept.iter().position(|other| *other == column);
        let value = known.unwrap_or_else(|| {
            kept.push(column);
            kept.len() - 1
        });
        stored.push(StoredColumn { value: value as u32, factor });
    }
    (stored, kept)
}

/// Largest number that divides all values; 0 if all are 0.
fn common_divisor(values: &[i64]) -> i64 {
    let mut divisor = 0_u64;
    for value in values {
        let value = value.unsigned_abs();
        if divisor != 0 && value % divisor == 0 {
            continue;
        }
        divisor = gcd(divisor, value);
        if divisor == 1 {
            break;
        }
    }
    // Only a column of 0 and `i64::MIN` alone has a divisor that is not an `i64`.
    i64::try_from(divisor).unwrap_or(1)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn divide(values: &mut [i64], divisor: i64) {
    for value in values {
        *value /= divisor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_divided_and_proportional_ones_stored_once() {
        let columns = vec![vec![1, 2, 0], vec![10, 20, 0], vec![0, 0, 0], vec![6, -4, 2]];
        let (stored, kept) = reduce(columns.clone());
        assert_eq!(kept, vec![vec![1, 2, 0], vec![3, -2, 1]]);
        for (column, stored) in columns.iter().zip(&stored) {
            let kept = &kept[stored.value as usize];
            let restored: Vec<i64> = kept.iter().map(|v| v.wrapping_mul(stored.factor)).collect();
            assert_eq!(restored, *column);
        }
    }

    #[test]
    fn the_divisor_of_the_smallest_integer_is_an_i64() {
        assert_eq!(common_divisor(&[i64::MIN, 0]), 1);
        assert_eq!(common_divisor(&[i64::MIN, 6]), 2);
        assert_eq!(common_divisor(&[]), 0);
    }
}
