//! The public listener: HTTP/1.1 and h2c on one port.
//!
//! A role supplies its plain routes and its tonic services as [`Routes`]; the edge serves every service on one path as
//! Connect (protobuf and JSON), gRPC and gRPC-web.
//!
//! Owns: connections, framing, limits on bodies, tenants, rights of pages of other origins, deadlines, the form of
//! errors, compression of messages, the request log.
//! Does not own: the meaning of a route, the encoding inside a body (`formats`).
//!
//! The extensions of a request contain [`Tenants`] (by [`Tenants::of`]), [`Capabilities`], [`RequestId`], [`Deadline`]
//! if the client set one, and [`Explain`] if the client asked for it.

mod accept;
mod app;
pub mod body;
mod bridge;
mod config;
mod connections;
mod deadline;
mod error;
mod exchange;
mod explain;
mod gzip;
mod metrics;
mod origin;
pub mod rest;
mod routes;
mod serve;
mod socket;
mod tenants;

pub use accept::Capabilities;
pub use app::{App, RequestId};
pub use body::Body;
pub use config::Config;
pub use deadline::Deadline;
pub use error::{Error, code_of_status, name, status_of_code};
pub use explain::{Explain, Explanation};
pub use origin::{Hosts, NameError, Origins};
pub use routes::{Effect, Route, Routes};
pub use serve::serve;
pub use tenants::Tenants;

/// `max_decoding_message_size` of every service that `proto/` describes: the edge has limited the message already, and
/// tonic's default of 4 MiB is less than a large push. Other services get gRPC unchanged and need a limit of their own.
pub const MESSAGE_BYTES_MAX: usize = usize::MAX;
