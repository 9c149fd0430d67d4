//! The routes and services that a role supplies, with the effect of each.

use std::convert::Infallible;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{get, post};
use hashbrown::HashMap;
use http::{Method, Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::BoxCloneSyncService;

/// A type-erased tonic service.
pub(crate) type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The effect of a request on the data. Every route declares one, so that pages of other origins cannot change data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// No data change.
    Read,
    /// Data are added, as by a push. Agents send any content type, or none.
    Change,
    /// Data are deleted or settings changed: a plain route also requires `application/json`, which an HTML form cannot
    /// send.
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

/// The plain routes of a role, and its tonic services by name.
///
/// Plain routes set no fallback: the edge answers unknown paths and wrong methods.
#[derive(Default)]
pub struct Routes {
    pub(crate) rest: Router,
    /// The routes of `rest`.
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

    /// Answers the plain route `path` even while all connections are busy; for probes.
    pub fn probe(mut self, path: &'static str) -> Self {
        self.probes.push(path);
        self
    }

    /// Adds a service, over Connect, gRPC and gRPC-web. `effect` is the strongest effect of its methods.
    ///
    /// Build it with `max_decoding_message_size(edge::MESSAGE_BYTES_MAX)` and without compression: the edge does both.
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

    /// The routes and services of both.
    pub fn merge(mut self, other: Self) -> Self {
        self.rest = self.rest.merge(other.rest);
        self.table.extend(other.table);
        self.services.extend(other.services);
        self.probes.extend(other.probes);
        self
    }

    /// All routes by path, including methods of services. A service that `proto/` does not describe is one route.
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
