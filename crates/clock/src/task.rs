use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::AbortHandle;
use tokio::sync::oneshot;

/// A task that runs on its own; gives its result. Dropping it does not stop the task.
#[derive(Debug)]
pub struct Task<T> {
    result: oneshot::Receiver<T>,
    abort: AbortHandle,
    ended: Arc<AtomicBool>,
}

/// A task was stopped, or has panicked, before it had a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a task ended without a result")]
pub struct Cut;

impl<T: Send + 'static> Task<T> {
    /// The task, and the future that somebody has to run for it.
    pub(crate) fn of(
        future: impl Future<Output = T> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (done, result) = oneshot::channel();
        let (future, abort) = futures::future::abortable(future);
        let ended = Arc::new(AtomicBool::new(false));
        let on_end = SetOnDrop(ended.clone());
        let running = async move {
            let _on_end = on_end;
            if let Ok(output) = future.await {
                // Whoever asked may have gone away.
                let _ = done.send(output);
            }
        };
        (Self { result, abort, ended }, running)
    }
}

impl<T> Task<T> {
    /// Stops the task at the next moment that it waits.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Whether it has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Cut>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(context).map_err(|_| Cut)
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
