//! The compactor's metrics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub(crate) struct Metrics {
    job_seconds: Family<LevelLabels, Histogram>,
    jobs: Counter,
    pub(crate) jobs_failed: Counter,
    pub(crate) input_bytes: Counter,
    pub(crate) output_bytes: Counter,
    pub(crate) objects_deleted: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LevelLabels {
    level: u8,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            // The buckets reach the time after which the job goes to another compactor.
            job_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.05, 2.0, 14))),
            jobs: Counter::default(),
            jobs_failed: Counter::default(),
            input_bytes: Counter::default(),
            output_bytes: Counter::default(),
            objects_deleted: Counter::default(),
        };
        registry.register(
            "pyrograph_compactor_job_duration_seconds",
            "Time from claiming a job until it was published, by the level of its outputs",
            metrics.job_seconds.clone(),
        );
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("pyrograph_compactor_{name}"), help, counter.clone());
        };
        counter("jobs", "Jobs merged and published", &metrics.jobs);
        counter("jobs_failed", "Attempts that were not finished", &metrics.jobs_failed);
        counter("input_bytes", "Bytes of the inputs of published jobs", &metrics.input_bytes);
        counter("output_bytes", "Bytes of the outputs of published jobs", &metrics.output_bytes);
        counter("objects_deleted", "Dead objects deleted from storage", &metrics.objects_deleted);
        metrics
    }

    pub(crate) fn merged(&self, level: u8, took: Duration) {
        self.jobs.inc();
        self.job_seconds.get_or_create(&LevelLabels { level }).observe(took.as_secs_f64());
    }
}
