//! One file per kind of query: fold a dataset, merge two answers, finish an answer.

pub mod heatmap;
pub mod labels;
pub mod merge_stacktraces;
pub mod profile;
pub mod series;
