//! One run: a storm of faults, then calm, then a count of all items.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use storage::Key;

use crate::audit::audit;
use crate::copies::keep_copying;
use crate::deletions::{judge_finished, keep_deleting};
use crate::executor::{Executor, START};
use crate::fleet::{Fleet, SHORT_LIVED};
use crate::journal::Journal;
use crate::load::{Load, ask, everything};
use crate::machine::Kind;
use crate::oracle::{DELIVERED_WITHIN, Strictness, Violation};
use crate::planted::Planted;
use crate::random::Random;
use crate::settings::Settings;
use crate::storm::{Storm, keep_gossiping, start};
use crate::{bucket, network};

/// Time after the storm within which the cluster must have settled.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// A run that takes more steps is taken for an endless loop.
const STEPS_MAX: u64 = 5_000_000;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Print each event.
    pub trace: bool,
    pub planted: Option<Planted>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<Violation>,
    /// Hash of all events, in order, and of the bucket.
    pub hash: u64,
    pub steps: u64,
    pub took: Duration,
    pub items: usize,
    pub acknowledged: usize,
}

/// Runs one seed to its end.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut random = Random::new(seed);
    let settings = Settings::draw(&mut random);
    let executor = Executor::new(random.fork(), STEPS_MAX);
    let journal = Journal::new(executor.clone(), options.trace);
    let fleet = Fleet::new(executor.clone(), journal.clone(), settings, options.planted, &mut random);
    fleet.note(format_args!("seed {seed}: {:?}", fleet.settings));
    let conductor = executor.start("conductor");
    let ended = Arc::new(Mutex::new(false));
    let (ended_flag, directing) = (ended.clone(), fleet.clone());
    executor.spawn(conductor, async move {
        direct(directing, random).await;
        *ended_flag.lock() = true;
    });
    executor.run_to_end_of(conductor);
    for panic in executor.take_panics() {
        fleet.oracle.violate("panic", panic);
    }
    if !*ended.lock() && !fleet.oracle.has_failed() {
        let (now, steps) = (executor.now(), executor.steps());
        fleet.oracle.violate("stuck", format!("nothing moves at {now:?}, after {steps} steps"));
    }
    let items = fleet.oracle.items();
    let outcome = Outcome {
        seed,
        violations: fleet.oracle.violations(),
        hash: journal.hash() ^ fleet.bucket.objects().digest() ^ executor.steps(),
        steps: executor.steps(),
        took: executor.now(),
        acknowledged: items.iter().filter(|item| item.is_acknowledged).count(),
        items: items.len(),
    };
    executor.end();
    fleet.end();
    outcome
}

async fn direct(fleet: Arc<Fleet>, mut random: Random) {
    let until = fleet.settings.storm;
    let load = Arc::new(Load::new(&fleet));
    fleet.bucket.set_rates(fleet.settings.bucket);
    fleet.network.set_rates(fleet.settings.network);
    for machine in fleet.machines() {
        let skew = fleet.settings.skew.as_nanos() as u64;
        fleet.set_skew(machine, random.below(2 * skew + 1) as i64 - skew as i64);
        start(&fleet, &load, machine, until, random.fork());
    }
    let gossiping = keep_gossiping(fleet.clone(), until, random.fork());
    let gossip = fleet.executor.start("gossip");
    fleet.executor.spawn(gossip, gossiping);
    let finding = fleet.clone().keep_finding(until, random.fork());
    fleet.executor.spawn(fleet.executor.start("finder"), finding);
    let deleting = keep_deleting(fleet.clone(), until, random.fork());
    fleet.executor.spawn(fleet.executor.start("deletions"), deleting);
    let copying = keep_copying(fleet.clone(), until, random.fork());
    fleet.executor.spawn(fleet.executor.start("copies"), copying);
    Storm { fleet: fleet.clone(), load: load.clone(), until, random: random.fork() }.rage().await;

    if fleet.oracle.has_failed() {
        return;
    }
    fleet.note(format_args!("the storm is over"));
    calm(&fleet);
    // Requests in flight end meanwhile.
    fleet.executor.sleep(SETTLED_AFTER).await;
    calm(&fleet);
    for machine in fleet.machines() {
        start(&fleet, &load, machine, until, random.fork());
    }
    fleet.executor.sleep(SETTLED_AFTER).await;
    judge_all(&fleet).await;
    audit(&fleet).await;
    if fleet.oracle.has_failed() {
        return;
    }
    let loses_catalog = random.chance(250);
    if loses_catalog {
        fleet.note(format_args!("the catalog is deleted while no metastore runs"));
        for machine in fleet.machines_of(Kind::Metastore) {
            fleet.kill(machine);
        }
        fleet.executor.sleep(DELIVERED_WITHIN).await;
        fleet.bucket.objects().lose("catalog/");
        for machine in fleet.machines_of(Kind::Metastore) {
            start(&fleet, &load, machine, until, random.fork());
        }
    }
    // Long enough for every dead, erased or orphaned object to be gone.
    let metastore = &fleet.settings.metastore;
    let waits = [
        metastore.orphan_grace,
        metastore.reconcile_interval,
        metastore.reconcile_interval,
        metastore.sweep_grace,
        metastore.sweep_grace,
        metastore.retention_interval,
        fleet.settings.catalog.options().collect_after.into(),
        // Segments stay until their keys have left the deduplication window.
        metastore.dedup_window,
        metastore.dedup_slack,
    ];
    let rest: Duration = waits.into_iter().map(Duration::from).sum();
    fleet.executor.sleep(rest + SETTLED_AFTER).await;
    fleet.oracle.past_has_expired();
    judge_all(&fleet).await;
    audit(&fleet).await;
    if fleet.bucket.objects().others() != *fleet.others.lock() {
        fleet.oracle.violate("I21", "objects of another cluster were deleted or replaced");
    }
    // A rebuilt catalog keeps the outputs of merges that failed before the rebuild.
    if !loses_catalog {
        judge_orphans(&fleet).await;
        judge_finished(&fleet).await;
    }
}

