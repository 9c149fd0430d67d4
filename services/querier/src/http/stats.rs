//! GetProfileStats and AnalyzeQuery, answered from the catalog alone.

use model::label_names::NAME;
use model::{TimeRange, Times};
use query::{Kind, Query, Selector};
use rpc::FoundObject;
use wire::querier::v1::{AnalyzeQueryRequest, AnalyzeQueryResponse, QueryImpact, QueryScope};
use wire::types::v1::{GetProfileStatsRequest, GetProfileStatsResponse};

use crate::execute::Report;
use crate::http::service::Answer;
use crate::{Client, Error, Querier};

/// Answers whether this tenant has profiles, and with the times of the oldest and newest; all zero if it has none.
///
/// Profiles that a deletion erases by service do not count. Profiles that it erases by other labels count until their
/// objects are rewritten, because the catalog does not know where they are.
pub(crate) async fn get_profile_stats(
    querier: &Querier,
    client: &Client,
    _: GetProfileStatsRequest,
) -> Answer<GetProfileStatsResponse> {
    if client.tenants().len() != 1 {
        return Err(Error::invalid(format!("expected 1 tenant, got {}", client.tenants().len())));
    }
    let always = TimeRange { start: i64::MIN, end: i64::MAX };
    let snapshot = querier.find(client, &any_profile(always, Selector::default())).await?;
    let of_object = |object: &'_ FoundObject| -> Vec<Times> {
        object.datasets.iter().filter_map(|dataset| object.remaining_times(dataset)).collect()
    };
    let left: Vec<Times> = snapshot.objects.iter().flat_map(of_object).collect();
    let oldest = left.iter().map(|times| times.first).min();
    let newest = left.iter().map(|times| times.last).max();
    let millis = |nanos: Option<i64>| nanos.unwrap_or_default().div_euclid(1_000_000);
    let response = GetProfileStatsResponse {
        data_ingested: oldest.is_some(),
        oldest_profile_time: millis(oldest),
        newest_profile_time: millis(newest),
    };
    Ok((response, Report::default()))
}

/// Answers with the bytes that a query would read, according to the catalog. A query that cannot be parsed is no
/// error: clients show the answer as a hint.
pub(crate) async fn analyze_query(
    querier: &Querier,
    client: &Client,
    request: AnalyzeQueryRequest,
) -> Answer<AnalyzeQueryResponse> {
    let Ok(mut selector) = Selector::parse(&request.query) else {
        return Ok(Default::default());
    };
    let profile_type = selector.take_equal(NAME).and_then(|id| id.parse().ok());
    let range = TimeRange::from_millis_inclusive(request.start, request.end);
    let query = Query { profile_type, ..any_profile(range, selector) };
    let snapshot = querier.find(client, &query).await?;
    let bytes = snapshot.objects.iter().map(|object| object.bytes).sum();
    let blocks = snapshot.objects.len() as u64;
    if blocks == 0 {
        return Ok(Default::default());
    }
    let scope = QueryScope {
        component_type: "querier".into(),
        component_count: querier.leaves.leaves().len() as u64,
        block_count: blocks,
        profile_bytes: bytes,
        ..QueryScope::default()
    };
    let impact = QueryImpact { total_bytes_in_time_range: bytes, ..QueryImpact::default() };
    let response = AnalyzeQueryResponse { query_scopes: vec![scope], query_impact: Some(impact) };
    Ok((response, Report::default()))
}

fn any_profile(range: TimeRange, selector: Selector) -> Query {
    Query { range, selector, profile_type: None, kind: Kind::ProfileTypes }
}
