//! The distributor's metrics.
//!
//! Owns: which tenants have metrics under their own name, so that invented tenants cannot grow the export.

use std::time::Duration;

use clock::Clock;
use hashbrown::HashMap;
use model::TenantId;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::receipt::DiscardCounts;

/// Most tenants with metrics under their own name; others are counted together.
const TENANTS_MAX: usize = 1000;

/// A tenant without pushes for this long may be replaced by one that pushes. Shorter: a flood of invented tenants
/// costs pausing real ones their metrics. Longer: after the flood, real tenants are kept out for longer.
const TENANT_IDLE: Duration = Duration::from_secs(600);

/// The tenant label of tenants without their own metrics. No tenant can have this name.
const OTHER_TENANTS: &str = "~other";

pub(crate) struct Metrics {
    received_wire_bytes: Family<TenantLabels, Counter>,
    received_bytes: Family<TenantLabels, Counter>,
    received_profiles: Family<TenantLabels, Counter>,
    received_samples: Family<TenantLabels, Counter>,
    discarded_profiles: Family<DiscardLabels, Counter>,
    discarded_bytes: Family<DiscardLabels, Counter>,
    discarded_samples: Family<DiscardLabels, Counter>,
    pub(crate) inflight_bytes: Gauge,
    inflight_limit_bytes: Gauge,
    pub(crate) prepare_seconds: Histogram,
    pub(crate) push_seconds: Histogram,
    clock: Clock,
    /// The tenants with their own metrics.
    tenants: Mutex<HashMap<TenantId, TenantEntry>>,
}

