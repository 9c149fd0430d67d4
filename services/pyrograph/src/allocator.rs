//! The allocator, told to give memory back soon.
//!
//! Buffers of pushes and questions live for milliseconds, and mimalloc keeps freed pages for a second: 960 MB
//! at the peak of a month's back-fill. Giving them back at once costs a quarter of the CPU of pushes; after 20 ms,
//! next to nothing. `.cargo/config.toml` has the other half of its set-up.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, in milliseconds; the bindings lack its name.
const PURGE_DELAY_MILLIS: mi_option_t = 15;

/// To be called first in `main`, before threads exist.
#[allow(unsafe_code)]
pub(crate) fn give_memory_back_soon() {
    // SAFETY: the call stores one number in a table inside the allocator, for an option that exists in
    // the version that is linked. No other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY_MILLIS, 20) }
}
