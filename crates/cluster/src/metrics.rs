use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::{Member, Role};

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    members: Family<OfRole, Gauge>,
    pub(crate) strangers: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfRole {
    role: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "pyrograph_cluster_members",
            "Live processes that have a role and do not leave, as this one sees them",
            metrics.members.clone(),
        );
        registry.register(
            "pyrograph_cluster_strangers",
            "Datagrams of other clusters that were ignored",
            metrics.strangers.clone(),
        );
        metrics
    }

    pub(crate) fn members(&self, members: &[Member]) {
        for role in Role::ALL {
            let count = members.iter().filter(|member| member.has(role) && !member.is_leaving).count();
            self.members.get_or_create(&OfRole { role: role.name() }).set(count as i64);
        }
    }
}
