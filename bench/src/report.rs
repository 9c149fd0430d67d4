//! The printed report: one table per scenario, and its statistics.

use std::fmt;
use std::time::Duration;

use comfy_table::{Table, presets};

/// The lines of one scenario.
pub(crate) struct Report {
    title: String,
    table: Table,
}

impl Report {
    pub(crate) fn new(title: &str) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["", "measured", "aim"]);
        Self { title: title.into(), table }
    }

    pub(crate) fn line(&mut self, label: impl Into<String>, measured: impl Into<String>) {
        self.against(label, measured, "");
    }

    pub(crate) fn against(&mut self, label: impl Into<String>, measured: impl Into<String>, aim: &str) {
        self.table.add_row([label.into(), measured.into(), aim.to_owned()]);
    }

    pub(crate) fn print(self) {
        println!("\n{}\n{}", self.title, self.table);
    }
}

/// Several measurements of one quantity, sorted.
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    /// Durations (at least one), in milliseconds.
    pub(crate) fn millis(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut runs: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect();
        runs.sort_by(f64::total_cmp);
        Self(runs)
    }

    /// The smallest value that a fraction `part` of all values does not exceed.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// The median, and the spread.
impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.quantile(0.5) < 10.0 { 1 } else { 0 };
        let [first, median, last] = [0.0, 0.5, 1.0].map(|part| self.quantile(part));
        write!(f, "{median:.digits$} ms ({first:.digits$}–{last:.digits$}, {} runs)", self.0.len())
    }
}
