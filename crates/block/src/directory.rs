//! The directory of an object: its origin, its datasets and their sections.

use std::ops::Range;

use model::{ItemKey, JobId, ProfileType, TenantId, Times, WriterId};

/// The description of an object, stored in it: enough to rebuild every index of the object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    pub origin: Origin,
    /// By the clock of the writer, in Unix milliseconds.
    pub created_millis: i64,
    /// Keys of the push items within, by item ordinal. Blocks have none.
    pub keys: Vec<ItemKey>,
    /// Sorted by (tenant, service).
    pub datasets: Vec<DatasetEntry>,
}

/// The origin of an object; its key follows from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Slot `seq` of a writer's log; level 0.
    Segment { writer: WriterId, seq: u64 },
    /// Output `part` of one attempt of a compaction job.
    Block { job: JobId, attempt: u32, part: u32, level: u8 },
}

/// One service of one tenant inside an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetEntry {
    pub tenant: TenantId,
    pub service: String,
    /// First and last profile timestamp, in Unix nanoseconds, both included.
    pub times: Times,
    /// Rows of the Parquet file that belong to this dataset.
    pub rows: Range<u64>,
    pub profiles: u32,
    /// Profile types with values other than 0, sorted and distinct.
    pub profile_types: Vec<ProfileType>,
    /// Names of the labels of its series, sorted and distinct, without the derived ones.
    pub label_names: Vec<String>,
    /// Encoded [`crate::DatasetIndex`].
    pub index: Section,
    /// Encoded strings of the symbols and of the tree.
    pub strings: Section,
    /// Encoded [`model::Symbols`] but for their strings.
    pub symbols: Section,
    /// Encoded [`crate::NameTree`]; segments have none.
    pub tree: Option<Section>,
    /// Sums of whole windows of time, those of the longest windows first; segments have none.
    pub cells: Vec<CellSection>,
}

/// The labels and the position of the cells of one length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CellSection {
    /// Length of a window; windows are aligned to the epoch.
    pub seconds: u32,
    /// Names of the kept labels, whose values distinguish cells; sorted.
    pub labels: Vec<String>,
    /// Encoded [`crate::Cells`].
    pub head: Section,
    /// Bytes of the chunks, which follow the head.
    pub chunk_bytes: u32,
}

/// A compressed byte range of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    pub offset: u64,
    pub bytes: u32,
    pub raw_bytes: u32,
    /// xxh3-64 of the compressed bytes.
    pub checksum: u64,
}
