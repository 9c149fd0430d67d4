//! Tests of the engine over a store in memory: maintenance, fencing of paused owners, rebuilds.

use object_store::memory::InMemory;
use storage::fault::Faulty;

use super::file::{Commit, Content};
use super::owner::Doubt;
use super::rebuild::Fence;
use super::*;
use crate::{Batch, Row, conformance};

fn eager() -> Options {
    Options {
        checkpoint_commits: 7,
        checkpoint_bytes: 1 << 20,
        collect_after: Duration::from_millis(0),
        look_within: Duration::from_secs(3600),
        openings_kept: Duration::from_secs(3600),
    }
}

fn engine(store: &Store, options: Options) -> NumberedCatalog {
    NumberedCatalog::new(store.clone(), Clock::system(), options)
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.to_owned(), value.to_owned());
    batch
}

async fn values(catalog: &dyn Catalog) -> Vec<Row> {
    catalog.range(Bytes::new()..Bytes::from_static(b"\xff")).await.expect("reads")
}

#[tokio::test]
async fn the_suite_passes_in_memory() {
    let fresh = || engine(&Store::in_memory(), Options::default());
    assert_eq!(conformance::check(fresh).await, Ok(()));
}

#[tokio::test]
async fn the_suite_passes_with_eager_maintenance() {
    // A view may be outrun when nothing is kept, so this one keeps commits for a second.
    let options = Options { collect_after: Duration::from_secs(1), ..eager() };
    let fresh = || engine(&Store::in_memory(), options.clone());
    assert_eq!(conformance::check(fresh).await, Ok(()));
}

#[tokio::test]
async fn an_opening_reads_a_checkpoint_and_few_commits() {
    let store = Store::in_memory();
    let owner = engine(&store, eager()).open().await.expect("opens");
    for i in 0..100 {
        owner.commit(put(&format!("k{i}"), "v")).await.expect("commits");
        owner.maintain().await.expect("maintains");
        // The clock must move for anything to be old.
        Clock::system().sleep(Duration::from_millis(2)).await;
    }
    owner.maintain().await.expect("maintains");
    let files = store.list("catalog").await.expect("lists");
    assert!(files.len() < 20, "{} files are left", files.len());
    let successor = engine(&store, eager()).open().await.expect("opens");
    assert_eq!(values(&*successor).await.len(), 100);
}

#[tokio::test]
async fn a_paused_owner_is_fenced_after_its_commits_were_collected() {
    let store = Store::in_memory();
    let paused = engine(&store, eager()).open().await.expect("opens");
    paused.commit(put("a", "1")).await.expect("commits");
    let owner = engine(&store, eager()).open().await.expect("opens");
    for i in 0..50 {
        owner.commit(put("b", &i.to_string())).await.expect("commits");
        owner.maintain().await.expect("maintains");
        Clock::system().sleep(Duration::from_millis(2)).await;
    }
    assert!(matches!(paused.commit(put("a", "2")).await, Err(Error::Fenced { .. })));
}

#[tokio::test]
async fn an_owner_paused_beyond_every_limit_is_fenced_by_a_listing() {
    let store = Store::in_memory();
    let short = Options { openings_kept: Duration::from_millis(10), ..eager() };
    let paused = engine(&store, short.clone()).open().await.expect("opens");
    let owner = engine(&store, short).open().await.expect("opens");
    for i in 0..30 {
        owner.commit(put("b", &i.to_string())).await.expect("commits");
        Clock::system().sleep(Duration::from_millis(2)).await;
        owner.maintain().await.expect("maintains");
    }
    assert!(store.get(&commit_key(1, 1)).await.is_err(), "the opening must have been collected");
    assert!(matches!(paused.commit(put("a", "2")).await, Err(Error::Fenced { .. })));
}

#[tokio::test]
async fn an_owner_paused_with_a_commit_in_doubt_does_not_repeat_it() {
    let store = Store::in_memory();
    let paused = engine(&store, eager()).open_newest().await.expect("opens");
    let commit = Commit {
        slot: 1,
        epoch: paused.epoch,
        owner: paused.id,
        millis: 0,
        content: Content::Changes(put("a", "1")),
    };
    let bytes = commit.encode();
    store.settle_create(&commit_key(1, 1), bytes.clone()).await.expect("lands");
    *paused.in_doubt.lock().await = Some(Doubt { commit, bytes });
    let owner = engine(&store, eager()).open().await.expect("opens");
    for i in 0..30 {
        owner.commit(put("b", &i.to_string())).await.expect("commits");
        Clock::system().sleep(Duration::from_millis(2)).await;
        owner.maintain().await.expect("maintains");
    }
    assert!(store.get(&commit_key(1, 1)).await.is_err(), "the commit must have been collected");
    assert!(matches!(paused.check().await, Err(Error::Fenced { .. })));
    assert!(matches!(paused.commit(put("a", "2")).await, Err(Error::Fenced { .. })));
}

