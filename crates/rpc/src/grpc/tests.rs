//! Messages that are malformed or dishonest. Valid ones are in `tests/conformance`.

use std::sync::Arc;

use ::query::flamegraph::{Part, Real, finish};
use ::query::kind::{heatmap, profile as profile_kind, series};
use ::query::{Answer, Kind, Partial, Query, SampleFilter, Selector, Stats};
use block::NameTree;
use block::codec::{put, put_signed};
use bytes::Bytes;
use model::{Labels, Line, Profile, Strings, Symbols, TimeRange};
use proptest::prelude::*;
use prost::Message;
use wire::pyrograph::leaf::v1 as proto;
use wire::pyrograph::leaf::v1::scan_response::Answer as ProtoAnswer;

use super::partial::{put_partial, read_partial};
use super::{Unreadable, profile};

fn query(kind: Kind) -> Query {
    let range = TimeRange { start: 0, end: 1 };
    Query { range, selector: Selector::default(), profile_type: None, kind }
}

fn symbols() -> Symbols {
    let mut symbols = Symbols::default();
    ["", "main", "work"].iter().for_each(|name| _ = symbols.strings.push(name.as_bytes()));
    symbols.mappings.push(model::Mapping::default());
    symbols.functions.push(model::Function { name: 1, system_name: 2, ..model::Function::default() });
    symbols.locations.push(0, 7, false, &[Line { function: 0, line: 3 }]);
    symbols.locations.push(0, 9, false, &[]);
    symbols.stacktraces.push(&[0, 1]);
    symbols.stacktraces.push(&[1]);
    symbols
}

fn parts() -> Vec<Part> {
    let mut names = Strings::default();
    ["", "main", "work", "idle"].iter().for_each(|name| _ = names.push(name.as_bytes()));
    let tree = NameTree::from_parents(names, &[0, 1, 2, 3, 1], &[0, 0, 1, 1, 3], vec![2, 4]);
    let tree = Arc::new(tree);
    vec![Part::new(tree.clone(), &[10, 30], &[]), Part::new(tree, &[0, 5], &[])]
}

/// One valid answer of every kind.
fn answers() -> Vec<(Query, proto::ScanResponse)> {
    let labels = |text: &str| Labels::from_pairs([("pod", text), ("zone", "z")]);
    let exemplar = series::Exemplar { value: 1, time_nanos: 2, profile: 3, labels: labels("b") };
    let point = series::Point { sum: 5, count: 2, exemplar: Some(exemplar) };
    let mut grouped = series::GroupedSeries::default();
    grouped.add_group(labels("a"), [(0, point.clone()), (4, point)].into_iter().collect()).expect("small");
    let point = |id| heatmap::Point {
        group: Arc::new(labels("a")),
        time_nanos: 5,
        value: 9,
        id,
        labels: labels("b"),
    };
    let points = vec![point(heatmap::Id::Profile(1)), point(heatmap::Id::Span { span: 1, trace: 2 })];
    let found = ::query::kind::labels::FoundLabels {
        texts: ["a".to_owned()].into(),
        sets: [labels("a"), labels("b")].into(),
    };
    let series = series::Parameters {
        start_millis: -5,
        end_millis: 1,
        step_millis: 1_000_000_007,
        group_by: Vec::new(),
        exemplars: true,
        call_site: Vec::new(),
    };
    let heat = heatmap::Parameters {
        start_millis: -5,
        end_millis: 1,
        step_millis: 1_000_000_007,
        point_kind: heatmap::PointKind::Spans,
        group_by: Vec::new(),
        exemplars: true,
    };
    let profile = profile_kind::MergedProfile::from_columns(symbols(), vec![3, 4]).expect("small");
    let all = [
        (Kind::MergeStacktraces(SampleFilter::default()), Answer::MergeStacktraces(parts())),
        (Kind::MergeProfile(profile_kind::Parameters::default()), Answer::MergeProfile(Box::new(profile))),
        (Kind::Series(series), Answer::Series(grouped)),
        (Kind::Heatmap(heat), Answer::Heatmap(heatmap::Points::new(points).expect("few"))),
        (Kind::SeriesLabels(Vec::new()), Answer::Labels(found)),
    ];
    all.into_iter()
        .map(|(kind, answer)| {
            (
                query(kind),
                put_partial(Partial { answer, stats: Stats::default(), charge: Default::default() }),
            )
        })
        .collect()
}

/// Reads an answer and uses it as a root does.
fn use_answer(response: proto::ScanResponse, query: &Query) -> Result<(), Unreadable> {
    let mut partial = read_partial(response, query)?;
    let mut other = Partial::empty(query);
    std::mem::swap(&mut partial, &mut other);
    if let Err(::query::MergeError::TooLarge(error)) = partial.merge(other) {
        return Err(error.into());
    }
    match (partial.answer, &query.kind) {
        (Answer::MergeStacktraces(parts), _) => drop(finish([&parts], 0, Real::Keep)),
        (Answer::MergeProfile(merged), _) => drop(merged.finish(None, 1, &Default::default())),
        (Answer::Series(grouped), Kind::Series(parameters)) => {
            drop(grouped.finish(parameters, series::Aggregation::Sum, 0));
        }
        (Answer::Heatmap(points), Kind::Heatmap(parameters)) => drop(points.finish(parameters, 0)),
        _ => {}
    }
    Ok(())
}

