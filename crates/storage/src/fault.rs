//! Stores that fail on purpose, for tests.
//!
//! Each request to [`Faulty`] meets the fault that a rule or a script names, or else one that its seed draws from
//! [`Rates`]. [`Fault`] covers every outcome seen on real stores. The times of objects are those of the store's
//! [`Clock`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use clock::Clock;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// The fault of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The request is carried out.
    None,
    /// An error, and no effect.
    Fail,
    /// The request is carried out, but the reply is an error.
    LoseReply,
    /// "Already exists", and no effect. Reads: as [`Fault::Fail`].
    FalseConflict,
    /// The request does not reach the store, and no answer comes for this long; then an error.
    Silence(Duration),
    /// The error of a directory without space, which does not pass soon, and no effect.
    Full,
    /// An error now; a create is carried out after this long all the same. Reads: as [`Fault::Fail`].
    LandLate(Duration),
}

/// How often each fault strikes, in thousandths of the requests.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rates {
    pub fail: u32,
    pub lose_reply: u32,
    pub false_conflict: u32,
    pub silence: u32,
    pub land_late: u32,
    /// Longest pause before a request is carried out; the shortest is 0.
    pub latency: Duration,
    /// Longest time of [`Fault::Silence`] and [`Fault::LandLate`].
    pub long: Duration,
}

/// A store with faults. Cheap to clone; clones share script, rates and seed.
#[derive(Clone)]
pub struct Faulty(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    clock: Clock,
    state: Mutex<State>,
}

/// The fault that a request to this key meets; `None` leaves it to script and rates.
type Rule = Box<dyn Fn(&str) -> Option<Fault> + Send>;

struct State {
    create_rule: Option<Rule>,
    denies_deletes: bool,
    seed: u64,
    rates: Rates,
    creates: VecDeque<Fault>,
    reads: VecDeque<Fault>,
    requests: u64,
    /// Unix time of each object's creation, by this store's clock.
    created: BTreeMap<Path, Duration>,
}

impl Faulty {
    /// A faultless store until a script or rates say otherwise.
    pub fn new(store: Arc<dyn ObjectStore>, clock: Clock, seed: u64) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            state: Mutex::new(State {
                create_rule: None,
                denies_deletes: false,
                seed,
                rates: Rates::default(),
                creates: VecDeque::new(),
                reads: VecDeque::new(),
                requests: 0,
                created: BTreeMap::new(),
            }),
        }))
    }

    /// Applies to requests that no script covers.
    pub fn set_rates(&self, rates: Rates) {
        self.0.state.lock().rates = rates;
    }

    /// Decides about creates by their key, before script and rates do.
    pub fn set_create_rule(&self, rule: impl Fn(&str) -> Option<Fault> + Send + 'static) {
        self.0.state.lock().create_rule = Some(Box::new(rule));
    }

    /// From now on deletes are refused for lack of permission, or are not.
    pub fn deny_deletes(&self, denies: bool) {
        self.0.state.lock().denies_deletes = denies;
    }

    /// The next creates meet these faults, in this order.
    pub fn script_creates(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.state.lock().creates.extend(faults);
    }

    /// The next reads (get, list, delete) meet these faults, in this order.
    pub fn script_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.state.lock().reads.extend(faults);
    }

    /// Requests so far, of any kind.
    pub fn requests(&self) -> u64 {
        self.0.state.lock().requests
    }

    async fn put(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.0.store.put_opts(location, payload, options).await?;
        let unix = Duration::from_millis(self.0.clock.unix_millis().max(0) as u64);
        self.0.state.lock().created.insert(location.clone(), unix);
        Ok(put)
    }

    /// The object with its creation time by this store's clock.
    fn dated(&self, meta: ObjectMeta) -> ObjectMeta {
        match self.0.state.lock().created.get(&meta.location) {
            Some(unix) => ObjectMeta { last_modified: (UNIX_EPOCH + *unix).into(), ..meta },
            None => meta,
        }
    }

    async fn strike(&self, created: Option<&Path>) -> Fault {
        let (fault, latency) = self.0.state.lock().draw(created);
        if !latency.is_zero() {
            self.0.clock.sleep(latency).await;
        }
        fault
    }

    /// Applies the fault of a read, list or delete.
    async fn pass(&self) -> Result<()> {
        match self.strike(None).await {
            Fault::None => Ok(()),
            Fault::Silence(time) => {
                self.0.clock.sleep(time).await;
                Err(broken())
            }
            _ => Err(broken()),
        }
    }
}

impl State {
    fn draw(&mut self, created: Option<&Path>) -> (Fault, Duration) {
        self.requests += 1;
        let latency = self.up_to(self.rates.latency);
        let ruled = created.and_then(|location| self.create_rule.as_ref()?(location.as_ref()));
        let scripted = ruled.or_else(|| match created {
            Some(_) => self.creates.pop_front(),
            None => self.reads.pop_front(),
        });
        (scripted.unwrap_or_else(|| self.draw_fault()), latency)
    }

    fn draw_fault(&mut self) -> Fault {
        let rates = self.rates;
        let long = self.up_to(rates.long);
        let mut dice = (self.next() % 1000) as u32;
        let table = [
            (rates.fail, Fault::Fail),
            (rates.lose_reply, Fault::LoseReply),
            (rates.false_conflict, Fault::FalseConflict),
            (rates.silence, Fault::Silence(long)),
            (rates.land_late, Fault::LandLate(long)),
        ];
        for (rate, fault) in table {
            if dice < rate {
                return fault;
            }
            dice -= rate;
        }
        Fault::None
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        if longest.is_zero() {
            return longest;
        }
        Duration::from_nanos(self.next() % (longest.as_nanos() as u64 + 1))
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty store", source: "a fault that a test asked for".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let inner = &self.0;
        match self.strike(Some(location)).await {
            Fault::None => self.put(location, payload, options).await,
            Fault::Fail => Err(broken()),
            Fault::Full => {
                let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
                Err(Error::Generic { store: "faulty store", source })
            }
            Fault::LoseReply => {
                self.put(location, payload, options).await?;
                Err(broken())
            }
            Fault::FalseConflict => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "a false conflict that a test asked for".into(),
            }),
            Fault::Silence(time) => {
                inner.clock.sleep(time).await;
                Err(broken())
            }
            Fault::LandLate(time) => {
                let (this, location) = (self.clone(), location.clone());
                inner.clock.spawn(async move {
                    this.0.clock.sleep(time).await;
                    // The result is ignored: the create is refused if the key exists by now.
                    let _ = this.put(&location, payload, options).await;
                });
                Err(broken())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass().await?;
        self.0.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.pass().await?;
        self.0.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    this.pass().await?;
                    if this.0.state.lock().denies_deletes {
                        let source = "a test forbids it".into();
                        return Err(Error::PermissionDenied { path: location.to_string(), source });
                    }
                    this.0.store.delete(&location).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, dating) = (self.clone(), self.clone());
        let listed = self.0.store.list(prefix).map(move |meta| meta.map(|meta| dating.dated(meta)));
        futures::stream::once(async move { this.pass().await })
            .flat_map(|passed| match passed {
                Ok(()) => futures::stream::empty().boxed(),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            })
            .chain(listed)
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass().await?;
        self.0.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.pass().await?;
        self.0.store.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.0.store)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A store that ignores "only if absent", as some S3 servers do.
#[derive(Debug)]
pub struct Careless(pub InMemory);

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let options = PutOptions { mode: PutMode::Overwrite, ..options };
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("careless store")
    }
}
