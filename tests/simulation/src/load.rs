//! The pushes and queries of a run.
//!
//! Owns: tiny profiles that can be distinguished in an answer, retries, resends, queries.
//! Does not own: whether an answer is right ([`crate::oracle`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Function, ItemKey, Labels, Line, NONE, Profile, ProfileType, PushItem, SeriesRows, TenantId, TimeRange,
    ValueSchema, ValueType,
};
use parking_lot::Mutex;
use querier::{Client, Querier, Report};
use query::{Answer, Kind, Matcher, Query, SampleFilter, Selector};
use rpc::ErrorKind;

use crate::executor::{ProcessId, START};
use crate::fleet::{Fleet, SHORT_LIVED};
use crate::machine::{Kind as Role, Machine};
use crate::oracle::{Counts, Item, Oracle, Scope, Strictness};
use crate::random::Random;

const TENANTS: [&str; 3] = ["a", "b", SHORT_LIVED];
/// The tenants without a retention.
pub(crate) const LASTING: [&str; 2] = ["a", "b"];
pub(crate) const SERVICES: [&str; 3] = ["web", "shop", ALIKE];
/// A service whose profiles share stacktraces, so that blocks have cells.
pub(crate) const ALIKE: &str = "mail";
/// A service of the tenant with a retention: all of its data expire soon after the storm.
pub(crate) const PAST: &str = "past";
const PROFILE_TYPE: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
/// The stacktrace that all items have.
const SHARED: &str = "shared";
/// Most tries of an agent for one push, each through any distributor.
const TRIES_MAX: u64 = 4;

/// A past push request with its time.
type PastRequest = (Duration, Vec<PushItem>);

/// The pushes of all agents of a run.
pub(crate) struct Load {
    agents: ProcessId,
    pushed: Mutex<Vec<PastRequest>>,
}

impl Load {
    pub(crate) fn new(fleet: &Fleet) -> Self {
        Self { agents: fleet.executor.start("agents"), pushed: Mutex::default() }
    }

    /// Lets agents push through one distributor first, while its process lives and until `until`.
    pub(crate) async fn keep_pushing(
        self: Arc<Self>,
        fleet: Arc<Fleet>,
        from: Machine,
        until: Duration,
        mut random: Random,
    ) {
        let every = fleet.settings.push_every.as_millis() as u64;
        while fleet.executor.now() < until {
            fleet.executor.sleep(random.millis(0, 2 * every)).await;
            let items = match random.chance(150).then(|| self.earlier(&fleet, &mut random)).flatten() {
                Some(items) => items,
                None => self.make(&fleet, from, &mut random),
            };
            let sending = send(fleet.clone(), from, items, random.fork());
            fleet.executor.spawn(self.agents, sending);
        }
    }

    /// A past request that an agent may send again: its keys are still in the deduplication window.
    fn earlier(&self, fleet: &Fleet, random: &mut Random) -> Option<Vec<PushItem>> {
        let window = Duration::from(fleet.settings.metastore.dedup_window);
        let oldest = fleet.executor.now().saturating_sub(window.saturating_sub(Duration::from_secs(60)));
        let pushed = self.pushed.lock();
        let recent: Vec<&PastRequest> = pushed.iter().filter(|(time, _)| *time >= oldest).collect();
        random.pick(&recent).map(|(_, items)| items.clone())
    }

    fn make(&self, fleet: &Fleet, from: Machine, random: &mut Random) -> Vec<PushItem> {
        let now_nanos = (START + fleet.executor.now()).as_nanos() as i64 + fleet.skew(from);
        let items = (0..random.between(1, 4)).map(|_| {
            let draw = |number| draw_item(number, now_nanos, random);
            let item = fleet.oracle.push(fleet.executor.now(), draw);
            push_item(&item)
        });
        let items: Vec<PushItem> = items.collect();
        self.pushed.lock().push((fleet.executor.now(), items.clone()));
        items
    }
}

