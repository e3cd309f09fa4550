//! Transfers: which payload to fetch from whom.
//!
//! Rumors carry records, never payloads. A node that learns of a version whose bytes it lacks wants them, once.
//!
//! 1. A payload is fetched by at most one transfer at a time.
//! 2. At most [`MAX_RUNNING`] transfers run at once, at most [`MAX_RUNNING_PER_PEER`] from one peer.
//! 3. A want ends when the bytes are here, or when no record names them any more; otherwise it is tried for ever, at a growing
//!    pause once every candidate has failed. At most [`MAX_WANTS`] are held in memory; the store's list of missing payloads refills them.
//! 4. Small payloads go in batches: one call, many hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;

use crate::ids::{ContentHash, NodeId};
use crate::io::{ClientCall, Fetch, TransferId};
use crate::item::RecordKey;
use crate::membership::Membership;
use crate::store::Missing;
use crate::time::Instant;

/// Most wants held in memory.
pub const MAX_WANTS: usize = 4096;
/// Below so many wants the store is asked for more.
pub const REFILL_BELOW: usize = 1024;
/// Most transfers at once.
pub const MAX_RUNNING: usize = 8;
/// Most transfers from one peer at once.
pub const MAX_RUNNING_PER_PEER: usize = 2;
/// Largest payload that travels in a batch. Also the largest that the node's store keeps inside its database, where a value
/// takes the next power of two of itself and some 60 bytes.
pub const SMALL: u64 = (64 << 10) - 64;
/// Most payloads in a batch.
pub const MAX_BATCH: usize = 128;
/// Most bytes in a batch.
pub const MAX_BATCH_BYTES: u64 = 4 << 20;
/// Most clients waiting for one payload.
pub const MAX_WAITERS: usize = 256;
/// How many random members are tried beside the candidates before a pause.
const RANDOM_TRIES: usize = 3;
/// How long to wait when all who may hold a payload are busy. The end of a transfer may come sooner, but is not waited for.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Want {
    missing: Missing,
    /// Who is likely to hold it, the likeliest last.
    candidates: Vec<NodeId>,
    /// Who failed since the last pause.
    tried: Vec<NodeId>,
    running: Option<TransferId>,
    /// Its place in `ready` while it is not running.
    ready: (Instant, u64),
    pause: Duration,
    waiters: Vec<ClientCall>,
}

/// Whom to ask for a payload.
enum Choice {
    Holder(NodeId),
    /// As many transfers as may be run from each of those who may hold it.
    AllBusy,
    Nobody,
}

#[derive(Debug)]
struct Running {
    from: NodeId,
    hashes: BTreeSet<ContentHash>,
}

/// The payloads a node wants.
#[derive(Debug, Default)]
pub struct Transfers {
    wants: BTreeMap<ContentHash, Want>,
    ready: BTreeSet<(Instant, u64, ContentHash)>,
    running: BTreeMap<TransferId, Running>,
    /// Numbers both wants, first come first served, and transfers.
    next: u64,
}

