//! Profiles this process and pushes the result into itself, through the same route as any client.
//!
//! Owns: sampling, naming frames, the push. A profile that cannot be taken or pushed is dropped with a warning: the
//! server does not depend on its own profiles.

use std::collections::HashMap;
use std::time::Duration;

use clock::{Clock, Pool};
use model::{NONE, Profile, Strings, Symbols, ValueType};
use tracing::{debug, warn};

use crate::config::SelfProfiling;

/// Time of the first profile: short, so that a new server soon has something to show.
const FIRST_INTERVAL: Duration = Duration::from_secs(4);

/// A process that uses less than 1/`QUIET_PARTS` of a core is quiet.
const QUIET_PARTS: i64 = 20;

/// Factor on the sample rate of a quiet process: little CPU time needs finer steps, and costs little to sample.
const QUIET_RATE_FACTOR: u32 = 5;

/// Maximum rate, in samples per second of CPU time; finer than the clock ticks of the systems.
const RATE_MAX: u32 = 1000;

/// Distinct stacktraces after which a sampler is replaced. Each takes about a kilobyte.
const STACKTRACES_MAX: usize = 1024;

/// Samples the CPU time of this process. Only one can exist at a time.
///
/// Starting a sampler is the most expensive work of an idle server, so one sampler serves many profiles.
pub(crate) struct Sampler {
    guard: pprof::ProfilerGuard<'static>,
    rate: u32,
    /// Samples of earlier profiles.
    seen: Option<pprof::UnresolvedReport>,
    taken_nanos: i64,
    used_nanos: i64,
}

/// Samples since the previous profile.
struct SampleBatch {
    report: pprof::UnresolvedReport,
    /// CPU time that one sample stands for.
    period_nanos: i64,
    started_nanos: i64,
    duration_nanos: i64,
    /// CPU time of all threads in that time.
    used_nanos: i64,
}

impl Sampler {
    /// The sampler of a server that starts. `None`, with a warning, if the system does not allow it.
    pub(crate) fn start(config: &SelfProfiling, clock: &Clock) -> Option<Self> {
        Self::start_at(rate(config, true), clock)
    }

    /// `rate` in samples per second of CPU time.
    fn start_at(rate: u32, clock: &Clock) -> Option<Self> {
        // The vdso's unwind tables are wrong on some systems. Other libraries stay: an idle server
        // spends most of its little CPU time in libc.
        let guard =
            pprof::ProfilerGuardBuilder::default().frequency(rate as i32).blocklist(&["vdso"]).build();
        match guard {
            Ok(guard) => Some(Self {
                guard,
                rate,
                seen: None,
                taken_nanos: clock.unix_nanos(),
                used_nanos: process_cpu_nanos(),
            }),
            Err(error) => {
                warn!(%error, "cannot profile this process; self-profiling is off");
                None
            }
        }
    }

    /// This sampler, or a new one if the rate changes or it has too many stacktraces.
    fn renewed(self, rate: u32, clock: &Clock) -> Option<Self> {
        let stacktraces = self.seen.as_ref().map_or(0, |seen| seen.data.len());
        if rate == self.rate && stacktraces < STACKTRACES_MAX {
            return Some(self);
        }
        let Self { guard, taken_nanos, used_nanos, .. } = self;
        drop(guard);
        let started = Self::start_at(rate, clock)?;
        Some(Self { taken_nanos, used_nanos, ..started })
    }

    /// Takes the samples since the last call. Names are resolved later, so that this work is sampled as well.
    fn take(&mut self, clock: &Clock) -> pprof::Result<SampleBatch> {
        let report = self.guard.report().build_unresolved()?;
        let seen = self.seen.take();
        let seen_count = |frames| seen.as_ref().and_then(|seen| seen.data.get(frames)).copied().unwrap_or(0);
        let fresh = report.data.iter().map(|(frames, count)| (frames, count - seen_count(frames)));
        let fresh = fresh.filter(|(_, count)| *count > 0).map(|(frames, count)| (frames.clone(), count));
        let fresh = pprof::UnresolvedReport { data: fresh.collect(), timing: report.timing.clone() };
        self.seen = Some(report);
        let (started_nanos, used_before_nanos) = (self.taken_nanos, self.used_nanos);
        (self.taken_nanos, self.used_nanos) = (clock.unix_nanos(), process_cpu_nanos());
        Ok(SampleBatch {
            report: fresh,
            period_nanos: (1_000_000_000 / i64::from(self.rate)).max(tick_nanos()),
            started_nanos,
            duration_nanos: self.taken_nanos - started_nanos,
            used_nanos: self.used_nanos - used_before_nanos,
        })
    }
}

