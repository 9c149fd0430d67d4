use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Requests, connections and bodies of one listener.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram>,
    pub(crate) requests_in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) bodies_bytes: Gauge,
    pub(crate) answers_bytes: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: Arc<str>,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: Arc<str>,
}

/// Bounds of the buckets, in seconds.
const DURATIONS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            requests_in_flight: Gauge::default(),
            connections: Gauge::default(),
            bodies_bytes: Gauge::default(),
            answers_bytes: Gauge::default(),
        };
        registry.register("pyrograph_edge_requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "pyrograph_edge_request_duration_seconds",
            "Time from the headers of a request to the headers of its answer",
            metrics.durations.clone(),
        );
        registry.register(
            "pyrograph_edge_requests_in_flight",
            "Requests being answered",
            metrics.requests_in_flight.clone(),
        );
        registry.register("pyrograph_edge_connections", "Open connections", metrics.connections.clone());
        registry.register(
            "pyrograph_edge_bodies_bytes",
            "Bytes of memory of the bodies of requests in flight",
            metrics.bodies_bytes.clone(),
        );
        registry.register(
            "pyrograph_edge_answers_bytes",
            "Bytes of answers that clients have not read to the end",
            metrics.answers_bytes.clone(),
        );
        metrics
    }

    pub(crate) fn answered(
        &self,
        route: Arc<str>,
        method: &http::Method,
        status: http::StatusCode,
        took: Duration,
    ) {
        self.durations.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        let request = Request { route, method: method_name(method), status: status.as_u16() };
        self.requests.get_or_create(&request).inc();
    }
}

/// Label value of a method: a bounded set, although clients may send any method.
fn method_name(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
