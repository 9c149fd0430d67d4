//! Every row of the catalog: its key, its value, both encoded.
//!
//! Owns: the bytes of rows. Does not own: what rows mean to one another (`metastore`).
//!
//! A key is a tag and fixed-width or length-prefixed fields, so that rows of one kind, one tenant or
//! one day are one range. A value begins with a version; a program refuses what is newer than it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::{ItemKey, JobId, ProfileType, TenantId, TimeRange, WriterId};
use storage::Key;

use crate::Batch;
use crate::codec::{DecodeError, Reader, Writer};

/// 2 added orders, floors and the rows that objects once had.
const VERSION: u8 = 2;

/// Kinds of rows; the first byte of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Log = b'L',
    Segment = b'S',
    Block = b'B',
    Dataset = b'D',
    Job = b'J',
    Dead = b'X',
    Dedup = b'K',
    Order = b'O',
    Resignation = b'R',
}

impl Kind {
    /// The keys of all rows of this kind.
    pub fn keys(self) -> Range<Bytes> {
        Bytes::copy_from_slice(&[self as u8])..Bytes::copy_from_slice(&[self as u8 + 1])
    }
}

/// How far a writer's log is consumed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    pub writer: WriterId,
    /// The first slot that is not consumed.
    pub next: u64,
    /// Whether `next` holds a seal.
    pub sealed: bool,
    /// Of an open log: creation time of the last consumed segment. Of a sealed one: when it was sealed, or
    /// lost a segment to the sweep, whichever came last.
    pub moved_millis: i64,
}

/// One service of one tenant inside a segment or block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetSummary {
    /// In the object's directory.
    pub position: u32,
    pub tenant: TenantId,
    pub service: Arc<str>,
    /// Unix nanoseconds, both included.
    pub time_min: i64,
    pub time_max: i64,
    pub rows: u64,
    pub profile_types: Arc<[ProfileType]>,
}

/// A live segment. Its keys lie in [`Dedup`] rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub writer: WriterId,
    pub seq: u64,
    pub created_millis: i64,
    pub bytes: u64,
    /// Ordinals of items that were counted elsewhere, sorted.
    pub masked: Vec<u32>,
    pub quarantine: Option<Quarantine>,
    /// Those that are live.
    pub datasets: Vec<DatasetSummary>,
    /// The newest order to delete that it was consumed after; older ones erase nothing of it.
    pub floor: u64,
    /// Of all datasets, whether live or past their time; 0 if unknown.
    pub rows: u64,
}

/// Why an object cannot be read, and for which questions that matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantine {
    pub reason: String,
    /// Unix nanoseconds, both included.
    pub time_min: i64,
    pub time_max: i64,
}

/// A block's identity: the attempt that made it, and which of its outputs it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockId {
    pub job: JobId,
    pub attempt: u32,
    pub part: u32,
}

/// A live block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    pub id: BlockId,
    pub key: Key,
    pub tenant: TenantId,
    pub level: u8,
    /// `(start, length)` in Unix seconds.
    pub window: (i64, i64),
    pub bytes: u64,
    pub created_millis: i64,
    pub quarantine: Option<Quarantine>,
    /// The newest order to delete that is applied to all of it.
    pub floor: u64,
    /// Of all datasets, whether live or past their time; 0 if unknown.
    pub rows: u64,
}

/// A dataset of a live block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dataset {
    pub block: BlockId,
    pub day: i64,
    pub summary: DatasetSummary,
}

/// A job of compaction, from its first claim until a day after it was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    pub id: JobId,
    pub created_millis: i64,
    /// The newest attempt.
    pub attempt: u32,
    /// Attempts that failed or lapsed.
    pub tries: u32,
    /// The newest order to delete that the newest attempt applies.
    pub floor: u64,
    pub state: JobState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobState {
    /// Whether the newest attempt may still publish, and what it works on.
    Working { open: bool, work: Work },
    /// Published by the newest attempt; the publish record, until it is known to be in the bucket.
    Published { record: Option<Bytes> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    pub level: u8,
    pub windows: Vec<(i64, i64)>,
    pub inputs: Vec<Key>,
}

/// An object that is in the bucket and in no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dead {
    pub key: Key,
    pub died_millis: i64,
    /// Who replaced it; `None` if its time was over.
    pub job: Option<JobId>,
    /// Of a segment: its creation time, until which its keys count.
    pub segment_millis: Option<i64>,
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

/// An order to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Rises with every order, whosever it is; at least 1.
    pub number: u64,
    pub tenant: TenantId,
    pub created_millis: i64,
    pub state: OrderState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OrderState {
    /// Some object may still hold what it erases.
    InForce {
        matchers: Vec<OrderMatcher>,
        range: TimeRange,
        /// The first slot of each log, sorted by writer, that was consumed after it. Every slot of another log was.
        positions: Vec<(WriterId, u64)>,
    },
    /// What it erased is gone from every live object, and so are its words.
    Done {
        /// Of what it was about.
        hash: u128,
        finished_millis: i64,
    },
}

/// The owner of `epoch` left in good order: this is in its last commit, before which it had stopped to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resignation {
    pub epoch: u64,
}

