//! A root with leaves that die, are slow, return wrong errors or answer late, under virtual time: an answer holds every
//! object exactly once, or names it as missing.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Pool, Source};
use limits::{Limits, Overrides};
use model::{Labels, TenantId, TimeRange, Times};
use prometheus_client::registry::Registry;
use querier::{Client, Config, FixedLeaves, NamedLeaf, Querier, Report};
use query::kind::series;
use query::{Answer, Kind, Partial, Query, Selector};
use rpc::{
    Error, ErrorKind, FindRequest, FoundDataset, FoundObject, Leaf, Missing, ScanAnswer, ScanRequest,
    Snapshot,
};
use storage::Key;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

struct Time(tokio::time::Instant);

#[async_trait]
impl Source for Time {
    fn unix(&self) -> Duration {
        self.0.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock of the tests")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> u128 {
        7
    }
}

fn virtual_time() -> Clock {
    Clock::new(Time(tokio::time::Instant::now()))
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Answers each find with the next snapshot of a script; repeats the last.
struct Catalog(Mutex<Vec<Snapshot>>);

#[async_trait]
impl rpc::Relay for Catalog {
    async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> Result<T, Error> {
        Err(Error::new(ErrorKind::Unavailable, format!("this metastore of a test has no {}", call.method)))
    }

    async fn find(&self, _: FindRequest) -> Result<Snapshot, Error> {
        let mut snapshots = self.0.lock().unwrap();
        Ok(if snapshots.len() > 1 { snapshots.remove(0) } else { snapshots[0].clone() })
    }

    async fn quarantine(&self, _: Vec<(Key, String)>) -> Result<(), Error> {
        Ok(())
    }
}

/// The reaction of a leaf to a request.
#[derive(Clone, Copy, Debug)]
enum Reaction {
    Answer,
    AnswerAfter(Duration),
    Fail(ErrorKind),
    FailAfter(Duration, ErrorKind),
    Hang,
}

type Rule = Box<dyn Fn(&ScanRequest) -> Reaction + Send + Sync>;

/// A leaf that follows its rule; if it answers, it counts every dataset once.
struct FakeLeaf {
    clock: Clock,
    rule: Rule,
    /// Objects that no leaf can read.
    corrupt: BTreeSet<&'static str>,
    /// Objects that are not in the bucket.
    gone: BTreeSet<&'static str>,
    requests: Mutex<Vec<ScanRequest>>,
    running: AtomicUsize,
}

impl FakeLeaf {
    fn new(clock: &Clock, rule: impl Fn(&ScanRequest) -> Reaction + Send + Sync + 'static) -> Self {
        Self {
            clock: clock.clone(),
            rule: Box::new(rule),
            corrupt: BTreeSet::new(),
            gone: BTreeSet::new(),
            requests: Mutex::default(),
            running: AtomicUsize::new(0),
        }
    }
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Leaf for FakeLeaf {
    async fn scan(&self, request: ScanRequest) -> Result<ScanAnswer, Error> {
        self.requests.lock().unwrap().push(request.clone());
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        let failed = |kind| Err(Error::new(kind, "as the test says"));
        match (self.rule)(&request) {
            Reaction::Answer => {}
            Reaction::AnswerAfter(time) => self.clock.sleep(time).await,
            Reaction::Fail(kind) => return failed(kind),
            Reaction::FailAfter(time, kind) => {
                self.clock.sleep(time).await;
                return failed(kind);
            }
            Reaction::Hang => std::future::pending().await,
        }
        let mut grouped = series::GroupedSeries::default();
        let mut missing = Vec::new();
        for object in &request.objects {
            let key = object.key.as_str();
            let unread = |reason: &str| Missing {
                key: object.key.clone(),
                reason: reason.into(),
                is_damaged: reason == "corrupt",
            };
            if self.gone.contains(key) {
                match request.skip_gone {
                    true => missing.push(unread("gone")),
                    false => return Err(Error::new(ErrorKind::NotFound, format!("{key} is gone"))),
                }
            } else if self.corrupt.contains(key) {
                missing.push(unread("corrupt"));
            } else {
                for dataset in &object.datasets {
                    let position = dataset.position.to_string();
                    let labels = Labels::from_pairs([("dataset", &*position), ("object", key)]);
                    let point = series::Point { sum: 1, count: 1, exemplar: None };
                    grouped.add_group(labels, [(0, point)].into_iter().collect()).unwrap();
                }
            }
        }
        let partial = Partial {
            answer: Answer::Series(grouped),
            stats: Default::default(),
            charge: Default::default(),
        };
        Ok(ScanAnswer { partial, missing, effort: None })
    }
}

fn object(key: &str, bytes: u64, datasets: u32) -> FoundObject {
    let dataset = |position| FoundDataset {
        position,
        tenant: TenantId::anonymous(),
        service: "app".into(),
        bytes: bytes / u64::from(datasets),
        times: Times { first: 0, last: 9 },
        profile_types: Vec::new().into(),
    };
    FoundObject {
        key: Key::from_text(key),
        bytes,
        masked: Vec::new(),
        deletions: Vec::new(),
        datasets: (0..datasets).map(dataset).collect(),
    }
}

fn snapshot(objects: Vec<FoundObject>) -> Snapshot {
    Snapshot { objects, ..Snapshot::default() }
}

fn small(keys: &[&str]) -> Snapshot {
    snapshot(keys.iter().map(|key| object(key, 1000, 1)).collect())
}

struct Rig {
    clock: Clock,
    root: Arc<Querier>,
    leaves: Vec<Arc<FakeLeaf>>,
}

impl Rig {
    fn new(clock: Clock, leaves: Vec<FakeLeaf>, snapshots: Vec<Snapshot>) -> Self {
        let leaves: Vec<Arc<FakeLeaf>> = leaves.into_iter().map(Arc::new).collect();
        let named = leaves.iter().enumerate();
        let named: Vec<NamedLeaf> =
            named.map(|(i, leaf)| (format!("leaf-{i}"), leaf.clone() as Arc<dyn Leaf>)).collect();
        let root = root(&clock, named, snapshots);
        Self { clock, root, leaves }
    }

    /// Returns how often each dataset counts.
    async fn ask(&self) -> Result<(BTreeMap<String, i64>, Report), querier::Error> {
        ask(&self.root).await
    }

    fn requests(&self, leaf: usize) -> usize {
        self.leaves[leaf].requests.lock().unwrap().len()
    }

    fn running(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.running.load(Ordering::SeqCst)).sum()
    }
}

fn root(clock: &Clock, leaves: Vec<NamedLeaf>, snapshots: Vec<Snapshot>) -> Arc<Querier> {
    Querier::new(
        Config::default(),
        memory::Share::unlimited(),
        Arc::new(Catalog(Mutex::new(snapshots))),
        Arc::new(FixedLeaves(leaves.into())),
        Arc::new(Overrides::uniform(Limits::default())),
        Pool::inline(),
        clock.clone(),
        &mut Registry::default(),
    )
}

fn series_query() -> Query {
    let parameters = series::Parameters {
        start_millis: 0,
        end_millis: 1,
        step_millis: 1,
        group_by: Vec::new(),
        exemplars: false,
        call_site: Vec::new(),
    };
    let range = TimeRange { start: 0, end: 10 };
    Query { range, selector: Selector::default(), profile_type: None, kind: Kind::Series(parameters) }
}

async fn ask(root: &Querier) -> Result<(BTreeMap<String, i64>, Report), querier::Error> {
    let client = Client::new(vec![TenantId::anonymous()]);
    let answered = root.execute(&client, series_query()).await?;
    let Answer::Series(grouped) = answered.partial.answer else { panic!("series were asked for") };
    let name =
        |labels: &Labels| format!("{}#{}", labels.get("object").unwrap(), labels.get("dataset").unwrap());
    let counts = grouped
        .groups()
        .map(|(labels, points)| (name(labels), points.iter().map(|(_, point)| point.sum).sum()));
    Ok((counts.collect(), answered.report))
}

fn once(snapshot: &Snapshot) -> BTreeMap<String, i64> {
    let datasets = snapshot.objects.iter().flat_map(|object| {
        object.datasets.iter().map(move |dataset| (format!("{}#{}", object.key, dataset.position), 1))
    });
    datasets.collect()
}

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[tokio::test(start_paused = true)]
async fn units_of_a_dead_leaf_are_asked_of_another() {
    let clock = virtual_time();
    let dead = FakeLeaf::new(&clock, |_| Reaction::Fail(ErrorKind::Unavailable));
    let leaves =
        vec![dead, FakeLeaf::new(&clock, |_| Reaction::Answer), FakeLeaf::new(&clock, |_| Reaction::Answer)];
    let rig = Rig::new(clock, leaves, vec![small(&KEYS)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!(counts, once(&small(&KEYS)));
    assert!(report.missing.is_empty());
    assert!(rig.requests(0) > 0, "no unit belonged to the dead leaf");
    // The last leaf that is asked may skip single objects that the store does not return.
    let requests = rig.leaves[1..].iter().flat_map(|leaf| leaf.requests.lock().unwrap().clone());
    assert!(requests.into_iter().any(|request| request.skip_unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_slow_leaf_is_overtaken_and_its_call_is_dropped() {
    let clock = virtual_time();
    let slow = FakeLeaf::new(&clock, |_| Reaction::AnswerAfter(50 * SECOND));
    let rig =
        Rig::new(clock.clone(), vec![slow, FakeLeaf::new(&clock, |_| Reaction::Answer)], vec![small(&KEYS)]);
    let began = rig.clock.monotonic();
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&KEYS)), Vec::new()));
    assert!(rig.requests(0) > 0 && rig.clock.monotonic() - began < 2 * SECOND);
    assert_eq!(rig.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_few_percent_of_units_are_hedged_at_most_even_if_all_leaves_are_slow() {
    let clock = virtual_time();
    let slow = || FakeLeaf::new(&clock, |_| Reaction::AnswerAfter(2 * SECOND));
    let rig = Rig::new(clock.clone(), vec![slow(), slow(), slow()], vec![small(&["a"])]);
    for _ in 0..400 {
        assert_eq!(rig.ask().await.unwrap().0, once(&small(&["a"])));
    }
    let requests: usize = (0..3).map(|leaf| rig.requests(leaf)).sum();
    assert!((401..=400 + 400 / 20 + 10).contains(&requests), "{requests}");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_counts_if_the_other_leaf_fails() {
    let clock = virtual_time();
    let late = FakeLeaf::new(&clock, |_| Reaction::AnswerAfter(20 * SECOND));
    let fails = FakeLeaf::new(&clock, |_| Reaction::FailAfter(SECOND, ErrorKind::Internal));
    let rig = Rig::new(clock, vec![late, fails], vec![small(&KEYS)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&KEYS)), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_too_old_is_replaced_and_none_of_it_counts() {
    let clock = virtual_time();
    let mut leaf = FakeLeaf::new(&clock, |_| Reaction::Answer);
    leaf.gone.insert("b");
    let rig = Rig::new(clock, vec![leaf], vec![small(&["a", "b", "c"]), small(&["a", "merged"])]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&["a", "merged"])), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_from_two_snapshots_is_named() {
    let clock = virtual_time();
    let mut leaf = FakeLeaf::new(&clock, |_| Reaction::Answer);
    leaf.gone.insert("b");
    let rig = Rig::new(clock, vec![leaf], vec![small(&["a", "b", "c"])]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!(counts, once(&small(&["a", "c"])));
    assert_eq!(
        report.missing,
        [Missing { key: Key::from_text("b"), reason: "gone".into(), is_damaged: false }]
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_with_wrong_bytes_is_named_and_the_rest_answers() {
    let clock = virtual_time();
    let mut leaf = FakeLeaf::new(&clock, |_| Reaction::Answer);
    leaf.corrupt.insert("b");
    let mut found = small(&["a", "b", "c"]);
    found.quarantined = vec![(Key::from_text("q"), "set aside".into())];
    found.stale = Some(9 * SECOND);
    let rig = Rig::new(clock, vec![leaf], vec![found]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!(counts, once(&small(&["a", "c"])));
    let named: Vec<_> = report.missing.iter().map(|object| (object.key.as_str(), &*object.reason)).collect();
    assert_eq!(named, [("b", "corrupt"), ("q", "set aside")]);
    assert_eq!(report.stale, Some(9 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_two_leaves_cannot_read_is_named_with_both_reasons() {
    let clock = virtual_time();
    let poisoned = |request: &ScanRequest| {
        let is_poison = request.objects.iter().any(|object| object.key.as_str() == "large-3");
        if is_poison { Reaction::Fail(ErrorKind::Internal) } else { Reaction::Answer }
    };
    // Each is a unit of its own.
    let objects: Vec<_> = (0..6).map(|i| object(&format!("large-{i}"), 600 << 20, 1)).collect();
    let leaves = (0..3).map(|_| FakeLeaf::new(&clock, poisoned)).collect();
    let rig = Rig::new(clock, leaves, vec![snapshot(objects)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!(counts.len(), 5);
    assert!(!counts.contains_key("large-3#0"));
    assert_eq!(report.missing.len(), 1);
    assert_eq!(report.missing[0].key.as_str(), "large-3");
    assert_eq!(report.missing[0].reason.matches("as the test says").count(), 2, "{:?}", report.missing);
}

#[tokio::test(start_paused = true)]
async fn quick_refusals_do_not_make_ordinary_answers_slow() {
    let clock = virtual_time();
    let recovered = Arc::new(AtomicBool::new(false));
    let leaves = (0..2).map(|_| {
        let recovered = recovered.clone();
        FakeLeaf::new(&clock, move |_| match recovered.load(Ordering::SeqCst) {
            true => Reaction::AnswerAfter(500 * MILLI),
            false => Reaction::Fail(ErrorKind::Unavailable),
        })
    });
    let rig = Rig::new(clock.clone(), leaves.collect(), vec![small(&["a"])]);
    for _ in 0..200 {
        rig.ask().await.expect_err("no leaf answers");
    }
    recovered.store(true, Ordering::SeqCst);
    let before = rig.requests(0) + rig.requests(1);
    rig.ask().await.unwrap();
    assert_eq!(rig.requests(0) + rig.requests(1) - before, 1, "the second leaf is not asked");
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_no_leaf_is_an_error() {
    let clock = virtual_time();
    let dead = || FakeLeaf::new(&clock, |_| Reaction::Fail(ErrorKind::Unavailable));
    let rig = Rig::new(clock.clone(), vec![dead(), dead()], vec![small(&KEYS)]);
    let error = rig.ask().await.expect_err("no leaf answers").to_string();
    assert!(error.contains("as the test says"), "{error}");
    let none = Rig::new(clock, Vec::new(), vec![small(&KEYS)]);
    let error = none.ask().await.expect_err("there is no leaf").to_string();
    assert!(error.contains("no querier"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_which_every_object_is_missing_is_an_error() {
    let refused = async |gone: &[&'static str], corrupt: &[&'static str], found: Snapshot| {
        let clock = virtual_time();
        let mut leaf = FakeLeaf::new(&clock, |_| Reaction::Answer);
        leaf.gone.extend(gone);
        leaf.corrupt.extend(corrupt);
        let rig = Rig::new(clock, vec![leaf], vec![found]);
        rig.ask().await.map_err(|error| error.to_string())
    };
    let two = || small(&["a", "b"]);
    for (gone, corrupt) in [(&["a", "b"][..], &[][..]), (&[], &["a", "b"]), (&["a"], &["b"])] {
        let error = refused(gone, corrupt, two()).await.expect_err("no object was read");
        assert!(error.contains("none of 2 objects could be read"), "{error}");
        assert!(error.contains("a: ") || error.contains("b: "), "{error}");
    }
    let large = snapshot(vec![object("large", 64 << 20, 3)]);
    let error = refused(&["large"], &[], large).await.expect_err("no object was read");
    assert!(error.contains("none of 1 objects could be read; large: gone"), "{error}");
    let (counts, report) = refused(&["a"], &[], two()).await.expect("one object was read");
    assert_eq!((counts, report.missing.len()), (once(&small(&["b"])), 1));
    let (counts, _) = refused(&[], &[], snapshot(Vec::new())).await.expect("no data is no error");
    assert!(counts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn datasets_of_a_large_object_are_divided_among_leaves_always_in_the_same_way() {
    let clock = virtual_time();
    let leaves = (0..3).map(|_| FakeLeaf::new(&clock, |_| Reaction::Answer)).collect();
    let found = snapshot(vec![object("large", 100 << 20, 30)]);
    let rig = Rig::new(clock, leaves, vec![found.clone()]);
    assert_eq!(rig.ask().await.unwrap().0, once(&found));
    let positions = |leaf: usize| -> BTreeSet<u32> {
        let requests = std::mem::take(&mut *rig.leaves[leaf].requests.lock().unwrap());
        let objects = requests.into_iter().flat_map(|request| request.objects);
        objects.flat_map(|object| object.datasets).map(|dataset| dataset.position).collect()
    };
    let first: Vec<_> = (0..3).map(positions).collect();
    assert!(first.iter().all(|positions| positions.len() > 3), "{first:?}");
    rig.ask().await.unwrap();
    assert_eq!((0..3).map(positions).collect::<Vec<_>>(), first);
}

#[tokio::test(start_paused = true)]
async fn leaves_learn_the_time_that_is_left_and_the_deadline_drops_every_call() {
    let clock = virtual_time();
    let fails = FakeLeaf::new(&clock, |_| Reaction::FailAfter(10 * SECOND, ErrorKind::Unavailable));
    let hangs = FakeLeaf::new(&clock, |_| Reaction::Hang);
    let rig = Rig::new(clock.clone(), vec![fails, hangs], vec![small(&["a"])]);
    let mut client = Client::new(vec![TenantId::anonymous()]);
    client.deadline = Some(clock.monotonic() + 30 * SECOND);
    let began = clock.monotonic();
    let error = rig.root.execute(&client, series_query()).await.expect_err("too late");
    assert!(error.to_string().contains("30"), "{error}");
    assert_eq!(clock.monotonic() - began, 30 * SECOND);
    assert_eq!(rig.running(), 0);
    let requests = rig.leaves.iter().flat_map(|leaf| leaf.requests.lock().unwrap().clone());
    let left: Vec<_> = requests.map(|request| request.time_left.unwrap()).collect();
    assert!(left.contains(&(30 * SECOND)) && left.iter().any(|left| *left < 30 * SECOND), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_an_earlier_epoch_is_refused() {
    let clock = virtual_time();
    let of_epoch = |epoch| Snapshot { epoch, ..small(&["a"]) };
    let leaf = FakeLeaf::new(&clock, |_| Reaction::Answer);
    let rig = Rig::new(clock, vec![leaf], vec![of_epoch(3), of_epoch(2), of_epoch(3)]);
    assert!(rig.ask().await.is_ok());
    let error = rig.ask().await.expect_err("an old owner").to_string();
    assert!(error.contains("epoch 2") && error.contains("epoch 3"), "{error}");
    assert!(rig.ask().await.is_ok());
}

/// Leaves with random reactions: no dataset counts twice, and none is lost without being named.
#[tokio::test(start_paused = true)]
async fn answers_are_exact_or_name_the_missing_objects_for_any_behaviour_of_leaves() {
    let (mut answers, mut partial, mut refused) = (0, 0, 0);
    for seed in 0..300 {
        let clock = virtual_time();
        let dice = Arc::new(AtomicU64::new(seed));
        let leaves = (0..1 + seed % 4).map(|_| {
            let dice = dice.clone();
            FakeLeaf::new(&clock, move |_| {
                let mut dice = Dice(dice.fetch_add(0x5851_f42d, Ordering::SeqCst));
                let time = MILLI * dice.roll(5000) as u32;
                match dice.roll(12) {
                    0 => Reaction::Fail(ErrorKind::Unavailable),
                    1 => Reaction::FailAfter(time, ErrorKind::Internal),
                    2 => Reaction::FailAfter(time, ErrorKind::DeadlineExceeded),
                    3 => Reaction::Fail(ErrorKind::Exhausted { retry_after: time }),
                    4 if seed % 3 == 0 => Reaction::FailAfter(time, ErrorKind::NotFound),
                    5 if seed % 7 == 0 => Reaction::Hang,
                    6..=8 => Reaction::AnswerAfter(time),
                    _ => Reaction::Answer,
                }
            })
        });
        let mut dice = Dice(seed);
        let objects = (0..dice.roll(40)).map(|i| {
            let bytes = [1000, 50 << 20, 400 << 20, 900 << 20][dice.roll(4) as usize];
            object(&format!("{seed}-{i}"), bytes, 1 + dice.roll(3) as u32)
        });
        let found = snapshot(objects.collect());
        let rig = Rig::new(clock.clone(), leaves.collect(), vec![found.clone()]);
        match rig.ask().await {
            Ok((counts, report)) => {
                answers += 1;
                partial += usize::from(!report.missing.is_empty());
                let missing: BTreeSet<&str> =
                    report.missing.iter().map(|object| object.key.as_str()).collect();
                let mut expected = once(&found);
                for (dataset, count) in &counts {
                    assert_eq!(expected.remove(dataset), Some(*count), "seed {seed}: {dataset}");
                }
                for dataset in expected.keys() {
                    let key = dataset.split('#').next().unwrap();
                    assert!(missing.contains(key), "seed {seed}: {dataset} is lost");
                }
            }
            Err(_) => refused += 1,
        }
        assert_eq!(rig.running(), 0, "seed {seed}");
    }
    assert!(answers > 200 && partial > 20 && refused > 5, "{answers} {partial} {refused}");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_leaves_in_other_processes() {
    let clock = Clock::system();
    let leaf = Arc::new(FakeLeaf::new(&clock, |_| Reaction::Hang));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let services = rpc::grpc::Services::new(Pool::new(1)).leaf(leaf.clone());
    clock.spawn(rpc::grpc::serve(listener, services, clock.clone(), SECOND, std::future::pending()));
    let peer =
        rpc::grpc::Peer::new(&address, rpc::grpc::Config::default(), clock.clone(), Pool::new(1)).unwrap();
    let client: Arc<dyn Leaf> = Arc::new(rpc::grpc::LeafClient::new(peer));
    let root = root(&clock, vec![(address, client)], vec![small(&KEYS)]);

    let until = async |expected: usize| {
        for _ in 0..2000 {
            if leaf.running.load(Ordering::SeqCst) == expected {
                return;
            }
            clock.sleep(5 * MILLI).await;
        }
        panic!("{} calls run, not {expected}", leaf.running.load(Ordering::SeqCst));
    };
    // The client goes away.
    tokio::select! {
        _ = ask(&root) => panic!("no leaf answers"),
        () = until(1) => {}
    }
    until(0).await;
    // The client's deadline passes; the leaf is not notified.
    let mut client = Client::new(vec![TenantId::anonymous()]);
    client.deadline = Some(clock.monotonic() + 100 * MILLI);
    root.execute(&client, series_query()).await.expect_err("too late");
    until(0).await;
    assert!(leaf.requests.lock().unwrap().iter().any(|request| request.time_left.unwrap() <= 100 * MILLI));
}

const NO_MEMORY: ErrorKind = ErrorKind::Exhausted { retry_after: SECOND };

#[tokio::test(start_paused = true)]
async fn a_query_without_enough_memory_runs_again_without_others() {
    let clock = virtual_time();
    let requests = AtomicUsize::new(0);
    let leaf = FakeLeaf::new(&clock, move |_| match requests.fetch_add(1, Ordering::SeqCst) {
        0 => Reaction::Fail(NO_MEMORY),
        _ => Reaction::Answer,
    });
    let rig = Rig::new(clock, vec![leaf], vec![small(&KEYS)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&KEYS)), Vec::new()));
    assert_eq!(rig.requests(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_never_gets_memory_is_refused_and_not_answered_in_part() {
    let clock = virtual_time();
    let full = || FakeLeaf::new(&clock, |_| Reaction::Fail(NO_MEMORY));
    let rig = Rig::new(clock.clone(), vec![full(), full()], vec![small(&KEYS)]);
    let Err(querier::Error::Role(error)) = rig.ask().await else { panic!("is refused") };
    assert!(matches!(error.kind, ErrorKind::Exhausted { .. }), "{error}");
    assert_eq!(rig.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_query_larger_than_all_memory_is_scanned_once() {
    let clock = virtual_time();
    let small_leaf = || FakeLeaf::new(&clock, |_| Reaction::Fail(ErrorKind::TooLarge));
    let rig = Rig::new(clock.clone(), vec![small_leaf(), small_leaf()], vec![small(&KEYS[..1])]);
    let Err(querier::Error::Role(error)) = rig.ask().await else { panic!("is refused") };
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    assert_eq!(rig.requests(0) + rig.requests(1), 1);
}
