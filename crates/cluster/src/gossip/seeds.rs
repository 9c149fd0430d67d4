//! Finds the first members, and members that were cut off.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;

use clock::Clock;
use tracing::{info, warn};

use super::Gossip;
use crate::Membership;

/// Intervals between rounds: while no other member is known, and otherwise.
const ALONE_INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);
/// Maximum time to resolve a name; the next round tries again.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// Maximum number of addresses in one round.
const ADDRESSES_MAX: usize = 256;
/// Interval between log lines that report that no member was found.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Seeds {
    /// `<host>:<port>` each.
    seeds: Vec<String>,
    own: SocketAddr,
    clock: Clock,
}

impl Seeds {
    /// `port` is the port of seeds without one.
    pub(super) fn new(seeds: &str, port: u16, own: SocketAddr, clock: Clock) -> Self {
        Self { seeds: split(seeds, port), own, clock }
    }

    /// Contacts every address of the seeds that is not a live member, until gossip is dropped.
    pub(super) async fn run(self, gossip: Weak<Gossip>) {
        let mut logged = None;
        loop {
            let (found, unresolved) = self.resolve().await;
            let Some(gossip) = gossip.upgrade() else {
                return;
            };
            let live = gossip.live_addresses().await;
            for address in found.iter().filter(|address| **address != self.own && !live.contains(address)) {
                gossip.greet(*address);
            }
            let is_alone = gossip.members().borrow().len() < 2;
            drop(gossip);
            let now = self.clock.monotonic();
            if is_alone && logged.is_none_or(|time| now - time >= LOG_INTERVAL) {
                logged = Some(now);
                let seeds = self.seeds.join(",");
                match unresolved {
                    Some(error) => {
                        warn!(seeds, error, "knows no other process yet, and cannot resolve all seeds")
                    }
                    None => info!(seeds, "knows no other process yet"),
                }
            }
            self.clock.sleep(if is_alone { ALONE_INTERVAL } else { INTERVAL }).await;
        }
    }

    /// All addresses of all seeds, and an error of a seed without one.
    async fn resolve(&self) -> (BTreeSet<SocketAddr>, Option<String>) {
        let (mut found, mut unresolved) = (BTreeSet::new(), None);
        for seed in &self.seeds {
            match self.clock.timeout(RESOLVE_MAX, tokio::net::lookup_host(seed)).await {
                Some(Ok(addresses)) => {
                    let alike = addresses.filter(|address| address.is_ipv4() == self.own.is_ipv4());
                    found.extend(alike.take(ADDRESSES_MAX.saturating_sub(found.len())));
                }
                Some(Err(error)) => unresolved = Some(format!("{seed}: {error}")),
                None => unresolved = Some(format!("{seed}: no answer within {RESOLVE_MAX:?}")),
            }
        }
        (found, unresolved)
    }
}

pub(crate) fn split(seeds: &str, port: u16) -> Vec<String> {
    let seeds = seeds.split(',').map(str::trim).filter(|seed| !seed.is_empty());
    let with_port = seeds.map(|seed| {
        // Programs in Go need this prefix to use every address of a name; here that is always so.
        let seed = seed.strip_prefix("dns+").unwrap_or(seed);
        let bare = seed.rsplit_once(']').map_or(seed, |(_, rest)| rest);
        let colons = bare.matches(':').count();
        match colons {
            1 => seed.to_owned(),
            0 => format!("{seed}:{port}"),
            _ => format!("[{seed}]:{port}"),
        }
    });
    with_port.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_without_a_port_gets_the_default_port() {
        let check = |seeds: &str, expected: &[&str]| assert_eq!(split(seeds, 7946), expected, "{seeds}");
        check("", &[]);
        check("a:1, b ,,", &["a:1", "b:7946"]);
        check(
            "dns+pyrograph-members.ns.svc.cluster.local.:7000",
            &["pyrograph-members.ns.svc.cluster.local.:7000"],
        );
        check("10.0.0.1,10.0.0.2:8", &["10.0.0.1:7946", "10.0.0.2:8"]);
        check("::1,[::1]:5,[fe80::1]", &["[::1]:7946", "[::1]:5", "[fe80::1]:7946"]);
    }
}
