//! The ordered channel: which batch of messages stands in which slot, alike on every node.
//!
//! Paxos (Lamport, "Paxos Made Simple", 2001) under the names of a transaction's steps. One decision is a slot; a coordinator prepares
//! once for a slot and all that follow in the same epoch, and proposes one slot at a time.
//!
//! | step | Paxos | | step | Paxos |
//! |---|---|---|---|---|
//! | Start | prepare (1a) | | Received | accepted (2b) |
//! | Confirm | promise (1b) | | Commit | the decision, told |
//! | Update | accept (2a) | | Rollback | a ballot given up |
//!
//! 1. A slot is decided when a majority of all voters of its epoch has the same batch durably under the same ballot. The epoch of a
//!    slot follows from the slots before it, and nobody proposes for a slot who does not know all of them.
//! 2. A voter confirms a ballot, or takes a batch, only when that is durable and no greater ballot was confirmed before.
//! 3. A coordinator proposes what the greatest ballot reported for a slot, or, where nothing was reported, a batch of its own.
//! 4. A voter's answers depend on ballots alone, never on what else it is doing.
//! 5. A message stands in the order once: a batch's entry whose message stands in an earlier batch is skipped, alike on every node,
//!    because an origin's messages stand there in their order.
//!
//! What a coordinator may take into a batch depends on what is delivered at its node; its owner says so at every step ([`Ready`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::history::epoch::Epoch;
use crate::history::message::{Frontier, Message, MessageId};
use crate::history::transaction::{Signal, Transaction};
use crate::ids::{ContentHash, NodeId};
use crate::io::PeerCall;
use crate::time::Instant;

/// Most messages of one batch.
pub const MAX_BATCH: usize = 1024;
/// Bodies are added to a batch until it holds about so many bytes.
pub const BATCH_BUDGET: usize = 1 << 20;
/// Most messages waiting here to be ordered; beyond it no more are taken.
pub const MAX_WAITING: usize = 8192;
/// A voter takes batches so many slots beyond the last it knows decided; farther behind it fetches history first.
pub const MAX_AHEAD: u64 = 64;
/// Most decided slots in one Confirm; the rest is fetched as history.
pub const MAX_REPORTED: usize = 8;
/// How long a voter with messages waiting hears nothing from a coordinator before it starts a ballot. Jittered and doubled from
/// one failed ballot to the next.
pub const SILENCE: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(16);
/// How long a coordinator waits for a majority before it rolls back.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Who proposes, and how often it was tried. A greater one takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// One more than any that its coordinator had heard of.
    pub round: u64,
    /// The coordinator.
    pub node: NodeId,
}

/// What stands in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A client's message.
    Message(Message),
    /// From the next slot on these vote. Always the last entry of its batch.
    Epoch(Epoch),
}

/// What one slot decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// In their order.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// What tells it from every other batch.
    pub fn hash(&self) -> ContentHash {
        // Maps and sets are ordered, so equal batches have equal JSON.
        ContentHash::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The epoch that begins behind it, if one does.
    pub fn next_epoch(&self, epoch: &Epoch) -> Option<Epoch> {
        match self.entries.last() {
            Some(Entry::Epoch(next)) if epoch.may_become(next) => Some(next.clone()),
            Some(Entry::Epoch(_) | Entry::Message(_)) | None => None,
        }
    }

    /// Its messages, in their order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Message(message) => Some(message),
            Entry::Epoch(_) => None,
        })
    }
}

/// A batch that a voter has under a ballot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The ballot.
    pub ballot: Ballot,
    /// The batch.
    pub batch: Batch,
}

/// What a coordinator says to a voter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Prepare for `slot` and every later one.
    Start {
        /// This ballot.
        ballot: Ballot,
        /// The first slot that the coordinator does not know decided.
        slot: u64,
    },
    /// Take this batch.
    Update {
        /// Under this ballot.
        ballot: Ballot,
        /// In this slot.
        slot: u64,
        /// The batch.
        batch: Batch,
    },
    /// That slot is decided.
    Commit {
        /// Under this ballot.
        ballot: Ballot,
        /// The slot.
        slot: u64,
        /// Hash of the batch.
        hash: ContentHash,
    },
    /// This ballot is given up.
    Rollback {
        /// The ballot.
        ballot: Ballot,
    },
}

