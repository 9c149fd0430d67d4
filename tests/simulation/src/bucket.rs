//! The bucket that all processes of a run share, and the network to it.
//!
//! Owns: the fate of each request: its latency, whether it arrives, whether its answer does.
//! Does not own: which content is right ([`crate::oracle`]).
//!
//! A request is independent of its sender: it goes on if the process dies or stops waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use storage::{IdTag, Key};
use tokio::sync::oneshot;

use crate::executor::{Executor, ProcessId, START};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::random::Random;

/// Tag of the ids of the simulated cluster, and of another cluster whose objects are mixed in.
pub(crate) const ID_TAG: IdTag = IdTag(0x0001_c5e5);
const OTHER_ID_TAG: IdTag = IdTag(0x0002_c5e5);

/// Time after which the client of a real bucket gives up a request without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Frequency of each fault, in thousandths of the requests, and latencies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) fail: u64,
    pub(crate) lose_request: u64,
    pub(crate) lose_reply: u64,
    pub(crate) false_conflict: u64,
    pub(crate) slow: u64,
    pub(crate) repeat: u64,
    pub(crate) latency_millis: u64,
    pub(crate) slow_millis: u64,
}

#[derive(Clone)]
pub(crate) struct Bucket(Arc<Inner>);

struct Inner {
    executor: Executor,
    /// The process of travelling requests; it never dies.
    process: ProcessId,
    journal: Journal,
    oracle: Oracle,
    objects: Objects,
    /// A planted bug: creates replace existing objects.
    overwrites: bool,
    state: Mutex<State>,
}

/// The objects themselves, without a network.
#[derive(Clone, Default)]
pub(crate) struct Objects(Arc<Mutex<BTreeMap<String, StoredObject>>>);

#[derive(Clone)]
struct StoredObject {
    bytes: Bytes,
    created: Duration,
}

struct State {
    random: Random,
    rates: Rates,
    /// Machines cut off from the bucket.
    cut: BTreeSet<Machine>,
    traps: Vec<Trap>,
}

/// An action to run when a machine next creates an object below a folder.
pub(crate) struct Trap {
    pub(crate) machine: Machine,
    pub(crate) folder: &'static str,
    /// Whether the action runs before the request instead of after it.
    pub(crate) is_before: bool,
    pub(crate) action: Box<dyn FnOnce() + Send>,
}

/// The fate of one request.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    there: Duration,
    back: Duration,
    kind: DeliveryKind,
    repeat_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DeliveryKind {
    Pass,
    Fail,
    LoseRequest,
    LoseReply,
    FalseConflict,
}

impl Bucket {
    pub(crate) fn new(
        executor: Executor,
        journal: Journal,
        oracle: Oracle,
        random: Random,
        overwrites: bool,
    ) -> Self {
        let process = executor.start("bucket");
        let state = State { random, rates: Rates::default(), cut: BTreeSet::new(), traps: Vec::new() };
        let objects = Objects::default();
        Self(Arc::new(Inner {
            executor,
            process,
            journal,
            oracle,
            objects,
            overwrites,
            state: Mutex::new(state),
        }))
    }

    pub(crate) fn set_rates(&self, rates: Rates) {
        self.0.state.lock().rates = rates;
    }

    pub(crate) fn cut(&self, machine: Machine) {
        self.0.state.lock().cut.insert(machine);
    }

    pub(crate) fn heal(&self, machine: Machine) {
        self.0.state.lock().cut.remove(&machine);
    }

    pub(crate) fn set(&self, trap: Trap) {
        self.0.state.lock().traps.push(trap);
    }

    pub(crate) fn clear_traps(&self) {
        let traps = std::mem::take(&mut self.0.state.lock().traps);
        drop(traps);
    }

