//! Checks the bucket as if all processes had died at this moment.
//!
//! Owns: the data that a new owner and a rebuilt catalog have to find.
//! Does not own: when audits are made.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use clock::{Clock, Pool};
use metastore::{Metastore, Parts};
use prometheus_client::registry::Registry;
use querier::{FixedLeaves, NamedLeaf, Querier};
use rpc::ObjectIndex as _;

use crate::bucket::Objects;
use crate::fleet::Fleet;
use crate::load::{count, everything};
use crate::oracle::{Counts, Expectation, Strictness};
use crate::random::Random;

const COPY: &str = "an owner of a copy";

/// Opens copies of the bucket: each holds every acknowledged item once. The first copy is unchanged, the second
/// rebuilds its catalog, the third has lost it, and the fourth has an older one. The first three answer the same.
pub(crate) async fn audit(fleet: &Fleet) {
    let objects = fleet.bucket.objects().fork();
    let expected = fleet.oracle.expected();
    let lost = objects.with_folder("catalog/", &Objects::default());
    let older = fleet.older_catalog.lock().as_ref().map(|older| objects.with_folder("catalog/", older));
    let mut answers = Vec::new();
    for (source, invariant, objects, rebuilds) in [
        ("a new owner", "I6", objects.fork(), false),
        ("a rebuilt catalog", "I8", objects, true),
        ("an owner without a catalog", "I8", lost, false),
    ] {
        answers.extend(judge(fleet, source, invariant, &objects, &expected, rebuilds).await);
    }
    if let Some(older) = older {
        judge(fleet, "an owner of an older catalog", "I8", &older, &expected, false).await;
    }
    if let [opened, rebuilt, lost] = &answers[..] {
        // An owner whose clock is ahead lets items go a little early.
        let kept = fleet.oracle.items().into_iter().filter(|item| !item.may_be_gone);
        let differ = |number: &u64| {
            opened.items.get(number) != rebuilt.items.get(number)
                || rebuilt.items.get(number) != lost.items.get(number)
        };
        let differing: Vec<u64> = kept.map(|item| item.number).filter(differ).collect();
        if !differing.is_empty() {
            let details = format!("a rebuilt catalog answers differently about items {differing:?}");
            fleet.oracle.violate("I8", details);
        }
    }
}

/// Opens a copy that took some time: it holds every item acknowledged before the copy began. Its catalog may name
/// items pushed meanwhile, and report them as missing.
pub(crate) async fn audit_copy(fleet: &Fleet, copy: &Objects, expected: &Expectation) {
    judge(fleet, COPY, "I8", copy, expected, false).await;
}

/// The counts of an owner of these objects; `None` if it cannot answer.
async fn judge(
    fleet: &Fleet,
    source: &'static str,
    invariant: &'static str,
    objects: &Objects,
    expected: &Expectation,
    rebuilds: bool,
) -> Option<Counts> {
    fleet.forget_expired();
    let process = fleet.executor.start("audit");
    let clock =
        fleet.executor.clock(process, Arc::new(AtomicI64::new(0)), Random::new(fleet.executor.steps()));
    let counts = look(fleet, objects, &clock, rebuilds, source == COPY).await;
    fleet.executor.kill(process);
    match counts {
        Ok(counts) => {
            fleet.note(format_args!("{source} finds {} items", counts.items.len()));
            fleet.oracle.judge(source, &everything(), expected, &counts, Strictness::Settled);
            Some(counts)
        }
        Err(error) => {
            fleet.oracle.violate(invariant, format!("{source}: {error}"));
            None
        }
    }
}

async fn look(
    fleet: &Fleet,
    objects: &Objects,
    clock: &Clock,
    rebuilds: bool,
    may_lack: bool,
) -> Result<Counts, String> {
    let store = objects.store(clock.clone());
    if rebuilds {
        metastore::rebuild(&store, clock, &fleet.settings.metastore, true, &metastore::Progress::default())
            .await
            .map_err(|error| shown(&error))?;
    }
    let (config, retention) = (fleet.settings.metastore.clone(), fleet.retention());
    let parts = Parts { is_alone: true, ..Parts::with(&config, &store, clock) };
    let mut registry = Registry::default();
    let opening =
        Metastore::open_parts(config, store.clone(), parts, retention, clock.clone(), &mut registry);
    let metastore = opening.await.map_err(|error| shown(&error))?;
    let scope = everything();
    let snapshot = metastore.find(scope.find()).await.map_err(|error| error.to_string())?;
    if !may_lack {
        fleet.oracle.judge_rows(&snapshot, objects);
    }
    let mut answers = Vec::new();
    for rollups_enabled in [true, false] {
        let config = querier::Config { rollups_enabled, ..fleet.settings.querier.clone() };
        let (cache, memory) = (block::Cache::new(1 << 20), memory::Share::unlimited());
        let leaf =
            querier::Leaf::new(&config, memory.clone(), store.clone(), cache, Pool::inline(), clock.clone());
        let leaf: NamedLeaf = ("leaf".into(), Arc::new(leaf));
        let leaves = Arc::new(FixedLeaves([leaf].into()));
        let limits = Arc::new(limits::Overrides::uniform(limits::Limits::default()));
        let pool = Pool::inline();
        let root = Querier::new(
            config,
            memory,
            metastore.clone(),
            leaves,
            limits,
            pool,
            clock.clone(),
            &mut registry,
        );
        let counted = count(&fleet.oracle, &root, &scope).await;
        let (counts, report) = counted.map_err(|error| error.to_string())?;
        if let Some(missing) = report.missing.first().filter(|_| !may_lack) {
            return Err(format!("{} cannot be read: {}", missing.key, missing.reason));
        }
        answers.push(counts);
    }
    let rows = answers.pop().unwrap_or_default();
    if answers != [rows.clone()] {
        fleet.oracle.violate("I14", format!("cells count {answers:?}, rows {rows:?}"));
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
