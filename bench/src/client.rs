//! A client that pushes and queries over HTTP.
//!
//! Owns: the requests and their durations. Does not own: the pushed data (`workload`).

use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use prost::Message;
use wire::querier::v1::{SelectMergeStacktracesRequest, SelectMergeStacktracesResponse};
use wire::types::v1::{LabelNamesRequest, LabelValuesRequest};

use crate::Error;
use crate::metrics::Metrics;

const QUERIER: &str = "querier.v1.QuerierService";
const TYPE: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/// A range of time in Unix milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) clock: Clock,
}

/// A flame graph, with the duration and the completeness of its answer.
pub(crate) struct FlameGraph {
    pub(crate) took: Duration,
    pub(crate) total: i64,
    /// Whether the answer is neither partial nor stale.
    pub(crate) is_whole: bool,
    pub(crate) encoded: Bytes,
}

impl Client {
    pub(crate) fn new(url: &str, clock: Clock) -> Result<Self, Error> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').into(), clock })
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/ready", self.url)).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// # Errors
    /// If the process does not answer.
    pub(crate) async fn metrics(&self) -> Result<Metrics, Error> {
        let response = self.http.get(format!("{}/metrics", self.url)).send().await?;
        Ok(Metrics::parse(&response.text().await?))
    }

    /// Sends a push request; returns the time until it was acknowledged.
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub(crate) async fn push(&self, body: Bytes) -> Result<Duration, Error> {
        Ok(self.call("push.v1.PusherService/Push", body).await?.took)
    }

    /// Queries the CPU flame graph of a service.
    ///
    /// # Errors
    /// If the query is refused, or not answered.
    pub(crate) async fn flame_graph(&self, service: &str, range: Range) -> Result<FlameGraph, Error> {
        let request = SelectMergeStacktracesRequest {
            profile_type_id: TYPE.into(),
            label_selector: format!("{{service_name=\"{service}\"}}"),
            start: range.start,
            end: range.end,
            ..Default::default()
        };
        let method = format!("{QUERIER}/SelectMergeStacktraces");
        let answer = self.call(&method, request.encode_to_vec().into()).await?;
        let graph = SelectMergeStacktracesResponse::decode(answer.body.clone())?.flamegraph;
        Ok(FlameGraph {
            took: answer.took,
            total: graph.map_or(0, |graph| graph.total),
            is_whole: answer.is_whole,
            encoded: answer.body,
        })
    }

    /// Sends the first queries of a page; returns the time that each answer took.
    ///
    /// # Errors
    /// If a query is refused, or not answered.
    pub(crate) async fn labels(&self, range: Range) -> Result<[(&'static str, Duration); 4], Error> {
        let Range { start, end } = range;
        let names = LabelNamesRequest { start, end, ..Default::default() }.encode_to_vec();
        let values = LabelValuesRequest { name: "pod".into(), start, end, ..Default::default() };
        let types = wire::querier::v1::ProfileTypesRequest { start, end };
        let series = wire::querier::v1::SeriesRequest { start, end, ..Default::default() };
        Ok([
            ("label names", self.ask("LabelNames", names).await?),
            ("values of a label", self.ask("LabelValues", values.encode_to_vec()).await?),
            ("profile types", self.ask("ProfileTypes", types.encode_to_vec()).await?),
            ("series", self.ask("Series", series.encode_to_vec()).await?),
        ])
    }

    async fn ask(&self, method: &str, request: Vec<u8>) -> Result<Duration, Error> {
        let answer = self.call(&format!("{QUERIER}/{method}"), request.into()).await?;
        match answer.body.is_empty() {
            true => Err(format!("{method} answered nothing").into()),
            false => Ok(answer.took),
        }
    }

    async fn call(&self, method: &str, body: Bytes) -> Result<Answer, Error> {
        let started = self.clock.monotonic();
        let request =
            self.http.post(format!("{}/{method}", self.url)).header("Content-Type", "application/proto");
        let response = request.body(body).send().await?;
        let status = response.status();
        let has = |name: &str| response.headers().contains_key(name);
        let is_whole = !has("x-pyrograph-partial") && !has("x-pyrograph-stale");
        let body = response.bytes().await?;
        if !status.is_success() {
            return Err(format!("{method} answered {status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(Answer { took: self.clock.monotonic() - started, is_whole, body })
    }
}

struct Answer {
    took: Duration,
    is_whole: bool,
    body: Bytes,
}
