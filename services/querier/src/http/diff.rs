//! Diff: two sides as one flame graph.

use query::flamegraph::{FlameGraph, Real, encode_levels, finish_within};
use wire::querier::v1::{DiffRequest, DiffResponse, FlameGraphDiff, Level, SelectMergeStacktracesRequest};

use crate::execute::Report;
use crate::http::request::RequestLimits;
use crate::http::service::Answer;
use crate::http::stacktraces::{encoding_bytes, merge_query, parts};
use crate::{Client, Error, Querier};

pub(crate) async fn diff(querier: &Querier, client: &Client, request: DiffRequest) -> Answer<DiffResponse> {
    let left = request.left.unwrap_or_default();
    let right = request.right.unwrap_or_default();
    let (graph, report) = compare(querier, client, left, right).await?;
    let side = |index: usize| graph.ticks.get(index).copied().unwrap_or_default();
    let flamegraph = FlameGraphDiff {
        left_ticks: side(0),
        right_ticks: side(1),
        names: graph.names,
        levels: graph.levels.into_iter().map(|values| Level { values }).collect(),
        total: graph.total,
        max_self: graph.max_self,
    };
    Ok((DiffResponse { flamegraph: Some(flamegraph) }, report))
}

/// Returns both sides as one graph of seven numbers per node, cut to the larger `max_nodes` of the two.
pub(crate) async fn compare(
    querier: &Querier,
    client: &Client,
    left: SelectMergeStacktracesRequest,
    right: SelectMergeStacktracesRequest,
) -> Result<(FlameGraph, Report), Error> {
    let limits = RequestLimits::new(querier, client);
    let left_query = merge_query(querier, &limits, &left)?;
    let right_query = merge_query(querier, &limits, &right)?;
    let max_nodes = |side: &SelectMergeStacktracesRequest| side.max_nodes.unwrap_or_default();
    let nodes = limits.nodes(Some(max_nodes(&left).max(max_nodes(&right))))?;
    let answer = |query| async {
        match query {
            Some(query) => parts(querier, client, query).await,
            None => Ok(Default::default()),
        }
    };
    let ((left, left_report), (right, right_report)) =
        futures::try_join!(answer(left_query), answer(right_query))?;
    let report = left_report.merge(right_report);
    let joining = report.memory.sibling();
    let join = move || finish_within([&left[..], &right[..]], nodes, Real::Fold, &joining);
    let flame = querier.pool.run(join).await?;
    report.memory.resize(encoding_bytes(&flame))?;
    Ok((encode_levels(flame), report))
}
