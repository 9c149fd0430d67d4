//! The progress of merging, and the bytes per sample at each level.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Error;
use crate::client::Client;
use crate::metrics::Metrics;

/// Flags that let merging, which by default waits for minutes to be cheap, finish within a benchmark.
pub(crate) const QUICKLY: &[&str] = &[
    "-metastore.merge-after=4s",
    "-metastore.settle-after=4s",
    "-metastore.sweep-grace=1s",
    "-compactor.sweep-interval=1s",
    "-compactor.poll-interval=200ms",
];
/// Time without work after which merging has ended; longer than each delay of the flags above.
const QUIET: Duration = Duration::from_secs(6);
const BETWEEN: Duration = Duration::from_millis(250);

/// Bytes and samples of the live objects of each level, as last seen.
#[derive(Default)]
pub(crate) struct Levels(BTreeMap<String, (f64, f64)>);

impl Levels {
    fn see(&mut self, metrics: &Metrics) {
        let rows = metrics.by("pyrograph_metastore_live_rows", &["level"]);
        for (level, bytes) in metrics.by("pyrograph_metastore_live_bytes", &["level"]) {
            let rows = rows.get(&level).copied().unwrap_or_default();
            if rows > 0.0 {
                self.0.insert(level, (bytes, rows));
            }
        }
    }

    /// Lines of the report: the level, and its bytes per sample.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(level, (bytes, rows))| {
            let stage = match level.as_str() {
                "0" => "segments".to_owned(),
                "1" => "merged from segments".to_owned(),
                "2" => "merged in an open hour".to_owned(),
                _ => "merged in a day".to_owned(),
            };
            let measured =
                format!("{:.2} B/sample ({:.1} MB, {:.0} samples)", bytes / rows, bytes / 1e6, rows);
            (format!("level {level}, {stage}"), measured)
        })
    }
}

/// Waits until all pushed data are merged; returns the levels seen meanwhile.
///
/// # Errors
/// If the server is gone, or does not finish `within` that time.
pub(crate) async fn settle(client: &Client, within: Duration) -> Result<Levels, Error> {
    let clock = &client.clock;
    let began = clock.monotonic();
    let (mut since, mut levels) = (began, Levels::default());
    let mut published = None;
    while clock.monotonic() - since < QUIET {
        let metrics = client.metrics().await?;
        levels.see(&metrics);
        let now = metrics.sum("pyrograph_metastore_jobs_published_total");
        let waits = metrics.sum("pyrograph_metastore_live_segments").unwrap_or_default()
            + metrics.sum("pyrograph_metastore_merge_lag_seconds").unwrap_or_default();
        if waits > 0.0 || now != published {
            (since, published) = (clock.monotonic(), now);
        }
        if clock.monotonic() - began > within {
            return Err(format!("still merging after {within:?}").into());
        }
        clock.sleep(BETWEEN).await;
    }
    Ok(levels)
}
