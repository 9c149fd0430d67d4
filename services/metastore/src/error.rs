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
    Catalog(#[from] catalog::Error),
    #[error("catalog row {key} cannot be read")]
    Row {
        key: String,
        #[source]
        source: DecodeError,
    },
    #[error("object {object} cannot be read: {reason}")]
    Object { object: String, reason: String },
    #[error(
        "the catalog was committed to {seconds} s ago, so its owner may be alive: stop it, or force the rebuild"
    )]
    Alive { seconds: i64 },
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
