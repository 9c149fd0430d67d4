use std::time::Duration;

use axum::extract::FromRequestParts;
use edge::{Capabilities, Deadline, Explain, Tenants};
use http::Extensions;
use http::request::Parts;
use model::TenantId;

/// The client of a query: its tenants, its deadline, its capabilities, and whether it asks for an explanation.
#[derive(Clone, Debug)]
pub struct Client {
    tenants: Vec<TenantId>,
    /// After this the answer is useless, on the scale of `Clock::monotonic`.
    pub deadline: Option<Duration>,
    pub explain: bool,
    pub(crate) capabilities: Capabilities,
}

impl Client {
    /// A client that asks for these tenants together, without a deadline.
    pub fn new(tenants: Vec<TenantId>) -> Self {
        Self { tenants, deadline: None, explain: false, capabilities: Capabilities::default() }
    }

    pub(crate) fn from_extensions(extensions: &Extensions) -> Result<Self, edge::Error> {
        Ok(Self {
            tenants: Tenants::of(extensions)?.as_slice().to_vec(),
            deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
            explain: extensions.get::<Explain>().is_some(),
            capabilities: extensions.get::<Capabilities>().copied().unwrap_or_default(),
        })
    }

    pub fn tenants(&self) -> &[TenantId] {
        &self.tenants
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = edge::Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::from_extensions(&parts.extensions)
    }
}
