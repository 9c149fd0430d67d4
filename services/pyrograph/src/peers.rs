//! The roles of other processes: members of the cluster, and clients that call them.
//!
//! Owns: this process as a member of its cluster, static addresses as members, connections.
//! Does not own: how members find one another and are chosen (`cluster`), how a role is called (`rpc::grpc`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clock::{Clock, Pool};
use cluster::{Callers, FixedMembers, Gossip, Member, Membership, Role};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use querier::{Leaves, NamedLeaf};
use rpc::grpc::{IngesterClient, LeafClient, MetastoreClient, Peer};
use rpc::{Ingester, Leaf, Metastore};
use tokio::sync::watch;

use crate::config::Config;
use crate::targets::Targets;

/// The cluster, as this process sees it.
pub(crate) struct Peers {
    /// The node id of this process.
    pub(crate) node: String,
    pub(crate) zone: String,
    pub(crate) membership: Arc<dyn Membership>,
    gossip: Option<Arc<Gossip>>,
    own: Arc<OwnRoles>,
    clock: Clock,
    pool: Pool,
}

/// Roles of this process, called without a network.
#[derive(Default)]
pub(crate) struct OwnRoles {
    pub(crate) metastore: OnceLock<Arc<dyn Metastore>>,
    pub(crate) ingester: OnceLock<Arc<dyn Ingester>>,
    pub(crate) leaf: OnceLock<Arc<dyn Leaf>>,
}

impl Peers {
    /// Joins the cluster, by gossip if seeds are configured. Other processes call this one at `address`; a host is
    /// added if it has none.
    ///
    /// # Errors
    /// A needed role is neither run by this process nor configured, or gossip cannot start.
    pub(crate) async fn join(
        config: &Config,
        targets: &Targets,
        address: String,
        clock: &Clock,
        pool: &Pool,
        registry: &mut Registry,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let node = format!("{:032x}", clock.random());
        let name = match config.memberlist.node_name.trim() {
            "" => hostname(),
            name => name.to_owned(),
        };
        let me = Member {
            node: node.clone(),
            name,
            zone: config.instance.zone.clone(),
            roles: targets.roles().collect(),
            address,
            started_millis: clock.unix_millis(),
            ..Member::new("", [])
        };
        let zone = me.zone.clone();
        let (membership, gossip): (Arc<dyn Membership>, _) = if config.gossips() {
            let gossip = Gossip::start(&config.memberlist, me, clock.clone(), registry).await?;
            (gossip.clone(), Some(gossip))
        } else {
            (Arc::new(FixedMembers::new(node.as_str(), named(config, targets, me)?)), None)
        };
        let (clock, pool) = (clock.clone(), pool.clone());
        Ok(Self { node, zone, membership, gossip, own: Arc::default(), clock, pool })
    }

    /// Whether members may come and go.
    pub(crate) fn discovers(&self) -> bool {
        self.gossip.is_some()
    }

    /// The slots for the roles of this process, filled once they are built.
    pub(crate) fn own(&self) -> &OwnRoles {
        &self.own
    }

    pub(crate) fn metastores(&self) -> Callers<dyn Metastore> {
        let dial = self.dial(
            None,
            |own| own.metastore.get().cloned(),
            |peer| Arc::new(MetastoreClient::new(peer)) as _,
        );
        Callers::new(&*self.membership, dial)
    }

    /// Clients of the ingesters; a push may take `timeout`.
    pub(crate) fn ingesters(&self, timeout: Duration) -> Callers<dyn Ingester> {
        let dial = self.dial(
            Some(timeout),
            |own| own.ingester.get().cloned(),
            |peer| Arc::new(IngesterClient::new(peer)) as _,
        );
        Callers::new(&*self.membership, dial)
    }

    /// Clients of the leaves; a scan may take `timeout`.
    pub(crate) fn leaves(&self, timeout: Duration) -> Arc<dyn Leaves> {
        let dial = self.dial(
            Some(timeout),
            |own| own.leaf.get().cloned(),
            |peer| Arc::new(LeafClient::new(peer)) as _,
        );
        let callers = Callers::new(&*self.membership, dial);
        Arc::new(LiveLeaves { callers, known: Mutex::default() })
    }

