//! The catalog: a small, ordered key-value store with one owner, kept in the bucket.
//!
//! Owns: the [`Engine`] and [`Catalog`] traits, their conformance suite, the engine [`Numbered`], the layout of rows
//! ([`rows`]).
//! Does not own: the meaning of rows; their owner checks preconditions in its memory.

pub mod codec;
pub mod conformance;
pub mod numbered;
pub mod rows;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use numbered::NumberedCatalog;

/// Opens one stored catalog.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Whether there is a catalog. If there is none, [`Self::open`] begins an empty one.
    async fn exists(&self) -> Result<bool, Error>;

    /// Takes ownership: every earlier owner's commits fail from now on.
    async fn open(&self) -> Result<Arc<dyn Catalog>, Error>;

    /// A view for processes that do not own the catalog.
    ///
    /// # Errors
    /// `Absent` if there is none.
    async fn view(&self) -> Result<Box<dyn View>, Error>;
}

/// A catalog, as seen by its owner.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Rises with every opening.
    fn epoch(&self) -> u64;

    /// Version of the last commit; rises with every commit.
    fn version(&self) -> u64;

    /// Makes all of `batch` durable, or nothing of it; returns the new version.
    ///
    /// Waits while the store cannot be reached. If the caller stops waiting, the batch may still be committed, before
    /// the next one.
    ///
    /// # Errors
    /// `Fenced`, permanently, once another owner has opened the catalog.
    async fn commit(&self, batch: Batch) -> Result<u64, Error>;

    /// Checks that no other owner has opened the catalog since; usually one read.
    ///
    /// # Errors
    /// `Fenced` if one has.
    async fn check(&self) -> Result<(), Error>;

    /// Rows whose key is in `keys`, sorted by key, as of the last commit.
    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error>;

    /// Writes all rows anew, unless that happened after `version`. Rows that were deleted in it then remain only in
    /// files that [`Self::maintain`] deletes once they are old enough.
    async fn compact(&self, version: u64) -> Result<(), Error>;

    /// Whether no file holds a row that was deleted or replaced in `version` or before.
    fn has_forgotten(&self, version: u64) -> bool;

    /// Makes the next opening quick and deletes files that no process needs; sends no requests if nothing is due.
    async fn maintain(&self) -> Result<(), Error>;
}

/// A catalog, as seen by processes that do not own it: one version, never a mix of two.
#[async_trait]
pub trait View: Send + Sync {
    fn version(&self) -> u64;

    /// Epoch of the owner that committed this version.
    fn epoch(&self) -> u64;

    /// When this version was committed, by the clock of its owner, in Unix milliseconds.
    fn committed_millis(&self) -> i64;

    /// Moves to the newest version.
    async fn refresh(&mut self) -> Result<u64, Error>;

    /// Rows whose key is in `keys`, sorted by key.
    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error>;
}

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// Puts and deletes that are committed together; a later one wins over an earlier one of the same key.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Batch {
    /// `None` deletes.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.changes.push((key.into(), None));
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the catalog was opened by another process after epoch {epoch}")]
    Fenced { epoch: u64 },
    #[error("there is no catalog yet, or it is lost and being rebuilt")]
    Absent,
    #[error("catalog object {object} is unreadable: {reason}")]
    Corrupt { object: String, reason: String },
    #[error("catalog object {object} has version {found}, this program reads up to {supported}")]
    Newer { object: String, found: u8, supported: u8 },
    #[error("the catalog cannot be read or written")]
    Store(#[from] storage::Error),
}
