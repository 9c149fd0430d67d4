//! `pyrograph admin`: permanent changes of data.

use std::io::{BufRead, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Deserialize;
use serde_json::json;

use super::Error;
use super::client::Server;
use super::text::{inert, utc};

const PATH: &str = "/api/v1/delete";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Delete profiles by selector and time: gone from answers at once, from the bucket within minutes.
    Delete(Delete),
    /// List deletions and their progress.
    Deletes(Deletes),
}

#[derive(clap::Args)]
pub(super) struct Delete {
    /// Selector of the series, with at least one matcher: `{service_name="my-app",pod="pod-1"}`.
    #[arg(long)]
    selector: String,
    /// Start, included: Unix seconds or milliseconds, `now-1h`; 0 for the beginning.
    #[arg(long)]
    from: String,
    /// End, not included.
    #[arg(long, default_value = "now")]
    until: String,
    /// Only print the number of profiles that would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(clap::Args)]
pub(super) struct Deletes {
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Trial {
    profiles: u64,
    services: Vec<Service>,
    objects: u64,
    unreadable: u64,
}

#[derive(Deserialize)]
struct Service {
    name: String,
    profiles: u64,
}

#[derive(Deserialize)]
struct Deletions {
    #[serde(rename = "orders")]
    deletions: Vec<Deletion>,
}

#[derive(Deserialize)]
struct Deletion {
    number: u64,
    created: i64,
    state: String,
    #[serde(default)]
    selector: String,
    start: Option<i64>,
    end: Option<i64>,
    objects_left: u64,
    objects_unreadable: u64,
}

pub(super) async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Delete(arguments) => delete(arguments).await,
        Command::Deletes(arguments) => list(arguments).await,
    }
}

async fn delete(arguments: Delete) -> Result<(), Error> {
    let now = clock::Clock::system().unix_millis();
    let (start, end) = (millis(&arguments.from, now)?, millis(&arguments.until, now)?);
    let ask = async |dry_run: bool| {
        let body = json!({
            "selector": arguments.selector, "start": start, "end": end, "dry_run": dry_run,
        });
        arguments.server.send(arguments.server.post(PATH).json(&body)).await
    };
    if arguments.dry_run || !arguments.yes {
        let trial: Trial = serde_json::from_slice(&ask(true).await?)?;
        let count = trial.services.len();
        println!("{} profiles of {count} services in up to {} objects", trial.profiles, trial.objects);
        for service in &trial.services {
            println!("  {} {}", service.profiles, inert(&service.name));
        }
        if trial.unreadable > 0 {
            println!("and the profiles of {} unreadable objects", trial.unreadable);
        }
    }
    if arguments.dry_run || (!arguments.yes && !confirmed()?) {
        return Ok(());
    }
    let deletion: Deletion = serde_json::from_slice(&ask(false).await?)?;
    println!(
        "deletion {}: gone from answers; {} objects are left to rewrite, see `pyrograph admin deletes`",
        deletion.number, deletion.objects_left
    );
    Ok(())
}

async fn list(arguments: Deletes) -> Result<(), Error> {
    let server = &arguments.server;
    let Deletions { deletions } = serde_json::from_slice(&server.send(server.get(PATH)).await?)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "DELETION",
        "MADE (UTC)",
        "STATE",
        "OBJECTS LEFT",
        "SELECTOR",
        "FROM (UTC)",
        "UNTIL (UTC)",
    ]);
    let time = |millis: Option<i64>| millis.map(utc).unwrap_or_default();
    for deletion in &deletions {
        let left = match deletion.objects_unreadable {
            0 => deletion.objects_left.to_string(),
            unreadable => format!("{} ({unreadable} unreadable)", deletion.objects_left),
        };
        table.add_row([
            deletion.number.to_string(),
            time(Some(deletion.created)),
            inert(&deletion.state).into_owned(),
            left,
            inert(&deletion.selector).into_owned(),
            time(deletion.start),
            time(deletion.end),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Asks the user for confirmation; an error without a terminal.
fn confirmed() -> Result<bool, Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err("there is no terminal for the confirmation: use --yes".into());
    }
    print!("Delete them for good? Type yes: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    Ok(line.trim() == "yes")
}

/// Reads a time as Unix milliseconds. Every other form is refused: a deletion must not depend on a guess.
fn millis(text: &str, now_millis: i64) -> Result<i64, Error> {
    let refused = || format!("{text:?} is not a time: use now, now-1h, Unix seconds or milliseconds");
    if let Some(back) = text.strip_prefix("now") {
        let back = match back.strip_prefix('-') {
            Some(length) => length.parse::<limits::Duration>().map_err(|_| refused())?,
            None if back.is_empty() => limits::Duration::ZERO,
            None => return Err(refused().into()),
        };
        return Ok(now_millis - back.nanos() / 1_000_000);
    }
    // Seconds until the year 5138 have fewer digits than milliseconds since 1973.
    match text.parse::<i64>().map_err(|_| refused())? {
        seconds @ 0..100_000_000_000 => Ok(seconds * 1_000),
        millis @ 100_000_000_000.. => Ok(millis),
        _ => Err(refused().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_strictly() {
        let now = 1_700_000_000_000;
        let check = |text: &str| millis(text, now).map_err(|error| error.to_string());
        assert_eq!(check("now"), Ok(now));
        assert_eq!(check("now-1h"), Ok(now - 3_600_000));
        assert_eq!(check("1700000000"), Ok(now));
        assert_eq!(check("1700000000123"), Ok(now + 123));
        assert_eq!(check("0"), Ok(0));
        for wrong in ["", "yesterday", "-5", "now+1h", "now-", "1e9"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
