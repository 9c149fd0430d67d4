//! Stores that refuse, misbehave or are slow: messages at the start, retries and second requests later.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop where it is"
)]
#![allow(clippy::disallowed_methods, reason = "the server of these tests lives in real time")]

mod fake_s3;

use std::error::Error as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fake_s3::{FakeS3, Reply, Request};
use model::WriterId;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use storage::{CreateOutcome, Key, Metrics, OpenError};

fn slot(seq: u64) -> Key {
    Key::log_slot(WriterId(1), seq)
}

/// The whole chain of causes, as the log shows it.
fn chain(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn exported(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

async fn refusal(rule: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> String {
    let server = FakeS3::start(rule).await;
    chain(&server.open().await.err().expect("refused"))
}

#[tokio::test]
async fn a_conforming_store_opens_and_keeps_only_the_cluster_object() {
    let server = FakeS3::start(|_, _| None).await;
    let store = server.open().await.unwrap();
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["cluster"]);
    let requests = server.requests().len();
    assert!(requests <= 160, "{requests}: {:?}", server.requests());
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_of_creates_is_refused() {
    let ignores =
        |request: &Request, _| (request.method == "PUT").then(|| Reply::new(200, "").header("etag: \"1\""));
    let text = refusal(move |request, before| {
        // The object exists, and the server reports that it wrote it again.
        if before > 1 { ignores(request, before) } else { None }
    })
    .await;
    assert!(text.contains("overwrites an object") && text.contains("If-None-Match"), "{text}");

    // Only creates of a new key that race: an existing object is kept.
    let text = refusal(
        move |request, before| {
            if request.key.starts_with("probe/") { ignores(request, before) } else { None }
        },
    )
    .await;
    assert!(text.contains("overwrites an object"), "{text}");
}

#[tokio::test]
async fn a_store_that_lets_two_creates_win_one_race_in_eight_is_refused() {
    let races: Mutex<Vec<(String, u32)>> = Mutex::default();
    let text = refusal(move |request, _| {
        if request.method != "PUT" || !request.key.starts_with("probe/") {
            return None;
        }
        let mut races = races.lock();
        let number = races.iter().position(|(key, _)| *key == request.key).unwrap_or(races.len());
        if number == races.len() {
            races.push((request.key.clone(), 0));
        }
        races[number].1 += 1;
        let is_second_of_one_race = number == 6 && races[number].1 == 2;
        is_second_of_one_race.then(|| Reply::new(200, "").header("etag: \"1\""))
    })
    .await;
    assert!(text.contains("overwrites an object"), "{text}");
}

#[tokio::test]
async fn a_store_that_refuses_a_suffix_longer_than_the_object_is_read_by_size() {
    for status in [416, 500] {
        let server = FakeS3::start(move |request, _| {
            let suffix = request.headers.get("range")?.strip_prefix("bytes=-")?.parse::<u64>().ok()?;
            (suffix > 1_000).then(|| Reply::error(status, "InvalidRange"))
        })
        .await;
        let store = server.open().await.unwrap();
        store.settle_create(&slot(0), Bytes::from_static(b"0123456789")).await.unwrap();
        let tail = store.get_tail(&slot(0), 65_536).await.unwrap();
        assert_eq!((tail.bytes.as_ref(), tail.object_bytes), (&b"0123456789"[..], 10), "{status}");
        if status == 416 {
            let heads =
                |server: &FakeS3| server.requests().iter().filter(|r| r.starts_with("HEAD log/")).count();
            assert_eq!(heads(&server), 1, "the store remembers that it has no suffix ranges");
        }
    }
}

#[tokio::test]
async fn only_a_known_code_of_a_404_means_absent() {
    let server = FakeS3::start(|request, _| match request.key.as_str() {
        key if key.ends_with("/000000000001") => Some(Reply::error(404, "XAdminUserNotFound")),
        key if key.ends_with("/000000000002") => Some(Reply::new(404, "Not Found")),
        key if key.ends_with("/000000000003") => Some(Reply::error(404, "NoSuchThing")),
        _ => None,
    })
    .await;
    let store = server.open().await.unwrap();
    assert!(matches!(store.get(&slot(0)).await, Err(storage::Error::NotFound(_))));
    assert!(matches!(store.get(&slot(2)).await, Err(storage::Error::NotFound(_))));
    let unknown = store.get(&slot(1)).await.unwrap_err().to_string();
    assert!(
        unknown.contains("does not accept the credentials") && unknown.contains("UserNotFound"),
        "{unknown}"
    );
    let created = store.settle_create(&slot(1), Bytes::from_static(b"x")).await.unwrap_err().to_string();
    assert!(created.contains("does not accept the credentials"), "{created}");
    let other = store.get(&slot(3)).await.unwrap_err().to_string();
    assert!(other.contains("404 NoSuchThing"), "{other}");
}

#[tokio::test]
async fn each_message_names_bucket_and_endpoint_and_holds_no_entities() {
    let server = FakeS3::start(|request, _| {
        let body = "<Error><Code>AccessDenied</Code><Message>scope: &apos;a&apos; &amp; &quot;b&quot;</Message></Error>";
        request.key.starts_with("log/").then(|| Reply::new(403, body))
    })
    .await;
    let mut config = server.config();
    config.prefix = "some/where".into();
    let place = format!("s3://test/some/where at {}", server.authority());
    let opened = FakeS3::start(|request, _| {
        (request.method == "PUT").then(|| Reply::new(200, "").header("etag: \"1\""))
    })
    .await;
    let text = chain(&opened.open().await.err().expect("refused"));
    assert!(text.contains(&format!("s3://test at {} ", opened.authority())), "{text}");
    let store = storage::open(&config, clock::Clock::system(), Metrics::default()).await.unwrap();
    assert_eq!(store.to_string(), place);
    let error = server.open().await.unwrap().get(&slot(0)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("s3://test at {}", server.authority())), "{error}");
    assert!(error.contains("scope: 'a' & \"b\""), "{error}");
}

#[tokio::test]
async fn a_store_whose_listing_or_reading_lags_is_refused() {
    let text = refusal(|request, _| {
        let listing = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        request.query.contains("prefix=probe").then(|| Reply::new(200, listing))
    })
    .await;
    assert!(text.contains("does not list an object that was just written"), "{text}");
    let text = refusal(|request, _| {
        let is_read = request.method == "GET" && request.key.starts_with("probe/");
        is_read.then(|| {
            Reply::new(200, "old")
                .header("etag: \"1\"")
                .header("last-modified: Sun, 06 Nov 1994 08:49:37 GMT")
        })
    })
    .await;
    assert!(text.contains("refused both creates") || text.contains("answered a read"), "{text}");
}

#[tokio::test]
async fn each_refusal_at_the_start_has_its_own_text() {
    async fn check(status: u16, code: &'static str, expected: &[&str]) {
        let text = refusal(move |_, _| Some(Reply::error(status, code))).await;
        for expected in expected {
            assert!(text.contains(expected), "{status} {code}: {text}");
        }
    }
    check(404, "NoSuchBucket", &["the bucket does not exist", "NoSuchBucket", "correct its name"]).await;
    check(
        403,
        "InvalidAccessKeyId",
        &["object cluster", "does not accept the credentials", "check the keys"],
    )
    .await;
    check(403, "SignatureDoesNotMatch", &["does not accept the credentials"]).await;
    check(403, "AccessDenied", &["not permitted", "s3:GetObject", "s3:ListBucket"]).await;
    check(403, "RequestTimeTooSkewed", &["the clock of this machine is", "NTP"]).await;
    check(301, "PermanentRedirect", &["correct region or endpoint"]).await;
}

#[tokio::test]
async fn a_clock_off_by_an_hour_is_reported_with_the_difference() {
    let server = FakeS3::start(|_, _| Some(Reply::error(403, "RequestTimeTooSkewed"))).await;
    server.put_ahead(Duration::from_secs(3_600));
    let text = chain(&server.open().await.err().expect("refused"));
    let is_an_hour =
        ["3600s", "3599s", "3598s"].iter().any(|time| text.contains(&format!("{time} behind the store's")));
    assert!(is_an_hour, "{text}");
}

#[tokio::test]
async fn an_endpoint_without_a_server_is_named() {
    let server = FakeS3::start(|_, _| None).await;
    let mut config = server.config();
    config.s3.endpoint = "http://127.0.0.1:1".into();
    let began = Instant::now();
    let refused = storage::open(&config, clock::Clock::system(), Metrics::default()).await;
    let text = chain(&refused.err().expect("refused"));
    assert!(text.contains("cannot connect to 127.0.0.1:1") && text.contains("check the endpoint"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_permission_to_delete_a_store_opens_and_says_so() {
    let server =
        FakeS3::start(|request, _| (request.method == "DELETE").then(|| Reply::error(403, "AccessDenied")))
            .await;
    let mut registry = Registry::default();
    let store = server.open_metered(Metrics::register(&mut registry)).await.unwrap();
    let denied = "pyrograph_storage_denied{operation=\"delete\"} 1";
    assert!(exported(&registry).contains(denied), "{}", exported(&registry));
    let error = store.delete(&slot(0)).await.unwrap_err();
    assert!(error.is_denied() && error.to_string().contains("s3:DeleteObject"), "{error}");
    assert!(
        !server.requests().iter().any(|request| request.starts_with("PUT probe/")),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn a_store_that_asks_for_a_pause_gets_it() {
    let server = FakeS3::start(|request, before| {
        let is_first = request.key.starts_with("log/") && before.is_multiple_of(2);
        is_first.then(|| Reply::error(503, "SlowDown").header("retry-after: 1"))
    })
    .await;
    let mut registry = Registry::default();
    let store = server.open_metered(Metrics::register(&mut registry)).await.unwrap();
    // So that the next request is one that the rule refuses.
    if !server.requests().len().is_multiple_of(2) {
        store.list("nothing").await.unwrap();
    }
    let began = Instant::now();
    assert!(store.get(&slot(0)).await.is_err(), "it does not exist");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let text = exported(&registry);
    for line in [
        "pyrograph_storage_requests_total{operation=\"get\",class=\"log\",outcome=\"throttled\"} 1",
        "pyrograph_storage_retries_total{operation=\"get\",outcome=\"sent\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_permanently_refused_create_is_not_repeated() {
    let server = FakeS3::start(|request, _| {
        let is_create = request.method == "PUT" && request.key.starts_with("log/");
        is_create.then(|| Reply::error(403, "AccessDenied"))
    })
    .await;
    let store = server.open().await.unwrap();
    let error = store.settle_create(&slot(0), Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.is_denied() && error.to_string().contains("s3:PutObject"), "{error}");
    let puts = server.requests().iter().filter(|request| request.starts_with("PUT log/")).count();
    assert_eq!(puts, 1);
}

#[tokio::test]
async fn a_failing_store_gets_few_extra_requests() {
    let server = FakeS3::start(|request, _| {
        request.key.starts_with("log/").then(|| Reply::error(500, "InternalError"))
    })
    .await;
    let mut registry = Registry::default();
    let store = server.open_metered(Metrics::register(&mut registry)).await.unwrap();
    let reads = (0..300).map(|seq| {
        let store = store.clone();
        async move { store.get(&slot(seq)).await.is_err() }
    });
    assert!(futures::future::join_all(reads).await.into_iter().all(|failed| failed));
    let requests = server.requests().iter().filter(|request| request.starts_with("GET log/")).count();
    assert!((300..=480).contains(&requests), "{requests} requests for 300 reads");
    assert!(exported(&registry).contains("outcome=\"over_budget\""));
}

/// Reads one range 120 times; every 40th response, as the server counts them, takes 2 s. Returns the duration of each
/// read and the metrics.
async fn reads_with_slow_responses(is_hedged: bool) -> (Vec<Duration>, String) {
    let served = std::sync::atomic::AtomicU32::new(0);
    let server = FakeS3::start(move |request, _| {
        if request.method != "GET" || !request.key.starts_with("block/") {
            return None;
        }
        let number = served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let pause = if number % 40 == 39 { Duration::from_secs(2) } else { Duration::from_millis(5) };
        let dated = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
        Some(
            Reply::new(206, "23")
                .header("content-range: bytes 2-3/10")
                .header(dated)
                .header("etag: \"1\"")
                .after(pause),
        )
    })
    .await;
    let mut registry = Registry::default();
    let store = server.open_metered(Metrics::register(&mut registry)).await.unwrap();
    let store = if is_hedged { store.hedged() } else { store };
    let mut took = Vec::new();
    for _ in 0..120 {
        let began = Instant::now();
        let parts =
            store.get_ranges(&Key::from_text("block/x"), std::slice::from_ref(&(2..4))).await.unwrap();
        assert_eq!(parts, ["23"]);
        took.push(began.elapsed());
    }
    (took, exported(&registry))
}

#[tokio::test]
async fn a_read_that_takes_unusually_long_is_sent_again() {
    let (took, metrics) = reads_with_slow_responses(true).await;
    let slow = took.iter().filter(|took| **took > Duration::from_secs(1)).count();
    assert!(slow <= 1, "{slow} of 120 reads waited for the slow answer\n{metrics}");
    assert!(metrics.contains("pyrograph_storage_hedges_total{outcome=\"won\"}"), "{metrics}");
    assert!(metrics.contains("operation=\"range\",class=\"block\",outcome=\"cancelled\""), "{metrics}");
    let (took, metrics) = reads_with_slow_responses(false).await;
    assert_eq!(took.iter().filter(|took| **took > Duration::from_secs(1)).count(), 3);
    assert!(!metrics.contains("storage_hedges_total{"), "{metrics}");
}

#[tokio::test]
async fn creates_are_never_sent_twice_at_once() {
    let server = FakeS3::start(|request, _| {
        let is_slow = request.method == "PUT" && request.key.starts_with("log/");
        is_slow.then(|| Reply::new(200, "").header("etag: \"1\"").after(Duration::from_millis(1_500)))
    })
    .await;
    let store = server.open().await.unwrap().hedged();
    assert_eq!(store.settle_create(&slot(0), Bytes::from_static(b"x")).await.unwrap(), CreateOutcome::Mine);
    let puts = server.requests().iter().filter(|request| request.starts_with("PUT log/")).count();
    assert_eq!(puts, 1);
}
