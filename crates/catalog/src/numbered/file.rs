//! Encoding of the engine's files: commits and checkpoints.
//!
//! Both are an envelope (magic, version, kind, method, length, checksum) around their content.

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::{DecodeError, Reader, Writer};
use crate::{Batch, Error};

const MAGIC: &[u8; 4] = b"PYCT";
const VERSION: u8 = 1;
const KIND_COMMIT: u8 = 1;
const KIND_CHECKPOINT: u8 = 2;
const METHOD_PLAIN: u8 = 0;
const METHOD_ZSTD: u8 = 1;
/// Shorter content is not worth a zstd frame.
const PACKED_BYTES_MIN: usize = 512;
/// Magic, version, kind, method, raw length, checksum.
const ENVELOPE_BYTES: usize = 4 + 1 + 1 + 1 + 8 + 8;
/// Longest accepted file, inflated. Ten years of a large installation stay far below.
const RAW_BYTES_MAX: u64 = 4 << 30;

/// Slot `slot` of the log of commits.
#[derive(Debug, PartialEq)]
pub(super) struct Commit {
    pub(super) slot: u64,
    pub(super) epoch: u64,
    /// Random per opening, so that two owners never write the same bytes into one slot.
    pub(super) owner: u128,
    pub(super) millis: i64,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    /// A new owner began here, with a new epoch.
    Open,
    Changes(Batch),
    /// The catalog continues in this later incarnation, which is complete.
    Superseded(u64),
}

/// All rows as of commit `slot`.
#[derive(Debug, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) slot: u64,
    pub(super) epoch: u64,
    /// Slots of recent openings, with their Unix milliseconds.
    pub(super) openings: Vec<(u64, i64)>,
    pub(super) rows: Vec<(Bytes, Bytes)>,
}

impl Commit {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u64(self.slot);
        out.u64(self.epoch);
        out.u128(self.owner);
        out.i64(self.millis);
        match &self.content {
            Content::Open => out.u8(0),
            Content::Changes(batch) => {
                out.u8(1);
                out.u64(batch.changes.len() as u64);
                for (key, value) in &batch.changes {
                    out.bytes(key);
                    out.u8(u8::from(value.is_some()));
                    if let Some(value) = value {
                        out.bytes(value);
                    }
                }
            }
            Content::Superseded(by) => {
                out.u8(2);
                out.u64(*by);
            }
        }
        seal(KIND_COMMIT, &out.0)
    }

    pub(super) fn decode(object: &str, bytes: &[u8]) -> Result<Self, Error> {
        let raw = unseal(object, KIND_COMMIT, bytes)?;
        Self::decode_raw(&raw).map_err(|e| corrupt(object, &e))
    }

    fn decode_raw(raw: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw, "commit");
        let slot = reader.u64()?;
        let epoch = reader.u64()?;
        let owner = reader.u128()?;
        let millis = reader.i64()?;
        let content = match reader.u8()? {
            0 => Content::Open,
            1 => {
                let count = reader.count(2)?;
                let mut changes = Vec::with_capacity(count);
                for _ in 0..count {
                    let key = raw.slice_ref(reader.bytes()?);
                    let value = match reader.u8()? {
                        0 => None,
                        _ => Some(raw.slice_ref(reader.bytes()?)),
                    };
                    changes.push((key, value));
                }
                Content::Changes(Batch { changes })
            }
            2 => Content::Superseded(reader.u64()?),
            other => {
                return Err(DecodeError::Value { part: "commit content", value: u64::from(other) });
            }
        };
        reader.end()?;
        Ok(Self { slot, epoch, owner, millis, content })
    }
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u64(self.slot);
        out.u64(self.epoch);
        out.u64(self.openings.len() as u64);
        for (slot, millis) in &self.openings {
            out.u64(*slot);
            out.i64(*millis);
        }
        out.u64(self.rows.len() as u64);
        for (key, value) in &self.rows {
            out.bytes(key);
            out.bytes(value);
        }
        seal(KIND_CHECKPOINT, &out.0)
    }

    pub(super) fn decode(object: &str, bytes: &[u8]) -> Result<Self, Error> {
        let raw = unseal(object, KIND_CHECKPOINT, bytes)?;
        Self::decode_raw(&raw).map_err(|e| corrupt(object, &e))
    }

    fn decode_raw(raw: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw, "checkpoint");
        let slot = reader.u64()?;
        let epoch = reader.u64()?;
        let count = reader.count(2)?;
        let mut openings = Vec::with_capacity(count);
        for _ in 0..count {
            openings.push((reader.u64()?, reader.i64()?));
        }
        let count = reader.count(2)?;
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            // Copied, because a slice would keep the whole checkpoint in memory for as long as one
            // of its rows lives.
            let key = Bytes::copy_from_slice(reader.bytes()?);
            let value = Bytes::copy_from_slice(reader.bytes()?);
            rows.push((key, value));
        }
        reader.end()?;
        Ok(Self { slot, epoch, openings, rows })
    }
}

