//! Pushing many requests, steadily or as fast as they are taken.
//!
//! Owns: when each is sent, and the results. Does not own: their content (`workload`).

use std::time::Duration;

use futures::StreamExt;

use crate::Error;
use crate::client::Client;
use crate::report::Runs;
use crate::workload::{Fresh, Push};

const REFUSAL_TEXT_CHARS_MAX: usize = 200;

/// The results of pushes.
#[derive(Default)]
pub(crate) struct PushResults {
    pub(crate) profiles: usize,
    /// Bytes of acknowledged, uncompressed pprof.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    acks: Vec<Duration>,
    refused: usize,
    refusal: String,
}

impl PushResults {
    pub(crate) fn rate(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let refused = match self.refused {
            0 => String::new(),
            count => format!("; {count} refused: {}", self.refusal),
        };
        format!(
            "{:.1} MB/s, {:.0} profiles/s{refused}",
            self.bytes as f64 / 1e6 / seconds,
            self.profiles as f64 / seconds
        )
    }

    pub(crate) fn acks(&self) -> String {
        let acks = Runs::millis(self.acks.iter().copied());
        format!(
            "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            acks.quantile(0.5),
            acks.quantile(0.99),
            acks.quantile(1.0)
        )
    }

    fn add(&mut self, push: &Push, outcome: Result<Duration, Error>) {
        match outcome {
            Ok(took) => {
                self.profiles += 1;
                self.bytes += push.bytes;
                self.acks.push(took);
            }
            Err(error) => {
                self.refused += 1;
                self.refusal = error.to_string().chars().take(REFUSAL_TEXT_CHARS_MAX).collect();
            }
        }
    }
}

/// Requests of pods that are profiled now, with `bytes` bytes of uncompressed pprof in total.
pub(crate) fn fresh(fresh: &mut Fresh, bytes: u64, unix_nanos: i64) -> Vec<Push> {
    let (mut pushes, mut made) = (Vec::new(), 0);
    while made < bytes {
        let push = fresh.push(unix_nanos + pushes.len() as i64);
        made += push.bytes;
        pushes.push(push);
    }
    pushes
}

/// Sends pushes at a fixed rate, without waiting for earlier answers. An ack is timed from the moment at which its
/// push was due, so that a stall counts for every push that it delayed.
pub(crate) async fn steady(clients: &[Client], pushes: &[Push], bytes_per_second: f64) -> PushResults {
    let clock = &clients[0].clock;
    let began = clock.monotonic();
    let mut due = 0.0;
    let timed = pushes.iter().zip(clients.iter().cycle()).map(|(push, client)| {
        let due_at = began + Duration::from_secs_f64(due / bytes_per_second);
        due += push.bytes as f64;
        async move {
            clock.sleep(due_at.saturating_sub(clock.monotonic())).await;
            let outcome = client.push(push.body.clone()).await;
            (push, outcome.map(|_| clock.monotonic() - due_at))
        }
    });
    let mut all: futures::stream::FuturesUnordered<_> = timed.collect();
    let mut pushed = PushResults::default();
    while let Some((push, outcome)) = all.next().await {
        pushed.add(push, outcome);
    }
    pushed.took = clock.monotonic() - began;
    pushed
}

/// Sends pushes with a fixed number of them in flight.
pub(crate) async fn burst(
    client: &Client,
    pushes: impl IntoIterator<Item = Push>,
    in_flight: usize,
) -> PushResults {
    let began = client.clock.monotonic();
    let sent = pushes.into_iter().map(|push| async move {
        let outcome = client.push(push.body.clone()).await;
        (push, outcome)
    });
    let mut all = futures::stream::iter(sent).buffer_unordered(in_flight);
    let mut pushed = PushResults::default();
    while let Some((push, outcome)) = all.next().await {
        pushed.add(&push, outcome);
    }
    pushed.took = client.clock.monotonic() - began;
    pushed
}