fn draw_item(number: u64, now_nanos: i64, random: &mut Random) -> Item {
    let tenant = TENANTS[random.below(3) as usize];
    let (age_seconds, service) = match random.below(100) {
        0..70 => (random.below(20), SERVICES[random.below(3) as usize]),
        70..85 => (random.below(2 * 3_600), SERVICES[random.below(3) as usize]),
        _ if tenant == SHORT_LIVED => (random.between(10_200, 10_700), PAST),
        _ => (random.below(3 * 86_400), SERVICES[random.below(3) as usize]),
    };
    Item {
        number,
        tenant: tenant_of(tenant),
        service,
        time_nanos: now_nanos - age_seconds as i64 * 1_000_000_000 - random.below(1_000_000_000) as i64,
        key: ItemKey(u128::from(random.next()) << 64 | u128::from(random.next())),
        shared: random.between(1, 9) as i64,
        stack: format!("item-{number}"),
        digit: 0,
        is_acknowledged: false,
        is_visible: false,
        may_be_gone: false,
        erased: None,
    }
}

/// The number of the item whose unshared stacktrace has this name.
pub(crate) fn item_of(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name).ok()?.strip_prefix("item-")?.parse().ok()
}

pub(crate) fn tenant_of(name: &str) -> TenantId {
    TenantId::parse(name).unwrap_or_else(|_| TenantId::anonymous())
}