    fn spring(&self, machine: Machine, key: &str, is_before: bool) {
        let mut state = self.0.state.lock();
        let sprung = |trap: &Trap| {
            trap.machine == machine && trap.is_before == is_before && key.starts_with(trap.folder)
        };
        let sprung = state.traps.iter().position(sprung).map(|index| state.traps.swap_remove(index));
        drop(state);
        if let Some(trap) = sprung {
            (trap.action)();
        }
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// The bucket as seen from one machine.
    pub(crate) fn from(&self, machine: Machine) -> Arc<dyn ObjectStore> {
        Arc::new(BucketClient { bucket: self.clone(), machine })
    }

    fn draw(&self, machine: Machine, is_create: bool) -> Delivery {
        let mut state = self.0.state.lock();
        let rates = state.rates;
        let is_cut = state.cut.contains(&machine);
        let random = &mut state.random;
        let slowest = if random.chance(rates.slow) { rates.slow_millis } else { rates.latency_millis };
        let (there, back) = (random.millis(0, slowest), random.millis(0, slowest));
        let mut dice = random.below(1000);
        let mut falls = |rate: u64| {
            let falls = dice < rate;
            dice = dice.wrapping_sub(rate);
            falls
        };
        let kind = if is_cut {
            if random.chance(100) { DeliveryKind::LoseReply } else { DeliveryKind::LoseRequest }
        } else if falls(rates.fail) {
            DeliveryKind::Fail
        } else if falls(rates.lose_request) {
            DeliveryKind::LoseRequest
        } else if falls(rates.lose_reply) {
            DeliveryKind::LoseReply
        } else if falls(rates.false_conflict) && is_create {
            DeliveryKind::FalseConflict
        } else {
            DeliveryKind::Pass
        };
        let repeats = is_create && random.chance(rates.repeat);
        let repeat_after = repeats.then(|| random.millis(100, 60_000));
        Delivery { there, back, kind, repeat_after }
    }

    /// Sends a request, and waits for its answer.
    async fn request<T: Send + 'static>(
        &self,
        machine: Machine,
        operation: &'static str,
        key: String,
        work: impl Fn(&Inner) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let fate = self.draw(machine, operation == "create");
        let (reply, answer) = oneshot::channel();
        let this = self.clone();
        let shown = key.clone();
        let travel = async move {
            let inner = &*this.0;
            inner.executor.sleep(fate.there).await;
            let result = match fate.kind {
                DeliveryKind::LoseRequest => {
                    inner.journal.note(format_args!("{machine} {operation} {key}: lost on the way"));
                    inner.executor.sleep(SILENCE_MAX).await;
                    Err(broken())
                }
                DeliveryKind::Fail => {
                    inner.journal.note(format_args!("{machine} {operation} {key}: refused"));
                    Err(broken())
                }
                DeliveryKind::FalseConflict => {
                    inner.journal.note(format_args!("{machine} {operation} {key}: false conflict"));
                    Err(Error::AlreadyExists { path: key.clone(), source: "a false conflict".into() })
                }
                DeliveryKind::Pass | DeliveryKind::LoseReply => {
                    if operation == "create" {
                        this.spring(machine, &key, true);
                    }
                    let done = work(inner);
                    let outcome = match &done {
                        Ok(_) => "ok".to_owned(),
                        Err(Error::AlreadyExists { .. }) => "exists".to_owned(),
                        Err(Error::NotFound { .. }) => "not found".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let lost = if fate.kind == DeliveryKind::LoseReply { ", reply lost" } else { "" };
                    inner.journal.note(format_args!("{machine} {operation} {key}: {outcome}{lost}"));
                    if operation == "create" {
                        this.spring(machine, &key, false);
                    }
                    if fate.kind == DeliveryKind::LoseReply { Err(broken()) } else { done }
                }
            };
            inner.executor.sleep(fate.back).await;
            let _ = reply.send(result);
            if let Some(after) = fate.repeat_after {
                inner.executor.sleep(after).await;
                let outcome = if work(inner).is_ok() { "ok" } else { "exists" };
                inner.journal.note(format_args!("{machine} {operation} {key}, once more: {outcome}"));
            }
        };
        self.0.executor.spawn(self.0.process, travel);
        answer.await.unwrap_or_else(|_| Err(lost(&shown)))
    }
}

fn is_other(key: &Key) -> bool {
    key.id().is_some_and(|id| OTHER_ID_TAG.is_of(id))
}

fn broken() -> Error {
    Error::Generic { store: "bucket", source: "a fault of the simulation".into() }
}

fn lost(key: &str) -> Error {
    Error::Generic { store: "bucket", source: format!("no answer about {key}").into() }
}

fn not_found(key: &str) -> Error {
    Error::NotFound { path: key.to_owned(), source: "no such object".into() }
}

impl Inner {
    fn create(&self, key: &str, bytes: Bytes) -> Result<PutResult> {
        let mut objects = self.objects.0.lock();
        if objects.contains_key(key) && !self.overwrites {
            let source = "there is one".into();
            return Err(Error::AlreadyExists { path: key.to_owned(), source });
        }
        let created = START + self.executor.now();
        objects.insert(key.to_owned(), StoredObject { bytes: bytes.clone(), created });
        drop(objects);
        self.oracle.created(&Key::from_text(key), &bytes);
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.objects.0.lock().remove(key);
        self.oracle.deleted(&Key::from_text(key), self.executor.now());
        Ok(())
    }
}

impl Objects {
    /// A bucket with one object.
    pub(crate) fn one(key: &Key, bytes: &Bytes) -> Self {
        let objects = Self::default();
        let stored = StoredObject { bytes: bytes.clone(), created: START };
        objects.0.lock().insert(key.to_string(), stored);
        objects
    }

