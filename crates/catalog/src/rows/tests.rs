//! Rows read back as they were written.

use bytes::Bytes;
use model::{BlockId, ItemKey, JobId, TenantId, TimeRange, Times, Window, WriterId};
use storage::Key;

use super::*;

fn check<R: Row + PartialEq + std::fmt::Debug>(row: R) {
    let mut batch = Batch::default();
    row.put_into(&mut batch);
    let (key, value) = &batch.changes[0];
    let value = value.as_ref().expect("a put");
    assert!(R::KIND.keys().contains(key));
    assert_eq!(R::read(key, value).as_ref(), Ok(&row));
    for len in 0..value.len() {
        assert!(R::read(key, &value[..len]).is_err(), "{row:?} cut to {len} bytes");
    }
    for len in 0..key.len() {
        // A key of an earlier version may be the beginning of one.
        assert_ne!(R::read(&key[..len], value).as_ref(), Ok(&row), "{row:?} with a key of {len} bytes");
    }
    let mut newer = value.to_vec();
    newer[0] = VERSION + 1;
    assert!(matches!(R::read(key, &newer), Err(DecodeError::Newer { .. })));
}

fn summary() -> DatasetSummary {
    DatasetSummary {
        position: 3,
        tenant: TenantId::anonymous(),
        service: "a/b\0c".into(),
        times: Times { first: i64::MIN, last: i64::MAX },
        rows: 9,
        profile_types: vec!["a:b:c:d:e".parse().expect("a type")].into(),
    }
}

#[test]
fn rows_read_back_and_damage_is_refused() {
    let id = BlockId { job: JobId(u128::MAX), attempt: 2, part: 1 };
    let quarantine = Some(Quarantine { reason: "bad".into(), times: Times { first: -1, last: 1 } });
    check(Log { writer: WriterId(7), next: 300, sealed: true, moved_millis: -5 });
    check(Segment {
        writer: WriterId(7),
        seq: 1,
        created_millis: 1_700_000_000_000,
        bytes: 1 << 40,
        masked: vec![0, 5, 1000],
        quarantine: quarantine.clone(),
        datasets: vec![summary(), summary()],
        floor: 300,
        rows: u64::MAX,
    });
    check(Block {
        id,
        key: Key::from_text("block/x"),
        tenant: TenantId::anonymous(),
        level: 1,
        window: Window { start: -300, length: 300 },
        bytes: 1,
        created_millis: 0,
        quarantine: None,
        floor: 1,
        rows: 300,
    });
    check(Dataset { block: id, day: -1, summary: summary(), has_own_key: true });
    let work = Work {
        level: 1,
        windows: vec![Window { start: 0, length: 300 }, Window { start: 300, length: 300 }],
        inputs: vec![Key::from_text("log/x/1")],
    };
    for state in [
        JobProgress::Working { open: true, work },
        JobProgress::Published { record: None },
        JobProgress::Published { record: Some(Bytes::from_static(b"r")) },
    ] {
        check(Job { id: JobId(1), created_millis: 1, attempt: 2, tries: 1, floor: 3, state });
    }
    for (job, segment_millis) in [(None, None), (Some(JobId(4)), None), (None, Some(-4))] {
        check(Dead { key: Key::from_text("log/x/2"), died_millis: 4, job, segment_millis });
    }
    let matcher = |is_regex, is_negated| DeletionMatcher {
        name: "pod".into(),
        value: "p|\"é".into(),
        is_regex,
        is_negated,
    };
    for state in [
        DeletionState::InForce {
            matchers: vec![matcher(true, false), matcher(false, true)],
            range: TimeRange { start: i64::MIN, end: i64::MAX },
            positions: vec![(WriterId(7), 0), (WriterId(u128::MAX), 300)],
        },
        DeletionState::Done { hash: u128::MAX, finished_millis: -4 },
    ] {
        check(Deletion { number: 1 << 40, tenant: TenantId::anonymous(), created_millis: -3, state });
    }
    check(Resignation { epoch: 300 });
    check(Dedup { minute: -3, ordinal: 9, keys: vec![ItemKey(1), ItemKey(u128::MAX)] });
}

#[test]
fn rows_of_version_1_have_no_floor() {
    let block = Block {
        id: BlockId { job: JobId(1), attempt: 2, part: 1 },
        key: Key::from_text("block/x"),
        tenant: TenantId::anonymous(),
        level: 1,
        window: Window { start: 0, length: 300 },
        bytes: 1,
        created_millis: 0,
        quarantine: None,
        floor: 0,
        rows: 0,
    };
    let mut batch = Batch::default();
    block.put_into(&mut batch);
    let (key, value) = &batch.changes[0];
    let mut old = value.as_ref().expect("a put").to_vec();
    old[0] = 1;
    old.truncate(old.len() - 2);
    assert_eq!(Block::read(key, &old), Ok(block));
}

#[test]
fn keys_sort_by_minute_across_zero() {
    assert!(Dedup::key_of(-1, 5) < Dedup::key_of(0, 0));
    assert!(Dedup::key_of(0, 5) < Dedup::key_of(1, 0));
}
