//! The explanation of an answer, as JSON, for a client that asks for it.
//!
//! Owns: its content and its JSON. Does not own: when its parts are recorded (`trace`), how it is sent (`edge`).

use std::time::Duration;

use query::Stats;
use rpc::{Effort, Missing, PruneCounts, ScanAnswer, Snapshot};
use serde::Serialize;
use serde_json::{Value, json};

use crate::units::Unit;

/// How one query was answered, and the time and the reads that it took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanation {
    kind: &'static str,
    version: u64,
    epoch: u64,
    stale: Option<Duration>,
    objects: usize,
    datasets: usize,
    /// Estimate of the bytes to read.
    bytes: u64,
    pruned: Option<PruneCounts>,
    /// Whether the query ran more than once: its snapshot was too old, or it found no memory while others ran.
    started_over: bool,
    pub(crate) find: Duration,
    pub(crate) admit: Duration,
    pub(crate) scan: Duration,
    merge: Duration,
    took: Duration,
    stats: Stats,
    missing: Vec<Missing>,
    units: Vec<UnitExplanation>,
}

#[derive(Clone, Debug)]
pub(crate) struct UnitExplanation {
    /// Name of the leaf that answered; empty if none did.
    leaf: String,
    objects: usize,
    datasets: usize,
    bytes: u64,
    pub(crate) took: Duration,
    /// Error of the leaf that failed first, if the unit then depended on the other one.
    pub(crate) retried: Option<String>,
    /// Whether the second leaf was asked as well, because the first was slow.
    pub(crate) hedged: bool,
    effort: Effort,
}

impl UnitExplanation {
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

    pub(crate) fn answered(&mut self, leaf: &str, scanned: &ScanAnswer) {
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

impl Explanation {
    pub(crate) fn found(&mut self, snapshot: &Snapshot, bytes: u64) {
        self.version = snapshot.version;
        self.epoch = snapshot.epoch;
        self.stale = snapshot.stale;
        self.objects = snapshot.objects.len();
        self.datasets = snapshot.objects.iter().map(|object| object.datasets.len()).sum();
        self.bytes = bytes;
        self.pruned = snapshot.pruned;
    }

    /// Drops the units of the run that failed.
    pub(crate) fn start_over(&mut self) {
        self.started_over = true;
        self.units.clear();
    }

    pub(crate) fn unit(&mut self, unit: UnitExplanation, merge: Duration) {
        self.units.push(unit);
        self.merge += merge;
    }

    /// Sets the fields that are known only when the query is answered.
    pub(crate) fn complete(&mut self, kind: &'static str, took: Duration, stats: Stats, missing: &[Missing]) {
        self.kind = kind;
        self.took = took;
        self.stats = stats;
        self.missing = missing.to_vec();
    }

    /// `finish` is the time after merging: cutting, naming, encoding. Lists at most `listed` units, the slowest, and at
    /// most `listed` missing objects.
    pub(crate) fn json(&self, finish: Duration, listed: usize) -> Value {
        let mut effort = Effort::default();
        self.units.iter().for_each(|unit| effort.merge(&unit.effort));
        let mut slowest: Vec<&UnitExplanation> = self.units.iter().collect();
        slowest.sort_by_key(|unit| std::cmp::Reverse(unit.took));
        let units: Vec<Value> = slowest.iter().take(listed).map(|unit| unit.json()).collect();
        let missing = self.missing.iter().take(listed);
        let missing: Vec<Value> =
            missing.map(|object| json!({ "object": object.key.as_str(), "why": object.reason })).collect();
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

/// Milliseconds with three decimals.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
