//! Large payloads on their way from peers.
//!
//! 1. Only groups that match the hash are written, counted and shown to readers.
//! 2. What one holder sent is kept, in memory and in `tmp/`, so that another can go on; it is swept at the next start, and
//!    dropped when the payload came by another way or nobody misses it any more. A transfer that brought nothing leaves nothing,
//!    and of those that nobody is at only the latest [`MAX_KEPT`] stay: each keeps two files open.
//! 3. One holder at a time for each payload.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bao_tree::BaoTree;
use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{DecodeResponseIter, OutboardMut};
use bao_tree::io::{BaoContentItem, DecodeError};
use gossip_cdn_protocol::{ContentHash, NodeId, StoreFault};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::folder::TempFile;
use super::payloads::{Positioned, PutFault, chunks_from};
use super::pins::Pin;
use super::tree::BLOCK;
use super::writer::{Durable, PayloadRow, Request};
use super::{INLINE_MAX, Shared, lock};

/// How long a reader waits for the next bytes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The disk's room is looked at each time that many bytes arrived.
const ROOM_STEP: u64 = 1 << 20;
/// Most unfinished payloads kept while no transfer is at them. A guess: far below the files that a process may have open.
const MAX_KEPT: usize = 64;

/// Why a transfer ended early. What was verified before stays.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveFault {
    /// The bytes do not match the hash. Misbehaviour of the holder.
    #[error("the bytes do not match the hash")]
    WrongBytes,
    /// The stream ended or broke.
    #[error("the stream ended early")]
    Ended,
    /// They cannot be written here.
    #[error("the payload cannot be written: {0}")]
    Local(io::Error),
}

/// No bytes came for a long while, or the transfer was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no more bytes came")]
pub struct Stalled;

/// One payload's bytes so far.
struct Arrival {
    hash: ContentHash,
    size: u64,
    data: TempFile,
    outboard: TempFile,
    /// Length of the verified prefix.
    verified: watch::Sender<u64>,
    /// Whom it is coming from, once that is told.
    source: Arc<Mutex<Option<NodeId>>>,
    /// Whether an [`Incoming`] is at it.
    busy: AtomicBool,
    /// How many transfers had begun when the last [`Incoming`] let go of it: the least was let go longest ago.
    let_go: AtomicU64,
}

