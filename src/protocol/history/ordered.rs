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
//! 2. A voter confirms a ballot, or takes a batch, only when that is durable and no greater ballot was confirmed before. A coordinator asks for
//!    its ballot when that is durable at itself, so no ballot is used twice.
//! 3. A coordinator proposes what the greatest ballot reported for a slot, or, where nothing was reported, a batch of its own.
//! 4. A voter's answers depend on ballots alone, never on what else it is doing.
//! 5. A message stands in the order once: a batch's entry whose message stands in an earlier batch is skipped, alike on every node,
//!    because an origin's messages stand there in their order ([`takes_its_place`]).
//! 6. An Update carries the Commit of the slot before it, to whoever was not told: one call, and at a voter one commit to the disk. Voters whose
//!    messages were decided are told at once, for somebody may wait there; the others within [`UNTOLD`], if no Update comes first.
//! 7. Whoever knows that a majority has a slot's batch knows that it is decided. A coordinator that proposes what was handed over at once answers
//!    with its own vote: with its own, the voter that handed it over has the majority of three, and hears of no Commit.
//! 8. What is accepted is decided, though its coordinator is gone and nobody has anything else to say: a voter that hears no more of it
//!    starts a ballot.
//!
//! What a coordinator may take into a batch depends on what is delivered at its node; its owner says so at every step ([`Ready`]).

mod coordinating;
mod steps;
mod voting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::history::epoch::Epoch;
use crate::history::message::{Frontier, Message, MessageId};
use crate::history::transaction::{Line, Signal, Transaction};
use crate::ids::NodeId;
use crate::io::PeerCall;
use crate::planted::{Bug, is_planted};
use crate::time::Instant;

use coordinating::{Coordinator, Phase};
pub use steps::{Accepted, Ballot, Batch, Decision, Entry, Step, Vote, takes_its_place};

