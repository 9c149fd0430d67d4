//! Time, sleep, randomness and spawning, behind one handle that a simulation can replace.
//!
//! No other crate of the workspace may read a clock or draw a random number (`clippy.toml`).

mod pool;
mod task;

pub use pool::{Hooks, Pool, Pools};
pub use task::{Task, TaskEnded};

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::error;

/// A handle to time and randomness; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Source>);

/// One moment, in both times of a [`Clock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For durations and deadlines within this process.
    pub monotonic: Duration,
    /// For times that are stored or shown; may jump.
    pub unix_millis: i64,
}

/// The implementation of a clock.
#[async_trait]
pub trait Source: Send + Sync {
    /// Unix time; may jump.
    fn unix(&self) -> Duration;
    /// Time since a fixed moment of this process, suspended time included; never goes back.
    fn monotonic(&self) -> Duration;
    async fn sleep(&self, duration: Duration);
    fn random(&self) -> u128;

    /// Runs `task` to its end, independent of the caller.
    #[allow(clippy::disallowed_methods, reason = "the clock is the only spawner")]
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    /// Ends the process because a vital task has panicked. `report` logs the reason; it may hang or panic.
    fn exit(&self, report: Box<dyn FnOnce() + Send>) {
        end_process(report);
    }
}

/// Exit code of a process whose vital task has panicked.
const EXIT_PANICKED: i32 = 70;
/// Maximum time that the last report may delay the end of the process.
const REPORT_TIME: Duration = Duration::from_secs(2);

/// Ends the process within [`REPORT_TIME`]. `report` runs in a thread of its own, where it may panic, or hang on a log
/// without a reader.
fn end_process(report: impl FnOnce() + Send + 'static) -> ! {
    let (reporting, reported) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::Builder::new().name("last report".into()).spawn(move || {
        let _dropped_with_the_report = reporting;
        report();
    });
    if thread.is_ok() {
        let _ = reported.recv_timeout(REPORT_TIME);
    }
    std::process::exit(EXIT_PANICKED);
}

impl Clock {
    /// The machine's clock and random numbers.
    pub fn system() -> Self {
        Self::system_with(|| {})
    }

    /// As [`Self::system`]. When a vital task ends the process, `flush` is called after the last report, to write out
    /// the log; the process ends within seconds even if `flush` hangs or panics.
    pub fn system_with(flush: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(System { flush: Arc::new(flush) }))
    }

    pub fn new(source: impl Source + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// Now, in Unix nanoseconds.
    pub fn unix_nanos(&self) -> i64 {
        self.0.unix().as_nanos() as i64
    }

    /// Now, in Unix milliseconds.
    pub fn unix_millis(&self) -> i64 {
        self.0.unix().as_millis() as i64
    }

    /// Time for measuring durations; never goes back, and counts suspended time.
    pub fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    /// Both times of this moment.
    pub fn now(&self) -> Now {
        Now { monotonic: self.monotonic(), unix_millis: self.unix_millis() }
    }

    pub async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }

    /// 128 random bits, for new ids.
    pub fn random(&self) -> u128 {
        self.0.random()
    }

    /// Starts a task; dropping the handle does not stop it.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let (task, running) = Task::new(task);
        self.0.spawn(Box::pin(running));
        task
    }

    /// Starts a vital task: if it panics, the process ends instead of running on without it. No acknowledged data are
    /// lost by that, and a supervisor starts the process again.
    pub fn spawn_vital<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let clock = self.clone();
        self.spawn(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(output) => output,
                Err(_) => {
                    clock.0.exit(Box::new(move || {
                        error!(task = name, "a vital task has panicked: exiting");
                    }));
                    std::future::pending().await
                }
            }
        })
    }

    /// Runs `future` for at most `limit`; `None` if it took longer.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(limit) => None,
        }
    }
}

struct System {
    flush: Arc<dyn Fn() + Send + Sync>,
}

#[async_trait]
impl Source for System {
    fn exit(&self, report: Box<dyn FnOnce() + Send>) {
        let flush = self.flush.clone();
        end_process(move || {
            report();
            flush();
        });
    }

    #[allow(clippy::disallowed_methods, reason = "the only reader of the system's time")]
    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        // CLOCK_BOOTTIME, unlike `Instant`, advances while the machine is suspended: a writer that was
        // suspended must notice that its put is old.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[allow(clippy::disallowed_methods, reason = "the only sleeper")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[allow(clippy::disallowed_methods, reason = "the only source of randomness")]
    fn random(&self) -> u128 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timeout_ends_a_future_that_takes_too_long() {
        let clock = Clock::system();
        let never = std::future::pending::<()>();
        assert_eq!(clock.timeout(Duration::from_millis(1), never).await, None);
        assert_eq!(clock.timeout(Duration::from_secs(5), async { 7 }).await, Some(7));
    }

    #[test]
    fn ids_differ() {
        let clock = Clock::system();
        assert_ne!(clock.random(), clock.random());
    }
}
