//! Tests of the push story, through `Distributor::push` and through the HTTP and gRPC interfaces.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clock::{Clock, Pool};
use formats::pprof;
use limits::Overrides;
use model::{Profile, SampleLabel, ValueType};
use prometheus_client::registry::Registry;
use rpc::ErrorKind;

use super::*;
use crate::Config;
use crate::document::PushDocument;

/// Unix nanoseconds of the clock of these tests.
const NOW: i64 = 1_800_000_000_000_000_000;

#[path = "../../../../crates/formats/tests/jfr_writer/mod.rs"]
mod jfr_writer;

struct StoppedClock;

#[async_trait]
impl clock::Source for StoppedClock {
    fn unix(&self) -> Duration {
        Duration::from_nanos(NOW as u64)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }

    fn random(&self) -> u128 {
        Clock::system().random()
    }
}

/// Records pushes, or refuses them.
#[derive(Default)]
struct Recorder {
    pushes: Mutex<Vec<Vec<PushItem>>>,
    is_refusing: bool,
}

#[async_trait]
impl rpc::Ingester for Recorder {
    async fn push(&self, items: Vec<PushItem>) -> Result<(), rpc::Error> {
        if self.is_refusing {
            return Err(rpc::Error::new(ErrorKind::Unavailable, "store is away"));
        }
        self.pushes.lock().unwrap().push(items);
        Ok(())
    }
}

struct Fixture {
    distributor: Arc<Distributor>,
    recorder: Arc<Recorder>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        Self::with(Config::default(), limits, Recorder::default())
    }

    fn with(config: Config, limits: Limits, recorder: Recorder) -> Self {
        let recorder = Arc::new(recorder);
        let distributor = Distributor::new(
            config,
            Arc::new(Overrides::uniform(limits)),
            recorder.clone(),
            Clock::new(StoppedClock),
            Pool::inline(),
            &mut Registry::default(),
        );
        Self { distributor, recorder }
    }

    async fn push(&self, documents: Vec<Document>) -> Result<Receipt, Errors> {
        self.distributor.push(TenantId::anonymous(), documents).await
    }

    /// Items of all pushes, in order.
    fn items(&self) -> Vec<PushItem> {
        self.recorder.pushes.lock().unwrap().concat()
    }
}

fn pushed(labels: &[(&str, &str)], body: impl Into<Bytes>) -> Document {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let one = PushDocument::of_series(labels, std::iter::once(body.into())).next();
    Document::Push(one.expect("a sample"))
}

const APP: [(&str, &str); 2] = [("__name__", "process_cpu"), ("service_name", "app")];

