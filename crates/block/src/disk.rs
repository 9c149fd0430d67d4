//! The disk tier of the cache: encoded ranges of objects in files of a local directory, within a budget of bytes.
//!
//! Owns: files and their checksums, eviction when the budget is full, one fetch of a range at a time.
//! Does not own: the meaning of a range (`reader`), the decoded parts in memory ([`crate::Cache`]).
//!
//! A file never changes after it has its name. A damaged, missing or old file is a cache miss. While the disk is full
//! or fails, ranges are not cached; failures are counted.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use clock::{Clock, Pool};
use foldhash::fast::RandomState;
use futures::channel::oneshot;
use futures::future::{FutureExt, Shared};
use hashbrown::HashMap;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quick_cache::sync::Cache as Index;
use quick_cache::{Lifecycle, Weighter};
use storage::{Key, Store};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Age at which a file is dropped, however often it is read. The cache is not notified of deletions; this bounds how
/// long the bytes of an erased object stay on the disk.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// Threads for blocking reads and writes of the disk.
const THREADS: usize = 4;
/// Most bytes that wait to be written; further ranges are not cached.
const PENDING_BYTES_MAX: u64 = 64 << 20;
/// Pause of writes after a failed write.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);
/// Ranges larger than 1 / `LARGEST_PART` of the budget are not cached.
const LARGEST_PART: u64 = 8;

/// Header before the bytes of a range: magic, length, checksum.
const MAGIC: &[u8; 8] = b"pgrange1";
const HEADER_BYTES: usize = 24;
/// Disk space of a file beside its bytes, roughly.
const FILE_OVERHEAD_BYTES: u64 = 2048;

/// The local tier of a [`crate::Cache`].
pub struct Disk {
    dir: PathBuf,
    index: Index<u128, FileInfo, ByBytes, RandomState, EvictionCollector>,
    /// Ranges that are being fetched from the store.
    flights: Mutex<HashMap<u128, Flight, RandomState>>,
    largest: u64,
    pending: AtomicU64,
    /// No writes before this time: milliseconds of `Clock::monotonic`.
    paused_until: AtomicU64,
    clock: Clock,
    pool: Pool,
    metrics: Metrics,
}

type Flight = Shared<oneshot::Receiver<Bytes>>;

#[derive(Clone, Copy)]
struct FileInfo {
    bytes: u64,
    written_millis: i64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<u128, FileInfo> for ByBytes {
    fn weight(&self, _: &u128, file: &FileInfo) -> u64 {
        file.bytes + FILE_OVERHEAD_BYTES
    }
}

/// Collects the names of evicted files, so that the caller can delete them.
#[derive(Clone)]
struct EvictionCollector;

impl Lifecycle<u128, FileInfo> for EvictionCollector {
    type RequestState = Vec<u128>;

    fn on_evict(&self, evicted: &mut Vec<u128>, name: u128, _: FileInfo) {
        evicted.push(name);
    }
}

#[derive(Clone, Default)]
struct Metrics {
    hit_bytes: Counter,
    miss_bytes: Counter,
    written_bytes: Counter,
    skipped: Counter,
    failures: Counter,
    bytes: Gauge,
}

/// Removes its flights when dropped: the fetch has failed or was cancelled.
struct FlightGuard<'a> {
    disk: &'a Disk,
    flights: Vec<(u128, oneshot::Sender<Bytes>)>,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        let mut flights = self.disk.flights.lock();
        self.flights.drain(..).for_each(|(name, _)| drop(flights.remove(&name)));
    }
}

/// The source of a requested range.
enum RangeSource {
    Disk(Bytes),
    /// Index into the ranges that this read fetches from the store.
    Store(usize),
    /// Another read is fetching it.
    Flight(Flight),
}

