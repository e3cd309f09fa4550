//! Large payloads on their way from peers.
//!
//! 1. Only groups that match the hash are written, counted and shown to readers.
//! 2. What a transfer brought is kept, so that others, and later lives of the node, go on from there ([`super::arrivals`]).
//! 3. The transfers of a payload share its bytes: each takes the next part that no other has ([`gossip_cdn_protocol::parts`]).
//! 4. Whoever brings the last part makes the payload durable; the others wait for that.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bao_tree::BaoTree;
use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{DecodeResponseIter, OutboardMut};
use bao_tree::io::{BaoContentItem, DecodeError, Leaf};
use gossip_cdn_protocol::parts::{GROUP, LeaseId};
use gossip_cdn_protocol::{ContentHash, Instant, NodeId, StoreFault};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::arrivals::Arrival;
use super::payloads::{Positioned, PutFault, chunks};
use super::pins::Pin;
use super::tree::{BLOCK, TREELESS_MAX};
use super::writer::{PayloadRow, Request};
use super::{INLINE_MAX, Shared};

/// The disk's room is looked at each time that many bytes arrived.
const ROOM_STEP: u64 = 1 << 20;
/// A transfer without a part looks again after so long: others may have stalled meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a part did not come whole. What was verified before stays.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveFault {
    /// The bytes do not match the hash. Misbehaviour of the holder.
    #[error("the bytes do not match the hash")]
    WrongBytes,
    /// The stream ended or broke.
    #[error("the stream ended early")]
    Ended,
    /// The part had stalled, and another transfer fetches the rest of it.
    #[error("another transfer took the part over")]
    TakenOver,
    /// They cannot be written here.
    #[error("the payload cannot be written: {0}")]
    Local(io::Error),
}

/// What a transfer does next.
#[derive(Debug)]
pub enum Next {
    /// Fetch this.
    Part(Part),
    /// All bytes are here: [`Incoming::finish`].
    Whole,
    /// Nobody misses the payload any more, or it came by another way: [`Incoming::finish`] tells.
    Over,
}

/// Begins to receive a payload from one more holder.
pub(super) fn begin(shared: &Arc<Shared>, hash: ContentHash, size: u64) -> Result<Incoming, StoreFault> {
    let arrival = shared.arrivals.join(shared, hash, size)?;
    Ok(Incoming { shared: Arc::clone(shared), arrival, holder: None })
}

/// One transfer of a large payload. Dropped, it leaves what was verified, if anything, to the others and later ones.
pub struct Incoming {
    shared: Arc<Shared>,
    arrival: Arc<Arrival>,
    holder: Option<NodeId>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.arrivals.leave(&self.shared, &self.arrival, self.holder);
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("hash", &self.arrival.hash).field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Incoming {
    /// Says whose bytes this transfer brings, for readers who want to know. To be told once.
    pub fn comes_from(&mut self, holder: Option<NodeId>) {
        self.holder = holder;
        self.arrival.state().holders.extend(holder);
    }

    /// How many bytes are here, from whomever they came.
    pub fn received(&self) -> u64 {
        self.arrival.state().parts.received()
    }

    /// The next part for this transfer; waits while all that is left is on its way elsewhere.
    pub async fn next(&self) -> Next {
        let mut changed = self.arrival.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(next) = self.look() {
                return next;
            }
            // Late or not: it looks again.
            drop(timeout(LOOK_AGAIN, changed.changed()).await);
        }
    }

    /// The same without waiting.
    fn look(&self) -> Option<Next> {
        let mut state = self.arrival.state();
        if state.parts.is_complete() {
            return Some(Next::Whole);
        }
        if self.arrival.is_pointless(&state) {
            return Some(Next::Over);
        }
        let (lease, range) = state.parts.next(self.shared.now())?;
        drop(state);
        // A part that was taken over is its former holder's no more.
        self.arrival.stirred();
        Some(Next::Part(Part { shared: Arc::clone(&self.shared), arrival: Arc::clone(&self.arrival), lease, range }))
    }

    /// Whether nobody misses the payload any more.
    pub fn is_over(&self) -> bool {
        self.arrival.is_pointless(&self.arrival.state())
    }

