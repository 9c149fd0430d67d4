//! The allocator, told to give memory back at once.
//!
//! Ingest comes in bursts whose buffers live for milliseconds. By default mimalloc keeps freed pages for
//! a second and commits whole arenas, so a server that needs 140 MB after a burst holds 490 MB.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_arena_eager_commit` and `mi_option_purge_delay` of mimalloc's `mi_option_e`; the bindings lack their names.
const ARENA_EAGER_COMMIT: mi_option_t = 4;
const PURGE_DELAY_MILLIS: mi_option_t = 15;

/// To be called first in `main`, before threads exist.
#[allow(unsafe_code)]
pub(crate) fn give_memory_back_at_once() {
    // SAFETY: the call stores one number in a table inside the allocator, for options that exist in
    // the version that is linked. No other thread runs yet.
    unsafe {
        mi_option_set(ARENA_EAGER_COMMIT, 0);
        mi_option_set(PURGE_DELAY_MILLIS, 0);
    }
}
