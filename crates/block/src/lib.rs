//! Segments and blocks: the only crate that knows Parquet. `FORMAT.md` beside this file is the contract.
//!
//! Owns: the open segment in memory ([`Head`]), encoding, reading, merging.
//! Does not own: where objects lie, who may read them, when they are merged or deleted.

mod directory;
mod index;
mod seal;
mod tree;

pub use directory::{DatasetEntry, Directory, Origin, Section};
pub use index::{DatasetIndex, Profiles, Series};
pub use seal::Seal;
pub use tree::NameTree;