impl Disk {
    /// Opens a cache of up to about `bytes_max` below `dir`, which no other cache may use. Files that are already there
    /// are used again after a scan in the background.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open(dir: &Path, bytes_max: u64, clock: Clock, registry: &mut Registry) -> io::Result<Arc<Self>> {
        for first in 0..=u8::MAX {
            fs::create_dir_all(dir.join(format!("{first:02x}")))?;
        }
        const TYPICAL_BYTES: u64 = 256 << 10;
        let items = (bytes_max / TYPICAL_BYTES).clamp(16, 1 << 20) as usize;
        let metrics = Metrics::default();
        metrics.register(registry);
        let disk = Arc::new(Self {
            dir: dir.to_owned(),
            index: Index::with(items, bytes_max, ByBytes, RandomState::default(), EvictionCollector),
            flights: Mutex::default(),
            largest: bytes_max / LARGEST_PART,
            pending: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
            clock: clock.clone(),
            pool: Pool::new(THREADS),
            metrics,
        });
        let weak = Arc::downgrade(&disk);
        clock.spawn(async move {
            let mut is_first = true;
            while let Some(disk) = weak.upgrade() {
                let (worker, clock) = (disk.clone(), disk.clock.clone());
                let now = clock.unix_millis();
                let rebuild = is_first;
                disk.pool.run(move || if rebuild { worker.rebuild(now) } else { worker.sweep(now) }).await;
                is_first = false;
                drop(disk);
                clock.sleep(SWEEP_INTERVAL).await;
            }
        });
        Ok(disk)
    }

    /// Returns the ranges of an object in the given order, and the number of their bytes that came from the store.
    pub(crate) async fn read(
        self: &Arc<Self>,
        store: &Store,
        key: &Key,
        ranges: &[Range<u64>],
    ) -> Result<(Vec<Bytes>, u64), storage::Error> {
        let names: Vec<u128> = ranges.iter().map(|range| file_name(key, range)).collect();
        let cached = self.find(&names, ranges).await;
        let mut guard = FlightGuard { disk: self, flights: Vec::new() };
        let mut wanted: Vec<Range<u64>> = Vec::new();
        let mut sources = Vec::with_capacity(ranges.len());
        {
            let mut flights = self.flights.lock();
            for ((name, range), cached) in names.iter().zip(ranges).zip(cached) {
                sources.push(match cached {
                    Some(bytes) => RangeSource::Disk(bytes),
                    None => match flights.get(name) {
                        Some(flight) => RangeSource::Flight(flight.clone()),
                        None => {
                            let (sender, flight) = oneshot::channel();
                            flights.insert(*name, flight.shared());
                            guard.flights.push((*name, sender));
                            wanted.push(range.clone());
                            RangeSource::Store(wanted.len() - 1)
                        }
                    },
                });
            }
        }
        let mut fetched = Vec::new();
        if !wanted.is_empty() {
            fetched = store.get_ranges(key, &wanted).await?;
            let mut flights = self.flights.lock();
            for ((name, sender), bytes) in guard.flights.drain(..).zip(&fetched) {
                flights.remove(&name);
                // Fails if no other read waits for the range.
                let _ = sender.send(bytes.clone());
                self.keep(name, bytes.clone());
            }
        }
        let mut fetched_bytes = fetched.iter().map(|bytes| bytes.len() as u64).sum();
        let mut all = Vec::with_capacity(ranges.len());
        for (source, range) in sources.into_iter().zip(ranges) {
            all.push(match source {
                RangeSource::Disk(bytes) => bytes,
                RangeSource::Store(index) => fetched.get(index).cloned().unwrap_or_default(),
                RangeSource::Flight(flight) => match flight.await {
                    Ok(bytes) => bytes,
                    // The other read failed or was cancelled.
                    Err(oneshot::Canceled) => {
                        let mut got = store.get_ranges(key, std::slice::from_ref(range)).await?;
                        let bytes = got.pop().unwrap_or_default();
                        fetched_bytes += bytes.len() as u64;
                        bytes
                    }
                },
            });
        }
        self.metrics.miss_bytes.inc_by(fetched_bytes);
        Ok((all, fetched_bytes))
    }

    /// As [`Self::read`], but reads everything from the store and replaces the cached files.
    pub(crate) async fn reread(
        self: &Arc<Self>,
        store: &Store,
        key: &Key,
        ranges: &[Range<u64>],
    ) -> Result<(Vec<Bytes>, u64), storage::Error> {
        let got = store.get_ranges(key, ranges).await?;
        for (range, bytes) in ranges.iter().zip(&got) {
            self.keep(file_name(key, range), bytes.clone());
        }
        let fetched_bytes = got.iter().map(|bytes| bytes.len() as u64).sum();
        self.metrics.miss_bytes.inc_by(fetched_bytes);
        Ok((got, fetched_bytes))
    }

    /// Reads the cached ones of the ranges from their files.
    async fn find(self: &Arc<Self>, names: &[u128], ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let oldest = self.clock.unix_millis() - AGE_MAX.as_millis() as i64;
        let is_cached = |name: &u128| self.index.get(name).is_some_and(|file| file.written_millis >= oldest);
        let cached: Vec<bool> = names.iter().map(is_cached).collect();
        if !cached.contains(&true) {
            return vec![None; names.len()];
        }
        let lengths = ranges.iter().map(|range| range.end.saturating_sub(range.start));
        let wanted: Vec<(u128, u64, bool)> =
            names.iter().zip(lengths).zip(cached).map(|((name, length), hit)| (*name, length, hit)).collect();
        let disk = self.clone();
        let read_all = move || {
            let read = |(name, length, is_cached): &(u128, u64, bool)| {
                if !is_cached {
                    return None;
                }
                match read_file(&disk.path(*name), *length) {
                    Ok(bytes) => Some(bytes),
                    Err(error) => {
                        // A file that is not written yet, or was just evicted, is no failure.
                        if error.kind() != io::ErrorKind::NotFound {
                            disk.metrics.failures.inc();
                            disk.forget(*name);
                        }
                        None
                    }
                }
            };
            wanted.iter().map(read).collect::<Vec<_>>()
        };
        let found = self.pool.run(read_all).await;
        let bytes = found.iter().flatten().map(|bytes| bytes.len() as u64).sum();
        self.metrics.hit_bytes.inc_by(bytes);
        found
    }

    /// Queues a range for writing, unless it is too large, the queue is full, or writes are paused.
    fn keep(self: &Arc<Self>, name: u128, bytes: Bytes) {
        let len = bytes.len() as u64;
        let now = self.clock.monotonic().as_millis() as u64;
        let is_paused = now < self.paused_until.load(Ordering::Relaxed);
        if is_paused || len > self.largest || self.pending.load(Ordering::Relaxed) + len > PENDING_BYTES_MAX {
            self.metrics.skipped.inc();
            return;
        }
        self.pending.fetch_add(len, Ordering::Relaxed);
        let disk = self.clone();
        let written_millis = self.clock.unix_millis();
        let suffix = self.clock.random();
        self.clock.spawn(async move {
            let writer = disk.clone();
            let write = move || writer.write(name, &bytes, written_millis, suffix);
            if disk.pool.run(write).await.is_err() {
                disk.metrics.failures.inc();
                let until = disk.clock.monotonic().saturating_add(FAILURE_PAUSE);
                disk.paused_until.store(until.as_millis() as u64, Ordering::Relaxed);
            }
            disk.pending.fetch_sub(len, Ordering::Relaxed);
        });
    }

    fn write(&self, name: u128, bytes: &[u8], written_millis: i64, suffix: u128) -> io::Result<()> {
        self.admit(name, FileInfo { bytes: bytes.len() as u64, written_millis });
        let path = self.path(name);
        let unfinished = path.with_extension(format!("{suffix:032x}"));
        let written = write_file(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
            self.index.remove(&name);
        } else if !self.index.contains_key(&name) {
            // The index evicted this file itself.
            let _ = fs::remove_file(&path);
        }
        self.metrics.written_bytes.inc_by(bytes.len() as u64);
        self.metrics.bytes.set(self.index.weight() as i64);
        written
    }

    /// Adds a file to the index, and deletes the files that this evicts.
    fn admit(&self, name: u128, file: FileInfo) {
        let mut evicted = Vec::new();
        self.index.insert_with_lifecycle(name, file, &mut evicted);
        for name in evicted {
            let _ = fs::remove_file(self.path(name));
        }
    }

    /// Adds a file of an earlier process, unless this process has written it meanwhile.
    fn take_over(&self, name: u128, file: FileInfo) {
        if !self.index.contains_key(&name) {
            self.admit(name, file);
        }
    }

    fn forget(&self, name: u128) {
        self.index.remove(&name);
        let _ = fs::remove_file(self.path(name));
    }

    /// Takes over the files of an earlier process; deletes unfinished and old ones.
    fn rebuild(&self, now_millis: i64) {
        for first in 0..=u8::MAX {
            let Ok(files) = fs::read_dir(self.dir.join(format!("{first:02x}"))) else {
                self.metrics.failures.inc();
                continue;
            };
            for file in files.flatten() {
                let finished = file.file_name().to_str().and_then(parse_name).zip(file_info(&file));
                match finished {
                    Some((name, info)) if is_fresh(&info, now_millis) => {
                        self.take_over(name, info);
                    }
                    Some(_) => drop(fs::remove_file(file.path())),
                    // Younger than a minute: this process may be writing it.
                    None if file_info(&file).is_none_or(|info| info.written_millis + 60_000 < now_millis) => {
                        drop(fs::remove_file(file.path()));
                    }
                    None => {}
                }
            }
        }
        self.metrics.bytes.set(self.index.weight() as i64);
    }

    /// Deletes files that are too old.
    fn sweep(&self, now_millis: i64) {
        let old = self.index.iter().filter(|(_, file)| !is_fresh(file, now_millis)).map(|(name, _)| name);
        let old: Vec<u128> = old.collect();
        old.into_iter().for_each(|name| self.forget(name));
        self.metrics.bytes.set(self.index.weight() as i64);
    }

    fn path(&self, name: u128) -> PathBuf {
        let text = format!("{name:032x}");
        self.dir.join(&text[..2]).join(&text)
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("pyrograph_block_disk_cache");
        registry.register("hit_bytes", "Encoded bytes read from the local disk", self.hit_bytes.clone());
        registry.register(
            "miss_bytes",
            "Encoded bytes read from the object store, because the local disk did not hold them",
            self.miss_bytes.clone(),
        );
        registry.register(
            "written_bytes",
            "Encoded bytes written to the local disk",
            self.written_bytes.clone(),
        );
        registry.register(
            "skipped",
            "Ranges not written: too large, too many waiting, or a write failed just before",
            self.skipped.clone(),
        );
        registry.register(
            "failures",
            "Reads and writes of the local disk that failed",
            self.failures.clone(),
        );
        registry.register("bytes", "Approximate bytes in use on the local disk", self.bytes.clone());
    }
}

