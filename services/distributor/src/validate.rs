//! Whether a decoded profile is acceptable.
//!
//! Owns: the order of the checks and their words; cutting what is too deep or too long.
//! Does not own: whether bytes are a pprof at all (`formats`), labels of series (`labels`).

use formats::pprof::{Decoded, Flaw};
use limits::Limits;
use model::{Labels, Profile, Stacktraces};

use crate::error::{Error, shown};

/// Most sample types of one profile: each is a column of what is stored.
const SAMPLE_TYPES_MAX: usize = 64;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Checks a profile and gives it, its time set: `now` if it has none. Times are Unix nanoseconds.
///
/// Stacktraces deeper than the limit keep their root side; strings longer than the limit keep their end.
///
/// # Errors
/// The first rule that the profile breaks.
pub(crate) fn validate(
    decoded: Decoded,
    labels: &Labels,
    limits: &Limits,
    now: i64,
) -> Result<Profile, Error> {
    let Decoded { mut profile, flaw } = decoded;
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
    }
    check_samples(&profile, labels, limits)?;
    cut_stacktraces(&mut profile.symbols.stacktraces, limits.max_profile_stacktrace_depth);
    // A hyphen is told after other flaws, and text is cut before it is checked.
    check_flaw(flaw)?;
    check_sample_types(&profile)?;
    check_strings(&mut profile, limits.max_profile_symbol_value_length)?;
    Ok(profile)
}

fn check_window(time: i64, labels: &Labels, limits: &Limits, now: i64) -> Result<(), Error> {
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

/// Leaves the last `depth` locations of each stacktrace: its root side. 0 leaves all.
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
    for sample_type in &profile.sample_types {
        let name = profile.symbols.strings.get(sample_type.r#type);
        if name.contains(&b'-') {
            return Err(Error::SampleTypeHyphen { name: shown(String::from_utf8_lossy(name)) });
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
    match strings.iter().position(|string| std::str::from_utf8(string).is_err()) {
        Some(index) => Err(Error::NotUtf8 { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
