//! Divides the memory of this process between its roles.
//!
//! Owns: the part that is left to the allocator and the runtime, the size of each share. Does not own: reading the
//! limit, counting leases (`memory`).

use std::collections::BTreeSet;

use memory::{Limit, Room, Share, SharesMetrics};
use tracing::{info, warn};

use crate::config::Config;
use crate::targets::{Role, Targets};

/// Percentage of the limit that is divided. The rest is for freed pages, fragmentation and thread stacks.
const DIVIDED_PERCENT: u64 = 85;

/// Memory of an idle process, in bytes.
const IDLE_BYTES: u64 = 32 << 20;

/// Minimum for useful work, in bytes. A process with less starts with a warning.
const LIMIT_BYTES_MIN: u64 = 192 << 20;

/// One request may hold 1/`BODY_PART` of the memory for bodies: compressed, decompressed, and as the decoder's copy.
const BODY_PART: u64 = 3;

/// Answers that wait for their clients may take 1/`ANSWERS_PART` of the memory of queries.
const ANSWERS_PART: u64 = 2;

/// The inputs of a merge may take 1/`JOB_PART` of its memory: decoded they are several times as large.
const JOB_PART: u64 = 4;

/// Minimum size of a merge's inputs, in bytes. Smaller merges would only make more objects.
const JOB_BYTES_MIN: u64 = 4 << 20;

const MIB: u64 = 1 << 20;

/// The shares of the memory.
pub(crate) struct Shares {
    pub(crate) limit: Limit,
    pub(crate) room: Room,
    pub(crate) queries: Share,
    pub(crate) merges: Share,
}

/// A budget of the configuration.
struct Budget {
    path: &'static str,
    /// The role that uses the budget.
    role: Role,
    /// Relative weight among all budgets.
    weight: u64,
    /// Minimum. Less would refuse requests that the limits of tenants allow.
    least: u64,
    /// Maximum: the default, which is enough on a large machine.
    most: u64,
}

const fn budget(path: &'static str, role: Role, weight: u64, least_mib: u64, most_mib: u64) -> Budget {
    Budget { path, role, weight, least: least_mib * MIB, most: most_mib * MIB }
}

const BODIES: Budget = budget("server.request_bodies_bytes_max", Role::Distributor, 8, 16, 1024);
const PROFILES: Budget = budget("distributor.inflight_bytes_max", Role::Distributor, 9, 24, 512);
const PUSHES: Budget = budget("ingester.inflight_bytes_max", Role::Ingester, 10, 24, 256);
const SYMBOLS: Budget = budget("ingester.dictionary_bytes_max", Role::Ingester, 3, 4, 64);
const CACHE: Budget = budget("querier.cache_bytes", Role::Querier, 8, 4, 128);
const MERGES: Budget = budget("compactor.max_memory_bytes", Role::Compactor, 20, 24, UNLIMITED_MIB);
const QUERIES: Budget = budget("querier.max_memory_bytes", Role::Querier, 37, 32, UNLIMITED_MIB);

/// Weight of encoding segments, which takes memory beside the pushes in them; no setting limits it.
const ENCODING_WEIGHT: u64 = 5;

const UNLIMITED_MIB: u64 = 1 << 40;

const BUDGETS: [&Budget; 7] = [&BODIES, &PROFILES, &PUSHES, &SYMBOLS, &CACHE, &MERGES, &QUERIES];

impl Shares {
    /// Reads the limit, and sets every budget of `config` that is not in `set_paths` to its share of the limit.
    pub(crate) fn divide(config: &mut Config, set_paths: &BTreeSet<String>, targets: &Targets) -> Self {
        let limit = Limit::read(config.server.memory_limit_bytes);
        let divided = (limit.bytes / 100 * DIVIDED_PERCENT).saturating_sub(IDLE_BYTES);
        let division = Division::new(divided, set_paths, targets, config);
        division.apply(config);
        if targets.has(Role::Metastore) && targets.has(Role::Compactor) {
            let inputs = config.compactor.max_memory_bytes / JOB_PART;
            let plan = &mut config.metastore;
            let lower = |path: &str, value: &mut u64| {
                if !set_paths.contains(path) {
                    *value = (*value).min(inputs.max(JOB_BYTES_MIN));
                }
            };
            lower("metastore.merge_bytes", &mut plan.merge_bytes);
            lower("metastore.job_bytes_max", &mut plan.job_bytes_max);
        }
        let room = Room::new(limit.bytes);
        let share = |name, path, bytes| Share::within(name, path, bytes, room.clone());
        let shares = Self {
            limit,
            queries: share("questions", QUERIES.path, config.querier.max_memory_bytes),
            merges: share("merges", MERGES.path, config.compactor.max_memory_bytes),
            room,
        };
        shares.log(config, targets, divided);
        shares
    }

