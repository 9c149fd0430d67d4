//! The limits of a tenant: names, meanings and defaults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, ServiceRetention};

/// Bytes of one MB in settings named `*_mb`.
pub const MEBIBYTE: f64 = 1_048_576.0;

/// Limits of one tenant. Names and defaults are those of Pyroscope's `limits` block, except where this server promises
/// more: the length and the age of a query have no limit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Maximum rate of pushed bytes per second, uncompressed, in MB of 2^20 bytes. More is refused with 429. 0 means no
    /// limit.
    pub ingestion_rate_mb: f64,
    /// Pushes that may arrive at once before the rate applies, in MB.
    pub ingestion_burst_size_mb: f64,
    /// Maximum size of a request body, in MB, both on the wire and uncompressed with the labels of each profile. 0
    /// means no limit of its own.
    pub ingestion_body_limit_mb: f64,

    /// Maximum number of active series of a tenant: pushed within the last one to two hours. A series is one set of
    /// labels with one profile type. A profile with new series beyond the limit is refused; known series go on. Each
    /// distributor counts the series that it sees, which are nearly all if pushes are spread evenly. 0 means no limit.
    #[serde(alias = "max_global_series_per_user")]
    pub max_global_series_per_tenant: usize,

    /// Maximum length of a label name, in bytes.
    pub max_label_name_length: usize,
    /// Maximum length of a label value, in bytes.
    pub max_label_value_length: usize,
    /// Maximum number of labels of a series, including private labels and labels of samples.
    pub max_label_names_per_series: usize,
    /// Number of values that `__session_id__` is folded into. 0 drops the label, so that a restarted process continues
    /// its series.
    pub max_sessions_per_series: usize,
    /// Keep label names as they are sent. Otherwise dots become underscores, and other invalid characters are refused.
    pub disable_label_sanitization: bool,
    /// Accepted for compatibility; labels are always sorted.
    pub enforce_labels_order: bool,

    /// Maximum size of a profile, in bytes, uncompressed.
    pub max_profile_size_bytes: usize,
    /// Maximum number of samples of a profile.
    pub max_profile_stacktrace_samples: usize,
    /// Maximum number of labels of a sample.
    pub max_profile_stacktrace_sample_labels: usize,
    /// Maximum depth of a stacktrace; deeper ones lose their leaves.
    pub max_profile_stacktrace_depth: usize,
    /// Maximum length of a string of a profile, in bytes; longer ones lose their beginning.
    pub max_profile_symbol_value_length: usize,
    /// Maximum age of a pushed profile; older ones are refused. 0 means no limit.
    pub reject_older_than: Duration,
    /// Maximum time of a pushed profile in the future; later ones are refused. 0 means no limit.
    pub reject_newer_than: Duration,

    /// Maximum time range of a query. 0 means no limit.
    pub max_query_length: Duration,
    /// Maximum age of the data that a query may read. 0 means no limit.
    pub max_query_lookback: Duration,
    /// Number of nodes of a flame graph if the query does not set it.
    pub max_flamegraph_nodes_default: i64,
    /// Maximum number of nodes that a query may set. 0 means no limit.
    pub max_flamegraph_nodes_max: i64,
    /// Whether the two limits above also apply to pprof output.
    pub max_flamegraph_nodes_on_select_merge_profile: bool,

    /// Time after which profiles are deleted. 0 means never.
    pub retention_period: Duration,
    /// Retention of single services, instead of `retention_period`; the first pattern that matches counts. For example
    /// `[{service: "batch-.*", period: 1d}]`.
    pub retention_by_service: Vec<ServiceRetention>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ingestion_rate_mb: 4.0,
            ingestion_burst_size_mb: 2.0,
            ingestion_body_limit_mb: 256.0,
            // Ten times the largest tested tenant (100,000 pods). Pyroscope's 5,000 are for its older storage, where
            // each series takes memory of an ingester; here a series costs 18 bytes of a distributor.
            max_global_series_per_tenant: 1_000_000,
            max_label_name_length: 1024,
            max_label_value_length: 2048,
            max_label_names_per_series: 30,
            max_sessions_per_series: 0,
            disable_label_sanitization: true,
            enforce_labels_order: false,
            max_profile_size_bytes: 4 << 20,
            max_profile_stacktrace_samples: 16_000,
            max_profile_stacktrace_sample_labels: 100,
            max_profile_stacktrace_depth: 1000,
            max_profile_symbol_value_length: 65_535,
            reject_older_than: Duration::from_hours(1),
            reject_newer_than: Duration::from_secs(600),
            max_query_length: Duration::ZERO,
            max_query_lookback: Duration::ZERO,
            max_flamegraph_nodes_default: 8192,
            max_flamegraph_nodes_max: 1_048_576,
            max_flamegraph_nodes_on_select_merge_profile: false,
            retention_period: Duration::from_days(31),
            retention_by_service: Vec::new(),
        }
    }
}

