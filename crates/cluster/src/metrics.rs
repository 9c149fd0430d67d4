use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::{Member, Role};

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    members: Family<RoleLabel, Gauge>,
    pub(crate) strangers: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "pyrograph_cluster_members",
            "Live processes with a role that are not leaving, as this process sees them",
            metrics.members.clone(),
        );
        registry.register(
            "pyrograph_cluster_strangers",
            "Ignored datagrams of other clusters",
            metrics.strangers.clone(),
        );
        metrics
    }

    pub(crate) fn members(&self, members: &[Member]) {
        for role in Role::ALL {
            let count = members.iter().filter(|member| member.has(role) && !member.is_leaving).count();
            self.members.get_or_create(&RoleLabel { role: role.name() }).set(count as i64);
        }
    }
}
