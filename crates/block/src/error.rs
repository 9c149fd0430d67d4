//! Errors of reading, merging and writing objects.

use storage::Key;

/// Why an object could not be read, merged or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Storage(storage::Error),
    /// The object is damaged. Retrying cannot help.
    #[error("object {object}: {section} is corrupt at byte {byte}: {problem}")]
    Corrupt {
        object: Key,
        section: &'static str,
        /// Offset within the object, or within the section where that is compressed.
        byte: u64,
        problem: &'static str,
    },
    /// The object has a format version that this release does not read.
    #[error("object {object} has format version {version}, this release reads {read}")]
    Version { object: Key, version: u32, read: u32 },
    /// The dataset exceeds a limit of the format: nothing was written.
    #[error("dataset {dataset:?} holds {count} {resource}, limit is {limit}")]
    TooLarge { dataset: String, resource: &'static str, count: u64, limit: u64 },
    /// Decoding or merging needs more memory than the limit allows.
    #[error("reading {purpose} {refusal}")]
    Memory { purpose: String, refusal: memory::Refusal },
    #[error("cannot encode {part}")]
    Encode {
        part: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn encode(
        part: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Encode { part, source: source.into() }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Short { key, bytes, .. } => {
                Self::Corrupt { object: key, section: "object", byte: bytes, problem: "it is cut off here" }
            }
            error => Self::Storage(error),
        }
    }
}

/// Invalid bytes of a section; becomes [`Error::Corrupt`] where the object's key is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("wrong at byte {byte}: {problem}")]
pub struct Malformed {
    pub byte: u64,
    pub problem: &'static str,
}
