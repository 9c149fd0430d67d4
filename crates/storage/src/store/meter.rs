//! One request to the store: its time limit, its metrics, its error.
//!
//! Owns: time limits, one count per request, also of a cancelled one.
//! Does not own: sending a request again (`retry`) or twice (`hedge`).

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;

use crate::error::Failure;
use crate::metrics::{Operation, Outcome};
use crate::{Error, Key, Metrics};

/// Longest attempt of a create; one more second is added for every [`BYTES_PER_SECOND_MIN`] bytes.
pub(super) const CREATE_TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// For whole objects and listings, whose length is not known beforehand.
pub(super) const UNSIZED_TIMEOUT: Duration = Duration::from_secs(120);
const BYTES_PER_SECOND_MIN: u64 = 2 << 20;

/// Sends requests to one store.
#[derive(Clone)]
pub(super) struct Meter {
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// The store in messages: `s3://bucket/prefix at host:port`.
    pub(super) place: Arc<str>,
}

impl Meter {
    /// Runs one request, which returns a value and the number of bytes moved. Counts it whatever the outcome.
    pub(super) async fn request<T>(
        &self,
        key: &Key,
        operation: Operation,
        limit: Duration,
        request: impl Future<Output = Result<(T, u64), Failure>>,
    ) -> Result<T, Error> {
        let began = self.clock.monotonic();
        let mut running = Running { meter: self, key, operation, began, is_over: false };
        match self.clock.timeout(limit, request).await {
            Some(Ok((value, bytes))) => {
                running.end(Outcome::ok, bytes);
                Ok(value)
            }
            Some(Err(failure)) => {
                let (outcome, error) = failure.translate(&self.place, key, operation);
                running.end(outcome, 0);
                Err(error)
            }
            None => {
                running.end(Outcome::timeout, 0);
                Err(Error::Timeout { store: self.place.clone(), key: key.clone(), limit })
            }
        }
    }

    /// The response to `request`, which must begin within [`READ_TIMEOUT`]; its body may take longer.
    pub(super) async fn response<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let silence = || {
            let source = format!("no answer began within {READ_TIMEOUT:?}").into();
            object_store::Error::Generic { store: "bucket", source }
        };
        self.clock.timeout(READ_TIMEOUT, request).await.unwrap_or_else(|| Err(silence()))
    }
}

/// A request under way. Dropped before its end, it counts as cancelled.
struct Running<'a> {
    meter: &'a Meter,
    key: &'a Key,
    operation: Operation,
    began: Duration,
    is_over: bool,
}

impl Running<'_> {
    fn end(&mut self, outcome: Outcome, bytes: u64) {
        self.is_over = true;
        let took = self.meter.clock.monotonic().saturating_sub(self.began);
        self.meter.metrics.request(self.operation, self.key.as_str(), outcome, took, bytes);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Outcome::cancelled, 0);
        }
    }
}

/// Time limit of an attempt that moves `bytes`.
pub(super) fn time_for(base: Duration, bytes: u64) -> Duration {
    base + Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN)
}
