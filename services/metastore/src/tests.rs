//! A metastore under virtual time: tests write segments, merge as compactors do, and find.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use block::{DatasetEntry, Directory, Origin, Section};
use bytes::Bytes;
use clock::Source;
use header::Header;
use model::{BlockId, DAY, HOUR, ItemKey, JobId, Shard, TimeRange, Times, Window, WriterId};
use object_store::memory::InMemory;
use rpc::{JobFailure, JobOutput, JobQueue as _, ObjectIndex as _, Ownership as _, SegmentHints as _};
use storage::Place;
use storage::fault::{Fault, Faulty, Rates};

use super::*;

mod consume;
mod deletions;
mod exactly_once;
mod finds;
mod jobs;
mod lost;
mod ownership;
mod reconcile;
mod sweep;

/// Tests use small numbers as keys. Real keys are hashes, so the numbers are shifted to their high bits.
const SPREAD: u32 = 40;

/// Time of the paused runtime, plus the time that a test lets pass and the offset of the wall clock that it sets.
#[derive(Clone)]
struct Time {
    start: tokio::time::Instant,
    passed_millis: Arc<AtomicU64>,
    set_millis: Arc<AtomicI64>,
    random: Arc<AtomicU64>,
}

/// 2023-11-15 12:30:00 UTC.
const START_MILLIS: i64 = 1_700_051_400_000;

#[async_trait]
impl Source for Time {
    fn unix(&self) -> Duration {
        let start = START_MILLIS + self.set_millis.load(Ordering::SeqCst);
        Duration::from_millis(start as u64) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed() + Duration::from_millis(self.passed_millis.load(Ordering::SeqCst))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> u128 {
        u128::from(mixed(self.random.fetch_add(1, Ordering::SeqCst))) << 64 | 7
    }
}

impl Time {
    fn new(seed: u64) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            passed_millis: Arc::default(),
            set_millis: Arc::default(),
            random: Arc::new(AtomicU64::new(seed << 20)),
        }
    }

    /// Lets time pass at once, without running timers.
    fn pass(&self, duration: Duration) {
        self.passed_millis.fetch_add(duration.as_millis() as u64, Ordering::SeqCst);
    }

    /// Sets the wall clock ahead, or back.
    fn set(&self, by_millis: i64) {
        self.set_millis.fetch_add(by_millis, Ordering::SeqCst);
    }
}

fn mixed(i: u64) -> u64 {
    let mut x = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Headers of the objects that a test wrote, so that these need no real bytes.
#[derive(Default)]
struct Written {
    headers: Mutex<HashMap<Key, Header>>,
    store: Option<Store>,
    fails: AtomicBool,
}

#[async_trait]
impl Headers for Written {
    async fn read(&self, key: &Key, _: Option<u64>) -> Result<Header, header::Error> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(storage::Error::NotFound(key.clone()).into());
        }
        let Some(store) = &self.store else {
            return Ok(Header::Absent);
        };
        match store.get(key).await {
            Err(storage::Error::NotFound(_)) => Ok(Header::Absent),
            Err(error) => Err(error.into()),
            Ok(bytes) if block::Seal::decode(&bytes).is_some() => Ok(Header::Seal),
            Ok(_) => {
                Ok(self.headers.lock().get(key).cloned().unwrap_or(Header::Unreadable("no header".into())))
            }
        }
    }
}

#[derive(Clone)]
struct World {
    store: Store,
    faulty: Faulty,
    time: Time,
    clock: Clock,
    written: Arc<Written>,
    /// Keys of each object, by its datasets' tenants.
    keys: HashMap<Key, Vec<ItemKey>>,
    config: Config,
    retention: Retention,
}

impl World {
    fn new(seed: u64) -> Self {
        let time = Time::new(seed);
        let clock = Clock::new(time.clone());
        let faulty = Faulty::new(Arc::new(InMemory::new()), clock.clone(), seed);
        let store = Store::new(Arc::new(faulty.clone()), clock.clone(), storage::Metrics::default());
        let written = Arc::new(Written { store: Some(store.clone()), ..Written::default() });
        let (keys, config) = (HashMap::new(), Config::default());
        let retention: Retention = Arc::new(|_, _| Some(Duration::from_secs(31 * 86_400)));
        Self { store, faulty, time, clock, written, keys, config, retention }
    }

    async fn open(&self) -> Arc<Metastore> {
        self.open_as(true).await
    }

    async fn open_as(&self, is_alone: bool) -> Arc<Metastore> {
        self.try_open(is_alone).await.expect("opens")
    }