impl Limits {
    /// Pushed bytes per second; infinite without a limit.
    pub fn ingestion_rate_bytes(&self) -> f64 {
        unlimited_at_zero(self.ingestion_rate_mb * MEBIBYTE)
    }

    pub fn ingestion_burst_bytes(&self) -> f64 {
        self.ingestion_burst_size_mb * MEBIBYTE
    }

    /// Maximum size of a request body in bytes; `usize::MAX` without a limit.
    pub fn ingestion_body_bytes(&self) -> usize {
        // A float that does not fit saturates.
        unlimited_at_zero(self.ingestion_body_limit_mb * MEBIBYTE) as usize
    }
}

impl Limits {
    /// Retention of `service`; without a service, the longest of all. `None`: profiles are never deleted.
    pub fn retention_of(&self, service: Option<&str>) -> Option<Duration> {
        let kept = |period: Duration| (!period.is_zero()).then_some(period);
        let by_service = &self.retention_by_service;
        match service {
            Some(service) => kept(self.retention_setting(service).1),
            None => {
                let all =
                    by_service.iter().map(|rule| kept(rule.period)).chain([kept(self.retention_period)]);
                all.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
            }
        }
    }
}

impl Limits {
    /// The setting with the retention of `service`, and its value.
    pub fn retention_setting(&self, service: &str) -> (&'static str, Duration) {
        match self.retention_by_service.iter().find(|rule| rule.service.matches(service)) {
            Some(rule) => ("retention_by_service", rule.period),
            None => ("retention_period", self.retention_period),
        }
    }
}

fn unlimited_at_zero(limit: f64) -> f64 {
    if limit > 0.0 { limit } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_yaml_by_pyroscopes_names() {
        let limits: Limits = serde_yaml::from_str(
            "ingestion_rate_mb: 8\nretention_period: 168h\nreject_older_than: 0\nmax_query_length: 1d12h\n",
        )
        .unwrap();
        let expected = Limits {
            ingestion_rate_mb: 8.0,
            retention_period: Duration::from_days(7),
            reject_older_than: Duration::ZERO,
            max_query_length: Duration::from_hours(36),
            ..Limits::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn the_limit_of_series_has_both_names_of_pyroscope() {
        for name in ["max_global_series_per_tenant", "max_global_series_per_user"] {
            let limits: Limits = serde_yaml::from_str(&format!("{name}: 7\n")).unwrap();
            assert_eq!(limits.max_global_series_per_tenant, 7, "{name}");
        }
    }

    #[test]
    fn limits_round_trip_through_yaml() {
        let text = serde_yaml::to_string(&Limits::default()).unwrap();
        assert_eq!(serde_yaml::from_str::<Limits>(&text).unwrap(), Limits::default());
    }

    #[test]
    fn the_first_pattern_that_matches_a_service_sets_its_retention() {
        let limits: Limits = serde_yaml::from_str(
            "retention_period: 7d\nretention_by_service:\n- {service: 'batch-.*', period: 1d}\n- {service: 'batch|audit', period: 0}\n",
        )
        .unwrap();
        let days = |days| Some(Duration::from_days(days));
        for (service, expected) in [
            ("batch-1", days(1)),
            ("batch", None),
            ("audit", None),
            ("my-batch-1", days(7)),
            ("app", days(7)),
        ] {
            assert_eq!(limits.retention_of(Some(service)), expected, "{service}");
        }
        assert_eq!(limits.retention_setting("batch-1"), ("retention_by_service", Duration::from_days(1)));
        assert_eq!(limits.retention_setting("app"), ("retention_period", Duration::from_days(7)));
        assert_eq!(limits.retention_of(None), None, "one service is never deleted");
        assert_eq!(Limits::default().retention_of(None), days(31));
        assert!(
            serde_yaml::from_str::<Limits>("retention_by_service: [{service: '(', period: 1d}]").is_err()
        );
        assert!(serde_yaml::from_str::<Limits>("retention_by_service: [{srvice: a, period: 1d}]").is_err());
        let text = serde_yaml::to_string(&limits).unwrap();
        assert_eq!(serde_yaml::from_str::<Limits>(&text).unwrap(), limits);
    }

    #[test]
    fn an_unknown_limit_is_refused() {
        let error = serde_yaml::from_str::<Limits>("ingestion_rate: 8\n").unwrap_err();
        assert!(error.to_string().contains("ingestion_rate"), "{error}");
    }

    #[test]
    fn zero_means_no_limit_for_rate_and_body() {
        let limits = Limits { ingestion_rate_mb: 0.0, ingestion_body_limit_mb: 0.0, ..Limits::default() };
        assert_eq!(limits.ingestion_rate_bytes(), f64::INFINITY);
        assert_eq!(limits.ingestion_body_bytes(), usize::MAX);
        assert_eq!(Limits::default().ingestion_body_bytes(), 256 << 20);
    }
}
