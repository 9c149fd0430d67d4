//! An acknowledged push is durable and readable, whatever the store does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod rig;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ingester::Config;
use parking_lot::Mutex;
use rig::{Rig, Slot, item};
use rpc::{ErrorKind, Ingester as _};
use storage::fault::{Fault, Rates};

const UNAVAILABLE: Result<(), ErrorKind> = Err(ErrorKind::Unavailable);

#[tokio::test(start_paused = true)]
async fn a_push_is_acknowledged_only_after_the_put() {
    let rig = Rig::new();
    rig.faulty.script_creates([Fault::Silence(Duration::from_secs(2))]);
    let push = rig.start_push(1);
    rig.sleep(2400).await;
    assert!(!push.is_finished());
    assert_eq!(rig.logs().await, []);
    assert_eq!(push.await.unwrap(), Ok(()));
    assert!(rig.readable().await.contains(&1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_and_a_false_conflict_are_settled_by_reading() {
    for fault in [Fault::LoseReply, Fault::FalseConflict, Fault::Fail] {
        let rig = Rig::new();
        rig.faulty.script_creates([fault]);
        assert_eq!(rig.push(1).await, Ok(()), "{fault:?}");
        let logs = rig.logs().await;
        assert_eq!((logs.len(), &logs[0].1), (1, &vec![0]), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_above_a_gap_is_acknowledged() {
    let rig = Rig::new();
    rig.faulty.set_create_rule(|key| key.ends_with("/000000000000").then_some(Fault::Fail));
    let first = rig.start_push(1);
    rig.sleep(1000).await;
    let second = rig.start_push(2);
    rig.sleep(5000).await;
    let logs = rig.logs().await;
    assert_eq!(logs[0].1, [1], "the second segment is durable");
    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(first.await.unwrap(), UNAVAILABLE);
    assert_eq!(second.await.unwrap(), UNAVAILABLE);
    rig.faulty.set_create_rule(|_| None);
    assert_eq!(rig.push(1).await, Ok(()));
    let readable = rig.readable().await;
    assert!(readable.contains(&1) && !readable.contains(&2));
    assert_eq!(rig.logs().await.len(), 2, "the doubtful log is left");
}

#[tokio::test(start_paused = true)]
async fn a_full_store_fails_pushes_at_once_until_it_has_space_again() {
    let rig = Rig::new();
    assert_eq!(rig.push(1).await, Ok(()));
    rig.faulty.set_create_rule(|_| Some(Fault::Full));
    for key in 2..5 {
        let (began, requests) = (rig.clock.monotonic(), rig.faulty.requests());
        let refused = rig.ingester.push(vec![item(key)]).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(
            refused.message.contains("no space left") && refused.message.contains("free some"),
            "{refused}"
        );
        assert!(rig.clock.monotonic() - began < Duration::from_secs(1), "it is not tried for eight seconds");
        assert!(rig.faulty.requests() - requests <= 2, "one create, and one read of its key");
    }
    rig.faulty.set_create_rule(|_| None);
    assert_eq!(rig.push(9).await, Ok(()));
    assert_eq!(rig.readable().await, HashSet::from([1, 9]));
}

#[tokio::test(start_paused = true)]
async fn a_push_that_a_store_does_not_settle_reports_the_last_error_of_the_store() {
    let rig = Rig::new();
    rig.faulty.set_create_rule(|_| Some(Fault::Fail));
    let refused = rig.ingester.push(vec![item(1)]).await.unwrap_err();
    assert!(refused.message.contains("not settled") && refused.message.contains("a fault that"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_segment_that_lands_late_does_no_harm() {
    let rig = Rig::new();
    let late = Fault::LandLate(Duration::from_secs(20));
    let first = Mutex::new(true);
    rig.faulty
        .set_create_rule(move |_| Some(if std::mem::take(&mut *first.lock()) { late } else { Fault::Fail }));
    assert_eq!(rig.push(1).await, UNAVAILABLE);
    rig.faulty.set_create_rule(|_| None);
    assert_eq!(rig.push(1).await, Ok(()));
    rig.sleep(30_000).await;
    let logs = rig.logs().await;
    assert_eq!(logs.iter().map(|log| log.1.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(rig.readable().await, HashSet::from([1]));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_meets_a_seal_moves_to_a_new_log() {
    let rig = Rig::new();
    assert_eq!(rig.push(1).await, Ok(()));
    let writer = rig.logs().await[0].0;
    rig.put_seal(writer, 1).await;
    assert_eq!(rig.push(2).await, Ok(()));
    assert_eq!(rig.push(3).await, Ok(()));
    let logs = rig.logs().await;
    assert_eq!(logs.len(), 2);
    assert_eq!(logs.iter().find(|log| log.0 != writer).unwrap().1, [0, 1]);
    assert_eq!(rig.readable().await, HashSet::from([1, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_durable_segment_above_a_seal_moves_too() {
    let rig = Rig::new();
    rig.faulty.set_create_rule(|key| {
        let first_log = key.starts_with("log/00000000000000000000000000000001/");
        let pause = Fault::Silence(Duration::from_millis(2900));
        (first_log && key.ends_with("/000000000000")).then_some(pause)
    });
    let first = rig.start_push(1);
    rig.sleep(1000).await;
    let second = rig.start_push(2);
    rig.sleep(1000).await;
    let writer = rig.logs().await[0].0;
    assert!(matches!(rig.slot(writer, 1).await, Slot::Segment(_)));
    rig.put_seal(writer, 0).await;
    assert_eq!(first.await.unwrap(), Ok(()));
    assert_eq!(second.await.unwrap(), Ok(()));
    assert_eq!(rig.readable().await, HashSet::from([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_keeps_losing_its_slot_is_given_up() {
    let rig = Rig::new();
    // The rig's clock names logs 1, 2, 3, …; retries use some of these numbers too.
    for writer in 1..100 {
        rig.put_seal(model::WriterId(writer), 0).await;
    }
    assert_eq!(rig.push(1).await, UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn an_upload_interrupted_by_a_suspension_is_not_acknowledged() {
    let rig = Rig::new();
    rig.faulty.script_creates([Fault::Silence(Duration::from_millis(100))]);
    let push = rig.start_push(1);
    rig.sleep(520).await;
    assert!(rig.faulty.requests() == 1 && !push.is_finished());
    rig.time.suspend(Duration::from_secs(31));
    assert_eq!(push.await.unwrap(), UNAVAILABLE);
    assert_eq!(rig.push(1).await, Ok(()));
    assert_eq!(rig.logs().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_idle_for_long_is_sealed_and_left() {
    let rig = Rig::new();
    assert_eq!(rig.push(1).await, Ok(()));
    let writer = rig.logs().await[0].0;
    rig.sleep(301_000).await;
    assert_eq!(rig.push(2).await, Ok(()));
    assert_eq!(rig.logs().await.len(), 2);
    assert_eq!(rig.slot(writer, 1).await, Slot::Seal);
}

#[tokio::test(start_paused = true)]
async fn the_current_log_can_be_watched() {
    let rig = Rig::new();
    let writers = rig.ingester.writers();
    let first = writers.borrow().clone();
    assert_eq!(rig.push(1).await, Ok(()));
    assert_eq!(rig.logs().await.iter().map(|log| log.0).collect::<Vec<_>>(), first);
    rig.put_seal(first[0], 1).await;
    assert_eq!(rig.push(2).await, Ok(()));
    let second = writers.borrow().clone();
    assert!(second.len() == 1 && second != first);
    rig.ingester.drain().await;
    assert_eq!(*writers.borrow(), []);
}

#[tokio::test(start_paused = true)]
async fn draining_makes_waiting_pushes_durable_then_seals_then_refuses() {
    let rig = Rig::new();
    let push = rig.start_push(1);
    rig.sleep(1).await;
    rig.ingester.drain().await;
    assert_eq!(push.await.unwrap(), Ok(()));
    let writer = rig.logs().await[0].0;
    assert_eq!(rig.slot(writer, 1).await, Slot::Seal);
    assert_eq!(rig.push(2).await, UNAVAILABLE);
    rig.ingester.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_ingester_sends_no_requests_to_the_store() {
    let rig = Rig::new();
    rig.sleep(3_600_000).await;
    rig.ingester.drain().await;
    assert_eq!(rig.faulty.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn pushes_over_the_budget_are_refused_with_a_time_to_retry() {
    let one = Rig::new();
    let bytes = 4 * item(1).byte_len();
    let rig = Rig::with(Config { inflight_bytes_max: bytes, ..Config::default() }, 0);
    drop(one);
    rig.faulty.set_create_rule(|_| Some(Fault::Fail));
    let waiting: Vec<_> = (0..20).map(|key| rig.start_push(key)).collect();
    rig.sleep(100).await;
    let refused = rig.push(99).await;
    assert!(matches!(refused, Err(ErrorKind::Exhausted { retry_after }) if !retry_after.is_zero()));
    let too_large = rig.ingester.push((0..20).map(item).collect()).await;
    assert_eq!(too_large.unwrap_err().kind, ErrorKind::InvalidArgument);
    for push in waiting {
        assert!(push.await.unwrap().is_err());
    }
    rig.faulty.set_create_rule(|_| None);
    assert_eq!(rig.push(1).await, Ok(()), "failed pushes are no longer charged");
}

#[tokio::test(start_paused = true)]
async fn pushes_succeed_again_soon_after_an_outage_of_the_store() {
    let away = [
        Rates { fail: 1000, ..Rates::default() },
        Rates { silence: 1000, long: Duration::from_secs(60), ..Rates::default() },
    ];
    for rates in away {
        let rig = Arc::new(Rig::with(
            Config { inflight_bytes_max: 20 * item(1).byte_len(), ..Config::default() },
            1,
        ));
        let start = rig.clock.monotonic();
        let ended = Arc::new(Mutex::new(Vec::new()));
        let pushers: Vec<_> = (0..40u128)
            .map(|pusher| {
                let (rig, ended) = (rig.clone(), ended.clone());
                rig.clone().clock.spawn(async move {
                    for n in 0.. {
                        let began = rig.clock.monotonic();
                        if began > start + Duration::from_secs(60) {
                            break;
                        }
                        let key = (pusher << 64) + n;
                        let outcome = rig.push(key).await;
                        ended.lock().push((key, began, rig.clock.monotonic(), outcome));
                        rig.sleep(100 + pusher as u64).await;
                    }
                })
            })
            .collect();
        rig.sleep(5_000).await;
        rig.faulty.set_rates(rates);
        rig.sleep(30_000).await;
        rig.faulty.set_rates(Rates::default());
        let back = start + Duration::from_secs(35);
        for pusher in pushers {
            pusher.await.unwrap();
        }
        let ended = std::mem::take(&mut *ended.lock());
        let readable = rig.readable().await;
        let mut refused = 0;
        for (key, began, end, outcome) in &ended {
            match outcome {
                Ok(()) => assert!(readable.contains(key), "{key} was acknowledged"),
                Err(ErrorKind::Unavailable) => {}
                Err(ErrorKind::Exhausted { retry_after }) => {
                    assert!(
                        *end == *began && !retry_after.is_zero(),
                        "a push over the budget is refused at once"
                    );
                    refused += 1;
                }
                Err(other) => panic!("{rates:?}: {other:?}"),
            }
            let longest = Duration::from_secs(20);
            assert!(*end - *began < longest, "{rates:?}: a push waited {:?}", *end - *began);
        }
        let failed = ended.iter().filter(|(.., outcome)| outcome.is_err()).count();
        assert!(failed > 100 && refused > 100, "{rates:?}: {failed} failed, {refused} of them at once");
        let first = ended.iter().filter(|(_, _, end, outcome)| *end > back && outcome.is_ok());
        let first = first.map(|(_, _, end, _)| *end - back).min().unwrap();
        assert!(first < Duration::from_secs(9), "{rates:?}: the first push was acknowledged after {first:?}");
        let late = ended.iter().filter(|(_, began, _, outcome)| {
            *began > back + Duration::from_secs(9) && *outcome == UNAVAILABLE
        });
        assert_eq!(late.count(), 0, "{rates:?}: pushes fail after the store is back");
    }
}

#[tokio::test(start_paused = true)]
async fn equal_items_in_one_segment_are_folded() {
    let rig = Rig::new();
    let (a, b) = (rig.start_push(1), rig.start_push(1));
    assert_eq!((a.await.unwrap(), b.await.unwrap()), (Ok(()), Ok(())));
    let writer = rig.logs().await[0].0;
    assert_eq!(rig.slot(writer, 0).await, Slot::Segment(vec![model::ItemKey(1)]));
}

#[tokio::test(start_paused = true)]
async fn hints_are_sent_in_order_and_a_silent_metastore_delays_acks_only_twice() {
    let rig = Rig::new();
    rig.metastore.delay_millis.store(60_000, Ordering::Relaxed);
    let mut waits = Vec::new();
    for key in 0..4 {
        let began = rig.clock.monotonic();
        assert_eq!(rig.push(key).await, Ok(()));
        waits.push((rig.clock.monotonic() - began).as_millis());
    }
    assert_eq!(
        waits.iter().map(|wait| *wait > 700).collect::<Vec<_>>(),
        [true, true, false, false],
        "{waits:?}"
    );
    let hints: Vec<u64> = rig.metastore.hints.lock().iter().map(|hint| hint.1).collect();
    assert_eq!(hints, [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_large_segment_is_cut_before_its_minimum_age() {
    let rig = Rig::with(Config { segment_bytes_max: 10_000, ..Config::default() }, 0);
    let began = rig.clock.monotonic();
    assert!(rig.ingester.push((0..1000).map(item).collect()).await.is_ok());
    assert!(rig.clock.monotonic() - began < Duration::from_millis(50));
}

/// Median time from push to ack over ten seconds, in milliseconds, with puts of about 10 ms.
async fn median_ack(pushers: u128, pause: Duration) -> u128 {
    let rig = Arc::new(Rig::new());
    rig.faulty.set_rates(Rates { latency: Duration::from_millis(20), ..Rates::default() });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..pushers)
        .map(|pusher| {
            let (rig, waits) = (rig.clone(), waits.clone());
            rig.clone().clock.spawn(async move {
                rig.clock.sleep(pause.mul_f64(pusher as f64 / pushers as f64)).await;
                let end = rig.clock.monotonic() + Duration::from_secs(10);
                for n in 0.. {
                    // Clients do not all push in the same instant.
                    rig.sleep(pusher as u64 % 20).await;
                    let began = rig.clock.monotonic();
                    if began > end {
                        break;
                    }
                    assert_eq!(rig.push((pusher << 32) + n).await, Ok(()));
                    let wait = rig.clock.monotonic() - began;
                    waits.lock().push(wait.as_millis());
                    rig.clock.sleep(pause.saturating_sub(wait)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut waits = std::mem::take(&mut *waits.lock());
    waits.sort_unstable();
    waits[waits.len() / 2]
}

#[tokio::test(start_paused = true)]
async fn half_of_all_pushes_return_within_the_target() {
    let steady = median_ack(45, Duration::from_secs(1)).await;
    assert!(steady <= 260, "45 pushes per second: {steady} ms");
    for in_flight in [128, 256] {
        let burst = median_ack(in_flight, Duration::ZERO).await;
        assert!(burst <= 300, "{in_flight} in flight: {burst} ms");
    }
}

/// Pushes, seals and faults at random; then checks that each acknowledged push is readable.
async fn acknowledged_is_readable(seed: u64) {
    let rig = Arc::new(Rig::with(Config::default(), seed));
    let dice = move |n: u64| {
        let mixed = (seed ^ (n << 17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    };
    rig.faulty.set_rates(Rates {
        fail: (dice(1) % 300) as u32,
        lose_reply: (dice(2) % 200) as u32,
        false_conflict: (dice(3) % 200) as u32,
        silence: (dice(4) % 60) as u32,
        land_late: (dice(5) % 100) as u32,
        latency: Duration::from_millis(dice(6) % 1500),
        long: Duration::from_secs(dice(7) % 15),
    });
    let acknowledged = Arc::new(Mutex::new(HashSet::new()));
    let pushers: Vec<_> = (0..8u128)
        .map(|pusher| {
            let (rig, acknowledged) = (rig.clone(), acknowledged.clone());
            rig.clone().clock.spawn(async move {
                for n in 0..40 {
                    let key = (pusher << 64) + n;
                    if rig.push(key).await.is_ok() {
                        acknowledged.lock().insert(key);
                    }
                    rig.sleep((key as u64 * 37 + seed) % 400).await;
                }
            })
        })
        .collect();
    let sealer = {
        let rig = rig.clone();
        rig.clone().clock.spawn(async move {
            for n in 10.. {
                rig.sleep(dice(n) % 8000).await;
                if dice(n + 1000) % 5 == 0 {
                    rig.time.suspend(Duration::from_secs(dice(n + 2000) % 60));
                }
                // Seals the first absent slot of some log, like a metastore that takes its writer for dead.
                let logs = rig.logs().await;
                if let Some((writer, _)) = logs.get((dice(n + 3000) % 4) as usize) {
                    let mut seq = 0;
                    while rig.slot(*writer, seq).await != Slot::Absent {
                        seq += 1;
                    }
                    rig.put_seal(*writer, seq).await;
                }
            }
        })
    };
    // Every third run ends like a crash: no drain, and uploads stay unfinished.
    if seed.is_multiple_of(3) {
        rig.sleep(5000 + dice(8) % 20_000).await;
    } else {
        for pusher in pushers {
            pusher.await.unwrap();
        }
        rig.ingester.drain().await;
    }
    sealer.abort();
    let acknowledged = acknowledged.lock().clone();
    let readable = rig.readable().await;
    let lost: Vec<_> = acknowledged.difference(&readable).collect();
    assert!(lost.is_empty(), "seed {seed}: acknowledged but not readable: {lost:?}");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_pushes_stay_readable_under_random_faults() {
    for seed in 0..60 {
        acknowledged_is_readable(seed).await;
    }
}
