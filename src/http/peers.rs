//! The routes under `/gossip/`: what other nodes ask.
//!
//! 1. A message of another cluster, another version, or that is no message at all changes nothing; it is counted by its sender.
//! 2. Bodies are bounded before they are read.
//! 3. Payload bytes go from the store to the wire beside the core, read on the blocking pool, at most a few pieces ahead of the reader.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use actix_web::http::header::{CONTENT_TYPE, ContentType};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt, stream};
use gossip_cdn_protocol::io::{Misbehaviour, Refusal};
use gossip_cdn_protocol::transfer::{MAX_BATCH, MAX_BATCH_BYTES};
use gossip_cdn_protocol::wire::{Envelope, Head, Kind, MAX_BODY, PayloadRequest, PayloadsRequest, VERSION};
use gossip_cdn_shell::problem::Problem;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::driver::Handle;
use crate::peers::frame_head;
use crate::store::{PayloadReader, Store};

/// How much of an encoded payload is handed to the wire at once.
const PIECE: usize = 256 << 10;
/// Pieces between the disk and a slow reader.
const PIECES: usize = 4;
/// Most addresses whose misbehaviour is told apart.
const MAX_STRANGERS: usize = 1024;
/// Most payloads sent to peers at once; beyond it they are asked to come back.
const MAX_SENDING: usize = 32;

/// What the peer routes need.
#[derive(Debug)]
pub struct PeerContext {
    /// The core.
    pub driver: Handle,
    /// Where payloads are.
    pub store: Store,
    /// The cluster's name.
    pub cluster: String,
    /// Who sent what is no message.
    pub strangers: Arc<Strangers>,
    sending: Arc<Semaphore>,
}

impl PeerContext {
    /// A context for the node behind `driver`.
    pub fn new(driver: Handle, store: Store, cluster: String, strangers: Arc<Strangers>) -> Self {
        Self { driver, store, cluster, strangers, sending: Arc::new(Semaphore::new(MAX_SENDING)) }
    }

    /// The right to send payloads, for as long as it is held.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.sending).try_acquire_owned().map_err(|_| super::errors::busy("too many payloads are being sent"))
    }
}

/// Counts what came under `/gossip/` and was refused before the core saw it, by the address it came from.
#[derive(Debug, Default)]
pub struct Strangers {
    refused: Mutex<BTreeMap<(Option<IpAddr>, Misbehaviour), u64>>,
}

impl Strangers {
    fn count(&self, request: &HttpRequest, kind: Misbehaviour) {
        let address = request.peer_addr().map(|address| address.ip());
        let mut refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let room = refused.len() < MAX_STRANGERS || refused.contains_key(&(address, kind));
        *refused.entry((address.filter(|_| room), kind)).or_default() += 1;
    }

