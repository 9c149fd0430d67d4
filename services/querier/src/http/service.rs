use std::sync::Arc;

use async_trait::async_trait;
use edge::{Capabilities, Tenants};
use http::HeaderValue;
use tonic::metadata::{MetadataMap, MetadataValue};
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
use crate::{Error, Querier};

/// What it took to answer, as JSON; the UI shows it.
const STATS_HEADER: &str = "x-pyrograph-query-stats";

/// Present with the number of unreadable objects if the answer lacks them.
const PARTIAL_HEADER: &str = "x-pyrograph-partial";

/// An answer and how it came about.
pub(crate) type Answer<T> = Result<(T, Report), Error>;

/// The calls of the API, each one a line: who asks, the answer, its report as headers.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Querier>);

/// Takes a request apart.
fn open<T>(request: Request<T>) -> Result<(Tenants, Capabilities, T), Status> {
    let (_, extensions, message) = request.into_parts();
    let tenants = Tenants::of(&extensions)?;
    let capabilities = extensions.get::<Capabilities>().copied().unwrap_or_default();
    Ok((tenants, capabilities, message))
}

fn reply<T>(answer: Answer<T>) -> Result<Response<T>, Status> {
    let (message, report) = answer?;
    let mut response = Response::new(message);
    add_headers(response.metadata_mut(), &report);
    Ok(response)
}

fn add_headers(metadata: &mut MetadataMap, report: &Report) {
    for (name, value) in report_headers(report) {
        if let Ok(value) = MetadataValue::try_from(value.as_bytes()) {
            metadata.insert(name, value);
        }
    }
}

/// The report as response headers.
pub(crate) fn report_headers(report: &Report) -> Vec<(&'static str, HeaderValue)> {
    let stats = &report.stats;
    let text = format!(
        r#"{{"profiles":{},"series":{},"samples":{},"bytes":{},"blocks":{},"millis":{:.1}}}"#,
        stats.profiles,
        stats.series,
        stats.samples,
        stats.bytes,
        stats.objects,
        report.took.as_secs_f64() * 1e3,
    );
    let mut headers = Vec::new();
    headers.extend(HeaderValue::try_from(text).ok().map(|value| (STATS_HEADER, value)));
    if report.missing > 0 {
        headers.push((PARTIAL_HEADER, HeaderValue::from(report.missing)));
    }
    headers
}

#[async_trait]
impl QuerierService for Service {
    async fn profile_types(
        &self,
        request: Request<ProfileTypesRequest>,
    ) -> Result<Response<ProfileTypesResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(labels::profile_types(&self.0, tenants.as_slice(), request).await)
    }

    async fn label_values(
        &self,
        request: Request<LabelValuesRequest>,
    ) -> Result<Response<LabelValuesResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(labels::label_values(&self.0, tenants.as_slice(), request).await)
    }

    async fn label_names(
        &self,
        request: Request<LabelNamesRequest>,
    ) -> Result<Response<LabelNamesResponse>, Status> {
        let (tenants, capabilities, request) = open(request)?;
        reply(labels::label_names(&self.0, tenants.as_slice(), capabilities, request).await)
    }

    async fn series(&self, request: Request<SeriesRequest>) -> Result<Response<SeriesResponse>, Status> {
        let (tenants, capabilities, request) = open(request)?;
        reply(labels::series(&self.0, tenants.as_slice(), capabilities, request).await)
    }

    async fn select_merge_stacktraces(
        &self,
        request: Request<SelectMergeStacktracesRequest>,
    ) -> Result<Response<SelectMergeStacktracesResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(stacktraces::select_merge_stacktraces(&self.0, tenants.as_slice(), request).await)
    }

    async fn select_merge_span_profile(
        &self,
        request: Request<SelectMergeSpanProfileRequest>,
    ) -> Result<Response<SelectMergeSpanProfileResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(stacktraces::select_merge_span_profile(&self.0, tenants.as_slice(), request).await)
    }

    async fn select_merge_profile(
        &self,
        request: Request<SelectMergeProfileRequest>,
    ) -> Result<Response<Profile>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(pprof::select_merge_profile(&self.0, tenants.as_slice(), request).await)
    }

    async fn select_series(
        &self,
        request: Request<SelectSeriesRequest>,
    ) -> Result<Response<SelectSeriesResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(series::select_series(&self.0, tenants.as_slice(), request).await)
    }

    async fn select_heatmap(
        &self,
        request: Request<SelectHeatmapRequest>,
    ) -> Result<Response<SelectHeatmapResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(heatmap::select_heatmap(&self.0, tenants.as_slice(), request).await)
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(diff::diff(&self.0, tenants.as_slice(), request).await)
    }

    async fn get_profile_stats(
        &self,
        request: Request<GetProfileStatsRequest>,
    ) -> Result<Response<GetProfileStatsResponse>, Status> {
        let (tenants, _, _) = open(request)?;
        reply(stats::get_profile_stats(&self.0, tenants.as_slice()).await)
    }

    async fn analyze_query(
        &self,
        request: Request<AnalyzeQueryRequest>,
    ) -> Result<Response<AnalyzeQueryResponse>, Status> {
        let (tenants, _, request) = open(request)?;
        reply(stats::analyze_query(&self.0, tenants.as_slice(), request).await)
    }
}
