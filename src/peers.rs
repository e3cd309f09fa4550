//! The way to other nodes: calls of the protocol, and transfers of payloads.
//!
//! 1. Control calls and payload transfers have a client and a thread each, so that gigabytes never delay an answer to a probe.
//! 2. Every wait has an end: connecting, the answer, each piece of a body.
//! 3. Nothing that a peer sends is believed: bodies are bounded, JSON is checked by the core, payload bytes by their hash.
//! 4. Only a node's own answer is a sign of life: not that of whatever else listens at its address, or of a proxy before it.

pub mod reports;
mod transfers;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use awc::Client;
use awc::error::PayloadError;
use awc::http::StatusCode;
use awc::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use gossip_cdn_protocol::io::CallFault;
use gossip_cdn_protocol::wire::{Answer, Envelope, Introduction, Join, MAX_BODY, Request, SMALL_CALL};
use gossip_cdn_shell::problem;
use serde::{Deserialize, Serialize};

pub use self::transfers::{Courier, Pace, Transfers, frame_head};

/// Largest answer to the question how a node is, in bytes. A guess: it is some 5 KB, and more with every peer that misbehaved.
const MAX_STATUS: usize = 1 << 20;
/// Most room made for a request before it is written.
const MAX_GUESS: usize = 64 << 10;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client for calls between nodes: as HTTP as possible, as little clever as possible.
///
/// Not `Send`: each thread that calls has its own.
fn client() -> Client {
    let connector = awc::Connector::new()
        .timeout(CONNECT_TIMEOUT)
        // Below the server's keep-alive: a connection that it is about to close is not used again.
        .conn_keep_alive(Duration::from_secs(4))
        .limit(256);
    Client::builder().connector(connector).disable_redirects().no_default_headers().timeout(SMALL_CALL).finish()
}

/// Calls other nodes.
#[derive(Clone)]
pub struct Peers {
    client: Client,
    written: Rc<RefCell<Option<Written>>>,
}

/// The request written last, as it stands on the wire. What is proposed to voters goes to each of them alike, and is written once.
struct Written {
    request: Envelope<Request>,
    json: Bytes,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

impl Peers {
    /// Must be called, and used, on a thread with a local task set: an arbiter.
    #[expect(clippy::new_without_default, reason = "it matters where it is made")]
    pub fn new() -> Self {
        Self { client: client(), written: Rc::default() }
    }

    /// Posts a request to the node at `address`.
    pub fn call(&self, address: String, request: Envelope<Request>) -> impl Future<Output = Result<Envelope<Answer>, CallFault>> + use<> {
        let (peers, kind, json) = (self.clone(), request.body.kind(), self.write(request));
        async move {
            let body = peers.post(&format!("{address}/gossip/{}", kind.name()), json?, kind.patience()).await?;
            kind.read_answer(&body).map_err(|fault| CallFault::Malformed(fault.to_string()))
        }
    }

    /// Registers with the bootstrap node at `address`.
    pub fn join(&self, address: String, join: Envelope<Join>) -> impl Future<Output = Result<Introduction, CallFault>> + use<> {
        let peers = self.clone();
        async move {
            let body = peers.post(&format!("{address}/join"), json(&join, 0)?, SMALL_CALL).await?;
            let answer: Envelope<Introduction> = serde_json::from_slice(&body).map_err(|fault| CallFault::Malformed(fault.to_string()))?;
            if answer.cluster != join.cluster {
                return Err(CallFault::Refused(format!("it belongs to the cluster {:?}", answer.cluster)));
            }
            Ok(answer.body)
        }
    }

    /// What the node at `address` says of itself to anybody, in JSON; nothing if it does not say so in time and in short.
    async fn status(&self, address: &str, patience: Duration) -> Option<Bytes> {
        let call = async {
            let request = self.client.get(format!("{address}/status")).no_decompress().timeout(patience).send();
            let mut response = request.await.ok().filter(|response| response.status() == StatusCode::OK)?;
            response.body().limit(MAX_STATUS).await.ok()
        };
        tokio::time::timeout(patience, call).await.ok().flatten()
    }

    fn write(&self, request: Envelope<Request>) -> Result<Bytes, CallFault> {
        let mut written = self.written.borrow_mut();
        if let Some(written) = written.as_ref().filter(|written| written.request == request) {
            return Ok(written.json.clone());
        }
        // One is often about as long as the one before.
        let json = json(&request, written.as_ref().map_or(0, |written| written.json.len().min(MAX_GUESS)))?;
        *written = Some(Written { request, json: json.clone() });
        Ok(json)
    }

