//! Queries over HTTP, answered from segments in a store in memory.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use block::{Cache, Head, Origin};
use clock::{Clock, Pool, Pools};
use http_body_util::BodyExt;
use limits::{Limits, Overrides};
use model::{
    Function, ItemKey, Labels, Line, NONE, Profile, PushItem, Samples, SeriesRows, Span, Symbols, TenantId,
    TimeRange, ValueSchema, WriterId,
};
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use query::{Deletion, Selector};
use rpc::{Error, FindRequest, FoundDataset, FoundObject, Snapshot};
use serde_json::{Value, json};
use storage::fault::{Fault, Faulty};
use storage::{Key, Store};

const SECOND: i64 = 1_750_000_000;
const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/// Finds every object in `objects`, and removes those that are quarantined.
#[derive(Default)]
struct Catalog {
    objects: Mutex<Vec<FoundObject>>,
    /// Answers the next find instead of the objects.
    stale: Mutex<Option<FoundObject>>,
    quarantined: Mutex<Vec<(Key, String)>>,
}

impl Catalog {
    fn quarantined(&self) -> Vec<Key> {
        self.quarantined.lock().expect("lock").iter().map(|(key, _)| key.clone()).collect()
    }
}

#[async_trait]
impl rpc::Relay for Catalog {
    async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> Result<T, Error> {
        Err(Error::new(
            rpc::ErrorKind::Unavailable,
            format!("this metastore of a test has no {}", call.method),
        ))
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let mut objects = self.objects.lock().expect("lock").clone();
        if let Some(stale) = self.stale.lock().expect("lock").take() {
            objects = vec![stale];
        }
        for object in &mut objects {
            object.datasets.retain(|d| {
                request.tenants.contains(&d.tenant)
                    && request.range.overlaps(d.times)
                    && request.services.as_ref().is_none_or(|s| s.iter().any(|s| **s == *d.service))
            });
        }
        objects.retain(|object| !object.datasets.is_empty());
        let quarantined = self.quarantined.lock().expect("lock").clone();
        Ok(Snapshot { version: 1, objects, quarantined, ..Snapshot::default() })
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        let is_damaged = |key: &Key| damaged.iter().any(|(damaged, _)| damaged == key);
        self.objects.lock().expect("lock").retain(|object| !is_damaged(&object.key));
        self.quarantined.lock().expect("lock").extend(damaged);
        Ok(())
    }
}

struct Server {
    app: edge::App,
    store: Store,
    catalog: Arc<Catalog>,
}

