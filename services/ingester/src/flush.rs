//! Cuts the open segment, makes it durable and acknowledges it.
//!
//! Owns: the writer's log, the uploads, when a log is abandoned, hints to the metastore, the ack.
//! Does not own: the bytes of a segment (`block`), when a segment is due (`push`).
//!
//! The ack follows the upload alone. If a hint does not reach the metastore, the metastore finds the object
//! by probing this writer's log, so a crash between the two loses nothing.

use std::sync::Arc;
use std::time::Duration;

use block::{EncodedObject, Origin, Seal};
use bytes::Bytes;
use clock::{Clock, Pool};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use memory::Charge;
use model::WriterId;
use parking_lot::Mutex;
use rpc::SegmentHint;
use storage::{CreateOutcome, Key, Store};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::error::Error;
use crate::log::Log;
use crate::metrics::{Metrics, Stage};
use crate::push::{NextSegment, OpenSegment, SegmentBuilder, SegmentContent, SegmentStatus};

/// Most slots that are taken and not acknowledged. More: a slow store sees more parallel uploads, and a reader
/// that starts during an upload stops further below the end of the log.
const SLOTS_IN_FLIGHT_MAX: usize = 4;
/// A slot that is not settled within this time is in doubt, and its log with it.
const SETTLE_LIMIT: Duration = Duration::from_secs(8);
/// Pause before a failed create is repeated.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Least time between two reports of a store that keeps failing.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// If this much of the machine's time has passed since an upload began, this process was suspended. Others may
/// have closed the log and forgotten it.
const SUSPENSION_LIMIT: Duration = Duration::from_secs(30);
/// A log without a new slot for this long is left for a new one. Others close a silent log after ten minutes and
/// remove the seal some day; a slot beyond it would then never be read.
const LOG_IDLE_MAX: Duration = Duration::from_secs(300);
/// How often a segment that lost its slot is moved to a new log.
const MOVES_MAX: u32 = 3;
/// How long an ack waits for the metastore's answer.
const HINT_WAIT: Duration = Duration::from_millis(250);
/// After this many unanswered hints in a row, acks do not wait for answers for [`HINT_SILENCE`].
const HINT_TIMEOUTS_MAX: u32 = 2;
const HINT_SILENCE: Duration = Duration::from_secs(5);
/// A hint without an answer is given up after this long.
const HINT_LIFE: Duration = Duration::from_secs(10);
/// Most hints without an answer; further ones are not sent.
const HINTS_MAX: usize = 16;

/// A cut segment, until it is durable or has failed.
struct Segment {
    content: Arc<SegmentContent>,
    status: watch::Sender<SegmentStatus>,
    _charge: Charge,
    moves: u32,
}

/// How the upload to one slot ended.
enum UploadOutcome {
    Durable(SegmentHint),
    /// The slot holds other bytes, as a rule a seal.
    Lost,
    Unencodable(String),
    Doubtful(Error),
    /// The store refuses creates, and will not take one soon.
    Refused(Error),
}

pub(crate) struct Flusher {
    shared: Arc<FlushState>,
    builder: Arc<SegmentBuilder>,
    log: Log<Segment, SegmentHint>,
    uploads: FuturesUnordered<BoxFuture<'static, (u64, UploadOutcome)>>,
    acks: mpsc::UnboundedSender<(Segment, SegmentHint)>,
    writers: watch::Sender<Vec<WriterId>>,
}

/// The flusher's state, to be watched from outside.
pub(crate) struct FlusherStatus {
    /// True once everything is drained.
    pub(crate) stopped: watch::Receiver<bool>,
    /// Logs that are written to; empty once everything is drained.
    pub(crate) writers: watch::Receiver<Vec<WriterId>>,
}

struct FlushState {
    store: Store,
    clock: Clock,
    pool: Pool,
    metrics: Metrics,
    failures: Mutex<Failures>,
}

/// Failed creates since the last success.
#[derive(Default)]
struct Failures {
    count: u64,
    /// Of the last failure.
    cause: Option<String>,
    /// Monotonic time of the last report.
    reported: Option<Duration>,
}

