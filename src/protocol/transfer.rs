//! Transfers: which payload to fetch from whom.
//!
//! Rumors carry records, never payloads. A node that learns of a version whose bytes it lacks wants them, once.
//!
//! 1. A payload is fetched by at most one transfer at a time; one of [`PARALLEL_FROM`] bytes and more by up to [`MAX_HOLDERS`], each from
//!    another holder. The shell divides its bytes between them, so that none is asked for twice ([`crate::parts`]). The first that says it
//!    is here ends the want; one whose holder fails leaves the others at it.
//! 2. At most [`MAX_RUNNING`] transfers run at once, at most [`MAX_RUNNING_PER_PEER`] from one peer; large ones leave room in both for
//!    small ones. A want whose holders are all busy waits for the end of a transfer, not for a time. A further holder is sought
//!    [`WIDENING`] after the one before, behind every want that is due by then.
//! 3. A want ends when the bytes are here, or when no record names them any more; otherwise it is tried for ever, at a growing
//!    pause once every candidate has failed, which ends when a candidate that was away is back. At most [`MAX_WANTS`] are held in memory; the store's list of missing payloads refills them
//!    as soon as few of them are [at hand](Transfers::is_short). Those that pause make way: payloads whose holders are away keep none
//!    from being fetched whose holders are not.
//! 4. Small payloads go in batches: one call, many hashes. A stranger is asked for all that nobody likelier can be asked for.
//! 5. Where a client waits, the payload comes first, and strangers are asked when those who surely have it are busy.
//! 6. Records may disagree on the size of a payload, and one of them lies: each claim is tried in turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
/// Below so many wants at hand the store is asked for more: as many as can be on their way at once.
pub const REFILL_BELOW: usize = MAX_RUNNING * MAX_BATCH;
/// Most transfers at once.
pub const MAX_RUNNING: usize = 8;
/// Most transfers from one peer at once.
pub const MAX_RUNNING_PER_PEER: usize = 2;
/// Most transfers of large payloads at once.
pub const MAX_LARGE: usize = MAX_RUNNING - 2;
/// Most transfers of large payloads from one peer at once.
pub const MAX_LARGE_PER_PEER: usize = MAX_RUNNING_PER_PEER - 1;
/// Payloads of at least so many bytes are fetched from several holders at once. A guess: below, what a second holder saves is less than
/// finding it takes.
pub const PARALLEL_FROM: u64 = 16 << 20;
/// Most transfers of one payload at once: as many as most links can feed, and as leave room for another payload.
pub const MAX_HOLDERS: usize = 4;
/// How long after the last one the next holder of the same payload is sought. What arrives sooner needs no other.
pub const WIDENING: Duration = Duration::from_millis(200);
/// Most sizes claimed for one payload that are kept.
const MAX_CLAIMS: usize = 4;
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
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Want {
    missing: Missing,
    /// What other records claim of it, at most [`MAX_CLAIMS`].
    claims: VecDeque<Missing>,
    /// Who is likely to hold it, the likeliest last.
    candidates: Vec<NodeId>,
    /// Who failed since the last pause.
    tried: Vec<NodeId>,
    /// At most [`MAX_HOLDERS`].
    running: BTreeSet<TransferId>,
    /// Its place in `ready` while it may be asked for of one more holder and is not blocked.
    ready: (Instant, u64),
    pause: Duration,
    waiters: Vec<ClientCall>,
}

/// Whom to ask for a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This node.
    Holder(NodeId),
    /// As many transfers as may be run from each of those who may hold it: it waits until one ends.
    AllBusy,
    /// Everybody was asked in vain: it waits for its pause.
    Nobody,
}

impl Want {
    /// Another record names the payload. Where its claim differs it is kept; what a reader asks for is tried first.
    fn claim(&mut self, claim: Missing, first: bool) {
        if claim.size == self.missing.size {
            return;
        }
        self.claims.retain(|known| known.size != claim.size);
        if first && self.running.is_empty() {
            self.claims.push_front(std::mem::replace(&mut self.missing, claim));
        } else {
            self.claims.push_back(claim);
        }
        self.claims.truncate(MAX_CLAIMS);
    }

