//! What roles say to each other: one trait per role. A role is handed the traits it calls; whether
//! they are answered in this process or over a network ([`grpc`]) is not its business.

mod error;
pub mod grpc;
mod ingester;
mod leaf;
mod metastore;
pub mod testing;

pub use error::{Error, ErrorKind};
pub use ingester::Ingester;
pub use leaf::{Effort, Leaf, Missing, ScanRequest, Scanned};
pub use metastore::{
    DeadObject, DeleteRequest, DeletionProgress, DeletionStatus, FindRequest, Found, FoundDataset, Job,
    JobFailure, JobInput, JobOutput, Metastore, Pruned, Publication, Published, SegmentHint, Snapshot,
    Standing,
};
