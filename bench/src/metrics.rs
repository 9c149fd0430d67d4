//! The metrics that a process exports under `/metrics`.

use std::collections::BTreeMap;

/// One reading of all metrics.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Vec<Sample>);

#[derive(Clone)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let value = value.parse().ok()?;
            Some(Sample { name: name.into(), labels: labels.trim_end_matches('}').into(), value })
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of all series of a metric; `None` if there is none.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.samples(name).map(|sample| sample.value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The values of a metric, summed by the values of some labels, which are joined by spaces.
    pub(crate) fn by(&self, name: &str, labels: &[&str]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples(name) {
            let values: Vec<&str> = labels.iter().map(|label| sample.label(label)).collect();
            *sums.entry(values.join(" ")).or_default() += sample.value;
        }
        sums
    }

    fn samples(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

impl Sample {
    /// Label values with quotes or commas are not supported; the labels used here have none.
    fn label(&self, name: &str) -> &str {
        let pairs = self.labels.split(',').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(label, _)| *label == name).map(|(_, value)| value.trim_matches('"'));
        values.next().unwrap_or_default()
    }
}

/// Requests to the store by operation and kind of object, summed over several processes.
pub(crate) fn store_requests<'a>(processes: impl IntoIterator<Item = &'a Metrics>) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for metrics in processes {
        for (class, count) in metrics.by("pyrograph_storage_requests_total", &["operation", "class"]) {
            *sums.entry(class).or_default() += count;
        }
    }
    sums
}

/// Requests per second between two readings: in all, creates, and by class, the most frequent first.
pub(crate) fn rates(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, seconds: f64) -> String {
    let rate = |(class, count): (&String, &f64)| {
        (class.clone(), (count - before.get(class).unwrap_or(&0.0)).max(0.0) / seconds)
    };
    let mut rates: Vec<(String, f64)> = after.iter().map(rate).filter(|(_, rate)| *rate > 0.0).collect();
    rates.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all = rates.iter().fold(0.0, |sum, (_, rate)| sum + rate);
    let creates = rates.iter().filter(|(class, _)| class.starts_with("create "));
    let creates = creates.fold(0.0, |sum, (_, rate)| sum + rate);
    let classes: Vec<String> = rates.iter().map(|(class, rate)| format!("{class} {rate:.2}")).collect();
    format!("{all:.1}/s, {creates:.1} of them creates\n{}", classes.join("\n"))
}
