use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::Cache;

/// Reads the numbers of a cache when they are asked for.
pub(crate) struct CacheMetrics(pub(crate) Cache);

impl Collector for CacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, value: &dyn EncodeMetric| {
            let name = format!("pyrograph_block_cache_{name}");
            value.encode(encoder.encode_descriptor(&name, help, None, value.metric_type())?)
        };
        let (hits, misses) = self.0.hits_and_misses();
        show("hits", "Parts of objects that the cache held, decoded", &ConstCounter::new(hits))?;
        show("misses", "Parts of objects that the cache did not hold", &ConstCounter::new(misses))?;
        show("bytes", "Memory of what the cache holds", &ConstGauge::new(self.0.byte_len() as i64))?;
        show("limit_bytes", "Memory that the cache may hold", &ConstGauge::new(self.0.bytes_max() as i64))
    }
}

impl fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheMetrics")
    }
}