fn wrong_parts(bytes: Vec<u8>, expected: &str) {
    let answer = Some(ProtoAnswer::MergeStacktraces(bytes.into()));
    let response = proto::ScanResponse { answer, ..Default::default() };
    let error = read_partial(response, &query(Kind::MergeStacktraces(SampleFilter::default())));
    let text = error.expect_err(expected).to_string();
    assert!(text.contains(expected), "{text:?} should say {expected:?}");
}

/// One name, and one part that uses it with the given nodes: names, levels up, then the weights times 1.
fn tree(nodes: &[(u64, u64)], weights: &[i64]) -> Vec<u8> {
    let mut out = vec![1, 1, b'f', 1, 1, 0];
    put(&mut out, nodes.len() as u64);
    nodes.iter().for_each(|(name, _)| put(&mut out, *name));
    nodes.iter().for_each(|(_, up)| put(&mut out, *up));
    out.push(1);
    weights.iter().for_each(|weight| put_signed(&mut out, *weight));
    out
}

#[test]
fn a_malformed_tree_is_refused() {
    let valid = tree(&[(0, 0), (0, 0), (0, 1)], &[0, 1, 2, 3]);
    let answer = Some(ProtoAnswer::MergeStacktraces(valid.clone().into()));
    let response = proto::ScanResponse { answer, ..Default::default() };
    assert!(use_answer(response, &query(Kind::MergeStacktraces(SampleFilter::default()))).is_ok());

    wrong_parts(tree(&[(1, 0)], &[0, 1]), "a node's name does not exist");
    wrong_parts(tree(&[(0, 1)], &[0, 1]), "a node has no parent");
    wrong_parts(tree(&[(0, 0), (0, 2)], &[0, 1, 1]), "a node has no parent");
    wrong_parts(tree(&[(0, 0)], &[0, -1]), "a weight is negative");
    wrong_parts(tree(&[(0, 0)], &[0]), "fewer values");
    wrong_parts(tree(&[(0, 0)], &[0, 1, 1]), "bytes after its end");
    wrong_parts(valid[..6].to_vec(), "ends too early");
    // One name that does not exist; more nodes than bytes.
    wrong_parts(vec![1, 1, b'f', 1, 1, 2, 0, 1, 0], "a name does not exist");
    let mut endless = vec![1, 1, b'f', 1, 1, 0];
    put(&mut endless, u64::from(u32::MAX));
    wrong_parts(endless, "a count is larger than what follows");
}

#[test]
fn malformed_labels_are_refused() {
    let refused = |sets: Vec<u8>, expected: &str| {
        let labels = proto::scan_response::Labels { texts: Vec::new(), sets: sets.into() };
        let answer = Some(ProtoAnswer::Labels(labels));
        let read =
            read_partial(proto::ScanResponse { answer, ..Default::default() }, &query(Kind::LabelNames));
        let text = read.expect_err(expected).to_string();
        assert!(text.contains(expected), "{text:?} should say {expected:?}");
    };
    // Texts `a` and `b`; one set.
    let set = |labels: &[u8]| [&[2, 1, 1, b'a', b'b', 1], labels].concat();
    refused(set(&[2, 1, 0, 0, 0]), "labels are not sorted by name");
    refused(set(&[2, 0, 0, 0, 1]), "labels are not sorted by name");
    refused(set(&[1, 2, 0]), "a label's name does not exist");
    refused(set(&[1, 0, 2]), "a label's value does not exist");
    refused(vec![1, 1, 0xff, 0], "a label is not UTF-8");
    // A long text that is referred to very often.
    let mut often = Vec::new();
    put(&mut often, 2);
    put(&mut often, 1);
    put(&mut often, 1 << 20);
    often.extend(std::iter::repeat_n(b'a', 1 + (1 << 20)));
    put(&mut often, 2048);
    (0..2048).for_each(|_| often.extend([1, 0, 1]));
    refused(often, "labels are larger than allowed");
}

#[test]
fn an_answer_to_another_query_is_refused() {
    let (_, response) = answers().swap_remove(0);
    let error = read_partial(response, &query(Kind::LabelNames)).expect_err("another query");
    assert_eq!(error.to_string(), "answer is one to another query");
    let error = read_partial(proto::ScanResponse::default(), &query(Kind::LabelNames));
    assert_eq!(error.expect_err("nothing").to_string(), "answer is missing");
}

#[test]
fn references_of_a_profile_to_missing_entries_are_refused() {
    let refused = |change: fn(&mut Symbols), expected: &str| {
        let mut profile = Profile { symbols: symbols(), ..Profile::default() };
        change(&mut profile.symbols);
        let error = profile::decode(&profile::encode(&profile)).expect_err(expected);
        assert!(error.problem.contains(expected), "{error} should say {expected:?}");
    };
    refused(|s| s.locations.mapping[0] = 1, "a location's mapping");
    refused(|s| s.locations.lines[0].function = 1, "a line's function");
    refused(|s| s.stacktraces.locations[0] = 2, "a stacktrace's location");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_corrupted_answer_does_no_harm(
        kind in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (query, response) = answers().swap_remove(kind);
        let mut bytes = response.encode_to_vec();
        for (position, byte) in changes {
            let index = position.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(response) = proto::ScanResponse::decode(Bytes::from(bytes)) {
            let _ = use_answer(response, &query);
        }
    }

    #[test]
    fn a_corrupted_profile_does_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = profile::encode(&Profile { symbols: symbols(), ..Profile::default() }).to_vec();
        for (position, byte) in changes {
            let index = position.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = profile::decode(&bytes.into());
    }
}
