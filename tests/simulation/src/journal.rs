//! The journal of a run.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::executor::Executor;

/// The events of a run, in order. Kept as a hash, and printed with `--trace`.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Mutex<State>>);

struct State {
    hash: u64,
    is_shown: bool,
    line: String,
    executor: Executor,
}

impl Journal {
    pub(crate) fn new(executor: Executor, is_shown: bool) -> Self {
        Self(Arc::new(Mutex::new(State { hash: 0, is_shown, line: String::new(), executor })))
    }

    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        let mut state = self.0.lock();
        let State { hash, is_shown, line, executor } = &mut *state;
        let now = executor.now();
        line.clear();
        // Writing to a string does not fail.
        let _ = fmt::write(line, format_args!("{:>11.6} {event}", now.as_secs_f64()));
        *hash = xxh3_64_with_seed(line.as_bytes(), *hash);
        if *is_shown {
            println!("{line}");
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.0.lock().hash
    }
}
