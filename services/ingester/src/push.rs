//! Gathers pushes in the open segment.
//!
//! Owns: the open segment, when it is due to be cut, the pushes that wait for it, and how many bytes they are charged.
//! Does not own: a segment after the cut (`flush`).
//!
//! Items are appended on the pool, by at most one worker, which takes all pending items at once. So neither
//! connections nor a second worker ever wait for the segment's lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use block::{Dictionaries, EncodedObject, Head, Origin, SortedSegment};
use clock::{Clock, Pool};
use memory::{Budget, Charge};
use model::PushItem;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::Config;
use crate::error::Error;
use crate::metrics::Metrics;

/// The open segment is cut once its pushes have waited this long in total, within the bounds of the config. An
/// upload costs the same for one push as for hundreds, so a lone push waits longer to share an upload than a busy
/// stream does: at r pushes per second a segment gathers for sqrt(2 · 4 s / r).
const WAITED_TOTAL: Duration = Duration::from_secs(4);

/// Progress of a segment, as its pushers watch it.
#[derive(Clone, Debug)]
pub(crate) enum SegmentStatus {
    /// Open, or cut and not durable yet.
    Pending,
    Durable,
    Failed(Error),
}

impl SegmentStatus {
    fn is_final(&self) -> bool {
        !matches!(self, Self::Pending)
    }

    fn outcome(&self) -> Result<(), Error> {
        match self {
            Self::Durable => Ok(()),
            Self::Failed(error) => Err(error.clone()),
            Self::Pending => Err(Error::Stopped),
        }
    }
}

/// Builds one segment after the other from pushes.
pub(crate) struct SegmentBuilder {
    state: Mutex<State>,
    changed: Notify,
    /// Memory of all pushes until they are acknowledged.
    budget: Budget,
    dictionaries: Dictionaries,
    config: Config,
    clock: Clock,
    pool: Pool,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    /// Present while it holds at least one push.
    open: Option<OpenSegment>,
    is_draining: bool,
}

/// The segment that takes pushes.
pub(crate) struct OpenSegment {
    pub(crate) content: Arc<SegmentContent>,
    pub(crate) status: watch::Sender<SegmentStatus>,
    /// Memory of all its pushes; freed when the segment is dropped, not when its pushers disconnect.
    pub(crate) charge: Charge,
    opened: Duration,
    /// Sum of the arrival times of the pushes.
    arrivals: Duration,
    pushes: u32,
}

/// The items of a segment, both while it is open and after the cut.
pub(crate) struct SegmentContent {
    head: Mutex<Head>,
    pending: Mutex<PendingItems>,
    byte_len: AtomicUsize,
    /// Kept after encoding: a segment that loses its slot is encoded for another one.
    closed: OnceLock<SortedSegment>,
}

#[derive(Default)]
struct PendingItems {
    items: Vec<PushItem>,
    /// True while a worker runs or is about to run; it will see items added now.
    has_worker: bool,
}

/// The outcome of [`SegmentBuilder::next_segment`].
pub(crate) enum NextSegment {
    Segment(OpenSegment),
    /// No push waits, and none will come.
    Drained,
}

