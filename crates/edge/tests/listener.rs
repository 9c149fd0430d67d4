//! The listener with real connections.

#![allow(clippy::unwrap_used)]

mod echo;

use std::net::SocketAddr;
use std::time::Duration;

use clock::Clock;
use echo::{SECOND, app, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use wire::push::v1::pusher_service_client::PusherServiceClient;
use wire::push::v1::{PushRequest, RawProfileSeries, RawSample};
use wire::settings::v1::settings_service_client::SettingsServiceClient;
use wire::settings::v1::{SetSettingsRequest, Setting};

/// Sends `request` as it is and gives what comes back until the server closes, or for five seconds.
async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    Clock::system().timeout(5 * SECOND, stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

async fn is_ready(address: SocketAddr) -> bool {
    let request = b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    raw(address, request).await.ends_with("\r\n\r\nready")
}

async fn grpc(address: SocketAddr) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

#[tokio::test]
async fn one_port_speaks_http1_and_h2c() {
    let (address, _stop) = listen(app(|_| ())).await;
    assert!(is_ready(address).await);

    let mut client = SettingsServiceClient::new(grpc(address).await)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let setting = |name: &str, value: &str| SetSettingsRequest {
        setting: Some(Setting { name: name.into(), value: value.into(), modified_at: 0 }),
    };
    let answer = client.set(setting("grow", "100000")).await.unwrap().into_inner();
    assert_eq!(answer.setting.unwrap().value.len(), 100_000);
    let refused = client.set(setting("fail", "größer\n✓")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::AlreadyExists, "größer\n✓"));
    let mut request = tonic::Request::new(setting("sleep", ""));
    request.set_timeout(Duration::from_millis(20));
    let code = client.set(request).await.unwrap_err().code();
    assert!(matches!(code, tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{code:?}");
}

#[tokio::test]
async fn large_pushes_pass_over_h2c() {
    let (address, _stop) = listen(app(|config| config.body_bytes_max = 32 << 20)).await;
    let mut client = PusherServiceClient::new(grpc(address).await);
    let push = |bytes: usize| PushRequest {
        series: vec![RawProfileSeries {
            samples: vec![RawSample { raw_profile: vec![7; bytes].into(), id: String::new() }],
            ..Default::default()
        }],
    };
    client.push(push(20 << 20)).await.unwrap();
    let refused = client.push(push(33 << 20)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    client.push(push(1)).await.unwrap();
}

#[tokio::test]
async fn a_body_that_ends_early_ends_its_request_only() {
    let (address, _stop) = listen(app(|_| ())).await;
    for path in ["/length", "/push.v1.PusherService/Push"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/proto\r\ncontent-length: 100\r\n\r\nabc"
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let closed = Clock::system().timeout(5 * SECOND, stream.read_to_string(&mut answer)).await;
        assert!(closed.is_some(), "the connection stays open");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(is_ready(address).await);
}

#[tokio::test]
async fn a_refusal_waits_for_the_body_that_nobody_reads() {
    let (address, _stop) = listen(app(|_| ())).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        let head = b"POST /nothing HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.unwrap();
        Clock::system().sleep(Duration::from_millis(50)).await;
        stream.write_all(b"3\r\nabc\r\n0\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(answer.ends_with("404 page not found\n"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn an_announced_length_alone_is_refused() {
    let (address, _stop) = listen(app(|_| ())).await;
    let head = "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n";
    let answer = raw(address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// Asks for an answer longer than what the kernel keeps for a connection.
async fn ask_for_much(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_answer_is_dropped() {
    let (address, _stop) = listen(app(|config| {
        config.write_timeout = Duration::from_millis(300);
        config.connections_max = 1;
    }))
    .await;
    let mut deaf = ask_for_much(address).await;
    // Its place is free again, although it never closes.
    assert!(is_ready(address).await);
    let mut answer = Vec::new();
    let _ = deaf.read_to_end(&mut answer).await;
    assert!(!answer.is_empty() && answer.len() < echo::HUGE_BYTES, "{} bytes", answer.len());
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_its_answer() {
    let (address, _stop) = listen(app(|config| config.write_timeout = Duration::from_millis(500))).await;
    let mut slow = ask_for_much(address).await;
    let mut buffer = vec![0; 4 << 20];
    let mut seen = 0;
    loop {
        match slow.read(&mut buffer).await.unwrap() {
            0 => break,
            count => seen += count,
        }
        Clock::system().sleep(Duration::from_millis(if seen < echo::HUGE_BYTES / 2 { 50 } else { 0 })).await;
    }
    assert!(seen > echo::HUGE_BYTES, "{seen} bytes");
}

#[tokio::test]
async fn garbage_and_silence_are_dropped() {
    let (address, _stop) = listen(app(|config| config.idle_timeout = Duration::from_millis(300))).await;
    let answer = raw(address, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(raw(address, b"PRI").await, "");
    assert_eq!(raw(address, b"").await, "");
    assert_eq!(raw(address, b"GET /ready HTT").await, "");
    let answer = raw(address, b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.ends_with("ready"), "{answer}");
    assert!(is_ready(address).await);
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let (address, _stop) = listen(app(|_| ())).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(is_ready(address).await);
}

#[tokio::test]
async fn beyond_the_cap_connections_wait_for_a_place() {
    let (address, _stop) = listen(app(|config| config.connections_max = 2)).await;
    let idle = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    Clock::system().sleep(Duration::from_millis(50)).await;
    let waiting = Clock::system().spawn(is_ready(address));
    Clock::system().sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    drop(idle);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_finish() {
    let app = app(|config| config.drain_timeout = 2 * SECOND);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = Clock::system().spawn(async move {
        edge::serve(listener, app, async { drop(stopped.await) }).await;
    });
    let _idle = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na").await.unwrap();
    Clock::system().sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    Clock::system().sleep(Duration::from_millis(50)).await;
    slow.write_all(b"b").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n2"), "{answer}");
    assert!(Clock::system().timeout(SECOND, server).await.is_some());
    assert!(TcpStream::connect(address).await.is_err());
}