    /// An empty payload has no group to verify; its hash says it all.
    fn is_complete(&self) -> bool {
        let Arrival { hash, size, .. } = &*self.arrival;
        self.arrival.state().parts.is_complete() && (*size > 0 || *hash == ContentHash::of(&[]))
    }

    /// All bytes are here: makes the payload durable under its name, unless another transfer has.
    pub async fn finish(self) -> Result<(), PutFault> {
        let mut placed = Arc::clone(&self.arrival.placed).lock_owned().await;
        if *placed {
            return Ok(());
        }
        if !self.is_complete() {
            let here = gossip_cdn_protocol::Store::holds(&super::Store { shared: Arc::clone(&self.shared) }, self.arrival.hash)?;
            return if here { Ok(()) } else { Err(PutFault::Incomplete) };
        }
        // On the blocking pool to the end, so that a caller who goes away leaves nothing halfway.
        let durable = spawn_blocking(move || {
            // A failure may leave one of two files under its name: the next transfer begins anew.
            let settled = self.settle().inspect_err(|_| self.shared.arrivals.forget(&self.shared, self.arrival.hash));
            *placed = settled.is_ok();
            settled
        });
        durable.await.map_err(io::Error::other)?
    }

    fn settle(&self) -> Result<(), PutFault> {
        let Self { shared, arrival, .. } = self;
        let (hash, size) = (arrival.hash, arrival.size);
        let mut row = PayloadRow { hash, size, inline: None, _pin: Pin::new(shared, hash) };
        if size > INLINE_MAX as u64 {
            shared.pins.wait_until_spared(hash);
            let is_alone = size <= TREELESS_MAX as u64;
            shared.folder.place(hash, &arrival.data, Some(&arrival.outboard).filter(|_| !is_alone))?;
        } else {
            let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            arrival.data.file.read_exact_at(&mut bytes, 0)?;
            row.inline = Some(bytes.into());
        }
        let (reply, durable) = tokio::sync::oneshot::channel();
        shared.queue.blocking_send(Request::Payload(row, Some(reply)))?;
        durable.blocking_recv().unwrap_or_else(|_| Err(StoreFault("the writer is gone".to_owned())))?;
        Ok(())
    }
}

