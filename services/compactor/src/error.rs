//! Why an attempt at a job failed, and which part is at fault.

use storage::Key;

/// The cause of a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Inputs,
    /// The inputs together need more memory than was free.
    Memory,
    /// The store or the metastore failed: the same attempt may succeed later.
    Outside,
}

/// Why an attempt at a job failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot merge")]
    Merge(#[from] block::Error),
    #[error("cannot write an output")]
    Store(#[from] storage::Error),
    #[error("output {0} exists with other bytes")]
    Taken(Key),
    #[error("cannot publish")]
    Publish(#[from] rpc::Error),
}

impl Error {
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Merge(block::Error::Storage(storage::Error::NotFound(_))) => Fault::Inputs,
            Self::Merge(block::Error::Storage(_)) | Self::Store(_) | Self::Publish(_) => Fault::Outside,
            Self::Merge(block::Error::Memory { .. }) => Fault::Memory,
            Self::Merge(_) | Self::Taken(_) => Fault::Inputs,
        }
    }
}
