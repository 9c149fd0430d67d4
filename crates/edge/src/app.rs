//! Answers one request: checks, routing, metrics, the request log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use clock::{Clock, Pools};
use futures::FutureExt;
use hashbrown::HashMap;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::accept::{self, Capabilities};
use crate::body::{Intake, PendingBody, Unread};
use crate::bridge::{Bridge, Target};
use crate::config::Config;
use crate::error::Error;
use crate::explain::Explain;
use crate::metrics::Metrics;
use crate::origin::{self, Sender};
use crate::rest::text_response;
use crate::routes::{Effect, Routes};
use crate::tenants::Claim;

/// The application behind the listener; cheap to clone. It also answers requests in process.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pools: Pools,
    intake: Intake,
    bridge: Bridge,
    rest: Router,
    /// Effects of plain routes, by path.
    effects: HashMap<Arc<str>, Vec<(Method, Effect)>>,
    probes: Vec<&'static str>,
}

/// The id of a request in logs: a request extension, and the header `X-Request-Id` of the answer. If the client sent
/// an id, that one is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The pattern of the plain route, an extension of the response for the metrics.
#[derive(Clone)]
struct RoutePattern(Arc<str>);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an id from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

impl App {
    /// `pools` decompress and decode requests, and encode and compress answers.
    pub fn new(routes: Routes, config: Config, clock: Clock, pools: Pools, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        let intake = Intake::new(clock.clone(), &config, metrics.bodies_bytes.clone());
        let bridge = Bridge::new(routes.services, clock.clone(), pools.clone(), intake.clone());
        let mut effects: HashMap<Arc<str>, Vec<(Method, Effect)>> = HashMap::new();
        for route in routes.table {
            effects.entry(Arc::from(route.path)).or_default().push((route.method, route.effect));
        }
        let rest =
            routes.rest.fallback(unknown_path).layer(axum::middleware::from_fn(observe_route)).with_state(());
        let probes = routes.probes;
        Self(Arc::new(Inner { clock, config, metrics, pools, intake, bridge, rest, effects, probes }))
    }

    /// Answers one request; never fails, even if a handler panics.
    pub async fn answer(&self, request: Request<Body>) -> Response {
        self.answer_unless(None, request).await
    }

    /// As [`Self::answer`], for a request from the network. `only_probes`: its connection is beyond the limit.
    pub(crate) async fn answer_received(&self, request: Request<Body>, only_probes: bool) -> Response {
        let refusal = match host_problem(&request) {
            Some(problem) => Some(text_response(StatusCode::BAD_REQUEST, problem)),
            None if only_probes && !self.0.probes.contains(&request.uri().path()) => {
                let limit = self.0.config.connections_max;
                let text = format!("all connections are busy, up to the limit of {limit}");
                Some(Error::rest(StatusCode::SERVICE_UNAVAILABLE, text).into_response())
            }
            None => None,
        };
        let mut response = self.answer_unless(refusal, request).await;
        if only_probes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Answers with `refusal` if there is one.
    async fn answer_unless(&self, refusal: Option<Response>, request: Request<Body>) -> Response {
        let inner = &*self.0;
        let unread = Unread::default();
        // A client that sent `Expect: 100-continue` holds its body back until we answer.
        let request = match request.headers().contains_key(header::EXPECT) {
            true => request,
            false => request.map(|body| unread.watch(body)),
        };
        let _in_flight = InFlight::enter(&inner.metrics.requests_in_flight);
        let started = inner.clock.monotonic();
        let id = inner.request_id(request.headers());
        let method = request.method().clone();
        let target = inner.bridge.find(request.uri().path());
        let plain_route = || inner.effects.get_key_value(request.uri().path()).map(|(path, _)| path.clone());
        let known_route = target.as_ref().map(|target| target.route()).or_else(plain_route);
        let sender = Sender::of(&request);
        let preflight = origin::preflight_method(&request);
        let effective_method = preflight.as_ref().unwrap_or(&method);
        let effect = inner.effect(target.as_ref(), effective_method, request.uri().path());
        let guarded = async {
            if let Some(refusal) = refusal {
                return refusal;
            }
            if let Err(error) = origin::check_host(&inner.config.hosts, &sender) {
                return error.into_response();
            }
            if preflight.is_some() {
                return origin::preflight(&inner.config.origins, &sender, effect);
            }
            let (headers, is_plain) = (request.headers(), target.is_none());
            match origin::check_effect(&inner.config.origins, &sender, effect, headers, is_plain) {
                Ok(()) => inner.answer(target, request, id.clone()).await,
                Err(error) => error.into_response(),
            }
        };
        let mut response = AssertUnwindSafe(guarded)
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Error::panicked(&*panic).into_response());
        origin::label(&inner.config.origins, &sender, effect, response.headers_mut());
        unread.drain(&inner.clock).await;
        let took = inner.clock.monotonic().saturating_sub(started);
        let pattern = || response.extensions().get::<RoutePattern>().map(|pattern| pattern.0.clone());
        let route = known_route.or_else(pattern).unwrap_or_else(|| Arc::from("none"));
        let status = response.status();
        inner.log(&route, &method, &response, &id, took);
        inner.metrics.answered(route, &method, status, took);
        response.headers_mut().insert(REQUEST_ID, id.0);
        response
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// Effect of a method on a path. An unknown method counts as a change unless it is safe, so that every change is
    /// guarded.
    fn effect(&self, target: Option<&Target>, method: &Method, path: &str) -> Effect {
        let declared = match target {
            Some(target) => target.effect(),
            None => self.effects.get(path).and_then(|effects| {
                effects.iter().find(|(declared, _)| declared == method).map(|(_, effect)| *effect)
            }),
        };
        let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        declared.unwrap_or(if is_safe { Effect::Read } else { Effect::Change })
    }

    async fn answer(&self, target: Option<Target>, mut request: Request<Body>, id: RequestId) -> Response {
        let capabilities = match Capabilities::parse(request.headers()) {
            Ok(capabilities) => capabilities,
            Err(error) => {
                let text = format!("Invalid header format: {error}\n");
                return text_response(StatusCode::BAD_REQUEST, text);
            }
        };
        let claim = Claim::of(request.headers(), self.config.multitenancy);
        let explain = Explain::of(request.headers(), request.uri());
        let extensions = request.extensions_mut();
        extensions.insert(capabilities);
        extensions.insert(claim);
        if let Some(explain) = explain {
            extensions.insert(explain);
        }
        extensions.insert(id);
        match target {
            Some(target) => self.bridge.answer(target, request).await,
            None => self.plain(request).await,
        }
    }

    async fn plain(&self, request: Request<Body>) -> Response {
        let (mut parts, body) = request.into_parts();
        let (pending, placeholder) = PendingBody::new(body);
        parts.extensions.insert(self.intake.clone());
        parts.extensions.insert(pending);
        let request = Request::from_parts(parts, placeholder);
        let gzip = accept::accepts_gzip(request.headers(), header::ACCEPT_ENCODING.as_str());
        let is_api = is_api(request.uri().path());
        let Ok(mut response) = self.rest.clone().oneshot(request).await;
        if is_api && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response = api_error(StatusCode::NOT_IMPLEMENTED, 12, "Method Not Allowed");
        }
        match gzip {
            true => crate::gzip::response(&self.pools.queries, response).await,
            false => response,
        }
    }

