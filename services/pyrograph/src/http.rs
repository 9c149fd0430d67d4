//! What the process as a whole answers: readiness, metrics, version, feature flags.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::registry::Registry;
use serde_json::json;
use tonic::{Request, Status as RpcStatus};
use wire::capabilities::v1::feature_flags_service_server::{FeatureFlagsService, FeatureFlagsServiceServer};
use wire::capabilities::v1::{FeatureFlag, GetFeatureFlagsRequest, GetFeatureFlagsResponse};
use wire::version::v1::version_server::{Version, VersionServer};
use wire::version::v1::{VersionRequest, VersionResponse};

/// Whether this process can serve.
#[derive(Clone, Default)]
pub(crate) struct Status(Arc<AtomicBool>);

impl Status {
    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
}

/// The metrics of every role, once all are built.
#[derive(Clone, Default)]
pub(crate) struct Exported(Arc<OnceLock<Registry>>);

impl Exported {
    pub(crate) fn set(&self, registry: Registry) {
        let _ = self.0.set(registry);
    }
}

pub(crate) fn routes(status: Status, exported: Exported) -> edge::Routes {
    let rest = Router::new()
        .route("/ready", get(ready).with_state(status))
        .route("/metrics", get(metrics).with_state(exported))
        .route("/api/v1/status/buildinfo", get(build_info));
    edge::Routes::new()
        .rest(rest)
        .service(VersionServer::new(Information))
        .service(FeatureFlagsServiceServer::new(Information))
}

async fn ready(State(Status(ready)): State<Status>) -> Response {
    if ready.load(Ordering::Acquire) {
        edge::rest::text_response(StatusCode::OK, "ready")
    } else {
        edge::rest::text_response(
            StatusCode::SERVICE_UNAVAILABLE,
            "Some services are not Running:\nStopping: [server]\n",
        )
    }
}

async fn metrics(State(Exported(registry)): State<Exported>) -> Response {
    let mut text = String::new();
    let Some(registry) = registry.get() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, registry) {
        return edge::rest::text_response(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot encode metrics: {error}"),
        );
    }
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

async fn build_info() -> Response {
    edge::rest::json_response(&json!({
        "status": "success",
        "data": {
            "version": env!("CARGO_PKG_VERSION"), "revision": "", "branch": "",
            "buildUser": "", "buildDate": "", "goVersion": "",
        },
    }))
}

struct Information;

#[tonic::async_trait]
impl Version for Information {
    async fn version(
        &self,
        _: Request<VersionRequest>,
    ) -> Result<tonic::Response<VersionResponse>, RpcStatus> {
        Ok(tonic::Response::new(VersionResponse { querier_api: 1 }))
    }
}

#[tonic::async_trait]
impl FeatureFlagsService for Information {
    /// The flags that clients ask for by name. UTF-8 label names are the client's to ask for, request by request.
    async fn get_feature_flags(
        &self,
        request: Request<GetFeatureFlagsRequest>,
    ) -> Result<tonic::Response<GetFeatureFlagsResponse>, RpcStatus> {
        edge::Tenants::of(request.extensions())?;
        let flag = |name: &str, enabled| FeatureFlag { name: name.into(), enabled, ..FeatureFlag::default() };
        let feature_flags = vec![
            flag("pyroscopeRuler", false),
            flag("pyroscopeRulerFunctions", false),
            flag("utf8LabelNames", false),
            flag("v2StorageLayer", true),
        ];
        Ok(tonic::Response::new(GetFeatureFlagsResponse { feature_flags }))
    }
}
