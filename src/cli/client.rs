//! HTTP to nodes.
//!
//! 1. Connecting and waiting for the head of an answer have deadlines. A body has none as a whole, whatever its size, but must not stand
//!    still for longer than [`IDLE`].
//! 2. A body that ends early looks like one that ends: whoever reads one compares its length, and its hash, with what was promised.
//! 3. Redirects are not followed: nodes send none, and an upload could not be repeated.
//! 4. The write token goes to the node named with `--node`, never to the host of a link.

use std::time::Duration;

use awc::ClientResponse;
use awc::body::MessageBody;
use awc::http::{Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::address::NodeUrl;
use super::described::Problem;
use super::fault::Fault;
use super::screen::printable;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the head of an answer may take. A node may ask others first, or wait for a payload that is on its way.
pub(crate) const HEAD: Duration = Duration::from_secs(60);
/// How long a body may stand still: twice what a node allows itself.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// Longest JSON taken from a node: ten thousand members or a thousand blobs fit many times.
const JSON_MAX: usize = 64 << 20;
/// Shorter than a server's five seconds, so that no request meets a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Longest wait that a node may ask for with `Retry-After`.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The client; it belongs to the thread of its actix system.
pub(crate) struct Client {
    http: awc::Client,
    token: Option<String>,
}

/// Why a body brought no more bytes. Worth another attempt where the first bytes are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the transfer was interrupted: {0}")]
pub(crate) struct Interrupted(pub(crate) String);

impl Client {
    pub(crate) fn new(token: Option<String>) -> Self {
        let connector = awc::Connector::new().timeout(CONNECT).conn_keep_alive(KEEP_ALIVE);
        let http = awc::Client::builder()
            .connector(connector)
            .disable_timeout()
            .disable_redirects()
            .add_default_header((header::USER_AGENT, concat!("gossip-cdn/", env!("CARGO_PKG_VERSION"))))
            .finish();
        Self { http, token }
    }

    /// A request that reads.
    pub(crate) fn read(&self, node: &NodeUrl, path: &str) -> awc::ClientRequest {
        self.http.get(format!("{node}{path}")).no_decompress()
    }

    /// A request that writes, with the token.
    pub(crate) fn write(&self, method: Method, node: &NodeUrl, path: &str) -> awc::ClientRequest {
        let request = self.http.request(method, format!("{node}{path}")).no_decompress();
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and takes a successful answer; anything else becomes a fault with what the node said.
    pub(crate) async fn send(&self, node: &NodeUrl, request: awc::ClientRequest) -> Result<ClientResponse, Fault> {
        let response = self.send_any(node, request, ()).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Sends a request and takes any answer.
    pub(crate) async fn send_any(
        &self,
        node: &NodeUrl,
        request: awc::ClientRequest,
        body: impl MessageBody + 'static,
    ) -> Result<ClientResponse, Fault> {
        Self::send_within(node, request, body, HEAD).await
    }

    /// The same, where the node was asked to take its time.
    pub(crate) async fn send_within(
        node: &NodeUrl,
        request: awc::ClientRequest,
        body: impl MessageBody + 'static,
        patience: Duration,
    ) -> Result<ClientResponse, Fault> {
        request.timeout(patience).send_body(body).await.map_err(|error| Fault::of_send(node, &error))
    }

    /// Reads JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, node: &NodeUrl, path: &str) -> Result<T, Fault> {
        let request = self.read(node, path).insert_header((header::ACCEPT, "application/json"));
        parse(node, &collect(self.send(node, request).await?).await.map_err(|cut| Fault::Failed(format!("{node}: {cut}")))?)
    }
}

/// Reads `body` as JSON.
pub(crate) fn parse<T: DeserializeOwned>(node: &NodeUrl, body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        Fault::Failed(format!("{node} answered with something that this version does not understand ({error}); is it a Gossip CDN node?"))
    })
}

/// The next bytes of a body; `None` at its end, which need not be the promised one.
pub(crate) async fn chunk(response: &mut ClientResponse) -> Result<Option<Bytes>, Interrupted> {
    match tokio::time::timeout(IDLE, response.next()).await {
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(error))) => Err(Interrupted(error.to_string())),
        Ok(None) => Ok(None),
        Err(_) => Err(Interrupted(format!("nothing came for {} seconds", IDLE.as_secs()))),
    }
}

/// A whole body, [`JSON_MAX`] bytes at most.
pub(crate) async fn collect(mut response: ClientResponse) -> Result<Bytes, Interrupted> {
    let mut body = BytesMut::new();
    while let Some(bytes) = chunk(&mut response).await? {
        if body.len() + bytes.len() > JSON_MAX {
            return Err(Interrupted(format!("the answer is longer than {JSON_MAX} bytes")));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body.freeze())
}

/// What an answer that is no success means.
pub(crate) async fn refusal(response: ClientResponse) -> Fault {
    let status = response.status();
    let body = collect(response).await.unwrap_or_default();
    Fault::of_status(status, explain(status, &body))
}

/// The problem's own words, or the bare status where there is no problem in the body.
fn explain(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Problem>(body).ok().and_then(|problem| problem.detail.or(problem.title));
    said.map_or_else(|| format!("the node answered {status}"), |text| printable(&text))
}

/// How long a busy node asks us to wait, if this answer says so.
pub(crate) fn busy(response: &ClientResponse) -> Option<Duration> {
    if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(Duration::from_millis(200), PAUSE_MAX))
}

/// A header as text.
pub(crate) fn header_text(response: &ClientResponse, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_speaks_for_itself() {
        let text = |body: &str| explain(StatusCode::NOT_FOUND, body.as_bytes());
        assert_eq!(text(r#"{"title": "t", "detail": "d"}"#), "d");
        assert_eq!(text(r#"{"title": "t"}"#), "t");
        assert_eq!(text("<html>"), "the node answered 404 Not Found");
    }

    #[test]
    fn what_is_no_node_is_named() {
        let node: NodeUrl = "http://a:1".parse().unwrap();
        let fault = parse::<super::super::described::Page>(&node, b"<html>").unwrap_err();
        assert!(fault.to_string().contains("is it a Gossip CDN node?"));
        assert_eq!(fault.exit_code(), 1);
    }
}
