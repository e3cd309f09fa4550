//! The routes under `/gossip/`: what other nodes ask.
//!
//! 1. A message of another cluster, another version, or that is no message at all changes nothing; it is counted by its sender.
//! 2. Bodies are bounded before they are read.
//! 3. Payload bytes go from the store to the wire beside the core, read on the blocking pool, at most a few pieces ahead of the reader.
//!    A reader that does not keep the [`Pace`] of transfers holds neither a thread nor one of the places beyond it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_TYPE, ContentType};
use actix_web::web::{self, Bytes, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{Stream, stream};
use gossip_cdn_protocol::io::{Misbehaviour, Refusal};
use gossip_cdn_protocol::transfer::{MAX_BATCH, MAX_BATCH_BYTES};
use gossip_cdn_protocol::wire::{Envelope, Head, Kind, MAX_BODY, PayloadRequest, PayloadsRequest, VERSION};
use gossip_cdn_shell::problem::Problem;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::Tasks;
use super::errors;
use super::patience::Patience;
use crate::driver::Handle;
use crate::peers::{Pace, frame_head};
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
    /// Where transfers run on beside their connections.
    pub tasks: Tasks,
    sending: Arc<Semaphore>,
}

impl PeerContext {
    /// A context for the node behind `driver`.
    pub fn new(driver: Handle, store: Store, cluster: String, strangers: Arc<Strangers>, tasks: Tasks) -> Self {
        Self { driver, store, cluster, strangers, tasks, sending: Arc::new(Semaphore::new(MAX_SENDING)) }
    }

    /// The right to send payloads, for as long as it is held.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.sending).try_acquire_owned().map_err(|_| errors::busy("too many payloads are being sent"))
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
    let message = ours(&request, &context, &json, kind.read_request(&json))?;
    let answer = context.driver.request(message).await.map_err(|stopped| errors::stopping(&stopped))?;
    match answer {
        Ok(answer) => Ok(HttpResponse::Ok().json(answer)),
        Err(refusal) => Err(errors::refused(&refusal)),
    }
}

/// Reads a body.
async fn read(request: &HttpRequest, mut body: Payload, context: &PeerContext) -> Result<Vec<u8>, Problem> {
    let json = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    });
    if !json {
        context.strangers.count(request, Misbehaviour::Malformed);
        return Err(errors::not_json());
    }
    let (mut bytes, mut left) = (Vec::new(), Patience::default().begin());
    while let Some(piece) = super::body::next(&mut body, &mut left).await.ok_or_else(errors::stalled)? {
        let piece = piece.map_err(|fault| malformed(request, context, &fault))?;
        if bytes.len() + piece.len() > MAX_BODY {
            context.strangers.count(request, Misbehaviour::Malformed);
            return Err(errors::message_too_large(MAX_BODY));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Checks that what was read is a message to this cluster, of this version. One of another version may be unreadable but for its head.
fn ours<T>(
    request: &HttpRequest,
    context: &PeerContext,
    json: &[u8],
    message: Result<Envelope<T>, serde_json::Error>,
) -> Result<Envelope<T>, Problem> {
    let (version, cluster) = match &message {
        Ok(message) => (message.version, message.cluster.clone()),
        Err(_) => {
            let head: Head = serde_json::from_slice(json).map_err(|fault| malformed(request, context, &fault))?;
            (head.version, head.cluster)
        }
    };
    let refusal = if version != VERSION {
        Refusal::UnknownVersion { ours: VERSION, theirs: version }
    } else if cluster != context.cluster {
        Refusal::OtherCluster { ours: context.cluster.clone(), theirs: cluster }
    } else {
        return message.map_err(|fault| malformed(request, context, &fault));
    };
    context.strangers.count(request, Misbehaviour::Foreign);
    Err(errors::refused(&refusal))
}

fn malformed(request: &HttpRequest, context: &PeerContext, fault: &dyn std::fmt::Display) -> Problem {
    context.strangers.count(request, Misbehaviour::Malformed);
    errors::no_message(fault)
}

async fn ask<T: DeserializeOwned>(request: &HttpRequest, body: Payload, context: &PeerContext) -> Result<T, Problem> {
    let json = read(request, body, context).await?;
    ours(request, context, &json, serde_json::from_slice::<Envelope<T>>(&json)).map(|envelope| envelope.body)
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
        let found = match context.store.payload(hash).map_err(|fault| errors::store(&fault))? {
            Some(PayloadReader::Inline(bytes)) => Some(bytes),
            // Not small, so not asked for by a node that keeps the rules.
            Some(PayloadReader::File { .. } | PayloadReader::Unread(_)) | None => None,
        };
        // The reader bounds the answer: what is beyond the bound is absent, and asked for again.
        let found = found.filter(|bytes| total + bytes.len() as u64 <= MAX_BATCH_BYTES);
        total += found.as_ref().map_or(0, |bytes| bytes.len() as u64);
        pieces.push(Bytes::copy_from_slice(&frame_head(found.as_ref())));
        pieces.extend(found);
    }
    let body = stream::iter(pieces.into_iter().map(Ok::<_, io::Error>));
    Ok(HttpResponse::Ok().insert_header(ContentType::octet_stream()).streaming(body))
}

async fn on_payload(request: HttpRequest, body: Payload, context: Data<PeerContext>) -> Result<HttpResponse, Problem> {
    let PayloadRequest { hash, offset, end } = ask(&request, body, &context).await?;
    let absent = || errors::no_payload(hash);
    let size = context.store.payload(hash).map_err(|fault| errors::store(&fault))?.ok_or_else(absent)?.size();
    // Found out before the answer begins: one that breaks off would look like a holder that died.
    if offset > end || end > size {
        return Err(errors::no_range(offset, end, size));
    }
    let permit = context.permit()?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let store = context.store.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let mut sink = Pieces { sender, buffer: Vec::with_capacity(PIECE) };
        let result = store.encode(hash, offset..end, &mut sink);
        io::Write::flush(&mut sink).and_then(|()| result.map_err(io::Error::other))
    });
    let (wire, body) = mpsc::channel(1);
    drop(context.tasks.spawn(async move {
        let _permit = permit;
        relay(receiver, encoding, wire).await;
    }));
    Ok(HttpResponse::Ok().insert_header(ContentType::octet_stream()).streaming(body_of(body)))
}