#[tokio::test]
async fn an_owner_sees_an_opening_behind_its_own_commit_in_doubt() {
    let store = Store::in_memory();
    let paused = engine(&store, Options::default()).open_newest().await.expect("opens");
    let (epoch, owner) = (paused.epoch, paused.id);
    let commit = Commit { slot: 1, epoch, owner, millis: 0, content: Content::Changes(put("a", "1")) };
    store.settle_create(&commit_key(1, 1), commit.encode()).await.expect("lands");
    paused.check().await.expect("owns it still");
    engine(&store, Options::default()).open().await.expect("opens");
    assert!(matches!(paused.check().await, Err(Error::Fenced { .. })));
}

#[tokio::test]
async fn a_commit_whose_caller_left_precedes_the_next() {
    let store = Store::in_memory();
    let engine = engine(&store, Options::default());
    let owner = engine.open_newest().await.expect("opens");
    let left = Commit {
        slot: 1,
        epoch: owner.epoch,
        owner: owner.id,
        millis: 0,
        content: Content::Changes(put("a", "1")),
    };
    let bytes = left.encode();
    *owner.in_doubt.lock().await = Some(Doubt { commit: left, bytes });
    owner.commit(put("b", "2")).await.expect("commits");
    assert_eq!(values(&owner).await.len(), 2);
    let successor = engine.open().await.expect("opens");
    assert_eq!(values(&*successor).await.len(), 2);
}

#[tokio::test]
async fn a_missing_commit_is_an_error_that_names_it() {
    let store = Store::in_memory();
    let owner = engine(&store, Options::default()).open().await.expect("opens");
    for i in 0..3 {
        owner.commit(put("a", &i.to_string())).await.expect("commits");
    }
    store.delete(&commit_key(1, 2)).await.expect("deletes");
    let Err(error) = engine(&store, Options::default()).open().await else {
        panic!("must not open");
    };
    assert!(error.to_string().contains("commit/000000000002"), "{error}");
}

#[tokio::test]
async fn a_rebuilt_catalog_replaces_the_old_one_and_fences_its_owner() {
    let store = Store::in_memory();
    let engine = engine(&store, Options::default());
    let old = engine.open().await.expect("opens");
    old.commit(put("a", "old")).await.expect("commits");
    let version = old.version();
    let rebuilt = engine.rebuild(0).await.expect("begins");
    rebuilt.catalog().commit(put("a", "new")).await.expect("commits");
    assert!(matches!(old.commit(put("a", "2")).await, Err(Error::Fenced { .. })));
    rebuilt.replace().await.expect("replaces");
    let owner = engine.open().await.expect("opens");
    assert_eq!(values(&*owner).await[0].1, Bytes::from_static(b"new"));
    assert!(owner.version() > version);
}

#[tokio::test]
async fn files_that_could_not_be_deleted_are_deleted_later() {
    let faulty = Faulty::new(Arc::new(InMemory::new()), Clock::system(), 1);
    let store = Store::new(Arc::new(faulty.clone()), Clock::system(), storage::Metrics::default());
    let short = Options { openings_kept: Duration::from_millis(0), ..eager() };
    let owner = engine(&store, short).open().await.expect("opens");
    for denies in [true, false] {
        faulty.deny_deletes(denies);
        for i in 0..7 {
            owner.commit(put("a", &i.to_string())).await.expect("commits");
        }
        Clock::system().sleep(Duration::from_millis(2)).await;
        assert_eq!(owner.maintain().await.is_err(), denies);
    }
    Clock::system().sleep(Duration::from_millis(2)).await;
    owner.maintain().await.expect("maintains");
    let files = store.list("catalog").await.expect("lists");
    let left: Vec<&str> = files.iter().map(|file| file.key.as_str()).collect();
    assert!(left.len() <= 3, "{left:?}");
}

/// A clock whose Unix time is an hour ahead.
struct Ahead(Clock);

#[async_trait]
impl clock::Source for Ahead {
    fn unix(&self) -> Duration {
        Duration::from_millis(self.0.unix_millis() as u64) + Duration::from_secs(3_600)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }

