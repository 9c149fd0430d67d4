//! Pushes to one process: steadily at the target rate, then as fast as it takes them. Measures their cost until they
//! are acknowledged, and their size in the store.

use std::time::Duration;

use crate::client::Client;
use crate::merging::{QUICKLY, settle};
use crate::metrics::{rates, store_requests};
use crate::report::Report;
use crate::store::MeasuredStore;
use crate::workload::{Fresh, Push};
use crate::{Bench, Error, load};

pub(crate) const STEADY_BYTES_PER_SECOND: f64 = 20e6;
const STEADY_BYTES: u64 = 300_000_000;
const BURST_BYTES: u64 = 150_000_000;
const IN_FLIGHT: usize = 64;
const MERGED_WITHIN: Duration = Duration::from_secs(120);

pub(crate) async fn run(bench: &Bench) -> Result<(), Error> {
    for place in bench.places() {
        measure(bench, place).await?;
    }
    Ok(())
}

async fn measure(bench: &Bench, place: MeasuredStore<'_>) -> Result<(), Error> {
    let mut report = Report::new(&format!("Ingest: one process, {}", place.name()));
    let mut documents = Fresh::new();
    let now = bench.clock.unix_nanos();
    let steady = load::fresh(&mut documents, STEADY_BYTES, now);
    let burst = load::fresh(&mut documents, BURST_BYTES, now);
    let (server, _) = bench.server(place, "ingest", QUICKLY)?.start().await?;
    let client = server.client.clone();

    let requests = store_requests(&[client.metrics().await?]);
    let cpu = server.cpu_seconds()?;
    let pushed = load::steady(std::slice::from_ref(&client), &steady, STEADY_BYTES_PER_SECOND).await;
    let cpu = server.cpu_seconds()? - cpu;
    let after = store_requests(&[client.metrics().await?]);
    report.against("steady", pushed.rate(), "20 MB/s");
    report.against("  ack", pushed.acks(), "p50 ≤ 350 ms, p99 ≤ 1500 ms");
    report.line(
        "  server CPU, merging included",
        format!(
            "{:.2} ms per profile, {:.2} cores",
            cpu * 1e3 / pushed.profiles as f64,
            cpu / pushed.took.as_secs_f64()
        ),
    );
    report.line("  memory, peak", format!("{:.0} MiB", server.peak_mib()?));
    report.line("  requests to the store", rates(&requests, &after, pushed.took.as_secs_f64()));

    let cpu = server.cpu_seconds()?;
    let pushed = load::burst(&client, burst, IN_FLIGHT).await;
    let cpu = server.cpu_seconds()? - cpu;
    report.line(format!("burst, {IN_FLIGHT} in flight"), pushed.rate());
    report.line("  ack", pushed.acks());
    report.against("  per core", format!("{:.1} MB/s", pushed.bytes as f64 / 1e6 / cpu), "≥ 60 MB/s");
    report.line("  memory, peak so far", format!("{:.0} MiB", server.peak_mib()?));

    let levels = settle(&client, MERGED_WITHIN).await?;
    for (level, cost) in levels.lines() {
        report.line(level, cost);
    }
    server.stop()?;
    report.print();
    Ok(())
}

/// Pushes to a server that this program did not start.
pub(crate) async fn foreign(client: &Client) -> Result<(), Error> {
    let pushes: Vec<Push> = load::fresh(&mut Fresh::new(), BURST_BYTES, client.clock.unix_nanos());
    let pushed = load::burst(client, pushes, IN_FLIGHT).await;
    let mut report = Report::new("Ingest: a server that ran already");
    report.line(format!("burst, {IN_FLIGHT} in flight"), pushed.rate());
    report.line("  ack", pushed.acks());
    report.print();
    Ok(())
}
