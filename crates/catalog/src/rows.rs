//! Every row of the catalog: its key, its value, both encoded.
//!
//! Owns: the bytes of rows. Does not own: their meaning and relations (`metastore`).
//!
//! A key is a tag and fixed-width or length-prefixed fields, so that rows of one kind, one tenant or
//! one day are one range. A value begins with a version; a program refuses a version newer than its own.

mod block;
mod dead;
mod deletion;
mod fields;
mod founding;
mod job;
mod log;
mod object;
mod resignation;
mod segment;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;

pub use self::block::{Block, Dataset, block_key, dataset_key};
pub use self::dead::Dead;
pub use self::deletion::{Deletion, DeletionMatcher, DeletionState};
pub use self::founding::Founding;
pub use self::job::{Job, JobProgress, Work};
pub use self::log::{Dedup, Log};
pub use self::object::{DatasetSummary, Quarantine};
pub use self::resignation::Resignation;
pub use self::segment::{Segment, segment_key};

use crate::Batch;
use crate::codec::{DecodeError, Reader, Writer};

/// Version 2 added deletions, floors and row counts of objects.
const VERSION: u8 = 2;

/// Kinds of rows; the first byte of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Log = b'L',
    Segment = b'S',
    Block = b'B',
    Dataset = b'D',
    Job = b'J',
    Dead = b'X',
    Dedup = b'K',
    Deletion = b'O',
    Resignation = b'R',
    Founding = b'F',
}

impl Kind {
    /// The keys of all rows of this kind.
    pub fn keys(self) -> Range<Bytes> {
        Bytes::copy_from_slice(&[self as u8])..Bytes::copy_from_slice(&[self as u8 + 1])
    }
}

/// A row with its key and its encoding.
pub trait Row: Sized {
    const KIND: Kind;

    fn key(&self) -> Bytes;

    fn encode(&self, out: &mut Writer);

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn put_into(&self, batch: &mut Batch) {
        let mut out = Writer::default();
        out.u8(VERSION);
        self.encode(&mut out);
        batch.put(self.key(), out.0);
    }

    /// # Errors
    /// The row is damaged, or newer than this program.
    fn read(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let mut key = Reader::new(key, "row key");
        let kind = key.u8()?;
        if kind != Self::KIND as u8 {
            return Err(DecodeError::Value { part: "row kind", value: u64::from(kind) });
        }
        let mut value = Reader::new(value, "row");
        value.read_version(VERSION)?;
        let row = Self::decode(&mut key, &mut value)?;
        key.end()?;
        value.end()?;
        Ok(row)
    }
}
