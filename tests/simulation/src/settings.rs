//! The settings that differ between runs: sizes, intervals, fault rates.
//!
//! Time-outs of the protocols are shorter than in production, so that a run of minutes passes all of them. Times that
//! they must exceed are shortened in proportion.

use std::time::Duration;

use catalog::numbered;

use crate::machine::Machine;
use crate::random::Random;
use crate::{bucket, network};

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ingesters: u8,
    pub(crate) metastores: u8,
    pub(crate) compactors: u8,
    pub(crate) queriers: u8,
    pub(crate) distributors: u8,
    /// Number of zones over which the machines of a kind are spread.
    pub(crate) zones: u8,
    pub(crate) ingester: ingester::Config,
    pub(crate) metastore: metastore::Config,
    pub(crate) compactor: compactor::Config,
    pub(crate) querier: querier::Config,
    pub(crate) catalog: Catalog,
    /// Duration of the faults.
    pub(crate) storm: Duration,
    /// Mean time between two injected faults: crashes, pauses, cuts.
    pub(crate) strike_every: Duration,
    /// Mean time between two pushes, and between two queries.
    pub(crate) push_every: Duration,
    pub(crate) ask_every: Duration,
    /// Mean time between two deletions.
    pub(crate) deletion_every: Duration,
    /// Largest error of a wall clock, in either direction.
    pub(crate) skew: Duration,
    pub(crate) pause_max: Duration,
    pub(crate) bucket: bucket::Rates,
    pub(crate) network: network::Rates,
    /// Retention of the tenant that has one.
    pub(crate) retention: Duration,
}

/// The values of [`numbered::Options`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Catalog {
    checkpoint_commits: u64,
    collect_after: Duration,
}

impl Catalog {
    pub(crate) fn options(self) -> numbered::Options {
        numbered::Options {
            checkpoint_commits: self.checkpoint_commits,
            collect_after: self.collect_after,
            look_within: self.collect_after / 2,
            ..numbered::Options::default()
        }
    }
}

fn of(random: &mut Random, from_seconds: u64, to_seconds: u64) -> limits::Duration {
    limits::Duration::from_secs(random.between(from_seconds, to_seconds) as _)
}

impl Settings {
    pub(crate) fn zone_of(&self, machine: Machine) -> String {
        format!("zone-{}", machine.number % self.zones)
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let calm = random.chance(150);
        let rate =
            |random: &mut Random, most: u64| if calm || random.chance(500) { 0 } else { random.below(most) };
        let bucket = bucket::Rates {
            fail: rate(random, 60),
            lose_request: rate(random, 20),
            lose_reply: rate(random, 60),
            false_conflict: rate(random, 60),
            slow: rate(random, 60),
            repeat: rate(random, 60),
            latency_millis: random.between(2, 60),
            slow_millis: random.between(200, 12_000),
        };
        let network = network::Rates {
            lose_request: rate(random, 60),
            lose_reply: rate(random, 60),
            repeat: rate(random, 60),
            late: rate(random, 40),
            slow: rate(random, 40),
            latency_millis: random.between(1, 20),
        };
        let skew = Duration::from_secs(random.below(30));
        let metastore = metastore::Config {
            seal_after: of(random, 40, 300),
            dedup_window: of(random, 4 * 60, 20 * 60),
            dedup_slack: limits::Duration::from_secs(2 * 60),
            merge_after: of(random, 3, 30),
            close_after: of(random, 60, 300),
            settle_after: of(random, 10, 60),
            attempt_time: of(random, 10, 40),
            sweep_grace: limits::Duration::from_secs(180),
            retention_interval: of(random, 15, 40),
            reconcile_interval: of(random, 60, 120),
            orphan_grace: limits::Duration::from_secs(6 * 60),
            ..metastore::Config::default()
        };
        let compactor = compactor::Config {
            poll_interval: of(random, 1, 3),
            sweep_interval: of(random, 5, 20),
            ..compactor::Config::default()
        };
        Self {
            ingesters: random.between(2, 3) as u8,
            metastores: 2,
            compactors: random.between(1, 2) as u8,
            queriers: 2,
            distributors: 2,
            zones: random.between(1, 2) as u8,
            ingester: ingester::Config::default(),
            metastore,
            compactor,
            querier: querier::Config::default(),
            catalog: Catalog {
                checkpoint_commits: random.between(5, 100),
                collect_after: Duration::from_secs(random.between(30, 200)),
            },
            storm: Duration::from_secs(random.between(120, 480)),
            strike_every: Duration::from_secs(random.between(8, 60)),
            push_every: Duration::from_millis(random.between(1_500, 8_000)),
            ask_every: Duration::from_millis(random.between(3_000, 12_000)),
            deletion_every: Duration::from_secs(random.between(30, 300)),
            skew,
            pause_max: Duration::from_secs(random.between(5, 150)),
            bucket,
            network,
            retention: Duration::from_secs(3 * 3_600),
        }
    }
}