impl Flusher {
    /// Starts to flush the segments of `builder`.
    pub(crate) fn start(
        builder: Arc<SegmentBuilder>,
        store: Store,
        metastore: Arc<dyn rpc::SegmentHints>,
        clock: Clock,
        pool: Pool,
        metrics: Metrics,
    ) -> FlusherStatus {
        let (acks, to_acknowledge) = mpsc::unbounded_channel();
        let (stopped, on_stop) = watch::channel(false);
        let log = new_log(&store, &clock);
        let (writers, on_writers) = watch::channel(vec![log.writer()]);
        let failures = Mutex::default();
        let shared = Arc::new(FlushState { store, clock, pool, metrics, failures });
        let acknowledger = Acknowledger {
            shared: shared.clone(),
            metastore,
            underway: Arc::new(Semaphore::new(HINTS_MAX)),
            timeouts: 0,
            silent_until: Duration::ZERO,
        };
        let acknowledged = shared.clock.spawn_vital("acknowledger", acknowledger.run(to_acknowledge));
        let uploads = FuturesUnordered::new();
        let flusher = Self { shared: shared.clone(), builder, log, uploads, acks, writers };
        shared.clock.spawn_vital("flusher", async move {
            flusher.run().await;
            // The flusher's end of the channel is dropped, so the acknowledger ends after the last ack.
            let _ = acknowledged.await;
            stopped.send_replace(true);
        });
        FlusherStatus { stopped: on_stop, writers: on_writers }
    }

    async fn run(mut self) {
        let mut is_drained = false;
        loop {
            let has_room = self.log.in_flight() < SLOTS_IN_FLIGHT_MAX;
            let is_quiet = self.uploads.is_empty();
            tokio::select! {
                biased;
                Some((slot, outcome)) = self.uploads.next() => self.settle(slot, outcome),
                next = self.builder.next_segment(is_quiet), if has_room && !is_drained => match next {
                    NextSegment::Segment(segment) => self.flush(segment),
                    NextSegment::Drained => is_drained = true,
                },
                else => break,
            }
        }
        self.shared.seal(self.log.writer(), self.log.next_slot()).await;
        self.writers.send_replace(Vec::new());
    }

    fn flush(&mut self, cut: OpenSegment) {
        let now = self.shared.clock.monotonic();
        if self.log.is_idle_since(now, LOG_IDLE_MAX) {
            self.leave_idle_log();
        }
        let OpenSegment { content, status, charge, .. } = cut;
        self.upload(Segment { content, status, _charge: charge, moves: 0 });
    }

    /// Opens a new log; returns the previous one.
    fn open_log(&mut self) -> Log<Segment, SegmentHint> {
        let left = std::mem::replace(&mut self.log, new_log(&self.shared.store, &self.shared.clock));
        self.writers.send_replace(vec![self.log.writer()]);
        left
    }

    fn leave_idle_log(&mut self) {
        let left = self.open_log();
        let shared = self.shared.clone();
        self.shared.clock.spawn(async move { shared.seal(left.writer(), left.next_slot()).await });
    }

    fn upload(&mut self, segment: Segment) {
        let (shared, content, writer) = (self.shared.clone(), segment.content.clone(), self.log.writer());
        let slot = self.log.take(segment);
        self.uploads.push(Box::pin(async move {
            let outcome = shared.upload(content, writer, slot).await;
            (slot, outcome)
        }));
    }

    fn settle(&mut self, slot: u64, outcome: UploadOutcome) {
        match outcome {
            UploadOutcome::Durable(hint) => {
                let now = self.shared.clock.monotonic();
                for segment in self.log.durable(slot, hint, now) {
                    // The receiver lives as long as this sender.
                    let _ = self.acks.send(segment);
                }
            }
            UploadOutcome::Lost => {
                for (_, segment) in self.abandon("lost_slot") {
                    self.move_on(segment);
                }
            }
            UploadOutcome::Unencodable(reason) => {
                // The slot stays a gap, so the segments above it need another log.
                for (other, segment) in self.abandon("unencodable") {
                    if other == slot {
                        segment.fail(Error::Encode(reason.clone()));
                    } else {
                        self.upload(segment);
                    }
                }
            }
            UploadOutcome::Doubtful(error) => {
                for (_, segment) in self.abandon("doubt") {
                    segment.fail(error.clone());
                }
            }
            UploadOutcome::Refused(error) => {
                for (_, segment) in self.abandon("refused") {
                    segment.fail(error.clone());
                }
            }
        }
    }

