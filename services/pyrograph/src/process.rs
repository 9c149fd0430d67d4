//! Metrics of this process from the operating system, under the names that Prometheus clients share.
//!
//! Read from `/proc` at each scrape; left out on systems without `/proc`.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing::warn;

/// Clock ticks per second in `/proc`: the same on every Linux.
const TICKS: f64 = 100.0;

/// Registers the metrics of this process, and its version and target.
pub(crate) fn register(target: &str, registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
    let info =
        Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("target", target.to_owned())]);
    registry.register("pyrograph_build", "Version and target of this process", info);
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, value: &dyn EncodeMetric| {
            value.encode(encoder.encode_descriptor(
                &format!("process_{name}"),
                help,
                None,
                value.metric_type(),
            )?)
        };
        if let Some(seconds) = cpu_seconds() {
            show("cpu_seconds", "CPU time used", &ConstCounter::new(seconds))?;
        }
        if let Some(bytes) = memory_bytes("VmRSS:") {
            show("resident_memory_bytes", "Memory in use", &ConstGauge::new(bytes))?;
        }
        if let Some(bytes) = memory_bytes("VmHWM:") {
            show("resident_memory_max_bytes", "Most memory that was in use", &ConstGauge::new(bytes))?;
        }
        if let Some(seconds) = start_seconds() {
            show("start_time_seconds", "When the process started, in Unix time", &ConstGauge::new(seconds))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            show("open_fds", "Open files and connections", &ConstGauge::new(open.count() as i64))?;
        }
        if let Some(limit) = open_max() {
            show("max_fds", "Most files and connections that may be open", &ConstGauge::new(limit))?;
        }
        Ok(())
    }
}

/// Raises the soft limit of open files of this process to its hard limit.
///
/// Returns the limit; `None` if there is none. The soft limit is often 1024 for programs that use `select`, which this
/// process does not.
pub(crate) fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            warn!(%error, ?current, ?maximum, "cannot raise the limit of open files");
            current
        }
    }
}

/// A number of `/proc/self/stat`, counted from the field after the program name, which may contain any character.
fn stat(field: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(11)? + stat(12)?) / TICKS)
}

fn start_seconds() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + stat(19)? / TICKS)
}

fn memory_bytes(name: &str) -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn open_max() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
