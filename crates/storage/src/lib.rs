//! The object store that the config names, and the few operations that correctness rests on.
//!
//! Owns: opening a backend, object keys, create-if-absent with a settled outcome, metering.
//! Does not own: what an object contains, when it may be deleted.

mod cluster;
mod config;
pub mod fault;
pub mod key;
mod local;
mod metrics;
mod open;
mod store;

pub use cluster::{Cluster, LAYOUT_VERSION};
pub use config::{Backend, Config, FilesystemConfig, S3Config};
pub use key::Key;
pub use metrics::Metrics;
pub use open::{OpenError, open};
pub use store::{Created, Error, Object, Store, Tail};
