use async_trait::async_trait;
use model::PushItem;

use crate::Error;

/// Makes profiles durable.
#[async_trait]
pub trait Ingester: Send + Sync {
    /// Returns once every item is durable, and, in normal operation, visible to the next find.
    ///
    /// # Errors
    /// `Exhausted` if the ingester holds as many bytes as it may. `Unavailable` if the store did not accept the segment:
    /// the items may or may not be durable, and pushing them again is safe because each key counts once.
    async fn push(&self, items: Vec<PushItem>) -> Result<(), Error>;
}
