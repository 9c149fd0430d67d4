//! The memory of this process: its limit, and the bytes that each kind of work holds.
//!
//! Owns: reading the limit (control groups, RAM), shares, leases, budgets, charges, refusals with numbers, metrics.
//! Does not own: the size of a share (the binary), the size of a structure (its crate).
//!
//! A [`Share`] is the budget of one kind of work. A request is an [`Account`] of the share; its bytes are held by
//! [`Lease`]s of the account. This crate never waits: a lease that does not fit is refused, and the caller decides
//! whether to wait, to hold less, or to refuse the request. [`Room`] is the measured memory of the whole process.
//!
//! A [`Budget`] is simpler: pushes and bodies hold [`Charge`]s of it directly, without accounts and room.

mod budget;
mod limit;
mod room;
mod share;

pub use budget::{Budget, Charge, OverBudget};
pub use limit::{Limit, Source};
pub use room::Room;
pub use share::{Account, Lease, Refusal, Share, SharesMetrics};
