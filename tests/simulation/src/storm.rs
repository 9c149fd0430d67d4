//! The faults of a run, and their times.
//!
//! Owns: crashes, pauses, cuts, changed clocks, views of membership that are late or wrong.
//! Does not own: faults of single requests ([`crate::bucket`], [`crate::network`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Member;

use crate::audit::audit;
use crate::bucket::{self, Trap};
use crate::fleet::Fleet;
use crate::load::{Load, keep_asking};
use crate::machine::{Kind, Machine};
use crate::random::Random;

/// A silent process is taken for gone after this long.
const GONE_AFTER: Duration = Duration::from_secs(4);

pub(crate) struct Storm {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) load: Arc<Load>,
    pub(crate) until: Duration,
    pub(crate) random: Random,
}

impl Storm {
    /// Strikes until its time is over, then heals everything.
    pub(crate) async fn rage(&mut self) {
        let fleet = self.fleet.clone();
        let every = fleet.settings.strike_every.as_millis() as u64;
        loop {
            let pause = self.random.millis(every / 4, 2 * every);
            if fleet.executor.now() + pause >= self.until || fleet.oracle.has_failed() {
                break;
            }
            fleet.executor.sleep(pause).await;
            self.strike().await;
        }
        fleet.executor.sleep(self.until.saturating_sub(fleet.executor.now())).await;
    }

