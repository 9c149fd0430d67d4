//! Finds the first others, and those that were cut off.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;

use clock::Clock;
use tracing::{info, warn};

use super::Gossip;
use crate::Membership;

/// Between two looks while no other member is known.
const ALONE_INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);
/// A name is given up for this time if it is not resolved by then.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// Addresses that are greeted at one look.
const ADDRESSES_MAX: usize = 256;
/// Between two lines that say that nobody was found.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

pub(super) struct Seeds {
    /// `<host>:<port>` each.
    seeds: Vec<String>,
    own: SocketAddr,
    clock: Clock,
}

impl Seeds {
    /// `port` is that of a seed without one.
    pub(super) fn new(seeds: &str, port: u16, own: SocketAddr, clock: Clock) -> Self {
        Self { seeds: split(seeds, port), own, clock }
    }

    /// Greets, until gossip is dropped, whoever lies at the seeds' addresses and is no live member.
    pub(super) async fn run(self, gossip: Weak<Gossip>) {
        let mut said = None;
        loop {
            let (found, unresolved) = self.resolve().await;
            let Some(gossip) = gossip.upgrade() else {
                return;
            };
            let live = gossip.gossiping().await;
            for address in found.iter().filter(|address| **address != self.own && !live.contains(address)) {
                gossip.greet(*address);
            }
            let is_alone = gossip.members().borrow().len() < 2;
            drop(gossip);
            let now = self.clock.monotonic();
            if is_alone && said.is_none_or(|at| now - at >= SAY_AGAIN_AFTER) {
                said = Some(now);
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

    /// All addresses of all seeds, and why one has none.
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
        // How programs in Go are told to ask for every address, which is done here anyway.
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
    fn a_seed_without_a_port_gets_the_usual_one() {
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
