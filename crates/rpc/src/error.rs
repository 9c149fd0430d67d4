use std::time::Duration;

use memory::Refused;

/// When to retry what was refused because others hold the memory.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A refusal or failure, with what the caller should do about it.
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
    /// What was named does not exist, or no longer.
    NotFound,
    /// Over a limit; retry after the given time.
    Exhausted { retry_after: Duration },
    /// Over a limit, whatever else runs; retrying cannot help.
    TooLarge,
    /// Nothing was decided; retry, here or elsewhere.
    Unavailable,
    /// The caller's time is up.
    DeadlineExceeded,
    /// Stored bytes are not what they should be. Retrying cannot help.
    Corrupt,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Of what found no memory.
    pub fn of_memory(refused: &Refused) -> Self {
        match refused.fits_alone() {
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

    /// Whether nobody listens at the address that was called: the process that did is gone.
    pub fn is_refused(&self) -> bool {
        let source = self.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
        source.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}
