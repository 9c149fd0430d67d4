use hashbrown::HashSet;
use model::TenantId;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Tenants with metrics of their own; later ones are counted together.
const TENANTS_MAX: usize = 1000;

/// The tenant label of those beyond. No tenant can have this name.
const OTHER_TENANTS: &str = "~other";

pub(crate) struct Metrics {
    received_wire_bytes: Family<Tenant, Counter>,
    received_bytes: Family<Tenant, Counter>,
    received_profiles: Family<Tenant, Counter>,
    received_samples: Family<Tenant, Counter>,
    discarded_profiles: Family<Discard, Counter>,
    discarded_bytes: Family<Discard, Counter>,
    pub(crate) inflight_bytes: Gauge,
    inflight_limit_bytes: Gauge,
    pub(crate) prepare_seconds: Histogram,
    pub(crate) push_seconds: Histogram,
    tenants: Mutex<HashSet<TenantId>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct Tenant {
    tenant: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Discard {
    reason: &'static str,
    tenant: String,
}

/// A profile that could be decoded.
pub(crate) struct Received {
    pub(crate) wire_bytes: usize,
    pub(crate) bytes: usize,
    pub(crate) samples: usize,
}

impl Metrics {
    pub(crate) fn new(inflight_bytes_max: usize, registry: &mut Registry) -> Self {
        let metrics = Self {
            received_wire_bytes: Family::default(),
            received_bytes: Family::default(),
            received_profiles: Family::default(),
            received_samples: Family::default(),
            discarded_profiles: Family::default(),
            discarded_bytes: Family::default(),
            inflight_bytes: Gauge::default(),
            inflight_limit_bytes: Gauge::default(),
            prepare_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            push_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            tenants: Mutex::default(),
        };
        metrics.inflight_limit_bytes.set(inflight_bytes_max as i64);
        metrics.register(registry.sub_registry_with_prefix("pyrograph_distributor"));
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "received_wire",
            "Bytes of profiles as clients sent them, mostly compressed",
            Unit::Bytes,
            self.received_wire_bytes.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of profiles after decompression",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
        registry.register(
            "received_profiles",
            "Profiles that could be decoded",
            self.received_profiles.clone(),
        );
        registry.register(
            "received_samples",
            "Samples of profiles that could be decoded",
            self.received_samples.clone(),
        );
        registry.register(
            "discarded_profiles",
            "Profiles that were refused or had nothing to count, by reason",
            self.discarded_profiles.clone(),
        );
        registry.register_with_unit(
            "discarded",
            "Bytes of profiles that were refused or had nothing to count, by reason",
            Unit::Bytes,
            self.discarded_bytes.clone(),
        );
        registry.register_with_unit(
            "inflight",
            "Bytes of decoded profiles that are not durable yet",
            Unit::Bytes,
            self.inflight_bytes.clone(),
        );
        registry.register_with_unit(
            "inflight_limit",
            "Bytes of decoded profiles that may be in flight; more are refused",
            Unit::Bytes,
            self.inflight_limit_bytes.clone(),
        );
        registry.register_with_unit(
            "prepare",
            "Time to decode, check and split the profiles of one request, waiting for a thread included",
            Unit::Seconds,
            self.prepare_seconds.clone(),
        );
        registry.register_with_unit(
            "push",
            "Time from a complete request until its profiles are durable",
            Unit::Seconds,
            self.push_seconds.clone(),
        );
    }

    pub(crate) fn received(&self, tenant: &TenantId, received: Received) {
        let tenant = Tenant { tenant: self.label_of(tenant) };
        let add = |family: &Family<Tenant, Counter>, count: usize| {
            family.get_or_create(&tenant).inc_by(count as u64);
        };
        add(&self.received_wire_bytes, received.wire_bytes);
        add(&self.received_bytes, received.bytes);
        add(&self.received_profiles, 1);
        add(&self.received_samples, received.samples);
    }

    /// `bytes` are those known when it happened: on the wire if it could not be decompressed.
    pub(crate) fn discarded(&self, tenant: &TenantId, reason: &'static str, bytes: usize) {
        let discard = Discard { reason, tenant: self.label_of(tenant) };
        self.discarded_profiles.get_or_create(&discard).inc();
        self.discarded_bytes.get_or_create(&discard).inc_by(bytes as u64);
    }

    fn label_of(&self, tenant: &TenantId) -> String {
        let mut tenants = self.tenants.lock();
        if !tenants.contains(tenant) {
            if tenants.len() >= TENANTS_MAX {
                return OTHER_TENANTS.to_owned();
            }
            tenants.insert(tenant.clone());
        }
        tenant.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_limit_are_counted_together() {
        let metrics = Metrics::new(1, &mut Registry::default());
        for i in 0..TENANTS_MAX + 5 {
            metrics.discarded(&TenantId::parse(&format!("t{i}")).unwrap(), "rate_limited", 2);
        }
        let discard = Discard { reason: "rate_limited", tenant: OTHER_TENANTS.to_owned() };
        assert_eq!(metrics.discarded_profiles.get_or_create(&discard).get(), 5);
        assert_eq!(metrics.discarded_bytes.get_or_create(&discard).get(), 10);
    }
}
