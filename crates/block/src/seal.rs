//! The seal of a writer's log.

use bytes::Bytes;
use model::WriterId;
use xxhash_rust::xxh3::xxh3_64;

/// The object that closes a writer's log: its slot and all later slots hold no data.
///
/// Layout, little-endian: 8 bytes magic, writer (16), seq (8), creation time in Unix milliseconds
/// (8), xxh3-64 of all before it (8). A segment is a Parquet file and begins with `PAR1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seal {
    pub writer: WriterId,
    pub seq: u64,
    pub created_millis: i64,
}

const MAGIC: &[u8; 8] = b"PYGSEAL1";
const LEN: usize = 48;

impl Seal {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.writer.0.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.created_millis.to_le_bytes());
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out.into()
    }

    /// Decodes a seal; `None` for any other object and for a damaged seal.
    pub fn decode(object: &[u8]) -> Option<Self> {
        let (body, checksum) = object.split_last_chunk::<8>()?;
        if object.len() != LEN || xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return None;
        }
        let rest = body.strip_prefix(MAGIC)?;
        let (writer, rest) = rest.split_first_chunk::<16>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (created_millis, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            writer: WriterId(u128::from_le_bytes(*writer)),
            seq: u64::from_le_bytes(*seq),
            created_millis: i64::from_le_bytes(*created_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_round_trips_and_other_bytes_are_no_seal() {
        let seal = Seal { writer: WriterId(7), seq: 42, created_millis: -1 };
        let bytes = seal.encode();
        assert_eq!(Seal::decode(&bytes), Some(seal));
        assert_eq!(Seal::decode(&bytes[..47]), None);
        assert_eq!(Seal::decode(b"PAR1"), None);
        let mut damaged = bytes.to_vec();
        damaged[20] ^= 1;
        assert_eq!(Seal::decode(&damaged), None);
    }
}
