//! Membership by gossip: several times a second, every process sends its knowledge of all members to some of them.
//!
//! Owns: the UDP port, finding the first members (`seeds`), the published state of a process, when a silent process
//! counts as dead. Does not own: the choice of members.
//!
//! Only this part of the cluster has a clock and randomness of its own (those of `chitchat`): repeatable tests use
//! [`crate::Fixed`] instead.

mod datagrams;
pub(crate) mod seeds;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::{Socket, UdpSocket};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion,
    spawn_chitchat,
};
use clock::Clock;
use futures::future::BoxFuture;
use model::WriterId;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::{Config, Member, Membership, Role};

use datagrams::Datagrams;
use seeds::Seeds;

/// Interval between rounds of gossip; each reaches three other members.
const INTERVAL: Duration = Duration::from_millis(250);
/// Longer intervals between messages of a process do not count in the failure detector's estimate.
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// With a window of one interval, which weighs a sixth, the detector's limit is five times half a second plus the last
/// interval: 2.5 to 3.5 s of silence. A pause of one second passes; a dead process is gone within four.
const SILENCE_FACTOR: f64 = 6.0;
const INTERVAL_EXPECTED: Duration = Duration::from_millis(500);
/// Time that a dead process is remembered, and contacted occasionally: it may only have been cut off.
const DEAD_REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Wait after an urgent change, so that it reaches the other members.
const HEARD_AFTER: Duration = Duration::from_millis(500);
/// Ids of logs per value: about a kilobyte, so that a value always fits in a datagram with others.
const WRITERS_PER_VALUE: usize = 30;
/// Number of values with ids of logs; a process has one open log and a few that it has just closed.
const WRITER_VALUES_MAX: usize = 8;

/// States that a process publishes.
const SERVING: &str = "serving";
const LEAVING: &str = "leaving";
const LEFT: &str = "left";

/// Why gossip cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    #[error("memberlist.{name} {value:?} is not an IP address")]
    Address { name: &'static str, value: String },
    #[error("cannot gossip at {address} over UDP: {reason}")]
    Bind { address: SocketAddr, reason: String },
}

/// Membership of this process in a cluster, by gossip.
pub struct Gossip {
    handle: ChitchatHandle,
    clock: Clock,
    members: watch::Receiver<Arc<[Member]>>,
    own: watch::Sender<OwnState>,
}

/// The changing part of the state that this process publishes.
struct OwnState {
    writers: Vec<WriterId>,
    state: &'static str,
}

