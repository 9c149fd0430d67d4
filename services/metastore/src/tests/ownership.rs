//! Several metastores on one bucket, under virtual time: the owner of the catalog, and the answers without one.

use clock::Task;
use cluster::{Callers, FixedMembers, LastKnown as _, Member, Owner, Role};

use super::*;

/// The connection to a candidate; `Unavailable` while it is cut or refused.
struct Line {
    to: Arc<Candidate>,
    is_cut: Arc<AtomicBool>,
    is_refused: Arc<AtomicBool>,
}

impl Line {
    fn through(&self) -> Result<Arc<Candidate>, Error> {
        if self.is_refused.load(Ordering::SeqCst) {
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            return Err(Error::with_source(ErrorKind::Unavailable, "connection refused", refused));
        }
        match self.is_cut.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "no answer")),
            false => Ok(self.to.clone()),
        }
    }
}

#[async_trait]
impl rpc::Relay for Line {
    async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> Result<T, Error> {
        call.on(self.through()?).await
    }
}

struct Process {
    member: Member,
    membership: Arc<FixedMembers>,
    candidate: Arc<Candidate>,
    is_cut: Arc<AtomicBool>,
    is_refused: Arc<AtomicBool>,
    running: Task<()>,
    registry: Registry,
}

/// Metastores `a`, `b`, … that started one second after another, and a root that calls them.
struct Cluster {
    world: World,
    processes: Arc<Mutex<Vec<Process>>>,
    root: Arc<FixedMembers>,
    owner: Arc<Owner>,
}

impl Cluster {
    async fn start_all(nodes: &str) -> Self {
        let world = World::new(77);
        let processes: Arc<Mutex<Vec<Process>>> = Arc::default();
        let root = Arc::new(FixedMembers::new("root", Vec::new()));
        let retention: Retention = Arc::new(|_, _| None);
        let engine = world.parts().engine;
        let viewer = Viewer::new(world.config.clone(), engine, retention, world.clock.clone());
        let callers = Callers::new(&*root, dial(processes.clone()));
        let owner = Arc::new(Owner::new(callers, Some(Arc::new(viewer)), world.clock.clone()));
        let mut cluster = Self { world, processes, root, owner };
        for node in nodes.chars() {
            cluster.start(node).await;
        }
        cluster
    }

    async fn start(&mut self, node: char) {
        let (world, node) = (&self.world, node.to_string());
        let started_millis = world.clock.unix_millis();
        let member = Member { started_millis, ..Member::new(node.as_str(), [Role::Metastore]) };
        let membership = Arc::new(FixedMembers::new(node.as_str(), Vec::new()));
        let others = Callers::new(&*membership, dial(self.processes.clone()));
        let seat = Seat { node, membership: membership.clone(), others, discovers: true };
        let parts = Parts { headers: world.written.clone(), is_alone: false, ..world.parts() };
        let mut registry = Registry::default();
        let candidate = Candidate::new(
            world.config.clone(),
            world.store.clone(),
            parts,
            Arc::new(|_, _| None),
            seat,
            world.clock.clone(),
            &mut registry,
        );
        let running = world.clock.spawn(candidate.clone().run());
        let (is_cut, is_refused) = (Arc::default(), Arc::default());
        let process = Process { member, membership, candidate, is_cut, is_refused, running, registry };
        self.processes.lock().push(process);
        self.agree();
        self.pass(1).await;
    }

    /// Gives all processes the same list of members.
    fn agree(&self) {
        let processes = self.processes.lock();
        let members: Vec<Member> = processes.iter().map(|process| process.member.clone()).collect();
        for process in processes.iter() {
            process.membership.set(members.clone());
        }
        self.root.set(members);
    }

    fn kill(&self, node: &str) {
        {
            let mut processes = self.processes.lock();
            let index = processes.iter().position(|process| process.member.node == node).expect("runs");
            let killed = processes.remove(index);
            killed.running.abort();
            killed.is_cut.store(true, Ordering::SeqCst);
        }
        self.agree();
    }