impl SegmentBuilder {
    pub(crate) fn new(
        config: Config,
        dictionaries: Dictionaries,
        clock: Clock,
        pool: Pool,
        metrics: Metrics,
    ) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            budget: Budget::new(config.inflight_bytes_max, metrics.inflight_bytes.clone()),
            dictionaries,
            config,
            clock,
            pool,
            metrics,
        }
    }

    /// Adds one push to the open segment, and waits until the segment is durable or has failed.
    pub(crate) async fn push(self: &Arc<Self>, items: Vec<PushItem>) -> Result<(), Error> {
        if items.is_empty() {
            return Ok(());
        }
        let arrived = self.clock.monotonic();
        let bytes = items.iter().map(charged_bytes).sum();
        let retry_after = self.config.segment_duration.get();
        let charge = self.budget.charge(bytes).map_err(|over| Error::over_budget(over, retry_after))?;
        let mut status = self.add(items, charge, arrived)?;
        let outcome = match status.wait_for(SegmentStatus::is_final).await {
            Ok(status) => status.outcome(),
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
    ) -> Result<watch::Receiver<SegmentStatus>, Error> {
        let mut state = self.state.lock();
        if state.is_draining {
            return Err(Error::Draining);
        }
        let open = state.open.get_or_insert_with(|| OpenSegment {
            content: Arc::new(SegmentContent::new(&self.dictionaries)),
            status: watch::Sender::new(SegmentStatus::Pending),
            charge: self.budget.empty_charge(),
            opened: now,
            arrivals: Duration::ZERO,
            pushes: 0,
        });
        open.pushes += 1;
        open.arrivals += now;
        open.charge.absorb(charge);
        let content = open.content.clone();
        let needs_worker = content.add(items);
        let status = open.status.subscribe();
        // Until the minimum age, the flusher sleeps until that age is reached. After it, each push may move the
        // cut forward, so the flusher must look again.
        let wake = open.pushes == 1 || now >= open.reaches_min_age_at(&self.config);
        drop(state);
        if needs_worker {
            let this = self.clone();
            self.clock.spawn_vital("append", async move { this.append(content).await });
        }
        if wake {
            self.changed.notify_one();
        }
        Ok(status)
    }

    async fn append(&self, content: Arc<SegmentContent>) {
        let byte_len = self.pool.run(move || content.append_pending()).await;
        if byte_len >= self.config.segment_bytes_max {
            self.changed.notify_one();
        }
    }

    /// Waits until the open segment is due to be cut, and takes it.
    ///
    /// `is_quiet`: no upload is in progress. While one is, the next segment may as well grow.
    pub(crate) async fn next_segment(&self, is_quiet: bool) -> NextSegment {
        loop {
            let pause = {
                let mut state = self.state.lock();
                let now = self.clock.monotonic();
                let is_draining = state.is_draining;
                if is_draining && state.open.is_none() {
                    return NextSegment::Drained;
                }
                let is_due =
                    |open: &mut OpenSegment| is_draining || open.due_at(&self.config, is_quiet) <= now;
                if let Some(open) = state.open.take_if(is_due) {
                    return NextSegment::Segment(open);
                }
                // A worker may have appended since, so the segment can be due already.
                state
                    .open
                    .as_ref()
                    .map(|open| open.check_again_at(&self.config, is_quiet, now).saturating_sub(now))
            };
            let changed = self.changed.notified();
            match pause {
                None => changed.await,
                // The next round checks in both cases.
                Some(pause) => drop(self.clock.timeout(pause, changed).await),
            }
        }
    }

    /// Refuses pushes from now on.
    pub(crate) fn drain(&self) {
        self.state.lock().is_draining = true;
        self.changed.notify_one();
    }
}

impl OpenSegment {
    fn reaches_min_age_at(&self, config: &Config) -> Duration {
        self.opened + config.segment_duration_min.get()
    }

    /// [`Self::due_at`], but at most the end of the minimum age: pushes that arrive until then change the answer.
    fn check_again_at(&self, config: &Config, is_quiet: bool, now: Duration) -> Duration {
        let (due, min_age) = (self.due_at(config, is_quiet), self.reaches_min_age_at(config));
        if now < min_age { due.min(min_age) } else { due }
    }

    fn due_at(&self, config: &Config, is_quiet: bool) -> Duration {
        if self.content.byte_len.load(Ordering::Relaxed) >= config.segment_bytes_max {
            return Duration::ZERO;
        }
        let latest = self.opened + config.segment_duration.get();
        if !is_quiet {
            return latest;
        }
        let waited_enough = (self.arrivals + WAITED_TOTAL) / self.pushes.max(1);
        waited_enough.max(self.reaches_min_age_at(config)).min(latest)
    }
}

impl SegmentContent {
    fn new(dictionaries: &Dictionaries) -> Self {
        Self {
            head: Mutex::new(Head::with(dictionaries.clone())),
            pending: Mutex::default(),
            byte_len: AtomicUsize::new(0),
            closed: OnceLock::new(),
        }
    }

    /// Returns true if the caller must start a worker.
    fn add(&self, items: Vec<PushItem>) -> bool {
        let mut pending = self.pending.lock();
        pending.items.extend(items);
        !std::mem::replace(&mut pending.has_worker, true)
    }

    /// Appends until no item is pending; returns the memory that the segment holds, in bytes.
    fn append_pending(&self) -> usize {
        loop {
            let mut head = self.head.lock();
            let items = {
                let mut pending = self.pending.lock();
                if pending.items.is_empty() {
                    pending.has_worker = false;
                    return self.byte_len.load(Ordering::Relaxed);
                }
                std::mem::take(&mut pending.items)
            };
            // Each item is freed once it is appended: pending items hold most of the memory.
            for item in items {
                head.append(&item);
            }
            self.byte_len.store(head.byte_len(), Ordering::Relaxed);
        }
    }

    /// The segment's bytes for one slot. Closes the segment: nothing may be added any more, though a worker may
    /// still run. Computes for milliseconds.
    pub(crate) fn encode(&self, origin: Origin, created_millis: i64) -> Result<EncodedObject, block::Error> {
        let sorted = self.closed.get_or_init(|| {
            self.append_pending();
            self.head.lock().cut().sort()
        });
        sorted.encode(origin, created_millis)
    }
}

/// Bytes charged for one item. Items may share a profile, but each is charged for all of it: the segment may not
/// share the appended data.
fn charged_bytes(item: &PushItem) -> usize {
    let rows = |series: &model::SeriesRows| {
        series.labels.byte_len()
            + series.samples.len() * size_of::<u32>()
            + series.spans.len() * size_of::<model::Span>()
    };
    size_of::<PushItem>() + item.byte_len() + item.series.iter().map(rows).sum::<usize>()
}
