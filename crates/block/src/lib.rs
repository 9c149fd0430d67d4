//! Segments and blocks: the only crate that knows Parquet. `FORMAT.md` in the folder of this crate is the contract.
//!
//! Owns: the open segment in memory ([`Head`]) and the symbols that outlive it ([`Dictionaries`]), encoding, reading, merging.
//! Does not own: the keys of objects, who may read them, when they are merged or deleted.

mod cache;
mod cell_rows;
mod cells;
pub mod codec;
mod dictionary;
mod directory;
mod directory_codec;
mod disk;
mod error;
mod head;
mod index;
mod intern;
mod layout;
mod merge;
mod metrics;
mod reader;
mod roll;
mod rows;
mod scan;
mod seal;
mod sort;
mod symbols;
mod tree;
mod writer;

pub use cache::{Cache, Reads};
pub use cell_rows::{FetchedCellRows, FetchedCells};
pub use cells::{CellTotal, Cells, Total};
pub use dictionary::Dictionaries;
pub use directory::{CellSection, DatasetEntry, Directory, Origin, Section};
pub use directory_codec::DirectoryError;
pub use disk::Disk;
pub use error::Error;
pub use head::{AppendOutcome, ClosedSegment, EncodedObject, Head, SortedSegment};
pub use index::{DatasetIndex, Profiles, Series, StoredColumn, VALUE_COLUMNS_MAX};
pub use merge::{ErasedProfiles, Erasure, MergeInput, MergeOptions, MergeOutput, merge, shard_of, window_of};
pub use reader::{FetchedSections, Reader, Sections};
pub use scan::{Batch, FetchedSamples};
pub use seal::Seal;
pub use tree::NameTree;
pub use writer::FORMAT_VERSION;
