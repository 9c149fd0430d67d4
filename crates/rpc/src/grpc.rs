//! The traits over a network: for each a client that is one, and a server around one.
//!
//! Owns: what messages look like (`proto/pyrograph`), that nothing of a question or an answer is lost on
//! the way, that nothing unchecked gets in, deadlines, how a failure arrives as the [`crate::Error`] that
//! it was.
//! Does not own: who the peers are, to which of them one turns, whether one asks again.
//!
//! Dropping the future of a call resets its stream, and the server drops what it does for it. A call
//! brings its deadline along, and ends at it whether the peer answers or not.

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

/// Largest message, in bytes, either way. What is larger has to be asked for in smaller pieces.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Messages up to so many bytes are converted where they are awaited: going to the pool and back would
/// take longer.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Why a message makes no sense.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{field} {what}")]
    Field { field: &'static str, what: String },
    #[error("{field} is {malformed}")]
    Columns { field: &'static str, malformed: block::codec::Malformed },
    #[error(transparent)]
    TooLarge(#[from] ::query::TooLarge),
}

impl Unreadable {
    fn new(field: &'static str, what: impl Into<String>) -> Self {
        Self::Field { field, what: what.into() }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }

    /// For columns that cannot be read.
    fn columns(field: &'static str) -> impl Fn(block::codec::Malformed) -> Self {
        move |malformed| Self::Columns { field, malformed }
    }
}
