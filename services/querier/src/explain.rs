//! How an answer came about, for whoever asks for it.

use std::time::Duration;

use query::Stats;
use rpc::{Effort, Missing, Pruned, Scanned, Snapshot};
use serde::Serialize;
use serde_json::{Value, json};

use crate::units::Unit;

/// What one question took. Only there if it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explained {
    pub(crate) kind: &'static str,
    pub(crate) version: u64,
    pub(crate) epoch: u64,
    pub(crate) stale: Option<Duration>,
    pub(crate) objects: usize,
    pub(crate) datasets: usize,
    /// What reading them was thought to cost.
    pub(crate) bytes: u64,
    pub(crate) pruned: Option<Pruned>,
    /// Whether the first snapshot was too old.
    pub(crate) started_over: bool,
    pub(crate) find: Duration,
    pub(crate) admit: Duration,
    pub(crate) scan: Duration,
    pub(crate) merge: Duration,
    pub(crate) took: Duration,
    pub(crate) stats: Stats,
    pub(crate) missing: Vec<Missing>,
    pub(crate) units: Vec<UnitExplained>,
}

#[derive(Clone, Debug)]
pub(crate) struct UnitExplained {
    /// Empty if nobody answered.
    leaf: String,
    objects: usize,
    datasets: usize,
    bytes: u64,
    pub(crate) took: Duration,
    /// Why another leaf was asked again.
    pub(crate) retried: Option<String>,
    /// Whether another leaf was asked as well, because it took long.
    pub(crate) hedged: bool,
    effort: Effort,
}

impl UnitExplained {
    pub(crate) fn new(unit: &Unit) -> Self {
        Self {
            leaf: String::new(),
            objects: unit.objects.len(),
            datasets: unit.objects.iter().map(|object| object.datasets.len()).sum(),
            bytes: unit.bytes,
            took: Duration::ZERO,
            retried: None,
            hedged: false,
            effort: Effort::default(),
        }
    }

    pub(crate) fn answered(&mut self, leaf: &str, scanned: &Scanned) {
        if let Some(effort) = &scanned.effort {
            leaf.clone_into(&mut self.leaf);
            self.effort = *effort;
        }
    }

    fn json(&self) -> Value {
        json!({
            "leaf": self.leaf,
            "objects": self.objects,
            "datasets": self.datasets,
            "estimatedBytes": self.bytes,
            "millis": millis(self.took),
            "retried": self.retried,
            "hedged": self.hedged,
            "effort": effort_json(&self.effort),
        })
    }
}

impl Explained {
    pub(crate) fn found(&mut self, snapshot: &Snapshot, bytes: u64) {
        self.version = snapshot.version;
        self.epoch = snapshot.epoch;
        self.stale = snapshot.stale;
        self.objects = snapshot.objects.len();
        self.datasets = snapshot.objects.iter().map(|object| object.datasets.len()).sum();
        self.bytes = bytes;
        self.pruned = snapshot.pruned;
    }

    /// Forgets what is dropped with the old snapshot.
    pub(crate) fn start_over(&mut self) {
        self.started_over = true;
        self.units.clear();
    }

    pub(crate) fn merge(&mut self, unit: UnitExplained, merge: Duration) {
        self.units.push(unit);
        self.merge += merge;
    }

    /// `finish` is what came after merging: cutting, naming, encoding. At most `listed` units, the slowest, and missing
    /// objects are told one by one.
    pub(crate) fn json(&self, finish: Duration, listed: usize) -> Value {
        let mut effort = Effort::default();
        self.units.iter().for_each(|unit| effort.merge(&unit.effort));
        let mut slowest: Vec<&UnitExplained> = self.units.iter().collect();
        slowest.sort_by_key(|unit| std::cmp::Reverse(unit.took));
        let units: Vec<Value> = slowest.iter().take(listed).map(|unit| unit.json()).collect();
        let missing = self.missing.iter().take(listed);
        let missing: Vec<Value> =
            missing.map(|lack| json!({ "object": lack.key.as_str(), "why": lack.reason })).collect();
        let Stats { objects, datasets, summed, profiles, samples, bytes } = self.stats;
        let pruned = self.pruned.unwrap_or_default();
        json!({
            "question": self.kind,
            "snapshot": {
                "version": self.version,
                "epoch": self.epoch,
                "staleMillis": self.stale.map(millis),
                "startedOver": self.started_over,
            },
            "found": { "objects": self.objects, "datasets": self.datasets, "estimatedBytes": self.bytes },
            "prunedDatasets": {
                "byService": pruned.by_service,
                "byTime": pruned.by_time,
                "byProfileType": pruned.by_profile_type,
                "byRetention": pruned.by_retention,
            },
            "millis": {
                "total": millis(self.took + finish),
                "find": millis(self.find),
                "admit": millis(self.admit),
                "scan": millis(self.scan),
                "merge": millis(self.merge),
                "finish": millis(finish),
            },
            "read": {
                "objects": objects, "datasets": datasets, "datasetsFromRollups": summed,
                "profiles": profiles, "samples": samples, "usedBytes": bytes,
            },
            "effort": effort_json(&effort),
            "units": {
                "count": self.units.len(),
                "retried": self.units.iter().filter(|unit| unit.retried.is_some()).count(),
                "hedged": self.units.iter().filter(|unit| unit.hedged).count(),
                "slowest": units,
            },
            "missing": { "count": self.missing.len(), "first": missing },
        })
    }
}

fn effort_json(effort: &Effort) -> impl Serialize {
    let Effort {
        took,
        fetch,
        scan,
        merge,
        known_datasets,
        memory_hits,
        memory_misses,
        disk_bytes,
        store_bytes,
        store_requests,
    } = *effort;
    json!({
        "millis": millis(took),
        "fetchMillis": millis(fetch),
        "scanMillis": millis(scan),
        "mergeMillis": millis(merge),
        "knownDatasets": known_datasets,
        "memoryHits": memory_hits,
        "memoryMisses": memory_misses,
        "diskBytes": disk_bytes,
        "storeBytes": store_bytes,
        "storeRequests": store_requests,
    })
}

/// With three digits after the point.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