    /// Stops every upload to the log, and opens another one. Returns the unacknowledged segments with their slots.
    fn abandon(&mut self, reason: &'static str) -> Vec<(u64, Segment)> {
        self.uploads.clear();
        let left = self.open_log();
        self.shared.metrics.abandoned(reason);
        let (log, next, slots) = (left.writer(), self.log.writer(), left.next_slot());
        match reason {
            // The refusing store is reported once (`Shared::failed`), not each push that it refuses.
            "refused" => tracing::debug!(%log, reason, slots, %next, "abandoned log"),
            _ => tracing::warn!(%log, reason, slots, %next, "abandoned log"),
        }
        left.abandon()
    }

    fn move_on(&mut self, mut segment: Segment) {
        segment.moves += 1;
        if segment.moves > MOVES_MAX {
            segment.fail(Error::Displaced { logs: segment.moves });
        } else {
            self.upload(segment);
        }
    }
}

impl Segment {
    fn fail(&self, error: Error) {
        self.status.send_replace(SegmentStatus::Failed(error));
    }
}

fn new_log<S, D>(store: &Store, clock: &Clock) -> Log<S, D> {
    Log::open(WriterId(store.new_id(clock)), clock.monotonic())
}

impl FlushState {
    /// Encodes the segment for one slot, puts it there, and settles whether it arrived.
    async fn upload(&self, content: Arc<SegmentContent>, log: WriterId, slot: u64) -> UploadOutcome {
        let encoding = self.clock.monotonic();
        let origin = Origin::Segment { writer: log, seq: slot };
        let created_millis = self.clock.unix_millis();
        let encoded = self.pool.run(move || content.encode(origin, created_millis)).await;
        let EncodedObject { bytes, directory } = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::error!(%log, slot, %error, "cannot encode segment");
                return UploadOutcome::Unencodable(error.to_string());
            }
        };
        let began = self.clock.monotonic();
        self.metrics.stage(Stage::encode, began.saturating_sub(encoding));
        self.metrics.segment_bytes.observe(bytes.len() as f64);
        self.metrics.segment_items.observe(directory.keys.len() as f64);
        let hint = SegmentHint { writer: log, seq: slot, bytes: bytes.len() as u64, directory };
        let settled = self.clock.timeout(SETTLE_LIMIT, self.settle(log, slot, bytes)).await;
        let took = self.clock.monotonic().saturating_sub(began);
        self.metrics.stage(Stage::put, took);
        match settled {
            None => {
                let cause = self.failures.lock().cause.clone().unwrap_or_else(|| "no answer".to_owned());
                UploadOutcome::Doubtful(Error::Unsettled { log, slot, limit: SETTLE_LIMIT, cause })
            }
            // Even `Mine` proves nothing by now: the log may have been closed, read and forgotten.
            Some(_) if took > SUSPENSION_LIMIT => {
                UploadOutcome::Doubtful(Error::Suspended { log, slot, took, limit: SUSPENSION_LIMIT })
            }
            Some(Ok(CreateOutcome::Mine)) => UploadOutcome::Durable(hint),
            Some(Ok(CreateOutcome::Other)) => UploadOutcome::Lost,
            Some(Err(error)) => UploadOutcome::Refused(Error::Refused { cause: error.to_string() }),
        }
    }

    /// Repeats the create until the store answers, or refuses it with an error that does not pass soon.
    async fn settle(&self, log: WriterId, slot: u64, bytes: Bytes) -> Result<CreateOutcome, storage::Error> {
        let key = Key::log_slot(log, slot);
        loop {
            match self.store.settle_create(&key, bytes.clone()).await {
                Ok(created) => {
                    self.succeeded();
                    return Ok(created);
                }
                Err(error) => {
                    self.failed(&error);
                    if !error.may_pass() {
                        return Err(error);
                    }
                }
            }
            self.clock.sleep(SETTLE_PAUSE).await;
        }
    }

    fn failed(&self, error: &storage::Error) {
        let now = self.clock.monotonic();
        let mut failures = self.failures.lock();
        failures.count += 1;
        failures.cause = Some(error.to_string());
        if failures.reported.is_none_or(|time| now.saturating_sub(time) >= REPORT_INTERVAL) {
            failures.reported = Some(now);
            tracing::warn!(%error, failures = failures.count, "the store takes no segments: pushes fail");
        }
    }

    fn succeeded(&self) {
        let failures = std::mem::take(&mut *self.failures.lock());
        if failures.count > 0 {
            tracing::info!(failures = failures.count, "the store takes segments again");
        }
    }

    /// Closes a log whose every slot below `slot` is durable, so that no reader waits for more slots. Without the
    /// seal, the consumer of the log closes it, later.
    async fn seal(&self, log: WriterId, slot: u64) {
        if slot == 0 {
            return;
        }
        let seal = Seal { writer: log, seq: slot, created_millis: self.clock.unix_millis() };
        let settled = self.clock.timeout(SETTLE_LIMIT, self.settle(log, slot, seal.encode())).await;
        let reason = match settled {
            Some(Ok(_)) => return,
            Some(Err(error)) => error.to_string(),
            None => format!("the store did not settle it within {SETTLE_LIMIT:?}"),
        };
        tracing::warn!(%log, slot, reason, "left a log without a seal");
    }
}

