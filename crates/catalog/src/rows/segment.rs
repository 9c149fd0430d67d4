//! Live segments.

use bytes::Bytes;
use model::WriterId;

use super::fields::{fixed_u64, start, tenant};
use super::object::{
    DatasetSummary, Quarantine, put_quarantine, put_summary, take_floor_and_rows, take_quarantine,
    take_summary,
};
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// A live segment. The keys of its items are in [`super::Dedup`] rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub writer: WriterId,
    pub seq: u64,
    pub created_millis: i64,
    pub bytes: u64,
    /// Ordinals of items that were counted elsewhere, sorted.
    pub masked: Vec<u32>,
    pub quarantine: Option<Quarantine>,
    /// Live datasets.
    pub datasets: Vec<DatasetSummary>,
    /// The newest deletion before the segment was consumed; neither it nor older ones erase rows of the segment.
    pub floor: u64,
    /// Rows of all datasets, live or expired; 0 if unknown.
    pub rows: u64,
}

impl Row for Segment {
    const KIND: Kind = Kind::Segment;

    fn key(&self) -> Bytes {
        segment_key(self.writer, self.seq)
    }

    fn encode(&self, out: &mut Writer) {
        out.i64(self.created_millis);
        out.u64(self.bytes);
        out.ascending(&self.masked);
        put_quarantine(out, self.quarantine.as_ref());
        out.u64(self.datasets.len() as u64);
        for dataset in &self.datasets {
            out.text(dataset.tenant.as_str());
            out.text(&dataset.service);
            put_summary(out, dataset);
        }
        out.u64(self.floor);
        out.u64(self.rows);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let writer = WriterId(key.u128()?);
        let seq = fixed_u64(key)?;
        let created_millis = value.i64()?;
        let bytes = value.u64()?;
        let masked = value.ascending()?;
        let quarantine = take_quarantine(value)?;
        let count = value.count(6)?;
        let mut datasets = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = tenant(value.text()?)?;
            let service = value.text()?.into();
            datasets.push(take_summary(value, tenant, service)?);
        }
        let (floor, rows) = take_floor_and_rows(value)?;
        Ok(Self { writer, seq, created_millis, bytes, masked, quarantine, datasets, floor, rows })
    }
}

/// Key of the row of a segment.
pub fn segment_key(writer: WriterId, seq: u64) -> Bytes {
    let mut key = start(Kind::Segment);
    key.u128(writer.0);
    key.0.extend_from_slice(&seq.to_be_bytes());
    key.0.into()
}
