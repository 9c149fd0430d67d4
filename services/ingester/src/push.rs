//! Gathers pushes in the open segment.
//!
//! Owns: the byte budget, the open segment, when it is ripe to be cut, and who waits for it.
//! Does not own: what happens to a segment after the cut (`flush`).
//!
//! Items are appended on the pool by one worker at a time, in whatever number has come since it
//! last looked, so that neither connections nor a second worker ever wait for the segment's lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use block::{Dictionaries, Encoded, Head, Origin, Sorted};
use clock::{Clock, Pool};
use model::PushItem;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::Config;
use crate::error::Error;
use crate::metrics::Metrics;

/// Once all waiting pushes together have waited this long, the open segment is cut (within the
/// bounds of the config). An upload costs the same for one push as for hundreds, so few wait long
/// for company and many do not: at r pushes per second a segment gathers for sqrt(2 · 4 s / r).
const WAITED_TOTAL: Duration = Duration::from_secs(4);

/// How a segment ended; `None` while it has not.
pub(crate) type Ended = Option<Result<(), Error>>;

pub(crate) struct Open {
    state: Mutex<State>,
    changed: Notify,
    budget: Arc<Budget>,
    dictionaries: Dictionaries,
    config: Config,
    clock: Clock,
    pool: Pool,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    gathering: Option<Gathering>,
    draining: bool,
}

/// The open segment.
pub(crate) struct Gathering {
    pub(crate) content: Arc<Content>,
    pub(crate) ended: watch::Sender<Ended>,
    /// Memory of all its pushes; freed when the segment is dropped, not when its pushers go away.
    pub(crate) charge: Charge,
    opened: Duration,
    /// Sum over the pushes of the time of their arrival.
    arrivals: Duration,
    pushes: u32,
}

/// What a segment holds, while it is open and after.
pub(crate) struct Content {
    head: Mutex<Head>,
    pending: Mutex<Pending>,
    byte_len: AtomicUsize,
    /// Kept after it is encoded, because a segment that loses its slot is encoded for another.
    closed: OnceLock<Sorted>,
}

#[derive(Default)]
struct Pending {
    items: Vec<PushItem>,
    /// A worker is on its way, and will see what is added now.
    appending: bool,
}

pub(crate) enum Ripe {
    Cut(Gathering),
    /// No push waits, and none will come.
    Drained,
}

impl Open {
    pub(crate) fn new(
        config: Config,
        dictionaries: Dictionaries,
        clock: Clock,
        pool: Pool,
        metrics: Metrics,
    ) -> Self {
        let budget =
            Budget { limit: config.inflight_bytes_max, used: AtomicUsize::new(0), metrics: metrics.clone() };
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            budget: Arc::new(budget),
            dictionaries,
            config,
            clock,
            pool,
            metrics,
        }
    }

    /// Adds one push to the open segment, and waits until the segment has ended.
    pub(crate) async fn push(self: &Arc<Self>, items: Vec<PushItem>) -> Result<(), Error> {
        if items.is_empty() {
            return Ok(());
        }
        let arrived = self.clock.monotonic();
        let bytes = items.iter().map(charged).sum();
        let charge = self.budget.charge(bytes, self.config.segment_duration.get())?;
        let mut ended = self.add(items, charge, arrived)?;
        let outcome = match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Err(Error::Stopped)),
            Err(_) => Err(Error::Stopped),
        };
        if outcome.is_ok() {
            let waited = self.clock.monotonic().saturating_sub(arrived);
            self.metrics.push_seconds.observe(waited.as_secs_f64());
        }
        outcome
    }

    fn add(
        self: &Arc<Self>,
        items: Vec<PushItem>,
        charge: Charge,
        now: Duration,
    ) -> Result<watch::Receiver<Ended>, Error> {
        let mut state = self.state.lock();
        if state.draining {
            return Err(Error::Draining);
        }
        let gathering = state.gathering.get_or_insert_with(|| Gathering {
            content: Arc::new(Content::new(&self.dictionaries)),
            ended: watch::Sender::new(None),
            charge: self.budget.nothing(),
            opened: now,
            arrivals: Duration::ZERO,
            pushes: 0,
        });
        gathering.pushes += 1;
        gathering.arrivals += now;
        gathering.charge.absorb(charge);
        let content = gathering.content.clone();
        let needs_worker = content.add(items);
        let ended = gathering.ended.subscribe();
        // Before its least age, whoever waits for the segment looks when that is reached; after it,
        // each push may make the segment ripe sooner than it was.
        let wake = gathering.pushes == 1 || now >= gathering.least_age(&self.config);
        drop(state);
        if needs_worker {
            let this = self.clone();
            self.clock.spawn_vital("append", async move { this.append(content).await });
        }
        if wake {
            self.changed.notify_one();
        }
        Ok(ended)
    }

    async fn append(&self, content: Arc<Content>) {
        let byte_len = self.pool.run(move || content.append_pending()).await;
        if byte_len >= self.config.segment_bytes_max {
            self.changed.notify_one();
        }
    }

    /// Waits until the open segment should be cut, and takes it.
    ///
    /// `quiet`: no upload is under way. While one is, the next segment may as well grow.
    pub(crate) async fn ripe(&self, quiet: bool) -> Ripe {
        loop {
            let pause = {
                let mut state = self.state.lock();
                let now = self.clock.monotonic();
                let draining = state.draining;
                if draining && state.gathering.is_none() {
                    return Ripe::Drained;
                }
                let ripe = |open: &mut Gathering| draining || open.ripe_at(&self.config, quiet) <= now;
                if let Some(open) = state.gathering.take_if(ripe) {
                    return Ripe::Cut(open);
                }
                // It may have ripened since, by a worker that appended.
                state
                    .gathering
                    .as_ref()
                    .map(|open| open.look_again_at(&self.config, quiet, now).saturating_sub(now))
            };
            let changed = self.changed.notified();
            match pause {
                None => changed.await,
                // Either way the next round looks again.
                Some(pause) => drop(self.clock.timeout(pause, changed).await),
            }
        }
    }

    /// Refuses pushes from now on.
    pub(crate) fn drain(&self) {
        self.state.lock().draining = true;
        self.changed.notify_one();
    }
}

