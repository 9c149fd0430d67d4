//! All roles as processes on this machine, on SeaweedFS.
//!
//! Owns: their addresses and flags; their resource use under the load of the targets, and while idle.
//! Does not own: crashes (`kill`).

use std::time::Duration;

use futures::StreamExt;

use crate::client::{Client, Range};
use crate::ingest::STEADY_BYTES_PER_SECOND;
use crate::metrics::{Metrics, rates, store_requests};
use crate::process::{Launch, Process, free_port, free_udp_port};
use crate::report::{Report, Runs};
use crate::store::{MeasuredStore, Seaweed};
use crate::workload::{Fresh, fresh_services};
use crate::{Bench, Error, load};

const NODES: &[&str] = &[
    "metastore-a",
    "metastore-b",
    "ingester-a",
    "ingester-b",
    "ingester-c",
    "distributor-a",
    "querier-a",
    "compactor-a",
];
const LOAD_BYTES: u64 = 800_000_000;
const ASK_EVERY: Duration = Duration::from_secs(1);
const HOUR_MILLIS: i64 = 3_600_000;
/// Time after the load until its merges are done.
const IDLE_AFTER: Duration = Duration::from_secs(45);
/// Duration of the measurement while idle.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// One process of a cluster; may be stopped.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) launch: Launch,
    pub(crate) process: Option<Process>,
}

pub(crate) struct Cluster(pub(crate) Vec<Node>);

impl Cluster {
    /// Starts a process for each name (a role and a letter), and waits until all are ready.
    ///
    /// # Errors
    /// If one of them does not start.
    pub(crate) async fn start(
        bench: &Bench,
        seaweed: &Seaweed,
        prefix: &str,
        names: &[&'static str],
    ) -> Result<Self, Error> {
        let gossip: Vec<u16> = names.iter().map(|_| free_udp_port()).collect::<Result<_, _>>()?;
        let seeds: Vec<String> = gossip.iter().take(2).map(|port| format!("127.0.0.1:{port}")).collect();
        let mut nodes = Vec::new();
        for (name, gossip_port) in names.iter().zip(&gossip) {
            let role = name.split('-').next().unwrap_or_default();
            let mut flags = MeasuredStore::Seaweed(seaweed).flags(prefix);
            flags.extend([
                format!("-target={role}"),
                "-server.grpc-listen-address=127.0.0.1".into(),
                format!("-server.grpc-listen-port={}", free_port()?),
                format!("-memberlist.join={}", seeds.join(",")),
                "-memberlist.bind-addr=127.0.0.1".into(),
                format!("-memberlist.bind-port={gossip_port}"),
                format!("-memberlist.nodename={name}"),
            ]);
            let log = format!("{prefix}-{name}");
            let launch = Launch::new(&bench.binary, flags, bench.scratch.path(), &log, &bench.clock)?;
            let process = Some(launch.spawn()?);
            nodes.push(Node { name, launch, process });
        }
        for node in &mut nodes {
            if let Some(process) = &mut node.process {
                node.launch.ready(process).await?;
            }
        }
        Ok(Self(nodes))
    }

    /// Clients of all processes of a role.
    pub(crate) fn clients(&self, role: &str) -> Vec<Client> {
        let of_role = self.0.iter().filter(|node| node.name.starts_with(role));
        of_role.map(|node| node.launch.client.clone()).collect()
    }

    async fn metrics(&self) -> Result<Vec<Metrics>, Error> {
        let mut all = Vec::new();
        for node in &self.0 {
            all.push(node.launch.client.metrics().await?);
        }
        Ok(all)
    }

    fn cpu_seconds(&self) -> Result<Vec<f64>, Error> {
        self.0.iter().filter_map(|node| node.process.as_ref()).map(Process::cpu_seconds).collect()
    }

    fn stop(self) -> Result<(), Error> {
        self.0.into_iter().filter_map(|node| node.process).try_for_each(Process::stop)
    }
}

pub(crate) async fn run(bench: &Bench) -> Result<(), Error> {
    let Some(seaweed) = &bench.seaweed else {
        println!("\nCluster: not measured, it needs SeaweedFS");
        return Ok(());
    };
    let mut report = Report::new(&format!("Cluster: {} processes, SeaweedFS", NODES.len()));
    let pushes = load::fresh(&mut Fresh::new(), LOAD_BYTES, bench.clock.unix_nanos());
    let cluster = Cluster::start(bench, seaweed, "cluster", NODES).await?;

    let before = cluster.metrics().await?;
    let cpu_before = cluster.cpu_seconds()?;
    let distributors = cluster.clients("distributor");
    let queriers = cluster.clients("querier");
    let load = load::steady(&distributors, &pushes, STEADY_BYTES_PER_SECOND);
    let (pushed, asked) = while_loaded(load, ask(&queriers[0])).await;
    let seconds = pushed.took.as_secs_f64();
    let after = cluster.metrics().await?;
    let cpu_after = cluster.cpu_seconds()?;
    report.against("push", pushed.rate(), "20 MB/s");
    report.against("  ack", pushed.acks(), "p50 ≤ 350 ms, p99 ≤ 1500 ms");
    report.line(
        "flame graph of the last hour, each second",
        if asked.is_empty() { "no answer".into() } else { Runs::millis(asked).to_string() },
    );
    for (at, node) in cluster.0.iter().enumerate() {
        let Some(process) = &node.process else { continue };
        let aim = match node.name.split('-').next() {
            Some("ingester") => "≤ 512 MiB",
            Some("compactor") => "≤ 1 GiB per job",
            _ => "",
        };
        report.against(
            node.name,
            format!(
                "{:.0} MiB at most, {:.2} cores",
                process.peak_mib()?,
                (cpu_after[at] - cpu_before[at]) / seconds
            ),
            aim,
        );
    }
    report.against(
        "requests to the store, busy",
        rates(&store_requests(&before), &store_requests(&after), seconds),
        "≤ 8 creates/s, ≤ 1 of the catalog",
    );

    bench.clock.sleep(IDLE_AFTER).await;
    let before = store_requests(&cluster.metrics().await?);
    let began = bench.clock.monotonic();
    bench.clock.sleep(IDLE_FOR).await;
    let seconds = (bench.clock.monotonic() - began).as_secs_f64();
    let after = store_requests(&cluster.metrics().await?);
    report.against("requests to the store, idle", rates(&before, &after, seconds), "≤ 1/s");
    cluster.stop()?;
    report.print();
    Ok(())
}

/// Repeats a query until `load` has ended.
async fn while_loaded<T>(
    load: impl Future<Output = T>,
    asks: impl futures::Stream<Item = Duration>,
) -> (T, Vec<Duration>) {
    let mut times = Vec::new();
    let collect = asks.for_each(|took| {
        times.push(took);
        async {}
    });
    let (load, collect) = (std::pin::pin!(load), std::pin::pin!(collect));
    let loaded = match futures::future::select(load, collect).await {
        futures::future::Either::Left((loaded, _)) => loaded,
        futures::future::Either::Right(((), load)) => load.await,
    };
    (loaded, times)
}

/// Durations of flame graphs of one service; those without an answer are left out.
fn ask(client: &Client) -> impl futures::Stream<Item = Duration> {
    let service = fresh_services().next().unwrap_or_default();
    futures::stream::repeat(()).filter_map(move |()| {
        let service = service.clone();
        async move {
            client.clock.sleep(ASK_EVERY).await;
            let end = client.clock.unix_millis() + HOUR_MILLIS;
            let range = Range { start: end - 2 * HOUR_MILLIS, end };
            Some(client.flame_graph(&service, range).await.ok()?.took)
        }
    })
}