impl Server {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        Self::start(limits, Store::in_memory(), Cache::new(64 << 20))
    }

    fn start(limits: Limits, store: Store, cache: Cache) -> Self {
        let clock = Clock::system();
        let mut registry = Registry::default();
        let catalog = Arc::new(Catalog::default());
        let config = querier::Config::default();
        let memory = memory::Share::unlimited();
        let leaf =
            querier::Leaf::new(&config, memory.clone(), store.clone(), cache, Pool::inline(), clock.clone());
        let querier = querier::Querier::new(
            config,
            memory,
            catalog.clone(),
            Arc::new(querier::FixedLeaves(Arc::new([("leaf".to_owned(), Arc::new(leaf) as _)]))),
            Arc::new(Overrides::uniform(limits)),
            Pool::inline(),
            clock.clone(),
            &mut registry,
        );
        let app =
            edge::App::new(querier.routes(), edge::Config::default(), clock, Pools::inline(), &mut registry);
        Self { app, store, catalog }
    }

    /// Stores one segment with these items, and adds it to the catalog.
    async fn push(&self, items: &[PushItem]) {
        let seq = self.catalog.objects.lock().expect("lock").len() as u64;
        let found = self.put(items, seq).await;
        self.catalog.objects.lock().expect("lock").push(found);
    }

    async fn put(&self, items: &[PushItem], seq: u64) -> FoundObject {
        let mut head = Head::new();
        for item in items {
            head.append(item);
        }
        let writer = WriterId(1);
        let encoded = head.cut().encode(Origin::Segment { writer, seq }, 0).expect("small");
        let key = Key::log_slot(writer, seq);
        self.store.settle_create(&key, encoded.bytes.clone()).await.expect("in memory");
        let datasets = encoded.directory.datasets.iter().zip(0..).map(|(entry, position)| FoundDataset {
            position,
            tenant: entry.tenant.clone(),
            bytes: encoded.bytes.len() as u64,
            service: entry.service.as_str().into(),
            times: entry.times,
            profile_types: entry.profile_types.clone().into(),
        });
        let datasets = datasets.collect();
        FoundObject {
            key,
            bytes: encoded.bytes.len() as u64,
            masked: Vec::new(),
            deletions: Vec::new(),
            datasets,
        }
    }

    async fn send(&self, request: http::Request<Body>) -> (u16, http::HeaderMap, Value) {
        let response = self.app.answer(request).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        let value = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(text.into()));
        (status, headers, value)
    }

    async fn call(&self, method: &str, body: Value) -> (u16, Value) {
        let (status, _, value) = self.call_for_headers(method, body).await;
        (status, value)
    }

    async fn call_for_headers(&self, method: &str, body: Value) -> (u16, http::HeaderMap, Value) {
        let request = http::Request::post(format!("/querier.v1.QuerierService/{method}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        self.send(request).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = http::Request::get(path).body(Body::empty()).expect("a request");
        let (status, _, value) = self.send(request).await;
        (status, value)
    }
}

/// `stacks`: functions from the root, separated by `;`, with their CPU value and span.
fn item(key: u128, service: &str, env: &str, second: i64, stacks: &[(&str, i64, u64)]) -> PushItem {
    let mut symbols = Symbols::default();
    symbols.strings.push(b"");
    let mut values = Vec::new();
    let mut spans = Vec::new();
    for (stack, value, span) in stacks {
        let locations: Vec<u32> = stack
            .rsplit(';')
            .map(|name| {
                let name = symbols.strings.push(name.as_bytes());
                let function = symbols.functions.len() as u32;
                symbols.functions.push(Function { name, ..Function::default() });
                symbols.locations.push(NONE, 0, false, &[Line { function, line: 1 }])
            })
            .collect();
        symbols.stacktraces.push(&locations);
        values.push(*value);
        spans.push(Span { span_id: *span, trace_id: 0 });
    }
    let schema = ValueSchema {
        name: "process_cpu".into(),
        columns: vec![("cpu".into(), "nanoseconds".into())],
        period: Some(("cpu".into(), "nanoseconds".into())),
    };
    let count = stacks.len() as u32;
    let profile = Profile {
        symbols,
        samples: Samples { values, label_offsets: vec![0; stacks.len() + 1], labels: Vec::new() },
        sample_types: vec![Default::default()],
        time_nanos: second * 1_000_000_000,
        ..Profile::default()
    };
    let labels = Labels::from_pairs([("env", env), ("service_name", service), ("dotted.name", "x")]);
    let series = SeriesRows { labels, schema: Arc::new(schema), samples: (0..count).collect(), spans };
    let tenant = TenantId::anonymous();
    PushItem { tenant, key: ItemKey(key), profile: Arc::new(profile), series: [series].into() }
}

fn example() -> PushItem {
    let stacks = [("main;foo", 30_000_000, 0xbac), ("main;bar", 10_000_000, 0)];
    item(1, "app", "dev", SECOND + 5, &stacks)
}

/// A profile for an undamaged object.
fn undamaged() -> PushItem {
    item(9, "undamaged", "dev", SECOND + 5, &[("main", 1, 0)])
}

fn range(mut body: Value) -> Value {
    body["start"] = json!(SECOND * 1000);
    body["end"] = json!((SECOND + 3600) * 1000);
    body
}

fn cpu(mut body: Value) -> Value {
    body["profileTypeID"] = json!(CPU);
    if body.get("labelSelector").is_none() {
        body["labelSelector"] = json!("{}");
    }
    range(body)
}

#[tokio::test]
async fn a_pushed_profile_is_answered_in_every_form() {
    let server = Server::new();
    server.push(&[example()]).await;

    let types = server.call("ProfileTypes", range(json!({}))).await;
    let expected = json!({"profileTypes": [{
        "ID": CPU, "name": "process_cpu", "sampleType": "cpu", "sampleUnit": "nanoseconds",
        "periodType": "cpu", "periodUnit": "nanoseconds"
    }]});
    assert_eq!(types, (200, expected));

    let selector = json!({"labelSelector": "{service_name=\"app\"}", "maxNodes": "1024"});
    let graph = server.call("SelectMergeStacktraces", cpu(selector)).await;
    let expected = json!({"flamegraph": {
        "names": ["total", "main", "foo", "bar"],
        "levels": [
            {"values": ["0", "40000000", "0", "0"]},
            {"values": ["0", "40000000", "0", "1"]},
            {"values": ["0", "10000000", "10000000", "3", "0", "30000000", "30000000", "2"]}
        ],
        "total": "40000000", "maxSelf": "30000000"
    }});
    assert_eq!(graph, (200, expected));

    let span = json!({"spanSelector": ["0000000000000bac"], "format": "PROFILE_FORMAT_TREE"});
    let tree = server.call("SelectMergeSpanProfile", cpu(span)).await;
    assert_eq!(tree, (200, json!({"tree": "AAABBG1haW4AAQNmb2+Ah6cOAA=="})));

    let series = server.call("SelectSeries", cpu(json!({"step": 15, "groupBy": ["env"]}))).await;
    let expected = json!({"series": [{
        "labels": [{"name": "env", "value": "dev"}],
        "points": [{"value": 40_000_000.0, "timestamp": ((SECOND + 15) * 1000).to_string()}]
    }]});
    assert_eq!(series, (200, expected));

    let (status, profile) = server.call("SelectMergeProfile", cpu(json!({}))).await;
    assert_eq!(status, 200);
    assert_eq!(profile["sample"].as_array().map(Vec::len), Some(2));
    assert_eq!(profile["period"], "1000000000");
    let pprof = cpu(json!({"format": "PROFILE_FORMAT_PPROF", "labelSelector": "{env=\"none\"}"}));
    let none = server.call("SelectMergeStacktraces", pprof).await;
    assert_eq!(none, (200, json!({"pprof": {"profile": {}}})));

    let body = json!({"labelNames": ["service_name", "__profile_type__"], "matchers": []});
    let sets = server.call("Series", range(body)).await;
    let expected = json!({"labelsSet": [{"labels": [
        {"name": "__profile_type__", "value": CPU}, {"name": "service_name", "value": "app"}
    ]}]});
    assert_eq!(sets, (200, expected));

    let stats = server.call("GetProfileStats", json!({})).await;
    let time = ((SECOND + 5) * 1000).to_string();
    let expected = json!({"dataIngested": true, "oldestProfileTime": time, "newestProfileTime": time});
    assert_eq!(stats, (200, expected));
}

#[tokio::test]
async fn deleted_profiles_do_not_count_in_the_times_of_a_tenant() {
    let server = Server::new();
    let items =
        [10, 20, 30].map(|second| item(second, "app", "dev", SECOND + second as i64, &[("main", 1, 0)]));
    let mut found = server.put(&items, 0).await;
    let second = |second: i64| (SECOND + second) * 1_000_000_000;
    let times = async |found: &FoundObject| {
        *server.catalog.objects.lock().expect("lock") = vec![found.clone()];
        server.call("GetProfileStats", json!({})).await.1
    };
    let expected = |oldest: i64, newest: i64| {
        let millis = |second: i64| ((SECOND + second) * 1_000).to_string();
        json!({"dataIngested": true, "oldestProfileTime": millis(oldest), "newestProfileTime": millis(newest)})
    };
    let mut deletion = |selector: &str, range: TimeRange| {
        let selector = Selector::parse(selector).expect(selector);
        let deletion = Deletion { number: 1, tenant: TenantId::anonymous(), selector, range };
        found.deletions.push(Arc::new(deletion));
        found.clone()
    };
    let end = i64::MAX;
    let by_label = deletion(r#"{env="dev"}"#, TimeRange { start: 0, end });
    assert_eq!(times(&by_label).await, expected(10, 30), "counts until it is rewritten");
    let middle = deletion(r#"{service_name="app"}"#, TimeRange { start: second(15), end: second(25) });
    assert_eq!(times(&middle).await, expected(10, 30));
    let also_the_start = deletion(r#"{service_name=~"a.*"}"#, TimeRange { start: 0, end: second(15) });
    assert_eq!(times(&also_the_start).await, expected(25, 30));
    let all = deletion(r#"{service_name="app"}"#, TimeRange { start: 0, end });
    assert_eq!(times(&all).await, json!({}));
}

#[tokio::test]
async fn dotted_names_are_hidden_from_clients_that_do_not_know_them() {
    let server = Server::new();
    server.push(&[example()]).await;
    let (_, names) = server.call("LabelNames", range(json!({}))).await;
    let names: Vec<&str> =
        names["names"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"__profile_type__") && names.contains(&"env"));
    assert!(!names.contains(&"dotted.name"));
    let request = http::Request::post("/querier.v1.QuerierService/LabelNames")
        .header("content-type", "application/json")
        .header("accept", "*/*;allow-utf8-labelnames=true")
        .body(Body::from(range(json!({})).to_string()))
        .expect("a request");
    let (_, _, names) = server.send(request).await;
    assert!(names["names"].as_array().expect("names").contains(&json!("dotted.name")));
    let values = server.call("LabelValues", range(json!({"name": "dotted.name"}))).await;
    assert_eq!(values, (200, json!({"names": ["x"]})));
}

#[tokio::test]
async fn wrong_queries_are_refused_with_the_reason() {
    let server = Server::new();
    let refused = async |method: &str, body: Value, code: &str, part: &str| {
        let (status, answer) = server.call(method, body).await;
        assert!(status >= 400, "{method}: {answer}");
        assert_eq!(answer["code"], code, "{method}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "{method}: {message}");
    };
    let invalid = "invalid_argument";
    refused("LabelNames", json!({}), invalid, "missing time range").await;
    refused("LabelValues", range(json!({})), invalid, "name is required").await;
    let empty = cpu(json!({"labelSelector": ""}));
    refused("SelectMergeStacktraces", empty, invalid, "unexpected end of input").await;
    let open = cpu(json!({"labelSelector": "{env="}));
    refused(
        "SelectSeries",
        {
            let mut b = open;
            b["step"] = json!(15);
            b
        },
        invalid,
        "env",
    )
    .await;
    let mut wrong_type = cpu(json!({}));
    wrong_type["profileTypeID"] = json!("cpu");
    refused("SelectMergeProfile", wrong_type, invalid, "profile-type selection").await;
    refused("SelectSeries", cpu(json!({})), invalid, "step must be").await;
    refused("SelectMergeStacktraces", cpu(json!({"maxNodes": -1})), invalid, "nodes").await;
    refused("Diff", json!({"left": cpu(json!({}))}), invalid, "missing time range").await;
    let forced = cpu(json!({"async": {"type": "ASYNC_QUERY_TYPE_FORCE"}}));
    refused("SelectMergeStacktraces", forced, "unimplemented", "asynchronous").await;
    let ids = cpu(json!({"spanSelector": ["0000000000000bac"], "traceIdSelector": ["0".repeat(32)]}));
    refused("SelectMergeStacktraces", ids, invalid, "cannot be combined").await;
}

#[tokio::test]
async fn a_query_before_the_lookback_limit_has_an_empty_answer() {
    let lookback = limits::Duration::from_days(7);
    let server = Server::with_limits(Limits { max_query_lookback: lookback, ..Limits::default() });
    server.push(&[example()]).await;
    let health = server.call("ProfileTypes", json!({"start": 1000, "end": 4000})).await;
    assert_eq!(health, (200, json!({})));
    let graph = server.call("SelectMergeStacktraces", cpu(json!({}))).await;
    assert_eq!(graph.1["flamegraph"]["names"], json!(["total"]));
}

#[tokio::test]
async fn segments_add_up_and_masked_items_do_not_count() {
    let server = Server::new();
    server.push(&[example(), item(2, "other", "dev", SECOND + 6, &[("main;x", 5, 0)])]).await;
    server.push(&[example(), item(3, "app", "prod", SECOND + 7, &[("main;bar", 7, 0)])]).await;
    server.catalog.objects.lock().expect("lock")[1].masked = vec![0];
    let (_, graph) = server.call("SelectMergeStacktraces", cpu(json!({}))).await;
    assert_eq!(graph["flamegraph"]["total"], "40000012");
    let app = cpu(json!({"labelSelector": "{service_name=\"app\", env=~\"prod|x\"}"}));
    let (_, graph) = server.call("SelectMergeStacktraces", app).await;
    assert_eq!(graph["flamegraph"]["total"], "7");
    let (status, diff) = server
        .call(
            "Diff",
            json!({"left": cpu(json!({"labelSelector": "{env=\"prod\"}"})), "right": cpu(json!({}))}),
        )
        .await;
    assert_eq!(status, 200);
    assert_eq!(diff["flamegraph"]["leftTicks"], "7");
    assert_eq!(diff["flamegraph"]["rightTicks"], "40000012");
}

#[tokio::test]
async fn an_object_that_is_gone_makes_the_query_start_over() {
    let server = Server::new();
    server.push(&[example()]).await;
    let mut gone = server.catalog.objects.lock().expect("lock")[0].clone();
    gone.key = Key::log_slot(WriterId(9), 9);
    *server.catalog.stale.lock().expect("lock") = Some(gone);
    let (status, graph) = server.call("SelectMergeStacktraces", cpu(json!({}))).await;
    assert_eq!((status, &graph["flamegraph"]["total"]), (200, &json!("40000000")));
}

#[tokio::test]
async fn answers_report_their_cost_and_the_missing_objects() {
    let server = Server::new();
    server.push(&[example()]).await;
    let lost = (Key::log_slot(WriterId(9), 9), "damaged".to_owned());
    server.catalog.quarantined.lock().expect("lock").push(lost);
    let (_, headers, _) = server.call_for_headers("SelectMergeStacktraces", cpu(json!({}))).await;
    assert_eq!(headers["x-pyrograph-partial"], "1");
    let why: Value =
        serde_json::from_str(headers["x-pyrograph-partial-why"].to_str().expect("ascii")).expect("JSON");
    let key = Key::log_slot(WriterId(9), 9);
    assert_eq!(why, json!([{"object": key.as_str(), "why": "damaged"}]));
    let stats = headers["x-pyrograph-query-stats"].to_str().expect("ascii");
    let stats: Value = serde_json::from_str(stats).expect("JSON");
    assert_eq!((&stats["profiles"], &stats["blocks"]), (&json!(1), &json!(1)));
}

/// Returns the total of all profiles, and the number of missing objects. A query whose only object is missing fails.
async fn total_and_missing(server: &Server) -> (Value, String) {
    let (status, headers, graph) = server.call_for_headers("SelectMergeStacktraces", cpu(json!({}))).await;
    if status == 503 {
        return (Value::Null, "1".to_owned());
    }
    let missing = headers.get("x-pyrograph-partial").map_or("0", |count| count.to_str().expect("ascii"));
    (graph["flamegraph"]["total"].clone(), missing.to_owned())
}

/// Returns another store, with the byte at each of these offsets of the only object changed.
async fn with_flipped(server: &Server, offsets: &[usize]) -> Store {
    let found = server.catalog.objects.lock().expect("lock")[0].clone();
    let mut bytes = server.store.get(&found.key).await.expect("in memory").to_vec();
    offsets.iter().for_each(|offset| bytes[*offset] ^= 0x55);
    let store = Store::in_memory();
    store.settle_create(&found.key, bytes.into()).await.expect("in memory");
    store
}

#[tokio::test]
async fn an_object_with_wrong_bytes_in_the_store_is_quarantined() {
    let sound = Server::new();
    sound.push(&[example()]).await;
    let found = sound.catalog.objects.lock().expect("lock")[0].clone();
    let mut damaged = 0;
    for offset in (0..found.bytes as usize).step_by(7) {
        let server =
            Server::start(Limits::default(), with_flipped(&sound, &[offset]).await, Cache::new(64 << 20));
        server.catalog.objects.lock().expect("lock").push(found.clone());
        let (total, missing) = total_and_missing(&server).await;
        if missing == "0" {
            assert_eq!((total, server.catalog.quarantined()), (json!("40000000"), vec![]), "byte {offset}");
            continue;
        }
        damaged += 1;
        let quarantined = async {
            while server.catalog.quarantined().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        Clock::system()
            .timeout(std::time::Duration::from_secs(10), quarantined)
            .await
            .expect("is quarantined");
        assert_eq!(server.catalog.quarantined(), std::slice::from_ref(&found.key), "byte {offset}");
        assert_eq!(total_and_missing(&server).await.1, "1", "byte {offset}");
    }
    assert!(damaged > 20, "{damaged}");
}

#[tokio::test]
async fn a_reason_does_not_repeat_its_object() {
    let sound = Server::new();
    sound.push(&[example()]).await;
    let found = sound.catalog.objects.lock().expect("lock")[0].clone();
    for store in [with_flipped(&sound, &[found.bytes as usize - 1]).await, Store::in_memory()] {
        let server = Server::start(Limits::default(), store, Cache::new(64 << 20));
        server.catalog.objects.lock().expect("lock").push(found.clone());
        server.push(&[undamaged()]).await;
        let (_, headers, _) = server.call_for_headers("SelectMergeStacktraces", cpu(json!({}))).await;
        let why: Value = serde_json::from_slice(headers["x-pyrograph-partial-why"].as_bytes()).expect("JSON");
        let reason = why[0]["why"].as_str().expect("a reason");
        assert!(reason.contains(' ') && !reason.contains(found.key.as_str()), "{why}");
    }
}

/// Number of finished files of a disk cache.
fn files(dir: &std::path::Path) -> usize {
    let folders = std::fs::read_dir(dir).expect("reads").flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).expect("reads").flatten());
    files.filter(|file| file.path().extension().is_none()).count()
}

#[tokio::test]
async fn wrong_bytes_in_a_cache_are_read_again_and_no_object_is_quarantined() {
    let sound = Server::new();
    sound.push(&[example()]).await;
    let found = sound.catalog.objects.lock().expect("lock")[0].clone();
    let dir = tempfile::tempdir().expect("a directory");
    let mut registry = Registry::default();
    let disk = block::Disk::open(dir.path(), 64 << 20, Clock::system(), &mut registry).expect("opens");
    let last = found.bytes as usize - 1;
    for offset in (0..last).step_by(7).chain([last]) {
        let mut cache = Cache::new(64 << 20);
        if offset == last {
            cache = cache.with_disk(disk.clone());
        }
        let damaged_store = with_flipped(&sound, &[offset]).await;
        let opened = block::Reader::open(&damaged_store, &found.key, found.bytes, &cache).await;
        if offset == last {
            assert!(opened.is_err());
            let cached = async {
                while files(dir.path()) == 0 {
                    Clock::system().sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            Clock::system().timeout(std::time::Duration::from_secs(10), cached).await.expect("is cached");
        }
        let server = Server::start(Limits::default(), sound.store.clone(), cache);
        server.catalog.objects.lock().expect("lock").push(found.clone());
        for _ in 0..2 {
            assert_eq!(
                total_and_missing(&server).await,
                (json!("40000000"), "0".to_owned()),
                "byte {offset}"
            );
        }
        assert_eq!(server.catalog.quarantined(), [], "byte {offset}");
    }
}

/// Returns a server whose only object is `found`, with these bytes, in a store with scripted faults.
async fn with_faulty_store(found: &FoundObject, bytes: bytes::Bytes) -> (Server, Faulty) {
    let faulty = Faulty::new(Arc::new(InMemory::new()), Clock::system(), 1);
    let store = Store::new(Arc::new(faulty.clone()), Clock::system(), storage::Metrics::default());
    store.settle_create(&found.key, bytes).await.expect("in memory");
    let server = Server::start(Limits::default(), store, Cache::new(64 << 20));
    server.catalog.objects.lock().expect("lock").push(found.clone());
    (server, faulty)
}

/// Returns a server with one object of three services, the object, and the offset of the index of each service.
async fn with_three_datasets() -> (Server, FoundObject, Vec<usize>) {
    let sound = Server::new();
    let stacks = [("main", 1, 0)];
    let services =
        [(1, "a"), (2, "b"), (3, "c")].map(|(key, service)| item(key, service, "dev", SECOND, &stacks));
    sound.push(&services).await;
    let found = sound.catalog.objects.lock().expect("lock")[0].clone();
    let opened = block::Reader::open(&sound.store, &found.key, found.bytes, &Cache::new(1 << 20)).await;
    let directory = opened.expect("opens").directory().datasets.clone();
    let indexes: Vec<usize> = directory.iter().map(|entry| entry.index.offset as usize).collect();
    assert_eq!(indexes.len(), 3);
    (sound, found, indexes)
}

#[tokio::test]
async fn an_object_damaged_in_many_places_is_read_again_once_and_named_once() {
    let (sound, found, indexes) = with_three_datasets().await;
    let bytes = with_flipped(&sound, &indexes).await.get(&found.key).await.expect("in memory");
    let (server, faulty) = with_faulty_store(&found, bytes).await;
    server.push(&[undamaged()]).await;
    let alone = cpu(json!({ "labelSelector": "{service_name=\"undamaged\"}" }));
    server.call_for_headers("SelectMergeStacktraces", alone).await;
    let before = faulty.requests();
    let (_, headers, _) = server.call_for_headers("SelectMergeStacktraces", cpu(json!({}))).await;
    assert_eq!(headers["x-pyrograph-partial"], "1");
    assert_eq!(faulty.requests() - before, 2);
}

#[tokio::test]
async fn a_dataset_that_cannot_be_read_again_leaves_the_others_in_the_answer() {
    let (sound, found, indexes) = with_three_datasets().await;
    let (whole, _) = total_and_missing(&sound).await;
    let bytes = with_flipped(&sound, &indexes[..1]).await.get(&found.key).await.expect("in memory");
    let (server, faulty) = with_faulty_store(&found, bytes).await;
    faulty.script_reads(std::iter::once(Fault::None).chain(std::iter::repeat_n(Fault::Fail, 1000)));
    let (total, missing) = total_and_missing(&server).await;
    let number =
        |total: &Value| total.as_str().and_then(|total| total.parse::<i64>().ok()).expect("a number");
    assert_eq!((number(&total) * 3, missing.as_str()), (number(&whole) * 2, "1"));
}

#[tokio::test]
async fn an_object_that_cannot_be_read_again_is_not_called_damaged() {
    let sound = Server::new();
    sound.push(&[example()]).await;
    let found = sound.catalog.objects.lock().expect("lock")[0].clone();
    let mut refused = 0;
    for offset in (0..found.bytes as usize).step_by(7) {
        let damaged_store = with_flipped(&sound, &[offset]).await;
        if block::Reader::open(&damaged_store, &found.key, found.bytes, &Cache::new(64 << 20)).await.is_err()
        {
            continue;
        }
        let bytes = damaged_store.get(&found.key).await.expect("in memory");
        let mut requests = 0;
        for fails in [false, true] {
            let (server, faulty) = with_faulty_store(&found, bytes.clone()).await;
            let before = faulty.requests();
            if fails {
                // The first reads succeed, and the second reads of the same bytes fail.
                let first = std::iter::repeat_n(Fault::None, requests as usize / 2);
                faulty.script_reads(first.chain(std::iter::repeat_n(Fault::Fail, 1000)));
            }
            let (_, missing) = total_and_missing(&server).await;
            if fails {
                // A report to the catalog runs beside the answer.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                assert_eq!((missing.as_str(), server.catalog.quarantined()), ("1", vec![]), "byte {offset}");
                refused += 1;
                if refused == 3 {
                    return;
                }
            } else if missing == "1" {
                requests = faulty.requests() - before;
            } else {
                break;
            }
        }
    }
    panic!("{refused} were damaged and could be opened");
}

#[tokio::test]
async fn any_query_can_be_explained() {
    let server = Server::new();
    server.push(&[example()]).await;
    let query = "process_cpu:cpu:nanoseconds:cpu:nanoseconds%7Bservice_name%3D%22app%22%7D";
    let render = format!("/pyroscope/render?query={query}&from={SECOND}&until={}&explain=true", SECOND + 60);
    let post = |method: &str, body: Value| {
        http::Request::post(format!("/querier.v1.QuerierService/{method}?explain=true"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request")
    };
    let labels = json!({"name": "service_name", "start": SECOND * 1000, "end": (SECOND + 60) * 1000});
    let answers = [
        (1, "/flamegraph/total", server.send(post("SelectMergeStacktraces", cpu(json!({})))).await.2),
        (1, "/names/0", server.send(post("LabelValues", labels)).await.2),
        (2, "/flamebearer/numTicks", server.get(&render).await.1),
    ];
    for (count, field, answer) in answers {
        assert!(answer.pointer(field).is_some(), "{answer}");
        let queries = answer["explained"]["questions"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(queries.len(), count);
        let explained = &queries[0];
        assert_eq!(explained["found"]["objects"], 1, "{explained}");
        assert_eq!(explained["units"]["slowest"][0]["leaf"], "leaf", "{explained}");
        assert!(explained["millis"]["total"].as_f64().is_some_and(|millis| millis > 0.0), "{explained}");
    }
}

#[tokio::test]
async fn render_answers_in_the_format_of_older_clients() {
    let server = Server::new();
    server.push(&[example()]).await;
    let query = "process_cpu:cpu:nanoseconds:cpu:nanoseconds%7Bservice_name%3D%22app%22%7D";
    let until = SECOND + 60;
    let path = format!("/pyroscope/render?query={query}&from={SECOND}&until={until}");
    let (status, answer) = server.get(&format!("{path}&groupBy=env")).await;
    assert_eq!(status, 200, "{answer}");
    let start = SECOND / 15 * 15;
    let mut samples = vec![0i64; ((until / 15 * 15 - start) / 15) as usize];
    samples[((SECOND + 15 - start) / 15) as usize] = 40_000_000;
    let timeline = json!({"startTime": start, "samples": samples, "durationDelta": 15, "watermarks": null});
    let expected = json!({
        "version": 1,
        "flamebearer": {
            "names": ["total", "main", "foo", "bar"],
            "levels": [
                [0, 40_000_000, 0, 0], [0, 40_000_000, 0, 1],
                [0, 10_000_000, 10_000_000, 3, 0, 30_000_000, 30_000_000, 2]
            ],
            "numTicks": 40_000_000, "maxSelf": 30_000_000
        },
        "metadata": {
            "format": "single", "spyName": "", "sampleRate": 1_000_000_000, "units": "samples",
            "name": "cpu"
        },
        "timeline": timeline, "groups": {"dev": timeline}, "heatmap": null
    });
    assert_eq!(answer, expected);

    let (status, dot) = server.get(&format!("{path}&format=dot")).await;
    assert_eq!(status, 200);
    let dot = dot.as_str().expect("text");
    assert!(dot.contains("N1 [label=\"main\\n0 of 0.04s (100%)\"") || dot.contains("40ms"), "{dot}");

    let diff = format!(
        "/pyroscope/render-diff?leftQuery={query}&leftFrom={SECOND}&leftUntil={until}&rightQuery={query}&rightFrom={SECOND}&rightUntil={until}"
    );
    let (status, answer) = server.get(&diff).await;
    assert_eq!((status, &answer["leftTicks"]), (200, &json!(40_000_000)));
    assert_eq!(answer["flamebearer"]["numTicks"], 80_000_000);

    let (status, error) = server.get("/pyroscope/render").await;
    assert_eq!((status, &error["message"]), (400, &json!("\"query\" is required")));
    let every_other_type =
        format!("/pyroscope/render?query=%7B__name__!%3D%22{CPU}%22%7D&from={SECOND}&until={until}");
    let (status, error) = server.get(&every_other_type).await;
    let message = "\"query\" must contain a profile-type selection";
    assert_eq!((status, &error["message"]), (400, &json!(message)));
    assert_eq!(server.get("/pyroscope/label-values?label=__name__").await, (200, Value::Null));
    let apps = server.get("/api/apps").await;
    let last = (SECOND + 5) * 1000;
    assert_eq!(apps, (200, json!([{"name": "app", "profileTypes": [CPU], "lastSeen": last}])));
}

#[tokio::test]
async fn over_grpc_an_explanation_follows_the_answer_and_stays_short() {
    let server = Server::new();
    server.push(&[example()]).await;
    let lost = (0..60).map(|i| (Key::log_slot(WriterId(9), i), "damaged ".repeat(20)));
    server.catalog.quarantined.lock().expect("lock").extend(lost);
    let request = http::Request::post("/querier.v1.QuerierService/SelectMergeStacktraces")
        .header("content-type", "application/grpc+json")
        .header("x-pyrograph-explain", "true");
    let message = cpu(json!({})).to_string();
    let length = (message.len() as u32).to_be_bytes();
    let body = [&[0], &length[..], message.as_bytes()].concat();
    let response = server.app.answer(request.body(Body::from(body)).expect("a request")).await;
    let answer = response.into_body().collect().await.expect("a body");
    let brief =
        answer.trailers().and_then(|trailers| trailers.get("x-pyrograph-explained")).expect("explained");
    assert!(brief.len() <= edge::Explanation::BRIEF_BYTES_MAX, "{}", brief.len());
    let explained: Value = serde_json::from_slice(brief.as_bytes()).expect("JSON");
    assert_eq!(explained["questions"][0]["missing"]["count"], 60, "{explained}");
    assert_eq!(explained["questions"][0]["units"]["slowest"][0]["leaf"], "leaf", "{explained}");
    let graph: Value = serde_json::from_slice(&answer.to_bytes()[5..]).expect("JSON");
    assert_eq!(graph["flamegraph"]["total"], "40000000");
}
