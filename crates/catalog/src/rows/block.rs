//! Live blocks and their datasets.

use bytes::Bytes;
use model::{BlockId, JobId, TenantId, Window};
use storage::Key;

use super::fields::{fixed_u32, put_signed, short_text, start, take_short_text, take_signed, tenant};
use super::object::{
    DatasetSummary, Quarantine, put_quarantine, put_summary, take_floor_and_rows, take_quarantine,
    take_summary,
};
use super::{Kind, Row};
use crate::codec::{DecodeError, Reader, Writer};

/// A live block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    pub id: BlockId,
    pub key: Key,
    pub tenant: TenantId,
    pub level: u8,
    pub window: Window,
    pub bytes: u64,
    pub created_millis: i64,
    pub quarantine: Option<Quarantine>,
    /// The newest deletion that is applied to the whole block.
    pub floor: u64,
    /// Rows of all datasets, live or expired; 0 if unknown.
    pub rows: u64,
}

impl Row for Block {
    const KIND: Kind = Kind::Block;

    fn key(&self) -> Bytes {
        block_key(&self.tenant, self.window, self.level, self.id)
    }

    fn encode(&self, out: &mut Writer) {
        out.text(self.key.as_str());
        out.i64(self.window.start);
        out.i64(self.window.length);
        out.u64(self.bytes);
        out.i64(self.created_millis);
        put_quarantine(out, self.quarantine.as_ref());
        out.u64(self.floor);
        out.u64(self.rows);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tenant = tenant(take_short_text(key)?)?;
        take_signed(key)?;
        let level = key.u8()?;
        let mut block = Self {
            id: take_block_id(key)?,
            tenant,
            level,
            key: Key::from_text(value.text()?),
            window: Window { start: value.i64()?, length: value.i64()? },
            bytes: value.u64()?,
            created_millis: value.i64()?,
            quarantine: take_quarantine(value)?,
            floor: 0,
            rows: 0,
        };
        (block.floor, block.rows) = take_floor_and_rows(value)?;
        Ok(block)
    }
}

/// Key of the row of a block.
pub fn block_key(tenant: &TenantId, window: Window, level: u8, id: BlockId) -> Bytes {
    let mut key = start(Kind::Block);
    short_text(&mut key, tenant.as_str());
    put_signed(&mut key, window.day());
    key.u8(level);
    put_block_id(&mut key, id);
    key.0.into()
}

/// A dataset of a live block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dataset {
    pub block: BlockId,
    pub day: i64,
    pub summary: DatasetSummary,
    /// Whether the key has the position. Keys of earlier versions do not: of several datasets of one service in one
    /// block, which a merge in parts creates, only the last has a row.
    pub has_own_key: bool,
}

impl Row for Dataset {
    const KIND: Kind = Kind::Dataset;

    fn key(&self) -> Bytes {
        dataset_key(&self.summary, self.day, self.block)
    }

    fn encode(&self, out: &mut Writer) {
        put_summary(out, &self.summary);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tenant = tenant(take_short_text(key)?)?;
        let len = fixed_u32(key)? as usize;
        let service = std::str::from_utf8(key.take(len)?)
            .map_err(|_| DecodeError::Text { part: "service of a dataset row" })?;
        let day = take_signed(key)?;
        let block = take_block_id(key)?;
        let has_own_key = !key.is_empty();
        if has_own_key {
            fixed_u32(key)?;
        }
        Ok(Self { block, day, summary: take_summary(value, tenant, service.into())?, has_own_key })
    }
}

/// Key of the row of a dataset of a block.
pub fn dataset_key(summary: &DatasetSummary, day: i64, block: BlockId) -> Bytes {
    let mut key = start(Kind::Dataset);
    short_text(&mut key, summary.tenant.as_str());
    let service = summary.service.as_bytes();
    key.0.extend_from_slice(&(service.len() as u32).to_be_bytes());
    key.0.extend_from_slice(service);
    put_signed(&mut key, day);
    put_block_id(&mut key, block);
    key.0.extend_from_slice(&summary.position.to_be_bytes());
    key.0.into()
}

fn put_block_id(key: &mut Writer, id: BlockId) {
    key.u128(id.job.0);
    key.0.extend_from_slice(&id.attempt.to_be_bytes());
    key.0.extend_from_slice(&id.part.to_be_bytes());
}

fn take_block_id(key: &mut Reader<'_>) -> Result<BlockId, DecodeError> {
    Ok(BlockId { job: JobId(key.u128()?), attempt: fixed_u32(key)?, part: fixed_u32(key)? })
}