    /// A copy of the current objects, independent of later changes.
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    /// A copy of the current objects whose keys begin with `prefix`.
    pub(crate) fn below(&self, prefix: &str) -> Self {
        let copy = self.fork();
        copy.0.lock().retain(|key, _| key.starts_with(prefix));
        copy
    }

    /// A copy of the current objects, with those below `prefix` taken from `others` instead.
    pub(crate) fn with_folder(&self, prefix: &str, others: &Self) -> Self {
        let copy = self.fork();
        copy.0.lock().retain(|key, _| !key.starts_with(prefix));
        copy.0.lock().extend(others.0.lock().clone());
        copy
    }

    /// Copies one object, if it exists.
    pub(crate) fn take(&self, key: &Key, from: &Self) {
        let stored = from.0.lock().get(key.as_str()).cloned();
        if let Some(stored) = stored {
            self.0.lock().insert(key.to_string(), stored);
        }
    }

    /// Deletes the objects whose keys begin with `prefix`, like an operator with a plain tool.
    pub(crate) fn lose(&self, prefix: &str) {
        self.0.lock().retain(|key, _| !key.starts_with(prefix));
    }

    /// Copies each segment, block and record to an id of another cluster, as if the folders of two buckets had been
    /// mixed.
    pub(crate) fn mix_in_others(&self) {
        let mut objects = self.0.lock();
        let others = objects.iter().filter_map(|(key, stored)| {
            let id = Key::from_text(key).id().filter(|id| ID_TAG.is_of(*id))?;
            let other = key.replace(&format!("{id:032x}"), &format!("{:032x}", OTHER_ID_TAG.mark(id)));
            Some((other, stored.clone()))
        });
        let others: Vec<(String, StoredObject)> = others.collect();
        objects.extend(others);
    }

    /// The objects of another cluster that were mixed in.
    pub(crate) fn others(&self) -> Vec<(Key, Bytes)> {
        self.0
            .lock()
            .iter()
            .map(|(key, stored)| (Key::from_text(key), stored.bytes.clone()))
            .filter(|(key, _)| is_other(key))
            .collect()
    }

    /// Keys of the simulated cluster.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.0.lock().keys().map(Key::from_text).filter(|key| !is_other(key)).collect()
    }

    /// Objects of the simulated cluster.
    pub(crate) fn all(&self) -> Vec<(Key, Bytes)> {
        self.0
            .lock()
            .iter()
            .map(|(key, stored)| (Key::from_text(key), stored.bytes.clone()))
            .filter(|(key, _)| !is_other(key))
            .collect()
    }

    /// Time at which the object was created.
    pub(crate) fn created(&self, key: &Key) -> Option<Duration> {
        self.0.lock().get(key.as_str()).map(|stored| stored.created - START)
    }

