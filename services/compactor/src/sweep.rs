//! Deletes the objects that the metastore lists as dead.
//!
//! The object goes first, then its row: deleting twice is harmless, a forgotten object would stay for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use rpc::DeadObject;
use storage::Key;
use tracing::{debug, warn};

use crate::Compactor;

/// Most objects deleted in one round.
const ROUND_MAX: usize = 200;
/// Most deletes in parallel, so that they never crowd out reads.
const OBJECTS_AT_ONCE: usize = 8;
const ROUND_PAUSE: Duration = Duration::from_secs(1);

impl Compactor {
    pub(crate) async fn keep_sweeping(&self) {
        let mut pause = self.config.sweep_interval.get();
        while self.pause(pause).await {
            let is_full = self.sweep().await;
            pause = if is_full { ROUND_PAUSE } else { self.config.sweep_interval.get() };
        }
    }

    /// Deletes one round of objects; returns whether there may be more.
    async fn sweep(&self) -> bool {
        let dead = match self.metastore.sweepable(ROUND_MAX).await {
            Ok(dead) => dead,
            Err(error) => {
                warn!(%error, "cannot list dead objects");
                return false;
            }
        };
        let is_full = dead.len() == ROUND_MAX;
        // Without permission to delete, the store would refuse the rest of the round as well.
        let is_denied = AtomicBool::new(false);
        let deleted: Vec<Option<Key>> = stream::iter(dead)
            .map(|object| self.delete(object, &is_denied))
            .buffer_unordered(OBJECTS_AT_ONCE)
            .collect()
            .await;
        let deleted: Vec<Key> = deleted.into_iter().flatten().collect();
        if deleted.is_empty() {
            return false;
        }
        debug!(objects = deleted.len(), "deleted dead objects");
        self.metrics.objects_deleted.inc_by(deleted.len() as u64);
        if let Err(error) = self.metastore.swept(deleted).await {
            warn!(%error, "cannot report deleted objects, they will be deleted again");
        }
        is_full
    }

    async fn delete(&self, object: DeadObject, is_denied: &AtomicBool) -> Option<Key> {
        if is_denied.load(Ordering::Relaxed) {
            return None;
        }
        match self.store.delete(&object.key).await {
            Ok(()) => Some(object.key),
            Err(error) if error.is_denied() => {
                if !is_denied.swap(true, Ordering::Relaxed) {
                    warn!(%error, "dead objects cannot be deleted and wait");
                }
                None
            }
            Err(error) => {
                warn!(key = %object.key, %error, "cannot delete a dead object, trying again later");
                None
            }
        }
    }
}
