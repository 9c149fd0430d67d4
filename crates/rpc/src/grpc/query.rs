//! A query as a message.

use bytes::Bytes;
use query::kind::{heatmap, profile, series};
use query::selector::{MATCHERS_MAX, Op};
use query::{Kind, Matcher, Query, SampleFilter, Selector};
use wire::pyrograph::leaf::v1 as proto;
use wire::pyrograph::leaf::v1::query::Kind as ProtoKind;
use wire::pyrograph::rpc::v1 as common;
use wire::pyrograph::rpc::v1::matcher::Op as ProtoOp;

use super::{Unreadable, convert};

pub(super) fn put(query: &Query) -> proto::Query {
    let kind = match &query.kind {
        Kind::MergeStacktraces(filter) => ProtoKind::MergeStacktraces(put_filter(filter)),
        Kind::MergeProfile(parameters) => ProtoKind::MergeProfile(proto::query::MergeProfile {
            filter: Some(put_filter(&parameters.filter)),
            go_pgo: parameters.go_pgo.map(|pgo| proto::query::GoPgo {
                keep_locations: pgo.keep_locations,
                aggregate_callees: pgo.aggregate_callees,
            }),
        }),
        Kind::Series(parameters) => ProtoKind::Series(proto::query::Series {
            start_millis: parameters.start_millis,
            end_millis: parameters.end_millis,
            step_millis: parameters.step_millis,
            group_by: parameters.group_by.clone(),
            exemplars: parameters.exemplars,
            call_site: put_call_site(&parameters.call_site),
        }),
        Kind::Heatmap(parameters) => ProtoKind::Heatmap(proto::query::Heatmap {
            start_millis: parameters.start_millis,
            end_millis: parameters.end_millis,
            step_millis: parameters.step_millis,
            of_spans: parameters.point_kind == heatmap::PointKind::Spans,
            group_by: parameters.group_by.clone(),
            exemplars: parameters.exemplars,
        }),
        Kind::LabelNames => ProtoKind::LabelNames(proto::query::LabelNames {}),
        Kind::LabelValues(name) => ProtoKind::LabelValues(name.clone()),
        Kind::SeriesLabels(names) => {
            ProtoKind::SeriesLabels(proto::query::SeriesLabels { names: names.clone() })
        }
        Kind::ProfileTypes => ProtoKind::ProfileTypes(proto::query::ProfileTypes {}),
    };
    proto::Query {
        range: Some(convert::put_range(query.range)),
        matchers: put_selector(&query.selector),
        profile_type: query.profile_type.as_ref().map(convert::put_profile_type),
        kind: Some(kind),
    }
}

pub(super) fn read(query: Option<proto::Query>) -> Result<Query, Unreadable> {
    let query = query.ok_or_else(|| Unreadable::missing("query"))?;
    let kind = match query.kind.ok_or_else(|| Unreadable::missing("kind of query"))? {
        ProtoKind::MergeStacktraces(proto_filter) => Kind::MergeStacktraces(filter(proto_filter)?),
        ProtoKind::MergeProfile(parameters) => Kind::MergeProfile(profile::Parameters {
            filter: filter(parameters.filter.unwrap_or_default())?,
            go_pgo: parameters.go_pgo.map(|pgo| profile::GoPgo {
                keep_locations: pgo.keep_locations,
                aggregate_callees: pgo.aggregate_callees,
            }),
        }),
        ProtoKind::Series(parameters) => Kind::Series(series::Parameters {
            start_millis: parameters.start_millis,
            end_millis: parameters.end_millis,
            step_millis: step(parameters.step_millis)?,
            group_by: parameters.group_by,
            exemplars: parameters.exemplars,
            call_site: call_site(&parameters.call_site),
        }),
        ProtoKind::Heatmap(parameters) => Kind::Heatmap(heatmap::Parameters {
            start_millis: parameters.start_millis,
            end_millis: parameters.end_millis,
            step_millis: step(parameters.step_millis)?,
            point_kind: if parameters.of_spans {
                heatmap::PointKind::Spans
            } else {
                heatmap::PointKind::Profiles
            },
            group_by: parameters.group_by,
            exemplars: parameters.exemplars,
        }),
        ProtoKind::LabelNames(_) => Kind::LabelNames,
        ProtoKind::LabelValues(name) => Kind::LabelValues(name),
        ProtoKind::SeriesLabels(labels) => Kind::SeriesLabels(labels.names),
        ProtoKind::ProfileTypes(_) => Kind::ProfileTypes,
    };
    Ok(Query {
        range: convert::range(query.range)?,
        selector: selector(query.matchers)?,
        profile_type: query.profile_type.map(convert::profile_type),
        kind,
    })
}

