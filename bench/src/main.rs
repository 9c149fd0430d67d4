//! `make bench`: tables of a server's costs and response times; `docs/benchmarks.md` explains each line.
//!
//! Owns: which scenarios run, and their shared setup. Does not own: comparison with earlier runs.
//! The client runs beside the servers and shares their cores.

mod client;
mod cluster;
mod decode;
mod ingest;
mod kill;
mod load;
mod merging;
mod metrics;
mod process;
mod queries;
mod report;
mod start;
mod store;
mod workload;

use std::path::PathBuf;
use std::process::Command;

use clap::{Parser, ValueEnum};
use client::Client;
use clock::Clock;
use process::Launch;
use store::{MeasuredStore, Seaweed};

type Error = Box<dyn std::error::Error>;

/// Measures a server of this repository, in a local directory and in SeaweedFS; prints tables.
#[derive(Parser)]
struct Arguments {
    /// The server's binary; by default `pyrograph` beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// SeaweedFS. Without the file only the local directory is measured.
    #[arg(long, default_value = ".venv/bin/weed")]
    weed: PathBuf,
    /// Scenarios to run, with commas between them; by default all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Measure only pushes to a server that already runs.
    #[arg(long)]
    url: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Decode,
    Ingest,
    Queries,
    Start,
    Cluster,
    Kill,
}

/// The shared setup of all scenarios.
struct Bench {
    clock: Clock,
    binary: PathBuf,
    scratch: tempfile::TempDir,
    seaweed: Option<Seaweed>,
}

impl Bench {
    fn places(&self) -> impl Iterator<Item = MeasuredStore<'_>> {
        let directory = MeasuredStore::Directory(self.scratch.path());
        [directory].into_iter().chain(self.seaweed.as_ref().map(MeasuredStore::Seaweed))
    }

    /// A server of all roles with its objects at `place`, in a folder or prefix named `name`.
    fn server(&self, place: MeasuredStore<'_>, name: &str, flags: &[&str]) -> Result<Launch, Error> {
        let mut all = place.flags(name);
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Launch::new(&self.binary, all, self.scratch.path(), name, &self.clock)
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let clock = Clock::system();
    if let Some(url) = arguments.url {
        return ingest::foreign(&Client::new(&url, clock)?).await;
    }
    let scratch = tempfile::tempdir()?;
    let seaweed = match arguments.weed.exists() {
        true => Some(Seaweed::start(&arguments.weed, scratch.path(), &clock).await?),
        false => {
            println!(
                "no {}: only the local directory is measured; `make .venv` installs it",
                arguments.weed.display()
            );
            None
        }
    };
    let binary = match arguments.binary {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("pyrograph"),
    };
    let bench = Bench { clock, binary, scratch, seaweed };
    println!("{}", machine());
    for scenario in Scenario::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(scenario) {
            continue;
        }
        let began = bench.clock.monotonic();
        match scenario {
            Scenario::Decode => decode::run(&bench.clock)?,
            Scenario::Ingest => ingest::run(&bench).await?,
            Scenario::Queries => queries::run(&bench).await?,
            Scenario::Start => start::run(&bench).await?,
            Scenario::Cluster => cluster::run(&bench).await?,
            Scenario::Kill => kill::run(&bench).await?,
        }
        println!("({:.0} s)", (bench.clock.monotonic() - began).as_secs_f64());
    }
    Ok(())
}

/// The measured commit and the machine.
fn machine() -> String {
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    let field = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "commit {commit}; {} cores of {}, memory {}; load average at the start {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        load.split(' ').next().unwrap_or_default(),
    )
}
