use async_trait::async_trait;
use query::{Partial, Query};

use crate::{Error, Found};

/// Scans objects for a part of an answer.
#[async_trait]
pub trait Leaf: Send + Sync {
    /// The mergeable answer of `objects`, masks applied.
    ///
    /// # Errors
    /// `NotFound` if an object is gone: the snapshot is too old, ask for a new one.
    async fn scan(&self, request: ScanRequest) -> Result<Partial, Error>;
}

pub struct ScanRequest {
    pub query: Query,
    /// Objects of one snapshot.
    pub objects: Vec<Found>,
}
