//! The time of a catalog's rebuild from the bucket.

use bytes::Bytes;

use super::fields::start;
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// The catalog was rebuilt at this time, in Unix milliseconds: it did not see the creation of older objects. A catalog
/// without this row began with its bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    pub millis: i64,
}

/// At most one row.
impl Row for Founding {
    const KIND: Kind = Kind::Founding;

    fn key(&self) -> Bytes {
        start(Self::KIND).0.into()
    }

    fn encode(&self, out: &mut Writer) {
        out.i64(self.millis);
    }

    fn decode(_key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { millis: value.i64()? })
    }
}
