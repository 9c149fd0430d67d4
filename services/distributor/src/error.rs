//! Why a push is refused: one error for each broken rule, and all errors of one request.
//!
//! Owns: the texts that clients see, the kind of each error (retry or fix), the reason in metrics.
//! Does not own: status codes (`http`).

use std::time::Duration;

use formats::kind::Kind;
use memory::OverBudget;
use rpc::ErrorKind;

use crate::receipt::DiscardCounts;

/// Longest text from outside shown inside an error, in bytes.
const TEXT_SHOWN_BYTES_MAX: usize = 400;

/// Most errors of one request that are listed; of the others, only their number is.
const ERRORS_SHOWN_MAX: usize = 8;

/// Why one profile, or all of a request, was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no profiles received")]
    NoProfiles,
    #[error(
        "profiles of the request, uncompressed and with the labels of each, have more than {limit} bytes, the limit of one request"
    )]
    RequestTooLarge { limit: usize },
    #[error("{0}")]
    Decompress(#[from] formats::compression::Error),
    #[error("{}", not_a_pprof(.error, .kind.as_ref()))]
    Pprof { error: formats::pprof::Error, kind: Option<Kind> },
    #[error("{0}")]
    Flaw(#[from] formats::pprof::Flaw),
    #[error("{0}")]
    Form(#[from] formats::multipart::Error),
    #[error("{0}")]
    SampleTypeConfig(#[from] formats::ingest::ConfigError),
    #[error("{0}")]
    FrameNames(#[from] formats::ingest::FrameNamesTooLong),
    #[error("{}", not_folded(.error, .kind.as_ref()))]
    Text { error: formats::folded::Error, kind: Option<Kind> },
    #[error(
        "text without line ends that has a count in its middle, sent with the content type {content_type:?}: `curl -d` takes the line ends out of a file, use --data-binary"
    )]
    LostLineEnds { content_type: String },
    #[error("{}", not_a_recording(.error, .kind.as_ref()))]
    Recording { error: formats::jfr::Error, kind: Option<Kind> },
    #[error(
        "form has no file \"{file}\"; it has {parts}. Send the {content} as a part with a file name, as in curl -F {example}"
    )]
    NoFile { file: &'static str, content: &'static str, example: &'static str, parts: String },
    #[error("{0}")]
    Tree(#[from] formats::trees::Error),
    #[error("{0}")]
    Column(#[from] formats::ingest::UnknownColumn),
    #[error(
        "form has a file \"prev_profile\": cumulative profiles are not accepted any more, please update the client"
    )]
    CumulativePair,
    #[error("empty profile: it has no sample types")]
    NoSampleTypes,
    #[error(
        "profile {labels} is outside of the ingestion window: its time is {time_ms} ms, the window is {start_ms} to {end_ms} ms (Unix time)"
    )]
    OutsideWindow { labels: String, time_ms: i64, start_ms: i64, end_ms: i64 },
    #[error("profile {labels} has the time {time} ns, limit is {limit} ns (Unix time; the end of 2261)")]
    TimeTooLate { labels: String, time: i64, limit: i64 },
    #[error(
        "profile {labels} is older than its service is kept: its time is {time_ms} ms, profiles from {kept_from_ms} ms on are kept (Unix time; {setting} is {period:?})"
    )]
    PastRetention {
        labels: String,
        time_ms: i64,
        kept_from_ms: i64,
        period: limits::Duration,
        setting: &'static str,
    },
    #[error("none of {samples} samples of the profile can be kept: {discarded}")]
    NothingValid { samples: usize, discarded: DiscardCounts },
    #[error(
        "profile is a difference of two (sample label \"pprof::base\"), with samples that cannot be kept: {discarded}. Push the two profiles, and compare them when asking"
    )]
    Difference { discarded: DiscardCounts },
    #[error("values of sample type {sample_type:?} are together more than 2^63 - 1")]
    SampleSum { sample_type: String },
    #[error("profile {labels} has {samples} samples, limit is {limit} (max_profile_stacktrace_samples)")]
    Samples { labels: String, samples: usize, limit: usize },
    #[error(
        "profile {labels} has a sample with {count} labels, limit is {limit} (max_profile_stacktrace_sample_labels)"
    )]
    SampleLabels { labels: String, count: usize, limit: usize },
    #[error("profile has {count} sample types, limit is {limit}")]
    SampleTypes { count: usize, limit: usize },
    #[error("sample type {name:?} contains '-'")]
    SampleTypeHyphen { name: String },
    #[error(
        "{part} {text:?} contains ':', which divides the parts of a profile type: no query could name it"
    )]
    Colon { part: &'static str, text: String },
    #[error("{holder} is not UTF-8: \"{text}\"")]
    NotUtf8 { holder: String, text: String },
    #[error("series {labels} has {count} labels, limit is {limit} (max_label_names_per_series)")]
    LabelNames { labels: String, count: usize, limit: usize },
    #[error("series {labels} has no metric name: label \"__name__\" is missing or empty")]
    NoMetricName { labels: String },
    #[error("series {labels} has no service name: label \"service_name\" is empty")]
    NoServiceName { labels: String },
    #[error("series {labels} has a label with invalid name {name:?}")]
    LabelName { labels: String, name: String },
    #[error("label name {name:?} has {bytes} bytes, limit is {limit} (max_label_name_length)")]
    LabelNameTooLong { name: String, bytes: usize, limit: usize },
    #[error("label {name:?} has a value of {bytes} bytes, limit is {limit} (max_label_value_length)")]
    LabelValueTooLong { name: String, bytes: usize, limit: usize },
    #[error("series {labels} has label {name:?} twice")]
    DuplicateLabel { labels: String, name: String },
    #[error("labels of the samples of profile {labels} make more than {limit} bytes of series labels")]
    SeriesLabelBytes { labels: String, limit: usize },
    #[error(
        "tenant {tenant:?} has {active} active series, {new} more of profile {labels} would pass the limit of {limit} (max_global_series_per_tenant)"
    )]
    ActiveSeries { tenant: String, labels: String, active: usize, new: usize, limit: usize },
    #[error("labels about source code make more than {limit} bytes in the build ids of {mappings} mappings")]
    BuildIdBytes { mappings: usize, limit: usize },
    #[error(
        "push rate limit of {rate_mb} MB/s (burst {burst_mb} MB) of tenant {tenant:?} is exceeded by {bytes} bytes, retry after {retry_after:?}"
    )]
    RateLimited { tenant: String, rate_mb: f64, burst_mb: f64, bytes: usize, retry_after: Duration },
    #[error(
        "requests in flight hold {held} bytes, {wanted} more would pass the limit of {limit} (distributor.inflight_bytes_max)"
    )]
    Busy { held: usize, wanted: usize, limit: usize },
    #[error("profiles were not made durable within {limit:?}; pushing them again is safe")]
    TimedOut { limit: Duration },
    #[error("{0}")]
    Ingester(#[source] rpc::Error),
}

