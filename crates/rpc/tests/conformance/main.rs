//! Conformance of the roles' traits, in this process and over gRPC.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod compare;
mod fake;
mod made;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use futures::future::BoxFuture;
use query::{Answer, Kind, Partial};
use rpc::grpc::{Config, IngesterClient, LeafClient, MetastoreClient, Peer, Services, serve};
use rpc::{Error, ErrorKind, Ingester, Leaf, Metastore, PublishOutcome, ScanAnswer};
use storage::Key;
use tokio::net::{TcpListener, TcpStream};

use crate::fake::{Behaviour, Fake};

/// Longer than any step of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients of the roles, and the role that they reach.
struct Form {
    name: &'static str,
    fake: Arc<Fake>,
    ingester: Arc<dyn Ingester>,
    leaf: Arc<dyn Leaf>,
    metastore: Arc<dyn Metastore>,
}

fn in_process() -> Form {
    let fake = Arc::new(Fake::default());
    Form { name: "in process", ingester: fake.clone(), leaf: fake.clone(), metastore: fake.clone(), fake }
}

async fn over_grpc(config: Config, message_bytes_max: usize) -> Form {
    let fake = Arc::new(Fake::default());
    let address = start(fake.clone(), message_bytes_max).await;
    called_at(address, config, fake)
}

fn called_at(address: SocketAddr, config: Config, fake: Arc<Fake>) -> Form {
    let peer = Peer::new(&address.to_string(), config, Clock::system(), Pool::new(2)).unwrap();
    Form {
        name: "over gRPC",
        ingester: Arc::new(IngesterClient::new(peer.clone())),
        leaf: Arc::new(LeafClient::new(peer.clone())),
        metastore: Arc::new(MetastoreClient::new(peer)),
        fake,
    }
}

async fn start(fake: Arc<Fake>, message_bytes_max: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let services = Services::new(Pool::new(2))
        .message_bytes_max(message_bytes_max)
        .ingester(fake.clone())
        .leaf(fake.clone())
        .metastore(fake);
    let clock = Clock::system();
    clock.spawn(serve(listener, services, clock.clone(), PATIENCE, std::future::pending()));
    address
}

async fn forms() -> [Form; 2] {
    [in_process(), over_grpc(Config::default(), rpc::grpc::MESSAGE_BYTES_MAX).await]
}

impl Form {
    fn set_behaviour(&self, behaviour: Behaviour) {
        *self.fake.behaviour.lock().unwrap() = behaviour;
    }

    fn asked(&self) -> String {
        self.fake.asked.lock().unwrap().clone()
    }

    /// A call of every method with ordinary arguments.
    fn calls(&self) -> Vec<(&'static str, BoxFuture<'_, Result<(), Error>>)> {
        let (leaf, metastore) = (&self.leaf, &self.metastore);
        vec![
            ("push", self.ingester.push(made::items())),
            ("scan", Box::pin(async { leaf.scan(made::queries().remove(0).0).await.map(drop) })),
            ("segment_written", metastore.segment_written(made::hint())),
            ("find", Box::pin(async { metastore.find(made::finds().remove(0)).await.map(drop) })),
            ("claim_job", Box::pin(async { metastore.claim_job().await.map(drop) })),
            ("publish", Box::pin(async { metastore.publish(made::publication()).await.map(drop) })),
            ("fail_job", metastore.fail_job(made::failure())),
            ("sweepable", Box::pin(async { metastore.sweepable(5).await.map(drop) })),
            ("swept", metastore.swept(vec![Key::cluster()])),
            ("quarantine", metastore.quarantine(vec![(Key::cluster(), String::new())])),
            ("delete", Box::pin(async { metastore.delete(made::delete_request()).await.map(drop) })),
            ("deletions", Box::pin(async { metastore.deletions(made::tenant("a")).await.map(drop) })),
            ("standing", Box::pin(async { metastore.standing().await.map(drop) })),
        ]
    }
}

#[tokio::test]
async fn a_push_arrives_unchanged() {
    for form in forms().await {
        form.ingester.push(made::items()).await.unwrap();
        assert_eq!(form.asked(), compare::items(&made::items()), "{}", form.name);
        form.ingester.push(Vec::new()).await.unwrap();
        assert_eq!(form.asked(), "", "{}", form.name);
    }
}

