//! Talks Connect to a server, as any client does.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message;

use super::Error;

/// Where the server is, and as whom to ask.
#[derive(Args, Clone)]
pub(super) struct Server {
    /// Base URL of the server.
    #[arg(long, default_value = "http://localhost:4040", env = "PYROGRAPH_URL", global = true)]
    pub url: String,
    /// Tenant to act for, where the server tells tenants apart.
    #[arg(long, env = "PYROGRAPH_TENANT", global = true)]
    pub tenant: Option<String>,
}

impl Server {
    /// Calls one RPC; `method` is `<package>.<Service>/<Rpc>`.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        question: &Q,
    ) -> Result<A, Error> {
        let request = self
            .post(&format!("/{method}"))
            .header("Content-Type", "application/proto")
            .header("Accept", "*/*;allow-utf8-labelnames=true")
            .body(question.encode_to_vec());
        Ok(A::decode(self.send(request).await?)?)
    }

    /// The same with JSON in and out.
    pub(super) async fn call_json(
        &self,
        method: &str,
        question: &serde_json::Value,
    ) -> Result<String, Error> {
        let request = self.post(&format!("/{method}")).json(question);
        Ok(String::from_utf8(self.send(request).await?.to_vec())?)
    }

    /// Has a question answered, and prints how the answer came about instead of the answer.
    pub(super) async fn explain(&self, method: &str, question: &serde_json::Value) -> Result<(), Error> {
        let request = self.post(&format!("/{method}?explain=true")).json(question);
        let answer: serde_json::Value = serde_json::from_slice(&self.send(request).await?)?;
        let Some(explained) = answer.get("explained") else {
            return Err(format!("{} does not explain its answers: it is another release", self.url).into());
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
        let spinner = waiting("asking the server");
        let response = request.send().await.map_err(|e| {
            let why = if e.is_connect() {
                "is it running? start it with `pyrograph server`".into()
            } else {
                e.to_string()
            };
            format!("no answer from {}: {why}", self.url)
        })?;
        let status = response.status();
        let body = response.bytes().await?;
        spinner.finish_and_clear();
        if status.is_success() {
            return Ok(body);
        }
        let words = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|e| Some(e.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(format!("{} answered {status}: {words}", self.url).into())
    }
}

/// A spinner on standard error, if that is a terminal and the wait is long enough to wonder.
pub(super) fn waiting(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

pub(super) fn progress(total: u64, noun: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {noun} {{eta}}"));
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Writes to standard output; a reader that closed its end is no error.
pub(super) fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
