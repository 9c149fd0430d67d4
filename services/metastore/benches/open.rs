//! Time of a start with unread segments: `cargo bench -p metastore --bench open`, optionally with their number and a
//! directory. Prints the time until finds are answered, for a first start and for the next.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on should stop where it is")]

use std::sync::Arc;
use std::time::Duration;

use block::{Head, Origin};
use clock::Clock;
use metastore::{Config, Metastore};
use model::{
    Function, ItemKey, Labels, Line, NONE, Profile, PushItem, SeriesRows, TenantId, TimeRange, ValueSchema,
    ValueType, WriterId,
};
use prometheus_client::registry::Registry;
use rpc::{FindRequest, ObjectIndex as _};
use storage::{FilesystemConfig, Key, Metrics};

const SEGMENTS: u64 = 10_000;
const WRITERS: u64 = 10;
/// Items of one segment.
const ITEMS: usize = 32;
const SERVICES: usize = 8;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let segments = arguments.next().map_or(SEGMENTS, |count| count.parse().unwrap());
    let temp = match arguments.next() {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let clock = Clock::system();
    let mut bytes = 0;
    for n in 0..segments {
        // The last writer's log is the longest.
        let (writer, seq) = (WriterId(u128::from(n % WRITERS) + 1), n / WRITERS);
        let path = temp.path().join(Key::log_slot(writer, seq).as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let segment = segment(writer, seq, n, &clock);
        bytes += segment.len();
        std::fs::write(path, segment).unwrap();
    }
    println!("{segments} segments of {} bytes in {WRITERS} logs", bytes as u64 / segments.max(1));
    for start in ["first start", "next start"] {
        let config = storage::Config {
            filesystem: FilesystemConfig { dir: temp.path().to_str().unwrap().into() },
            ..storage::Config::default()
        };
        let store = storage::open(&config, clock.clone(), Metrics::default()).await.unwrap();
        let began = clock.monotonic();
        let registry = &mut Registry::default();
        let metastore =
            Metastore::open(Config::default(), store, |_, _| None, clock.clone(), registry).await.unwrap();
        let took = clock.monotonic() - began;
        let range = TimeRange { start: i64::MIN, end: i64::MAX };
        let tenants = vec![TenantId::anonymous()];
        let request = FindRequest { tenants, range, services: None, profile_type: None, explain: false };
        let found = metastore.find(request).await.unwrap();
        println!("{start}: {} objects are found after {:.0} ms", found.objects.len(), millis(took));
        metastore.drain().await;
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn segment(writer: WriterId, seq: u64, n: u64, clock: &Clock) -> bytes::Bytes {
    let mut head = Head::new();
    for i in 0..ITEMS {
        // Spread like hashes.
        let key = (u128::from(n) * ITEMS as u128 + i as u128 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        head.append(&item(ItemKey(key), &format!("service-{}", i % SERVICES), clock.unix_nanos()));
    }
    head.cut().encode(Origin::Segment { writer, seq }, clock.unix_millis()).unwrap().bytes
}

fn item(key: ItemKey, service: &str, time_nanos: i64) -> PushItem {
    let mut profile = Profile { time_nanos, ..Profile::default() };
    let strings = &mut profile.symbols.strings;
    let [_, main, cpu, nanoseconds] = ["", "main", "cpu", "nanoseconds"].map(|s| strings.push(s.as_bytes()));
    profile.symbols.functions.push(Function { name: main, ..Function::default() });
    profile.symbols.locations.push(NONE, 0, false, &[Line { function: 0, line: 1 }]);
    profile.symbols.stacktraces.push(&[0]);
    profile.samples.values.push(7);
    profile.samples.label_offsets.push(0);
    profile.sample_types.push(ValueType { r#type: cpu, unit: nanoseconds });
    PushItem {
        tenant: TenantId::anonymous(),
        key,
        profile: Arc::new(profile),
        series: [SeriesRows {
            labels: Labels::from_pairs([("service_name", service.to_owned())]),
            schema: Arc::new(ValueSchema {
                name: "process_cpu".into(),
                columns: vec![("cpu".into(), "nanoseconds".into())],
                period: None,
            }),
            samples: vec![0],
            spans: Vec::new(),
        }]
        .into(),
    }
}
