//! An ingester over a faulty store, a metastore that only records hints, and time that tests control.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use block::Seal;
use clock::{Clock, Pool, Source};
use futures::TryStreamExt;
use ingester::{Config, Ingester};
use model::{ItemKey, Labels, Profile, PushItem, SeriesRows, TenantId, ValueSchema, WriterId};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rpc::{Error, ErrorKind, Ingester as _, SegmentHint};
use storage::fault::Faulty;
use storage::{Key, Metrics, Store};

pub(crate) struct Rig {
    pub(crate) ingester: Arc<Ingester>,
    pub(crate) faulty: Faulty,
    pub(crate) metastore: Arc<Listener>,
    pub(crate) time: Arc<Time>,
    pub(crate) clock: Clock,
    /// The bucket itself, without faults.
    pub(crate) bucket: Arc<InMemory>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), 0)
    }

    pub(crate) fn with(config: Config, seed: u64) -> Self {
        let time = Arc::new(Time { suspended_millis: AtomicU64::new(0), drawn: AtomicU64::new(seed << 32) });
        let clock = Clock::new(Shared(time.clone()));
        let bucket = Arc::new(InMemory::new());
        let faulty = Faulty::new(bucket.clone(), clock.clone(), seed);
        let store = Store::new(Arc::new(faulty.clone()), clock.clone(), Metrics::default());
        let metastore = Arc::new(Listener::default());
        let ingester = Ingester::start(
            config,
            store,
            metastore.clone(),
            clock.clone(),
            Pool::inline(),
            &mut Registry::default(),
        );
        Self { ingester, faulty, metastore, time, clock, bucket }
    }

    pub(crate) async fn push(&self, key: u128) -> Result<(), ErrorKind> {
        self.ingester.push(vec![item(key)]).await.map_err(kind)
    }

    /// Starts a push in a task.
    pub(crate) fn start_push(&self, key: u128) -> clock::Task<Result<(), ErrorKind>> {
        let ingester = self.ingester.clone();
        self.clock.spawn(async move { ingester.push(vec![item(key)]).await.map_err(kind) })
    }

    pub(crate) async fn sleep(&self, millis: u64) {
        self.clock.sleep(Duration::from_millis(millis)).await;
    }

    pub(crate) async fn put(&self, key: &Key, bytes: impl Into<object_store::PutPayload>) {
        let path = object_store::path::Path::parse(key.as_str()).unwrap();
        self.bucket.put(&path, bytes.into()).await.unwrap();
    }

    pub(crate) async fn put_seal(&self, writer: WriterId, seq: u64) {
        let seal = Seal { writer, seq, created_millis: 0 };
        self.put(&Key::log_slot(writer, seq), seal.encode()).await;
    }

    /// Every log of the bucket with its slots, in order.
    pub(crate) async fn logs(&self) -> Vec<(WriterId, Vec<u64>)> {
        let mut logs: Vec<(WriterId, Vec<u64>)> = Vec::new();
        let mut objects: Vec<_> = self.bucket.list(None).try_collect().await.unwrap();
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        for object in objects {
            let (writer, seq) = Key::from_text(object.location.to_string()).parse_log_slot().unwrap();
            match logs.last_mut() {
                Some((last, slots)) if *last == writer => slots.push(seq),
                _ => logs.push((writer, vec![seq])),
            }
        }
        logs
    }

    /// Keys of all pushes that a reader of the bucket finds: those below the first gap and the first seal.
    pub(crate) async fn readable(&self) -> HashSet<u128> {
        let mut keys = HashSet::new();
        for (writer, _) in self.logs().await {
            for seq in 0.. {
                match self.slot(writer, seq).await {
                    Slot::Segment(items) => keys.extend(items.iter().map(|key| key.0)),
                    Slot::Seal | Slot::Absent => break,
                }
            }
        }
        keys
    }

    pub(crate) async fn slot(&self, writer: WriterId, seq: u64) -> Slot {
        let path = object_store::path::Path::parse(Key::log_slot(writer, seq).as_str()).unwrap();
        let Ok(object) = self.bucket.get(&path).await else {
            return Slot::Absent;
        };
        let bytes = object.bytes().await.unwrap();
        match Seal::decode(&bytes) {
            Some(_) => Slot::Seal,
            None => {
                let store = Store::new(self.bucket.clone(), Clock::system(), Metrics::default());
                let cache = block::Cache::new(0);
                let len = bytes.len() as u64;
                let key = Key::log_slot(writer, seq);
                let segment = block::Reader::open(&store, &key, len, &cache).await;
                Slot::Segment(segment.unwrap().directory().keys.clone())
            }
        }
    }
}