/// One `name op value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderMatcher {
    pub name: String,
    pub value: String,
    pub is_regex: bool,
    pub is_negated: bool,
}

/// A row that knows its key and its bytes.
pub trait Row: Sized {
    const KIND: Kind;

    fn key(&self) -> Bytes;

    fn encode(&self, out: &mut Writer);

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn put_into(&self, batch: &mut Batch) {
        let mut out = Writer::default();
        out.u8(VERSION);
        self.encode(&mut out);
        batch.put(self.key(), out.0);
    }

    /// # Errors
    /// The row is damaged, or newer than this program.
    fn read(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let mut key = Reader::new(key, "row key");
        let kind = key.u8()?;
        if kind != Self::KIND as u8 {
            return Err(DecodeError::Value { what: "row kind", value: u64::from(kind) });
        }
        let mut value = Reader::new(value, "row");
        value.read_version(VERSION)?;
        let row = Self::decode(&mut key, &mut value)?;
        key.end()?;
        value.end()?;
        Ok(row)
    }
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

impl Row for Segment {
    const KIND: Kind = Kind::Segment;

    fn key(&self) -> Bytes {
        segment_key(self.writer, self.seq)
    }

    fn encode(&self, out: &mut Writer) {
        out.i64(self.created_millis);
        out.u64(self.bytes);
        out.ascending(&self.masked);
        put_quarantine(out, self.quarantine.as_ref());
        out.u64(self.datasets.len() as u64);
        for dataset in &self.datasets {
            out.text(dataset.tenant.as_str());
            out.text(&dataset.service);
            put_summary(out, dataset);
        }
        out.u64(self.floor);
        out.u64(self.rows);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let writer = WriterId(key.u128()?);
        let seq = fixed_u64(key)?;
        let created_millis = value.i64()?;
        let bytes = value.u64()?;
        let masked = value.ascending()?;
        let quarantine = take_quarantine(value)?;
        let count = value.count(6)?;
        let mut datasets = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = tenant(value.text()?)?;
            let service = value.text()?.into();
            datasets.push(take_summary(value, tenant, service)?);
        }
        let (floor, rows) = take_floor_and_rows(value)?;
        Ok(Self { writer, seq, created_millis, bytes, masked, quarantine, datasets, floor, rows })
    }
}

impl Row for Block {
    const KIND: Kind = Kind::Block;

    fn key(&self) -> Bytes {
        block_key(&self.tenant, self.window, self.level, self.id)
    }

    fn encode(&self, out: &mut Writer) {
        out.text(self.key.as_str());
        out.i64(self.window.0);
        out.i64(self.window.1);
        out.u64(self.bytes);
        out.i64(self.created_millis);
        put_quarantine(out, self.quarantine.as_ref());
        out.u64(self.floor);
        out.u64(self.rows);
    }

