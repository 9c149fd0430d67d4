//! Merging changes no sum, whichever process dies: a real metastore, a real compactor, a store that tests control.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

#[path = "../../../crates/block/tests/support/mod.rs"]
mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use block::{Cache, Head, Origin, Reader};
use clock::{Clock, Pool, Source};
use compactor::Compactor;
use metastore::Metastore;
use model::{PushItem, TenantId, TimeRange, WriterId};
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use rpc::{FindRequest, ObjectIndex as _, SegmentHint, SegmentHints as _, Snapshot};
use storage::fault::{Faulty, Rates};
use storage::{CreateOutcome, Key, Metrics, Store};
use support::{Program, Random, Shape, Sums, item, sums_of_items, sums_of_object};

/// 2023-11-15 12:30:00 UTC.
const START_SECONDS: u64 = 1_700_051_400;

/// Time of the paused runtime.
#[derive(Clone)]
struct Time {
    start: tokio::time::Instant,
    drawn: Arc<AtomicU64>,
    /// Readings of the wall clock that panic.
    panics: Arc<AtomicU32>,
}

#[async_trait]
impl Source for Time {
    fn unix(&self) -> Duration {
        let left = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "a panic that a test asked for");
        Duration::from_secs(START_SECONDS) + self.start.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> u128 {
        let drawn = self.drawn.fetch_add(1, Ordering::SeqCst);
        u128::from(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(drawn)
    }
}

impl Time {
    fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
            drawn: Arc::new(AtomicU64::new(1)),
            panics: Arc::default(),
        }
    }
}

/// Segments in a bucket and a metastore that knows them.
struct World {
    faulty: Faulty,
    store: Store,
    metastore: Arc<Metastore>,
    clock: Clock,
    registry: Registry,
    /// The items of each segment.
    pushed: Vec<Vec<PushItem>>,
    keys: Vec<Key>,
}

impl World {
    async fn new(segments: u64) -> Self {
        Self::seeded(segments, 1).await
    }

    /// `seed` determines the latency of each request.
    async fn seeded(segments: u64, seed: u64) -> Self {
        let clock = Clock::new(Time::new());
        let faulty = Faulty::new(Arc::new(InMemory::new()), clock.clone(), seed);
        // So that every request is a moment at which a process can die.
        faulty.set_rates(Rates { latency: Duration::from_millis(20), ..Rates::default() });
        let store = Store::new(Arc::new(faulty.clone()), clock.clone(), Metrics::default());
        let mut registry = Registry::default();
        let config = metastore::Config::default();
        let metastore =
            Metastore::open(config, store.clone(), |_, _| None, clock.clone(), &mut registry).await.unwrap();
        clock.spawn(metastore.clone().run());
        let mut world =
            Self { faulty, store, metastore, clock, registry, pushed: Vec::new(), keys: Vec::new() };
        for _ in 0..segments {
            world.push(|_| {}).await;
        }
        world
    }

    /// Writes the next segment, with bytes that `spoil` may change.
    async fn push(&mut self, spoil: impl FnOnce(&mut Vec<u8>)) {
        let (writer, seq) = (WriterId(1), self.pushed.len() as u64);
        let program = Program::small(7);
        let mut random = Random::new(seq + 1);
        let mut head = Head::new();
        let mut items = Vec::new();
        for n in 0..4 {
            let shape = Shape {
                tenant: format!("tenant-{}", n % 2),
                service: "app".into(),
                pod: n,
                samples: 20,
                types: 2,
                time_nanos: self.clock.unix_nanos(),
                spans: false,
            };
            let item = item(&program, &mut random, &shape);
            head.append(&item);
            items.push(item);
        }
        let origin = Origin::Segment { writer, seq };
        let encoded = head.cut().encode(origin, self.clock.unix_millis()).unwrap();
        let mut bytes = encoded.bytes.to_vec();
        spoil(&mut bytes);
        let (key, len) = (Key::log_slot(writer, seq), bytes.len() as u64);
        assert_eq!(self.store.settle_create(&key, bytes.into()).await.unwrap(), CreateOutcome::Mine);
        let hint = SegmentHint { writer, seq, bytes: len, directory: encoded.directory };
        self.metastore.segment_written(hint).await.unwrap();
        self.keys.push(key);
        self.pushed.push(items);
    }

    fn compactor(&mut self, clock: Clock) -> Arc<Compactor> {
        let (store, metastore) = (self.store.clone(), self.metastore.clone());
        let mut registry = Registry::default();
        let compactor = Compactor::new(
            compactor::Config::default(),
            memory::Share::unlimited(),
            store,
            metastore,
            clock,
            Pool::inline(),
            &mut registry,
        );
        *self.registry.sub_registry_with_prefix("own") = registry;
        compactor
    }

    async fn find(&self) -> Snapshot {
        let tenants = ["tenant-0", "tenant-1"].map(|name| TenantId::parse(name).unwrap()).to_vec();
        let range = TimeRange { start: i64::MIN, end: i64::MAX };
        self.metastore
            .find(FindRequest { tenants, range, services: None, profile_type: None, explain: false })
            .await
            .unwrap()
    }

    async fn is_merged(&self) -> bool {
        self.find().await.objects.iter().all(|object| object.key.parse_block().is_some())
    }