fn rate(config: &SelfProfiling, is_quiet: bool) -> u32 {
    let rate = config.sample_rate.clamp(1, RATE_MAX);
    if is_quiet { (rate * QUIET_RATE_FACTOR).min(RATE_MAX) } else { rate }
}

/// Pushes the samples of `sampler` to `url` every `interval`, until dropped.
pub(crate) async fn run(
    mut sampler: Sampler,
    config: SelfProfiling,
    multitenancy: bool,
    url: String,
    clock: Clock,
    pool: Pool,
) {
    let client = reqwest::Client::new();
    let name = format!("pyrograph{{hostname={},target=all}}", hostname());
    let mut interval = FIRST_INTERVAL.min(Duration::from(config.interval));
    let mut balance = Balance::default();
    loop {
        clock.sleep(interval).await;
        interval = Duration::from(config.interval);
        let sampled = match sampler.take(&clock) {
            Ok(sampled) => sampled,
            Err(error) => {
                warn!(%error, "cannot read this process's own profile");
                continue;
            }
        };
        let is_quiet = sampled.used_nanos < sampled.duration_nanos / QUIET_PARTS;
        let Some(next) = sampler.renewed(rate(&config, is_quiet), &clock) else { return };
        sampler = next;
        let (from, until) = (sampled.started_nanos, sampled.started_nanos + sampled.duration_nanos);
        let unsampled_nanos = balance.settle(&sampled);
        let profile = pool.run(move || to_profile(sampled, unsampled_nanos)).await;
        if profile.samples.values.is_empty() {
            continue;
        }
        let mut request = client
            .post(format!("{url}/ingest"))
            .query(&[("name", name.as_str()), ("format", "pprof"), ("spyName", "pyrograph")])
            .query(&[("from", from / 1_000_000_000), ("until", until / 1_000_000_000)])
            .body(formats::pprof::encode(&profile));
        if multitenancy {
            let tenant = if config.tenant_id.is_empty() { "anonymous" } else { &config.tenant_id };
            request = request.header("X-Scope-OrgID", tenant);
        }
        match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => debug!(samples = profile.samples.values.len(), "pushed own profile"),
            Err(error) => warn!(%error, "cannot push this process's own profile"),
        }
    }
}

/// CPU time that was used but is not in a profile yet; negative while samples stood for more than was used.
///
/// A sample stands for a whole period although the thread may have run for less or more of it. Over many
/// profiles that evens out: only a balance of a whole period or more is work that no sample met.
#[derive(Default)]
struct Balance {
    nanos: i64,
}

impl Balance {
    /// CPU time until the end of `sampled` that no sample stands for; 0 if it is less than a period.
    fn settle(&mut self, sampled: &SampleBatch) -> i64 {
        let samples: isize = sampled.report.data.values().sum();
        self.add(sampled.used_nanos - samples as i64 * sampled.period_nanos, sampled.period_nanos)
    }

