//! Server processes, and their statistics from the kernel.
//!
//! Owns: start, stop, kill, CPU time, memory. Does not own: requests (`client`), the place of objects (`store`).

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clock::Clock;

use crate::Error;
use crate::client::Client;

/// The kernel counts CPU time in hundredths of a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOG_TAIL_BYTES: usize = 2_000;
const FLAGS: &[&str] = &[
    "-server.http-listen-address=127.0.0.1",
    "-self-profiling.disable-push",
    "-validation.reject-older-than=0",
    "-validation.reject-newer-than=0",
    "-distributor.ingestion-rate-limit-mb=100000",
    "-distributor.ingestion-burst-size-mb=100000",
];

/// The command that starts a process, each time at the same port.
#[derive(Clone)]
pub(crate) struct Launch {
    binary: PathBuf,
    flags: Vec<String>,
    log: PathBuf,
    pub(crate) client: Client,
}

pub(crate) struct Process {
    child: Child,
    pub(crate) client: Client,
}

impl Launch {
    /// `name` is the name of its log in `scratch`.
    ///
    /// # Errors
    /// If there is no free port.
    pub(crate) fn new(
        binary: &Path,
        flags: Vec<String>,
        scratch: &Path,
        name: &str,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let port = free_port()?;
        let client = Client::new(&format!("http://127.0.0.1:{port}"), clock.clone())?;
        let mut all: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        all.push(format!("-server.http-listen-port={port}"));
        all.extend(flags);
        Ok(Self { binary: binary.into(), flags: all, log: scratch.join(format!("{name}.log")), client })
    }

    /// The same command with additional flags.
    pub(crate) fn with(&self, flags: &[&str]) -> Self {
        let mut launch = self.clone();
        launch.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        launch
    }

    /// Starts the process without waiting for it.
    ///
    /// # Errors
    /// If the binary cannot be run.
    pub(crate) fn spawn(&self) -> Result<Process, Error> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .arg("server")
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.binary.display()))?;
        Ok(Process { child, client: self.client.clone() })
    }

    /// Starts the process and waits until it is ready; returns the time that this took.
    ///
    /// # Errors
    /// If the process ends, or is not ready in time.
    pub(crate) async fn start(&self) -> Result<(Process, Duration), Error> {
        let started = self.client.clock.monotonic();
        let mut process = self.spawn()?;
        self.ready(&mut process).await?;
        Ok((process, self.client.clock.monotonic() - started))
    }

    /// Waits until `process`, started by this command, is ready.
    ///
    /// # Errors
    /// If the process ends, or is not ready in time.
    pub(crate) async fn ready(&self, process: &mut Process) -> Result<(), Error> {
        let clock = &self.client.clock;
        let started = clock.monotonic();
        while !self.client.is_ready().await {
            if let Some(status) = process.child.try_wait()? {
                return Err(format!("the server ended before it was ready: {status}\n{}", self.log()).into());
            }
            if clock.monotonic() - started > READY_WITHIN {
                return Err(
                    format!("the server was not ready within {READY_WITHIN:?}\n{}", self.log()).into()
                );
            }
            clock.sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The end of its log.
    fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }
}

impl Process {
    /// Sends SIGTERM, and waits until the process has ended.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGKILL, like a crash.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// CPU seconds used so far, by all threads, in user and kernel mode.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Error> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold spaces; user and kernel time are the 12th and 13th field after it.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
    }

    /// Current resident memory in MiB.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn resident_mib(&self) -> Result<f64, Error> {
        self.memory_mib("VmRSS:")
    }

    /// Peak resident memory in MiB.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn peak_mib(&self) -> Result<f64, Error> {
        self.memory_mib("VmHWM:")
    }

    fn memory_mib(&self, field: &str) -> Result<f64, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `stop` the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free TCP port.
pub(crate) fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A free UDP port.
pub(crate) fn free_udp_port() -> Result<u16, Error> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