    /// Tries again until it succeeds.
    async fn open_at_last(&self, is_alone: bool) -> Arc<Metastore> {
        for _ in 0..100 {
            if let Ok(metastore) = self.try_open(is_alone).await {
                return metastore;
            }
            self.clock.sleep(Duration::from_secs(1)).await;
        }
        panic!("cannot open the catalog");
    }

    fn parts(&self) -> Parts {
        Parts::with(&self.config, &self.store, &self.clock)
    }

    async fn try_open(&self, is_alone: bool) -> Result<Arc<Metastore>, OpenError> {
        let parts = Parts { headers: self.written.clone(), is_alone, ..self.parts() };
        let retention = self.retention.clone();
        let (config, store, clock) = (self.config.clone(), self.store.clone(), self.clock.clone());
        Metastore::open_parts(config, store, parts, retention, clock, &mut Registry::default()).await
    }

    async fn rebuild(&self) -> Result<RebuildCounts, OpenError> {
        let progress = Progress::default();
        rebuild::rebuild_with(&self.store, &self.clock, &*self.written, &self.config, &progress).await
    }

    /// Puts a segment with these keys. Returns its hint, or `None` if the slot is taken: the log is closed.
    async fn put(&mut self, writer: u128, seq: u64, keys: &[u128]) -> Option<SegmentHint> {
        self.try_put(writer, seq, keys).await.expect("puts")
    }

    /// As [`Self::put`]; after an error the segment may exist, now or later.
    async fn try_put(
        &mut self,
        writer: u128,
        seq: u64,
        keys: &[u128],
    ) -> Result<Option<SegmentHint>, storage::Error> {
        let writer = WriterId(writer);
        let keys: Vec<ItemKey> = keys.iter().map(|key| ItemKey(*key << SPREAD)).collect();
        let created_millis = self.clock.unix_millis();
        let origin = Origin::Segment { writer, seq };
        let directory = directory(origin, created_millis, keys.clone(), &["a", "b"], created_millis);
        let key = Key::log_slot(writer, seq);
        let bytes = Bytes::from(format!("segment {key} {created_millis}"));
        let header = Header::Object { bytes: 1 << 20, directory: directory.clone() };
        self.written.headers.lock().insert(key.clone(), header);
        self.keys.insert(key.clone(), keys);
        let created = self.store.settle_create(&key, bytes).await?;
        let hint = SegmentHint { writer, seq, bytes: 1 << 20, directory };
        Ok((created == storage::CreateOutcome::Mine).then_some(hint))
    }

    /// Merges as a compactor does.
    async fn merge(&mut self, job: &Job) -> Publication {
        self.try_merge(job).await.expect("puts")
    }

    async fn try_merge(&mut self, job: &Job) -> Result<Publication, storage::Error> {
        let mut keys = Vec::new();
        let mut times: Option<Times> = None;
        let mut tenants: BTreeSet<&str> = BTreeSet::new();
        for input in &job.inputs {
            let masked = &input.masked;
            let headers = self.written.headers.lock();
            let Some(Header::Object { directory, .. }) = headers.get(&input.key) else {
                continue;
            };
            let input_times = directory.datasets[0].times;
            times = Some(times.map_or(input_times, |times| times.join(input_times)));
            let tenants_live = input.datasets.iter().map(|index| &directory.datasets[*index as usize].tenant);
            let holds = |name| tenants_live.clone().any(|live| *live == tenant(name));
            if holds("b") {
                tenants.insert("b");
            }
            if holds("a") {
                let ordinals = self.keys[&input.key].iter().enumerate();
                let counted = ordinals.filter(|(i, _)| !masked.contains(&(*i as u32))).map(|(_, k)| *k);
                let before = keys.len();
                keys.extend(counted.filter(|key| !deletions::is_erased(&input.deletions, *key)));
                // An object whose rows are all erased makes no output.
                if keys.len() > before || input.deletions.is_empty() {
                    tenants.insert("a");
                }
            }
        }
        let mut outputs = Vec::new();
        for (part, name) in tenants.into_iter().enumerate() {
            let window = job.windows.first().copied().unwrap_or(Window { start: 0, length: DAY });
            let (attempt, level, part) = (job.attempt, job.level, part as u32);
            let origin = Origin::Block { job: job.id, attempt, part, level };
            let millis = self.clock.unix_millis();
            let mut directory = directory(origin, millis, Vec::new(), &[name], 0);
            directory.datasets[0].times = times.expect("a tenant has an input");
            let tenant = tenant(name);
            let place = Place { level, window, shard: Shard::ALL };
            let key = Key::block(&tenant, place, BlockId { job: job.id, attempt, part });
            let bytes = Bytes::from(format!("block {key}"));
            self.store.settle_create(&key, bytes).await?;
            let header = Header::Object { bytes: 1 << 20, directory: directory.clone() };
            self.written.headers.lock().insert(key.clone(), header);
            // Every key is in one block: that of the first tenant.
            let own = if name == "a" { keys.clone() } else { Vec::new() };
            self.keys.insert(key.clone(), own);
            outputs.push(JobOutput { key, bytes: 1 << 20, tenant, window, directory });
        }
        Ok(Publication { job: job.id, attempt: job.attempt, outputs })
    }

