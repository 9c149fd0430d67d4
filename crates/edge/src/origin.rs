//! Access by web pages: requests of other origins, CORS, the name in `Host`.
//!
//! Owns: whether a request of a page may have its effect, answers to preflights, which pages may read an answer.
//! Does not own: authentication; this file does not replace a login in front of the server.
//!
//! Browsers add `Sec-Fetch-Site` or `Origin` to every request that a page sends to another origin, and no page can
//! change these headers. Agents and command lines send neither, so a request without both does not come from a page. A
//! page that resolves its own name to this server's address (DNS rebinding) has the same origin; only the name in
//! `Host` reveals it. `X-Forwarded-Host` proves nothing and is not read.

use std::net::IpAddr;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};

use crate::Error;
use crate::accept::MediaType;
use crate::routes::Effect;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST");

/// Headers that a page of an allowed origin may send.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept, authorization, content-type, connect-protocol-version, connect-timeout-ms, grpc-timeout, x-grpc-web, \
     x-pyrograph-explain, x-request-id, x-scope-orgid, x-user-agent",
);

/// Headers of an answer that a page of an allowed origin may read.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "grpc-message, grpc-status, retry-after, x-pyrograph-explained, x-pyrograph-partial, x-pyrograph-partial-why, \
     x-pyrograph-query-stats, x-pyrograph-stale, x-request-id",
);

/// Time that a browser may cache the answer to a preflight, in seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Origins of other pages that may use this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Whether pages of every origin may read.
    any_may_read: bool,
    /// Origins that may read and change, in the form that browsers send.
    named: Vec<String>,
}

/// Host names of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Every name.
    #[default]
    Any,
    /// These names (in lower case), `localhost` and its subdomains, and every IP address, which DNS cannot redirect.
    Named(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "origin {0:?} is not <scheme>://<host>[:<port>] with scheme http or https, without a path, for example \
         https://grafana.example.com"
    )]
    Origin(String),
    #[error("host {0:?} is not a host name without scheme and port, for example pyrograph.example.com")]
    Host(String),
}

impl Origins {
    /// Reads origins separated by commas; `*` allows every page to read, and none to change.
    ///
    /// # Errors
    /// Names the first value that is not an origin.
    pub fn parse(list: &str) -> Result<Self, NameError> {
        let mut origins = Self::default();
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match text {
                "*" => origins.any_may_read = true,
                _ => origins
                    .named
                    .push(parse_origin(text).ok_or_else(|| NameError::Origin(without_user(text)))?),
            }
        }
        Ok(origins)
    }

    fn is_named(&self, origin: &str) -> bool {
        self.named.iter().any(|named| named == origin)
    }

    fn allow(&self, origin: &str, effect: Effect) -> bool {
        self.is_named(origin) || (self.any_may_read && effect == Effect::Read)
    }

    fn is_empty(&self) -> bool {
        !self.any_may_read && self.named.is_empty()
    }
}

impl Hosts {
    /// Reads names separated by commas. An empty list means every name, unless `is_loopback`: a listener that only this
    /// computer reaches has no name except `localhost`.
    ///
    /// # Errors
    /// Names the first value that is not a host name.
    pub fn parse(list: &str, is_loopback: bool) -> Result<Self, NameError> {
        let mut names = Vec::new();
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            if !is_name {
                return Err(NameError::Host(without_user(text)));
            }
            names.push(plain_name(text));
        }
        Ok(if names.is_empty() && !is_loopback { Self::Any } else { Self::Named(names) })
    }

    fn allow(&self, host: &str) -> bool {
        let Self::Named(names) = self else {
            return true;
        };
        let name = plain_name(host_of(host));
        let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        is_address || name == "localhost" || name.ends_with(".localhost") || names.contains(&name)
    }
}

/// Headers of a request that identify the page that sent it, if a page did.
pub(crate) struct Sender {
    /// Both are absent from requests that no page sent. A value that is repeated or not ASCII is empty, which is never
    /// allowed.
    origin: Option<String>,
    fetch_site: Option<String>,
    /// `<name>[:<port>]`; absent if the request has no host, or several.
    host: Option<String>,
    names_host: bool,
}

impl Sender {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            origin: only(headers, &header::ORIGIN),
            fetch_site: only(headers, &FETCH_SITE),
            host: addressed_host(request.uri(), headers),
            names_host: request.uri().authority().is_some() || headers.contains_key(header::HOST),
        }
    }

    /// Whether the request may come from a page of another origin than this server's own.
    fn is_foreign(&self) -> bool {
        match (&self.fetch_site, &self.origin) {
            (Some(site), _) => site != "same-origin" && site != "none",
            (None, Some(origin)) => !self.host.as_deref().is_some_and(|host| is_origin_of(origin, host)),
            (None, None) => false,
        }
    }
}