impl Transfers {
    /// Wants a payload; `candidates` are likely holders, the likeliest last. Without room it is left to a later refill.
    ///
    /// Returns false where a waiter could not be taken.
    pub fn want(&mut self, missing: Missing, candidates: &[NodeId], waiter: Option<ClientCall>, now: Instant) -> bool {
        let hash = missing.hash;
        if !self.wants.contains_key(&hash) {
            if self.wants.len() >= MAX_WANTS && waiter.is_none() || self.wants.len() >= MAX_WANTS + MAX_WAITERS {
                return false;
            }
            let ready = (now, self.number());
            self.ready.insert((ready.0, ready.1, hash));
            let want = Want { missing, candidates: vec![], tried: vec![], running: None, ready, pause: FIRST_PAUSE, waiters: vec![] };
            self.wants.insert(hash, want);
        }
        let Some(want) = self.wants.get_mut(&hash) else { return false };
        for candidate in candidates {
            want.candidates.retain(|known| known != candidate);
            want.candidates.push(*candidate);
        }
        // Candidates are hints; a few of the freshest are enough.
        let surplus = want.candidates.len().saturating_sub(8);
        want.candidates.drain(..surplus);
        let hurry = waiter.is_some() || !candidates.is_empty();
        let taken = waiter.is_none() || want.waiters.len() < MAX_WAITERS;
        want.waiters.extend(waiter.filter(|_| taken));
        if hurry && want.running.is_none() && want.ready.0 > now {
            self.defer(hash, now);
        }
        taken
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many payloads are wanted.
    pub fn len(&self) -> usize {
        self.wants.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// The want whose turn has come, if a transfer can be started now.
    pub fn due(&self, now: Instant) -> Option<Missing> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        let (at, _, hash) = self.ready.first()?;
        if *at <= now { self.wants.get(hash).map(|want| want.missing.clone()) } else { None }
    }

    /// Starts the transfer of a payload that [`Self::due`] named, batching others with it. `Err` when nobody is left to ask for
    /// now: those who waited in vain.
    pub fn start(
        &mut self,
        hash: ContentHash,
        members: &Membership,
        rng: &mut ChaCha8Rng,
        now: Instant,
    ) -> Result<Option<Fetch>, Vec<ClientCall>> {
        let Some(want) = self.wants.get(&hash) else { return Ok(None) };
        let from = match self.choose(want, members, rng) {
            Choice::Holder(from) => from,
            Choice::AllBusy => {
                self.defer(hash, now + BUSY_PAUSE);
                return Ok(None);
            }
            Choice::Nobody => return Err(self.pause(hash, now)),
        };
        let Some(target) = members.target(from) else { return Ok(None) };
        let hashes = self.batch(hash, from, now);
        let transfer = TransferId(self.number());
        let mut wants = Vec::with_capacity(hashes.len());
        for hash in &hashes {
            if let Some(want) = self.wants.get_mut(hash) {
                self.ready.remove(&(want.ready.0, want.ready.1, *hash));
                want.running = Some(transfer);
                wants.push(want.missing.clone());
            }
        }
        self.running.insert(transfer, Running { from, hashes: hashes.into_iter().collect() });
        Ok(Some(Fetch { transfer, from: target, wants }))
    }

    fn choose(&self, want: &Want, members: &Membership, rng: &mut ChaCha8Rng) -> Choice {
        let usable = |node: &&NodeId| members.is_live(**node) && !want.tried.contains(node);
        let candidates: Vec<NodeId> = want.candidates.iter().rev().filter(usable).copied().collect();
        if let Some(candidate) = candidates.iter().find(|node| self.is_free(**node)) {
            return Choice::Holder(*candidate);
        }
        if !candidates.is_empty() {
            return Choice::AllBusy;
        }
        let random_tries = want.tried.iter().filter(|node| !want.candidates.contains(node)).count();
        if random_tries >= RANDOM_TRIES {
            return Choice::Nobody;
        }
        match members.pick_some(1, &want.tried, rng).pop().and_then(|target| target.id) {
            Some(stranger) if self.is_free(stranger) => Choice::Holder(stranger),
            Some(_) => Choice::AllBusy,
            None => Choice::Nobody,
        }
    }

    fn is_free(&self, node: NodeId) -> bool {
        self.running.values().filter(|running| running.from == node).count() < MAX_RUNNING_PER_PEER
    }

    /// Moves a want that is not running to another place in the queue.
    fn defer(&mut self, hash: ContentHash, until: Instant) {
        let Some(want) = self.wants.get_mut(&hash) else { return };
        self.ready.remove(&(want.ready.0, want.ready.1, hash));
        want.ready.0 = until;
        self.ready.insert((until, want.ready.1, hash));
    }

    /// The hash itself, and if it is small, other small ones that are due and have `from` as a candidate.
    fn batch(&self, hash: ContentHash, from: NodeId, now: Instant) -> Vec<ContentHash> {
        let mut batch = vec![hash];
        let size = |hash: &ContentHash| self.wants.get(hash).map_or(u64::MAX, |want| want.missing.size);
        let mut bytes = size(&hash);
        if bytes > SMALL {
            return batch;
        }
        let looked_at = 4 * MAX_BATCH;
        for (_, _, other) in self.ready.iter().take_while(|(at, _, _)| *at <= now).take(looked_at) {
            let Some(want) = self.wants.get(other) else { continue };
            let fits = want.missing.size <= SMALL && bytes + want.missing.size <= MAX_BATCH_BYTES;
            if *other != hash && fits && want.candidates.contains(&from) && !want.tried.contains(&from) {
                bytes += want.missing.size;
                batch.push(*other);
            }
            if batch.len() == MAX_BATCH {
                break;
            }
        }
        batch
    }

    /// Everybody was asked in vain: asks again after a pause. Returns those who waited.
    fn pause(&mut self, hash: ContentHash, now: Instant) -> Vec<ClientCall> {
        let Some(want) = self.wants.get_mut(&hash) else { return vec![] };
        want.tried.clear();
        let until = now + want.pause;
        want.pause = (want.pause * 2).min(LONGEST_PAUSE);
        let waiters = std::mem::take(&mut want.waiters);
        self.defer(hash, until);
        waiters
    }

    /// The holder of a running transfer.
    pub fn holder(&self, transfer: TransferId) -> Option<NodeId> {
        self.running.get(&transfer).map(|running| running.from)
    }

    /// A payload of a transfer did not come: the next candidate is asked.
    pub fn on_failed(&mut self, transfer: TransferId, hash: ContentHash, now: Instant) {
        let Some(from) = self.holder(transfer) else { return };
        let Some(want) = self.wants.get_mut(&hash).filter(|want| want.running == Some(transfer)) else { return };
        want.running = None;
        want.tried.push(from);
        want.ready.0 = now;
        self.ready.insert((now, want.ready.1, hash));
    }

    /// The transfer is over; what it did not report failed.
    pub fn on_ended(&mut self, transfer: TransferId, now: Instant) {
        let Some(running) = self.running.get(&transfer) else { return };
        for hash in running.hashes.clone() {
            self.on_failed(transfer, hash, now);
        }
        self.running.remove(&transfer);
    }

    /// The payload is here, or nothing names it any more. Returns those who waited.
    pub fn drop_want(&mut self, hash: ContentHash) -> Vec<ClientCall> {
        let Some(want) = self.wants.remove(&hash) else { return vec![] };
        self.ready.remove(&(want.ready.0, want.ready.1, hash));
        want.waiters
    }

    /// The node is at its end. Returns all who waited.
    pub fn drop_all(&mut self) -> Vec<ClientCall> {
        let hashes: Vec<ContentHash> = self.wants.keys().copied().collect();
        hashes.into_iter().flat_map(|hash| self.drop_want(hash)).collect()
    }

    /// The record for whose sake a payload is wanted.
    pub fn key_of(&self, hash: ContentHash) -> Option<RecordKey> {
        self.wants.get(&hash).map(|want| want.missing.key)
    }

    /// Makes sure that a want without candidates has one.
    pub fn hint(&mut self, hash: ContentHash, holder: NodeId) {
        if let Some(want) = self.wants.get_mut(&hash).filter(|want| want.candidates.is_empty()) {
            want.candidates.push(holder);
        }
    }

    /// When the next want is due, if a transfer could be started then.
    pub fn deadline(&self) -> Option<Instant> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        self.ready.first().map(|(at, _, _)| *at)
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(self.running.len() <= MAX_RUNNING && self.wants.len() <= MAX_WANTS + MAX_WAITERS, "bounded");
        assert_eq!(self.ready.len(), self.wants.values().filter(|want| want.running.is_none()).count(), "who does not run is ready");
        for (transfer, running) in &self.running {
            for hash in &running.hashes {
                let owner = self.wants.get(hash).and_then(|want| want.running);
                assert!(owner.is_none() || owner == Some(*transfer), "one transfer for a payload");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::ids::{BlobId, Sha256Digest};
    use crate::item::KeyHash;
    use crate::member::{Member, MemberState};
    use crate::record::tests::node;

    fn missing(n: u8, size: u64) -> Missing {
        Missing { hash: ContentHash([n; 32]), size, key: RecordKey { hash: KeyHash(0), blob: BlobId(uuid::Uuid::nil()) } }
    }

    fn members(count: u8) -> Membership {
        let member = |n: u8| Member {
            id: node(n),
            address: format!("http://127.0.0.1:{n}"),
            incarnation: 1,
            state: MemberState::Alive,
            key: Sha256Digest([n; 32]),
        };
        Membership::new(member(0), (1..=count).map(member).collect(), &[], vec![], Instant(0))
    }

    fn start(transfers: &mut Transfers, members: &Membership, now: Instant) -> Option<Fetch> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let due = transfers.due(now)?;
        let fetch = transfers.start(due.hash, members, &mut rng, now).ok().flatten();
        transfers.check();
        fetch
    }

    #[test]
    fn the_likeliest_holder_is_asked_first_then_the_next_then_strangers_then_a_pause() {
        let members = members(3);
        let mut transfers = Transfers::default();
        transfers.want(missing(1, 1 << 30), &[node(2), node(1)], Some(ClientCall(7)), Instant(0));
        let mut asked = vec![];
        while let Some(fetch) = start(&mut transfers, &members, Instant(0)) {
            asked.extend(fetch.from.id);
            transfers.on_failed(fetch.transfer, ContentHash([1; 32]), Instant(0));
            transfers.on_ended(fetch.transfer, Instant(0));
        }
        assert_eq!(asked, [node(1), node(2), node(3)]);
        assert_eq!(transfers.deadline(), Some(Instant(0) + FIRST_PAUSE));
        transfers.want(missing(1, 1 << 30), &[], Some(ClientCall(8)), Instant(10));
        assert!(start(&mut transfers, &members, Instant(10)).is_some(), "a waiting reader does not wait for the pause");
    }

    #[test]
    fn small_payloads_travel_together_and_large_ones_alone() {
        let members = members(2);
        let mut transfers = Transfers::default();
        for n in 0..10 {
            let holders = [node(if n < 9 { 1 } else { 2 })];
            transfers.want(missing(n, if n < 8 { 100 } else { SMALL + 1 }), &holders, None, Instant(0));
        }
        let sizes: Vec<usize> = std::iter::from_fn(|| start(&mut transfers, &members, Instant(0))).map(|fetch| fetch.wants.len()).collect();
        assert_eq!(sizes, [8, 1, 1]);
        assert!(transfers.due(Instant(0)).is_none(), "each payload is fetched once at a time");
    }

    #[test]
    fn a_peer_that_sends_enough_already_is_asked_later() {
        let members = members(1);
        let mut transfers = Transfers::default();
        (0..3).for_each(|n| _ = transfers.want(missing(n, SMALL + 1), &[node(1)], None, Instant(0)));
        let running: Vec<Fetch> = std::iter::from_fn(|| start(&mut transfers, &members, Instant(0))).collect();
        assert_eq!(running.len(), MAX_RUNNING_PER_PEER);
        assert!(transfers.deadline() > Some(Instant(0)), "the third does not make the node spin");
        transfers.drop_want(running[0].wants[0].hash);
        transfers.on_ended(running[0].transfer, Instant(0));
        assert!(start(&mut transfers, &members, Instant(0) + BUSY_PAUSE).is_some());
    }

    #[test]
    fn what_a_transfer_does_not_report_is_asked_for_elsewhere() {
        let members = members(2);
        let mut transfers = Transfers::default();
        transfers.want(missing(1, 10), &[node(1)], None, Instant(0));
        let fetch = start(&mut transfers, &members, Instant(0)).expect("starts");
        transfers.on_ended(fetch.transfer, Instant(0));
        let next = start(&mut transfers, &members, Instant(0)).expect("starts again");
        assert_eq!(next.from.id, Some(node(2)));
        transfers.drop_want(ContentHash([1; 32]));
        transfers.on_ended(next.transfer, Instant(0));
        transfers.check();
        assert!(transfers.is_empty());
    }
}
