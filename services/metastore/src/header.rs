//! Headers: the part of an object that describes it.

use async_trait::async_trait;
use block::{Directory, Seal};
use storage::{Key, Store};

/// An object as its header describes it.
#[derive(Clone, Debug)]
pub enum Header {
    Absent,
    Seal,
    Object {
        bytes: u64,
        directory: Directory,
    },
    /// Bytes that are no segment, block or seal, with the reason.
    Unreadable(String),
}

/// Why a header could not be read. A later attempt may succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// The object has a format version that this release does not read.
    #[error(transparent)]
    Newer(block::Error),
}

/// Reads headers.
#[async_trait]
pub trait Headers: Send + Sync {
    /// `listed_bytes` is the length of the object, if it is known from a listing: that saves a request.
    async fn read(&self, key: &Key, listed_bytes: Option<u64>) -> Result<Header, Error>;
}

/// Longer than a seal, and long enough for the directories of most segments.
const TAIL_BYTES: u64 = 64 << 10;
/// No seal is longer, and no segment is shorter.
const SEAL_BYTES_MAX: u64 = 256;
/// Each header is read once, so the cache is small.
const CACHE_BYTES: u64 = 1 << 20;

/// Reads headers from the objects themselves.
pub struct Bucket {
    store: Store,
    cache: block::Cache,
}

impl Bucket {
    pub fn new(store: Store) -> Self {
        Self { store, cache: block::Cache::new(CACHE_BYTES) }
    }
}

#[async_trait]
impl Headers for Bucket {
    async fn read(&self, key: &Key, listed_bytes: Option<u64>) -> Result<Header, Error> {
        let bytes = match listed_bytes {
            Some(bytes) if bytes > SEAL_BYTES_MAX => bytes,
            _ => match self.store.get_tail(key, TAIL_BYTES).await {
                Ok(tail) if Seal::decode(&tail.bytes).is_some() => return Ok(Header::Seal),
                Ok(tail) => tail.object_bytes,
                Err(storage::Error::NotFound(_)) => return Ok(Header::Absent),
                Err(error) => return Err(error.into()),
            },
        };
        match block::Reader::open(&self.store, key, bytes, &self.cache).await {
            Ok(reader) => Ok(Header::Object { bytes, directory: reader.directory().clone() }),
            Err(block::Error::Storage(storage::Error::NotFound(_))) => Ok(Header::Absent),
            Err(block::Error::Storage(error)) => Err(error.into()),
            Err(error @ block::Error::Version { .. }) => Err(Error::Newer(error)),
            Err(error) => Ok(Header::Unreadable(error.to_string())),
        }
    }
}
