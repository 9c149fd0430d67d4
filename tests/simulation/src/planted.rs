//! Bugs that are planted on purpose: the oracle has to find each of them.
//!
//! Owns: a bug for each step of the protocols, implemented by a wrapper between a role and its dependency.
//! Does not own: anything in the roles; they have no switch for this.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use catalog::rows::{Dedup, Resignation, Row as _, Segment};
use catalog::{Batch, Catalog, Engine, Row, View};
use futures::stream::{BoxStream, StreamExt};
use metastore::Parts;
use metastore::header::{self, Header, Headers};
use model::{ItemKey, PushItem};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use query::{Matcher, Selector};
use rpc::{
    DeleteRequest, DeletionStatus, FindRequest, Job, Publication, PublishOutcome, ScanAnswer, ScanRequest,
    SegmentHint, Snapshot,
};
use storage::Key;

use crate::executor::Executor;
use crate::load::SERVICES;
use crate::machine::{Kind, Machine};

macro_rules! planted {
    ($($(#[doc = $text:literal])* $name:ident,)*) => {
        /// One bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Planted { $($(#[doc = $text])* $name,)* }

        impl Planted {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The bug in words.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => concat!($($text),*).trim_ascii(),)* }
            }
        }
    };
}

planted! {
    /// an ingester takes a segment for durable before it is
    AckBeforeDurable,
    /// a distributor acknowledges items that no ingester took
    AckWithoutIngester,
    /// an ingester takes a slot filled by another writer for its own
    SealIgnored,
    /// an ingester acknowledges a segment that the store did not settle
    AckInDoubt,
    /// the bucket replaces existing objects
    Overwrites,
    /// a log is closed one slot too far up
    SealTooFar,
    /// a gap is taken for the end of a log
    GapTakenForSeal,
    /// a metastore gets hints of segments that do not exist
    HintOfMissingSegment,
    /// a retry at another ingester has another key
    NewKeyOnRetry,
    /// item keys are forgotten at once
    NoWindow,
    /// a successor does not load the keys of its predecessor
    KeysNotLoaded,
    /// masks are not applied by merges
    MasksNotMerged,
    /// masks are not applied by queries
    MasksNotAsked,
    /// a fenced owner does not notice the fence
    FenceIgnored,
    /// an owner announces its resignation, and stays
    ResignsAndStays,
    /// a log moves on in the catalog without its segments' rows
    SegmentRowsLost,
    /// the rows of merged inputs stay
    InputRowsStay,
    /// the record of a publish is not written
    RecordLost,
    /// an output of a merge is not written
    OutputLost,
    /// an output of a merge is not published
    OutputForgotten,
    /// an input of a job is not merged
    InputForgotten,
    /// neither a rebuild nor the check for one sees publish records
    RecordsUnseen,
    /// objects of another cluster are taken for own ones
    OthersTakenForOwn,
    /// dead objects are deleted at once
    NoGrace,
    /// swept objects are not deleted from the bucket
    DeleteLost,
    /// deletions are not applied by queries
    DeletionsNotAsked,
    /// deletions are not applied by merges
    DeletionsNotMerged,
    /// a deletion erases all of a service
    DeletionTooWide,
    /// a deletion is not written
    DeletionLost,
    /// data are never expired
    NoRetention,
    /// a leaf counts an object twice
    ObjectScannedTwice,
    /// a leaf leaves out an object and does not report it as missing
    ObjectLeftOut,
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::str::FromStr for Planted {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let named = Self::ALL.iter().find(|planted| planted.to_string() == name);
        named.copied().ok_or_else(|| format!("unknown bug {name:?}"))
    }
}

impl Planted {
    pub(crate) fn store(
        self,
        machine: Machine,
        way: Arc<dyn ObjectStore>,
        executor: &Executor,
    ) -> Arc<dyn ObjectStore> {
        Arc::new(BadStore { planted: self, machine, way, executor: executor.clone() })
    }

    pub(crate) fn ingester(self, to: Machine, ingester: Arc<dyn rpc::Ingester>) -> Arc<dyn rpc::Ingester> {
        Arc::new(BadIngester { planted: self, to, ingester })
    }

    pub(crate) fn distributor(self, ingesters: Arc<dyn rpc::Ingester>) -> Arc<dyn rpc::Ingester> {
        Arc::new(BadDistributor { planted: self, ingesters })
    }

    pub(crate) fn metastore(self, metastore: Arc<dyn rpc::Metastore>) -> Arc<dyn rpc::Metastore> {
        Arc::new(BadMetastore { planted: self, metastore })
    }

    pub(crate) fn leaf(self, leaf: Arc<dyn rpc::Leaf>) -> Arc<dyn rpc::Leaf> {
        Arc::new(BadLeaf { planted: self, leaf })
    }

    pub(crate) fn parts(self, parts: Parts) -> Parts {
        let headers = Arc::new(BadHeaders { planted: self, headers: parts.headers });
        let engine = Arc::new(BadEngine { planted: self, engine: parts.engine });
        Parts { headers, engine, ..parts }
    }

