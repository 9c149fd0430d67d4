//! The allocator, told to give memory back soon.
//!
//! Buffers of pushes and questions live for milliseconds, and mimalloc keeps freed pages for a second. A month's
//! back-fill peaked at 961 MB and cost 1.64 ms of CPU per push with pages kept for 500 ms, at 753 MB and 1.84 ms with
//! pages given back at once; 20 ms lies between. `.cargo/config.toml` has the other half of its set-up.

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
