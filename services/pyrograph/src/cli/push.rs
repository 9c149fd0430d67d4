//! `pyrograph push`: pushes files to a server.

use std::path::{Path, PathBuf};

use super::Error;
use super::client::{Server, progress};

/// Header of an answer with the number of samples that were stored.
const STORED_SAMPLES_HEADER: &str = "x-pyrograph-stored-samples";

/// Header of an answer with the number of samples that were left out, by reason.
const DISCARDED_SAMPLES_HEADER: &str = "x-pyrograph-discarded-samples";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// pprof files, JFR recordings, or text files of folded stacks (`main;work 12`); gzipped or not.
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
    /// Time of the profiles, for files without one: `now`, `now-1h`, or Unix seconds.
    #[arg(long, default_value = "now")]
    at: String,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Error> {
    let name = application_name(&arguments.service, &arguments.labels)?;
    let bar = progress(arguments.files.len() as u64, "files");
    for file in &arguments.files {
        let left_out = push(&arguments, &name, file).await?;
        if let Some(left_out) = left_out {
            bar.suspend(|| eprintln!("{}: samples were left out: {left_out}", file.display()));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let url = storage::hide_url_secrets(arguments.server.url.trim_end_matches('/'));
    println!("pushed {} to {url}; look at it: {url}/explore", plural(arguments.files.len(), "file"));
    Ok(())
}

/// Service and labels in the form of the parameter `name`, which has neither quotes nor escapes.
///
/// # Errors
/// The server would read other labels than these.
fn application_name(service: &str, labels: &[String]) -> Result<String, String> {
    if service.contains(['{', '}']) {
        return Err(format!("service {service:?} has a brace; labels are given with --label"));
    }
    if labels.is_empty() {
        return Ok(service.to_owned());
    }
    for label in labels {
        let Some((name, value)) = label.split_once('=') else {
            return Err(format!("label {label:?} has no value; write NAME=VALUE"));
        };
        if name.starts_with("__") {
            return Err(format!("label name {name:?} is reserved: it begins with two underscores"));
        }
        if let Some(c) = value.chars().find(|c| matches!(c, ',' | '}')) {
            return Err(format!(
                "label {name:?} has a value with {c:?}, which cannot be sent; give each label its own --label"
            ));
        }
        if name.trim() != name || value.trim() != value {
            return Err(format!("label {label:?} has white space around its name or value"));
        }
    }
    Ok(format!("{service}{{{}}}", labels.join(",")))
}

/// Sends one file; returns the samples that were left out, by reason.
async fn push(arguments: &Arguments, name: &str, file: &Path) -> Result<Option<String>, Error> {
    let body = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    if body.is_empty() {
        return Err(format!("{} is empty: nothing was pushed", file.display()).into());
    }
    // Without a format: the server recognises each format by the content.
    let request = arguments
        .server
        .post("/ingest")
        .query(&[("name", name), ("spyName", "pyrograph-cli")])
        .query(&[("from", &arguments.at), ("until", &arguments.at)])
        .body(body);
    let sent = arguments.server.send_for_headers(request).await;
    let headers = sent.map_err(|e| format!("{}: {e}", file.display()))?;
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let left_out = text(DISCARDED_SAMPLES_HEADER);
    if text(STORED_SAMPLES_HEADER).as_deref() == Some("0") {
        let reason = left_out.unwrap_or_else(|| "it has no sample with a value other than 0".to_owned());
        return Err(format!("{}: nothing was stored: {reason}", file.display()).into());
    }
    Ok(left_out)
}

pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sent_unchanged_or_refused() {
        let name = |labels: &[&str]| {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            application_name("app", &labels)
        };
        assert_eq!(name(&[]).as_deref(), Ok("app"));
        assert_eq!(name(&["a=b", "path=C:\\x{y", "c=d=e"]).as_deref(), Ok("app{a=b,path=C:\\x{y,c=d=e}"));
        for (label, expected) in [
            ("a=b,c=d", "label \"a\" has a value with ','"),
            ("path=x{y}", "label \"path\" has a value with '}'"),
            ("noequals", "label \"noequals\" has no value"),
            ("__name__=x", "label name \"__name__\" is reserved"),
            ("a= b", "white space"),
        ] {
            let refused = name(&[label]).unwrap_err();
            assert!(refused.contains(expected), "{label}: {refused}");
        }
        assert!(application_name("app{a=b}", &[]).is_err());
    }
}