    /// Stops `node` in an orderly way.
    async fn stop(&self, node: &str) {
        let candidate = {
            let processes = self.processes.lock();
            let process = processes.iter().find(|process| process.member.node == node).expect("runs");
            process.candidate.clone()
        };
        candidate.hand_over().await;
        for process in self.processes.lock().iter_mut().filter(|process| process.member.node == node) {
            process.member.is_leaving = true;
        }
        self.agree();
    }

    fn cut(&self, node: &str, is_cut: bool) {
        let processes = self.processes.lock();
        let process = processes.iter().find(|process| process.member.node == node).expect("runs");
        process.is_cut.store(is_cut, Ordering::SeqCst);
    }

    async fn pass(&self, seconds: u64) {
        self.world.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// Nodes that say that they own the catalog.
    async fn owners(&self) -> String {
        let candidates: Vec<Arc<Candidate>> =
            self.processes.lock().iter().map(|process| process.candidate.clone()).collect();
        let mut owners = String::new();
        for candidate in candidates {
            match candidate.standing().await {
                Ok(standing) if standing.is_owner => owners.push_str(&standing.node),
                _ => {}
            }
        }
        owners
    }

    /// The window of remembered keys in seconds, as exported by each metastore.
    fn windows(&self) -> Vec<f64> {
        let exported = |process: &Process| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &process.registry).unwrap();
            let lines =
                text.lines().filter_map(|l| l.strip_prefix("pyrograph_metastore_dedup_window_seconds "));
            lines.map(|value| value.parse::<f64>().unwrap()).sum()
        };
        self.processes.lock().iter().map(exported).collect()
    }

    async fn find(&self) -> Snapshot {
        self.owner.find(everything()).await.expect("finds")
    }

    /// Time until an owner answers finds.
    async fn until_owned(&self) -> Duration {
        let began = self.world.clock.monotonic();
        while self.find().await.stale.is_some() {
            self.world.clock.sleep(Duration::from_millis(100)).await;
        }
        self.world.clock.monotonic() - began
    }
}

fn dial(
    processes: Arc<Mutex<Vec<Process>>>,
) -> impl Fn(&Member) -> Option<Arc<dyn rpc::Metastore>> + Send + Sync {
    move |member| {
        let processes = processes.lock();
        let process = processes.iter().find(|process| process.member.node == member.node)?;
        let (is_cut, is_refused) = (process.is_cut.clone(), process.is_refused.clone());
        Some(Arc::new(Line { to: process.candidate.clone(), is_cut, is_refused }))
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_running_metastore_owns_the_catalog_and_the_others_name_it() {
    let cluster = Cluster::start_all("abc").await;
    cluster.pass(7).await;
    assert_eq!(cluster.owners().await, "a");
    assert_eq!(cluster.find().await.epoch, 1);
    let candidate = cluster.processes.lock()[2].candidate.clone();
    let error = candidate.find(everything()).await.expect_err("is no owner");
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Unavailable, "it does not own the catalog, a does")
    );
    cluster.pass(600).await;
    assert_eq!(cluster.find().await.epoch, 1, "no process takes it from a living owner");
}

