//! Jobs: attempts, publications, their records, and inputs that cannot be merged.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_publish_replaces_inputs_by_outputs_once() {
    let mut world = World::new(7);
    let (metastore, job) = with_one_job(&mut world).await;
    let expected = world.counts(&metastore).await;
    let publication = world.merge(&job).await;
    assert_eq!(world.counts(&metastore).await, expected, "outputs do not count before");
    for _ in 0..2 {
        let published = metastore.publish(publication.clone()).await.expect("publishes");
        assert_eq!(published, PublishOutcome::Done);
        assert_eq!(world.counts(&metastore).await, expected);
    }
    assert_eq!(found(&metastore).await, 2);
    metastore.drain().await;
    let metastore = world.open().await;
    assert_eq!(world.counts(&metastore).await, expected);
    assert_eq!(metastore.publish(publication).await.expect("asks again"), PublishOutcome::Done);
}

/// How many datasets finds name.
async fn datasets(metastore: &Metastore) -> usize {
    let snapshot = metastore.find(everything()).await.expect("finds");
    snapshot.objects.iter().map(|object| object.datasets.len()).sum()
}

/// A block in which one service has three datasets, as a merge in parts makes it.
async fn with_parts(world: &mut World) -> Arc<Metastore> {
    let (metastore, job) = with_one_job(world).await;
    let mut publication = world.merge(&job).await;
    let output = &mut publication.outputs[0];
    for part in 1..3 {
        let entry = DatasetEntry { rows: part..part + 1, ..output.directory.datasets[0].clone() };
        output.directory.datasets.push(entry);
    }
    let header = Header::Object { bytes: output.bytes, directory: output.directory.clone() };
    world.written.headers.lock().insert(output.key.clone(), header);
    assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
    metastore.create_records().await.expect("creates");
    assert_eq!(datasets(&metastore).await, 4, "three, and one of the other tenant");
    metastore
}

