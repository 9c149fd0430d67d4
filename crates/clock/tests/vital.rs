//! The end of a process whose vital task panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::process::Command;

use clock::Clock;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Set in the process that is to die, to the behaviour of its log.
const CHILD: &str = "PYROGRAPH_TEST_VITAL_CHILD";

/// A log that behaves as its text says.
struct Log(String);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, _: &Event<'_>) {
        match self.0.as_str() {
            "panics" => panic!("of the log"),
            "hangs" => loop {
                std::thread::park();
            },
            _ => {}
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_panic_of_a_vital_task_ends_the_process_with_70_even_if_the_log_fails() {
    for log in ["works", "panics", "hangs"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_vital_task_may_end_with_a_result", "--nocapture"])
            .env(CHILD, log)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(70), "a log that {log}: {stderr}");
        assert!(stderr.contains("broken"), "the panic itself is shown too: {stderr}");
    }
}

/// With the variable [`CHILD`], this test is the process that dies.
#[tokio::test]
async fn a_vital_task_may_end_with_a_result() {
    let clock = Clock::system();
    assert_eq!(clock.spawn_vital("whole", async { 7 }).await.unwrap(), 7);
    if let Some(log) = std::env::var_os(CHILD) {
        tracing::subscriber::set_global_default(Log(log.into_string().unwrap())).unwrap();
        let broken = clock.spawn_vital("broken", async { panic!("broken") });
        let limit = std::time::Duration::from_secs(20);
        assert!(clock.timeout(limit, broken).await.is_some(), "the process lives on");
    }
}
