//! Sending a failed request again.
//!
//! Owns: how often, after which pause, within which budget.
//! Does not own: which errors may pass (`Error::may_pass`).

use std::time::Duration;

use clock::Clock;

use super::budget::Budget;
use crate::metrics::{Operation, Retry};
use crate::{Error, Metrics, Problem};

/// Attempts of a read, list or delete.
const ATTEMPTS: u32 = 4;
/// First pause between attempts; each further one is twice as long, and each is jittered.
const BACKOFF: Duration = Duration::from_millis(50);
/// The same for a store that asks for fewer requests.
const BACKOFF_THROTTLED: Duration = Duration::from_millis(400);
/// Longest pause granted to a store that asks for one: a caller is waiting.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

pub(super) struct Retries {
    budget: Budget,
    clock: Clock,
    metrics: Metrics,
}

impl Retries {
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Self {
        Self { budget: Budget::of_retries(), clock, metrics }
    }

    /// Runs `attempt` until it succeeds, or another attempt cannot help or is not allowed.
    pub(super) async fn repeat<T, F>(&self, operation: Operation, attempt: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempts = 0;
        self.earn();
        loop {
            match attempt().await {
                Err(error) if self.is_worth_another(operation, &error, attempts + 1) => {
                    attempts += 1;
                    self.back_off(attempts, &error).await;
                }
                settled => return settled,
            }
        }
    }

    /// Adds the share of one first attempt to the budget.
    pub(super) fn earn(&self) {
        self.budget.earn();
    }

    /// Whether a request that failed for the `attempt`th time is sent again; takes it from the budget.
    pub(super) fn is_worth_another(&self, operation: Operation, error: &Error, attempt: u32) -> bool {
        error.may_pass() && attempt < ATTEMPTS && self.spend(operation)
    }

    /// Whether the budget allows another attempt; takes it.
    pub(super) fn spend(&self, operation: Operation) -> bool {
        let is_allowed = self.budget.spend();
        self.metrics.retry(operation, if is_allowed { Retry::sent } else { Retry::over_budget });
        is_allowed
    }

    /// Sleeps after the `attempt`th attempt failed with `error`.
    pub(super) async fn back_off(&self, attempt: u32, error: &Error) {
        let (shortest, requested) = match error {
            Error::Backend { problem: Problem::Throttled { retry_after, .. }, .. } => {
                (BACKOFF_THROTTLED, retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
            }
            _ => (BACKOFF, Duration::ZERO),
        };
        let longest = shortest * (1 << (attempt - 1).min(6));
        // Between half and all of it, so that processes which failed together do not return together.
        let share = 0.5 + (self.clock.random() as u32 as f64) / (f64::from(u32::MAX) * 2.0);
        self.clock.sleep(requested + longest.mul_f64(share)).await;
    }
}
