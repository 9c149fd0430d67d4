use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, coalesce_ranges,
};

use crate::metrics::{Operation, Outcome};
use crate::{Key, Metrics};

/// How often a create whose object proved absent is repeated before its outcome is left unknown.
const CREATE_ATTEMPTS: u32 = 4;
/// How often a read, list or delete is tried.
const READ_ATTEMPTS: u32 = 4;
/// First pause between attempts; each further one is twice as long, and each is jittered.
const BACKOFF: Duration = Duration::from_millis(50);
/// One attempt may take this long, and a second more for every [`BYTES_PER_SECOND_MIN`] it moves.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Whole objects and listings do not say beforehand how long they are.
const UNSIZED_TIMEOUT: Duration = Duration::from_secs(120);
const BYTES_PER_SECOND_MIN: u64 = 2 << 20;

/// The bucket, as every role sees it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    clock: Clock,
    metrics: Metrics,
    is_exclusive: bool,
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

/// The last bytes of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Fewer than asked for if the object is shorter.
    pub bytes: Bytes,
    pub object_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("object {0} does not exist")]
    NotFound(Key),
    #[error("storage did not answer about object {key} within {limit:?}")]
    Timeout { key: Key, limit: Duration },
    #[error("storage failed at object {key}")]
    Backend {
        key: Key,
        #[source]
        source: object_store::Error,
    },
}

/// What a key holds, compared with what it should.
enum Holds {
    Nothing,
    Same,
    Other,
}

impl Store {
    pub fn new(inner: Arc<dyn ObjectStore>, clock: Clock, metrics: Metrics) -> Self {
        Self { inner, clock, metrics, is_exclusive: false }
    }

    /// The same store, which no other process can open as long as this one runs.
    pub fn exclusive(self) -> Self {
        Self { is_exclusive: true, ..self }
    }

    /// Whether no other process can use this store now.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
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
    /// The outcome is still unknown: the store could not be asked. The object may exist, or appear later.
    pub async fn settle_create(&self, key: &Key, bytes: Bytes) -> Result<Created, Error> {
        let mut attempt = 0;
        loop {
            let Err(cause) = self.create_once(key, &bytes).await else {
                return Ok(Created::Mine);
            };
            match self.compare(key, &bytes).await? {
                Holds::Same => return Ok(Created::Mine),
                Holds::Other => return Ok(Created::Other),
                Holds::Nothing => {}
            }
            attempt += 1;
            if attempt == CREATE_ATTEMPTS {
                return Err(cause);
            }
            self.back_off(attempt).await;
        }
    }

