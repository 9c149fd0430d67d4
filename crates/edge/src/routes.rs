use std::convert::Infallible;

use axum::Router;
use hashbrown::HashMap;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;

/// A tonic service without its type.
pub(crate) type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a role serves: plain routes, and tonic services by name.
#[derive(Default)]
pub struct Routes {
    pub(crate) rest: Router,
    pub(crate) services: HashMap<&'static str, Service>,
}

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds plain routes. They set no fallback: unknown paths and wrong methods are answered by the edge.
    pub fn rest(mut self, routes: Router) -> Self {
        self.rest = self.rest.merge(routes);
        self
    }

    /// Adds a service, under Connect, gRPC and gRPC-web.
    ///
    /// It should be built with `max_decoding_message_size(edge::MESSAGE_BYTES_MAX)`, and without
    /// compression: both are done by the edge.
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.services.insert(S::NAME, BoxCloneSyncService::new(service));
        self
    }

    /// What both serve.
    pub fn merge(mut self, other: Self) -> Self {
        self.rest = self.rest.merge(other.rest);
        self.services.extend(other.services);
        self
    }
}
