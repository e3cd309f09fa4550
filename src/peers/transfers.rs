//! Transfers: payload bytes from a holder to the store.
//!
//! A large payload comes in parts, each encoded with its hash tree (bao, groups of 16 KiB), and every group is verified before it is
//! written. Several transfers may be at one payload, each from another holder: the store hands out the parts, so that no byte is asked
//! for twice; what a holder that dies has not brought goes to the others, or waits for the next one. Small payloads come several in one
//! answer, each verified whole.
//!
//! A holder that falls silent is given up, and so is one that dribbles: every answer keeps a [`Pace`].

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use awc::Client;
use awc::error::PayloadError;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use gossip_cdn_protocol::io::{Fetch, FetchFault};
use gossip_cdn_protocol::store::Missing;
use gossip_cdn_protocol::transfer::{MAX_BATCH, MAX_BATCH_BYTES, SMALL};
use gossip_cdn_protocol::wire::{Envelope, PayloadRequest, PayloadsRequest, VERSION};
use gossip_cdn_protocol::{ContentHash, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::store::{Identity, Next, Part, PutFault, ReceiveFault, Store};

/// A holder that sends nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(10);
/// The least that a transfer must bring, in bytes a second, once it is under way. A guess: a quarter of the slowest link that a node
/// of a network of blobs could live on.
const SLOWEST: u64 = 64 << 10;
/// What any transfer may take on top: for distance, and for a holder that is busy at first.
const GRACE: Duration = Duration::from_secs(30);
/// Pieces of a body between the network and the disk.
const PIECES: usize = 16;
/// What stands before the bytes of a small payload: their length, big-endian.
const FRAME_HEAD: usize = 4;
/// The length that says: not here.
const ABSENT: u32 = u32::MAX;

/// How fast a transfer must be, on either side: [`GRACE`], and what its bytes take at [`SLOWEST`].
///
/// It follows the bytes that have come, not those that were promised: a record may lie about its size.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    deadline: Instant,
}

impl Pace {
    /// Of a transfer that begins now.
    pub fn start() -> Self {
        Self { deadline: Instant::now() + GRACE }
    }

    /// That many bytes more have passed.
    pub fn passed(&mut self, bytes: usize) {
        let micros = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / SLOWEST;
        self.deadline += Duration::from_micros(micros);
    }

    /// When the next bytes must have passed.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

type Results = Vec<(ContentHash, Result<(), FetchFault>)>;
type Order = (Fetch, oneshot::Sender<Results>);

/// Where the driver hands in what to fetch.
#[derive(Debug, Clone)]
pub struct Transfers {
    orders: mpsc::Sender<Order>,
}

/// Carries out the transfers, on a thread of its own.
#[derive(Debug)]
pub struct Courier {
    orders: mpsc::Receiver<Order>,
    store: Store,
    cluster: String,
}

impl Transfers {
    /// The handle and the courier behind it, for a node of that cluster.
    pub fn new(store: Store, cluster: String) -> (Self, Courier) {
        let (sender, receiver) = mpsc::channel(gossip_cdn_protocol::transfer::MAX_RUNNING);
        (Self { orders: sender }, Courier { orders: receiver, store, cluster })
    }

    /// Fetches payloads; resolves when each is durable here or has failed.
    pub fn fetch(&self, fetch: Fetch) -> impl Future<Output = Results> + use<> {
        let orders = self.orders.clone();
        async move {
            let failed: Results = fetch.wants.iter().map(|missing| (missing.hash, Err(FetchFault::Local))).collect();
            let (sender, receiver) = oneshot::channel();
            if orders.send((fetch, sender)).await.is_err() {
                return failed;
            }
            receiver.await.unwrap_or(failed)
        }
    }
}

impl Courier {
    /// What this node's messages say of it.
    fn head(&self) -> Envelope<()> {
        let Identity { id, incarnation, .. } = self.store.identity();
        Envelope { version: VERSION, cluster: self.cluster.clone(), sender: id, incarnation, body: () }
    }

    /// Runs until every [`Transfers`] is gone. Must run on a thread with a local task set.
    pub async fn run(mut self) {
        let client = super::client();
        let mut running: FuturesUnordered<LocalBoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some((fetch, done)) => running.push(Box::pin(carry(client.clone(), self.store.clone(), self.head(), fetch, done))),
                    None => return,
                },
                Some(()) = running.next() => {}
            }
        }
    }
}

