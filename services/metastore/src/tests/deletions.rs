//! Deletions and retention: erased and expired data are in no later answer, whichever process dies at which step.

use model::TimeRange;
use query::{Deletion, Selector};
use rpc::{DeleteRequest, DeletionProgress, DeletionStatus};

use super::*;

/// Keys belong to tenant `a`; the label `key` is their number.
pub(super) fn is_erased(deletions: &[Arc<Deletion>], key: ItemKey) -> bool {
    let number = (key.0 >> SPREAD).to_string();
    deletions.iter().any(|deletion| {
        deletion.tenant == tenant("a")
            && deletion.selector.matchers.iter().all(|m| match &*m.name {
                "key" => m.matches(&number),
                _ => m.matches("app"),
            })
    })
}

pub(super) fn request(selector: &str) -> DeleteRequest {
    let selector = Selector::parse(selector).expect(selector);
    DeleteRequest { tenant: tenant("a"), selector, range: TimeRange { start: i64::MIN, end: i64::MAX } }
}

async fn delete(metastore: &Metastore, selector: &str) -> DeletionStatus {
    metastore.delete(request(selector)).await.expect("takes the deletion")
}

async fn push(world: &mut World, metastore: &Metastore, writer: u128, seq: u64, keys: &[u128]) {
    let hint = world.put(writer, seq, keys).await.expect("free");
    metastore.segment_written(hint).await.expect("takes the hint");
}

fn once(keys: &[u128]) -> BTreeMap<u128, usize> {
    keys.iter().map(|key| (*key, 1)).collect()
}

/// Runs all jobs. Returns their number.
async fn compact(world: &mut World, metastore: &Metastore) -> usize {
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31));
    let mut jobs = 0;
    while let Some(job) = metastore.claim_job().await.expect("claims") {
        let publication = world.merge(&job).await;
        assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
        jobs += 1;
    }
    jobs
}

async fn rebuild(world: &World) -> Arc<Metastore> {
    world.rebuild().await.expect("rebuilds");
    world.open().await
}

/// Lets four hours pass, sweeping as a compactor does.
async fn sweep(world: &World, metastore: &Metastore) {
    for _ in 0..8 {
        world.time.pass(Duration::from_secs(30 * 60));
        let open: Vec<WriterId> = metastore.state.lock().logs().keys().copied().collect();
        for writer in open {
            metastore.probe(writer).await.expect("probes");
        }
        metastore.commit_pending().await.expect("commits");
        let dead = metastore.sweepable(1_000).await.expect("lists");
        for object in &dead {
            world.store.delete(&object.key).await.expect("deletes");
        }
        metastore.swept(dead.into_iter().map(|d| d.key).collect()).await.expect("forgets");
        metastore.advance_deletions().await.expect("advances");
    }
}