fn seal(kind: u8, raw: &[u8]) -> Bytes {
    let packed = match raw.len() {
        0..PACKED_BYTES_MIN => None,
        _ => zstd::bulk::compress(raw, 1).ok(),
    };
    let (method, body) = match &packed {
        Some(packed) => (METHOD_ZSTD, packed.as_slice()),
        None => (METHOD_PLAIN, raw),
    };
    let mut out = BytesMut::with_capacity(ENVELOPE_BYTES + body.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, kind, method]);
    out.extend_from_slice(&(raw.len() as u64).to_be_bytes());
    out.extend_from_slice(&checksum(method, raw.len() as u64, body).to_be_bytes());
    out.extend_from_slice(body);
    out.freeze()
}

fn unseal(object: &str, kind: u8, bytes: &[u8]) -> Result<Bytes, Error> {
    let wrong = |reason: String| Error::Corrupt { object: object.to_owned(), reason };
    if bytes.len() < ENVELOPE_BYTES || !bytes.starts_with(MAGIC) {
        return Err(wrong(format!("{} bytes without the mark of a catalog file", bytes.len())));
    }
    let (version, found_kind, method) = (bytes[4], bytes[5], bytes[6]);
    if version > VERSION {
        return Err(Error::Newer { object: object.to_owned(), found: version, supported: VERSION });
    }
    if found_kind != kind {
        return Err(wrong(format!("kind {found_kind} where {kind} belongs")));
    }
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[7..15]);
    let raw_bytes = u64::from_be_bytes(number);
    number.copy_from_slice(&bytes[15..23]);
    let body = &bytes[ENVELOPE_BYTES..];
    if checksum(method, raw_bytes, body) != u64::from_be_bytes(number) {
        return Err(wrong("checksum does not match".into()));
    }
    if raw_bytes > RAW_BYTES_MAX {
        return Err(wrong(format!("{raw_bytes} bytes inflated, limit is {RAW_BYTES_MAX}")));
    }
    match method {
        METHOD_PLAIN => Ok(Bytes::copy_from_slice(body)),
        METHOD_ZSTD => zstd::bulk::decompress(body, raw_bytes as usize)
            .map(Bytes::from)
            .map_err(|e| wrong(format!("does not inflate: {e}"))),
        other => Err(wrong(format!("compression {other} is unknown"))),
    }
}

/// Covers the header too, so that a damaged length is never believed.
fn checksum(method: u8, raw_bytes: u64, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, raw_bytes ^ (u64::from(method) << 56))
}

fn corrupt(object: &str, error: &DecodeError) -> Error {
    Error::Corrupt { object: object.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Commit {
        let mut batch = Batch::default();
        batch.put(&b"a"[..], &b"1"[..]);
        batch.delete(&b"b"[..]);
        Commit { slot: 7, epoch: 2, owner: 9, millis: -1, content: Content::Changes(batch) }
    }

    #[test]
    fn files_read_back() {
        let commit = commit();
        assert_eq!(Commit::decode("c", &commit.encode()).expect("decodes"), commit);
        let checkpoint = Checkpoint {
            slot: 7,
            epoch: 2,
            openings: vec![(1, 5)],
            rows: vec![(Bytes::from_static(b"a"), Bytes::from_static(b"1"))],
        };
        assert_eq!(Checkpoint::decode("s", &checkpoint.encode()).expect("decodes"), checkpoint);
    }

    #[test]
    fn damage_is_an_error_that_names_the_object() {
        let good = commit().encode();
        for index in 0..good.len() {
            let mut bad = good.to_vec();
            bad[index] ^= 0x40;
            let error = Commit::decode("c7", &bad).expect_err("must be refused");
            assert!(error.to_string().contains("c7"), "{error}");
        }
        for len in 0..good.len() {
            assert!(Commit::decode("c7", &good[..len]).is_err());
        }
    }

    #[test]
    fn a_newer_file_is_refused_by_its_version() {
        let mut bytes = commit().encode().to_vec();
        bytes[4] = 2;
        let error = Commit::decode("c7", &bytes).expect_err("must be refused");
        assert!(matches!(error, Error::Newer { found: 2, supported: 1, .. }), "{error}");
    }
}
