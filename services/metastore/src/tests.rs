use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use block::{DatasetEntry, Directory, Origin, Section};
use bytes::Bytes;
use clock::Source;
use header::Header;
use model::{ItemKey, TimeRange, WriterId};
use object_store::memory::InMemory;
use rpc::{JobOutput, Metastore as _};
use storage::fault::{Fault, Faulty, Rates};

use super::*;

mod deletes;
mod ownership;

/// Keys are hashes, so tests' small numbers are moved to where hashes differ.
const SPREAD: u32 = 40;

/// Time of the paused runtime, plus what a test lets pass or sets the wall clock to.
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

    #[allow(clippy::disallowed_methods)]
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

    /// Time goes by without anything happening; timers do not notice.
    fn pass(&self, duration: Duration) {
        self.passed_millis.fetch_add(duration.as_millis() as u64, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
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

/// Headers of what a test wrote, so that objects need no real bytes.
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

    /// Tries until the store lets it.
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

    /// Puts a segment with these keys; gives its hint. `None` if the slot is taken: the log is closed.
    async fn put(&mut self, writer: u128, seq: u64, keys: &[u128]) -> Option<SegmentHint> {
        self.try_put(writer, seq, keys).await.expect("puts")
    }

    /// As [`Self::put`]; after an error the segment may be there, or come later.
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
        Ok((created == storage::Created::Mine).then_some(hint))
    }

    /// Does what a compactor does.
    async fn merge(&mut self, job: &Job) -> Publication {
        self.try_merge(job).await.expect("puts")
    }

    async fn try_merge(&mut self, job: &Job) -> Result<Publication, storage::Error> {
        let mut keys = Vec::new();
        let (mut time_min, mut time_max) = (i64::MAX, i64::MIN);
        let mut tenants: BTreeSet<&str> = BTreeSet::new();
        for input in &job.inputs {
            let masked = &input.masked;
            let headers = self.written.headers.lock();
            let Some(Header::Object { directory, .. }) = headers.get(&input.key) else {
                continue;
            };
            time_min = time_min.min(directory.datasets[0].time_min);
            time_max = time_max.max(directory.datasets[0].time_max);
            let live = input.datasets.iter().map(|at| &directory.datasets[*at as usize].tenant);
            let holds = |name| live.clone().any(|of| *of == tenant(name));
            if holds("b") {
                tenants.insert("b");
            }
            if holds("a") {
                let ordinals = self.keys[&input.key].iter().enumerate();
                let counted = ordinals.filter(|(i, _)| !masked.contains(&(*i as u32))).map(|(_, k)| *k);
                let before = keys.len();
                keys.extend(counted.filter(|key| !deletes::is_erased(&input.orders, *key)));
                // What is wholly erased gives no output.
                if keys.len() > before || input.orders.is_empty() {
                    tenants.insert("a");
                }
            }
        }
        let mut outputs = Vec::new();
        for (part, name) in tenants.into_iter().enumerate() {
            let window = job.windows.first().copied().unwrap_or((0, 86_400));
            let (attempt, level, part) = (job.attempt, job.level, part as u32);
            let origin = Origin::Block { job: job.id, attempt, part, level };
            let millis = self.clock.unix_millis();
            let mut directory = directory(origin, millis, Vec::new(), &[name], time_min / 1_000_000);
            directory.datasets[0].time_max = time_max;
            let tenant = tenant(name);
            let key =
                Key::block(&tenant, &format!("{level}-{}-{}", window.0, window.1), job.id, attempt, part);
            let bytes = Bytes::from(format!("block {key}"));
            self.store.settle_create(&key, bytes).await?;
            let header = Header::Object { bytes: 1 << 20, directory: directory.clone() };
            self.written.headers.lock().insert(key.clone(), header);
            // Every key is held once: by the block of the first tenant.
            let held = if name == "a" { keys.clone() } else { Vec::new() };
            self.keys.insert(key.clone(), held);
            outputs.push(JobOutput { key, bytes: 1 << 20, tenant, window, directory });
        }
        Ok(Publication { job: job.id, attempt: job.attempt, outputs })
    }

    /// How often each key counts.
    async fn counts(&self, metastore: &Metastore) -> BTreeMap<u128, usize> {
        self.counts_of(metastore.find(everything()).await.expect("finds"))
    }

    fn counts_of(&self, snapshot: Snapshot) -> BTreeMap<u128, usize> {
        let mut counts = BTreeMap::new();
        assert_eq!(snapshot.quarantined, []);
        for object in snapshot.objects {
            let holds = object.datasets.iter().any(|dataset| dataset.tenant == tenant("a"));
            for (ordinal, key) in self.keys[&object.key].iter().enumerate().filter(|_| holds) {
                let is_erased = deletes::is_erased(&object.orders, *key);
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
        time_min: time_millis * 1_000_000,
        time_max: time_millis * 1_000_000,
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

#[tokio::test(start_paused = true)]
async fn a_hint_is_visible_at_once_and_its_rows_survive_a_restart() {
    let mut world = World::new(1);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1, 2]).await.expect("free");
    metastore.segment_written(hint.clone()).await.expect("takes the hint");
    assert_eq!(found(&metastore).await, 1);
    metastore.segment_written(hint).await.expect("ignores it");
    assert_eq!(found(&metastore).await, 1);
    metastore.drain().await;
    assert_eq!(found(&*world.open().await).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_segment_without_hint_is_found_by_probing_and_by_the_hint_after_it() {
    let mut world = World::new(2);
    let metastore = world.open().await;
    world.put(1, 0, &[1]).await.expect("free");
    let hint = world.put(1, 1, &[2]).await.expect("free");
    metastore.segment_written(hint).await.expect("probes what it skips");
    assert_eq!(found(&metastore).await, 2);
    world.put(1, 2, &[3]).await.expect("free");
    world.time.pass(Duration::from_secs(3));
    let mut listed = Duration::ZERO;
    metastore.look(&mut listed).await.expect("looks");
    assert_eq!(found(&metastore).await, 3);
    world.put(9, 0, &[4]).await.expect("free");
    world.time.pass(Duration::from_secs(11));
    metastore.look(&mut listed).await.expect("looks");
    assert_eq!(found(&metastore).await, 4, "a log that nobody told of");
}

#[tokio::test(start_paused = true)]
async fn a_restart_reads_and_closes_the_logs_of_before() {
    let mut world = World::new(3);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    // Killed before anything is committed.
    drop(metastore);
    world.put(1, 1, &[2]).await.expect("free");
    let metastore = world.open().await;
    assert_eq!(found(&metastore).await, 2);
    assert!(world.put(1, 2, &[3]).await.is_none(), "the log must be closed");
    let requests = world.store.list("log").await.expect("lists").len();
    assert_eq!(requests, 3);
}

#[tokio::test(start_paused = true)]
async fn equal_items_count_once_across_logs_and_restarts() {
    let mut world = World::new(4);
    let metastore = world.open().await;
    for writer in [1, 2] {
        let hint = world.put(writer, 0, &[7, 8, u128::from(writer as u64 + 100)]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }
    let expected = BTreeMap::from([(7, 1), (8, 1), (101, 1), (102, 1)]);
    assert_eq!(world.counts(&metastore).await, expected);
    metastore.drain().await;
    let metastore = world.open().await;
    let hint = world.put(3, 0, &[8, 7]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn equal_items_count_again_after_the_window() {
    let mut world = World::new(5);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[7]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    world.time.pass(Duration::from_secs(80 * 60));
    metastore.seal(WriterId(1)).await.expect("seals");
    metastore.commit_pending().await.expect("commits");
    let hint = world.put(2, 0, &[7]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    assert_eq!(world.counts(&metastore).await, BTreeMap::from([(7, 2)]));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_segment_makes_answers_partial_and_the_log_goes_on() {
    let mut world = World::new(6);
    let metastore = world.open().await;
    let key = Key::log_slot(WriterId(1), 0);
    world.store.settle_create(&key, Bytes::from_static(b"junk")).await.expect("puts");
    let hint = world.put(1, 1, &[2]).await.expect("free");
    metastore.segment_written(hint).await.expect("probes what it skips");
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.objects.len(), 1);
        assert_eq!(snapshot.quarantined, [(key.clone(), "no header".to_owned())]);
    }
}

async fn with_one_job(world: &mut World) -> (Arc<Metastore>, Job) {
    let metastore = world.open().await;
    for seq in 0..3 {
        let hint = world.put(1, seq, &[u128::from(seq), 50]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }
    assert!(metastore.claim_job().await.expect("claims").is_none(), "nothing is committed yet");
    metastore.commit_pending().await.expect("commits");
    assert!(metastore.claim_job().await.expect("claims").is_none(), "nothing is old enough");
    world.time.pass(Duration::from_secs(31));
    let job = metastore.claim_job().await.expect("claims").expect("a job");
    assert_eq!((job.inputs.len(), job.attempt, job.level), (3, 1, 1));
    (metastore, job)
}

#[tokio::test(start_paused = true)]
async fn a_publish_replaces_inputs_by_outputs_once() {
    let mut world = World::new(7);
    let (metastore, job) = with_one_job(&mut world).await;
    let expected = world.counts(&metastore).await;
    let publication = world.merge(&job).await;
    assert_eq!(world.counts(&metastore).await, expected, "outputs do not count before");
    for _ in 0..2 {
        let published = metastore.publish(publication.clone()).await.expect("publishes");
        assert_eq!(published, Published::Done);
        assert_eq!(world.counts(&metastore).await, expected);
    }
    assert_eq!(found(&metastore).await, 2);
    metastore.drain().await;
    let metastore = world.open().await;
    assert_eq!(world.counts(&metastore).await, expected);
    assert_eq!(metastore.publish(publication).await.expect("asks again"), Published::Done);
}

#[tokio::test(start_paused = true)]
async fn only_the_open_attempt_publishes() {
    let mut world = World::new(8);
    let (metastore, job) = with_one_job(&mut world).await;
    let expected = world.counts(&metastore).await;
    let late = world.merge(&job).await;
    world.time.pass(Duration::from_secs(301));
    assert!(metastore.claim_job().await.expect("claims").is_none(), "it waits after a failure");
    world.time.pass(Duration::from_secs(11));
    let again = metastore.claim_job().await.expect("claims").expect("the job again");
    assert_eq!((again.id, again.attempt), (job.id, 2));
    assert_eq!(metastore.publish(late).await.expect("asks"), Published::Rejected);
    let publication = world.merge(&again).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), Published::Done);
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_input_ends_alone_in_quarantine() {
    let mut world = World::new(9);
    let (metastore, job) = with_one_job(&mut world).await;
    let poison = job.inputs[1].key.clone();
    let mut next = Some(job);
    for _ in 0..40 {
        if let Some(job) = next {
            if job.inputs.iter().any(|input| input.key == poison) {
                metastore.fail_job(job.id, job.attempt, "bad page".into()).await.expect("fails");
            } else {
                let publication = world.merge(&job).await;
                assert_eq!(metastore.publish(publication).await.expect("publishes"), Published::Done);
            }
        }
        world.time.pass(Duration::from_secs(35));
        next = metastore.claim_job().await.expect("claims");
    }
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.quarantined, [(poison.clone(), "bad page".to_owned())]);
        assert!(snapshot.objects.iter().all(|o| o.key.as_str().starts_with("block/")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_set_aside_for_good_and_its_neighbours_are_merged_without_it() {
    let mut world = World::new(11);
    let (metastore, job) = with_one_job(&mut world).await;
    let damaged = job.inputs[1].key.clone();
    let hint = world.put(1, 3, &[3]).await.expect("free");
    let uncommitted = Key::log_slot(WriterId(1), 3);
    metastore.segment_written(hint).await.expect("takes the hint");
    let late = world.merge(&job).await;
    let told = vec![
        (damaged.clone(), "bad page".to_owned()),
        (uncommitted.clone(), "bad footer".to_owned()),
        (Key::from_text("block/a/1-0-300/x"), "unknown".to_owned()),
    ];
    metastore.quarantine(told.clone()).await.expect("sets aside");
    assert_eq!(metastore.publish(late).await.expect("asks"), Published::Rejected, "it read the damaged one");
    metastore.quarantine(told.clone()).await.expect("nothing is left to do");
    let again = metastore.claim_job().await.expect("claims").expect("the job without it");
    let inputs: Vec<&Key> = again.inputs.iter().map(|input| &input.key).collect();
    assert_eq!(inputs, [&job.inputs[0].key, &job.inputs[2].key]);
    let publication = world.merge(&again).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), Published::Done);
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.quarantined, told[..2]);
        assert!(snapshot.objects.iter().all(|o| o.key.as_str().starts_with("block/")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_only_input_is_damaged_ends() {
    let mut world = World::new(13);
    let (metastore, job) = with_one_job(&mut world).await;
    for input in &job.inputs {
        metastore.quarantine(vec![(input.key.clone(), "bad page".to_owned())]).await.expect("sets aside");
    }
    assert!(metastore.state.lock().jobs.is_empty());
    world.time.pass(Duration::from_secs(35));
    assert!(metastore.claim_job().await.expect("claims").is_none());
    metastore.drain().await;
    let metastore = world.open().await;
    assert!(metastore.state.lock().jobs.is_empty());
    assert_eq!(metastore.find(everything()).await.expect("finds").quarantined.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_publish_record_is_created_by_the_next_owner_and_until_then_nothing_is_swept() {
    let mut world = World::new(10);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    let records = world.store.list("publish").await.expect("lists");
    let key = records[0].key.clone();
    let record = world.store.get(&key).await.expect("gets");
    // As if it had died between the commit and the record.
    world.store.delete(&key).await.expect("deletes");
    {
        let mut state = metastore.state.lock();
        let state = &mut *state;
        let row = &mut state.jobs.get_mut(&job.id).expect("known").row;
        row.state = catalog::rows::JobState::Published { record: Some(record.clone()) };
        catalog::rows::Row::put_into(row, &mut state.pending.batch);
    }
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(3 * 3600));
    assert!(metastore.sweepable(10).await.expect("lists").is_empty());
    let metastore = world.open().await;
    assert_eq!(world.store.get(&key).await.expect("gets"), record);
    world.time.pass(metastore.config.sweep_grace.0);
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_segment_does_not_stop_the_sweep_of_others() {
    let mut world = World::new(12);
    world
        .store
        .settle_create(&Key::log_slot(WriterId(9), 0), Bytes::from_static(b"junk"))
        .await
        .expect("puts");
    let (metastore, job) = with_one_job(&mut world).await;
    metastore.probe(WriterId(9)).await.expect("reads");
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    for writer in [1, 9] {
        metastore.seal(WriterId(writer)).await.expect("seals");
    }
    let quarantined = metastore.find(everything()).await.expect("finds").quarantined;
    assert_eq!(quarantined.len(), 1);
    metastore.observe();
    world.time.pass(Duration::from_secs(2 * 3600));
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn dead_segments_are_swept_after_their_keys_left_the_window() {
    let mut world = World::new(11);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    metastore.seal(WriterId(1)).await.expect("seals");
    world.time.pass(Duration::from_secs(16 * 60));
    assert!(metastore.sweepable(10).await.expect("lists").is_empty());
    world.time.pass(Duration::from_secs(60 * 60));
    let dead = metastore.sweepable(2).await.expect("lists");
    assert_eq!(dead.len(), 2);
    metastore.swept(dead.into_iter().map(|d| d.key).collect()).await.expect("forgets");
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_answers_nothing() {
    let mut world = World::new(12);
    let first = world.open_as(false).await;
    let second = world.open_as(false).await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    second.segment_written(hint.clone()).await.expect("takes the hint");
    let error = first.find(everything()).await.expect_err("is fenced");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let error = first.segment_written(hint).await.expect_err("is fenced");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(found(&second).await, 1);
}

#[tokio::test(start_paused = true)]
async fn objects_past_their_time_die() {
    let mut world = World::new(13);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31 * 86_400 + 1));
    assert_eq!(found(&metastore).await, 0);
    metastore.tend();
    metastore.commit_pending().await.expect("commits");
    assert_eq!(metastore.state.lock().live.keys().count(), 0);
    let metastore = world.open().await;
    assert_eq!(metastore.state.lock().live.keys().count(), 0);
    assert_eq!(metastore.state.lock().dead.len(), 1);
}

/// Lets a day and whatever a compactor sweeps in it go by, `days` times.
async fn sweep_for(world: &World, metastore: &Metastore, days: u64) {
    for _ in 0..days * 24 {
        world.time.pass(Duration::from_secs(3_600));
        let open: Vec<WriterId> = metastore.state.lock().logs.keys().copied().collect();
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

#[tokio::test(start_paused = true)]
async fn an_owner_whose_clock_is_ahead_gives_what_has_just_died_its_grace() {
    let mut world = World::new(23);
    let (first, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    first.publish(publication).await.expect("publishes");
    first.seal(WriterId(1)).await.expect("seals");
    first.commit_pending().await.expect("commits");
    world.time.set(2 * 3_600_000);
    assert!(first.sweepable(10).await.expect("lists").is_empty(), "its own clock was set");
    let second = world.open().await;
    assert!(second.sweepable(10).await.expect("lists").is_empty());
    world.time.pass(second.config.sweep_grace.0);
    assert_eq!(second.sweepable(10).await.expect("lists").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_seal_stays_seven_days_after_its_log_was_swept() {
    for segments in [0, 3] {
        let mut world = World::new(15);
        let metastore = world.open().await;
        for seq in 0..segments {
            let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
            metastore.segment_written(hint).await.expect("takes the hint");
        }
        // The data may be old when the last of it goes: the seven days begin then.
        world.time.pass(Duration::from_secs(10 * 86_400));
        metastore.seal(WriterId(1)).await.expect("seals");
        metastore.commit_pending().await.expect("commits");
        if let Some(job) = metastore.claim_job().await.expect("claims") {
            let publication = world.merge(&job).await;
            metastore.publish(publication).await.expect("publishes");
        }
        sweep_for(&world, &metastore, 6).await;
        let slots = world.store.list("log").await.expect("lists");
        assert_eq!(slots.len(), 1, "of {segments} segments only the seal is left");
        assert!(world.put(1, segments, &[9]).await.is_none(), "a stopped writer meets its seal");
        sweep_for(&world, &metastore, 2).await;
        assert_eq!(world.store.list("log").await.expect("lists"), []);
        assert!(metastore.state.lock().logs.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_reads_past_the_gap_that_retention_made() {
    let mut world = World::new(16);
    let metastore = world.open().await;
    for seq in 0..2 {
        let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31 * 86_400 + 1));
    let hint = world.put(1, 2, &[2]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    sweep_for(&world, &metastore, 1).await;
    let slots = world.store.list("log").await.expect("lists");
    assert_eq!(slots.len(), 1, "what is past its time is swept");
    metastore.drain().await;
    rebuild::rebuild_with(&world.store, &world.clock, &*world.written, &world.config, true)
        .await
        .expect("rebuilds");
    let metastore = world.open_as(false).await;
    assert_eq!(world.counts(&metastore).await, BTreeMap::from([(2, 1)]));
    let hint = world.put(1, 3, &[3]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    assert_eq!(found(&metastore).await, 2, "the log goes on where it was");
}

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_takes_no_hints() {
    let mut world = World::new(17);
    let first = world.open_as(false).await;
    let running = world.clock.spawn(first.clone().run());
    world.open_as(false).await;
    for seq in 0..20 {
        let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
        let _ = first.segment_written(hint).await;
        world.clock.sleep(Duration::from_millis(200)).await;
    }
    running.await.expect("ends once it knows");
    let hint = world.put(1, 20, &[20]).await.expect("free");
    let error = first.segment_written(hint).await.expect_err("owns nothing");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(first.state.lock().pending.segments.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_successor_knows_what_the_owner_before_it_was_told_last() {
    let mut world = World::new(21);
    let first = world.open_as(false).await;
    found(&first).await;
    let opener = world.clone();
    let opening = world.clock.spawn(async move { opener.open_as(false).await });
    // By now the successor has looked at every log, and waits.
    world.clock.sleep(SURE_FOR / 2).await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    first.segment_written(hint).await.expect("is sure still");
    let second = opening.await.expect("opens");
    assert_eq!(found(&second).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_took_long_to_take_over_is_not_stale() {
    let world = World::new(22);
    let opener = world.clone();
    let opening = world.clock.spawn(async move { opener.open_as(false).await });
    world.clock.sleep(SURE_FOR / 2).await;
    world.time.pass(2 * LOOKED_WITHIN);
    let owner = opening.await.expect("opens");
    assert_eq!(owner.find(everything()).await.expect("finds").stale, None);
}

#[tokio::test(start_paused = true)]
async fn steps_that_cannot_be_committed_are_bounded() {
    let mut world = World::new(18);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    for writer in 0..2 * PENDING_SEGMENTS_MAX as u128 {
        let origin = Origin::Segment { writer: WriterId(writer), seq: 0 };
        let directory = Directory { origin, ..hint.directory.clone() };
        let hint = SegmentHint { writer: WriterId(writer), seq: 0, bytes: 1, directory };
        let _ = metastore.segment_written(hint).await;
    }
    assert_eq!(metastore.state.lock().pending.segments.len(), PENDING_SEGMENTS_MAX);
    let error = metastore.segment_written(hint.clone()).await.map_err(|e| e.kind);
    assert_eq!(error, Err(ErrorKind::Unavailable));
    metastore.commit_pending().await.expect("commits");
    metastore.segment_written(hint).await.expect("takes hints again");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_although_the_store_is_down() {
    let mut world = World::new(19);
    let metastore = world.open().await;
    let running = world.clock.spawn(metastore.clone().run());
    let hint = world.put(1, 0, &[1]).await.expect("free");
    world.faulty.set_create_rule(|_| Some(Fault::Fail));
    metastore.segment_written(hint).await.expect("takes the hint");
    world.clock.sleep(Duration::from_secs(30)).await;
    let began = world.clock.monotonic();
    metastore.drain().await;
    let took = world.clock.monotonic() - began;
    assert!(took <= DRAIN_MAX, "{took:?}");
    running.abort();
    // What was not committed is read again.
    world.faulty.set_create_rule(|_| None);
    assert_eq!(found(&*world.open().await).await, 1);
}

#[tokio::test(start_paused = true)]
async fn records_are_created_producers_first_although_the_clock_was_set_back() {
    let mut world = World::new(20);
    world.config.merge_after = limits::Duration::from_secs(0);
    let metastore = world.open().await;
    world.faulty.set_create_rule(|key| key.starts_with("publish/").then_some(Fault::Fail));
    // More blocks of one window than may lie beside each other, then the job that merges them.
    for seq in 0..10 {
        if seq < 9 {
            let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
            metastore.segment_written(hint).await.expect("takes the hint");
            metastore.commit_pending().await.expect("commits");
        } else {
            world.time.set(-600_000);
        }
        let job = metastore.claim_job().await.expect("claims").expect("a job");
        assert_eq!(job.inputs.len(), if seq < 9 { 1 } else { 9 });
        let publication = world.merge(&job).await;
        metastore.publish(publication).await.expect("publishes");
    }
    let expected = world.counts(&metastore).await;
    // Dies after each record, whichever comes first.
    for records in 1..=10 {
        let created = AtomicU64::new(0);
        world.faulty.set_create_rule(move |key| {
            let is_refused = key.starts_with("publish/") && created.fetch_add(1, Ordering::SeqCst) >= 1;
            is_refused.then_some(Fault::Fail)
        });
        let _ = metastore.create_records().await;
        world.faulty.set_create_rule(|_| None);
        assert_eq!(world.store.list("publish").await.expect("lists").len(), records);
        let mut lost = World::new(21);
        for object in world.store.list("").await.expect("lists") {
            if !object.key.as_str().starts_with("catalog/") {
                let bytes = world.store.get(&object.key).await.expect("gets");
                lost.store.settle_create(&object.key, bytes).await.expect("puts");
            }
        }
        *lost.written.headers.lock() = world.written.headers.lock().clone();
        lost.keys = world.keys.clone();
        lost.time.pass(world.clock.monotonic());
        rebuild::rebuild_with(&lost.store, &lost.clock, &*lost.written, &lost.config, true)
            .await
            .expect("rebuilds");
        assert_eq!(lost.counts(&*lost.open().await).await, expected, "after {records} records");
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_of_a_dead_attempt_are_deleted_when_they_are_old() {
    let mut world = World::new(22);
    world.config.attempt_time = limits::Duration::from_secs(26 * 3_600);
    let (metastore, job) = with_one_job(&mut world).await;
    let late = world.merge(&job).await;
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0, "the attempt may still publish");
    metastore.fail_job(job.id, job.attempt, "slow".into()).await.expect("fails");
    world.time.pass(Duration::from_secs(11));
    let again = metastore.claim_job().await.expect("claims").expect("the job again");
    let publication = world.merge(&again).await;
    metastore.publish(publication).await.expect("publishes");
    let expected = world.counts(&metastore).await;
    let found = metastore.reconcile().await.expect("compares");
    assert_eq!((found.orphans, found.missing), (late.outputs.len(), 0), "what is live or young stays");
    assert_eq!(metastore.publish(late.clone()).await.expect("asks"), Published::Rejected);
    // The grace of the sweep is for them too, and a restart does not forget them.
    metastore.drain().await;
    let metastore = world.open().await;
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 0);
    world.time.pass(Duration::from_secs(16 * 60));
    let dead = metastore.sweepable(10).await.expect("lists");
    let dead: Vec<Key> = dead.into_iter().map(|d| d.key).filter(|k| k.parse_block().is_some()).collect();
    assert_eq!(dead, late.outputs.iter().map(|o| o.key.clone()).collect::<Vec<_>>());
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_quarantined_and_the_rest_answers() {
    let mut world = World::new(23);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    let gone = publication.outputs[0].key.clone();
    metastore.publish(publication).await.expect("publishes");
    world.store.delete(&gone).await.expect("deletes");
    for missing in [1, 0] {
        assert_eq!(metastore.reconcile().await.expect("compares").missing, missing);
    }
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.objects.len(), 1);
        assert_eq!(snapshot.quarantined, [(gone.clone(), "it is gone from the bucket".to_owned())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_a_rebuild_cannot_read_is_quarantined_and_stays() {
    let mut world = World::new(26);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    let damaged = publication.outputs[1].key.clone();
    metastore.publish(publication).await.expect("publishes");
    metastore.drain().await;
    let unreadable = Header::Unreadable("bad footer".into());
    world.written.headers.lock().insert(damaged.clone(), unreadable);
    rebuild::rebuild_with(&world.store, &world.clock, &*world.written, &world.config, true)
        .await
        .expect("rebuilds");
    let metastore = world.open().await;
    let snapshot = metastore.find(everything()).await.expect("finds");
    assert_eq!(snapshot.quarantined, [(damaged.clone(), "bad footer".to_owned())]);
    assert_eq!(snapshot.objects.len(), 1);
    world.time.pass(Duration::from_secs(3 * 86_400));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0);
    world.time.pass(Duration::from_secs(31 * 86_400));
    metastore.tend();
    assert!(metastore.state.lock().quarantined.is_empty(), "its tenant's time is over");
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_no_data_are_deleted_when_they_are_old() {
    let mut world = World::new(24);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    metastore.seal(WriterId(1)).await.expect("seals");
    sweep_for(&world, &metastore, 1).await;
    let expected = world.counts(&metastore).await;
    // A put that comes back from the dead, one above the seal, and one that waits for the slots before it.
    world.put(1, 1, &[1]).await.expect("was swept");
    world.put(1, 7, &[7]).await.expect("free");
    world.put(2, 5, &[5]).await.expect("free");
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0, "they are young");
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 2);
    sweep_for(&world, &metastore, 1).await;
    let slots = world.store.list("log").await.expect("lists");
    let seal = Key::log_slot(WriterId(1), 3);
    let keys: Vec<Key> = slots.into_iter().map(|o| o.key).collect();
    assert_eq!(keys, [seal, Key::log_slot(WriterId(2), 5)]);
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn publish_records_go_when_a_rebuild_needs_them_no_more() {
    let mut world = World::new(25);
    world.config.merge_after = limits::Duration::from_secs(0);
    let metastore = world.open().await;
    // Log 1 is open all the time, log 2 is closed; one block of a day remains.
    for seq in 0..6 {
        for writer in [1, 2] {
            let hint = world.put(writer, seq, &[u128::from(seq) + 100 * writer]).await.expect("free");
            metastore.segment_written(hint).await.expect("takes the hint");
        }
        metastore.commit_pending().await.expect("commits");
        let job = metastore.claim_job().await.expect("claims").expect("a job");
        let publication = world.merge(&job).await;
        metastore.publish(publication).await.expect("publishes");
    }
    metastore.seal(WriterId(2)).await.expect("seals");
    for _ in 0..3 {
        sweep_for(&world, &metastore, 1).await;
        while let Some(job) = metastore.claim_job().await.expect("claims") {
            let publication = world.merge(&job).await;
            metastore.publish(publication).await.expect("publishes");
        }
    }
    let expected = world.counts(&metastore).await;
    assert_eq!(expected.len(), 12);
    let records = world.store.list("publish").await.expect("lists").len();
    assert!(records > 6, "{records} records");
    for _ in 0..12 {
        metastore.reconcile().await.expect("compares");
        sweep_for(&world, &metastore, 1).await;
    }
    // The newest of the open log, and those made from it.
    let kept = world.store.list("publish").await.expect("lists").len();
    assert!(kept <= records / 2, "{kept} of {records} records are left");
    let hint = world.put(1, 6, &[6]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    let expected = world.counts(&metastore).await;
    metastore.drain().await;
    rebuild::rebuild_with(&world.store, &world.clock, &*world.written, &world.config, true)
        .await
        .expect("rebuilds");
    assert_eq!(world.counts(&*world.open().await).await, expected);
}

/// Says which seed it was, whatever went wrong.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with seed {seed}: SEEDS={seed}..{next}", seed = self.0, next = self.0 + 1);
        }
    }
}

/// A step of a process that dies after `limit`, if that is given.
async fn unless_it_dies<T>(
    world: &World,
    limit: Option<Duration>,
    step: impl Future<Output = T>,
) -> Option<T> {
    match limit {
        None => Some(step.await),
        Some(limit) => world.clock.timeout(limit, step).await,
    }
}

/// Writers that resend, lost hints, a store that fails in every way, owners that die or are replaced at any
/// moment and go on as zombies, racing compactors, sweeps, orders to delete: every key counts exactly once, or never
/// again once an order erased it, before and after a rebuild.
async fn check_exactly_once(seed: u64) {
    let _named = Named(seed);
    let mut world = World::new(seed);
    let mut rng = seed;
    let mut random = move |below: u64| {
        rng = mixed(rng);
        rng % below
    };
    // A quarter of the runs have a store without faults, so that what fails there is plain.
    let share = random(4) as u32;
    world.faulty.set_rates(Rates {
        fail: share * random(25) as u32,
        lose_reply: share * random(25) as u32,
        false_conflict: share * random(20) as u32,
        silence: share * random(5) as u32,
        land_late: share * random(15) as u32,
        latency: Duration::from_millis(u64::from(share) * random(200)),
        long: Duration::from_secs(20),
    });
    world.config.orphan_grace = limits::Duration::from_secs(3_600);
    let is_alone = random(2) == 0;
    let mut metastore = world.open_at_last(is_alone).await;
    let mut writers: Vec<(u128, u64)> = vec![(1, 0), (2, 0), (3, 0)];
    let mut minted = 3;
    // With the time of the first push: a resend must come within the window.
    let mut pushed: BTreeMap<u128, i64> = BTreeMap::new();
    let mut given_up: Vec<u128> = Vec::new();
    let mut open_jobs: Vec<Publication> = Vec::new();
    // Of orders that were answered, and of those that may be in force.
    let (mut erased, mut doubtful): (BTreeSet<u128>, BTreeSet<u128>) = Default::default();
    for step in 0..100 {
        if random(30) == 0 {
            // What lands late lands, and an owner meets every log within seconds: only then time goes by.
            world.clock.sleep(Duration::from_secs(30)).await;
            while metastore.look(&mut Duration::default()).await.is_err() {}
            world.time.pass(Duration::from_secs(80 * 60));
        } else {
            world.time.pass(Duration::from_secs(random(40)));
        }
        let dies = (random(8) == 0).then(|| Duration::from_millis(random(3_000)));
        let lives = match random(14) {
            0..=5 => {
                let at = random(3) as usize;
                let since = world.clock.unix_millis() - 50 * 60_000;
                let recent: Vec<u128> =
                    pushed.iter().filter(|(_, at)| **at > since).map(|(k, _)| *k).collect();
                let keys: BTreeSet<u128> = (0..1 + random(4))
                    .map(|_| match random(3) {
                        0 if !recent.is_empty() => recent[random(recent.len() as u64) as usize],
                        _ => u128::from(mixed(random(u64::MAX))),
                    })
                    .collect();
                let keys: Vec<u128> = keys.into_iter().collect();
                let pushed_millis = world.clock.unix_millis();
                let hint = loop {
                    let (writer, seq) = writers[at];
                    let put = world.try_put(writer, seq, &keys).await;
                    if let Ok(Some(hint)) = put {
                        writers[at].1 += 1;
                        break Some(hint);
                    }
                    // Closed or in doubt: the ingester opens another log, and the client may resend.
                    minted += 1;
                    writers[at] = (minted, 0);
                    if put.is_err() && random(3) == 0 {
                        given_up.extend(keys.iter().filter(|key| !pushed.contains_key(*key)));
                        break None;
                    }
                };
                match hint {
                    None => Some(()),
                    Some(hint) => {
                        for key in &keys {
                            pushed.entry(*key).or_insert(pushed_millis);
                        }
                        if random(3) == 0 {
                            Some(())
                        } else {
                            let hinted = metastore.segment_written(hint);
                            unless_it_dies(&world, dies, hinted).await.map(|_| ())
                        }
                    }
                }
            }
            6 => unless_it_dies(&world, dies, metastore.commit_pending()).await.map(|_| ()),
            7 | 8 => match unless_it_dies(&world, dies, metastore.claim_job()).await {
                Some(Ok(Some(job))) => match world.try_merge(&job).await {
                    // Given up: the attempt lapses.
                    Err(_) => Some(()),
                    Ok(publication) if random(4) == 0 => {
                        open_jobs.push(publication);
                        Some(())
                    }
                    Ok(publication) => {
                        unless_it_dies(&world, dies, metastore.publish(publication)).await.map(|_| ())
                    }
                },
                claimed => claimed.map(|_| ()),
            },
            9 if !open_jobs.is_empty() => {
                // A zombie, perhaps of an earlier owner.
                let publication = open_jobs.swap_remove(random(open_jobs.len() as u64) as usize);
                unless_it_dies(&world, dies, metastore.publish(publication)).await.map(|_| ())
            }
            10 => {
                let (store, metastore) = (world.store.clone(), metastore.clone());
                let swept = async move {
                    let dead = metastore.sweepable(20).await.unwrap_or_default();
                    for object in &dead {
                        if store.delete(&object.key).await.is_err() {
                            return;
                        }
                    }
                    let _ = metastore.swept(dead.into_iter().map(|d| d.key).collect()).await;
                };
                unless_it_dies(&world, dies, swept).await
            }
            11 => {
                let compared = async {
                    metastore.tend();
                    let _ = metastore.commit_pending().await;
                    let _ = metastore.create_records().await;
                    let _ = metastore.advance_orders().await;
                    if let Ok(found) = metastore.reconcile().await {
                        assert_eq!(found.missing, 0, "seed {seed}, step {step}: an object is gone");
                    }
                };
                unless_it_dies(&world, dies, compared).await
            }
            12 => {
                let keys: Vec<u128> = pushed.keys().filter(|_| random(8) == 0).copied().collect();
                let numbers: Vec<String> = keys.iter().map(ToString::to_string).collect();
                let order = deletes::request(&format!("{{key=~\"none|{}\"}}", numbers.join("|")));
                // It waits for the store for as long as that takes.
                let limit = dies.unwrap_or(Duration::from_secs(120));
                let ordered = unless_it_dies(&world, Some(limit), metastore.delete(order)).await;
                match &ordered {
                    Some(Ok(_)) => erased.extend(keys),
                    _ => doubtful.extend(keys),
                }
                ordered.map(|_| ())
            }
            _ => {
                if random(2) == 0 {
                    metastore.drain().await;
                }
                None
            }
        };
        if lives.is_none() {
            if random(3) == 0 {
                world.time.set(random(120_000) as i64 - 60_000);
            }
            let zombie = std::mem::replace(&mut metastore, world.open_at_last(is_alone).await);
            if random(2) == 0 {
                let _ = zombie.commit_pending().await;
                if let Some(publication) = open_jobs.pop() {
                    let _ = zombie.publish(publication).await;
                }
            }
        }
        // Nothing is said while it is not sure that it is the owner.
        if let Ok(snapshot) = metastore.find(everything()).await {
            let counts = world.counts_of(snapshot);
            let double: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
            assert!(double.is_empty(), "seed {seed}, step {step}: {double:?}");
            let back: Vec<_> = erased.iter().filter(|key| counts.contains_key(*key)).collect();
            assert!(back.is_empty(), "seed {seed}, step {step}: {back:?} were erased");
        }
    }
    world.faulty.set_rates(Rates::default());
    // What lands late has landed.
    world.clock.sleep(Duration::from_secs(60)).await;
    for writer in 1..=minted {
        metastore.probe(WriterId(writer)).await.expect("probes");
    }
    metastore.commit_pending().await.expect("commits");
    metastore.create_records().await.expect("creates");
    let before = metastore.find(everything()).await.expect("finds");
    for object in &before.objects {
        world.store.get(&object.key).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let mut counts = world.counts_of(before.clone());
    let back: Vec<_> = erased.iter().filter(|key| counts.contains_key(*key)).collect();
    assert!(back.is_empty(), "seed {seed}: {back:?} were erased");
    let is_ordered = |key: &u128| erased.contains(key) || doubtful.contains(key);
    let lost: Vec<_> = pushed.keys().filter(|key| !counts.contains_key(*key) && !is_ordered(key)).collect();
    assert!(lost.is_empty(), "seed {seed}: {lost:?} were acknowledged and are lost");
    rebuild::rebuild_with(&world.store, &world.clock, &*world.written, &world.config, true)
        .await
        .expect("rebuilds");
    let after = world.open().await.find(everything()).await.expect("finds");
    // An order that nobody was told of may have landed since; whoever comes next applies it.
    let mut rebuilt = world.counts_of(after.clone());
    rebuilt.extend(counts.iter().filter(|(key, _)| doubtful.contains(*key)));
    assert_eq!(rebuilt, counts, "seed {seed}, rebuilt");
    let names = |snapshot: Snapshot| {
        let objects = snapshot.objects.into_iter().map(|o| {
            let orders: Vec<u64> = o.orders.iter().map(|order| order.number).collect();
            (o.key, (o.datasets, if doubtful.is_empty() { orders } else { Vec::new() }))
        });
        objects.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(names(before), names(after), "seed {seed}: the same live set");
    counts.retain(|key, _| !pushed.contains_key(key));
    given_up.retain(|key| counts.remove(key).is_some());
    assert_eq!(counts, BTreeMap::new(), "seed {seed}: nobody pushed these");
}

#[tokio::test(start_paused = true)]
async fn every_key_counts_exactly_once() {
    // `SEEDS=from..to` for more of them.
    #[allow(clippy::disallowed_methods)]
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| {
        let (from, to) = seeds.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    for seed in seeds.unwrap_or(100..300) {
        check_exactly_once(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_is_refused_while_the_owner_may_be_alive() {
    let world = World::new(14);
    world.open().await;
    // The store's own clock is the machine's, so the file is from the future of this test's.
    let result = rebuild::rebuild_with(&world.store, &world.clock, &*world.written, &world.config, false);
    assert!(matches!(result.await, Err(OpenError::Alive { .. })));
}

/// What an optimised build may take; another one is only told how long it took.
const FIND_MAX: Duration = Duration::from_millis(1);

#[test]
fn a_day_of_one_service_is_found_among_a_month_of_all_at_once() {
    const OBJECTS: u64 = 10_000;
    const SERVICES: usize = 20;
    let mut state = State::new(&Config::default());
    let types: Arc<[model::ProfileType]> =
        vec!["process_cpu:cpu:nanoseconds:cpu:nanoseconds".parse().expect("a type")].into();
    for i in 0..OBJECTS {
        let block = catalog::rows::Block {
            id: catalog::rows::BlockId { job: JobId(u128::from(i)), attempt: 1, part: 0 },
            key: Key::from_text(format!("block/a/1-0-300/{i:032x}-1-0")),
            tenant: tenant("a"),
            level: 1,
            window: (0, 300),
            bytes: 1,
            created_millis: 0,
            quarantine: None,
            floor: 0,
            rows: 0,
        };
        let time = (START_MILLIS + (i * 30 * 86_400_000 / OBJECTS) as i64) * 1_000_000;
        let datasets = (0..SERVICES).map(|service| catalog::rows::DatasetSummary {
            position: service as u32,
            tenant: tenant("a"),
            service: format!("service-{service}").into(),
            time_min: time,
            time_max: time,
            rows: 1,
            profile_types: types.clone(),
        });
        state.add_block(&block, datasets.collect());
    }
    let start = (START_MILLIS + 20 * 86_400_000) * 1_000_000;
    let request = FindRequest {
        tenants: vec![tenant("a")],
        range: TimeRange { start, end: start + 86_400_000_000_000 },
        services: Some(vec!["service-7".into()]),
        profile_type: Some(types[0].clone()),
        explain: true,
    };
    let pruned = state.index.pruned(&request, |_, _| i64::MIN);
    assert_eq!((pruned.by_service, pruned.by_profile_type), (OBJECTS * 19, 0));
    assert!((9666..=9667).contains(&pruned.by_time), "{pruned:?}");
    let clock = Clock::system();
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let began = clock.monotonic();
        let found = state.index.find(&request, &state.orders, |_, _| i64::MIN);
        best = best.min(clock.monotonic() - began);
        assert!((333..=334).contains(&found.len()), "{} objects", found.len());
    }
    println!("one service's day of {OBJECTS} objects of a month: {best:?}");
    assert!(cfg!(debug_assertions) || best <= FIND_MAX, "{best:?}");
}
