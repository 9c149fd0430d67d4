//! Knows which objects exist and what they hold.
//!
//! Owns: consuming logs, deciding which of two equal pushes counts, finds, the plan of compaction.
//! Does not own: the bytes of any object, merging, deleting.

mod config;
mod error;
mod find;

use std::sync::Arc;

use async_trait::async_trait;
use clock::Clock;
use hashbrown::HashMap;
use model::{JobId, WriterId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rpc::{DeadObject, Error, FindRequest, Job, Publication, Published, SegmentHint, Snapshot};
use storage::{Key, Store};

pub use config::Config;
pub use error::OpenError;

use find::{Index, Object, datasets_of};

/// The one owner of the catalog.
pub struct Metastore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: Index,
    /// The next slot of each log.
    logs: HashMap<WriterId, u64>,
    version: u64,
}

impl Metastore {
    /// Opens the catalog of `store`, and takes it from any earlier owner.
    ///
    /// # Errors
    /// The catalog cannot be read, or is newer than this program.
    pub async fn open(
        config: Config,
        store: Store,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, OpenError> {
        let _ = (config, store, clock, registry);
        Ok(Arc::new(Self {
            state: Mutex::default(),
        }))
    }

    /// Keeps the catalog up to date until [`Self::drain`].
    pub async fn run(self: Arc<Self>) {}

    /// Commits what is pending and stops.
    pub async fn drain(&self) {}
}

#[async_trait]
impl rpc::Metastore for Metastore {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        let mut state = self.state.lock();
        let next = state.logs.entry(hint.writer).or_default();
        if hint.seq < *next {
            return Ok(());
        }
        *next = hint.seq + 1;
        state.version += 1;
        state.index.insert(Object {
            key: Key::log_slot(hint.writer, hint.seq),
            bytes: hint.bytes,
            masked: Vec::new(),
            datasets: datasets_of(&hint.directory),
        });
        Ok(())
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let state = self.state.lock();
        let objects = state.index.find(&request);
        Ok(Snapshot {
            version: state.version,
            objects,
            quarantined: Vec::new(),
        })
    }

    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        Ok(None)
    }

    async fn publish(&self, _: Publication) -> Result<Published, Error> {
        Ok(Published::Rejected)
    }

    async fn fail_job(&self, _: JobId, _: u32, _: String) -> Result<(), Error> {
        Ok(())
    }

    async fn sweepable(&self, _: usize) -> Result<Vec<DeadObject>, Error> {
        Ok(Vec::new())
    }

    async fn swept(&self, _: Vec<Key>) -> Result<(), Error> {
        Ok(())
    }
}
