//! What becomes of a process whose vital task panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::process::Command;

use clock::Clock;

/// Set in the process that is to die.
const CHILD: &str = "PYROGRAPH_TEST_VITAL_CHILD";

#[test]
fn a_vital_task_that_panics_ends_the_process_with_70() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_vital_task_that_ends_is_only_a_task", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(70), "{told}");
    assert!(told.contains("broken"), "the panic itself is shown too: {told}");
}

/// With its variable, the process that dies.
#[tokio::test]
async fn a_vital_task_that_ends_is_only_a_task() {
    let clock = Clock::system();
    assert_eq!(clock.spawn_vital("whole", async { 7 }).await.unwrap(), 7);
    if std::env::var_os(CHILD).is_some() {
        let _ = clock.spawn_vital("broken", async { panic!("broken") }).await;
        unreachable!("the process has ended");
    }
}
