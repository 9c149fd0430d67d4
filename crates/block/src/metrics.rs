//! Metrics of the memory tier of the cache.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::Cache;

/// Reads the counters of a cache when the metrics are scraped.
pub(crate) struct CacheMetrics(pub(crate) Cache);

impl Collector for CacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, value: &dyn EncodeMetric| {
            let name = format!("pyrograph_block_cache_{name}");
            value.encode(encoder.encode_descriptor(&name, help, None, value.metric_type())?)
        };
        let (hits, misses) = self.0.hits_and_misses();
        show("hits", "Lookups of decoded parts of objects that hit", &ConstCounter::new(hits))?;
        show("misses", "Lookups of decoded parts of objects that missed", &ConstCounter::new(misses))?;
        show("bytes", "Bytes of decoded parts in the cache", &ConstGauge::new(self.0.byte_len() as i64))?;
        show("limit_bytes", "Most bytes in the cache", &ConstGauge::new(self.0.bytes_max() as i64))
    }
}

impl fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheMetrics")
    }
}
