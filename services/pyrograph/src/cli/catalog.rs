//! `pyrograph catalog`: repair from the bucket alone.

use super::Error;
use super::client::waiting;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make the catalog anew from the objects in the bucket. No server may be running on it.
    Rebuild(Rebuild),
}

#[derive(clap::Args)]
pub(super) struct Rebuild {
    /// Rebuild although a server seems to own the catalog; that server is fenced off.
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
    let clock = clock::Clock::system();
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = storage::Metrics::register(&mut registry);
    let store = storage::open(&config.storage, clock.clone(), metrics).await?;
    let spinner = waiting("reading the bucket");
    let rebuilt = metastore::rebuild(&store, &clock, arguments.force).await?;
    spinner.finish_and_clear();
    println!("{rebuilt}");
    Ok(())
}
