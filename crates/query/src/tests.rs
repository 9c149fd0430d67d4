//! Every kind of query on random datasets, compared with a naive implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use block::{Batch, DatasetIndex, NameTree, Series};
use memory::Lease;
use model::{
    Function, Labels, Line, NONE, ProfileType, Span, Symbols, TenantId, TimeRange, Times, ValueSchema,
};
use proptest::prelude::*;

use crate::deletion::erased;
use crate::flamegraph::{Real, encode_levels, finish};
use crate::kind::{heatmap, profile, series};
use crate::scan::{ColumnSelection, Samples, Selection, select};
use crate::{Answer, Dataset, Deletion, Kind, Partial, Query, SampleFilter, Selector};

/// One profile of a test dataset.
#[derive(Clone, Debug)]
struct Pushed {
    pod: u8,
    millis: i64,
    item: u32,
    /// Per sample: stack (one of three), cpu value, span.
    samples: Vec<(u8, i64, u64)>,
}

const STACKS: [&str; 3] = ["main;a", "main;b", "main;a;c"];

fn schema() -> Arc<ValueSchema> {
    Arc::new(ValueSchema {
        name: "process_cpu".into(),
        columns: vec![("samples".into(), "count".into()), ("cpu".into(), "nanoseconds".into())],
        period: Some(("cpu".into(), "nanoseconds".into())),
    })
}

fn cpu() -> ProfileType {
    schema().profile_type(1)
}

fn labels(pod: u8) -> Labels {
    Labels::from_pairs([("pod", format!("p{pod}")), ("service_name", "app".to_owned())])
}

/// A dataset as read from a block. Column 0, `samples`, is 1 in every row.
struct Stored {
    index: DatasetIndex,
    stacks: Vec<u32>,
    values: Vec<i64>,
    spans: Vec<u64>,
    symbols: Arc<Symbols>,
    tree: Arc<NameTree>,
}

fn symbols() -> Symbols {
    let mut symbols = Symbols::default();
    symbols.strings.push(b"");
    let mut ids: BTreeMap<&str, u32> = BTreeMap::new();
    for stack in STACKS {
        let locations: Vec<u32> = stack
            .rsplit(';')
            .map(|name| {
                *ids.entry(name).or_insert_with(|| {
                    let text = symbols.strings.push(name.as_bytes());
                    let function = symbols.functions.len() as u32;
                    symbols.functions.push(Function { name: text, ..Function::default() });
                    symbols.locations.push(NONE, 0, false, &[Line { function, line: 1 }])
                })
            })
            .collect();
        symbols.stacktraces.push(&locations);
    }
    symbols
}

fn store(pushed: &[Pushed]) -> Stored {
    let mut sorted: Vec<&Pushed> = pushed.iter().collect();
    sorted.sort_by_key(|p| (p.pod, p.millis));
    let pods: BTreeSet<u8> = pushed.iter().map(|p| p.pod).collect();
    let symbols = symbols();
    let mut stored = Stored {
        index: DatasetIndex {
            schemas: vec![schema()],
            series: pods.iter().map(|pod| Series { schema: 0, labels: labels(*pod) }).collect(),
            ..DatasetIndex::default()
        },
        stacks: Vec::new(),
        values: Vec::new(),
        spans: Vec::new(),
        tree: Arc::new(NameTree::build(&symbols)),
        symbols: Arc::new(symbols),
    };
    let profiles = &mut stored.index.profiles;
    profiles.row_starts.push(0);
    profiles.total_starts.push(0);
    for (id, p) in sorted.into_iter().enumerate() {
        profiles.series.push(pods.iter().position(|pod| *pod == p.pod).expect("a pod") as u32);
        profiles.time_nanos.push(p.millis * 1_000_000 + 7);
        profiles.duration_nanos.push(0);
        profiles.period.push(0);
        profiles.id.push(id as u64);
        profiles.item.push(p.item);
        for (stack, value, span) in &p.samples {
            stored.stacks.push(u32::from(*stack));
            stored.values.push(*value);
            stored.spans.push(*span);
        }
        profiles.row_starts.push(stored.stacks.len() as u32);
        profiles.totals.push(p.samples.len() as i64);
        profiles.totals.push(p.samples.iter().map(|(_, value, _)| value).sum());
        profiles.total_starts.push(profiles.totals.len() as u32);
    }
    stored
}