    /// Maximum body of one request, in bytes, and the setting that raises it.
    pub(crate) fn body_bytes_max(config: &Config) -> (usize, &'static str) {
        let share = (config.server.request_bodies_bytes_max / BODY_PART) as usize;
        let limit = config.limits.ingestion_body_bytes();
        match share < limit {
            true => (share, "a third of server.request_bodies_bytes_max"),
            false => (limit, "limits.ingestion_body_limit_mb"),
        }
    }

    /// Maximum bytes of answers that clients have not read yet. Answers to queries hold their memory until they are
    /// sent.
    pub(crate) fn answers_bytes_max(config: &Config) -> usize {
        let part = usize::try_from(config.querier.max_memory_bytes / ANSWERS_PART).unwrap_or(usize::MAX);
        part.min(edge::Config::default().answers_bytes_max)
    }

    /// Metrics of the limit, the shares, and their leases.
    pub(crate) fn metrics(&self) -> SharesMetrics {
        SharesMetrics {
            limit_bytes: self.limit.bytes,
            shares: vec![self.queries.clone(), self.merges.clone()],
        }
    }

    fn log(&self, config: &Config, targets: &Targets, divided: u64) {
        let Limit { bytes, source } = self.limit;
        let present = BUDGETS.iter().filter(|budget| targets.has(budget.role));
        let budgets: Vec<(&str, u64)> = present.map(|budget| (budget.path, budget.value(config))).collect();
        let sum: u64 = budgets.iter().map(|(_, value)| *value).fold(0, u64::saturating_add);
        let listed: Vec<String> = budgets.iter().map(|(path, value)| format!("{path}={value}")).collect();
        info!(limit_bytes = bytes, %source, budgets = listed.join(" "), "memory is divided");
        if bytes < LIMIT_BYTES_MIN {
            warn!(limit_bytes = bytes, "memory is less than the {LIMIT_BYTES_MIN} bytes that a server needs");
        } else if sum > divided {
            warn!(
                limit_bytes = bytes,
                budgets_bytes = sum,
                "budgets that are set leave no memory for the others"
            );
        }
    }
}

