//! Roles that record their requests and answer as a test says.

use std::sync::Mutex;

use async_trait::async_trait;
use model::{PushItem, TenantId};
use query::Partial;
use rpc::{
    DeadObject, DeleteRequest, DeletionStatus, Error, FindRequest, Ingester, Job, JobFailure, JobQueue, Leaf,
    ObjectIndex, Ownership, Publication, PublishOutcome, ScanAnswer, ScanRequest, SegmentHint, SegmentHints,
    Snapshot, Standing,
};
use storage::Key;
use tokio::sync::Semaphore;

use crate::{compare, made};

/// Every role at once.
pub(crate) struct Fake {
    pub(crate) behaviour: Mutex<Behaviour>,
    /// The last request.
    pub(crate) asked: Mutex<String>,
    pub(crate) snapshot: Mutex<Snapshot>,
    pub(crate) job: Mutex<Option<Job>>,
    pub(crate) published: Mutex<PublishOutcome>,
    pub(crate) scanned: Mutex<Option<ScanAnswer>>,
    /// One permit per call that began.
    pub(crate) begun: Semaphore,
    /// One permit per call that was dropped before its end.
    pub(crate) dropped: Semaphore,
}

pub(crate) enum Behaviour {
    Answer,
    Fail(fn() -> Error),
    Hang,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            behaviour: Mutex::new(Behaviour::Answer),
            asked: Mutex::default(),
            snapshot: Mutex::default(),
            job: Mutex::default(),
            published: Mutex::new(PublishOutcome::Done),
            scanned: Mutex::default(),
            begun: Semaphore::new(0),
            dropped: Semaphore::new(0),
        }
    }
}

struct Dropped<'a>(&'a Semaphore);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl Fake {
    async fn ask(&self, request: String) -> Result<(), Error> {
        *self.asked.lock().unwrap() = request;
        let failure = match *self.behaviour.lock().unwrap() {
            Behaviour::Answer => return Ok(()),
            Behaviour::Fail(error) => Some(error()),
            Behaviour::Hang => None,
        };
        self.begun.add_permits(1);
        match failure {
            Some(error) => Err(error),
            None => {
                let _dropped = Dropped(&self.dropped);
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl Ingester for Fake {
    async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
        self.ask(compare::items(&items)).await
    }
}

#[async_trait]
impl Leaf for Fake {
    async fn scan(&self, request: ScanRequest) -> Result<ScanAnswer, Error> {
        self.ask(compare::scan(&request)).await?;
        let prepared = self.scanned.lock().unwrap().take();
        let empty =
            || ScanAnswer { partial: Partial::empty(&request.query), missing: Vec::new(), effort: None };
        Ok(prepared.unwrap_or_else(empty))
    }
}

#[async_trait]
impl SegmentHints for Fake {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        self.ask(format!("{hint:?}")).await
    }
}

#[async_trait]
impl ObjectIndex for Fake {
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        self.ask(format!("{request:?}")).await?;
        Ok(self.snapshot.lock().unwrap().clone())
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        self.ask(format!("{damaged:?}")).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error> {
        self.ask(format!("{request:?}")).await?;
        Ok(made::statuses().remove(0))
    }

    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error> {
        self.ask(tenant.to_string()).await?;
        Ok(made::statuses())
    }
}

#[async_trait]
impl JobQueue for Fake {
    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        self.ask("claim".into()).await?;
        Ok(self.job.lock().unwrap().clone())
    }

    async fn publish(&self, publication: Publication) -> Result<PublishOutcome, Error> {
        self.ask(format!("{publication:?}")).await?;
        Ok(*self.published.lock().unwrap())
    }

    async fn fail_job(&self, failure: JobFailure) -> Result<(), Error> {
        self.ask(format!("{failure:?}")).await
    }

    async fn sweepable(&self, limit: usize) -> Result<Vec<DeadObject>, Error> {
        self.ask(format!("{limit}")).await?;
        let keys = ["block/a/1-0-300/x", "log/b/000000000001"];
        Ok(keys.map(|key| DeadObject { key: Key::from_text(key) }).into())
    }

    async fn swept(&self, keys: Vec<Key>) -> Result<(), Error> {
        self.ask(format!("{keys:?}")).await
    }
}

#[async_trait]
impl Ownership for Fake {
    async fn standing(&self) -> Result<Standing, Error> {
        self.ask("standing".into()).await?;
        Ok(crate::made::standing())
    }
}
