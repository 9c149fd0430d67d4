//! The calls between roles: one trait per role, or per caller of the metastore.
//!
//! A role is given implementations of the traits that it calls, and does not know whether they run in this process or
//! over the network ([`grpc`]).

mod error;
pub mod grpc;
mod ingester;
mod leaf;
mod metastore;
mod relay;

pub use error::{Error, ErrorKind};
pub use ingester::Ingester;
pub use leaf::{Effort, Leaf, Missing, ScanAnswer, ScanRequest};
pub use metastore::{
    DeadObject, DeleteRequest, DeletionProgress, DeletionStatus, FindRequest, FoundDataset, FoundObject, Job,
    JobFailure, JobInput, JobOutput, JobQueue, Metastore, ObjectIndex, Ownership, PruneCounts, Publication,
    PublishOutcome, SegmentHint, SegmentHints, Snapshot, Standing,
};
pub use relay::{Call, Relay};