/// The rows of a selection, in small batches.
struct StoredSamples<'a>(&'a Stored, &'a Selection);

impl Samples for StoredSamples<'_> {
    fn scan(&self, column: usize, each: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        let Self(stored, selection) = self;
        let column: &ColumnSelection = &selection.columns[column];
        for rows in column.rows(&stored.index) {
            for row in rows {
                let index = row as usize;
                let value = if column.column == 0 { 1 } else { stored.values[index] };
                let span = Span { span_id: stored.spans[index], trace_id: 0 };
                each(Batch {
                    first_row: row,
                    stacks: &[stored.stacks[index]],
                    values: &[value],
                    spans: &[span],
                });
            }
        }
        Ok(())
    }

    fn scan_cells(&self, _: &mut dyn FnMut(Batch<'_>)) -> Result<(), block::Error> {
        Ok(())
    }
}

/// Folds one dataset as a leaf does.
fn fold(partial: &mut Partial, query: &Query, stored: &Stored, masked: &[u32], deletions: &[Deletion]) {
    let erased = erased(&stored.index, deletions);
    let selection = select(&stored.index, masked, &erased, query, &[query.range]);
    if selection.is_empty() {
        return;
    }
    let needs = query.needs();
    let samples = StoredSamples(stored, &selection);
    let dataset = Dataset {
        index: &stored.index,
        selection: &selection,
        cells: &[],
        tree: needs.tree.then(|| stored.tree.clone()),
        symbols: needs.symbols.then(|| stored.symbols.clone()),
        samples: if needs.samples { Some(&samples) } else { None },
    };
    partial.fold(query, dataset).expect("small");
}

fn ask(query: &Query, datasets: &[(Vec<Pushed>, Vec<u32>)]) -> Partial {
    ask_after(&[], query, datasets)
}

/// As [`ask`], after deletions that are not applied to the datasets yet.
fn ask_after(deletions: &[Deletion], query: &Query, datasets: &[(Vec<Pushed>, Vec<u32>)]) -> Partial {
    let mut partial = Partial::empty(query);
    for (pushed, masked) in datasets {
        fold(&mut partial, query, &store(pushed), masked, deletions);
    }
    partial
}

fn deletion(selector: &str, (start, end): (i64, i64)) -> Deletion {
    Deletion {
        number: 1,
        tenant: TenantId::anonymous(),
        selector: Selector::parse(selector).expect(selector),
        range: TimeRange::from_millis_inclusive(start, end),
    }
}

/// As [`ask`], with one partial per dataset, merged from the right.
fn ask_apart(query: &Query, datasets: &[(Vec<Pushed>, Vec<u32>)]) -> Partial {
    let mut merged = Partial::empty(query);
    for dataset in datasets.iter().rev() {
        let mut partial = ask(query, std::slice::from_ref(dataset));
        partial.merge(merged).expect("small");
        merged = partial;
    }
    merged
}

fn query(selector: &str, (start, end): (i64, i64), kind: Kind) -> Query {
    Query {
        range: TimeRange::from_millis_inclusive(start, end),
        selector: Selector::parse(selector).expect(selector),
        profile_type: Some(cpu()),
        kind,
    }
}

fn counted(
    datasets: &[(Vec<Pushed>, Vec<u32>)],
    (start, end): (i64, i64),
    pod: Option<u8>,
) -> impl Iterator<Item = &Pushed> {
    datasets.iter().flat_map(move |(pushed, masked)| {
        pushed.iter().filter(move |p| {
            let nanos = p.millis * 1_000_000 + 7;
            nanos >= start * 1_000_000
                && nanos <= end * 1_000_000
                && pod.is_none_or(|pod| p.pod == pod)
                && !masked.contains(&p.item)
        })
    })
}