#[tokio::test]
async fn every_kind_of_query_and_answer_arrives_unchanged() {
    for form in forms().await {
        for ((request, partial), (asked, expected)) in made::queries().into_iter().zip(made::queries()) {
            *form.fake.scanned.lock().unwrap() = Some(partial);
            let answer = form.leaf.scan(request).await.unwrap();
            assert_eq!(form.asked(), compare::scan(&asked), "{}", form.name);
            compare::assert_same_scan(&answer, &expected);
        }
    }
}

#[tokio::test]
async fn answers_merge_the_same_after_the_transport() {
    let nth = |i| made::queries().swap_remove(i);
    for form in forms().await {
        for i in 0..made::queries().len() {
            let ask = async || {
                let (request, partial) = nth(i);
                *form.fake.scanned.lock().unwrap() = Some(partial);
                form.leaf.scan(request).await.unwrap().partial
            };
            let mut merged = ask().await;
            merged.merge(ask().await).unwrap();
            let mut expected = nth(i).1.partial;
            expected.merge(nth(i).1.partial).unwrap();
            compare::assert_same(&merged, &expected);
        }
    }
}

#[tokio::test]
async fn a_snapshot_arrives_unchanged() {
    for form in forms().await {
        *form.fake.snapshot.lock().unwrap() = made::snapshot();
        for request in made::finds() {
            let found = form.metastore.find(request.clone()).await.unwrap();
            assert_eq!(form.asked(), format!("{request:?}"), "{}", form.name);
            assert_eq!(format!("{found:?}"), format!("{:?}", made::snapshot()), "{}", form.name);
            // The list of types that two datasets share is still shared.
            let datasets = [&found.objects[0].datasets[0], &found.objects[1].datasets[1]];
            assert!(Arc::ptr_eq(&datasets[0].profile_types, &datasets[1].profile_types), "{}", form.name);
        }
    }
}

#[tokio::test]
async fn every_other_call_of_a_metastore_arrives_unchanged() {
    for form in forms().await {
        form.metastore.segment_written(made::hint()).await.unwrap();
        assert_eq!(form.asked(), format!("{:?}", made::hint()), "{}", form.name);

        assert!(form.metastore.claim_job().await.unwrap().is_none(), "{}", form.name);
        *form.fake.job.lock().unwrap() = Some(made::job());
        let job = form.metastore.claim_job().await.unwrap().unwrap();
        assert_eq!(format!("{job:?}"), format!("{:?}", made::job()), "{}", form.name);

        for published in [PublishOutcome::Done, PublishOutcome::Rejected] {
            *form.fake.published.lock().unwrap() = published;
            assert_eq!(form.metastore.publish(made::publication()).await.unwrap(), published);
            assert_eq!(form.asked(), format!("{:?}", made::publication()), "{}", form.name);
        }

        form.metastore.fail_job(made::failure()).await.unwrap();
        assert_eq!(form.asked(), format!("{:?}", made::failure()), "{}", form.name);

        let dead = form.metastore.sweepable(usize::MAX).await.unwrap();
        assert_eq!(form.asked(), usize::MAX.to_string(), "{}", form.name);
        let keys: Vec<&str> = dead.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["block/a/1-0-300/x", "log/b/000000000001"], "{}", form.name);

        let keys: Vec<Key> = dead.into_iter().map(|object| object.key).collect();
        form.metastore.swept(keys.clone()).await.unwrap();
        assert_eq!(form.asked(), format!("{keys:?}"), "{}", form.name);

        let damaged: Vec<_> = keys.into_iter().zip(["é".to_owned(), String::new()]).collect();
        form.metastore.quarantine(damaged.clone()).await.unwrap();
        assert_eq!(form.asked(), format!("{damaged:?}"), "{}", form.name);

        let deletion = form.metastore.delete(made::delete_request()).await.unwrap();
        assert_eq!(form.asked(), format!("{:?}", made::delete_request()), "{}", form.name);
        assert_eq!(format!("{deletion:?}"), format!("{:?}", made::statuses()[0]), "{}", form.name);
        let deletions = form.metastore.deletions(made::tenant("team-a")).await.unwrap();
        assert_eq!(form.asked(), "team-a", "{}", form.name);
        assert_eq!(format!("{deletions:?}"), format!("{:?}", made::statuses()), "{}", form.name);

        assert_eq!(form.metastore.standing().await.unwrap(), made::standing(), "{}", form.name);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("outer cause")]