    fn request_id(&self, headers: &HeaderMap) -> RequestId {
        let client_id = headers.get(REQUEST_ID).filter(|id| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        let new = || HeaderValue::from_str(&format!("{:032x}", self.clock.random()));
        RequestId(client_id.cloned().or_else(|| new().ok()).unwrap_or(HeaderValue::from_static("none")))
    }

    fn log(
        &self,
        route: &str,
        method: &Method,
        response: &Response,
        id: &RequestId,
        took: std::time::Duration,
    ) {
        let status = response.status().as_u16();
        let error = response.extensions().get::<Error>().map(Error::message).unwrap_or_default();
        let took_us = took.as_micros() as u64;
        let request_id = id.as_str();
        match response.status().is_server_error() {
            true => warn!(route, %method, status, took_us, request_id, error, "failed a request"),
            false => debug!(route, %method, status, took_us, request_id, error, "answered"),
        }
    }
}

/// Counts a request from construction to drop, however it ends.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Reports the matched route to the metrics, even if its handler panics.
async fn observe_route(request: Request<Body>, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let matched = matched.map(|path| RoutePattern(Arc::from(path.as_str())));
    let mut response = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Error::panicked(&*panic).into_response());
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    response
}

/// The fault of the `Host` header of a request, if it has one (RFC 9112, section 3.2).
fn host_problem(request: &Request<Body>) -> Option<&'static str> {
    if request.version() > http::Version::HTTP_11 {
        return None;
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == http::Version::HTTP_11 => {
            Some("a request of HTTP/1.1 needs a Host header\n")
        }
        (Some(_), Some(_)) => Some("a request has more than one Host header\n"),
        (Some(host), None) if !is_host(host.as_bytes()) => Some("the Host header is no host and port\n"),
        _ => None,
    }
}

/// The empty value is for targets without a host.
fn is_host(host: &[u8]) -> bool {
    let authority = http::uri::Authority::try_from(host);
    host.is_empty() || authority.is_ok_and(|authority| !authority.as_str().contains('@'))
}

async fn unknown_path(uri: http::Uri) -> Response {
    match is_api(uri.path()) {
        true => api_error(StatusCode::NOT_FOUND, 5, "Not Found"),
        false => not_found(),
    }
}

pub(crate) fn not_found() -> Response {
    let mut response = text_response(StatusCode::NOT_FOUND, "404 page not found\n");
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// Errors below `/api` have a shape of their own: the number of the code, and details even if empty.
fn api_error(status: StatusCode, code: u8, message: &str) -> Response {
    let body = json!({ "code": code, "message": message, "details": [] }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
