//! A client of the public API, over Connect and REST.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use prost::Message;
use reqwest::header::HeaderMap;

use super::Error;
use super::text::inert;

/// Address of the server, and the tenant of the requests.
#[derive(Args, Clone)]
pub(super) struct Server {
    /// Base URL of the server.
    #[arg(long, default_value = "http://localhost:4040", env = "PYROGRAPH_URL", global = true)]
    pub url: String,
    /// Tenant of the request, for a server with multitenancy.
    #[arg(long, env = "PYROGRAPH_TENANT", global = true)]
    pub tenant: Option<String>,
    /// The gaps of the answers so far.
    #[arg(skip)]
    shortfall: Arc<Mutex<Shortfall>>,
}

/// Gaps of answers, as the server reports them in headers.
#[derive(Default)]
struct Shortfall {
    /// Objects that could not be read.
    missing_objects: u64,
    /// The first such object and the reason, if the server names them.
    first: Option<String>,
    /// Age of the catalog that answered, in seconds.
    stale_secs: Option<u64>,
}

impl Shortfall {
    fn note(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        if let Some(missing) = number("x-pyrograph-partial") {
            self.missing_objects = self.missing_objects.max(missing);
        }
        if self.first.is_none() {
            self.first = text("x-pyrograph-partial-why").and_then(first_reason);
        }
        self.stale_secs = self.stale_secs.max(number("x-pyrograph-stale"));
    }

    /// A line for each kind of gap; empty if the answers are complete.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.missing_objects > 0 {
            let first = self.first.as_ref().map(|first| format!("; {first}")).unwrap_or_default();
            let count = self.missing_objects;
            lines.push(format!(
                "partial: {count} objects could not be read, their profiles are missing{first}"
            ));
        }
        if let Some(secs) = self.stale_secs {
            lines.push(format!("stale: profiles acknowledged in the last {secs} s may be missing"));
        }
        lines
    }
}

/// The first entry of a JSON list of `{object, why}`.
fn first_reason(json: &str) -> Option<String> {
    let listed: serde_json::Value = serde_json::from_str(json).ok()?;
    let first = listed.get(0)?;
    Some(format!("{}: {}", first.get("object")?.as_str()?, first.get("why")?.as_str()?))
}

impl Server {
    /// Reports the gaps of the answers so far on standard error, in amber on a terminal. Returns whether there are
    /// none.
    pub(super) fn report_completeness(&self) -> bool {
        let lines = self.shortfall.lock().lines();
        let (amber, plain) = if std::io::stderr().is_terminal() { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        for line in &lines {
            eprintln!("{amber}warning: the answer is {}{plain}", inert(line));
        }
        lines.is_empty()
    }

    /// Calls one RPC; `method` is `<package>.<Service>/<Rpc>`.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        body: &Q,
    ) -> Result<A, Error> {
        let request = self
            .post(&format!("/{method}"))
            .header("Content-Type", "application/proto")
            .header("Accept", "*/*;allow-utf8-labelnames=true")
            .body(body.encode_to_vec());
        Ok(A::decode(self.send(request).await?)?)
    }

    /// As [`Self::call`], with JSON in and out.
    pub(super) async fn call_json(&self, method: &str, body: &serde_json::Value) -> Result<String, Error> {
        let request = self.post(&format!("/{method}")).json(body);
        Ok(String::from_utf8(self.send(request).await?.to_vec())?)
    }

    /// Sends a query, and prints the server's explanation of the answer instead of the answer.
    pub(super) async fn explain(&self, method: &str, body: &serde_json::Value) -> Result<(), Error> {
        let request = self.post(&format!("/{method}?explain=true")).json(body);
        let answer: serde_json::Value = serde_json::from_slice(&self.send(request).await?)?;
        let Some(explained) = answer.get("explained") else {
            return Err(format!("{} does not explain its answers: it runs another release", self.url).into());
        };
        print(format!("{explained:#}\n").as_bytes())
    }

    pub(super) fn post(&self, path_and_query: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, path_and_query)
    }

    pub(super) fn get(&self, path_and_query: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::GET, path_and_query)
    }

    fn request(&self, method: reqwest::Method, path_and_query: &str) -> reqwest::RequestBuilder {
        let request = reqwest::Client::new()
            .request(method, format!("{}{path_and_query}", self.url.trim_end_matches('/')))
            .timeout(Duration::from_secs(300));
        match &self.tenant {
            Some(tenant) => request.header("X-Scope-OrgID", tenant),
            None => request,
        }
    }

    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Result<bytes::Bytes, Error> {
        Ok(self.send_for_answer(request).await?.1)
    }

    /// Sends `request`; returns the headers of the answer.
    pub(super) async fn send_for_headers(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::header::HeaderMap, Error> {
        Ok(self.send_for_answer(request).await?.0)
    }

    async fn send_for_answer(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(reqwest::header::HeaderMap, bytes::Bytes), Error> {
        let spinner = waiting("asking the server");
        let response = request.send().await.map_err(|e| {
            let reason = if e.is_connect() {
                "is it running? start it with `pyrograph server`".into()
            } else {
                e.to_string()
            };
            format!("no answer from {}: {reason}", self.url)
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        self.shortfall.lock().note(&headers);
        let body = response.bytes().await?;
        spinner.finish_and_clear();
        if status.is_success() {
            return Ok((headers, body));
        }
        let words = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|e| Some(e.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(format!("{} answered {status}: {words}", self.url).into())
    }
}

/// A spinner on standard error, shown only on a terminal.
pub(super) fn waiting(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

pub(super) fn progress(total: u64, noun: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {noun} {{eta}}"));
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Writes to standard output; a reader that closed its end is not an error.
pub(super) fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(answers: &[&[(&'static str, &'static str)]]) -> Vec<String> {
        let mut shortfall = Shortfall::default();
        for answer in answers {
            let headers = answer.iter().map(|(name, value)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    reqwest::header::HeaderValue::from_static(value),
                )
            });
            shortfall.note(&headers.collect());
        }
        shortfall.lines()
    }

    #[test]
    fn a_complete_answer_has_no_line() {
        assert!(lines(&[&[]]).is_empty());
    }

    #[test]
    fn the_gaps_of_several_answers_are_reported_once() {
        let reasons =
            ("x-pyrograph-partial-why", r#"[{"object":"block/a","why":"gone"},{"object":"b","why":"?"}]"#);
        let partial = [("x-pyrograph-partial", "2"), reasons];
        let stale = [("x-pyrograph-partial", "1"), ("x-pyrograph-stale", "42")];
        assert_eq!(
            lines(&[&partial, &stale, &[]]),
            [
                "partial: 2 objects could not be read, their profiles are missing; block/a: gone",
                "stale: profiles acknowledged in the last 42 s may be missing",
            ]
        );
        assert_eq!(
            lines(&[&[("x-pyrograph-partial", "1"), ("x-pyrograph-partial-why", "not JSON")]]),
            ["partial: 1 objects could not be read, their profiles are missing"]
        );
    }
}