/// A piece of a body on its way to the wire, or the fault that breaks it off; `None` is its proper end.
type Passed = Option<io::Result<Bytes>>;

/// Hands what is encoded to the wire until the reader has it all, is gone, or is slower than a transfer may be. The encoder ends with
/// it: its channel closes.
///
/// Beside the connection, because the server asks a body for nothing while its reader takes nothing.
async fn relay(mut pieces: mpsc::Receiver<Bytes>, encoding: JoinHandle<io::Result<bool>>, wire: mpsc::Sender<Passed>) {
    let mut pace = Pace::start();
    while let Some(piece) = pieces.recv().await {
        let length = piece.len();
        match timeout_at(pace.deadline(), wire.send(Some(Ok(piece)))).await {
            Ok(Ok(())) => pace.passed(length),
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let end = match encoding.await {
        Ok(Ok(true)) => None,
        Ok(Ok(false)) => Some(Err(io::Error::other("collected meanwhile"))),
        Ok(Err(fault)) => Some(Err(fault)),
        Err(fault) => Some(Err(io::Error::other(fault))),
    };
    let ended = async {
        // A reader that is gone needs no end.
        drop(wire.send(end).await);
        wire.closed().await;
    };
    // Late or not, there is nothing more to do for it.
    drop(timeout_at(pace.deadline(), ended).await);
}

/// What a [`relay`] passes on, as a body: one that it breaks off ends with an error, which closes the connection.
fn body_of(passed: mpsc::Receiver<Passed>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some(passed), |passed| async move {
        let mut passed = passed?;
        match passed.recv().await {
            Some(Some(Ok(piece))) => Some((Ok(piece), Some(passed))),
            Some(Some(Err(fault))) => Some((Err(fault), None)),
            Some(None) => None,
            None => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the reader is too slow")), None)),
        }
    })
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

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    use tokio::time::Instant;

    use super::*;

    /// An encoder of that many pieces, a relay of them, and the body that comes of it.
    fn relayed(count: usize, result: io::Result<bool>) -> (impl Future<Output = ()>, impl Stream<Item = io::Result<Bytes>>) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let encoding = tokio::task::spawn_blocking(move || {
            for _ in 0..count {
                sender.blocking_send(Bytes::from(vec![1; PIECE])).map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            result
        });
        let (wire, body) = mpsc::channel(1);
        (relay(receiver, encoding, wire), body_of(body))
    }

    #[tokio::test]
    async fn a_body_ends_well_only_if_its_encoding_did() {
        let (relay, body) = relayed(20, Ok(true));
        let read = async { body.try_fold(0, async |sum, piece| Ok(sum + piece.len())).await };
        assert_eq!(futures_util::future::join(relay, read).await.1.unwrap(), 20 * PIECE);
        for result in [Ok(false), Err(io::ErrorKind::InvalidData.into())] {
            let (relay, body) = relayed(20, result);
            let read = async { body.try_collect::<Vec<_>>().await };
            assert!(futures_util::future::join(relay, read).await.1.is_err());
        }
        let (relay, body) = relayed(20, Ok(true));
        drop(body);
        relay.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_cut_off_and_keeps_no_encoder() {
        let (sender, receiver) = mpsc::channel(10);
        let encoding = tokio::task::spawn_blocking(|| Ok(true));
        (0..10).for_each(|_| sender.try_send(Bytes::from(vec![1; PIECE])).unwrap());
        let (wire, body) = mpsc::channel(1);
        let start = Instant::now();
        relay(receiver, encoding, wire).await;
        assert_eq!(start.elapsed().as_secs(), 34, "30 s, and 4 s for the piece on the wire");
        assert!(sender.is_closed());
        let mut body = std::pin::pin!(body_of(body));
        assert_eq!(body.next().await.unwrap().unwrap().len(), PIECE);
        assert_eq!(body.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