    fn add(&mut self, unsampled_nanos: i64, period_nanos: i64) -> i64 {
        self.nanos += unsampled_nanos;
        if self.nanos < period_nanos { 0 } else { std::mem::take(&mut self.nanos) }
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Label values end at a comma or brace on this path.
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// CPU time of all threads of this process since its start.
fn process_cpu_nanos() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Interval at which the system checks which threads run: a sample stands for no less.
fn tick_nanos() -> i64 {
    #[cfg(target_os = "linux")]
    {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
        tick.tv_sec * 1_000_000_000 + tick.tv_nsec
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// CPU nanoseconds per stacktrace, with a root frame for the kind of thread that ran.
///
/// An idle server works in slices that few samples meet. CPU time beyond the samples has a frame of its own, so that
/// the total is the CPU time of the process.
fn to_profile(sampled: SampleBatch, unsampled_nanos: i64) -> Profile {
    let mut strings = Strings::default();
    strings.push(b"");
    let cpu = strings.push(b"cpu");
    let nanoseconds = strings.push(b"nanoseconds");
    let mut symbols = Symbols { strings, ..Symbols::default() };
    symbols.mappings.push(model::Mapping { has_functions: true, ..model::Mapping::default() });
    let cpu_type = ValueType { r#type: cpu, unit: nanoseconds };
    let mut profile = Profile {
        sample_types: vec![cpu_type],
        period_type: Some(cpu_type),
        period: sampled.period_nanos,
        time_nanos: sampled.started_nanos,
        duration_nanos: sampled.duration_nanos,
        ..Profile::default()
    };
    let mut locations = Locations { symbols, known: HashMap::new() };
    let mut stack = Vec::new();
    for (frames, count) in sampled.report.data {
        let frames = pprof::Frames::from(frames);
        stack.clear();
        for symbol in frames.frames.iter().flatten() {
            stack.push(locations.of(symbol.raw_name(), || symbol.name()));
        }
        // Threads of a pool differ by a number only: one root frame for all of them.
        let thread = frames.thread_name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        stack.push(locations.of_name(format!("[{thread}]")));
        locations.symbols.stacktraces.push(&stack);
        profile.samples.values.push(count as i64 * sampled.period_nanos);
        profile.samples.label_offsets.push(0);
    }
    if unsampled_nanos > 0 {
        let frame = locations.of_name("[too short to be sampled]".into());
        locations.symbols.stacktraces.push(&[frame]);
        profile.samples.values.push(unsampled_nanos);
        profile.samples.label_offsets.push(0);
    }
    profile.symbols = locations.symbols;
    profile
}

/// One location per function.
struct Locations {
    symbols: Symbols,
    /// Location by linker name; each name is demangled once.
    known: HashMap<Vec<u8>, u32>,
}

impl Locations {
    fn of_name(&mut self, name: String) -> u32 {
        self.of(name.clone().as_bytes(), || name)
    }

    fn of(&mut self, raw: &[u8], name: impl FnOnce() -> String) -> u32 {
        if let Some(location) = self.known.get(raw) {
            return *location;
        }
        let string = self.symbols.strings.push(name().as_bytes());
        self.symbols.functions.push(model::Function { name: string, ..model::Function::default() });
        let line = model::Line { function: self.symbols.functions.len() as u32 - 1, line: 0 };
        debug_assert_ne!(line.function, NONE);
        let location = self.symbols.locations.push(0, 0, false, &[line]);
        self.known.insert(raw.to_vec(), location);
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_without_a_sample_is_in_the_total_once() {
        const PERIOD: i64 = 4;
        #[track_caller]
        fn check(unsampled: &[i64], expected: &[i64]) {
            let mut balance = Balance::default();
            let settled: Vec<i64> = unsampled.iter().map(|nanos| balance.add(*nanos, PERIOD)).collect();
            assert_eq!(settled, expected);
        }
        check(&[30, 30], &[30, 30]);
        check(&[3, 3, 3], &[0, 6, 0]);
        check(&[-5, 3, 6], &[0, 0, 4]);
    }

    // A process has one sampler, so one test uses it.
    #[test]
    fn a_profile_has_the_functions_that_ran_with_their_cpu_time() {
        let clock = Clock::system();
        let mut sampler = Sampler::start_at(500, &clock).expect("sampler");
        spin(Duration::from_millis(200));
        let sampled = sampler.take(&clock).expect("samples");
        let (used, period) = (sampled.used_nanos, sampled.period_nanos);
        let mut balance = Balance::default();
        let unsampled = balance.settle(&sampled);
        let profile = to_profile(sampled, unsampled);
        assert_eq!(profile.samples.values.iter().sum::<i64>() + balance.nanos, used);
        assert!(profile.samples.values.len() > 1, "{used} ns used, one sample per {period} ns, none met");
        let functions = profile.symbols.functions.iter();
        let names: Vec<_> = functions.map(|f| profile.symbols.strings.text(f.name)).collect();
        assert!(names.iter().any(|name| name == "pyrograph::self_profile::tests::spin"), "{names:?}");

        let second = sampler.take(&clock).expect("samples");
        let met: isize = second.report.data.values().sum();
        assert!(
            met as i64 * second.period_nanos < 200_000_000,
            "{met} samples are in the next profile once more"
        );
        let mut renewed = sampler.renewed(100, &clock).expect("sampler");
        assert_eq!(renewed.take(&clock).expect("samples").period_nanos, 10_000_000);
    }

    #[inline(never)]
    fn spin(time: Duration) {
        let end = process_cpu_nanos() + time.as_nanos() as i64;
        while process_cpu_nanos() < end {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
    }
}