/// Sends the hint to the metastore, then the ack to the pushers, segment by segment in slot order.
struct Acknowledger {
    shared: Arc<FlushState>,
    metastore: Arc<dyn rpc::SegmentHints>,
    /// Hints without an answer.
    underway: Arc<Semaphore>,
    /// Hints in a row that were not answered in time.
    timeouts: u32,
    /// Until this monotonic time, acks do not wait for answers.
    silent_until: Duration,
}

impl Acknowledger {
    async fn run(mut self, mut durable: mpsc::UnboundedReceiver<(Segment, SegmentHint)>) {
        while let Some((segment, hint)) = durable.recv().await {
            if !self.hint(hint).await {
                self.shared.metrics.unheard_hints.inc();
            }
            segment.status.send_replace(SegmentStatus::Durable);
        }
    }

    /// Returns whether the metastore confirmed in time that it knows the segment.
    async fn hint(&mut self, hint: SegmentHint) -> bool {
        let clock = self.shared.clock.clone();
        let Ok(permit) = self.underway.clone().try_acquire_owned() else {
            return false;
        };
        let began = clock.monotonic();
        let (metastore, lifetime) = (self.metastore.clone(), clock.clone());
        // In a separate task, so that the hint goes on when the ack stops waiting for it.
        let answer = clock.spawn(async move {
            let _permit = permit;
            lifetime.timeout(HINT_LIFE, metastore.segment_written(hint)).await
        });
        if began < self.silent_until {
            return false;
        }
        let answer = clock.timeout(HINT_WAIT, answer).await;
        let now = clock.monotonic();
        self.shared.metrics.stage(Stage::hint, now.saturating_sub(began));
        // No answer: not within the wait, not within the hint's life, or the task ended early.
        match answer.and_then(Result::ok).flatten() {
            Some(Ok(())) => {
                self.timeouts = 0;
                true
            }
            Some(Err(error)) => {
                self.timeouts = 0;
                tracing::debug!(%error, "metastore refused a hint");
                false
            }
            None => {
                self.timeouts += 1;
                if self.timeouts >= HINT_TIMEOUTS_MAX {
                    self.timeouts = 0;
                    self.silent_until = now + HINT_SILENCE;
                    tracing::warn!("metastore does not answer hints; acks do not wait for it for a while");
                }
                false
            }
        }
    }
}
