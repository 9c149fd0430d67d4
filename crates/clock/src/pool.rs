//! Threads for work that computes.
//!
//! Owns: the queue, the threads, and the hooks between pieces of work. Does not own: the number of threads, the work.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Time without work after which a thread is idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Interval at which an idle thread calls its hook again: other threads may have freed memory that it allocated.
const IDLE_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// Work that takes this long counts as long: it may have left much free memory behind.
const LONG_WORK: Duration = Duration::from_millis(2);

/// Functions that threads of a pool call between pieces of work, for example to give memory back.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// After a piece of work that took 2 ms or more.
    pub after_long_work: fn(),
    /// After a second without work, and then every 15 s.
    pub on_idle: fn(),
}

impl Hooks {
    /// Hooks that do nothing.
    pub const NONE: Self = Self { after_long_work: || (), on_idle: || () };
}

/// A bounded number of threads for work that computes instead of waiting: decoding, encoding, scanning. Such work never
/// runs on the threads that serve connections. Cheap to clone.
///
/// The threads belong to the pool and live as long as it. Few threads, because the allocator keeps free memory per
/// thread: work spread over many threads leaves free memory on each.
#[derive(Clone)]
pub struct Pool {
    /// `None`: run inline, for simulations.
    queue: Option<Arc<Sender>>,
}

/// The pools of one process. A piece of a query may compute for a second, so pushes have threads of their own
/// instead of queueing behind it; the system divides the cores among all threads.
#[derive(Clone)]
pub struct Pools {
    /// For pushes, and for messages between roles: short work that a client waits for.
    pub pushes: Pool,
    /// For queries, merges and all other work.
    pub queries: Pool,
}

impl Pools {
    /// Two pools of `threads` each.
    pub fn new(threads: usize, hooks: Hooks) -> Self {
        let pool = |name| Pool::with_hooks(name, threads, hooks);
        Self { pushes: pool("push"), queries: pool("pool") }
    }

    /// Runs work where it is called.
    pub fn inline() -> Self {
        Self { pushes: Pool::inline(), queries: Pool::inline() }
    }
}

/// Closes the queue when the last clone of its pool is dropped.
struct Sender(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    is_closed: bool,
}

impl Pool {
    /// Runs at most `threads` pieces of work at once; more wait in order of arrival.
    pub fn new(threads: usize) -> Self {
        Self::with_hooks("pool", threads, Hooks::NONE)
    }

    /// As [`Self::new`], with threads whose names begin with `name`, and hooks.
    pub fn with_hooks(name: &str, threads: usize, hooks: Hooks) -> Self {
        let queue = Arc::new(Queue::default());
        let started = (0..threads.max(1)).filter(|number| {
            let queue = queue.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || work_off(&queue, hooks)).is_ok()
        });
        // Without any thread, work runs on the threads that serve.
        let any = started.count() > 0;
        Self { queue: any.then(|| Arc::new(Sender(queue))) }
    }

    /// Runs work where it is called.
    pub fn inline() -> Self {
        Self { queue: None }
    }

    /// Runs `work` and returns its result. A panic of `work` resumes in the caller. Dropping the future cancels work
    /// that has not begun.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(queue) = &self.queue else {
            return work();
        };
        let (done, result) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        queue.0.push(Box::new(move || {
            if done.is_closed() {
                return;
            }
            let _entered = runtime.as_ref().map(Handle::enter);
            // The caller may have dropped its future.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        }));
        let outcome = result.await;
        match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            // Not reached: the threads work off the whole queue, and send every result that is awaited.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, work: Work) {
        self.lock().waiting.push_back(work);
        self.changed.notify_one();
    }

    /// The next piece of work; `None` once the queue is closed and empty.
    fn next(&self, on_idle: fn()) -> Option<Work> {
        let mut state = self.lock();
        let mut is_idle = false;
        loop {
            if let Some(work) = state.waiting.pop_front() {
                return Some(work);
            }
            if state.is_closed {
                return None;
            }
            let time = if is_idle { IDLE_AGAIN_AFTER } else { IDLE_AFTER };
            let waited = self.changed.wait_timeout(state, time);
            let (relocked, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = relocked;
            if waited.timed_out() && state.waiting.is_empty() {
                is_idle = true;
                drop(state);
                on_idle();
                state = self.lock();
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

/// Runs work until the queue is closed and empty.
#[allow(
    clippy::disallowed_methods,
    reason = "a simulation has no threads, so this need not be a simulated clock"
)]
fn work_off(queue: &Queue, hooks: Hooks) {
    while let Some(work) = queue.next(hooks.on_idle) {
        let began = Instant::now();
        work();
        if began.elapsed() >= LONG_WORK {
            (hooks.after_long_work)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn work_returns_its_result() {
        assert_eq!(Pool::new(1).run(|| 7).await, 7);
        assert_eq!(Pool::inline().run(|| 8).await, 8);
    }

    #[tokio::test]
    async fn a_panic_resumes_in_the_caller_and_the_thread_continues() {
        let pool = Pool::new(1);
        let panicking = AssertUnwindSafe(pool.run(|| panic!("of the work")));
        assert!(panicking.catch_unwind().await.is_err());
        assert_eq!(pool.run(|| 7).await, 7);
    }

    #[tokio::test]
    async fn the_idle_hook_is_called_once_a_thread_is_idle() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static IDLE: AtomicUsize = AtomicUsize::new(0);
        let on_idle = || _ = IDLE.fetch_add(1, Ordering::SeqCst);
        let pool = Pool::with_hooks("pool", 1, Hooks { on_idle, ..Hooks::NONE });
        for times in 1..3 {
            assert_eq!(pool.run(|| 7).await, 7);
            while IDLE.load(Ordering::SeqCst) < times {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(pool.run(|| IDLE.load(Ordering::SeqCst)).await, 2);
    }

    #[tokio::test]
    async fn the_hook_for_long_work_is_called_after_it() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let after_long_work = || _ = CALLS.fetch_add(1, Ordering::SeqCst);
        let pool = Pool::with_hooks("pool", 1, Hooks { after_long_work, ..Hooks::NONE });
        pool.run(|| std::thread::sleep(LONG_WORK)).await;
        assert_eq!(pool.run(|| CALLS.load(Ordering::SeqCst)).await, 1);
    }

    #[tokio::test]
    async fn dropping_the_future_cancels_work_that_has_not_begun() {
        let pool = Pool::new(1);
        let (release, released) = channel::<()>();
        let mut first = Box::pin(pool.run(move || released.recv().is_ok()));
        assert!(poll_once(first.as_mut()).await.is_none());
        let (began, beginning) = channel();
        let mut dropped = Box::pin(pool.run(move || began.send(())));
        assert!(poll_once(dropped.as_mut()).await.is_none());
        drop(dropped);
        release.send(()).expect("waits");
        assert!(first.await);
        pool.run(|| ()).await;
        assert!(beginning.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_future_that_is_not_polled_does_not_block_others() {
        let pool = Pool::new(1);
        let mut idle = Box::pin(pool.run(|| 1));
        let first = poll_once(idle.as_mut()).await;
        assert_eq!(first, None);
        assert_eq!(pool.run(|| 2).await, 2);
        assert_eq!(pool.run(|| 3).await, 3);
        assert_eq!(idle.await, 1);
    }

    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