    /// Whether one more holder may be asked.
    fn has_room(&self) -> bool {
        let most = if self.missing.size >= PARALLEL_FROM { MAX_HOLDERS } else { 1 };
        self.running.len() < most
    }

    /// Who may be asked, the likeliest first.
    fn usable<'a>(&'a self, members: &'a Membership) -> impl Iterator<Item = NodeId> + 'a {
        self.candidates.iter().rev().copied().filter(|node| members.is_live(*node) && !self.tried.contains(node))
    }

    /// Whether enough members were asked that nothing spoke for.
    fn has_asked_strangers(&self) -> bool {
        self.tried.iter().filter(|node| !self.candidates.contains(node)).count() >= RANDOM_TRIES
    }

    /// Whether it may go with what `from` is asked for.
    fn may_join(&self, from: NodeId, members: &Membership) -> bool {
        let likely = self.candidates.contains(&from);
        self.missing.size <= SMALL
            && !self.tried.contains(&from)
            && (likely || !self.has_asked_strangers() && self.usable(members).next().is_none())
    }
}

#[derive(Debug)]
struct Running {
    from: NodeId,
    large: bool,
    hashes: BTreeSet<ContentHash>,
}

/// The payloads a node wants.
#[derive(Debug, Default)]
pub struct Transfers {
    wants: BTreeMap<ContentHash, Want>,
    ready: BTreeSet<(Instant, u64, ContentHash)>,
    /// Those whose holders are all busy, until a transfer ends.
    blocked: BTreeSet<ContentHash>,
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
        let Some(want) = self.wants.get_mut(&hash) else {
            let most = if waiter.is_some() { MAX_WANTS + MAX_WAITERS } else { MAX_WANTS };
            return self.make_room(most, now) && self.begin(missing, candidates, waiter, now);
        };
        for candidate in candidates {
            want.candidates.retain(|known| known != candidate);
            want.candidates.push(*candidate);
        }
        // Candidates are hints; a few of the freshest are enough.
        let surplus = want.candidates.len().saturating_sub(8);
        want.candidates.drain(..surplus);
        want.claim(missing, waiter.is_some());
        let taken = waiter.is_none() || want.waiters.len() < MAX_WAITERS;
        want.waiters.extend(waiter.filter(|_| taken));
        let (idle, ready) = (want.running.is_empty(), want.has_room() && !self.blocked.contains(&hash));
        let soon = if idle { now } else { now + WIDENING };
        if waiter.is_some() && idle && (ready || self.blocked.remove(&hash)) {
            // Ahead of all others; strangers may be free where the likely holders are busy.
            self.defer(hash, Instant(0));
        } else if ready && !candidates.is_empty() && want.ready.0 > soon {
            self.defer(hash, soon);
        }
        taken
    }

    /// Whether there is room for one more, or was made: by letting go of the one that pauses longest, which the store names again later.
    fn make_room(&mut self, most: usize, now: Instant) -> bool {
        if self.wants.len() < most {
            return true;
        }
        let idle = |hash: &ContentHash| self.wants.get(hash).is_some_and(|want| want.running.is_empty() && want.waiters.is_empty());
        let pausing = self.ready.iter().rev().take_while(|(at, ..)| *at > now).map(|(.., hash)| *hash).find(idle);
        pausing.is_some_and(|hash| self.drop_want(hash).is_empty())
    }

    fn begin(&mut self, missing: Missing, candidates: &[NodeId], waiter: Option<ClientCall>, now: Instant) -> bool {
        let hash = missing.hash;
        let at = if waiter.is_some() { Instant(0) } else { now };
        let ready = (at, self.number());
        self.ready.insert((ready.0, ready.1, hash));
        let want = Want {
            missing,
            claims: VecDeque::new(),
            candidates: candidates.to_vec(),
            tried: vec![],
            running: BTreeSet::new(),
            ready,
            pause: FIRST_PAUSE,
            waiters: waiter.into_iter().collect(),
        };
        self.wants.insert(hash, want);
        true
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many payloads are wanted.
    pub fn len(&self) -> usize {
        self.wants.len()
    }

    /// Whether that payload is wanted.
    pub fn wants(&self, hash: ContentHash) -> bool {
        self.wants.contains_key(&hash)
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Whether so few wants are on their way or about to be that the store should be asked for more.
    pub fn is_short(&self, now: Instant) -> bool {
        let coming: usize = self.running.values().map(|running| running.hashes.len()).sum();
        let due = self.ready.iter().take_while(|(at, ..)| *at <= now).take(REFILL_BELOW).count();
        coming + due + self.blocked.len() < REFILL_BELOW
    }

    /// The want whose turn has come, if a transfer can be started now.
    pub fn due(&self, now: Instant) -> Option<Missing> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        let (at, _, hash) = self.ready.first()?;
        if *at <= now { self.wants.get(hash).map(|want| want.missing.clone()) } else { None }
    }

    /// Whom to ask for a payload that [`Self::due`] named.
    pub fn choose(&self, hash: ContentHash, members: &Membership, rng: &mut ChaCha8Rng) -> Choice {
        let Some(want) = self.wants.get(&hash) else { return Choice::Nobody };
        let large = want.missing.size > SMALL;
        let at_it: Vec<NodeId> = want.running.iter().filter_map(|transfer| self.holder(*transfer)).collect();
        let candidates: Vec<NodeId> = want.usable(members).filter(|node| !at_it.contains(node)).collect();
        if let Some(candidate) = candidates.iter().find(|node| self.is_free(**node, large)) {
            return Choice::Holder(*candidate);
        }
        if !candidates.is_empty() && want.waiters.is_empty() && at_it.is_empty() {
            return Choice::AllBusy;
        }
        let except: Vec<NodeId> = want.tried.iter().chain(&candidates).chain(&at_it).copied().collect();
        let strangers = if want.has_asked_strangers() { vec![] } else { members.pick_some(RANDOM_TRIES, &except, rng) };
        match strangers.iter().filter_map(|target| target.id).find(|stranger| self.is_free(*stranger, large)) {
            Some(stranger) => Choice::Holder(stranger),
            None if candidates.is_empty() && strangers.is_empty() => Choice::Nobody,
            None => Choice::AllBusy,
        }
    }

    fn is_free(&self, node: NodeId, large: bool) -> bool {
        let count = |large_only: bool, of: Option<NodeId>| {
            let counts = |running: &&Running| (running.large || !large_only) && of.is_none_or(|of| running.from == of);
            self.running.values().filter(counts).count()
        };
        let room = count(false, Some(node)) < MAX_RUNNING_PER_PEER;
        room && (!large || count(true, Some(node)) < MAX_LARGE_PER_PEER && count(true, None) < MAX_LARGE)
    }

    /// Starts the transfer of a payload from a holder that [`Self::choose`] named, batching others with it.
    pub fn start(&mut self, hash: ContentHash, from: NodeId, members: &Membership, now: Instant) -> Option<Fetch> {
        let target = members.target(from)?;
        let hashes = self.batch(hash, from, members, now);
        let transfer = TransferId(self.number());
        let mut wants = Vec::with_capacity(hashes.len());
        for hash in &hashes {
            if let Some(want) = self.wants.get_mut(hash) {
                self.ready.remove(&(want.ready.0, want.ready.1, *hash));
                want.running.insert(transfer);
                if want.has_room() {
                    want.ready.0 = now + WIDENING;
                    self.ready.insert((want.ready.0, want.ready.1, *hash));
                }
                wants.push(want.missing.clone());
            }
        }
        let large = wants.first().is_some_and(|missing| missing.size > SMALL);
        self.running.insert(transfer, Running { from, large, hashes: hashes.into_iter().collect() });
        Some(Fetch { transfer, from: target, wants })
    }

    /// The holders of a payload are all busy: it waits for the end of a transfer.
    pub fn block(&mut self, hash: ContentHash) {
        if let Some(want) = self.wants.get(&hash).filter(|want| want.has_room()) {
            self.ready.remove(&(want.ready.0, want.ready.1, hash));
            self.blocked.insert(hash);
        }
    }

    /// Moves a want that is ready, or may be, to another place in the queue.
    fn defer(&mut self, hash: ContentHash, until: Instant) {
        let Some(want) = self.wants.get_mut(&hash) else { return };
        self.ready.remove(&(want.ready.0, want.ready.1, hash));
        want.ready.0 = until;
        self.ready.insert((until, want.ready.1, hash));
    }

    /// The hash itself, and if it is small, other small ones that are due and may be asked of `from`.
    fn batch(&self, hash: ContentHash, from: NodeId, members: &Membership, now: Instant) -> Vec<ContentHash> {
        let mut batch = vec![hash];
        let size = |hash: &ContentHash| self.wants.get(hash).map_or(u64::MAX, |want| want.missing.size);
        let mut bytes = size(&hash);
        if bytes > SMALL {
            return batch;
        }
        let looked_at = 4 * MAX_BATCH;
        for (_, _, other) in self.ready.iter().take_while(|(at, _, _)| *at <= now).take(looked_at) {
            let Some(want) = self.wants.get(other) else { continue };
            let fits = bytes.saturating_add(want.missing.size) <= MAX_BATCH_BYTES;
            if *other != hash && fits && want.may_join(from, members) {
                bytes += want.missing.size;
                batch.push(*other);
            }
            if batch.len() == MAX_BATCH {
                break;
            }
        }
        batch
    }

    /// Everybody was asked in vain: asks again after a pause, and for what another record claims. Returns those who waited in vain: nobody
    /// while it is coming from somebody, when the pause is only that before a further holder is sought.
    pub fn pause(&mut self, hash: ContentHash, now: Instant) -> Vec<ClientCall> {
        let Some(want) = self.wants.get_mut(&hash) else { return vec![] };
        want.tried.clear();
        if !want.running.is_empty() {
            let until = now + want.pause;
            want.pause = (want.pause * 2).min(LONGEST_PAUSE);
            self.defer(hash, until);
            return vec![];
        }
        if let Some(claim) = want.claims.pop_front() {
            want.claims.push_back(std::mem::replace(&mut want.missing, claim));
        }
        let until = now + want.pause;
        want.pause = (want.pause * 2).min(LONGEST_PAUSE);
        let waiters = std::mem::take(&mut want.waiters);
        self.defer(hash, until);
        waiters
    }

    /// A member is live again: what it may hold, and nobody else brought, waits no longer. Else all that two halves of a network have to
    /// give each other would wait for pauses that began before they knew that they are one again.
    pub fn on_returned(&mut self, id: NodeId, now: Instant) {
        let pausing = self.ready.iter().rev().take_while(|(at, ..)| *at > now).map(|(.., hash)| *hash);
        let held = |hash: &ContentHash| self.wants.get(hash).is_some_and(|want| want.running.is_empty() && want.candidates.contains(&id));
        for hash in pausing.filter(held).collect::<Vec<_>>() {
            if let Some(want) = self.wants.get_mut(&hash) {
                want.pause = FIRST_PAUSE;
            }
            self.defer(hash, now);
        }
    }

    /// The holder of a running transfer.
    pub fn holder(&self, transfer: TransferId) -> Option<NodeId> {
        self.running.get(&transfer).map(|running| running.from)
    }

    /// A payload of a transfer did not come, or not all of it: the next candidate is asked.
    pub fn on_failed(&mut self, transfer: TransferId, hash: ContentHash, now: Instant) {
        let Some(from) = self.holder(transfer) else { return };
        let Some(want) = self.wants.get_mut(&hash) else { return };
        if !want.running.remove(&transfer) {
            return;
        }
        want.tried.push(from);
        if !self.blocked.contains(&hash) {
            self.defer(hash, now);
        }
    }

    /// The transfer is over; what it did not report failed.
    pub fn on_ended(&mut self, transfer: TransferId, now: Instant) {
        let Some(running) = self.running.get(&transfer) else { return };
        for hash in running.hashes.clone() {
            self.on_failed(transfer, hash, now);
        }
        self.running.remove(&transfer);
        for hash in std::mem::take(&mut self.blocked) {
            if let Some(want) = self.wants.get(&hash) {
                self.ready.insert((want.ready.0, want.ready.1, hash));
            }
        }
    }

    /// The payload is here, or nothing names it any more. Returns those who waited.
    pub fn drop_want(&mut self, hash: ContentHash) -> Vec<ClientCall> {
        let Some(want) = self.wants.remove(&hash) else { return vec![] };
        self.ready.remove(&(want.ready.0, want.ready.1, hash));
        self.blocked.remove(&hash);
        want.waiters
    }

    /// The node is at its end. Returns all who waited.
    pub fn drop_all(&mut self) -> Vec<ClientCall> {
        let hashes: Vec<ContentHash> = self.wants.keys().copied().collect();
        hashes.into_iter().flat_map(|hash| self.drop_want(hash)).collect()
    }

    /// Whether some transfer is bringing that payload.
    pub fn is_coming(&self, hash: ContentHash) -> bool {
        self.wants.get(&hash).is_some_and(|want| !want.running.is_empty())
    }

    /// The record for whose sake a payload is wanted.
    pub fn key_of(&self, hash: ContentHash) -> Option<RecordKey> {
        self.wants.get(&hash).map(|want| want.missing.key)
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
        let open = self.wants.values().filter(|want| want.has_room()).count();
        assert_eq!(self.ready.len() + self.blocked.len(), open, "who may be asked for is ready, or waits for the end of a transfer");
        assert!(self.ready.iter().all(|(_, _, hash)| !self.blocked.contains(hash)), "not both");
        for want in self.wants.values() {
            let most = if want.missing.size >= PARALLEL_FROM { MAX_HOLDERS } else { 1 };
            assert!(want.running.len() <= most, "one transfer for a payload, a few for a large one");
            let holders: BTreeSet<Option<NodeId>> = want.running.iter().map(|transfer| self.holder(*transfer)).collect();
            assert_eq!(holders.len(), want.running.len(), "each from another holder");
            assert!(!holders.contains(&None), "each of them runs");
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::ids::{BlobId, PublicKey};
    use crate::item::{ItemHasher, KeyHash};
    use crate::member::{Member, MemberState};
    use crate::membership::Addresses;
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
            key: PublicKey([n; 32]),
        };
        let (hasher, rng) = (ItemHasher::new("x"), ChaCha8Rng::seed_from_u64(1));
        Membership::new(member(0), (1..=count).map(member).collect(), Addresses::default(), hasher, rng, Instant(0))
    }

    fn start(transfers: &mut Transfers, members: &Membership, now: Instant) -> Option<Fetch> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        while let Some(due) = transfers.due(now) {
            match transfers.choose(due.hash, members, &mut rng) {
                Choice::Holder(from) => {
                    let fetch = transfers.start(due.hash, from, members, now).expect("a member");
                    transfers.check();
                    return Some(fetch);
                }
                Choice::AllBusy => transfers.block(due.hash),
                Choice::Nobody => _ = transfers.pause(due.hash, now),
            }
        }
        transfers.check();
        None
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
    fn a_peer_that_sends_enough_is_asked_again_when_it_has_done_and_large_payloads_leave_room() {
        let members = members(1);
        let mut transfers = Transfers::default();
        (0..3).for_each(|n| _ = transfers.want(missing(n, SMALL + 1), &[node(1)], None, Instant(0)));
        (3..6).for_each(|n| _ = transfers.want(missing(n, 10), &[node(1)], None, Instant(0)));
        let running: Vec<Fetch> = std::iter::from_fn(|| start(&mut transfers, &members, Instant(0))).collect();
        assert_eq!(running.iter().map(|fetch| fetch.wants.len()).collect::<Vec<_>>(), [1, 3], "one large one, one batch");
        assert_eq!(transfers.deadline(), None, "the rest waits for an end, not for a time");
        transfers.drop_want(running[0].wants[0].hash);
        transfers.on_ended(running[0].transfer, Instant(0));
        assert!(start(&mut transfers, &members, Instant(0)).is_some());
    }

    #[test]
    fn a_waiting_reader_comes_first_and_turns_to_strangers() {
        let members = members(2);
        let mut transfers = Transfers::default();
        (0..3).for_each(|n| _ = transfers.want(missing(n, SMALL + 1), &[node(1)], None, Instant(0)));
        while start(&mut transfers, &members, Instant(0)).is_some() {}
        transfers.want(missing(2, SMALL + 1), &[node(1)], Some(ClientCall(1)), Instant(5));
        let fetch = start(&mut transfers, &members, Instant(5)).expect("a stranger is free");
        assert_eq!((fetch.from.id, fetch.wants[0].hash), (Some(node(2)), ContentHash([2; 32])));
    }

    #[test]
    fn a_record_that_lies_about_a_size_does_not_keep_the_payload_away() {
        let members = members(1);
        let mut transfers = Transfers::default();
        transfers.want(missing(1, 10), &[node(1)], None, Instant(0));
        transfers.want(missing(1, 99), &[node(1)], None, Instant(0));
        let lie = start(&mut transfers, &members, Instant(0)).expect("starts");
        assert_eq!(lie.wants[0].size, 10);
        transfers.on_ended(lie.transfer, Instant(0));
        assert_eq!(start(&mut transfers, &members, Instant(0)), None);
        let truth = start(&mut transfers, &members, Instant(0) + FIRST_PAUSE).expect("starts again");
        assert_eq!(truth.wants[0].size, 99);
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

    /// The `n`th of many small payloads.
    fn one_of_many(n: usize) -> Missing {
        Missing { hash: ContentHash::of(&n.to_be_bytes()), ..missing(0, 10) }
    }

    #[test]
    fn strangers_are_asked_for_many_at_once_too() {
        let members = members(4);
        let mut transfers = Transfers::default();
        let gone = node(100);
        (0..MAX_BATCH).for_each(|n| _ = transfers.want(one_of_many(n), &[gone], None, Instant(0)));
        let mut asked = vec![];
        while let Some(fetch) = start(&mut transfers, &members, Instant(0)) {
            asked.push(fetch.wants.len());
            transfers.on_ended(fetch.transfer, Instant(0));
        }
        assert_eq!(asked, [MAX_BATCH; RANDOM_TRIES]);
    }

    #[test]
    fn what_nobody_has_makes_way_for_what_somebody_has() {
        let members = members(2);
        let mut transfers = Transfers::default();
        assert!((0..MAX_WANTS).all(|n| transfers.want(one_of_many(n), &[node(1)], None, Instant(0))));
        assert!(!transfers.want(one_of_many(MAX_WANTS), &[node(2)], None, Instant(0)), "none of them was tried yet");
        while let Some(fetch) = start(&mut transfers, &members, Instant(0)) {
            transfers.on_ended(fetch.transfer, Instant(0));
        }
        assert!(transfers.is_short(Instant(0)), "all of them pause");
        let wanted = one_of_many(MAX_WANTS);
        assert!(transfers.want(wanted.clone(), &[node(2)], None, Instant(1)));
        assert_eq!(transfers.len(), MAX_WANTS);
        assert_eq!(start(&mut transfers, &members, Instant(1)).map(|fetch| fetch.wants), Some(vec![wanted]));
    }

    #[test]
    fn a_candidate_that_is_back_is_asked_at_once() {
        let mut members = members(2);
        let claim =
            |members: &Membership, incarnation, state| Member { incarnation, state, ..members.member(node(1)).expect("known").clone() };
        let dead = claim(&members, 1, MemberState::Dead);
        members.merge(vec![dead], Instant(0));
        let mut transfers = Transfers::default();
        (0..2).for_each(|n| _ = transfers.want(one_of_many(n), &[node(1 + u8::from(n > 0))], None, Instant(0)));
        while let Some(fetch) = start(&mut transfers, &members, Instant(0)) {
            transfers.on_ended(fetch.transfer, Instant(0));
        }
        let back = claim(&members, 2, MemberState::Alive);
        members.merge(vec![back], Instant(1));
        assert_eq!(start(&mut transfers, &members, Instant(1)), None, "it pauses");
        transfers.on_returned(node(1), Instant(1));
        let fetch = start(&mut transfers, &members, Instant(1)).expect("the pause is over");
        assert_eq!((fetch.from.id, fetch.wants), (Some(node(1)), vec![one_of_many(0)]));
        assert_eq!(start(&mut transfers, &members, Instant(1)), None, "what it is no candidate for pauses on");
    }

    /// Starts what can be started now and a while later, again and again.
    fn start_all(transfers: &mut Transfers, members: &Membership, from: Instant) -> Vec<Fetch> {
        let times = (0..10_u32).map(|n| from + WIDENING * n);
        times.flat_map(|now| std::iter::from_fn(|| start(transfers, members, now)).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn a_large_payload_comes_from_several_holders_at_once_and_a_smaller_one_from_one() {
        let members = members(6);
        for (size, most) in [(PARALLEL_FROM - 1, 1), (PARALLEL_FROM, MAX_HOLDERS)] {
            let mut transfers = Transfers::default();
            transfers.want(missing(1, size), &[node(2), node(1)], None, Instant(0));
            assert_eq!(std::iter::from_fn(|| start(&mut transfers, &members, Instant(0))).count(), 1, "one at first");
            let fetches = start_all(&mut transfers, &members, Instant(0) + WIDENING);
            assert_eq!(1 + fetches.len(), most);
            let mut holders: BTreeSet<NodeId> = fetches.iter().filter_map(|fetch| fetch.from.id).collect();
            holders.insert(node(1));
            assert_eq!(holders.len(), most, "each from another, the likely ones among them");
            assert!(most == 1 || holders.contains(&node(2)));
        }
    }

    #[test]
    fn a_holder_that_fails_leaves_the_others_at_it_and_the_first_that_says_it_is_here_ends_the_want() {
        let members = members(6);
        let hash = ContentHash([1; 32]);
        let mut transfers = Transfers::default();
        transfers.want(missing(1, PARALLEL_FROM), &[node(1)], Some(ClientCall(7)), Instant(0));
        let fetches = start_all(&mut transfers, &members, Instant(0));
        assert_eq!(fetches.len(), MAX_HOLDERS);
        let later = Instant(5_000_000);
        transfers.on_failed(fetches[0].transfer, hash, later);
        transfers.on_ended(fetches[0].transfer, later);
        let next = start(&mut transfers, &members, later).expect("another is asked in its place");
        assert!(fetches.iter().all(|fetch| fetch.from.id != next.from.id));
        assert_eq!(transfers.drop_want(hash), [ClientCall(7)]);
        for fetch in fetches.iter().skip(1).chain([&next]) {
            transfers.on_ended(fetch.transfer, later);
            transfers.check();
        }
        assert!(transfers.is_empty());
        assert_eq!(transfers.deadline(), None);
    }

    #[test]
    fn while_somebody_brings_it_nobody_is_told_that_there_is_no_holder() {
        let members = members(2);
        let mut transfers = Transfers::default();
        transfers.want(missing(1, PARALLEL_FROM), &[node(1)], Some(ClientCall(7)), Instant(0));
        let fetches = start_all(&mut transfers, &members, Instant(0));
        assert_eq!(fetches.len(), 2);
        let absent = &fetches[1];
        transfers.on_failed(absent.transfer, ContentHash([1; 32]), Instant(1));
        transfers.on_ended(absent.transfer, Instant(1));
        assert_eq!(start(&mut transfers, &members, Instant(1)), None);
        assert!(transfers.is_coming(ContentHash([1; 32])));
        let again = Instant(1) + LONGEST_PAUSE;
        assert_eq!(start(&mut transfers, &members, again).and_then(|fetch| fetch.from.id), absent.from.id, "it may hold it by now");
        assert_eq!(transfers.drop_want(ContentHash([1; 32])), [ClientCall(7)], "who waits still waits");
    }

    #[test]
    fn a_payload_that_many_hold_leaves_room_for_others() {
        let members = members(20);
        let mut transfers = Transfers::default();
        transfers.want(missing(1, PARALLEL_FROM), &[], None, Instant(0));
        assert_eq!(start_all(&mut transfers, &members, Instant(0)).len(), MAX_HOLDERS);
        let holders: Vec<NodeId> = (1..=20).map(node).collect();
        transfers.want(missing(2, PARALLEL_FROM), &holders, None, Instant(1));
        transfers.want(missing(3, PARALLEL_FROM), &holders, None, Instant(1));
        let started: Vec<ContentHash> =
            std::iter::from_fn(|| start(&mut transfers, &members, Instant(1))).map(|fetch| fetch.wants[0].hash).collect();
        assert_eq!(started, [ContentHash([2; 32]), ContentHash([3; 32])]);
    }
}
