//! Limits per tenant.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::TenantId;

use crate::Limits;

/// The limits in force of each tenant. They may be replaced while the server runs.
pub struct Overrides(ArcSwap<Table>);

struct Table {
    default: Arc<Limits>,
    tenants: HashMap<TenantId, Arc<Limits>>,
}

impl Overrides {
    /// The same limits for every tenant.
    pub fn uniform(limits: Limits) -> Self {
        Self::new(limits, HashMap::new())
    }

    /// The limits of `tenants`, and `default` for every other tenant.
    pub fn new(default: Limits, tenants: HashMap<TenantId, Limits>) -> Self {
        Self(ArcSwap::from_pointee(Table::new(default, tenants)))
    }

    /// Replaces all limits atomically; limits that [`Self::of`] has returned do not change.
    pub fn replace(&self, default: Limits, tenants: HashMap<TenantId, Limits>) {
        self.0.store(Arc::new(Table::new(default, tenants)));
    }

    pub fn of(&self, tenant: &TenantId) -> Arc<Limits> {
        let table = self.0.load();
        table.tenants.get(tenant).unwrap_or(&table.default).clone()
    }
}

impl Table {
    fn new(default: Limits, tenants: HashMap<TenantId, Limits>) -> Self {
        let tenants = tenants.into_iter().map(|(tenant, limits)| (tenant, Arc::new(limits)));
        Self { default: Arc::new(default), tenants: tenants.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_without_limits_of_its_own_has_the_defaults() {
        let own = Limits { ingestion_rate_mb: 100.0, ..Limits::default() };
        let loud = TenantId::parse("loud").unwrap();
        let overrides = Overrides::new(Limits::default(), HashMap::from([(loud.clone(), own)]));
        assert_eq!(overrides.of(&loud).ingestion_rate_mb, 100.0);
        assert_eq!(overrides.of(&TenantId::anonymous()).ingestion_rate_mb, 4.0);

        overrides.replace(Limits::default(), HashMap::new());
        assert_eq!(overrides.of(&loud).ingestion_rate_mb, 4.0);
    }
}
