//! SelectHeatmap.

use query::Kind;
use query::kind::heatmap::{Heatmap, Id, Parameters, Point, PointKind};
use wire::querier::v1::{HeatmapQueryType, SelectHeatmapRequest, SelectHeatmapResponse};
use wire::types::v1::{Exemplar, ExemplarType, HeatmapSeries, HeatmapSlot};

use crate::http::labels::label_pairs;
use crate::http::request::{RequestLimits, parse_query};
use crate::http::series::{check_group_by, step_millis};
use crate::http::service::Answer;
use crate::{Client, Error, Querier};

pub(crate) async fn select_heatmap(
    querier: &Querier,
    client: &Client,
    request: SelectHeatmapRequest,
) -> Answer<SelectHeatmapResponse> {
    let step_millis = step_millis(request.step)?;
    let limit = request.limit.unwrap_or_default();
    let limit = usize::try_from(limit)
        .map_err(|_| Error::invalid(format!("limit must be non-negative, got {limit}")))?;
    if request.start >= request.end {
        return Err(Error::invalid(format!(
            "start time must be before end time, got start={} end={}",
            request.start, request.end
        )));
    }
    check_group_by(&request.group_by)?;
    let point_kind = match request.query_type() {
        HeatmapQueryType::Individual => PointKind::Profiles,
        HeatmapQueryType::Span => PointKind::Spans,
        HeatmapQueryType::Unspecified => {
            return Err(Error::invalid("valid heatmap query type must be specified"));
        }
    };
    let exemplars = wants_exemplars(request.exemplar_type, point_kind)?;
    let now = querier.clock.unix_millis();
    let range = RequestLimits::new(querier, client).range(request.start, request.end, now)?;
    let (start_millis, end_millis) = range.unwrap_or_default();
    let group_by = request.group_by;
    let parameters = Parameters { start_millis, end_millis, step_millis, point_kind, group_by, exemplars };
    let query = parse_query(
        (start_millis, end_millis),
        &request.profile_type_id,
        &request.label_selector,
        Kind::Heatmap(parameters.clone()),
    )?;
    if range.is_none() {
        return Ok(Default::default());
    }
    let result = querier.execute(client, query).await?;
    let query::Answer::Heatmap(points) = result.partial.answer else {
        return Err(Error::Internal("a heat map was asked for, something else was answered".into()));
    };
    result.report.charge_for_message()?;
    let Heatmap { y_min, maps } = points.finish(&parameters, limit);
    let series = maps.into_iter().map(|map| HeatmapSeries {
        labels: label_pairs(&map.labels),
        slots: map
            .slots
            .into_iter()
            .map(|slot| HeatmapSlot {
                timestamp: slot.time_millis,
                y_min: y_min.clone(),
                counts: slot.counts,
                exemplars: slot.exemplars.iter().map(exemplar).collect(),
            })
            .collect(),
    });
    Ok((SelectHeatmapResponse { series: series.collect() }, result.report))
}

fn wants_exemplars(exemplar_type: i32, points: PointKind) -> Result<bool, Error> {
    match (ExemplarType::try_from(exemplar_type), points) {
        (Ok(ExemplarType::Unspecified | ExemplarType::None), _) => Ok(false),
        (Ok(ExemplarType::Individual), PointKind::Profiles) | (Ok(ExemplarType::Span), PointKind::Spans) => {
            Ok(true)
        }
        (Ok(ExemplarType::Span), PointKind::Profiles) => {
            Err(Error::invalid("span exemplars only available for span query type"))
        }
        (Ok(ExemplarType::Individual), PointKind::Spans) => {
            Err(Error::invalid("individual exemplars only available for individual query type"))
        }
        (Err(_), _) => Err(Error::invalid(format!("unknown exemplar type: {exemplar_type}"))),
    }
}

fn exemplar(point: &Point) -> Exemplar {
    let mut exemplar = Exemplar {
        timestamp: point.time_nanos.div_euclid(1_000_000),
        value: point.value,
        labels: label_pairs(&point.labels),
        ..Exemplar::default()
    };
    match point.id {
        Id::Profile(id) => exemplar.profile_id = model::ProfileId(id).to_string(),
        Id::Span { span, trace } => {
            exemplar.span_id = format!("{span:016x}");
            if trace != 0 {
                exemplar.trace_id = format!("{trace:032x}");
            }
        }
    }
    exemplar
}
