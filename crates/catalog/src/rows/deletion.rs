//! Deletions.

use bytes::Bytes;
use model::{TenantId, TimeRange, WriterId};

use super::fields::{fixed_u64, start, tenant};
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// A deletion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// Rises with every deletion of any tenant; at least 1.
    pub number: u64,
    pub tenant: TenantId,
    pub created_millis: i64,
    pub state: DeletionState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeletionState {
    /// Some object may still hold rows that it erases.
    InForce {
        matchers: Vec<DeletionMatcher>,
        range: TimeRange,
        /// The first slot of each log that was consumed after the deletion, sorted by writer. All slots of logs that
        /// are not listed were consumed after it.
        positions: Vec<(WriterId, u64)>,
    },
    /// The rows that it erases are gone from every live object, and its selector is forgotten.
    Done {
        /// Hash of its tenant, time of creation, selector and time range.
        hash: u128,
        finished_millis: i64,
    },
}

/// One `name op value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletionMatcher {
    pub name: String,
    pub value: String,
    pub is_regex: bool,
    pub is_negated: bool,
}

impl Row for Deletion {
    const KIND: Kind = Kind::Deletion;

    fn key(&self) -> Bytes {
        let mut key = start(Self::KIND);
        key.0.extend_from_slice(&self.number.to_be_bytes());
        key.0.into()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(self.tenant.as_str());
        out.i64(self.created_millis);
        match &self.state {
            DeletionState::InForce { matchers, range, positions } => {
                out.u8(0);
                out.u64(matchers.len() as u64);
                for matcher in matchers {
                    out.text(&matcher.name);
                    out.text(&matcher.value);
                    out.u8(u8::from(matcher.is_regex) | u8::from(matcher.is_negated) << 1);
                }
                out.i64(range.start);
                out.i64(range.end);
                out.u64(positions.len() as u64);
                for (writer, next) in positions {
                    out.u128(writer.0);
                    out.u64(*next);
                }
            }
            DeletionState::Done { hash, finished_millis } => {
                out.u8(1);
                out.u128(*hash);
                out.i64(*finished_millis);
            }
        }
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = fixed_u64(key)?;
        let tenant = tenant(value.text()?)?;
        let created_millis = value.i64()?;
        let state = match value.u8()? {
            0 => {
                let count = value.count(3)?;
                let mut matchers = Vec::with_capacity(count);
                for _ in 0..count {
                    let (name, text) = (value.text()?.to_owned(), value.text()?.to_owned());
                    let op = value.u8()?;
                    let (is_regex, is_negated) = (op & 1 != 0, op & 2 != 0);
                    matchers.push(DeletionMatcher { name, value: text, is_regex, is_negated });
                }
                let range = TimeRange { start: value.i64()?, end: value.i64()? };
                let count = value.count(17)?;
                let mut positions = Vec::with_capacity(count);
                for _ in 0..count {
                    positions.push((WriterId(value.u128()?), value.u64()?));
                }
                DeletionState::InForce { matchers, range, positions }
            }
            1 => DeletionState::Done { hash: value.u128()?, finished_millis: value.i64()? },
            other => return Err(DecodeError::Value { part: "deletion state", value: u64::from(other) }),
        };
        Ok(Self { number, tenant, created_millis, state })
    }
}
