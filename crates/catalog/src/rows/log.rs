//! Consumed positions of logs, and keys of counted pushes.

use bytes::Bytes;
use model::{ItemKey, WriterId};

use super::fields::{fixed_u64, put_signed, start, take_signed};
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// The consumed position of a writer's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    pub writer: WriterId,
    /// The first slot that is not consumed.
    pub next: u64,
    /// Whether `next` holds a seal.
    pub sealed: bool,
    /// For an open log: creation time of the last consumed segment. For a sealed one: when it was sealed, or last lost
    /// a segment to the sweep, whichever is later.
    pub moved_millis: i64,
}

impl Row for Log {
    const KIND: Kind = Kind::Log;

    fn key(&self) -> Bytes {
        let mut key = start(Self::KIND);
        key.u128(self.writer.0);
        key.0.into()
    }

    fn encode(&self, out: &mut Writer) {
        out.u64(self.next);
        out.u8(u8::from(self.sealed));
        out.i64(self.moved_millis);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            writer: WriterId(key.u128()?),
            next: value.u64()?,
            sealed: value.u8()? != 0,
            moved_millis: value.i64()?,
        })
    }
}

/// Keys counted first by the segments of one commit that were created in one minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dedup {
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// Distinguishes the rows of one minute; rises.
    pub ordinal: u64,
    pub keys: Vec<ItemKey>,
}

impl Row for Dedup {
    const KIND: Kind = Kind::Dedup;

    fn key(&self) -> Bytes {
        Self::key_of(self.minute, self.ordinal)
    }

    fn encode(&self, out: &mut Writer) {
        out.u64(self.keys.len() as u64);
        for key in &self.keys {
            out.u128(key.0);
        }
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let minute = take_signed(key)?;
        let ordinal = fixed_u64(key)?;
        let count = value.count(16)?;
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            keys.push(ItemKey(value.u128()?));
        }
        Ok(Self { minute, ordinal, keys })
    }
}

impl Dedup {
    pub fn key_of(minute: i64, ordinal: u64) -> Bytes {
        let mut key = start(Self::KIND);
        put_signed(&mut key, minute);
        key.0.extend_from_slice(&ordinal.to_be_bytes());
        key.0.into()
    }
}
