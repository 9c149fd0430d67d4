//! The start-up time of one process, and its resource use while idle.

use std::time::Duration;

use crate::merging::{QUICKLY, settle};
use crate::metrics::{rates, store_requests};
use crate::report::{Report, Runs};
use crate::store::MeasuredStore;
use crate::workload::Fresh;
use crate::{Bench, Error, load};

const RUNS: usize = 5;
const EXISTING_BYTES: u64 = 60_000_000;
const IN_FLIGHT: usize = 64;
const MERGED_WITHIN: Duration = Duration::from_secs(60);
/// Time after a start until the process counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Duration of the measurement while idle.
const IDLE_FOR: Duration = Duration::from_secs(20);

pub(crate) async fn run(bench: &Bench) -> Result<(), Error> {
    for place in bench.places() {
        measure(bench, place).await?;
    }
    Ok(())
}

async fn measure(bench: &Bench, place: MeasuredStore<'_>) -> Result<(), Error> {
    let mut report = Report::new(&format!("Start: one process, {}", place.name()));
    let mut empty = Vec::new();
    for run in 0..RUNS {
        let (process, took) = bench.server(place, &format!("start-{run}"), &[])?.start().await?;
        empty.push(took);
        process.stop()?;
    }
    report.line("start on nothing", Runs::millis(empty).to_string());

    let existing = bench.server(place, "start-existing", &[])?;
    let (process, _) = existing.with(QUICKLY).start().await?;
    let pushes = load::fresh(&mut Fresh::new(), EXISTING_BYTES, bench.clock.unix_nanos());
    load::burst(&process.client, pushes, IN_FLIGHT).await;
    settle(&process.client, MERGED_WITHIN).await?;
    process.stop()?;
    let mut restarts = Vec::new();
    for _ in 0..RUNS {
        let (process, took) = existing.start().await?;
        restarts.push(took);
        process.stop()?;
    }
    report.against("start on what is there", Runs::millis(restarts).to_string(), "≤ 1000 ms");

    let (process, _) = existing.start().await?;
    bench.clock.sleep(IDLE_AFTER).await;
    let requests = store_requests(&[process.client.metrics().await?]);
    let (cpu, began) = (process.cpu_seconds()?, bench.clock.monotonic());
    bench.clock.sleep(IDLE_FOR).await;
    let seconds = (bench.clock.monotonic() - began).as_secs_f64();
    let after = store_requests(&[process.client.metrics().await?]);
    let cpu = (process.cpu_seconds()? - cpu) / seconds;
    report.against("idle: memory", format!("{:.1} MiB", process.resident_mib()?), "≤ 100 MiB");
    report.line("idle: CPU", format!("{:.1} % of a core", cpu * 100.0));
    report.against("idle: requests to the store", rates(&requests, &after, seconds), "≤ 1/s");
    process.stop()?;
    report.print();
    Ok(())
}
