//! Reports objects that leaves found damaged to the metastore.
//!
//! Owns: one report of an object at a time, in the background, so that no answer waits for it.
//! Does not own: whether an object is damaged (`leaf`), what follows from it (`rpc::ObjectIndex`).
//!
//! If a report fails, the next query that reads the object makes a new one.

use std::collections::HashSet;
use std::sync::Arc;

use clock::Clock;
use parking_lot::Mutex;
use rpc::Missing;
use storage::Key;
use tracing::warn;

pub(crate) struct Damage {
    /// Objects whose report is under way.
    reporting: Arc<Mutex<HashSet<Key>>>,
    clock: Clock,
}

impl Damage {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { reporting: Arc::default(), clock }
    }

    /// Reports those of `missing` that are damaged.
    pub(crate) fn report(&self, metastore: &Arc<dyn rpc::ObjectIndex>, missing: &[Missing]) {
        let mut damaged = Vec::new();
        {
            let mut reporting = self.reporting.lock();
            for object in missing.iter().filter(|object| object.is_damaged) {
                if reporting.insert(object.key.clone()) {
                    damaged.push((object.key.clone(), object.reason.clone()));
                }
            }
        }
        if damaged.is_empty() {
            return;
        }
        let (metastore, reporting) = (metastore.clone(), self.reporting.clone());
        self.clock.spawn(async move {
            if let Err(error) = metastore.quarantine(damaged.clone()).await {
                let objects: Vec<&Key> = damaged.iter().map(|(key, _)| key).collect();
                warn!(?objects, %error, "cannot quarantine damaged objects; the next read of them tries again");
            }
            let mut reporting = reporting.lock();
            reporting.retain(|key| !damaged.iter().any(|(reported, _)| reported == key));
        });
    }
}
