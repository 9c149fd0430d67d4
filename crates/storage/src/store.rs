use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use futures::future::{Either, select};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, coalesce_ranges,
};
use tracing::{info, warn};

use crate::local::LocalDir;
use crate::metrics::{Hedge, Operation, Outcome, Retry};
use crate::pace::{Budget, Hedging};
use crate::{Cluster, IdTag, Key, Metrics, Problem};

/// How often a create whose object proved absent is repeated before its outcome is left unknown.
const CREATE_ATTEMPTS: u32 = 4;
/// How often a read, list or delete is tried.
const READ_ATTEMPTS: u32 = 4;
/// First pause between attempts; each further one is twice as long, and each is jittered.
const BACKOFF: Duration = Duration::from_millis(50);
/// The same for a store that asks for fewer requests.
const BACKOFF_THROTTLED: Duration = Duration::from_millis(400);
/// A store that asks for a longer pause gets no more than this: somebody waits.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// One attempt may take this long, and a second more for every [`BYTES_PER_SECOND_MIN`] it moves.
const CREATE_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Whole objects and listings do not say beforehand how long they are.
const UNSIZED_TIMEOUT: Duration = Duration::from_secs(120);
const BYTES_PER_SECOND_MIN: u64 = 2 << 20;
/// Objects that one request lists.
const PAGE_OBJECTS: u64 = 1_000;

/// The bucket, as every role sees it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    clock: Clock,
    metrics: Metrics,
    is_exclusive: bool,
    /// Whether "the last n bytes" can be asked for, also of a shorter object.
    has_suffix_ranges: Arc<AtomicBool>,
    /// The store in messages: `s3://bucket/prefix at host:port`.
    place: Arc<str>,
    directory: Option<LocalDir>,
    retries: Arc<Budget>,
    hedging: Option<Arc<Hedging>>,
    cluster: Option<Arc<Cluster>>,
    /// Ids of others are of another cluster.
    id_tag: Option<IdTag>,
    /// Whether the log says that there are some.
    has_told_of_others: Arc<AtomicBool>,
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
    #[error("{store} did not answer about object {key} within {limit:?}")]
    Timeout { store: Arc<str>, key: Key, limit: Duration },
    #[error("object {key} has {bytes} bytes, {wanted} were expected: it is cut off")]
    Short { key: Key, bytes: u64, wanted: u64 },
    #[error("storage failed at object {key} of {store}: {problem}")]
    Backend {
        store: Arc<str>,
        key: Key,
        problem: Problem,
        /// What the words of `problem` were taken from.
        cause: Box<object_store::Error>,
    },
}

impl Error {
    /// Whether the credentials are good, but not for this.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Backend { problem: Problem::Denied { .. } | Problem::NotAllowed { .. }, .. })
    }

    /// Whether a local directory has no space left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Backend { problem: Problem::Full { .. }, .. })
    }

    /// Whether the same request may succeed if it is sent again soon.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Short { .. } => false,
            Self::Timeout { .. } => true,
            Self::Backend { problem, .. } => problem.may_pass(),
        }
    }

    /// Stores say in many ways that a range lies beyond the end.
    fn may_be_short(&self) -> bool {
        matches!(
            self,
            Self::Short { .. }
                | Self::Backend { problem: Problem::Fault(_) | Problem::OutOfRange { .. }, .. }
        )
    }

    fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Backend { problem: Problem::OutOfRange { .. }, .. })
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Backend { cause, .. }
            if matches!(**cause, object_store::Error::AlreadyExists { .. }))
    }
}

/// An object that ends before a range of it.
#[derive(Debug, thiserror::Error)]
#[error("it has {bytes} bytes, {wanted} were expected")]
struct CutOff {
    bytes: u64,
    wanted: u64,
}

/// What a key holds, compared with what it should.
enum Holds {
    Nothing,
    Same,
    Other,
}

