//! Tests of all protocols of the edge, without a network.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod echo;

use bytes::Bytes;
use echo::{Answer, app, ask};
use formats::gzip;
use prost::Message;
use wire::settings::v1::{SetSettingsRequest, SetSettingsResponse, Setting};

const SET: &str = "/settings.v1.SettingsService/Set";
const GET: &str = "/settings.v1.SettingsService/Get";
const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/proto");
const GZIPPED: (&str, &str) = ("content-encoding", "gzip");

fn set(name: &str, value: &str) -> Vec<u8> {
    let setting = Setting { name: name.into(), value: value.into(), modified_at: 0 };
    SetSettingsRequest { setting: Some(setting) }.encode_to_vec()
}

fn sealed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&[flag], &length[..], message].concat()
}

#[track_caller]
fn check(answer: &Answer, status: u16, text: &str) {
    assert_eq!((answer.status, answer.text()), (status, text));
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, code: &str, message_part: &str) {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["message"].as_str().unwrap_or_default().contains(message_part), "{body}");
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn connect_json_is_answered_in_json() {
    let app = app(|_| ());
    let body = r#"{"setting":{"name":"a","modified_at":5,"modifiedAt":"5","new":{}},"x":null}"#;
    let body = body.replace(r#""modified_at":5,"#, "");
    let answer = ask(&app, "POST", SET, &[JSON], body).await;
    check(&answer, 200, r#"{"setting":{"name":"a","modifiedAt":"5"}}"#);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-request-id").len(), 32);

    check(&ask(&app, "POST", SET, &[JSON], "{}").await, 200, "{}");
    let charset = ("content-type", "application/json; charset=utf-8");
    let answer = ask(&app, "POST", SET, &[charset, ("connect-protocol-version", "1")], "{}").await;
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
}

#[tokio::test]
async fn json_numbers_may_be_floats_strings_and_null() {
    let app = app(|_| ());
    for number in ["1793534400000", "1793534400000.0", "1.7935344e12", r#""1793534400000""#] {
        let body = format!(r#"{{"setting":{{"name":null,"modifiedAt":{number}}}}}"#);
        let answer = ask(&app, "POST", SET, &[JSON], body).await;
        check(&answer, 200, r#"{"setting":{"modifiedAt":"1793534400000"}}"#);
    }
}

#[tokio::test]
async fn connect_protobuf_is_answered_in_protobuf() {
    let app = app(|_| ());
    let answer = ask(&app, "POST", SET, &[PROTO], set("a", "b")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &set("a", "b")[..]));
    assert_eq!(answer.header("content-type"), "application/proto");
    assert_eq!(answer.header("content-encoding"), "");
    assert_eq!(ask(&app, "POST", SET, &[PROTO], "").await.body, "");
}

#[tokio::test]
async fn connect_requests_may_be_gzipped_and_answers_are_if_allowed() {
    let app = app(|_| ());
    let small = gzip::compress(&set("grow", "10"), 1);
    let answer = ask(&app, "POST", SET, &[PROTO, GZIPPED, ("accept-encoding", "gzip")], small).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, ""));

    let large = gzip::compress(&set("grow", "300000"), 1);
    let answer = ask(&app, "POST", SET, &[PROTO, GZIPPED, ("accept-encoding", "gzip")], large).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, "gzip"));
    let plain = gzip::decompress(&answer.body, 1 << 20).unwrap();
    let response = SetSettingsResponse::decode(plain).unwrap();
    assert_eq!(response.setting.unwrap().value.len(), 300_000);

    let members = [gzip::compress(b"{\"setting\":", 1), gzip::compress(b"{}}", 1)].concat();
    check(&ask(&app, "POST", SET, &[JSON, GZIPPED], members).await, 200, "{\"setting\":{}}");
    check(&ask(&app, "POST", SET, &[JSON, ("content-encoding", "identity")], "{}").await, 200, "{}");
}

