//! A spawned task, and the future of its result.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::AbortHandle;
use tokio::sync::oneshot;

/// A spawned task; awaiting it returns its result. Dropping it does not stop the task.
#[derive(Debug)]
pub struct Task<T> {
    result: oneshot::Receiver<T>,
    abort: AbortHandle,
    ended: Arc<AtomicBool>,
}

/// The task was stopped, or has panicked, before it had a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a task ended without a result")]
pub struct TaskEnded;

impl<T: Send + 'static> Task<T> {
    /// The handle, and the future that the executor has to run.
    pub(crate) fn new(
        future: impl Future<Output = T> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (done, result) = oneshot::channel();
        let (future, abort) = futures::future::abortable(future);
        let ended = Arc::new(AtomicBool::new(false));
        let on_end = SetOnDrop(ended.clone());
        let running = async move {
            let _on_end = on_end;
            if let Ok(output) = future.await {
                // The handle may have been dropped.
                let _ = done.send(output);
            }
        };
        (Self { result, abort, ended }, running)
    }
}

impl<T> Task<T> {
    /// Stops the task when it waits next.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Whether the task has ended, with a result, by a panic, or by [`Self::abort`].
    pub fn is_finished(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskEnded>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(context).map_err(|_| TaskEnded)
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