/// A pprof of one second of `main`, in a thread if one is named.
fn cpu(time_nanos: i64, values: &[i64], thread: Option<&str>) -> Vec<u8> {
    let mut profile = Profile { time_nanos, ..Profile::default() };
    let strings = &mut profile.symbols.strings;
    for string in ["", "cpu", "nanoseconds", "main", "thread", thread.unwrap_or_default()] {
        strings.push(string.as_bytes());
    }
    profile.sample_types = vec![ValueType { r#type: 1, unit: 2 }];
    profile.period_type = Some(ValueType { r#type: 1, unit: 2 });
    profile.symbols.functions.push(model::Function { name: 3, ..Default::default() });
    profile.symbols.locations.push(model::NONE, 7, false, &[model::Line { function: 0, line: 1 }]);
    for value in values {
        profile.symbols.stacktraces.push(&[0]);
        profile.samples.values.push(*value);
        if thread.is_some() {
            let label = SampleLabel { key: 4, string: 5, ..Default::default() };
            profile.samples.labels.push(label);
        }
        profile.samples.label_offsets.push(profile.samples.labels.len() as u32);
    }
    pprof::encode(&profile)
}

#[tokio::test]
async fn a_profile_becomes_one_item_with_its_series() {
    let fixture = Fixture::new(Limits::default());
    let body = cpu(NOW, &[1, 0, 2, -3], Some("t"));
    fixture.push(vec![pushed(&APP, body)]).await.unwrap();
    let items = fixture.items();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].profile.time_nanos, NOW);
    let [series] = &items[0].series[..] else { panic!("{:?}", items[0].series) };
    assert_eq!(series.samples, [0, 2]);
    assert_eq!(series.labels.to_string(), r#"{service_name="app", thread="t"}"#);
    assert_eq!(series.schema.profile_type(0).to_string(), "process_cpu:cpu:nanoseconds:cpu:nanoseconds");
}

#[tokio::test]
async fn one_request_is_one_push_to_the_ingester_in_order() {
    let fixture = Fixture::new(Limits { ingestion_rate_mb: 0.0, ..Limits::default() });
    // Enough for several pieces.
    let symbol = vec![b'x'; 60_000];
    let documents: Vec<_> = (1..=20)
        .map(|value| {
            let body = [cpu(NOW, &[value], None), [&[0x32, 0xe0, 0xd4, 0x03], &symbol[..]].concat()];
            pushed(&APP, body.concat())
        })
        .collect();
    assert!(pieces(documents).len() > 3);
    let documents = (1..=20).map(|value| pushed(&APP, cpu(NOW, &[value], None))).collect();
    fixture.push(documents).await.unwrap();
    assert_eq!(fixture.recorder.pushes.lock().unwrap().len(), 1);
    let values: Vec<_> = fixture.items().iter().map(|i| i.profile.samples.values[0]).collect();
    assert_eq!(values, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn good_profiles_are_stored_beside_bad_ones() {
    let fixture = Fixture::new(Limits::default());
    let documents = vec![
        pushed(&APP, cpu(NOW, &[1], None)),
        pushed(&APP, &b"\x1f\x8bno gzip"[..]),
        pushed(&APP[..1], cpu(NOW, &[2], None)),
        pushed(&APP[1..], cpu(NOW, &[3], None)),
    ];
    let errors = fixture.push(documents).await.unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::InvalidArgument);
    let text = errors.to_string();
    assert!(text.starts_with("2 errors: profile 1 of 4: gzip"), "{text}");
    assert!(text.contains("profile 3 of 4: series {service_name=\"app\"} has no metric"), "{text}");
    let services: Vec<_> = fixture.items().iter().map(|i| i.series[0].labels.to_string()).collect();
    assert_eq!(services, [r#"{service_name="app"}"#, r#"{service_name="unknown_service"}"#]);
}

#[tokio::test]
async fn a_profile_without_counted_samples_succeeds_without_a_push() {
    let fixture = Fixture::new(Limits::default());
    let receipt = fixture.push(vec![pushed(&APP, cpu(NOW, &[0, 0], None))]).await.unwrap();
    assert_eq!(receipt, Receipt::default());
    assert!(fixture.recorder.pushes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn discarded_samples_are_counted_in_the_receipt_and_a_profile_of_only_those_is_refused() {
    let fixture = Fixture::new(Limits::default());
    let documents = vec![pushed(&APP, cpu(NOW, &[5, 0, -1], None)), pushed(&APP, cpu(NOW, &[6, -2], None))];
    let receipt = fixture.push(documents).await.unwrap();
    assert_eq!((receipt.stored, receipt.discarded.header().as_str()), (2, "negative_value=2"));
    let errors = fixture.push(vec![pushed(&APP, cpu(NOW, &[0, -1], None))]).await.unwrap_err();
    assert!(errors.to_string().contains("none of 2 samples"), "{errors}");
    assert_eq!(errors.kind(), ErrorKind::InvalidArgument);
    assert_eq!(fixture.items().len(), 2);
}

#[tokio::test]
async fn a_tenant_cannot_exceed_its_series_limit() {
    let fixture = Fixture::new(Limits { max_global_series_per_tenant: 2, ..Limits::default() });
    let push = async |thread| fixture.push(vec![pushed(&APP, cpu(NOW, &[1], Some(thread)))]).await;
    for thread in ["a", "b", "a"] {
        push(thread).await.unwrap();
    }
    let errors = push("c").await.unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::InvalidArgument);
    assert_eq!(errors.first().map(Error::reason), Some("series_limit"));
    assert!(errors.to_string().contains("has 2 active series, 1 more"), "{errors}");
    assert_eq!(fixture.items().len(), 3);
}

#[tokio::test]
async fn a_request_without_profiles_is_refused() {
    let errors = Fixture::new(Limits::default()).push(Vec::new()).await.unwrap_err();
    assert_eq!(errors.to_string(), "no profiles received");
    assert_eq!(errors.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn labels_of_a_series_count_for_each_of_its_samples() {
    let fixture = Fixture::new(Limits { ingestion_body_limit_mb: 1.0, ..Limits::default() });
    let text = async |label: &str, labels, samples| {
        let labels = (0..labels).map(|_| (label.to_owned(), String::new()));
        let samples = std::iter::repeat_n(Bytes::new(), samples);
        let documents = PushDocument::of_series(labels, samples).map(Document::Push).collect();
        fixture.push(documents).await.unwrap_err().to_string()
    };
    for (label, labels) in [("x".repeat(100_000), 1), (String::new(), 2_100)] {
        assert!(!text(&label, labels, 10).await.contains("limit of one request"));
        assert!(text(&label, labels, 11).await.contains("limit of one request"));
    }
}

#[tokio::test]
async fn equal_documents_have_equal_keys_however_they_are_compressed() {
    let fixture = Fixture::new(Limits::default());
    let body = cpu(NOW, &[1], None);
    let zipped = formats::gzip::compress(&body, 6);
    let documents =
        vec![pushed(&APP, body.clone()), pushed(&[APP[1], APP[0]], zipped), pushed(&APP[..1], body)];
    fixture.push(documents).await.unwrap();
    let keys: Vec<_> = fixture.items().iter().map(|item| item.key).collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
}

#[tokio::test]
async fn a_profile_without_time_counts_each_time_it_is_sent() {
    let fixture = Fixture::new(Limits::default());
    for _ in 0..2 {
        fixture.push(vec![pushed(&APP, cpu(0, &[1], None))]).await.unwrap();
    }
    let items = fixture.items();
    assert_ne!(items[0].key, items[1].key);
    assert_eq!(items[0].profile.time_nanos, NOW);
}

#[tokio::test]
async fn a_request_that_grows_past_its_limit_fails_as_a_whole() {
    let body = cpu(NOW, &[1], None);
    let two = ((body.len() + pushed(&APP, body.clone()).shared_bytes()) * 2) as f64 / limits::MEBIBYTE;
    let fixture = Fixture::new(Limits { ingestion_body_limit_mb: two, ..Limits::default() });
    let documents = |count| (0..count).map(|_| pushed(&APP, body.clone())).collect();
    fixture.push(documents(2)).await.unwrap();
    let errors = fixture.push(documents(3)).await.unwrap_err();
    assert!(errors.to_string().contains("limit of one request"), "{errors}");
    assert_eq!(fixture.items().len(), 2);
}

#[tokio::test]
async fn a_request_of_bombs_ends_at_its_limit() {
    let limits = Limits {
        max_profile_size_bytes: 1000,
        ingestion_body_limit_mb: 1500.0 / limits::MEBIBYTE,
        ..Limits::default()
    };
    let bomb = formats::gzip::compress(&[0; 100_000], 6);
    let documents = |count| (0..count).map(|_| pushed(&APP, bomb.clone())).collect();
    let one = Fixture::new(limits.clone()).push(documents(1)).await.unwrap_err();
    assert!(one.to_string().contains("expand to more"), "{one}");
    let many = Fixture::new(limits.clone()).push(documents(100)).await.unwrap_err();
    assert!(many.to_string().contains("expand to more"), "{many}");
    // Documents that announce too small a size are decompressed up to the limit.
    let mut liar = bomb.clone();
    let end = liar.len();
    liar[end - 4..].copy_from_slice(&100_u32.to_le_bytes());
    let liars = (0..100).map(|_| pushed(&APP, liar.clone())).collect();
    let many = Fixture::new(limits).push(liars).await.unwrap_err();
    assert!(many.to_string().contains("limit of one request"), "{many}");
}

#[tokio::test]
async fn a_push_over_the_tenants_rate_is_refused_with_a_time_to_retry() {
    let limits = Limits { ingestion_rate_mb: 0.0001, ingestion_burst_size_mb: 0.0001, ..Limits::default() };
    let fixture = Fixture::new(limits);
    fixture.push(vec![pushed(&APP, cpu(NOW, &[1], None))]).await.unwrap();
    let errors = fixture.push(vec![pushed(&APP, cpu(NOW, &[1], None))]).await.unwrap_err();
    let ErrorKind::Exhausted { retry_after } = errors.kind() else { panic!("{errors}") };
    assert!(retry_after > Duration::ZERO);
}

#[tokio::test]
async fn memory_in_flight_is_bounded_and_released() {
    let config = Config { inflight_bytes_max: 1, ..Config::default() };
    let fixture = Fixture::with(config, Limits::default(), Recorder::default());
    let documents = |count| (0..count).map(|_| pushed(&APP, cpu(NOW, &[1], None))).collect();
    for _ in 0..2 {
        fixture.push(documents(1)).await.unwrap();
    }
    let errors = fixture.push(documents(2)).await.unwrap_err();
    assert!(matches!(errors.kind(), ErrorKind::Exhausted { .. }), "{errors}");
    assert_eq!(fixture.items().len(), 3);
    assert_eq!(fixture.distributor.metrics.inflight_bytes.get(), 0);
}

#[tokio::test]
async fn a_refusal_by_the_ingester_is_passed_on() {
    let recorder = Recorder { is_refusing: true, ..Recorder::default() };
    let fixture = Fixture::with(Config::default(), Limits::default(), recorder);
    let errors = fixture.push(vec![pushed(&APP, cpu(NOW, &[1], None))]).await.unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::Unavailable);
    assert_eq!(errors.to_string(), "store is away");
}

mod answers {
    use axum::body::Body;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use prost::Message;
    use wire::push::v1::{PushRequest, RawProfileSeries, RawSample};
    use wire::types::v1::LabelPair;

    use super::*;

    impl Fixture {
        /// Status and body of the whole server's answer, with multitenancy on.
        async fn answer(&self, request: Request<Body>) -> (StatusCode, String) {
            let app = edge::App::new(
                self.distributor.clone().routes(),
                edge::Config { multitenancy: true, ..edge::Config::default() },
                Clock::new(StoppedClock),
                clock::Pools::inline(),
                &mut Registry::default(),
            );
            let response = app.answer(request).await;
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        }

        async fn ingest(&self, query: &str, body: impl Into<Body>) -> (StatusCode, String) {
            self.answer(request(&format!("/ingest?{query}"), "", body)).await
        }

        /// Status of the answer to an ingest, and the headers with sample counts, or else the body.
        async fn receipt(&self, query: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
            let app = edge::App::new(
                self.distributor.clone().routes(),
                edge::Config { multitenancy: true, ..edge::Config::default() },
                Clock::new(StoppedClock),
                clock::Pools::inline(),
                &mut Registry::default(),
            );
            let mut request = Request::post(format!("/ingest?{query}")).header("x-scope-orgid", "team");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = app.answer(request.body(body.into()).unwrap()).await;
            let status = response.status().as_u16();
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let stored = header("x-pyrograph-stored-samples");
            let discarded = header("x-pyrograph-discarded-samples");
            match (status, stored) {
                (200, Some(stored)) => (status, [vec![stored], Vec::from_iter(discarded)].concat().join(" ")),
                _ => {
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    (status, String::from_utf8_lossy(&body).into_owned())
                }
            }
        }

        /// Labels and values of each series of each item.
        fn stored(&self) -> Vec<String> {
            let series = |item: &PushItem| {
                let profile = item.profile.clone();
                let text = |rows: &model::SeriesRows| {
                    let value = |sample: &u32| profile.samples.values[*sample as usize];
                    let values: Vec<_> = rows.samples.iter().map(value).collect();
                    format!("{} {} {values:?}", rows.schema.profile_type(0), rows.labels)
                };
                item.series.iter().map(text).collect::<Vec<_>>()
            };
            self.items().iter().flat_map(series).collect()
        }
    }

    fn request(path: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
        let request = Request::post(path).header("x-scope-orgid", "team");
        request.header("content-type", content_type).body(body.into()).unwrap()
    }

    fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, content) in files {
            let head = format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--xyz--\r\n");
        body
    }

    const FORM: &str = "multipart/form-data; boundary=xyz";

    #[tokio::test]
    async fn folded_text_is_scaled_by_the_sample_rate() {
        let fixture = Fixture::new(Limits::default());
        let text = "main;foo 3\nmain;bar 1\n";
        let query = "name=app.cpu%7Benv%3Ddev%7D&from=now-10s&until=now&sampleRate=100";
        assert_eq!(fixture.ingest(query, text).await, (StatusCode::OK, String::new()));
        let expected = r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds {env="dev", pyroscope_spy="unknown", service_name="app"} [30000000, 10000000]"#;
        assert_eq!(fixture.stored(), [expected]);
        assert_eq!(fixture.items()[0].profile.time_nanos, NOW - 10_000_000_000);
    }

    #[tokio::test]
    async fn answers_count_stored_and_discarded_samples() {
        let fixture = Fixture::new(Limits::default());
        let check = async |query: &str, body: &str, expected: &str| {
            let answer = fixture.receipt(query, &[], body.into()).await;
            assert_eq!(answer, (200, expected.to_owned()), "{body}");
        };
        check("name=app.cpu", "a 1\nb 2", "2").await;
        check("name=app.cpu", "a 1\nno-count\nb -2", "1 negative_value=1, line_without_count=1").await;
        check("name=app.cpu", "a 0", "0").await;
        check("name=app.cpu", "\n", "0").await;
        check("name=app.cpu", "", "0").await;
        check("name=app.cpu%7Bprofile_id%3Dx%7D", "a 1\nb 2", "0 span_profile=2").await;
    }

    #[tokio::test]
    async fn formats_and_compression_are_detected_from_the_content() {
        let pprof = cpu(NOW, &[5], None);
        let zipped = formats::gzip::compress(&pprof, 6);
        let text = formats::gzip::compress(b"a 1", 6);
        let gzip = ("content-encoding", "gzip");
        let cases: [(&str, &[(&str, &str)], &[u8]); 8] = [
            ("name=app", &[], &pprof),
            ("name=app", &[], &zipped),
            ("name=app&format=unknown", &[gzip], &zipped),
            ("name=app&format=pprof", &[gzip], &formats::gzip::compress(&zipped, 6)),
            ("name=app", &[], &text),
            ("name=app&format=folded", &[gzip], &text),
            ("name=app&format=lines", &[gzip], &text),
            (
                "name=app",
                &[gzip, ("content-type", FORM)],
                &formats::gzip::compress(&form(&[("profile", &zipped)]), 6),
            ),
        ];
        for (query, headers, body) in cases {
            let fixture = Fixture::new(Limits::default());
            assert_eq!(
                fixture.receipt(query, headers, body.to_vec()).await,
                (200, "1".to_owned()),
                "{query}"
            );
            assert_eq!(fixture.items().len(), 1);
        }
    }

    #[tokio::test]
    async fn unknown_content_is_refused_with_its_recognised_kind() {
        let fixture = Fixture::new(Limits::default());
        let curl = ("content-type", "application/x-www-form-urlencoded");
        let form_type = ("content-type", FORM);
        let cases: [(&str, &[(&str, &str)], &[u8], u16, &str); 11] = [
            ("name=a", &[("content-encoding", "br")], b"a 1", 415, "br"),
            ("name=a", &[], b"no\ncounts", 422, "none of 2 lines"),
            ("name=a", &[], b"<html> <b>x", 422, "an HTML page"),
            ("name=a&format=pprof", &[], b"<html>", 422, "profile is no pprof, it looks like an HTML page"),
            ("name=a&format=pprof", &[], b"a;b 3\n", 422, "it looks like folded text"),
            ("name=a&format=folded", &[], &cpu(NOW, &[5], None), 422, "it looks like a pprof"),
            ("name=a", &[], &[0xff; 100], 422, "line 1"),
            ("name=a", &[], b"\0\0\0", 422, "pprof has"),
            ("name=a", &[curl], b"a;b 3c;d 1", 422, "--data-binary"),
            ("name=a", &[form_type], &form(&[("profil", b"x")]), 422, "it has file \\\"profil\\\""),
            ("name=a", &[form_type], &form(&[]), 422, "it has no parts"),
        ];
        for (query, headers, body, status, expected) in cases {
            let (answered, text) = fixture.receipt(query, headers, body.to_vec()).await;
            assert_eq!(answered, status, "{query} {text}");
            assert!(text.contains(expected), "{query}: {text}");
        }
        // A single line, or text with line ends, is accepted with this content type.
        assert_eq!(fixture.receipt("name=a", &[curl], b"a;b 3".to_vec()).await.0, 200);
        assert_eq!(fixture.receipt("name=a", &[curl], b"a;b 3\nc;d 1".to_vec()).await.0, 200);
    }

    #[tokio::test]
    async fn bombs_of_every_encoding_end_at_the_limit() {
        let fixture = Fixture::new(Limits { max_profile_size_bytes: 1000, ..Limits::default() });
        let bomb = formats::gzip::compress(&vec![0; 4 << 20], 9);
        for (query, headers) in [
            ("name=a", vec![]),
            ("name=a&format=pprof", vec![("content-encoding", "gzip")]),
            ("name=a", vec![("content-encoding", "gzip"), ("content-type", FORM)]),
        ] {
            let (status, text) = fixture.receipt(query, &headers, bomb.clone()).await;
            assert_eq!(status, 422, "{text}");
            assert!(text.contains("expand to more than the limit"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_service_label_of_the_user_wins_over_the_application_name() {
        let fixture = Fixture::new(Limits::default());
        let query = "name=front.cpu%7Bservice_name%3Dother%7D&spyName=&sampleRate=0";
        fixture.ingest(query, "a 1").await;
        let path = "/pyroscope/ingest?name=front.cpu%7Bservice_name%3Dother%7D&spyName=gospy";
        let body = form(&[("profile", &cpu(NOW, &[5], None))]);
        assert_eq!(fixture.answer(request(path, FORM, body)).await.0, StatusCode::OK);
        assert_eq!(
            fixture.stored(),
            [
                r#"process_cpu:samples:count:: {app_name="front", pyroscope_spy="unknown", service_name="other"} [1]"#,
                r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds {pyroscope_spy="gospy", service_name="other"} [5]"#,
            ]
        );
    }

    #[tokio::test]
    async fn display_names_of_a_form_choose_the_name() {
        let fixture = Fixture::new(Limits::default());
        let config = br#"{"cpu":{"display-name":"block_duration"}}"#;
        let body = form(&[("profile", &cpu(NOW, &[5], None)), ("sample_type_config", config)]);
        fixture.answer(request("/ingest?name=my.app", FORM, body)).await;
        assert_eq!(
            fixture.stored(),
            [r#"block:cpu:nanoseconds:cpu:nanoseconds {pyroscope_spy="unknown", service_name="my.app"} [5]"#]
        );
    }

    #[tokio::test]
    async fn times_before_1971_are_replaced_by_from() {
        let fixture = Fixture::new(Limits::default());
        let from = NOW / 1_000_000_000 - 60;
        for time in [0, 1_800_000_000_000_000] {
            let query = format!("name=app&format=pprof&from={from}");
            fixture.ingest(&query, cpu(time, &[1], None)).await;
        }
        let times: Vec<_> = fixture.items().iter().map(|i| i.profile.time_nanos).collect();
        assert_eq!(times, [from * 1_000_000_000; 2]);
    }

    #[tokio::test]
    async fn a_push_with_a_fixed_time_counts_once() {
        let check = async |query: &str, body: &'static str, equal: bool| {
            let fixture = Fixture::new(Limits::default());
            for _ in 0..2 {
                fixture.ingest(query, body).await;
            }
            let items = fixture.items();
            assert_eq!(items[0].key == items[1].key, equal, "{query}");
        };
        let from = NOW / 1_000_000_000 - 60;
        check(&format!("name=app&from={from}"), "a 1", true).await;
        check("name=app&from=now-10s", "a 1", false).await;
        check("name=app", "a 1", false).await;
    }

    #[tokio::test]
    async fn each_ingest_error_has_its_status() {
        let limits = Limits { ingestion_body_limit_mb: 0.01, ..Limits::default() };
        let fixture = Fixture::new(limits);
        let check = async |query: &str, content_type: &str, body: Vec<u8>, status: u16| {
            let path = format!("/ingest?{query}");
            let (answered, text) = fixture.answer(request(&path, content_type, body)).await;
            assert_eq!(answered.as_u16(), status, "{query}: {text}");
            text
        };
        let text = check("name=", "", b"a 1".to_vec(), 400).await;
        assert!(text.contains(r#"{"code":"invalid_argument","message":"name: "#), "{text}");
        check("name=a%20b", "", b"a 1".to_vec(), 400).await;
        check("name=a.nonsense", "", b"a 1".to_vec(), 400).await;
        check("name=a&from=1000", "", b"a 1".to_vec(), 400).await;
        check("name=a", "", b"a b".to_vec(), 422).await;
        check("name=a", "", vec![b'x'; 20_000], 413).await;
        check("name=a&format=pprof", "", b"garbage".to_vec(), 422).await;
        check("name=a&format=pprof", "", b"\x1f\x8b".to_vec(), 422).await;
        check("name=a", "multipart/form-data", b"x".to_vec(), 422).await;
        check("name=a", FORM, form(&[("prev_profile", b"x")]), 422).await;
        let bad_config = form(&[("profile", b"x"), ("sample_type_config", b"{")]);
        check("name=a", FORM, bad_config, 422).await;
        check("name=a&format=tree", "", b"\0\0\x01".to_vec(), 422).await;
        check("name=a&format=trie", "", b"\x01a\x01".to_vec(), 422).await;
        check("name=a.nonsense&format=tree", "", b"\0\0\0".to_vec(), 400).await;
        let text = check("name=a&format=jfr", "", b"<html>".to_vec(), 422).await;
        assert!(text.contains("body is no JFR recording, it looks like an HTML page"), "{text}");
        let text = check("name=a&format=jfr", "", b"FLR\0\0\x02".to_vec(), 422).await;
        assert!(text.contains("JFR recording: chunk 0, byte "), "{text}");
        check("name=a", "", b"FLR\0\0\x02".to_vec(), 422).await;
        let text = check("name=a&format=jfr", FORM, form(&[("labels", b"x")]), 422).await;
        assert!(text.contains("form has no file \\\"jfr\\\"; it has file \\\"labels\\\""), "{text}");
        let text = check("name=a&format=speedscope", "", b"x".to_vec(), 415).await;
        assert!(text.contains("pprof, jfr"), "{text}");
        for query in ["name=a", "name=a&format=pprof", "name=a&format=tree", "name=a&format=jfr"] {
            check(query, "", Vec::new(), 200).await;
        }
        check("name=a", FORM, form(&[("profile", b"")]), 200).await;
        check("name=a.cpu%7Bprofile_id%3Dx%7D", "", b"a 1".to_vec(), 200).await;
        assert!(fixture.items().is_empty());
    }

    /// A recording of one lock and two allocations in `Main.main`, whose contexts and span names have labels.
    fn recording() -> Vec<u8> {
        use jfr_writer::{Chunk, Form, Value};
        let number = |name, number| (name, Value::Number(number));
        let text = |name, text: &str| (name, Value::Text(text.to_owned()));
        let mut chunk = Chunk::new(Form::default());
        let frame = vec![number("method", 1), number("lineNumber", 3)];
        chunk.checkpoints = vec![vec![
            ("jdk.types.StackTrace", vec![(9, vec![("frames", Value::Rows(vec![frame]))])]),
            ("jdk.types.Method", vec![(1, vec![number("type", 2), number("name", 4)])]),
            ("java.lang.Class", vec![(2, vec![number("name", 3)])]),
            ("jdk.types.Symbol", vec![(3, vec![text("string", "Main")]), (4, vec![text("string", "main")])]),
        ]];
        let event = |name, value| {
            (
                name,
                vec![number("stackTrace", 9), number(value, 64), number("spanId", 5), number("contextId", 7)],
            )
        };
        chunk.events = vec![
            ("jdk.ActiveSetting", vec![text("name", "event"), text("value", "itimer")]),
            event("jdk.JavaMonitorEnter", "duration"),
            event("jdk.ObjectAllocationInNewTLAB", "tlabSize"),
            event("jdk.ObjectAllocationInNewTLAB", "tlabSize"),
        ];
        chunk.bytes()
    }

    /// Context 7 has the label `key` = `value`.
    const LABELS: &[u8] = b"\x0a\x0a\x08\x07\x12\x06\x0a\x04\x08\x01\x10\x02\x12\x07\x08\x01\x12\x03key\x12\x09\x08\x02\x12\x05value";

    #[tokio::test]
    async fn a_recording_becomes_one_item_per_profile() {
        let query = "name=app%7Benv%3Ddev%7D&spyName=javaspy&from=1799999990&until=1800000000&format=jfr";
        let (recording, gzip) = (recording(), |bytes: &[u8]| formats::gzip::compress(bytes, 6));
        let stored = |label: &str| {
            let labels = format!(
                r#"{{env="dev", jfr_event="itimer",{label} pyroscope_spy="javaspy", service_name="app"}}"#
            );
            [
                format!("memory:alloc_in_new_tlab_objects:count:space:bytes {labels} [2]"),
                format!("mutex:contentions:count:mutex:count {labels} [1]"),
            ]
        };
        let files = [("jfr", &gzip(&recording)[..]), ("labels", &gzip(LABELS))];
        let cases: [(&str, &str, Vec<u8>, &str); 5] = [
            (query, "application/octet-stream", recording.clone(), ""),
            (query, "", gzip(&recording), ""),
            (query.trim_end_matches("&format=jfr"), "", recording.clone(), ""),
            (query, FORM, form(&files), r#" key="value","#),
            (query.trim_end_matches("&format=jfr"), FORM, form(&files), r#" key="value","#),
        ];
        for (query, content_type, body, label) in cases {
            let fixture = Fixture::new(Limits::default());
            let headers = [("content-type", content_type)];
            let answer = fixture.receipt(query, &headers, body).await;
            assert_eq!(answer, (200, "2".to_owned()), "{query} {content_type}");
            assert_eq!(fixture.stored(), stored(label), "{query} {content_type}");
            let items = fixture.items();
            assert_ne!(items[0].key, items[1].key);
            assert_eq!(
                (items[0].profile.time_nanos, items[0].profile.duration_nanos),
                (NOW - 10_000_000_000, 10_000_000_000)
            );
            assert_eq!(items[0].series[0].spans, [model::Span { span_id: 5, trace_id: 0 }]);
        }
        let fixture = Fixture::new(Limits::default());
        for _ in 0..2 {
            fixture.ingest(query, recording.clone()).await;
        }
        let keys: Vec<_> = fixture.items().iter().map(|item| item.key).collect();
        assert_eq!(keys[..2], keys[2..]);
    }

    #[tokio::test]
    async fn a_missing_tenant_is_a_401_and_an_impossible_one_a_422() {
        let fixture = Fixture::new(Limits::default());
        let check = async |tenant: Option<&str>, status: u16| {
            let mut request = Request::post("/ingest?name=app");
            if let Some(tenant) = tenant {
                request = request.header("x-scope-orgid", tenant);
            }
            let request = request.body(Body::from("a 1")).unwrap();
            assert_eq!(fixture.answer(request).await.0.as_u16(), status, "{tenant:?}");
        };
        check(None, 401).await;
        check(Some(""), 401).await;
        check(Some("a|b"), 422).await;
        check(Some("a/b"), 422).await;
        check(Some("a"), 200).await;
        assert_eq!(fixture.items()[0].tenant.as_str(), "a");
    }

    #[tokio::test]
    async fn an_ingest_over_the_rate_is_a_429() {
        let limits =
            Limits { ingestion_rate_mb: 0.00001, ingestion_burst_size_mb: 0.00001, ..Limits::default() };
        let fixture = Fixture::new(limits);
        assert_eq!(fixture.ingest("name=app", "a 1").await.0, StatusCode::OK);
        let (status, text) = fixture.ingest("name=app", "a 1").await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(text.contains("resource_exhausted"), "{text}");
    }

    #[tokio::test]
    async fn connect_pushes_are_answered_with_connects_codes() {
        let fixture = Fixture::new(Limits::default());
        let push = async |raw_profile: Vec<u8>, tenant: &str| {
            let label = |(name, value): (&str, &str)| LabelPair { name: name.into(), value: value.into() };
            let sample = RawSample { raw_profile: raw_profile.into(), ..Default::default() };
            let series = RawProfileSeries {
                labels: APP.map(label).to_vec(),
                samples: vec![sample],
                ..Default::default()
            };
            let body = PushRequest { series: vec![series] }.encode_to_vec();
            let request = Request::post("/push.v1.PusherService/Push")
                .header("content-type", "application/proto")
                .header("x-scope-orgid", tenant);
            fixture.answer(request.body(body.into()).unwrap()).await
        };
        let (status, body) = push(cpu(NOW, &[1], None), "team").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
        let (status, body) = push(b"garbage".to_vec(), "team").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.contains("invalid_argument"), "{body}");
        let (status, _) = push(cpu(NOW, &[1], None), "a|b").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let stored = r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds {service_name="app"} [1]"#;
        assert_eq!(fixture.stored(), [stored]);
    }
}