/// A profile with one stacktrace that few items have, and one that all have.
fn push_item(item: &Item) -> PushItem {
    let mut profile = Profile::default();
    let strings = &mut profile.symbols.strings;
    let names = ["", "cpu", "nanoseconds", "main", SHARED, &item.stack];
    let [_, cpu, nanoseconds, main, shared, own] = names.map(|name| strings.push(name.as_bytes()));
    for (index, name) in [main, shared, own].into_iter().enumerate() {
        profile.symbols.functions.push(Function { name, ..Function::default() });
        profile.symbols.locations.push(NONE, 0, false, &[Line { function: index as u32, line: 1 }]);
    }
    for (leaf, value) in [(1, item.shared), (2, item.own())] {
        profile.symbols.stacktraces.push(&[leaf, 0]);
        profile.samples.values.push(value);
        profile.samples.label_offsets.push(0);
    }
    profile.sample_types.push(ValueType { r#type: cpu, unit: nanoseconds });
    profile.time_nanos = item.time_nanos;
    PushItem {
        tenant: item.tenant.clone(),
        key: item.key,
        profile: Arc::new(profile),
        series: [SeriesRows {
            labels: Labels::from_pairs([("pod", item.pod().as_str()), ("service_name", item.service)]),
            schema: Arc::new(ValueSchema {
                name: "process_cpu".into(),
                columns: vec![("cpu".into(), "nanoseconds".into())],
                period: Some(("cpu".into(), "nanoseconds".into())),
            }),
            samples: vec![0, 1],
            spans: Vec::new(),
        }]
        .into(),
    }
}

/// Pushes until a distributor has acknowledged the items, through `first` and then through any.
async fn send(fleet: Arc<Fleet>, first: Machine, items: Vec<PushItem>, mut random: Random) {
    let distributors = fleet.machines_of(Role::Distributor);
    let mut through = Some(first);
    for _ in 0..TRIES_MAX {
        let Some(distributor) = through else {
            return;
        };
        let Err(error) = fleet.push(distributor, items.clone()).await else {
            return;
        };
        let pause = match error.kind {
            ErrorKind::Exhausted { retry_after } => retry_after,
            _ => random.millis(50, 1_000),
        };
        fleet.executor.sleep(pause).await;
        through = random.pick(&distributors).copied();
    }
}

/// Queries the root of one querier while its process lives and until `until`.
pub(crate) async fn keep_asking(fleet: Arc<Fleet>, querier: Machine, until: Duration, mut random: Random) {
    let every = fleet.settings.ask_every.as_millis() as u64;
    while fleet.executor.now() < until {
        fleet.executor.sleep(random.millis(0, 2 * every)).await;
        let Some((_, root)) = fleet.root(querier) else {
            return;
        };
        let scope = draw_scope(&fleet, &mut random);
        ask(&fleet, querier, &root, scope, Strictness::Running).await;
    }
}

fn draw_scope(fleet: &Fleet, random: &mut Random) -> Scope {
    let tenants = TENANTS.iter().filter(|_| random.chance(700)).map(|name| tenant_of(name));
    let tenants: Vec<TenantId> = tenants.collect();
    if tenants.is_empty() || random.chance(500) {
        return everything();
    }
    let now = (START + fleet.executor.now()).as_nanos() as i64;
    let hours = [1, 2, 6, 24, 96];
    let longest = hours[random.below(hours.len() as u64) as usize] * 3_600_000_000_000;
    let end = now - if random.chance(500) { 0 } else { random.below(longest) as i64 };
    let service = random.chance(400).then(|| SERVICES[random.below(3) as usize]);
    let start = end - random.below(longest) as i64;
    Scope { tenants, service, range: TimeRange { start, end: end + 1 } }
}

pub(crate) fn everything() -> Scope {
    let tenants = TENANTS.iter().map(|name| tenant_of(name)).collect();
    Scope { tenants, service: None, range: TimeRange { start: i64::MIN, end: i64::MAX } }
}

/// Queries and judges the answer; returns whether there was one.
pub(crate) async fn ask(
    fleet: &Fleet,
    querier: Machine,
    root: &Querier,
    scope: Scope,
    strictness: Strictness,
) -> bool {
    let expected = fleet.oracle.expected();
    let began = fleet.executor.now();
    fleet.forget_expired();
    match count(&fleet.oracle, root, &scope).await {
        Ok((counts, report)) => {
            let (found, missing, stale) = (counts.items.len(), report.missing.len(), report.stale);
            fleet.note(format_args!(
                "{querier} is asked {scope:?}: {found} items, {missing} objects missing, stale {stale:?}"
            ));
            let is_whole = report.missing.is_empty() && report.stale.is_none();
            if !is_whole && strictness == Strictness::Settled {
                let (missing, stale) = (report.missing, report.stale);
                let details =
                    format!("{querier}: after the storm the answer lacks {missing:?}, stale {stale:?}");
                fleet.oracle.violate("I17", details);
            }
            // The age is a difference between the clocks of two machines.
            let age = report.stale.map_or(Duration::ZERO, |stale| stale + 2 * fleet.settings.skew);
            let as_of = began.saturating_sub(age);
            let strictness = if is_whole { strictness } else { Strictness::Partial(as_of) };
            fleet.oracle.judge(&querier.to_string(), &scope, &expected, &counts, strictness);
            true
        }
        Err(error) => {
            fleet.note(format_args!("{querier} cannot answer: {error}"));
            false
        }
    }
}

/// The counts of an answer, and its report about missing or stale data.
pub(crate) async fn count(
    oracle: &Oracle,
    root: &Querier,
    scope: &Scope,
) -> Result<(Counts, Report), querier::Error> {
    let matchers = scope.service.map(|service| Matcher::equal("service_name", service));
    let query = Query {
        range: scope.range,
        selector: Selector { matchers: matchers.into_iter().collect() },
        profile_type: PROFILE_TYPE.parse::<ProfileType>().ok(),
        kind: Kind::MergeStacktraces(SampleFilter::default()),
    };
    let answered = root.execute(&Client::new(scope.tenants.clone()), query).await?;
    let (mut shared, mut sums) = (0, BTreeMap::new());
    if let Answer::MergeStacktraces(parts) = &answered.partial.answer {
        for part in parts {
            for node in 1..part.nodes() as u32 {
                let (name, own) = (part.tree().name_of(node), part.own(node));
                if name == SHARED.as_bytes() {
                    shared += own;
                } else if own != 0 {
                    *sums.entry(String::from_utf8_lossy(name).into_owned()).or_default() += own;
                }
            }
        }
    }
    Ok((Counts { items: oracle.items_in(&sums), shared }, answered.report))
}