impl Store {
    pub fn new(inner: Arc<dyn ObjectStore>, clock: Clock, metrics: Metrics) -> Self {
        let retries = Arc::new(Budget::of_retries());
        let place = inner.to_string().into();
        Self {
            inner,
            clock,
            metrics,
            is_exclusive: false,
            has_suffix_ranges: Arc::new(AtomicBool::new(true)),
            place,
            directory: None,
            retries,
            hedging: None,
            cluster: None,
            id_tag: None,
            has_told_of_others: Arc::default(),
        }
    }

    /// The same store, which sends a ranged read a second time if it takes unusually long.
    ///
    /// For questions that somebody waits for. A local directory gains nothing by it.
    pub fn hedged(self) -> Self {
        match self.is_exclusive {
            true => self,
            false => Self { hedging: Some(Arc::new(Hedging::new())), ..self },
        }
    }

    /// The same store, which no other process can open as long as this one runs.
    pub fn exclusive(self) -> Self {
        Self { is_exclusive: true, ..self }
    }

    /// From now on this store, and each clone of it, asks how long an object is before it reads its end.
    pub(crate) fn give_up_suffix_ranges(&self, because: &dyn std::fmt::Display) {
        if self.has_suffix_ranges.swap(false, Ordering::Relaxed) {
            info!(store = %self, %because, "ends of objects are read in two requests, by their size");
        }
    }

    pub(crate) fn has_suffix_ranges(&self) -> bool {
        self.has_suffix_ranges.load(Ordering::Relaxed)
    }

    /// The same store, called `place` in messages.
    pub(crate) fn at(self, place: &str) -> Self {
        Self { place: place.into(), ..self }
    }

    /// The same store, which lies in a local directory.
    pub(crate) fn within(self, directory: LocalDir) -> Self {
        Self { directory: Some(directory), ..self }
    }

    /// Looks whether a local directory is still the one that was opened; nothing to look at in a bucket.
    ///
    /// # Errors
    /// Says which directory was removed, replaced or unmounted. All writes fail until it is back.
    pub async fn check_presence(&self) -> Result<(), Problem> {
        match &self.directory {
            Some(directory) => {
                directory.check_presence().await.map_err(|error| Problem::of(Operation::list, &error))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn of_cluster(self, cluster: Cluster) -> Self {
        let id_tag = cluster.id_tag();
        Self { cluster: Some(Arc::new(cluster)), id_tag, ..self }
    }

    /// The same store, of a cluster whose ids have this tag. For simulations; [`crate::open`] knows it.
    pub fn tagged(self, tag: IdTag) -> Self {
        Self { id_tag: Some(tag), ..self }
    }

    /// What all ids of the cluster have in common; `None` if they may be any.
    pub fn id_tag(&self) -> Option<IdTag> {
        self.id_tag
    }

    /// A random id for a log or a job of this cluster.
    pub fn new_id(&self, clock: &Clock) -> u128 {
        let id = clock.random();
        self.id_tag.map_or(id, |tag| tag.mark(id))
    }

    /// Whether the key has the id of a log or a job of another cluster.
    fn is_of_another_cluster(&self, key: &Key) -> bool {
        self.id_tag.zip(key.id()).is_some_and(|(tag, id)| !tag.is_of(id))
    }

    /// Takes out what is of another cluster, whose objects somebody has mixed with ours.
    fn retain_own<T>(&self, listed: &mut Vec<T>, key: impl Fn(&T) -> &Key) {
        let before = listed.len();
        let mut first = None;
        listed.retain(|entry| {
            let is_own = !self.is_of_another_cluster(key(entry));
            if !is_own && first.is_none() {
                first = Some(key(entry).clone());
            }
            is_own
        });
        let Some(first) = first else { return };
        if !self.has_told_of_others.swap(true, Ordering::Relaxed) {
            let objects = before - listed.len();
            warn!(store = %self, objects, %first, "objects of another cluster are in the bucket: they are neither read nor deleted");
        }
    }

    /// The random id of the cluster that the store belongs to; `None` if it was not opened from a config.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster.as_ref().map(|cluster| cluster.id.as_str())
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
            let is_worth_it = cause.may_pass() || cause.is_conflict();
            if attempt == CREATE_ATTEMPTS || !is_worth_it || !self.may_retry(Operation::create) {
                return Err(cause);
            }
            self.back_off(attempt, &cause).await;
        }
    }

    /// The whole object.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise the store could not be asked, repeatedly.
    pub async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        let at = path(key)?;
        self.read(key, Operation::get, UNSIZED_TIMEOUT, || async {
            let got = self.begun(self.inner.get(&at)).await?;
            let bytes = got.bytes().await?;
            let len = bytes.len() as u64;
            Ok((bytes, len))
        })
        .await
    }

