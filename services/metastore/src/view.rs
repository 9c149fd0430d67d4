//! What the catalog says while nobody owns it.
//!
//! Owns: reading it without taking it, and how old it may be. Does not own: when it is asked (`cluster::Owner`).

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

/// A view is not asked of the store again within this time.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// Answers finds from the newest version of the catalog, as it lies in the bucket.
pub struct Viewer {
    config: Config,
    engine: Arc<dyn Engine>,
    retention: Retention,
    clock: Clock,
    seen: Mutex<Option<Seen>>,
}

struct Seen {
    view: Box<dyn View>,
    /// As of the view's version.
    state: State,
    /// When the view was last known to be the newest, by own clock.
    confirmed: Duration,
}

impl Viewer {
    /// Asks the store nothing before the first find.
    pub fn new(config: Config, engine: Arc<dyn Engine>, retention: Retention, clock: Clock) -> Self {
        Self { config, engine, retention, clock, seen: Mutex::new(None) }
    }

    async fn open(&self) -> Result<Seen, OpenError> {
        let confirmed = self.clock.monotonic();
        let view = self.engine.view().await?;
        let state = load(Source::Viewed(&*view), &self.config, false, confirmed).await?;
        Ok(Seen { view, state, confirmed })
    }

    async fn refresh(&self, seen: &mut Seen) -> Result<(), OpenError> {
        let began = self.clock.monotonic();
        if seen.view.refresh().await? != seen.state.version {
            seen.state = load(Source::Viewed(&*seen.view), &self.config, false, began).await?;
        }
        seen.confirmed = began;
        Ok(())
    }
}

#[async_trait]
impl LastKnown for Viewer {
    /// # Errors
    /// `Unavailable` if the catalog cannot be read, and was last read longer ago than objects of then are surely kept.
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let mut held = self.seen.lock().await;
        let seen = match &mut *held {
            Some(seen) => {
                if self.clock.monotonic() - seen.confirmed >= FRESH_FOR
                    && let Err(error) = self.refresh(seen).await
                {
                    warn!(%error, "cannot read the newest catalog, answering from an older one");
                }
                seen
            }
            None => held.insert(self.open().await.map_err(|error| {
                let text = "nobody owns the catalog, and it cannot be read";
                Error::with_source(ErrorKind::Unavailable, text, error)
            })?),
        };
        let (age, limit) = (self.clock.monotonic() - seen.confirmed, self.config.sweep_grace.get() / 2);
        if age > limit {
            let text = format!(
                "nobody owns the catalog, and what is known of it is {} s old, limit is {} s",
                age.as_secs(),
                limit.as_secs()
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        let kept_from = |tenant: &model::TenantId, service: &str| {
            kept_from(&self.retention, &self.clock, tenant, Some(service))
        };
        let snapshot = seen.state.snapshot(&request, seen.view.epoch(), kept_from);
        let since = self.clock.unix_millis().saturating_sub(seen.view.committed_millis());
        let stale = Duration::from_millis(since.try_into().unwrap_or(0)).max(age);
        Ok(Snapshot { stale: Some(stale), ..snapshot })
    }

    async fn forget(&self) {
        *self.seen.lock().await = None;
    }
}
