//! Services with the answers that tests need, behind an edge.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test binaries, each of which uses a part"
)]

use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use bytes::Bytes;
use clock::{Clock, Pools};
use edge::{App, Body, Capabilities, Config, Deadline, Effect, Error, Explain, Explanation, Routes, Tenants};
use http::StatusCode;
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use tonic::{Code, Response, Status};
use wire::push::v1::pusher_service_server::{PusherService, PusherServiceServer};
use wire::push::v1::{PushRequest, PushResponse};
use wire::settings::v1::settings_service_server::{SettingsService, SettingsServiceServer};
use wire::settings::v1::{
    DeleteSettingsRequest, DeleteSettingsResponse, GetSettingsRequest, GetSettingsResponse,
    SetSettingsRequest, SetSettingsResponse, Setting,
};

pub struct Echo;

#[tonic::async_trait]
impl SettingsService for Echo {
    /// Returns the handler's view of the request.
    async fn get(
        &self,
        request: tonic::Request<GetSettingsRequest>,
    ) -> Result<Response<GetSettingsResponse>, Status> {
        let extensions = request.extensions();
        let tenants = Tenants::of(extensions)?;
        let capabilities = extensions.get::<Capabilities>().copied().unwrap_or_default();
        let setting = |name: &str, value: String| Setting { name: name.to_owned(), value, modified_at: 0 };
        let settings = vec![
            setting("tenants", format!("{:?}", tenants.as_slice())),
            setting("utf8", capabilities.utf8_label_names.to_string()),
            setting("deadline", extensions.get::<Deadline>().is_some().to_string()),
        ];
        let mut response = Response::new(GetSettingsResponse { settings });
        response.metadata_mut().insert("x-said", "hello".parse().unwrap());
        if extensions.get::<Explain>().is_some() {
            let (json, brief) = (r#"{"long":"é"}"#.to_owned(), "{\"brief\":\"é😀\"}".to_owned());
            response.extensions_mut().insert(Explanation { json, brief });
        }
        Ok(response)
    }

    /// Returns the setting, or behaves as its name asks.
    async fn set(
        &self,
        request: tonic::Request<SetSettingsRequest>,
    ) -> Result<Response<SetSettingsResponse>, Status> {
        let setting = request.into_inner().setting;
        let (name, value) = setting
            .as_ref()
            .map(|setting| (setting.name.as_str(), setting.value.as_str()))
            .unwrap_or_default();
        match name {
            "fail" => Err(Status::new(Code::AlreadyExists, value)),
            "panic" => panic!("{value}"),
            "sleep" => std::future::pending().await,
            "grow" => {
                let value = "x".repeat(value.parse().unwrap());
                let setting = Setting { name: "grown".to_owned(), value, modified_at: 0 };
                Ok(Response::new(SetSettingsResponse { setting: Some(setting) }))
            }
            _ => Ok(Response::new(SetSettingsResponse { setting })),
        }
    }

    async fn delete(
        &self,
        request: tonic::Request<DeleteSettingsRequest>,
    ) -> Result<Response<DeleteSettingsResponse>, Status> {
        Tenants::of(request.extensions())?.one()?;
        Ok(Response::new(DeleteSettingsResponse {}))
    }
}

#[tonic::async_trait]
impl PusherService for Echo {
    async fn push(&self, request: tonic::Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let series = &request.get_ref().series;
        let bytes = series.iter().flat_map(|series| &series.samples).map(|s| s.raw_profile.len());
        match bytes.sum::<usize>() {
            0 => Err(Status::invalid_argument("nothing was pushed")),
            _ => Ok(Response::new(PushResponse {})),
        }
    }
}

pub fn app(change: impl FnOnce(&mut Config)) -> App {
    let mut config = Config { body_bytes_max: 1 << 20, ..Config::default() };
    change(&mut config);
    let settings = SettingsServiceServer::new(Echo);
    let pusher = PusherServiceServer::new(Echo);
    let small = |request: Request| async move { edge::body::read(request, 10).await.map(|body| body.bytes) };
    let tenant = |tenants: Tenants| async move { tenants.one().map(|tenant| tenant.to_string()) };
    let refuse =
        || async { Error::rest(StatusCode::UNPROCESSABLE_ENTITY, "größer als das Limit").into_response() };
    let routes = Routes::new()
        .probe("/ready")
        .get("/ready", &(), || async { edge::rest::text_response(StatusCode::OK, "ready") })
        .post("/length", Effect::Change, &(), |body: Body| async move { body.bytes.len().to_string() })
        .post("/small", Effect::Change, &(), small)
        .post("/tenant", Effect::Change, &(), tenant)
        .post("/administer", Effect::Administer, &(), |body: Body| async move { body.bytes })
        .post("/by-another-extractor", Effect::Change, &(), |body: Bytes| async move { body })
        .get("/large", &(), || async { "large ".repeat(1000) })
        .get("/huge", &(), || async { vec![b'x'; HUGE_BYTES] })
        .get("/panic", &(), || async { panic!("at the route") as () })
        .get("/api/known", &(), || async { "known" })
        .get("/refuse", &(), refuse)
        .service(Effect::Read, settings.max_decoding_message_size(edge::MESSAGE_BYTES_MAX))
        .merge(
            Routes::new().service(Effect::Change, pusher.max_decoding_message_size(edge::MESSAGE_BYTES_MAX)),
        );
    App::new(routes, config, Clock::system(), Pools::new(1, clock::Hooks::NONE), &mut Registry::default())
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    pub trailers: http::HeaderMap,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

pub async fn ask(
    app: &App,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body: Bytes = body.into();
    let response = app.answer(request.body(axum::body::Body::from(body)).unwrap()).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes(), trailers }
}

/// Starts a listener on a free port.
pub async fn listen(app: App) -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    Clock::system().spawn(async move { edge::serve(listener, app, shutdown).await });
    (address, stop)
}

pub const SECOND: Duration = Duration::from_secs(1);

pub const HUGE_BYTES: usize = 40 << 20;
