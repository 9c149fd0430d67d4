//! Finds while no process owns the catalog.
//!
//! Owns: reading the catalog without opening it, and how old an answer may be. Does not own: when it answers
//! (`cluster::Owner`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catalog::{Engine, View};
use clock::Clock;
use cluster::LastKnown;
use rpc::{Error, ErrorKind, FindRequest, Snapshot};
use tokio::sync::Mutex;
use tracing::warn;

use crate::config::Config;
use crate::error::OpenError;
use crate::load::{Source, load};
use crate::retention::{Retention, kept_from};
use crate::state::State;

/// A view is not refreshed from the store again within this time.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// Answers finds from the newest version of the catalog in the bucket.
pub struct Viewer {
    config: Config,
    engine: Arc<dyn Engine>,
    retention: Retention,
    clock: Clock,
    last: Mutex<Option<LoadedView>>,
}

struct LoadedView {
    view: Box<dyn View>,
    /// As of the view's version.
    state: State,
    /// When the view was last known to be the newest, on the monotonic clock.
    confirmed: Duration,
}

impl Viewer {
    /// Sends no request to the store before the first find.
    pub fn new(config: Config, engine: Arc<dyn Engine>, retention: Retention, clock: Clock) -> Self {
        Self { config, engine, retention, clock, last: Mutex::new(None) }
    }

    async fn open(&self) -> Result<LoadedView, OpenError> {
        let confirmed = self.clock.monotonic();
        let view = self.engine.view().await?;
        let state = load(Source::Viewed(&*view), &self.config, false, confirmed).await?;
        Ok(LoadedView { view, state, confirmed })
    }

    async fn refresh(&self, loaded: &mut LoadedView) -> Result<(), OpenError> {
        let began = self.clock.monotonic();
        if loaded.view.refresh().await? != loaded.state.version {
            loaded.state = load(Source::Viewed(&*loaded.view), &self.config, false, began).await?;
        }
        loaded.confirmed = began;
        Ok(())
    }
}

#[async_trait]
impl LastKnown for Viewer {
    /// # Errors
    /// `Unavailable` if the catalog cannot be read, and was last read too long ago: the objects of that time may be
    /// deleted.
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let mut last = self.last.lock().await;
        let loaded = match &mut *last {
            Some(loaded) => {
                if self.clock.monotonic() - loaded.confirmed >= FRESH_FOR
                    && let Err(error) = self.refresh(loaded).await
                {
                    warn!(%error, "cannot read the newest catalog, answering from an older one");
                }
                loaded
            }
            None => last.insert(self.open().await.map_err(|error| {
                let text = "no metastore owns the catalog, and it cannot be read";
                Error::with_source(ErrorKind::Unavailable, text, error)
            })?),
        };
        let (age, limit) = (self.clock.monotonic() - loaded.confirmed, self.config.sweep_grace.get() / 2);
        if age > limit {
            let text = format!(
                "no metastore owns the catalog, and its last known version is {} s old, limit is {} s",
                age.as_secs(),
                limit.as_secs()
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        let kept_from = |tenant: &model::TenantId, service: &str| {
            kept_from(&self.retention, &self.clock, tenant, Some(service))
        };
        let snapshot = loaded.state.snapshot(&request, loaded.view.epoch(), kept_from);
        let since = self.clock.unix_millis().saturating_sub(loaded.view.committed_millis());
        let stale = Duration::from_millis(since.try_into().unwrap_or(0)).max(age);
        Ok(Snapshot { stale: Some(stale), ..snapshot })
    }

    async fn forget(&self) {
        *self.last.lock().await = None;
    }
}