impl Gathering {
    fn least_age(&self, config: &Config) -> Duration {
        self.opened + config.segment_duration_min.get()
    }

    /// As [`Self::ripe_at`], but not past its least age: who comes until then changes the answer.
    fn look_again_at(&self, config: &Config, quiet: bool, now: Duration) -> Duration {
        let (ripe, least_age) = (self.ripe_at(config, quiet), self.least_age(config));
        if now < least_age { ripe.min(least_age) } else { ripe }
    }

    fn ripe_at(&self, config: &Config, quiet: bool) -> Duration {
        if self.content.byte_len.load(Ordering::Relaxed) >= config.segment_bytes_max {
            return Duration::ZERO;
        }
        let latest = self.opened + config.segment_duration.get();
        if !quiet {
            return latest;
        }
        let waited_enough = (self.arrivals + WAITED_TOTAL) / self.pushes.max(1);
        waited_enough.max(self.least_age(config)).min(latest)
    }
}

impl Content {
    fn new(dictionaries: &Dictionaries) -> Self {
        Self {
            head: Mutex::new(Head::with(dictionaries.clone())),
            pending: Mutex::default(),
            byte_len: AtomicUsize::new(0),
            closed: OnceLock::new(),
        }
    }

    /// Returns whether a worker must be sent.
    fn add(&self, items: Vec<PushItem>) -> bool {
        let mut pending = self.pending.lock();
        pending.items.extend(items);
        !std::mem::replace(&mut pending.appending, true)
    }

    /// Appends until nothing is pending; returns the memory that the segment holds, in bytes.
    fn append_pending(&self) -> usize {
        loop {
            let mut head = self.head.lock();
            let items = {
                let mut pending = self.pending.lock();
                if pending.items.is_empty() {
                    pending.appending = false;
                    return self.byte_len.load(Ordering::Relaxed);
                }
                std::mem::take(&mut pending.items)
            };
            // Each is freed as soon as it is appended: those that wait hold most of the memory.
            for item in items {
                head.append(&item);
            }
            self.byte_len.store(head.byte_len(), Ordering::Relaxed);
        }
    }

    /// The segment's bytes for one slot. Closes it: nothing may be added any more, though a worker
    /// may still be at work. Computes for milliseconds.
    pub(crate) fn encode(&self, origin: Origin, created_millis: i64) -> Result<Encoded, block::Error> {
        let sorted = self.closed.get_or_init(|| {
            self.append_pending();
            self.head.lock().cut().sort()
        });
        sorted.encode(origin, created_millis)
    }
}

/// Memory that pushes may hold until they are acknowledged, in bytes.
struct Budget {
    limit: usize,
    used: AtomicUsize,
    metrics: Metrics,
}

/// A part of the budget, given back when it is dropped.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn charge(self: &Arc<Self>, bytes: usize, retry_after: Duration) -> Result<Charge, Error> {
        let limit = self.limit;
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => {
                self.metrics.inflight_bytes.inc_by(bytes as i64);
                Ok(Charge { budget: self.clone(), bytes })
            }
            Err(used) => Err(Error::OverBudget { bytes, used, limit, retry_after }),
        }
    }

    fn nothing(self: &Arc<Self>) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

impl Charge {
    fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.metrics.inflight_bytes.dec_by(self.bytes as i64);
    }
}

/// Items of one profile share it, but each is charged for it: what is appended may not be shared.
fn charged(item: &PushItem) -> usize {
    let rows = |series: &model::SeriesRows| {
        series.labels.byte_len()
            + series.samples.len() * size_of::<u32>()
            + series.spans.len() * size_of::<model::Span>()
    };
    size_of::<PushItem>() + item.byte_len() + item.series.iter().map(rows).sum::<usize>()
}