/// A tenant with its own metrics.
struct TenantEntry {
    /// Monotonic time of the last push.
    used: Duration,
    /// Reasons for which its profiles were discarded; each has metrics.
    reasons: Vec<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct TenantLabels {
    tenant: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct DiscardLabels {
    reason: &'static str,
    tenant: String,
}

/// The size of a decoded profile.
pub(crate) struct DocumentSize {
    pub(crate) wire_bytes: usize,
    pub(crate) bytes: usize,
    pub(crate) samples: usize,
}

impl Metrics {
    pub(crate) fn new(inflight_bytes_max: usize, clock: Clock, registry: &mut Registry) -> Self {
        let metrics = Self {
            received_wire_bytes: Family::default(),
            received_bytes: Family::default(),
            received_profiles: Family::default(),
            received_samples: Family::default(),
            discarded_profiles: Family::default(),
            discarded_bytes: Family::default(),
            discarded_samples: Family::default(),
            inflight_bytes: Gauge::default(),
            inflight_limit_bytes: Gauge::default(),
            prepare_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            push_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            clock,
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
        registry.register(
            "discarded_samples",
            "Samples, or lines of text, that were left out of profiles that were accepted, by reason",
            self.discarded_samples.clone(),
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

    pub(crate) fn received(&self, tenant: &TenantId, size: DocumentSize) {
        let mut tenants = self.tenants.lock();
        let tenant = TenantLabels { tenant: self.label_of(&mut tenants, tenant, None) };
        let add = |family: &Family<TenantLabels, Counter>, count: usize| {
            family.get_or_create(&tenant).inc_by(count as u64);
        };
        add(&self.received_wire_bytes, size.wire_bytes);
        add(&self.received_bytes, size.bytes);
        add(&self.received_profiles, 1);
        add(&self.received_samples, size.samples);
    }

    /// `bytes` is the size of the content, or on the wire if the profile was not decoded.
    pub(crate) fn discarded(&self, tenant: &TenantId, reason: &'static str, bytes: usize) {
        let mut tenants = self.tenants.lock();
        let discard = DiscardLabels { reason, tenant: self.label_of(&mut tenants, tenant, Some(reason)) };
        self.discarded_profiles.get_or_create(&discard).inc();
        self.discarded_bytes.get_or_create(&discard).inc_by(bytes as u64);
    }

    /// Counts the samples that were left out of an accepted profile.
    pub(crate) fn discarded_samples(&self, tenant: &TenantId, discarded: &DiscardCounts) {
        if discarded.is_empty() {
            return;
        }
        let mut tenants = self.tenants.lock();
        for (reason, samples) in discarded.iter() {
            let reason = reason.name();
            let discard = DiscardLabels { reason, tenant: self.label_of(&mut tenants, tenant, Some(reason)) };
            self.discarded_samples.get_or_create(&discard).inc_by(samples as u64);
        }
    }

    /// The value of label `tenant`. The caller updates the metrics while `tenants` is locked, so that no metric
    /// outlives its entry.
    fn label_of(
        &self,
        tenants: &mut HashMap<TenantId, TenantEntry>,
        tenant: &TenantId,
        reason: Option<&'static str>,
    ) -> String {
        let now = self.clock.monotonic();
        if !tenants.contains_key(tenant) {
            if tenants.len() >= TENANTS_MAX && !self.evict_idle(tenants, now) {
                return OTHER_TENANTS.to_owned();
            }
            tenants.insert(tenant.clone(), TenantEntry { used: now, reasons: Vec::new() });
        }
        if let Some(entry) = tenants.get_mut(tenant) {
            entry.used = now;
            entry.reasons.extend(reason.filter(|reason| !entry.reasons.contains(reason)));
        }
        tenant.as_str().to_owned()
    }

    /// Removes the tenant that has been idle for longest, with its metrics. False if it was idle for less than
    /// [`TENANT_IDLE`].
    fn evict_idle(&self, tenants: &mut HashMap<TenantId, TenantEntry>, now: Duration) -> bool {
        let oldest = tenants.iter().min_by_key(|(_, entry)| entry.used);
        let oldest = oldest.filter(|(_, entry)| now.saturating_sub(entry.used) >= TENANT_IDLE);
        let Some(tenant) = oldest.map(|(tenant, _)| tenant.clone()) else {
            return false;
        };
        let reasons = tenants.remove(&tenant).map(|entry| entry.reasons).unwrap_or_default();
        let tenant = tenant.as_str().to_owned();
        for reason in reasons {
            let discard = DiscardLabels { reason, tenant: tenant.clone() };
            self.discarded_profiles.remove(&discard);
            self.discarded_bytes.remove(&discard);
            self.discarded_samples.remove(&discard);
        }
        let label = TenantLabels { tenant };
        for family in
            [&self.received_wire_bytes, &self.received_bytes, &self.received_profiles, &self.received_samples]
        {
            family.remove(&label);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use clock::Source;

    use super::*;

    #[derive(Clone, Default)]
    struct Time(std::sync::Arc<std::sync::atomic::AtomicU64>);

    impl Time {
        fn pass(&self, time: Duration) {
            self.0.fetch_add(time.as_secs(), std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Source for Time {
        fn unix(&self) -> Duration {
            self.monotonic()
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(std::sync::atomic::Ordering::SeqCst))
        }

        async fn sleep(&self, _: Duration) {}

        fn random(&self) -> u128 {
            7
        }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn tenants_beyond_the_limit_are_counted_together_until_others_are_idle() {
        let (time, mut registry) = (Time::default(), Registry::default());
        let metrics = Metrics::new(1, Clock::new(time.clone()), &mut registry);
        let exported = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let received = || DocumentSize { wire_bytes: 1, bytes: 1, samples: 1 };
        metrics.received(&tenant("early"), received());
        for i in 1..TENANTS_MAX {
            metrics.discarded(&tenant(&format!("invented-{i}")), "rate_limited", 2);
        }
        for i in 0..5 {
            metrics.discarded(&tenant(&format!("late-{i}")), "rate_limited", 2);
        }
        let discard = DiscardLabels { reason: "rate_limited", tenant: OTHER_TENANTS.to_owned() };
        assert_eq!(metrics.discarded_profiles.get_or_create(&discard).get(), 5);
        assert_eq!(metrics.discarded_bytes.get_or_create(&discard).get(), 10);

        time.pass(TENANT_IDLE - Duration::from_secs(1));
        metrics.received(&tenant("early"), received());
        metrics.received(&tenant("real"), received());
        assert!(!exported(&registry).contains("real"), "no tenant has been idle for long enough");
        time.pass(Duration::from_secs(1));
        let lines = exported(&registry).lines().count();
        metrics.received(&tenant("real"), received());
        let text = exported(&registry);
        assert!(text.contains(r#"received_profiles_total{tenant="real"} 1"#));
        assert!(text.contains(r#"received_profiles_total{tenant="early"} 2"#));
        let left = (1..TENANTS_MAX).filter(|i| text.contains(&format!("\"invented-{i}\"")));
        assert_eq!(left.count(), TENANTS_MAX - 2);
        assert_eq!(text.lines().count(), lines - 2 + 4, "an idle tenant leaves no metric behind");
        assert_eq!(metrics.tenants.lock().len(), TENANTS_MAX);
    }
}
