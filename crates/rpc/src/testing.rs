//! A metastore for tests of its callers: a test defines finds, hints and quarantines; every other call is refused.

use async_trait::async_trait;
use model::TenantId;
use storage::Key;

use crate::{
    DeadObject, DeleteRequest, DeletionStatus, Error, ErrorKind, FindRequest, Job, JobFailure, Metastore,
    Publication, Published, SegmentHint, Snapshot, Standing,
};

/// The calls of a metastore that a test defines. Every implementation is a [`Metastore`] that refuses all other calls.
#[async_trait]
pub trait Catalog: Send + Sync {
    async fn find(&self, _: FindRequest) -> Result<Snapshot, Error> {
        Ok(Snapshot::default())
    }

    async fn segment_written(&self, _: SegmentHint) -> Result<(), Error> {
        Ok(())
    }

    async fn quarantine(&self, _: Vec<(Key, String)>) -> Result<(), Error> {
        Ok(())
    }
}

fn refused<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unavailable, "this metastore of a test does not implement the call"))
}

#[async_trait]
impl<C: Catalog> Metastore for C {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        Catalog::segment_written(self, hint).await
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        Catalog::find(self, request).await
    }

    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        refused()
    }

    async fn publish(&self, _: Publication) -> Result<Published, Error> {
        refused()
    }

    async fn fail_job(&self, _: JobFailure) -> Result<(), Error> {
        refused()
    }

    async fn sweepable(&self, _: usize) -> Result<Vec<DeadObject>, Error> {
        refused()
    }

    async fn swept(&self, _: Vec<Key>) -> Result<(), Error> {
        refused()
    }

    async fn delete(&self, _: DeleteRequest) -> Result<DeletionStatus, Error> {
        refused()
    }

    async fn deletions(&self, _: TenantId) -> Result<Vec<DeletionStatus>, Error> {
        refused()
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        Catalog::quarantine(self, damaged).await
    }

    async fn standing(&self) -> Result<Standing, Error> {
        refused()
    }
}
