//! Cost of a flush on a local directory: `cargo bench -p ingester`, optionally with a directory.
//!
//! Pushes small profiles at a steady rate and with many in flight, and prints the latency of pushes
//! and the CPU time of the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use ingester::{Config, Ingester};
use prometheus_client::registry::Registry;
use rpc::Ingester as _;
use storage::{FilesystemConfig, Metrics, open};

#[path = "../tests/rig/mod.rs"]
#[allow(dead_code, reason = "the benchmark uses a part of the rig")]
mod rig;

const RUN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    println!(
        "{:>22} {:>8} {:>8} {:>8} {:>8} {:>14}",
        "load", "pushes", "flushes", "p50 ms", "p99 ms", "cpu ms/flush"
    );
    run("45/s", 45, Duration::from_secs(1)).await;
    run("128 in flight", 128, Duration::ZERO).await;
    run("256 in flight", 256, Duration::ZERO).await;
}

async fn run(load: &str, pushers: u128, pause: Duration) {
    let temp = match std::env::args().nth(1).filter(|arg| !arg.starts_with('-')) {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let config = storage::Config {
        filesystem: FilesystemConfig { dir: temp.path().to_str().unwrap().into() },
        ..storage::Config::default()
    };
    let clock = Clock::system();
    let store = open(&config, clock.clone(), Metrics::default()).await.unwrap();
    let listener = Arc::new(rig::Listener::default());
    let ingester = Ingester::start(
        Config::default(),
        store,
        listener.clone(),
        clock.clone(),
        Pool::new(2),
        &mut Registry::default(),
    );
    let began_cpu = cpu();
    let tasks: Vec<_> = (0..pushers)
        .map(|pusher| {
            let (ingester, clock) = (ingester.clone(), clock.clone());
            clock.clone().spawn(async move {
                clock.sleep(pause.mul_f64(pusher as f64 / pushers as f64)).await;
                let end = clock.monotonic() + RUN;
                let mut waits = Vec::new();
                while clock.monotonic() < end {
                    let item = rig::item((pusher << 64) + waits.len() as u128);
                    let began = clock.monotonic();
                    ingester.push(vec![item]).await.unwrap();
                    let wait = clock.monotonic() - began;
                    waits.push(wait);
                    clock.sleep(pause.saturating_sub(wait)).await;
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    waits.sort_unstable();
    let flushes = listener.hints.lock().len();
    let quantile = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let spent = (cpu() - began_cpu).as_secs_f64() * 1000.0 / flushes as f64;
    println!(
        "{load:>22} {:>8} {flushes:>8} {:>8.1} {:>8.1} {spent:>14.2}",
        waits.len(),
        quantile(0.5),
        quantile(0.99)
    );
    ingester.drain().await;
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
