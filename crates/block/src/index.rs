//! The index of a dataset: schemas, series and profiles with their totals, and its encoding.
//!
//! Owns: the columns of the index, as defined in `FORMAT.md`, and the limits of decoding.
//! Does not own: samples (`scan`), symbols (`symbols`).

use std::ops::Range;
use std::sync::Arc;

use model::{Labels, ValueSchema};

use crate::codec::{Cursor, Delta, put, put_signed, put_text};
use crate::error::Malformed;

/// Most value columns that one profile may have.
pub const VALUE_COLUMNS_MAX: usize = 64;

/// Most bytes of labels of all series of a dataset that a writer accepts.
pub(crate) const LABEL_BYTES_MAX: usize = 1 << 30;

/// The limit of a reader. Texts are stored once and referred to, so the size of the section is no bound. It is larger,
/// because earlier writers did not enforce [`LABEL_BYTES_MAX`], and their objects are not damaged.
const LABEL_BYTES_READ_MAX: usize = 4 * LABEL_BYTES_MAX;

/// The series and profiles of one dataset. Sufficient for queries about labels and time series.
#[derive(Clone, Debug, Default)]
pub struct DatasetIndex {
    pub schemas: Vec<Arc<ValueSchema>>,
    /// Where the value columns of each schema are stored: `columns[schema][column]`.
    pub columns: Vec<Vec<StoredColumn>>,
    pub series: Vec<Series>,
    pub profiles: Profiles,
}

/// Where a value column of a schema is stored. A value is the stored value times `factor`, wrapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoredColumn {
    /// Number of the Parquet column `value_<n>`.
    pub value: u32,
    /// Common divisor of all values of the column in this dataset; 0 if all are 0.
    pub factor: i64,
}

/// One label set with one schema. Clients see one series per value column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    /// Index into `schemas`.
    pub schema: u32,
    /// Without the labels that [`ValueSchema::series_labels`] derives.
    pub labels: Labels,
}

/// Profiles as columns, sorted by (schema, series, time). Profile `i` is element `i` of each
/// column; its samples are the rows `row_starts[i]..row_starts[i + 1]` of the dataset, sorted by stacktrace.
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

impl DatasetIndex {
    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        let labels: usize = self.series.iter().map(|s| s.labels.byte_len() + s.labels.len() * 32 + 32).sum();
        let profiles = self.profiles.len() * 48 + self.profiles.totals.len() * 8;
        labels + profiles + self.schemas.len() * 512
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.series.len() * 64 + self.profiles.len() * 24);
        encode_schemas(&mut out, &self.schemas, &self.columns);
        encode_series(&mut out, &self.series);
        self.encode_profiles(&mut out);
        out
    }

    fn encode_profiles(&self, out: &mut Vec<u8>) {
        let profiles = &self.profiles;
        put(out, profiles.len() as u64);
        let delta_column = |out: &mut Vec<u8>, values: &mut dyn Iterator<Item = i64>| {
            let mut delta = Delta::default();
            for value in values {
                delta.put(out, value);
            }
        };
        delta_column(out, &mut profiles.series.iter().map(|v| i64::from(*v)));
        delta_column(out, &mut profiles.time_nanos.iter().copied());
        delta_column(out, &mut profiles.duration_nanos.iter().copied());
        delta_column(out, &mut profiles.period.iter().copied());
        for id in &profiles.id {
            out.extend_from_slice(&id.to_le_bytes());
        }
        delta_column(out, &mut profiles.item.iter().map(|v| i64::from(*v)));
        for i in 0..profiles.len() {
            put(out, u64::from(profiles.row_starts[i + 1] - profiles.row_starts[i]));
        }
        for total in &profiles.totals {
            put_signed(out, *total);
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let cursor = &mut cursor;
        let (schemas, columns) = decode_schemas(cursor)?;
        let series = decode_series(cursor, schemas.len())?;
        let profiles = decode_profiles(cursor, &schemas, &series)?;
        cursor.end()?;
        Ok(Self { schemas, columns, series, profiles })
    }
}

