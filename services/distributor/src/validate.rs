//! Checks whether a decoded profile is acceptable.
//!
//! Owns: the order of the checks; cutting stacktraces that are too deep and strings that are too long.
//! Does not own: whether bytes are a pprof at all (`formats`), labels of series (`labels`).

use formats::pprof::{DecodedProfile, Flaw};
use limits::Limits;
use model::label_names::SERVICE_NAME;
use model::{Labels, Profile, Stacktraces, StringId};

use crate::error::{Error, shown, shown_bytes};
use crate::receipt::DiscardCounts;

/// Most sample types of one profile: each is a stored column.
const SAMPLE_TYPES_MAX: usize = 64;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Latest time of a profile, in Unix nanoseconds: the end of the year 2261. Whole windows up to there fit 64 bits;
/// no query range reaches later times.
const TIME_NANOS_MAX: i64 = 9_214_646_399_999_999_999;

/// Largest assumed difference between the clocks of two processes. A profile that another process may already
/// hide as too old is refused.
const CLOCKS_APART_NANOS: i64 = 60_000_000_000;

/// The sample label with which `go tool pprof -diff_base` marks subtracted samples.
const DIFFERENCE_BASE: &[u8] = b"pprof::base";

/// Checks a profile and returns it with its time set: `now` if it had none. Times are Unix nanoseconds.
///
/// Stacktraces deeper than the limit keep their root side; strings longer than the limit keep their end.
///
/// # Errors
/// The first broken rule.
pub(crate) fn validate(
    decoded: DecodedProfile,
    labels: &Labels,
    limits: &Limits,
    now: i64,
) -> Result<Profile, Error> {
    let DecodedProfile { mut profile, flaw } = decoded;
    if profile.sample_types.is_empty() {
        return Err(Error::NoSampleTypes);
    }
    if profile.sample_types.len() > SAMPLE_TYPES_MAX {
        return Err(Error::SampleTypes { count: profile.sample_types.len(), limit: SAMPLE_TYPES_MAX });
    }
    if profile.time_nanos <= 0 {
        profile.time_nanos = now;
    } else {
        check_window(profile.time_nanos, labels, limits, now)?;
        check_retention(profile.time_nanos, labels, limits, now)?;
    }
    check_samples(&profile, labels, limits)?;
    cut_stacktraces(&mut profile.symbols.stacktraces, limits.max_profile_stacktrace_depth);
    // A hyphen is reported after other flaws, and strings are cut before they are checked.
    check_flaw(flaw)?;
    check_sample_types(&profile)?;
    check_strings(&mut profile, limits.max_profile_symbol_value_length)?;
    Ok(profile)
}

fn check_window(time: i64, labels: &Labels, limits: &Limits, now: i64) -> Result<(), Error> {
    if time > TIME_NANOS_MAX {
        return Err(Error::TimeTooLate { labels: shown(labels), time, limit: TIME_NANOS_MAX });
    }
    let bound = |distance: i64, unlimited: i64| if distance == 0 { unlimited } else { distance };
    let older = bound(limits.reject_older_than.nanos(), i64::MAX);
    let newer = bound(limits.reject_newer_than.nanos(), i64::MAX);
    let start_ms = now.saturating_sub(older) / NANOS_PER_MILLI;
    let end_ms = now.saturating_add(newer) / NANOS_PER_MILLI;
    let time_ms = time / NANOS_PER_MILLI;
    let too_old = !limits.reject_older_than.is_zero() && time_ms <= start_ms;
    let too_new = !limits.reject_newer_than.is_zero() && time_ms >= end_ms;
    if too_old || too_new {
        let labels = shown(labels);
        return Err(Error::OutsideWindow { labels, time_ms, start_ms, end_ms });
    }
    Ok(())
}

/// Refuses a profile older than the retention of its service: no query would show it.
fn check_retention(time: i64, labels: &Labels, limits: &Limits, now: i64) -> Result<(), Error> {
    let service = labels.get(SERVICE_NAME).unwrap_or_default();
    let (setting, period) = limits.retention_setting(service);
    if period.is_zero() {
        return Ok(());
    }
    // At most a tenth of the retention, so that the margin does not consume a retention of minutes.
    let margin = CLOCKS_APART_NANOS.min(period.nanos() / 10);
    let kept_from = now.saturating_sub(period.nanos() - margin);
    if time < kept_from {
        let (labels, time_ms, kept_from_ms) =
            (shown(labels), time / NANOS_PER_MILLI, kept_from / NANOS_PER_MILLI);
        return Err(Error::PastRetention { labels, time_ms, kept_from_ms, period, setting });
    }
    Ok(())
}

/// Checks the samples that count.
///
/// # Errors
/// If all samples were left out, if the profile is a difference of two, or if a column's sum does not fit 63 bits.
pub(crate) fn check_counted(
    profile: &Profile,
    counted: &[u32],
    discarded: &DiscardCounts,
) -> Result<(), Error> {
    if discarded.is_empty() {
        return check_sums(profile, counted);
    }
    let is_base = |label: &model::SampleLabel| profile.symbols.strings.get(label.key) == DIFFERENCE_BASE;
    if profile.samples.labels.iter().any(is_base) {
        return Err(Error::Difference { discarded: discarded.clone() });
    }
    if counted.is_empty() {
        return Err(Error::NothingValid { samples: profile.samples.len(), discarded: discarded.clone() });
    }
    check_sums(profile, counted)
}

