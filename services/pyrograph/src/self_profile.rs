//! Profiles this process and pushes the result into itself, by the way every client's profile takes.
//!
//! Owns: sampling, naming frames, the push. A profile that cannot be taken or pushed is dropped
//! with a warning: the server does not depend on watching itself.

use std::collections::HashMap;
use std::time::Duration;

use clock::Clock;
use model::{NONE, Profile, Strings, Symbols, ValueType};
use tracing::{debug, warn};

use crate::config::SelfProfiling;

/// Samples the CPU for `interval` after `interval` and pushes to `url`, until dropped.
pub(crate) async fn run(config: SelfProfiling, multitenancy: bool, url: String, clock: Clock) {
    let client = reqwest::Client::new();
    let host = hostname();
    let rate = config.sample_rate.clamp(1, 1000);
    loop {
        let started_nanos = clock.unix_nanos();
        // The vdso's unwind tables are wrong on some systems. Other libraries stay in: an idle server
        // spends what little time it needs in libc.
        let guard =
            pprof::ProfilerGuardBuilder::default().frequency(rate as i32).blocklist(&["vdso"]).build();
        let guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                warn!(%error, "cannot profile this process; self-profiling is off");
                return;
            }
        };
        let used_before = process_cpu_nanos();
        clock.sleep(Duration::from(config.interval)).await;
        let report = match guard.report().build() {
            Ok(report) => report,
            Err(error) => {
                warn!(%error, "cannot read this process's own profile");
                continue;
            }
        };
        drop(guard);
        let duration_nanos = clock.unix_nanos() - started_nanos;
        let used_nanos = process_cpu_nanos() - used_before;
        let profile = to_profile(&report.data, rate, used_nanos, started_nanos, duration_nanos);
        let body = formats::pprof::encode(&profile);
        let name = format!("pyrograph{{hostname={host},target=all}}");
        let mut request = client
            .post(format!("{url}/ingest"))
            .query(&[("name", name.as_str()), ("format", "pprof"), ("spyName", "pyrograph")])
            .query(&[("from", started_nanos / 1_000_000_000), ("until", clock.unix_nanos() / 1_000_000_000)])
            .body(body);
        if multitenancy {
            let tenant = if config.tenant_id.is_empty() { "anonymous" } else { &config.tenant_id };
            request = request.header("X-Scope-OrgID", tenant);
        }
        match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => debug!(samples = profile.samples.len(), "pushed own profile"),
            Err(error) => warn!(%error, "cannot push this process's own profile"),
        }
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Label values end at a comma or brace on this path.
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// CPU time of all threads of this process so far.
fn process_cpu_nanos() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// CPU nanoseconds per stacktrace, with a root frame for the kind of thread that ran.
///
/// An idle server works in slices that no sampler meets. What was used beyond the samples has a frame of
/// its own, so that the total is what the process really took.
fn to_profile(
    data: &HashMap<pprof::Frames, isize>,
    rate: u32,
    used_nanos: i64,
    time_nanos: i64,
    duration_nanos: i64,
) -> Profile {
    let mut strings = Strings::default();
    strings.push(b"");
    let cpu = strings.push(b"cpu");
    let nanoseconds = strings.push(b"nanoseconds");
    let mut symbols = Symbols { strings, ..Symbols::default() };
    symbols.mappings.push(model::Mapping { has_functions: true, ..model::Mapping::default() });
    let cpu_type = ValueType { r#type: cpu, unit: nanoseconds };
    let period = 1_000_000_000 / i64::from(rate);
    let mut profile = Profile {
        sample_types: vec![cpu_type],
        period_type: Some(cpu_type),
        period,
        time_nanos,
        duration_nanos,
        ..Profile::default()
    };
    let mut locations: HashMap<String, u32> = HashMap::new();
    let mut stack = Vec::new();
    for (frames, count) in data {
        stack.clear();
        for symbol in frames.frames.iter().flatten() {
            stack.push(location(&mut symbols, &mut locations, symbol.name()));
        }
        // Threads of a pool differ by a number only: one root frame for all of them.
        let thread = frames.thread_name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        stack.push(location(&mut symbols, &mut locations, format!("[{thread}]")));
        symbols.stacktraces.push(&stack);
        profile.samples.values.push(*count as i64 * period);
        profile.samples.label_offsets.push(0);
    }
    let unsampled = used_nanos - profile.samples.values.iter().sum::<i64>();
    if unsampled > 0 {
        let frame = location(&mut symbols, &mut locations, "[too short to be sampled]".into());
        symbols.stacktraces.push(&[frame]);
        profile.samples.values.push(unsampled);
        profile.samples.label_offsets.push(0);
    }
    profile.symbols = symbols;
    profile
}

fn location(symbols: &mut Symbols, known: &mut HashMap<String, u32>, name: String) -> u32 {
    if let Some(location) = known.get(&name) {
        return *location;
    }
    let string = symbols.strings.push(name.as_bytes());
    symbols.functions.push(model::Function { name: string, ..model::Function::default() });
    let line = model::Line { function: symbols.functions.len() as u32 - 1, line: 0 };
    debug_assert_ne!(line.function, NONE);
    let location = symbols.locations.push(0, 0, false, &[line]);
    known.insert(name, location);
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_sample_met_is_still_in_the_total() {
        let profile = to_profile(&HashMap::new(), 100, 3_000_000, 1, 2);
        assert_eq!(profile.period, 10_000_000);
        assert_eq!(profile.samples.values, [3_000_000]);
    }
}