#[tokio::test(start_paused = true)]
async fn all_datasets_of_a_service_in_one_block_survive_a_restart() {
    let mut world = World::new(17);
    with_parts(&mut world).await.drain().await;
    assert_eq!(datasets(&*world.open().await).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_whose_rows_of_datasets_have_no_position_is_rebuilt() {
    let mut world = World::new(18);
    with_parts(&mut world).await.drain().await;
    let catalog = world.parts().engine.open().await.expect("opens");
    let mut batch = catalog::Batch::default();
    for (key, value) in catalog.range(catalog::rows::Kind::Dataset.keys()).await.expect("reads") {
        batch.put(key.slice(..key.len() - size_of::<u32>()), value.to_vec());
        batch.delete(key);
    }
    catalog.commit(batch).await.expect("commits");
    let metastore = world.open().await;
    assert_eq!(datasets(&metastore).await, 4);
    assert!(metastore.state.lock().founded_millis.is_some(), "it was rebuilt");
}

#[tokio::test(start_paused = true)]
async fn only_the_open_attempt_publishes() {
    let mut world = World::new(8);
    let (metastore, job) = with_one_job(&mut world).await;
    let expected = world.counts(&metastore).await;
    let late = world.merge(&job).await;
    world.time.pass(Duration::from_secs(301));
    assert!(metastore.claim_job().await.expect("claims").is_none(), "it waits after a failure");
    world.time.pass(Duration::from_secs(11));
    let second = metastore.claim_job().await.expect("claims").expect("the job again");
    assert_eq!((second.id, second.attempt), (job.id, 2));
    assert_eq!(metastore.publish(late).await.expect("asks"), PublishOutcome::Rejected);
    let publication = world.merge(&second).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn inputs_of_attempts_without_memory_are_divided_and_never_quarantined() {
    let mut world = World::new(23);
    let (metastore, job) = with_one_job(&mut world).await;
    let expected = world.counts(&metastore).await;
    let count = job.inputs.len();
    let mut inputs_claimed = vec![];
    let mut next = Some(job);
    for _ in 0..12 {
        if let Some(job) = next {
            inputs_claimed.push(job.inputs.len());
            let failure = JobFailure { inputs_sound: true, ..failure(&job, "no memory is free") };
            metastore.fail_job(failure).await.expect("fails");
        }
        world.time.pass(Duration::from_secs(35));
        next = metastore.claim_job().await.expect("claims");
    }
    assert_eq!(inputs_claimed[..3], [count; 3], "the memory may be free a moment later");
    assert!(inputs_claimed[3..].iter().all(|claimed| *claimed < count));
    for _ in 0..20 {
        if let Some(job) = next {
            let publication = world.merge(&job).await;
            assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
        }
        world.time.pass(Duration::from_secs(35));
        next = metastore.claim_job().await.expect("claims");
    }
    let snapshot = metastore.find(everything()).await.expect("finds");
    assert!(snapshot.quarantined.is_empty());
    assert!(snapshot.objects.iter().all(|o| o.key.as_str().starts_with("block/")));
    assert_eq!(world.counts(&metastore).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_fails_every_merge_ends_alone_in_quarantine() {
    let mut world = World::new(9);
    let (metastore, job) = with_one_job(&mut world).await;
    let poison = job.inputs[1].key.clone();
    let mut next = Some(job);
    for _ in 0..40 {
        if let Some(job) = next {
            if job.inputs.iter().any(|input| input.key == poison) {
                metastore.fail_job(failure(&job, "bad page")).await.expect("fails");
            } else {
                let publication = world.merge(&job).await;
                assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
            }
        }
        world.time.pass(Duration::from_secs(35));
        next = metastore.claim_job().await.expect("claims");
    }
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.quarantined, [(poison.clone(), "bad page".to_owned())]);
        assert!(snapshot.objects.iter().all(|o| o.key.as_str().starts_with("block/")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_quarantined_for_good_and_its_neighbours_are_merged_without_it() {
    let mut world = World::new(11);
    let (metastore, job) = with_one_job(&mut world).await;
    let damaged = job.inputs[1].key.clone();
    let hint = world.put(1, 3, &[3]).await.expect("free");
    let uncommitted = Key::log_slot(WriterId(1), 3);
    metastore.segment_written(hint).await.expect("takes the hint");
    let late = world.merge(&job).await;
    let damages = vec![
        (damaged.clone(), "bad page".to_owned()),
        (uncommitted.clone(), "bad footer".to_owned()),
        (Key::from_text("block/a/1-0-300/x"), "unknown".to_owned()),
    ];
    metastore.quarantine(damages.clone()).await.expect("quarantines");
    assert_eq!(
        metastore.publish(late).await.expect("asks"),
        PublishOutcome::Rejected,
        "it read the damaged one"
    );
    metastore.quarantine(damages.clone()).await.expect("has no effect");
    let of_service = |name: &str| FindRequest { services: Some(vec![name.to_owned()]), ..everything() };
    for (service, missing) in [("app", 2), ("another", 0)] {
        let snapshot = metastore.find(of_service(service)).await.expect("finds");
        assert_eq!(snapshot.quarantined.len(), missing, "{service}");
    }
    let second = metastore.claim_job().await.expect("claims").expect("the job without it");
    let inputs: Vec<&Key> = second.inputs.iter().map(|input| &input.key).collect();
    assert_eq!(inputs, [&job.inputs[0].key, &job.inputs[2].key]);
    let publication = world.merge(&second).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
    let before = metastore.find(everything()).await.expect("finds");
    metastore.drain().await;
    let after = world.open().await.find(everything()).await.expect("finds");
    for snapshot in [before, after] {
        assert_eq!(snapshot.quarantined, damages[..2]);
        assert!(snapshot.objects.iter().all(|o| o.key.as_str().starts_with("block/")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_only_input_is_damaged_ends() {
    let mut world = World::new(13);
    let (metastore, job) = with_one_job(&mut world).await;
    for input in &job.inputs {
        metastore.quarantine(vec![(input.key.clone(), "bad page".to_owned())]).await.expect("quarantines");
    }
    assert!(metastore.state.lock().jobs().is_empty());
    world.time.pass(Duration::from_secs(35));
    assert!(metastore.claim_job().await.expect("claims").is_none());
    metastore.drain().await;
    let metastore = world.open().await;
    assert!(metastore.state.lock().jobs().is_empty());
    assert_eq!(metastore.find(everything()).await.expect("finds").quarantined.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_publish_record_is_created_by_the_next_owner_and_until_then_no_input_is_swept() {
    let mut world = World::new(10);
    let (metastore, job) = with_one_job(&mut world).await;
    let publication = world.merge(&job).await;
    metastore.publish(publication).await.expect("publishes");
    let records = world.store.list("publish").await.expect("lists");
    let key = records[0].key.clone();
    let record = world.store.get(&key).await.expect("gets");
    // As if the owner had died between the commit and the record.
    world.store.delete(&key).await.expect("deletes");
    {
        let mut state = metastore.state.lock();
        let row = &mut state.job_mut(job.id).expect("known").row;
        row.state = catalog::rows::JobProgress::Published { record: Some(record.clone()) };
        let row = row.clone();
        catalog::rows::Row::put_into(&row, state.pending_rows());
    }
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(3 * 3600));
    assert!(metastore.sweepable(10).await.expect("lists").is_empty());
    let metastore = world.open().await;
    assert_eq!(world.store.get(&key).await.expect("gets"), record);
    world.time.pass(metastore.config.sweep_grace.get());
    assert_eq!(metastore.sweepable(10).await.expect("lists").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn records_are_created_producers_first_although_the_clock_was_set_back() {
    let mut world = World::new(20);
    world.config.merge_after = limits::Duration::from_secs(0);
    let metastore = world.open().await;
    world.faulty.set_create_rule(|key| key.starts_with("publish/").then_some(Fault::Fail));
    // Enough blocks of one window for a merge, then the job that merges them.
    for seq in 0..10 {
        if seq < 9 {
            let hint = world.put(1, seq, &[u128::from(seq)]).await.expect("free");
            metastore.segment_written(hint).await.expect("takes the hint");
            metastore.commit_pending().await.expect("commits");
        } else {
            world.time.set(-600_000);
        }
        let job = metastore.claim_job().await.expect("claims").expect("a job");
        assert_eq!(job.inputs.len(), if seq < 9 { 1 } else { 9 });
        let publication = world.merge(&job).await;
        metastore.publish(publication).await.expect("publishes");
    }
    let expected = world.counts(&metastore).await;
    // The owner dies after each of the records.
    for records in 1..=10 {
        let created = AtomicU64::new(0);
        world.faulty.set_create_rule(move |key| {
            let is_refused = key.starts_with("publish/") && created.fetch_add(1, Ordering::SeqCst) >= 1;
            is_refused.then_some(Fault::Fail)
        });
        let _ = metastore.create_records().await;
        world.faulty.set_create_rule(|_| None);
        assert_eq!(world.store.list("publish").await.expect("lists").len(), records);
        let mut lost = World::new(21);
        for object in world.store.list("").await.expect("lists") {
            if !object.key.as_str().starts_with("catalog/") {
                let bytes = world.store.get(&object.key).await.expect("gets");
                lost.store.settle_create(&object.key, bytes).await.expect("puts");
            }
        }
        *lost.written.headers.lock() = world.written.headers.lock().clone();
        lost.keys = world.keys.clone();
        lost.time.pass(world.clock.monotonic());
        lost.rebuild().await.expect("rebuilds");
        assert_eq!(lost.counts(&*lost.open().await).await, expected, "after {records} records");
    }
}