#[tokio::test(start_paused = true)]
async fn a_successor_answers_finds_within_seven_seconds_and_until_then_the_last_catalog_does() {
    let mut cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    let hint = cluster.world.put(1, 0, &[1, 2]).await.expect("free");
    cluster.owner.segment_written(hint).await.expect("an owner");
    cluster.pass(2).await;
    let before = cluster.find().await;
    assert_eq!((before.objects.len(), before.epoch, before.stale), (1, 1, None));

    cluster.kill("a");
    cluster.world.put(1, 1, &[3]).await.expect("writers need no owner");
    let stale = cluster.find().await;
    assert!(stale.stale.is_some_and(|age| age < Duration::from_secs(10)), "{:?}", stale.stale);
    assert_eq!((stale.objects.len(), stale.epoch), (1, 1));
    assert!(stale.version >= before.version);
    let took = cluster.until_owned().await;
    // A find without an owner takes three seconds itself.
    assert!(took < Duration::from_secs(7), "{took:?}");
    let after = cluster.find().await;
    assert_eq!((after.objects.len(), after.epoch), (2, 2));
    assert_eq!(cluster.owners().await, "b");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_left_membership_and_answers_is_not_replaced() {
    let cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    let b = cluster.processes.lock()[1].member.clone();
    cluster.processes.lock()[1].membership.set(vec![b]);
    cluster.pass(60).await;
    assert_eq!(cluster.owners().await, "a");
    cluster.cut("a", true);
    cluster.pass(3).await;
    assert_eq!(cluster.owners().await, "a", "not before four seconds");
    cluster.pass(6).await;
    cluster.cut("a", false);
    assert_eq!(cluster.find().await.epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn an_owner_whose_address_refuses_connections_is_replaced_as_soon_as_it_left_membership() {
    let cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    let b = {
        let processes = cluster.processes.lock();
        processes[0].is_refused.store(true, Ordering::SeqCst);
        processes[1].member.clone()
    };
    cluster.pass(60).await;
    assert_eq!(cluster.owners().await, "a", "it is a member");
    let began = cluster.world.clock.monotonic();
    cluster.processes.lock()[1].membership.set(vec![b]);
    let found = cluster.find().await;
    let took = cluster.world.clock.monotonic() - began;
    assert_eq!((found.epoch, found.stale), (2, None));
    assert!(took < CONFIRMATION_LIFETIME + Duration::from_millis(500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_fails_calls_is_not_replaced() {
    let cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    cluster.cut("a", true);
    cluster.pass(60).await;
    assert_eq!(cluster.owners().await, "a");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_leaves_is_replaced_at_once_and_answers_no_more() {
    let mut cluster = Cluster::start_all("abc").await;
    cluster.pass(7).await;
    let hint = cluster.world.put(1, 0, &[1, 2]).await.expect("free");
    cluster.owner.segment_written(hint).await.expect("an owner");
    cluster.world.put(1, 1, &[3]).await.expect("free");
    cluster.stop("a").await;
    let left = cluster.processes.lock()[0].candidate.clone();
    let error = left.find(everything()).await.expect_err("has left");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let took = cluster.until_owned().await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(cluster.owners().await, "b", "the next by rank");
    let found = cluster.find().await;
    assert_eq!((found.objects.len(), found.epoch), (2, 2));
    cluster.pass(60).await;
    assert_eq!(cluster.find().await.epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_takes_over_from_an_owner_that_leaves() {
    let mut cluster = Cluster::start_all("a").await;
    cluster.pass(7).await;
    cluster.start('b').await;
    cluster.stop("a").await;
    let took = cluster.until_owned().await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(cluster.owners().await, "b");
}

#[tokio::test(start_paused = true)]
async fn an_owner_without_a_successor_owns_the_catalog_until_it_drains() {
    let cluster = Cluster::start_all("a").await;
    cluster.pass(7).await;
    cluster.stop("a").await;
    assert_eq!(cluster.find().await.stale, None);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_leaves_and_cannot_commit_is_replaced_after_the_wait() {
    let cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    cluster.world.faulty.set_rates(Rates { fail: 1_000, ..Rates::default() });
    cluster.stop("a").await;
    cluster.world.faulty.set_rates(Rates::default());
    let took = cluster.until_owned().await;
    assert!(
        (CONFIRMATION_LIFETIME..CONFIRMATION_LIFETIME + Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    assert_eq!(cluster.owners().await, "b");
}

/// Opens the catalog, and measures the time until it serves.
async fn open_timed(world: &World) -> (Arc<Metastore>, Duration) {
    let began = world.clock.monotonic();
    let metastore = world.open_as(false).await;
    (metastore, world.clock.monotonic() - began)
}

#[tokio::test(start_paused = true)]
async fn a_successor_waits_unless_the_owner_right_before_it_has_resigned() {
    let world = World::new(6);
    let (first, took) = open_timed(&world).await;
    assert_eq!(took, CONFIRMATION_LIFETIME, "no owner has resigned");
    first.drain().await;
    let (_second, took) = open_timed(&world).await;
    assert_eq!(took, Duration::ZERO);
    let (third, took) = open_timed(&world).await;
    assert_eq!(took, CONFIRMATION_LIFETIME, "the second has not resigned, the first has");
    third.drain().await;
    let restarted = world.parts().engine.open().await.expect("opens");
    let (_fifth, took) = open_timed(&world).await;
    assert_eq!(
        (restarted.epoch(), took),
        (4, CONFIRMATION_LIFETIME),
        "the third has resigned, the fourth may answer"
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_resigns_neither_answers_nor_commits_from_then_on() {
    let mut world = World::new(7);
    let metastore = world.open_as(false).await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    let turn = metastore.turn.lock().await;
    let draining = world.clock.spawn({
        let metastore = metastore.clone();
        async move { metastore.drain().await }
    });
    world.clock.sleep(Duration::from_millis(1)).await;
    let answers = [metastore.find(everything()).await.map(drop), metastore.segment_written(hint).await];
    drop(turn);
    draining.await.expect("drains");
    let failure = JobFailure { job: JobId(1), attempt: 1, reason: String::new(), inputs_sound: false };
    let steps = [metastore.claim_job().await.map(drop), metastore.fail_job(failure).await];
    for refused in answers.into_iter().chain(steps) {
        assert_eq!(refused.expect_err("resigns").kind, ErrorKind::Unavailable);
    }
    let version = metastore.catalog.version();
    metastore.probe(WriterId(1)).await.expect("consumes");
    metastore.commit_pending().await.expect("does nothing");
    assert_eq!(metastore.catalog.version(), version);
    assert_eq!(open_timed(&world).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_watches_and_owns_the_catalog_again_in_its_turn() {
    let cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    // Each believes that the other is gone.
    for (index, node) in ["a", "b"].into_iter().enumerate() {
        let processes = cluster.processes.lock();
        processes[index].membership.set(vec![processes[index].member.clone()]);
        processes.iter().find(|p| p.member.node == node).expect("runs").is_cut.store(true, Ordering::SeqCst);
    }
    cluster.pass(8).await;
    for node in ["a", "b"] {
        cluster.cut(node, false);
    }
    assert_eq!(cluster.owners().await, "b");
    assert_eq!(cluster.find().await.epoch, 2);
    cluster.agree();
    cluster.pass(60).await;
    assert_eq!(cluster.owners().await, "b", "the first by rank leaves a living owner alone");
    assert_eq!(cluster.windows(), [0.0, 4500.0], "only the owner exports the window of its keys");
    cluster.kill("b");
    cluster.pass(8).await;
    assert_eq!(cluster.owners().await, "a");
    assert_eq!(cluster.find().await.epoch, 3);
}

#[tokio::test(start_paused = true)]
async fn two_metastores_that_cannot_see_each_other_take_turns_ever_more_rarely() {
    let cluster = Cluster::start_all("ab").await;
    for process in cluster.processes.lock().iter() {
        process.membership.set(vec![process.member.clone()]);
        process.is_cut.store(true, Ordering::SeqCst);
    }
    cluster.pass(3_600).await;
    for node in ["a", "b"] {
        cluster.cut(node, false);
    }
    let epoch = cluster.find().await.epoch;
    assert!((2..=60).contains(&epoch), "{epoch}");
    assert_eq!(cluster.owners().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_root_refuses_answers_of_an_owner_that_it_knows_to_be_replaced() {
    let cluster = Cluster::start_all("ab").await;
    cluster.pass(7).await;
    cluster.cut("a", true);
    let candidates: Vec<_> = cluster.processes.lock().iter().map(|p| p.candidate.clone()).collect();
    candidates[1].take_over_at_start().await.expect("takes over");
    assert_eq!(cluster.find().await.epoch, 2);
    cluster.cut("b", true);
    cluster.cut("a", false);
    let snapshot = cluster.find().await;
    assert_eq!((snapshot.epoch, snapshot.stale.is_some()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_silent_log_that_no_ingester_claims_is_closed_after_half_a_minute() {
    let mut cluster = Cluster::start_all("a").await;
    cluster.pass(7).await;
    for writer in [1, 2] {
        let hint = cluster.world.put(writer, 0, &[writer]).await.expect("free");
        cluster.owner.segment_written(hint).await.expect("an owner");
    }
    let ingester = |writers: &[u128]| Member {
        writers: writers.iter().copied().map(WriterId).collect(),
        ..Member::new("i", [Role::Ingester])
    };
    let metastore = cluster.processes.lock()[0].member.clone();
    let see = |members: Vec<Member>| {
        let membership = cluster.processes.lock()[0].membership.clone();
        membership.set([vec![metastore.clone()], members].concat());
    };
    see(vec![ingester(&[])]);
    cluster.pass(120).await;
    see(vec![ingester(&[1])]);
    cluster.pass(5).await;
    let world = &mut cluster.world;
    assert!(world.put(2, 1, &[3]).await.is_none(), "closed: all ingesters report, and none has it");
    assert!(world.put(1, 1, &[4]).await.is_some(), "open: its ingester lives");
    cluster.pass(20).await;
    see(Vec::new());
    cluster.pass(25).await;
    assert!(cluster.world.put(1, 2, &[5]).await.is_none(), "closed: its ingester is gone");
}

#[tokio::test(start_paused = true)]
async fn a_log_is_found_by_its_claim_alone() {
    let mut cluster = Cluster::start_all("a").await;
    cluster.pass(15).await;
    let metastore = cluster.processes.lock()[0].member.clone();
    let ingester = Member { writers: vec![WriterId(1)], ..Member::new("i", [Role::Ingester]) };
    cluster.processes.lock()[0].membership.set(vec![metastore, ingester]);
    cluster.pass(1).await;
    cluster.world.put(1, 0, &[1]).await.expect("free");
    cluster.world.clock.sleep(Duration::from_millis(3_100)).await;
    assert_eq!(cluster.find().await.objects.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_was_read_too_long_ago_is_not_used_for_answers() {
    let world = World::new(5);
    let metastore = world.open_as(false).await;
    metastore.drain().await;
    let engine = world.parts().engine;
    let viewer = Viewer::new(world.config.clone(), engine, Arc::new(|_, _| None), world.clock.clone());
    viewer.find(everything()).await.expect("reads the catalog");
    world.faulty.set_rates(Rates { fail: 1_000, ..Rates::default() });
    world.time.pass(world.config.sweep_grace.get() / 2 - Duration::from_secs(1));
    let snapshot = viewer.find(everything()).await.expect("still knows it");
    assert!(snapshot.stale.is_some());
    world.time.pass(Duration::from_secs(2));
    let error = viewer.find(everything()).await.expect_err("is too old").to_string();
    assert!(error.contains("451 s old, limit is 450 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_cannot_read_the_logs_reports_the_age_of_its_answers() {
    let mut cluster = Cluster::start_all("a").await;
    cluster.pass(7).await;
    cluster.world.put(1, 0, &[1]).await.expect("free");
    cluster.pass(12).await;
    let found = cluster.find().await;
    assert_eq!((found.objects.len(), found.stale), (1, None));

    // The catalog can be read and the logs cannot.
    cluster.world.written.fails.store(true, Ordering::SeqCst);
    cluster.world.put(1, 1, &[2]).await.expect("free");
    cluster.pass(20).await;
    let found = cluster.find().await;
    assert_eq!(found.objects.len(), 1);
    assert!(found.stale.is_some_and(|age| age > STALE_AFTER), "{:?}", found.stale);

    cluster.world.written.fails.store(false, Ordering::SeqCst);
    cluster.pass(3).await;
    let found = cluster.find().await;
    assert_eq!((found.objects.len(), found.stale), (2, None));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_took_long_to_take_over_is_not_stale() {
    let world = World::new(22);
    let opener = world.clone();
    let opening = world.clock.spawn(async move { opener.open_as(false).await });
    world.clock.sleep(CONFIRMATION_LIFETIME / 2).await;
    world.time.pass(2 * STALE_AFTER);
    let owner = opening.await.expect("opens");
    assert_eq!(owner.find(everything()).await.expect("finds").stale, None);
}
