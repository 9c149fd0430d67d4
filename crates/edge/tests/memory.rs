//! Peak memory of reading and writing JSON. A test binary of its own, because the peak is the one of the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::fs;

use axum::body::Body;
use clock::{Clock, Pools};
use edge::{App, Config, Effect, Routes};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use tonic::{Request, Response, Status};
use wire::push::v1::pusher_service_server::{PusherService, PusherServiceServer};
use wire::push::v1::{PushRequest, PushResponse};
use wire::settings::v1::settings_service_server::{SettingsService, SettingsServiceServer};
use wire::settings::v1::{
    DeleteSettingsRequest, DeleteSettingsResponse, GetSettingsRequest, GetSettingsResponse,
    SetSettingsRequest, SetSettingsResponse, Setting,
};

const SETTINGS: usize = 300_000;

/// Maximum bytes of memory per byte of JSON: the message of the service, its encoding, and the growing JSON take 3.3
/// together. With a message decoded by reflection it was 17.6.
const PEAK_PER_JSON_BYTE_MAX: usize = 6;

const LABELS: usize = 300_000;

/// Maximum for a request: its encoding, and the message for the service.
const PEAK_PER_REQUEST_BYTE_MAX: usize = 10;

struct Many;

#[tonic::async_trait]
impl SettingsService for Many {
    async fn get(&self, _: Request<GetSettingsRequest>) -> Result<Response<GetSettingsResponse>, Status> {
        let setting = |number: usize| Setting {
            name: format!("name-{number}"),
            value: "v".to_owned(),
            modified_at: number as i64,
        };
        Ok(Response::new(GetSettingsResponse { settings: (0..SETTINGS).map(setting).collect() }))
    }

    async fn set(&self, _: Request<SetSettingsRequest>) -> Result<Response<SetSettingsResponse>, Status> {
        Err(Status::unimplemented("not tested"))
    }

    async fn delete(
        &self,
        _: Request<DeleteSettingsRequest>,
    ) -> Result<Response<DeleteSettingsResponse>, Status> {
        Err(Status::unimplemented("not tested"))
    }
}

#[tonic::async_trait]
impl PusherService for Many {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        assert_eq!(request.get_ref().series[0].labels.len(), LABELS);
        Ok(Response::new(PushResponse {}))
    }
}

fn peak_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn json_takes_little_more_than_its_message_and_its_text() {
    let routes = Routes::new().service(Effect::Read, SettingsServiceServer::new(Many)).service(
        Effect::Change,
        PusherServiceServer::new(Many).max_decoding_message_size(edge::MESSAGE_BYTES_MAX),
    );
    let app = App::new(
        routes,
        Config::default(),
        Clock::system(),
        Pools::new(1, clock::Hooks::NONE),
        &mut Registry::default(),
    );
    let labels = vec![r#"{"name":"a","value":"b"}"#; LABELS].join(",");
    let json = format!(r#"{{"series":[{{"labels":[{labels}]}}]}}"#);
    drop(labels);
    let bytes = json.len();
    let before = peak_bytes();
    let request =
        http::Request::post("/push.v1.PusherService/Push").header("content-type", "application/json");
    let answer = app.answer(request.body(Body::from(json)).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let grown = peak_bytes() - before;
    println!("request of {bytes} bytes: the peak grew by {grown} bytes");
    assert!(grown < PEAK_PER_REQUEST_BYTE_MAX * bytes, "{grown} bytes for {bytes} bytes of JSON");

    let before = peak_bytes();
    let request =
        http::Request::post("/settings.v1.SettingsService/Get").header("content-type", "application/json");
    let answer = app.answer(request.body(Body::from("{}")).unwrap()).await;
    let json = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(json.iter().filter(|byte| **byte == b'{').count(), SETTINGS + 1);
    let grown = peak_bytes() - before;
    println!("JSON of {} bytes: the peak grew by {grown} bytes", json.len());
    assert!(grown < PEAK_PER_JSON_BYTE_MAX * json.len(), "{grown} bytes for {} bytes of JSON", json.len());
}
