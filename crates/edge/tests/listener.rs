//! Tests of the listener with real connections.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

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

/// Sends `request` unchanged; returns the bytes that arrive until the server closes, or within five seconds.
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
async fn large_pushes_work_over_h2c() {
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
async fn a_body_that_ends_early_fails_only_its_request() {
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
async fn a_refusal_drains_the_unread_body() {
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
async fn a_too_large_content_length_is_refused_at_once() {
    let (address, _stop) = listen(app(|_| ())).await;
    let head = "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n";
    let answer = raw(address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_malformed_chunk_is_a_bad_request() {
    let (address, _stop) = listen(app(|_| ())).await;
    for path in ["/length", "/push.v1.PusherService/Push"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/proto\r\n\
             transfer-encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n"
        );
        let answer = raw(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("request body is malformed"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_over_http1_needs_one_valid_host() {
    let (address, _stop) = listen(app(|_| ())).await;
    let check = async |version: &str, hosts: &str, status: &str| {
        let request = format!("GET /ready {version}\r\n{hosts}connection: close\r\n\r\n");
        let answer = raw(address, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ").replace("1.1", &version[5..])),
            "{hosts:?}: {answer}"
        );
    };
    check("HTTP/1.1", "host: localhost:4040\r\n", "200").await;
    check("HTTP/1.1", "host: [::1]:4040\r\n", "200").await;
    check("HTTP/1.1", "host:\r\n", "200").await;
    check("HTTP/1.0", "", "200").await;
    check("HTTP/1.1", "", "400").await;
    check("HTTP/1.1", "host: a\r\nhost: a\r\n", "400").await;
    check("HTTP/1.0", "host: a\r\nhost: b\r\n", "400").await;
    check("HTTP/1.1", "host: a b\r\n", "400").await;
    check("HTTP/1.1", "host: user@a\r\n", "400").await;
    check("HTTP/1.1", "host: a/b\r\n", "400").await;
}

#[tokio::test]
async fn grpc_over_http1_ends_with_its_status() {
    let (address, _stop) = listen(app(|_| ())).await;
    let head = "POST /settings.v1.SettingsService/Get HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n\
                content-length: 5\r\nconnection: close\r\n";
    let empty = "\r\n\0\0\0\0\0";
    let answer = raw(address, format!("{head}te: trailers\r\n{empty}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("trailer: grpc-status\r\n") && !answer.contains("content-length"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\ngrpc-status: 0\r\n\r\n"), "{answer}");
    // A client that does not ask for trailers gets none.
    let answer = raw(address, format!("{head}{empty}").as_bytes()).await;
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

/// Requests an answer that is larger than the kernel's buffers of a connection.
async fn ask_for_much(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_answer_is_disconnected() {
    let (address, _stop) = listen(app(|config| {
        config.write_timeout = Duration::from_millis(300);
        config.connections_max = 1;
    }))
    .await;
    let mut deaf = ask_for_much(address).await;
    // Its place is free again, although the client never closes.
    let large = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut tries = 0;
    while !raw(address, large).await.starts_with("HTTP/1.1 200 ") {
        tries += 1;
        assert!(tries < 200, "its place is still taken after 10 s");
        Clock::system().sleep(Duration::from_millis(50)).await;
    }
    let mut answer = Vec::new();
    let _ = deaf.read_to_end(&mut answer).await;
    assert!(answer.len() < echo::HUGE_BYTES, "{} bytes", answer.len());
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
async fn connections_with_garbage_or_without_bytes_are_closed() {
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
async fn idle_connections_do_not_block_new_ones() {
    let (address, _stop) = listen(app(|_| ())).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(is_ready(address).await);
}

#[tokio::test]
async fn beyond_the_limit_the_longest_idle_connection_is_closed() {
    let (address, _stop) = listen(app(|config| config.connections_max = 2)).await;
    let mut oldest = TcpStream::connect(address).await.unwrap();
    Clock::system().sleep(Duration::from_millis(50)).await;
    let mut younger = TcpStream::connect(address).await.unwrap();
    Clock::system().sleep(Duration::from_millis(50)).await;
    assert!(is_ready(address).await);
    assert_eq!(oldest.read(&mut [0; 1]).await.unwrap(), 0, "the oldest is closed");
    younger.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    younger.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ready"), "{answer}");
}

/// A connection with a request that waits for its body.
async fn busy(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na").await.unwrap();
    Clock::system().sleep(Duration::from_millis(50)).await;
    stream
}

#[tokio::test]
async fn with_all_connections_busy_probes_are_answered_and_other_requests_refused() {
    let (address, _stop) = listen(app(|config| config.connections_max = 2)).await;
    let mut running = (busy(address).await, busy(address).await);
    for _ in 0..40 {
        assert!(is_ready(address).await);
    }
    let refused = raw(address, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("connection: close") && refused.contains("the limit of 2"), "{refused}");
    running.0.write_all(b"b").await.unwrap();
    let mut answer = vec![0; 4096];
    let count = running.0.read(&mut answer).await.unwrap();
    assert!(answer[..count].ends_with(b"\r\n\r\n2"));
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_finish() {
    let Server { address, stop, ended } =
        Server::start(app(|config| config.drain_timeout = 20 * SECOND)).await;
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
    assert!(Clock::system().timeout(5 * SECOND, ended).await.is_some());
    assert!(TcpStream::connect(address).await.is_err());
}

struct Server {
    address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    ended: clock::Task<()>,
}

impl Server {
    async fn start(app: edge::App) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ended = Clock::system().spawn(async move {
            edge::serve(listener, app, async { drop(stopped.await) }).await;
        });
        Self { address, stop, ended }
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_clients() {
    let strangers: [(&str, Vec<u8>); 6] = [
        ("silence", Vec::new()),
        ("half a request head", b"GET /ready HTTP/1.1\r\nho".to_vec()),
        ("half a preface", b"PRI".to_vec()),
        ("HTTP/2 without a request", http2::hello(65_535)),
        (
            "a body that never ends",
            b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc".to_vec(),
        ),
        ("an unread answer", b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ];
    for (name, sent) in strangers {
        let Server { address, stop, ended } =
            Server::start(app(|config| config.drain_timeout = 60 * SECOND)).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        Clock::system().sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        assert!(Clock::system().timeout(10 * SECOND, ended).await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn an_http2_stream_without_window_is_reset_and_its_connection_stays() {
    let (address, _stop) = listen(app(|config| config.write_timeout = Duration::from_millis(300))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2::hello(65_535)).await.unwrap();
    // The connection gets a window, so that only the stream has none.
    stream.write_all(&http2::window_update(0, 1 << 20)).await.unwrap();
    stream.write_all(&http2::get(1, "/huge")).await.unwrap();
    http2::read_until(&mut stream, |frame| frame.kind == http2::RST_STREAM && frame.stream == 1).await;
    stream.write_all(&http2::get(3, "/ready")).await.unwrap();
    let data = http2::read_until(&mut stream, |frame| frame.kind == http2::DATA && frame.stream == 3).await;
    assert_eq!(data.payload, b"ready");
}

#[tokio::test]
async fn small_answers_without_window_are_reset_too() {
    let (address, _stop) = listen(app(|config| config.write_timeout = Duration::from_millis(300))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2::hello(0)).await.unwrap();
    stream.write_all(&http2::get(1, "/ready")).await.unwrap();
    http2::read_until(&mut stream, |frame| frame.kind == http2::RST_STREAM && frame.stream == 1).await;
}

#[tokio::test]
async fn a_last_piece_without_window_ends_the_connection() {
    let (address, _stop) = listen(app(|config| config.write_timeout = Duration::from_millis(300))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // With a window of one byte, the whole of a small answer has left its stream.
    stream.write_all(&http2::hello(1)).await.unwrap();
    stream.write_all(&http2::get(1, "/ready")).await.unwrap();
    let mut bytes = Vec::new();
    let closed = Clock::system().timeout(10 * SECOND, stream.read_to_end(&mut bytes)).await;
    assert!(closed.is_some());
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_disconnected() {
    let (address, _stop) = listen(app(|config| config.write_timeout = SECOND)).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(address).await.unwrap();
    slow.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 512];
    let mut reads = 0;
    while matches!(slow.read(&mut buffer).await, Ok(1..)) {
        reads += 1;
        assert!(reads < 500, "it is still served after 50 s");
        Clock::system().sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn answers_share_one_budget() {
    let (address, _stop) = listen(app(|config| config.answers_bytes_max = echo::HUGE_BYTES + 100_000)).await;
    let held = ask_for_much(address).await;
    Clock::system().sleep(Duration::from_millis(300)).await;
    let refused = raw(address, b"GET /huge HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(
        refused.contains("\"unavailable\"") && refused.contains("the limit of 42043040 bytes"),
        "{refused}"
    );
    assert!(is_ready(address).await, "small answers always find room");
    drop(held);
    Clock::system().sleep(Duration::from_millis(300)).await;

    let stalled = ask_for_much(address).await;
    Clock::system().sleep(Duration::from_millis(1500)).await;
    let mut served = ask_for_much(address).await;
    let mut answer = Vec::new();
    served.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() > echo::HUGE_BYTES, "an unread answer is ended to make room");
    drop(stalled);
}

/// The parts of HTTP/2 that a misbehaving client needs.
mod http2 {
    use clock::Clock;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    pub(super) const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;

    pub(super) struct Frame {
        pub(super) kind: u8,
        pub(super) stream: u32,
        pub(super) payload: Vec<u8>,
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The preface, with `window` as the initial window of every stream.
    pub(super) fn hello(window: u32) -> Vec<u8> {
        let initial_window_size = [&[0, 4], &window.to_be_bytes()[..]].concat();
        let settings = frame(SETTINGS, 0, 0, &initial_window_size);
        let acknowledgement = frame(SETTINGS, 1, 0, &[]);
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &acknowledgement].concat()
    }

    pub(super) fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    /// A whole request: indexed `:method: GET` and `:scheme: http`, literal `:path` and `:authority`.
    pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
        let headers = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 1, b'x']].concat();
        const END_STREAM_AND_HEADERS: u8 = 0x5;
        frame(HEADERS, END_STREAM_AND_HEADERS, stream, &headers)
    }

    /// Reads until the first wanted frame.
    pub(super) async fn read_until(stream: &mut TcpStream, is_wanted: impl Fn(&Frame) -> bool) -> Frame {
        let read = async {
            loop {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                stream.read_exact(&mut payload).await.unwrap();
                let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let frame = Frame { kind: head[3], stream: id, payload };
                if is_wanted(&frame) {
                    return frame;
                }
            }
        };
        Clock::system().timeout(10 * super::SECOND, read).await.unwrap()
    }
}
