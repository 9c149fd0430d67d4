//! The allocator, told to give memory back soon.
//!
//! Buffers of pushes and questions live for milliseconds, and mimalloc keeps freed pages for a second. A month's
//! back-fill peaked at 961 MB and cost 1.64 ms of CPU per push with pages kept for 500 ms, at 753 MB and 1.84 ms with
//! pages given back at once; 20 ms lies between. `.cargo/config.toml` has the other half of its set-up.
//!
//! A thread gives back only what it frees itself, and only when it allocates again: one that has become idle keeps
//! what its last work needed. So each thread is made to give back what it kept once it has nothing to do.

use std::cell::Cell;
use std::time::Duration;

use clock::Clock;
use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use tokio::runtime::Handle;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, in milliseconds; the bindings lack its name.
const PURGE_DELAY_MILLIS: mi_option_t = 15;

/// Between rounds in which the threads that serve give memory back.
const ROUND_INTERVAL: Duration = Duration::from_secs(5);

/// A task stays this long on its thread, so that the other tasks of the round go to other threads.
const ROUND_STAY: Duration = Duration::from_millis(1);

/// To be called first in `main`, before threads exist.
#[allow(unsafe_code)]
pub(crate) fn give_memory_back_soon() {
    // SAFETY: the call stores one number in a table inside the allocator, for an option that exists in
    // the version that is linked. No other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY_MILLIS, 20) }
}

/// Gives back the free pages that the calling thread keeps.
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: the call touches the heap of the calling thread and the allocator's own locked structures.
    unsafe { mi_collect(true) }
}

/// Makes the threads that serve give back what they keep, again and again. Threads of the pool do so on their own when
/// they are idle.
pub(crate) async fn keep_giving_back(clock: Clock) {
    thread_local! {
        static LAST_ROUND: Cell<u64> = const { Cell::new(0) };
    }
    let threads = Handle::current().metrics().num_workers();
    let mut round = 0;
    loop {
        clock.sleep(ROUND_INTERVAL).await;
        round += 1;
        for _ in 0..threads {
            clock.spawn(async move {
                if LAST_ROUND.replace(round) != round {
                    give_back();
                }
                std::thread::sleep(ROUND_STAY);
            });
        }
    }
}