    fn random(&self) -> u128 {
        self.0.random()
    }
}

#[tokio::test]
async fn an_owner_whose_clock_is_ahead_keeps_files_that_fence_a_paused_one() {
    let store = Store::in_memory();
    let options = Options { collect_after: Duration::from_secs(900), ..eager() };
    let paused = engine(&store, options.clone()).open().await.expect("opens");
    paused.commit(put("a", "in doubt")).await.expect("commits");
    let in_doubt = commit_key(1, 1);
    let owner = NumberedCatalog::new(store.clone(), Clock::new(Ahead(Clock::system())), options).open().await;
    let owner = owner.expect("opens");
    for i in 0..7 {
        owner.commit(put("a", &i.to_string())).await.expect("commits");
    }
    owner.maintain().await.expect("maintains");
    let files = store.list("catalog").await.expect("lists");
    assert!(files.iter().any(|file| file.key == in_doubt), "a paused owner could repeat this commit");
}

#[tokio::test]
async fn files_written_by_a_replaced_owner_are_found_and_deleted() {
    let store = Store::in_memory();
    let replaced = engine(&store, Options::default()).open().await.expect("opens");
    replaced.commit(put("a", "erased")).await.expect("commits");
    let owner = engine(&store, eager()).open().await.expect("opens");
    let version = owner.commit(put("a", "hash")).await.expect("commits");
    replaced.compact(replaced.version()).await.expect("writes a checkpoint");
    assert!(!owner.has_forgotten(version), "it has not listed the files yet");
    owner.compact(version).await.expect("writes a checkpoint");
    for millis in [0, 2] {
        Clock::system().sleep(Duration::from_millis(millis)).await;
        owner.maintain().await.expect("maintains");
    }
    assert!(owner.has_forgotten(version));
    for file in store.list("catalog").await.expect("lists") {
        let bytes = store.get(&file.key).await.expect("gets");
        assert!(!bytes.windows(6).any(|window| window == b"erased"), "{}", file.key);
    }
}

#[tokio::test]
async fn an_earlier_incarnation_is_deleted_once_no_owner_can_return_to_it() {
    let store = Store::in_memory();
    let short = Options { openings_kept: Duration::from_millis(50), ..eager() };
    let kept = Options { openings_kept: Duration::from_secs(3600), ..eager() };
    let paused = engine(&store, short.clone()).open().await.expect("opens");
    paused.commit(put("a", "old")).await.expect("commits");
    let rebuilt = engine(&store, short.clone()).rebuild(0).await.expect("begins");
    rebuilt.catalog().commit(put("a", "new")).await.expect("commits");
    rebuilt.replace().await.expect("replaces");
    let earlier = || async {
        let files = store.list("catalog").await.expect("lists");
        files.iter().filter(|file| file.key.parse_catalog().is_some_and(|(i, _)| i == 1)).count()
    };
    let before = earlier().await;
    engine(&store, kept).open().await.expect("opens").maintain().await.expect("maintains");
    assert_eq!(earlier().await, before, "files that fence a paused owner stay");
    let owner = engine(&store, short).open().await.expect("opens");
    Clock::system().sleep(Duration::from_millis(60)).await;
    owner.maintain().await.expect("maintains");
    assert_eq!(earlier().await, 0);
    assert!(matches!(paused.commit(put("a", "2")).await, Err(Error::Fenced { .. })));
    assert_eq!(values(&*owner).await[0].1, Bytes::from_static(b"new"));
}

#[tokio::test]
async fn files_of_a_listing_stay_after_a_checkpoint_covers_them() {
    let store = Store::in_memory();
    let options = Options { collect_after: Duration::from_millis(200), ..eager() };
    let owner = engine(&store, options).open().await.expect("opens");
    for i in 0..3 {
        owner.commit(put("a", &i.to_string())).await.expect("commits");
    }
    Clock::system().sleep(Duration::from_millis(250)).await;
    let listed = store.list("catalog").await.expect("lists");
    owner.maintain().await.expect("maintains");
    owner.compact(owner.version()).await.expect("writes a checkpoint");
    owner.maintain().await.expect("maintains");
    for file in &listed {
        store.get(&file.key).await.expect("stays");
    }
    Clock::system().sleep(Duration::from_millis(250)).await;
    owner.maintain().await.expect("maintains");
    assert!(store.get(&listed[1].key).await.is_err(), "{} is superfluous", listed[1].key);
}