/// The name of a range's file: a hash of the object's key and the range.
fn file_name(key: &Key, range: &Range<u64>) -> u128 {
    let mut text = key.as_str().as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(&range.start.to_le_bytes());
    text.extend_from_slice(&range.end.to_le_bytes());
    xxh3_128(&text)
}

fn parse_name(text: &str) -> Option<u128> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn file_info(file: &fs::DirEntry) -> Option<FileInfo> {
    let metadata = file.metadata().ok()?;
    let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let bytes = metadata.len().saturating_sub(HEADER_BYTES as u64);
    Some(FileInfo { bytes, written_millis: written.as_millis() as i64 })
}

fn is_fresh(file: &FileInfo, now_millis: i64) -> bool {
    now_millis - file.written_millis < AGE_MAX.as_millis() as i64
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header[16..].copy_from_slice(&xxh3_64(bytes).to_le_bytes());
    file.write_all(&header)?;
    file.write_all(bytes)
}

fn read_file(path: &Path, length: u64) -> io::Result<Bytes> {
    let wrong = |problem| io::Error::new(io::ErrorKind::InvalidData, problem);
    let file = Bytes::from(fs::read(path)?);
    if file.len() as u64 != HEADER_BYTES as u64 + length || &file[..8] != MAGIC {
        return Err(wrong("not the range that it should be"));
    }
    let bytes = file.slice(HEADER_BYTES..);
    if file[8..16] != length.to_le_bytes() || file[16..HEADER_BYTES] != xxh3_64(&bytes).to_le_bytes() {
        return Err(wrong("the checksum does not match"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "the lists of ranges have one element")]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    struct Rig {
        dir: tempfile::TempDir,
        store: Store,
        key: Key,
    }

    impl Rig {
        async fn new() -> Self {
            let (store, key) = (Store::in_memory(), Key::from_text("block/a/1-0-300/x"));
            let bytes: Vec<u8> = (0..1024 * KIB).map(|i| (i % 251) as u8).collect();
            store.settle_create(&key, bytes.into()).await.expect("creates");
            Self { dir: tempfile::tempdir().expect("a directory"), store, key }
        }

        fn open(&self, bytes_max: u64) -> Arc<Disk> {
            Disk::open(self.dir.path(), bytes_max, Clock::system(), &mut Registry::default()).expect("opens")
        }

        /// Bytes that came from the store.
        async fn read(&self, disk: &Arc<Disk>, ranges: &[Range<u64>]) -> u64 {
            let (got, fetched) = disk.read(&self.store, &self.key, ranges).await.expect("reads");
            let expected = self.store.get_ranges(&self.key, ranges).await.expect("reads");
            assert_eq!(got, expected);
            fetched
        }

        fn files(&self) -> Vec<PathBuf> {
            let folders = fs::read_dir(self.dir.path()).expect("reads").flatten();
            let files = folders.flat_map(|folder| fs::read_dir(folder.path()).expect("reads").flatten());
            files.map(|file| file.path()).collect()
        }
    }

    async fn settled(disk: &Disk) {
        while disk.pending.load(Ordering::Relaxed) > 0 {
            disk.clock.sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn cached_ranges_are_read_from_the_disk_even_by_the_next_process() {
        let rig = Rig::new().await;
        let disk = rig.open(64 << 20);
        assert_eq!(rig.read(&disk, &[0..10, 500..700]).await, 210);
        settled(&disk).await;
        assert_eq!(rig.read(&disk, &[500..700, 1..11, 0..10]).await, 10);
        settled(&disk).await;
        drop(disk);
        let disk = rig.open(64 << 20);
        while disk.index.len() < 3 {
            disk.clock.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(rig.read(&disk, &[0..10, 1..11, 500..700]).await, 0);
    }

    #[tokio::test]
    async fn damaged_files_are_not_used() {
        let rig = Rig::new().await;
        let disk = rig.open(64 << 20);
        let damages: [fn(&mut Vec<u8>); 3] =
            [|bytes| bytes[30] ^= 1, |bytes| bytes.truncate(20), |bytes| bytes.push(0)];
        for damage in damages {
            rig.read(&disk, &[0..100]).await;
            settled(&disk).await;
            let file = rig.files().pop().expect("a file");
            let mut bytes = fs::read(&file).expect("reads");
            damage(&mut bytes);
            fs::write(&file, bytes).expect("writes");
            assert_eq!(rig.read(&disk, &[0..100]).await, 100);
        }
        settled(&disk).await;
        assert_eq!(disk.metrics.failures.get(), 3);
        assert_eq!(rig.read(&disk, &[0..100]).await, 0);
    }

    #[tokio::test]
    async fn a_fresh_read_replaces_the_cached_range() {
        let rig = Rig::new().await;
        let disk = rig.open(64 << 20);
        disk.keep(file_name(&rig.key, &(0..10)), Bytes::from_static(b"wrong byte"));
        settled(&disk).await;
        let read = disk.read(&rig.store, &rig.key, &[0..10]).await.expect("reads");
        assert_eq!(read, (vec![Bytes::from_static(b"wrong byte")], 0));
        let (_, fetched) = disk.reread(&rig.store, &rig.key, &[0..10]).await.expect("reads");
        assert_eq!(fetched, 10);
        settled(&disk).await;
        assert_eq!(rig.read(&disk, &[0..10]).await, 0);
    }

    #[tokio::test]
    async fn the_budget_holds_and_evicted_entries_lose_their_files() {
        let rig = Rig::new().await;
        let disk = rig.open(256 * KIB);
        for i in 0..64 {
            rig.read(&disk, &[i * 16 * KIB..(i + 1) * 16 * KIB]).await;
            settled(&disk).await;
        }
        assert_eq!(rig.files().len(), disk.index.len());
        assert!((4..=16).contains(&rig.files().len()), "{}", rig.files().len());
        // Larger than the largest range that is cached.
        assert_eq!(rig.read(&disk, &[0..100 * KIB]).await, 100 * KIB);
        assert_eq!(disk.metrics.skipped.get(), 1);
        disk.sweep(disk.clock.unix_millis() + AGE_MAX.as_millis() as i64 + 1000);
        assert!(rig.files().is_empty());
    }

    #[tokio::test]
    async fn a_failing_disk_caches_nothing_and_reads_still_succeed() {
        let rig = Rig::new().await;
        let disk = rig.open(64 << 20);
        fs::remove_dir_all(rig.dir.path()).expect("removes");
        for _ in 0..3 {
            assert_eq!(rig.read(&disk, &[0..100]).await, 100);
            settled(&disk).await;
        }
        assert!(disk.metrics.failures.get() >= 1 && disk.metrics.skipped.get() >= 1);
    }

    #[tokio::test]
    async fn reads_share_one_fetch_of_a_range_and_repeat_it_if_it_is_cancelled() {
        let rig = Rig::new().await;
        let disk = rig.open(64 << 20);
        let (sender, flight) = oneshot::channel();
        disk.flights.lock().insert(file_name(&rig.key, &(0..10)), flight.shared());
        let ranges = [0..10];
        let mut waits = Box::pin(disk.read(&rig.store, &rig.key, &ranges));
        assert!(futures::poll!(&mut waits).is_pending());
        sender.send(Bytes::from_static(b"0123456789")).expect("waits");
        assert_eq!(waits.await.expect("reads"), (vec![Bytes::from_static(b"0123456789")], 0));

        let (sender, flight) = oneshot::channel::<Bytes>();
        disk.flights.lock().insert(file_name(&rig.key, &(0..10)), flight.shared());
        drop(sender);
        assert_eq!(rig.read(&disk, &ranges).await, 10);
    }
}