struct Outer(#[source] std::io::Error);

#[tokio::test]
async fn every_error_of_every_method_arrives_with_its_kind_text_hint_and_causes() {
    let failures: [(ErrorKind, fn() -> Error); 9] = [
        (ErrorKind::InvalidArgument, || Error::new(ErrorKind::InvalidArgument, "é is wrong\nhere")),
        (ErrorKind::NotFound, || Error::new(ErrorKind::NotFound, "object x is gone")),
        (ErrorKind::Exhausted { retry_after: Duration::from_nanos(1_500_000_001) }, || {
            let retry_after = Duration::from_nanos(1_500_000_001);
            Error::new(ErrorKind::Exhausted { retry_after }, "too much")
        }),
        (ErrorKind::Exhausted { retry_after: Duration::ZERO }, || {
            Error::new(ErrorKind::Exhausted { retry_after: Duration::ZERO }, "")
        }),
        (ErrorKind::TooLarge, || Error::new(ErrorKind::TooLarge, "never")),
        (ErrorKind::Unavailable, || {
            let cause = Outer(std::io::Error::other("inner cause"));
            Error::with_source(ErrorKind::Unavailable, "not now", cause)
        }),
        (ErrorKind::DeadlineExceeded, || Error::new(ErrorKind::DeadlineExceeded, "too late")),
        (ErrorKind::Corrupt, || Error::new(ErrorKind::Corrupt, "bytes are wrong")),
        (ErrorKind::Internal, || Error::new(ErrorKind::Internal, "ours")),
    ];
    for form in forms().await {
        for (kind, failure) in failures {
            form.set_behaviour(Behaviour::Fail(failure));
            for (method, call) in form.calls() {
                let error = call.await.expect_err(method);
                assert_eq!(error.kind, kind, "{} {method}", form.name);
                assert_eq!(error.message, failure().message, "{} {method}", form.name);
                assert_eq!(causes(&error), causes(&failure()), "{} {method}", form.name);
            }
        }
    }
}

fn causes(error: &Error) -> Vec<String> {
    let mut all = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    all
}

#[tokio::test]
async fn an_error_with_a_very_long_text_arrives_with_its_beginning() {
    let form = over_grpc(Config::default(), rpc::grpc::MESSAGE_BYTES_MAX).await;
    form.set_behaviour(Behaviour::Fail(|| {
        let cause = std::io::Error::other("ü".repeat(100_000));
        Error::with_source(ErrorKind::Corrupt, "é".repeat(100_000), cause)
    }));
    for (method, call) in form.calls() {
        let error = call.await.expect_err(method);
        assert_eq!(error.kind, ErrorKind::Corrupt, "{method}: {error}");
        assert!(error.message.starts_with("éééé"), "{method}");
        assert!(causes(&error)[0].starts_with("üüüü"), "{method}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_stops_the_work_of_the_role() {
    for form in forms().await {
        form.set_behaviour(Behaviour::Hang);
        for (method, call) in form.calls() {
            tokio::select! {
                _ = call => panic!("{method} answered"),
                begun = form.fake.begun.acquire() => begun.unwrap().forget(),
            }
            let dropped = Clock::system().timeout(PATIENCE, form.fake.dropped.acquire()).await;
            dropped.unwrap_or_else(|| panic!("{} {method} goes on", form.name)).unwrap().forget();
        }
    }
}

#[tokio::test]
async fn a_call_past_its_deadline_fails_and_stops_the_work_of_the_role() {
    let config = Config { timeout: Duration::from_millis(200), ..Config::default() };
    let form = over_grpc(config, rpc::grpc::MESSAGE_BYTES_MAX).await;
    form.set_behaviour(Behaviour::Hang);
    for (method, call) in form.calls() {
        let error = call.await.expect_err(method);
        assert_eq!(error.kind, ErrorKind::DeadlineExceeded, "{method}: {error}");
        let dropped = Clock::system().timeout(PATIENCE, form.fake.dropped.acquire()).await;
        dropped.unwrap_or_else(|| panic!("{method} goes on")).unwrap().forget();
    }
    // The connection still works.
    form.set_behaviour(Behaviour::Answer);
    form.ingester.push(made::items()).await.unwrap();
}

/// An answer of label names with `bytes` bytes in total.
fn large_answer(bytes: usize) -> ScanAnswer {
    let mut partial = Partial::empty(&made::query(Kind::LabelNames));
    if let Answer::Labels(found) = &mut partial.answer {
        found.texts.insert("x".repeat(bytes));
    }
    ScanAnswer { partial, missing: Vec::new(), effort: None }
}

#[tokio::test]
async fn client_and_server_refuse_a_message_over_the_limit_with_its_size() {
    let limit = 1 << 20;
    let small = Config { message_bytes_max: limit, ..Config::default() };
    for (name, config, server_limit) in
        [("client", small, rpc::grpc::MESSAGE_BYTES_MAX), ("server", Config::default(), limit)]
    {
        let form = over_grpc(config, server_limit).await;
        let keys = vec![Key::from_text("x".repeat(2 * limit))];
        let error = form.metastore.swept(keys).await.expect_err(name);
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{name}: {error}");
        assert!(error.message.contains(&limit.to_string()), "{name}: {error}");

        let request = || made::scan_of(made::query(Kind::LabelNames), Vec::new());
        *form.fake.scanned.lock().unwrap() = Some(large_answer(2 * limit));
        let error = form.leaf.scan(request()).await.expect_err(name);
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{name}: {error}");
        assert!(error.message.contains(&limit.to_string()), "{name}: {error}");

        *form.fake.scanned.lock().unwrap() = Some(large_answer(limit / 2));
        form.leaf.scan(request()).await.unwrap();
    }
}

/// A proxy between caller and role that can be stopped.
struct Proxy(clock::Task<()>);

impl Proxy {
    async fn start(listener: TcpListener, server: SocketAddr) -> Self {
        Self(Clock::system().spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        }))
    }

    async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

#[tokio::test]
async fn a_peer_that_is_gone_is_unavailable_at_once_and_is_called_again_once_it_is_back() {
    let fake = Arc::new(Fake::default());
    let server = start(fake.clone(), rpc::grpc::MESSAGE_BYTES_MAX).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut proxy = Proxy::start(listener, server).await;
    let form = called_at(address, Config::default(), fake);
    for i in 0..form.calls().len() {
        // The peer goes away during a call.
        form.set_behaviour(Behaviour::Hang);
        let (method, call) = form.calls().swap_remove(i);
        let leave = async {
            form.fake.begun.acquire().await.unwrap().forget();
            proxy.stop().await;
        };
        let clock = Clock::system();
        let (answer, ()) = futures::join!(clock.timeout(PATIENCE, call), leave);
        let error = answer.unwrap_or_else(|| panic!("{method} waits")).expect_err(method);
        assert_eq!(error.kind, ErrorKind::Unavailable, "{method}: {error}");
        assert!(error.message.contains(&address.to_string()), "{method}: {error}");
        assert!(!error.is_refused(), "{method}: {error}");

        // A call while the peer is gone.
        let (method, call) = form.calls().swap_remove(i);
        let error = call.await.expect_err(method);
        assert_eq!(error.kind, ErrorKind::Unavailable, "{method}: {error}");
        assert!(error.is_refused(), "{method}: {error}");

        // A call after it is back.
        let listener = TcpListener::bind(address).await.unwrap();
        proxy = Proxy::start(listener, server).await;
        form.set_behaviour(Behaviour::Answer);
        let (method, call) = form.calls().swap_remove(i);
        call.await.unwrap_or_else(|error| panic!("{method}: {error}"));
    }
}

#[tokio::test]
async fn a_stopping_listener_answers_calls_in_flight_and_accepts_no_more() {
    let fake = Arc::new(Fake::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let services = Services::new(Pool::new(1)).metastore(fake.clone());
    let clock = Clock::system();
    let shutdown = async { _ = stopped.await };
    let drain = Duration::from_millis(200);
    let server = clock.spawn(serve(listener, services, clock.clone(), drain, shutdown));
    let form = called_at(address, Config::default(), fake);
    form.metastore.claim_job().await.unwrap();
    // A role that this process does not have.
    let error = form.ingester.push(made::items()).await.expect_err("no such role");
    assert_eq!(error.kind, ErrorKind::Internal, "{error}");
    stop.send(()).unwrap();
    clock.timeout(PATIENCE, server).await.expect("it stops").unwrap().unwrap();
    let error = form.metastore.claim_job().await.expect_err("the listener is closed");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn an_address_without_host_and_port_is_refused() {
    let error = Peer::new("not an address", Config::default(), Clock::system(), Pool::inline());
    assert_eq!(error.err().map(|error| error.kind), Some(ErrorKind::InvalidArgument));
}