    pub(crate) fn config(self, config: metastore::Config) -> metastore::Config {
        let nothing = limits::Duration::from_secs(0);
        match self {
            Self::NoWindow => metastore::Config { dedup_window: nothing, dedup_slack: nothing, ..config },
            Self::NoGrace => metastore::Config { sweep_grace: nothing, ..config },
            _ => config,
        }
    }
}

struct BadStore {
    planted: Planted,
    machine: Machine,
    way: Arc<dyn ObjectStore>,
    executor: Executor,
}

fn done() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

#[async_trait]
impl ObjectStore for BadStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_below = |folder: &str| location.as_ref().starts_with(folder);
        match (self.planted, self.machine.kind) {
            (Planted::AckBeforeDurable, Kind::Ingester) if is_below("log/") => {
                let (way, location) = (self.way.clone(), location.clone());
                let process = self.executor.start("late");
                let executor = self.executor.clone();
                self.executor.spawn(process, async move {
                    executor.sleep(Duration::from_millis(500)).await;
                    _ = way.put_opts(&location, payload, options).await;
                });
                Ok(done())
            }
            (Planted::SealIgnored, Kind::Ingester) => {
                match self.way.put_opts(location, payload, options).await {
                    Err(Error::AlreadyExists { .. }) => Ok(done()),
                    put => put,
                }
            }
            (Planted::AckInDoubt, Kind::Ingester) => {
                match self.way.put_opts(location, payload, options).await {
                    Err(Error::Generic { .. }) => Ok(done()),
                    put => put,
                }
            }
            (Planted::SealTooFar, Kind::Metastore) if is_below("log/") => {
                let key = Key::from_text(location.to_string());
                let further = key.parse_log_slot().map(|(writer, seq)| Key::log_slot(writer, seq + 1));
                let further = Path::parse(further.unwrap_or(key).as_str())?;
                self.way.put_opts(&further, payload, options).await
            }
            (Planted::RecordLost, Kind::Metastore) if is_below("publish/") => Ok(done()),
            (Planted::DeletionLost, Kind::Metastore) if is_below("delete/") => Ok(done()),
            (Planted::OutputLost, Kind::Compactor) if is_below("block/") => Ok(done()),
            _ => self.way.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.way.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.way.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match (self.planted, self.machine.kind) {
            (Planted::DeleteLost, Kind::Compactor) => locations.boxed(),
            _ => self.way.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let is_of_records = prefix.is_some_and(|prefix| prefix.as_ref() == "publish");
        match (self.planted, self.machine.kind) {
            (Planted::RecordsUnseen, Kind::Metastore) if is_of_records => futures::stream::empty().boxed(),
            _ => self.way.list(prefix),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.way.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.way.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.way.copy_opts(from, to, options).await
    }
}

impl fmt::Debug for BadStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.way, f)
    }
}

impl fmt::Display for BadStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.way, f)
    }
}

struct BadDistributor {
    planted: Planted,
    ingesters: Arc<dyn rpc::Ingester>,
}

#[async_trait]
impl rpc::Ingester for BadDistributor {
    async fn push(&self, items: Vec<PushItem>) -> std::result::Result<(), rpc::Error> {
        match self.ingesters.push(items).await {
            Err(_) if self.planted == Planted::AckWithoutIngester => Ok(()),
            pushed => pushed,
        }
    }
}

struct BadIngester {
    planted: Planted,
    to: Machine,
    ingester: Arc<dyn rpc::Ingester>,
}

#[async_trait]
impl rpc::Ingester for BadIngester {
    async fn push(&self, mut items: Vec<PushItem>) -> std::result::Result<(), rpc::Error> {
        if self.planted == Planted::NewKeyOnRetry {
            items
                .iter_mut()
                .for_each(|item| item.key = ItemKey(item.key.0 ^ u128::from(self.to.number) << 90));
        }
        self.ingester.push(items).await
    }
}

struct BadMetastore {
    planted: Planted,
    metastore: Arc<dyn rpc::Metastore>,
}

#[async_trait]
impl rpc::Relay for BadMetastore {
    async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> std::result::Result<T, rpc::Error> {
        call.on(self.metastore.clone()).await
    }

    async fn segment_written(&self, mut hint: SegmentHint) -> std::result::Result<(), rpc::Error> {
        self.metastore.segment_written(hint.clone()).await?;
        if self.planted == Planted::HintOfMissingSegment {
            hint.seq += 1;
            self.metastore.segment_written(hint).await?;
        }
        Ok(())
    }

    async fn find(&self, request: FindRequest) -> std::result::Result<Snapshot, rpc::Error> {
        let mut snapshot = self.metastore.find(request).await?;
        match self.planted {
            Planted::MasksNotAsked => snapshot.objects.iter_mut().for_each(|object| object.masked.clear()),
            Planted::DeletionsNotAsked => {
                snapshot.objects.iter_mut().for_each(|object| object.deletions.clear())
            }
            _ => {}
        }
        Ok(snapshot)
    }

