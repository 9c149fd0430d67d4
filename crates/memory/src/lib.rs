//! The memory of this process: how much it may use, and which kind of work holds how much of it.
//!
//! Owns: reading the limit (control groups, RAM), shares, leases, refusals with numbers, metrics.
//! Does not own: how large a share is (the binary), what a structure weighs (its crate).
//!
//! A [`Share`] is what one kind of work may hold. One request is an [`Account`] of it; everything that the request
//! holds is a [`Lease`] of that account. Nobody waits here: a lease that does not fit is refused, and its owner
//! decides whether to wait, to hold less, or to tell the client. [`Room`] is what the whole process uses, as measured.

mod limit;
mod room;
mod share;

pub use limit::{Limit, Source};
pub use room::Room;
pub use share::{Account, Lease, Refused, Share, SharesMetrics};