    /// Several byte ranges of one object, in the order asked for.
    ///
    /// # Errors
    /// As [`Store::get`]; `Short` if the object ends before a range does.
    pub async fn get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let wanted = ranges.iter().map(|range| range.end).max().unwrap_or_default();
        match self.try_get_ranges(key, ranges).await {
            Err(error) if error.may_be_short() => match self.size(key).await {
                Some(bytes) if bytes < wanted => Err(Error::Short { key: key.clone(), bytes, wanted }),
                _ => Err(error),
            },
            got => got,
        }
    }

    async fn try_get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let at = path(key)?;
        if !self.is_exclusive {
            let fetch = |range: Range<u64>| {
                let (bytes, at) = (range.end.saturating_sub(range.start), &at);
                self.read_range(key, bytes, move || {
                    let range = range.clone();
                    async move { Ok((self.whole_range(at, range).await?, bytes)) }
                })
            };
            return coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await;
        }
        let asked = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.read_range(key, asked, || async {
            let parts = self.inner.get_ranges(&at, ranges).await?;
            let len = parts.iter().map(|part| part.len() as u64).sum();
            Ok((parts, len))
        })
        .await
    }

    /// The last `len` bytes of an object, and how long it is; in one request if the store can do that.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_tail(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        if !self.has_suffix_ranges() {
            return self.get_tail_by_size(key, len).await;
        }
        match self.try_get_tail(key, len).await {
            // Some stores refuse a suffix that is longer than the object, and all of them one of an empty object.
            Err(error) if error.may_be_short() => match self.size(key).await {
                Some(0) => Ok(Tail { bytes: Bytes::new(), object_bytes: 0 }),
                Some(bytes) if bytes < len => {
                    let tail = self.get_tail_by_size(key, len).await?;
                    if error.is_out_of_range() {
                        self.give_up_suffix_ranges(&error);
                    }
                    Ok(tail)
                }
                _ => Err(error),
            },
            got => got,
        }
    }

    async fn get_tail_by_size(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        let at = path(key)?;
        let head = || async { self.inner.head(&at).await.map(|meta| (meta.size, 0)) };
        let object_bytes = self.read(key, Operation::range, READ_TIMEOUT, head).await?;
        if object_bytes == 0 {
            return Ok(Tail { bytes: Bytes::new(), object_bytes });
        }
        let end = object_bytes.saturating_sub(len)..object_bytes;
        let bytes = self.get_ranges(key, std::slice::from_ref(&end)).await?.pop().unwrap_or_default();
        Ok(Tail { bytes, object_bytes })
    }

    /// How long the object is, asked once, for who wonders about another error.
    async fn size(&self, key: &Key) -> Option<u64> {
        let at = path(key).ok()?;
        let head = async { self.inner.head(&at).await.map(|meta| (meta.size, 0)) };
        self.attempt(key, Operation::range, READ_TIMEOUT, head).await.ok()
    }

    async fn try_get_tail(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        let at = path(key)?;
        self.read_range(key, len, || async {
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
        self.retain_own(&mut folders, |folder| folder);
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
        let mut attempt = 0;
        loop {
            match self.create_once(key, bytes).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_conflict() => return Ok(false),
                Err(error) if self.is_worth_another(Operation::create, &error, attempt + 1) => {
                    attempt += 1;
                    self.back_off(attempt, &error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks once to create `key`; false if the store says that another was first.
    pub(crate) async fn try_create(&self, key: &Key, bytes: &Bytes) -> Result<bool, Error> {
        match self.create_once(key, bytes).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
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
        let cut_off = CutOff { bytes: range.start + bytes.len() as u64, wanted: range.end };
        Err(object_store::Error::Generic { store: "bucket", source: Box::new(cut_off) })
    }

    async fn create_once(&self, key: &Key, bytes: &Bytes) -> Result<(), Error> {
        let at = path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let limit = time_for(CREATE_TIMEOUT, bytes.len() as u64);
        self.retries.earn();
        let put = self.inner.put_opts(&at, bytes.clone().into(), options);
        self.attempt(key, Operation::create, limit, async { put.await.map(|_| ((), bytes.len() as u64)) })
            .await
    }

    /// Reads no further than the first difference, and never holds more than one piece.
    async fn compare(&self, key: &Key, expected: &Bytes) -> Result<Holds, Error> {
        let at = path(key)?;
        // As long as a create: whoever waits for the outcome of one waits for both.
        let limit = time_for(CREATE_TIMEOUT, expected.len() as u64);
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
        if let Ok(objects) = &listed {
            let pages = (objects.len() as u64).saturating_sub(1) / PAGE_OBJECTS;
            self.metrics.more_requests(Operation::list, from.as_str(), pages);
        }
        let mut objects = match listed {
            // A folder without objects is an empty list, whatever the store calls it.
            Err(Error::NotFound(_)) => Vec::new(),
            other => other?,
        };
        self.retain_own(&mut objects, |object| &object.key);
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
        self.repeat(operation, || self.attempt(key, operation, limit, request())).await
    }

    /// As [`Store::read`], for about `bytes` bytes of an object; each request is perhaps sent twice.
    async fn read_range<T, F>(&self, key: &Key, bytes: u64, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = object_store::Result<(T, u64)>>,
    {
        let limit = time_for(READ_TIMEOUT, bytes);
        let attempt = || self.attempt(key, Operation::range, limit, request());
        match &self.hedging {
            None => self.repeat(Operation::range, attempt).await,
            Some(hedging) => self.repeat(Operation::range, || self.hedge(hedging, bytes, &attempt)).await,
        }
    }

    async fn repeat<T, F>(&self, operation: Operation, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempts = 0;
        self.retries.earn();
        loop {
            match attempt().await {
                Err(error) if self.is_worth_another(operation, &error, attempts + 1) => {
                    attempts += 1;
                    self.back_off(attempts, &error).await;
                }
                settled => return settled,
            }
        }
    }

    /// The answer to `attempt`, or to the same one sent again if it takes unusually long, whichever comes first.
    async fn hedge<T, F>(&self, hedging: &Hedging, bytes: u64, attempt: &impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let began = self.clock.monotonic();
        let answer = match hedging.delay(bytes) {
            None => attempt().await,
            Some(delay) => self.first_of_two(delay, || hedging.spend(), attempt).await,
        };
        if answer.is_ok() {
            // If the second was quicker, the first would have taken longer still.
            hedging.took(bytes, self.clock.monotonic().saturating_sub(began));
        }
        answer
    }

    async fn first_of_two<T, F>(
        &self,
        delay: Duration,
        may_send: impl Fn() -> bool,
        attempt: &impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut first = pin!(attempt());
        if let Either::Left((answer, _)) = select(first.as_mut(), pin!(self.clock.sleep(delay))).await {
            return answer;
        }
        if !may_send() {
            self.metrics.hedge(Hedge::over_budget);
            return first.await;
        }
        let (outcome, answer) = match select(first, pin!(attempt())).await {
            Either::Left((Err(_), second)) => (Hedge::won, second.await),
            Either::Left((answer, _)) => (Hedge::lost, answer),
            Either::Right((Err(_), first)) => (Hedge::lost, first.await),
            Either::Right((answer, _)) => (Hedge::won, answer),
        };
        self.metrics.hedge(outcome);
        answer
    }

    /// One request, metered whatever becomes of it.
    async fn attempt<T>(
        &self,
        key: &Key,
        operation: Operation,
        limit: Duration,
        request: impl Future<Output = object_store::Result<(T, u64)>>,
    ) -> Result<T, Error> {
        let mut sent = Sent { store: self, key, operation, began: self.clock.monotonic(), is_over: false };
        match self.clock.timeout(limit, request).await {
            Some(Ok((value, bytes))) => {
                sent.ended(Outcome::ok, bytes);
                Ok(value)
            }
            Some(Err(source)) => {
                let (outcome, error) = failed(&self.place, key, operation, source);
                sent.ended(outcome, 0);
                Err(error)
            }
            None => {
                sent.ended(Outcome::timeout, 0);
                Err(Error::Timeout { store: self.place.clone(), key: key.clone(), limit })
            }
        }
    }

    /// What `request` gives, which must begin to answer in time however long its answer is.
    async fn begun<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let silent = || {
            let source = format!("no answer began within {READ_TIMEOUT:?}").into();
            object_store::Error::Generic { store: "bucket", source }
        };
        self.clock.timeout(READ_TIMEOUT, request).await.unwrap_or_else(|| Err(silent()))
    }

    /// Whether a request that failed for the `attempt`th time is sent again.
    fn is_worth_another(&self, operation: Operation, error: &Error, attempt: u32) -> bool {
        error.may_pass() && attempt < READ_ATTEMPTS && self.may_retry(operation)
    }

    fn may_retry(&self, operation: Operation) -> bool {
        let may = self.retries.spend();
        self.metrics.retry(operation, if may { Retry::sent } else { Retry::over_budget });
        may
    }

    async fn back_off(&self, attempt: u32, after: &Error) {
        let (shortest, asked) = match after {
            Error::Backend { problem: Problem::Throttled { retry_after, .. }, .. } => {
                (BACKOFF_THROTTLED, retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
            }
            _ => (BACKOFF, Duration::ZERO),
        };
        let longest = shortest * (1 << (attempt - 1).min(6));
        // Between half and all of it, so that processes which failed together do not return together.
        let share = 0.5 + (self.clock.random() as u32 as f64) / (f64::from(u32::MAX) * 2.0);
        self.clock.sleep(asked + longest.mul_f64(share)).await;
    }
}

/// A request under way. Dropped before its end, it counts as cancelled.
struct Sent<'a> {
    store: &'a Store,
    key: &'a Key,
    operation: Operation,
    began: Duration,
    is_over: bool,
}

impl Sent<'_> {
    fn ended(&mut self, outcome: Outcome, bytes: u64) {
        self.is_over = true;
        let took = self.store.clock.monotonic().saturating_sub(self.began);
        self.store.metrics.request(self.operation, self.key.as_str(), outcome, took, bytes);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.ended(Outcome::cancelled, 0);
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
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
    Path::parse(key.as_str())
        .map_err(|source| failed(&"storage".into(), key, Operation::get, source.into()).1)
}

fn time_for(base: Duration, bytes: u64) -> Duration {
    base + Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN)
}

fn failed(
    store: &Arc<str>,
    key: &Key,
    operation: Operation,
    source: object_store::Error,
) -> (Outcome, Error) {
    if let object_store::Error::NotFound { .. } = source {
        return (Outcome::not_found, Error::NotFound(key.clone()));
    }
    if let object_store::Error::Generic { source, .. } = &source
        && let Some(CutOff { bytes, wanted }) = source.downcast_ref()
    {
        return (Outcome::error, Error::Short { key: key.clone(), bytes: *bytes, wanted: *wanted });
    }
    let problem = Problem::of(operation, &source);
    let outcome = match (&source, &problem) {
        (object_store::Error::AlreadyExists { .. }, _) => Outcome::exists,
        (_, Problem::Throttled { .. }) => Outcome::throttled,
        (_, Problem::Denied { .. } | Problem::NotAllowed { .. }) => Outcome::denied,
        _ => Outcome::error,
    };
    let (store, key) = (store.clone(), key.clone());
    (outcome, Error::Backend { store, key, problem, cause: Box::new(source) })
}