    fn decode(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tenant = tenant(take_short_text(key)?)?;
        take_day(key)?;
        let level = key.u8()?;
        let mut block = Self {
            id: take_block_id(key)?,
            tenant,
            level,
            key: Key::from_text(value.text()?),
            window: (value.i64()?, value.i64()?),
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
            .map_err(|_| DecodeError::Text { what: "service of a dataset row" })?;
        let day = take_day(key)?;
        let block = take_block_id(key)?;
        Ok(Self { block, day, summary: take_summary(value, tenant, service.into())? })
    }
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
            JobState::Working { open, work } => {
                out.u8(u8::from(*open));
                out.u8(work.level);
                out.u64(work.windows.len() as u64);
                for (start, length) in &work.windows {
                    out.i64(*start);
                    out.i64(*length);
                }
                out.u64(work.inputs.len() as u64);
                for input in &work.inputs {
                    out.text(input.as_str());
                }
            }
            JobState::Published { record: None } => out.u8(2),
            JobState::Published { record: Some(record) } => {
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
                    windows.push((value.i64()?, value.i64()?));
                }
                let count = value.count(1)?;
                let mut inputs = Vec::with_capacity(count);
                for _ in 0..count {
                    inputs.push(Key::from_text(value.text()?));
                }
                JobState::Working { open: open == 1, work: Work { level, windows, inputs } }
            }
            2 => JobState::Published { record: None },
            3 => JobState::Published { record: Some(Bytes::copy_from_slice(value.bytes()?)) },
            other => {
                return Err(DecodeError::Value { what: "job state", value: u64::from(other) });
            }
        };
        let floor = if value.version() < 2 { 0 } else { value.u64()? };
        Ok(Self { id, created_millis, attempt, tries, floor, state })
    }
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
            .map_err(|_| DecodeError::Text { what: "key of a dead row" })?;
        let died_millis = value.i64()?;
        let has = value.u8()?;
        let job = if has & 1 == 0 { None } else { Some(JobId(value.u128()?)) };
        let segment_millis = if has & 2 == 0 { None } else { Some(value.i64()?) };
        Ok(Self { key: Key::from_text(text), died_millis, job, segment_millis })
    }
}

impl Dead {
    /// The row of a dead object.
    pub fn key_of(object: &Key) -> Bytes {
        let mut key = start(Self::KIND);
        key.0.extend_from_slice(&(object.as_str().len() as u32).to_be_bytes());
        key.0.extend_from_slice(object.as_str().as_bytes());
        key.0.into()
    }
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
        let minute = take_day(key)?;
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
        put_day(&mut key, minute);
        key.0.extend_from_slice(&ordinal.to_be_bytes());
        key.0.into()
    }
}

impl Row for Order {
    const KIND: Kind = Kind::Order;

    fn key(&self) -> Bytes {
        let mut key = start(Self::KIND);
        key.0.extend_from_slice(&self.number.to_be_bytes());
        key.0.into()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(self.tenant.as_str());
        out.i64(self.created_millis);
        match &self.state {
            OrderState::InForce { matchers, range, positions } => {
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
            OrderState::Done { hash, finished_millis } => {
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
                    matchers.push(OrderMatcher { name, value: text, is_regex, is_negated });
                }
                let range = TimeRange { start: value.i64()?, end: value.i64()? };
                let count = value.count(17)?;
                let mut positions = Vec::with_capacity(count);
                for _ in 0..count {
                    positions.push((WriterId(value.u128()?), value.u64()?));
                }
                OrderState::InForce { matchers, range, positions }
            }
            1 => OrderState::Done { hash: value.u128()?, finished_millis: value.i64()? },
            other => return Err(DecodeError::Value { what: "order state", value: u64::from(other) }),
        };
        Ok(Self { number, tenant, created_millis, state })
    }
}

/// There is one, of whoever resigned last.
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

/// The row of a segment.
pub fn segment_key(writer: WriterId, seq: u64) -> Bytes {
    let mut key = start(Kind::Segment);
    key.u128(writer.0);
    key.0.extend_from_slice(&seq.to_be_bytes());
    key.0.into()
}

/// The row of a block.
pub fn block_key(tenant: &TenantId, window: (i64, i64), level: u8, id: BlockId) -> Bytes {
    let mut key = start(Kind::Block);
    short_text(&mut key, tenant.as_str());
    put_day(&mut key, day_of(window));
    key.u8(level);
    put_block_id(&mut key, id);
    key.0.into()
}

/// The row of a dataset of a block.
pub fn dataset_key(summary: &DatasetSummary, day: i64, block: BlockId) -> Bytes {
    let mut key = start(Kind::Dataset);
    short_text(&mut key, summary.tenant.as_str());
    let service = summary.service.as_bytes();
    key.0.extend_from_slice(&(service.len() as u32).to_be_bytes());
    key.0.extend_from_slice(service);
    put_day(&mut key, day);
    put_block_id(&mut key, block);
    key.0.into()
}

/// Days since the Unix epoch of a window in Unix seconds.
pub fn day_of(window: (i64, i64)) -> i64 {
    window.0.div_euclid(86_400)
}

