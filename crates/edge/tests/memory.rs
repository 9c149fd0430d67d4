//! What an answer takes while it is made. A process of its own: the peak is that of the process.

#![allow(clippy::unwrap_used)]

use std::fs;

use axum::body::Body;
use clock::{Clock, Pool};
use edge::{App, Config, Routes};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use tonic::{Request, Response, Status};
use wire::settings::v1::settings_service_server::{SettingsService, SettingsServiceServer};
use wire::settings::v1::{
    DeleteSettingsRequest, DeleteSettingsResponse, GetSettingsRequest, GetSettingsResponse,
    SetSettingsRequest, SetSettingsResponse, Setting,
};

const SETTINGS: usize = 300_000;

/// Bytes of memory per byte of JSON: the message as the service built it, its encoding, and the JSON while it grows
/// take 3.3 together. A message decoded by reflection made it 17.6.
const PEAK_PER_JSON_BYTE_MAX: usize = 6;

struct Many;

#[tonic::async_trait]
impl SettingsService for Many {
    async fn get(&self, _: Request<GetSettingsRequest>) -> Result<Response<GetSettingsResponse>, Status> {
        let setting =
            |at: usize| Setting { name: format!("name-{at}"), value: "v".to_owned(), modified_at: at as i64 };
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

fn peak_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_json_answer_takes_little_more_than_its_message_and_its_text() {
    let routes = Routes::new().service(SettingsServiceServer::new(Many));
    let app = App::new(routes, Config::default(), Clock::system(), Pool::new(1), &mut Registry::default());
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