    /// Posts a message; the body of a 200. Sending, waiting and reading take `patience` together.
    async fn post(&self, url: &str, json: Bytes, patience: Duration) -> Result<Bytes, CallFault> {
        let request = self.client.post(url).content_type("application/json").no_decompress().timeout(patience).send_body(json);
        let call = async {
            let mut response = request.await.map_err(|fault| {
                tracing::debug!(url, "no answer: {fault}");
                CallFault::Unreachable
            })?;
            let body = response.body().limit(MAX_BODY).await;
            if response.status() != StatusCode::OK {
                let fault = fault_of(response.status(), response.headers().get(CONTENT_TYPE), &body.unwrap_or_default());
                tracing::debug!(url, status = %response.status(), "no answer to the message: {fault:?}");
                return Err(fault);
            }
            body.map_err(|fault| {
                if matches!(fault, PayloadError::Overflow) {
                    CallFault::Malformed(format!("an answer of more than {MAX_BODY} bytes"))
                } else {
                    CallFault::Malformed(format!("an answer cut short: {fault}"))
                }
            })
        };
        tokio::time::timeout(patience, call).await.unwrap_or(Err(CallFault::Unreachable))
    }
}

fn json(body: &impl Serialize, length: usize) -> Result<Bytes, CallFault> {
    let mut json = Vec::with_capacity(length);
    serde_json::to_writer(&mut json, body).map_err(|fault| CallFault::Malformed(fault.to_string()))?;
    Ok(json.into())
}

/// The problems with which a node or a bootstrap node refuses a message, as their types end.
const REFUSALS: [&str; 9] = [
    "other-cluster",
    "unknown-version",
    "malformed",
    "too-large",
    "unsupported-media-type",
    "body-stalled",
    // A bootstrap node's.
    "cluster",
    "version",
    "media-type",
];

/// What an answer of another status than 200 means.
fn fault_of(status: StatusCode, content_type: Option<&HeaderValue>, body: &[u8]) -> CallFault {
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        return CallFault::Busy;
    }
    #[derive(Deserialize)]
    struct Refusal {
        r#type: String,
        #[serde(default)]
        detail: String,
    }
    let is_problem = content_type.is_some_and(|value| value.as_bytes().starts_with(problem::MEDIA_TYPE.as_bytes()));
    let refusal = serde_json::from_slice::<Refusal>(body).ok().filter(|_| is_problem);
    match refusal.as_ref().and_then(|refusal| refusal.r#type.strip_prefix("urn:gossip-cdn:problem:")) {
        Some(kind) if REFUSALS.contains(&kind) => {
            let detail = refusal.as_ref().map_or("", |refusal| &refusal.detail);
            CallFault::Refused(format!("{}: {}", status.as_u16(), detail.chars().take(200).collect::<String>()))
        }
        // Another server, a proxy, or a node that does not know the route: nobody to talk to.
        Some(_) | None => CallFault::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
    use gossip_cdn_protocol::wire::{Holds, MembersRequest, VERSION};
    use gossip_cdn_protocol::{ContentHash, NodeId};

    use super::*;

    /// Answers to `/{status}/gossip/...` with that status, after a while if the status is 200; its base URL.
    pub(super) fn server() -> String {
        let answer = async |request: HttpRequest| {
            let status: u16 = request.match_info().query("status").parse().unwrap();
            if status == 200 {
                tokio::time::sleep(SMALL_CALL + Duration::from_secs(1)).await;
            }
            HttpResponse::build(StatusCode::from_u16(status).unwrap()).body("what another server says")
        };
        let server = HttpServer::new(move || App::new().route("/{status}/gossip/{kind}", web::post().to(answer)));
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.run());
        format!("http://{address}")
    }

    fn message(body: Request) -> Envelope<Request> {
        Envelope { version: VERSION, cluster: "test".into(), sender: NodeId::from_public_key(&[1; 32]), incarnation: 1, body }
    }

    fn members() -> Envelope<Request> {
        message(Request::Members(MembersRequest { members: vec![], full: false }))
    }

    #[actix_web::test]
    async fn only_a_node_that_speaks_gives_a_sign_of_life() {
        let (server, peers) = (server(), Peers::new());
        for (status, fault) in [
            (404, CallFault::Unreachable),
            (502, CallFault::Unreachable),
            (500, CallFault::Unreachable),
            (301, CallFault::Unreachable),
            (204, CallFault::Unreachable),
            (429, CallFault::Busy),
            (503, CallFault::Busy),
        ] {
            assert_eq!(peers.call(format!("{server}/{status}"), members()).await, Err(fault), "{status}");
        }
        assert_eq!(peers.call("http://127.0.0.1:1".into(), members()).await, Err(CallFault::Unreachable));
    }

    #[actix_web::test]
    async fn a_bulk_call_may_take_longer_than_a_small_one() {
        let (server, peers) = (server(), Peers::new());
        let small = message(Request::Holds(Holds { hash: ContentHash([1; 32]) }));
        let calls = [peers.call(format!("{server}/200"), small), peers.call(format!("{server}/200"), members())];
        let [small, bulk] = futures_util::future::join_all(calls).await.try_into().unwrap();
        assert_eq!(small, Err(CallFault::Unreachable));
        // It came, though it is junk.
        assert!(matches!(bulk, Err(CallFault::Malformed(_))), "{bulk:?}");
    }

    #[test]
    fn a_refusal_is_a_problem_of_ours_and_nothing_else() {
        let problem = HeaderValue::from_static("application/problem+json");
        let body =
            |kind: &str| format!(r#"{{"type":"urn:gossip-cdn:problem:{kind}","title":"t","status":409,"detail":"why"}}"#).into_bytes();
        for kind in REFUSALS {
            let fault = fault_of(StatusCode::CONFLICT, Some(&problem), &body(kind));
            assert_eq!(fault, CallFault::Refused("409: why".into()));
        }
        let text = HeaderValue::from_static("text/html");
        for (kind, body) in [
            (Some(&problem), body("not-found")),
            (Some(&problem), br#"{"type":"about:blank"}"#.to_vec()),
            (Some(&problem), b"junk".to_vec()),
            (Some(&text), body("malformed")),
            (None, body("malformed")),
        ] {
            assert_eq!(fault_of(StatusCode::NOT_FOUND, kind, &body), CallFault::Unreachable);
        }
    }
}
