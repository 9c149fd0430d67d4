//! ProfileTypes, LabelNames, LabelValues and Series: queries about labels.

use std::collections::BTreeSet;

use model::{HOUR, Labels, ProfileType, TimeRange};
use query::kind::labels::FoundLabels;
use query::selector::is_label_name;
use query::{Kind, Query, Selector};
use wire::querier::v1::{ProfileTypesRequest, ProfileTypesResponse, SeriesRequest, SeriesResponse};
use wire::types::v1::{
    LabelNamesRequest, LabelNamesResponse, LabelPair, LabelValuesRequest, LabelValuesResponse,
};

use crate::execute::Report;
use crate::http::request::{RequestLimits, selectors};
use crate::http::service::Answer;
use crate::{Client, Error, Querier};

/// Length of the range, until now, of a query without one.
const RECENT_MILLIS: i64 = HOUR * 1_000;

pub(crate) async fn profile_types(
    querier: &Querier,
    client: &Client,
    request: ProfileTypesRequest,
) -> Answer<ProfileTypesResponse> {
    let now = querier.clock.unix_millis();
    let (start, end) = match (request.start, request.end) {
        (0, 0) => (now - RECENT_MILLIS, now),
        range => range,
    };
    let Some(range) = RequestLimits::new(querier, client).range(start, end, now)? else {
        return Ok(Default::default());
    };
    let (found, report) = find(querier, client, range, Selector::default(), Kind::ProfileTypes).await?;
    let types = found.texts.iter().filter_map(|id| {
        let parts: ProfileType = id.parse().ok()?;
        Some(wire::types::v1::ProfileType {
            id: id.clone(),
            name: parts.name,
            sample_type: parts.sample_type,
            sample_unit: parts.sample_unit,
            period_type: parts.period_type,
            period_unit: parts.period_unit,
        })
    });
    Ok((ProfileTypesResponse { profile_types: types.collect() }, report))
}

pub(crate) async fn label_names(
    querier: &Querier,
    client: &Client,
    request: LabelNamesRequest,
) -> Answer<LabelNamesResponse> {
    let now = querier.clock.unix_millis();
    let range = RequestLimits::new(querier, client).range(request.start, request.end, now)?;
    let selector = selectors(&request.matchers)?;
    let Some(range) = range else { return Ok(Default::default()) };
    let (found, report) = find(querier, client, range, selector, Kind::LabelNames).await?;
    let visible = |name: &String| client.capabilities.utf8_label_names || is_label_name(name);
    let names = found.texts.into_iter().filter(visible).collect();
    Ok((LabelNamesResponse { names }, report))
}

pub(crate) async fn label_values(
    querier: &Querier,
    client: &Client,
    request: LabelValuesRequest,
) -> Answer<LabelValuesResponse> {
    let now = querier.clock.unix_millis();
    let range = RequestLimits::new(querier, client).range(request.start, request.end, now)?;
    if request.name.is_empty() {
        return Err(Error::invalid("name is required"));
    }
    let selector = selectors(&request.matchers)?;
    let Some(range) = range else { return Ok(Default::default()) };
    let kind = Kind::LabelValues(request.name);
    let (found, report) = find(querier, client, range, selector, kind).await?;
    Ok((LabelValuesResponse { names: found.texts.into_iter().collect() }, report))
}

pub(crate) async fn series(
    querier: &Querier,
    client: &Client,
    request: SeriesRequest,
) -> Answer<SeriesResponse> {
    let now = querier.clock.unix_millis();
    let range = RequestLimits::new(querier, client).range(request.start, request.end, now)?;
    let selector = selectors(&request.matchers)?;
    let Some(range) = range else { return Ok(Default::default()) };
    let mut label_names = request.label_names;
    if !client.capabilities.utf8_label_names {
        label_names.retain(|name| is_label_name(name));
    }
    let is_any_name = label_names.is_empty();
    let kind = Kind::SeriesLabels(label_names);
    let (mut found, report) = find(querier, client, range, selector, kind).await?;
    if is_any_name && !client.capabilities.utf8_label_names {
        let visible = found.sets.into_iter().map(|mut set| {
            set.retain(|name, _| is_label_name(name));
            set
        });
        found.sets = visible.collect();
    }
    // Series that have none of the names answer with an empty set, but only if other series have one.
    if found.sets.iter().all(Labels::is_empty) {
        found.sets = BTreeSet::new();
    }
    let labels_set = found.sets.iter().map(|set| wire::types::v1::Labels { labels: label_pairs(set) });
    Ok((SeriesResponse { labels_set: labels_set.collect() }, report))
}

pub(crate) fn label_pairs(labels: &Labels) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, &str)| LabelPair { name: name.into(), value: value.into() };
    labels.iter().map(pair).collect()
}

/// Runs one query about labels.
pub(crate) async fn find(
    querier: &Querier,
    client: &Client,
    (start, end): (i64, i64),
    selector: Selector,
    kind: Kind,
) -> Result<(FoundLabels, Report), Error> {
    let range = TimeRange::from_millis_inclusive(start, end);
    let query = Query { range, selector, profile_type: None, kind };
    let result = querier.execute(client, query).await?;
    result.report.charge_for_message()?;
    match result.partial.answer {
        query::Answer::Labels(found) => Ok((found, result.report)),
        _ => Err(Error::Internal("labels were asked for, something else was answered".into())),
    }
}
