//! The tenants of a request.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{Extensions, HeaderMap};
use model::TenantId;
use tonic::Code;

use crate::Error;

/// Header with the tenants of a request, separated by `|`.
const HEADER: &str = "x-scope-orgid";

/// Maximum number of tenants of one request.
const TENANTS_MAX: usize = 100;

/// The tenants of a request: at least one, sorted, without duplicates.
///
/// A plain route takes them as an argument; a service calls [`Tenants::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenants(Vec<TenantId>);

/// The parsed header. An error is kept until a route asks for tenants, because some routes need none.
#[derive(Clone)]
pub(crate) struct Claim(Result<Tenants, Error>);

impl Claim {
    /// Without `multitenancy` every request belongs to `anonymous`, and the header is ignored.
    pub(crate) fn of(headers: &HeaderMap, multitenancy: bool) -> Self {
        match multitenancy {
            false => Self(Ok(Tenants(vec![TenantId::anonymous()]))),
            true => Self(parse(headers)),
        }
    }
}

impl Tenants {
    /// The tenants of the request that carries these extensions.
    ///
    /// # Errors
    /// `Unauthenticated` (401) if the request has no tenant, or an invalid one.
    pub fn of(extensions: &Extensions) -> Result<Self, Error> {
        match extensions.get::<Claim>() {
            Some(claim) => claim.0.clone(),
            None => Err(Error::new(Code::Unauthenticated, "no org id")),
        }
    }

    /// The tenant of a request that must have exactly one, like every write.
    ///
    /// # Errors
    /// `Unauthenticated` (401) if there are several.
    pub fn one(&self) -> Result<&TenantId, Error> {
        match self.0.as_slice() {
            [tenant] => Ok(tenant),
            _ => Err(Error::new(Code::Unauthenticated, "multiple org IDs present")),
        }
    }

    pub fn as_slice(&self) -> &[TenantId] {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Tenants {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Self::of(&parts.extensions)
    }
}

fn parse(headers: &HeaderMap) -> Result<Tenants, Error> {
    let unauthenticated = |text: String| Error::new(Code::Unauthenticated, text);
    let header = headers.get(HEADER).map(|value| value.to_str()).transpose();
    let header = header.map_err(|_| unauthenticated("tenant id is not ASCII".to_owned()))?;
    let mut tenants = Vec::new();
    for id in header.unwrap_or_default().split('|') {
        if tenants.len() == TENANTS_MAX {
            let text = format!("a request names more tenants than the limit of {TENANTS_MAX}");
            return Err(unauthenticated(text));
        }
        tenants.push(TenantId::parse(id).map_err(|error| unauthenticated(error.to_string()))?);
    }
    tenants.sort_unstable();
    tenants.dedup();
    Ok(Tenants(tenants))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: Option<&str>, multitenancy: bool, expected: Result<&[&str], &str>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(HEADER, value.parse().unwrap());
        }
        let claim = Claim::of(&headers, multitenancy).0;
        let ids = |tenants: &Tenants| tenants.0.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        match (claim, expected) {
            (Ok(tenants), Ok(expected)) => assert_eq!(ids(&tenants), expected),
            (Err(error), Err(expected)) => {
                assert_eq!(error.code(), Code::Unauthenticated);
                assert!(error.message().contains(expected), "{error}");
            }
            (claim, expected) => panic!("{claim:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn without_multitenancy_every_request_is_anonymous() {
        check(None, false, Ok(&["anonymous"]));
        check(Some("a/b"), false, Ok(&["anonymous"]));
    }

    #[test]
    fn several_tenants_are_sorted_and_unique() {
        check(Some("b|a|b"), true, Ok(&["a", "b"]));
        check(Some("b:x=1|b"), true, Ok(&["b"]));
    }

    #[test]
    fn a_missing_or_invalid_tenant_is_refused() {
        check(None, true, Err("no org id"));
        check(Some(""), true, Err("no org id"));
        check(Some("a|"), true, Err("no org id"));
        check(Some("a/b"), true, Err("unsupported character"));
        check(Some(&["x"; 101].join("|")), true, Err("limit of 100"));
    }

    #[test]
    fn a_write_has_one_tenant() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, "a|b".parse().unwrap());
        let two = Claim::of(&headers, true).0.unwrap();
        assert_eq!(two.one().unwrap_err().message(), "multiple org IDs present");
    }
}
