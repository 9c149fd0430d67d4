//! A wrapper around the catalog's engine that checks that a fenced owner commits nothing.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use catalog::{Batch, Catalog, Engine, Error, NumberedCatalog, Row, View};

use crate::oracle::Oracle;

/// Wraps the engine to check its promise: a fenced owner commits nothing.
pub(crate) struct CheckedEngine {
    engine: NumberedCatalog,
    oracle: Oracle,
}

impl CheckedEngine {
    pub(crate) fn new(engine: NumberedCatalog, oracle: Oracle) -> Self {
        Self { engine, oracle }
    }
}

#[async_trait]
impl Engine for CheckedEngine {
    async fn exists(&self) -> Result<bool, Error> {
        self.engine.exists().await
    }

    async fn open(&self) -> Result<Arc<dyn Catalog>, Error> {
        let catalog = self.engine.open().await?;
        self.oracle.opened(catalog.epoch());
        Ok(Arc::new(CheckedCatalog { catalog, oracle: self.oracle.clone() }))
    }

    async fn view(&self) -> Result<Box<dyn View>, Error> {
        self.engine.view().await
    }
}

struct CheckedCatalog {
    catalog: Arc<dyn Catalog>,
    oracle: Oracle,
}

#[async_trait]
impl Catalog for CheckedCatalog {
    fn epoch(&self) -> u64 {
        self.catalog.epoch()
    }

    fn version(&self) -> u64 {
        self.catalog.version()
    }

    async fn commit(&self, batch: Batch) -> Result<u64, Error> {
        let newest = self.oracle.newest_epoch();
        let version = self.catalog.commit(batch).await?;
        if newest > self.epoch() {
            let details =
                format!("epoch {} committed version {version} after epoch {newest} began", self.epoch());
            self.oracle.violate("I7", details);
        }
        Ok(version)
    }

    async fn check(&self) -> Result<(), Error> {
        self.catalog.check().await
    }

    async fn range(&self, keys: Range<Bytes>) -> Result<Vec<Row>, Error> {
        self.catalog.range(keys).await
    }

    async fn compact(&self, version: u64) -> Result<(), Error> {
        self.catalog.compact(version).await
    }

    fn has_forgotten(&self, version: u64) -> bool {
        self.catalog.has_forgotten(version)
    }

    async fn maintain(&self) -> Result<(), Error> {
        self.catalog.maintain().await
    }
}
