//! Plain GET routes about labels: `/pyroscope/label-values` and `/api/apps`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edge::rest;
use http::HeaderName;
use model::label_names::NAME;
use model::{HOUR, TimeRange};
use query::{Kind, Query, Selector};
use serde::Serialize;

use crate::execute::Report;
use crate::http::labels::find;
use crate::http::render::{parse_time, refusal};
use crate::http::request::{RequestLimits, selector};
use crate::http::service::report_headers;
use crate::{Client, Error, Querier};

/// Length of the range, until now, of a query without one.
const RECENT_MILLIS: i64 = HOUR * 1_000;

/// Answers with the values of `label`; for `__name__` with the ids of the profile types. The range is the last hour, or
/// `from` to `until`; `query` selects the series.
pub(crate) async fn label_values(
    State(querier): State<Arc<Querier>>,
    client: Client,
    query: rest::Query,
) -> Response {
    let answer = async {
        let Some(label) = query.get("label").filter(|label| !label.is_empty()) else {
            return Err(Error::invalid("label parameter is required"));
        };
        let now = querier.clock.unix_millis();
        let time = |name: &str, default: i64| match query.get(name) {
            Some(text) => parse_time(text, now),
            None => default,
        };
        let (start, end) = (time("from", now - RECENT_MILLIS), time("until", now));
        let matchers = query.get("query").map_or(Ok(Selector::default()), selector)?;
        let range = RequestLimits::new(&querier, &client).range(start, end, now)?;
        let kind = match label {
            NAME => Kind::ProfileTypes,
            label => Kind::LabelValues(label.to_owned()),
        };
        let Some(range) = range else { return Ok(Default::default()) };
        let (found, report) = find(&querier, &client, range, matchers, kind).await?;
        Ok((found.texts, report))
    };
    let (values, report): (BTreeSet<String>, Report) = match answer.await {
        Ok(answer) => answer,
        Err(error) => return refusal(error),
    };
    // An empty answer is null in this API, not an empty list.
    let mut response = match values.is_empty() {
        true => rest::json_response(&Option::<()>::None),
        false => rest::json_response(&values),
    };
    let headers = report_headers(&report).into_iter();
    response.headers_mut().extend(headers.map(|(name, value)| (HeaderName::from_static(name), value)));
    response
}

#[derive(Serialize)]
struct App {
    name: String,
    #[serde(rename = "profileTypes")]
    profile_types: Vec<String>,
    /// Unix milliseconds, as everywhere in the API.
    #[serde(rename = "lastSeen")]
    last_seen: i64,
}

/// Answers with every service, its profile types and the time of its newest profile.
pub(crate) async fn apps(State(querier): State<Arc<Querier>>, client: Client) -> Response {
    let query = Query {
        range: TimeRange { start: i64::MIN, end: i64::MAX },
        selector: Selector::default(),
        profile_type: None,
        kind: Kind::ProfileTypes,
    };
    let snapshot = match querier.find(&client, &query).await {
        Ok(snapshot) => snapshot,
        Err(error) => return edge::Error::from(error).into_response(),
    };
    let mut apps: BTreeMap<String, App> = BTreeMap::new();
    for dataset in snapshot.objects.into_iter().flat_map(|object| object.datasets) {
        let name = dataset.service.to_string();
        let app = apps.entry(name.clone()).or_insert_with(|| App {
            name,
            profile_types: Vec::new(),
            last_seen: i64::MIN,
        });
        app.last_seen = app.last_seen.max(dataset.times.last.div_euclid(1_000_000));
        app.profile_types.extend(dataset.profile_types.iter().map(ToString::to_string));
        app.profile_types.sort_unstable();
        app.profile_types.dedup();
    }
    rest::json_response(&apps.into_values().collect::<Vec<_>>())
}
