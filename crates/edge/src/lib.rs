//! How the outside talks to us.
//!
//! One listener speaks HTTP/1.1 and h2c. A role gives its plain routes and its tonic services as
//! [`Routes`]; the edge serves every service on the same path as Connect (protobuf and JSON), gRPC and
//! gRPC-web.
//!
//! Owns: connections, framing, the caps on bodies, who the tenant is, which pages of other origins may do what,
//! deadlines, the shape of errors, compression of what is exchanged, the request log.
//! Does not own: what a route means, or how the inside of a body is encoded (`formats`).
//!
//! A handler finds these in the request's extensions: [`Tenants`] (by [`Tenants::of`]),
//! [`Capabilities`], [`Deadline`] if the client set one, [`Explain`] if it asks for that, and [`RequestId`].

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
pub use explain::{Explain, Explained};
pub use origin::{Hosts, NameError, Origins};
pub use routes::{Effect, Route, Routes};
pub use serve::serve;
pub use tenants::Tenants;

/// For `max_decoding_message_size` of every service that `proto/` describes: the edge has capped the
/// message already, and tonic's own default of 4 MiB is less than a large push. Other services are handed
/// gRPC untouched and need a limit of their own.
pub const MESSAGE_BYTES_MAX: usize = usize::MAX;