/// At least 1, because times are divided by it.
fn step(millis: i64) -> Result<i64, Unreadable> {
    match millis {
        1.. => Ok(millis),
        _ => Err(Unreadable::new("step", format!("is {millis} ms, at least 1 is needed"))),
    }
}

pub(super) fn put_selector(selector: &Selector) -> Vec<common::Matcher> {
    selector.matchers.iter().map(put_matcher).collect()
}

pub(super) fn selector(matchers: Vec<common::Matcher>) -> Result<Selector, Unreadable> {
    if matchers.len() > MATCHERS_MAX {
        let problem = format!("has {} matchers, limit is {MATCHERS_MAX}", matchers.len());
        return Err(Unreadable::new("selector", problem));
    }
    let matchers = matchers.into_iter().map(matcher).collect::<Result<_, Unreadable>>()?;
    Ok(Selector { matchers })
}

fn put_matcher(matcher: &Matcher) -> common::Matcher {
    let op = match matcher.op {
        Op::Equal => ProtoOp::Equal,
        Op::NotEqual => ProtoOp::NotEqual,
        Op::Matches(_) => ProtoOp::Matches,
        Op::MatchesNot(_) => ProtoOp::MatchesNot,
    };
    common::Matcher { name: matcher.name.to_string(), value: matcher.value.to_string(), op: op.into() }
}

fn matcher(matcher: common::Matcher) -> Result<Matcher, Unreadable> {
    let op = matcher.op();
    let regex = |negated| {
        Matcher::regex(&matcher.name, &matcher.value, negated)
            .map_err(|problem| Unreadable::new("matcher", problem))
    };
    let plain = |op| Matcher { name: matcher.name.as_str().into(), value: matcher.value.as_str().into(), op };
    match op {
        ProtoOp::Equal => Ok(plain(Op::Equal)),
        ProtoOp::NotEqual => Ok(plain(Op::NotEqual)),
        ProtoOp::Matches => regex(false),
        ProtoOp::MatchesNot => regex(true),
        ProtoOp::Unspecified => Err(Unreadable::missing("operator of a matcher")),
    }
}

fn put_filter(filter: &SampleFilter) -> proto::SampleFilter {
    proto::SampleFilter {
        profiles: filter.profiles.clone(),
        spans: filter.spans.clone(),
        traces: filter.traces.iter().flat_map(|trace| trace.to_le_bytes()).collect::<Vec<u8>>().into(),
        call_site: put_call_site(&filter.call_site),
        nothing: filter.nothing,
    }
}

fn filter(filter: proto::SampleFilter) -> Result<SampleFilter, Unreadable> {
    let (traces, rest) = filter.traces.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(Unreadable::new("traces", format!("has {} bytes, not 16 each", filter.traces.len())));
    }
    Ok(SampleFilter {
        profiles: filter.profiles,
        spans: filter.spans,
        traces: traces.iter().map(|trace| u128::from_le_bytes(*trace)).collect(),
        call_site: call_site(&filter.call_site),
        nothing: filter.nothing,
    })
}

fn put_call_site(call_site: &[Box<[u8]>]) -> Vec<Bytes> {
    call_site.iter().map(|name| Bytes::copy_from_slice(name)).collect()
}

fn call_site(call_site: &[Bytes]) -> Vec<Box<[u8]>> {
    call_site.iter().map(|name| name.as_ref().into()).collect()
}