/// A part of a payload that one transfer fetches. Dropped unfinished, the rest of it goes back.
pub struct Part {
    shared: Arc<Shared>,
    arrival: Arc<Arrival>,
    lease: LeaseId,
    range: Range<u64>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.arrival.state().parts.end(self.lease);
        self.arrival.stirred();
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("hash", &self.arrival.hash).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Part {
    /// What to ask the holder for, in bytes.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Takes a holder's bao encoding of [`Self::range`]; ends early where another transfer was given the end of it. Blocks.
    pub fn receive(&self, encoded: impl Read) -> Result<(), ReceiveFault> {
        let Arrival { hash, size, outboard, .. } = &*self.arrival;
        let (ranges, tree) = (chunks(&self.range), BaoTree::new(*size, BLOCK));
        let mut outboard = PostOrderOutboard { root: hash.0.into(), tree, data: Positioned(&outboard.file) };
        let mut room = self.range.start;
        for item in DecodeResponseIter::new(hash.0.into(), tree, BufReader::with_capacity(64 << 10, encoded), &ranges) {
            match item.map_err(|error| self.received(&error))? {
                BaoContentItem::Parent(parent) => outboard.save(parent.node, &parent.pair).map_err(ReceiveFault::Local)?,
                BaoContentItem::Leaf(leaf) => {
                    if leaf.offset >= room {
                        self.shared.require_room(ROOM_STEP).map_err(ReceiveFault::Local)?;
                        room = leaf.offset.saturating_add(ROOM_STEP);
                    }
                    if self.take(&leaf)? {
                        return Ok(());
                    }
                }
            }
        }
        Err(ReceiveFault::Ended)
    }

    /// Keeps a verified group, if it is still this transfer's to bring; true: it was the last.
    fn take(&self, leaf: &Leaf) -> Result<bool, ReceiveFault> {
        let length = leaf.data.len() as u64;
        let expected = || self.arrival.state().parts.expects(self.lease) == Some(leaf.offset);
        if expected() {
            self.arrival.data.file.write_all_at(&leaf.data, leaf.offset).map_err(ReceiveFault::Local)?;
        }
        let mut state = self.arrival.state();
        // Written first, so that no reader is shown what is not there.
        if !state.parts.arrived(self.lease, leaf.offset..leaf.offset + length, self.shared.now()) {
            self.shared.traffic.redundant(length);
            return Err(ReceiveFault::TakenOver);
        }
        let last = state.parts.expects(self.lease).is_none();
        drop(state);
        self.shared.traffic.kept(length);
        if last {
            self.shared.traffic.part();
        }
        self.arrival.advanced();
        Ok(last)
    }

    fn received(&self, error: &DecodeError) -> ReceiveFault {
        match error {
            DecodeError::ParentHashMismatch(_) => self.shared.traffic.wrong(64),
            DecodeError::LeafHashMismatch(_) => self.shared.traffic.wrong(GROUP),
            DecodeError::ParentNotFound(_) | DecodeError::LeafNotFound(_) | DecodeError::Io(_) => return ReceiveFault::Ended,
        }
        ReceiveFault::WrongBytes
    }

    /// Whether the rest of it is another transfer's, or nobody misses the payload any more.
    pub fn is_lost(&self) -> bool {
        let state = self.arrival.state();
        !state.parts.holds(self.lease) || self.arrival.is_pointless(&state)
    }

    /// Waits until the rest of it is another transfer's, or nobody misses the payload any more. For ever, if it comes to its end.
    pub async fn lost(&self) {
        let mut changed = self.arrival.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if self.is_lost() {
                return;
            }
            if changed.changed().await.is_err() {
                // The sender is in the arrival, which is held here.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Shared {
    /// The time by which parts stall.
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::parts::PART;
    use gossip_cdn_protocol::{Content, Record, Store as _};
    use proptest::prelude::*;

    use super::super::Stalled;
    use super::super::fixture::{Fixture, blob, content, noise, read, write};
    use super::*;

    const SIZE: u64 = 20 * GROUP + 100;
    /// Of several parts.
    const LARGE: u64 = 4 * PART + 5 * GROUP + 100;

    fn bytes(size: u64, seed: u8) -> Vec<u8> {
        noise(usize::try_from(size).unwrap(), seed)
    }

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

    fn encoded(holder: &Fixture, hash: ContentHash, range: Range<u64>) -> Vec<u8> {
        let mut encoded = Vec::new();
        assert!(holder.store.encode(hash, range, &mut encoded).unwrap());
        encoded
    }

    /// What comes of a payload of [`SIZE`] from a holder that dies in the middle.
    fn half(holder: &Fixture, hash: ContentHash) -> Vec<u8> {
        let mut whole = encoded(holder, hash, 0..SIZE);
        whole.truncate(whole.len() / 2);
        whole
    }

    fn begin(node: &Fixture, hash: ContentHash, size: u64) -> Incoming {
        node.store.incoming(hash, size).unwrap()
    }

    fn part(incoming: &Incoming) -> Part {
        match incoming.look() {
            Some(Next::Part(part)) => part,
            next => panic!("no part but {next:?}"),
        }
    }

    fn ranges(parts: &[Part]) -> Vec<Range<u64>> {
        parts.iter().map(Part::range).collect()
    }

    /// A transfer that brings everything that is left.
    async fn bring_all(holder: &Fixture, node: &Fixture, hash: ContentHash, size: u64) -> u64 {
        let incoming = begin(node, hash, size);
        let mut brought = 0;
        while let Next::Part(part) = incoming.next().await {
            let sent = encoded(holder, hash, part.range());
            part.receive(&sent[..]).unwrap();
            brought += sent.len() as u64;
        }
        incoming.finish().await.unwrap();
        brought
    }

    #[tokio::test]
    async fn transfers_share_the_parts_and_what_a_short_one_leaves_goes_to_another() {
        let bytes = bytes(LARGE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        assert_eq!(node.store.missing(None, 9).unwrap().len(), 1);
        let (first, second) = (begin(&node, hash, LARGE), begin(&node, hash, LARGE));
        let parts = [part(&first), part(&second), part(&first), part(&second), part(&first)];
        let expected = [0..PART, PART..2 * PART, 2 * PART..3 * PART, 3 * PART..4 * PART, 4 * PART..LARGE];
        assert_eq!(ranges(&parts), expected);
        assert!(second.look().is_none(), "all of it is on its way");

        let short = encoded(&holder, hash, 0..PART);
        assert!(matches!(parts[0].receive(&short[..short.len() / 2]), Err(ReceiveFault::Ended)));
        for part in &parts[1..] {
            part.receive(&encoded(&holder, hash, part.range())[..]).unwrap();
        }
        let here = first.received();
        assert!(here.is_multiple_of(GROUP) || here % GROUP == 100);
        let [dead, ..] = parts;
        drop((dead, first));
        let rest = part(&second);
        assert_eq!(rest.range(), PART - (LARGE - here)..PART, "what was verified is not asked for again");
        rest.receive(&encoded(&holder, hash, rest.range())[..]).unwrap();
        assert!(matches!(second.next().await, Next::Whole));
        second.finish().await.unwrap();
        assert!(node.bytes(hash) == Some(bytes));
        assert_eq!(node.store.missing(None, 9).unwrap(), []);
        assert!(node.files("partial").is_empty());
        let traffic = node.store.traffic();
        assert_eq!((traffic.kept, traffic.redundant, traffic.wrong, traffic.parts), (LARGE, 0, 0, 5));

        // And what was received in parts is a holder like any other, also after a crash.
        let node = node.after_a_crash();
        for range in [0..LARGE, GROUP..2 * GROUP, 4 * PART..LARGE] {
            assert!(encoded(&node, hash, range.clone()) == encoded(&holder, hash, range));
        }
    }

    #[tokio::test]
    async fn the_transfers_of_a_payload_end_together_when_one_has_made_it_durable() {
        let bytes = bytes(LARGE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let waiting = begin(&node, hash, LARGE);
        let busy = async {
            bring_all(&holder, &node, hash, LARGE).await;
        };
        let parts = part(&waiting);
        parts.receive(&encoded(&holder, hash, parts.range())[..]).unwrap();
        drop(parts);
        let wait = async {
            // Whatever is left is the other's.
            assert!(matches!(waiting.next().await, Next::Whole | Next::Part(_)));
            waiting.next().await
        };
        let (next, ()) = futures_util::future::join(wait, busy).await;
        assert!(!matches!(next, Next::Over));
        drop(next);
        waiting.finish().await.unwrap();
        assert!(node.bytes(hash) == Some(bytes));
    }

    #[tokio::test]
    async fn wrong_bytes_are_found_at_their_group_and_what_came_before_stays() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let good = encoded(&holder, hash, 0..SIZE);
        let at = usize::try_from(5 * GROUP).unwrap();
        let fifth = good.windows(64).position(|window| *window == bytes[at..at + 64]).unwrap();
        let mut bad = good.clone();
        bad[fifth + 70] ^= 1;
        let incoming = begin(&node, hash, SIZE);
        assert!(matches!(part(&incoming).receive(&bad[..]), Err(ReceiveFault::WrongBytes)));
        assert_eq!(incoming.received(), 5 * GROUP);
        assert!(matches!(part(&incoming).receive(&self::bytes(SIZE, 9)[..]), Err(ReceiveFault::WrongBytes)));
        let rest = part(&incoming);
        assert_eq!(rest.range(), 5 * GROUP..SIZE);
        rest.receive(&encoded(&holder, hash, rest.range())[..]).unwrap();
        drop(rest);
        incoming.finish().await.unwrap();
        assert!(node.bytes(hash) == Some(bytes));
        assert_eq!((node.store.traffic().kept, node.store.traffic().wrong), (SIZE, GROUP + 64));
    }

    #[tokio::test]
    async fn a_wrong_size_is_wrong_bytes_and_an_unfinished_payload_is_not_finished() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        for size in [1, SIZE - 1, SIZE + 1, 2 * SIZE] {
            let incoming = begin(&node, hash, size);
            assert!(part(&incoming).receive(&encoded(&holder, hash, 0..SIZE)[..]).is_err(), "{size}");
            assert!(matches!(incoming.finish().await, Err(PutFault::Incomplete)), "{size}");
        }
        assert!(matches!(begin(&node, hash, 0).finish().await, Err(PutFault::Incomplete)));
        assert!(!node.store.holds(hash).unwrap());
        let incoming = begin(&node, hash, SIZE);
        assert!(node.store.incoming(hash, SIZE + 1).is_err(), "one size at a time");
        drop(incoming);
        assert!(node.files("partial").is_empty(), "a transfer that brought nothing leaves nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_stalls_is_taken_over_and_its_bytes_are_refused_and_counted() {
        let bytes = bytes(LARGE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let (slow, fast) = (begin(&node, hash, LARGE), begin(&node, hash, LARGE));
        let stalled = part(&slow);
        while let Some(Next::Part(part)) = fast.look() {
            part.receive(&encoded(&holder, hash, part.range())[..]).unwrap();
        }
        let (lost, taken) = futures_util::future::join(stalled.lost(), fast.next()).await;
        let () = lost;
        let Next::Part(taken) = taken else { panic!("it has stalled") };
        assert_eq!(taken.range(), 0..PART);
        assert!(matches!(stalled.receive(&encoded(&holder, hash, 0..PART)[..]), Err(ReceiveFault::TakenOver)));
        taken.receive(&encoded(&holder, hash, 0..PART)[..]).unwrap();
        drop((stalled, taken, slow));
        fast.finish().await.unwrap();
        assert_eq!((node.store.traffic().kept, node.store.traffic().redundant), (LARGE, GROUP));
        assert!(node.bytes(hash) == Some(bytes));
    }

    #[tokio::test]
    async fn after_a_crash_only_what_is_missing_or_was_spoilt_is_fetched() {
        let bytes = bytes(LARGE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let incoming = begin(&node, hash, LARGE);
        let kept = [part(&incoming), part(&incoming), part(&incoming)];
        for part in [&kept[0], &kept[2]] {
            part.receive(&encoded(&holder, hash, part.range())[..]).unwrap();
        }
        // What the disk made of one group is found out, whatever was written of the tree.
        let crashed = node.after_a_crash();
        let files = crashed.files("partial");
        assert_eq!(files.len(), 2);
        let data = std::fs::OpenOptions::new().write(true).open(&files[0]).unwrap();
        data.write_all_at(&[0; 10], 2 * PART + 3 * GROUP).unwrap();
        let sent = bring_all(&holder, &crashed, hash, LARGE).await;
        let missing = LARGE - 2 * PART + GROUP;
        assert!((missing..missing + missing / 50).contains(&sent), "{sent}");
        let traffic = crashed.store.traffic();
        assert_eq!((traffic.resumed, traffic.kept), (2 * PART - GROUP, missing));
        assert!(crashed.bytes(hash) == Some(bytes));
        assert!(crashed.files("partial").is_empty());
        drop(kept);
    }

    #[tokio::test]
    async fn a_start_sweeps_what_came_of_payloads_that_nobody_misses() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let stranger = holder.upload(&self::bytes(SIZE, 2)).await;
        holder.settle().await;
        for hash in [hash, stranger.hash] {
            let incoming = begin(&node, hash, SIZE);
            part(&incoming).receive(&half(&holder, hash)[..]).unwrap_err();
        }
        assert_eq!(node.files("partial").len(), 4);
        let node = node.reopened();
        assert_eq!(node.files("partial").len(), 2);
        let incoming = begin(&node, hash, SIZE);
        assert!(incoming.received() > SIZE / 3);
        drop(incoming);
        let deleted = write(&node.store.blob(blob(1)).unwrap().unwrap(), 1, 9, Content::Tombstone);
        node.persist(&[(blob(1), &deleted)]).await;
        assert!(node.files("partial").is_empty());
    }

    #[tokio::test]
    async fn what_is_left_in_another_size_than_is_claimed_now_is_dropped() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        part(&begin(&node, hash, SIZE)).receive(&half(&holder, hash)[..]).unwrap_err();
        assert_eq!(begin(&node, hash, 2 * SIZE).received(), 0);
        let node = node.reopened();
        bring_all(&holder, &node, hash, SIZE).await;
        assert!(node.bytes(hash) == Some(bytes) && node.files("partial").is_empty());
    }

    #[tokio::test]
    async fn a_payload_for_which_there_is_no_room_is_not_begun() {
        let fixture = Fixture::new();
        assert!(fixture.store.incoming(ContentHash([1; 32]), u64::MAX / 2).is_err());
        assert!(fixture.files("partial").is_empty());
    }

    #[tokio::test]
    async fn a_reader_follows_what_is_verified_and_reads_on_after_the_end() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        assert!(node.store.arriving(hash).is_none());
        let waiting = node.store.clone();
        let reader = async move { waiting.next_arriving(hash).await };
        let transfer = async {
            let short = encoded(&holder, hash, 0..SIZE);
            let incoming = begin(&node, hash, SIZE);
            part(&incoming).receive(&short[..short.len() / 2]).unwrap_err();
            incoming
        };
        let (mut reader, incoming) = futures_util::future::join(reader, transfer).await;
        assert_eq!(reader.size, SIZE);
        let verified = reader.wait_beyond(0).await.unwrap();
        assert_eq!(verified, incoming.received());
        assert!(bytes.starts_with(&read(&reader.file(), verified)));
        part(&incoming).receive(&encoded(&holder, hash, verified..SIZE)[..]).unwrap();
        assert_eq!(reader.wait_beyond(verified).await, Ok(SIZE));
        incoming.finish().await.unwrap();
        assert!(node.store.arriving(hash).is_none());
        assert_eq!(reader.wait_beyond(SIZE).await, Ok(SIZE));
        assert!(read(&reader.file(), SIZE) == bytes);
    }

    #[tokio::test]
    async fn a_reader_of_the_end_is_served_before_the_middle_is_here() {
        let bytes = bytes(LARGE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let incoming = begin(&node, hash, LARGE);
        let first = part(&incoming);
        let mut reader = node.store.arriving(hash).unwrap();
        let read = reader.wait_beyond(3 * PART + 5);
        let fetch = async {
            tokio::task::yield_now().await;
            let wished = part(&incoming);
            assert_eq!(wished.range(), 3 * PART..4 * PART);
            wished.receive(&encoded(&holder, hash, wished.range())[..]).unwrap();
        };
        assert_eq!(futures_util::future::join(read, fetch).await.0, Ok(4 * PART));
        assert_eq!(part(&incoming).range(), PART..2 * PART, "and then the lowest again");
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gives_up_when_nothing_comes_any_more() {
        let node = Fixture::new();
        let hash = ContentHash([1; 32]);
        let incoming = begin(&node, hash, SIZE);
        let start = tokio::time::Instant::now();
        assert_eq!(node.store.arriving(hash).unwrap().wait_beyond(0).await, Err(Stalled));
        assert_eq!(start.elapsed().as_secs(), 30);
        drop(incoming);
    }

    #[tokio::test]
    async fn partial_bytes_go_when_nobody_misses_the_payload_any_more_and_readers_are_told() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let incoming = begin(&node, hash, SIZE);
        part(&incoming).receive(&half(&holder, hash)[..]).unwrap_err();
        let mut reader = node.store.arriving(hash).unwrap();
        drop(incoming);
        assert!(node.store.arriving(hash).is_none(), "nobody is at it");
        assert_eq!(node.files("partial").len(), 2);
        let deleted = write(&node.store.blob(blob(1)).unwrap().unwrap(), 1, 9, Content::Tombstone);
        node.persist(&[(blob(1), &deleted)]).await;
        assert!(node.files("partial").is_empty());
        let verified = reader.wait_beyond(0).await.unwrap();
        assert_eq!(reader.wait_beyond(verified).await, Err(Stalled));
        assert!(bytes.starts_with(&read(&reader.file(), verified)));
    }

    #[tokio::test]
    async fn a_payload_that_nobody_misses_any_more_is_fetched_on_only_for_who_reads_it() {
        let bytes = bytes(SIZE, 1);
        let hash = ContentHash::of(&bytes);
        let (holder, node) = two_nodes(&bytes).await;
        let incoming = begin(&node, hash, SIZE);
        let reader = node.store.arriving(hash).unwrap();
        let deleted = write(&node.store.blob(blob(1)).unwrap().unwrap(), 1, 9, Content::Tombstone);
        node.persist(&[(blob(1), &deleted)]).await;
        let first = part(&incoming);
        first.receive(&half(&holder, hash)[..]).unwrap_err();
        drop(reader);
        first.lost().await;
        drop(first);
        assert!(matches!(incoming.next().await, Next::Over));
        assert!(matches!(incoming.finish().await, Err(PutFault::Incomplete)));
        assert!(node.files("partial").is_empty());
    }

    #[tokio::test]
    async fn of_the_payloads_that_nobody_is_at_few_stay_open_and_all_stay() {
        let (holder, node) = (Fixture::new(), Fixture::new());
        let size = 2 * GROUP;
        let mut hashes = Vec::new();
        for n in 0..super::super::arrivals::MAX_KEPT + 3 {
            let bytes = bytes(size, u8::try_from(n).unwrap());
            let stored = holder.upload(&bytes).await;
            let record = write(&Record::default(), 1, 5, content(&bytes, None));
            for store in [&holder, &node] {
                store.persist(&[(blob(n as u128), &record)]).await;
            }
            // One group of two: cut before the end.
            let encoded = encoded(&holder, stored.hash, 0..size);
            let incoming = begin(&node, stored.hash, size);
            part(&incoming).receive(&encoded[..encoded.len() - 1]).unwrap_err();
            hashes.push(stored.hash);
        }
        assert_eq!(node.files("partial").len(), 2 * hashes.len());
        for hash in hashes.into_iter().rev() {
            assert_eq!(begin(&node, hash, size).received(), GROUP);
        }
        assert_eq!(node.store.traffic().resumed, 3 * GROUP, "three were closed, and read again");
    }

    #[tokio::test]
    async fn small_payloads_may_come_the_same_way() {
        for size in [0, 1, GROUP, GROUP + 1, INLINE_MAX as u64] {
            let bytes = bytes(size, 1);
            let (holder, node) = two_nodes(&bytes).await;
            bring_all(&holder, &node, ContentHash::of(&bytes), size).await;
            assert!(node.bytes(ContentHash::of(&bytes)) == Some(bytes), "{size}");
            assert!(node.files("payloads").is_empty() && node.files("partial").is_empty());
        }
    }

    /// What may happen to one of several transfers.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Begin,
        /// So many bytes of what it asked for come, one of them flipped perhaps, then its holder dies.
        Bring(usize, bool),
        /// The node is closed and opened again.
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let (group, part) = (usize::try_from(GROUP).unwrap(), usize::try_from(PART).unwrap());
        let step = prop_oneof![
            Just(Step::Begin),
            (0..3 * group, any::<bool>()).prop_map(|(count, flipped)| Step::Bring(count, flipped)),
            (0..2 * part).prop_map(|count| Step::Bring(count, false)),
            Just(Step::Restart),
        ];
        proptest::collection::vec((0..4_usize, step), 1..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

        /// However transfers come, lie, die and are restarted: no byte is kept twice, no wrong one ever, and the payload comes to be whole.
        #[test]
        fn any_history_of_transfers_ends_with_the_payload_and_each_byte_kept_once(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bytes = bytes(LARGE, 1);
                let hash = ContentHash::of(&bytes);
                let (holder, mut node) = two_nodes(&bytes).await;
                let (mut transfers, mut kept) = (Vec::new(), 0);
                for (which, step) in steps {
                    match step {
                        Step::Begin => transfers.push(begin(&node, hash, LARGE)),
                        Step::Restart => {
                            transfers.clear();
                            kept += node.store.traffic().kept;
                            node = node.reopened();
                        }
                        Step::Bring(count, flipped) => {
                            let Some(Next::Part(part)) = transfers.get(which).and_then(Incoming::look) else { continue };
                            let mut sent = encoded(&holder, hash, part.range());
                            sent.truncate(count);
                            if let Some(byte) = sent.last_mut().filter(|_| flipped) {
                                *byte ^= 1;
                            }
                            let result = part.receive(&sent[..]);
                            assert!(!flipped || count == 0 || result.is_err());
                        }
                    }
                }
                transfers.clear();
                bring_all(&holder, &node, hash, LARGE).await;
                assert_eq!(kept + node.store.traffic().kept, LARGE);
                assert!(node.bytes(hash) == Some(bytes));
            });
        }
    }
}
