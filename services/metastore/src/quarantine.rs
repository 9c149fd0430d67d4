//! Quarantines objects that a reader found damaged.

use std::sync::Arc;

use catalog::Batch;
use rpc::Error;
use storage::Key;
use tracing::error;

use crate::Metastore;
use crate::error::of_catalog;
use crate::jobs::leave_job;

impl Metastore {
    pub(crate) async fn set_aside(self: Arc<Self>, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        // A segment's first row, committed later, would replace the row that says it is quarantined.
        self.commit_pending().await.map_err(of_catalog)?;
        let turn = self.take_turn().await?;
        let now = self.clock.monotonic();
        let mut batch = Batch::default();
        {
            let mut state = self.state.lock();
            for (key, reason) in damaged {
                let is_readable =
                    |live: &&crate::live::LiveObject| live.is_committed && live.index_id.is_some();
                if state.live().get(&key).filter(is_readable).is_none() {
                    continue;
                }
                error!(%key, reason, "object is damaged and is quarantined: answers over its time are partial");
                leave_job(&mut state, &key, now, &mut batch);
                state.quarantine(&key, reason, &mut batch);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.commit_in_turn(&turn, batch).await?;
        self.metrics.count(&self.state.lock());
        Ok(())
    }
}