    /// How often each key is counted.
    async fn counts(&self, metastore: &Metastore) -> BTreeMap<u128, usize> {
        self.counts_of(metastore.find(everything()).await.expect("finds"))
    }

    fn counts_of(&self, snapshot: Snapshot) -> BTreeMap<u128, usize> {
        let mut counts = BTreeMap::new();
        assert_eq!(snapshot.quarantined, []);
        for object in snapshot.objects {
            let holds = object.datasets.iter().any(|dataset| dataset.tenant == tenant("a"));
            for (ordinal, key) in self.keys[&object.key].iter().enumerate().filter(|_| holds) {
                let is_erased = deletions::is_erased(&object.deletions, *key);
                if !is_erased && object.masked.binary_search(&(ordinal as u32)).is_err() {
                    *counts.entry(key.0 >> SPREAD).or_default() += 1;
                }
            }
        }
        counts
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a tenant")
}

fn directory(
    origin: Origin,
    created_millis: i64,
    keys: Vec<ItemKey>,
    tenants: &[&str],
    time_millis: i64,
) -> Directory {
    let section = Section { offset: 0, bytes: 0, raw_bytes: 0, checksum: 0 };
    let datasets = tenants.iter().map(|name| DatasetEntry {
        tenant: tenant(name),
        service: "app".into(),
        times: Times { first: time_millis * 1_000_000, last: time_millis * 1_000_000 },
        rows: 0..1,
        profiles: 1,
        profile_types: vec!["process_cpu:cpu:nanoseconds:cpu:nanoseconds".parse().expect("a type")],
        label_names: vec![],
        index: section,
        strings: section,
        symbols: section,
        tree: None,
        cells: Vec::new(),
    });
    Directory { origin, created_millis, keys, datasets: datasets.collect() }
}

fn everything() -> FindRequest {
    FindRequest {
        tenants: vec![tenant("a"), tenant("b")],
        range: TimeRange { start: i64::MIN, end: i64::MAX },
        services: None,
        profile_type: None,
        explain: false,
    }
}

async fn found(metastore: &Metastore) -> usize {
    metastore.find(everything()).await.expect("finds").objects.len()
}

/// The failure of an attempt that its inputs caused.
fn failure(job: &Job, reason: &str) -> JobFailure {
    JobFailure { job: job.id, attempt: job.attempt, reason: reason.to_owned(), inputs_sound: false }
}

async fn with_one_job(world: &mut World) -> (Arc<Metastore>, Job) {
    let metastore = world.open().await;
    for seq in 0..3 {
        let hint = world.put(1, seq, &[u128::from(seq), 50]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }
    assert!(metastore.claim_job().await.expect("claims").is_none(), "no segment is committed yet");
    metastore.commit_pending().await.expect("commits");
    assert!(metastore.claim_job().await.expect("claims").is_none(), "no segment is old enough");
    world.time.pass(Duration::from_secs(31));
    let job = metastore.claim_job().await.expect("claims").expect("a job");
    assert_eq!((job.inputs.len(), job.attempt, job.level), (3, 1, 1));
    (metastore, job)
}

/// Lets `days` pass, sweeping every hour as a compactor does.
async fn sweep_for(world: &World, metastore: &Metastore, days: u64) {
    for _ in 0..days * 24 {
        world.time.pass(Duration::from_secs(3_600));
        let open: Vec<WriterId> = metastore.state.lock().logs().keys().copied().collect();
        for writer in open {
            metastore.probe(writer).await.expect("probes");
        }
        metastore.tend();
        metastore.commit_pending().await.expect("commits");
        metastore.create_records().await.expect("creates");
        let dead = metastore.sweepable(1_000).await.expect("lists");
        for object in &dead {
            world.store.delete(&object.key).await.expect("deletes");
        }
        metastore.swept(dead.into_iter().map(|d| d.key).collect()).await.expect("forgets");
    }
}