async fn carry(client: Client, store: Store, head: Envelope<()>, fetch: Fetch, mut done: oneshot::Sender<Results>) {
    let (holder, address) = (fetch.from.id, fetch.from.address.clone());
    let results = async {
        match &fetch.wants[..] {
            [missing] if missing.size > SMALL => {
                vec![(missing.hash, fetch_large(&client, &store, &head, (holder, &address), missing).await)]
            }
            wants => fetch_small(&client, &store, &head, &address, wants).await,
        }
    };
    tokio::select! {
        // The driver has ended: nobody wants the rest.
        () = done.closed() => {}
        results = results => drop(done.send(results)),
    }
}

async fn post<T: serde::Serialize>(
    client: &Client,
    url: String,
    head: &Envelope<()>,
    body: T,
) -> Result<awc::ClientResponse<impl Stream<Item = Result<Bytes, PayloadError>> + Unpin>, FetchFault> {
    let envelope =
        Envelope { version: head.version, cluster: head.cluster.clone(), sender: head.sender, incarnation: head.incarnation, body };
    let json = serde_json::to_vec(&envelope).map_err(|_| FetchFault::Local)?;
    let request = client.post(url).content_type("application/json").no_decompress().timeout(IDLE).send_body(json);
    let response = request.await.map_err(|_| FetchFault::Unreachable)?;
    match response.status().as_u16() {
        200 => Ok(response),
        404 => Err(FetchFault::Absent),
        // It is there: it has too much to do, or refuses.
        _ => Err(FetchFault::Busy),
    }
}

/// The next piece of a body; `None` at its end, expected or not. [`FetchFault::Unreachable`] if none comes for [`IDLE`], or the pace
/// is not kept.
async fn next<S>(body: &mut S, pace: &mut Pace) -> Result<Option<Bytes>, FetchFault>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let now = Instant::now();
    // Looked at before the body: a holder that always has one more byte ready must not outrun it.
    if now >= pace.deadline() {
        return Err(FetchFault::Unreachable);
    }
    match timeout_at(pace.deadline().min(now + IDLE), body.next()).await.map_err(|_| FetchFault::Unreachable)? {
        Some(Err(fault)) => {
            tracing::debug!("a transfer broke off: {fault}");
            Ok(None)
        }
        Some(Ok(piece)) => {
            pace.passed(piece.len());
            Ok(Some(piece))
        }
        None => Ok(None),
    }
}

async fn fetch_large(
    client: &Client,
    store: &Store,
    head: &Envelope<()>,
    (holder, address): (Option<NodeId>, &str),
    missing: &Missing,
) -> Result<(), FetchFault> {
    let (begun, Missing { hash, size, .. }) = (store.clone(), missing.clone());
    // What an earlier life left is read here.
    let incoming = tokio::task::spawn_blocking(move || begun.incoming(hash, size));
    let mut incoming = incoming.await.map_err(|_| FetchFault::Local)?.map_err(|fault| local(missing, &fault))?;
    incoming.comes_from(holder);
    loop {
        match incoming.next().await {
            Next::Part(part) => match fetch_part(client, store, head, address, (missing, Arc::new(part))).await {
                // Another has it; and this holder is too slow to be given more for now.
                Err(PartFault::Lost) if !incoming.is_over() => return Err(FetchFault::Busy),
                Ok(()) | Err(PartFault::Lost) => {}
                Err(PartFault::Failed(fault)) => return Err(fault),
            },
            Next::Whole => return incoming.finish().await.map_err(|fault| local(missing, &fault)),
            // It came by another way, or is not missed: no fault of anybody's.
            Next::Over => return incoming.finish().await.map_err(|_| FetchFault::Busy),
        }
    }
}

/// Why a transfer did not bring its part.
enum PartFault {
    /// It stalled and was given to another, or nobody wants it any more.
    Lost,
    Failed(FetchFault),
}

impl From<FetchFault> for PartFault {
    fn from(fault: FetchFault) -> Self {
        Self::Failed(fault)
    }
}

