use std::sync::Arc;

use tokio::sync::Semaphore;

/// A bounded number of threads for work that computes instead of waiting: decoding, encoding,
/// scanning. Such work never runs on the threads that serve connections. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    /// Absent: run inline, for simulations.
    permits: Option<Arc<Semaphore>>,
}

impl Pool {
    /// At most `threads` pieces of work at once; more wait in the order they came.
    pub fn new(threads: usize) -> Self {
        Self { permits: Some(Arc::new(Semaphore::new(threads.max(1)))) }
    }

    /// Runs work where it is called.
    pub fn inline() -> Self {
        Self { permits: None }
    }

    /// Runs `work` and gives its result. A panic inside it goes on in the caller. Dropping the future
    /// takes back work that has not begun.
    ///
    /// Waiting for a turn is a task of its own: were it part of the caller's future, a turn could be
    /// given to a future that nobody polls at that moment, and with it the whole pool would stand still.
    #[allow(clippy::disallowed_methods)]
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(permits) = self.permits.clone() else {
            return work();
        };
        let turn = tokio::spawn(async move {
            let permit = permits.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work()
            })
            .await
        });
        let mut turn = AbortOnDrop(turn);
        match (&mut turn.0).await.and_then(|done| done) {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels work that somebody waits for.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_gives_its_result() {
        assert_eq!(Pool::new(1).run(|| 7).await, 7);
        assert_eq!(Pool::inline().run(|| 8).await, 8);
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
