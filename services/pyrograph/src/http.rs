//! Routes of the process as a whole: readiness, members, metrics, version, configuration, feature flags.

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cluster::Membership;
use edge::Effect;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::json;
use tonic::{Request, Status as RpcStatus};
use wire::capabilities::v1::feature_flags_service_server::{FeatureFlagsService, FeatureFlagsServiceServer};
use wire::capabilities::v1::{FeatureFlag, GetFeatureFlagsRequest, GetFeatureFlagsResponse};
use wire::grpc::health::v1::health_check_response::ServingStatus;
use wire::grpc::health::v1::health_server::{Health, HealthServer};
use wire::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use wire::version::v1::version_server::{Version, VersionServer};
use wire::version::v1::{VersionRequest, VersionResponse};

use crate::config::ConfigPages;
use crate::metrics_text;

/// Whether this process can serve.
#[derive(Clone)]
pub(crate) struct Status(Arc<Mutex<Readiness>>);

#[derive(Clone)]
enum Readiness {
    /// With a remark about a part that is not ready.
    Ready(Option<String>),
    /// The reasons why it cannot serve yet.
    Starting(Vec<String>),
    Stopping,
}

impl Default for Status {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Readiness::Starting(vec!["server".to_owned()]))))
    }
}

impl Status {
    /// `missing` holds the reasons why the process cannot serve; empty if it can. `remark` is a limitation although it
    /// serves.
    pub(crate) fn set(&self, missing: Vec<String>, remark: Option<String>) {
        let mut readiness = self.0.lock();
        if matches!(*readiness, Readiness::Stopping) {
            return;
        }
        *readiness = if missing.is_empty() { Readiness::Ready(remark) } else { Readiness::Starting(missing) };
    }

    pub(crate) fn stop(&self) {
        *self.0.lock() = Readiness::Stopping;
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.0.lock(), Readiness::Ready(_))
    }
}

/// The metrics of every role, once all are built.
#[derive(Clone, Default)]
pub(crate) struct SharedRegistry(Arc<OnceLock<Registry>>);

impl SharedRegistry {
    pub(crate) fn set(&self, registry: Registry) {
        let _ = self.0.set(registry);
    }
}

pub(crate) fn routes(
    status: Status,
    exported: SharedRegistry,
    config: ConfigPages,
    membership: Arc<dyn Membership>,
) -> edge::Routes {
    let yaml = async |State(text): State<String>| edge::rest::text_response(StatusCode::OK, text);
    edge::Routes::new()
        .probe("/ready")
        .probe("/metrics")
        .get("/ready", &status, ready)
        .get("/metrics", &exported, metrics)
        .get("/memberlist", &membership, members)
        .get("/api/v1/status/buildinfo", &(), build_info)
        .get("/api/v1/status/config", &config.all, yaml)
        .get("/api/v1/status/config/default", &config.defaults, yaml)
        .get("/api/v1/status/config/diff", &config.changed, yaml)
        .service(Effect::Read, VersionServer::new(Information))
        .service(Effect::Read, FeatureFlagsServiceServer::new(Information))
        .service(Effect::Read, HealthServer::new(status))
}

async fn ready(State(Status(readiness)): State<Status>) -> Response {
    let readiness = readiness.lock().clone();
    let not_running = match readiness {
        Readiness::Ready(None) => return edge::rest::text_response(StatusCode::OK, "ready"),
        Readiness::Ready(Some(remark)) => {
            // The remark goes into a header, because probes compare the body.
            let mut response = edge::rest::text_response(StatusCode::OK, "ready");
            if let Ok(remark) = HeaderValue::from_str(&remark) {
                response.headers_mut().insert("x-pyrograph-remark", remark);
            }
            return response;
        }
        Readiness::Starting(missing) => format!("Starting: [{}]", missing.join(", ")),
        Readiness::Stopping => "Stopping: [server]".to_owned(),
    };
    let text = format!("Some services are not Running:\n{not_running}\n");
    edge::rest::text_response(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// The members of the cluster, as this process sees them.
async fn members(State(membership): State<Arc<dyn Membership>>) -> Response {
    let members = membership.members().borrow().clone();
    let shown = members.iter().map(|member| {
        json!({
            "node": member.node,
            "name": member.name,
            "zone": member.zone,
            "roles": member.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
            "address": member.address,
            "started": member.started_millis,
            "writers": member.writers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "leaving": member.is_leaving,
        })
    });
    edge::rest::json_response(&json!({ "members": shown.collect::<Vec<_>>() }))
}

async fn metrics(State(SharedRegistry(registry)): State<SharedRegistry>, headers: HeaderMap) -> Response {
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
    let (media_type, text) = match metrics_text::accepts_open_metrics(&headers) {
        true => (metrics_text::OPEN_METRICS, text),
        false => (metrics_text::CLASSIC, metrics_text::classic(&text)),
    };
    ([(header::CONTENT_TYPE, media_type), (header::VARY, "accept")], text).into_response()
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

#[tonic::async_trait]
impl Health for Status {
    /// All services have the status of the process.
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, RpcStatus> {
        let service = &request.get_ref().service;
        if !service.is_empty() && wire::descriptor_pool().get_service_by_name(service).is_none() {
            return Err(RpcStatus::not_found(format!("there is no service {service:?}")));
        }
        let status = match self.is_ready() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        Ok(tonic::Response::new(HealthCheckResponse { status: status.into() }))
    }
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
    /// The flags that clients query by name. A client asks for UTF-8 label names per request, so that flag is off.
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