/// The profiles with samples: without any, a profile has no value of any type.
fn with_samples<'a>(pushed: impl Iterator<Item = &'a Pushed>) -> impl Iterator<Item = &'a Pushed> {
    pushed.filter(|p| !p.samples.is_empty())
}

fn levels(partial: Partial) -> crate::flamegraph::FlameGraph {
    let Answer::MergeStacktraces(parts) = partial.answer else { panic!("{partial:?}") };
    encode_levels(finish([&parts], 0, Real::Fold))
}

/// The value of each stack.
fn stacks(partial: Partial) -> BTreeMap<String, i64> {
    let Answer::MergeProfile(merged) = partial.answer else { panic!("{partial:?}") };
    let symbols = &merged.symbols;
    let mut found = BTreeMap::new();
    for (id, value) in merged.values.iter().enumerate().filter(|(_, value)| **value != 0) {
        let names: Vec<String> = symbols
            .stacktraces
            .get(id as u32)
            .iter()
            .rev()
            .flat_map(|location| symbols.locations.lines_of(*location).iter().rev())
            .map(|line| {
                let name = symbols.functions[line.function as usize].name;
                symbols.strings.text(name).into_owned()
            })
            .collect();
        *found.entry(names.join(";")).or_default() += value;
    }
    found
}

fn datasets() -> impl Strategy<Value = Vec<(Vec<Pushed>, Vec<u32>)>> {
    let sample = (0..3u8, 1..100i64, prop_oneof![Just(0u64), Just(1), Just(2)]);
    let samples = proptest::collection::btree_map(0..3u8, sample, 0..3)
        .prop_map(|samples| samples.into_iter().map(|(s, (_, v, span))| (s, v, span)).collect());
    let pushed = (0..3u8, 100..130i64, 0..6u32, samples).prop_map(|(pod, millis, item, samples)| Pushed {
        pod,
        millis,
        item,
        samples,
    });
    let masked = proptest::collection::btree_set(0..6u32, 0..3);
    let dataset = (proptest::collection::vec(pushed, 0..8), masked)
        .prop_map(|(pushed, masked)| (pushed, masked.into_iter().collect()));
    proptest::collection::vec(dataset, 0..4)
}