    fn dial<T: ?Sized>(
        &self,
        timeout: Option<Duration>,
        own: impl Fn(&OwnRoles) -> Option<Arc<T>> + Send + Sync + 'static,
        client: impl Fn(Peer) -> Arc<T> + Send + Sync + 'static,
    ) -> impl Fn(&Member) -> Option<Arc<T>> + Send + Sync + 'static {
        let (node, roles) = (self.node.clone(), self.own.clone());
        let (clock, pool) = (self.clock.clone(), self.pool.clone());
        let mut config = rpc::grpc::Config::default();
        // A timeout of 0 means the default.
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
            config.timeout = timeout;
        }
        move |member| {
            if member.node == node {
                return own(&roles);
            }
            let peer = Peer::new(&member.address, config.clone(), clock.clone(), pool.clone());
            peer.ok().filter(|_| !member.address.is_empty()).map(&client)
        }
    }

    /// Publishes the open logs of this process to the cluster, now and whenever they change.
    pub(crate) fn publish_writers(&self, mut writers: watch::Receiver<Vec<model::WriterId>>) {
        let membership = self.membership.clone();
        self.clock.spawn_vital("open logs of this process", async move {
            loop {
                let open = writers.borrow_and_update().clone();
                membership.set_writers(open);
                if writers.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Asks the other members to stop choosing this process.
    pub(crate) async fn leave(&self) {
        self.membership.leave().await;
    }

    /// Leaves the cluster.
    pub(crate) async fn stop(&self) {
        if let Some(gossip) = &self.gossip {
            gossip.stop().await;
        }
    }
}

/// The leaves among the members.
struct LiveLeaves {
    callers: Callers<dyn Leaf>,
    /// The members of the last listing, and their leaves.
    known: Mutex<(Arc<[Member]>, Arc<[NamedLeaf]>)>,
}

impl Leaves for LiveLeaves {
    fn leaves(&self) -> Arc<[NamedLeaf]> {
        let members = self.callers.members();
        let mut known = self.known.lock();
        if Arc::ptr_eq(&known.0, &members) && !known.1.is_empty() {
            return known.1.clone();
        }
        let all = self.callers.all(Role::Querier);
        let staying = all.iter().any(|(member, _)| !member.is_leaving);
        let chosen = all.into_iter().filter(|(member, _)| !(staying && member.is_leaving));
        // Objects are assigned to leaves by name, which survives a restart. Where two members share a name, node ids
        // differ.
        let mut leaves: BTreeMap<String, Arc<dyn Leaf>> = BTreeMap::new();
        for (member, leaf) in chosen {
            let name = if leaves.contains_key(&member.name) { member.node } else { member.name };
            leaves.insert(name, leaf);
        }
        *known = (members, leaves.into_iter().collect());
        known.1.clone()
    }
}

/// This process and the ones at static addresses: a fixed list of members.
fn named(config: &Config, targets: &Targets, mut me: Member) -> Result<Vec<Member>, String> {
    let peers = &config.peers;
    let split = |addresses: &'static str, text: &str| -> Vec<(&'static str, String)> {
        let all = text.split(',').map(str::trim).filter(|address| !address.is_empty());
        all.map(|address| (addresses, address.to_owned())).collect()
    };
    let missing = |role: &str, flag: &str| {
        Err(format!(
            "this process runs no {role}: add it to -target, say with -{flag} where one is, or with \
             -memberlist.join where some process of the cluster is"
        ))
    };
    let mut named: Vec<(Role, Vec<(&str, String)>)> = Vec::new();
    if !targets.has(Role::Metastore) {
        let metastores = split("metastore.address", &peers.metastore_address);
        let needed = [Role::Ingester, Role::Querier, Role::Compactor].iter().any(|role| targets.has(*role));
        if metastores.is_empty() && needed {
            return missing("metastore", "metastore.address");
        }
        named.push((Role::Metastore, metastores));
    }
    if targets.has(Role::Distributor) && !targets.has(Role::Ingester) {
        let ingesters = split("distributor.ingester-addresses", &peers.ingester_addresses);
        if ingesters.is_empty() {
            return missing("ingester", "distributor.ingester-addresses");
        }
        named.push((Role::Ingester, ingesters));
    }
    let leaves = split("querier.leaf-addresses", &peers.leaf_addresses);
    if !leaves.is_empty() {
        // The list contains this process if it scans as well.
        me.roles.remove(&Role::Querier);
        named.push((Role::Querier, leaves));
    }
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for (role, addresses) in named {
        for (flag, address) in addresses {
            if http::uri::Authority::try_from(address.as_str()).is_err() {
                return Err(format!("-{flag}: address {address:?} is not <host>:<port>"));
            }
            let member = Member { address: address.clone(), ..Member::new(address.as_str(), []) };
            members.entry(address).or_insert(member).roles.insert(role);
        }
    }
    Ok(members.into_values().chain([me]).collect())
}

fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, set: impl Fn(&mut Config)) -> Result<String, String> {
        let mut config = Config::default();
        set(&mut config);
        let targets = Targets::parse(target).unwrap();
        let me = Member::new("me", targets.roles());
        let members = named(&config, &targets, me)?;
        let shown = members.iter().map(|member| {
            let roles: Vec<&str> = member.roles.iter().map(|role| role.name()).collect();
            format!("{}: {}", member.node, roles.join(","))
        });
        Ok(shown.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn static_addresses_are_members_and_every_needed_role_must_have_one() {
        let all = "me: distributor,ingester,metastore,compactor,querier";
        assert_eq!(check("all", |_| ()).as_deref(), Ok(all));
        let error = check("distributor", |_| ()).unwrap_err();
        assert!(error.contains("-distributor.ingester-addresses"), "{error}");
        assert!(check("compactor", |_| ()).unwrap_err().contains("-metastore.address"));
        let apart = check("querier,distributor", |config| {
            config.peers.metastore_address = "m:1".into();
            config.peers.ingester_addresses = "a:1, b:1".into();
            config.peers.leaf_addresses = "a:1,c:1".into();
        });
        let expected = "a:1: ingester,querier; b:1: ingester; c:1: querier; m:1: metastore; me: distributor";
        assert_eq!(apart.as_deref(), Ok(expected));
        let error =
            check("distributor", |config| config.peers.ingester_addresses = "a b".into()).unwrap_err();
        assert!(error.contains("not <host>:<port>"), "{error}");
    }
}
