//! `kill -9` of one process of each role under pushes and queries. Measures the longest time without an
//! acknowledgement and without a whole answer. In the end all acknowledged profiles are counted.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::client::{Client, Range};
use crate::cluster::{Cluster, Node};
use crate::report::{Report, Runs};
use crate::workload::{Fresh, Push, fresh_services};
use crate::{Bench, Error};

const NODES: &[&str] = &[
    "metastore-a",
    "metastore-b",
    "ingester-a",
    "ingester-b",
    "distributor-a",
    "distributor-b",
    "querier-a",
    "querier-b",
    "compactor-a",
    "compactor-b",
];
const ROLES: [&str; 5] = ["distributor", "ingester", "metastore", "querier", "compactor"];
const PUSHERS: usize = 6;
const ASKERS: usize = 2;
const BETWEEN: Duration = Duration::from_millis(100);
/// Longest time that one request may take before the client tries another process.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before each kill.
const CALM: Duration = Duration::from_secs(6);
/// Time from the kill to the restart.
const WATCHED_FOR: Duration = Duration::from_secs(15);
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
const HOUR_MILLIS: i64 = 3_600_000;

pub(crate) async fn run(bench: &Bench) -> Result<(), Error> {
    let Some(seaweed) = &bench.seaweed else {
        println!("\nKill: not measured, it needs SeaweedFS");
        return Ok(());
    };
    let mut report =
        Report::new("Kill: longest time without, when one of two processes is killed; SeaweedFS");
    let mut cluster = Cluster::start(bench, seaweed, "kill", NODES).await?;
    let watch = Watch::new(cluster.clients("distributor"), cluster.clients("querier"));
    let pushers = futures::future::join_all((0..PUSHERS).map(|number| watch.push(number)));
    let askers = futures::future::join_all((0..ASKERS).map(|number| watch.ask(number)));
    let violence = async {
        for role in ROLES {
            bench.clock.sleep(CALM).await;
            let (acks, answers) = kill(bench, &mut cluster, role, &watch).await?;
            report.against(
                format!("{role} killed"),
                format!("ack {:.1} s, whole answer {:.1} s", acks.as_secs_f64(), answers.as_secs_f64()),
                "≤ 10 s",
            );
        }
        watch.is_over.set(true);
        Ok::<_, Error>(())
    };
    let (_, _, violence) = futures::join!(pushers, askers, violence);
    violence?;
    let acknowledged = watch.total.get();
    let counted = count(bench, &watch.queriers[0], acknowledged).await?;
    report.against(
        "CPU time acknowledged, and counted",
        format!("{:.2} s, {:.2} s", acknowledged as f64 / 1e9, counted as f64 / 1e9),
        "equal",
    );
    report.line("ack, all", Runs::millis(watch.acks.take()).to_string());
    report.print();
    match counted == acknowledged {
        true => Ok(()),
        false => Err(format!("acknowledged {acknowledged} ns of CPU time, counted {counted}").into()),
    }
}

/// Kills one process of a role (the active one, if only one is) and starts it again; returns the longest times
/// without an ack and without a whole answer.
async fn kill(
    bench: &Bench,
    cluster: &mut Cluster,
    role: &str,
    watch: &Watch,
) -> Result<(Duration, Duration), Error> {
    let node = victim(cluster, role).await?;
    watch.acked.restart();
    watch.answered.restart();
    if let Some(process) = node.process.take() {
        process.kill()?;
    }
    bench.clock.sleep(WATCHED_FOR).await;
    let longest = (watch.acked.longest(), watch.answered.longest());
    node.process = Some(node.launch.start().await?.0);
    Ok(longest)
}

/// The owner of the catalog, or the first of another role.
async fn victim<'a>(cluster: &'a mut Cluster, role: &str) -> Result<&'a mut Node, Error> {
    let mut chosen = None;
    for (index, node) in cluster.0.iter().enumerate().filter(|(_, node)| node.name.starts_with(role)) {
        let metrics = node.launch.client.metrics().await?;
        if chosen.is_none() || metrics.sum("pyrograph_metastore_owner") == Some(1.0) {
            chosen = Some(index);
        }
    }
    let index = chosen.ok_or_else(|| format!("no {role} runs"))?;
    Ok(&mut cluster.0[index])
}

