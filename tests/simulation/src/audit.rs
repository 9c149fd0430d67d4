//! Looks at the bucket as if everything had died at this moment.
//!
//! Owns: what a new owner, and a catalog that is made anew, have to find there.
//! Does not own: when.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use clock::{Clock, Pool};
use metastore::{Metastore, Parts};
use prometheus_client::registry::Registry;
use querier::{FixedLeaves, NamedLeaf, Querier};
use rpc::Metastore as _;

use crate::bucket::Objects;
use crate::fleet::Fleet;
use crate::load::{count, everything};
use crate::oracle::{Counts, Strictness};
use crate::random::Random;

/// Opens a copy of the bucket as it is, and makes the catalog of another copy anew: both hold all that is
/// acknowledged, once, and answer the same.
pub(crate) async fn audit(fleet: &Fleet) {
    let objects = fleet.bucket.objects();
    let (opened, rebuilt) = (objects.fork(), objects.fork());
    let expected = fleet.oracle.expected();
    fleet.forget_expired();
    let process = fleet.executor.start("audit");
    let clock =
        fleet.executor.clock(process, Arc::new(AtomicI64::new(0)), Random::new(fleet.executor.steps()));
    let question = everything();
    let mut answers = Vec::new();
    for (who, objects, rebuilds) in [("a new owner", opened, false), ("a rebuilt catalog", rebuilt, true)] {
        match look(fleet, &objects, &clock, rebuilds).await {
            Ok(counts) => {
                fleet.note(format_args!("{who} finds {} items", counts.items.len()));
                fleet.oracle.judge(who, &question, &expected, &counts, Strictness::Settled);
                answers.push(counts);
            }
            Err(error) => fleet.oracle.violate(if rebuilds { "I8" } else { "I6" }, format!("{who}: {error}")),
        }
    }
    if let [opened, rebuilt] = &answers[..] {
        // An owner whose clock is ahead lets items go a little early.
        let kept = fleet.oracle.items().into_iter().filter(|item| !item.may_be_gone);
        let differ = |number: &u64| opened.items.get(number) != rebuilt.items.get(number);
        let differing: Vec<u64> = kept.map(|item| item.number).filter(differ).collect();
        if !differing.is_empty() {
            let what = format!("a rebuilt catalog answers differently about items {differing:?}");
            fleet.oracle.violate("I8", what);
        }
    }
    fleet.executor.kill(process);
}

async fn look(fleet: &Fleet, objects: &Objects, clock: &Clock, rebuilds: bool) -> Result<Counts, String> {
    let store = objects.store(clock.clone());
    if rebuilds {
        metastore::rebuild(&store, clock, true).await.map_err(|error| shown(&error))?;
    }
    let (config, retention) = (fleet.settings.metastore.clone(), fleet.retention());
    let parts = Parts { is_alone: true, ..Parts::with(&config, &store, clock) };
    let mut registry = Registry::default();
    let opening =
        Metastore::open_parts(config, store.clone(), parts, retention, clock.clone(), &mut registry);
    let metastore = opening.await.map_err(|error| shown(&error))?;
    let question = everything();
    let snapshot = metastore.find(question.find()).await.map_err(|error| error.to_string())?;
    fleet.oracle.judge_rows(&snapshot, objects);
    let mut answers = Vec::new();
    for rollups_enabled in [true, false] {
        let config = querier::Config { rollups_enabled, ..fleet.settings.querier.clone() };
        let cache = block::Cache::new(1 << 20);
        let leaf = querier::Leaf::new(&config, store.clone(), cache, Pool::inline(), clock.clone());
        let leaf: NamedLeaf = ("leaf".into(), Arc::new(leaf));
        let leaves = Arc::new(FixedLeaves([leaf].into()));
        let limits = Arc::new(limits::Overrides::uniform(limits::Limits::default()));
        let pool = Pool::inline();
        let root =
            Querier::new(config, metastore.clone(), leaves, limits, pool, clock.clone(), &mut registry);
        let counted = count(&fleet.oracle, &root, &question).await;
        let (counts, report) = counted.map_err(|error| error.to_string())?;
        if let Some(missing) = report.missing.first() {
            return Err(format!("{} cannot be read: {}", missing.key, missing.reason));
        }
        answers.push(counts);
    }
    let rows = answers.pop().unwrap_or_default();
    if answers != [rows.clone()] {
        fleet.oracle.violate("I14", format!("cells say {answers:?}, rows {rows:?}"));
    }
    Ok(rows)
}

fn shown(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
