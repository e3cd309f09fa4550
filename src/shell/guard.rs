//! Which web pages may talk to this process through somebody's browser.
//!
//! A page of a stranger can make a browser send requests to `127.0.0.1`. Two guards stand against it:
//!
//! 1. [`Hosts`], against DNS rebinding: the stranger's name, pointed at our address, shows in `Host` and is not ours.
//! 2. [`Origins`], against forged posts: a form or a text body needs no preflight, but carries its page's `Origin`.
//!
//! Programs are not concerned: they send the address they were given, and no origin.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;

use actix_web::Error;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::http::uri::Authority;
use actix_web::middleware::{Next, from_fn};

use crate::problem::Problem;

/// The names under which this process may be spoken to, beside IP addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// Allows `names`, with any port.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| normal(&name)).collect())
    }

    /// Whether `host`, an authority as `Host` carries it, is allowed.
    pub fn allow(&self, host: &str) -> bool {
        // What most requests have, told without taking it apart.
        if host.parse::<SocketAddrV4>().is_ok() {
            return true;
        }
        let Some((name, _)) = split(host) else { return false };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        match address {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => name.parse::<Ipv4Addr>().is_ok() || name == "localhost" || self.0.contains(&name),
        }
    }

    fn check(&self, request: &ServiceRequest) -> Result<(), Problem> {
        let host = host(request)?;
        if self.allow(host) {
            return Ok(());
        }
        let detail =
            format!("This node is not {:?}. It answers to IP addresses, localhost, and the names given with --host.", quoted(host));
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host", detail))
    }
}

/// The origins whose pages may change things here, beside our own.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<[String]>);

impl Origins {
    /// Allows `origins`, written as browsers do, such as `https://example.org`.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        Self(origins.into_iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect())
    }

    /// Whether a page of `origin` may change things at `host`.
    pub fn allow(&self, origin: &str, host: &str) -> bool {
        if self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        // A proxy before us may speak TLS, so the scheme is the origin's own.
        let (authority, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
            (Some(authority), _) => (authority, 80),
            (None, Some(authority)) => (authority, 443),
            (None, None) => return false,
        };
        let with_port = |authority| split(authority).map(|(name, given)| (name, given.unwrap_or(port)));
        with_port(authority).is_some_and(|own| with_port(host) == Some(own))
    }

    fn check(&self, request: &ServiceRequest) -> Result<(), Problem> {
        if request.method().is_safe() {
            return Ok(());
        }
        let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
        let host = host(request)?;
        if origin.to_str().is_ok_and(|origin| self.allow(origin, host)) {
            return Ok(());
        }
        let detail = "A page of another origin may not change anything here; --allow-origin names those that may.";
        Err(Problem::new(StatusCode::FORBIDDEN, "origin", detail))
    }
}

/// The authority a request is meant for: of its target where that is absolute (RFC 9112 section 3.2.2), else of `Host`.
fn host(request: &ServiceRequest) -> Result<&str, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str());
    }
    let mut hosts = request.headers().get_all(header::HOST);
    match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) => Ok(host),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "host", "A request needs one Host header.")),
    }
}

/// Name in lower case and without a final dot, and port.
fn split(authority: &str) -> Option<(String, Option<u16>)> {
    if authority.contains('@') {
        return None;
    }
    let parsed = authority.parse::<Authority>().ok()?;
    // `Authority::port` says none for one that is no port; here that is nonsense.
    let port = match authority.strip_prefix(parsed.host())?.strip_prefix(':') {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok()?),
    };
    Some((normal(parsed.host()), port))
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn quoted(host: &str) -> String {
    host.chars().take(80).collect()
}

/// Middleware: refuses with 421 what is meant for a host that is not ours.
pub fn hosts<S, B>(
    hosts: Hosts,
) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<EitherBody<B>>, Error = Error, InitError = ()> + 'static
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    from_fn(move |request, next| guarded(hosts.check(&request), request, next))
}

/// Middleware: refuses with 403 what a page of another origin sends to change something.
pub fn origins<S, B>(
    origins: Origins,
) -> impl Transform<S, ServiceRequest, Response = ServiceResponse<EitherBody<B>>, Error = Error, InitError = ()> + 'static
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    from_fn(move |request, next| guarded(origins.check(&request), request, next))
}

type Answered<B> = Pin<Box<dyn Future<Output = Result<ServiceResponse<EitherBody<B>>, Error>>>>;

fn guarded<B: MessageBody + 'static>(verdict: Result<(), Problem>, request: ServiceRequest, next: Next<B>) -> Answered<B> {
    Box::pin(async move {
        match verdict {
            Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
            Err(problem) => Ok(request.error_response(problem).map_into_right_body()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_listed_names_are_hosts() {
        let hosts = Hosts::new(["Node.Example".to_owned()]);
        for host in ["127.0.0.1", "127.0.0.1:7701", "[::1]:7701", "[::1]", "localhost", "LOCALHOST:1", "localhost.", "node.example:80"] {
            assert!(hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn other_names_and_nonsense_are_no_hosts() {
        let hosts = Hosts::default();
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil", "a@localhost", "[::1", "localhost:99999", "127.1", "a b"]
        {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn a_page_may_change_what_is_its_own() {
        let origins = Origins::new(["https://app.example/".to_owned()]);
        for (origin, host) in [
            ("http://127.0.0.1:7701", "127.0.0.1:7701"),
            ("http://node.example", "node.example"),
            ("https://node.example", "node.example:443"),
            ("https://node.example", "node.example"),
            ("https://app.example", "node.example"),
        ] {
            assert!(origins.allow(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn a_page_may_not_change_what_is_anothers() {
        for (origin, host) in [
            ("null", "127.0.0.1:7701"),
            ("http://127.0.0.1:7702", "127.0.0.1:7701"),
            ("http://evil.example", "127.0.0.1"),
            ("file://127.0.0.1:7701", "127.0.0.1:7701"),
            ("", ""),
        ] {
            assert!(!Origins::default().allow(origin, host), "{origin} {host}");
        }
    }
}
