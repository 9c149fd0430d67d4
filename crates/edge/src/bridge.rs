//! Serves every tonic service under Connect, gRPC and gRPC-web, in protobuf and JSON.
//!
//! Requests of all three become a plain message, which tonic's generated code gets in process as an uncompressed gRPC
//! request; answers return the same way. So a service implements one protocol, and limits, decompression, deadlines and
//! errors are the same for all of them.
//!
//! Only unary methods. A service that `proto/` does not describe gets native gRPC unchanged.

mod connect;
mod content;
mod envelope;
mod grpc;
mod held;
mod json;
mod shape;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use clock::{Clock, Pools};
use formats::gzip;
use futures::FutureExt;
use hashbrown::HashMap;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use memory::{Charge, Lease, OverBudget};
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::body::{Body, Intake, ReadError};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::explain::Explanation;
use crate::routes::{Effect, Service};
use content::{Content, Format, Protocol};
use shape::Shapes;

pub(crate) struct Bridge {
    clock: Clock,
    pools: Pools,
    intake: Intake,
    services: HashMap<&'static str, (Service, Effect)>,
    /// Methods of the services, by path.
    methods: HashMap<String, Arc<Method>>,
    shapes: Shapes,
    schema: Arc<json::Schema>,
}

/// A method that `proto/` describes.
pub(crate) struct Method {
    path: Arc<str>,
    /// Index of the input in the JSON schema.
    input: usize,
    /// Index of the input's shape.
    shape: usize,
    /// Index of the output in the JSON schema.
    output: usize,
    service: Service,
    effect: Effect,
}

/// The target of a path.
pub(crate) enum Target {
    Method(Arc<Method>),
    /// A service that `proto/` does not describe; its methods are unknown.
    Opaque(&'static str, Service, Effect),
    /// A method that its service does not have.
    Missing,
}

impl Target {
    /// Route name for metrics and logs.
    pub(crate) fn route(&self) -> Arc<str> {
        match self {
            Self::Method(method) => method.path.clone(),
            Self::Opaque(service, ..) => Arc::from(*service),
            Self::Missing => Arc::from("none"),
        }
    }

    /// `None` if the method does not exist.
    pub(crate) fn effect(&self) -> Option<Effect> {
        match self {
            Self::Method(method) => Some(method.effect),
            Self::Opaque(_, _, effect) => Some(*effect),
            Self::Missing => None,
        }
    }
}

/// The answer of a service.
pub(crate) struct Reply {
    headers: HeaderMap,
    trailers: HeaderMap,
    /// The header of the envelope, five bytes, and the message.
    envelope: Bytes,
    /// Present if the client asked for it.
    explained: Option<Explanation>,
    /// Memory of the answer, if the service counts it.
    memory: Lease,
}

impl Bridge {
    pub(crate) fn new(
        services: HashMap<&'static str, (Service, Effect)>,
        clock: Clock,
        pools: Pools,
        intake: Intake,
    ) -> Self {
        let mut methods = HashMap::new();
        let mut shapes = Shapes::default();
        let mut schema = json::Schema::default();
        for described in wire::descriptor_pool().services() {
            let Some((service, effect)) = services.get(described.full_name()) else {
                continue;
            };
            for method in described.methods() {
                let path = format!("/{}/{}", described.full_name(), method.name());
                let method = Method {
                    path: Arc::from(path.as_str()),
                    shape: shapes.add(&method.input()),
                    input: schema.add(&method.input()),
                    output: schema.add(&method.output()),
                    service: service.clone(),
                    effect: *effect,
                };
                methods.insert(path, Arc::new(method));
            }
        }
        Self { clock, pools, intake, services, methods, shapes, schema: Arc::new(schema) }
    }