/// What a voter answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    /// Durable: nothing of an older ballot is taken any more.
    Confirm {
        /// The ballot promised.
        ballot: Ballot,
        /// What was accepted from the slot asked for on, and is not known to be decided.
        accepted: BTreeMap<u64, Accepted>,
        /// What is known decided from that slot on, the first [`MAX_REPORTED`] slots of it.
        decided: BTreeMap<u64, Batch>,
    },
    /// Durable: this batch, under this ballot.
    Received {
        /// The ballot.
        ballot: Ballot,
        /// The slot.
        slot: u64,
    },
    /// That slot is decided, by this batch.
    Decided {
        /// The slot.
        slot: u64,
        /// The batch.
        batch: Batch,
    },
    /// A greater ballot was confirmed.
    Refused {
        /// That ballot.
        promised: Ballot,
    },
    /// The coordinator must fetch history first: more is decided than this voter still has at hand.
    Ahead {
        /// The last slot known decided.
        decided: u64,
    },
    /// This voter must fetch history first.
    Behind,
    /// To Commit and Rollback.
    Taken,
}

/// Something to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing of an older ballot is taken any more.
    Promise(Ballot),
    /// A batch under a ballot; also a promise of that ballot.
    Accept(u64, Accepted),
    /// A slot is decided; what was accepted for it is forgotten.
    Decide(u64, Batch),
}

/// What the machine wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make these durable together; report with [`Ordered::on_persisted`], in the same order.
    Persist(Vec<Change>),
    /// Say this to a voter; its answer goes to [`Ordered::on_vote`].
    Ask(NodeId, Step),
    /// Answer a coordinator.
    Answer(PeerCall, Vote),
    /// Slots up to the one named are decided, and this node does not have them all: fetch them from that node.
    Behind(NodeId, u64),
    /// A slot is decided, durably here; each is reported once, in order.
    Decided(u64, Batch),
    /// Give these to that node, which coordinates or votes.
    HandOver(NodeId, Vec<Message>),
}

/// Whether everything in a frontier is delivered at this node.
pub type Ready<'a> = &'a dyn Fn(&Frontier) -> bool;

/// What a node remembers on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durable {
    /// The greatest ballot confirmed.
    pub promised: Option<Ballot>,
    /// Accepted for slots that are not known decided.
    pub accepted: BTreeMap<u64, Accepted>,
    /// The last slot known decided, with all before it.
    pub decided: u64,
    /// The epoch in force behind it.
    pub epoch: Option<Epoch>,
    /// The last message of each origin that stands in the order.
    pub ordered: BTreeMap<NodeId, u64>,
}

/// What follows when a persist is durable.
#[derive(Debug)]
enum Then {
    Answer(PeerCall, Vote),
    OwnConfirm(Ballot),
    OwnReceived(Ballot, u64),
    Decided(u64, Batch),
}

/// Where a coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Start is sent; who confirmed.
    Starting(BTreeSet<NodeId>),
    /// A majority confirmed; nothing is proposed.
    Steady,
    /// Update is sent; who has it.
    Updating { slot: u64, batch: Batch, received: BTreeSet<NodeId> },
}

#[derive(Debug)]
struct Coordinator {
    ballot: Ballot,
    /// The epoch for which a majority confirmed or is asked to.
    epoch: u64,
    phase: Phase,
    /// What the greatest ballot reported for each slot.
    reported: BTreeMap<u64, Accepted>,
    /// When the phase under way is rolled back.
    until: Instant,
}