proptest! {
    #[test]
    fn stacks_add_up(datasets in datasets(), start in 95..130i64, length in 0..20i64) {
        let range = (start, start + length);
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        for p in counted(&datasets, range, Some(1)) {
            for (stack, value, _) in &p.samples {
                *expected.entry(STACKS[*stack as usize].to_owned()).or_default() += value;
            }
        }
        let profile = query(r#"{pod="p1"}"#, range, Kind::MergeProfile(profile::Parameters::default()));
        prop_assert_eq!(&stacks(ask(&profile, &datasets)), &expected);
        prop_assert_eq!(&stacks(ask_apart(&profile, &datasets)), &expected);

        let trees = query(r#"{pod="p1"}"#, range, Kind::MergeStacktraces(SampleFilter::default()));
        let graph = levels(ask(&trees, &datasets));
        prop_assert_eq!(graph.total, expected.values().sum::<i64>());
        prop_assert_eq!(graph, levels(ask_apart(&trees, &datasets)));
    }

    #[test]
    fn spans_and_call_sites_choose_samples(datasets in datasets()) {
        let range = (0, 1000);
        let filter = SampleFilter { spans: vec![1], ..SampleFilter::default() };
        let site: Vec<Box<[u8]>> = vec![b"main"[..].into(), b"a"[..].into()];
        let below = SampleFilter { call_site: site.clone(), ..SampleFilter::default() };
        let all = |p: &Pushed, want: &dyn Fn(&(u8, i64, u64)) -> bool| -> i64 {
            p.samples.iter().filter(|s| want(s)).map(|(_, value, _)| value).sum()
        };
        let sum = |want: &dyn Fn(&(u8, i64, u64)) -> bool| -> i64 {
            counted(&datasets, range, None).map(|p| all(p, want)).sum()
        };
        let by_span = query("{}", range, Kind::MergeStacktraces(filter.clone()));
        prop_assert_eq!(levels(ask(&by_span, &datasets)).total, sum(&|s| s.2 == 1));
        let parameters = profile::Parameters { filter, go_pgo: None };
        let by_span = stacks(ask(&query("{}", range, Kind::MergeProfile(parameters)), &datasets));
        prop_assert_eq!(by_span.values().sum::<i64>(), sum(&|s| s.2 == 1));

        let in_a = |s: &(u8, i64, u64)| s.0 != 1;
        let by_site = query("{}", range, Kind::MergeStacktraces(below.clone()));
        prop_assert_eq!(levels(ask(&by_site, &datasets)).total, sum(&in_a));
        let parameters = profile::Parameters { filter: below, go_pgo: None };
        let by_site = stacks(ask(&query("{}", range, Kind::MergeProfile(parameters)), &datasets));
        prop_assert_eq!(by_site.values().sum::<i64>(), sum(&in_a));

        let grid = series::Parameters { call_site: site, ..grid((100, 130), 30) };
        let values = lines(ask(&query("{}", range, Kind::Series(grid.clone())), &datasets), &grid);
        let total: f64 = values.values().flatten().map(|(_, value)| value).sum();
        prop_assert_eq!(total, sum(&in_a) as f64);
    }

    #[test]
    fn erased_profiles_are_in_no_answer_of_any_kind(
        datasets in datasets(), start in 95..130i64, length in 0..20i64, second in 100..130i64,
    ) {
        let deletions = [
            deletion(r#"{pod="p1",__service_name__="app"}"#, (start, start + length)),
            deletion(r#"{pod=~"p1|p2",__type__!="other"}"#, (second, second + 5)),
        ];
        let is_left = |p: &Pushed| {
            let nanos = p.millis * 1_000_000 + 7;
            let first = p.pod == 1 && deletions[0].range.contains(nanos);
            !first && !((p.pod == 1 || p.pod == 2) && deletions[1].range.contains(nanos))
        };
        let left: Vec<_> = datasets
            .iter()
            .map(|(pushed, masked)| (pushed.iter().filter(|p| is_left(p)).cloned().collect(), masked.clone()))
            .collect();
        let range = (0, 1000);
        let heat = heatmap::Parameters {
            start_millis: 100,
            end_millis: 130,
            step_millis: 10,
            point_kind: heatmap::PointKind::Profiles,
            group_by: vec!["pod".into()],
            exemplars: false,
        };
        let trees = Kind::MergeStacktraces(SampleFilter::default());
        prop_assert_eq!(
            levels(ask_after(&deletions, &query("{}", range, trees.clone()), &datasets)),
            levels(ask(&query("{}", range, trees), &left))
        );
        let whole = Kind::MergeProfile(profile::Parameters::default());
        prop_assert_eq!(
            stacks(ask_after(&deletions, &query("{}", range, whole.clone()), &datasets)),
            stacks(ask(&query("{}", range, whole), &left))
        );
        let grid = series::Parameters { group_by: vec!["pod".into()], ..grid((105, 125), 5) };
        let asked = query("{}", (100, 126), Kind::Series(grid.clone()));
        prop_assert_eq!(
            lines(ask_after(&deletions, &asked, &datasets), &grid),
            lines(ask(&asked, &left), &grid)
        );
        let count = |partial: Partial| {
            let Answer::Heatmap(points) = partial.answer else { panic!("{partial:?}") };
            points.as_slice().len()
        };
        let asked = query("{}", range, Kind::Heatmap(heat));
        prop_assert_eq!(count(ask_after(&deletions, &asked, &datasets)), count(ask(&asked, &left)));
        for kind in [Kind::LabelNames, Kind::LabelValues("pod".into()), Kind::ProfileTypes] {
            let asked = query("{}", range, kind);
            prop_assert_eq!(texts(ask_after(&deletions, &asked, &datasets)), texts(ask(&asked, &left)));
        }
        let asked = query("{}", range, Kind::SeriesLabels(Vec::new()));
        let sets = |partial: Partial| match partial.answer {
            Answer::Labels(found) => found.sets,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(sets(ask_after(&deletions, &asked, &datasets)), sets(ask(&asked, &left)));
    }

    #[test]
    fn series_add_up_on_the_grid(datasets in datasets(), step in 1..20i64) {
        let grid = series::Parameters { group_by: vec!["pod".into()], ..grid((105, 125), step) };
        let mut expected: BTreeMap<String, BTreeMap<i64, i64>> = BTreeMap::new();
        for p in with_samples(counted(&datasets, (105 - step, 126), None)) {
            let point = (0..).map(|k| 105 + k * step).find(|g| *g >= p.millis).expect("endless");
            if point <= 125 {
                let total: i64 = p.samples.iter().map(|(_, value, _)| value).sum();
                let group = format!("{{pod=\"p{}\"}}", p.pod);
                *expected.entry(group).or_default().entry(point).or_default() += total;
            }
        }
        let expected: BTreeMap<String, Vec<(i64, f64)>> = expected
            .into_iter()
            .map(|(group, points)| (group, points.into_iter().map(|(t, v)| (t, v as f64)).collect()))
            .collect();
        let asked = query("{}", (105 - step, 126), Kind::Series(grid.clone()));
        prop_assert_eq!(&lines(ask(&asked, &datasets), &grid), &expected);
        prop_assert_eq!(&lines(ask_apart(&asked, &datasets), &grid), &expected);
    }

    #[test]
    fn heat_maps_count_every_profile_or_span_once(datasets in datasets()) {
        let parameters = heatmap::Parameters {
            start_millis: 100,
            end_millis: 130,
            step_millis: 10,
            point_kind: heatmap::PointKind::Profiles,
            group_by: vec!["pod".into()],
            exemplars: true,
        };
        let count = |partial: Partial| {
            let Answer::Heatmap(points) = partial.answer else { panic!("{partial:?}") };
            let map = points.finish(&parameters, 0);
            let slots = map.maps.iter().flat_map(|map| &map.slots);
            slots.flat_map(|slot| &slot.counts).map(|count| *count as usize).sum::<usize>()
        };
        let asked = query("{}", (100, 131), Kind::Heatmap(parameters.clone()));
        let apart: usize = datasets
            .iter()
            .map(|dataset| count(ask(&asked, std::slice::from_ref(dataset))))
            .sum();
        prop_assert_eq!(apart, with_samples(counted(&datasets, (100, 131), None)).count());
        prop_assert_eq!(count(ask_apart(&asked, &datasets)), apart);
    }

    #[test]
    fn label_queries_see_only_series_with_profiles_in_range(
        datasets in datasets(), start in 95..130i64, length in 0..20i64,
    ) {
        let range = (start, start + length);
        let pods: BTreeSet<String> =
            with_samples(counted(&datasets, range, None)).map(|p| format!("p{}", p.pod)).collect();
        let asked = query("{}", range, Kind::LabelValues("pod".into()));
        prop_assert_eq!(&texts(ask(&asked, &datasets)), &pods);
        prop_assert_eq!(&texts(ask_apart(&asked, &datasets)), &pods);
        let types = texts(ask(&query("{}", range, Kind::ProfileTypes), &datasets));
        prop_assert_eq!(types.len(), usize::from(!pods.is_empty()));
    }
}

fn grid((start_millis, end_millis): (i64, i64), step_millis: i64) -> series::Parameters {
    series::Parameters {
        start_millis,
        end_millis,
        step_millis,
        group_by: Vec::new(),
        exemplars: false,
        call_site: Vec::new(),
    }
}

fn lines(partial: Partial, grid: &series::Parameters) -> BTreeMap<String, Vec<(i64, f64)>> {
    let Answer::Series(grouped) = partial.answer else { panic!("{partial:?}") };
    let lines = grouped.finish(grid, series::Aggregation::Sum, 0);
    let points = |line: &series::Line| line.points.iter().map(|(t, v, _)| (*t, *v)).collect();
    lines.iter().map(|line| (line.labels.to_string(), points(line))).collect()
}

fn texts(partial: Partial) -> BTreeSet<String> {
    let Answer::Labels(found) = partial.answer else { panic!("{partial:?}") };
    found.texts
}

fn one(pod: u8, millis: i64, samples: &[(u8, i64, u64)]) -> Pushed {
    Pushed { pod, millis, item: 0, samples: samples.to_vec() }
}

#[test]
fn a_directory_entry_answers_label_queries_as_its_index_does() {
    let pushed = Pushed { pod: 3, millis: 5, item: 0, samples: vec![(0, 7, 0)] };
    let stored = store(std::slice::from_ref(&pushed));
    let types = [schema().profile_type(0), cpu()];
    let names = ["pod".to_owned(), "service_name".to_owned()];
    let values = |name: &str| Kind::LabelValues(name.to_owned());
    let sets = Kind::SeriesLabels(vec!["service_name".to_owned(), "__profile_type__".to_owned()]);
    for kind in
        [Kind::LabelNames, Kind::ProfileTypes, values("service_name"), values("__service_name__"), sets]
    {
        let query = Query { profile_type: None, ..query("{}", (0, 1000), kind) };
        let counts_from = |first: i64| query.counts_all(Times { first, last: 999_999_999 });
        assert!(counts_from(0) && !counts_from(-1));
        let mut partial = Partial::empty(&query);
        fold(&mut partial, &query, &stored, &[], &[]);
        let Answer::Labels(folded) = partial.answer else { panic!("{partial:?}") };
        let mut known = crate::kind::labels::FoundLabels::default();
        assert!(known.add_known(&query.kind, "app", &types, Some(&names)));
        assert_eq!(known, folded, "{:?}", query.kind);
    }
    assert!(!crate::kind::labels::FoundLabels::default().add_known(
        &values("pod"),
        "app",
        &types,
        Some(&names)
    ));
}

#[test]
fn a_deletion_touches_datasets_that_it_may_erase_from_and_erases_single_types() {
    let types = [schema().profile_type(0), cpu()];
    let touches = |selector: &str| {
        let deletion = deletion(selector, (100, 200));
        let touches = |tenant: &str, first: i64, last: i64| {
            let tenant = TenantId::parse(tenant).expect(tenant);
            deletion.touches(&tenant, "app", &types, Times { first, last })
        };
        assert!(!touches("other", 100, 200) && !touches("anonymous", 201_000_000, 300_000_000), "{selector}");
        touches("anonymous", 150_000_000, 300_000_000)
    };
    for selector in [r#"{pod="p1"}"#, r#"{service_name=~"a.*"}"#, r#"{__type__="cpu"}"#] {
        assert!(touches(selector), "{selector}");
    }
    for selector in [r#"{__service_name__!="app"}"#, r#"{__type__="inuse",pod="p1"}"#] {
        assert!(!touches(selector), "{selector}");
    }
    let datasets = [(vec![one(0, 100, &[(0, 5, 0)])], vec![])];
    let mut asked = query("{}", (0, 1000), Kind::ProfileTypes);
    asked.profile_type = None;
    let left = texts(ask_after(&[deletion(r#"{__type__="cpu"}"#, (100, 101))], &asked, &datasets));
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["process_cpu:samples:count:cpu:nanoseconds"]);
}

#[test]
fn the_times_that_a_deletion_leaves_of_a_dataset_are_known_without_reading_it() {
    let types = [schema().profile_type(0), cpu()];
    let left = |selector: &str, millis: (i64, i64)| {
        let deletion =
            Deletion { range: TimeRange { start: millis.0, end: millis.1 }, ..deletion(selector, (0, 0)) };
        let left =
            deletion.remaining_times(&TenantId::anonymous(), "app", &types, Times { first: 100, last: 200 });
        left.map(|times| (times.first, times.last))
    };
    for selector in [r#"{service_name="app"}"#, r#"{__name__="process_cpu"}"#] {
        for (erased, expected) in [
            ((100, 201), None),
            ((i64::MIN, i64::MAX), None),
            ((100, 200), Some((200, 200))),
            ((0, 150), Some((150, 200))),
            ((150, 300), Some((100, 149))),
            ((150, 160), Some((100, 200))),
            ((0, 100), Some((100, 200))),
        ] {
            assert_eq!(left(selector, erased), expected, "{selector} {erased:?}");
        }
    }
    for selector in [r#"{service_name="app",pod="p1"}"#, r#"{service_name="b"}"#, r#"{__type__="cpu"}"#] {
        assert_eq!(left(selector, (0, 300)), Some((100, 200)), "{selector}");
    }
}

#[test]
fn derived_labels_are_matched_and_listed() {
    let datasets = [(vec![one(0, 100, &[(0, 5, 0)])], vec![])];
    let total = |selector: &str| {
        levels(ask(&query(selector, (0, 1000), Kind::MergeStacktraces(SampleFilter::default())), &datasets))
            .total
    };
    for matching in [
        r#"{__name__="process_cpu"}"#,
        "process_cpu",
        r#"{__type__="cpu",__unit__="nanoseconds",__period_type__="cpu"}"#,
        r#"{__profile_type__=~"process_cpu:cpu:.*"}"#,
        r#"{__service_name__="app",absent="",pod!=""}"#,
    ] {
        assert_eq!(total(matching), 5, "{matching}");
    }
    for other in [r#"{__type__="samples"}"#, r#"{__name__!~"process.*"}"#, r#"{absent!=""}"#, "{pod=\"\"}"] {
        assert_eq!(total(other), 0, "{other}");
    }
    let mut names = query("{}", (0, 1000), Kind::LabelNames);
    names.profile_type = None;
    let expected = [
        "__name__",
        "__period_type__",
        "__period_unit__",
        "__profile_type__",
        "__service_name__",
        "__type__",
        "__unit__",
        "pod",
        "service_name",
    ];
    assert_eq!(texts(ask(&names, &datasets)), expected.map(String::from).into());
    let mut types = query("{}", (0, 1000), Kind::ProfileTypes);
    types.profile_type = None;
    assert_eq!(
        texts(ask(&types, &datasets)).into_iter().collect::<Vec<_>>(),
        ["process_cpu:cpu:nanoseconds:cpu:nanoseconds", "process_cpu:samples:count:cpu:nanoseconds"]
    );
}

#[test]
fn an_exemplar_is_the_largest_profile_with_the_labels_outside_the_group() {
    let datasets = [(vec![one(0, 100, &[(0, 5, 0)]), one(1, 101, &[(0, 6, 0), (1, 3, 0)])], vec![])];
    let grid = series::Parameters { exemplars: true, ..grid((100, 130), 30) };
    let grid = series::Parameters { group_by: vec!["service_name".into()], ..grid };
    let asked = query("{}", (70, 130), Kind::Series(grid.clone()));
    let Answer::Series(grouped) = ask(&asked, &datasets).answer else { panic!("series") };
    let lines = grouped.finish(&grid, series::Aggregation::Average, 1);
    assert_eq!(lines.len(), 1);
    let (time, value, exemplar) = &lines[0].points[1];
    assert_eq!((*time, *value), (130, 9.0));
    let exemplar = exemplar.as_ref().expect("asked for");
    assert_eq!((exemplar.value, exemplar.time_nanos), (9, 101_000_007));
    assert_eq!(exemplar.labels.get("pod"), Some("p1"));
    assert_eq!(exemplar.labels.get("service_name"), None);
    assert_eq!(exemplar.labels.get("__type__"), Some("cpu"));
}

#[test]
fn a_truncated_profile_ends_in_other() {
    let samples = [(0, 50, 0), (1, 40, 0), (2, 3, 0)];
    let datasets = [(vec![one(0, 100, &samples)], vec![])];
    let asked = query("{}", (0, 1000), Kind::MergeProfile(profile::Parameters::default()));
    let Answer::MergeProfile(merged) = ask(&asked, &datasets).answer else { panic!("profile") };
    let cut = |nodes| {
        let merged = Box::new(merged.clone().finish(None, nodes, &Lease::default()).expect("no limit"));
        let partial = Partial { answer: Answer::MergeProfile(merged), ..Partial::empty(&asked) };
        stacks(partial).into_iter().map(|(s, v)| format!("{s} {v}")).collect::<Vec<_>>()
    };
    assert_eq!(cut(0), ["main;a 50", "main;a;c 3", "main;b 40"]);
    // The children of large nodes stay, so that `other` has few parents.
    assert_eq!(cut(2), ["main;a 50", "main;a;c 3", "main;b 40"]);
    assert_eq!(cut(1), ["main;a 50", "main;a;other 3", "main;b 40"]);
}

#[test]
fn a_compilers_profile_keeps_few_locations() {
    let samples = [(0, 50, 0), (1, 40, 0), (2, 3, 0)];
    let datasets = [(vec![one(0, 100, &samples)], vec![])];
    let kept = |keep_locations| {
        let go_pgo = Some(profile::GoPgo { keep_locations, aggregate_callees: true });
        let parameters = profile::Parameters { go_pgo, ..profile::Parameters::default() };
        let asked = query("{}", (0, 1000), Kind::MergeProfile(parameters));
        let mut partial = ask(&asked, &datasets);
        let Answer::MergeProfile(merged) = partial.answer else { panic!("profile") };
        let merged = merged.finish(go_pgo, 0, &Lease::default()).expect("no limit");
        let lines: BTreeMap<String, i64> = merged
            .symbols
            .locations
            .lines
            .iter()
            .map(|line| {
                let name = merged.symbols.functions[line.function as usize].name;
                (merged.symbols.strings.text(name).into_owned(), line.line)
            })
            .collect();
        partial.answer = Answer::MergeProfile(Box::new(merged));
        (stacks(partial), lines)
    };
    let stacks = |stacks: &[(&str, i64)]| -> BTreeMap<String, i64> {
        stacks.iter().map(|(s, v)| ((*s).into(), *v)).collect()
    };
    assert_eq!(kept(1).0, stacks(&[("a", 50), ("b", 40), ("c", 3)]));
    let (two, lines) = kept(2);
    assert_eq!(two, stacks(&[("main;a", 50), ("main;b", 40), ("a;c", 3)]));
    assert_eq!(lines, stacks(&[("a", 0), ("b", 0), ("c", 0), ("main", 1)]));
}

#[test]
fn the_memory_of_an_answer_is_charged_and_released() {
    let samples = [(0, 50, 0), (1, 40, 0), (2, 3, 0)];
    let kinds = [
        Kind::MergeProfile(profile::Parameters::default()),
        Kind::MergeStacktraces(SampleFilter::default()),
        Kind::SeriesLabels(vec!["pod".into()]),
    ];
    for kind in kinds {
        let asked = query("{}", (0, 1000), kind);
        let share = memory::Share::new("questions", "querier.max_memory_bytes", 1 << 20);
        let account = share.account();
        let answer = |millis| {
            let datasets = [(vec![one(0, millis, &samples)], vec![])];
            ask(&asked, &datasets).charged_to(&account).expect("there is room")
        };
        let mut merged = answer(100);
        for millis in [200, 300] {
            merged.merge(answer(millis)).expect("there is room");
        }
        assert!(share.held() >= merged.answer.byte_len(), "{share:?} {:?}", merged.answer);
        drop(merged);
        assert_eq!(share.held(), 0);
        let _others = share.take((1 << 20) - 10).expect("there is room");
        let datasets = [(vec![one(0, 100, &samples)], vec![])];
        let refused = ask(&asked, &datasets).charged_to(&account).map(drop).unwrap_err();
        assert!(refused.fits_alone() && refused.others > 0, "{refused}");
    }
}
