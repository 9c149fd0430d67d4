//! Queries, answers and profiles with a value in every field.

use std::sync::Arc;
use std::time::Duration;

use block::{CellSection, DatasetEntry, Directory, NameTree, Origin, Section};
use model::{
    Function, ItemKey, JobId, Labels, Line, Mapping, NONE, Profile, ProfileType, PushItem, SampleLabel,
    Samples, SeriesRows, Span, Symbols, TenantId, TimeRange, Times, ValueSchema, ValueType, Window, WriterId,
};
use query::flamegraph::Part;
use query::kind::{heatmap, labels, profile, series};
use query::{Answer, Deletion, Kind, Partial, Query, SampleFilter, Selector, Stats};
use rpc::{
    DeleteRequest, DeletionProgress, DeletionStatus, Effort, FindRequest, FoundDataset, FoundObject, Job,
    JobFailure, JobInput, JobOutput, Missing, PruneCounts, Publication, ScanAnswer, ScanRequest, SegmentHint,
    Snapshot, Standing,
};
use storage::Key;

pub(crate) const BIG: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn labels_of(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

pub(crate) fn profile_type() -> ProfileType {
    "process_cpu:cpu:nanoseconds:cpu:nanoseconds".parse().unwrap()
}

pub(crate) fn symbols() -> Symbols {
    let mut symbols = Symbols::default();
    for string in ["", "main", "é long name", "/bin/app", "b1d", "a.go"] {
        symbols.strings.push(string.as_bytes());
    }
    symbols.mappings.push(Mapping {
        memory_start: u64::MAX,
        memory_limit: 3,
        file_offset: 4096,
        filename: 3,
        build_id: 4,
        has_functions: true,
        has_line_numbers: true,
        ..Mapping::default()
    });
    symbols.functions.push(Function { name: 1, system_name: 2, filename: 5, start_line: -3 });
    symbols.functions.push(Function { name: 2, system_name: 0, filename: 0, start_line: i64::MIN });
    let lines = [Line { function: 1, line: 7 }, Line { function: 0, line: i64::MAX }];
    symbols.locations.push(0, u64::MAX, true, &lines);
    symbols.locations.push(NONE, 0x1234, false, &[]);
    symbols.locations.push(0, 0, false, &[Line { function: NONE, line: 0 }]);
    symbols.stacktraces.push(&[0, 1, 2]);
    symbols.stacktraces.push(&[]);
    symbols.stacktraces.push(&[1, 2]);
    symbols
}

fn profile() -> Profile {
    let mut symbols = symbols();
    // A sample without weight, whose location is missing in the document.
    symbols.stacktraces.push(&[NONE, 1]);
    Profile {
        symbols,
        samples: Samples {
            values: vec![1, 10_000_000, 0, 0, 5, 50_000_000, -1, i64::MIN],
            label_offsets: vec![0, 1, 1, 3, 3],
            labels: vec![
                SampleLabel { key: 1, string: 2, ..SampleLabel::default() },
                SampleLabel { key: 2, number: -9, unit: 3, string: 0 },
                SampleLabel { key: NONE, ..SampleLabel::default() },
            ],
        },
        sample_types: vec![ValueType { r#type: 1, unit: 2 }, ValueType { r#type: 3, unit: 4 }],
        default_sample_type: 3,
        period_type: Some(ValueType { r#type: 1, unit: 4 }),
        period: -10,
        time_nanos: 1_700_000_000_000_000_007,
        duration_nanos: 15_000_000_000,
        drop_frames: 1,
        keep_frames: NONE,
        comments: vec![2, 5],
    }
}

pub(crate) fn items() -> Vec<PushItem> {
    let schema = Arc::new(ValueSchema {
        name: "process_cpu".into(),
        columns: vec![("samples".into(), "count".into()), ("cpu".into(), "nanoseconds".into())],
        period: Some(("cpu".into(), "nanoseconds".into())),
    });
    let bare = Arc::new(ValueSchema { name: "x".into(), ..ValueSchema::default() });
    let spans = vec![Span { span_id: u64::MAX, trace_id: BIG }, Span::default()];
    let full = PushItem {
        tenant: tenant("team-a"),
        key: ItemKey(BIG),
        profile: Arc::new(profile()),
        series: [
            SeriesRows {
                labels: labels_of(&[("service_name", "app"), ("pod", "é")]),
                schema: schema.clone(),
                samples: vec![2, 0],
                spans,
            },
            SeriesRows {
                labels: labels_of(&[("service_name", "app")]),
                schema,
                samples: vec![1],
                spans: Vec::new(),
            },
            SeriesRows { labels: Labels::default(), schema: bare, samples: Vec::new(), spans: Vec::new() },
        ]
        .into(),
    };
    let mut empty = full.clone();
    empty.profile = Arc::new(Profile::default());
    empty.series = [full.series[2].clone()].into();
    vec![full, empty]
}

pub(crate) fn directory() -> Directory {
    let section = |offset| Section { offset, bytes: 5, raw_bytes: 9, checksum: u64::MAX };
    Directory {
        origin: Origin::Segment { writer: WriterId(BIG), seq: 42 },
        created_millis: -1,
        keys: vec![ItemKey(BIG), ItemKey(1)],
        datasets: vec![DatasetEntry {
            tenant: tenant("team-a"),
            service: "app".into(),
            times: Times { first: -5, last: 1_700_000_000_000_000_000 },
            rows: 3..9,
            profiles: 2,
            profile_types: vec![profile_type()],
            label_names: vec!["pod".into(), "service_name".into()],
            index: section(0),
            strings: section(5),
            symbols: section(5),
            tree: Some(section(10)),
            cells: vec![CellSection {
                seconds: 300,
                labels: vec!["namespace".into()],
                head: section(11),
                chunk_bytes: 12,
            }],
        }],
    }
}

pub(crate) fn hint() -> SegmentHint {
    SegmentHint { writer: WriterId(BIG), seq: 42, bytes: 1 << 40, directory: directory() }
}

fn deletion(number: u64) -> Arc<Deletion> {
    let range = TimeRange { start: i64::MIN, end: -1 };
    Arc::new(Deletion { number, tenant: tenant("team-a"), selector: selector(), range })
}

pub(crate) fn objects() -> Vec<FoundObject> {
    let types: Arc<[ProfileType]> = vec![profile_type()].into();
    let dataset = |position, service: &str, profile_types: &Arc<[ProfileType]>| FoundDataset {
        position,
        tenant: tenant(if position == 0 { "team-a" } else { "team-b" }),
        service: service.into(),
        bytes: u64::from(position) + 5,
        times: Times { first: -1, last: i64::MAX },
        profile_types: profile_types.clone(),
    };
    vec![
        FoundObject {
            key: Key::from_text("log/a/000000000001"),
            bytes: u64::MAX,
            masked: vec![0, 7, u32::MAX],
            deletions: vec![deletion(1), deletion(u64::MAX)],
            datasets: vec![dataset(0, "app", &types), dataset(3, "", &types)],
        },
        FoundObject {
            key: Key::from_text("block/a/1-0-300/x"),
            bytes: 0,
            masked: Vec::new(),
            deletions: vec![deletion(u64::MAX)],
            datasets: vec![dataset(u32::MAX, "app", &Vec::new().into()), dataset(1, "b", &types)],
        },
    ]
}

pub(crate) fn delete_request() -> DeleteRequest {
    DeleteRequest {
        tenant: tenant("team-a"),
        selector: selector(),
        range: TimeRange { start: -1, end: i64::MAX },
    }
}

pub(crate) fn statuses() -> Vec<DeletionStatus> {
    let status =
        |number, deletion, progress| DeletionStatus { number, created_millis: -7, deletion, progress };
    vec![
        status(u64::MAX, Some(deletion(u64::MAX)), DeletionProgress::Rewriting { objects: 7, unreadable: 1 }),
        status(2, Some(deletion(2)), DeletionProgress::Sweeping { objects: usize::MAX }),
        status(1, None, DeletionProgress::Finished { millis: i64::MIN }),
    ]
}

pub(crate) fn finds() -> Vec<FindRequest> {
    let range = TimeRange { start: i64::MIN, end: i64::MAX };
    let tenants = vec![tenant("team-a"), tenant("b")];
    vec![
        FindRequest { tenants: tenants.clone(), range, services: None, profile_type: None, explain: false },
        FindRequest {
            tenants,
            range,
            services: Some(vec!["app".into(), String::new()]),
            profile_type: Some(profile_type()),
            explain: true,
        },
        // An empty list of services is not the same as no list.
        FindRequest {
            tenants: vec![tenant("a")],
            range,
            services: Some(Vec::new()),
            profile_type: None,
            explain: false,
        },
    ]
}

pub(crate) fn snapshot() -> Snapshot {
    Snapshot {
        version: u64::MAX,
        epoch: u64::MAX - 1,
        stale: Some(Duration::from_millis(1234)),
        objects: objects(),
        quarantined: vec![(Key::from_text("log/b/000000000002"), "its bytes are wrong".into())],
        pruned: Some(PruneCounts { by_service: 1, by_time: 2, by_profile_type: 3, by_retention: u64::MAX }),
    }
}

pub(crate) fn standing() -> Standing {
    Standing { node: "a".into(), is_owner: true, epoch: u64::MAX, owner: "b".into() }
}

pub(crate) fn job() -> Job {
    Job {
        id: JobId(BIG),
        attempt: u32::MAX,
        inputs: vec![
            JobInput {
                key: Key::from_text("log/a/000000000001"),
                bytes: 7,
                masked: vec![1, 2],
                datasets: vec![0, u32::MAX],
                deletions: vec![deletion(2), deletion(3)],
            },
            JobInput {
                key: Key::from_text("log/a/000000000002"),
                bytes: 8,
                masked: Vec::new(),
                datasets: Vec::new(),
                deletions: vec![deletion(3)],
            },
        ],
        level: u8::MAX,
        windows: vec![Window { start: -300, length: 300 }, Window { start: 0, length: 86_400 }],
        shard_bits: 4,
    }
}

pub(crate) fn failure() -> JobFailure {
    JobFailure { job: JobId(BIG), attempt: 7, reason: "é, why".to_owned(), inputs_sound: true }
}

pub(crate) fn publication() -> Publication {
    let output = JobOutput {
        key: Key::from_text("block/a/1-0-300/x"),
        bytes: 9,
        tenant: tenant("team-a"),
        window: Window { start: -300, length: 300 },
        directory: Directory {
            origin: Origin::Block { job: JobId(BIG), attempt: 3, part: 1, level: 2 },
            ..directory()
        },
    };
    Publication { job: JobId(BIG), attempt: 3, outputs: vec![output] }
}

pub(crate) fn query(kind: Kind) -> Query {
    Query { range: TimeRange { start: -1, end: 2 }, selector: Selector::default(), profile_type: None, kind }
}

pub(crate) fn filter() -> SampleFilter {
    SampleFilter {
        profiles: vec![1, u64::MAX],
        spans: vec![2],
        traces: vec![BIG, 0],
        call_site: vec![b"main".as_slice().into(), b"\xff".as_slice().into()],
        nothing: true,
    }
}

fn selector() -> Selector {
    Selector::parse(r#"{service_name="app", a!="\"", b=~"x|y.*", c!~"z+", d=""}"#).unwrap()
}

/// A scan request with default options.
pub(crate) fn scan_of(query: Query, objects: Vec<FoundObject>) -> ScanRequest {
    ScanRequest {
        query,
        objects,
        time_left: None,
        skip_gone: false,
        skip_unavailable: false,
        explain: false,
        memory: Default::default(),
    }
}

fn effort() -> Effort {
    Effort {
        took: Duration::from_nanos(1),
        fetch: Duration::from_nanos(2),
        scan: Duration::from_nanos(3),
        merge: Duration::from_nanos(u64::MAX),
        known_datasets: 4,
        memory_hits: 5,
        memory_misses: 6,
        disk_bytes: 7,
        store_bytes: 8,
        store_requests: u64::MAX,
    }
}

/// Every kind of query, with an answer in which every field is set.
pub(crate) fn queries() -> Vec<(ScanRequest, ScanAnswer)> {
    let stats = Stats { objects: 1, datasets: 2, summed: 5, profiles: 4, samples: u64::MAX, bytes: 1 << 40 };
    let series = series::Parameters {
        start_millis: -5,
        end_millis: 100,
        step_millis: 15,
        group_by: vec!["pod".into()],
        exemplars: true,
        call_site: filter().call_site,
    };
    let heat = heatmap::Parameters {
        start_millis: -5,
        end_millis: 100,
        step_millis: 15,
        point_kind: heatmap::PointKind::Spans,
        group_by: vec!["pod".into()],
        exemplars: true,
    };
    let pgo = profile::GoPgo { keep_locations: 5, aggregate_callees: true };
    let answers = [
        (Kind::MergeStacktraces(filter()), Answer::MergeStacktraces(parts())),
        (Kind::MergeStacktraces(SampleFilter::default()), Answer::MergeStacktraces(Vec::new())),
        (
            Kind::MergeProfile(profile::Parameters { filter: filter(), go_pgo: Some(pgo) }),
            Answer::MergeProfile(Box::new(merged())),
        ),
        (Kind::MergeProfile(profile::Parameters::default()), Answer::MergeProfile(Box::default())),
        (Kind::Series(series), Answer::Series(grouped())),
        (Kind::Heatmap(heat.clone()), Answer::Heatmap(points())),
        (
            Kind::Heatmap(heatmap::Parameters {
                point_kind: heatmap::PointKind::Profiles,
                exemplars: false,
                ..heat
            }),
            Answer::Heatmap(heatmap::Points::default()),
        ),
        (Kind::LabelNames, Answer::Labels(found())),
        (Kind::LabelValues("pod".into()), Answer::Labels(found())),
        (Kind::SeriesLabels(vec!["pod".into()]), Answer::Labels(found())),
        (Kind::SeriesLabels(Vec::new()), Answer::Labels(labels::FoundLabels::default())),
        (Kind::ProfileTypes, Answer::Labels(found())),
    ];
    let answers = answers.into_iter().enumerate();
    answers
        .map(|(i, (kind, answer))| {
            let mut query = query(kind);
            if i % 2 == 0 {
                query.selector = selector();
                query.profile_type = Some(profile_type());
            }
            let objects = if i % 3 == 0 { objects() } else { Vec::new() };
            let partial = Partial { answer, stats, charge: Default::default() };
            match i % 3 == 1 {
                true => {
                    let key = Key::from_text("block/a/1-0-300/x");
                    let missing = Missing { key, reason: "é".into(), is_damaged: true };
                    let scanned = ScanAnswer { partial, missing: vec![missing], effort: Some(effort()) };
                    let time_left = Some(Duration::from_millis(30_001));
                    let request = ScanRequest { time_left, explain: true, ..scan_of(query, objects) };
                    (ScanRequest { skip_gone: i % 2 == 0, skip_unavailable: i % 2 == 1, ..request }, scanned)
                }
                false => (scan_of(query, objects), ScanAnswer { partial, missing: Vec::new(), effort: None }),
            }
        })
        .collect()
}

/// Two trees with common names, nodes without weight, and one empty name.
pub(crate) fn parts() -> Vec<Part> {
    let tree = |names: &[&str]| {
        let mut strings = NameTree::default().names;
        names.iter().for_each(|name| _ = strings.push(name.as_bytes()));
        // root -> 1 -> (2, 3 -> 1), root -> 2
        Arc::new(NameTree::from_parents(strings, &[0, 1, 2, 3, 1, 2], &[0, 0, 1, 1, 3, 0], vec![2, 4, 5, 1]))
    };
    vec![
        Part::new(tree(&["main", "work", "é"]), &[10_000_000, 30_000_000, 0, 0], &[]),
        Part::new(tree(&["main", "", "other"]), &[0, 0, i64::MAX, i64::MAX], &[]),
        Part::new(tree(&["main", "work", "sleep"]), &[0, 0, 7, 0], &[]),
        Part::new(tree(&["a", "b", "c"]), &[0, 0, 0, 0], &[]),
    ]
}

pub(crate) fn merged() -> profile::MergedProfile {
    profile::MergedProfile::from_columns(symbols(), vec![-3, 0, i64::MIN]).unwrap()
}

fn grouped() -> series::GroupedSeries {
    let exemplar = series::Exemplar {
        value: -7,
        time_nanos: 1_700_000_000_000_000_000,
        profile: u64::MAX,
        labels: labels_of(&[("pod", "a"), ("zone", "é")]),
    };
    let point = |sum, exemplar| series::Point { sum, count: 3, exemplar };
    let mut grouped = series::GroupedSeries::default();
    let points = [(0, point(i64::MAX, None)), (5, point(i64::MIN, Some(exemplar)))];
    grouped.add_group(labels_of(&[("pod", "a")]), points.into_iter().collect()).unwrap();
    grouped.add_group(Labels::default(), [(1, point(0, None))].into_iter().collect()).unwrap();
    grouped
}

fn points() -> heatmap::Points {
    let group = Arc::new(labels_of(&[("pod", "a")]));
    let point = |group: &Arc<Labels>, id, labels: &[(&str, &str)]| heatmap::Point {
        group: group.clone(),
        time_nanos: 1_700_000_000_000_000_000,
        value: i64::MIN,
        id,
        labels: labels_of(labels),
    };
    heatmap::Points::new(vec![
        point(&group, heatmap::Id::Span { span: u64::MAX, trace: BIG }, &[("zone", "z")]),
        point(&group, heatmap::Id::Profile(u64::MAX), &[]),
        point(&Arc::default(), heatmap::Id::Profile(0), &[("zone", "z")]),
    ])
    .unwrap()
}

fn found() -> labels::FoundLabels {
    labels::FoundLabels {
        texts: ["pod", "é", ""].map(str::to_owned).into(),
        sets: [labels_of(&[("pod", "a")]), labels_of(&[("pod", "pod"), ("x", "")]), Labels::default()].into(),
    }
}