pub(crate) fn encode_schemas(out: &mut Vec<u8>, schemas: &[Arc<ValueSchema>], columns: &[Vec<StoredColumn>]) {
    put(out, schemas.len() as u64);
    for (schema, columns) in schemas.iter().zip(columns) {
        put_text(out, &schema.name);
        put(out, schema.columns.len() as u64);
        for ((r#type, unit), stored) in schema.columns.iter().zip(columns) {
            put_text(out, r#type);
            put_text(out, unit);
            put(out, u64::from(stored.value));
            put_signed(out, stored.factor);
        }
        out.push(u8::from(schema.period.is_some()));
        if let Some((r#type, unit)) = &schema.period {
            put_text(out, r#type);
            put_text(out, unit);
        }
    }
}

pub(crate) fn encode_series(out: &mut Vec<u8>, all_series: &[Series]) {
    let mut texts: Vec<&str> = Vec::new();
    for series in all_series {
        for (name, value) in series.labels.iter() {
            texts.push(name);
            texts.push(value);
        }
    }
    texts.sort_unstable();
    texts.dedup();
    put(out, texts.len() as u64);
    for text in &texts {
        put_text(out, text);
    }
    put(out, all_series.len() as u64);
    let id = |text: &str| texts.binary_search(&text).unwrap_or_default() as u64;
    for series in all_series {
        put(out, u64::from(series.schema));
        put(out, series.labels.len() as u64);
        for (name, value) in series.labels.iter() {
            put(out, id(name));
            put(out, id(value));
        }
    }
}

type Schemas = (Vec<Arc<ValueSchema>>, Vec<Vec<StoredColumn>>);

pub(crate) fn decode_schemas(cursor: &mut Cursor<'_>) -> Result<Schemas, Malformed> {
    let count = cursor.count()?;
    let mut schemas = Vec::new();
    let mut all_stored = Vec::new();
    for _ in 0..count {
        let name = cursor.text()?.to_owned();
        let column_count = cursor.index(VALUE_COLUMNS_MAX + 1, "a schema has too many columns")?;
        let mut columns = Vec::new();
        let mut stored = Vec::new();
        for _ in 0..column_count {
            columns.push((cursor.text()?.to_owned(), cursor.text()?.to_owned()));
            stored.push(StoredColumn {
                value: cursor.index(VALUE_COLUMNS_MAX, "a value column does not exist")?,
                factor: cursor.signed()?,
            });
        }
        let period = match cursor.byte()? {
            0 => None,
            1 => Some((cursor.text()?.to_owned(), cursor.text()?.to_owned())),
            _ => return Err(cursor.malformed("a flag is neither 0 nor 1")),
        };
        schemas.push(Arc::new(ValueSchema { name, columns, period }));
        all_stored.push(stored);
    }
    Ok((schemas, all_stored))
}

pub(crate) fn decode_series(cursor: &mut Cursor<'_>, schemas: usize) -> Result<Vec<Series>, Malformed> {
    let text_count = cursor.count()?;
    let mut texts = Vec::new();
    for _ in 0..text_count {
        texts.push(cursor.text()?);
    }
    let count = cursor.count()?;
    let mut all_series = Vec::new();
    let mut label_bytes = 0_usize;
    for _ in 0..count {
        let schema = cursor.index(schemas, "a series has an unknown schema")?;
        let label_count = cursor.count()?;
        let mut pairs = Vec::new();
        for _ in 0..label_count {
            let name = texts[cursor.index(texts.len(), "a label name does not exist")? as usize];
            let value = texts[cursor.index(texts.len(), "a label value does not exist")? as usize];
            label_bytes += name.len() + value.len();
            if label_bytes > LABEL_BYTES_READ_MAX {
                return Err(cursor.malformed("labels are longer than allowed"));
            }
            pairs.push((name, value));
        }
        all_series.push(Series { schema, labels: Labels::from_pairs(pairs) });
    }
    Ok(all_series)
}

fn decode_profiles(
    cursor: &mut Cursor<'_>,
    schemas: &[Arc<ValueSchema>],
    all_series: &[Series],
) -> Result<Profiles, Malformed> {
    let count = cursor.count()?;
    let ids = |cursor: &mut Cursor<'_>, limit: usize, problem| {
        let mut delta = Delta::default();
        let mut column = Vec::with_capacity(count);
        for _ in 0..count {
            let value = delta.read(cursor)?;
            if value < 0 || value >= limit as i64 {
                return Err(cursor.malformed(problem));
            }
            column.push(value as u32);
        }
        Ok(column)
    };
    let numbers = |cursor: &mut Cursor<'_>| {
        let mut delta = Delta::default();
        (0..count).map(|_| delta.read(cursor)).collect::<Result<Vec<i64>, Malformed>>()
    };
    let mut profiles = Profiles {
        series: ids(cursor, all_series.len(), "a profile has an unknown series")?,
        time_nanos: numbers(cursor)?,
        duration_nanos: numbers(cursor)?,
        period: numbers(cursor)?,
        ..Profiles::default()
    };
    for _ in 0..count {
        profiles.id.push(u64::from_le_bytes(cursor.array()?));
    }
    profiles.item = ids(cursor, u32::MAX as usize, "a profile has an impossible item")?;
    let mut row = 0_u32;
    profiles.row_starts.reserve(count + 1);
    profiles.row_starts.push(0);
    for _ in 0..count {
        let Some(next) = row.checked_add(cursor.u32()?) else {
            return Err(cursor.malformed("profiles have too many rows"));
        };
        row = next;
        profiles.row_starts.push(row);
    }
    profiles.total_starts.reserve(count + 1);
    profiles.total_starts.push(0);
    for i in 0..count {
        let series = &all_series[profiles.series[i] as usize];
        for _ in 0..schemas[series.schema as usize].columns.len() {
            profiles.totals.push(cursor.signed()?);
        }
        profiles.total_starts.push(profiles.totals.len() as u32);
    }
    Ok(profiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_decode_to_far_more_than_their_bytes_are_refused() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1);
        put_text(&mut bytes, &"x".repeat(1 << 20));
        let labels = (LABEL_BYTES_READ_MAX >> 21) as u64 + 1;
        put(&mut bytes, 1);
        put(&mut bytes, 0);
        put(&mut bytes, labels);
        bytes.resize(bytes.len() + 2 * labels as usize, 0);
        let refused = decode_series(&mut Cursor::new(&bytes), 1).expect_err("is refused");
        assert_eq!(refused.problem, "labels are longer than allowed");
    }
}
