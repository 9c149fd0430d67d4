//! What a catalog costs as services, writers and days grow: `cargo bench -p metastore --bench scale`, optionally with
//! `services=1000 writers=20 pushes=1333 days=30 compactors=4 minutes=60`.
//!
//! Time is virtual and objects have no bytes: writers tell of segments, compactors claim, wait as long as a merge of that size
//! takes, and publish outputs of a modelled size. All else is the metastore itself. Printed are wall times of its calls on this
//! machine, its CPU time, memory, requests and bytes.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on should stop where it is")]
#![allow(clippy::disallowed_methods, reason = "wall time is what is measured")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use block::{DatasetEntry, Directory, Origin, Section};
use catalog::rows::{BlockId, Dataset, DatasetSummary, Row};
use catalog::{Batch, Engine, Numbered, numbered};
use clock::{Clock, Source};
use metastore::header::{Error, Header, Headers};
use metastore::{Config, Metastore, Parts};
use model::{ItemKey, JobId, ProfileType, TenantId, TimeRange, WriterId};
use object_store::memory::InMemory;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rpc::{FindRequest, JobOutput, Metastore as _, Publication, SegmentHint};
use storage::{Key, Store};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// 2023-11-15 00:00:00 UTC.
const START: i64 = 1_700_006_400;
/// One profile's rows, stored.
const ROW_BYTES: f64 = 1_400.0;
/// Symbols of one service, stored, if all of its stacktraces are there; and after how many profiles most of them are.
const SYMBOL_BYTES: f64 = 60_000.0;
const SYMBOL_PROFILES: f64 = 10.0;
/// What one compactor reads per second.
const MERGE_BYTES_PER_SECOND: f64 = 15e6;
const SEGMENT_MILLIS: u64 = 500;

#[derive(Clone, Debug)]
struct Load {
    services: u32,
    writers: u32,
    pushes: u32,
    days: i64,
    compactors: u32,
    minutes: u64,
}

impl Load {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let mut load =
            Self { services: 1_000, writers: 20, pushes: 1_333, days: 30, compactors: 4, minutes: 60 };
        for argument in arguments {
            let Some((name, value)) = argument.split_once('=') else { continue };
            match name {
                "services" => load.services = value.parse().unwrap(),
                "writers" => load.writers = value.parse().unwrap(),
                "pushes" => load.pushes = value.parse().unwrap(),
                "days" => load.days = value.parse().unwrap(),
                "compactors" => load.compactors = value.parse().unwrap(),
                "minutes" => load.minutes = value.parse().unwrap(),
                _ => panic!("{name} is nothing to choose"),
            }
        }
        load
    }
}

/// A dataset of an object that has no bytes.
#[derive(Clone)]
struct Piece {
    service: u32,
    time_min: i64,
    time_max: i64,
    profiles: u32,
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
        Duration::from_secs(START as u64 + 12 * HOUR as u64) + self.monotonic()
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

/// Every log ends where it was told of.
struct Nothing;

#[async_trait]
impl Headers for Nothing {
    async fn read(&self, _: &Key, _: Option<u64>) -> Result<Header, Error> {
        Ok(Header::Absent)
    }
}

struct World {
    load: Load,
    clock: Clock,
    store: Store,
    requests: Registry,
    types: Vec<ProfileType>,
    objects: Mutex<HashMap<Key, Vec<Piece>>>,
    walls: Mutex<BTreeMap<&'static str, Vec<f64>>>,
    merged_bytes: Mutex<u64>,
    logged_bytes: Mutex<u64>,
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
        Arc::new(Self {
            load: load.clone(),
            store: Store::new(Arc::new(InMemory::new()), clock.clone(), metrics),
            clock,
            requests,
            types: types.iter().map(|name| name.parse().unwrap()).collect(),
            objects: Mutex::default(),
            walls: Mutex::default(),
            merged_bytes: Mutex::default(),
            logged_bytes: Mutex::default(),
        })
    }

    async fn open(&self, registry: &mut Registry) -> Arc<Metastore> {
        let parts = Parts { headers: Arc::new(Nothing), engine: self.engine(), is_alone: true };
        let config =
            Config { reconcile_interval: Duration::from_secs(365 * 86_400).into(), ..Config::default() };
        let retention = Arc::new(|_: &TenantId, _: Option<&str>| Some(Duration::from_secs(31 * 86_400)));
        Metastore::open_parts(config, self.store.clone(), parts, retention, self.clock.clone(), registry)
            .await
            .unwrap()
    }

    fn engine(&self) -> Arc<Numbered> {
        Arc::new(Numbered::new(self.store.clone(), self.clock.clone(), numbered::Options::default()))
    }

    fn timed(&self, call: &'static str, began: Instant) {
        self.walls.lock().entry(call).or_default().push(began.elapsed().as_secs_f64() * 1e3);
    }

