//! Tells the metastore of objects that leaves found damaged.
//!
//! Owns: that each is told of once at a time, and that no answer waits for it.
//! Does not own: whether an object is damaged (`leaf`), what follows from it (`rpc::Metastore`).
//!
//! If the metastore cannot be told, the next question that reads the object finds it again.

use std::collections::HashSet;
use std::sync::Arc;

use clock::Clock;
use parking_lot::Mutex;
use rpc::Missing;
use storage::Key;
use tracing::warn;

pub(crate) struct Damage {
    /// What the metastore is being told of.
    telling: Arc<Mutex<HashSet<Key>>>,
    clock: Clock,
}

impl Damage {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { telling: Arc::default(), clock }
    }

    /// Tells of those of `missing` that are damaged.
    pub(crate) fn tell(&self, metastore: &Arc<dyn rpc::Metastore>, missing: &[Missing]) {
        let mut damaged = Vec::new();
        {
            let mut telling = self.telling.lock();
            for lack in missing.iter().filter(|lack| lack.is_damaged) {
                if telling.insert(lack.key.clone()) {
                    damaged.push((lack.key.clone(), lack.reason.clone()));
                }
            }
        }
        if damaged.is_empty() {
            return;
        }
        let (metastore, telling) = (metastore.clone(), self.telling.clone());
        self.clock.spawn(async move {
            if let Err(error) = metastore.quarantine(damaged.clone()).await {
                let objects: Vec<&Key> = damaged.iter().map(|(key, _)| key).collect();
                warn!(?objects, %error, "cannot have damaged objects set aside, trying again when they are read");
            }
            let mut telling = telling.lock();
            telling.retain(|key| !damaged.iter().any(|(told, _)| told == key));
        });
    }
}
