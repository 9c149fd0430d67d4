//! The log of this process: lines go through a queue to a thread that writes them to stderr.
//!
//! Owns: the queue and its limit, the count of lost lines, panics as log lines, the flush at the exit.
//! Does not own: which events are logged.
//!
//! Logging never blocks and never fails. If the reader of stderr is gone or hangs, or its disk is full, lines are
//! dropped and counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::config;

/// Maximum size of the queue, in bytes; further lines are dropped.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Maximum wait of [`Log::flush`].
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// Pause before the next write to a descriptor that would block.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The queue of lines. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log(Arc<LogState>);

struct LogState {
    queue: Mutex<Queue>,
    /// The queue has lines.
    filled: Condvar,
    /// The thread has written the lines that it took.
    written: Condvar,
    lost: Counter,
    is_json: bool,
}

#[derive(Default)]
struct Queue {
    /// Whole lines, each with a line feed at its end.
    lines: Vec<u8>,
    /// Whether the thread is writing lines that it took.
    is_writing: bool,
}

/// The writer of one event.
pub(crate) struct Line<'a>(&'a Log);

/// Starts the log of this process, for events and panics.
///
/// # Errors
/// The system has no thread or no descriptor for it.
pub(crate) fn start(config: &config::Server) -> io::Result<Log> {
    // A descriptor of its own: a write that hangs would hold the lock of the standard library's stderr.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let is_terminal = io::IsTerminal::is_terminal(&stderr);
    let log = Log::to(stderr, config.log_format == "json")?;
    // The sampler logs every start and stop, thus every few seconds; gossip logs every lost datagram.
    let filter = EnvFilter::try_new(format!("{},pprof=warn,chitchat=error", config.log_level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .log_internal_errors(false)
        .with_ansi(is_terminal);
    if log.0.is_json {
        subscriber.json().init()
    } else {
        subscriber.init()
    }
    let panics = log.clone();
    std::panic::set_hook(Box::new(move |panic| panics.push(panics.panic_line(panic).as_bytes())));
    Ok(log)
}

impl Log {
    /// A log with a thread that writes its lines to `output`.
    fn to(output: impl Write + Send + 'static, is_json: bool) -> io::Result<Self> {
        let log = Self(Arc::new(LogState {
            queue: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            lost: Counter::default(),
            is_json,
        }));
        let queue = log.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || queue.keep_writing(output))?;
        Ok(log)
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Log lines that stderr did not take, because its reader was gone, hung, or had no space";
        registry.register("pyrograph_log_lines_lost", help, self.0.lost.clone());
    }

    /// Waits until all lines are written, or for [`FLUSH_TIME`].
    pub(crate) fn flush(&self) {
        let mut queue = self.0.queue.lock();
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        self.0.written.wait_while_for(&mut queue, is_busy, FLUSH_TIME);
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue.lock();
        if queue.lines.len() + line.len() > QUEUE_BYTES_MAX {
            self.0.lost.inc();
            return;
        }
        queue.lines.extend_from_slice(line);
        self.0.filled.notify_one();
    }

    fn keep_writing(&self, output: impl Write) {
        let mut output = Output { output, is_mid_line: false };
        let mut taken = Vec::new();
        let mut reported = 0;
        loop {
            taken.clear();
            {
                let mut queue = self.0.queue.lock();
                queue.is_writing = false;
                self.0.written.notify_all();
                self.0.filled.wait_while(&mut queue, |queue| queue.lines.is_empty());
                std::mem::swap(&mut taken, &mut queue.lines);
                queue.is_writing = true;
            }
            let lost_now = output.write_lines(&taken);
            self.0.lost.inc_by(lost_now);
            let lost = self.0.lost.get();
            // Only while stderr takes lines: a dropped report must not cause another report.
            if lost_now == 0 && lost > reported {
                warn!(lines = lost - reported, "log lines were lost, stderr did not take them");
                reported = lost;
            }
        }
    }

    fn panic_line(&self, panic: &PanicHookInfo<'_>) -> String {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a value that is no text");
        let backtrace = std::backtrace::Backtrace::capture();
        let mut time = String::new();
        // A line without its time is still useful.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut text = format!("thread {thread:?} panicked at {place}: {message}");
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            text.push_str(&format!("\n{backtrace}"));
        }
        match self.0.is_json {
            true => {
                let fields = serde_json::json!({ "message": text });
                let line = serde_json::json!({
                    "timestamp": time, "level": "ERROR", "fields": fields, "target": "pyrograph::panic",
                });
                format!("{line}\n")
            }
            false => format!("{time} ERROR pyrograph::panic: {text}\n"),
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl Write for Line<'_> {
    /// Queues a whole line, or drops it; never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Output<W> {
    output: W,
    /// Whether the last write ended within a line.
    is_mid_line: bool,
}

impl<W: Write> Output<W> {
    /// Writes `lines`, each of which ends with a line feed; returns the number of lost lines.
    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        if self.is_mid_line && self.write_all(b"\n").is_err() {
            return count_lines(lines);
        }
        match self.write_all(lines) {
            Ok(()) => 0,
            Err(written) => count_lines(&lines[written..]),
        }
    }

    /// # Errors
    /// The number of bytes written before the output failed.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.output.write(&bytes[written..]) {
                Ok(count) if count > 0 => {
                    written += count;
                    self.is_mid_line = bytes[written - 1] != b'\n';
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(BUSY_PAUSE),
                Ok(_) | Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes as many bytes of each write as the test allows; fails if that is 0.
    struct Narrow {
        allowed: Receiver<usize>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.allowed.recv().unwrap_or_default() {
                0 => Err(io::ErrorKind::StorageFull.into()),
                allowed => {
                    let taken = &bytes[..allowed.min(bytes.len())];
                    let _ = self.taken.send(taken.to_vec());
                    Ok(taken.len())
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn narrow() -> (Log, Sender<usize>, Receiver<Vec<u8>>) {
        let ((allow, allowed), (taken, written)) = (channel(), channel());
        (Log::to(Narrow { allowed, taken }, false).unwrap(), allow, written)
    }

    #[test]
    fn lost_lines_are_counted_and_the_next_line_begins_on_a_new_line() {
        let (log, allow, written) = narrow();
        for allowed in [4, 0, 1, 100] {
            allow.send(allowed).unwrap();
        }
        log.push(b"first\n");
        log.flush();
        assert_eq!(log.0.lost.get(), 1);
        log.push(b"second\n");
        log.flush();
        assert_eq!(
            written.try_iter().map(|b| String::from_utf8(b).unwrap()).collect::<String>(),
            "firs\nsecond\n"
        );
        assert_eq!(log.0.lost.get(), 1);
    }

    #[test]
    fn an_output_that_hangs_loses_lines_and_blocks_no_caller() {
        let (log, allow, written) = narrow();
        let line = vec![b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let lines = 3 * QUEUE_BYTES_MAX / line.len();
        for _ in 0..lines {
            log.push(&line);
        }
        let lost = log.0.lost.get() as usize;
        assert!((lines / 3..lines).contains(&lost), "{lost} of {lines}");
        drop(allow);
        log.flush();
        assert_eq!(
            log.0.lost.get() as usize,
            lines,
            "the output fails instead of hanging, and all are counted"
        );
        assert_eq!(written.try_iter().count(), 0);
    }

    #[test]
    fn a_panic_is_one_line_of_the_log() {
        let (log, allow, written) = narrow();
        allow.send(4096).unwrap();
        let panics = log.clone();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| panics.push(panics.panic_line(panic).as_bytes())));
        let _ =
            std::thread::Builder::new().name("broken".into()).spawn(|| panic!("it broke")).unwrap().join();
        std::panic::set_hook(hook);
        log.flush();
        let line = String::from_utf8(written.try_recv().unwrap()).unwrap();
        assert!(line.contains(" ERROR pyrograph::panic: thread \"broken\" panicked at "), "{line}");
        assert!(line.contains("log.rs") && line.contains(": it broke"), "{line}");
    }
}
