//! SelectMergeStacktraces and SelectMergeSpanProfile: flame graphs and trees, and other formats of the same samples.

use bytes::Bytes;
use query::flamegraph::{Flame, Part, Real, encode_levels, encode_tree, finish, finish_within};
use query::{Kind, Query};
use wire::querier::v1::{
    AsyncQueryType, FlameGraph, Level, PprofProfile, ProfileFormat, SelectMergeSpanProfileRequest,
    SelectMergeSpanProfileResponse, SelectMergeStacktracesRequest, SelectMergeStacktracesResponse,
};

use crate::execute::Report;
use crate::http::request::{RequestLimits, parse_query, sample_filter};
use crate::http::service::Answer;
use crate::http::{dot, pprof};
use crate::{Client, Error, Querier};

pub(crate) async fn select_merge_stacktraces(
    querier: &Querier,
    client: &Client,
    request: SelectMergeStacktracesRequest,
) -> Answer<SelectMergeStacktracesResponse> {
    let is_forced =
        |r#async: &wire::querier::v1::AsyncQueryRequest| r#async.r#type() == AsyncQueryType::Force;
    if request.r#async.as_ref().is_some_and(is_forced) {
        return Err(Error::Unimplemented("asynchronous queries are not enabled".into()));
    }
    let mut response = SelectMergeStacktracesResponse::default();
    let report = match request.format() {
        ProfileFormat::Pprof => {
            let (profile, report) = pprof::merge(querier, client, request).await?;
            response.pprof = Some(PprofProfile { profile: Some(profile) });
            report
        }
        ProfileFormat::Dot => {
            let (text, report) = dot::merge(querier, client, request).await?;
            response.dot = text;
            report
        }
        ProfileFormat::Tree => {
            let (flame, report) = merge(querier, client, &request, Real::Keep).await?;
            response.tree = Bytes::from(encode_tree(&flame));
            report
        }
        ProfileFormat::Flamegraph | ProfileFormat::Unspecified => {
            let (flame, report) = merge(querier, client, &request, Real::Fold).await?;
            response.flamegraph = Some(flame_graph(flame));
            report
        }
    };
    Ok((response, report))
}

pub(crate) async fn select_merge_span_profile(
    querier: &Querier,
    client: &Client,
    request: SelectMergeSpanProfileRequest,
) -> Answer<SelectMergeSpanProfileResponse> {
    let format = request.format();
    let request = SelectMergeStacktracesRequest {
        profile_type_id: request.profile_type_id,
        label_selector: request.label_selector,
        start: request.start,
        end: request.end,
        max_nodes: request.max_nodes,
        span_selector: request.span_selector,
        ..SelectMergeStacktracesRequest::default()
    };
    let mut response = SelectMergeSpanProfileResponse::default();
    let report = if format == ProfileFormat::Tree {
        let (flame, report) = merge(querier, client, &request, Real::Keep).await?;
        response.tree = Bytes::from(encode_tree(&flame));
        report
    } else {
        let (flame, report) = merge(querier, client, &request, Real::Fold).await?;
        response.flamegraph = Some(flame_graph(flame));
        report
    };
    Ok((response, report))
}

/// Answers with one tree, cut to the number of nodes that the request asks for.
pub(crate) async fn merge(
    querier: &Querier,
    client: &Client,
    request: &SelectMergeStacktracesRequest,
    real: Real,
) -> Result<(Flame<1>, Report), Error> {
    let limits = RequestLimits::new(querier, client);
    let query = merge_query(querier, &limits, request)?;
    let nodes = limits.nodes(request.max_nodes)?;
    let Some(query) = query else {
        return Ok((finish([&[]], nodes, real), Report::default()));
    };
    let pool = querier.pool.clone();
    let finished = querier.execute_and(client, query, |answer, memory| {
        let pool = pool.clone();
        let join = move || {
            let query::Answer::MergeStacktraces(parts) = answer else { return Ok(None) };
            let joining = memory.sibling();
            let flame = finish_within([&parts], nodes, real, &joining)?;
            drop((parts, joining));
            memory.resize(encoding_bytes(&flame))?;
            Ok(Some(flame))
        };
        Box::pin(async move { pool.run(join).await })
    });
    match finished.await? {
        (Some(flame), report) => Ok((flame, report)),
        (None, _) => Err(other_answer()),
    }
}

/// The query of a request; none if its whole range is before the lookback limit.
pub(crate) fn merge_query(
    querier: &Querier,
    limits: &RequestLimits,
    request: &SelectMergeStacktracesRequest,
) -> Result<Option<Query>, Error> {
    let range = limits.range(request.start, request.end, querier.clock.unix_millis())?;
    let filter = sample_filter(
        &request.span_selector,
        &request.trace_id_selector,
        &request.profile_id_selector,
        request.stack_trace_selector.as_ref(),
    )?;
    let kind = Kind::MergeStacktraces(filter);
    let (type_id, selector) = (&request.profile_type_id, &request.label_selector);
    let query = parse_query(range.unwrap_or_default(), type_id, selector, kind)?;
    Ok(range.map(|_| query))
}

/// Returns the trees that answer a query, one per dataset.
pub(crate) async fn parts(
    querier: &Querier,
    client: &Client,
    query: Query,
) -> Result<(Vec<Part>, Report), Error> {
    let result = querier.execute(client, query).await?;
    match result.partial.answer {
        query::Answer::MergeStacktraces(parts) => Ok((parts, result.report)),
        _ => Err(other_answer()),
    }
}

fn other_answer() -> Error {
    Error::Internal("trees were asked for, something else was answered".into())
}

/// Memory of a finished tree, of its message, and of the encoded bytes.
pub(crate) fn encoding_bytes<const S: usize>(flame: &Flame<S>) -> u64 {
    let names: usize = flame.names.iter().map(|name| (name.len() + size_of::<String>()) * 3).sum();
    (names + flame.nodes.len() * (size_of::<query::flamegraph::Node<S>>() + 16 * S + S * 3 * 32)) as u64
}

fn flame_graph(flame: Flame<1>) -> FlameGraph {
    let query::flamegraph::FlameGraph { names, levels, total, max_self, .. } = encode_levels(flame);
    let levels = levels.into_iter().map(|values| Level { values }).collect();
    FlameGraph { names, levels, total, max_self }
}
