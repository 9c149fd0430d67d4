//! The error of every call between roles, and how each transport names its kind.

use std::time::Duration;

use memory::Refusal;
use tonic::Code;

/// Advised delay before a retry if other requests hold the memory.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A refusal or failure. Its kind says whether the caller should fix the input, wait, retry or give up.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Fix the input; retrying cannot help.
    InvalidArgument,
    /// The named object does not exist, or no longer.
    NotFound,
    /// Over a limit; retry after the given time.
    Exhausted { retry_after: Duration },
    /// Over a limit even if nothing else ran; retrying cannot help.
    TooLarge,
    /// Nothing was decided; retry, here or elsewhere.
    Unavailable,
    /// The caller's time is up.
    DeadlineExceeded,
    /// Stored bytes are wrong. Retrying cannot help.
    Corrupt,
    /// A fault of this server.
    Internal,
}

impl ErrorKind {
    /// Code of the kind over gRPC and Connect.
    pub fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Exhausted { .. } | Self::TooLarge => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Corrupt => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }

    /// Kind of an error for work that was refused memory.
    pub fn of_memory(refusal: &Refusal) -> Self {
        match refusal.fits_alone() {
            true => Self::Exhausted { retry_after: MEMORY_RETRY_AFTER },
            false => Self::TooLarge,
        }
    }
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// Whether the peer refused the connection: no process listens at its address any more.
    pub fn is_refused(&self) -> bool {
        let source = self.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
        source.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}
