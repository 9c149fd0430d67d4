use std::convert::Infallible;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{get, post};
use hashbrown::HashMap;
use http::{Method, Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;

/// A tonic service without its type.
pub(crate) type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a request to a route does to the data. Every route declares one, so that pages of other origins can be
/// kept from changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing is changed.
    Read,
    /// Something is added, as by a push. Agents send any content type, or none.
    Change,
    /// Something is deleted or set: a plain route also requires `application/json`, which no form can send.
    Administer,
}

impl Effect {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Administer => "administer",
        }
    }
}

/// One line of the route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub method: Method,
    pub path: String,
    pub effect: Effect,
}

/// What a role serves: plain routes, and tonic services by name.
///
/// Plain routes set no fallback: unknown paths and wrong methods are answered by the edge.
#[derive(Default)]
pub struct Routes {
    pub(crate) rest: Router,
    /// Of `rest`.
    pub(crate) table: Vec<Route>,
    pub(crate) services: HashMap<&'static str, (Service, Effect)>,
    pub(crate) probes: Vec<&'static str>,
}

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plain route for GET, which must change nothing.
    pub fn get<H, T, S>(mut self, path: &str, state: &S, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        self.rest = self.rest.route(path, get(handler).with_state(state.clone()));
        self.with_route(Method::GET, path, Effect::Read)
    }

    /// Adds a plain route for POST, whose path is literal. The handler reads the body through [`crate::Body`] or
    /// [`crate::body::read`]; every other extractor of bodies fails.
    pub fn post<H, T, S>(mut self, path: &str, effect: Effect, state: &S, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        self.rest = self.rest.route(path, post(handler).with_state(state.clone()));
        self.with_route(Method::POST, path, effect)
    }

    /// Keeps the plain route `path` within reach while every connection is busy; for probes.
    pub fn probe(mut self, path: &'static str) -> Self {
        self.probes.push(path);
        self
    }

    /// Adds a service, under Connect, gRPC and gRPC-web. `effect` is the strongest of its methods.
    ///
    /// It should be built with `max_decoding_message_size(edge::MESSAGE_BYTES_MAX)`, and without
    /// compression: both are done by the edge.
    pub fn service<S>(mut self, effect: Effect, service: S) -> Self
    where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.services.insert(S::NAME, (BoxCloneSyncService::new(service), effect));
        self
    }

    /// What both serve.
    pub fn merge(mut self, other: Self) -> Self {
        self.rest = self.rest.merge(other.rest);
        self.table.extend(other.table);
        self.services.extend(other.services);
        self.probes.extend(other.probes);
        self
    }

    /// Every route, those of services included, by path. A service that `proto/` does not describe is one route.
    pub fn table(&self) -> Vec<Route> {
        let mut table = self.table.clone();
        for (name, (_, effect)) in &self.services {
            let mut add = |method: &str| {
                let path = format!("/{name}/{method}");
                table.push(Route { method: Method::POST, path, effect: *effect });
            };
            match wire::descriptor_pool().get_service_by_name(name) {
                Some(described) => described.methods().for_each(|method| add(method.name())),
                None => add("*"),
            }
        }
        table.sort_by(|a, b| (&a.path, a.method.as_str()).cmp(&(&b.path, b.method.as_str())));
        table
    }

    fn with_route(mut self, method: Method, path: &str, effect: Effect) -> Self {
        self.table.push(Route { method, path: path.to_owned(), effect });
        self
    }
}
