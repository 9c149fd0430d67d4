//! Metrics of requests to the object store.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Counts each request on the wire: a retried read counts each time.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    bytes: Family<OperationLabels, Counter>,
    retries: Family<RetryLabels, Counter>,
    hedges: Family<HedgeLabels, Counter>,
    denied: Family<DeniedLabels, Gauge>,
    clock_ahead: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "a variant's name is the label's value")]
pub(crate) enum Operation {
    create,
    /// A whole object.
    get,
    /// A part of one.
    range,
    list,
    delete,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "a variant's name is the label's value")]
pub(crate) enum Outcome {
    ok,
    exists,
    not_found,
    timeout,
    throttled,
    denied,
    /// The caller stopped waiting, or the other request of a hedged read was answered first.
    cancelled,
    error,
}

/// Whether a request that failed was sent again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "a variant's name is the label's value")]
pub(crate) enum Retry {
    sent,
    /// Not sent: the budget of retries is used up.
    over_budget,
}

/// Outcome of the second request of a slow read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "a variant's name is the label's value")]
pub(crate) enum Hedge {
    /// Its answer was used.
    won,
    lost,
    /// Not sent: the budget of second requests is used up.
    over_budget,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    operation: Operation,
    /// First segment of the key: the kind of object.
    class: &'static str,
    outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OperationLabels {
    operation: Operation,
    class: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RetryLabels {
    operation: Operation,
    outcome: Retry,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct HedgeLabels {
    outcome: Hedge,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DeniedLabels {
    operation: Operation,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "pyrograph_storage_requests",
            "Requests to the object store by operation, kind of object and outcome",
            metrics.requests.clone(),
        );
        registry.register(
            "pyrograph_storage_request_duration_seconds",
            "Duration of one request to the object store, of any outcome",
            metrics.seconds.clone(),
        );
        registry.register(
            "pyrograph_storage_bytes",
            "Bytes of objects created and read",
            metrics.bytes.clone(),
        );
        registry.register(
            "pyrograph_storage_retries",
            "Failed requests to the object store that a retry may help, by whether it was sent",
            metrics.retries.clone(),
        );
        registry.register(
            "pyrograph_storage_hedges",
            "Second requests of slow reads: their answer won, it lost, or they were over budget and not sent",
            metrics.hedges.clone(),
        );
        registry.register(
            "pyrograph_storage_denied",
            "1 while the last request of the operation was refused for lack of permission",
            metrics.denied.clone(),
        );
        registry.register(
            "pyrograph_storage_clock_ahead_seconds",
            "How far the clock of this machine is ahead of that of the object store",
            metrics.clock_ahead.clone(),
        );
        metrics
    }

    pub(crate) fn request(
        &self,
        operation: Operation,
        key: &str,
        outcome: Outcome,
        took: Duration,
        bytes: u64,
    ) {
        let class = class(key);
        self.requests.get_or_create(&RequestLabels { operation, class, outcome }).inc();
        let labels = OperationLabels { operation, class };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if bytes > 0 {
            self.bytes.get_or_create(&labels).inc_by(bytes);
        }
        // Only a refusal creates the series: most stores never refuse.
        let labels = DeniedLabels { operation };
        if outcome == Outcome::denied {
            self.denied.get_or_create(&labels).set(1);
        } else if outcome == Outcome::ok
            && let Some(denied) = self.denied.get(&labels)
        {
            denied.set(0);
        }
    }

    /// Requests of one call beyond the one that [`Self::request`] counted.
    pub(crate) fn more_requests(&self, operation: Operation, key: &str, count: u64) {
        let labels = RequestLabels { operation, class: class(key), outcome: Outcome::ok };
        self.requests.get_or_create(&labels).inc_by(count);
    }

    pub(crate) fn retry(&self, operation: Operation, outcome: Retry) {
        self.retries.get_or_create(&RetryLabels { operation, outcome }).inc();
    }

    pub(crate) fn hedge(&self, outcome: Hedge) {
        self.hedges.get_or_create(&HedgeLabels { outcome }).inc();
    }

    pub(crate) fn clock_ahead(&self, millis: i64) {
        self.clock_ahead.set(millis as f64 / 1_000.0);
    }
}

impl Default for Metrics {
    /// Unregistered metrics.
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 16 s: from a warm local disk to a slow read; longer ones share the last bucket.
            seconds: Family::new_with_constructor(|| {
                Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)))
            }),
            bytes: Family::default(),
            retries: Family::default(),
            hedges: Family::default(),
            denied: Family::default(),
            clock_ahead: Gauge::default(),
        }
    }
}

/// A closed set, so that no key can add a time series.
fn class(key: &str) -> &'static str {
    match key.split('/').next().unwrap_or_default() {
        "log" => "log",
        "block" => "block",
        "publish" => "publish",
        "catalog" => "catalog",
        "setting" => "setting",
        "delete" => "delete",
        "cluster" => "cluster",
        "probe" => "probe",
        _ => "other",
    }
}
