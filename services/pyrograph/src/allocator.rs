//! The allocator, and when it gives memory back to the system.
//!
//! Buffers of pushes and queries live for milliseconds, and mimalloc keeps freed pages for a second. A month's
//! back-fill peaked at 961 MB and cost 1.64 ms of CPU per push with pages kept for 500 ms, at 753 MB and 1.84 ms with
//! pages given back at once; 20 ms lies between. `.cargo/config.toml` has the other half of the settings.
//!
//! A thread gives back only pages that it frees itself, and only when it allocates again: an idle thread keeps the
//! pages of its last work. So each thread gives its free pages back once it is idle; and, while more than half of the
//! process's memory is in use, after each piece of long work and whenever it waits. Without this, eight queries at
//! once left 300 MiB of free pages on threads, at a limit of 512 MiB.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clock::Clock;
use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use memory::Room;
use tokio::runtime::Handle;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, in milliseconds; the bindings lack its name.
const PURGE_DELAY_MILLIS: mi_option_t = 15;

/// Interval between rounds in which the serving threads give memory back.
const ROUND_INTERVAL: Duration = Duration::from_secs(5);

/// Memory is scarce while more than this percentage of it is in use.
const SCARCE_PERCENT: u64 = 50;

/// Intervals between measurements of the memory in use, which cost 0.1 ms each: `(percent, interval)` holds while less
/// than `percent` is in use. While memory is scarce, a thread gives memory back once per measurement.
const MEASURE_INTERVALS: [(u64, Duration); 2] =
    [(25, Duration::from_millis(100)), (SCARCE_PERCENT, Duration::from_millis(20))];
const MEASURE_INTERVAL_SCARCE: Duration = Duration::from_millis(5);

/// Number of the measurement that found memory scarce; 0 if the last one did not.
static SCARCE: AtomicU64 = AtomicU64::new(0);

/// A task stays this long on its thread, so that the other tasks of the round go to other threads.
const ROUND_STAY: Duration = Duration::from_millis(1);

/// Sets the delay after which freed pages are given back. Call it first in `main`, before other threads exist.
#[allow(unsafe_code, reason = "the bindings of mimalloc are unsafe")]
pub(crate) fn give_memory_back_soon() {
    // SAFETY: the call stores one number in a table inside the allocator, for an option that exists in
    // the version that is linked. No other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY_MILLIS, 20) }
}

/// Gives back the free pages that the calling thread keeps.
#[allow(unsafe_code, reason = "the bindings of mimalloc are unsafe")]
pub(crate) fn give_back() {
    // SAFETY: the call touches the heap of the calling thread and the allocator's own locked structures.
    unsafe { mi_collect(true) }
}

/// As [`give_back`], if memory is scarce, once per measurement.
pub(crate) fn give_back_if_scarce() {
    thread_local! {
        static LAST: Cell<u64> = const { Cell::new(0) };
    }
    let measurement = SCARCE.load(Ordering::Relaxed);
    if measurement > 0 && LAST.replace(measurement) != measurement {
        give_back();
    }
}

/// Measures the memory in use periodically, on a thread of its own: other threads may be busy for long.
///
/// # Errors
/// The system has no thread for it.
pub(crate) fn watch(room: Room) -> std::io::Result<()> {
    let watching = move || {
        for measurement in 1.. {
            let used = anonymous_bytes().unwrap_or(0);
            room.measured(used);
            let is_below = |percent: u64| used / percent < room.limit() / 100;
            SCARCE.store(if is_below(SCARCE_PERCENT) { 0 } else { measurement }, Ordering::Relaxed);
            let interval = MEASURE_INTERVALS.into_iter().find(|(percent, _)| is_below(*percent));
            std::thread::sleep(interval.map_or(MEASURE_INTERVAL_SCARCE, |(_, interval)| interval));
        }
    };
    std::thread::Builder::new().name("memory".into()).spawn(watching).map(|_| ())
}

/// Resident memory without pages of files, which the system reclaims when it needs memory.
fn anonymous_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, file_pages) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(file_pages) * rustix::param::page_size() as u64)
}

/// Makes the serving threads give their free pages back every [`ROUND_INTERVAL`]. Threads of the pools do so themselves
/// when they are idle.
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
