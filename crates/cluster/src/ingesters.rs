//! The ingesters of the cluster: which of them gets which push.
//!
//! Owns: placement, spreading a busy service over several ingesters, retries on the next ingester. Does not own: the
//! content of an item, timeouts (`distributor`).
//!
//! The items of a service go to one ingester while that can keep up, so that few segments hold its symbols. Correctness
//! does not depend on it: an item counts once, wherever and however often it becomes durable.

use std::time::Duration;

use async_trait::async_trait;
use clock::Clock;
use futures::future::{BoxFuture, join_all};
use hashbrown::HashMap;
use model::PushItem;
use model::label_names::SERVICE_NAME;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rpc::{Error, ErrorKind, Ingester};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Callers, Member, Role, place};

/// Maximum number of ingesters that are tried for an item.
const TRIES_MAX: usize = 3;
/// A service is spread over one more ingester for each multiple of this rate.
const BYTES_PER_SECOND_AND_INGESTER: f64 = 8e6;
/// Time after which pushed bytes weigh 1/e in the rate of a service.
const RATE_MEMORY: Duration = Duration::from_secs(10);
/// Maximum number of services with a rate; beyond it the slowest are forgotten.
const SERVICES_MAX: usize = 10_000;
/// Time for which an ingester that refused or was lost is tried last.
const AVOIDED_FOR: Duration = Duration::from_secs(2);

/// Distributes items among the live ingesters.
pub struct Ingesters {
    callers: Callers<dyn Ingester>,
    /// Ingesters of other zones are used only if those of this one fail.
    zone: String,
    clock: Clock,
    rates: Mutex<HashMap<u64, Rate>>,
    /// End of the time in which a node is avoided, in monotonic time.
    avoided: Mutex<HashMap<String, Duration>>,
    retries: Counter,
}

/// Bytes that a service pushed, with exponential decay.
#[derive(Clone, Copy)]
struct Rate {
    bytes: f64,
    updated: Duration,
}

/// An item and its candidate ingesters, the next one last.
struct Placement {
    item: PushItem,
    candidates: Vec<Member>,
}

impl Ingesters {
    pub fn new(
        callers: Callers<dyn Ingester>,
        zone: impl Into<String>,
        clock: Clock,
        registry: &mut Registry,
    ) -> Self {
        let retries = Counter::default();
        registry.register(
            "pyrograph_cluster_push_retries",
            "Push items that were sent to another ingester after one refused or lost them",
            retries.clone(),
        );
        let (rates, avoided) = (Mutex::default(), Mutex::default());
        Self { callers, zone: zone.into(), clock, rates, avoided, retries }
    }

    /// Number of ingesters that can be chosen now.
    pub fn count(&self) -> usize {
        self.callers.members().iter().filter(|member| is_open(member)).count()
    }

    /// Candidate ingesters for `item`, the best last.
    fn candidates(&self, item: &PushItem, members: &[Member], now: Duration) -> Vec<Member> {
        let service = item.series.first().and_then(|rows| rows.labels.get(SERVICE_NAME)).unwrap_or_default();
        let key = xxh3_64(format!("{}\0{service}", item.tenant).as_bytes());
        let open = || members.iter().filter(|member| is_open(member));
        let mut candidates = place(key, open().filter(|member| member.zone == self.zone));
        let near = candidates.len();
        candidates.extend(place(key, open().filter(|member| member.zone != self.zone)));
        // A repeated item goes to the same ingester, where it may be recognised within one segment.
        let spread =
            self.spread(key, item.byte_len(), now).min(if near > 0 { near } else { candidates.len() });
        if spread > 1 {
            candidates[..spread].rotate_left((item.key.0 % spread as u128) as usize);
        }
        let avoided = self.avoided.lock();
        if !avoided.is_empty() {
            candidates.sort_by_key(|member| avoided.get(&member.node).is_some_and(|until| now < *until));
        }
        candidates.truncate(TRIES_MAX);
        candidates.into_iter().rev().cloned().collect()
    }

    /// Adds `bytes` to the rate of a service; returns the number of ingesters that it is spread over.
    fn spread(&self, key: u64, bytes: usize, now: Duration) -> usize {
        let mut rates = self.rates.lock();
        if rates.len() >= SERVICES_MAX && !rates.contains_key(&key) {
            rates.retain(|_, rate| rate.per_second(now) > BYTES_PER_SECOND_AND_INGESTER / 8.0);
            if rates.len() >= SERVICES_MAX {
                return 1;
            }
        }
        let rate = rates.entry(key).or_insert(Rate { bytes: 0.0, updated: now });
        *rate = Rate { bytes: rate.decayed(now) + bytes as f64, updated: now };
        (rate.per_second(now) / BYTES_PER_SECOND_AND_INGESTER) as usize + 1
    }