fn check_sums(profile: &Profile, counted: &[u32]) -> Result<(), Error> {
    let columns = profile.sample_types.len();
    let mut sums = vec![0_i64; columns];
    for sample in counted {
        let start = *sample as usize * columns;
        for (column, value) in profile.samples.values[start..start + columns].iter().enumerate() {
            sums[column] = sums[column].checked_add(*value).ok_or_else(|| {
                let name = profile.symbols.strings.text(profile.sample_types[column].r#type);
                Error::SampleSum { sample_type: shown(name) }
            })?;
        }
    }
    Ok(())
}

fn check_samples(profile: &Profile, labels: &Labels, limits: &Limits) -> Result<(), Error> {
    let (samples, limit) = (profile.samples.len(), limits.max_profile_stacktrace_samples);
    if limit > 0 && samples > limit {
        return Err(Error::Samples { labels: shown(labels), samples, limit });
    }
    let limit = limits.max_profile_stacktrace_sample_labels;
    let most = profile.samples.label_offsets.windows(2).map(|pair| pair[1] - pair[0]).max();
    let count = most.unwrap_or_default() as usize;
    if limit > 0 && count > limit {
        return Err(Error::SampleLabels { labels: shown(labels), count, limit });
    }
    Ok(())
}

/// Keeps the last `depth` locations of each stacktrace: its root side. 0 keeps all.
fn cut_stacktraces(stacktraces: &mut Stacktraces, depth: usize) {
    let too_deep = |pair: &[u32]| (pair[1] - pair[0]) as usize > depth;
    if depth == 0 || !stacktraces.offsets.windows(2).any(too_deep) {
        return;
    }
    let mut cut = Stacktraces::default();
    for i in 0..stacktraces.len() {
        let stacktrace = stacktraces.get(i as u32);
        cut.push(&stacktrace[stacktrace.len().saturating_sub(depth)..]);
    }
    *stacktraces = cut;
}

fn check_flaw(flaw: Option<Flaw>) -> Result<(), Error> {
    flaw.map_or(Ok(()), |flaw| Err(Error::Flaw(flaw)))
}

fn check_sample_types(profile: &Profile) -> Result<(), Error> {
    let strings = &profile.symbols.strings;
    for sample_type in &profile.sample_types {
        let name = strings.get(sample_type.r#type);
        if name.contains(&b'-') {
            return Err(Error::SampleTypeHyphen { name: shown(String::from_utf8_lossy(name)) });
        }
    }
    // The parts of a profile type are separated by colons: no query could name this one.
    let types =
        profile.sample_types.iter().flat_map(|t| [("sample type", t.r#type), ("sample unit", t.unit)]);
    let period = profile.period_type.iter();
    let period = period.flat_map(|t| [("period type", t.r#type), ("period unit", t.unit)]);
    for (part, id) in types.chain(period) {
        let text = strings.get(id);
        if text.contains(&b':') {
            return Err(Error::Colon { part, text: shown(String::from_utf8_lossy(text)) });
        }
    }
    Ok(())
}

fn check_strings(profile: &mut Profile, limit: usize) -> Result<(), Error> {
    let strings = &mut profile.symbols.strings;
    let too_long = |string: &[u8]| limit > 0 && string.len() > limit;
    if strings.iter().any(too_long) {
        for id in 0..strings.len() as u32 {
            let length = strings.get(id).len();
            if limit > 0 && length > limit {
                strings.cut_front(id, (length - limit) as u32);
            }
        }
    }
    let profile: &Profile = profile;
    let strings = &profile.symbols.strings;
    let wrong = strings.iter().position(|string| std::str::from_utf8(string).is_err());
    wrong.map_or(Ok(()), |index| {
        let text = shown_bytes(strings.get(index as u32));
        Err(Error::NotUtf8 { holder: holder(profile, index as u32), text })
    })
}

/// The element of the profile that holds string `id`, for a message.
fn holder(profile: &Profile, id: StringId) -> String {
    let strings = &profile.symbols.strings;
    for label in &profile.samples.labels {
        if label.string == id {
            return format!("value of sample label \"{}\"", shown_bytes(strings.get(label.key)));
        }
        if label.key == id {
            return "name of a sample label".to_owned();
        }
    }
    let symbols = &profile.symbols;
    let types = || profile.sample_types.iter().chain(&profile.period_type);
    if types().any(|t| t.r#type == id || t.unit == id) {
        return "type or unit".to_owned();
    }
    if let Some(number) = symbols.functions.iter().position(|f| f.name == id || f.system_name == id) {
        return format!("name of function {number}");
    }
    if let Some(number) = symbols.functions.iter().position(|f| f.filename == id) {
        return format!("file of function {number}");
    }
    if let Some(number) = symbols.mappings.iter().position(|m| m.filename == id || m.build_id == id) {
        return format!("file or build id of mapping {number}");
    }
    format!("string {id} of the profile")
}

#[cfg(test)]
mod tests;