fn start(kind: Kind) -> Writer {
    Writer(vec![kind as u8])
}

fn put_summary(out: &mut Writer, dataset: &DatasetSummary) {
    out.u64(u64::from(dataset.position));
    out.i64(dataset.time_min);
    // Wrapping, so that no pair of times is refused; the reader wraps back.
    out.u64(dataset.time_max.wrapping_sub(dataset.time_min) as u64);
    out.u64(dataset.rows);
    out.u64(dataset.profile_types.len() as u64);
    for one in dataset.profile_types.iter() {
        for part in [&one.name, &one.sample_type, &one.sample_unit, &one.period_type, &one.period_unit] {
            out.text(part);
        }
    }
}

fn take_summary(
    value: &mut Reader<'_>,
    tenant: TenantId,
    service: Arc<str>,
) -> Result<DatasetSummary, DecodeError> {
    let position = value.u32()?;
    let time_min = value.i64()?;
    let time_max = time_min.wrapping_add(value.u64()? as i64);
    let rows = value.u64()?;
    let count = value.count(5)?;
    let mut types = Vec::with_capacity(count);
    for _ in 0..count {
        types.push(ProfileType {
            name: value.text()?.to_owned(),
            sample_type: value.text()?.to_owned(),
            sample_unit: value.text()?.to_owned(),
            period_type: value.text()?.to_owned(),
            period_unit: value.text()?.to_owned(),
        });
    }
    let profile_types = types.into();
    Ok(DatasetSummary { position, tenant, service, time_min, time_max, rows, profile_types })
}

fn put_quarantine(out: &mut Writer, quarantine: Option<&Quarantine>) {
    match quarantine {
        None => out.u8(0),
        Some(Quarantine { reason, time_min, time_max }) => {
            out.u8(1);
            out.text(reason);
            out.i64(*time_min);
            out.i64(*time_max);
        }
    }
}

fn take_quarantine(value: &mut Reader<'_>) -> Result<Option<Quarantine>, DecodeError> {
    if value.u8()? == 0 {
        return Ok(None);
    }
    let reason = value.text()?.to_owned();
    Ok(Some(Quarantine { reason, time_min: value.i64()?, time_max: value.i64()? }))
}

/// Rows of version 1 have neither.
fn take_floor_and_rows(value: &mut Reader<'_>) -> Result<(u64, u64), DecodeError> {
    if value.version() < 2 { Ok((0, 0)) } else { Ok((value.u64()?, value.u64()?)) }
}

fn tenant(text: &str) -> Result<TenantId, DecodeError> {
    TenantId::parse(text).map_err(|_| DecodeError::Text { what: "tenant of a row" })
}

/// Tenant ids have at most 150 bytes.
fn short_text(key: &mut Writer, text: &str) {
    key.u8(text.len() as u8);
    key.0.extend_from_slice(text.as_bytes());
}

fn take_short_text<'a>(key: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let len = key.u8()? as usize;
    std::str::from_utf8(key.take(len)?).map_err(|_| DecodeError::Text { what: "text of a row key" })
}

/// Big-endian with the sign flipped, so that keys sort like numbers.
fn put_day(key: &mut Writer, day: i64) {
    key.0.extend_from_slice(&((day as u64) ^ (1 << 63)).to_be_bytes());
}

fn take_day(key: &mut Reader<'_>) -> Result<i64, DecodeError> {
    Ok((fixed_u64(key)? ^ (1 << 63)) as i64)
}

fn put_block_id(key: &mut Writer, id: BlockId) {
    key.u128(id.job.0);
    key.0.extend_from_slice(&id.attempt.to_be_bytes());
    key.0.extend_from_slice(&id.part.to_be_bytes());
}

fn take_block_id(key: &mut Reader<'_>) -> Result<BlockId, DecodeError> {
    Ok(BlockId { job: JobId(key.u128()?), attempt: fixed_u32(key)?, part: fixed_u32(key)? })
}

fn fixed_u64(key: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(key.take(8)?);
    Ok(u64::from_be_bytes(bytes))
}