    /// `None` if the path does not belong to a service.
    pub(crate) fn find(&self, path: &str) -> Option<Target> {
        if let Some(method) = self.methods.get(path) {
            return Some(Target::Method(method.clone()));
        }
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let (name, (service, effect)) = self.services.get_key_value(service)?;
        let described = wire::descriptor_pool().get_service_by_name(name).is_some();
        match described || method.is_empty() || method.contains('/') {
            true => Some(Target::Missing),
            false => Some(Target::Opaque(name, service.clone(), *effect)),
        }
    }

    pub(crate) async fn answer(&self, target: Target, request: Request<axum::body::Body>) -> Response {
        let (service, method) = match target {
            Target::Method(method) => (method.service.clone(), Some(method)),
            Target::Opaque(_, service, _) => (service, None),
            Target::Missing => return crate::app::not_found(),
        };
        if request.method() != http::Method::POST {
            return empty(StatusCode::METHOD_NOT_ALLOWED, header::ALLOW, "POST");
        }
        let content = match Content::of(request.headers()) {
            Some(content) if method.is_some() || content.format == Format::Protobuf => content,
            _ => {
                let accept_post = HeaderName::from_static("accept-post");
                return empty(StatusCode::UNSUPPORTED_MEDIA_TYPE, accept_post, content::ACCEPT_POST);
            }
        };
        if method.is_none() && content.protocol == Protocol::Grpc {
            return pass_through(service, request).await;
        }
        let gzip = content.accepts_gzip(request.headers());
        let version = request.version();
        let outcome = self.call(service, method.as_deref(), &content, request).await;
        let memory = outcome.as_ref().map(|reply| reply.memory.clone()).unwrap_or_default();
        let response = match content.protocol {
            Protocol::Connect => connect::response(&self.pools.queries, &content, outcome, gzip).await,
            Protocol::Grpc | Protocol::GrpcWeb => {
                grpc::response(&self.pools.queries, &content, version, outcome, gzip).await
            }
        };
        held::until_sent(response, memory)
    }

    async fn call(
        &self,
        service: Service,
        method: Option<&Method>,
        content: &Content,
        request: Request<axum::body::Body>,
    ) -> Result<Reply, Error> {
        let (mut parts, body) = request.into_parts();
        let Some(timeout) = content.timeout(&parts.headers)? else {
            return self.call_untimed(service, method, content, parts, body).await;
        };
        parts.extensions.insert(Deadline(self.clock.monotonic().saturating_add(timeout)));
        let call = self.call_untimed(service, method, content, parts, body);
        let answered = self.clock.timeout(timeout, call).await;
        answered.unwrap_or_else(|| Err(too_late(timeout)))
    }

    async fn call_untimed(
        &self,
        service: Service,
        method: Option<&Method>,
        content: &Content,
        parts: Parts,
        body: axum::body::Body,
    ) -> Result<Reply, Error> {
        let encoding = content.encoding(&parts.headers)?;
        let limit = self.intake.body_bytes_max();
        let body = self.intake.read(body, limit).await.map_err(|error| error.on_service())?;
        // The charge is held until the service has answered.
        let Body { bytes, mut charge } = body;
        let (message, compressed) = match content.protocol {
            Protocol::Connect => (bytes, encoding.is_some()),
            Protocol::Grpc | Protocol::GrpcWeb => grpc::message(bytes, encoding)?,
        };
        let mut message = match compressed && !message.is_empty() {
            true => self.inflate(message, limit, &mut charge).await?,
            false => message,
        };
        // For the copy that the decoder of the service makes.
        charge.grow(message.len()).map_err(busy)?;
        if let Some(method) = method {
            if content.format == Format::Json {
                message = json::decode(&self.pools.pushes, &self.schema, method.input, message).await?;
            }
            self.shapes.check(method.shape, &message)?;
        }
        let mut reply = invoke(service, parts, message).await?;
        if let (Format::Json, Some(method)) = (content.format, method) {
            let memory = reply.memory.clone();
            reply.envelope =
                json::encode(&self.pools.queries, &self.schema, method.output, reply.envelope, memory)
                    .await?;
        }
        Ok(reply)
    }

