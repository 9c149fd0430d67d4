//! Which pages may use this server: requests of other origins, CORS, the name in `Host`.
//!
//! Owns: whether a request that a browser sends for a page may have its effect, what a preflight is answered, which
//! pages see an answer. Does not own: who the user is; nothing here replaces a login in front of the server.
//!
//! Browsers add `Sec-Fetch-Site` or `Origin` to every request that a page sends to another origin, and no page can
//! change them. Agents and command lines send neither, so a request without both is none of a page. A page that has its
//! own name resolved to this server's address (DNS rebinding) is of the same origin; only the name in `Host` tells.
//! `X-Forwarded-Host` proves nothing and is not read.

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

/// Headers of an answer that such a page may read.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "grpc-message, grpc-status, retry-after, x-pyrograph-explained, x-pyrograph-partial, x-pyrograph-partial-why, \
     x-pyrograph-query-stats, x-pyrograph-stale, x-request-id",
);

/// How long a browser may keep the answer to a preflight, in seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Other origins whose pages may use this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Pages of every origin may read.
    any_may_read: bool,
    /// These may read and change; as browsers write them.
    named: Vec<String>,
}

/// Names by which this server may be addressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Every name.
    #[default]
    Any,
    /// These (in lower case), `localhost` and what is below it, and every IP address, which no DNS can turn to another.
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
    /// Reads origins with commas between them; `*` lets every page read, and none change.
    ///
    /// # Errors
    /// Names the first that is no origin.
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
    /// Reads names with commas between them. An empty list means every name, unless `is_loopback`: a listener that only
    /// this computer reaches has no name but `localhost`.
    ///
    /// # Errors
    /// Names the first that is no host name.
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

/// What a request says about the page behind it, if there is one.
pub(crate) struct Sender {
    /// Both are absent from requests that no page sent. What is not ASCII, or given twice, is no origin of ours.
    origin: Option<String>,
    fetch_site: Option<String>,
    /// `<name>[:<port>]`; absent if the request names none, or several.
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
/// 403 if the name in `Host` is not one of ours.
pub(crate) fn check_host(hosts: &Hosts, sender: &Sender) -> Result<(), Error> {
    let host = sender.host.as_deref().unwrap_or_default();
    // Every browser names a host; health checks of HTTP/1.0 do not.
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
/// 403 if it changes something and a page of another origin sent it that is not allowed to. 415 if it deletes or sets
/// something by a plain route and is not JSON.
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
        let given = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let text = format!(
            "content type {:?} is not application/json, which this route requires",
            String::from_utf8_lossy(given)
        );
        return Err(Error::rest(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    Ok(())
}

/// The method that a preflight asks about; absent if the request is none.
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

/// Says on an answer which pages may see it.
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

/// The header's value; empty, which is no valid value of any, if it is given twice or is not ASCII.
fn only(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let text = values.next().is_none().then(|| first.to_str().ok()).flatten();
    Some(text.unwrap_or_default().to_owned())
}

/// HTTP/2 and proxy requests carry it in the URI, which then counts.
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

/// Whether a page of `origin` and a request to `host` are of one origin. The scheme is not compared: a proxy may have
/// taken TLS off.
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

/// Without the port.
fn host_of(authority: &str) -> &str {
    let end = match authority.find(']') {
        Some(bracket) => Some(bracket + 1),
        None => authority.find(':'),
    };
    authority.get(..end.unwrap_or(authority.len())).unwrap_or(authority)
}

/// A password has no place in an error.
fn without_user(text: &str) -> String {
    text.rsplit('@').next().unwrap_or_default().to_owned()
}

fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