    /// Sends each item to its next candidate, and refused items to the candidates after it.
    fn hand_over(&self, items: Vec<Placement>) -> BoxFuture<'_, Result<(), Error>> {
        let mut groups: Vec<(Member, Vec<Placement>)> = Vec::new();
        for mut placement in items {
            let Some(member) = placement.candidates.pop() else {
                let error = Error::new(ErrorKind::Unavailable, "no ingester is known");
                return Box::pin(std::future::ready(Err(error)));
            };
            match groups.iter_mut().find(|(other, _)| other.node == member.node) {
                Some((_, group)) => group.push(placement),
                None => groups.push((member, vec![placement])),
            }
        }
        Box::pin(async move {
            let groups = groups.into_iter().map(|(member, group)| self.hand_over_to(member, group));
            join_all(groups).await.into_iter().collect()
        })
    }

    async fn hand_over_to(&self, member: Member, group: Vec<Placement>) -> Result<(), Error> {
        let items = group.iter().map(|placement| placement.item.clone()).collect();
        let refused = match self.push_to(&member, items).await {
            Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Exhausted { .. }) => error,
            answer => return answer,
        };
        let now = self.clock.monotonic();
        {
            let mut avoided = self.avoided.lock();
            avoided.retain(|_, until| now < *until);
            avoided.insert(member.node, now + AVOIDED_FOR);
        }
        if group.iter().any(|placement| placement.candidates.is_empty()) {
            return Err(refused);
        }
        self.retries.inc_by(group.len() as u64);
        self.hand_over(group).await
    }

    /// Waits for the answer of `member`, or until it is gone, which means that it will not answer.
    async fn push_to(&self, member: &Member, items: Vec<PushItem>) -> Result<(), Error> {
        let unavailable = |problem: &str| {
            let text = format!("ingester {} {problem}", member.name);
            Err(Error::new(ErrorKind::Unavailable, text))
        };
        let Some(ingester) = self.callers.of(member) else {
            return unavailable("cannot be called");
        };
        tokio::select! {
            biased;
            answer = ingester.push(items) => answer,
            () = self.callers.gone(member) => unavailable("was gone before it answered"),
        }
    }
}

fn is_open(member: &Member) -> bool {
    member.has(Role::Ingester) && !member.is_leaving
}

impl Rate {
    fn decayed(&self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.updated).as_secs_f64();
        self.bytes * (-passed / RATE_MEMORY.as_secs_f64()).exp()
    }

    /// Bytes per second: with a decay over [`RATE_MEMORY`], a constant rate sums up to the bytes of that time.
    fn per_second(&self, now: Duration) -> f64 {
        self.decayed(now) / RATE_MEMORY.as_secs_f64()
    }
}

#[async_trait]
impl Ingester for Ingesters {
    /// # Errors
    /// The error of an item that no ingester accepted; other items may be durable nevertheless.
    async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
        let members = self.callers.members();
        let mut open = members.iter().filter(|member| is_open(member));
        if let (Some(only), None) = (open.next(), open.next()) {
            return self.push_to(only, items).await;
        }
        let now = self.clock.monotonic();
        let placements = items
            .into_iter()
            .map(|item| Placement { candidates: self.candidates(&item, &members, now), item });
        self.hand_over(placements.collect()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use model::{ItemKey, Labels, Profile, SeriesRows, TenantId, ValueSchema};

    use super::*;
    use crate::{FixedMembers, Membership};

    #[derive(Default)]
    struct FakeIngester {
        taken: Mutex<Vec<ItemKey>>,
        tries: Mutex<usize>,
        refuses: Mutex<Option<ErrorKind>>,
        hangs: AtomicBool,
    }

    #[async_trait]
    impl Ingester for FakeIngester {
        async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
            *self.tries.lock() += 1;
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if let Some(kind) = *self.refuses.lock() {
                return Err(Error::new(kind, "no"));
            }
            self.taken.lock().extend(items.iter().map(|item| item.key));
            Ok(())
        }
    }

    struct Rig {
        fixed: Arc<FixedMembers>,
        fakes: Arc<HashMap<String, FakeIngester>>,
        ingesters: Arc<Ingesters>,
    }

    struct FakeClient(Arc<HashMap<String, FakeIngester>>, String);