    /// How often each address was refused, and why. No address stands for those beyond the bound.
    pub fn refused(&self) -> BTreeMap<(Option<IpAddr>, Misbehaviour), u64> {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Mounts the peer routes.
pub fn configure(config: &mut ServiceConfig, context: Data<PeerContext>) {
    config.app_data(context);
    for kind in Kind::ALL {
        let handler = move |request: HttpRequest, body: Payload, context: Data<PeerContext>| on_message(kind, request, body, context);
        config.route(&format!("/gossip/{}", kind.name()), web::post().to(handler));
    }
    config.route("/gossip/payload", web::post().to(on_payload)).route("/gossip/payloads", web::post().to(on_payloads));
}

/// The peer routes and their methods, for answering 405.
pub fn routes() -> Vec<(String, Vec<Method>)> {
    let names = Kind::ALL.iter().map(|kind| kind.name()).chain(["payload", "payloads"]);
    names.map(|name| (format!("/gossip/{name}"), vec![Method::POST])).collect()
}

async fn on_message(kind: Kind, request: HttpRequest, body: Payload, context: Data<PeerContext>) -> Result<HttpResponse, Problem> {
    let json = read(&request, body, &context).await?;
    let message = kind.read_request(&json).map_err(|fault| malformed(&request, &context, &fault))?;
    let answer = context.driver.request(message).await.map_err(|stopped| super::errors::stopping(&stopped))?;
    match answer {
        Ok(answer) => Ok(HttpResponse::Ok().json(answer)),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// Reads a body and checks that it is a message to this cluster, of this version.
async fn read(request: &HttpRequest, mut body: Payload, context: &PeerContext) -> Result<Vec<u8>, Problem> {
    let json = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    });
    if !json {
        context.strangers.count(request, Misbehaviour::Malformed);
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "messages of peers are application/json"));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = tokio::time::timeout(super::BODY_IDLE, body.next()).await.map_err(|_| super::errors::stalled())? {
        let piece = piece.map_err(|fault| malformed(request, context, &fault))?;
        if bytes.len() + piece.len() > MAX_BODY {
            context.strangers.count(request, Misbehaviour::Malformed);
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!("messages of peers have at most {MAX_BODY} bytes"),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    let head: Head = serde_json::from_slice(&bytes).map_err(|fault| malformed(request, context, &fault))?;
    let refusal = if head.version != VERSION {
        Refusal::UnknownVersion { ours: VERSION, theirs: head.version }
    } else if head.cluster != context.cluster {
        Refusal::OtherCluster { ours: context.cluster.clone(), theirs: head.cluster }
    } else {
        return Ok(bytes);
    };
    context.strangers.count(request, Misbehaviour::Foreign);
    Err(refused(&refusal))
}

fn malformed(request: &HttpRequest, context: &PeerContext, fault: &dyn std::fmt::Display) -> Problem {
    context.strangers.count(request, Misbehaviour::Malformed);
    Problem::new(StatusCode::BAD_REQUEST, "malformed", format!("not a message of the protocol: {fault}"))
}

fn refused(refusal: &Refusal) -> Problem {
    let (status, kind) = match refusal {
        Refusal::OtherCluster { .. } => (StatusCode::CONFLICT, "other-cluster"),
        Refusal::UnknownVersion { .. } => (StatusCode::UPGRADE_REQUIRED, "unknown-version"),
        Refusal::Malformed(_) | Refusal::FromSelf => (StatusCode::BAD_REQUEST, "malformed"),
        Refusal::Stopped { .. } => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let problem = Problem::new(status, kind, refusal.to_string());
    // RFC 9110 section 15.5.22 demands to say what to upgrade to.
    if status == StatusCode::UPGRADE_REQUIRED { problem.header("upgrade", format!("gossip-cdn/{VERSION}")) } else { problem }
}

async fn ask<T: DeserializeOwned>(request: &HttpRequest, body: Payload, context: &PeerContext) -> Result<T, Problem> {
    let json = read(request, body, context).await?;
    let envelope: Envelope<T> = serde_json::from_slice(&json).map_err(|fault| malformed(request, context, &fault))?;
    Ok(envelope.body)
}

async fn on_payloads(request: HttpRequest, body: Payload, context: Data<PeerContext>) -> Result<HttpResponse, Problem> {
    let PayloadsRequest { hashes } = ask(&request, body, &context).await?;
    if hashes.len() > MAX_BATCH {
        return Err(malformed(&request, &context, &format!("more than {MAX_BATCH} payloads asked for")));
    }
    let _permit = context.permit()?;
    let mut pieces = Vec::with_capacity(2 * hashes.len());
    let mut total = 0;
    for hash in hashes {
        let found = match context.store.payload(hash).map_err(|fault| super::errors::store(&fault))? {
            Some(PayloadReader::Inline(bytes)) => Some(bytes),
            // Not small, so not asked for by a node that keeps the rules.
            Some(PayloadReader::File { .. }) | None => None,
        };
        // The reader bounds the answer: what is beyond the bound is absent, and asked for again.
        let found = found.filter(|bytes| total + bytes.len() as u64 <= MAX_BATCH_BYTES);
        total += found.as_ref().map_or(0, |bytes| bytes.len() as u64);
        pieces.push(Bytes::copy_from_slice(&frame_head(hash, found.as_ref())));
        pieces.extend(found);
    }
    let body = stream::iter(pieces.into_iter().map(Ok::<_, io::Error>));
    Ok(HttpResponse::Ok().insert_header(ContentType::octet_stream()).streaming(body))
}

async fn on_payload(request: HttpRequest, body: Payload, context: Data<PeerContext>) -> Result<HttpResponse, Problem> {
    let PayloadRequest { hash, offset } = ask(&request, body, &context).await?;
    let absent = || Problem::new(StatusCode::NOT_FOUND, "no-payload", format!("the payload {hash} is not here"));
    if context.store.payload(hash).map_err(|fault| super::errors::store(&fault))?.is_none() {
        return Err(absent());
    }
    let permit = context.permit()?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let store = context.store.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let mut sink = Pieces { sender, buffer: Vec::with_capacity(PIECE) };
        let result = store.encode(hash, offset, &mut sink);
        io::Write::flush(&mut sink).and_then(|()| result.map_err(io::Error::other))
    });
    // The encoder ends with the reader: its channel closes. What it has to say of its end only matters to the log.
    let body = stream::unfold((receiver, Some(encoding), permit), |(mut receiver, mut encoding, permit)| async move {
        if let Some(piece) = receiver.recv().await {
            return Some((Ok::<_, io::Error>(piece), (receiver, encoding, permit)));
        }
        let ended = encoding.take()?.await;
        match ended {
            Ok(Ok(true)) => None,
            Ok(Ok(false)) => Some((Err(io::Error::other("collected meanwhile")), (receiver, None, permit))),
            Ok(Err(fault)) => Some((Err(fault), (receiver, None, permit))),
            Err(fault) => Some((Err(io::Error::other(fault)), (receiver, None, permit))),
        }
    });
    Ok(HttpResponse::Ok().insert_header(ContentType::octet_stream()).streaming(body))
}

/// Gathers what the encoder writes into pieces and hands them to the wire.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)));
        self.sender.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
