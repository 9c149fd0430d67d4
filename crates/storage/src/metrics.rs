use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Requests to the object store, as they went over the wire: a retried read counts each time.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    bytes: Family<OperationLabels, Counter>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "a variant's name is the label's value")]
pub(crate) enum Operation {
    create,
    get,
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
    error,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    operation: Operation,
    /// First segment of the key: what kind of object was asked for.
    class: &'static str,
    outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OperationLabels {
    operation: Operation,
    class: &'static str,
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
            "Time that one request to the object store took, whatever its outcome",
            metrics.seconds.clone(),
        );
        registry.register(
            "pyrograph_storage_bytes",
            "Bytes of objects created and read",
            metrics.bytes.clone(),
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
    }
}

impl Default for Metrics {
    /// Metrics that nobody collects.
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // 1 ms to 16 s: from a warm local disk to the longest attempt.
            seconds: Family::new_with_constructor(|| {
                Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)))
            }),
            bytes: Family::default(),
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
        _ => "other",
    }
}