    fn directory(&self, origin: Origin, keys: Vec<ItemKey>, pieces: &[Piece]) -> Directory {
        let section = Section { offset: 0, bytes: 1, raw_bytes: 1, checksum: 0 };
        let mut row = 0;
        let datasets = pieces.iter().map(|piece| {
            row += u64::from(piece.profiles) * 400;
            DatasetEntry {
                tenant: TenantId::anonymous(),
                service: service(piece.service),
                time_min: piece.time_min,
                time_max: piece.time_max,
                rows: row - u64::from(piece.profiles) * 400..row,
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

    /// A writer's segments: every service sends to the same one, as placement makes it.
    async fn write(self: Arc<Self>, number: u32, metastore: Arc<Metastore>) {
        let writer = WriterId(u128::from(number) + 1);
        let own: Vec<u32> =
            (0..self.load.services).filter(|service| service % self.load.writers == number).collect();
        let each = f64::from(self.load.pushes) / f64::from(self.load.writers) * SEGMENT_MILLIS as f64 / 1e3;
        let (mut due, mut next) = (0.0, 0);
        self.clock
            .sleep(Duration::from_millis(u64::from(number) * SEGMENT_MILLIS / u64::from(self.load.writers)))
            .await;
        for seq in 0.. {
            self.clock.sleep(Duration::from_millis(SEGMENT_MILLIS)).await;
            due += each;
            let now = self.clock.unix_nanos();
            let mut pieces: BTreeMap<u32, Piece> = BTreeMap::new();
            let mut keys = Vec::new();
            while due >= 1.0 && !own.is_empty() {
                due -= 1.0;
                next += 1;
                let service = own[next % own.len()];
                keys.push(ItemKey(self.clock.random()));
                let piece = pieces.entry(service).or_insert(Piece {
                    service,
                    time_min: now,
                    time_max: now,
                    profiles: 0,
                });
                piece.profiles += 1;
            }
            let pieces: Vec<Piece> = pieces.into_values().collect();
            let bytes = bytes_of(&pieces);
            *self.logged_bytes.lock() += bytes;
            let directory = self.directory(Origin::Segment { writer, seq }, keys, &pieces);
            self.objects.lock().insert(Key::log_slot(writer, seq), pieces);
            let began = Instant::now();
            metastore.segment_written(SegmentHint { writer, seq, bytes, directory }).await.unwrap();
            self.timed("hint", began);
        }
    }

    async fn compact(self: Arc<Self>, metastore: Arc<Metastore>) {
        loop {
            let began = Instant::now();
            let job = metastore.claim_job().await.unwrap();
            self.timed(if job.is_some() { "claim" } else { "claim, nothing to do" }, began);
            let Some(job) = job else {
                self.clock.sleep(Duration::from_secs(1)).await;
                continue;
            };
            let bytes: u64 = job.inputs.iter().map(|input| input.bytes).sum();
            *self.merged_bytes.lock() += bytes;
            self.clock.sleep(Duration::from_secs_f64(bytes as f64 / MERGE_BYTES_PER_SECOND)).await;
            let mut places: BTreeMap<((i64, i64), u32), BTreeMap<u32, Piece>> = BTreeMap::new();
            {
                let objects = self.objects.lock();
                for piece in job.inputs.iter().flat_map(|input| &objects[&input.key]) {
                    let at = piece.time_min / 1_000_000_000;
                    let within =
                        job.windows.iter().find(|(start, length)| (*start..start + length).contains(&at));
                    let window = within.copied().unwrap_or((at.div_euclid(DAY) * DAY, DAY));
                    let shard = block::shard_of(&service(piece.service), job.shard_bits);
                    let all = places.entry((window, shard)).or_default();
                    let merged = all.entry(piece.service).or_insert(Piece { profiles: 0, ..piece.clone() });
                    merged.profiles += piece.profiles;
                    merged.time_min = merged.time_min.min(piece.time_min);
                    merged.time_max = merged.time_max.max(piece.time_max);
                }
            }
            let outputs = (0..).zip(places).map(|(part, ((window, shard), pieces))| {
                let pieces: Vec<Piece> = pieces.into_values().collect();
                let origin = Origin::Block { job: job.id, attempt: job.attempt, part, level: job.level };
                let tenant = TenantId::anonymous();
                let mut place = format!("{}-{}-{}", job.level, window.0, window.1);
                if job.shard_bits > 0 {
                    place.push_str(&format!("-s{}.{shard}", job.shard_bits));
                }
                let key = Key::block(&tenant, &place, job.id, job.attempt, part);
                let (bytes, directory) = (bytes_of(&pieces), self.directory(origin, Vec::new(), &pieces));
                self.objects.lock().insert(key.clone(), pieces);
                JobOutput { key, bytes, tenant, window, directory }
            });
            let outputs = outputs.collect();
            let began = Instant::now();
            metastore.publish(Publication { job: job.id, attempt: job.attempt, outputs }).await.unwrap();
            self.timed("publish", began);
            let mut objects = self.objects.lock();
            for input in &job.inputs {
                objects.remove(&input.key);
            }
        }
    }

    async fn sweep(self: Arc<Self>, metastore: Arc<Metastore>) {
        loop {
            let began = Instant::now();
            let dead = metastore.sweepable(200).await.unwrap();
            self.timed("sweepable", began);
            let is_full = dead.len() == 200;
            metastore.swept(dead.into_iter().map(|object| object.key).collect()).await.unwrap();
            self.clock.sleep(Duration::from_secs(if is_full { 1 } else { 30 })).await;
        }
    }

    async fn find(
        &self,
        metastore: &Metastore,
        name: &'static str,
        services: Option<u32>,
        seconds: i64,
    ) -> usize {
        let end = self.clock.unix_nanos();
        let request = FindRequest {
            tenants: vec![TenantId::anonymous()],
            range: TimeRange { start: end - seconds * 1_000_000_000, end },
            services: services.map(|number| vec![service(number)]),
            profile_type: Some(self.types[0].clone()),
            explain: false,
        };
        let mut datasets = 0;
        for _ in 0..10 {
            let began = Instant::now();
            let found = metastore.find(request.clone()).await.unwrap();
            self.timed(name, began);
            datasets = found.objects.iter().map(|object| object.datasets.len()).sum();
        }
        datasets
    }

    async fn finds(&self, metastore: &Metastore) {
        for (name, services, seconds) in [
            ("find, one service, 1 h", Some(7), HOUR),
            ("find, one service, 30 d", Some(7), 30 * DAY),
            ("find, all services, 1 h", None, HOUR),
            ("find, all services, 30 d", None, 30 * DAY),
        ] {
            let datasets = self.find(metastore, name, services, seconds).await;
            println!("  {name}: {datasets} datasets");
        }
    }

    /// Runs the load for so many minutes.
    async fn run(self: &Arc<Self>, metastore: &Arc<Metastore>, registry: &Registry, minutes: u64) {
        let (cpu, began) = (cpu_seconds(), Instant::now());
        let before = self.requests();
        let mut tasks = vec![self.clock.spawn(metastore.clone().run())];
        for number in 0..self.load.writers {
            tasks.push(self.clock.spawn(self.clone().write(number, metastore.clone())));
        }
        for _ in 0..self.load.compactors {
            tasks.push(self.clock.spawn(self.clone().compact(metastore.clone())));
        }
        tasks.push(self.clock.spawn(self.clone().sweep(metastore.clone())));
        self.clock.sleep(Duration::from_secs(minutes * 60)).await;
        let seconds = minutes as f64 * 60.0;
        println!("{minutes} minutes in {:.0} s:", began.elapsed().as_secs_f64());
        println!(
            "  CPU: {:.1} % of a core, the model's own included",
            (cpu_seconds() - cpu) / seconds * 100.0
        );
        for (name, count) in self.requests() {
            let count = count - before.get(&name).copied().unwrap_or(0.0);
            if count > 0.0 {
                println!("  {name}: {:.2}/s", count / seconds);
            }
        }
        println!(
            "  log: {:.2} objects/s, {:.2} MB/s",
            1e3 / SEGMENT_MILLIS as f64 * f64::from(self.load.writers),
            *self.logged_bytes.lock() as f64 / seconds / 1e6
        );
        println!(
            "  merged: {:.2} MB/s by {} compactors",
            *self.merged_bytes.lock() as f64 / seconds / 1e6,
            self.load.compactors
        );
        let text = exposition(registry);
        for name in [
            "live_segments",
            "live_blocks",
            "dead_objects",
            "merge_lag_seconds",
            "consume_lag_seconds",
            "dedup_keys",
            "dedup_bytes",
            "dedup_window_seconds",
        ] {
            for line in text.lines().filter(|line| line.starts_with(&format!("pyrograph_metastore_{name}"))) {
                println!("  {}", line.trim_start_matches("pyrograph_metastore_"));
            }
        }
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
            millis.sort_by(f64::total_cmp);
            let at = |share: f64| millis[((millis.len() - 1) as f64 * share) as usize];
            println!(
                "  {call}: {} times, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
                millis.len(),
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }

    async fn print_files(&self) {
        let (mut commits, mut snapshots) = (Vec::new(), Vec::new());
        for object in self.store.list("catalog").await.unwrap() {
            if object.key.as_str().contains("/snapshot/") {
                snapshots.push(object.bytes)
            } else {
                commits.push(object.bytes)
            }
        }
        let newest = snapshots.iter().max().copied().unwrap_or(0) as f64 / 1e6;
        let mean = commits.iter().sum::<u64>() as f64 / commits.len().max(1) as f64 / 1e3;
        println!(
            "  catalog: {} snapshots, the largest {newest:.1} MB; {} commits of {mean:.1} kB",
            snapshots.len(),
            commits.len()
        );
    }

    /// Blocks of closed days, as rows of an owner of before.
    async fn fill(&self, blocks_per_day: u64, services_per_block: u32) -> u64 {
        let catalog = self.engine().open().await.unwrap();
        let types: Arc<[ProfileType]> = self.types.as_slice().into();
        let mut datasets = 0;
        for day in 0..self.load.days {
            let start = START - (day + 1) * DAY;
            for number in 0..blocks_per_day {
                let mut batch = Batch::default();
                let id = BlockId { job: JobId(self.clock.random()), attempt: 1, part: 0 };
                let key = Key::block(&TenantId::anonymous(), &format!("3-{start}-{DAY}"), id.job, 1, 0);
                let block = catalog::rows::Block {
                    id,
                    key,
                    tenant: TenantId::anonymous(),
                    level: 3,
                    window: (start, DAY),
                    bytes: 100 << 20,
                    created_millis: (start + DAY) * 1_000,
                    quarantine: None,
                    floor: 0,
                    rows: u64::from(services_per_block) * 100_000,
                };
                block.put_into(&mut batch);
                let length = DAY * 1_000_000_000 / blocks_per_day as i64;
                let from = start * 1_000_000_000 + number as i64 * length;
                for position in 0..services_per_block {
                    let number = (number as u32).wrapping_mul(services_per_block).wrapping_add(position)
                        % self.load.services;
                    let summary = DatasetSummary {
                        position,
                        tenant: TenantId::anonymous(),
                        service: service(number).as_str().into(),
                        time_min: from + (self.clock.random() as i64 & 0xf_ffff_ffff),
                        time_max: from + length - 1 - (self.clock.random() as i64 & 0xf_ffff_ffff),
                        rows: self.clock.random() as u64 % 1_000_000,
                        profile_types: types.clone(),
                    };
                    Dataset { block: id, day: start / DAY, summary }.put_into(&mut batch);
                    datasets += 1;
                }
                catalog.commit(batch).await.unwrap();
            }
            catalog.maintain().await.unwrap();
        }
        datasets
    }
}

fn service(number: u32) -> String {
    format!("team-{}/service-{number}", number / 20)
}

fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
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

fn main() {
    let load = Load::of(std::env::args().skip(1));
    println!("{load:?}");
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();

    println!("\n--- from nothing");
    let (blocks_per_hour, per_block) = runtime().block_on(async {
        let world = World::new(&load);
        let mut registry = Registry::default();
        let metastore = world.open(&mut registry).await;
        world.run(&metastore, &registry, load.minutes).await;
        world.print_walls();
        world.print_files().await;
        let objects = world.objects.lock();
        let blocks: Vec<(u64, usize)> = objects
            .iter()
            .filter(|(key, _)| key.as_str().starts_with("block/"))
            .map(|(_, pieces)| (bytes_of(pieces), pieces.len()))
            .collect();
        let bytes: u64 = blocks.iter().map(|(bytes, _)| bytes).sum();
        let datasets: usize = blocks.iter().map(|(_, datasets)| datasets).sum();
        println!(
            "  {} live blocks of {:.1} MB and {} datasets on average, {:.1} GB in all",
            blocks.len(),
            bytes as f64 / 1e6 / blocks.len() as f64,
            datasets / blocks.len().max(1),
            bytes as f64 / 1e9
        );
        println!("  memory: {:.0} MB, the model's own included", resident_mb());
        (blocks.len() as f64 * 60.0 / load.minutes as f64, datasets / blocks.len().max(1))
    });

    let blocks_per_day = ((blocks_per_hour * 24.0) as u64).max(1);
    println!("\n--- {} days of {blocks_per_day} blocks with {per_block} datasets", load.days);
    runtime().block_on(async {
        let world = World::new(&load);
        let datasets = world.fill(blocks_per_day, per_block as u32).await;
        let before = resident_mb();
        println!("  {datasets} datasets");
        let mut registry = Registry::default();
        let began = Instant::now();
        let metastore = world.open(&mut registry).await;
        println!(
            "  opened in {:.1} s; memory {before:.0} MB of files and rows of the model, {:.0} MB then",
            began.elapsed().as_secs_f64(),
            resident_mb()
        );
        world.print_files().await;
        world.finds(&metastore).await;
        world.print_walls();
        world.run(&metastore, &registry, 5).await;
        world.print_walls();
        world.print_files().await;
    });
}
