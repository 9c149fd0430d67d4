//! Cost of the edge for one push: the whole call, compared to decompression alone.
//!
//! Run with `cargo bench -p edge`. Measures CPU time of one thread, so a busy machine hardly disturbs it.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop where it is")]

use std::time::Duration;

use bytes::Bytes;
use clock::{Clock, Pools};
use edge::{App, Config, Routes};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use prost::Message;
use tonic::{Request, Response, Status};
use wire::push::v1::pusher_service_server::{PusherService, PusherServiceServer};
use wire::push::v1::{PushRequest, PushResponse, RawProfileSeries, RawSample};
use wire::types::v1::LabelPair;

const ROUNDS: u32 = 2000;

struct Accept;

#[tonic::async_trait]
impl PusherService for Accept {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        std::hint::black_box(request);
        Ok(Response::new(PushResponse {}))
    }
}

fn main() {
    let service = PusherServiceServer::new(Accept);
    let service = service.max_decoding_message_size(edge::MESSAGE_BYTES_MAX);
    let (clock, pool) = (Clock::system(), Pools::inline());
    let routes = Routes::new().service(edge::Effect::Change, service);
    let app = App::new(routes, Config::default(), clock, pool, &mut Registry::default());
    let message = push(300_000).encode_to_vec();
    let zipped = Bytes::from(formats::gzip::compress(&message, 6));
    let json = Bytes::from(json(&message));
    println!("a push of {} bytes, {} gzipped, {} as JSON", message.len(), zipped.len(), json.len());
    let message = Bytes::from(message);

    let inflate =
        measure("gunzip alone", || std::hint::black_box(formats::gzip::decompress(&zipped, 1 << 30)).is_ok());
    let decode = measure("decode alone", || PushRequest::decode(message.clone()).is_ok());
    let proto = &[("content-type", "application/proto")];
    let plain = measure("connect, protobuf", || answer(&app, proto, message.clone()));
    let gzip = &[("content-type", "application/proto"), ("content-encoding", "gzip")];
    let gzipped = measure("connect, protobuf, gzip", || answer(&app, gzip, zipped.clone()));
    measure("connect, JSON", || answer(&app, &[("content-type", "application/json")], json.clone()));
    let small = Bytes::from(push(100).encode_to_vec());
    measure("connect, protobuf, 100 bytes", || answer(&app, proto, small.clone()));
    println!("beside gunzip and decode: {:?} plain", plain.saturating_sub(decode));
    println!("beside gunzip and decode: {:?} gzip", gzipped.saturating_sub(inflate + decode));
}

fn push(bytes: usize) -> PushRequest {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Six random bits of eight: gzip saves a third, about as with pprof.
        (state >> 26) as u8
    };
    let raw_profile = (0..bytes).map(|_| next()).collect::<Vec<u8>>().into();
    let label = |n: usize| LabelPair { name: format!("label_{n}"), value: format!("value_{n}") };
    let sample = RawSample { raw_profile, id: "6a4c9f10-0a7e-4b0a-8a3c-6a4c9f100a7e".into() };
    let labels = (0..10).map(label).collect();
    let series = RawProfileSeries { labels, samples: vec![sample], annotations: Vec::new() };
    PushRequest { series: vec![series] }
}

fn json(message: &[u8]) -> Vec<u8> {
    let descriptor = wire::descriptor_pool().get_message_by_name("push.v1.PushRequest").unwrap();
    let message = prost_reflect::DynamicMessage::decode(descriptor, message).unwrap();
    serde_json::to_vec(&message).unwrap()
}

fn answer(app: &App, headers: &[(&str, &str)], body: Bytes) -> bool {
    let mut request = http::Request::post("/push.v1.PusherService/Push");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(axum::body::Body::from(body)).unwrap();
    futures::executor::block_on(async {
        let response = app.answer(request).await;
        let ok = response.status() == 200;
        response.into_body().collect().await.unwrap();
        ok
    })
}

/// CPU time of one round.
fn measure(name: &str, mut round: impl FnMut() -> bool) -> Duration {
    assert!(round(), "{name} fails");
    let started = cpu();
    for _ in 0..ROUNDS {
        assert!(round());
    }
    let took = (cpu() - started) / ROUNDS;
    println!("{name:>30}  {:8.1} µs", took.as_nanos() as f64 / 1000.0);
    took
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
