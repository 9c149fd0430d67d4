//! Dead and expired objects are deleted, and no others.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_unreadable_segment_does_not_stop_the_sweep_of_others() {
    let mut world = World::new(12);
    world
        .store
        .settle_create(&Key::log_slot(WriterId(9), 0), Bytes::from_static(b"junk"))
        .await
        .expect("puts");
    let (metastore, job) = with_one_job(&mut world).await;
    metastore.probe(WriterId(9)).await.expect("reads");
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    for writer in [1, 9] {
        metastore.seal(WriterId(writer)).await.expect("seals");
    }
    let quarantined = metastore.find(everything()).await.expect("finds").quarantined;
    assert_eq!(quarantined.len(), 1);
    metastore.observe();
    world.time.pass(Duration::from_secs(2 * 3600));
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn dead_segments_are_swept_after_their_keys_left_the_window() {
    let mut world = World::new(11);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    metastore.seal(WriterId(1)).await.expect("seals");
    world.time.pass(Duration::from_secs(16 * 60));
    assert!(metastore.sweepable(10).await.expect("lists").is_empty());
    world.time.pass(Duration::from_secs(60 * 60));
    let dead = metastore.sweepable(2).await.expect("lists");
    assert_eq!(dead.len(), 2);
    metastore.swept(dead.into_iter().map(|d| d.key).collect()).await.expect("forgets");
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn expired_objects_die() {
    let mut world = World::new(13);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31 * 86_400 + 1));
    assert_eq!(found(&metastore).await, 0);
    metastore.tend();
    metastore.commit_pending().await.expect("commits");
    assert_eq!(metastore.state.lock().live().iter().count(), 0);
    let metastore = world.open().await;
    assert_eq!(metastore.state.lock().live().iter().count(), 0);
    assert_eq!(metastore.state.lock().dead().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn objects_that_have_just_died_keep_their_grace_under_an_owner_whose_clock_is_ahead() {
    let mut world = World::new(23);
    let (first, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    first.publish(publication).await.expect("publishes");
    first.seal(WriterId(1)).await.expect("seals");
    first.commit_pending().await.expect("commits");
    world.time.set(2 * 3_600_000);
    assert!(first.sweepable(10).await.expect("lists").is_empty(), "its own clock was set");
    let second = world.open().await;
    assert!(second.sweepable(10).await.expect("lists").is_empty());
    world.time.pass(second.config.sweep_grace.get());
    assert_eq!(second.sweepable(10).await.expect("lists").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_seal_stays_seven_days_after_its_log_was_swept() {
    for segments in [0, 3] {
        let mut world = World::new(15);
        let metastore = world.open().await;
        for seq in 0..segments {
            let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
            metastore.segment_written(hint).await.expect("takes the hint");
        }
        // The seven days begin when the last segment is swept, however old it is.
        world.time.pass(Duration::from_secs(10 * 86_400));
        metastore.seal(WriterId(1)).await.expect("seals");
        metastore.commit_pending().await.expect("commits");
        if let Some(job) = metastore.claim_job().await.expect("claims") {
            let publication = world.merge(&job).await;
            metastore.publish(publication).await.expect("publishes");
        }
        sweep_for(&world, &metastore, 6).await;
        let slots = world.store.list("log").await.expect("lists");
        assert_eq!(slots.len(), 1, "of {segments} segments only the seal is left");
        assert!(world.put(1, segments, &[9]).await.is_none(), "a stopped writer meets its seal");
        sweep_for(&world, &metastore, 2).await;
        assert_eq!(world.store.list("log").await.expect("lists"), []);
        assert!(metastore.state.lock().logs().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_reads_past_the_gap_that_retention_made() {
    let mut world = World::new(16);
    let metastore = world.open().await;
    for seq in 0..2 {
        let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31 * 86_400 + 1));
    let hint = world.put(1, 2, &[2]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    sweep_for(&world, &metastore, 1).await;
    let slots = world.store.list("log").await.expect("lists");
    assert_eq!(slots.len(), 1, "expired segments are swept");
    metastore.drain().await;
    world.rebuild().await.expect("rebuilds");
    let metastore = world.open_as(false).await;
    assert_eq!(world.counts(&metastore).await, BTreeMap::from([(2, 1)]));
    let hint = world.put(1, 3, &[3]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    assert_eq!(found(&metastore).await, 2, "the log continues where it was");
}
