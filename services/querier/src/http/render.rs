//! `/pyroscope/render` and `/pyroscope/render-diff`: the JSON of older clients.
//!
//! Owns: the parameters of these routes, the timeline, the JSON. Does not own: the flame graph (`stacktraces`, `diff`),
//! the series (`series`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edge::rest;
use http::{HeaderValue, StatusCode, header};
use model::ProfileType;
use model::label_names::NAME;
use query::Selector;
use query::flamegraph::{FlameGraph, Real, encode_levels};
use query::kind::series::Line;
use wire::querier::v1::{SelectMergeStacktracesRequest, SelectSeriesRequest};
use wire::types::v1::TimeSeriesAggregationType;

use crate::execute::Report;
use crate::http::diff::compare;
use crate::http::service::{explain, report_headers};
use crate::http::{dot, series, stacktraces};
use crate::{Client, Error, Querier};

pub(crate) async fn render(
    State(querier): State<Arc<Querier>>,
    client: Client,
    query: rest::Query,
) -> Response {
    match answer_render(&querier, &client, &query).await {
        Ok(response) => response,
        Err(error) => refusal(error),
    }
}

pub(crate) async fn render_diff(
    State(querier): State<Arc<Querier>>,
    client: Client,
    query: rest::Query,
) -> Response {
    match answer_render_diff(&querier, &client, &query).await {
        Ok(response) => response,
        Err(error) => refusal(error),
    }
}

pub(crate) fn refusal(error: Error) -> Response {
    edge::Error::from(error).into_response()
}

async fn answer_render(querier: &Querier, client: &Client, query: &rest::Query) -> Result<Response, Error> {
    let now = querier.clock.unix_millis();
    let (profile_type, mut request) = side(query, "query", "from", "until", now)?;
    let max_nodes = max_nodes(query);
    request.max_nodes = max_nodes;
    if query.get("format") == Some("dot") {
        let (text, report) = dot::merge(querier, client, request).await?;
        let mut response = rest::text_response(StatusCode::OK, text);
        if let Some(explained) = explain(&report, report.took) {
            explained.put_into(response.headers_mut());
        }
        return Ok(with_report(response, &report));
    }
    let step = timeline_step_secs(request.start, request.end);
    let group_by: Vec<String> = query.all("groupBy").map(str::to_owned).collect();
    let group = group_by.first().cloned();
    let aggregation = match query.get("aggregation") {
        Some("avg") => TimeSeriesAggregationType::Average,
        _ => TimeSeriesAggregationType::Sum,
    };
    let series_request = SelectSeriesRequest {
        profile_type_id: request.profile_type_id.clone(),
        label_selector: request.label_selector.clone(),
        start: request.start,
        end: request.end,
        step: step as f64,
        group_by,
        aggregation: Some(aggregation.into()),
        ..SelectSeriesRequest::default()
    };
    let ((flame, report), (lines, series_report)) = futures::try_join!(
        stacktraces::merge(querier, client, &request, Real::Fold),
        series::lines(querier, client, series_request)
    )?;
    let timeline = Timeline { from: request.start / 1000, until: request.end / 1000, step };
    let mut json = Json::new(&encode_levels(flame), &profile_type, "single");
    json.timeline(&timeline, if let [line] = &lines[..] { Some(line) } else { None });
    json.groups(&timeline, group.as_deref(), &lines);
    Ok(json.finish(&report.merge(series_report)))
}

