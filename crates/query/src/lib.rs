//! What can be asked, how one dataset answers, how answers merge. No network.
//!
//! Owns: selectors, which samples count, one file per kind of question with fold, merge and finish.
//! Does not own: finding and reading objects (roles), what questions and answers look like on the
//! wire (the querier's `http`).

pub mod cells;
pub mod deletion;
pub mod flamegraph;
pub mod kind;
mod partial;
mod query;
pub mod scan;
pub mod selector;
#[cfg(test)]
mod tests;

pub use deletion::Deletion;
pub use partial::{Answer, Charge, Dataset, FoldError, MergeError, Partial, Stats, TooLarge};
pub use query::{Kind, Needs, Query, SampleFilter};
pub use selector::{Matcher, Selector, SelectorError};
