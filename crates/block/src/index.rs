use std::ops::Range;
use std::sync::Arc;

use model::{Labels, ValueSchema};

/// The series and profiles of one dataset: all that metadata and time series questions need.
#[derive(Clone, Debug, Default)]
pub struct DatasetIndex {
    pub schemas: Vec<Arc<ValueSchema>>,
    pub series: Vec<Series>,
    pub profiles: Profiles,
}

/// One label set with one schema. Towards clients it is one series per value column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    /// Index into `schemas`.
    pub schema: u32,
    /// Without the labels that [`ValueSchema::series_labels`] derives.
    pub labels: Labels,
}

/// Profiles as columns, sorted by (schema, series, time). Profile `i` is row `i` of each; its
/// samples are the rows `row_starts[i]..row_starts[i + 1]` of the dataset, sorted by stacktrace.
#[derive(Clone, Debug, Default)]
pub struct Profiles {
    /// Index into `series`.
    pub series: Vec<u32>,
    pub time_nanos: Vec<i64>,
    pub duration_nanos: Vec<i64>,
    pub period: Vec<i64>,
    /// [`model::ProfileId`].
    pub id: Vec<u64>,
    /// Ordinal of the push item within the segment; all 0 in blocks.
    pub item: Vec<u32>,
    /// Relative to the dataset's first row; one more entry than there are profiles.
    pub row_starts: Vec<u32>,
    /// Sum of each value column: `totals[total_starts[i]..total_starts[i + 1]]`, one per column of the schema.
    pub totals: Vec<i64>,
    pub total_starts: Vec<u32>,
}

impl Profiles {
    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Rows of profile `i`, relative to the dataset's first row.
    pub fn rows(&self, i: usize) -> Range<u32> {
        self.row_starts[i]..self.row_starts[i + 1]
    }

    /// Sum of value column `column` over profile `i`.
    pub fn total(&self, i: usize, column: usize) -> i64 {
        self.totals[self.total_starts[i] as usize + column]
    }
}
