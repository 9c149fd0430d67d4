/// Requests to the object store, by operation and outcome.
#[derive(Clone, Default)]
pub struct Metrics {}
