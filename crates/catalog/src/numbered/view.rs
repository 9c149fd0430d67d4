//! The catalog without ownership: some version of its rows, refreshed on request.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::state::State;
use super::{NumberedCatalog, version_of};
use crate::{Error, Row, View};

pub(super) struct NumberedView {
    engine: NumberedCatalog,
    incarnation: u64,
    state: State,
    /// When the state was last known to be the newest, by the monotonic clock.
    loaded: Duration,
}

impl NumberedView {
    pub(super) async fn open(engine: NumberedCatalog) -> Result<Self, Error> {
        let loaded = engine.clock.monotonic();
        let mut view = Self { engine, incarnation: 0, state: State::default(), loaded };
        view.reload().await?;
        Ok(view)
    }

    async fn reload(&mut self) -> Result<(), Error> {
        let began = self.engine.clock.monotonic();
        let listing = self.engine.list().await?;
        self.incarnation = listing.newest_ready().ok_or(Error::Absent)?;
        self.state = self.engine.load(self.incarnation, &listing).await?;
        self.loaded = began;
        Ok(())
    }
}

#[async_trait]
impl View for NumberedView {
    fn version(&self) -> u64 {
        version_of(self.incarnation, self.state.next.saturating_sub(1))
    }

    fn epoch(&self) -> u64 {
        self.state.epoch
    }

    fn committed_millis(&self) -> i64 {
        self.state.committed_millis
    }

    async fn refresh(&mut self) -> Result<u64, Error> {
        let began = self.engine.clock.monotonic();
        // After `look_within` the next commit may have been deleted, and an absent slot proves nothing.
        if began - self.loaded > self.engine.options.look_within {
            self.reload().await?;
        }
        loop {
            match self.engine.read_commit(self.incarnation, self.state.next).await {
                Ok((commit, bytes)) => self.state.apply(commit, bytes, began),
                Err(Error::Store(storage::Error::NotFound(_))) => break,
                Err(error) => return Err(error),
            }
            if self.state.superseded_by.is_some() {
                self.reload().await?;
            }
        }
        self.loaded = began;
        // A view deletes nothing.
        self.state.files.clear();
        Ok(self.version())
    }

    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error> {
        Ok(self.state.range(keys))
    }
}
