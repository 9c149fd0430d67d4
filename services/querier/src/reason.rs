//! Errors of reading, merging and memory as `rpc::Error`s, and the reasons that an answer names.
//!
//! The source of an error stays in it: [`refusal_of`] finds a refusal of memory there.

use memory::Refusal;
use query::MergeError;
use rpc::{Error, ErrorKind};
use storage::Key;

/// The error of a read of an object.
pub(crate) fn unreadable(error: block::Error) -> Error {
    let kind = match &error {
        block::Error::Storage(storage::Error::NotFound(_)) => ErrorKind::NotFound,
        // A leaf of a newer release may be able to read it.
        block::Error::Storage(_) | block::Error::Version { .. } => ErrorKind::Unavailable,
        block::Error::Memory { refusal, .. } => ErrorKind::of_memory(refusal),
        _ => ErrorKind::Corrupt,
    };
    Error::with_source(kind, error.to_string(), error)
}

pub(crate) fn is_damaged<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(error) if error.kind == ErrorKind::Corrupt)
}

/// Why an object cannot be read, as text beside its key.
pub(crate) fn reason(key: &Key, error: &Error) -> String {
    let named = format!("object {key}");
    let text = model::with_causes(error);
    let rest = text.strip_prefix(&named).and_then(|rest| rest.strip_prefix(": "));
    rest.map_or_else(|| text.replace(&named, "it"), str::to_owned)
}

pub(crate) fn too_large(error: query::TooLarge) -> Error {
    Error::with_source(ErrorKind::InvalidArgument, error.to_string(), error)
}

pub(crate) fn unmergeable(error: MergeError) -> Error {
    match error {
        MergeError::TooLarge(error) => too_large(error),
        MergeError::Memory(refusal) => no_memory(&refusal),
    }
}

/// The error of a query that is refused for lack of memory.
pub(crate) fn no_memory(refusal: &Refusal) -> Error {
    let text = format!("the query {refusal}; ask for a shorter time range or fewer series");
    Error::with_source(ErrorKind::of_memory(refusal), text, refusal.clone())
}

/// The refusal of memory that caused `error`, if this process refused it.
pub(crate) fn refusal_of(error: &Error) -> Option<&Refusal> {
    let source = std::error::Error::source(error)?;
    let of_block = source.downcast_ref().and_then(|error| match error {
        block::Error::Memory { refusal, .. } => Some(refusal),
        _ => None,
    });
    source.downcast_ref().or(of_block)
}