/// # Errors
/// 403 if the name in `Host` is not a name of this server.
pub(crate) fn check_host(hosts: &Hosts, sender: &Sender) -> Result<(), Error> {
    let host = sender.host.as_deref().unwrap_or_default();
    // Every browser sends a host; health checks over HTTP/1.0 do not.
    if !sender.names_host || hosts.allow(host) {
        return Ok(());
    }
    let text = format!(
        "host {host:?} is not a name of this server: names beside localhost and IP addresses are set by \
         -server.allowed-hosts"
    );
    Err(Error::rest(StatusCode::FORBIDDEN, text))
}

/// Whether a request may have its effect.
///
/// # Errors
/// 403 if it changes data and comes from a page whose origin is not allowed. 415 if it is not JSON and deletes data or
/// changes settings through a plain route.
pub(crate) fn check_effect(
    origins: &Origins,
    sender: &Sender,
    effect: Effect,
    headers: &HeaderMap,
    is_plain: bool,
) -> Result<(), Error> {
    if effect == Effect::Read {
        return Ok(());
    }
    if sender.is_foreign() && !sender.origin.as_deref().is_some_and(|origin| origins.allow(origin, effect)) {
        return Err(refused_origin(sender));
    }
    if effect == Effect::Administer && is_plain && !is_json(headers) {
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let text = format!(
            "content type {:?} is not application/json, which this route requires",
            String::from_utf8_lossy(content_type)
        );
        return Err(Error::rest(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    Ok(())
}

/// The method that a preflight asks about; `None` if the request is not a preflight.
pub(crate) fn preflight_method<B>(request: &Request<B>) -> Option<Method> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(header::ORIGIN) {
        return None;
    }
    let method = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).ok()
}

/// Answers a preflight for a route with this effect.
pub(crate) fn preflight(origins: &Origins, sender: &Sender, effect: Effect) -> Response {
    let allowed = sender.origin.as_deref().is_some_and(|origin| origins.allow(origin, effect));
    if !allowed {
        return refused_origin(sender).into_response();
    }
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Adds the headers that say which pages may read the answer.
pub(crate) fn label(origins: &Origins, sender: &Sender, effect: Effect, headers: &mut HeaderMap) {
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if origins.is_empty() {
        return;
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = &sender.origin else {
        return;
    };
    let allowed = match origins.is_named(origin) {
        true => HeaderValue::from_str(origin).ok(),
        false => origins.allow(origin, effect).then(|| HeaderValue::from_static("*")),
    };
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
}

fn refused_origin(sender: &Sender) -> Error {
    let origin = sender.origin.as_deref().unwrap_or("of another site");
    let text =
        format!("a page of origin {origin:?} may not do this: it is not in -server.cors-allowed-origins");
    Error::rest(StatusCode::FORBIDDEN, text)
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = only(headers, &header::CONTENT_TYPE);
    text.and_then(|text| MediaType::parse(&text).ok())
        .is_some_and(|media| media.essence == "application/json")
}

/// The header's value; empty, which is never valid, if it is repeated or not ASCII.
fn only(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let text = values.next().is_none().then(|| first.to_str().ok()).flatten();
    Some(text.unwrap_or_default().to_owned())
}

/// The host of the request. HTTP/2 and proxy requests have it in the URI, which takes precedence.
fn addressed_host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str().to_owned()),
        None => only(headers, &header::HOST),
    };
    host.filter(|host| !host.is_empty())
}

/// `<scheme>://<host>[:<port>]`, in lower case and without the port of the scheme, as browsers write it.
fn parse_origin(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
    let (scheme, authority) =
        text.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    let is_authority =
        authority.parse::<http::uri::Authority>().is_ok_and(|parsed| !parsed.host().is_empty());
    let is_plain = !authority.contains(['@', '*']);
    (is_authority && is_plain).then(|| format!("{scheme}://{}", without_default_port(scheme, authority)))
}

/// Whether a page of `origin` and a request to `host` have the same origin. The scheme is not compared: a proxy may
/// terminate TLS.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let Some(origin) = parse_origin(origin) else {
        return false;
    };
    let (scheme, authority) = origin.split_once("://").unwrap_or_default();
    without_default_port(scheme, &host.to_ascii_lowercase()) == authority
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The authority without its port.
fn host_of(authority: &str) -> &str {
    let end = match authority.find(']') {
        Some(bracket) => Some(bracket + 1),
        None => authority.find(':'),
    };
    authority.get(..end.unwrap_or(authority.len())).unwrap_or(authority)
}

/// The text without a user and password, which must not appear in an error.
fn without_user(text: &str) -> String {
    text.rsplit('@').next().unwrap_or_default().to_owned()
}

fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
