//! Segments become known by hints and by probes, and equal items count once.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hint_is_visible_at_once_and_its_rows_survive_a_restart() {
    let mut world = World::new(1);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1, 2]).await.expect("free");
    metastore.segment_written(hint.clone()).await.expect("takes the hint");
    assert_eq!(found(&metastore).await, 1);
    metastore.segment_written(hint).await.expect("ignores it");
    assert_eq!(found(&metastore).await, 1);
    metastore.drain().await;
    assert_eq!(found(&*world.open().await).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_segment_without_hint_is_found_by_probing_and_by_the_hint_after_it() {
    let mut world = World::new(2);
    let metastore = world.open().await;
    world.put(1, 0, &[1]).await.expect("free");
    let hint = world.put(1, 1, &[2]).await.expect("free");
    metastore.segment_written(hint).await.expect("probes what it skips");
    assert_eq!(found(&metastore).await, 2);
    world.put(1, 2, &[3]).await.expect("free");
    world.time.pass(Duration::from_secs(3));
    let mut listed = Duration::ZERO;
    metastore.look(&mut listed).await.expect("looks");
    assert_eq!(found(&metastore).await, 3);
    world.put(9, 0, &[4]).await.expect("free");
    world.time.pass(Duration::from_secs(11));
    metastore.look(&mut listed).await.expect("looks");
    assert_eq!(found(&metastore).await, 4, "a log that was not reported");
}

#[tokio::test(start_paused = true)]
async fn a_restart_reads_and_closes_the_logs_of_the_process_before() {
    let mut world = World::new(3);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    // Killed before a commit.
    drop(metastore);
    world.put(1, 1, &[2]).await.expect("free");
    let metastore = world.open().await;
    assert_eq!(found(&metastore).await, 2);
    assert!(world.put(1, 2, &[3]).await.is_none(), "the log must be closed");
    let requests = world.store.list("log").await.expect("lists").len();
    assert_eq!(requests, 3);
}

#[tokio::test(start_paused = true)]
async fn equal_items_count_once_across_logs_and_restarts() {
    let mut world = World::new(4);
    let metastore = world.open().await;
    for writer in [1, 2] {
        let hint = world.put(writer, 0, &[7, 8, u128::from(writer as u64 + 100)]).await.expect("free");
        metastore.segment_written(hint).await.expect("takes the hint");
    }
    let expected = BTreeMap::from([(7, 1), (8, 1), (101, 1), (102, 1)]);
    assert_eq!(world.counts(&metastore).await, expected);
    metastore.drain().await;
    let metastore = world.open().await;
    let hint = world.put(3, 0, &[8, 7]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn equal_items_count_again_after_the_window() {
    let mut world = World::new(5);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[7]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    world.time.pass(Duration::from_secs(80 * 60));
    metastore.seal(WriterId(1)).await.expect("seals");
    metastore.commit_pending().await.expect("commits");
    let hint = world.put(2, 0, &[7]).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
    assert_eq!(world.counts(&metastore).await, BTreeMap::from([(7, 2)]));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_segment_makes_answers_partial_and_the_log_goes_on() {
    let mut world = World::new(6);
    let metastore = world.open().await;
    let key = Key::log_slot(WriterId(1), 0);
    world.store.settle_create(&key, Bytes::from_static(b"junk")).await.expect("puts");
    let hint = world.put(1, 1, &[2]).await.expect("free");
    metastore.segment_written(hint).await.expect("probes what it skips");
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.objects.len(), 1);
        assert_eq!(snapshot.quarantined, [(key.clone(), "no header".to_owned())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_answers_nothing() {
    let mut world = World::new(12);
    let first = world.open_as(false).await;
    let second = world.open_as(false).await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    second.segment_written(hint.clone()).await.expect("takes the hint");
    let error = first.find(everything()).await.expect_err("is fenced");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let error = first.segment_written(hint).await.expect_err("is fenced");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(found(&second).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_takes_no_hints() {
    let mut world = World::new(17);
    let first = world.open_as(false).await;
    let running = world.clock.spawn(first.clone().run());
    world.open_as(false).await;
    for seq in 0..20 {
        let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
        let _ = first.segment_written(hint).await;
        world.clock.sleep(Duration::from_millis(200)).await;
    }
    running.await.expect("ends once it knows");
    let hint = world.put(1, 20, &[20]).await.expect("free");
    let error = first.segment_written(hint).await.expect_err("is no owner");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(first.state.lock().pending_segment_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_successor_knows_the_last_hint_of_the_owner_before_it() {
    let mut world = World::new(21);
    let first = world.open_as(false).await;
    found(&first).await;
    let opener = world.clone();
    let opening = world.clock.spawn(async move { opener.open_as(false).await });
    // By now the successor has read every log, and waits.
    world.clock.sleep(CONFIRMATION_LIFETIME / 2).await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    first.segment_written(hint).await.expect("is still sure");
    let second = opening.await.expect("opens");
    assert_eq!(found(&second).await, 1);
}

#[tokio::test(start_paused = true)]
async fn uncommitted_steps_are_bounded() {
    let mut world = World::new(18);
    let metastore = world.open().await;
    let hint = world.put(1, 0, &[1]).await.expect("free");
    for writer in 0..2 * PENDING_SEGMENTS_MAX as u128 {
        let origin = Origin::Segment { writer: WriterId(writer), seq: 0 };
        let directory = Directory { origin, ..hint.directory.clone() };
        let hint = SegmentHint { writer: WriterId(writer), seq: 0, bytes: 1, directory };
        let _ = metastore.segment_written(hint).await;
    }
    assert_eq!(metastore.state.lock().pending_segment_count(), PENDING_SEGMENTS_MAX);
    let error = metastore.segment_written(hint.clone()).await.map_err(|e| e.kind);
    assert_eq!(error, Err(ErrorKind::Unavailable));
    metastore.commit_pending().await.expect("commits");
    metastore.segment_written(hint).await.expect("takes hints again");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_although_the_store_is_down() {
    let mut world = World::new(19);
    let metastore = world.open().await;
    let running = world.clock.spawn(metastore.clone().run());
    let hint = world.put(1, 0, &[1]).await.expect("free");
    world.faulty.set_create_rule(|_| Some(Fault::Fail));
    metastore.segment_written(hint).await.expect("takes the hint");
    world.clock.sleep(Duration::from_secs(30)).await;
    let began = world.clock.monotonic();
    metastore.drain().await;
    let took = world.clock.monotonic() - began;
    assert!(took <= commit::DRAIN_MAX, "{took:?}");
    running.abort();
    // Segments that were not committed are read again.
    world.faulty.set_create_rule(|_| None);
    assert_eq!(found(&*world.open().await).await, 1);
}
