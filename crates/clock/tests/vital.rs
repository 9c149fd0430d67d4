//! What becomes of a process whose vital task panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::process::Command;

use clock::Clock;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Set in the process that is to die, to how its log behaves.
const CHILD: &str = "PYROGRAPH_TEST_VITAL_CHILD";

/// A log that fails as it is told.
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
fn a_vital_task_that_panics_ends_the_process_with_70_whatever_its_log_does() {
    for log in ["works", "panics", "hangs"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_vital_task_that_ends_is_only_a_task", "--nocapture"])
            .env(CHILD, log)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(70), "a log that {log}: {told}");
        assert!(told.contains("broken"), "the panic itself is shown too: {told}");
    }
}

/// With its variable, the process that dies.
#[tokio::test]
async fn a_vital_task_that_ends_is_only_a_task() {
    let clock = Clock::system();
    assert_eq!(clock.spawn_vital("whole", async { 7 }).await.unwrap(), 7);
    if let Some(log) = std::env::var_os(CHILD) {
        tracing::subscriber::set_global_default(Log(log.into_string().unwrap())).unwrap();
        let broken = clock.spawn_vital("broken", async { panic!("broken") });
        let limit = std::time::Duration::from_secs(20);
        assert!(clock.timeout(limit, broken).await.is_some(), "the process lives on");
    }
}