async fn answer_render_diff(
    querier: &Querier,
    client: &Client,
    query: &rest::Query,
) -> Result<Response, Error> {
    let now = querier.clock.unix_millis();
    let (left_type, mut left) = side(query, "leftQuery", "leftFrom", "leftUntil", now)?;
    let (right_type, mut right) = side(query, "rightQuery", "rightFrom", "rightUntil", now)?;
    if left_type != right_type {
        return Err(Error::invalid("profile types must match"));
    }
    left.max_nodes = max_nodes(query);
    right.max_nodes = left.max_nodes;
    let (graph, report) = compare(querier, client, left, right).await?;
    let mut json = Json::new(&graph, &left_type, "double");
    json.out.push_str(r#","timeline":null,"groups":null"#);
    Ok(json.finish(&report))
}

fn with_report(mut response: Response, report: &Report) -> Response {
    for (name, value) in report_headers(report) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Parses the selector and the range of one side of a request.
fn side(
    query: &rest::Query,
    selector_name: &str,
    from: &str,
    until: &str,
    now_millis: i64,
) -> Result<(ProfileType, SelectMergeStacktracesRequest), Error> {
    let Some(text) = query.get(selector_name).filter(|text| !text.is_empty()) else {
        return Err(Error::invalid(format!("{selector_name:?} is required")));
    };
    let mut selector = Selector::parse(text)
        .map_err(|error| Error::invalid(format!("failed to parse {selector_name:?}: {error}")))?;
    let Some(profile_type_id) = selector.take_equal(NAME) else {
        let text = format!("{selector_name:?} must contain a profile-type selection");
        return Err(Error::invalid(text));
    };
    let profile_type: ProfileType = profile_type_id
        .parse()
        .map_err(|error| Error::invalid(format!("failed to parse {selector_name:?}: {error}")))?;
    let time = |name: &str| query.get(name).map_or(now_millis, |text| parse_time(text, now_millis));
    let request = SelectMergeStacktracesRequest {
        profile_type_id: profile_type_id.into(),
        label_selector: selector.to_string(),
        start: time(from),
        end: time(until),
        ..SelectMergeStacktracesRequest::default()
    };
    Ok((profile_type, request))
}

/// Ignores values that are not numbers.
fn max_nodes(query: &rest::Query) -> Option<i64> {
    let number = |name: &str| query.get(name).and_then(|text| text.parse().ok());
    number("maxNodes").or_else(|| number("max-nodes"))
}

/// Parses a time in any form that the API accepts; returns Unix milliseconds.
pub(crate) fn parse_time(text: &str, now_millis: i64) -> i64 {
    formats::ingest::attime(text, now_millis.saturating_mul(1_000_000)).div_euclid(1_000_000)
}

/// Seconds between two points of the timeline: at most about 1,500 points, at least 15 s apart.
fn timeline_step_secs(from_millis: i64, until_millis: i64) -> i64 {
    const STEPS: [(f64, i64); 18] = [
        (17.5, 15),
        (25.0, 20),
        (45.0, 30),
        (90.0, 60),
        (210.0, 120),
        (450.0, 300),
        (750.0, 600),
        (1050.0, 900),
        (1500.0, 1200),
        (2700.0, 1800),
        (5400.0, 3600),
        (9000.0, 7200),
        (16_200.0, 10_800),
        (32_400.0, 21_600),
        (86_400.0, 43_200),
        (604_800.0, 86_400),
        (1_814_400.0, 604_800),
        (3_628_800.0, 2_592_000),
    ];
    let exact = until_millis.saturating_sub(from_millis) as f64 / 1000.0 / 1500.0;
    let round = STEPS.iter().find(|(max, _)| exact <= *max);
    round.map_or(31_536_000, |(_, step)| *step)
}

/// The range and step of a timeline, in Unix seconds.
struct Timeline {
    from: i64,
    until: i64,
    step: i64,
}

/// Most points of a timeline. The step keeps timelines far below it, unless the range is absurd.
const TIMELINE_POINTS_MAX: i64 = 100_000;

impl Timeline {
    fn start(&self) -> i64 {
        self.from.div_euclid(self.step) * self.step
    }

    /// Returns one value per step; 0 for steps without a point.
    fn samples(&self, line: Option<&Line>) -> Vec<u64> {
        let end = self.until.div_euclid(self.step) * self.step;
        let count = (end.saturating_sub(self.start()) / self.step).clamp(0, TIMELINE_POINTS_MAX);
        let mut samples = vec![0u64; count as usize];
        for (time_millis, value, _) in line.iter().flat_map(|line| &line.points) {
            let index = (time_millis / 1000).saturating_sub(self.start()).div_euclid(self.step);
            let sample = usize::try_from(index).ok().and_then(|index| samples.get_mut(index));
            if let Some(sample) = sample {
                *sample = *value as u64;
            }
        }
        samples
    }
}

/// A hand-written JSON encoder, because a large graph is mostly numbers.
struct Json {
    out: String,
}

impl Json {
    fn new(graph: &FlameGraph, profile_type: &ProfileType, format: &str) -> Self {
        let numbers: usize = graph.levels.iter().map(Vec::len).sum();
        let mut json = Self { out: String::with_capacity(numbers * 8 + graph.names.len() * 40) };
        json.out.push_str(r#"{"version":1,"flamebearer":{"names":["#);
        for (i, name) in graph.names.iter().enumerate() {
            if i > 0 {
                json.out.push(',');
            }
            json.text(name);
        }
        json.out.push_str(r#"],"levels":["#);
        for (i, level) in graph.levels.iter().enumerate() {
            json.out.push_str(if i > 0 { ",[" } else { "[" });
            json.numbers(level.iter().copied());
            json.out.push(']');
        }
        json.out.push_str(r#"],"numTicks":"#);
        json.number(graph.total);
        json.out.push_str(r#","maxSelf":"#);
        json.number(graph.max_self);
        json.out.push_str(r#"},"metadata":{"format":"#);
        json.text(format);
        let sample_type = profile_type.sample_type.as_str();
        let rate = if sample_type == "cpu" { 1_000_000_000 } else { 100 };
        let _ = write!(json.out, r#","spyName":"","sampleRate":{rate},"units":"#);
        json.text(match sample_type {
            "inuse_objects" | "alloc_objects" | "goroutine" | "samples" => "objects",
            "cpu" => "samples",
            _ => &profile_type.sample_unit,
        });
        json.out.push_str(r#","name":"#);
        json.text(sample_type);
        json.out.push('}');
        if let [left, right] = graph.ticks[..] {
            for (name, ticks) in [("leftTicks", left), ("rightTicks", right)] {
                if ticks != 0 {
                    let _ = write!(json.out, r#","{name}":{ticks}"#);
                }
            }
        }
        json
    }

    fn timeline(&mut self, timeline: &Timeline, line: Option<&Line>) {
        self.out.push_str(r#","timeline":"#);
        self.timeline_value(timeline, line);
    }

    fn timeline_value(&mut self, timeline: &Timeline, line: Option<&Line>) {
        let start = timeline.start();
        let _ = write!(self.out, r#"{{"startTime":{start},"samples":["#);
        self.numbers(timeline.samples(line).into_iter().map(|sample| sample as i64));
        let step = timeline.step;
        let _ = write!(self.out, r#"],"durationDelta":{step},"watermarks":null}}"#);
    }

    /// Writes one timeline per value of `group`; null without a group.
    fn groups(&mut self, timeline: &Timeline, group: Option<&str>, lines: &[Line]) {
        self.out.push_str(r#","groups":"#);
        let Some(group) = group else {
            self.out.push_str("null");
            return;
        };
        let mut by_value: BTreeMap<&str, &Line> = BTreeMap::new();
        for line in lines {
            // Only the first label names a group; one of the series that share a value is shown.
            by_value.insert(line.labels.get(group).unwrap_or("*"), line);
        }
        self.out.push('{');
        for (i, (value, line)) in by_value.into_iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            self.text(value);
            self.out.push(':');
            self.timeline_value(timeline, Some(line));
        }
        self.out.push('}');
    }

    fn finish(mut self, report: &Report) -> Response {
        self.out.push_str(r#","heatmap":null}"#);
        let body = match explain(report, report.took) {
            Some(explained) => explained.join_to(self.out.as_bytes()),
            None => self.out.into(),
        };
        let json = HeaderValue::from_static("application/json");
        with_report(([(header::CONTENT_TYPE, json)], body).into_response(), report)
    }

    fn text(&mut self, text: &str) {
        match serde_json::to_string(text) {
            Ok(quoted) => self.out.push_str(&quoted),
            Err(_) => self.out.push_str("\"\""),
        }
    }

    fn numbers(&mut self, numbers: impl Iterator<Item = i64>) {
        for (i, number) in numbers.enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            self.number(number);
        }
    }

    fn number(&mut self, number: i64) {
        let mut digits = [0u8; 20];
        let mut start = digits.len();
        let mut left = number.unsigned_abs();
        loop {
            start -= 1;
            digits[start] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if number < 0 {
            self.out.push('-');
        }
        self.out.extend(digits[start..].iter().map(|digit| char::from(*digit)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_timeline_are_round() {
        let step = |secs: i64| timeline_step_secs(0, secs * 1000);
        assert_eq!(step(0), 15);
        assert_eq!(step(3600), 15);
        assert_eq!(step(86_400), 60);
        assert_eq!(step(7 * 86_400), 300);
        assert_eq!(step(30 * 86_400), 1800);
        assert_eq!(step(-5), 15);
    }

    #[test]
    fn a_timeline_has_a_value_per_step() {
        let timeline = Timeline { from: 1_000_003, until: 1_000_065, step: 15 };
        let line = Line {
            labels: Default::default(),
            points: vec![(1_000_003_000, 7.9, None), (1_000_033_000, 1.0, None)],
        };
        assert_eq!(timeline.start(), 999_990);
        assert_eq!(timeline.samples(Some(&line)), [7, 0, 1, 0, 0]);
        assert!(Timeline { from: 9, until: 3, step: 15 }.samples(None).is_empty());
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut json = Json { out: String::new() };
        json.numbers([0, -1, 10, i64::MIN, i64::MAX].into_iter());
        assert_eq!(json.out, "0,-1,10,-9223372036854775808,9223372036854775807");
    }
}
