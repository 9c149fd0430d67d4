//! What can be asked, how one dataset answers, how answers merge. No network.

/// A question, parsed and checked.
#[derive(Clone, Debug)]
pub enum Query {}

/// A mergeable answer from one leaf.
#[derive(Debug)]
pub enum Partial {}