    async fn strike(&mut self) {
        let fleet = self.fleet.clone();
        let machines = fleet.machines();
        let Some(machine) = self.random.pick(&machines).copied() else {
            return;
        };
        match self.random.below(100) {
            0..15 => {
                fleet.kill(machine);
                self.start_later(machine, 20_000);
            }
            15..30 => {
                let steps = self.random.below(300) as u32;
                fleet.note(format_args!("{machine} is going to die after {steps} steps"));
                if let Some(process) = fleet.process(machine) {
                    fleet.executor.set_fuse(process, steps);
                }
                self.start_later(machine, 60_000);
            }
            30..45 => {
                let longest = fleet.settings.pause_max.as_millis() as u64;
                self.pause(machine, 100, longest);
            }
            45..55 => {
                let (fleet, load, until) = (fleet, self.load.clone(), self.until);
                let mut random = self.random.fork();
                let conductor = fleet.executor.start("restart");
                self.fleet.executor.spawn(conductor, async move {
                    fleet.stop(machine).await;
                    fleet.executor.sleep(random.millis(0, 5_000)).await;
                    start(&fleet, &load, machine, until, random);
                });
            }
            55..65 => {
                fleet.note(format_args!("{machine} is cut off from the bucket"));
                fleet.bucket.cut(machine);
                let healed = fleet.clone();
                self.later(500, 60_000, move || healed.bucket.heal(machine));
            }
            65..75 => {
                if let Some(other) = self.random.pick(&machines).copied().filter(|other| *other != machine) {
                    fleet.note(format_args!("{machine} and {other} do not reach each other"));
                    fleet.network.cut(machine, other);
                    let healed = fleet.clone();
                    self.later(500, 60_000, move || healed.network.heal(machine, other));
                }
            }
            75..82 => {
                let skew = fleet.settings.skew.as_nanos() as u64;
                let nanos = self.random.below(2 * skew + 1) as i64 - skew as i64;
                fleet.note(format_args!("the clock of {machine} is set to {nanos} ns off"));
                fleet.set_skew(machine, nanos);
            }
            82..87 => {
                fleet.note(format_args!("the bucket is in trouble"));
                let fail = self.random.between(200, 1_000);
                fleet.bucket.set_rates(bucket::Rates { fail, ..fleet.settings.bucket });
                let healed = fleet.clone();
                self.later(500, 30_000, move || healed.bucket.set_rates(healed.settings.bucket));
            }
            87..90 => {
                for machine in fleet.machines_of(Kind::Metastore) {
                    fleet.kill(machine);
                    self.start_later(machine, 60_000);
                }
            }
            90..91 => audit(&fleet).await,
            _ => {
                let (kind, folders): (Kind, &[&'static str]) = match self.random.below(3) {
                    0 => (Kind::Ingester, &["log/"]),
                    1 => (Kind::Compactor, &["block/"]),
                    _ => (Kind::Metastore, &["catalog/", "catalog/", "publish/", "log/"]),
                };
                let machines = fleet.machines_of(kind);
                let (Some(machine), Some(folder)) =
                    (self.random.pick(&machines).copied(), self.random.pick(folders).copied())
                else {
                    return;
                };
                self.trap(machine, folder);
            }
        }
    }

    fn pause(&mut self, machine: Machine, from_millis: u64, to_millis: u64) {
        let fleet = self.fleet.clone();
        let Some(process) = fleet.process(machine) else {
            return;
        };
        fleet.note(format_args!("{machine} is stopped where it is"));
        fleet.executor.pause(process);
        self.later(from_millis, to_millis, move || {
            fleet.note(format_args!("{machine} goes on"));
            fleet.executor.resume(process);
        });
    }

    /// Pauses or kills a process around its next create.
    fn trap(&mut self, machine: Machine, folder: &'static str) {
        let fleet = self.fleet.clone();
        let is_before = self.random.chance(300);
        let kills = self.random.chance(500);
        let (load, until, random) = (self.load.clone(), self.until, self.random.fork());
        let longest = if kills { 20_000 } else { fleet.settings.pause_max.as_millis() as u64 };
        let pause = self.random.millis(100, longest);
        let around = if is_before { "before" } else { "after" };
        let verb = if kills { "die" } else { "stop" };
        fleet.note(format_args!("{machine} is going to {verb} {around} its next create below {folder}"));
        let bucket = fleet.bucket.clone();
        let action = Box::new(move || {
            let Some(process) = fleet.process(machine) else {
                return;
            };
            let executor = fleet.executor.clone();
            let sleep = executor.sleep(pause);
            let fate = executor.start("fate");
            if kills {
                fleet.kill(machine);
            } else {
                fleet.note(format_args!("{machine} is stopped where it is"));
                executor.pause(process);
            }
            executor.spawn(fate, async move {
                sleep.await;
                if kills {
                    start(&fleet, &load, machine, until, random);
                } else {
                    fleet.note(format_args!("{machine} goes on"));
                    fleet.executor.resume(process);
                }
            });
        });
        bucket.set(Trap { machine, folder, is_before, action });
    }

    fn start_later(&mut self, machine: Machine, longest_millis: u64) {
        let (fleet, load, until) = (self.fleet.clone(), self.load.clone(), self.until);
        let random = self.random.fork();
        self.later(0, longest_millis, move || start(&fleet, &load, machine, until, random));
    }

    fn later(&mut self, from_millis: u64, to_millis: u64, action: impl FnOnce() + Send + 'static) {
        let pause = self.random.millis(from_millis, to_millis);
        let executor = self.fleet.executor.clone();
        let process = executor.start("fate");
        let sleep = executor.sleep(pause);
        executor.spawn(process, async move {
            sleep.await;
            action();
        });
    }
}

/// Starts a process and its load.
pub(crate) fn start(
    fleet: &Arc<Fleet>,
    load: &Arc<Load>,
    machine: Machine,
    until: Duration,
    mut random: Random,
) {
    if fleet.process(machine).is_some() {
        return;
    }
    fleet.start(machine);
    let Some(process) = fleet.process(machine) else {
        return;
    };
    match machine.kind {
        Kind::Distributor => {
            let pushing = load.clone().keep_pushing(fleet.clone(), machine, until, random.fork());
            fleet.executor.spawn(process, pushing);
        }
        Kind::Querier => {
            let asking = keep_asking(fleet.clone(), machine, until, random.fork());
            fleet.executor.spawn(process, asking);
        }
        _ => {}
    }
}

/// Spreads membership among processes: late, and now and then one process does not hear of another for a while.
pub(crate) async fn keep_gossiping(fleet: Arc<Fleet>, until: Duration, mut random: Random) {
    let machines = fleet.machines();
    let mut heard: BTreeMap<Machine, (Duration, Member)> = BTreeMap::new();
    // Pairs of which the first does not hear of the second, until this time.
    let mut deaf: BTreeMap<(Machine, Machine), Duration> = BTreeMap::new();
    loop {
        let now = fleet.executor.now();
        for machine in &machines {
            if let Some(member) = fleet.announced_by(*machine) {
                heard.insert(*machine, (now, member));
            }
        }
        heard.retain(|_, (time, _)| now.saturating_sub(*time) < GONE_AFTER);
        if now < until && random.chance(60) {
            let pair = random.pick(&machines).copied().zip(random.pick(&machines).copied());
            deaf.extend(pair.map(|pair| (pair, now + random.millis(1_000, 20_000))));
        }
        deaf.retain(|_, end| *end > now && now < until);
        for machine in &machines {
            let hears = |other: &Machine| !deaf.contains_key(&(*machine, *other));
            let others = heard.iter().filter(|(other, _)| hears(other));
            let others: Vec<Member> = others.map(|(_, (_, member))| member.clone()).collect();
            fleet.set_membership(*machine, &others);
        }
        fleet.executor.sleep(random.millis(300, 1_200)).await;
    }
}
