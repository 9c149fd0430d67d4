//! The traits over gRPC: for each, a client that implements it and a server that wraps an implementation.
//!
//! Owns: the form of messages (`proto/pyrograph`), lossless conversion of queries and answers, checks of everything
//! that arrives, deadlines, transport of a failure as the same [`crate::Error`].
//! Does not own: who the peers are, which of them is called, retries.
//!
//! Dropping the future of a call resets its stream, and the server drops its work for the call. The deadline travels
//! with the call, which ends then whether the peer answers or not.

mod columns;
mod convert;
mod ingester;
mod leaf;
mod metastore;
mod partial;
mod peer;
mod profile;
mod query;
mod serve;
mod status;
#[cfg(test)]
mod tests;

pub use ingester::IngesterClient;
pub use leaf::LeafClient;
pub use metastore::MetastoreClient;
pub use peer::{Config, Peer};
pub use serve::{Services, serve};

/// Maximum size of a message, in bytes, in both directions. Larger answers must be requested in smaller pieces.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Messages up to this size are converted inline: a round trip to the pool costs more.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{field} {problem}")]
    Field { field: &'static str, problem: String },
    #[error("{field} is {malformed}")]
    Columns { field: &'static str, malformed: block::codec::Malformed },
    #[error(transparent)]
    TooLarge(#[from] ::query::TooLarge),
}

impl Unreadable {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }

    /// Makes the error for columns of `field` that cannot be read.
    fn columns(field: &'static str) -> impl Fn(block::codec::Malformed) -> Self {
        move |malformed| Self::Columns { field, malformed }
    }
}