/// Time after which to retry a request that was refused for lack of memory.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<OverBudget> for Error {
    fn from(OverBudget { held, wanted, limit, .. }: OverBudget) -> Self {
        Self::Busy { held, wanted, limit }
    }
}

impl Error {
    /// The kind of the error: whether the client should fix its input, wait or retry.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::RateLimited { retry_after, .. } => ErrorKind::Exhausted { retry_after: *retry_after },
            Self::Busy { .. } => ErrorKind::Exhausted { retry_after: BUSY_RETRY_AFTER },
            Self::TimedOut { .. } => ErrorKind::Unavailable,
            Self::Ingester(error) => error.kind,
            _ => ErrorKind::InvalidArgument,
        }
    }

    /// The value of label `reason` in metrics; Pyroscope's value where it has one.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Decompress(error) if error.is_corrupt() => "malformed_profile",
            Self::NoProfiles
            | Self::Pprof { .. }
            | Self::Flaw(_)
            | Self::Form(_)
            | Self::SampleTypeConfig(_)
            | Self::Text { .. }
            | Self::LostLineEnds { .. }
            | Self::Recording { .. }
            | Self::NoFile { .. }
            | Self::NothingValid { .. }
            | Self::Difference { .. }
            | Self::SampleSum { .. }
            | Self::Tree(_)
            | Self::Column(_)
            | Self::CumulativePair
            | Self::NoSampleTypes
            | Self::SampleTypes { .. }
            | Self::SampleTypeHyphen { .. }
            | Self::NotUtf8 { .. } => "malformed_profile",
            Self::RequestTooLarge { .. } => "body_size_limit_exceeded",
            Self::Decompress(_) | Self::FrameNames(_) | Self::BuildIdBytes { .. } => "profile_size_limit",
            Self::OutsideWindow { .. } | Self::TimeTooLate { .. } => "not_in_ingestion_window",
            Self::PastRetention { .. } => "past_retention",
            Self::Samples { .. } => "samples_limit",
            Self::SampleLabels { .. } => "sample_labels_limit",
            Self::LabelNames { .. } => "max_label_names_per_series",
            Self::NoMetricName { .. } | Self::LabelName { .. } | Self::Colon { .. } => "invalid_labels",
            Self::NoServiceName { .. } => "missing_labels",
            Self::LabelNameTooLong { .. } => "label_name_too_long",
            Self::LabelValueTooLong { .. } => "label_value_too_long",
            Self::DuplicateLabel { .. } => "duplicate_label_names",
            Self::SeriesLabelBytes { .. } | Self::ActiveSeries { .. } => "series_limit",
            Self::RateLimited { .. } => "rate_limited",
            Self::Busy { .. } | Self::TimedOut { .. } | Self::Ingester(_) => "unavailable",
        }
    }
}

