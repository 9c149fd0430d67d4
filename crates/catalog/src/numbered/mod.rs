//! The engine: numbered commits in the bucket, all rows in the owner's memory.
//!
//! Owns: `catalog/<incarnation>/commit/<n>` and `…/snapshot/<n>`, fencing, collecting old files and incarnations.
//! Does not own: what rows mean.
//!
//! A commit is a create of the next slot, so at most one owner gets it. An opening is such a commit
//! too: the earlier owner's next create meets bytes that are not its own, and it is fenced. Between
//! commits the engine asks the store nothing but, now and then, which files there are.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clock::Clock;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::RwLock;
use storage::{Created, Key, Object, Store};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{Batch, Catalog, Engine, Error, Row, View};
use file::{Checkpoint, Commit, Content};

/// Commits read at once while opening.
const READS_AT_ONCE: usize = 16;
/// Files deleted by one round of maintenance, so that it never floods the store.
const DELETES_AT_ONCE_MAX: usize = 32;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// When the engine tidies up.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// A checkpoint is written after this many commits. More: fewer writes. Fewer: openings read less.
    pub checkpoint_commits: u64,
    /// … or after this many bytes of commits, or half the bytes of the last checkpoint, if that is more.
    pub checkpoint_bytes: u64,
    /// Commits and checkpoints that a newer checkpoint covers are deleted so long after the owner came to know both, by its
    /// monotonic clock: an owner that was paused for less finds what fences it, whatever any clock shows.
    pub collect_after: Duration,
    /// An opening or a view that took longer than this between two looks at the store starts anew. Must
    /// be shorter than `collect_after`.
    pub look_within: Duration,
    /// Openings are what fences a paused owner: they stay for as long as a process may be paused.
    pub openings_kept: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            checkpoint_commits: 256,
            checkpoint_bytes: 4 << 20,
            collect_after: Duration::from_secs(15 * 60),
            look_within: Duration::from_secs(7 * 60),
            openings_kept: Duration::from_secs(24 * 3600),
        }
    }
}

/// A catalog of numbered commits in a bucket.
#[derive(Clone)]
pub struct Numbered {
    store: Store,
    clock: Clock,
    options: Options,
}

impl Numbered {
    pub fn new(store: Store, clock: Clock, options: Options) -> Self {
        Self { store, clock, options }
    }

    /// Starts a new, empty catalog beside the current one, which stays in force until [`Rebuilt::replace`]. Whoever owns
    /// the current one, or is building another, is fenced from now on. The current one need not be readable.
    ///
    /// `newest_millis` is when the newest object of the bucket was made, in Unix milliseconds. The new catalog's number
    /// and epoch are at least that time in seconds, and so higher than those of any catalog that was lost: a process
    /// that still owns a lost one, or remembers its epoch, cannot take the new one for it.
    pub async fn rebuild(&self, newest_millis: i64) -> Result<Rebuilt, Error> {
        let millis = self.clock.unix_millis();
        let seconds = u64::try_from(millis.max(newest_millis).div_euclid(1_000)).unwrap_or(0) + 1;
        let owner = self.clock.random();
        let files = self.store.list("catalog").await?;
        let epoch = seconds.max(self.last_epoch(&files).await? + 1);
        let last = files.iter().filter_map(|f| parse(&f.key)).map(|f| f.0).max().unwrap_or(0);
        let mut incarnation = seconds.max(last + 1);
        let open = Commit { slot: 0, epoch, owner, millis, content: Content::Open };
        while self.store.settle_create(&commit_key(incarnation, 0), open.encode()).await? == Created::Other {
            incarnation += 1;
        }
        // Listed after the create above: of two that rebuild at once, one at least finds the other.
        let files = self.store.list("catalog").await?;
        let current = newest_ready(&files).unwrap_or(0);
        let others: BTreeSet<u64> = files.iter().filter_map(|f| parse(&f.key)).map(|f| f.0).collect();
        let mut fences = Vec::new();
        for other in others.range(current..).copied().filter(|other| *other != incarnation) {
            fences.push(self.fence(other, &files, epoch, owner).await?);
        }
        let state = Loaded::first(epoch, millis, self.clock.monotonic());
        let new = Owned::new(self.clone(), incarnation, owner, state);
        Ok(Rebuilt { fences, new })
    }

