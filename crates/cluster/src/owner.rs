//! Calls the metastore that owns the catalog.
//!
//! Owns: the order in which metastores are asked, which answers are accepted. Does not own: who becomes the owner
//! (`metastore`), answers without an owner ([`LastKnown`]).
//!
//! A metastore that is not the owner says so, and the next one is asked. An answer with a lower epoch than one seen
//! before comes from a replaced owner, and is refused.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::Clock;
use parking_lot::Mutex;
use rpc::{Call, Error, ErrorKind, FindRequest, Metastore, Relay, Snapshot, Standing};
use tracing::warn;

use crate::{Callers, Member, Role};

/// Time that a find looks for an owner before it falls back to [`LastKnown`]; a planned change of owner takes less.
const OWNER_WAIT: Duration = Duration::from_secs(3);
/// Pause between two rounds through all metastores.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers finds from the stored catalog while it has no owner.
#[async_trait]
pub trait LastKnown: Send + Sync {
    /// As [`rpc::ObjectIndex::find`], with `stale` set.
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error>;

    /// Called once there is an owner again: cached data may be dropped.
    async fn forget(&self);
}

/// The client of the metastore that owns the catalog.
pub struct Owner {
    metastores: Callers<dyn Metastore>,
    last_known: Option<Arc<dyn LastKnown>>,
    clock: Clock,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// Node id of the metastore that answered last.
    owner: String,
    /// Highest epoch seen, and highest version within it.
    newest: (u64, u64),
    /// Whether `last_known` was asked since the owner answered last.
    has_fallen_back: bool,
}

impl Owner {
    /// Without `last_known`, finds fail while there is no owner.
    pub fn new(
        metastores: Callers<dyn Metastore>,
        last_known: Option<Arc<dyn LastKnown>>,
        clock: Clock,
    ) -> Self {
        Self { metastores, last_known, clock, history: Mutex::default() }
    }

    /// One round: asks the metastores until one answers, beginning with the one that answered last.
    async fn ask<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn(Arc<dyn Metastore>) -> F,
    ) -> Result<T, Error> {
        let mut metastores = self.metastores.all(Role::Metastore);
        {
            let history = self.history.lock();
            if let Some(last) = metastores.iter().position(|(member, _)| member.node == history.owner) {
                metastores[..=last].rotate_right(1);
            }
        }
        let mut refused = Error::new(ErrorKind::Unavailable, "no metastore is known");
        for (member, metastore) in metastores {
            match self.ask_one(&member, call(metastore)).await {
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    let text = format!("metastore {}: {}", member.name, error.message);
                    refused = Error { message: text, ..error };
                }
                answer => {
                    let mut history = self.history.lock();
                    if answer.is_ok() && history.owner != member.node {
                        history.owner = member.node;
                    }
                    return answer;
                }
            }
        }
        Err(refused)
    }

    /// Waits for `answer`, or until `member` is gone, which means that it will not answer.
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

    /// Accepts the answer of a find. `floor` was the highest epoch and version seen when the find began.
    ///
    /// # Errors
    /// `Unavailable` if the answer is older: it comes from a replaced owner.
    fn accept(&self, snapshot: Snapshot, floor: (u64, u64)) -> Result<Snapshot, Error> {
        let answered = (snapshot.epoch, snapshot.version);
        if answered < floor {
            let text = format!(
                "answers with version {} of epoch {}, after version {} of epoch {} was seen",
                answered.1, answered.0, floor.1, floor.0
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        let mut history = self.history.lock();
        history.newest = history.newest.max(answered);
        Ok(snapshot)
    }
}

#[async_trait]
impl Relay for Owner {
    async fn relay<T: Send + 'static>(&self, call: Call<T>) -> Result<T, Error> {
        self.ask(|metastore| call.on(metastore)).await
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let began = self.clock.monotonic();
        let (floor, has_fallen_back) = {
            let history = self.history.lock();
            (history.newest, history.has_fallen_back)
        };
        // Only the first find waits; later ones fall back at once.
        let patience = if has_fallen_back { Duration::ZERO } else { OWNER_WAIT };
        loop {
            let answer = self.ask(|metastore| {
                let request = request.clone();
                async move { self.accept(metastore.find(request).await?, floor) }
            });
            let error = match answer.await {
                Err(error) if error.kind == ErrorKind::Unavailable => error,
                answer => {
                    let has_fallen_back = std::mem::take(&mut self.history.lock().has_fallen_back);
                    if let Some(known) =
                        self.last_known.as_ref().filter(|_| has_fallen_back && answer.is_ok())
                    {
                        known.forget().await;
                    }
                    return answer;
                }
            };
            let waited = self.clock.monotonic() - began;
            match &self.last_known {
                _ if waited < patience => self.clock.sleep(PAUSE).await,
                Some(known) => {
                    self.history.lock().has_fallen_back = true;
                    warn!(%error, "the catalog has no owner: answering from its last known state");
                    return match known.find(request).await {
                        Ok(snapshot) => self.accept(snapshot, floor),
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
