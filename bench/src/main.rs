//! `make bench`: one table of what a server costs and how fast it answers.
//!
//! Owns: the order of the measurements and the table. Does not own: comparison with earlier runs.
//! The client runs beside the server: on a machine of few cores it takes its share of them.

mod client;
mod profiles;
mod server;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use client::Client;
use clock::Clock;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use server::Server;

const PROFILES: usize = 2000;
const IN_FLIGHT: usize = 32;
const ASKS: usize = 20;
const DECODES: usize = 200;
const DAY_NANOS: i64 = 86_400_000_000_000;
const MERGED_WITHIN: Duration = Duration::from_secs(20);
/// Merging has ended when the server says so, and for so long nothing changed.
const QUIET: Duration = Duration::from_secs(3);
const IDLE_AFTER: Duration = Duration::from_secs(2);
const MIB: f64 = (1 << 20) as f64;

type Error = Box<dyn std::error::Error>;

/// Measures decoding, ingest, storage, flame graphs, memory and start; prints a table.
#[derive(Parser)]
struct Arguments {
    /// The server's binary; by default `pyrograph` beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Measure a running server instead, from outside: pushes and flame graphs only.
    #[arg(long, conflicts_with = "binary")]
    url: Option<String>,
}

/// What is pushed.
struct Load {
    bodies: Vec<Bytes>,
    samples: u64,
    uncompressed_bytes: u64,
    /// When the last profile was taken, in Unix milliseconds.
    end: i64,
}

struct Table(comfy_table::Table);

impl Table {
    fn row(&mut self, what: &str, value: impl Into<String>) {
        self.0.add_row([what.to_owned(), value.into()]);
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Fails only if there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let mut table = Table(comfy_table::Table::new());
    table.0.load_style(comfy_table::presets::NOTHING);
    let clock = Clock::system();
    let load = generate(&clock, &mut table)?;
    match arguments.url {
        Some(url) => {
            let client = Client::new(&url, clock)?;
            push(&client, &load, &mut table).await?;
            ask_warm(&client, &load, &mut table).await?;
        }
        None => {
            let beside = std::env::current_exe()?.with_file_name("pyrograph");
            measure_own(&arguments.binary.unwrap_or(beside), clock, &load, &mut table).await?;
        }
    }
    println!("{}", table.0);
    Ok(())
}

/// Makes the load, and decodes its first documents in both ways.
fn generate(clock: &Clock, table: &mut Table) -> Result<Load, Error> {
    let now = clock.unix_nanos();
    let mut program = profiles::Program::new();
    let mut load = Load { bodies: Vec::new(), samples: 0, uncompressed_bytes: 0, end: now / 1_000_000 + 1 };
    let mut documents = Vec::new();
    for index in 0..PROFILES {
        let age = DAY_NANOS / PROFILES as i64 * (PROFILES - 1 - index) as i64;
        let (pprof, samples) = program.profile(now - age);
        load.samples += samples;
        load.uncompressed_bytes += pprof.len() as u64;
        load.bodies.push(client::push_body(index, &pprof));
        if documents.len() < DECODES {
            documents.push(Bytes::from(pprof));
        }
    }
    let limits = formats::pprof::Limits::default();
    let started = clock.monotonic();
    for document in &documents {
        std::hint::black_box(formats::pprof::decode(document.clone(), &limits)?);
    }
    let ours = micros(clock.monotonic() - started) / DECODES as f64;
    let started = clock.monotonic();
    for document in &documents {
        std::hint::black_box(wire::google::v1::Profile::decode(document.clone())?);
    }
    let prost = micros(clock.monotonic() - started) / DECODES as f64;
    let kib = documents.iter().map(|d| d.len()).sum::<usize>() as f64 / DECODES as f64 / 1024.0;
    table.row(
        "pprof decode",
        format!("{ours:.0} µs; prost {prost:.0} µs, {:.1} times that ({kib:.0} KiB)", prost / ours),
    );
    Ok(load)
}

async fn measure_own(
    binary: &std::path::Path,
    clock: Clock,
    load: &Load,
    table: &mut Table,
) -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let client = Client::new(&format!("http://127.0.0.1:{port}"), clock)?;
    let (server, start_empty) = Server::start(binary, directory.path(), port, &client).await?;

