use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) jobs: Counter,
    pub(crate) jobs_failed: Counter,
    pub(crate) input_bytes: Counter,
    pub(crate) output_bytes: Counter,
    pub(crate) objects_deleted: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
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
}
