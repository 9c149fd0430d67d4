//! Errors of storage operations, and their translation from `object_store`.
//!
//! Owns: the public [`Error`], the [`Failure`] of one request.
//! Does not own: telling problems of a store apart, and their texts (`problem`).

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{Operation, Outcome};
use crate::{Key, Problem};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("object {0} does not exist")]
    NotFound(Key),
    #[error("{store} did not answer about object {key} within {limit:?}")]
    Timeout { store: Arc<str>, key: Key, limit: Duration },
    #[error("object {key} has {bytes} bytes, {wanted} were expected: it is cut off")]
    Short { key: Key, bytes: u64, wanted: u64 },
    #[error("storage failed at object {key} of {store}: {problem}")]
    Backend {
        store: Arc<str>,
        key: Key,
        problem: Problem,
        /// The error that `problem` was derived from.
        cause: Box<object_store::Error>,
    },
}

impl Error {
    /// Whether the credentials are valid but lack a permission, or a local directory does not permit the access.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Backend { problem: Problem::Denied { .. } | Problem::NotAllowed { .. }, .. })
    }

    /// Whether a local directory has no space left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Backend { problem: Problem::Full { .. }, .. })
    }

    /// Whether the same request may succeed if it is sent again soon.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Short { .. } => false,
            Self::Timeout { .. } => true,
            Self::Backend { problem, .. } => problem.may_pass(),
        }
    }

    /// Whether the cause may be a range beyond the end of the object, which stores report in many ways.
    pub(crate) fn may_be_short(&self) -> bool {
        matches!(
            self,
            Self::Short { .. }
                | Self::Backend { problem: Problem::Fault(_) | Problem::OutOfRange { .. }, .. }
        )
    }

    pub(crate) fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Backend { problem: Problem::OutOfRange { .. }, .. })
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Backend { cause, .. }
            if matches!(**cause, object_store::Error::AlreadyExists { .. }))
    }
}

/// Failure of one request, before it is translated.
pub(crate) enum Failure {
    Store(object_store::Error),
    /// The object has `bytes` bytes and ends before a requested range, which ends at `wanted`.
    CutOff {
        bytes: u64,
        wanted: u64,
    },
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// The outcome to count, and the error to return, if `operation` failed with this on `key`.
    pub(crate) fn translate(self, store: &Arc<str>, key: &Key, operation: Operation) -> (Outcome, Error) {
        let (store, key) = (store.clone(), key.clone());
        let cause = match self {
            Self::Store(object_store::Error::NotFound { .. }) => {
                return (Outcome::not_found, Error::NotFound(key));
            }
            Self::CutOff { bytes, wanted } => return (Outcome::error, Error::Short { key, bytes, wanted }),
            Self::Store(cause) => cause,
        };
        let problem = Problem::of(operation, &cause);
        let outcome = match (&cause, &problem) {
            (object_store::Error::AlreadyExists { .. }, _) => Outcome::exists,
            (_, Problem::Throttled { .. }) => Outcome::throttled,
            (_, Problem::Denied { .. } | Problem::NotAllowed { .. }) => Outcome::denied,
            _ => Outcome::error,
        };
        (outcome, Error::Backend { store, key, problem, cause: Box::new(cause) })
    }
}
