//! Queries, the answer of one dataset, and merging of answers. No network.
//!
//! Owns: selectors, which samples count, one file per kind of query with fold, merge and finish.
//! Does not own: finding and reading objects (roles), the wire form of queries and answers
//! (`rpc`, the querier's `http`).

pub mod cells;
pub mod deletion;
pub mod flamegraph;
mod fold;
mod grid;
mod group;
pub mod kind;
mod partial;
mod query;
pub mod scan;
pub mod selector;
#[cfg(test)]
mod tests;

pub use deletion::Deletion;
pub use fold::{Dataset, FoldError, TooLarge};
pub use partial::{Answer, Charge, MergeError, Partial, Stats};
pub use query::{Kind, Needs, Query, SampleFilter};
pub use selector::{Matcher, Selector, SelectorError};
