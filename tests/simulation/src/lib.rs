//! All roles of a cluster in one thread, in virtual time, on a network and a bucket that fail. An oracle records
//! every acknowledgement, and checks every answer against them.
//!
//! Owns: the faults, their times, and the invariants. A run follows from its seed alone.
//! Does not own: the behaviour of a role; the roles are the real ones. See `docs/simulation.md`.

mod audit;
mod bucket;
mod contents;
mod copies;
mod deletions;
mod executor;
mod fleet;
mod journal;
mod load;
mod machine;
mod network;
mod oracle;
mod planted;
mod random;
mod run;
mod settings;
mod storm;
mod watched;

pub use oracle::Violation;
pub use planted::Planted;
pub use run::{Options, Outcome, run};