async fn holds_text(world: &World, text: &str) -> Vec<Key> {
    let mut found = Vec::new();
    for object in world.store.list("").await.expect("lists") {
        let bytes = world.store.get(&object.key).await.expect("gets");
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(object.key);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_deletion_erases_the_rows_stored_before_it_and_no_others() {
    let mut world = World::new(50);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    // Acknowledged, without a hint.
    world.put(1, 1, &[3, 10]).await.expect("free");
    world.put(2, 0, &[4, 20]).await.expect("free");
    let status = delete(&metastore, r#"{key=~"1|3|4|99"}"#).await;
    assert_eq!(status.progress, DeletionProgress::Rewriting { objects: 3, unreadable: 0 });
    push(&mut world, &metastore, 1, 2, &[5, 99]).await;
    push(&mut world, &metastore, 3, 0, &[6]).await;
    let expected = once(&[2, 10, 20, 5, 99, 6]);
    assert_eq!(world.counts(&metastore).await, expected);
    metastore.drain().await;
    let metastore = world.open().await;
    assert_eq!(world.counts(&metastore).await, expected, "after a restart");
    let deletions = metastore.deletions(tenant("a")).await.expect("lists");
    assert_eq!(
        deletions[0].deletion.as_ref().expect("is in force").selector.to_string(),
        r#"{key=~"1|3|4|99"}"#
    );
    assert!(metastore.deletions(tenant("b")).await.expect("lists").is_empty());
    assert_eq!(world.counts(&*rebuild(&world).await).await, expected, "after a rebuild");
}

#[tokio::test(start_paused = true)]
async fn deletions_without_matcher_or_time_and_too_many_are_refused() {
    let mut world = World::new(51);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1]).await;
    let kind = async |request| metastore.delete(request).await.map(|_| ()).map_err(|error| error.kind);
    assert_eq!(kind(request("{}")).await, Err(ErrorKind::InvalidArgument));
    let range = TimeRange { start: 5, end: 5 };
    let empty = DeleteRequest { range, ..request(r#"{key="1"}"#) };
    assert_eq!(kind(empty).await, Err(ErrorKind::InvalidArgument));
    for _ in 0..crate::deletion_lifecycle::DELETIONS_MAX {
        assert_eq!(kind(request(r#"{key="1"}"#)).await, Ok(()));
    }
    assert!(matches!(kind(request(r#"{key="1"}"#)).await, Err(ErrorKind::Exhausted { .. })));
}

#[tokio::test(start_paused = true)]
async fn deletions_that_match_no_data_do_not_block_others_and_finish_at_the_next_look() {
    let mut world = World::new(53);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    let delete_service = async |service: &str| {
        let selector = format!(r#"{{service_name="{service}"}}"#);
        metastore.delete(request(&selector)).await.map_err(|error| error.kind)
    };
    for i in 0..crate::deletion_lifecycle::UNNEEDED_MAX {
        let made = delete_service(&format!("absent-{i}")).await.expect("takes the deletion");
        assert_eq!(made.progress, DeletionProgress::Sweeping { objects: 0 });
    }
    assert!(matches!(delete_service("absent").await, Err(ErrorKind::Exhausted { .. })));
    let made = delete(&metastore, r#"{key="1"}"#).await;
    assert_eq!(made.progress, DeletionProgress::Rewriting { objects: 1, unreadable: 0 });
    metastore.advance_deletions().await.expect("advances");
    assert_eq!(metastore.state.lock().deletions.len(), 1, "those without data are finished");
    delete_service("absent").await.expect("takes the deletion");
    assert_eq!(world.counts(&metastore).await, once(&[2]));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_finished_when_no_object_and_no_file_of_the_catalog_holds_it() {
    let mut world = World::new(52);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    push(&mut world, &metastore, 1, 1, &[3]).await;
    compact(&mut world, &metastore).await;
    push(&mut world, &metastore, 1, 2, &[4]).await;
    delete(&metastore, r#"{key=~"1|4|needle"}"#).await;
    let expected = once(&[2, 3]);
    assert_eq!(world.counts(&metastore).await, expected);
    assert!(!holds_text(&world, "needle").await.is_empty());
    assert!(compact(&mut world, &metastore).await >= 2, "a merge, and a rewrite of a block alone");
    assert_eq!(world.counts(&metastore).await, expected);
    let snapshot = metastore.find(everything()).await.expect("finds");
    assert!(snapshot.objects.iter().all(|object| object.deletions.is_empty()), "no row is left to filter");
    assert_eq!(metastore.advance_deletions().await.expect("advances"), 1, "dead objects hold it");
    let deletions = metastore.deletions(tenant("a")).await.expect("lists");
    assert!(matches!(deletions[0].progress, DeletionProgress::Sweeping { objects: 1.. }), "{deletions:?}");
    metastore.seal(WriterId(1)).await.expect("seals");
    sweep(&world, &metastore).await;
    let deletions = metastore.deletions(tenant("a")).await.expect("lists");
    assert!(matches!(deletions[0].progress, DeletionProgress::Finished { .. }), "{deletions:?}");
    assert!(deletions[0].deletion.is_none());
    assert_eq!(holds_text(&world, "needle").await, []);
    let left = world.store.list("delete").await.expect("lists");
    let left: Vec<&str> = left.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(left, ["delete/a/000000000001.done"]);
    assert_eq!(world.counts(&metastore).await, expected);
    metastore.drain().await;
    let mut expected = expected;
    for (n, is_rebuilt) in [false, true].into_iter().enumerate() {
        let metastore = if is_rebuilt { rebuild(&world).await } else { world.open().await };
        assert_eq!(world.counts(&metastore).await, expected);
        // Later pushes are kept, and the next deletion has the next number.
        let late = 40 + n as u128;
        push(&mut world, &metastore, late, 0, &[late]).await;
        expected.insert(late, 1);
        assert_eq!(world.counts(&metastore).await, expected);
        assert_eq!(delete(&metastore, r#"{key="5"}"#).await.number, 2 + n as u64);
        metastore.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resend_of_an_erased_item_stays_masked() {
    let mut world = World::new(53);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    delete(&metastore, r#"{key="1"}"#).await;
    push(&mut world, &metastore, 2, 0, &[1]).await;
    assert_eq!(world.counts(&metastore).await, once(&[2]));
    compact(&mut world, &metastore).await;
    push(&mut world, &metastore, 2, 1, &[1]).await;
    assert_eq!(world.counts(&metastore).await, once(&[2]), "after its first copy was merged away");
    metastore.drain().await;
    assert_eq!(world.counts(&*world.open().await).await, once(&[2]), "after a restart");
    assert_eq!(world.counts(&*rebuild(&world).await).await, once(&[2]), "after a rebuild");
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_does_not_count_a_resend_instead_although_its_clock_is_behind() {
    let mut world = World::new(54);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    delete(&metastore, r#"{key="1"}"#).await;
    world.time.set(-60_000);
    push(&mut world, &metastore, 2, 0, &[1, 3]).await;
    world.time.set(60_000);
    assert_eq!(world.counts(&metastore).await, once(&[2, 3]));
    metastore.drain().await;
    assert_eq!(world.counts(&*rebuild(&world).await).await, once(&[2, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_between_claim_and_publish_filters_the_outputs_until_they_are_rewritten() {
    let mut world = World::new(55);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31));
    let job = metastore.claim_job().await.expect("claims").expect("a job");
    let publication = world.merge(&job).await;
    delete(&metastore, r#"{key="1"}"#).await;
    // The floor of an attempt outlives its owner.
    metastore.drain().await;
    let metastore = world.open_as(false).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
    assert_eq!(world.counts(&metastore).await, once(&[2]));
    let snapshot = metastore.find(everything()).await.expect("finds");
    assert_eq!(snapshot.objects.iter().filter(|object| !object.deletions.is_empty()).count(), 1);
    let rewrite = metastore.claim_job().await.expect("claims").expect("a rewrite");
    assert_eq!((rewrite.inputs.len(), rewrite.level, rewrite.windows.len()), (1, 1, 1));
    let publication = world.merge(&rewrite).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
    let snapshot = metastore.find(everything()).await.expect("finds");
    assert!(snapshot.objects.iter().all(|object| object.deletions.is_empty()));
    assert_eq!(world.counts(&metastore).await, once(&[2]));
    assert!(metastore.claim_job().await.expect("claims").is_none(), "no block is left to rewrite");
    metastore.drain().await;
    assert_eq!(world.counts(&*rebuild(&world).await).await, once(&[2]));
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_rows_are_all_erased_makes_no_output() {
    let mut world = World::new(56);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    compact(&mut world, &metastore).await;
    assert_eq!(found(&metastore).await, 2);
    delete(&metastore, r#"{service_name="app"}"#).await;
    compact(&mut world, &metastore).await;
    let snapshot = metastore.find(everything()).await.expect("finds");
    let tenants: Vec<_> = snapshot.objects.iter().map(|o| o.datasets[0].tenant.clone()).collect();
    assert_eq!(tenants, [tenant("b")], "data of others stay");
    assert_eq!(world.counts(&metastore).await, BTreeMap::new());
}

/// An owner that dies between the steps of a deletion, and its successor.
#[tokio::test(start_paused = true)]
async fn a_successor_applies_a_deletion_that_is_durable_and_not_committed() {
    for is_alone in [true, false] {
        let mut world = World::new(57);
        let metastore = world.open_as(is_alone).await;
        push(&mut world, &metastore, 1, 0, &[1, 2]).await;
        metastore.commit_pending().await.expect("commits");
        // Consumed and not committed when the owner dies.
        push(&mut world, &metastore, 1, 1, &[11, 12]).await;
        world.faulty.set_create_rule(|key| key.starts_with("catalog/").then_some(Fault::Fail));
        let died =
            world.clock.timeout(Duration::from_secs(5), metastore.delete(request(r#"{key=~"1+|21"}"#)));
        assert!(died.await.is_none(), "it cannot commit");
        assert_eq!(world.store.list("delete").await.expect("lists").len(), 1);
        // Arrives after the deletion.
        world.put(1, 2, &[21]).await.expect("free");
        world.faulty.set_create_rule(|_| None);
        let next = world.open_as(is_alone).await;
        assert_eq!(world.counts(&next).await, once(&[2, 12, 21]));
        next.drain().await;
        assert_eq!(world.counts(&*world.open_as(is_alone).await).await, once(&[2, 12, 21]), "and the next");
        assert_eq!(world.counts(&*rebuild(&world).await).await, once(&[2, 12, 21]), "and a rebuild");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_not_durable_has_no_effect() {
    let mut world = World::new(58);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    world.faulty.set_create_rule(|key| key.starts_with("delete/").then_some(Fault::Fail));
    let died = world.clock.timeout(Duration::from_secs(5), metastore.delete(request(r#"{key="1"}"#)));
    assert!(died.await.is_none(), "it cannot make it durable");
    // Stopped, the owner answers that the outcome is unknown.
    push(&mut world, &metastore, 1, 1, &[3]).await;
    metastore.drain().await;
    world.faulty.set_create_rule(|_| None);
    let next = world.open().await;
    assert_eq!(world.counts(&next).await, once(&[1, 2, 3]));
    // The next deletion, whatever its number, concerns all rows stored until now.
    delete(&next, r#"{key=~"1|3"}"#).await;
    assert_eq!(world.counts(&next).await, once(&[2]));
}

#[tokio::test(start_paused = true)]
async fn a_committed_deletion_is_in_force_although_its_client_got_no_answer() {
    let mut world = World::new(59);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    let call = metastore.delete(request(r#"{key="1"}"#));
    drop(world.clock.timeout(Duration::ZERO, call).await);
    world.clock.sleep(Duration::from_secs(1)).await;
    drop(metastore);
    assert_eq!(world.counts(&*world.open().await).await, once(&[2]));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_of_an_owner_that_had_been_replaced_is_dropped() {
    let mut world = World::new(60);
    let first = world.open_as(false).await;
    push(&mut world, &first, 1, 0, &[1, 2]).await;
    let second = world.open_as(false).await;
    second.delete(request(r#"{key="2"}"#)).await.expect("takes the deletion");
    // A deletion of the first owner, which was paused after its last check.
    let late = DeleteRequest { tenant: tenant("b"), ..request(r#"{key="1"}"#) };
    let row = catalog::rows::Deletion {
        number: 1,
        tenant: late.tenant,
        created_millis: 0,
        state: catalog::rows::DeletionState::InForce {
            matchers: crate::deletions::matchers_of(&late.selector),
            range: late.range,
            positions: Vec::new(),
        },
    };
    let object = crate::deletions::DeletionObject { epoch: 1, id_tag: None, row };
    world.store.settle_create(&object.key(), object.encode()).await.expect("puts");
    assert_eq!(second.reconcile().await.expect("compares").orphans, 1, "of two deletions");
    assert_eq!(second.reconcile().await.expect("compares").orphans, 0, "it is known to be dead");
    assert!(first.delete(request(r#"{key="1"}"#)).await.is_err(), "it is fenced");
    for is_rebuilt in [false, true] {
        let metastore = if is_rebuilt { rebuild(&world).await } else { world.open_as(false).await };
        assert_eq!(world.counts(&metastore).await, once(&[1]));
        assert!(metastore.deletions(tenant("b")).await.expect("lists").is_empty());
    }
    let metastore = world.open().await;
    world.time.pass(Duration::from_secs(16 * 60));
    let dead = metastore.sweepable(10).await.expect("lists");
    assert!(dead.iter().any(|dead| dead.key == object.key()), "its object goes");
}

#[tokio::test(start_paused = true)]
async fn dying_while_a_deletion_is_finished_changes_no_answer() {
    // Refused creates: of the hash, then of the commit that replaces the row.
    for refused in ["delete/", "catalog/"] {
        let mut world = World::new(61);
        let metastore = world.open().await;
        push(&mut world, &metastore, 1, 0, &[1, 2]).await;
        delete(&metastore, r#"{key="1"}"#).await;
        compact(&mut world, &metastore).await;
        metastore.seal(WriterId(1)).await.expect("seals");
        metastore.commit_pending().await.expect("commits");
        metastore.observe();
        world.time.pass(Duration::from_secs(2 * 3600));
        metastore.advance_deletions().await.expect("advances");
        let dead = metastore.sweepable(1_000).await.expect("lists");
        for object in &dead {
            world.store.delete(&object.key).await.expect("deletes");
        }
        metastore.swept(dead.into_iter().map(|d| d.key).collect()).await.expect("forgets");
        metastore.commit_pending().await.expect("commits");
        world.faulty.set_create_rule(move |key| key.starts_with(refused).then_some(Fault::Fail));
        let died = world.clock.timeout(Duration::from_secs(60), metastore.advance_deletions()).await;
        assert!(!matches!(died, Some(Ok(_))), "{refused}");
        world.faulty.set_create_rule(|_| None);
        let metastore = world.open().await;
        assert_eq!(world.counts(&metastore).await, once(&[2]));
        sweep(&world, &metastore).await;
        let deletions = metastore.deletions(tenant("a")).await.expect("lists");
        assert!(
            matches!(deletions[0].progress, DeletionProgress::Finished { .. }),
            "{refused}: {deletions:?}"
        );
        let left = world.store.list("delete").await.expect("lists").len();
        assert_eq!(left, 1, "only the hash is left");
        assert_eq!(world.counts(&*rebuild(&world).await).await, once(&[2]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_outputs_of_attempts_that_died() {
    let mut world = World::new(62);
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(31));
    let job = metastore.claim_job().await.expect("claims").expect("a job");
    let unused = world.merge(&job).await;
    metastore.fail_job(failure(&job, "killed")).await.expect("fails");
    delete(&metastore, r#"{key="1"}"#).await;
    world.time.pass(Duration::from_secs(60));
    compact(&mut world, &metastore).await;
    metastore.seal(WriterId(1)).await.expect("seals");
    sweep(&world, &metastore).await;
    sweep(&world, &metastore).await;
    let blocks: Vec<Key> =
        world.store.list("block").await.expect("lists").into_iter().map(|o| o.key).collect();
    let is_of_a = |key: &Key| key.as_str().starts_with("block/a/");
    let unused: Vec<&Key> = unused.outputs.iter().map(|o| &o.key).filter(|key| is_of_a(key)).collect();
    assert!(unused.iter().all(|key| !blocks.contains(key)), "{blocks:?}");
    let deletions = metastore.deletions(tenant("a")).await.expect("lists");
    assert!(matches!(deletions[0].progress, DeletionProgress::Finished { .. }), "{deletions:?}");
}

/// Keeps data of tenant `b` for a day, those of `a` for ever.
fn retention() -> Retention {
    Arc::new(|name, _| (*name == tenant("b")).then(|| Duration::from_secs(86_400)))
}

#[tokio::test(start_paused = true)]
async fn an_expired_dataset_leaves_its_object_and_the_others_stay() {
    let mut world = World::new(63);
    world.retention = retention();
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    metastore.commit_pending().await.expect("commits");
    world.time.pass(Duration::from_secs(86_401));
    let tenants = async |metastore: &Metastore| {
        let snapshot = metastore.find(everything()).await.expect("finds");
        let datasets = snapshot.objects.into_iter().flat_map(|object| object.datasets);
        datasets.map(|dataset| dataset.tenant).collect::<Vec<_>>()
    };
    assert_eq!(tenants(&metastore).await, [tenant("a")], "at once");
    metastore.tend();
    metastore.drain().await;
    let metastore = world.open().await;
    assert_eq!(
        metastore.state.lock().live().iter().map(|(_, live)| (live.live_rows, live.rows)).collect::<Vec<_>>(),
        [(1, 2)]
    );
    assert_eq!(tenants(&metastore).await, [tenant("a")]);
    let job = metastore.claim_job().await.expect("claims").expect("a job");
    assert_eq!(job.inputs[0].datasets, [0], "expired datasets are not merged");
    assert_eq!(world.counts(&*rebuild(&world).await).await, once(&[1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_block_is_rewritten_when_less_than_half_of_it_is_left() {
    let mut state = State::new(&Config::default());
    let mut block = catalog::rows::Block {
        id: BlockId { job: JobId(1), attempt: 1, part: 0 },
        key: Key::from_text("block/a/3-0-86400/x"),
        tenant: tenant("a"),
        level: 3,
        window: Window { start: 0, length: DAY },
        bytes: 1,
        created_millis: 0,
        quarantine: None,
        floor: 0,
        rows: 100,
    };
    for (left, is_rewritten) in [(100, false), (50, false), (49, true)] {
        let origin = Origin::Block { job: JobId(1), attempt: 1, part: 0, level: 3 };
        let mut datasets = state::summaries(&directory(origin, 0, Vec::new(), &["a"], 0));
        datasets[0].rows = left;
        state.add_block(&block, datasets);
        let work = plan::next(&mut state, &Config::default(), 86_400_000);
        assert_eq!(
            work.map(|work| (work.level, work.windows)),
            is_rewritten.then(|| (3, vec![Window { start: 0, length: DAY }]))
        );
        state.bury(&block.key, None, 0, &mut catalog::Batch::default());
    }
    block.rows = 0;
    state.add_block(&block, Vec::new());
    assert!(plan::next(&mut state, &Config::default(), 86_400_000).is_none(), "a block of an older version");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_and_retention_concern_one_block() {
    let mut world = World::new(64);
    world.retention = retention();
    let metastore = world.open().await;
    push(&mut world, &metastore, 1, 0, &[1, 2]).await;
    compact(&mut world, &metastore).await;
    let of_b = DeleteRequest { tenant: tenant("b"), ..request(r#"{service_name="app"}"#) };
    metastore.delete(of_b.clone()).await.expect("takes the deletion");
    let job = metastore.claim_job().await.expect("claims").expect("a rewrite");
    assert!(job.inputs[0].key.as_str().starts_with("block/b/"));
    world.time.pass(Duration::from_secs(86_401));
    metastore.tend();
    metastore.commit_pending().await.expect("commits");
    assert_eq!(metastore.state.lock().live().iter().count(), 2, "retention waits for the job");
    let publication = world.merge(&job).await;
    assert_eq!(metastore.publish(publication).await.expect("publishes"), PublishOutcome::Done);
    metastore.tend();
    metastore.commit_pending().await.expect("commits");
    metastore.advance_deletions().await.expect("advances");
    let deletions = metastore.deletions(tenant("b")).await.expect("lists");
    assert!(!matches!(deletions[0].progress, DeletionProgress::Finished { .. }), "{deletions:?}");
    assert_eq!(world.counts(&metastore).await, once(&[1, 2]));
}
