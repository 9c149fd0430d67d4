//! The bucket is compared with the catalog, and the catalog is rebuilt from it.

use super::*;

#[tokio::test(start_paused = true)]
async fn outputs_of_a_dead_attempt_are_deleted_when_they_are_old() {
    let mut world = World::new(22);
    world.config.attempt_time = limits::Duration::from_secs(26 * 3_600);
    let (metastore, job) = with_one_job(&mut world).await;
    let late = world.merge(&job).await;
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0, "the attempt may still publish");
    metastore.fail_job(failure(&job, "slow")).await.expect("fails");
    world.time.pass(Duration::from_secs(11));
    let second = metastore.claim_job().await.expect("claims").expect("the job again");
    let publication = world.merge(&second).await;
    metastore.publish(publication).await.expect("publishes");
    let expected = world.counts(&metastore).await;
    let found = metastore.reconcile().await.expect("compares");
    assert_eq!((found.orphans, found.missing), (late.outputs.len(), 0), "live and young objects stay");
    assert_eq!(metastore.publish(late.clone()).await.expect("asks"), PublishOutcome::Rejected);
    // They have the grace of the sweep too, and a restart does not forget them.
    metastore.drain().await;
    let metastore = world.open().await;
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 0);
    world.time.pass(Duration::from_secs(16 * 60));
    let dead = metastore.sweepable(10).await.expect("lists");
    let dead: Vec<Key> = dead.into_iter().map(|d| d.key).filter(|k| k.parse_block().is_some()).collect();
    assert_eq!(dead, late.outputs.iter().map(|o| o.key.clone()).collect::<Vec<_>>());
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_quarantined_and_the_rest_answers() {
    let mut world = World::new(23);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    let gone = publication.outputs[0].key.clone();
    metastore.publish(publication).await.expect("publishes");
    world.store.delete(&gone).await.expect("deletes");
    for missing in [1, 0] {
        assert_eq!(metastore.reconcile().await.expect("compares").missing, missing);
    }
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.objects.len(), 1);
        assert_eq!(snapshot.quarantined, [(gone.clone(), "it is gone from the bucket".to_owned())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_a_rebuild_cannot_read_is_quarantined_and_stays() {
    let mut world = World::new(26);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    let damaged = publication.outputs[1].key.clone();
    metastore.publish(publication).await.expect("publishes");
    metastore.drain().await;
    let unreadable = Header::Unreadable("bad footer".into());
    world.written.headers.lock().insert(damaged.clone(), unreadable);
    world.rebuild().await.expect("rebuilds");
    let metastore = world.open().await;
    let snapshot = metastore.find(everything()).await.expect("finds");
    assert_eq!(snapshot.quarantined, [(damaged.clone(), "bad footer".to_owned())]);
    assert_eq!(snapshot.objects.len(), 1);
    world.time.pass(Duration::from_secs(3 * 86_400));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0);
    world.time.pass(Duration::from_secs(31 * 86_400));
    metastore.tend();
    assert!(metastore.state.lock().quarantined_count() == 0, "its tenant's data are expired");
}

#[tokio::test(start_paused = true)]
async fn slots_without_data_are_deleted_when_they_are_old() {
    let mut world = World::new(24);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    metastore.seal(WriterId(1)).await.expect("seals");
    sweep_for(&world, &metastore, 1).await;
    let expected = world.counts(&metastore).await;
    // A swept slot that is put again, a slot above the seal, and one that waits for the slots before it.
    world.put(1, 1, &[1]).await.expect("was swept");
    world.put(1, 7, &[7]).await.expect("free");
    world.put(2, 5, &[5]).await.expect("free");
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 0, "they are young");
    world.time.pass(Duration::from_secs(25 * 3_600));
    assert_eq!(metastore.reconcile().await.expect("compares").orphans, 2);
    sweep_for(&world, &metastore, 1).await;
    let slots = world.store.list("log").await.expect("lists");
    let seal = Key::log_slot(WriterId(1), 3);
    let keys: Vec<Key> = slots.into_iter().map(|o| o.key).collect();
    assert_eq!(keys, [seal, Key::log_slot(WriterId(2), 5)]);
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn publish_records_are_deleted_when_a_rebuild_no_longer_needs_them() {
    let mut world = World::new(25);
    world.config.merge_after = limits::Duration::from_secs(0);
    let metastore = world.open().await;
    // Log 1 is open all the time, log 2 is closed; one block of a day remains.
    for seq in 0..6 {
        for writer in [1, 2] {
            let hint = world.put(writer, seq, &[u128::from(seq) + 100 * writer]).await.expect("free");
            metastore.segment_written(hint).await.expect("takes the hint");
        }
        metastore.commit_pending().await.expect("commits");
        let job = metastore.claim_job().await.expect("claims").expect("a job");
        let publication = world.merge(&job).await;
        metastore.publish(publication).await.expect("publishes");
    }
    metastore.seal(WriterId(2)).await.expect("seals");
    for _ in 0..3 {
        sweep_for(&world, &metastore, 1).await;
        while let Some(job) = metastore.claim_job().await.expect("claims") {
            let publication = world.merge(&job).await;
            metastore.publish(publication).await.expect("publishes");
        }
    }
    let expected = world.counts(&metastore).await;
    assert_eq!(expected.len(), 12);
    let records = world.store.list("publish").await.expect("lists").len();
    assert!(records > 6, "{records} records");
    for _ in 0..12 {
        metastore.reconcile().await.expect("compares");
        sweep_for(&world, &metastore, 1).await;
    }
    // The newest of the open log, and those made from it.
    let kept = world.store.list("publish").await.expect("lists").len();
    assert!(kept <= records / 2, "{kept} of {records} records are left");
    let hint = world.put(1, 6, &[6]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    let expected = world.counts(&metastore).await;
    metastore.drain().await;
    world.rebuild().await.expect("rebuilds");
    assert_eq!(world.counts(&*world.open().await).await, expected);
}
