//! The encoding of a [`Directory`]: in the object itself, in hints, and in catalog rows.

use model::{ItemKey, JobId, ProfileType, TenantId, Times, WriterId};

use crate::codec::{Cursor, put, put_signed, put_text};
use crate::error::Malformed;
use crate::{CellSection, DatasetEntry, Directory, Origin, Section};

/// Why a directory cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("directory is corrupt at byte {byte}: {problem}")]
pub struct DirectoryError {
    pub byte: u64,
    pub problem: &'static str,
}

impl From<Malformed> for DirectoryError {
    fn from(Malformed { byte, problem }: Malformed) -> Self {
        Self { byte, problem }
    }
}

impl Directory {
    /// Encodes for [`Directory::decode`], without compression.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.keys.len() * 16 + self.datasets.len() * 256);
        match &self.origin {
            Origin::Segment { writer, seq } => {
                out.push(0);
                out.extend_from_slice(&writer.0.to_le_bytes());
                put(&mut out, *seq);
            }
            Origin::Block { job, attempt, part, level } => {
                out.push(1);
                out.extend_from_slice(&job.0.to_le_bytes());
                put(&mut out, u64::from(*attempt));
                put(&mut out, u64::from(*part));
                out.push(*level);
            }
        }
        put_signed(&mut out, self.created_millis);
        put(&mut out, self.keys.len() as u64);
        for key in &self.keys {
            out.extend_from_slice(&key.0.to_le_bytes());
        }
        put(&mut out, self.datasets.len() as u64);
        for dataset in &self.datasets {
            dataset.encode(&mut out);
        }
        out
    }

    /// Decodes the output of [`Directory::encode`].
    ///
    /// # Errors
    /// Names the byte at which the input is invalid.
    pub fn decode(bytes: &[u8]) -> Result<Self, DirectoryError> {
        let mut cursor = Cursor::new(bytes);
        let directory = Self::read(&mut cursor)?;
        cursor.end()?;
        Ok(directory)
    }

    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let origin = match cursor.byte()? {
            0 => Origin::Segment {
                writer: WriterId(u128::from_le_bytes(cursor.array()?)),
                seq: cursor.varint()?,
            },
            1 => Origin::Block {
                job: JobId(u128::from_le_bytes(cursor.array()?)),
                attempt: cursor.u32()?,
                part: cursor.u32()?,
                level: cursor.byte()?,
            },
            _ => return Err(cursor.malformed("origin is neither segment nor block")),
        };
        let created_millis = cursor.signed()?;
        let key_count = cursor.count()?;
        let mut keys = Vec::with_capacity(key_count.min(cursor.remaining() / 16));
        for _ in 0..key_count {
            keys.push(ItemKey(u128::from_le_bytes(cursor.array()?)));
        }
        let dataset_count = cursor.count()?;
        let mut datasets = Vec::with_capacity(dataset_count.min(cursor.remaining() / 64));
        for _ in 0..dataset_count {
            datasets.push(DatasetEntry::read(cursor)?);
        }
        Ok(Self { origin, created_millis, keys, datasets })
    }
}

impl DatasetEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, self.tenant.as_str());
        put_text(out, &self.service);
        put_signed(out, self.times.first);
        put_signed(out, self.times.last.wrapping_sub(self.times.first));
        put(out, self.rows.start);
        put(out, self.rows.end.wrapping_sub(self.rows.start));
        put(out, u64::from(self.profiles));
        put(out, self.profile_types.len() as u64);
        for profile_type in &self.profile_types {
            put_text(out, &profile_type.name);
            put_text(out, &profile_type.sample_type);
            put_text(out, &profile_type.sample_unit);
            put_text(out, &profile_type.period_type);
            put_text(out, &profile_type.period_unit);
        }
        put(out, self.label_names.len() as u64);
        for name in &self.label_names {
            put_text(out, name);
        }
        self.index.encode(out);
        self.strings.encode(out);
        self.symbols.encode(out);
        match &self.tree {
            Some(tree) => {
                out.push(1);
                tree.encode(out);
            }
            None => out.push(0),
        }
        put(out, self.cells.len() as u64);
        for cells in &self.cells {
            put(out, u64::from(cells.seconds));
            put(out, cells.labels.len() as u64);
            for name in &cells.labels {
                put_text(out, name);
            }
            cells.head.encode(out);
            put(out, u64::from(cells.chunk_bytes));
        }
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let tenant =
            TenantId::parse(cursor.text()?).map_err(|_| cursor.malformed("a tenant id is not allowed"))?;
        let service = cursor.text()?.to_owned();
        let first = cursor.signed()?;
        let times = Times { first, last: first.wrapping_add(cursor.signed()?) };
        let first_row = cursor.varint()?;
        let row_count = cursor.varint()?;
        let Some(end_row) = first_row.checked_add(row_count).filter(|_| row_count <= u32::MAX.into()) else {
            return Err(cursor.malformed("a dataset has too many rows"));
        };
        let profiles = cursor.u32()?;
        let type_count = cursor.count()?;
        let mut profile_types = Vec::new();
        for _ in 0..type_count {
            profile_types.push(ProfileType {
                name: cursor.text()?.to_owned(),
                sample_type: cursor.text()?.to_owned(),
                sample_unit: cursor.text()?.to_owned(),
                period_type: cursor.text()?.to_owned(),
                period_unit: cursor.text()?.to_owned(),
            });
        }
        let name_count = cursor.count()?;
        let mut label_names = Vec::new();
        for _ in 0..name_count {
            label_names.push(cursor.text()?.to_owned());
        }
        let index = Section::read(cursor)?;
        let strings = Section::read(cursor)?;
        let symbols = Section::read(cursor)?;
        let tree = match cursor.byte()? {
            0 => None,
            1 => Some(Section::read(cursor)?),
            _ => return Err(cursor.malformed("a flag is neither 0 nor 1")),
        };
        let cells = (0..cursor.count()?).map(|_| CellSection::read(cursor)).collect::<Result<_, _>>()?;
        Ok(Self {
            tenant,
            service,
            times,
            rows: first_row..end_row,
            profiles,
            profile_types,
            label_names,
            index,
            strings,
            symbols,
            tree,
            cells,
        })
    }
}

impl CellSection {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let seconds = cursor.u32()?;
        if seconds == 0 {
            return Err(cursor.malformed("a window has no length"));
        }
        let name_count = cursor.count()?;
        let mut labels = Vec::new();
        for _ in 0..name_count {
            labels.push(cursor.text()?.to_owned());
        }
        Ok(Self { seconds, labels, head: Section::read(cursor)?, chunk_bytes: cursor.u32()? })
    }
}

impl Section {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.offset);
        put(out, u64::from(self.bytes));
        put(out, u64::from(self.raw_bytes));
        out.extend_from_slice(&self.checksum.to_le_bytes());
    }

    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            offset: cursor.varint()?,
            bytes: cursor.u32()?,
            raw_bytes: cursor.u32()?,
            checksum: u64::from_le_bytes(cursor.array()?),
        })
    }
}
