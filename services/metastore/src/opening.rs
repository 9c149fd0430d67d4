//! Opens the catalog, and rebuilds it first if it is lost or does not match the bucket.
//!
//! Owns: when the catalog is rebuilt without a command. Does not own: the rebuild (`rebuild`), the check (`verify`).

use std::sync::Arc;

use catalog::Catalog;
use clock::Clock;
use storage::Store;
use tracing::{info, warn};

use crate::config::Config;
use crate::error::OpenError;
use crate::listing::Listing;
use crate::load::{self, Source};
use crate::parts::Parts;
use crate::rebuild::{Progress, rebuild_with};
use crate::state::State;
use crate::verify::{missing_records, reason_to_rebuild};

/// A catalog that this owner has opened, and its state.
pub(crate) struct OpenCatalog {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) state: State,
    /// When every earlier owner was fenced, on the monotonic clock.
    pub(crate) fenced: std::time::Duration,
    /// Whether an earlier owner may still answer because it does not know yet that it was replaced.
    pub(crate) may_answer_elsewhere: bool,
}

/// Opens catalogs of one bucket.
pub(crate) struct Opening<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: &'a Store,
    pub(crate) parts: &'a Parts,
    pub(crate) clock: &'a Clock,
    /// Progress of a rebuild; without it, no rebuild is made.
    pub(crate) rebuild: Option<&'a Progress>,
}

impl Opening<'_> {
    pub(crate) async fn open(&self) -> Result<OpenCatalog, OpenError> {
        if !self.parts.engine.exists().await? && holds_data(self.store).await? {
            self.rebuild("the bucket holds data and no catalog").await?;
            return self.open_once().await;
        }
        let mut opened = self.open_once().await?;
        let listing = Listing::read(self.store).await?;
        match reason_to_rebuild(self.store, &opened.state, &listing, self.clock.unix_millis()).await? {
            None => {
                let missing = missing_records(&opened.state, &listing);
                if !missing.is_empty() {
                    // Another owner may have replaced these blocks since this one opened the catalog.
                    opened.catalog.check().await?;
                    warn!(records = missing.len(), "publish records are missing, they are created again");
                    opened.state.publish_again(missing);
                }
                Ok(opened)
            }
            Some(reason) => {
                // Fails if another owner has opened the catalog since: its publishes may explain the difference.
                opened.catalog.check().await?;
                self.rebuild(&reason).await?;
                self.open_once().await
            }
        }
    }

    async fn rebuild(&self, reason: &str) -> Result<(), OpenError> {
        let Some(progress) = self.rebuild else {
            return Err(OpenError::RebuildNeeded(reason.to_owned()));
        };
        warn!(
            reason,
            "the catalog is missing or does not match the bucket: it is rebuilt from the other objects"
        );
        let headers = &*self.parts.headers;
        let rebuilt = rebuild_with(self.store, self.clock, headers, self.config, progress).await?;
        info!("{rebuilt}");
        Ok(())
    }

    async fn open_once(&self) -> Result<OpenCatalog, OpenError> {
        let catalog = self.parts.engine.open().await?;
        let fenced = self.clock.monotonic();
        let is_alone = self.parts.is_alone;
        let state = load::load(Source::Owned(&*catalog), self.config, is_alone, fenced).await?;
        let may_answer_elsewhere = !is_alone && !load::has_resigned(&*catalog).await?;
        Ok(OpenCatalog { catalog, state, fenced, may_answer_elsewhere })
    }
}

/// Whether the bucket holds blocks, records or deletions. Logs do not count: they may be older than the first catalog.
async fn holds_data(store: &Store) -> Result<bool, storage::Error> {
    let folders = ["block", "publish", "delete"].map(|folder| store.list_folders(folder));
    Ok(futures::future::try_join_all(folders).await?.iter().any(|folders| !folders.is_empty()))
}
