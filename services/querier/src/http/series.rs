//! SelectSeries.

use query::Kind;
use query::kind::series::{Aggregation, Exemplar, Line, Parameters};
use wire::querier::v1::{SelectSeriesRequest, SelectSeriesResponse};
use wire::types::v1::{ExemplarType, Point, Series, TimeSeriesAggregationType};

use crate::execute::Report;
use crate::http::labels::label_pairs;
use crate::http::request::{RequestLimits, call_site, parse_query};
use crate::http::service::Answer;
use crate::{Client, Error, Querier};

/// Most labels to group by.
const GROUP_BY_MAX: usize = 100;

pub(crate) async fn select_series(
    querier: &Querier,
    client: &Client,
    request: SelectSeriesRequest,
) -> Answer<SelectSeriesResponse> {
    let (lines, report) = lines(querier, client, request).await?;
    Ok((SelectSeriesResponse { series: lines.into_iter().map(series).collect() }, report))
}

/// Returns the series of a request, in the order of the answer.
pub(crate) async fn lines(
    querier: &Querier,
    client: &Client,
    request: SelectSeriesRequest,
) -> Result<(Vec<Line>, Report), Error> {
    let now = querier.clock.unix_millis();
    let range = RequestLimits::new(querier, client).range(request.start, request.end, now)?;
    let step_millis = step_millis(request.step)?;
    check_group_by(&request.group_by)?;
    let exemplars = match ExemplarType::try_from(request.exemplar_type) {
        Ok(ExemplarType::Unspecified | ExemplarType::None) => false,
        Ok(ExemplarType::Individual) => true,
        Ok(ExemplarType::Span) => {
            return Err(Error::Unimplemented("exemplar type span is not implemented".into()));
        }
        Err(_) => {
            return Err(Error::invalid(format!("unknown exemplar type: {}", request.exemplar_type)));
        }
    };
    let (start, end) = range.unwrap_or_default();
    let parameters = Parameters {
        start_millis: start,
        end_millis: end,
        step_millis,
        group_by: request.group_by,
        exemplars,
        call_site: call_site(request.stack_trace_selector.as_ref())?,
    };
    // The first grid point covers the step before it.
    let query = parse_query(
        (start.saturating_sub(step_millis), end),
        &request.profile_type_id,
        &request.label_selector,
        Kind::Series(parameters.clone()),
    )?;
    if range.is_none() {
        return Ok(Default::default());
    }
    let result = querier.execute(client, query).await?;
    let query::Answer::Series(grouped) = result.partial.answer else {
        return Err(Error::Internal("series were asked for, something else was answered".into()));
    };
    result.report.charge_for_message()?;
    let aggregation = match request.aggregation.map(TimeSeriesAggregationType::try_from) {
        Some(Ok(TimeSeriesAggregationType::Average)) => Aggregation::Average,
        _ => Aggregation::Sum,
    };
    // A negative limit is no limit, like 0.
    let limit = usize::try_from(request.limit.unwrap_or_default()).unwrap_or_default();
    Ok((grouped.finish(&parameters, aggregation, limit), result.report))
}

/// Converts seconds to whole milliseconds.
pub(crate) fn step_millis(seconds: f64) -> Result<i64, Error> {
    if seconds.is_nan() || seconds < 0.001 {
        return Err(Error::invalid(format!("step must be >= 1ms, got {seconds:.6}")));
    }
    Ok((seconds * 1000.0) as i64)
}

pub(crate) fn check_group_by(names: &[String]) -> Result<(), Error> {
    if names.len() > GROUP_BY_MAX {
        let count = names.len();
        return Err(Error::invalid(format!("{count} labels to group by, limit is {GROUP_BY_MAX}")));
    }
    Ok(())
}

fn series(line: Line) -> Series {
    let points = line.points.into_iter().map(|(timestamp, value, exemplar)| Point {
        value,
        timestamp,
        annotations: Vec::new(),
        exemplars: exemplar.map(exemplar_message).into_iter().collect(),
    });
    Series { labels: label_pairs(&line.labels), points: points.collect() }
}

fn exemplar_message(exemplar: Exemplar) -> wire::types::v1::Exemplar {
    wire::types::v1::Exemplar {
        timestamp: exemplar.time_nanos.div_euclid(1_000_000),
        profile_id: model::ProfileId(exemplar.profile).to_string(),
        value: exemplar.value,
        labels: label_pairs(&exemplar.labels),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_milliseconds() {
        assert_eq!(step_millis(15.0).ok(), Some(15_000));
        assert_eq!(step_millis(0.0019).ok(), Some(1));
        assert_eq!(step_millis(f64::INFINITY).ok(), Some(i64::MAX));
        for bad in [0.0, 0.0009, -1.0, f64::NAN] {
            assert!(step_millis(bad).is_err(), "{bad}");
        }
    }
}