impl Gossip {
    /// Starts gossip as the member `me`. The host of its address becomes the advertised one, if `config` sets that or
    /// the address is only a port (`:9095`).
    ///
    /// # Errors
    /// An invalid address, or a port in use. Unreachable seeds are not an error.
    pub async fn start(
        config: &Config,
        mut me: Member,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, GossipError> {
        let bind = address_of(&config.bind_addr, "bind-addr")?.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let address = SocketAddr::new(bind, config.bind_port);
        let failed = |error: anyhow::Error| GossipError::Bind { address, reason: format!("{error:#}") };
        let socket = UdpSocket::open(address).await.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        let configured = address_of(&config.advertise_addr, "advertise-addr")?;
        let host = match configured {
            Some(host) => host,
            None if !bind.is_unspecified() => bind,
            None => own_address(),
        };
        let port = if config.advertise_port == 0 { local.port() } else { config.advertise_port };
        let advertised = SocketAddr::new(host, port);
        let called = me.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        if let Some((own_host, port)) = called
            && (own_host.is_empty() || configured.is_some())
        {
            me.address = SocketAddr::new(host, port).to_string();
        }

        let metrics = Metrics::register(registry);
        let datagrams = Datagrams::new(socket, &config.cluster_label, clock.clone(), metrics.clone());
        let chitchat = ChitchatConfig {
            chitchat_id: ChitchatId::new(me.node.as_str(), 0, advertised),
            cluster_id: datagrams.label().to_owned(),
            gossip_interval: INTERVAL,
            listen_addr: local,
            // `Seeds` contacts the seeds, sooner and more often than chitchat does.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: SILENCE_FACTOR,
                sampling_window_size: 1,
                max_interval: INTERVAL_MAX,
                initial_interval: INTERVAL_EXPECTED,
                dead_node_grace_period: DEAD_REMEMBERED,
            },
            marked_for_deletion_grace_period: DEAD_REMEMBERED,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let handle = spawn_chitchat(chitchat, initial_values(&me), &datagrams).await.map_err(failed)?;
        info!(node = %me.node, name = %me.name, at = %advertised, called_at = %me.address, "gossips");

        let (published, members) = watch::channel(Arc::from([me.clone()]));
        let (own, changes) = watch::channel(OwnState { writers: me.writers.clone(), state: SERVING });
        let gossip = Arc::new(Self { handle, clock: clock.clone(), members, own });
        gossip.follow(published, me, metrics).await;
        gossip.publish(changes);
        gossip.end_with_chitchat();
        let port = if config.bind_port == 0 { Config::default().bind_port } else { config.bind_port };
        let seeds = Seeds::new(&config.join_members, port, advertised, clock.clone());
        clock.spawn(seeds.run(Arc::downgrade(&gossip)));
        Ok(gossip)
    }

    /// Announces that this process is gone, and stops gossip.
    pub async fn stop(&self) {
        self.own.send_replace(OwnState { writers: Vec::new(), state: LEFT });
        self.announce(LEFT).await;
        self.clock.sleep(INTERVAL).await;
        let _ = self.handle.initiate_shutdown();
    }

    /// Updates `members` from chitchat's live nodes. `me` is always a member.
    async fn follow(&self, members: watch::Sender<Arc<[Member]>>, me: Member, metrics: Metrics) {
        let mut live = self.handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        self.clock.spawn_vital("membership", async move {
            while live.changed().await.is_ok() {
                let now = members_of(&live.borrow_and_update(), &me);
                let before = members.borrow().clone();
                if before == now {
                    continue;
                }
                for member in now.iter().filter(|member| !has(&before, member)) {
                    info!(node = %member.node, name = %member.name, address = %member.address, "has come");
                }
                for member in before.iter().filter(|member| !has(&now, member)) {
                    info!(node = %member.node, name = %member.name, address = %member.address, "is gone");
                }
                metrics.members(&now);
                members.send_replace(now);
            }
        });
    }

    /// Publishes changes of this process's own state.
    fn publish(&self, mut changes: watch::Receiver<OwnState>) {
        let chitchat = self.handle.chitchat();
        self.clock.spawn_vital("membership of this process", async move {
            while changes.changed().await.is_ok() {
                let values = {
                    let own = changes.borrow_and_update();
                    let mut values = writer_values(&own.writers);
                    values.push(("state".into(), own.state.into()));
                    values
                };
                let mut chitchat = chitchat.lock().await;
                for (key, value) in values {
                    chitchat.self_node_state().set(key, value);
                }
            }
        });
    }

    /// Ends the process if gossip ends: it would work with outdated members from then on.
    fn end_with_chitchat(&self) {
        let ended = self.handle.termination_watcher();
        self.clock.spawn_vital("gossip", async move {
            if let Err(error) = ended.await {
                panic!("gossip has ended: {error}");
            }
        });
    }

    /// Publishes `state` to all live members at once, instead of round by round.
    async fn announce(&self, state: &'static str) {
        let addresses: Vec<SocketAddr> = self
            .handle
            .with_chitchat(|chitchat| {
                chitchat.self_node_state().set("state", state);
                chitchat.live_nodes().map(|id| id.gossip_advertise_addr).collect()
            })
            .await;
        for address in addresses {
            let _ = self.handle.gossip(address);
        }
    }

    /// Gossip addresses of the live members.
    async fn live_addresses(&self) -> Vec<SocketAddr> {
        let live = |chitchat: &mut chitchat::Chitchat| {
            chitchat.live_nodes().map(|id| id.gossip_advertise_addr).collect()
        };
        self.handle.with_chitchat(live).await
    }

    fn greet(&self, address: SocketAddr) {
        // It fails only if gossip has ended, which ends the process.
        let _ = self.handle.gossip(address);
    }
}

impl Membership for Gossip {
    fn members(&self) -> watch::Receiver<Arc<[Member]>> {
        self.members.clone()
    }

