//! Cost of a catalog as services, writers and days grow: `cargo bench -p metastore --bench scale`, optionally with
//! `services=1000 writers=20 pushes=133 days=30 compactors=4`. `cargo test` runs a small one, so that it keeps working.
//!
//! Time is virtual and objects have no bytes: writers report segments; compactors claim jobs, wait as long as a merge
//! of that size takes, and publish outputs of a modelled size. The rest is the real metastore. The benchmark prints
//! wall times of its calls on this machine, its CPU time, memory, requests and bytes.
//!
//! One whole day and most of the next run with few, long segments. The final blocks of the first day are then written
//! as the rows of each day before. An owner opens this catalog and runs with segments of 500 ms from before midnight
//! until after the day has closed.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on should stop where it is")]
#![allow(clippy::disallowed_methods, reason = "it measures wall time")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use block::{DatasetEntry, Directory, Origin, Section};
use bytes::Bytes;
use catalog::rows::{Dataset, DatasetSummary, Row};
use catalog::{Batch, Engine, NumberedCatalog, numbered};
use clock::{Clock, Pool, Source, Task};
use metastore::header::{Error, Header, Headers};
use metastore::{Config, Metastore, Parts};
use model::{BlockId, DAY, ItemKey, JobId, ProfileType, Shard, TenantId, TimeRange, Times, Window, WriterId};
use object_store::memory::InMemory;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rpc::grpc::{MetastoreClient, Peer, Services};
use rpc::{
    FindRequest, JobOutput, JobQueue as _, ObjectIndex as _, Publication, SegmentHint, SegmentHints as _,
    Snapshot,
};
use storage::{Key, Place, Store};
use tokio::net::{TcpListener, TcpStream};

/// 2023-11-15 00:00:00 UTC.
const START: i64 = 1_700_006_400;
/// Stored bytes of one profile's rows.
const ROW_BYTES: f64 = 1_400.0;
const ROWS: u64 = 400;
/// Stored symbols of one service with all of its stacktraces, and the number of profiles after which most of them are
/// present.
const SYMBOL_BYTES: f64 = 60_000.0;
const SYMBOL_PROFILES: f64 = 10.0;
/// Read rate of one compactor.
const MERGE_BYTES_PER_SECOND: f64 = 15e6;
const SEGMENT: Duration = Duration::from_millis(500);
/// Length of a segment while whole days run.
const LONG_SEGMENT: Duration = Duration::from_secs(300);
/// Between samples of the lags.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
struct Load {
    services: u32,
    writers: u32,
    /// Per second.
    pushes: u32,
    days: i64,
    compactors: u32,
}

impl Load {
    /// Large if `--bench` is among the arguments, which `cargo bench` passes.
    fn from_arguments(arguments: &[String]) -> Self {
        let mut load = if arguments.iter().any(|argument| argument == "--bench") {
            let (services, writers, pushes, days, compactors) = (1_000, 20, 133, 30, 4);
            Self { services, writers, pushes, days, compactors }
        } else {
            let (services, writers, pushes, days, compactors) = (20, 2, 3, 4, 1);
            Self { services, writers, pushes, days, compactors }
        };
        for argument in arguments {
            let Some((name, value)) = argument.split_once('=') else { continue };
            match name {
                "services" => load.services = value.parse().unwrap(),
                "writers" => load.writers = value.parse().unwrap(),
                "pushes" => load.pushes = value.parse().unwrap(),
                "days" => load.days = value.parse().unwrap(),
                "compactors" => load.compactors = value.parse().unwrap(),
                _ => panic!("{name} is no parameter"),
            }
        }
        load
    }
}

/// A dataset of an object that has no bytes.
#[derive(Clone)]
struct Piece {
    service: u32,
    times: Times,
    profiles: u32,
}

/// A block that has no bytes.
#[derive(Clone)]
struct Block {
    level: u8,
    window: Window,
    shard: Shard,
    pieces: Vec<Piece>,
}

