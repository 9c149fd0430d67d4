//! `pyrograph push`: files to a server.

use std::path::{Path, PathBuf};

use super::Error;
use super::client::{Server, progress};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// pprof files (gzip or not), or text files of folded stacks (`main;work 12`).
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Service that the profiles belong to. A folded file's type is its suffix: `app.cpu`, `app.alloc_space`.
    #[arg(long, default_value = "pushed")]
    service: String,
    /// Further labels, `name=value`; repeatable.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// When the profiles were taken, for files that do not say: `now`, `now-1h`, or Unix seconds.
    #[arg(long, default_value = "now")]
    at: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Error> {
    let mut name = arguments.service.clone();
    if !arguments.labels.is_empty() {
        name.push_str(&format!("{{{}}}", arguments.labels.join(",")));
    }
    let bar = progress(arguments.files.len() as u64, "files");
    for file in &arguments.files {
        push(&arguments, &name, file).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let url = storage::hide_url_secrets(arguments.server.url.trim_end_matches('/'));
    println!("pushed {} to {url}; look at it: {url}/explore", plural(arguments.files.len(), "file"));
    Ok(())
}

async fn push(arguments: &Arguments, name: &str, file: &Path) -> Result<(), Error> {
    let body = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let format = if looks_folded(&body) { "groups" } else { "pprof" };
    let request = arguments
        .server
        .post("/ingest")
        .query(&[("name", name), ("format", format), ("spyName", "pyrograph-cli")])
        .query(&[("from", &arguments.at), ("until", &arguments.at)])
        .body(body);
    let sent = arguments.server.send(request).await;
    sent.map(drop).map_err(|e| format!("{}: {e}", file.display()).into())
}

/// Text whose first line ends in a space and a number.
fn looks_folded(body: &[u8]) -> bool {
    let line = body.split(|b| *b == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return false };
    line.trim_end().rsplit_once(' ').is_some_and(|(_, count)| count.parse::<i64>().is_ok())
}

pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_text_is_told_from_pprof() {
        assert!(looks_folded(b"main;work 12\nmain 3\n"));
        assert!(!looks_folded(&[0x1f, 0x8b, 8, 0]));
        assert!(!looks_folded(&[0x0a, 0x04, 0x08, 0x01]));
    }
}