fn fixed_u32(key: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(key.take(4)?);
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Row + PartialEq + std::fmt::Debug>(row: R) {
        let mut batch = Batch::default();
        row.put_into(&mut batch);
        let (key, value) = &batch.changes[0];
        let value = value.as_ref().expect("a put");
        assert!(R::KIND.keys().contains(key));
        assert_eq!(R::read(key, value).as_ref(), Ok(&row));
        for len in 0..value.len() {
            assert!(R::read(key, &value[..len]).is_err(), "{row:?} cut to {len} bytes");
        }
        for len in 0..key.len() {
            assert!(R::read(&key[..len], value).is_err(), "{row:?} with a key of {len} bytes");
        }
        let mut newer = value.to_vec();
        newer[0] = VERSION + 1;
        assert!(matches!(R::read(key, &newer), Err(DecodeError::Newer { .. })));
    }

    fn summary() -> DatasetSummary {
        DatasetSummary {
            position: 3,
            tenant: TenantId::anonymous(),
            service: "a/b\0c".into(),
            time_min: i64::MIN,
            time_max: i64::MAX,
            rows: 9,
            profile_types: vec!["a:b:c:d:e".parse().expect("a type")].into(),
        }
    }

    #[test]
    fn rows_read_back_and_damage_is_refused() {
        let id = BlockId { job: JobId(u128::MAX), attempt: 2, part: 1 };
        let quarantine = Some(Quarantine { reason: "bad".into(), time_min: -1, time_max: 1 });
        check(Log { writer: WriterId(7), next: 300, sealed: true, moved_millis: -5 });
        check(Segment {
            writer: WriterId(7),
            seq: 1,
            created_millis: 1_700_000_000_000,
            bytes: 1 << 40,
            masked: vec![0, 5, 1000],
            quarantine: quarantine.clone(),
            datasets: vec![summary(), summary()],
            floor: 300,
            rows: u64::MAX,
        });
        check(Block {
            id,
            key: Key::from_text("block/x"),
            tenant: TenantId::anonymous(),
            level: 1,
            window: (-300, 300),
            bytes: 1,
            created_millis: 0,
            quarantine: None,
            floor: 1,
            rows: 300,
        });
        check(Dataset { block: id, day: -1, summary: summary() });
        let work =
            Work { level: 1, windows: vec![(0, 300), (300, 300)], inputs: vec![Key::from_text("log/x/1")] };
        for state in [
            JobState::Working { open: true, work },
            JobState::Published { record: None },
            JobState::Published { record: Some(Bytes::from_static(b"r")) },
        ] {
            check(Job { id: JobId(1), created_millis: 1, attempt: 2, tries: 1, floor: 3, state });
        }
        for (job, segment_millis) in [(None, None), (Some(JobId(4)), None), (None, Some(-4))] {
            check(Dead { key: Key::from_text("log/x/2"), died_millis: 4, job, segment_millis });
        }
        let matcher = |is_regex, is_negated| OrderMatcher {
            name: "pod".into(),
            value: "p|\"é".into(),
            is_regex,
            is_negated,
        };
        for state in [
            OrderState::InForce {
                matchers: vec![matcher(true, false), matcher(false, true)],
                range: TimeRange { start: i64::MIN, end: i64::MAX },
                positions: vec![(WriterId(7), 0), (WriterId(u128::MAX), 300)],
            },
            OrderState::Done { hash: u128::MAX, finished_millis: -4 },
        ] {
            check(Order { number: 1 << 40, tenant: TenantId::anonymous(), created_millis: -3, state });
        }
        check(Resignation { epoch: 300 });
        check(Dedup { minute: -3, ordinal: 9, keys: vec![ItemKey(1), ItemKey(u128::MAX)] });
    }

    #[test]
    fn rows_of_version_1_have_no_floor() {
        let block = Block {
            id: BlockId { job: JobId(1), attempt: 2, part: 1 },
            key: Key::from_text("block/x"),
            tenant: TenantId::anonymous(),
            level: 1,
            window: (0, 300),
            bytes: 1,
            created_millis: 0,
            quarantine: None,
            floor: 0,
            rows: 0,
        };
        let mut batch = Batch::default();
        block.put_into(&mut batch);
        let (key, value) = &batch.changes[0];
        let mut old = value.as_ref().expect("a put").to_vec();
        old[0] = 1;
        old.truncate(old.len() - 2);
        assert_eq!(Block::read(key, &old), Ok(block));
    }

    #[test]
    fn keys_sort_by_minute_across_zero() {
        assert!(Dedup::key_of(-1, 5) < Dedup::key_of(0, 0));
        assert!(Dedup::key_of(0, 5) < Dedup::key_of(1, 0));
    }
}
