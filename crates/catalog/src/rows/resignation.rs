//! The resignation of an owner.

use bytes::Bytes;

use super::fields::start;
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// The owner of `epoch` shut down in order: this row is in its last commit, and it had stopped answering before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resignation {
    pub epoch: u64,
}

/// One row, of the owner that resigned last.
impl Row for Resignation {
    const KIND: Kind = Kind::Resignation;

    fn key(&self) -> Bytes {
        start(Self::KIND).0.into()
    }

    fn encode(&self, out: &mut Writer) {
        out.u64(self.epoch);
    }

    fn decode(_key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { epoch: value.u64()? })
    }
}