async fn fetch_part(
    client: &Client,
    store: &Store,
    head: &Envelope<()>,
    address: &str,
    (missing, part): (&Missing, Arc<Part>),
) -> Result<(), PartFault> {
    let range = part.range();
    let request = PayloadRequest { hash: missing.hash, offset: range.start, end: range.end };
    let mut pace = Pace::start();
    let mut response = tokio::select! {
        response = post(client, format!("{address}/gossip/payload"), head, request) => response?,
        () = part.lost() => return Err(PartFault::Lost),
    };
    let (pieces, received) = mpsc::channel(PIECES);
    let receiver = Arc::clone(&part);
    let receiving = tokio::task::spawn_blocking(move || receiver.receive(Pieces { received, rest: Bytes::new() }));
    let silent = loop {
        let piece = tokio::select! {
            piece = next(&mut response, &mut pace) => piece,
            () = part.lost() => Ok(None),
        };
        match piece {
            Err(_) => break true,
            Ok(None) => break false,
            Ok(Some(piece)) => {
                store.received(piece.len());
                // The receiver stops at the last byte or the first wrong one.
                if pieces.send(piece).await.is_err() {
                    break false;
                }
            }
        }
    };
    drop(pieces);
    match receiving.await.map_err(|_| FetchFault::Local)? {
        Ok(()) => Ok(()),
        Err(ReceiveFault::WrongBytes) => Err(FetchFault::WrongBytes.into()),
        Err(ReceiveFault::TakenOver) => Err(PartFault::Lost),
        Err(ReceiveFault::Ended) if part.is_lost() => Err(PartFault::Lost),
        Err(ReceiveFault::Ended) if silent => Err(FetchFault::Unreachable.into()),
        Err(ReceiveFault::Ended) => Err(FetchFault::ShortBody.into()),
        Err(ReceiveFault::Local(fault)) => Err(local(missing, &fault).into()),
    }
}

fn local(missing: &Missing, fault: &dyn std::fmt::Display) -> FetchFault {
    tracing::error!(hash = %missing.hash, "cannot store a payload: {fault}");
    FetchFault::Local
}

/// The pieces of a body as a blocking reader.
struct Pieces {
    received: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

async fn fetch_small(client: &Client, store: &Store, head: &Envelope<()>, address: &str, wants: &[Missing]) -> Results {
    let hashes: Vec<ContentHash> = wants.iter().map(|missing| missing.hash).collect();
    let all = |fault| hashes.iter().map(|hash| (*hash, Err(fault))).collect();
    let request = PayloadsRequest { hashes: hashes.clone() };
    let pace = Pace::start();
    let mut response = match post(client, format!("{address}/gossip/payloads"), head, request).await {
        Ok(response) => response,
        Err(fault) => return all(fault),
    };
    let (body, cut) = read_batch(&mut response, pace).await;
    store.received(body.len());
    let found = frames(body).into_iter().map(Some).chain(std::iter::repeat(None));
    let puts = hashes.iter().zip(found).map(|(hash, frame)| async move {
        let result = match frame {
            None => Err(cut),
            Some(None) => Err(FetchFault::Absent),
            Some(Some(bytes)) => store.put_verified(*hash, bytes).await.map_err(|fault| match fault {
                PutFault::WrongBytes => FetchFault::WrongBytes,
                fault @ (PutFault::TooLarge | PutFault::Incomplete | PutFault::Local(_) | PutFault::Store(_)) => {
                    tracing::error!(%hash, "cannot store a payload: {fault}");
                    FetchFault::Local
                }
            }),
        };
        (*hash, result)
    });
    // Together, so that they share commits.
    join_all(puts.collect::<Vec<_>>()).await
}

/// Reads the answer to a [`PayloadsRequest`], to its end or its bound; the fault of what is not in it.
async fn read_batch<S>(response: &mut S, mut pace: Pace) -> (Bytes, FetchFault)
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let most = usize::try_from(MAX_BATCH_BYTES).unwrap_or(usize::MAX) + MAX_BATCH * FRAME_HEAD;
    let mut body = BytesMut::new();
    let cut = loop {
        match next(response, &mut pace).await {
            Err(fault) => break fault,
            Ok(None) => break FetchFault::ShortBody,
            Ok(Some(piece)) => body.extend_from_slice(&piece[..piece.len().min(most - body.len())]),
        }
        if body.len() == most {
            break FetchFault::ShortBody;
        }
    };
    (body.freeze(), cut)
}