/// No more faults, and every process runs.
fn calm(fleet: &Arc<Fleet>) {
    fleet.bucket.set_rates(bucket::Rates { latency_millis: 10, ..bucket::Rates::default() });
    fleet.network.set_rates(network::Rates { latency_millis: 3, ..network::Rates::default() });
    fleet.network.heal_all();
    fleet.bucket.clear_traps();
    fleet.executor.clear_fuses();
    for machine in fleet.machines() {
        fleet.bucket.heal(machine);
        if let Some(process) = fleet.process(machine) {
            fleet.executor.resume(process);
        }
    }
}

async fn judge_all(fleet: &Arc<Fleet>) {
    for machine in fleet.machines_of(Kind::Querier) {
        let answers = match fleet.root(machine) {
            Some((_, root)) => ask(fleet, machine, &root, everything(), Strictness::Settled).await,
            None => false,
        };
        if !answers {
            fleet.oracle.violate("stuck", format!("{machine} does not answer after the storm"));
        }
    }
}

/// Checks that an old block that no answer names is gone one grace period later: it may have been live until now.
async fn judge_orphans(fleet: &Arc<Fleet>) {
    let unnamed = unnamed_blocks(fleet).await;
    if unnamed.is_empty() {
        return;
    }
    fleet.executor.sleep(2 * Duration::from(fleet.settings.metastore.sweep_grace) + SETTLED_AFTER).await;
    for key in unnamed_blocks(fleet).await.intersection(&unnamed) {
        fleet.oracle.violate("I20", format!("{key} is old and no row names it"));
    }
}

async fn unnamed_blocks(fleet: &Arc<Fleet>) -> BTreeSet<Key> {
    let Some(live) = fleet.live().await else {
        fleet.oracle.violate("stuck", "no owner of the catalog after the storm");
        return BTreeSet::new();
    };
    let live: BTreeSet<Key> = live.into_iter().collect();
    let objects = fleet.bucket.objects();
    let grace = Duration::from(fleet.settings.metastore.orphan_grace);
    // Expired data left the answers at once; their block goes when all of its data are expired.
    let is_judged = |key: &Key| key.parse_block_tenant().is_some_and(|tenant| tenant.as_str() != SHORT_LIVED);
    let age = |key: &Key| objects.created(key).map(|created| fleet.executor.now().saturating_sub(created));
    let is_old = |key: &Key| age(key).is_some_and(|age| age > 2 * grace);
    let blocks = objects.keys().into_iter().filter(is_judged);
    blocks.filter(|key| !live.contains(key) && is_old(key)).collect()
}

impl Fleet {
    /// Marks the items that may be gone by their age.
    pub(crate) fn forget_expired(&self) {
        let margin = self.settings.skew + Duration::from_secs(60);
        let kept_from = (START + self.executor.now() + margin - self.settings.retention).as_nanos() as i64;
        self.oracle
            .set_may_be_gone(|item| item.tenant.as_str() == SHORT_LIVED && item.time_nanos < kept_from);
    }
}
