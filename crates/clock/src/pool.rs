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
        Self {
            permits: Some(Arc::new(Semaphore::new(threads.max(1)))),
        }
    }

    /// Runs work where it is called.
    pub fn inline() -> Self {
        Self { permits: None }
    }

    /// Runs `work` and gives its result. A panic inside it goes on in the caller.
    #[allow(clippy::disallowed_methods)]
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(permits) = &self.permits else {
            return work();
        };
        let permit = permits.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match done.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels blocking work; nobody waits for it then.
                Err(_) => std::future::pending().await,
            },
        }
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
}