impl Block {
    fn key(&self, id: BlockId) -> Key {
        let Self { level, window, shard, .. } = *self;
        Key::block(&TenantId::anonymous(), Place { level, window, shard }, id)
    }
}

fn bytes_of(pieces: &[Piece]) -> u64 {
    let bytes = pieces.iter().map(|piece| {
        let profiles = f64::from(piece.profiles);
        ROW_BYTES * profiles + SYMBOL_BYTES * (1.0 - (-profiles / SYMBOL_PROFILES).exp())
    });
    bytes.sum::<f64>() as u64
}

#[derive(Clone)]
struct Time(tokio::time::Instant, Arc<Mutex<u64>>);

#[async_trait]
impl Source for Time {
    fn unix(&self) -> Duration {
        Duration::from_secs(START as u64) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> u128 {
        let mut state = self.1.lock();
        *state += 1;
        let spread = |n: u64| {
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
        };
        u128::from(spread(*state)) << 64 | u128::from(spread(!*state))
    }
}

/// Headers of a bucket without unreported segments.
struct NoHeaders;

#[async_trait]
impl Headers for NoHeaders {
    async fn read(&self, _: &Key, _: Option<u64>) -> Result<Header, Error> {
        Ok(Header::Absent)
    }
}

struct World {
    load: Load,
    clock: Clock,
    store: Store,
    /// The same bucket for ingesters and compactors, whose requests are not counted.
    others: Store,
    requests: Registry,
    types: Vec<ProfileType>,
    segments: Mutex<HashMap<Key, Vec<Piece>>>,
    blocks: Mutex<HashMap<Key, Block>>,
    walls: Mutex<BTreeMap<&'static str, Vec<f64>>>,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    profiles: u64,
    segments: u64,
    logged_bytes: u64,
    merged_bytes: u64,
    writers: u32,
}

impl World {
    fn new(load: &Load) -> Arc<Self> {
        let clock = Clock::new(Time(tokio::time::Instant::now(), Arc::default()));
        let mut requests = Registry::default();
        let metrics = storage::Metrics::register(&mut requests);
        let types = [
            "cpu:cpu:nanoseconds:cpu:nanoseconds",
            "memory:alloc_space:bytes:space:bytes",
            "memory:inuse_space:bytes:space:bytes",
        ];
        let bucket = Arc::new(InMemory::new());
        Arc::new(Self {
            load: load.clone(),
            store: Store::new(bucket.clone(), clock.clone(), metrics),
            others: Store::new(bucket, clock.clone(), storage::Metrics::default()),
            clock,
            requests,
            types: types.iter().map(|name| name.parse().unwrap()).collect(),
            segments: Mutex::default(),
            blocks: Mutex::default(),
            walls: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    async fn open(&self, registry: &mut Registry) -> Arc<Metastore> {
        let parts = Parts { headers: Arc::new(NoHeaders), engine: self.engine(), is_alone: true };
        let kept = Duration::from_secs((self.load.days * DAY) as u64);
        let retention = Arc::new(move |_: &TenantId, _: Option<&str>| Some(kept));
        Metastore::open_parts(
            Config::default(),
            self.store.clone(),
            parts,
            retention,
            self.clock.clone(),
            registry,
        )
        .await
        .unwrap()
    }

    fn engine(&self) -> Arc<NumberedCatalog> {
        Arc::new(NumberedCatalog::new(self.store.clone(), self.clock.clone(), numbered::Options::default()))
    }

    fn timed(&self, call: &'static str, began: Instant) {
        self.walls.lock().entry(call).or_default().push(began.elapsed().as_secs_f64() * 1e3);
    }

    fn directory(&self, origin: Origin, keys: Vec<ItemKey>, pieces: &[Piece]) -> Directory {
        let section = Section { offset: 0, bytes: 1, raw_bytes: 1, checksum: 0 };
        let mut row = 0;
        let datasets = pieces.iter().map(|piece| {
            row += u64::from(piece.profiles) * ROWS;
            DatasetEntry {
                tenant: TenantId::anonymous(),
                service: service(piece.service),
                times: piece.times,
                rows: row - u64::from(piece.profiles) * ROWS..row,
                profiles: piece.profiles,
                profile_types: self.types.clone(),
                label_names: vec!["namespace".into(), "pod".into(), "service_name".into()],
                index: section,
                strings: section,
                symbols: section,
                tree: None,
                cells: Vec::new(),
            }
        });
        Directory { origin, created_millis: self.clock.unix_millis(), keys, datasets: datasets.collect() }
    }

    /// Writes the segments of one writer. Each service sends to one writer, as placement arranges.
    async fn write(self: Arc<Self>, number: u32, segment: Duration, metastore: Arc<Metastore>) {
        let writer = {
            let mut counts = self.counts.lock();
            counts.writers += 1;
            WriterId(u128::from(counts.writers))
        };
        let own: Vec<u32> =
            (0..self.load.services).filter(|service| service % self.load.writers == number).collect();
        let each = f64::from(self.load.pushes) / f64::from(self.load.writers) * segment.as_secs_f64();
        let (mut due, mut next) = (0.0, 0);
        self.clock.sleep(segment * number / self.load.writers).await;
        for seq in 0.. {
            let began = self.clock.unix_nanos();
            self.clock.sleep(segment).await;
            due += each;
            let (now, count) = (self.clock.unix_nanos(), due as usize);
            let mut pieces: BTreeMap<u32, Piece> = BTreeMap::new();
            let mut keys = Vec::new();
            for profile in 0..count {
                due -= 1.0;
                next += 1;
                let service = own[next % own.len()];
                keys.push(ItemKey(self.clock.random()));
                let time = began + (now - began) * profile as i64 / count as i64;
                let new = Piece { service, times: Times { first: time, last: time }, profiles: 0 };
                let piece = pieces.entry(service).or_insert(new);
                piece.times.last = time;
                piece.profiles += 1;
            }
            let pieces: Vec<Piece> = pieces.into_values().collect();
            let bytes = bytes_of(&pieces);
            {
                let mut counts = self.counts.lock();
                counts.logged_bytes += bytes;
                counts.segments += 1;
            }
            let directory = self.directory(Origin::Segment { writer, seq }, keys, &pieces);
            let key = Key::log_slot(writer, seq);
            self.segments.lock().insert(key.clone(), pieces);
            self.others.settle_create(&key, Bytes::new()).await.unwrap();
            let began = Instant::now();
            metastore.segment_written(SegmentHint { writer, seq, bytes, directory }).await.unwrap();
            self.timed("hint", began);
            self.counts.lock().profiles += count as u64;
        }
    }

    async fn compact(self: Arc<Self>, metastore: Arc<Metastore>) {
        loop {
            let began = Instant::now();
            let job = metastore.claim_job().await.unwrap();
            self.timed(if job.is_some() { "claim" } else { "claim, no job" }, began);
            let Some(job) = job else {
                self.clock.sleep(LONG_SEGMENT / 30).await;
                continue;
            };
            let bytes: u64 = job.inputs.iter().map(|input| input.bytes).sum();
            self.counts.lock().merged_bytes += bytes;
            self.clock.sleep(Duration::from_secs_f64(bytes as f64 / MERGE_BYTES_PER_SECOND)).await;
            let mut places: BTreeMap<(Window, Shard), BTreeMap<u32, Piece>> = BTreeMap::new();
            {
                let (segments, blocks) = (self.segments.lock(), self.blocks.lock());
                let pieces_of = |key: &Key| match segments.get(key) {
                    Some(pieces) => pieces.clone(),
                    None => blocks[key].pieces.clone(),
                };
                for piece in job.inputs.iter().flat_map(|input| pieces_of(&input.key)) {
                    let window = block::window_of(piece.times.first, &job.windows);
                    let shard = block::shard_of(&service(piece.service), job.shard_bits);
                    let all = places.entry((window, shard)).or_default();
                    let merged = all.entry(piece.service).or_insert(Piece { profiles: 0, ..piece.clone() });
                    merged.profiles += piece.profiles;
                    merged.times = merged.times.join(piece.times);
                }
            }
            let outputs = (0..).zip(places).map(|(part, ((window, shard), pieces))| {
                let pieces: Vec<Piece> = pieces.into_values().collect();
                let id = BlockId { job: job.id, attempt: job.attempt, part };
                let origin = Origin::Block { job: job.id, attempt: job.attempt, part, level: job.level };
                let (bytes, directory) = (bytes_of(&pieces), self.directory(origin, Vec::new(), &pieces));
                let block = Block { level: job.level, window, shard, pieces };
                let key = block.key(id);
                self.blocks.lock().insert(key.clone(), block);
                JobOutput { key, bytes, tenant: TenantId::anonymous(), window, directory }
            });
            let outputs: Vec<JobOutput> = outputs.collect();
            for output in &outputs {
                self.others.settle_create(&output.key, Bytes::new()).await.unwrap();
            }
            let began = Instant::now();
            metastore.publish(Publication { job: job.id, attempt: job.attempt, outputs }).await.unwrap();
            self.timed("publish", began);
            let (mut segments, mut blocks) = (self.segments.lock(), self.blocks.lock());
            for input in &job.inputs {
                segments.remove(&input.key);
                blocks.remove(&input.key);
            }
        }
    }

    async fn sweep(self: Arc<Self>, metastore: Arc<Metastore>) {
        loop {
            let began = Instant::now();
            let dead = metastore.sweepable(200).await.unwrap();
            self.timed("sweepable", began);
            let is_full = dead.len() == 200;
            for object in &dead {
                self.others.delete(&object.key).await.unwrap();
            }
            metastore.swept(dead.into_iter().map(|object| object.key).collect()).await.unwrap();
            self.clock.sleep(Duration::from_secs(if is_full { 1 } else { 30 })).await;
        }
    }

    fn find_request(&self, services: Option<u32>, length: Duration) -> FindRequest {
        let end = self.clock.unix_nanos();
        FindRequest {
            tenants: vec![TenantId::anonymous()],
            range: TimeRange { start: end.saturating_sub_unsigned(length.as_nanos() as u64), end },
            services: services.map(|number| vec![service(number)]),
            profile_type: Some(self.types[0].clone()),
            explain: false,
        }
    }

    /// Prints times of finds, here and over gRPC.
    async fn finds(&self, metastore: &Metastore) {
        for (range, hours) in [("1 h", 1), ("24 h", 24), ("everything", 24 * 365)] {
            for (scope, services) in [("one service", Some(7)), ("all services", None)] {
                let request = self.find_request(services, Duration::from_secs(hours * 3_600));
                let mut walls = Vec::new();
                let mut answer = None;
                for _ in 0..20 {
                    let began = Instant::now();
                    answer = Some(metastore.find(request.clone()).await.unwrap());
                    walls.push(began.elapsed().as_secs_f64() * 1e3);
                }
                let answer = answer.unwrap();
                let datasets: usize = answer.objects.iter().map(|object| object.datasets.len()).sum();
                println!(
                    "  find, {scope}, {range}: {} objects, {datasets} datasets; {}; over gRPC {}",
                    answer.objects.len(),
                    spread(&mut walls),
                    over_grpc(answer)
                );
            }
        }
    }

    /// Returns the number of live datasets. Checks that no profile is lost or found twice.
    async fn count_all(&self, metastore: &Metastore) -> usize {
        let found = metastore.find(self.find_request(None, Duration::from_secs(365 * 86_400))).await.unwrap();
        let (segments, blocks) = (self.segments.lock(), self.blocks.lock());
        let pieces = |key: &Key| segments.get(key).unwrap_or_else(|| &blocks[key].pieces).iter();
        let held = found.objects.iter().flat_map(|object| pieces(&object.key));
        let profiles = held.map(|piece| u64::from(piece.profiles)).sum::<u64>();
        assert_eq!(profiles, self.counts.lock().profiles, "profiles found");
        found.objects.iter().map(|object| object.datasets.len()).sum()
    }

    /// Runs the load for `length`. Returns the longest wait for a merge, by the level of its blocks.
    async fn run(
        self: &Arc<Self>,
        metastore: &Arc<Metastore>,
        registry: &Registry,
        segment: Duration,
        length: Duration,
    ) -> [f64; 3] {
        let (cpu, began) = (cpu_seconds(), Instant::now());
        let (requests, counts) = (self.requests(), *self.counts.lock());
        let owner = self.clock.spawn(metastore.clone().run());
        let mut tasks = vec![self.clock.spawn(self.clone().sweep(metastore.clone()))];
        for number in 0..self.load.writers {
            tasks.push(self.clock.spawn(self.clone().write(number, segment, metastore.clone())));
        }
        for _ in 0..self.load.compactors {
            tasks.push(self.clock.spawn(self.clone().compact(metastore.clone())));
        }
        let mut waits = [0.0_f64; 3];
        let end = self.clock.monotonic() + length;
        while self.clock.monotonic() < end {
            self.clock.sleep(SAMPLE_INTERVAL).await;
            let text = exposition(registry);
            for (level, wait) in (1..).zip(&mut waits) {
                *wait = wait.max(gauge(&text, &format!("merge_lag_seconds{{level=\"{level}\"}}")));
            }
        }
        tasks.iter().for_each(Task::abort);
        let seconds = length.as_secs_f64();
        println!(
            "  {:.1} h of it took {:.0} s, {:.0} s of CPU with the model's own, {:.1} % of the time",
            seconds / 3.6e3,
            began.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            (cpu_seconds() - cpu) / seconds * 100.0
        );
        println!(
            "  longest wait for blocks from segments {:.0} s, of an hour {:.0} s, of a day {:.0} s",
            waits[0], waits[1], waits[2]
        );
        for (name, count) in self.requests() {
            let count = count - requests.get(&name).copied().unwrap_or(0.0);
            if count > 0.0 {
                println!("  {name}: {:.2}/s", count / seconds);
            }
        }
        let now = *self.counts.lock();
        println!(
            "  log: {:.2} objects/s, {:.2} MB/s; merged: {:.2} MB/s",
            (now.segments - counts.segments) as f64 / seconds,
            (now.logged_bytes - counts.logged_bytes) as f64 / seconds / 1e6,
            (now.merged_bytes - counts.merged_bytes) as f64 / seconds / 1e6,
        );
        let text = exposition(registry);
        let names = ["live_segments", "live_blocks", "dead_objects", "dedup_keys", "dedup_bytes"];
        println!("  {}", names.map(|name| format!("{name} {}", gauge(&text, name))).join(", "));
        owner.abort();
        waits
    }

    fn requests(&self) -> BTreeMap<String, f64> {
        let text = exposition(&self.requests);
        let lines = text.lines().filter_map(|line| line.strip_prefix("pyrograph_storage_requests_total"));
        lines
            .map(|line| {
                line.rsplit_once(' ').map(|(name, count)| (name.to_owned(), count.parse().unwrap())).unwrap()
            })
            .collect()
    }

    fn print_walls(&self) {
        for (call, mut millis) in std::mem::take(&mut *self.walls.lock()) {
            println!("  {call}: {} times, {}", millis.len(), spread(&mut millis));
        }
    }

    async fn print_files(&self) {
        let (mut commits, mut checkpoints) = (Vec::new(), Vec::new());
        for object in self.store.list("catalog").await.unwrap() {
            if object.key.as_str().contains("/snapshot/") {
                checkpoints.push(object.bytes)
            } else {
                commits.push(object.bytes)
            }
        }
        let largest = checkpoints.iter().max().copied().unwrap_or(0) as f64 / 1e6;
        let mean = commits.iter().sum::<u64>() as f64 / commits.len().max(1) as f64 / 1e3;
        println!(
            "  catalog: {} checkpoints, the largest {largest:.1} MB; {} commits of {mean:.1} kB",
            checkpoints.len(),
            commits.len()
        );
    }

    /// The blocks of the first day.
    fn first_day(&self) -> Vec<Block> {
        let blocks = self.blocks.lock();
        let mut first_day: Vec<(&Key, &Block)> =
            blocks.iter().filter(|(_, block)| block.window == Window { start: START, length: DAY }).collect();
        first_day.sort_by_key(|(key, _)| *key);
        first_day.into_iter().map(|(_, block)| block.clone()).collect()
    }

    /// Writes the rows of these blocks of the first day for each day before it, as an earlier owner would have: with
    /// the first day and the running one there are `days`.
    async fn fill(&self, blocks: &[Block]) {
        let catalog = self.engine().open().await.unwrap();
        let types: Arc<[ProfileType]> = self.types.as_slice().into();
        for day in 1..self.load.days - 1 {
            for template in blocks {
                let mut block = template.clone();
                block.window.start -= day * DAY;
                for piece in &mut block.pieces {
                    piece.times.first -= day * DAY * 1_000_000_000;
                    piece.times.last -= day * DAY * 1_000_000_000;
                }
                let id = BlockId { job: JobId(self.clock.random()), attempt: 1, part: 0 };
                let key = block.key(id);
                let datasets = (0..).zip(&block.pieces).map(|(position, piece)| DatasetSummary {
                    position,
                    tenant: TenantId::anonymous(),
                    service: service(piece.service).as_str().into(),
                    times: piece.times,
                    rows: u64::from(piece.profiles) * ROWS,
                    profile_types: types.clone(),
                });
                let datasets: Vec<DatasetSummary> = datasets.collect();
                let row = catalog::rows::Block {
                    id,
                    key: key.clone(),
                    tenant: TenantId::anonymous(),
                    level: block.level,
                    window: block.window,
                    bytes: bytes_of(&block.pieces),
                    created_millis: block.window.end() * 1_000,
                    quarantine: None,
                    floor: 0,
                    rows: datasets.iter().map(|dataset| dataset.rows).sum(),
                };
                let mut batch = Batch::default();
                row.put_into(&mut batch);
                for summary in datasets {
                    Dataset { block: id, day: block.window.day(), summary, has_own_key: true }
                        .put_into(&mut batch);
                }
                catalog.commit(batch).await.unwrap();
                let profiles = block.pieces.iter().map(|piece| u64::from(piece.profiles)).sum::<u64>();
                self.counts.lock().profiles += profiles;
                self.others.settle_create(&key, Bytes::new()).await.unwrap();
                self.blocks.lock().insert(key, block);
            }
            catalog.maintain().await.unwrap();
        }
    }
}

/// Time of an answer from its owner to the client, over a connection within this machine, and its bytes.
fn over_grpc(answer: Snapshot) -> String {
    struct Answers(Snapshot);

    #[async_trait]
    impl rpc::Relay for Answers {
        async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> Result<T, rpc::Error> {
            Err(rpc::Error::new(
                rpc::ErrorKind::Unavailable,
                format!("this metastore of a test has no {}", call.method),
            ))
        }

        async fn find(&self, _: FindRequest) -> Result<Snapshot, rpc::Error> {
            Ok(self.0.clone())
        }
    }

    /// Forwards one connection to `to`. Returns the bytes of the answer.
    async fn forward(listener: TcpListener, to: SocketAddr) -> u64 {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut to = TcpStream::connect(to).await.unwrap();
        tokio::io::copy_bidirectional(&mut from, &mut to).await.map_or(0, |(_, answered)| answered)
    }

    let request = FindRequest {
        tenants: vec![TenantId::anonymous()],
        range: TimeRange { start: 0, end: 1 },
        services: None,
        profile_type: None,
        explain: false,
    };
    let own = Instant::now();
    let copy = answer.clone();
    let copied = own.elapsed().as_secs_f64() * 1e3;
    drop(copy);
    let ask = async {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let services = Services::new(Pool::new(2)).metastore(Arc::new(Answers(answer)));
        let patience = Duration::from_secs(60);
        clock.spawn(rpc::grpc::serve(listener, services, clock.clone(), patience, std::future::pending()));
        let client = |address: SocketAddr| {
            let config = rpc::grpc::Config::default();
            MetastoreClient::new(
                Peer::new(&address.to_string(), config, clock.clone(), Pool::new(2)).unwrap(),
            )
        };
        let counting = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counted = client(counting.local_addr().unwrap());
        let forwarding = tokio::spawn(forward(counting, address));
        counted.find(request.clone()).await.unwrap();
        drop(counted);
        let bytes = forwarding.await.unwrap();
        let client = client(address);
        let mut walls = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            client.find(request.clone()).await.unwrap();
            walls.push(began.elapsed().as_secs_f64() * 1e3);
        }
        format!("{} kB, {}, of which {copied:.1} ms are the model's copy", bytes / 1_000, spread(&mut walls))
    };
    // On its own thread: in the runtime of the model, time is virtual.
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    std::thread::scope(|scope| scope.spawn(|| runtime().block_on(ask)).join().unwrap())
}

fn spread(millis: &mut [f64]) -> String {
    millis.sort_by(f64::total_cmp);
    let quantile = |share: f64| millis[((millis.len() - 1) as f64 * share) as usize];
    format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", quantile(0.5), quantile(0.99), quantile(1.0))
}

fn service(number: u32) -> String {
    format!("team-{}/service-{number}", number / 20)
}

fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

fn gauge(exposition: &str, name: &str) -> f64 {
    let name = format!("pyrograph_metastore_{name} ");
    exposition.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |value| value.parse().unwrap())
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1e3
}

async fn measure(load: &Load) {
    let hours = |hours: f64| Duration::from_secs_f64(hours * 3_600.0);
    let world = World::new(load);
    println!("\n--- a day from nothing, and the next until 23:30, with segments of {LONG_SEGMENT:?}");
    let mut registry = Registry::default();
    let metastore = world.open(&mut registry).await;
    world.run(&metastore, &registry, LONG_SEGMENT, hours(47.5)).await;
    let datasets = world.count_all(&metastore).await;
    let day = world.first_day();
    let day_datasets: usize = day.iter().map(|block| block.pieces.len()).sum();
    let bytes: u64 = day.iter().map(|block| bytes_of(&block.pieces)).sum();
    println!(
        "  the day ends as {} blocks with {day_datasets} datasets and {:.1} GB; {datasets} datasets in all",
        day.len(),
        bytes as f64 / 1e9
    );
    assert!(day_datasets <= 4 * load.services as usize, "a closed day has few datasets for each service");
    metastore.drain().await;
    drop(metastore);
    world.print_walls();

    println!("\n--- {} days", load.days);
    let before = resident_mb();
    world.fill(&day).await;
    let filled = resident_mb();
    let mut registry = Registry::default();
    let began = Instant::now();
    let metastore = world.open(&mut registry).await;
    println!("  opened in {:.2} s", began.elapsed().as_secs_f64());
    println!(
        "  memory: {before:.0} MB before, {filled:.0} MB with rows and the model's blocks, {:.0} MB with the owner",
        resident_mb()
    );
    world.print_files().await;
    let datasets = world.count_all(&metastore).await;
    println!("  {datasets} datasets");
    world.finds(&metastore).await;

    println!("\n--- an hour around midnight, with segments of {SEGMENT:?}");
    let waits = world.run(&metastore, &registry, SEGMENT, hours(1.0)).await;
    world.print_walls();
    world.print_files().await;
    println!("  memory: {:.0} MB, the model's own and files of the catalog included", resident_mb());
    world.finds(&metastore).await;
    let limit = SAMPLE_INTERVAL.as_secs_f64();
    assert!(waits.iter().all(|wait| *wait < limit), "{waits:?}: merges keep up");
}

fn main() {
    let load = Load::from_arguments(&std::env::args().skip(1).collect::<Vec<_>>());
    println!("{load:?}");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(measure(&load));
}