/// Most messages of one batch.
pub const MAX_BATCH: usize = 1024;
/// Bodies are added to a batch until it holds about so many bytes.
pub const BATCH_BUDGET: usize = 1 << 20;
/// Most messages of this node's clients that wait here to be ordered, and beyond so many in all none of other nodes is taken.
pub const MAX_WAITING: usize = 8192;
/// A voter takes batches so many slots beyond the last it knows decided; farther behind it fetches history first.
pub const MAX_AHEAD: u64 = 64;
/// Most decided slots in one Confirm; the rest is fetched as history.
pub const MAX_REPORTED: usize = 8;
/// How long a voter with messages waiting hears nothing from a coordinator before it starts a ballot. Jittered and doubled from
/// one failed ballot to the next. A message that was handed over and waits still is handed over again after as long.
pub const SILENCE: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(16);
/// How long a coordinator waits for a majority before it rolls back.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long a coordinator keeps a decision from voters that wait for nothing in it: longer than a client takes from one message to the next.
pub const UNTOLD: Duration = Duration::from_millis(5);
/// A participant that hears no more of the transaction it is in for so long is in none: longer than a rollback takes to come.
pub const PARTICIPATION: Duration = Duration::from_secs(4);

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
    /// A slot is decided, the next after the last one, and asked to be persisted as such: what it delivers may be durable together with it.
    Reached(u64, Batch),
    /// A slot is decided, durably here; each is reported once, in order.
    Decided(u64, Batch),
    /// Give these to that node, which coordinates or votes; report with [`Ordered::on_handed_over`].
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
    Received(PeerCall, Ballot, u64),
    OwnConfirm(Ballot),
    OwnReceived(Ballot, u64),
    Decided(u64, Batch),
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
    /// When those that wait were handed over; and until when that is under way.
    handed: BTreeMap<MessageId, Instant>,
    handing: Option<Instant>,
    /// When the transaction that this node takes part in is given up for people's eyes. Votes do not depend on it.
    participates_until: Option<Instant>,
    transaction: Transaction,
    /// The greatest ballot and, under it, the last slot for which each voter gave this node its vote.
    votes: BTreeMap<NodeId, (Ballot, u64)>,
    /// This node starts no ballot: it does not know yet whether it remembers all its votes.
    silent: bool,
    /// The batch proposed last of which an acceptance is known here, and who has it.
    acceptances: Option<(u64, Ballot, BTreeSet<NodeId>)>,
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
            handed: BTreeMap::new(),
            handing: None,
            participates_until: None,
            transaction: Transaction::new(now),
            votes: BTreeMap::new(),
            silent: false,
            acceptances: None,
            disk: VecDeque::new(),
        }
    }

    /// Whether this node starts no ballots.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    fn may_start(&self) -> bool {
        !self.silent && self.epoch.voters.contains(&self.me)
    }

    /// What this node has seen of another one's votes: its greatest ballot, as coordinator or voter, and the last slot accepted under it.
    pub fn votes_of(&self, node: NodeId) -> (Option<Ballot>, u64) {
        let (voted, slot) = self.votes.get(&node).map_or((None, 0), |(ballot, slot)| (Some(*ballot), *slot));
        (voted.max(self.seen.filter(|seen| seen.node == node)), slot)
    }

    /// The greatest number known here of an origin's messages.
    pub fn last_of(&self, origin: NodeId) -> u64 {
        let accepted = self.accepted.values().flat_map(|accepted| accepted.batch.messages()).map(|message| message.id);
        let known = self.waiting.keys().copied().chain(accepted).filter(|id| id.origin == origin).map(|id| id.sequence).max();
        known.max(self.ordered.get(&origin).copied()).unwrap_or(0)
    }

    /// Whether this node gave a vote that great, as far as it remembers: a promise of the ballot, and that slot accepted or decided.
    pub fn has_voted(&self, ballot: Option<Ballot>, slot: u64) -> bool {
        ballot <= self.promised && (slot <= self.decided || self.accepted.contains_key(&slot))
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

    /// An update was asked for or sent, which are lines of the same table.
    pub(super) fn transaction_mut(&mut self) -> &mut Transaction {
        &mut self.transaction
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

    /// A message that waits for its place.
    pub fn known(&self, id: MessageId) -> Option<&Message> {
        self.waiting.get(&id)
    }

    /// Whether a message stands in the order.
    pub fn is_ordered(&self, id: MessageId) -> bool {
        self.ordered.get(&id.origin).is_some_and(|last| id.sequence <= *last)
    }

    /// How many messages of this node stand in the order.
    pub fn own(&self) -> u64 {
        self.ordered.get(&self.me).map_or(0, |last| *last)
    }

    /// A message to be ordered: a client's, durable here already, which is always taken, or one handed over. Returns whether it was taken.
    pub fn on_message(&mut self, message: Message, now: Instant) -> bool {
        if self.is_ordered(message.id) {
            return true;
        }
        let own = message.id.origin == self.me;
        if !own && self.waiting.len() >= MAX_WAITING && !self.waiting.contains_key(&message.id) {
            return false;
        }
        if !self.has_new() && self.epoch.voters.len() > 1 {
            // Silence counts from when there is something to be said.
            (self.heard, self.ballot_at) = (self.heard.max(now), None);
        }
        if self.waiting.insert(message.id, message).is_none() {
            self.transaction.on_signal(Signal::IncomingMessageArrived, now);
            if self.handing.is_none() {
                self.hand_over_at = Some(now);
            }
        }
        true
    }

    /// The owner has settled this epoch: `next` may follow. Only of use at the coordinator.
    pub fn wish(&mut self, next: Epoch) {
        self.wish = Some(next).filter(|next| self.epoch.may_become(next));
    }

    /// A slot is decided, as somebody says who knows it: in a vote, a page of history, a rumor.
    pub fn on_decided(&mut self, now: Instant, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        if slot == self.decided + 1 {
            self.decide(now, slot, batch, out);
        }
    }

    /// The voters but this node.
    fn others(&self) -> Vec<NodeId> {
        self.epoch.voters.iter().copied().filter(|voter| *voter != self.me).collect()
    }

    /// Somebody else's decision.
    fn decide(&mut self, now: Instant, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        self.transaction.on_signal(Signal::CommitReceived, now);
        self.participates_until = None;
        self.record(slot, batch, out);
    }

    fn record(&mut self, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        debug_assert_eq!(slot, self.decided + 1, "slots are decided in order");
        self.decided = slot;
        self.accepted.retain(|accepted, _| *accepted > slot);
        for message in batch.messages().filter(|_| !is_planted(Bug::DeliveredTwice)) {
            takes_its_place(&mut self.ordered, message.id);
            // What came too early waits on.
            if self.is_ordered(message.id) {
                self.waiting.remove(&message.id);
                self.handed.remove(&message.id);
            }
        }
        if let Some(next) = batch.next_epoch(&self.epoch) {
            self.epoch = next;
            self.wish = None;
            self.votes.retain(|voter, _| self.epoch.voters.contains(voter));
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
        self.persist(vec![Change::Decide(slot, batch.clone())], vec![Then::Decided(slot, batch.clone())], out);
        out.push(Effect::Reached(slot, batch));
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
                Then::Received(call, ballot, slot) => {
                    out.push(Effect::Answer(call, Vote::Received { ballot, slot }));
                    self.on_acceptance(now, self.me, ballot, slot, out);
                }
                Then::Decided(slot, batch) => out.push(Effect::Decided(slot, batch)),
                Then::OwnConfirm(ballot) => {
                    self.ask_for_ballot(ballot, out);
                    let accepted = self.accepted_from(self.decided + 1);
                    self.on_confirm(now, self.me, ballot, accepted, ready, out);
                }
                Then::OwnReceived(ballot, slot) => self.on_received(now, self.me, ballot, slot, ready, out),
            }
        }
    }

    /// The owner's node delivered something, or took a message: perhaps there is more to propose now.
    pub fn on_progress(&mut self, now: Instant, ready: Ready<'_>, out: &mut Vec<Effect>) {
        self.proceed(now, ready, out);
    }

    /// When [`Self::on_deadline`] is wanted.
    pub fn deadline(&self) -> Option<Instant> {
        let busy = self.coordinator.as_ref().filter(|coordinator| coordinator.phase != Phase::Steady).map(|coordinator| coordinator.until);
        let untold = self.coordinator.as_ref().and_then(|coordinator| Some(coordinator.untold.as_ref()?.until));
        let waits = self.wants() && self.coordinator.is_none();
        let ballot = self.ballot_at.or(Some(self.heard)).filter(|_| waits && self.may_start());
        let hand_over = self.hand_over_at.filter(|_| waits && !self.waiting.is_empty());
        [busy, untold, ballot, hand_over, self.participates_until].into_iter().flatten().min()
    }

    /// Time has passed: rolls back what found no majority, starts a ballot where nobody coordinates, hands messages over.
    pub fn on_deadline(&mut self, now: Instant, rng: &mut ChaCha8Rng, out: &mut Vec<Effect>) {
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.phase != Phase::Steady && coordinator.until <= now) {
            self.roll_back(now, out);
        }
        if self.coordinator.as_ref().and_then(|coordinator| coordinator.untold.as_ref()).is_some_and(|untold| untold.until <= now) {
            self.tell_rest(out);
        }
        if self.participates_until.is_some_and(|until| until <= now) {
            self.participates_until = None;
            self.transaction.on_timeout(Line::Participant, now);
        }
        if !self.wants() || self.coordinator.is_some() {
            return;
        }
        if self.may_start() {
            let silence = if self.has_new() { self.silence } else { self.silence.max(PARTICIPATION) };
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
        self.has_new() || !self.accepted.is_empty()
    }

    /// Whether there is anything to be decided that nobody has proposed yet, as far as is known here.
    fn has_new(&self) -> bool {
        !self.waiting.is_empty() || self.wish.is_some()
    }

    /// Hands over what was not handed over lately, as much as fits. The next call of it waits for the answer, or for [`SILENCE`].
    fn hand_over(&mut self, now: Instant, rng: &mut ChaCha8Rng, out: &mut Vec<Effect>) {
        if let Some(until) = self.handing.filter(|until| *until > now) {
            self.hand_over_at = Some(until);
            return;
        }
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
        let due = |message: &&Message| self.handed.get(&message.id).is_none_or(|at| now.since(*at) >= SILENCE);
        let messages: Vec<Message> = self.waiting.values().filter(due).take(MAX_BATCH).take_while(fits).cloned().collect();
        if messages.is_empty() {
            return;
        }
        self.handed.extend(messages.iter().map(|message| (message.id, now)));
        self.handing = Some(now + SILENCE);
        out.push(Effect::HandOver(to, messages));
    }

    /// The call that handed messages over to that node was answered, or will not be: what came meanwhile may follow. Who does not answer is
    /// followed no more: if it is gone for good, and all who have something to be ordered do not vote, nobody would ever start a ballot.
    pub fn on_handed_over(&mut self, now: Instant, to: NodeId, answered: bool) {
        self.handing = None;
        self.hand_over_at = Some(now);
        self.followed = self.followed.filter(|ballot| answered || ballot.node != to);
    }

    /// Somebody else may coordinate: all that waits is handed over anew.
    fn hand_over_anew(&mut self, now: Instant) {
        self.handed.clear();
        (self.handing, self.hand_over_at) = (None, Some(now));
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(self.waiting.len() <= 2 * MAX_WAITING && self.recent.len() <= MAX_REPORTED, "bounded");
        assert!(self.handed.keys().all(|id| self.waiting.contains_key(id)), "only what waits was handed over");
        assert!(self.accepted.keys().all(|slot| *slot > self.decided), "what is decided is no longer open");
        assert!(self.promised <= self.seen, "what was promised was heard of");
        if let Some(coordinator) = &self.coordinator {
            assert!(self.promised >= Some(coordinator.ballot), "a coordinator confirms for itself");
        }
    }
}

#[cfg(test)]
mod tests;