/// All payloads that are arriving, and those of which some bytes are here. Bounded by the transfers under way and [`MAX_KEPT`].
pub(super) struct Arrivals {
    arriving: Mutex<BTreeMap<ContentHash, Arc<Arrival>>>,
    /// Counts the transfers begun, so that readers who wait for one look again.
    begun: watch::Sender<u64>,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { arriving: Mutex::default(), begun: watch::Sender::new(0) }
    }

    /// Lets go of a payload that is here now or not missing any more. An [`Incoming`] at it goes on for itself.
    pub(super) fn forget(&self, hash: ContentHash) {
        let arrival = lock(&self.arriving).remove(&hash);
        drop(arrival);
    }

    /// Nobody is at it for now: it is kept only if that saves a later transfer something, and as long as there is room.
    fn let_go(&self, arrival: &Arc<Arrival>) {
        let mut arriving = lock(&self.arriving);
        arrival.let_go.store(*self.begun.borrow(), Ordering::Relaxed);
        arrival.busy.store(false, Ordering::Release);
        let idle = arriving.values().filter(|kept| !kept.busy.load(Ordering::Acquire));
        let surplus = if *arrival.verified.borrow() == 0 {
            arriving.get(&arrival.hash).filter(|kept| Arc::ptr_eq(kept, arrival)).map(|kept| kept.hash)
        } else if idle.clone().count() > MAX_KEPT {
            idle.min_by_key(|kept| kept.let_go.load(Ordering::Relaxed)).map(|kept| kept.hash)
        } else {
            None
        };
        let surplus = surplus.and_then(|hash| arriving.remove(&hash));
        drop(arriving);
        // Its files go with it, not under the lock.
        drop(surplus);
    }

    /// A reader of the payload, if it is arriving.
    pub(super) fn reader(&self, hash: ContentHash) -> Option<Arriving> {
        let arriving = lock(&self.arriving);
        let arrival = arriving.get(&hash).filter(|arrival| arrival.busy.load(Ordering::Acquire))?;
        let (file, source) = (Arc::clone(&arrival.data.file), Arc::clone(&arrival.source));
        Some(Arriving { size: arrival.size, file, verified: arrival.verified.subscribe(), source })
    }

    /// Waits until the payload is arriving.
    pub(super) async fn next_reader(&self, hash: ContentHash) -> Arriving {
        let mut begun = self.begun.subscribe();
        loop {
            begun.mark_unchanged();
            if let Some(reader) = self.reader(hash) {
                return reader;
            }
            if begun.changed().await.is_err() {
                // The sender is a sibling field, so it lives as long as this.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Begins to receive a payload, or goes on where the last holder stopped.
pub(super) fn begin(shared: &Arc<Shared>, hash: ContentHash, size: u64) -> Result<Incoming, StoreFault> {
    let mut arriving = lock(&shared.arrivals.arriving);
    let kept = arriving.get(&hash).map(Arc::clone);
    if kept.as_ref().is_some_and(|arrival| arrival.busy.load(Ordering::Acquire)) {
        return Err(StoreFault(format!("payload {hash} is arriving already")));
    }
    let arrival = match kept.filter(|arrival| arrival.size == size) {
        Some(arrival) => arrival,
        None => {
            let temporary = || shared.folder.temporary().map_err(|error| StoreFault(format!("no room for payload {hash}: {error}")));
            let (data, outboard) = (temporary()?, temporary()?);
            let (verified, busy, let_go) = (watch::Sender::new(0), AtomicBool::new(false), AtomicU64::new(0));
            Arc::new(Arrival { hash, size, data, outboard, verified, source: Arc::default(), busy, let_go })
        }
    };
    arrival.busy.store(true, Ordering::Release);
    arriving.insert(hash, Arc::clone(&arrival));
    drop(arriving);
    shared.arrivals.begun.send_modify(|begun| *begun = begun.wrapping_add(1));
    Ok(Incoming { shared: Arc::clone(shared), arrival })
}

/// A large payload arriving from peers. Dropped unfinished, it leaves what was verified, if anything, to the next one.
pub struct Incoming {
    shared: Arc<Shared>,
    arrival: Arc<Arrival>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.arrivals.let_go(&self.arrival);
    }
}

impl Incoming {
    /// Length of the verified prefix: where the next holder has to begin.
    pub fn offset(&self) -> u64 {
        *self.arrival.verified.borrow()
    }

    /// Says whose bytes are taken next, for readers who want to know.
    pub fn comes_from(&self, holder: Option<NodeId>) {
        *lock(&self.arrival.source) = holder;
    }

    /// Takes a holder's bao encoding from [`Self::offset`] to the end. Blocks.
    pub fn receive(&mut self, encoded: impl Read) -> Result<(), ReceiveFault> {
        let Arrival { hash, size, data, outboard, .. } = &*self.arrival;
        let (ranges, tree) = (chunks_from(self.offset()), BaoTree::new(*size, BLOCK));
        if self.is_complete() {
            return Ok(());
        }
        let mut outboard = PostOrderOutboard { root: hash.0.into(), tree, data: Positioned(&outboard.file) };
        let mut room = self.offset();
        for item in DecodeResponseIter::new(hash.0.into(), tree, BufReader::with_capacity(64 << 10, encoded), &ranges) {
            match item.map_err(received)? {
                BaoContentItem::Parent(parent) => outboard.save(parent.node, &parent.pair).map_err(ReceiveFault::Local)?,
                BaoContentItem::Leaf(leaf) => {
                    if leaf.offset >= room {
                        self.shared.require_room(ROOM_STEP).map_err(ReceiveFault::Local)?;
                        room = leaf.offset.saturating_add(ROOM_STEP);
                    }
                    data.file.write_all_at(&leaf.data, leaf.offset).map_err(ReceiveFault::Local)?;
                    self.arrival.verified.send_replace(leaf.offset + leaf.data.len() as u64);
                }
            }
        }
        if self.is_complete() { Ok(()) } else { Err(ReceiveFault::Ended) }
    }

    /// An empty payload has no group to verify; its hash says it all.
    fn is_complete(&self) -> bool {
        let Arrival { hash, size, .. } = &*self.arrival;
        self.offset() == *size && (*size > 0 || *hash == ContentHash::of(&[]))
    }

    /// All bytes are here: makes the payload durable under its name.
    pub async fn finish(self) -> Result<(), PutFault> {
        if !self.is_complete() {
            return Err(PutFault::Incomplete);
        }
        // On the blocking pool to the end, so that a caller who goes away leaves nothing halfway.
        let durable = spawn_blocking(move || {
            // A failure may leave one of two files under its name: the next transfer begins anew.
            self.settle().inspect_err(|_| self.shared.arrivals.forget(self.arrival.hash))
        });
        let durable = durable.await.map_err(io::Error::other)??;
        durable.await.unwrap_or_else(|_| Err(StoreFault("the writer is gone".to_owned())))?;
        Ok(())
    }

    fn settle(&self) -> Result<Durable, PutFault> {
        let Self { shared, arrival } = self;
        let (hash, size) = (arrival.hash, arrival.size);
        let mut row = PayloadRow { hash, size, inline: None, _pin: Pin::new(shared, hash) };
        if size > INLINE_MAX as u64 {
            shared.pins.wait_until_spared(hash);
            shared.folder.place(hash, &arrival.data, &arrival.outboard)?;
        } else {
            let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            arrival.data.file.read_exact_at(&mut bytes, 0)?;
            row.inline = Some(bytes.into());
        }
        let (reply, durable) = tokio::sync::oneshot::channel();
        shared.queue.blocking_send(Request::Payload(row, Some(reply)))?;
        Ok(durable)
    }
}

fn received(error: DecodeError) -> ReceiveFault {
    match error {
        DecodeError::ParentHashMismatch(_) | DecodeError::LeafHashMismatch(_) => ReceiveFault::WrongBytes,
        DecodeError::ParentNotFound(_) | DecodeError::LeafNotFound(_) | DecodeError::Io(_) => ReceiveFault::Ended,
    }
}

/// A reader of a large payload while it arrives.
#[derive(Debug, Clone)]
pub struct Arriving {
    /// Length of the whole payload in bytes.
    pub size: u64,
    file: Arc<File>,
    verified: watch::Receiver<u64>,
    source: Arc<Mutex<Option<NodeId>>>,
}

impl Arriving {
    /// Waits until more than `offset` bytes from the beginning are verified, or all; says how many. Gives up after 30 s without one more.
    pub async fn wait_beyond(&mut self, offset: u64) -> Result<u64, Stalled> {
        loop {
            let verified = *self.verified.borrow_and_update();
            if verified > offset || verified == self.size {
                return Ok(verified);
            }
            match tokio::time::timeout(PATIENCE, self.verified.changed()).await {
                Ok(Ok(())) => (),
                Ok(Err(_)) | Err(_) => return Err(Stalled),
            }
        }
    }

    /// The holder that it is coming from at present; `None` until that is known.
    pub fn source(&self) -> Option<NodeId> {
        *lock(&self.source)
    }

    /// The file: its verified prefix may be read with `read_at`, also after it has got its name.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{Record, Store as _};

    use super::super::fixture::{Fixture, blob, content, noise, read, write};
    use super::super::tree::GROUP;
    use super::*;

    const SIZE: usize = 20 * GROUP + 100;

    /// A holder with a payload, and a node that misses it.
    async fn two_nodes(bytes: &[u8]) -> (Fixture, Fixture) {
        let (holder, node) = (Fixture::new(), Fixture::new());
        let record = write(&Record::default(), 1, 5, content(bytes, None));
        let stored = holder.upload(bytes).await;
        holder.persist(&[(blob(1), &record)]).await;
        node.persist(&[(blob(1), &record)]).await;
        drop(stored);
        (holder, node)
    }

    fn encoded(holder: &Fixture, hash: ContentHash, offset: u64) -> Vec<u8> {
        let mut encoded = Vec::new();
        assert!(holder.store.encode(hash, offset, &mut encoded).unwrap());
        encoded
    }

    #[tokio::test]
    async fn a_transfer_goes_on_from_another_holder_where_a_short_one_stopped() {
        let bytes = noise(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        assert_eq!(node.store.missing(None, 9).unwrap().len(), 1);
        let short = encoded(&holder, hash, 0);
        let mut incoming = node.store.incoming(hash, SIZE as u64).unwrap();
        assert!(matches!(incoming.receive(&short[..short.len() / 2]), Err(ReceiveFault::Ended)));
        let offset = incoming.offset();
        assert!(offset >= 8 * GROUP as u64 && offset.is_multiple_of(GROUP as u64), "{offset}");
        drop(incoming);

        let mut incoming = node.store.incoming(hash, SIZE as u64).unwrap();
        assert_eq!(incoming.offset(), offset);
        let rest = encoded(&holder, hash, offset);
        assert!(rest.len() < SIZE - 7 * GROUP, "only what is missing is sent");
        incoming.receive(&rest[..]).unwrap();
        incoming.finish().await.unwrap();
        assert!(node.bytes(hash) == Some(bytes));
        assert_eq!(node.store.missing(None, 9).unwrap(), []);
        assert!(node.files("tmp").is_empty());

        // And what was received in two parts is a holder like any other, also after a crash.
        let node = node.after_a_crash();
        for offset in [0, GROUP as u64, 20 * GROUP as u64] {
            assert!(encoded(&node, hash, offset) == encoded(&holder, hash, offset), "{offset}");
        }
    }

    #[tokio::test]
    async fn wrong_bytes_are_found_at_their_group_and_what_came_before_stays() {
        let bytes = noise(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let good = encoded(&holder, hash, 0);
        let fifth = good.windows(64).position(|window| *window == bytes[5 * GROUP..5 * GROUP + 64]).unwrap();
        let mut bad = good.clone();
        bad[fifth + 70] ^= 1;
        let mut incoming = node.store.incoming(hash, SIZE as u64).unwrap();
        assert!(matches!(incoming.receive(&bad[..]), Err(ReceiveFault::WrongBytes)));
        assert_eq!(incoming.offset(), 5 * GROUP as u64);
        assert!(matches!(incoming.receive(&noise(SIZE, 9)[..]), Err(ReceiveFault::WrongBytes)));
        incoming.receive(&encoded(&holder, hash, 5 * GROUP as u64)[..]).unwrap();
        incoming.finish().await.unwrap();
        assert!(node.bytes(hash) == Some(bytes));
    }

    #[tokio::test]
    async fn a_wrong_size_is_wrong_bytes_and_an_unfinished_payload_is_not_finished() {
        let bytes = noise(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        for size in [0, 1, SIZE - 1, SIZE + 1, 2 * SIZE] {
            let mut incoming = node.store.incoming(hash, size as u64).unwrap();
            assert!(incoming.receive(&encoded(&holder, hash, 0)[..]).is_err(), "{size}");
            assert!(matches!(incoming.finish().await, Err(PutFault::Incomplete)), "{size}");
        }
        assert!(!node.store.holds(hash).unwrap());
    }

    #[tokio::test]
    async fn one_holder_at_a_time() {
        let fixture = Fixture::new();
        let hash = ContentHash::of(b"x");
        let incoming = fixture.store.incoming(hash, SIZE as u64).unwrap();
        assert!(fixture.store.incoming(hash, SIZE as u64).is_err());
        drop(incoming);
        assert!(fixture.store.incoming(hash, SIZE as u64).is_ok());
    }

    #[tokio::test]
    async fn a_transfer_that_brought_nothing_keeps_no_file() {
        let fixture = Fixture::new();
        for n in 0..3 {
            let mut incoming = fixture.store.incoming(ContentHash([n; 32]), SIZE as u64).unwrap();
            assert!(incoming.receive(&b""[..]).is_err());
            assert_eq!(fixture.files("tmp").len(), 2);
            drop(incoming);
            assert!(fixture.files("tmp").is_empty());
        }
        assert!(lock(&fixture.store.shared.arrivals.arriving).is_empty());
    }

    #[tokio::test]
    async fn of_the_payloads_that_nobody_is_at_the_latest_stay() {
        let holder = Fixture::new();
        let node = Fixture::new();
        let begin = async |n: usize| {
            let bytes = noise(2 * GROUP, u8::try_from(n).unwrap());
            let stored = holder.upload(&bytes).await;
            holder.settle().await;
            // One group of two: cut before the end.
            let encoded = encoded(&holder, stored.hash, 0);
            let mut incoming = node.store.incoming(stored.hash, bytes.len() as u64).unwrap();
            incoming.receive(&encoded[..encoded.len() - 1]).unwrap_err();
            assert_eq!(incoming.offset(), GROUP as u64);
            incoming
        };
        let busy = begin(0).await;
        let mut hashes = Vec::new();
        for n in 1..=MAX_KEPT + 2 {
            hashes.push(begin(n).await.arrival.hash);
        }
        assert_eq!(node.files("tmp").len(), 2 * (MAX_KEPT + 1));
        let kept = |hash: &ContentHash| lock(&node.store.shared.arrivals.arriving).contains_key(hash);
        assert!(kept(&busy.arrival.hash), "somebody is at it");
        assert_eq!(hashes.iter().map(kept).collect::<Vec<_>>(), [vec![false; 2], vec![true; MAX_KEPT]].concat());
    }

    #[tokio::test]
    async fn a_reader_follows_what_is_verified_and_reads_on_after_the_end() {
        let bytes = noise(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        assert!(node.store.arriving(hash).is_none());
        let waiting = node.store.clone();
        let reader = async move { waiting.next_arriving(hash).await };
        let transfer = async {
            let short = encoded(&holder, hash, 0);
            let mut incoming = node.store.incoming(hash, SIZE as u64).unwrap();
            incoming.receive(&short[..short.len() / 2]).unwrap_err();
            incoming
        };
        let (mut reader, mut incoming) = futures_util::future::join(reader, transfer).await;
        assert_eq!(reader.size, SIZE as u64);
        let verified = reader.wait_beyond(0).await.unwrap();
        assert_eq!(verified, incoming.offset());
        assert!(bytes.starts_with(&read(&reader.file(), verified)));
        incoming.receive(&encoded(&holder, hash, verified)[..]).unwrap();
        assert_eq!(reader.wait_beyond(verified).await, Ok(SIZE as u64));
        incoming.finish().await.unwrap();
        assert!(node.store.arriving(hash).is_none());
        assert_eq!(reader.wait_beyond(SIZE as u64).await, Ok(SIZE as u64));
        assert!(read(&reader.file(), SIZE as u64) == bytes);
    }

    #[tokio::test]
    async fn partial_bytes_go_when_nobody_misses_the_payload_any_more_and_readers_are_told() {
        let bytes = noise(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let mut incoming = node.store.incoming(hash, SIZE as u64).unwrap();
        incoming.receive(&encoded(&holder, hash, 0)[..SIZE / 2]).unwrap_err();
        let mut reader = node.store.arriving(hash).unwrap();
        drop(incoming);
        assert!(node.store.arriving(hash).is_none(), "nobody is at it");
        assert_eq!(node.files("tmp").len(), 2);
        let deleted = write(&node.store.blob(blob(1)).unwrap().unwrap(), 1, 9, gossip_cdn_protocol::Content::Tombstone);
        node.persist(&[(blob(1), &deleted)]).await;
        assert!(node.files("tmp").is_empty());
        let verified = reader.wait_beyond(0).await.unwrap();
        assert_eq!(reader.wait_beyond(verified).await, Err(Stalled));
        assert!(bytes.starts_with(&read(&reader.file(), verified)));
    }

    #[tokio::test]
    async fn small_payloads_may_come_the_same_way() {
        for size in [0, 1, GROUP, GROUP + 1, INLINE_MAX] {
            let bytes = noise(size, 1);
            let hash = ContentHash::of(&bytes);
            let (holder, node) = two_nodes(&bytes).await;
            let mut incoming = node.store.incoming(hash, size as u64).unwrap();
            incoming.receive(&encoded(&holder, hash, 0)[..]).unwrap();
            incoming.finish().await.unwrap();
            assert!(node.bytes(hash) == Some(bytes), "{size}");
            assert!(node.files("payloads").is_empty() && node.files("tmp").is_empty());
        }
    }
}