#[tokio::test]
async fn an_undecodable_message_is_a_client_error() {
    let app = app(|_| ());
    let check = async |headers: &[(&str, &str)], body: &[u8], part: &str| {
        let answer = ask(&app, "POST", SET, headers, Bytes::copy_from_slice(body)).await;
        check_refused(&answer, 400, "invalid_argument", part);
    };
    check(&[PROTO], &[0xff, 0xff], "unmarshal message").await;
    check(&[JSON], b"", "zero-length payload").await;
    check(&[JSON], b"{", "unmarshal message").await;
    check(&[JSON], b"[]", "unmarshal message").await;
    check(&[JSON], b"{} {}", "unmarshal message").await;
    check(&[JSON], br#"{"setting":{"modifiedAt":"x"}}"#, "unmarshal message").await;
    check(&[JSON], br#"{"setting":{"name":"\ud800"}}"#, "unmarshal message").await;
    check(&[JSON], "[".repeat(100_000).as_bytes(), "unmarshal message").await;
    check(&[JSON, GZIPPED], b"{}", "corrupt").await;
    let cut = gzip::compress(&set("a", "b"), 1);
    check(&[PROTO, GZIPPED], &cut[..cut.len() - 1], "corrupt").await;
    check(&[JSON, ("connect-protocol-version", "2")], b"{}", "must be \"1\"").await;
    check(&[JSON, ("connect-timeout-ms", "abc")], b"{}", "parse timeout").await;
    check(&[JSON, ("connect-timeout-ms", "12345678901")], b"{}", "10 digits").await;
}

#[tokio::test]
async fn an_unknown_compression_is_unimplemented() {
    let app = app(|_| ());
    let answer = ask(&app, "POST", SET, &[JSON, ("content-encoding", "br")], "{}").await;
    check_refused(&answer, 501, "unimplemented", "supported encodings are gzip");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let app = app(|_| ());
    let answer = ask(&app, "POST", SET, &[PROTO], vec![0; (1 << 20) + 1]).await;
    check_refused(&answer, 429, "resource_exhausted", "limit of 1048576");
    let bomb = gzip::compress(&vec![0; 64 << 20], 9);
    let answer = ask(&app, "POST", SET, &[PROTO, GZIPPED], bomb.clone()).await;
    check_refused(&answer, 429, "resource_exhausted", "limit of 1048576");
    let headers = [("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
    let answer = ask(&app, "POST", SET, &headers, sealed(1, &bomb)).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "8"));
}

#[tokio::test]
async fn a_compressed_message_is_charged_for_before_it_is_decompressed_and_copied() {
    let app = app(|config| config.bodies_bytes_max = 1 << 20);
    let zipped = |bytes| gzip::compress(&set("a", &"b".repeat(bytes)), 9);
    let answer = ask(&app, "POST", SET, &[PROTO, GZIPPED], zipped(600_000)).await;
    check_refused(&answer, 503, "unavailable", "server.request_bodies_bytes_max");
    let mut liar = zipped(900_000);
    let end = liar.len();
    liar[end - 4..].copy_from_slice(&10_u32.to_le_bytes());
    let answer = ask(&app, "POST", SET, &[PROTO, GZIPPED], liar).await;
    assert!([400, 503].contains(&answer.status), "{answer:?}");
    assert_eq!(ask(&app, "POST", SET, &[PROTO, GZIPPED], zipped(400_000)).await.status, 200);
}

#[tokio::test]
async fn bodies_share_one_budget() {
    let app = app(|config| config.bodies_bytes_max = 1000);
    let answer = ask(&app, "POST", SET, &[PROTO], vec![0; 1001]).await;
    check_refused(&answer, 503, "unavailable", "limit of 1000");
    let zipped = gzip::compress(&set("a", &"b".repeat(2000)), 1);
    let answer = ask(&app, "POST", SET, &[PROTO, GZIPPED], zipped).await;
    check_refused(&answer, 503, "unavailable", "limit of 1000");
    // The whole budget is free again; a message counts twice, because the service's decoder copies it.
    let answer = ask(&app, "POST", SET, &[PROTO], set("a", &"b".repeat(400))).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn errors_of_services_keep_code_and_message() {
    let app = app(|_| ());
    let body = r#"{"setting":{"name":"fail","value":"größer ✓ 100%\n"}}"#;
    let answer = ask(&app, "POST", SET, &[JSON], body).await;
    check(&answer, 409, r#"{"code":"already_exists","message":"größer ✓ 100%\n"}"#);
    let answer = ask(&app, "POST", SET, &[PROTO], set("fail", "")).await;
    check(&answer, 409, r#"{"code":"already_exists"}"#);
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn grpc_errors_are_trailers_without_a_body() {
    let app = app(|_| ());
    for content_type in ["application/grpc", "application/grpc-web+proto"] {
        let headers = [("content-type", content_type)];
        let body = sealed(0, &set("fail", "größer 100%"));
        let answer = ask(&app, "POST", SET, &headers, body).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
        assert_eq!(answer.header("content-type"), content_type);
        assert_eq!(answer.header("grpc-status"), "6");
        assert_eq!(answer.header("grpc-message"), "gr%C3%B6%C3%9Fer%20100%25");
    }
}

#[tokio::test]
async fn grpc_is_answered_with_trailers() {
    let app = app(|_| ());
    let headers = [("content-type", "application/grpc"), ("grpc-accept-encoding", "gzip")];
    let answer = ask(&app, "POST", SET, &headers, sealed(0, &set("a", "b"))).await;
    assert_eq!(&answer.body[..], &sealed(0, &set("a", "b"))[..]);
    assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0");

    let headers = [headers[0], headers[1], ("grpc-encoding", "gzip")];
    let zipped = sealed(1, &gzip::compress(&set("grow", "5000"), 1));
    let answer = ask(&app, "POST", SET, &headers, zipped).await;
    assert_eq!((answer.header("grpc-encoding"), answer.body[0]), ("gzip", 1));
    let plain = gzip::decompress(&answer.body[5..], 1 << 20).unwrap();
    assert!(SetSettingsResponse::decode(plain).unwrap().setting.unwrap().value.len() == 5000);
}

#[tokio::test]
async fn grpc_may_carry_json() {
    let app = app(|_| ());
    let headers = [("content-type", "application/grpc+json")];
    let answer = ask(&app, "POST", SET, &headers, sealed(0, br#"{"setting":{"name":"a"}}"#)).await;
    assert_eq!(&answer.body[..], &sealed(0, br#"{"setting":{"name":"a"}}"#)[..]);
    assert_eq!(answer.header("content-type"), "application/grpc+json");
}

#[tokio::test]
async fn grpc_web_carries_its_trailers_in_the_body() {
    let app = app(|_| ());
    let headers = [("content-type", "application/grpc-web+proto")];
    let answer = ask(&app, "POST", SET, &headers, sealed(0, &set("a", "b"))).await;
    let expected = [sealed(0, &set("a", "b")), sealed(0x80, b"grpc-status: 0\r\n")].concat();
    assert_eq!(&answer.body[..], &expected[..]);
    assert_eq!(answer.header("content-type"), "application/grpc-web+proto");
}

#[tokio::test]
async fn a_unary_request_has_exactly_one_message() {
    let app = app(|_| ());
    let check = async |body: Vec<u8>, status: &str| {
        let headers = [("content-type", "application/grpc-web")];
        let answer = ask(&app, "POST", SET, &headers, body.clone()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, status), "{body:?}");
    };
    check(vec![], "12").await;
    check(vec![0, 0, 0, 0], "3").await;
    check(sealed(0, b"abc")[..6].to_vec(), "3").await;
    check([sealed(0, b""), sealed(0, b"")].concat(), "12").await;
    check(sealed(1, b""), "13").await;
    check(sealed(2, b""), "3").await;
    check(vec![0, 0xff, 0xff, 0xff, 0xff], "3").await;
}

#[tokio::test]
async fn only_post_reaches_a_method() {
    let app = app(|_| ());
    for method in ["GET", "PUT", "OPTIONS", "HEAD"] {
        let answer = ask(&app, method, SET, &[], "").await;
        check(&answer, 405, "");
        assert_eq!(answer.header("allow"), "POST");
    }
}

#[tokio::test]
async fn an_unknown_content_type_is_refused_with_a_list_of_the_known_ones() {
    let app = app(|_| ());
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "äö")]] {
        let answer = ask(&app, "POST", SET, headers, "{}").await;
        check(&answer, 415, "");
        assert!(answer.header("accept-post").starts_with("application/grpc, "));
        assert!(answer.header("accept-post").ends_with(", application/proto"));
    }
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let app = app(|_| ());
    for path in ["/settings.v1.SettingsService/Nope", "/nope.v1.Nope/Nope", "/nothing", "/ready/"] {
        let answer = ask(&app, "POST", path, &[JSON], "{}").await;
        check(&answer, 404, "404 page not found\n");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let answer = ask(&app, "GET", "/api/nothing", &[], "").await;
    check(&answer, 404, r#"{"code":5,"details":[],"message":"Not Found"}"#);
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = ask(&app, "POST", "/api/known", &[], "").await;
    check(&answer, 501, r#"{"code":12,"details":[],"message":"Method Not Allowed"}"#);
}

#[tokio::test]
async fn plain_routes_refuse_other_methods_without_a_body() {
    let app = app(|_| ());
    for method in ["POST", "PUT", "DELETE", "TRACE"] {
        let answer = ask(&app, method, "/ready", &[], "x").await;
        check(&answer, 405, "");
        assert_eq!(answer.header("allow"), "GET,HEAD");
    }
    let answer = ask(&app, "HEAD", "/length", &[], "").await;
    check(&answer, 405, "");
    assert_eq!(answer.header("allow"), "POST");
}

#[tokio::test]
async fn head_is_answered_as_get_without_the_body() {
    let app = app(|_| ());
    for path in ["/ready", "/api/known", "/large"] {
        let whole = ask(&app, "GET", path, &[], "").await;
        let head = ask(&app, "HEAD", path, &[], "").await;
        check(&head, 200, "");
        assert_eq!(head.header("content-length"), whole.body.len().to_string());
        assert_eq!(head.header("content-type"), whole.header("content-type"));
    }
    assert_eq!(ask(&app, "HEAD", "/nothing", &[], "").await.status, 404);
    let answer = ask(&app, "HEAD", "/api/nothing", &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"));
}

#[tokio::test]
async fn plain_routes_get_limited_bodies_unchanged() {
    let app = app(|_| ());
    let zipped = gzip::compress(b"abc", 1);
    let answer = ask(&app, "POST", "/length", &[GZIPPED], zipped.clone()).await;
    check(&answer, 200, &zipped.len().to_string());
    let answer = ask(&app, "POST", "/length", &[], vec![0; (1 << 20) + 1]).await;
    let refusal =
        "request body too large: more than the limit of 1048576 bytes (limits.ingestion_body_limit_mb)";
    check_refused(&answer, 413, "invalid_argument", refusal);
    check(&ask(&app, "POST", "/small", &[], "1234567890").await, 200, "1234567890");
    check_refused(
        &ask(&app, "POST", "/small", &[], "12345678901").await,
        413,
        "invalid_argument",
        "limit of 10 bytes",
    );
}

#[tokio::test]
async fn large_plain_answers_are_gzipped_if_the_client_allows_it() {
    let app = app(|_| ());
    let answer = ask(&app, "GET", "/large", &[("accept-encoding", "br, gzip")], "").await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert_eq!(gzip::decompress(&answer.body, 6000).unwrap().len(), 6000);
    let answer = ask(&app, "GET", "/large", &[], "").await;
    assert_eq!((answer.header("content-encoding"), answer.body.len()), ("", 6000));
    let answer = ask(&app, "GET", "/ready", &[("accept-encoding", "gzip")], "").await;
    check(&answer, 200, "ready");
}

#[tokio::test]
async fn a_panic_is_an_error_of_one_request() {
    let app = app(|_| ());
    let answer = ask(&app, "GET", "/panic", &[], "").await;
    check_refused(&answer, 500, "unknown", "error while processing request: at the route");
    let answer = ask(&app, "POST", SET, &[PROTO], set("panic", "at the service")).await;
    check_refused(&answer, 500, "unknown", "error while processing request: at the service");
    let headers = [("content-type", "application/grpc")];
    let answer = ask(&app, "POST", SET, &headers, sealed(0, &set("panic", "again"))).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "2"));
}

#[tokio::test]
async fn a_timeout_of_the_client_ends_the_call() {
    let app = app(|_| ());
    let answer = ask(&app, "POST", SET, &[PROTO, ("connect-timeout-ms", "20")], set("sleep", ""));
    check_refused(&answer.await, 504, "deadline_exceeded", "20 ms");
    let headers = [("content-type", "application/grpc"), ("grpc-timeout", "20m")];
    let answer = ask(&app, "POST", SET, &headers, sealed(0, &set("sleep", ""))).await;
    assert_eq!(answer.header("grpc-status"), "4");
    let answer = ask(&app, "POST", GET, &[JSON, ("connect-timeout-ms", "5000")], "{}").await;
    assert!(answer.text().contains(r#"{"name":"deadline","value":"true"}"#));
}

#[tokio::test]
async fn a_slow_body_times_out() {
    let app = app(|config| config.body_timeout = std::time::Duration::from_millis(20));
    let send = async |path: &str| {
        let body = axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let request = http::Request::post(path).header("content-type", "application/proto");
        app.answer(request.body(body).unwrap()).await.status().as_u16()
    };
    assert_eq!(send("/length").await, 408);
    assert_eq!(send(SET).await, 504);
}

#[tokio::test]
async fn the_accept_header_announces_utf8_label_names() {
    let app = app(|_| ());
    let utf8 = ("accept", "*/*; allow-utf8-labelnames=true");
    let answer = ask(&app, "POST", GET, &[JSON, utf8], "{}").await;
    assert!(answer.text().contains(r#"{"name":"utf8","value":"true"}"#));
    let answer = ask(&app, "POST", GET, &[JSON, ("accept", "not a media type;;")], "{}").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().starts_with("Invalid header format: "));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn metadata_of_a_service_becomes_headers() {
    let app = app(|_| ());
    let answer = ask(&app, "POST", GET, &[JSON], "{}").await;
    assert_eq!(answer.header("x-said"), "hello");
    let mine = ("x-request-id", "mine");
    assert_eq!(ask(&app, "POST", GET, &[JSON, mine], "{}").await.header("x-request-id"), "mine");
}

#[tokio::test]
async fn an_explanation_is_a_field_in_connect_json_and_a_trailer_otherwise() {
    let app = app(|_| ());
    let explain = ("x-pyrograph-explain", "true");
    let plain = ask(&app, "POST", GET, &[JSON], "{}").await;
    let fields = plain.text().strip_suffix('}').unwrap();
    let explained = ask(&app, "POST", GET, &[JSON, explain], "{}").await;
    check(&explained, 200, &format!(r#"{fields},"explained":{{"long":"é"}}}}"#));

    let brief = r#"{"brief":"\u00e9\ud83d\ude00"}"#;
    let proto = ("content-type", "application/proto");
    let plain = ask(&app, "POST", GET, &[proto], "").await;
    let answer = ask(&app, "POST", GET, &[proto, explain], "").await;
    assert_eq!(answer.body, plain.body);
    assert_eq!(answer.header("trailer-x-pyrograph-explained"), brief);

    let grpc = ("content-type", "application/grpc");
    let plain = ask(&app, "POST", GET, &[grpc], sealed(0, b"")).await;
    assert!(plain.trailers.get("x-pyrograph-explained").is_none());
    let answer = ask(&app, "POST", GET, &[grpc, explain], sealed(0, b"")).await;
    assert_eq!(answer.body, plain.body);
    assert_eq!(answer.trailers.get("x-pyrograph-explained").unwrap(), brief);
    assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0");

    let web = ("content-type", "application/grpc-web");
    let answer = ask(&app, "POST", GET, &[web, explain], sealed(0, b"")).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains(&format!("x-pyrograph-explained: {brief}\r\n")), "{text}");
}

#[tokio::test]
async fn tenants_come_from_the_header_if_there_are_several() {
    let off = app(|_| ());
    let bad = ("x-scope-orgid", "a/b");
    let answer = ask(&off, "POST", GET, &[JSON, bad], "{}").await;
    assert!(answer.text().contains(r#""[\"anonymous\"]""#), "{}", answer.text());
    check(&ask(&off, "POST", "/tenant", &[bad], "").await, 200, "anonymous");

    let on = app(|config| config.multitenancy = true);
    let two = ("x-scope-orgid", "b|a");
    let answer = ask(&on, "POST", GET, &[JSON, two], "{}").await;
    assert!(answer.text().contains(r#""[\"a\", \"b\"]""#), "{}", answer.text());
    let delete = "/settings.v1.SettingsService/Delete";
    for (path, headers, message) in [
        (GET, &[JSON][..], "no org id"),
        (GET, &[JSON, bad], "unsupported character"),
        (delete, &[JSON, two], "multiple org IDs present"),
        ("/tenant", &[], "no org id"),
        ("/tenant", &[two], "multiple org IDs present"),
    ] {
        let answer = ask(&on, "POST", path, headers, "{}").await;
        check_refused(&answer, 401, "unauthenticated", message);
    }
    check(&ask(&on, "POST", SET, &[JSON], "{}").await, 200, "{}");
    assert_eq!(ask(&on, "GET", "/ready", &[], "").await.status, 200);
}

#[tokio::test]
async fn refusals_of_plain_routes_are_utf8_json() {
    let answer = ask(&app(|_| ()), "GET", "/refuse", &[], "").await;
    check(&answer, 422, "{\"code\":\"unknown\",\"message\":\"größer als das Limit\"}\n");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn few_bytes_with_many_messages_are_refused() {
    let app = app(|config| config.body_bytes_max = 64 << 20);
    let push = "/push.v1.PusherService/Push";
    let bomb = gzip::compress(&[0x0a, 0].repeat(20 << 20), 9);
    let answer = ask(&app, "POST", push, &[PROTO, GZIPPED], bomb).await;
    check_refused(&answer, 429, "resource_exhausted", "limit of 1000000");
    let bomb = format!("{{\"series\":[{}{{}}]}}", "{},".repeat(2_000_000));
    let answer = ask(&app, "POST", push, &[JSON, GZIPPED], gzip::compress(bomb.as_bytes(), 9)).await;
    check_refused(&answer, 429, "resource_exhausted", "limit of 1000000");
}

#[tokio::test]
async fn damaged_requests_never_cause_a_server_error() {
    let app = app(|_| ());
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let zipped = gzip::compress(&set("a", "b"), 6);
    let whole = [
        (PROTO, None, set("a", "b")),
        (PROTO, Some(GZIPPED), zipped.clone()),
        (JSON, None, br#"{"setting":{"name":"a","modifiedAt":"5"}}"#.to_vec()),
        (("content-type", "application/grpc"), None, sealed(0, &set("a", "b"))),
        (("content-type", "application/grpc-web+proto"), Some(("grpc-encoding", "gzip")), sealed(1, &zipped)),
    ];
    for _ in 0..2000 {
        let (content_type, encoding, body) = &whole[random(whole.len())];
        let mut body = body.clone();
        for _ in 0..=random(4) {
            let index = random(body.len());
            match random(3) {
                0 => body[index] = random(256) as u8,
                1 => body.truncate(index + 1),
                _ => body.insert(index, random(256) as u8),
            }
        }
        let headers = [Some(*content_type), *encoding].into_iter().flatten().collect::<Vec<_>>();
        let answer = ask(&app, "POST", SET, &headers, body.clone()).await;
        assert!(answer.status < 500, "{headers:?} {body:?} {answer:?}");
        // The protocol demands 13 for the flag of compression without an encoding.
        assert!(!["2", "14"].contains(&answer.header("grpc-status")), "{headers:?} {body:?}");
    }
}