/// Waits until the answer counts at least the acknowledged CPU time; returns the last count.
async fn count(bench: &Bench, querier: &Client, acknowledged: i64) -> Result<i64, Error> {
    let began = bench.clock.monotonic();
    loop {
        let mut counted = 0;
        for service in fresh_services() {
            counted += querier.flame_graph(&service, around(bench.clock.unix_millis())).await?.total;
        }
        if counted >= acknowledged || bench.clock.monotonic() - began > COUNTED_WITHIN {
            return Ok(counted);
        }
        bench.clock.sleep(BETWEEN).await;
    }
}

fn around(unix_millis: i64) -> Range {
    Range { start: unix_millis - HOUR_MILLIS, end: unix_millis + HOUR_MILLIS }
}

/// Clients that push and query without a pause, and their results.
struct Watch {
    distributors: Vec<Client>,
    queriers: Vec<Client>,
    documents: RefCell<Fresh>,
    is_over: Cell<bool>,
    acked: Gap,
    answered: Gap,
    /// Acknowledged CPU nanoseconds.
    total: Cell<i64>,
    acks: RefCell<Vec<Duration>>,
}

impl Watch {
    fn new(distributors: Vec<Client>, queriers: Vec<Client>) -> Self {
        let clock = distributors[0].clock.clone();
        Self {
            distributors,
            queriers,
            documents: RefCell::new(Fresh::new()),
            is_over: Cell::new(false),
            acked: Gap::new(&clock),
            answered: Gap::new(&clock),
            total: Cell::new(0),
            acks: RefCell::default(),
        }
    }

    /// Pushes one profile after the other, each until it is acknowledged.
    async fn push(&self, number: usize) {
        let mut turn = number;
        while !self.is_over.get() {
            let clock = &self.distributors[0].clock;
            let Push { body, total, .. } = self.documents.borrow_mut().push(clock.unix_nanos());
            let began = clock.monotonic();
            loop {
                let client = &self.distributors[turn % self.distributors.len()];
                turn += 1;
                if let Some(Ok(_)) = clock.timeout(PATIENCE, client.push(body.clone())).await {
                    break;
                }
                clock.sleep(BETWEEN).await;
            }
            self.acked.close();
            self.acks.borrow_mut().push(clock.monotonic() - began);
            self.total.set(self.total.get() + total);
            clock.sleep(BETWEEN).await;
        }
    }

    async fn ask(&self, number: usize) {
        let mut services = fresh_services().collect::<Vec<_>>().into_iter().cycle();
        let mut clients = self.queriers.iter().cycle().skip(number);
        while let (false, Some(client), Some(service)) = (self.is_over.get(), clients.next(), services.next())
        {
            let clock = &client.clock;
            let graph = client.flame_graph(&service, around(clock.unix_millis()));
            if let Some(Ok(graph)) = clock.timeout(PATIENCE, graph).await
                && graph.is_whole
            {
                self.answered.close();
            }
            clock.sleep(BETWEEN).await;
        }
    }
}

/// The longest time between two successes.
struct Gap {
    clock: clock::Clock,
    last: Cell<Duration>,
    longest: Cell<Duration>,
}

impl Gap {
    fn new(clock: &clock::Clock) -> Self {
        Self { clock: clock.clone(), last: Cell::new(clock.monotonic()), longest: Cell::default() }
    }

    fn restart(&self) {
        self.last.set(self.clock.monotonic());
        self.longest.set(Duration::ZERO);
    }

    fn close(&self) {
        let longest = self.longest();
        self.longest.set(longest);
        self.last.set(self.clock.monotonic());
    }

    /// The longest gap, including the current one.
    fn longest(&self) -> Duration {
        self.longest.get().max(self.clock.monotonic() - self.last.get())
    }
}
