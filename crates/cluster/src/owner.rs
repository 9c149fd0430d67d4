//! The metastore of the cluster: whichever of them owns the catalog.
//!
//! Owns: whom to ask, in which order, and what is believed of an answer. Does not own: who becomes the owner
//! (`metastore`), what is known without one ([`LastKnown`]).
//!
//! Who is no owner says so, and the next is asked. An answer of a lower epoch than one that was seen is of an owner
//! that another has replaced, and is not used.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::Clock;
use model::TenantId;
use parking_lot::Mutex;
use rpc::{
    DeadObject, DeleteRequest, DeletionStatus, Error, ErrorKind, FindRequest, Job, JobFailure, Metastore,
    Publication, Published, SegmentHint, Snapshot, Standing,
};
use storage::Key;
use tracing::warn;

use crate::{Callers, Member, Role};

/// How long a find looks for an owner before it is answered by what was known last; a planned change of owner takes less.
const OWNER_WAIT: Duration = Duration::from_secs(3);
/// Between two rounds through all metastores.
const PAUSE: Duration = Duration::from_millis(100);

/// What the catalog says while nobody owns it.
#[async_trait]
pub trait LastKnown: Send + Sync {
    /// As [`Metastore::find`], `stale` given.
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error>;

    /// There is an owner again: nothing needs to be remembered.
    async fn forget(&self);
}

/// Asks whichever metastore owns the catalog.
pub struct Owner {
    metastores: Callers<dyn Metastore>,
    last_known: Option<Arc<dyn LastKnown>>,
    clock: Clock,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Node of the one that answered last.
    owner: String,
    /// Highest epoch, and highest version of it.
    newest: (u64, u64),
    /// Whether what was known last was asked since.
    was_without: bool,
}

impl Owner {
    /// Without `last_known`, finds fail while there is no owner.
    pub fn new(
        metastores: Callers<dyn Metastore>,
        last_known: Option<Arc<dyn LastKnown>>,
        clock: Clock,
    ) -> Self {
        Self { metastores, last_known, clock, seen: Mutex::default() }
    }

    /// One round: asks every metastore until one answers, the one that answered last first.
    async fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        question: impl Fn(Arc<dyn Metastore>) -> F,
    ) -> Result<T, Error> {
        let mut metastores = self.metastores.all(Role::Metastore);
        {
            let seen = self.seen.lock();
            if let Some(last) = metastores.iter().position(|(member, _)| member.node == seen.owner) {
                metastores[..=last].rotate_right(1);
            }
        }
        let mut refused = Error::new(ErrorKind::Unavailable, "no metastore is known");
        for (member, metastore) in metastores {
            match self.ask_one(&member, question(metastore)).await {
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    let text = format!("metastore {}: {}", member.name, error.message);
                    refused = Error { message: text, ..error };
                }
                answer => {
                    let mut seen = self.seen.lock();
                    if answer.is_ok() && seen.owner != member.node {
                        seen.owner = member.node;
                    }
                    return answer;
                }
            }
        }
        Err(refused)
    }

    /// A member that is gone while it is asked will not answer.
    async fn ask_one<T>(
        &self,
        member: &Member,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.metastores.gone(member) => {
                Err(Error::new(ErrorKind::Unavailable, "it was gone before it answered"))
            }
        }
    }

    /// The answer of a find that began when `floor` was the highest epoch and version.
    ///
    /// # Errors
    /// `Unavailable` if it is below: of an owner that another has replaced.
    fn believe(&self, snapshot: Snapshot, floor: (u64, u64)) -> Result<Snapshot, Error> {
        let found = (snapshot.epoch, snapshot.version);
        if found < floor {
            let text = format!(
                "answers with version {} of epoch {}, after version {} of epoch {} was seen",
                found.1, found.0, floor.1, floor.0
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        let mut seen = self.seen.lock();
        seen.newest = seen.newest.max(found);
        Ok(snapshot)
    }
}

#[async_trait]
impl Metastore for Owner {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        self.ask(|metastore| {
            let hint = hint.clone();
            async move { metastore.segment_written(hint).await }
        })
        .await
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let began = self.clock.monotonic();
        let (floor, was_without) = {
            let seen = self.seen.lock();
            (seen.newest, seen.was_without)
        };
        // One question waits, not each of those that follow.
        let patience = if was_without { Duration::ZERO } else { OWNER_WAIT };
        loop {
            let found = self.ask(|metastore| {
                let request = request.clone();
                async move { self.believe(metastore.find(request).await?, floor) }
            });
            let error = match found.await {
                Err(error) if error.kind == ErrorKind::Unavailable => error,
                found => {
                    let was_without = std::mem::take(&mut self.seen.lock().was_without);
                    if let Some(known) = self.last_known.as_ref().filter(|_| was_without && found.is_ok()) {
                        known.forget().await;
                    }
                    return found;
                }
            };
            let waited = self.clock.monotonic() - began;
            match &self.last_known {
                _ if waited < patience => self.clock.sleep(PAUSE).await,
                Some(known) => {
                    self.seen.lock().was_without = true;
                    warn!(%error, "nobody owns the catalog: answering from what was known last");
                    return match known.find(request).await {
                        Ok(snapshot) => self.believe(snapshot, floor),
                        Err(unknown) => {
                            let message = format!("{}; {}", error.message, unknown.message);
                            Err(Error { message, ..unknown })
                        }
                    };
                }
                None => return Err(error),
            }
        }
    }

    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        self.ask(|metastore| async move { metastore.claim_job().await }).await
    }

    async fn publish(&self, publication: Publication) -> Result<Published, Error> {
        self.ask(|metastore| {
            let publication = publication.clone();
            async move { metastore.publish(publication).await }
        })
        .await
    }

    async fn fail_job(&self, failure: JobFailure) -> Result<(), Error> {
        self.ask(|metastore| {
            let failure = failure.clone();
            async move { metastore.fail_job(failure).await }
        })
        .await
    }

    async fn sweepable(&self, limit: usize) -> Result<Vec<DeadObject>, Error> {
        self.ask(|metastore| async move { metastore.sweepable(limit).await }).await
    }

    async fn swept(&self, keys: Vec<Key>) -> Result<(), Error> {
        self.ask(|metastore| {
            let keys = keys.clone();
            async move { metastore.swept(keys).await }
        })
        .await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error> {
        self.ask(|metastore| {
            let request = request.clone();
            async move { metastore.delete(request).await }
        })
        .await
    }

    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error> {
        self.ask(|metastore| {
            let tenant = tenant.clone();
            async move { metastore.deletions(tenant).await }
        })
        .await
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        self.ask(|metastore| {
            let damaged = damaged.clone();
            async move { metastore.quarantine(damaged).await }
        })
        .await
    }

    async fn standing(&self) -> Result<Standing, Error> {
        self.ask(|metastore| async move {
            match metastore.standing().await? {
                standing if standing.is_owner => Ok(standing),
                _ => Err(Error::new(ErrorKind::Unavailable, "it does not own the catalog")),
            }
        })
        .await
    }
}