    /// A hash of every key and its bytes.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = xxhash_rust::xxh3::Xxh3::new();
        for (key, stored) in &*self.0.lock() {
            digest.update(key.as_bytes());
            digest.update(&stored.bytes);
        }
        digest.digest()
    }

    /// A store of these objects that never fails.
    pub(crate) fn store(&self, clock: clock::Clock) -> storage::Store {
        storage::Store::new(Arc::new(Direct(self.clone())), clock, storage::Metrics::default()).tagged(ID_TAG)
    }

    fn meta(key: &str, stored: &StoredObject) -> Result<ObjectMeta> {
        let location = Path::parse(key).map_err(Error::from)?;
        let last_modified = (UNIX_EPOCH + stored.created).into();
        Ok(ObjectMeta {
            location,
            last_modified,
            size: stored.bytes.len() as u64,
            e_tag: None,
            version: None,
        })
    }

    fn get(&self, key: &str, options: &GetOptions) -> Result<GetResult> {
        let objects = self.0.lock();
        let stored = objects.get(key).ok_or_else(|| not_found(key))?;
        let meta = Self::meta(key, stored)?;
        let range = match &options.range {
            Some(range) => {
                let range = range.as_range(meta.size);
                range.map_err(|error| Error::Generic { store: "bucket", source: error.into() })?
            }
            None => 0..meta.size,
        };
        let bytes = stored.bytes.slice(range.start as usize..range.end as usize);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn list(&self, prefix: Option<&Path>, after: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let objects = self.0.lock();
        let prefix = prefix.map(Path::as_ref).unwrap_or_default();
        let listed = objects.iter().filter(|(key, _)| {
            let rest = key.strip_prefix(prefix);
            let is_below = rest.is_some_and(|rest| prefix.is_empty() || rest.starts_with('/'));
            is_below && after.is_none_or(|after| key.as_str() > after.as_ref())
        });
        listed.map(|(key, stored)| Self::meta(key, stored)).collect()
    }

    fn list_folders(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut common_prefixes = BTreeSet::new();
        let mut objects = Vec::new();
        let len = prefix.map_or(0, |prefix| prefix.as_ref().len() + 1);
        for meta in self.list(prefix, None)? {
            match meta.location.as_ref().get(len..).and_then(|rest| rest.find('/')) {
                Some(end) => _ = common_prefixes.insert(meta.location.as_ref()[..len + end].to_owned()),
                None => objects.push(meta),
            }
        }
        let common_prefixes = common_prefixes.iter().map(Path::parse).collect::<Result<_, _>>()?;
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }
}

struct BucketClient {
    bucket: Bucket,
    machine: Machine,
}

#[async_trait]
impl ObjectStore for BucketClient {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            return Err(Error::NotImplemented {
                operation: "overwriting".into(),
                implementer: "bucket".into(),
            });
        }
        let (key, bytes) = (location.to_string(), Bytes::from(payload));
        let path = key.clone();
        self.bucket
            .request(self.machine, "create", key, move |inner| inner.create(&path, bytes.clone()))
            .await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: "bucket".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (key, path) = (location.to_string(), location.to_string());
        self.bucket.request(self.machine, "get", key, move |inner| inner.objects.get(&path, &options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (bucket, machine) = (self.bucket.clone(), self.machine);
        locations
            .then(move |location| {
                let bucket = bucket.clone();
                async move {
                    let location = location?;
                    let (key, path) = (location.to_string(), location.to_string());
                    bucket.request(machine, "delete", key, move |inner| inner.delete(&path)).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list_later(self.bucket.clone(), self.machine, prefix.cloned(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        list_later(self.bucket.clone(), self.machine, prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let key = prefix.map(Path::to_string).unwrap_or_default();
        let prefix = prefix.cloned();
        self.bucket
            .request(self.machine, "folders", key, move |inner| inner.objects.list_folders(prefix.as_ref()))
            .await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copying".into(), implementer: "bucket".into() })
    }
}

fn list_later(
    bucket: Bucket,
    machine: Machine,
    prefix: Option<Path>,
    after: Option<Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let key = prefix.as_ref().map(Path::to_string).unwrap_or_default();
    let listed = async move {
        let list = move |inner: &Inner| inner.objects.list(prefix.as_ref(), after.as_ref());
        let listed = bucket.request(machine, "list", key, list).await?;
        Ok::<_, Error>(stream::iter(listed.into_iter().map(Ok)))
    };
    listed.into_stream().try_flatten().boxed()
}

impl fmt::Display for BucketClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket seen from {}", self.machine)
    }
}

impl fmt::Debug for BucketClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Direct(Objects);

#[async_trait]
impl ObjectStore for Direct {
    async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        let mut objects = self.0.0.lock();
        if objects.contains_key(location.as_ref()) {
            let source = "there is one".into();
            return Err(Error::AlreadyExists { path: location.to_string(), source });
        }
        let newest = objects.values().map(|stored| stored.created).max().unwrap_or(START);
        objects.insert(location.to_string(), StoredObject { bytes: payload.into(), created: newest });
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: "bucket".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get(location.as_ref(), &options)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let objects = self.0.0.lock();
        let stored = objects.get(location.as_ref()).ok_or_else(|| not_found(location.as_ref()))?;
        Ok(ranges.iter().map(|r| stored.bytes.slice(r.start as usize..r.end as usize)).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let objects = self.0.clone();
        let delete = move |location: Path| {
            objects.0.lock().remove(location.as_ref());
            location
        };
        locations.map_ok(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.0.list(prefix, None) {
            Ok(listed) => stream::iter(listed.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_folders(prefix)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copying".into(), implementer: "bucket".into() })
    }
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
