use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// A bounded number of threads for work that computes instead of waiting: decoding, encoding,
/// scanning. Such work never runs on the threads that serve connections. Cheap to clone.
///
/// The threads are the pool's own and live as long as it. An allocator keeps memory per thread: work that
/// wanders over many threads leaves on each of them what it once needed.
#[derive(Clone)]
pub struct Pool {
    /// Absent: run inline, for simulations.
    queue: Option<Sender<Work>>,
}

impl Pool {
    /// At most `threads` pieces of work at once; more wait in the order they came.
    pub fn new(threads: usize) -> Self {
        let (queue, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let started = (0..threads.max(1)).filter(|number| {
            let waiting = waiting.clone();
            let thread = std::thread::Builder::new().name(format!("pool-{number}"));
            thread.spawn(move || work_off(&waiting)).is_ok()
        });
        // A system that gives no thread at all is left with those that serve.
        let any = started.count() > 0;
        Self { queue: any.then_some(queue) }
    }

    /// Runs work where it is called.
    pub fn inline() -> Self {
        Self { queue: None }
    }

    /// Runs `work` and gives its result. A panic inside it goes on in the caller. Dropping the future
    /// takes back work that has not begun.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(queue) = &self.queue else {
            return work();
        };
        let (done, result) = oneshot::channel();
        let runtime = Handle::try_current().ok();
        let queued = queue.send(Box::new(move || {
            if done.is_closed() {
                return;
            }
            let _entered = runtime.as_ref().map(Handle::enter);
            // Whoever waits may have gone away meanwhile.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        }));
        let outcome = match queued {
            Ok(()) => result.await,
            Err(_) => return std::future::pending().await,
        };
        match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            // The threads outlive the queue, and answer whoever waits.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Until the last pool of this queue is gone and nothing waits.
fn work_off(waiting: &Mutex<Receiver<Work>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn work_gives_its_result() {
        assert_eq!(Pool::new(1).run(|| 7).await, 7);
        assert_eq!(Pool::inline().run(|| 8).await, 8);
    }

    #[tokio::test]
    async fn a_panic_goes_on_in_the_caller_and_the_thread_works_on() {
        let pool = Pool::new(1);
        let panicking = AssertUnwindSafe(pool.run(|| panic!("of the work")));
        assert!(panicking.catch_unwind().await.is_err());
        assert_eq!(pool.run(|| 7).await, 7);
    }

    #[tokio::test]
    async fn work_that_has_not_begun_is_taken_back() {
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
    async fn a_future_that_nobody_polls_keeps_nobody_waiting() {
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
