//! The conformance suite of backends: memory, a local directory, a real S3 server. And memory behind faults.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod seaweed;

use std::sync::Arc;

use bytes::Bytes;
use clock::Clock;
use model::{BlockId, JobId, Shard, TenantId, Window, WriterId};
use object_store::memory::InMemory;
use storage::fault::{Fault, Faulty, Rates};
use storage::{
    Backend, Config, CreateOutcome, Error, FilesystemConfig, Key, Metrics, OpenError, Place, Store, open,
};

fn slot(writer: u128, seq: u64) -> Key {
    Key::log_slot(WriterId(writer), seq)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Every operation that the roles rely on. `store` must be empty except for its `cluster` object.
async fn conforms(store: &Store) {
    creates_are_settled(store).await;
    reads_return_the_requested_bytes(store).await;
    listings_are_sorted_and_complete(store).await;
    deletes_are_idempotent(store).await;
    races_have_one_winner(store).await;
}

async fn creates_are_settled(store: &Store) {
    let key = slot(1, 0);
    assert!(matches!(store.get(&key).await, Err(Error::NotFound(missing)) if missing == key));
    assert_eq!(store.settle_create(&key, bytes("one")).await.unwrap(), CreateOutcome::Mine);
    assert_eq!(store.settle_create(&key, bytes("one")).await.unwrap(), CreateOutcome::Mine);
    for other in ["two", "", "one and more"] {
        assert_eq!(store.settle_create(&key, bytes(other)).await.unwrap(), CreateOutcome::Other);
    }
    assert_eq!(store.get(&key).await.unwrap(), "one");
    let large = Bytes::from(vec![7; 5 << 20]);
    assert_eq!(store.settle_create(&slot(1, 1), large.clone()).await.unwrap(), CreateOutcome::Mine);
    assert_eq!(store.settle_create(&slot(1, 1), large.clone()).await.unwrap(), CreateOutcome::Mine);
    assert_eq!(store.get(&slot(1, 1)).await.unwrap(), large);
}

async fn reads_return_the_requested_bytes(store: &Store) {
    let key = slot(2, 0);
    store.settle_create(&key, bytes("0123456789")).await.unwrap();
    let parts = store.get_ranges(&key, &[7..9, 0..2, 8..10]).await.unwrap();
    assert_eq!(parts, ["78", "01", "89"]);
    assert_eq!(store.get_ranges(&key, &[]).await.unwrap(), Vec::<Bytes>::new());
    let tail = store.get_tail(&key, 4).await.unwrap();
    assert_eq!((tail.bytes, tail.object_bytes), (bytes("6789"), 10));
    let tail = store.get_tail(&key, 400).await.unwrap();
    assert_eq!((tail.bytes, tail.object_bytes), (bytes("0123456789"), 10));
    let (outside, first) = (20..30, 0..1);
    for beyond in [std::slice::from_ref(&outside), &[0..2, 20..30], &[0..2, 8..12]] {
        let error = store.get_ranges(&key, beyond).await.unwrap_err();
        assert!(matches!(error, Error::Short { bytes: 10, .. }), "{beyond:?}: {error}");
    }
    let empty = slot(2, 2);
    store.settle_create(&empty, Bytes::new()).await.unwrap();
    assert_eq!(store.get_tail(&empty, 4).await.unwrap().object_bytes, 0);
    let error = store.get_ranges(&empty, std::slice::from_ref(&first)).await.unwrap_err();
    assert!(matches!(error, Error::Short { bytes: 0, wanted: 1, .. }), "{error}");
    assert!(matches!(store.get_ranges(&slot(2, 1), &[0..1, 3..4]).await, Err(Error::NotFound(_))));
    assert!(matches!(store.get_tail(&slot(2, 1), 1).await, Err(Error::NotFound(_))));
}

async fn listings_are_sorted_and_complete(store: &Store) {
    let tenant = TenantId::parse("a*b'(c)!").unwrap();
    let job = JobId(store.new_id(&Clock::system()));
    let place = Place { level: 1, window: Window { start: 0, length: 300 }, shard: Shard::ALL };
    let blocks = (0..3).map(|part| Key::block(&tenant, place, BlockId { job, attempt: 1, part }));
    let blocks: Vec<Key> = blocks.collect();
    for key in blocks.iter().rev() {
        store.settle_create(key, bytes("block")).await.unwrap();
    }
    let listed = store.list("block").await.unwrap();
    assert_eq!(
        listed.iter().map(|object| &object.key).collect::<Vec<_>>(),
        blocks.iter().collect::<Vec<_>>()
    );
    assert!(listed.iter().all(|object| object.bytes == 5 && object.modified_millis > 1_500_000_000_000));
    assert_eq!(store.get(&listed[0].key).await.unwrap(), "block", "a listed key can be read");
    let later = store.list_after("block", &blocks[0]).await.unwrap();
    assert_eq!(later.len(), 2);
    assert_eq!(later[0].key, blocks[1]);
    assert_eq!(store.list("bloc").await.unwrap(), [], "a prefix is a folder");
    assert_eq!(store.list("nothing/here").await.unwrap(), []);
    assert!(store.list("").await.unwrap().len() >= 3);
}

async fn deletes_are_idempotent(store: &Store) {
    let key = slot(3, 0);
    for _ in 0..2 {
        store.settle_create(&key, bytes("short-lived")).await.unwrap();
        store.delete(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        assert!(matches!(store.get(&key).await, Err(Error::NotFound(_))));
    }
    assert_eq!(store.list("log/00000000000000000000000000000003").await.unwrap(), []);
}

async fn races_have_one_winner(store: &Store) {
    for round in 0..10 {
        let key = slot(4, round);
        let winners = race(store, &key).await;
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(store.get(&key).await.unwrap()[0], winners[0]);
    }
}

/// Eight writers create one key, each with its own bytes; returns those whose create succeeded.
async fn race(store: &Store, key: &Key) -> Vec<u8> {
    let writers = (0..8u8).map(|writer| async move {
        loop {
            // A create with an unknown outcome is repeated, as every caller must.
            if let Ok(created) = store.settle_create(key, Bytes::from(vec![writer; 100])).await {
                return (writer, created);
            }
        }
    });
    let ended = futures::future::join_all(writers).await;
    ended.iter().filter(|(_, created)| *created == CreateOutcome::Mine).map(|(writer, _)| *writer).collect()
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&Store::in_memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_directory_conforms() {
    let temp = tempfile::tempdir().unwrap();
    for prefix in ["", "some/where"] {
        let config = Config {
            filesystem: FilesystemConfig { dir: temp.path().to_str().unwrap().into() },
            prefix: prefix.into(),
            ..Config::default()
        };
        let store = open(&config, Clock::system(), Metrics::default()).await.unwrap();
        conforms(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let Some(server) = seaweed::start().await else {
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    for prefix in ["", "some/where"] {
        let config =
            Config { backend: Backend::S3, s3: server.config(), prefix: prefix.into(), ..Config::default() };
        let store = open(&config, Clock::system(), Metrics::default()).await.unwrap();
        conforms(&store).await;
        let other = Config { cluster_name: "other".into(), ..config };
        let refused = open(&other, Clock::system(), Metrics::default()).await;
        assert!(matches!(refused, Err(OpenError::Name { .. })));
    }
}

fn faulty(seed: u64) -> (Faulty, Store) {
    let faulty = Faulty::new(Arc::new(InMemory::new()), Clock::system(), seed);
    let store = Store::new(Arc::new(faulty.clone()), Clock::system(), Metrics::default());
    (faulty, store)
}

#[tokio::test]
async fn every_unknown_outcome_of_a_create_is_settled() {
    for fault in [Fault::LoseReply, Fault::FalseConflict, Fault::Fail] {
        let (faulty, store) = faulty(0);
        faulty.script_creates([fault, fault]);
        assert_eq!(
            store.settle_create(&slot(1, 0), bytes("x")).await.unwrap(),
            CreateOutcome::Mine,
            "{fault:?}"
        );
        assert_eq!(store.get(&slot(1, 0)).await.unwrap(), "x");
    }
}

#[tokio::test]
async fn an_outcome_that_cannot_be_read_stays_unknown() {
    let (faulty, store) = faulty(0);
    faulty.script_creates([Fault::LoseReply]);
    faulty.script_reads([Fault::Fail; 4]);
    assert!(store.settle_create(&slot(1, 0), bytes("x")).await.is_err());
    assert_eq!(store.get(&slot(1, 0)).await.unwrap(), "x");
}

#[tokio::test]
async fn reads_survive_three_failures_but_not_four() {
    let (faulty, store) = faulty(0);
    store.settle_create(&slot(1, 0), bytes("x")).await.unwrap();
    faulty.script_reads([Fault::Fail; 3]);
    assert_eq!(store.get(&slot(1, 0)).await.unwrap(), "x");
    faulty.script_reads([Fault::Fail; 4]);
    assert!(matches!(store.get(&slot(1, 0)).await, Err(Error::Backend { .. })));
}

#[tokio::test]
async fn a_race_over_a_faulty_store_has_one_winner() {
    for seed in 0..20 {
        let (faulty, store) = faulty(seed);
        faulty.set_rates(Rates { fail: 50, lose_reply: 100, false_conflict: 100, ..Rates::default() });
        let winners = race(&store, &slot(1, 0)).await;
        faulty.set_rates(Rates::default());
        assert_eq!(winners.len(), 1, "seed {seed}");
        assert_eq!(store.get(&slot(1, 0)).await.unwrap()[0], winners[0]);
    }
}
