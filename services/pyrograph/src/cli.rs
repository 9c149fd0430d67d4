//! The commands beside `server`: push, query, inspect, repair, delete.

mod admin;
mod block;
mod catalog;
mod client;
mod push;
mod query;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Continuous profiling database: takes profiles in, answers where the time went.
///
/// `pyrograph server` runs the database. The other commands talk to a running one, or look into
/// its files. Start here:
///
///   pyrograph server &
///   pyrograph query top --query '{service_name="pyrograph"}'
#[derive(Parser)]
#[command(name = "pyrograph", version, verbatim_doc_comment, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the database. Flags as Pyroscope's: `-name=value`; all of them: `pyrograph config reference`.
    Server,
    /// Push profile files (pprof, or folded stacks) to a server.
    Push(push::Arguments),
    /// Query a server: top functions, flame graph, time series, labels. Exit code 3, with a warning on standard error,
    /// means that the answer is incomplete.
    #[command(subcommand)]
    Query(query::Command),
    /// Inspect segments and blocks.
    #[command(subcommand)]
    Block(block::Command),
    /// Repair the catalog.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// Delete profiles for good.
    #[command(subcommand)]
    Admin(admin::Command),
    /// Print the configuration reference, or check a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Every value with its meaning, flag and default, as YAML.
    Reference,
    /// Check whether a server would accept these flags and the file that they name. Nothing is opened.
    Check {
        /// Flags of the server, after `--`, for example `-- -config.file=config.yaml`.
        #[arg(last = true)]
        flags: Vec<String>,
    },
}

/// Exit code for an incomplete answer; 1 is a failure, 2 a wrong command line.
const INCOMPLETE: u8 = 3;

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let done = match arguments.command {
        Command::Server => return crate::server::main(&[]),
        Command::Push(arguments) => runtime.block_on(push::run(arguments)).map(|()| ExitCode::SUCCESS),
        Command::Query(command) => runtime.block_on(query::run(command)),
        Command::Block(command) => runtime.block_on(block::run(command)).map(|()| ExitCode::SUCCESS),
        Command::Catalog(command) => runtime.block_on(catalog::run(command)).map(|()| ExitCode::SUCCESS),
        Command::Admin(command) => runtime.block_on(admin::run(command)).map(|()| ExitCode::SUCCESS),
        Command::Config(ConfigCommand::Reference) => match crate::config::reference() {
            Ok(text) => client::print(text.as_bytes()).map(|()| ExitCode::SUCCESS),
            Err(error) => Err(error.into()),
        },
        Command::Config(ConfigCommand::Check { flags }) => check(&flags).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => fail(error.as_ref()),
    }
}

/// Ignored flags are warnings, not errors: a server starts with them.
fn check(flags: &[String]) -> Result<(), Error> {
    let loaded = crate::config::load(flags)?;
    crate::targets::Targets::parse(&loaded.config.target)?;
    loaded.config.server.origins()?;
    loaded.config.server.hosts(false)?;
    for warning in loaded.warnings {
        eprintln!("warning: {}", storage::hide_url_secrets(&warning));
    }
    println!("accepted");
    Ok(())
}

/// The failure of a command: text for a person.
type Error = Box<dyn std::error::Error>;

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let text = format!("error: {}", model::with_causes(error));
    eprintln!("{}", text::inert_lines(&storage::hide_url_secrets(&text)));
    ExitCode::FAILURE
}
