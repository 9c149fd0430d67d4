//! Objects that wait for the sweep.

use bytes::Bytes;
use model::JobId;
use storage::Key;

use super::fields::{fixed_u32, start};
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// An object of the bucket that no answer includes any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dead {
    pub key: Key,
    pub died_millis: i64,
    /// The job that replaced it, if one did.
    pub job: Option<JobId>,
    /// For a segment: its creation time, until which its keys count.
    pub segment_millis: Option<i64>,
}

impl Row for Dead {
    const KIND: Kind = Kind::Dead;

    fn key(&self) -> Bytes {
        Self::key_of(&self.key)
    }

    fn encode(&self, out: &mut Writer) {
        out.i64(self.died_millis);
        out.u8(u8::from(self.job.is_some()) | u8::from(self.segment_millis.is_some()) << 1);
        if let Some(job) = self.job {
            out.u128(job.0);
        }
        if let Some(millis) = self.segment_millis {
            out.i64(millis);
        }
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = fixed_u32(key)? as usize;
        let text = std::str::from_utf8(key.take(len)?)
            .map_err(|_| DecodeError::Text { part: "key of a dead row" })?;
        let died_millis = value.i64()?;
        let has = value.u8()?;
        let job = if has & 1 == 0 { None } else { Some(JobId(value.u128()?)) };
        let segment_millis = if has & 2 == 0 { None } else { Some(value.i64()?) };
        Ok(Self { key: Key::from_text(text), died_millis, job, segment_millis })
    }
}

impl Dead {
    /// Key of the row of a dead object.
    pub fn key_of(object: &Key) -> Bytes {
        let mut key = start(Self::KIND);
        key.0.extend_from_slice(&(object.as_str().len() as u32).to_be_bytes());
        key.0.extend_from_slice(object.as_str().as_bytes());
        key.0.into()
    }
}
