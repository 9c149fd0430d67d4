//! Why a push is not acknowledged, with the kind of each error and its reason in metrics.

use std::time::Duration;

use memory::OverBudget;
use rpc::ErrorKind;

/// Why a push was not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("push holds {bytes} bytes, limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("pushes that wait for the store hold {used} of {limit} bytes, this one needs {bytes}")]
    OverBudget { bytes: usize, used: usize, limit: usize, retry_after: Duration },
    #[error("ingester is shutting down")]
    Draining,
    #[error("slot {slot} of log {log} was not settled by the store within {limit:?}: {cause}")]
    Unsettled { log: model::WriterId, slot: u64, limit: Duration, cause: String },
    #[error("segment cannot be stored: {cause}")]
    Refused { cause: String },
    #[error("slot {slot} of log {log} took {took:?} of this machine's time, limit is {limit:?}")]
    Suspended { log: model::WriterId, slot: u64, took: Duration, limit: Duration },
    #[error("segment lost its slot in {logs} logs, one after the other")]
    Displaced { logs: u32 },
    #[error("segment cannot be encoded: {0}")]
    Encode(String),
    #[error("ingester stopped before the segment was durable")]
    Stopped,
}

impl Error {
    /// A push that can never fit is not to be repeated.
    pub(crate) fn over_budget(over: OverBudget, retry_after: Duration) -> Self {
        let OverBudget { wanted: bytes, held: used, limit, .. } = over;
        match bytes > limit {
            true => Self::TooLarge { bytes, limit },
            false => Self::OverBudget { bytes, used, limit, retry_after },
        }
    }

    /// The value of label `reason` in metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::OverBudget { .. } => "over_budget",
            Self::Draining => "draining",
            Self::Unsettled { .. } => "unsettled",
            Self::Refused { .. } => "refused_by_store",
            Self::Suspended { .. } => "suspended",
            Self::Displaced { .. } => "displaced",
            Self::Encode(_) => "unencodable",
            Self::Stopped => "stopped",
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::InvalidArgument,
            Self::OverBudget { retry_after, .. } => ErrorKind::Exhausted { retry_after: *retry_after },
            Self::Encode(_) => ErrorKind::Internal,
            Self::Draining
            | Self::Unsettled { .. }
            | Self::Refused { .. }
            | Self::Suspended { .. }
            | Self::Displaced { .. }
            | Self::Stopped => ErrorKind::Unavailable,
        }
    }
}

impl From<Error> for rpc::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
