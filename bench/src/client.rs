//! Pushes and asks as any client does, over HTTP.
//!
//! Owns: the two requests and how long each took. Does not own: what is pushed (`profiles`).

use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use prost::Message;
use wire::push::v1::{PushRequest, RawProfileSeries, RawSample};
use wire::querier::v1::SelectMergeStacktracesRequest;
use wire::types::v1::LabelPair;

use crate::Error;

const SERVICE: &str = "bench-checkout";
const PODS: usize = 20;
const TYPE: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) clock: Clock,
}

impl Client {
    pub(crate) fn new(url: &str, clock: Clock) -> Result<Self, Error> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { http, url: url.trim_end_matches('/').into(), clock })
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/ready", self.url)).send().await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// Whether the server says that no segment waits to be merged and no dead object to be deleted.
    pub(crate) async fn is_merged(&self) -> bool {
        let Ok(response) = self.http.get(format!("{}/metrics", self.url)).send().await else { return false };
        let metrics = response.text().await.unwrap_or_default();
        let is_zero =
            |name: &str| metrics.lines().any(|line| line == format!("pyrograph_metastore_{name} 0"));
        is_zero("live_segments") && is_zero("dead_objects")
    }

    /// Sends one body that [`push_body`] made; gives the time until it was acknowledged.
    pub(crate) async fn push(&self, body: Bytes) -> Result<Duration, Error> {
        Ok(self.call("push.v1.PusherService/Push", body).await?.0)
    }

    /// Asks for the flame graph of the last `hours` before `end` (Unix milliseconds); gives the time it took.
    pub(crate) async fn flame_graph(&self, end: i64, hours: i64) -> Result<Duration, Error> {
        let question = SelectMergeStacktracesRequest {
            profile_type_id: TYPE.into(),
            label_selector: format!("{{service_name=\"{SERVICE}\"}}"),
            start: end - hours * 3_600_000,
            end,
            ..Default::default()
        };
        let method = "querier.v1.QuerierService/SelectMergeStacktraces";
        let (took, answer) = self.call(method, question.encode_to_vec().into()).await?;
        let answer = wire::querier::v1::SelectMergeStacktracesResponse::decode(answer)?;
        match answer.flamegraph {
            Some(graph) if graph.total > 0 => Ok(took),
            _ => Err(format!("the flame graph of {hours} h is empty").into()),
        }
    }

    async fn call(&self, method: &str, body: Bytes) -> Result<(Duration, Bytes), Error> {
        let started = self.clock.monotonic();
        let request =
            self.http.post(format!("{}/{method}", self.url)).header("Content-Type", "application/proto");
        let response = request.body(body).send().await?;
        let status = response.status();
        let answer = response.bytes().await?;
        if !status.is_success() {
            return Err(format!("{method} answered {status}: {}", String::from_utf8_lossy(&answer)).into());
        }
        Ok((self.clock.monotonic() - started, answer))
    }
}

/// The request that pushes profile number `index`, uncompressed in `pprof`.
pub(crate) fn push_body(index: usize, pprof: &[u8]) -> Bytes {
    let pod = format!("checkout-{}", index % PODS);
    let labels = [("__name__", "process_cpu"), ("service_name", SERVICE), ("pod", &pod)];
    let labels = labels.map(|(name, value)| LabelPair { name: name.into(), value: value.into() });
    let sample = RawSample { raw_profile: formats::gzip::compress(pprof, 6).into(), ..Default::default() };
    let series = RawProfileSeries { labels: labels.into(), samples: vec![sample], ..Default::default() };
    PushRequest { series: vec![series] }.encode_to_vec().into()
}