/// The state of the ordered channel at one node.
#[derive(Debug)]
pub struct Ordered {
    me: NodeId,
    epoch: Epoch,
    promised: Option<Ballot>,
    accepted: BTreeMap<u64, Accepted>,
    /// The last slot asked to be persisted as decided.
    decided: u64,
    ordered: BTreeMap<NodeId, u64>,
    /// Decided slots that were reported in a vote, for voters that ask; the last [`MAX_REPORTED`].
    recent: BTreeMap<u64, Batch>,
    /// Messages that do not stand in the order yet; at most [`MAX_WAITING`].
    waiting: BTreeMap<MessageId, Message>,
    /// The epoch that is to follow, once its owner has settled this one.
    wish: Option<Epoch>,
    coordinator: Option<Coordinator>,
    /// The greatest ballot heard of.
    seen: Option<Ballot>,
    /// The ballot whose coordinator was heard last, and that this node follows.
    followed: Option<Ballot>,
    heard: Instant,
    silence: Duration,
    ballot_at: Option<Instant>,
    hand_over_at: Option<Instant>,
    transaction: Transaction,
    disk: VecDeque<Vec<Then>>,
}

impl Ordered {
    /// A node that remembers `durable`, in a history founded with `founding`.
    pub fn new(me: NodeId, founding: Epoch, durable: Durable, now: Instant) -> Self {
        let Durable { promised, accepted, decided, epoch, ordered } = durable;
        Self {
            me,
            epoch: epoch.unwrap_or(founding),
            seen: promised,
            promised,
            accepted,
            decided,
            ordered,
            recent: BTreeMap::new(),
            waiting: BTreeMap::new(),
            wish: None,
            coordinator: None,
            followed: None,
            heard: now,
            silence: SILENCE,
            ballot_at: None,
            hand_over_at: None,
            transaction: Transaction::default(),
            disk: VecDeque::new(),
        }
    }