    #[async_trait]
    impl Ingester for FakeClient {
        async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
            self.0[&self.1].push(items).await
        }
    }

    /// Names with zones: `a1` is `a` in zone 1. The distributor is in zone 1.
    fn rig(names: &[&str]) -> Rig {
        let member =
            |name: &&str| Member { zone: name[1..].into(), ..Member::new(&name[..1], [Role::Ingester]) };
        let members: Vec<Member> = names.iter().map(member).collect();
        let fakes: Arc<HashMap<String, FakeIngester>> =
            Arc::new(members.iter().map(|member| (member.node.clone(), FakeIngester::default())).collect());
        let fixed = Arc::new(FixedMembers::new("", members));
        let all = fakes.clone();
        let callers = Callers::new(&*fixed, move |member| {
            Some(Arc::new(FakeClient(all.clone(), member.node.clone())) as _)
        });
        let ingesters = Ingesters::new(callers, "1", Clock::system(), &mut Registry::default());
        Rig { fixed, fakes, ingesters: Arc::new(ingesters) }
    }

    fn item(service: &str, key: u128, values: usize) -> PushItem {
        let mut profile = Profile::default();
        profile.samples.values = vec![0; values];
        PushItem {
            tenant: TenantId::parse("t").unwrap(),
            key: ItemKey(key),
            profile: Arc::new(profile),
            series: [SeriesRows {
                labels: Labels::from_pairs([(SERVICE_NAME, service)]),
                schema: Arc::new(ValueSchema::default()),
                samples: Vec::new(),
                spans: Vec::new(),
            }]
            .into(),
        }
    }

    impl Rig {
        fn taken(&self) -> Vec<(String, usize)> {
            let mut taken: Vec<_> =
                self.fakes.iter().map(|(node, one)| (node.clone(), one.taken.lock().len())).collect();
            taken.sort();
            taken
        }

        fn used(&self) -> String {
            self.taken().into_iter().filter(|(_, count)| *count > 0).map(|(node, _)| node).collect()
        }

        async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
            self.ingesters.push(items).await
        }
    }

    #[tokio::test]
    async fn a_service_goes_to_one_ingester_of_its_zone_and_many_services_to_all() {
        let rig = rig(&["a1", "b1", "c2", "d1"]);
        for key in 0..50 {
            rig.push(vec![item("app", key, 10)]).await.unwrap();
        }
        assert_eq!(rig.used().len(), 1);
        let many = (0..300).map(|key| item(&format!("app{key}"), key, 10)).collect();
        rig.push(many).await.unwrap();
        assert_eq!(rig.used(), "abd");
        assert_eq!(rig.taken().iter().map(|(_, count)| count).sum::<usize>(), 350);
    }

    #[tokio::test]
    async fn a_busy_service_is_spread_over_several_ingesters() {
        let rig = rig(&["a1", "b1", "c1", "d1", "e1"]);
        // 20 MB/s over the memory of ten seconds, in pushes of 1 MB.
        for key in 0..200 {
            rig.push(vec![item("app", key, 125_000)]).await.unwrap();
        }
        assert_eq!(rig.used().len(), 3, "{:?}", rig.taken());
    }

    #[tokio::test]
    async fn an_ingester_that_refuses_is_skipped_and_avoided_for_a_while() {
        let rig = rig(&["a1", "b1", "c2"]);
        let exhausted = ErrorKind::Exhausted { retry_after: Duration::from_secs(1) };
        *rig.fakes["a"].refuses.lock() = Some(exhausted);
        for key in 0..50 {
            rig.push(vec![item(&format!("app{key}"), key, 10)]).await.unwrap();
        }
        assert_eq!((rig.used().as_str(), *rig.fakes["a"].tries.lock()), ("b", 1));
        *rig.fakes["b"].refuses.lock() = Some(ErrorKind::Unavailable);
        rig.push((0..50).map(|key| item(&format!("app{key}"), key, 10)).collect()).await.unwrap();
        assert_eq!(rig.used(), "bc");
        *rig.fakes["c"].refuses.lock() = Some(exhausted);
        let error = rig.push(vec![item("app", 1, 10)]).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Exhausted { .. }));
        *rig.fakes["c"].refuses.lock() = Some(ErrorKind::InvalidArgument);
        let tries = *rig.fakes["c"].tries.lock();
        while rig.push(vec![item("app", 1, 10)]).await.unwrap_err().kind != ErrorKind::InvalidArgument {}
        assert!(*rig.fakes["c"].tries.lock() > tries);
    }

    #[tokio::test]
    async fn items_of_a_lost_ingester_go_to_the_next_and_a_leaving_one_gets_none() {
        let rig = rig(&["a1", "b1"]);
        rig.fakes["a"].hangs.store(true, Ordering::SeqCst);
        let left = vec![rig.fixed.members().borrow()[1].clone()];
        let pushes = rig.push((0..20).map(|key| item(&format!("app{key}"), key, 10)).collect());
        let (pushed, ()) = futures::join!(pushes, async {
            tokio::task::yield_now().await;
            rig.fixed.set(left);
        });
        pushed.unwrap();
        assert_eq!(rig.taken(), [("a".to_owned(), 0), ("b".to_owned(), 20)]);
        let members = ["a", "b"].map(|node| Member {
            zone: "1".into(),
            is_leaving: node == "b",
            ..Member::new(node, [Role::Ingester])
        });
        rig.fakes["a"].hangs.store(false, Ordering::SeqCst);
        rig.fixed.set(members.into());
        rig.push(vec![item("app", 1, 10)]).await.unwrap();
        assert_eq!(rig.taken()[0].1, 1);
        rig.fixed.set(Vec::new());
        assert_eq!(rig.push(vec![item("app", 1, 10)]).await.unwrap_err().kind, ErrorKind::Unavailable);
    }
}
