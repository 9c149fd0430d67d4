use std::time::Duration;

use memory::Refusal;
use model::ProfileTypeError;
use query::{SelectorError, TooLarge};
use tonic::Code;

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unimplemented(String),
    #[error("{message}")]
    Exhausted { message: String, retry_after: Duration },
    #[error("the query took longer than {limit:?}")]
    Deadline { limit: Duration },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the answer {0}; ask for a shorter time range, fewer series or fewer nodes")]
    Memory(#[from] Refusal),
    /// Another role refused or failed.
    #[error(transparent)]
    Role(#[from] rpc::Error),
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Exhausted { .. } | Self::TooLarge(_) | Self::Memory(_) => Code::ResourceExhausted,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Internal(_) => Code::Internal,
            Self::Role(error) => match error.kind {
                // An object is gone since the snapshot: a retry uses a newer one.
                rpc::ErrorKind::NotFound => Code::Unavailable,
                kind => kind.code(),
            },
        }
    }
}

impl From<ProfileTypeError> for Error {
    fn from(error: ProfileTypeError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl Error {
    /// A selector that cannot be parsed, with the start of its text.
    pub(crate) fn selector(text: &str, error: &SelectorError) -> Self {
        Self::Invalid(format!("parsing label selector {:?}: {error}", query::selector::shown(text)))
    }
}

impl From<Error> for edge::Error {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        edge::Error::from(error).into()
    }
}
