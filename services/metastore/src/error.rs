//! Errors of opening, and the errors of other crates as callers see them.

use catalog::codec::DecodeError;
use rpc::ErrorKind;

/// Why the catalog cannot be opened or rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read storage")]
    Store(#[from] storage::Error),
    #[error("cannot read an object's header")]
    Header(#[from] crate::header::Error),
    #[error(transparent)]
    Catalog(catalog::Error),
    #[error(
        "the catalog is damaged. Profiles are stored elsewhere: `pyrograph catalog rebuild -- FLAGS`, with the storage \
         flags of the server, makes a new catalog from them"
    )]
    Damaged(#[source] catalog::Error),
    #[error("catalog row {key} cannot be read")]
    Row {
        key: String,
        #[source]
        source: DecodeError,
    },
    #[error("object {object} cannot be read: {reason}")]
    Object { object: String, reason: String },
    #[error(
        "object {object} of the catalog was just written, so its owner is alive: stop every metastore first, or use --force"
    )]
    Alive { object: String },
    #[error("the bucket contradicts itself: {0}")]
    Conflict(String),
    /// A start that must not wait for a rebuild found that one is needed.
    #[error("{0}")]
    RebuildNeeded(String),
}

impl From<Box<crate::lineage::Conflict>> for OpenError {
    fn from(conflict: Box<crate::lineage::Conflict>) -> Self {
        Self::Conflict(conflict.to_string())
    }
}

impl From<catalog::Error> for OpenError {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::Corrupt { .. } => Self::Damaged(error),
            error => Self::Catalog(error),
        }
    }
}

pub(crate) fn of_catalog(error: catalog::Error) -> rpc::Error {
    match error {
        catalog::Error::Fenced { .. } | catalog::Error::Store(_) => rpc::Error::with_source(
            ErrorKind::Unavailable,
            "this metastore does not own the catalog now",
            error,
        ),
        error => rpc::Error::with_source(ErrorKind::Corrupt, "the catalog is damaged", error),
    }
}

pub(crate) fn of_header(error: crate::header::Error) -> rpc::Error {
    rpc::Error::with_source(ErrorKind::Unavailable, "a log cannot be read now", error)
}

pub(crate) fn of_store(error: storage::Error) -> rpc::Error {
    rpc::Error::with_source(ErrorKind::Unavailable, "storage cannot be asked now", error)
}