fn kind(error: Error) -> ErrorKind {
    eprintln!("push failed: {error}");
    error.kind
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Absent,
    Seal,
    Segment(Vec<ItemKey>),
}

/// A push item with one sample.
pub(crate) fn item(key: u128) -> PushItem {
    let mut profile = Profile::default();
    let strings = &mut profile.symbols.strings;
    let [_, main, cpu, nanoseconds] = ["", "main", "cpu", "nanoseconds"].map(|s| strings.push(s.as_bytes()));
    let function = model::Function { name: main, ..model::Function::default() };
    profile.symbols.functions.push(function);
    profile.symbols.locations.push(model::NONE, 0, false, &[model::Line { function: 0, line: 1 }]);
    profile.symbols.stacktraces.push(&[0]);
    profile.samples.values.push(7);
    profile.samples.label_offsets.push(0);
    profile.sample_types.push(model::ValueType { r#type: cpu, unit: nanoseconds });
    profile.time_nanos = 1;
    PushItem {
        tenant: TenantId::anonymous(),
        key: ItemKey(key),
        profile: Arc::new(profile),
        series: [SeriesRows {
            labels: Labels::from_pairs([("service_name", "app")]),
            schema: Arc::new(ValueSchema {
                name: "process_cpu".into(),
                columns: vec![("cpu".into(), "nanoseconds".into())],
                period: None,
            }),
            samples: vec![0],
            spans: Vec::new(),
        }]
        .into(),
    }
}

/// Time of the paused runtime, plus the time for which the machine was suspended.
pub(crate) struct Time {
    suspended_millis: AtomicU64,
    drawn: AtomicU64,
}

impl Time {
    /// Simulates a suspension of the machine: the monotonic clock advances, timers do not.
    pub(crate) fn suspend(&self, time: Duration) {
        self.suspended_millis.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }
}

struct Shared(Arc<Time>);

#[async_trait]
impl Source for Shared {
    fn unix(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        thread_local!(static START: tokio::time::Instant = tokio::time::Instant::now());
        let suspended = Duration::from_millis(self.0.suspended_millis.load(Ordering::Relaxed));
        // Counts from the first reading of a thread, plus a day, so that no test runs near zero.
        Duration::from_secs(86_400) + START.with(tokio::time::Instant::elapsed) + suspended
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock of the tests")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> u128 {
        u128::from(self.0.drawn.fetch_add(1, Ordering::Relaxed)) + 1
    }
}

/// A metastore that records hints, answers them after a delay, and does nothing else.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) hints: Mutex<Vec<(WriterId, u64)>>,
    /// How long each answer takes.
    pub(crate) delay_millis: AtomicU32,
}

#[async_trait]
impl rpc::Relay for Listener {
    async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> Result<T, Error> {
        Err(Error::new(
            rpc::ErrorKind::Unavailable,
            format!("this metastore of a test has no {}", call.method),
        ))
    }

    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        self.hints.lock().push((hint.writer, hint.seq));
        let delay = self.delay_millis.load(Ordering::Relaxed);
        tokio_sleep(Duration::from_millis(u64::from(delay))).await;
        Ok(())
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the clock of the tests")]
async fn tokio_sleep(time: Duration) {
    tokio::time::sleep(time).await;
}
