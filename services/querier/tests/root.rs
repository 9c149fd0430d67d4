//! A root and leaves that die, are slow, lie or answer late, under virtual time: an answer holds every object
//! exactly once, or names it as missing.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop where it is"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Pool, Source};
use limits::{Limits, Overrides};
use model::{Labels, TenantId, TimeRange, Times};
use prometheus_client::registry::Registry;
use querier::{Asker, Config, FixedLeaves, NamedLeaf, Querier, Report};
use query::kind::series;
use query::{Answer, Kind, Partial, Query, Selector};
use rpc::{
    Error, ErrorKind, FindRequest, Found, FoundDataset, Leaf, Missing, ScanRequest, Scanned, Snapshot,
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

    #[allow(clippy::disallowed_methods)]
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

/// Answers finds from a script; the last snapshot stays.
struct Catalog(Mutex<Vec<Snapshot>>);

#[async_trait]
impl rpc::testing::Catalog for Catalog {
    async fn find(&self, _: FindRequest) -> Result<Snapshot, Error> {
        let mut snapshots = self.0.lock().unwrap();
        Ok(if snapshots.len() > 1 { snapshots.remove(0) } else { snapshots[0].clone() })
    }
}

/// What a leaf does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answer,
    AnswerAfter(Duration),
    Fail(ErrorKind),
    FailAfter(Duration, ErrorKind),
    Hang,
}

type Rule = Box<dyn Fn(&ScanRequest) -> Does + Send + Sync>;

/// Counts every object once, after what its rule says.
struct Fake {
    clock: Clock,
    rule: Rule,
    /// Objects that nobody can read.
    corrupt: BTreeSet<&'static str>,
    /// Objects that are not in the bucket.
    gone: BTreeSet<&'static str>,
    asked: Mutex<Vec<ScanRequest>>,
    running: AtomicUsize,
}

