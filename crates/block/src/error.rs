use storage::Key;

/// Why an object could not be read, merged or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Storage(storage::Error),
    /// The bytes are not what was written. Retrying cannot help.
    #[error("object {object}: {section} is corrupt at byte {byte}: {what}")]
    Corrupt {
        object: Key,
        section: &'static str,
        /// Offset within the object, or within the section where that is compressed.
        byte: u64,
        what: &'static str,
    },
    /// Written by another release.
    #[error("object {object} has format version {version}, this release reads {read}")]
    Version { object: Key, version: u32, read: u32 },
    /// More than the format can hold: nothing was written.
    #[error("dataset {dataset:?} holds {count} {what}, limit is {limit}")]
    TooLarge { dataset: String, what: &'static str, count: u64, limit: u64 },
    /// Decoding or merging it would hold more memory than there is for that.
    #[error("reading {what} {refused}")]
    Memory { what: String, refused: memory::Refused },
    #[error("cannot encode {what}")]
    Encode {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn encode(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Encode { what, source: source.into() }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Short { key, bytes, .. } => {
                Self::Corrupt { object: key, section: "object", byte: bytes, what: "it is cut off here" }
            }
            error => Self::Storage(error),
        }
    }
}

/// Bytes of a section that do not read as what they should be; becomes [`Error::Corrupt`] where the
/// object's key is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("wrong at byte {byte}: {what}")]
pub struct Malformed {
    pub byte: u64,
    pub what: &'static str,
}