    async fn claim_job(&self) -> std::result::Result<Option<Job>, rpc::Error> {
        let mut job = self.metastore.claim_job().await?;
        match (self.planted, &mut job) {
            (Planted::MasksNotMerged, Some(job)) => job.inputs.iter_mut().for_each(|i| i.masked.clear()),
            (Planted::DeletionsNotMerged, Some(job)) => {
                job.inputs.iter_mut().for_each(|i| i.deletions.clear())
            }
            (Planted::InputForgotten, Some(job)) if job.inputs.len() > 1 => _ = job.inputs.pop(),
            _ => {}
        }
        Ok(job)
    }

    async fn publish(&self, mut publication: Publication) -> std::result::Result<PublishOutcome, rpc::Error> {
        if self.planted == Planted::OutputForgotten {
            publication.outputs.pop();
        }
        self.metastore.publish(publication).await
    }

    async fn delete(&self, mut request: DeleteRequest) -> std::result::Result<DeletionStatus, rpc::Error> {
        if self.planted == Planted::DeletionTooWide {
            request.selector = Selector { matchers: vec![Matcher::equal("service_name", SERVICES[0])] };
        }
        self.metastore.delete(request).await
    }
}

struct BadLeaf {
    planted: Planted,
    leaf: Arc<dyn rpc::Leaf>,
}

#[async_trait]
impl rpc::Leaf for BadLeaf {
    async fn scan(&self, mut request: ScanRequest) -> std::result::Result<ScanAnswer, rpc::Error> {
        match self.planted {
            Planted::ObjectScannedTwice => {
                let copy = request.objects.first().cloned();
                request.objects.extend(copy);
            }
            Planted::ObjectLeftOut => _ = request.objects.pop(),
            _ => {}
        }
        self.leaf.scan(request).await
    }
}

struct BadHeaders {
    planted: Planted,
    headers: Arc<dyn Headers>,
}

#[async_trait]
impl Headers for BadHeaders {
    async fn read(&self, key: &Key, listed_bytes: Option<u64>) -> std::result::Result<Header, header::Error> {
        match self.headers.read(key, listed_bytes).await? {
            Header::Absent if self.planted == Planted::GapTakenForSeal => Ok(Header::Seal),
            header => Ok(header),
        }
    }
}

struct BadEngine {
    planted: Planted,
    engine: Arc<dyn Engine>,
}

#[async_trait]
impl Engine for BadEngine {
    async fn exists(&self) -> std::result::Result<bool, catalog::Error> {
        self.engine.exists().await
    }

    async fn open(&self) -> std::result::Result<Arc<dyn Catalog>, catalog::Error> {
        let catalog = self.engine.open().await?;
        Ok(Arc::new(BadCatalog { planted: self.planted, catalog }))
    }

    async fn view(&self) -> std::result::Result<Box<dyn View>, catalog::Error> {
        self.engine.view().await
    }
}

struct BadCatalog {
    planted: Planted,
    catalog: Arc<dyn Catalog>,
}

#[async_trait]
impl Catalog for BadCatalog {
    fn epoch(&self) -> u64 {
        self.catalog.epoch()
    }

    fn version(&self) -> u64 {
        self.catalog.version()
    }

    async fn commit(&self, mut batch: Batch) -> std::result::Result<u64, catalog::Error> {
        let segments = Segment::KIND.keys();
        match self.planted {
            Planted::SegmentRowsLost => {
                batch.changes.retain(|(key, value)| value.is_none() || !segments.contains(key));
            }
            Planted::InputRowsStay => {
                batch.changes.retain(|(key, value)| value.is_some() || !segments.contains(key));
            }
            Planted::ResignsAndStays => Resignation { epoch: self.epoch() }.put_into(&mut batch),
            _ => {}
        }
        match self.catalog.commit(batch).await {
            Err(catalog::Error::Fenced { .. }) if self.planted == Planted::FenceIgnored => Ok(self.version()),
            committed => committed,
        }
    }

    async fn check(&self) -> std::result::Result<(), catalog::Error> {
        match self.catalog.check().await {
            Err(catalog::Error::Fenced { .. }) if self.planted == Planted::FenceIgnored => Ok(()),
            checked => checked,
        }
    }

    async fn range(&self, keys: Range<Bytes>) -> std::result::Result<Vec<Row>, catalog::Error> {
        if self.planted == Planted::KeysNotLoaded && keys == Dedup::KIND.keys() {
            return Ok(Vec::new());
        }
        self.catalog.range(keys).await
    }

    async fn compact(&self, version: u64) -> std::result::Result<(), catalog::Error> {
        self.catalog.compact(version).await
    }

    fn has_forgotten(&self, version: u64) -> bool {
        self.catalog.has_forgotten(version)
    }

    async fn maintain(&self) -> std::result::Result<(), catalog::Error> {
        self.catalog.maintain().await
    }
}
