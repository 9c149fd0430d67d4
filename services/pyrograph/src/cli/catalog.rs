//! `pyrograph catalog`: repair from the bucket alone.

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

/// How long the first metastore of the cluster is given to be heard of, and then the others.
const MET_WITHIN: Duration = Duration::from_secs(5);
const ALL_MET_WITHIN: Duration = Duration::from_secs(1);
/// A metastore that does not tell its standing within this time does not answer.
const STANDING_MAX: Duration = Duration::from_secs(2);

/// Between two looks how far the rebuild is.
const SHOWN_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make the catalog anew from the other objects in the bucket, whether it is lost, damaged or whole. No metastore may
    /// be running on it: those that can be found by `-memberlist.join` or `-metastore.address` are asked, and a catalog
    /// that was written to within the last minute is watched for the rest of that minute.
    Rebuild(Rebuild),
}

#[derive(clap::Args)]
pub(super) struct Rebuild {
    /// Ask nobody, wait for nothing, and rebuild although a metastore may run. It is fenced off, and takes the catalog
    /// back ten seconds later: a rebuild that is not done by then fails and changes nothing.
    #[arg(long)]
    force: bool,
    /// Flags of the server that say where the bucket is, after `--`, for example
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
        Err(format!("{running}: stop every metastore first, or see what --force does").into())
    })
}

/// A metastore that would not leave the catalog alone, in words.
async fn running(metastores: &Callers<dyn Metastore>, clock: &Clock) -> Option<String> {
    for (member, metastore) in metastores.all(Role::Metastore) {
        if let Some(does) = in_the_way(clock.timeout(STANDING_MAX, metastore.standing()).await) {
            return Some(format!("metastore {} at {} {does}", member.name, member.address));
        }
    }
    None
}

/// `None` if nobody is there; `told` is nothing if no answer came in time.
fn in_the_way(told: Option<Result<Standing, rpc::Error>>) -> Option<&'static str> {
    match told {
        Some(Ok(standing)) if standing.is_owner => Some("owns the catalog"),
        Some(Ok(_)) => Some("runs, and takes the catalog if nobody has it"),
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
    fn only_a_metastore_at_whose_address_nobody_listens_is_not_in_the_way() {
        let owns = |is_owner| Some(Ok(Standing { is_owner, ..Standing::default() }));
        let failed = |kind| Some(Err(Error::with_source(ErrorKind::Unavailable, "", io::Error::from(kind))));
        let says =
            |told, expected: &str| assert!(in_the_way(told).is_some_and(|text| text.contains(expected)));
        says(owns(true), "owns the catalog");
        says(owns(false), "runs");
        says(failed(io::ErrorKind::ConnectionReset), "may run");
        says(None, "may run");
        assert_eq!(in_the_way(failed(io::ErrorKind::ConnectionRefused)), None);
    }
}
