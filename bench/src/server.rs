//! A server process of our own on a directory of its own, and what the kernel says about it.
//!
//! Owns: start, stop, CPU time, memory, stored bytes. Does not own: requests (`client`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Error;
use crate::client::Client;

/// The kernel counts CPU time in hundredths of a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const READY_WITHIN: Duration = Duration::from_secs(30);
const FLAGS: &[&str] = &[
    "-server.http-listen-address=127.0.0.1",
    "-self-profiling.disable-push",
    "-validation.reject-older-than=0",
    "-validation.reject-newer-than=0",
    "-distributor.ingestion-rate-limit-mb=100000",
    "-distributor.ingestion-burst-size-mb=100000",
    "-metastore.merge-after=2s",
    "-metastore.settle-after=5s",
    // So that soon nothing but live blocks lies in `block/`.
    "-metastore.sweep-grace=1s",
    "-compactor.sweep-interval=1s",
];

pub(crate) struct Server {
    process: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts a server and waits until it is ready; gives how long that took.
    pub(crate) async fn start(
        binary: &Path,
        directory: &Path,
        port: u16,
        client: &Client,
    ) -> Result<(Self, Duration), Error> {
        let started = client.clock.monotonic();
        let process = Command::new(binary)
            .arg("server")
            .args(FLAGS)
            .arg(format!("-server.http-listen-port={port}"))
            .arg(format!("-storage.filesystem.dir={}", directory.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", binary.display()))?;
        let mut server = Self { process, directory: directory.into() };
        while !client.is_ready().await {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("{} ended before it was ready: {status}", binary.display()).into());
            }
            if client.clock.monotonic() - started > READY_WITHIN {
                return Err(format!("{} was not ready within {READY_WITHIN:?}", binary.display()).into());
            }
            client.clock.sleep(Duration::from_millis(1)).await;
        }
        let took = client.clock.monotonic() - started;
        Ok((server, took))
    }

    /// Asks the process to end, and waits for it.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status()?;
        self.process.wait()?;
        Ok(())
    }

    /// CPU seconds used so far, by all threads, in user and kernel mode.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Error> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name, in parentheses, may hold spaces; user and kernel time are the 12th and 13th field after it.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Bytes of all objects under `prefix`.
    pub(crate) fn stored_bytes(&self, prefix: &str) -> u64 {
        bytes_under(&self.directory.join(prefix))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Files come and go while the server works: what has gone counts 0.
fn bytes_under(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