    let cpu_before = server.cpu_seconds()?;
    push(&client, load, table).await?;
    let cpu = server.cpu_seconds()? - cpu_before;
    let first_bytes = server.stored_bytes("log") + server.stored_bytes("block");
    table.row(
        "push, server CPU",
        format!(
            "{:.0} µs per profile, {:.1} ms per uncompressed MB",
            cpu * 1e6 / PROFILES as f64,
            cpu * 1e3 / (load.uncompressed_bytes as f64 / 1e6)
        ),
    );
    let settled = settle(&client, &server).await;
    let per_sample = |bytes: u64| bytes as f64 / load.samples as f64;
    table.row(
        "stored",
        format!(
            "{:.2} B per sample right after, {:.2} merged{}",
            per_sample(first_bytes),
            per_sample(server.stored_bytes("block")),
            if settled { "" } else { " (still merging)" }
        ),
    );
    ask_warm(&client, load, table).await?;

    server.stop()?;
    let (server, start_existing) = Server::start(binary, directory.path(), port, &client).await?;
    client.clock.sleep(IDLE_AFTER).await;
    let idle = server.resident_mib()?;
    let cold_hour = client.flame_graph(load.end, 1).await?;
    server.stop()?;
    let (server, _) = Server::start(binary, directory.path(), port, &client).await?;
    let cold_day = client.flame_graph(load.end, 24).await?;
    server.stop()?;
    table
        .row("flame graph cold", format!("1 h {:.1} ms, 24 h {:.1} ms", millis(cold_hour), millis(cold_day)));
    table.row(
        "start",
        format!("empty {:.0} ms, existing {:.0} ms", millis(start_empty), millis(start_existing)),
    );
    table.row("idle memory", format!("{idle:.1} MiB after restart"));
    Ok(())
}

async fn push(client: &Client, load: &Load, table: &mut Table) -> Result<(), Error> {
    let started = client.clock.monotonic();
    let pushes =
        futures::stream::iter(load.bodies.clone()).map(|body| client.push(body)).buffer_unordered(IN_FLIGHT);
    let mut acks: Vec<Duration> = pushes.try_collect().await?;
    let seconds = (client.clock.monotonic() - started).as_secs_f64();
    acks.sort_unstable();
    table.row(
        "push to durable",
        format!(
            "{:.0} profiles/s ({:.1} MiB/s uncompressed), ack p50 {:.0} ms, p99 {:.0} ms",
            PROFILES as f64 / seconds,
            load.uncompressed_bytes as f64 / MIB / seconds,
            millis(acks[acks.len() / 2]),
            millis(acks[acks.len() * 99 / 100])
        ),
    );
    Ok(())
}

async fn ask_warm(client: &Client, load: &Load, table: &mut Table) -> Result<(), Error> {
    let mut medians = [0.0; 2];
    for (median, hours) in medians.iter_mut().zip([1, 24]) {
        client.flame_graph(load.end, hours).await?;
        let mut asks = Vec::new();
        for _ in 0..ASKS {
            asks.push(client.flame_graph(load.end, hours).await?);
        }
        asks.sort_unstable();
        *median = millis(asks[ASKS / 2]);
    }
    table.row(
        "flame graph warm",
        format!("1 h {:.1} ms, 24 h {:.1} ms (p50 of {ASKS})", medians[0], medians[1]),
    );
    Ok(())
}

/// Waits until what was pushed lies merged in blocks, and what they replace is deleted; whether that was in time.
async fn settle(client: &Client, server: &Server) -> bool {
    let started = client.clock.monotonic();
    let (mut bytes, mut since) = (0, started);
    loop {
        let now = client.clock.monotonic();
        let found = server.stored_bytes("block");
        if found != bytes || !client.is_merged().await {
            (bytes, since) = (found, now);
        }
        if now - since >= QUIET {
            return true;
        }
        if now - started >= MERGED_WITHIN {
            return false;
        }
        client.clock.sleep(Duration::from_millis(100)).await;
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