/// Splits the framed answer to a [`PayloadsRequest`]: for each payload its bytes, or `None` where the holder lacks it. A frame cut
/// short is left out.
fn frames(mut body: Bytes) -> Vec<Option<Bytes>> {
    let mut frames = Vec::new();
    while body.len() >= FRAME_HEAD {
        let length = body.get_u32();
        let bytes = match usize::try_from(length) {
            _ if length == ABSENT => None,
            Ok(length) if length <= body.len() => Some(body.split_to(length)),
            Ok(_) | Err(_) => break,
        };
        frames.push(bytes);
    }
    frames
}

/// The frame of one payload, or of its absence, without the bytes themselves. One too long for a frame is as good as absent.
pub fn frame_head(bytes: Option<&Bytes>) -> [u8; FRAME_HEAD] {
    bytes.and_then(|bytes| u32::try_from(bytes.len()).ok()).unwrap_or(ABSENT).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_and_a_short_one_is_left_out() {
        let bytes = Bytes::from_static(b"some bytes");
        let mut body = BytesMut::new();
        body.extend_from_slice(&frame_head(Some(&bytes)));
        body.extend_from_slice(&bytes);
        body.extend_from_slice(&frame_head(None));
        let whole = body.freeze();
        assert_eq!(frames(whole.clone()), [Some(bytes.clone()), None]);
        assert_eq!(frames(whole.slice(..whole.len() - 1)), [Some(bytes)]);
        assert_eq!(frames(whole.slice(..10)), []);
        assert_eq!(frames(Bytes::from(vec![0xfe; 100])), []);
    }

    /// A body of pieces of that size, one at each interval.
    fn body(piece: usize, every: Duration, count: usize) -> impl Stream<Item = Result<Bytes, PayloadError>> + Unpin {
        let pieces = futures_util::stream::unfold(0, move |n| async move {
            tokio::time::sleep(every).await;
            (n < count).then(|| (Ok(Bytes::from(vec![0; piece])), n + 1))
        });
        Box::pin(pieces)
    }

    #[actix_web::test]
    async fn a_holder_that_refuses_is_busy_and_one_that_is_silent_unreachable() {
        let (server, client) = (super::super::tests::server(), super::super::client());
        let sender = NodeId::from_public_key(&[1; 32]);
        let head = Envelope { version: 1, cluster: "test".into(), sender, incarnation: 1, body: () };
        let ask = async |address: String| post(&client, format!("{address}/gossip/payload"), &head, ()).await.err();
        for (status, fault) in [(404, FetchFault::Absent), (429, FetchFault::Busy), (503, FetchFault::Busy), (409, FetchFault::Busy)] {
            assert_eq!(ask(format!("{server}/{status}")).await, Some(fault), "{status}");
        }
        assert_eq!(ask("http://127.0.0.1:1".to_owned()).await, Some(FetchFault::Unreachable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_dribbles_is_given_up_and_a_slow_one_is_not() {
        let (mut pace, mut dribble, start) = (Pace::start(), body(1, IDLE / 2, usize::MAX), Instant::now());
        let fault = loop {
            match next(&mut dribble, &mut pace).await {
                Ok(piece) => assert!(piece.is_some()),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, FetchFault::Unreachable);
        assert_eq!(start.elapsed().as_secs(), GRACE.as_secs());

        let (mut pace, mut slow, mut bytes) = (Pace::start(), body(64 << 10, Duration::from_secs(1), 1000), 0);
        while let Some(piece) = next(&mut slow, &mut pace).await.unwrap() {
            bytes += piece.len();
        }
        assert_eq!(bytes, 1000 * (64 << 10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_silent_holder_sent_of_a_batch_is_taken_and_the_rest_is_no_misbehaviour() {
        let (mut batch, start) = (body(40, Duration::from_secs(1), 3).chain(body(40, 2 * IDLE, 1)), Instant::now());
        let (bytes, cut) = read_batch(&mut batch, Pace::start()).await;
        assert_eq!((bytes.len(), cut), (120, FetchFault::Unreachable));
        assert_eq!(start.elapsed().as_secs(), 3 + IDLE.as_secs());
        let (bytes, cut) = read_batch(&mut body(40, Duration::ZERO, 3), Pace::start()).await;
        assert_eq!((bytes.len(), cut), (120, FetchFault::ShortBody));
    }
}
