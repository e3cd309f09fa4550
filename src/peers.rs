//! The way to other nodes: calls of the protocol, and transfers of payloads.
//!
//! 1. Control calls and payload transfers have a client and a thread each, so that gigabytes never delay an answer to a probe.
//! 2. Every wait has an end: connecting, the answer, each piece of a body.
//! 3. Nothing that a peer sends is believed: bodies are bounded, JSON is checked by the core, payload bytes by their hash.

mod transfers;

use std::future::Future;
use std::time::Duration;

use awc::Client;
use awc::error::{PayloadError, SendRequestError};
use gossip_cdn_protocol::Member;
use gossip_cdn_protocol::io::CallFault;
use gossip_cdn_protocol::wire::{Answer, Envelope, Join, MAX_BODY, MemberList, Request};
use serde::Serialize;

pub use self::transfers::{Courier, Pace, Transfers, frame_head};

/// How long a peer has to answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
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
    Client::builder().connector(connector).disable_redirects().no_default_headers().timeout(CALL_TIMEOUT).finish()
}

/// Calls other nodes.
#[derive(Clone)]
pub struct Peers {
    client: Client,
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
        Self { client: client() }
    }

    /// Posts a request to the node at `address`.
    pub fn call(&self, address: String, request: Envelope<Request>) -> impl Future<Output = Result<Envelope<Answer>, CallFault>> + use<> {
        let peers = self.clone();
        async move {
            let kind = request.body.kind();
            let body = peers.post(&format!("{address}/gossip/{}", kind.name()), &request).await?;
            kind.read_answer(&body).map_err(|fault| CallFault::Malformed(fault.to_string()))
        }
    }

    /// Registers with the bootstrap node at `address`; gives the members it names.
    pub fn join(&self, address: String, join: Envelope<Join>) -> impl Future<Output = Result<Vec<Member>, CallFault>> + use<> {
        let peers = self.clone();
        async move {
            let body = peers.post(&format!("{address}/join"), &join).await?;
            let answer: Envelope<MemberList> = serde_json::from_slice(&body).map_err(|fault| CallFault::Malformed(fault.to_string()))?;
            if answer.cluster != join.cluster {
                return Err(CallFault::Refused(format!("it belongs to the cluster {:?}", answer.cluster)));
            }
            Ok(answer.body.members)
        }
    }

    async fn post(&self, url: &str, body: &impl Serialize) -> Result<bytes::Bytes, CallFault> {
        let json = serde_json::to_vec(body).map_err(|fault| CallFault::Malformed(fault.to_string()))?;
        let request = self.client.post(url).content_type("application/json").no_decompress().send_body(json);
        let mut response = request.await.map_err(|fault| unreachable(url, &fault))?;
        let answer = tokio::time::timeout(CALL_TIMEOUT, response.body().limit(MAX_BODY)).await;
        match response.status().as_u16() {
            200 => {}
            429 | 503 => return Err(CallFault::Busy),
            status => {
                let detail = answer.ok().and_then(Result::ok).map(|body| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default();
                return Err(CallFault::Refused(format!("{status}: {}", detail.chars().take(200).collect::<String>())));
            }
        }
        answer.map_err(|_| CallFault::Unreachable)?.map_err(|fault| {
            if matches!(fault, PayloadError::Overflow) {
                CallFault::Malformed(format!("an answer of more than {MAX_BODY} bytes"))
            } else {
                CallFault::Malformed(format!("an answer cut short: {fault}"))
            }
        })
    }
}

/// A call that brought no answer at all, or something that is not HTTP.
fn unreachable(url: &str, fault: &SendRequestError) -> CallFault {
    tracing::debug!(url, "no answer: {fault}");
    if let SendRequestError::Response(fault) = fault {
        CallFault::Malformed(format!("not an HTTP answer: {fault}"))
    } else {
        CallFault::Unreachable
    }
}