#[tokio::test]
async fn an_unreadable_catalog_is_rebuilt_and_its_owner_is_fenced() {
    for damage in ["", "cut"] {
        let store = Store::in_memory();
        let engine = engine(&store, Options::default());
        let old = engine.open().await.expect("opens");
        for i in 0..5 {
            old.commit(put("a", &i.to_string())).await.expect("commits");
        }
        let damaged = commit_key(1, 3);
        store.delete(&damaged).await.expect("deletes");
        if !damage.is_empty() {
            store.settle_create(&damaged, Bytes::from_static(b"cut")).await.expect("creates");
        }
        assert!(engine.open().await.is_err());
        let rebuilt = engine.rebuild(0).await.expect("begins");
        rebuilt.catalog().commit(put("a", "new")).await.expect("commits");
        assert!(matches!(old.commit(put("a", "2")).await, Err(Error::Fenced { .. })));
        let version = old.version();
        rebuilt.replace().await.expect("replaces");
        let owner = engine.open().await.expect("opens");
        assert_eq!(values(&*owner).await[0].1, Bytes::from_static(b"new"));
        assert!(owner.version() > version && owner.epoch() > old.epoch());
    }
}

#[tokio::test]
async fn a_catalog_that_replaces_a_lost_one_has_a_higher_epoch_and_version() {
    let store = Store::in_memory();
    let engine = engine(&store, Options::default());
    let old = engine.open().await.expect("opens");
    old.commit(put("a", "old")).await.expect("commits");
    for file in store.list("catalog").await.expect("lists") {
        store.delete(&file.key).await.expect("deletes");
    }
    assert!(!engine.exists().await.expect("lists"));
    assert!(matches!(engine.view().await.map(|_| ()), Err(Error::Absent)));
    let rebuilt = engine.rebuild(0).await.expect("begins");
    rebuilt.replace().await.expect("replaces");
    let owner = engine.open().await.expect("opens");
    assert!(owner.version() > old.version() && owner.epoch() > old.epoch());
    // The owner of the lost one still runs, and no file is in its way.
    old.commit(put("a", "2")).await.expect("commits");
    assert!(matches!(old.maintain().await, Err(Error::Fenced { .. })));
    assert!(matches!(old.check().await, Err(Error::Fenced { .. })));
    owner.commit(put("b", "3")).await.expect("commits");
    engine.open().await.expect("opens");
}

#[tokio::test]
async fn of_two_rebuilds_of_a_lost_catalog_at_most_one_takes_effect() {
    let store = Store::in_memory();
    let engine = engine(&store, Options::default());
    let one = engine.rebuild(0).await.expect("begins");
    let two = engine.rebuild(0).await.expect("begins");
    assert!(matches!(one.replace().await, Err(Error::Fenced { .. })));
    assert!(!engine.exists().await.expect("lists"));
    two.replace().await.expect("replaces");
    engine.open().await.expect("opens");
}

#[tokio::test]
async fn of_two_rebuilds_the_later_one_wins() {
    let store = Store::in_memory();
    let engine = engine(&store, Options::default());
    engine.open().await.expect("opens").commit(put("a", "old")).await.expect("commits");
    let one = engine.rebuild(0).await.expect("begins");
    let two = engine.rebuild(0).await.expect("begins");
    assert!(matches!(one.replace().await, Err(Error::Fenced { .. })));
    two.catalog().commit(put("a", "two")).await.expect("commits");
    two.replace().await.expect("replaces");
    let owner = engine.open().await.expect("opens");
    assert_eq!(values(&*owner).await[0].1, Bytes::from_static(b"two"));
}

#[tokio::test]
async fn a_rebuild_that_died_before_ready_is_finished_by_the_next_opening() {
    let store = Store::in_memory();
    let engine = engine(&store, Options::default());
    engine.open().await.expect("opens").commit(put("a", "old")).await.expect("commits");
    let rebuilt = engine.rebuild(0).await.expect("begins");
    rebuilt.catalog().commit(put("a", "new")).await.expect("commits");
    rebuilt.new.checkpoint().await.expect("is complete");
    let Fence { incarnation, next, epoch, owner } = rebuilt.fences[0];
    let content = Content::Superseded(rebuilt.new.incarnation);
    let commit = Commit { slot: next, epoch, owner, millis: 0, content };
    store.settle_create(&commit_key(incarnation, next), commit.encode()).await.expect("lands");
    let owner = engine.open().await.expect("opens");
    assert_eq!(values(&*owner).await[0].1, Bytes::from_static(b"new"));
}
