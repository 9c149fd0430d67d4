//! The calls of `QuerierService`, and the headers of every answer.
//!
//! Owns: taking requests apart, the report as headers, the explanation of an answer.
//! Does not own: any answer itself (`labels`, `stacktraces`, `series` and so on).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edge::Explanation;
use http::HeaderValue;
use rpc::Missing;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use wire::google::v1::Profile;
use wire::querier::v1::querier_service_server::QuerierService;
use wire::querier::v1::{
    AnalyzeQueryRequest, AnalyzeQueryResponse, DiffRequest, DiffResponse, ProfileTypesRequest,
    ProfileTypesResponse, SelectHeatmapRequest, SelectHeatmapResponse, SelectMergeProfileRequest,
    SelectMergeSpanProfileRequest, SelectMergeSpanProfileResponse, SelectMergeStacktracesRequest,
    SelectMergeStacktracesResponse, SelectSeriesRequest, SelectSeriesResponse, SeriesRequest, SeriesResponse,
};
use wire::types::v1::{
    GetProfileStatsRequest, GetProfileStatsResponse, LabelNamesRequest, LabelNamesResponse,
    LabelValuesRequest, LabelValuesResponse,
};

use crate::execute::Report;
use crate::http::{diff, heatmap, labels, pprof, series, stacktraces, stats};
use crate::{Client, Error, Querier};

/// Cost of the answer as JSON; the UI shows it.
const STATS_HEADER: &str = "x-pyrograph-query-stats";

/// Number of objects that are missing from the answer; absent if none is.
const PARTIAL_HEADER: &str = "x-pyrograph-partial";

/// The first missing objects with their reasons, as a JSON list. Limited, because proxies refuse long headers.
const PARTIAL_WHY_HEADER: &str = "x-pyrograph-partial-why";
const WHY_OBJECTS_MAX: usize = 3;
const WHY_CHARS_MAX: usize = 300;

/// Age in seconds of the catalog that the answer is based on; absent if the catalog holds everything that was
/// acknowledged.
const STALE_HEADER: &str = "x-pyrograph-stale";

/// Most units, and most missing objects, that an explanation lists.
const LISTED_MAX: usize = 50;

/// The message of an answer and the report on it.
pub(crate) type Answer<T> = Result<(T, Report), Error>;

/// The calls of the API. Each one takes the request apart, answers it, and adds the report as headers.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Querier>);

/// Takes a request apart into client and message.
fn open<T>(request: Request<T>) -> Result<(Client, T), Status> {
    let (_, extensions, message) = request.into_parts();
    Ok((Client::from_extensions(&extensions)?, message))
}

impl Service {
    /// Returns the response with its report; `began` is the time at which the request arrived.
    fn reply<T>(&self, began: Duration, answer: Answer<T>) -> Result<Response<T>, Status> {
        let (message, report) = answer?;
        let mut response = Response::new(message);
        response.extensions_mut().insert(report.memory.clone());
        for (name, value) in report_headers(&report) {
            if let Ok(value) = MetadataValue::try_from(value.as_bytes()) {
                response.metadata_mut().insert(name, value);
            }
        }
        let took = self.0.clock.monotonic().saturating_sub(began);
        if let Some(explanation) = explain(&report, took) {
            response.extensions_mut().insert(explanation);
        }
        Ok(response)
    }
}

/// The explanation of an answer, if the client asked for it; `took` is the time of the whole answer.
pub(crate) fn explain(report: &Report, took: Duration) -> Option<Explanation> {
    let finish = took.saturating_sub(report.took);
    let json = |listed: usize| {
        let all: Vec<_> =
            report.explanations.iter().map(|explanation| explanation.json(finish, listed)).collect();
        serde_json::json!({ "questions": all }).to_string()
    };
    let is_brief = |json: &String| json.len() <= Explanation::BRIEF_BYTES_MAX;
    (!report.explanations.is_empty()).then(|| Explanation {
        json: json(LISTED_MAX),
        brief: [LISTED_MAX, 10, 2, 0].into_iter().map(json).find(is_brief).unwrap_or_default(),
    })
}

/// The report as response headers.
pub(crate) fn report_headers(report: &Report) -> Vec<(&'static str, HeaderValue)> {
    let stats = &report.stats;
    let text = format!(
        r#"{{"profiles":{},"samples":{},"bytes":{},"blocks":{},"millis":{:.1}}}"#,
        stats.profiles,
        stats.samples,
        stats.bytes,
        stats.objects,
        report.took.as_secs_f64() * 1e3,
    );
    let mut headers = Vec::new();
    headers.extend(HeaderValue::try_from(text).ok().map(|value| (STATS_HEADER, value)));
    if !report.missing.is_empty() {
        headers.push((PARTIAL_HEADER, HeaderValue::from(report.missing.len())));
        headers.extend(why(&report.missing).map(|why| (PARTIAL_WHY_HEADER, why)));
    }
    if let Some(age) = report.stale {
        headers.push((STALE_HEADER, HeaderValue::from(age.as_secs())));
    }
    headers
}

/// The first missing objects with their reasons, as JSON in ASCII.
fn why(missing: &[Missing]) -> Option<HeaderValue> {
    let cut = |text: &str| {
        let ascii = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
        text.chars().take(WHY_CHARS_MAX).map(ascii).collect::<String>()
    };
    let first = missing.iter().take(WHY_OBJECTS_MAX);
    let first: Vec<_> = first
        .map(|object| serde_json::json!({ "object": cut(object.key.as_str()), "why": cut(&object.reason) }))
        .collect();
    HeaderValue::try_from(serde_json::Value::from(first).to_string()).ok()
}

/// The calls, each answered by the function of the same name.
macro_rules! calls {
    ($($module:ident::$name:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        impl QuerierService for Service {
            $(
                async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    let (client, request) = open(request)?;
                    let began = self.0.clock.monotonic();
                    self.reply(began, $module::$name(&self.0, &client, request).await)
                }
            )*
        }
    };
}

calls! {
    labels::profile_types(ProfileTypesRequest) -> ProfileTypesResponse;
    labels::label_values(LabelValuesRequest) -> LabelValuesResponse;
    labels::label_names(LabelNamesRequest) -> LabelNamesResponse;
    labels::series(SeriesRequest) -> SeriesResponse;
    stacktraces::select_merge_stacktraces(SelectMergeStacktracesRequest) -> SelectMergeStacktracesResponse;
    stacktraces::select_merge_span_profile(SelectMergeSpanProfileRequest) -> SelectMergeSpanProfileResponse;
    pprof::select_merge_profile(SelectMergeProfileRequest) -> Profile;
    series::select_series(SelectSeriesRequest) -> SelectSeriesResponse;
    heatmap::select_heatmap(SelectHeatmapRequest) -> SelectHeatmapResponse;
    diff::diff(DiffRequest) -> DiffResponse;
    stats::get_profile_stats(GetProfileStatsRequest) -> GetProfileStatsResponse;
    stats::analyze_query(AnalyzeQueryRequest) -> AnalyzeQueryResponse;
}