/// The bytes of each budget.
struct Division(Vec<(&'static Budget, u64)>);

impl Division {
    fn new(divided: u64, set_paths: &BTreeSet<String>, targets: &Targets, config: &Config) -> Self {
        // 0 switches a cache off; for other budgets it means a share.
        let is_off = |budget: &Budget| [CACHE.path, SYMBOLS.path].contains(&budget.path);
        let is_set =
            |budget: &Budget| set_paths.contains(budget.path) && (budget.value(config) > 0 || is_off(budget));
        let fixed = |budget: &&Budget| targets.has(budget.role) && is_set(budget);
        let set: u64 = BUDGETS.into_iter().filter(fixed).map(|budget| budget.value(config)).sum();
        let weighed = |budget: &&Budget| targets.has(budget.role) && !is_set(budget);
        let weights: u64 = BUDGETS.into_iter().filter(weighed).map(|budget| budget.weight).sum();
        let encoding = if targets.has(Role::Ingester) { ENCODING_WEIGHT } else { 0 };
        let rest = divided.saturating_sub(set);
        let unit = rest / (weights + encoding).max(1);
        let share = |budget: &'static Budget| match (is_set(budget), targets.has(budget.role)) {
            (true, _) => (budget, budget.value(config)),
            (false, true) => (budget, (unit * budget.weight).clamp(budget.least, budget.most)),
            (false, false) => (budget, budget.least),
        };
        let mut shares: Vec<_> = BUDGETS.into_iter().map(share).collect();
        // Queries take the rest, for example where the defaults of other budgets are enough.
        if !is_set(&QUERIES) && targets.has(Role::Querier) {
            let others = |(budget, _): &&(&'static Budget, u64)| {
                targets.has(budget.role) && budget.path != QUERIES.path
            };
            let taken: u64 = shares.iter().filter(others).map(|(_, bytes)| *bytes).sum();
            let left = divided.saturating_sub(taken).saturating_sub(unit * encoding);
            for (budget, bytes) in &mut shares {
                if budget.path == QUERIES.path {
                    *bytes = left.max(budget.least);
                }
            }
        }
        Self(shares)
    }

    fn apply(self, config: &mut Config) {
        for (budget, bytes) in self.0 {
            match budget.path {
                path if path == BODIES.path => config.server.request_bodies_bytes_max = bytes,
                path if path == PROFILES.path => config.distributor.inflight_bytes_max = bytes as usize,
                path if path == PUSHES.path => config.ingester.inflight_bytes_max = bytes as usize,
                path if path == SYMBOLS.path => config.ingester.dictionary_bytes_max = bytes as usize,
                path if path == CACHE.path => config.querier.cache_bytes = bytes,
                path if path == MERGES.path => config.compactor.max_memory_bytes = bytes,
                _ => config.querier.max_memory_bytes = bytes,
            }
        }
    }
}

impl Budget {
    fn value(&self, config: &Config) -> u64 {
        match self.path {
            path if path == BODIES.path => config.server.request_bodies_bytes_max,
            path if path == PROFILES.path => config.distributor.inflight_bytes_max as u64,
            path if path == PUSHES.path => config.ingester.inflight_bytes_max as u64,
            path if path == SYMBOLS.path => config.ingester.dictionary_bytes_max as u64,
            path if path == CACHE.path => config.querier.cache_bytes,
            path if path == MERGES.path => config.compactor.max_memory_bytes,
            _ => config.querier.max_memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(limit_mib: u64, target: &str, set_paths: &[&str], change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        config.server.memory_limit_bytes = limit_mib * MIB;
        change(&mut config);
        let set_paths = set_paths.iter().map(|path| (*path).to_owned()).collect();
        Shares::divide(&mut config, &set_paths, &Targets::parse(target).expect("a target"));
        config
    }

    fn sum(config: &Config) -> u64 {
        BUDGETS.iter().map(|budget| budget.value(config)).sum()
    }

    #[test]
    fn the_budgets_of_one_process_fit_its_memory_together() {
        for limit in [256, 512, 1024, 2048, 16_384] {
            let config = divided(limit, "all", &[], |_| {});
            assert!(sum(&config) <= limit * MIB / 100 * 85, "{limit}: {} of it", sum(&config) / MIB);
            assert!(config.querier.max_memory_bytes >= limit * MIB / 5, "{limit}");
        }
    }

    #[test]
    fn a_large_machine_has_the_defaults_and_the_rest_is_for_queries() {
        let config = divided(64 << 10, "all", &[], |_| {});
        let default = Config::default();
        assert_eq!(config.ingester, default.ingester);
        assert_eq!(config.distributor, default.distributor);
        assert_eq!(config.metastore, default.metastore);
        assert_eq!(config.server.request_bodies_bytes_max, default.server.request_bodies_bytes_max);
        assert!(config.querier.max_memory_bytes > (32 << 10) * MIB);
    }

    #[test]
    fn a_budget_that_is_set_stays_and_the_others_shrink() {
        let path = "ingester.inflight_bytes_max";
        let config = divided(512, "all", &[path], |config| config.ingester.inflight_bytes_max = 200 << 20);
        assert_eq!(config.ingester.inflight_bytes_max, 200 << 20);
        let without = divided(512, "all", &[], |_| {});
        assert!(config.querier.max_memory_bytes < without.querier.max_memory_bytes);
        let queries = ["querier.max_memory_bytes"];
        let set = divided(512, "all", &queries, |config| config.querier.max_memory_bytes = 7 * MIB);
        assert_eq!(set.querier.max_memory_bytes, 7 * MIB);
        let zero = divided(512, "all", &queries, |_| {});
        assert_eq!(zero.querier.max_memory_bytes, without.querier.max_memory_bytes);
    }

    #[test]
    fn one_role_alone_has_all_memory() {
        let config = divided(2048, "querier", &[], |_| {});
        assert!(config.querier.max_memory_bytes > 1400 * MIB);
        let config = divided(2048, "compactor", &[], |_| {});
        assert!(config.compactor.max_memory_bytes > 1400 * MIB);
        assert_eq!(config.metastore, Config::default().metastore);
    }

    #[test]
    fn a_small_process_that_plans_its_own_merges_plans_small_ones() {
        let config = divided(256, "all", &[], |_| {});
        assert!(config.metastore.job_bytes_max <= config.compactor.max_memory_bytes / 3);
        let set = divided(256, "all", &["metastore.job_bytes_max"], |_| {});
        assert_eq!(set.metastore.job_bytes_max, Config::default().metastore.job_bytes_max);
    }

    #[test]
    fn a_profile_of_the_largest_size_is_accepted_even_with_little_memory() {
        let config = divided(256, "all", &[], |_| {});
        assert!(Shares::body_bytes_max(&config).0 > config.limits.max_profile_size_bytes);
    }
}
