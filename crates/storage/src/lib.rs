//! The configured object store, and the few operations that correctness rests on.
//!
//! Owns: opening a backend, object keys, create-if-absent with a settled outcome, retries, metering, error messages for
//! operators.
//! Does not own: the content of objects, when one may be deleted.

mod backend;
mod check;
mod cluster;
mod config;
mod credentials;
mod error;
pub mod fault;
pub mod key;
mod local;
mod metrics;
mod open;
mod presence;
mod problem;
mod remote;
mod reserve;
mod store;
mod url;

pub use cluster::{Cluster, IdTag, LAYOUT_VERSION};
pub use config::{
    AzureConfig, Backend, Config, FilesystemConfig, GcsConfig, HttpConfig, S3Config, SseConfig,
};
pub use error::Error;
pub use key::{CatalogFile, Key, Place};
pub use metrics::Metrics;
pub use open::{OpenError, open};
pub use problem::Problem;
pub use store::{CreateOutcome, Object, Store, Tail};
pub use url::{hide_address_secrets, hide_url_secrets};