    /// The whole object.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise the store could not be asked, repeatedly.
    pub async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        let at = path(key)?;
        self.read(key, Operation::get, UNSIZED_TIMEOUT, || async {
            let bytes = self.inner.get(&at).await?.bytes().await?;
            let len = bytes.len() as u64;
            Ok((bytes, len))
        })
        .await
    }

    /// Several byte ranges of one object, in the order asked for.
    ///
    /// # Errors
    /// As [`Store::get`]; also if a range begins beyond the end of the object.
    pub async fn get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let at = path(key)?;
        let asked = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.read(key, Operation::get, time_for(READ_TIMEOUT, asked), || async {
            let parts = match self.is_exclusive {
                true => self.inner.get_ranges(&at, ranges).await?,
                false => {
                    coalesce_ranges(
                        ranges,
                        |range| self.whole_range(&at, range),
                        OBJECT_STORE_COALESCE_DEFAULT,
                    )
                    .await?
                }
            };
            let len = parts.iter().map(|part| part.len() as u64).sum();
            Ok((parts, len))
        })
        .await
    }

    /// The last `len` bytes of an object, and how long it is, in one request.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_tail(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        let at = path(key)?;
        self.read(key, Operation::get, time_for(READ_TIMEOUT, len), || async {
            let options = GetOptions { range: Some(GetRange::Suffix(len)), ..GetOptions::default() };
            let got = self.inner.get_opts(&at, options).await?;
            let object_bytes = got.meta.size;
            let bytes = got.bytes().await?;
            let read = bytes.len() as u64;
            Ok((Tail { bytes, object_bytes }, read))
        })
        .await
    }

    /// All objects below the folder `prefix` (empty: all there are), sorted by key.
    ///
    /// # Errors
    /// The store could not be asked, repeatedly.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let from = Key::from_text(prefix);
        let at = path(&from)?;
        self.list_stream(&from, || self.inner.list(Some(&at))).await
    }

    /// The folders directly below the folder `prefix`, sorted; one request, however full they are.
    ///
    /// # Errors
    /// The store could not be asked, repeatedly.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<Key>, Error> {
        let from = Key::from_text(prefix);
        let at = path(&from)?;
        let mut folders = self
            .read(&from, Operation::list, READ_TIMEOUT, || async {
                let listed = self.inner.list_with_delimiter(Some(&at)).await?;
                let folders = listed.common_prefixes.iter();
                Ok((folders.map(|f| Key::from_text(f.to_string())).collect::<Vec<_>>(), 0))
            })
            .await?;
        folders.sort();
        Ok(folders)
    }

    /// As [`Store::list`], but only keys greater than `after`.
    ///
    /// # Errors
    /// The store could not be asked, repeatedly.
    pub async fn list_after(&self, prefix: &str, after: &Key) -> Result<Vec<Object>, Error> {
        let from = Key::from_text(prefix);
        let (at, offset) = (path(&from)?, path(after)?);
        self.list_stream(&from, || self.inner.list_with_offset(Some(&at), &offset)).await
    }

    /// Deletes an object; one that does not exist is no error.
    ///
    /// # Errors
    /// The store could not be asked, repeatedly. The object may be gone.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        let at = path(key)?;
        let deleted = self
            .read(key, Operation::delete, READ_TIMEOUT, || async {
                self.inner.delete(&at).await.map(|()| ((), 0))
            })
            .await;
        match deleted {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    /// Whether the store, asked to create `key` only if absent, does so although it exists.
    ///
    /// `bytes` are what the key holds, so that even then nothing changes.
    pub(crate) async fn overwrites(&self, key: &Key, bytes: &Bytes) -> Result<bool, Error> {
        match self.create_once(key, bytes).await {
            Ok(()) => Ok(true),
            Err(Error::Backend { source: object_store::Error::AlreadyExists { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All bytes of `range`. A store answers a range that ends past the object with what there is, and
    /// cutting that apart into ranges that lie past it would panic.
    async fn whole_range(&self, at: &Path, range: Range<u64>) -> object_store::Result<Bytes> {
        let bytes = self.inner.get_range(at, range.clone()).await?;
        if bytes.len() as u64 == range.end - range.start {
            return Ok(bytes);
        }
        let source =
            format!("object {at} has no bytes {}..{}", range.start + bytes.len() as u64, range.end).into();
        Err(object_store::Error::Generic { store: "bucket", source })
    }

    async fn create_once(&self, key: &Key, bytes: &Bytes) -> Result<(), Error> {
        let at = path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let limit = time_for(CREATE_TIMEOUT, bytes.len() as u64);
        let put = self.inner.put_opts(&at, bytes.clone().into(), options);
        self.attempt(key, Operation::create, limit, async { put.await.map(|_| ((), bytes.len() as u64)) })
            .await
    }

    /// Reads no further than the first difference, and never holds more than one piece.
    async fn compare(&self, key: &Key, expected: &Bytes) -> Result<Holds, Error> {
        let at = path(key)?;
        let limit = time_for(READ_TIMEOUT, expected.len() as u64);
        let same = self
            .read(key, Operation::get, limit, || async {
                same_bytes(self.inner.get(&at).await?, expected).await
            })
            .await;
        match same {
            Ok(true) => Ok(Holds::Same),
            Ok(false) => Ok(Holds::Other),
            Err(Error::NotFound(_)) => Ok(Holds::Nothing),
            Err(error) => Err(error),
        }
    }

    async fn list_stream(
        &self,
        from: &Key,
        start: impl Fn() -> futures::stream::BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> Result<Vec<Object>, Error> {
        let listed = self
            .read(from, Operation::list, UNSIZED_TIMEOUT, || async {
                Ok((start().map_ok(object).try_collect::<Vec<_>>().await?, 0))
            })
            .await;
        let mut objects = match listed {
            // A folder without objects is an empty list, whatever the store calls it.
            Err(Error::NotFound(_)) => Vec::new(),
            other => other?,
        };
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Repeats `request` while repeating may help.
    async fn read<T, F>(
        &self,
        key: &Key,
        operation: Operation,
        limit: Duration,
        request: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = object_store::Result<(T, u64)>>,
    {
        let mut attempt = 0;
        loop {
            match self.attempt(key, operation, limit, request()).await {
                Err(error) if may_pass(&error) && attempt + 1 < READ_ATTEMPTS => {
                    attempt += 1;
                    self.back_off(attempt).await;
                }
                settled => return settled,
            }
        }
    }

    async fn attempt<T>(
        &self,
        key: &Key,
        operation: Operation,
        limit: Duration,
        request: impl Future<Output = object_store::Result<(T, u64)>>,
    ) -> Result<T, Error> {
        let began = self.clock.monotonic();
        let answer = self.clock.timeout(limit, request).await;
        let took = self.clock.monotonic().saturating_sub(began);
        let (outcome, bytes, result) = match answer {
            Some(Ok((value, bytes))) => (Outcome::ok, bytes, Ok(value)),
            Some(Err(source)) => (outcome_of(&source), 0, Err(failed(key, source))),
            None => (Outcome::timeout, 0, Err(Error::Timeout { key: key.clone(), limit })),
        };
        self.metrics.request(operation, key.as_str(), outcome, took, bytes);
        result
    }

    async fn back_off(&self, attempt: u32) {
        let longest = BACKOFF * (1 << (attempt - 1).min(6));
        // Between half and all of it, so that processes which failed together do not return together.
        let share = 0.5 + (self.clock.random() as u32 as f64) / (f64::from(u32::MAX) * 2.0);
        self.clock.sleep(longest.mul_f64(share)).await;
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

async fn same_bytes(got: GetResult, expected: &Bytes) -> object_store::Result<(bool, u64)> {
    if got.meta.size != expected.len() as u64 {
        return Ok((false, 0));
    }
    let mut rest = &expected[..];
    let mut pieces = got.into_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let Some(after) = rest.strip_prefix(&piece[..]) else {
            return Ok((false, 0));
        };
        rest = after;
    }
    Ok((rest.is_empty(), expected.len() as u64))
}

fn object(meta: ObjectMeta) -> Object {
    Object {
        key: Key::from_text(meta.location.to_string()),
        bytes: meta.size,
        modified_millis: meta.last_modified.timestamp_millis(),
    }
}

/// Takes the key as it is: `Path::from` would percent-encode a second time.
fn path(key: &Key) -> Result<Path, Error> {
    Path::parse(key.as_str()).map_err(|source| failed(key, source.into()))
}

fn time_for(base: Duration, bytes: u64) -> Duration {
    base + Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN)
}

/// Whether the same request may succeed if it is sent again.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::NotFound(_) => false,
        Error::Timeout { .. } => true,
        Error::Backend { source, .. } => {
            matches!(source, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
        }
    }
}

fn outcome_of(source: &object_store::Error) -> Outcome {
    match source {
        object_store::Error::AlreadyExists { .. } => Outcome::exists,
        object_store::Error::NotFound { .. } => Outcome::not_found,
        _ => Outcome::error,
    }
}

fn failed(key: &Key, source: object_store::Error) -> Error {
    match source {
        object_store::Error::NotFound { .. } => Error::NotFound(key.clone()),
        source => Error::Backend { key: key.clone(), source },
    }
}