impl Fake {
    fn new(clock: &Clock, rule: impl Fn(&ScanRequest) -> Does + Send + Sync + 'static) -> Self {
        Self {
            clock: clock.clone(),
            rule: Box::new(rule),
            corrupt: BTreeSet::new(),
            gone: BTreeSet::new(),
            asked: Mutex::default(),
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
impl Leaf for Fake {
    async fn scan(&self, request: ScanRequest) -> Result<Scanned, Error> {
        self.asked.lock().unwrap().push(request.clone());
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        let failed = |kind| Err(Error::new(kind, "as the test says"));
        match (self.rule)(&request) {
            Does::Answer => {}
            Does::AnswerAfter(time) => self.clock.sleep(time).await,
            Does::Fail(kind) => return failed(kind),
            Does::FailAfter(time, kind) => {
                self.clock.sleep(time).await;
                return failed(kind);
            }
            Does::Hang => std::future::pending().await,
        }
        let mut grouped = series::Grouped::default();
        let mut missing = Vec::new();
        for object in &request.objects {
            let key = object.key.as_str();
            let lack = |reason: &str| Missing {
                key: object.key.clone(),
                reason: reason.into(),
                is_damaged: reason == "corrupt",
            };
            if self.gone.contains(key) {
                match request.skip_gone {
                    true => missing.push(lack("gone")),
                    false => return Err(Error::new(ErrorKind::NotFound, format!("{key} is gone"))),
                }
            } else if self.corrupt.contains(key) {
                missing.push(lack("corrupt"));
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
        Ok(Scanned { partial, missing, effort: None })
    }
}

fn object(key: &str, bytes: u64, datasets: u32) -> Found {
    let dataset = |position| FoundDataset {
        position,
        tenant: TenantId::anonymous(),
        service: "app".into(),
        bytes: bytes / u64::from(datasets),
        times: Times { first: 0, last: 9 },
        profile_types: Vec::new().into(),
    };
    Found {
        key: Key::from_text(key),
        bytes,
        masked: Vec::new(),
        deletions: Vec::new(),
        datasets: (0..datasets).map(dataset).collect(),
    }
}

fn snapshot(objects: Vec<Found>) -> Snapshot {
    Snapshot { objects, ..Snapshot::default() }
}

fn small(keys: &[&str]) -> Snapshot {
    snapshot(keys.iter().map(|key| object(key, 1000, 1)).collect())
}

struct Rig {
    clock: Clock,
    root: Arc<Querier>,
    leaves: Vec<Arc<Fake>>,
}

impl Rig {
    fn new(clock: Clock, leaves: Vec<Fake>, snapshots: Vec<Snapshot>) -> Self {
        let leaves: Vec<Arc<Fake>> = leaves.into_iter().map(Arc::new).collect();
        let named = leaves.iter().enumerate();
        let named: Vec<NamedLeaf> =
            named.map(|(i, leaf)| (format!("leaf-{i}"), leaf.clone() as Arc<dyn Leaf>)).collect();
        let root = root(&clock, named, snapshots);
        Self { clock, root, leaves }
    }

    /// How often each dataset counts.
    async fn ask(&self) -> Result<(BTreeMap<String, i64>, Report), querier::Error> {
        ask(&self.root).await
    }

    fn asked(&self, leaf: usize) -> usize {
        self.leaves[leaf].asked.lock().unwrap().len()
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

fn question() -> Query {
    let question = series::Question {
        start_millis: 0,
        end_millis: 1,
        step_millis: 1,
        group_by: Vec::new(),
        exemplars: false,
        call_site: Vec::new(),
    };
    let range = TimeRange { start: 0, end: 10 };
    Query { range, selector: Selector::default(), profile_type: None, kind: Kind::Series(question) }
}

async fn ask(root: &Querier) -> Result<(BTreeMap<String, i64>, Report), querier::Error> {
    let asker = Asker::new(vec![TenantId::anonymous()]);
    let answered = root.execute(&asker, question()).await?;
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
async fn what_a_dead_leaf_was_asked_for_is_asked_of_another() {
    let clock = virtual_time();
    let dead = Fake::new(&clock, |_| Does::Fail(ErrorKind::Unavailable));
    let leaves = vec![dead, Fake::new(&clock, |_| Does::Answer), Fake::new(&clock, |_| Does::Answer)];
    let rig = Rig::new(clock, leaves, vec![small(&KEYS)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!(counts, once(&small(&KEYS)));
    assert!(report.missing.is_empty());
    assert!(rig.asked(0) > 0, "nothing was of the dead leaf");
    // The others may leave out single objects that the store does not give: nobody else is asked.
    let asked = rig.leaves[1..].iter().flat_map(|leaf| leaf.asked.lock().unwrap().clone());
    assert!(asked.into_iter().any(|request| request.skip_unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_slow_leaf_is_overtaken_and_its_call_dropped() {
    let clock = virtual_time();
    let slow = Fake::new(&clock, |_| Does::AnswerAfter(50 * SECOND));
    let rig = Rig::new(clock.clone(), vec![slow, Fake::new(&clock, |_| Does::Answer)], vec![small(&KEYS)]);
    let began = rig.clock.monotonic();
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&KEYS)), Vec::new()));
    assert!(rig.asked(0) > 0 && rig.clock.monotonic() - began < 2 * SECOND);
    assert_eq!(rig.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_most_a_few_percent_are_asked_twice_however_slow_all_are() {
    let clock = virtual_time();
    let slow = || Fake::new(&clock, |_| Does::AnswerAfter(2 * SECOND));
    let rig = Rig::new(clock.clone(), vec![slow(), slow(), slow()], vec![small(&["a"])]);
    for _ in 0..400 {
        assert_eq!(rig.ask().await.unwrap().0, once(&small(&["a"])));
    }
    let asked: usize = (0..3).map(|leaf| rig.asked(leaf)).sum();
    assert!((401..=400 + 400 / 20 + 10).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_answers_late_counts_if_the_other_fails() {
    let clock = virtual_time();
    let late = Fake::new(&clock, |_| Does::AnswerAfter(20 * SECOND));
    let fails = Fake::new(&clock, |_| Does::FailAfter(SECOND, ErrorKind::Internal));
    let rig = Rig::new(clock, vec![late, fails], vec![small(&KEYS)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&KEYS)), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_too_old_is_replaced_and_nothing_of_it_counts() {
    let clock = virtual_time();
    let mut leaf = Fake::new(&clock, |_| Does::Answer);
    leaf.gone.insert("b");
    let rig = Rig::new(clock, vec![leaf], vec![small(&["a", "b", "c"]), small(&["a", "merged"])]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&["a", "merged"])), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_of_two_snapshots_is_named() {
    let clock = virtual_time();
    let mut leaf = Fake::new(&clock, |_| Does::Answer);
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
    let mut leaf = Fake::new(&clock, |_| Does::Answer);
    leaf.corrupt.insert("b");
    let mut found = small(&["a", "b", "c"]);
    found.quarantined = vec![(Key::from_text("q"), "set aside".into())];
    found.stale = Some(9 * SECOND);
    let rig = Rig::new(clock, vec![leaf], vec![found]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!(counts, once(&small(&["a", "c"])));
    let named: Vec<_> = report.missing.iter().map(|lack| (lack.key.as_str(), &*lack.reason)).collect();
    assert_eq!(named, [("b", "corrupt"), ("q", "set aside")]);
    assert_eq!(report.stale, Some(9 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn what_two_leaves_cannot_read_is_named_with_both_reasons() {
    let clock = virtual_time();
    let poisoned = |request: &ScanRequest| {
        let is_poison = request.objects.iter().any(|object| object.key.as_str() == "large-3");
        if is_poison { Does::Fail(ErrorKind::Internal) } else { Does::Answer }
    };
    // Each is a unit of its own.
    let objects: Vec<_> = (0..6).map(|i| object(&format!("large-{i}"), 600 << 20, 1)).collect();
    let leaves = (0..3).map(|_| Fake::new(&clock, poisoned)).collect();
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
        Fake::new(&clock, move |_| match recovered.load(Ordering::SeqCst) {
            true => Does::AnswerAfter(500 * MILLI),
            false => Does::Fail(ErrorKind::Unavailable),
        })
    });
    let rig = Rig::new(clock.clone(), leaves.collect(), vec![small(&["a"])]);
    for _ in 0..200 {
        rig.ask().await.expect_err("nobody answers");
    }
    recovered.store(true, Ordering::SeqCst);
    let before = rig.asked(0) + rig.asked(1);
    rig.ask().await.unwrap();
    assert_eq!(rig.asked(0) + rig.asked(1) - before, 1, "nobody else is asked");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_nothing_is_an_error() {
    let clock = virtual_time();
    let dead = || Fake::new(&clock, |_| Does::Fail(ErrorKind::Unavailable));
    let rig = Rig::new(clock.clone(), vec![dead(), dead()], vec![small(&KEYS)]);
    let error = rig.ask().await.expect_err("nobody answers").to_string();
    assert!(error.contains("as the test says"), "{error}");
    let none = Rig::new(clock, Vec::new(), vec![small(&KEYS)]);
    let error = none.ask().await.expect_err("nobody is there").to_string();
    assert!(error.contains("no querier"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_any_object_is_an_error_whoever_answers() {
    let refused = async |gone: &[&'static str], corrupt: &[&'static str], found: Snapshot| {
        let clock = virtual_time();
        let mut leaf = Fake::new(&clock, |_| Does::Answer);
        leaf.gone.extend(gone);
        leaf.corrupt.extend(corrupt);
        let rig = Rig::new(clock, vec![leaf], vec![found]);
        rig.ask().await.map_err(|error| error.to_string())
    };
    let two = || small(&["a", "b"]);
    for (gone, corrupt) in [(&["a", "b"][..], &[][..]), (&[], &["a", "b"]), (&["a"], &["b"])] {
        let error = refused(gone, corrupt, two()).await.expect_err("nothing was read");
        assert!(error.contains("none of 2 objects could be read"), "{error}");
        assert!(error.contains("a: ") || error.contains("b: "), "{error}");
    }
    let large = snapshot(vec![object("large", 64 << 20, 3)]);
    let error = refused(&["large"], &[], large).await.expect_err("nothing was read");
    assert!(error.contains("none of 1 objects could be read; large: gone"), "{error}");
    let (counts, report) = refused(&["a"], &[], two()).await.expect("one was read");
    assert_eq!((counts, report.missing.len()), (once(&small(&["b"])), 1));
    let (counts, _) = refused(&[], &[], snapshot(Vec::new())).await.expect("no data is no fault");
    assert!(counts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn datasets_of_a_large_object_are_shared_among_leaves_and_always_go_to_the_same() {
    let clock = virtual_time();
    let leaves = (0..3).map(|_| Fake::new(&clock, |_| Does::Answer)).collect();
    let found = snapshot(vec![object("large", 100 << 20, 30)]);
    let rig = Rig::new(clock, leaves, vec![found.clone()]);
    assert_eq!(rig.ask().await.unwrap().0, once(&found));
    let of = |leaf: usize| -> BTreeSet<u32> {
        let asked = std::mem::take(&mut *rig.leaves[leaf].asked.lock().unwrap());
        let objects = asked.into_iter().flat_map(|request| request.objects);
        objects.flat_map(|object| object.datasets).map(|dataset| dataset.position).collect()
    };
    let first: Vec<_> = (0..3).map(of).collect();
    assert!(first.iter().all(|positions| positions.len() > 3), "{first:?}");
    rig.ask().await.unwrap();
    assert_eq!((0..3).map(of).collect::<Vec<_>>(), first);
}

#[tokio::test(start_paused = true)]
async fn the_time_that_is_left_goes_along_and_its_end_drops_every_call() {
    let clock = virtual_time();
    let fails = Fake::new(&clock, |_| Does::FailAfter(10 * SECOND, ErrorKind::Unavailable));
    let hangs = Fake::new(&clock, |_| Does::Hang);
    let rig = Rig::new(clock.clone(), vec![fails, hangs], vec![small(&["a"])]);
    let mut asker = Asker::new(vec![TenantId::anonymous()]);
    asker.deadline = Some(clock.monotonic() + 30 * SECOND);
    let began = clock.monotonic();
    let error = rig.root.execute(&asker, question()).await.expect_err("too late");
    assert!(error.to_string().contains("30"), "{error}");
    assert_eq!(clock.monotonic() - began, 30 * SECOND);
    assert_eq!(rig.running(), 0);
    let asked = rig.leaves.iter().flat_map(|leaf| leaf.asked.lock().unwrap().clone());
    let left: Vec<_> = asked.map(|request| request.time_left.unwrap()).collect();
    assert!(left.contains(&(30 * SECOND)) && left.iter().any(|left| *left < 30 * SECOND), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_an_earlier_epoch_is_not_believed() {
    let clock = virtual_time();
    let of = |epoch| Snapshot { epoch, ..small(&["a"]) };
    let leaf = Fake::new(&clock, |_| Does::Answer);
    let rig = Rig::new(clock, vec![leaf], vec![of(3), of(2), of(3)]);
    assert!(rig.ask().await.is_ok());
    let error = rig.ask().await.expect_err("an old owner").to_string();
    assert!(error.contains("epoch 2") && error.contains("epoch 3"), "{error}");
    assert!(rig.ask().await.is_ok());
}

/// Leaves that do anything at any time; nothing may count twice or be lost without being named.
#[tokio::test(start_paused = true)]
async fn whatever_leaves_do_an_answer_is_exact_or_says_what_it_lacks() {
    let (mut answers, mut partial, mut refused) = (0, 0, 0);
    for seed in 0..300 {
        let clock = virtual_time();
        let dice = Arc::new(AtomicU64::new(seed));
        let leaves = (0..1 + seed % 4).map(|_| {
            let dice = dice.clone();
            Fake::new(&clock, move |_| {
                let mut own = Dice(dice.fetch_add(0x5851_f42d, Ordering::SeqCst));
                let time = MILLI * own.roll(5000) as u32;
                match own.roll(12) {
                    0 => Does::Fail(ErrorKind::Unavailable),
                    1 => Does::FailAfter(time, ErrorKind::Internal),
                    2 => Does::FailAfter(time, ErrorKind::DeadlineExceeded),
                    3 => Does::Fail(ErrorKind::Exhausted { retry_after: time }),
                    4 if seed % 3 == 0 => Does::FailAfter(time, ErrorKind::NotFound),
                    5 if seed % 7 == 0 => Does::Hang,
                    6..=8 => Does::AnswerAfter(time),
                    _ => Does::Answer,
                }
            })
        });
        let mut own = Dice(seed);
        let objects = (0..own.roll(40)).map(|i| {
            let bytes = [1000, 50 << 20, 400 << 20, 900 << 20][own.roll(4) as usize];
            object(&format!("{seed}-{i}"), bytes, 1 + own.roll(3) as u32)
        });
        let found = snapshot(objects.collect());
        let rig = Rig::new(clock.clone(), leaves.collect(), vec![found.clone()]);
        match rig.ask().await {
            Ok((counts, report)) => {
                answers += 1;
                partial += usize::from(!report.missing.is_empty());
                let lacks: BTreeSet<&str> = report.missing.iter().map(|lack| lack.key.as_str()).collect();
                let mut expected = once(&found);
                for (dataset, count) in &counts {
                    assert_eq!(expected.remove(dataset), Some(*count), "seed {seed}: {dataset}");
                }
                for dataset in expected.keys() {
                    let key = dataset.split('#').next().unwrap();
                    assert!(lacks.contains(key), "seed {seed}: {dataset} is lost");
                }
            }
            Err(_) => refused += 1,
        }
        assert_eq!(rig.running(), 0, "seed {seed}");
    }
    assert!(answers > 200 && partial > 20 && refused > 5, "{answers} {partial} {refused}");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_work_of_leaves_in_other_processes() {
    let clock = Clock::system();
    let leaf = Arc::new(Fake::new(&clock, |_| Does::Hang));
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
        _ = ask(&root) => panic!("nobody answers"),
        () = until(1) => {}
    }
    until(0).await;
    // The client's time is over, though nobody told the leaf.
    let mut asker = Asker::new(vec![TenantId::anonymous()]);
    asker.deadline = Some(clock.monotonic() + 100 * MILLI);
    root.execute(&asker, question()).await.expect_err("too late");
    until(0).await;
    assert!(leaf.asked.lock().unwrap().iter().any(|asked| asked.time_left.unwrap() <= 100 * MILLI));
}

const NO_ROOM: ErrorKind = ErrorKind::Exhausted { retry_after: SECOND };

#[tokio::test(start_paused = true)]
async fn a_question_that_found_no_room_runs_again_without_others() {
    let clock = virtual_time();
    let asked = AtomicUsize::new(0);
    let leaf = Fake::new(&clock, move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Does::Fail(NO_ROOM),
        _ => Does::Answer,
    });
    let rig = Rig::new(clock, vec![leaf], vec![small(&KEYS)]);
    let (counts, report) = rig.ask().await.unwrap();
    assert_eq!((counts, report.missing), (once(&small(&KEYS)), Vec::new()));
    assert_eq!(rig.asked(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_finds_no_room_is_refused_and_not_answered_in_part() {
    let clock = virtual_time();
    let full = || Fake::new(&clock, |_| Does::Fail(NO_ROOM));
    let rig = Rig::new(clock.clone(), vec![full(), full()], vec![small(&KEYS)]);
    let Err(querier::Error::Role(error)) = rig.ask().await else { panic!("is refused") };
    assert!(matches!(error.kind, ErrorKind::Exhausted { .. }), "{error}");
    assert_eq!(rig.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_never_fits_is_scanned_once() {
    let clock = virtual_time();
    let small_leaf = || Fake::new(&clock, |_| Does::Fail(ErrorKind::TooLarge));
    let rig = Rig::new(clock.clone(), vec![small_leaf(), small_leaf()], vec![small(&KEYS[..1])]);
    let Err(querier::Error::Role(error)) = rig.ask().await else { panic!("is refused") };
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    assert_eq!(rig.asked(0) + rig.asked(1), 1);
}
