//! The catalog is lost, damaged, older or newer than its bucket: acknowledged data count once, and stay.

use super::*;

type Files = Vec<(Key, Bytes)>;

impl World {
    async fn files(&self, folder: &str) -> Files {
        let mut files = Vec::new();
        for object in self.store.list(folder).await.expect("lists") {
            let bytes = self.store.get(&object.key).await.expect("reads");
            files.push((object.key, bytes));
        }
        files
    }

    pub(super) async fn delete_folder(&self, folder: &str) {
        for object in self.store.list(folder).await.expect("lists") {
            self.store.delete(&object.key).await.expect("deletes");
        }
    }

    async fn put_files(&self, files: &Files) {
        for (key, bytes) in files {
            self.store.settle_create(key, bytes.clone()).await.expect("creates");
        }
    }

    async fn replace_folder(&self, folder: &str, files: &Files) {
        self.delete_folder(folder).await;
        self.put_files(files).await;
    }

    /// Pushes one key in a segment of its own.
    async fn push(&mut self, metastore: &Metastore, seq: u64) {
        let hint = self.put(1, seq, &[u128::from(seq) + 1]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }

    /// Merges all there is to merge.
    async fn compact(&mut self, metastore: &Metastore) {
        metastore.commit_pending().await.expect("commits");
        self.time.pass(Duration::from_secs(31));
        while let Some(job) = metastore.claim_job().await.expect("claims") {
            let publication = self.merge(&job).await;
            assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
        }
        metastore.create_records().await.expect("creates");
        metastore.commit_pending().await.expect("commits");
    }
}

/// `count` segments, merged two by two.
async fn with_blocks(world: &mut World, count: u64) -> Arc<Metastore> {
    world.config.merge_after = limits::Duration::from_secs(0);
    let metastore = world.open().await;
    for seq in 0..count {
        world.push(&metastore, seq).await;
        if seq % 2 == 1 {
            world.compact(&metastore).await;
        }
    }
    metastore.commit_pending().await.expect("commits");
    metastore
}

fn each_once(count: u64) -> BTreeMap<u128, usize> {
    (1..=u128::from(count)).map(|key| (key, 1)).collect()
}

/// Days of comparisons and sweeps delete no data that count.
async fn check_stays(world: &World, metastore: &Arc<Metastore>, expected: &BTreeMap<u128, usize>) {
    for _ in 0..3 {
        sweep_for(world, metastore, 1).await;
        metastore.reconcile().await.expect("compares");
    }
    sweep_for(world, metastore, 1).await;
    assert_eq!(world.counts(metastore).await, *expected);
    for object in metastore.find(everything()).await.expect("finds").objects {
        world.store.get(&object.key).await.expect("is there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_catalog_is_rebuilt_when_the_bucket_is_opened() {
    for days in [0, 2] {
        let mut world = World::new(31);
        let metastore = with_blocks(&mut world, 7).await;
        sweep_for(&world, &metastore, days).await;
        metastore.drain().await;
        world.delete_folder("catalog").await;
        // The writer lives on.
        let metastore = world.open_as(false).await;
        assert_eq!(world.counts(&metastore).await, each_once(7));
        check_stays(&world, &metastore, &each_once(7)).await;
        // Merges continue, and a second loss leads to the same answers.
        for seq in 7..9 {
            world.push(&metastore, seq).await;
        }
        world.compact(&metastore).await;
        metastore.drain().await;
        world.delete_folder("catalog").await;
        assert_eq!(world.counts(&*world.open().await).await, each_once(9));
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_slots_are_all_merged_and_swept_continues_after_a_loss() {
    let mut world = World::new(41);
    let metastore = with_blocks(&mut world, 4).await;
    sweep_for(&world, &metastore, 1).await;
    assert!(world.store.list("log").await.expect("lists").is_empty());
    metastore.drain().await;
    world.delete_folder("catalog").await;
    let metastore = world.open_as(false).await;
    world.put(1, 4, &[5]).await.expect("free");
    metastore.probe(WriterId(1)).await.expect("probes");
    assert_eq!(world.counts(&metastore).await, each_once(5));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_must_not_wait_says_that_a_rebuild_is_needed() {
    let mut world = World::new(32);
    with_blocks(&mut world, 2).await.drain().await;
    world.delete_folder("catalog").await;
    let parts = Parts { headers: world.written.clone(), is_alone: true, ..world.parts() };
    let (config, store, clock) = (&world.config, &world.store, &world.clock);
    let opening = Opening { config, store, parts: &parts, clock, rebuild: None };
    assert!(matches!(opening.open().await.err(), Some(OpenError::RebuildNeeded(_))));
    assert!(world.store.list("catalog").await.expect("lists").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_catalog_older_than_its_bucket_is_rebuilt() {
    for (days, restart) in [(0, false), (2, false), (2, true)] {
        let mut world = World::new(33);
        let metastore = with_blocks(&mut world, 4).await;
        let older = world.files("catalog").await;
        for seq in 4..9 {
            world.push(&metastore, seq).await;
            world.compact(&metastore).await;
        }
        sweep_for(&world, &metastore, days).await;
        metastore.drain().await;
        if restart {
            // Jobs are forgotten after a day.
            let metastore = world.open().await;
            metastore.tend();
            metastore.commit_pending().await.expect("commits");
            metastore.drain().await;
        }
        world.replace_folder("catalog", &older).await;
        let metastore = world.open().await;
        assert_eq!(world.counts(&metastore).await, each_once(9), "{days} days, {restart}");
        check_stays(&world, &metastore, &each_once(9)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_catalog_that_lacks_no_merge_stays_in_use() {
    let mut world = World::new(34);
    let metastore = with_blocks(&mut world, 4).await;
    let older = world.files("catalog").await;
    for seq in 4..6 {
        world.push(&metastore, seq).await;
    }
    metastore.drain().await;
    world.replace_folder("catalog", &older).await;
    let metastore = world.open().await;
    assert_eq!(world.counts(&metastore).await, each_once(6));
    assert_eq!(metastore.state.lock().founded_millis, None, "it was not rebuilt");
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_catalog_is_newer_than_its_blocks_is_rebuilt() {
    for keeps_record in [true, false] {
        let mut world = World::new(35);
        let metastore = with_blocks(&mut world, 4).await;
        world.push(&metastore, 4).await;
        metastore.commit_pending().await.expect("commits");
        // Copied folder by folder while merges continue.
        let (blocks, records) = (world.files("block").await, world.files("publish").await);
        world.compact(&metastore).await;
        metastore.drain().await;
        world.replace_folder("block", &blocks).await;
        if !keeps_record {
            // Only the catalog knows the merge.
            world.replace_folder("publish", &records).await;
        }
        let metastore = world.open().await;
        assert_eq!(world.counts(&metastore).await, each_once(5), "{keeps_record}");
        check_stays(&world, &metastore, &each_once(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_a_copy_lacks_are_created_again() {
    let mut world = World::new(42);
    let metastore = with_blocks(&mut world, 4).await;
    let records = world.files("publish").await;
    for seq in 4..6 {
        world.push(&metastore, seq).await;
    }
    world.compact(&metastore).await;
    metastore.drain().await;
    // publish/ was copied before the last merge, everything else after it.
    world.replace_folder("publish", &records).await;
    let metastore = world.open().await;
    assert_eq!(metastore.state.lock().founded_millis, None);
    check_stays(&world, &metastore, &each_once(6)).await;
    metastore.drain().await;
    world.delete_folder("catalog").await;
    assert_eq!(world.counts(&*world.open().await).await, each_once(6));
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_cannot_succeed_leaves_nothing_behind() {
    let mut world = World::new(43);
    with_blocks(&mut world, 4).await.drain().await;
    world.delete_folder("catalog").await;
    let (record, _) = world.files("publish").await.remove(0);
    world.store.delete(&record).await.expect("deletes");
    world.put_files(&vec![(record, Bytes::from_static(b"damaged"))]).await;
    assert!(matches!(world.try_open(true).await.err(), Some(OpenError::Object { .. })));
    assert!(world.store.list("catalog").await.expect("lists").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_lost_for_good_is_no_reason_to_rebuild() {
    let mut world = World::new(36);
    let metastore = with_blocks(&mut world, 4).await;
    sweep_for(&world, &metastore, 2).await;
    let gone = metastore.find(everything()).await.expect("finds").objects[0].key.clone();
    metastore.drain().await;
    world.store.delete(&gone).await.expect("deletes");
    for _ in 0..2 {
        let metastore = world.open().await;
        assert_eq!(metastore.state.lock().founded_millis, None);
        metastore.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_finds_an_unknown_published_block_deletes_no_object_and_reopens_the_catalog() {
    let mut world = World::new(37);
    let metastore = with_blocks(&mut world, 4).await;
    let older = world.files("catalog").await;
    let (blocks, records) = {
        for seq in 4..6 {
            world.push(&metastore, seq).await;
        }
        world.compact(&metastore).await;
        metastore.drain().await;
        (world.files("block").await, world.files("publish").await)
    };
    // Blocks and records reappear under an owner that does not know them.
    world.replace_folder("catalog", &older).await;
    world.delete_folder("block").await;
    world.delete_folder("publish").await;
    world.put_files(&blocks[..2].to_vec()).await;
    let metastore = world.open().await;
    world.put_files(&blocks).await;
    world.put_files(&records).await;
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert!(metastore.reconcile().await.is_err());
    assert!(metastore.is_outdated.load(Ordering::SeqCst));
    let metastore = world.open().await;
    assert_eq!(world.counts(&metastore).await, each_once(6));
}

#[tokio::test(start_paused = true)]
async fn blocks_without_a_record_are_deleted_only_if_the_catalog_saw_them_being_made_and_they_are_few() {
    let mut world = World::new(38);
    let metastore = with_blocks(&mut world, 4).await;
    let unrecorded = |job: u128, bytes: usize| {
        let window = Window { start: 1_700_049_600, length: HOUR };
        let place = Place { level: 1, window, shard: Shard::ALL };
        let key = Key::block(&tenant("a"), place, BlockId { job: JobId(job), attempt: 1, part: 0 });
        (key, Bytes::from(vec![0; bytes]))
    };
    // The header of each says when it was made.
    let put = async |world: &World, job: u128, bytes: usize| {
        let (key, bytes) = unrecorded(job, bytes);
        let origin = Origin::Block { job: JobId(job), attempt: 1, part: 0, level: 1 };
        let millis = world.clock.unix_millis();
        let directory = directory(origin, millis, Vec::new(), &["a"], millis);
        world.written.headers.lock().insert(key.clone(), Header::Object { bytes: 1, directory });
        world.put_files(&vec![(key, bytes)]).await;
    };
    let has = async |world: &World, job: u128| {
        let key = unrecorded(job, 0).0;
        world.store.list("block").await.expect("lists").iter().any(|object| object.key == key)
    };
    put(&world, 1, 10).await;
    metastore.drain().await;
    world.delete_folder("catalog").await;
    let metastore = world.open().await;
    world.time.pass(Duration::from_secs(3_600));
    put(&world, 2, 10).await;
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 1);
    sweep_for(&world, &metastore, 1).await;
    assert!(has(&world, 1).await, "older than the catalog");
    assert!(!has(&world, 2).await);
    put(&world, 3, 5 << 20).await;
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0);
    assert_eq!(metastore.metrics.comparison_stopped.get(), 1);
    sweep_for(&world, &metastore, 1).await;
    assert!(has(&world, 3).await, "too much at once");
    metastore.drain().await;
    world.config.orphan_percent_max = 100;
    let metastore = world.open().await;
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 1);
    assert_eq!(world.counts(&metastore).await, each_once(4));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_catalog_is_refused_with_the_command_that_repairs_it() {
    let mut world = World::new(39);
    with_blocks(&mut world, 4).await.drain().await;
    let damaged = world.files("catalog").await.into_iter().rfind(|(key, _)| key.as_str().contains("commit"));
    let (key, bytes) = damaged.expect("a commit");
    world.store.delete(&key).await.expect("deletes");
    world.put_files(&vec![(key, bytes.slice(..bytes.len() - 1))]).await;
    let error = world.try_open(true).await.err().expect("is damaged").to_string();
    assert!(error.contains("pyrograph catalog rebuild"), "{error}");
    world.rebuild().await.expect("rebuilds");
    assert_eq!(world.counts(&*world.open().await).await, each_once(4));
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_waits_for_a_minute_of_quiet_and_gives_up_if_the_owner_commits() {
    let mut world = World::new(40);
    let metastore = with_blocks(&mut world, 2).await;
    let (store, clock) = (world.store.clone(), world.clock.clone());
    let commits = async {
        for seq in 2..9 {
            world.clock.sleep(Duration::from_secs(7)).await;
            world.push(&metastore, seq).await;
            metastore.commit_pending().await.expect("commits");
        }
    };
    let (rebuilt, ()) = tokio::join!(rebuild::wait_until_quiet(&store, &clock), commits);
    assert!(matches!(rebuilt, Err(OpenError::Alive { .. })));
    metastore.drain().await;
    rebuild::wait_until_quiet(&store, &clock).await.expect("is quiet");
}

/// All objects of all clusters.
async fn all_files(world: &World, folders: &[&str]) -> Files {
    let store = Store::new(Arc::new(world.faulty.clone()), world.clock.clone(), storage::Metrics::default());
    let everything = World { store, ..world.clone() };
    let mut files = Vec::new();
    for folder in folders {
        files.extend(everything.files(folder).await);
    }
    files
}

#[tokio::test(start_paused = true)]
async fn objects_of_another_cluster_are_neither_counted_nor_deleted() {
    let folders = ["block", "delete", "log", "publish"];
    let mut other = World::new(51);
    other.store = other.store.clone().tagged(storage::IdTag(2));
    other.config.merge_after = limits::Duration::from_secs(0);
    let metastore = other.open().await;
    for seq in 0..3 {
        let hint = other.put(2, seq, &[100 + u128::from(seq)]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
        if seq == 1 {
            other.compact(&metastore).await;
        }
    }
    let request = deletions::request(r#"{key="1"}"#);
    metastore.delete(request).await.expect("takes the deletion");
    metastore.drain().await;
    let others = all_files(&other, &folders).await;
    assert!(folders.iter().all(|folder| others.iter().any(|(key, _)| key.as_str().starts_with(folder))));

    let mut world = World::new(52);
    world.store = world.store.clone().tagged(storage::IdTag(1));
    let metastore = with_blocks(&mut world, 5).await;
    world.put_files(&others).await;
    world.written.headers.lock().extend(other.written.headers.lock().clone());
    let mut listed = Duration::ZERO;
    world.time.pass(Duration::from_secs(3_600));
    metastore.look(&mut listed).await.expect("looks");
    check_stays(&world, &metastore, &each_once(5)).await;
    for lose in [false, true] {
        metastore.drain().await;
        if lose {
            world.delete_folder("catalog").await;
        }
        let metastore = world.open().await;
        check_stays(&world, &metastore, &each_once(5)).await;
        metastore.drain().await;
    }
    let left = all_files(&world, &folders).await;
    assert!(others.iter().all(|file| left.contains(file)), "no object of the other cluster is deleted");
}