    /// The highest epoch of the newest readable file of each incarnation; 0 if there is none.
    async fn last_epoch(&self, files: &[Object]) -> Result<u64, Error> {
        let mut newest: BTreeMap<u64, (u64, File)> = BTreeMap::new();
        for (incarnation, file) in files.iter().filter_map(|f| parse(&f.key)) {
            if let File::Commit(slot) | File::Checkpoint(slot) = file {
                let held = newest.entry(incarnation).or_insert((slot, file));
                *held = if held.0 > slot { *held } else { (slot, file) };
            }
        }
        let mut last = 0;
        for (incarnation, (_, file)) in newest {
            let key = file.key(incarnation);
            let bytes = match self.store.get(&key).await {
                Ok(bytes) => bytes,
                Err(storage::Error::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let epoch = match file {
                File::Checkpoint(_) => {
                    Checkpoint::decode(key.as_str(), &bytes).map(|checkpoint| checkpoint.epoch)
                }
                File::Ready | File::Commit(_) => {
                    Commit::decode(key.as_str(), &bytes).map(|commit| commit.epoch)
                }
            };
            match epoch {
                Ok(epoch) => last = last.max(epoch),
                Err(Error::Corrupt { object, reason }) => warn!(%object, reason, "catalog file is damaged"),
                Err(error) => return Err(error),
            }
        }
        Ok(last)
    }

    /// Takes the next slot of an incarnation, without reading its rows: its owner, if any, is fenced.
    async fn fence(
        &self,
        incarnation: u64,
        files: &[Object],
        epoch: u64,
        owner: u128,
    ) -> Result<Fence, Error> {
        let slots = files.iter().filter_map(|f| parse(&f.key)).filter(|(i, _)| *i == incarnation);
        let last = slots.filter_map(|(_, file)| match file {
            File::Ready => None,
            File::Commit(slot) | File::Checkpoint(slot) => Some(slot),
        });
        let mut slot = last.max().map_or(0, |last| last + 1);
        loop {
            let millis = self.clock.unix_millis();
            let open = Commit { slot, epoch, owner, millis, content: Content::Open };
            if self.store.settle_create(&commit_key(incarnation, slot), open.encode()).await? == Created::Mine
            {
                return Ok(Fence { incarnation, next: slot + 1, epoch, owner });
            }
            slot += 1;
        }
    }

    async fn open_newest(&self) -> Result<Owned, Error> {
        loop {
            let files = self.store.list("catalog").await?;
            let incarnation = match newest_ready(&files) {
                Some(incarnation) => incarnation,
                None => {
                    self.store.settle_create(&ready_key(1), Bytes::from_static(b"ready")).await?;
                    1
                }
            };
            let began = self.clock.monotonic();
            let owned = match self.open_incarnation(incarnation, &files).await {
                Ok(owned) => owned,
                Err(Opening::Superseded(by)) => {
                    // Its content was complete before the old one said so.
                    self.store.settle_create(&ready_key(by), Bytes::from_static(b"ready")).await?;
                    continue;
                }
                Err(Opening::Failed(error)) => return Err(error),
            };
            // Whoever paused for long may have created a slot that had been used and collected.
            if self.clock.monotonic() - began > self.options.look_within {
                warn!("opening the catalog took long, opening it again");
                continue;
            }
            return Ok(owned);
        }
    }

    /// Reads an incarnation to its end and creates an opening there.
    async fn open_incarnation(&self, incarnation: u64, files: &[Object]) -> Result<Owned, Opening> {
        let mut state = self.load(incarnation, files).await?;
        let owner = self.clock.random();
        loop {
            if let Some(by) = state.superseded {
                return Err(Opening::Superseded(by));
            }
            let millis = self.clock.unix_millis();
            let epoch = state.epoch + 1;
            let open = Commit { slot: state.next, epoch, owner, millis, content: Content::Open };
            let key = commit_key(incarnation, state.next);
            let bytes = open.encode();
            let len = bytes.len() as u64;
            match self.store.settle_create(&key, bytes).await.map_err(Error::from)? {
                Created::Mine => {
                    state.apply(open, len, self.clock.monotonic());
                    return Ok(Owned::new(self.clone(), incarnation, owner, state));
                }
                Created::Other => {
                    let bytes = self.store.get(&key).await.map_err(Error::from)?;
                    let commit = Commit::decode(key.as_str(), &bytes)?;
                    state.apply(commit, bytes.len() as u64, self.clock.monotonic());
                }
            }
        }
    }

    /// The newest checkpoint and every commit after it that `files` lists.
    async fn load(&self, incarnation: u64, files: &[Object]) -> Result<Loaded, Error> {
        let mine = || {
            let parsed = files.iter().filter_map(|f| parse(&f.key).map(|p| (p, f)));
            parsed.filter(|((i, _), _)| *i == incarnation)
        };
        let newest = mine().filter_map(|((_, file), _)| match file {
            File::Checkpoint(slot) => Some(slot),
            _ => None,
        });
        let newest = newest.max();
        let mut state = match newest {
            None => Loaded::default(),
            Some(slot) => {
                let key = checkpoint_key(incarnation, slot);
                let bytes = self.store.get(&key).await?;
                Loaded::from_checkpoint(Checkpoint::decode(key.as_str(), &bytes)?, bytes.len() as u64)
            }
        };
        // A checkpoint does not say when its newest commit was made, but was itself made soon after it.
        let checkpoints = mine().filter(|((_, file), _)| matches!(file, File::Checkpoint(_)));
        state.committed_millis = checkpoints.map(|(_, object)| object.modified_millis).max().unwrap_or(0);
        let now = self.clock.monotonic();
        let covered = mine().map(|((_, file), _)| file).filter(|file| match file {
            File::Ready => false,
            File::Commit(slot) => *slot < state.next,
            File::Checkpoint(_) => true,
        });
        state.files.extend(covered.map(|file| (file, now)));
        let slots: Vec<u64> = mine()
            .filter_map(|((_, file), _)| match file {
                File::Commit(slot) if slot >= state.next => Some(slot),
                _ => None,
            })
            .collect();
        let mut commits =
            stream::iter(slots.into_iter().map(|slot| self.read(incarnation, slot))).buffered(READS_AT_ONCE);
        while let Some((commit, bytes)) = commits.try_next().await? {
            if commit.slot != state.next {
                return Err(Error::Corrupt {
                    object: commit_key(incarnation, state.next).to_string(),
                    reason: format!("missing, while commit {} exists", commit.slot),
                });
            }
            state.apply(commit, bytes, now);
        }
        Ok(state)
    }

    async fn read(&self, incarnation: u64, slot: u64) -> Result<(Commit, u64), Error> {
        let key = commit_key(incarnation, slot);
        let bytes = self.store.get(&key).await?;
        let commit = Commit::decode(key.as_str(), &bytes)?;
        if commit.slot != slot {
            let reason = format!("holds commit {}", commit.slot);
            return Err(Error::Corrupt { object: key.to_string(), reason });
        }
        Ok((commit, bytes.len() as u64))
    }
}

#[async_trait]
impl Engine for Numbered {
    async fn exists(&self) -> Result<bool, Error> {
        Ok(newest_ready(&self.store.list("catalog").await?).is_some())
    }

    async fn open(&self) -> Result<Arc<dyn Catalog>, Error> {
        Ok(Arc::new(self.open_newest().await?))
    }

    async fn view(&self) -> Result<Box<dyn View>, Error> {
        let mut view = NumberedView {
            engine: self.clone(),
            incarnation: 0,
            state: Loaded::default(),
            loaded: self.clock.monotonic(),
        };
        view.reload().await?;
        Ok(Box::new(view))
    }
}

/// Why an incarnation was not opened.
enum Opening {
    Superseded(u64),
    Failed(Error),
}

impl From<Error> for Opening {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The slot that a rebuild took in an incarnation that it is about to replace.
struct Fence {
    incarnation: u64,
    /// The slot after it, which says that the incarnation is replaced.
    next: u64,
    epoch: u64,
    owner: u128,
}

/// A new catalog that is being filled.
pub struct Rebuilt {
    fences: Vec<Fence>,
    new: Owned,
}

impl Rebuilt {
    pub fn catalog(&self) -> &dyn Catalog {
        &self.new
    }

    /// Puts the new catalog in force.
    ///
    /// # Errors
    /// `Fenced` if another process opened a catalog, or began to rebuild one, meanwhile: this one is given up.
    pub async fn replace(self) -> Result<(), Error> {
        let Self { fences, new } = self;
        new.checkpoint().await?;
        // Fails if another rebuild found this one unfinished and took the slot.
        new.append(Content::Changes(Batch::default())).await?;
        for Fence { incarnation, next, epoch, owner } in fences.into_iter().rev() {
            let (millis, content) = (new.engine.clock.unix_millis(), Content::Superseded(new.incarnation));
            let commit = Commit { slot: next, epoch, owner, millis, content };
            let key = commit_key(incarnation, next);
            if new.engine.store.settle_create(&key, commit.encode()).await? == Created::Other {
                return Err(new.fenced());
            }
        }
        let ready = ready_key(new.incarnation);
        new.engine.store.settle_create(&ready, Bytes::from_static(b"ready")).await?;
        Ok(())
    }
}

/// The state after commit `next - 1`.
#[derive(Default)]
struct Loaded {
    rows: BTreeMap<Bytes, Bytes>,
    next: u64,
    epoch: u64,
    /// When commit `next - 1` was made.
    committed_millis: i64,
    superseded: Option<u64>,
    openings: Vec<(u64, i64)>,
    /// Files that may become superfluous, and since when they are known, by own clock.
    files: VecDeque<(File, Duration)>,
    /// Of the newest checkpoint: the first slot that it does not cover, its bytes.
    checkpoint: (u64, u64),
    /// Bytes of the commits after it.
    commit_bytes: u64,
}

impl Loaded {
    fn first(epoch: u64, millis: i64, now: Duration) -> Self {
        Self {
            next: 1,
            epoch,
            openings: vec![(0, millis)],
            files: VecDeque::from([(File::Commit(0), now)]),
            ..Self::default()
        }
    }

    fn from_checkpoint(checkpoint: Checkpoint, bytes: u64) -> Self {
        Self {
            rows: checkpoint.rows.into_iter().collect(),
            next: checkpoint.slot + 1,
            epoch: checkpoint.epoch,
            openings: checkpoint.openings,
            checkpoint: (checkpoint.slot + 1, bytes),
            ..Self::default()
        }
    }

    fn apply(&mut self, commit: Commit, bytes: u64, now: Duration) {
        self.files.push_back((File::Commit(commit.slot), now));
        self.next = commit.slot + 1;
        self.epoch = commit.epoch;
        self.committed_millis = commit.millis;
        self.commit_bytes += bytes;
        match commit.content {
            Content::Open => self.openings.push((commit.slot, commit.millis)),
            Content::Superseded(by) => self.superseded = Some(by),
            Content::Changes(batch) => {
                for (key, value) in batch.changes {
                    match value {
                        Some(value) => self.rows.insert(key, value),
                        None => self.rows.remove(&key),
                    };
                }
            }
        }
    }

    fn range(&self, keys: Range<Bytes>) -> Vec<Row> {
        if keys.start >= keys.end {
            return Vec::new();
        }
        self.rows.range(keys).map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// An opened catalog.
struct Owned {
    engine: Numbered,
    incarnation: u64,
    owner: u128,
    epoch: u64,
    version: AtomicU64,
    fenced: AtomicBool,
    state: RwLock<Loaded>,
    /// Files of incarnations before this one, which nobody can open any more, with their time.
    earlier: parking_lot::Mutex<VecDeque<(Key, i64)>>,
    /// When this last looked, by own clock, for files that it has not written: an owner that was replaced without
    /// knowing may write them at any time.
    looked: parking_lot::Mutex<Option<Duration>>,
    /// Held while a slot is decided: the commit that is in doubt, if its caller went away.
    in_doubt: Mutex<Option<Doubt>>,
    /// When a request last showed that this is the owner, in milliseconds of own clock.
    sure: AtomicU64,
}

struct Doubt {
    commit: Commit,
    bytes: Bytes,
}

impl Owned {
    fn new(engine: Numbered, incarnation: u64, owner: u128, state: Loaded) -> Self {
        let sure = engine.clock.monotonic().as_millis() as u64;
        Self {
            incarnation,
            owner,
            epoch: state.epoch,
            version: AtomicU64::new(version_of(incarnation, state.next - 1)),
            fenced: AtomicBool::new(false),
            state: RwLock::new(state),
            earlier: parking_lot::Mutex::default(),
            looked: parking_lot::Mutex::default(),
            in_doubt: Mutex::new(None),
            sure: AtomicU64::new(sure),
            engine,
        }
    }

    fn fenced(&self) -> Error {
        self.fenced.store(true, Ordering::SeqCst);
        Error::Fenced { epoch: self.epoch }
    }

    /// Takes the next slot for `content`.
    async fn append(&self, content: Content) -> Result<u64, Error> {
        let mut in_doubt = self.in_doubt.lock().await;
        if in_doubt.is_some() {
            self.settle(&mut in_doubt).await?;
        }
        if self.fenced.load(Ordering::SeqCst) {
            return Err(self.fenced());
        }
        let commit = Commit {
            slot: self.state.read().next,
            epoch: self.epoch,
            owner: self.owner,
            millis: self.engine.clock.unix_millis(),
            content,
        };
        let bytes = commit.encode();
        *in_doubt = Some(Doubt { commit, bytes });
        self.settle(&mut in_doubt).await
    }

    /// Decides the slot of the commit in doubt, however long that takes.
    async fn settle(&self, in_doubt: &mut Option<Doubt>) -> Result<u64, Error> {
        let Some(doubt) = in_doubt.as_ref() else {
            return Ok(self.version());
        };
        let key = commit_key(self.incarnation, doubt.commit.slot);
        let clock = &self.engine.clock;
        let mut pause = RETRY_PAUSE_MIN;
        let created = loop {
            match self.engine.store.settle_create(&key, doubt.bytes.clone()).await {
                Ok(created) => break created,
                Err(error) => {
                    warn!(%key, %error, "catalog commit is in doubt, asking again");
                    clock.sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        };
        if created == Created::Other || self.was_paused().await {
            *in_doubt = None;
            return Err(self.fenced());
        }
        let Some(Doubt { commit, bytes }) = in_doubt.take() else {
            return Ok(self.version());
        };
        let slot = commit.slot;
        self.state.write().apply(commit, bytes.len() as u64, clock.monotonic());
        let version = version_of(self.incarnation, slot);
        self.version.store(version, Ordering::SeqCst);
        Ok(version)
    }

    /// Whether this process slept so long that what fenced it may have been collected: then the next slot is free,
    /// far behind the newest commit. An opening stays for long, but not the commit that its caller left in doubt.
    async fn was_paused(&self) -> bool {
        let now = self.engine.clock.monotonic().as_millis() as u64;
        let before = self.sure.load(Ordering::SeqCst);
        let kept = self.engine.options.openings_kept.min(self.engine.options.collect_after);
        if now.saturating_sub(before) < (kept / 2).as_millis() as u64 {
            self.sure.fetch_max(now, Ordering::SeqCst);
            return false;
        }
        let slot = self.state.read().next;
        loop {
            match self.engine.store.list("catalog").await {
                Ok(files) => {
                    let is_later = |(i, file)| match file {
                        File::Ready => i > self.incarnation,
                        File::Commit(n) | File::Checkpoint(n) => i == self.incarnation && n > slot,
                    };
                    let was_paused = files.iter().filter_map(|f| parse(&f.key)).any(is_later);
                    if !was_paused {
                        self.sure.fetch_max(now, Ordering::SeqCst);
                    }
                    return was_paused;
                }
                Err(_) => self.engine.clock.sleep(RETRY_PAUSE_MAX).await,
            }
        }
    }

    async fn checkpoint(&self) -> Result<(), Error> {
        let checkpoint = {
            let state = self.state.read();
            Checkpoint {
                slot: state.next - 1,
                epoch: state.epoch,
                openings: state.openings.clone(),
                rows: state.rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            }
        };
        let slot = checkpoint.slot;
        let bytes = checkpoint.encode();
        let len = bytes.len() as u64;
        // Other bytes of the same slot are the same rows, written by an earlier attempt.
        self.engine.store.settle_create(&checkpoint_key(self.incarnation, slot), bytes).await?;
        let mut state = self.state.write();
        state.files.push_back((File::Checkpoint(slot), self.engine.clock.monotonic()));
        state.checkpoint = (slot + 1, len);
        state.commit_bytes = 0;
        Ok(())
    }

    /// Takes over, now and then, what earlier owners and incarnations left.
    async fn look_for_files(&self) -> Result<(), Error> {
        let now = self.engine.clock.monotonic();
        if self.looked.lock().is_some_and(|at| now - at < self.engine.options.collect_after) {
            return Ok(());
        }
        let listed = self.engine.store.list("catalog").await?;
        if newest_ready(&listed) != Some(self.incarnation) {
            warn!(incarnation = self.incarnation, "the catalog was removed, or replaced, under its owner");
            return Err(self.fenced());
        }
        let parsed = || listed.iter().filter_map(|o| parse(&o.key).map(|(i, file)| (i, file, o)));
        let earlier = parsed().filter(|(incarnation, ..)| *incarnation < self.incarnation);
        *self.earlier.lock() = earlier.map(|(.., o)| (o.key.clone(), o.modified_millis)).collect();
        let mut state = self.state.write();
        let known: HashSet<File> = state.files.iter().map(|(file, _)| *file).collect();
        let next = state.next;
        let is_unknown = |file: &File| match file {
            File::Ready => false,
            // What comes later is of an owner that has replaced this one.
            File::Commit(slot) | File::Checkpoint(slot) => *slot < next && !known.contains(file),
        };
        let mine = parsed().filter(|(incarnation, ..)| *incarnation == self.incarnation);
        let unknown = mine.filter(|(_, file, _)| is_unknown(file));
        state.files.extend(unknown.map(|(_, file, _)| (file, now)));
        drop(state);
        *self.looked.lock() = Some(now);
        Ok(())
    }

    /// Deletes the files of earlier incarnations once no process can be left that was paused while it owned one: what
    /// fences such a process lies there.
    async fn collect_earlier(&self) -> Result<(), Error> {
        let kept = self.engine.options.openings_kept.as_millis() as i64;
        let due: Vec<(Key, i64)> = {
            let mut earlier = self.earlier.lock();
            let newest = earlier.iter().map(|(_, at)| *at).max();
            let is_over = newest.is_some_and(|at| self.engine.clock.unix_millis() - at > kept);
            let count = if is_over { earlier.len().min(DELETES_AT_ONCE_MAX) } else { 0 };
            earlier.drain(..count).collect()
        };
        for (n, (key, _)) in due.iter().enumerate() {
            if let Err(error) = self.engine.store.delete(key).await {
                self.earlier.lock().extend(due[n..].iter().cloned());
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Deletes the files that a checkpoint covers which is itself older than `collect_after`: whoever reads or copies the
    /// catalog file by file, and listed it before that checkpoint, finds the files that it listed.
    async fn collect(&self) -> Result<(), Error> {
        let (now, unix_millis) = (self.engine.clock.monotonic(), self.engine.clock.unix_millis());
        let options = &self.engine.options;
        let mut superfluous = Vec::new();
        {
            let mut state = self.state.write();
            let kept = options.openings_kept.as_millis() as i64;
            let old = |at: Duration| now - at > options.collect_after;
            let checkpoints = state.files.iter().filter_map(|(file, at)| match file {
                File::Checkpoint(slot) if old(*at) => Some(slot + 1),
                _ => None,
            });
            let covered = checkpoints.max().unwrap_or(0);
            let openings = std::mem::take(&mut state.openings);
            let (expired, openings): (Vec<_>, Vec<_>) =
                openings.into_iter().partition(|(slot, at)| *slot < covered && unix_millis - at > kept);
            state.openings = openings;
            let mut left = VecDeque::with_capacity(state.files.len());
            for (file, at) in std::mem::take(&mut state.files) {
                let needed = match file {
                    File::Ready => true,
                    File::Checkpoint(slot) => slot + 1 >= covered,
                    File::Commit(slot) => slot >= covered || state.openings.iter().any(|(s, _)| *s == slot),
                };
                if needed || !old(at) || superfluous.len() >= DELETES_AT_ONCE_MAX {
                    left.push_back((file, at));
                } else {
                    superfluous.push((file, at));
                }
            }
            state.files = left;
            drop(expired);
        }
        for (n, (file, _)) in superfluous.iter().enumerate() {
            if let Err(error) = self.engine.store.delete(&file.key(self.incarnation)).await {
                self.state.write().files.extend(&superfluous[n..]);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Catalog for Owned {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    async fn commit(&self, batch: Batch) -> Result<u64, Error> {
        self.append(Content::Changes(batch)).await
    }

    async fn check(&self) -> Result<(), Error> {
        if self.fenced.load(Ordering::SeqCst) {
            return Err(self.fenced());
        }
        let mut slot = self.state.read().next;
        loop {
            let key = commit_key(self.incarnation, slot);
            match self.engine.store.get(&key).await {
                Err(storage::Error::NotFound(_)) if self.was_paused().await => return Err(self.fenced()),
                Err(storage::Error::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(bytes) if Commit::decode(key.as_str(), &bytes)?.owner != self.owner => {
                    return Err(self.fenced());
                }
                // One that is under way; it says nothing of what came after it.
                Ok(_) => slot += 1,
            }
        }
    }

    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error> {
        Ok(self.state.read().range(keys))
    }

    async fn compact(&self, version: u64) -> Result<(), Error> {
        let covered = version_of(self.incarnation, self.state.read().checkpoint.0);
        if covered <= version && !self.fenced.load(Ordering::SeqCst) {
            self.checkpoint().await?;
        }
        Ok(())
    }

    fn has_forgotten(&self, version: u64) -> bool {
        if self.looked.lock().is_none() || !self.earlier.lock().is_empty() {
            return false;
        }
        let state = self.state.read();
        let is_opening = |slot: u64| state.openings.iter().any(|(opening, _)| *opening == slot);
        state.files.iter().all(|(file, _)| match *file {
            File::Ready => true,
            File::Commit(slot) => version_of(self.incarnation, slot) > version || is_opening(slot),
            File::Checkpoint(slot) => version_of(self.incarnation, slot) >= version,
        })
    }

    async fn maintain(&self) -> Result<(), Error> {
        let due = {
            let state = self.state.read();
            let commits = state.next - state.checkpoint.0;
            let bytes_max = self.engine.options.checkpoint_bytes.max(state.checkpoint.1 / 2);
            commits >= self.engine.options.checkpoint_commits || state.commit_bytes >= bytes_max
        };
        if due && !self.fenced.load(Ordering::SeqCst) {
            self.checkpoint().await?;
        }
        self.look_for_files().await?;
        self.collect().await?;
        self.collect_earlier().await
    }
}

/// The catalog without owning it.
struct NumberedView {
    engine: Numbered,
    incarnation: u64,
    state: Loaded,
    /// When the state was last known to be the newest, by own clock.
    loaded: Duration,
}

impl NumberedView {
    async fn reload(&mut self) -> Result<(), Error> {
        let began = self.engine.clock.monotonic();
        let files = self.engine.store.list("catalog").await?;
        self.incarnation = newest_ready(&files).ok_or(Error::Absent)?;
        self.state = self.engine.load(self.incarnation, &files).await?;
        self.loaded = began;
        Ok(())
    }
}

#[async_trait]
impl View for NumberedView {
    fn version(&self) -> u64 {
        version_of(self.incarnation, self.state.next.saturating_sub(1))
    }

    fn epoch(&self) -> u64 {
        self.state.epoch
    }

    fn committed_millis(&self) -> i64 {
        self.state.committed_millis
    }

    async fn refresh(&mut self) -> Result<u64, Error> {
        let began = self.engine.clock.monotonic();
        // After a while the next commit may have been collected, and an absent slot says nothing.
        if began - self.loaded > self.engine.options.look_within {
            self.reload().await?;
        }
        loop {
            match self.engine.read(self.incarnation, self.state.next).await {
                Ok((commit, bytes)) => self.state.apply(commit, bytes, began),
                Err(Error::Store(storage::Error::NotFound(_))) => break,
                Err(error) => return Err(error),
            }
            if self.state.superseded.is_some() {
                self.reload().await?;
            }
        }
        self.loaded = began;
        // A view deletes nothing.
        self.state.files.clear();
        Ok(self.version())
    }

    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error> {
        Ok(self.state.range(keys))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum File {
    Ready,
    Commit(u64),
    Checkpoint(u64),
}

impl File {
    fn key(self, incarnation: u64) -> Key {
        match self {
            Self::Ready => ready_key(incarnation),
            Self::Commit(slot) => commit_key(incarnation, slot),
            Self::Checkpoint(slot) => checkpoint_key(incarnation, slot),
        }
    }
}

/// A rebuilt catalog counts its slots anew, but its versions go on. Incarnations are seconds since 1970 at most, slots
/// fewer than 2^32.
fn version_of(incarnation: u64, slot: u64) -> u64 {
    (incarnation << 32) + slot
}

fn ready_key(incarnation: u64) -> Key {
    Key::catalog(incarnation, "ready")
}

fn commit_key(incarnation: u64, slot: u64) -> Key {
    Key::catalog(incarnation, &format!("commit/{slot:012}"))
}

fn checkpoint_key(incarnation: u64, slot: u64) -> Key {
    Key::catalog(incarnation, &format!("snapshot/{slot:012}"))
}

fn parse(key: &Key) -> Option<(u64, File)> {
    let (incarnation, name) = key.parse_catalog()?;
    let file = match name.split_once('/') {
        None if name == "ready" => File::Ready,
        Some(("commit", slot)) => File::Commit(slot.parse().ok()?),
        Some(("snapshot", slot)) => File::Checkpoint(slot.parse().ok()?),
        _ => return None,
    };
    Some((incarnation, file))
}

fn newest_ready(files: &[Object]) -> Option<u64> {
    let parsed = files.iter().filter_map(|f| parse(&f.key));
    parsed.filter(|(_, file)| *file == File::Ready).map(|(incarnation, _)| incarnation).max()
}
