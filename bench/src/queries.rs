//! Flame graphs of a back-filled month: cold and warm, with and without rollups, from each store. All must be equal.

use std::time::Duration;

use crate::client::{Client, Range};
use crate::merging::{QUICKLY, settle};
use crate::process::Launch;
use crate::report::{Report, Runs};
use crate::store::MeasuredStore;
use crate::workload::{DAYS, SERVICE, back_fill};
use crate::{Bench, Error, load};

const NAME: &str = "queries";
const IN_FLIGHT: usize = 64;
const COLD_RUNS: usize = 5;
const WARM_RUNS: usize = 20;
const MERGED_WITHIN: Duration = Duration::from_secs(180);
const DAY_MILLIS: i64 = 86_400_000;
/// Name of a range, its days, and the targets for cold and warm queries.
const RANGES: [(&str, i64, &str, &str); 2] =
    [("24 h", 1, "≤ 400 ms", "≤ 80 ms"), ("30 d", DAYS, "≤ 1000 ms", "")];

pub(crate) async fn run(bench: &Bench) -> Result<(), Error> {
    let end = bench.clock.unix_millis();
    fill(bench, end).await?;
    let mut answers = Answers::default();
    for place in bench.places() {
        if let MeasuredStore::Seaweed(seaweed) = place {
            seaweed.copy(&bench.scratch.path().join(NAME), NAME).await?;
        }
        let mut report = Report::new(&format!("Queries: service of 100 pods, {}", place.name()));
        let server = bench.server(place, NAME, &[])?;
        for (mode, switch) in [("rollups", "true"), ("no rollups", "false")] {
            let launch = server.with(&[&format!("-querier.rollups-enabled={switch}")]);
            for (range, days, cold_aim, warm_aim) in RANGES {
                let asked = Range { start: end - days * DAY_MILLIS, end };
                let (cold, warm) = flame_graphs(&launch, asked, &mut answers).await?;
                let aim = |aim: &'static str| if switch == "true" { aim } else { "" };
                report.against(format!("flame graph {range}, {mode}, cold"), cold.to_string(), aim(cold_aim));
                report.against(format!("flame graph {range}, {mode}, warm"), warm.to_string(), aim(warm_aim));
            }
        }
        let (process, _) = server.start().await?;
        labels(&process.client, Range { start: end - DAYS * DAY_MILLIS, end }, &mut report).await?;
        report.line("memory after them", format!("{:.0} MiB", process.resident_mib()?));
        process.stop()?;
        report.print();
    }
    Ok(())
}

/// Pushes the month into the directory, and waits until it is merged.
async fn fill(bench: &Bench, end_millis: i64) -> Result<(), Error> {
    let directory = MeasuredStore::Directory(bench.scratch.path());
    let (server, _) = bench.server(directory, NAME, QUICKLY)?.start().await?;
    let pushed = load::burst(&server.client, back_fill(end_millis), IN_FLIGHT).await;
    let began = bench.clock.monotonic();
    let levels = settle(&server.client, MERGED_WITHIN).await?;
    let mut report = Report::new("Back-fill: 30 days into the local directory");
    report.line(
        "documents",
        format!("{} in {:.0} s, {}", pushed.profiles, pushed.took.as_secs_f64(), pushed.rate()),
    );
    report.line("merged after", format!("{:.0} s more", (bench.clock.monotonic() - began).as_secs_f64()));
    for (level, cost) in levels.lines() {
        let aim = if level.starts_with("level 3") { "≤ 3.5 B/sample" } else { "" };
        report.against(level, cost, aim);
    }
    server.stop()?;
    report.print();
    Ok(())
}

/// A cold query is the first one to a process; the files may be in the cache of the operating system.
async fn flame_graphs(launch: &Launch, range: Range, answers: &mut Answers) -> Result<(Runs, Runs), Error> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for run in 1..=COLD_RUNS {
        let (process, _) = launch.start().await?;
        cold.push(answers.ask(&process.client, range).await?);
        for _ in 0..if run == COLD_RUNS { WARM_RUNS } else { 0 } {
            warm.push(answers.ask(&process.client, range).await?);
        }
        process.stop()?;
    }
    Ok((Runs::millis(cold), Runs::millis(warm)))
}

/// The first answer to each query, which all later answers must equal.
#[derive(Default)]
struct Answers(std::collections::BTreeMap<i64, bytes::Bytes>);

impl Answers {
    async fn ask(&mut self, client: &Client, range: Range) -> Result<Duration, Error> {
        let graph = client.flame_graph(SERVICE, range).await?;
        if graph.total == 0 || !graph.is_whole {
            return Err(format!("the flame graph from {} on is empty or lacks something", range.start).into());
        }
        let first = self.0.entry(range.start).or_insert_with(|| graph.encoded.clone());
        match *first == graph.encoded {
            true => Ok(graph.took),
            false => Err(format!("two answers from {} on differ", range.start).into()),
        }
    }
}

async fn labels(client: &Client, range: Range, report: &mut Report) -> Result<(), Error> {
    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    for _ in 0..WARM_RUNS {
        for (index, (query, took)) in client.labels(range).await?.into_iter().enumerate() {
            if times.len() == index {
                times.push((query, Vec::new()));
            }
            times[index].1.push(took);
        }
    }
    for (query, times) in times {
        report.against(format!("{query}, 30 d"), Runs::millis(times).to_string(), "≤ 50 ms");
    }
    Ok(())
}