/// The refused profiles of one request; its other profiles are durable.
#[derive(Debug)]
pub(crate) struct Errors {
    /// Never empty.
    failures: Vec<Failure>,
    /// Profiles in the request.
    profiles: usize,
}

/// The refusal of one profile, by its position in the request.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) index: usize,
    pub(crate) error: Error,
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self { failures: vec![Failure { index: 0, error }], profiles: 1 }
    }
}

impl Errors {
    /// `Ok` without failures.
    pub(crate) fn of(failures: Vec<Failure>, profiles: usize) -> Result<(), Self> {
        if failures.is_empty() { Ok(()) } else { Err(Self { failures, profiles }) }
    }

    /// The kind of the whole request. A failure that may pass wins: repeating the stored profiles is harmless, and
    /// never repeating the others would lose them.
    pub(crate) fn kind(&self) -> ErrorKind {
        let kinds = || self.failures.iter().map(|failure| failure.error.kind());
        kinds().find(|kind| !matches!(kind, ErrorKind::InvalidArgument)).unwrap_or(ErrorKind::InvalidArgument)
    }

    pub(crate) fn first(&self) -> Option<&Error> {
        self.failures.first().map(|failure| &failure.error)
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.failures.len();
        if count > 1 {
            write!(f, "{count} errors: ")?;
        }
        for (i, Failure { index, error }) in self.failures.iter().take(ERRORS_SHOWN_MAX).enumerate() {
            let semicolon = if i > 0 { "; " } else { "" };
            match self.profiles {
                1 => write!(f, "{error}")?,
                profiles => write!(f, "{semicolon}profile {index} of {profiles}: {error}")?,
            }
        }
        if count > ERRORS_SHOWN_MAX {
            write!(f, "; and {} more", count - ERRORS_SHOWN_MAX)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A text from outside, cut to [`TEXT_SHOWN_BYTES_MAX`] for a message.
pub(crate) fn shown(text: impl std::fmt::Display) -> String {
    let mut text = text.to_string();
    if text.len() > TEXT_SHOWN_BYTES_MAX {
        let end = text.floor_char_boundary(TEXT_SHOWN_BYTES_MAX);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The first bytes of a text that is not UTF-8, with everything but printable ASCII escaped.
pub(crate) fn shown_bytes(text: &[u8]) -> String {
    shown(text[..text.len().min(TEXT_SHOWN_BYTES_MAX)].escape_ascii())
}

fn not_a_pprof(error: &formats::pprof::Error, kind: Option<&Kind>) -> String {
    match kind {
        Some(kind) => format!("profile is no pprof, {kind}"),
        None => error.to_string(),
    }
}

fn not_a_recording(error: &formats::jfr::Error, kind: Option<&Kind>) -> String {
    match kind {
        Some(kind) => format!("body is no JFR recording, {kind}"),
        None => error.to_string(),
    }
}

fn not_folded(error: &formats::folded::Error, kind: Option<&Kind>) -> String {
    match kind {
        Some(kind) => format!("text is not folded, {kind} ({error})"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(errors: Vec<Error>, profiles: usize) -> Errors {
        let failures = errors.into_iter().enumerate().map(|(index, error)| Failure { index, error });
        Errors { failures: failures.collect(), profiles }
    }

    #[test]
    fn an_error_that_may_pass_decides_the_kind() {
        let busy = || Error::Busy { held: 1, wanted: 1, limit: 1 };
        assert_eq!(errors(vec![Error::NoProfiles], 1).kind(), ErrorKind::InvalidArgument);
        assert_eq!(errors(vec![Error::NoProfiles, busy()], 2).kind(), busy().kind());
    }

    #[test]
    fn many_errors_are_counted_and_the_first_listed() {
        let text = |count, profiles| {
            errors((0..count).map(|_| Error::CumulativePair).collect(), profiles).to_string()
        };
        assert_eq!(text(1, 1), Error::CumulativePair.to_string());
        assert!(text(1, 2).starts_with("profile 0 of 2: form has"));
        assert!(text(2, 2).starts_with("2 errors: profile 0 of 2: form has"));
        assert!(text(20, 20).ends_with("update the client; and 12 more"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shown("short"), "short");
        let long = "ü".repeat(1000);
        assert_eq!(shown(&long).chars().count(), TEXT_SHOWN_BYTES_MAX / 2 + 1);
    }
}