    fn set_writers(&self, writers: Vec<WriterId>) {
        self.own.send_modify(|own| own.writers = writers);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.own.send_modify(|own| own.state = LEAVING);
            self.announce(LEAVING).await;
            if self.members.borrow().len() > 1 {
                self.clock.sleep(HEARD_AFTER).await;
            }
        })
    }
}

fn has(members: &[Member], wanted: &Member) -> bool {
    members.iter().any(|member| member.node == wanted.node)
}

fn members_of(live: &BTreeMap<ChitchatId, NodeState>, me: &Member) -> Arc<[Member]> {
    let mut members: Vec<Member> =
        live.iter().filter_map(|(id, state)| member_of(&id.node_id, state)).collect();
    if !has(&members, me) {
        members.push(Member { is_leaving: true, ..me.clone() });
    }
    members.sort_by(|a, b| a.rank().cmp(&b.rank()));
    members.into()
}

/// The values that a process publishes when it starts.
fn initial_values(me: &Member) -> Vec<(String, String)> {
    let roles: Vec<&str> = me.roles.iter().map(|role| role.name()).collect();
    let mut values: Vec<(String, String)> = vec![
        ("name".into(), me.name.clone()),
        ("zone".into(), me.zone.clone()),
        ("roles".into(), roles.join(",")),
        ("address".into(), me.address.clone()),
        ("started".into(), me.started_millis.to_string()),
        ("state".into(), SERVING.into()),
    ];
    values.extend(writer_values(&me.writers));
    values
}

/// All values with ids of logs, empty ones included: they replace earlier values.
fn writer_values(writers: &[WriterId]) -> Vec<(String, String)> {
    let mut pieces = writers.chunks(WRITERS_PER_VALUE);
    let values = (0..WRITER_VALUES_MAX).map(|piece| {
        let ids: Vec<String> = pieces.next().unwrap_or_default().iter().map(ToString::to_string).collect();
        (format!("writers.{piece}"), ids.join(","))
    });
    values.collect()
}

/// `None` for a process that is gone, or whose state has not arrived completely.
fn member_of(node: &str, state: &NodeState) -> Option<Member> {
    let status = state.get("state")?;
    if status == LEFT {
        return None;
    }
    let pieces = (0..WRITER_VALUES_MAX).filter_map(|piece| state.get(&format!("writers.{piece}")));
    let writers = pieces.flat_map(|ids| ids.split(',')).filter_map(|id| id.parse().ok());
    Some(Member {
        node: node.to_owned(),
        name: state.get("name")?.to_owned(),
        zone: state.get("zone")?.to_owned(),
        // A role that only a later version knows is skipped.
        roles: state.get("roles")?.split(',').filter_map(Role::named).collect(),
        address: state.get("address")?.to_owned(),
        started_millis: state.get("started")?.parse().ok()?,
        writers: writers.collect(),
        is_leaving: status == LEAVING,
    })
}

fn address_of(text: &str, name: &'static str) -> Result<Option<IpAddr>, GossipError> {
    match text.trim() {
        "" => Ok(None),
        "localhost" => Ok(Some(Ipv4Addr::LOCALHOST.into())),
        text => match ip_address(text) {
            Some(address) => Ok(Some(address)),
            None => Err(GossipError::Address { name, value: text.to_owned() }),
        },
    }
}

/// Parses an IP address; an IPv6 address may have the brackets that it has before a port.
pub fn ip_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse().ok(),
    }
}

/// The local address of the default route; nothing is sent.
fn own_address() -> IpAddr {
    // An address reserved for documentation: only the default route leads there.
    let anywhere = SocketAddr::from(([192, 0, 2, 1], 9));
    let local = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(anywhere)?;
        socket.local_addr()
    });
    match local {
        Ok(address) => address.ip(),
        Err(error) => {
            warn!(
                %error,
                "this host has no default route, so it advertises 127.0.0.1 to other processes: set its address with \
                 -memberlist.advertise-addr"
            );
            Ipv4Addr::LOCALHOST.into()
        }
    }
}