    /// The sums of all rows that a query sees.
    async fn sums(&self) -> Sums {
        let cache = Cache::new(1 << 20);
        let mut sums = Sums::new();
        for object in self.find().await.objects {
            let block = Reader::open(&self.store, &object.key, object.bytes, &cache).await.unwrap();
            for (row, values) in sums_of_object(&block, &object.masked).await.unwrap() {
                assert!(sums.insert(row, values).is_none(), "a profile is stored in two objects");
            }
        }
        sums
    }

    fn expected(&self, without: Option<usize>) -> Sums {
        let counted = self.pushed.iter().enumerate().filter(|(n, _)| Some(*n) != without);
        sums_of_items(counted.flat_map(|(_, items)| items))
    }

    /// Values of the metric `name`, summed.
    fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter(|line| line.contains(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    async fn sleep(&self, secs: u64) {
        self.clock.sleep(Duration::from_secs(secs)).await;
    }
}

/// A process that dies after `polls` polls, each of which ends in a wait.
struct DyingProcess<F> {
    process: Pin<Box<F>>,
    polls: u32,
}

impl<F: Future<Output = ()>> Future for DyingProcess<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            return Poll::Ready(());
        }
        self.polls -= 1;
        self.process.as_mut().poll(context)
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_compactor_dies_another_one_finishes_its_job_and_every_sum_stays() {
    for seed in 1..4 {
        let mut waits = 0;
        while !dies_and_is_replaced(seed, waits).await {
            waits += 1;
            assert!(waits < 1_000, "seed {seed}: the first compactor never publishes");
        }
        assert!(waits >= 8, "seed {seed}: {waits} waits are too few, the store must make it wait");
    }
}

/// Lets a compactor die after `waits` waits; returns whether it had published before.
async fn dies_and_is_replaced(seed: u64, waits: u32) -> bool {
    let mut world = World::seeded(3, seed).await;
    let expected = world.expected(None);
    world.sleep(31).await;
    let first = world.compactor(world.clock.clone());
    DyingProcess { process: Box::pin(first.run()), polls: waits }.await;
    assert_eq!(world.sums().await, expected, "seed {seed}, after {waits} waits");
    let has_published = world.is_merged().await;
    let second = world.compactor(world.clock.clone());
    world.clock.spawn(second.run());
    world.sleep(6 * 60).await;
    assert!(world.is_merged().await, "seed {seed}, after {waits} waits: the job is not done by another");
    assert_eq!(world.sums().await, expected, "seed {seed}, after {waits} waits: merged by another");
    has_published
}

#[tokio::test(start_paused = true)]
async fn dead_objects_wait_while_the_store_denies_deletes() {
    let mut world = World::new(3).await;
    world.faulty.deny_deletes(true);
    let compactor = world.compactor(world.clock.clone());
    world.clock.spawn(compactor.run());
    world.sleep(3 * 3_600).await;
    assert!(world.is_merged().await);
    let segments = world.store.list("log").await.unwrap().len();
    assert!(segments >= 3, "{segments} are left");
    assert_eq!(world.metric("objects_deleted"), 0.0);
    world.faulty.deny_deletes(false);
    world.sleep(600).await;
    for key in &world.keys {
        assert!(
            matches!(world.store.get(key).await, Err(storage::Error::NotFound(_))),
            "{key} is still there"
        );
    }
    assert_eq!(world.sums().await, world.expected(None));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_input_is_quarantined_and_its_neighbours_are_merged() {
    const DAMAGED: usize = 2;
    let mut quarantined_rounds = 0;
    for part in 1..8 {
        let mut world = World::new(DAMAGED as u64).await;
        world
            .push(|bytes| {
                let position = bytes.len() * part / 8;
                bytes[position] ^= 0x5a;
            })
            .await;
        for _ in 0..2 {
            world.push(|_| {}).await;
        }
        let compactor = world.compactor(world.clock.clone());
        world.clock.spawn(compactor.run());
        world.sleep(60).await;
        // Segments that arrive while the job fails are merged all the same.
        world.push(|_| {}).await;
        world.sleep(10 * 60).await;
        let snapshot = world.find().await;
        let quarantined: Vec<Key> = snapshot.quarantined.into_iter().map(|(key, _)| key).collect();
        if quarantined.is_empty() {
            // The damaged byte is never read.
            assert_eq!(world.sums().await, world.expected(None), "byte {part}/8");
            continue;
        }
        assert_eq!(quarantined, [world.keys[DAMAGED].clone()], "byte {part}/8");
        assert!(world.is_merged().await, "byte {part}/8");
        assert_eq!(world.sums().await, world.expected(Some(DAMAGED)), "byte {part}/8");
        assert_eq!(world.metric("metastore_quarantined_objects"), 1.0);
        assert!(world.metric("compactor_jobs_failed_total") >= 3.0);
        quarantined_rounds += 1;
    }
    assert!(quarantined_rounds >= 3, "only {quarantined_rounds} of 7 damaged bytes are ever read");
}

#[tokio::test(start_paused = true)]
async fn a_merge_that_panics_is_a_failed_attempt_and_the_next_one_succeeds() {
    let mut world = World::new(3).await;
    // Within a merge, the wall clock is read once.
    let time = Time::new();
    time.panics.store(2, Ordering::SeqCst);
    let compactor = world.compactor(Clock::new(time));
    let running = world.clock.spawn(compactor.clone().run());
    world.sleep(3 * 60).await;
    assert_eq!(world.metric("compactor_jobs_failed_total"), 2.0);
    assert!(world.is_merged().await);
    assert_eq!(world.sums().await, world.expected(None));
    compactor.drain().await;
    running.await.unwrap();
}
