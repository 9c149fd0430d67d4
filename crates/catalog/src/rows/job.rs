//! Compaction jobs.

use bytes::Bytes;
use model::{JobId, Window};
use storage::Key;

use super::fields::start;
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// A compaction job, from its first claim until a day after it was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    pub id: JobId,
    pub created_millis: i64,
    /// The newest attempt.
    pub attempt: u32,
    /// Attempts that failed or lapsed.
    pub tries: u32,
    /// The newest deletion that the newest attempt applies.
    pub floor: u64,
    pub state: JobProgress,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobProgress {
    /// Whether the newest attempt may still publish, and its work.
    Working { open: bool, work: Work },
    /// Published by the newest attempt. Holds the publish record until that is known to be in the bucket.
    Published { record: Option<Bytes> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    pub level: u8,
    pub windows: Vec<Window>,
    pub inputs: Vec<Key>,
}

impl Row for Job {
    const KIND: Kind = Kind::Job;

    fn key(&self) -> Bytes {
        let mut key = start(Self::KIND);
        key.u128(self.id.0);
        key.0.into()
    }

    fn encode(&self, out: &mut Writer) {
        out.i64(self.created_millis);
        out.u64(u64::from(self.attempt));
        out.u64(u64::from(self.tries));
        match &self.state {
            JobProgress::Working { open, work } => {
                out.u8(u8::from(*open));
                out.u8(work.level);
                out.u64(work.windows.len() as u64);
                for Window { start, length } in &work.windows {
                    out.i64(*start);
                    out.i64(*length);
                }
                out.u64(work.inputs.len() as u64);
                for input in &work.inputs {
                    out.text(input.as_str());
                }
            }
            JobProgress::Published { record: None } => out.u8(2),
            JobProgress::Published { record: Some(record) } => {
                out.u8(3);
                out.bytes(record);
            }
        }
        out.u64(self.floor);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = JobId(key.u128()?);
        let created_millis = value.i64()?;
        let attempt = value.u32()?;
        let tries = value.u32()?;
        let state = match value.u8()? {
            open @ (0 | 1) => {
                let level = value.u8()?;
                let count = value.count(2)?;
                let mut windows = Vec::with_capacity(count);
                for _ in 0..count {
                    windows.push(Window { start: value.i64()?, length: value.i64()? });
                }
                let count = value.count(1)?;
                let mut inputs = Vec::with_capacity(count);
                for _ in 0..count {
                    inputs.push(Key::from_text(value.text()?));
                }
                JobProgress::Working { open: open == 1, work: Work { level, windows, inputs } }
            }
            2 => JobProgress::Published { record: None },
            3 => JobProgress::Published { record: Some(Bytes::copy_from_slice(value.bytes()?)) },
            other => {
                return Err(DecodeError::Value { part: "job state", value: u64::from(other) });
            }
        };
        let floor = if value.version() < 2 { 0 } else { value.u64()? };
        Ok(Self { id, created_millis, attempt, tries, floor, state })
    }
}
