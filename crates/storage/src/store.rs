use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clock::Clock;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::{Key, Metrics};

/// The bucket, as every role sees it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    #[allow(dead_code)]
    clock: Clock,
    #[allow(dead_code)]
    metrics: Metrics,
}

/// How a create ended, once that is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// The object exists with exactly the given bytes, whoever's request put them there.
    Mine,
    /// The key holds other bytes: somebody else was first.
    Other,
}

/// An object as `list` sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    pub key: Key,
    pub bytes: u64,
    pub modified_millis: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("object {0} does not exist")]
    NotFound(Key),
    #[error("storage failed at object {key}")]
    Backend {
        key: Key,
        #[source]
        source: object_store::Error,
    },
}

impl Store {
    pub fn new(inner: Arc<dyn ObjectStore>, clock: Clock, metrics: Metrics) -> Self {
        Self { inner, clock, metrics }
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(InMemory::new()), Clock::system(), Metrics::default())
    }

    /// Creates `key` with `bytes` if it does not exist, and settles what happened.
    ///
    /// A reply other than "ok" says nothing: a store reports a lost own success, and even a
    /// conflict where nothing landed, as "already exists". So the key is read: the same bytes are
    /// ours, an absent key is created again, other bytes are somebody else's.
    ///
    /// # Errors
    /// The outcome is still unknown: the store could not be asked. The object may exist.
    pub async fn settle_create(&self, key: &Key, bytes: Bytes) -> Result<Created, Error> {
        let mut attempts_left = 3;
        loop {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = self.inner.put_opts(&path(key), bytes.clone().into(), options).await;
            let Err(cause) = put else {
                return Ok(Created::Mine);
            };
            match self.get(key).await {
                Ok(found) if found == bytes => return Ok(Created::Mine),
                Ok(_) => return Ok(Created::Other),
                Err(Error::NotFound(_)) if attempts_left > 0 => attempts_left -= 1,
                Err(Error::NotFound(_)) => return Err(failed(key, cause)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The whole object.
    pub async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        let got = self.inner.get(&path(key)).await.map_err(|e| failed(key, e))?;
        got.bytes().await.map_err(|e| failed(key, e))
    }

    /// Several byte ranges of one object, in the order asked for.
    pub async fn get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        self.inner.get_ranges(&path(key), ranges).await.map_err(|e| failed(key, e))
    }

    /// All objects whose key starts with `prefix` (up to a `/`), sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let at = Path::from(prefix);
        let found: Result<Vec<_>, _> = self.inner.list(Some(&at)).try_collect().await;
        let mut objects: Vec<Object> = found
            .map_err(|e| failed(&Key::from_text(prefix), e))?
            .into_iter()
            .map(|meta| Object {
                key: Key::from_text(meta.location.to_string()),
                bytes: meta.size,
                modified_millis: meta.last_modified.timestamp_millis(),
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Deletes an object; one that does not exist is no error.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        match self.inner.delete(&path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(key, e)),
        }
    }
}

fn path(key: &Key) -> Path {
    Path::from(key.as_str())
}

fn failed(key: &Key, source: object_store::Error) -> Error {
    match source {
        object_store::Error::NotFound { .. } => Error::NotFound(key.clone()),
        source => Error::Backend { key: key.clone(), source },
    }
}
