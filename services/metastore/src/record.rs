//! The record of one publish, `publish/<day>/<job>`. Records and headers are all that a rebuild needs.

use bytes::Bytes;
use catalog::codec::{DecodeError, Reader, Writer};
use model::{JobId, Window};
use storage::Key;

/// Since 2, the death of an output is always recorded: an output that is absent and in no record as an input was
/// lost, or not copied. Before, expired outputs were deleted without a record.
const VERSION: u8 = 2;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) published_millis: i64,
    /// Keys, with the masks that were applied.
    pub(crate) inputs: Vec<(Key, Vec<u32>)>,
    pub(crate) outputs: Vec<Output>,
    /// Whether each dead output is an input of another record.
    pub(crate) records_deaths: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Output {
    pub(crate) key: Key,
    pub(crate) bytes: u64,
    pub(crate) window: Window,
    /// The newest deletion that was applied to all of it.
    pub(crate) floor: u64,
}

impl Record {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(if self.records_deaths { VERSION } else { 1 });
        out.u128(self.job.0);
        out.u64(u64::from(self.attempt));
        out.i64(self.published_millis);
        out.u64(self.inputs.len() as u64);
        for (key, masked) in &self.inputs {
            out.text(key.as_str());
            out.ascending(masked);
        }
        out.u64(self.outputs.len() as u64);
        for output in &self.outputs {
            out.text(output.key.as_str());
            out.u64(output.bytes);
            out.i64(output.window.start);
            out.i64(output.window.length);
            out.u64(output.floor);
        }
        out.0.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "publish record");
        let version = reader.u8()?;
        if version > VERSION {
            let part = "publish record";
            return Err(DecodeError::Newer { part, found: version, supported: VERSION });
        }
        let job = JobId(reader.u128()?);
        let attempt = reader.u32()?;
        let published_millis = reader.i64()?;
        let count = reader.count(2)?;
        let mut inputs = Vec::with_capacity(count);
        for _ in 0..count {
            inputs.push((Key::from_text(reader.text()?), reader.ascending()?));
        }
        let count = reader.count(5)?;
        let mut outputs = Vec::with_capacity(count);
        for _ in 0..count {
            outputs.push(Output {
                key: Key::from_text(reader.text()?),
                bytes: reader.u64()?,
                window: Window { start: reader.i64()?, length: reader.i64()? },
                floor: reader.u64()?,
            });
        }
        reader.end()?;
        Ok(Self { job, attempt, published_millis, inputs, outputs, records_deaths: version >= 2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_cut_one_is_refused() {
        let record = Record {
            job: JobId(3),
            attempt: 2,
            published_millis: -7,
            inputs: vec![(Key::from_text("log/a/1"), vec![0, 9])],
            outputs: vec![Output {
                key: Key::from_text("block/b"),
                bytes: 5,
                window: Window { start: -300, length: 300 },
                floor: 0,
            }],
            records_deaths: true,
        };
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        let older = Record { records_deaths: false, ..record };
        assert_eq!(Record::decode(&older.encode()), Ok(older));
        for len in 0..bytes.len() {
            assert!(Record::decode(&bytes[..len]).is_err());
        }
    }
}