    /// Decompresses into memory that is charged in advance: first the size that the message announces, then twice as
    /// much at each step if that was too little.
    async fn inflate(&self, bytes: Bytes, limit: usize, charge: &mut Charge) -> Result<Bytes, Error> {
        let inline = bytes.len() <= crate::gzip::INFLATE_INLINE_BYTES_MAX;
        let setting = self.intake.body_bytes_setting();
        let not_inflated = |error| not_inflated(&error, setting);
        let announced = gzip::announced_bytes(&bytes, limit).map_err(not_inflated)?;
        let mut room = announced.max(INFLATE_FIRST_BYTES).min(limit);
        let before = charge.bytes();
        loop {
            charge.resize(before + room).map_err(busy)?;
            let packed = bytes.clone();
            let work = move || gzip::decompress(&packed, room);
            let plain = match inline {
                true => work(),
                false => self.pools.pushes.run(work).await,
            };
            match plain {
                Ok(plain) => {
                    charge.shrink_to(before + plain.len());
                    return Ok(plain);
                }
                Err(gzip::Error::ExpandsTooFar { .. }) if room < limit => {
                    room = room.saturating_mul(2).min(limit);
                }
                Err(error) => return Err(not_inflated(error)),
            }
        }
    }
}

fn busy(over: OverBudget) -> Error {
    ReadError::from(over).on_service()
}

/// Minimum memory for decompression.
const INFLATE_FIRST_BYTES: usize = 64 << 10;

/// `setting` raises the limit of a body.
fn not_inflated(error: &gzip::Error, setting: &str) -> Error {
    match error {
        gzip::Error::Corrupt { .. } => Error::new(Code::InvalidArgument, error.to_string()),
        _ => Error::new(Code::ResourceExhausted, format!("{error} ({setting})")),
    }
}

/// Runs the service on one message.
async fn invoke(service: Service, mut parts: Parts, message: Bytes) -> Result<Reply, Error> {
    for name in NOT_FOR_SERVICES {
        parts.headers.remove(name);
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let body = tonic::body::Body::new(envelope::Frames::message(message));
    let call = service.oneshot(Request::from_parts(parts, body));
    let response = match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(panic) => return Err(Error::panicked(&*panic)),
    };
    let (mut parts, mut body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers) {
        return Err(status.into());
    }
    let mut envelope = Bytes::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if envelope.is_empty() => envelope = data,
            Ok(data) => envelope = [envelope, data].concat().into(),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    match Status::from_header_map(&trailers) {
        Some(status) if status.code() != Code::Ok => Err(status.into()),
        Some(_) if envelope.len() >= envelope::HEADER_BYTES => {
            let explained = parts.extensions.remove::<Explanation>();
            let memory = parts.extensions.remove::<Lease>().unwrap_or_default();
            // The decoded message is gone; only its encoding remains.
            memory.shrink_to(envelope.len() as u64);
            Ok(Reply { headers: parts.headers, trailers, envelope, explained, memory })
        }
        _ => Err(Error::new(Code::Internal, "the service gave no answer")),
    }
}

/// Headers that describe the message on the wire, not the message that the service gets.
const NOT_FOR_SERVICES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// Metadata of a service, without the headers that tonic itself writes.
fn metadata(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        name != "content-type" && name != "grpc-status" && name != "grpc-message"
    })
}

async fn pass_through(service: Service, request: Request<axum::body::Body>) -> Response {
    let Ok(response) = service.oneshot(request.map(tonic::body::Body::new)).await;
    response.map(axum::body::Body::new)
}

fn too_late(timeout: Duration) -> Error {
    let text = format!("no answer within the client's timeout of {} ms", timeout.as_millis());
    Error::new(Code::DeadlineExceeded, text)
}

fn empty(status: StatusCode, name: HeaderName, value: &'static str) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
