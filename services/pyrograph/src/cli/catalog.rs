//! `pyrograph catalog`: rebuilds the catalog from the bucket.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use cluster::{Callers, Member, Role};
use prometheus_client::registry::Registry;
use rpc::{Metastore, Standing};

use super::Error;
use super::client::waiting;
use crate::config::Config;
use crate::peers::Peers;
use crate::targets::Targets;

/// Wait for gossip about the first metastore of the cluster, and then about the others.
const MET_WITHIN: Duration = Duration::from_secs(5);
const ALL_MET_WITHIN: Duration = Duration::from_secs(1);
/// Time limit for the standing of a metastore.
const STANDING_MAX: Duration = Duration::from_secs(2);

/// Interval between updates of the shown progress.
const SHOWN_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Rebuild the catalog, lost, damaged or whole, from the other objects in the bucket. No metastore may run on it:
    /// the command asks the metastores that `-memberlist.join` or `-metastore.address` lead to, and watches a catalog
    /// that was written to within the last minute for the rest of that minute.
    Rebuild(Rebuild),
}

#[derive(clap::Args)]
pub(super) struct Rebuild {
    /// Rebuild without asking or waiting, although a metastore may run. That metastore is fenced off and takes the
    /// catalog back ten seconds later: a rebuild that is not done by then fails and changes nothing.
    #[arg(long)]
    force: bool,
    /// Flags of the server that name the bucket, after `--`, for example
    /// `-- -storage.filesystem.dir=./data`.
    #[arg(last = true)]
    flags: Vec<String>,
}

pub(super) async fn run(command: Command) -> Result<(), Error> {
    let Command::Rebuild(arguments) = command;
    let config = crate::config::load(&arguments.flags)?.config;
    let clock = Clock::system();
    if !arguments.force {
        refuse_while_one_runs(&config, &clock).await?;
    }
    let mut registry = Registry::default();
    let metrics = storage::Metrics::register(&mut registry);
    let store = storage::open(&config.storage, clock.clone(), metrics).await?;
    let spinner = waiting("reading the bucket");
    let progress = metastore::Progress::default();
    let (rebuilding, shown) =
        (metastore::rebuild(&store, &clock, &config.metastore, arguments.force, &progress), spinner.clone());
    let showing = async {
        loop {
            clock.sleep(SHOWN_INTERVAL).await;
            if progress.is_running() {
                shown.set_message(progress.to_string());
            }
        }
    };
    let rebuilt = tokio::select! {
        rebuilt = rebuilding => rebuilt?,
        () = showing => return Ok(()),
    };
    spinner.finish_and_clear();
    println!("{rebuilt}");
    Ok(())
}

async fn refuse_while_one_runs(config: &Config, clock: &Clock) -> Result<(), Error> {
    let config = Config { memberlist: config.memberlist.beside("catalog rebuild"), ..config.clone() };
    let (pool, mut registry) = (Pool::new(1), Registry::default());
    let peers = Peers::join(&config, &Targets::none(), String::new(), clock, &pool, &mut registry).await?;
    if peers.discovers() {
        let mut members = peers.membership.members();
        let has_metastore = |members: &Arc<[Member]>| members.iter().any(|m| m.has(Role::Metastore));
        let has_met = clock.timeout(MET_WITHIN, members.wait_for(has_metastore)).await.is_some();
        if has_met {
            clock.sleep(ALL_MET_WITHIN).await;
        } else {
            eprintln!("no metastore is known at {}", config.memberlist.join_members);
        }
    }
    let running = running(&peers.metastores(), clock).await;
    peers.stop().await;
    running.map_or(Ok(()), |running| {
        Err(format!("{running}: stop every metastore first, or see --force").into())
    })
}

/// Describes a metastore that might write to the catalog, if there is one.
async fn running(metastores: &Callers<dyn Metastore>, clock: &Clock) -> Option<String> {
    for (member, metastore) in metastores.all(Role::Metastore) {
        if let Some(reason) = conflict(clock.timeout(STANDING_MAX, metastore.standing()).await) {
            return Some(format!("metastore {} at {} {reason}", member.name, member.address));
        }
    }
    None
}

/// Why a metastore with this answer forbids a rebuild; `None` if no process listens at its address. `answer` is `None`
/// if none came in time.
fn conflict(answer: Option<Result<Standing, rpc::Error>>) -> Option<&'static str> {
    match answer {
        Some(Ok(standing)) if standing.is_owner => Some("owns the catalog"),
        Some(Ok(_)) => Some("runs, and takes the catalog if it has no owner"),
        Some(Err(error)) if error.is_refused() => None,
        _ => Some("does not answer, and may run"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rpc::{Error, ErrorKind};

    use super::*;

    #[test]
    fn only_a_metastore_that_refuses_the_connection_allows_a_rebuild() {
        let owns = |is_owner| Some(Ok(Standing { is_owner, ..Standing::default() }));
        let failed = |kind| Some(Err(Error::with_source(ErrorKind::Unavailable, "", io::Error::from(kind))));
        let check =
            |answer, expected: &str| assert!(conflict(answer).is_some_and(|text| text.contains(expected)));
        check(owns(true), "owns the catalog");
        check(owns(false), "runs");
        check(failed(io::ErrorKind::ConnectionReset), "may run");
        check(None, "may run");
        assert_eq!(conflict(failed(io::ErrorKind::ConnectionRefused)), None);
    }
}