    /// The epoch in force.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The last slot known decided.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// Whether this node's ballot is confirmed by a majority.
    pub fn is_coordinator(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| !matches!(coordinator.phase, Phase::Starting(_)))
    }

    /// What is under way, by the founding table's names.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Something happened that the founding table has a name for.
    pub fn on_signal(&mut self, signal: Signal) {
        self.transaction.on_signal(signal);
    }

    /// Whose ballot this node follows: itself where it coordinates.
    pub fn coordinator(&self) -> Option<NodeId> {
        if self.coordinator.is_some() { Some(self.me) } else { self.followed.map(|ballot| ballot.node) }
    }

    /// Whether a batch may be about to be decided that was not reported yet.
    pub fn is_untouched(&self) -> bool {
        self.decided == 0 && self.accepted.is_empty()
    }

    /// The messages that wait for their place.
    pub fn waiting(&self) -> impl Iterator<Item = &Message> {
        self.waiting.values()
    }

    /// Whether a message stands in the order.
    pub fn is_ordered(&self, id: MessageId) -> bool {
        self.ordered.get(&id.origin).is_some_and(|last| id.sequence <= *last)
    }

    /// A message to be ordered: a client's, durable here already, or one handed over. Returns whether it was taken.
    pub fn on_message(&mut self, message: Message, now: Instant) -> bool {
        if self.is_ordered(message.id) {
            return true;
        }
        if self.waiting.len() >= MAX_WAITING && !self.waiting.contains_key(&message.id) {
            return false;
        }
        if self.waiting.insert(message.id, message).is_none() {
            self.transaction.on_signal(Signal::IncomingMessageArrived);
        }
        self.hand_over_at.get_or_insert(now);
        true
    }

    /// The owner has settled this epoch: `next` may follow. Only of use at the coordinator.
    pub fn wish(&mut self, next: Epoch) {
        self.wish = Some(next).filter(|next| self.epoch.may_become(next));
    }

    /// A coordinator says something.
    pub fn on_step(&mut self, now: Instant, from: NodeId, call: PeerCall, step: Step, out: &mut Vec<Effect>) {
        match step {
            Step::Start { ballot, slot } if ballot.node == from => self.on_start(now, call, ballot, slot, out),
            Step::Update { ballot, slot, batch } if ballot.node == from => self.on_update(now, call, ballot, slot, batch, out),
            Step::Commit { ballot, slot, hash } => {
                self.on_commit(now, from, ballot, slot, hash, out);
                out.push(Effect::Answer(call, Vote::Taken));
            }
            Step::Rollback { ballot } => {
                if self.followed == Some(ballot) {
                    self.transaction.on_signal(Signal::RollbackReceived);
                    self.followed = None;
                }
                out.push(Effect::Answer(call, Vote::Taken));
            }
            // Nobody speaks for another coordinator.
            Step::Start { .. } | Step::Update { .. } => self.refuse(call, out),
        }
    }

    fn refuse(&self, call: PeerCall, out: &mut Vec<Effect>) {
        let nobody = Ballot { round: 0, node: self.me };
        out.push(Effect::Answer(call, Vote::Refused { promised: self.promised.unwrap_or(nobody) }));
    }

    fn on_start(&mut self, now: Instant, call: PeerCall, ballot: Ballot, slot: u64, out: &mut Vec<Effect>) {
        if self.promised.is_some_and(|promised| promised > ballot) {
            return self.refuse(call, out);
        }
        self.follow(now, ballot, out);
        self.transaction.on_signal(Signal::StartTransactionReceived);
        let accepted = self.accepted.range(slot.max(self.decided + 1)..).map(|(slot, accepted)| (*slot, accepted.clone())).collect();
        let decided = self.recent.range(slot..).take(MAX_REPORTED).map(|(slot, batch)| (*slot, batch.clone())).collect();
        let at_hand = slot > self.decided || self.recent.contains_key(&slot);
        let vote = if at_hand { Vote::Confirm { ballot, accepted, decided } } else { Vote::Ahead { decided: self.decided } };
        self.promised = Some(ballot);
        self.persist(vec![Change::Promise(ballot)], vec![Then::Answer(call, vote)], out);
    }

    fn on_update(&mut self, now: Instant, call: PeerCall, ballot: Ballot, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        if self.promised.is_some_and(|promised| promised > ballot) {
            return self.refuse(call, out);
        }
        self.follow(now, ballot, out);
        if slot <= self.decided {
            let vote = match self.recent.get(&slot) {
                Some(batch) => Vote::Decided { slot, batch: batch.clone() },
                None => Vote::Ahead { decided: self.decided },
            };
            out.push(Effect::Answer(call, vote));
            return;
        }
        if slot > self.decided + 1 {
            // Who proposes for a slot knows all before it.
            out.push(Effect::Behind(ballot.node, slot - 1));
        }
        if slot > self.decided + MAX_AHEAD {
            out.push(Effect::Answer(call, Vote::Behind));
            return;
        }
        self.transaction.on_signal(Signal::UpdateReceived);
        let accepted = Accepted { ballot, batch };
        self.promised = Some(ballot);
        self.accepted.insert(slot, accepted.clone());
        let then = vec![Then::Answer(call, Vote::Received { ballot, slot })];
        self.persist(vec![Change::Accept(slot, accepted)], then, out);
    }

    fn on_commit(&mut self, now: Instant, from: NodeId, ballot: Ballot, slot: u64, hash: ContentHash, out: &mut Vec<Effect>) {
        if Some(ballot) >= self.seen {
            self.follow(now, ballot, out);
        }
        if slot <= self.decided {
            return;
        }
        let held = self.accepted.get(&slot).filter(|accepted| accepted.batch.hash() == hash).map(|accepted| accepted.batch.clone());
        match held {
            Some(batch) if slot == self.decided + 1 => self.decide(slot, batch, out),
            Some(_) | None => out.push(Effect::Behind(from, slot)),
        }
    }

    /// A slot is decided, as somebody says who knows it: in a vote, a page of history, a rumor.
    pub fn on_decided(&mut self, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        if slot == self.decided + 1 {
            self.decide(slot, batch, out);
        }
    }

    /// Another node coordinates with a ballot at least as great as any confirmed here.
    fn follow(&mut self, now: Instant, ballot: Ballot, out: &mut Vec<Effect>) {
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.ballot < ballot) {
            self.roll_back(now, out);
        }
        self.seen = self.seen.max(Some(ballot));
        if self.followed != Some(ballot) {
            self.followed = Some(ballot);
            self.hand_over_at = Some(now);
        }
        (self.heard, self.silence, self.ballot_at) = (now, SILENCE, None);
    }

    /// A voter answered.
    pub fn on_vote(&mut self, now: Instant, from: NodeId, vote: Vote, ready: Ready<'_>, out: &mut Vec<Effect>) {
        match vote {
            Vote::Confirm { ballot, accepted, decided } => {
                for (slot, batch) in decided {
                    self.on_decided(slot, batch, out);
                }
                self.on_confirm(now, from, ballot, accepted, ready, out);
            }
            Vote::Received { ballot, slot } => self.on_received(now, from, ballot, slot, ready, out),
            Vote::Decided { slot, batch } => {
                self.on_decided(slot, batch, out);
                self.proceed(now, ready, out);
            }
            Vote::Refused { promised } => {
                self.seen = self.seen.max(Some(promised));
                if self.coordinator.as_ref().is_some_and(|coordinator| promised > coordinator.ballot) {
                    self.roll_back(now, out);
                }
            }
            Vote::Ahead { decided } if decided > self.decided => out.push(Effect::Behind(from, decided)),
            Vote::Ahead { .. } | Vote::Behind | Vote::Taken => {}
        }
    }

    fn on_confirm(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        accepted: BTreeMap<u64, Accepted>,
        ready: Ready<'_>,
        out: &mut Vec<Effect>,
    ) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.ballot == ballot) else { return };
        let Phase::Starting(confirmed) = &mut coordinator.phase else { return };
        confirmed.insert(from);
        for (slot, accepted) in accepted {
            let known = coordinator.reported.get(&slot).map(|known| known.ballot);
            if known.is_none_or(|known| known < accepted.ballot) {
                coordinator.reported.insert(slot, accepted);
            }
        }
        if self.epoch.is_majority(confirmed) {
            coordinator.phase = Phase::Steady;
            self.silence = SILENCE;
            self.proceed(now, ready, out);
        }
    }

    fn on_received(&mut self, now: Instant, from: NodeId, ballot: Ballot, of: u64, ready: Ready<'_>, out: &mut Vec<Effect>) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.ballot == ballot) else { return };
        let Phase::Updating { slot, batch, received } = &mut coordinator.phase else { return };
        if *slot != of {
            return;
        }
        received.insert(from);
        if !self.epoch.is_majority(received) {
            return;
        }
        let (slot, batch) = (*slot, batch.clone());
        coordinator.phase = Phase::Steady;
        self.transaction.on_signal(Signal::CommitSent);
        let hash = batch.hash();
        let voters = self.others();
        self.record(slot, batch, out);
        out.extend(voters.into_iter().map(|voter| Effect::Ask(voter, Step::Commit { ballot, slot, hash })));
        self.proceed(now, ready, out);
    }

    /// The voters but this node.
    fn others(&self) -> Vec<NodeId> {
        self.epoch.voters.iter().copied().filter(|voter| *voter != self.me).collect()
    }

    /// Somebody else's decision.
    fn decide(&mut self, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        self.transaction.on_signal(Signal::CommitReceived);
        self.record(slot, batch, out);
    }

    fn record(&mut self, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        debug_assert_eq!(slot, self.decided + 1, "slots are decided in order");
        self.decided = slot;
        self.accepted.retain(|accepted, _| *accepted > slot);
        for message in batch.messages() {
            self.waiting.remove(&message.id);
            let last = self.ordered.entry(message.id.origin).or_default();
            *last = (*last).max(message.id.sequence);
        }
        if let Some(next) = batch.next_epoch(&self.epoch) {
            self.epoch = next;
            self.wish = None;
        }
        self.recent.insert(slot, batch.clone());
        while self.recent.len() > MAX_REPORTED {
            self.recent.pop_first();
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.reported.retain(|reported, _| *reported > slot);
            // Somebody else's decision of the slot that this node proposes for.
            if matches!(coordinator.phase, Phase::Updating { slot: proposed, .. } if proposed <= slot) {
                coordinator.phase = Phase::Steady;
            }
        }
        self.persist(vec![Change::Decide(slot, batch.clone())], vec![Then::Decided(slot, batch)], out);
    }

    fn persist(&mut self, changes: Vec<Change>, then: Vec<Then>, out: &mut Vec<Effect>) {
        self.disk.push_back(then);
        out.push(Effect::Persist(changes));
    }

    /// The oldest persist that was not reported yet is durable.
    pub fn on_persisted(&mut self, now: Instant, ready: Ready<'_>, out: &mut Vec<Effect>) {
        for then in self.disk.pop_front().unwrap_or_default() {
            match then {
                Then::Answer(call, vote) => out.push(Effect::Answer(call, vote)),
                Then::Decided(slot, batch) => out.push(Effect::Decided(slot, batch)),
                Then::OwnConfirm(ballot) => {
                    let accepted = self.accepted.clone();
                    self.on_confirm(now, self.me, ballot, accepted, ready, out);
                }
                Then::OwnReceived(ballot, slot) => self.on_received(now, self.me, ballot, slot, ready, out),
            }
        }
    }

    /// Begins a ballot.
    fn start(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let round = self.seen.max(self.promised).map_or(0, |seen| seen.round) + 1;
        let ballot = Ballot { round, node: self.me };
        let phase = Phase::Starting(BTreeSet::new());
        self.coordinator = Some(Coordinator { ballot, epoch: self.epoch.number, phase, reported: BTreeMap::new(), until: now + PATIENCE });
        (self.seen, self.promised, self.followed, self.ballot_at) = (Some(ballot), Some(ballot), None, None);
        self.transaction.on_signal(Signal::StartTransactionSent);
        self.persist(vec![Change::Promise(ballot)], vec![Then::OwnConfirm(ballot)], out);
        let slot = self.decided + 1;
        out.extend(self.others().into_iter().map(|voter| Effect::Ask(voter, Step::Start { ballot, slot })));
    }

    /// Proposes for the next slot, if there is something to propose.
    fn proceed(&mut self, now: Instant, ready: Ready<'_>, out: &mut Vec<Effect>) {
        let slot = self.decided + 1;
        let Some(coordinator) = self.coordinator.as_ref().filter(|coordinator| coordinator.phase == Phase::Steady) else { return };
        if coordinator.epoch != self.epoch.number {
            // A new epoch begins with a Start, by whoever votes in it.
            self.coordinator = None;
            if self.epoch.voters.contains(&self.me) {
                self.start(now, out);
            }
            return;
        }
        let ballot = coordinator.ballot;
        let batch = coordinator.reported.get(&slot).map_or_else(|| self.form(ready), |accepted| accepted.batch.clone());
        if batch.entries.is_empty() {
            return;
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.phase = Phase::Updating { slot, batch: batch.clone(), received: BTreeSet::new() };
            coordinator.until = now + PATIENCE;
        }
        self.transaction.on_signal(Signal::UpdateRemoteNodes);
        let accepted = Accepted { ballot, batch: batch.clone() };
        self.accepted.insert(slot, accepted.clone());
        self.persist(vec![Change::Accept(slot, accepted)], vec![Then::OwnReceived(ballot, slot)], out);
        out.extend(self.others().into_iter().map(|voter| Effect::Ask(voter, Step::Update { ballot, slot, batch: batch.clone() })));
    }

    /// All messages that may stand in the next slot, each origin's in their order, and the epoch wished for.
    fn form(&self, ready: Ready<'_>) -> Batch {
        let mut entries = Vec::new();
        let (mut bytes, mut next) = (0, BTreeMap::new());
        for message in self.waiting.values() {
            let expected =
                next.entry(message.id.origin).or_insert_with(|| self.ordered.get(&message.id.origin).map_or(0, |last| *last) + 1);
            if message.id.sequence != *expected || !ready(&message.frontier) {
                continue;
            }
            bytes += message.body.bytes().len();
            if entries.len() == MAX_BATCH || bytes > BATCH_BUDGET && !entries.is_empty() {
                break;
            }
            *expected += 1;
            entries.push(Entry::Message(message.clone()));
        }
        entries.extend(self.wish.clone().map(Entry::Epoch));
        Batch { entries }
    }

    /// Gives up this node's ballot; its messages are tried again later.
    fn roll_back(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Some(coordinator) = self.coordinator.take() else { return };
        let ballot = coordinator.ballot;
        self.transaction.on_signal(Signal::RollbackSent);
        out.extend(self.others().into_iter().map(|voter| Effect::Ask(voter, Step::Rollback { ballot })));
        self.silence = (self.silence * 2).min(LONGEST_SILENCE);
        (self.heard, self.ballot_at, self.hand_over_at) = (now, None, Some(now));
    }

    /// The owner's node delivered something, or took a message: perhaps there is more to propose now.
    pub fn on_progress(&mut self, now: Instant, ready: Ready<'_>, out: &mut Vec<Effect>) {
        self.proceed(now, ready, out);
    }

    /// When [`Self::on_deadline`] is wanted.
    pub fn deadline(&self) -> Option<Instant> {
        let busy = self.coordinator.as_ref().filter(|coordinator| coordinator.phase != Phase::Steady).map(|coordinator| coordinator.until);
        let waits = self.wants() && self.coordinator.is_none();
        let ballot = self.ballot_at.or(Some(self.heard)).filter(|_| waits && self.epoch.voters.contains(&self.me));
        let hand_over = self.hand_over_at.filter(|_| waits && !self.waiting.is_empty());
        [busy, ballot, hand_over].into_iter().flatten().min()
    }

    /// Time has passed: rolls back what found no majority, starts a ballot where nobody coordinates, hands messages over.
    pub fn on_deadline(&mut self, now: Instant, rng: &mut ChaCha8Rng, out: &mut Vec<Effect>) {
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.phase != Phase::Steady && coordinator.until <= now) {
            self.roll_back(now, out);
        }
        if !self.wants() || self.coordinator.is_some() {
            return;
        }
        if self.epoch.voters.contains(&self.me) {
            let silence = self.silence;
            // From one to two silences, so that voters that went unheard together do not start together.
            let at = *self.ballot_at.get_or_insert_with(|| self.heard + silence * rng.random_range(1000..2000_u32) / 1000);
            if at <= now {
                return self.start(now, out);
            }
        }
        if self.hand_over_at.is_some_and(|at| at <= now) && !self.waiting.is_empty() {
            self.hand_over(now, rng, out);
        }
    }

    /// Whether there is anything to be decided.
    fn wants(&self) -> bool {
        !self.waiting.is_empty() || self.wish.is_some()
    }

    fn hand_over(&mut self, now: Instant, rng: &mut ChaCha8Rng, out: &mut Vec<Effect>) {
        self.hand_over_at = Some(now + SILENCE);
        let others = self.others();
        let to = self.followed.map(|ballot| ballot.node).filter(|node| *node != self.me);
        // Who does not know the coordinator asks any voter, who does or will start a ballot.
        let Some(to) = to.or_else(|| (!others.is_empty()).then(|| others[rng.random_range(0..others.len())])) else { return };
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.body.bytes().len();
            bytes <= BATCH_BUDGET + crate::history::message::MAX_BODY
        };
        let messages: Vec<Message> = self.waiting.values().take(MAX_BATCH).take_while(fits).cloned().collect();
        out.push(Effect::HandOver(to, messages));
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(self.waiting.len() <= MAX_WAITING && self.recent.len() <= MAX_REPORTED, "bounded");
        assert!(self.accepted.keys().all(|slot| *slot > self.decided), "what is decided is no longer open");
        assert!(self.promised <= self.seen, "what was promised was heard of");
        if let Some(coordinator) = &self.coordinator {
            assert!(self.promised >= Some(coordinator.ballot), "a coordinator confirms for itself");
        }
    }
}

#[cfg(test)]
mod tests;
