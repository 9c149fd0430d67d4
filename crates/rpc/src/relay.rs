//! Metastores that pass calls on to another metastore.
//!
//! Owns: the one list of all calls of a metastore, for every implementation that passes most of them on.
//! Does not own: the choice of the metastore that serves a call (each [`Relay`]).

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use model::TenantId;
use storage::Key;

use crate::{
    DeadObject, DeleteRequest, DeletionStatus, Error, FindRequest, Job, JobFailure, JobQueue, Metastore,
    ObjectIndex, Ownership, Publication, PublishOutcome, SegmentHint, SegmentHints, Snapshot, Standing,
};

/// A call of a metastore with its arguments. It can be made several times, of several metastores.
pub struct Call<T> {
    /// Name of the method.
    pub method: &'static str,
    make: Arc<dyn Fn(Arc<dyn Metastore>) -> BoxFuture<'static, Result<T, Error>> + Send + Sync>,
}

impl<T> Clone for Call<T> {
    fn clone(&self) -> Self {
        Self { method: self.method, make: self.make.clone() }
    }
}

impl<T> Call<T> {
    /// `make` makes the call on a metastore.
    pub fn new<F: Future<Output = Result<T, Error>> + Send + 'static>(
        method: &'static str,
        make: impl Fn(Arc<dyn Metastore>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self { method, make: Arc::new(move |metastore| Box::pin(make(metastore))) }
    }

    /// Makes the call on `metastore`.
    pub fn on(&self, metastore: Arc<dyn Metastore>) -> BoxFuture<'static, Result<T, Error>> {
        (self.make)(metastore)
    }
}

/// Declares [`Relay`] and implements the traits of a metastore for every relay, from one list of their methods.
macro_rules! relay {
    ($($trait:ident { $(fn $method:ident($($name:ident: $argument:ty)?) -> $answer:ty;)+ })+) => {
        /// A metastore that passes calls on. It implements [`Metastore`]; it overrides the calls that it changes.
        #[async_trait]
        pub trait Relay: Send + Sync {
            /// Passes `call` on, and returns the answer.
            async fn relay<T: Send + 'static>(&self, call: Call<T>) -> Result<T, Error>;

            $($(
                async fn $method(&self $(, $name: $argument)?) -> Result<$answer, Error> {
                    let call = Call::new(stringify!($method), move |metastore| {
                        $(let $name = $name.clone();)?
                        async move { metastore.$method($($name)?).await }
                    });
                    self.relay(call).await
                }
            )+)+
        }

        $(
            #[async_trait]
            impl<R: Relay> $trait for R {
                $(
                    async fn $method(&self $(, $name: $argument)?) -> Result<$answer, Error> {
                        Relay::$method(self $(, $name)?).await
                    }
                )+
            }
        )+
    };
}

relay! {
    SegmentHints {
        fn segment_written(hint: SegmentHint) -> ();
    }
    ObjectIndex {
        fn find(request: FindRequest) -> Snapshot;
        fn quarantine(damaged: Vec<(Key, String)>) -> ();
        fn delete(request: DeleteRequest) -> DeletionStatus;
        fn deletions(tenant: TenantId) -> Vec<DeletionStatus>;
    }
    JobQueue {
        fn claim_job() -> Option<Job>;
        fn publish(publication: Publication) -> PublishOutcome;
        fn fail_job(failure: JobFailure) -> ();
        fn sweepable(limit: usize) -> Vec<DeadObject>;
        fn swept(keys: Vec<Key>) -> ();
    }
    Ownership {
        fn standing() -> Standing;
    }
}
