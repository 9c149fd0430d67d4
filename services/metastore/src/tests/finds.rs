//! How long a find takes.

use super::*;

/// Limit for an optimised build; other builds only print the time.
const FIND_MAX: Duration = Duration::from_millis(1);

#[test]
fn a_day_of_one_service_is_found_among_a_month_of_all_at_once() {
    const OBJECTS: u64 = 10_000;
    const SERVICES: usize = 20;
    let mut state = State::new(&Config::default());
    let types: Arc<[model::ProfileType]> =
        vec!["process_cpu:cpu:nanoseconds:cpu:nanoseconds".parse().expect("a type")].into();
    for i in 0..OBJECTS {
        let block = catalog::rows::Block {
            id: BlockId { job: JobId(u128::from(i)), attempt: 1, part: 0 },
            key: Key::from_text(format!("block/a/1-0-300/{i:032x}-1-0")),
            tenant: tenant("a"),
            level: 1,
            window: Window { start: 0, length: 300 },
            bytes: 1,
            created_millis: 0,
            quarantine: None,
            floor: 0,
            rows: 0,
        };
        let time = (START_MILLIS + (i * 30 * 86_400_000 / OBJECTS) as i64) * 1_000_000;
        let datasets = (0..SERVICES).map(|service| catalog::rows::DatasetSummary {
            position: service as u32,
            tenant: tenant("a"),
            service: format!("service-{service}").into(),
            times: Times { first: time, last: time },
            rows: 1,
            profile_types: types.clone(),
        });
        state.add_block(&block, datasets.collect());
    }
    let start = (START_MILLIS + 20 * 86_400_000) * 1_000_000;
    let request = FindRequest {
        tenants: vec![tenant("a")],
        range: TimeRange { start, end: start + 86_400_000_000_000 },
        services: Some(vec!["service-7".into()]),
        profile_type: Some(types[0].clone()),
        explain: false,
    };
    let explained = FindRequest { explain: true, ..request.clone() };
    let pruned = state.snapshot(&explained, 1, |_, _| i64::MIN).pruned.expect("is asked for");
    assert_eq!((pruned.by_service, pruned.by_profile_type), (OBJECTS * 19, 0));
    assert!((9666..=9667).contains(&pruned.by_time), "{pruned:?}");
    let clock = Clock::system();
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let began = clock.monotonic();
        let found = state.snapshot(&request, 1, |_, _| i64::MIN).objects;
        best = best.min(clock.monotonic() - began);
        assert!((333..=334).contains(&found.len()), "{} objects", found.len());
    }
    println!("one service's day of {OBJECTS} objects of a month: {best:?}");
    assert!(cfg!(debug_assertions) || best <= FIND_MAX, "{best:?}");
}
