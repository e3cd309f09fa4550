//! A replica: one node's part in the history, both channels and everything around them behind one door.
//!
//! | machine | its part |
//! |---|---|
//! | [`Causal`], [`Ordered`] | the channels |
//! | [`Delivery`] | one order of both at this node |
//! | [`Letters`] | what is told, gathered for each node |
//! | [`Asking`], [`Sending`] | what is missing, fetched and given |
//! | [`Seats`] | who votes next |
//!
//! What must hold:
//!
//! 1. Nothing is said of this history to a node of another one, and nothing of another one is taken.
//! 2. A node that belongs to no history keeps what its clients give it; once it belongs to one, that is sent.
//! 3. Only a history in which nothing was ever decided or delivered is left for another one, unless an operator says so.
//! 4. A node that begins is silent until it is synchronised: it votes on nothing, and withholds what its clients say. See [`speaking`].
//! 5. Everything that follows from a change of the durable state waits for the disk; persists are reported in their order.

mod catching_up;
mod hearing;
mod joining;
mod routing;
mod seating;
mod speaking;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use uuid::Uuid;

use crate::history::asking::{Asking, SessionId};
use crate::history::causal::{self, Causal, Tell};
use crate::history::delivery::Delivery;
use crate::history::disk::{Change, Founding, HistoryStore, Order, Owner, Place, Remembered};
use crate::history::epoch::Epoch;
use crate::history::letters::Letters;
use crate::history::message::{Body, Channel, Message, MessageId};
use crate::history::ordered::{self, Ordered};
use crate::history::seats::Seats;
use crate::history::sending::Sending;
use crate::history::talk::{Ask, Head, HistoryAnswer, HistoryCall, Holdings};
use crate::history::transaction::Transaction;
use crate::ids::NodeId;
use crate::io::PeerCall;
use crate::store::StoreFault;
use crate::time::{Instant, Now};
use speaking::Speech;

/// How many others hear a rumor from a node.
pub const FAN_OUT: usize = 4;
/// Up to so many other nodes a voter tells itself what it has; more hear it as a rumor. With seven voters this is as many letters for each
/// node as a rumor of the message and one of its delivery.
pub const TOLD_DIRECTLY: usize = 32;
/// How many members beside the voters say how far they are when a node synchronises.
const ASKED_BESIDE: usize = 4;
/// An origin that sent nothing for so long is compared only when all are.
const LATELY: Duration = Duration::from_secs(60);
/// A list of undelivered messages ends once their bodies have so many bytes. It holds one in any case.
pub const UNDELIVERED_BUDGET: usize = 4 << 20;
/// No page is asked for while so many persists are under way.
const MAX_UNDER_WAY: usize = 32;

/// What the replica sees of the network.
pub trait Network {
    /// Whether that node is believed alive.
    fn is_live(&self, node: NodeId) -> bool;

    /// At most `n` random live peers.
    fn few(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<NodeId>;

    /// All live peers; `None` if there are more than `most`.
    fn all(&self, most: usize) -> Option<Vec<NodeId>>;

    /// The at most `n` live peers to which this node passes on what all are to hear: always the same while the same nodes live, so chosen that
    /// whatever one node knows all know after log n (count of nodes) steps.
    fn next(&self, n: usize) -> Vec<NodeId>;
}

/// What the replica is given with every input.
pub struct World<'a> {
    /// What time it is.
    pub now: Now,
    /// Its dice.
    pub rng: &'a mut ChaCha8Rng,
    /// Whom it can reach.
    pub network: &'a dyn Network,
    /// What is committed.
    pub store: &'a dyn HistoryStore,
}

/// Why a message was not taken from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too many wait to be delivered.
    #[error("too many messages wait to be delivered")]
    Pending,
    /// The node is about to belong to another history.
    #[error("the node is joining a history")]
    Joining,
}

/// What a call was about, so that its answer finds its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A letter.
    Letter,
    /// A coordinator's step.
    Step,
    /// Messages handed over.
    HandOver,
    /// How far a node is.
    Versions(SessionId),
    /// A page.
    Page(SessionId),
    /// A seat.
    Seat,
    /// What a voter has, in that epoch.
    Holdings(u64),
}

/// What the replica wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make these durable together; report with [`Replica::on_persisted`], in the same order.
    Persist(Vec<Change>),
    /// Call that node; report with [`Replica::on_answer`].
    Call(NodeId, HistoryCall, Asked),
    /// Answer a peer.
    Answer(PeerCall, HistoryAnswer),
    /// A client's message is durable.
    Accepted(MessageId),
    /// These undelivered messages of this node have other names in the history that it joins.
    Renamed(BTreeMap<MessageId, MessageId>),
    /// A message of this node stands in the common order for good, and everything before it is here. That it is delivered is in the persist that follows.
    Ordered(MessageId, Order),
    /// A message is delivered, durably; each once, in this node's order.
    Delivered(Place),
    /// This node belongs to that history now.
    Joined(Founding),
    /// That node belongs to another history, and neither yields.
    Apart(NodeId, Founding),
}

/// What follows when a persist is durable.
#[derive(Debug)]
enum Then {
    Causal,
    Ordered,
    Delivered(Vec<Place>),
    OwnOrdered(Message),
    Holdings(Option<PeerCall>, Holdings),
    /// With the new names of its own messages that are not delivered.
    Join(Founding, BTreeMap<MessageId, MessageId>),
    Released,
    Forgotten,
}

/// One node's part in the history.
#[derive(Debug)]
pub struct Replica {
    me: NodeId,
    founding: Option<Founding>,
    left: BTreeSet<Uuid>,
    joining: bool,
    causal: Causal,
    ordered: Ordered,
    delivery: Delivery,
    letters: Letters,
    asking: Asking,
    sending: Sending,
    seats: Seats,
    /// Number of this node's last ordered message.
    sent: u64,
    /// Whose messages are this node's own, and whether the disk knows.
    owner: Owner,
    owned: bool,
    /// What this node keeps to itself for now.
    speech: Speech,
    /// Epoch behind the last slot that was asked to be persisted.
    decided_epoch: Epoch,
    /// Places of causal messages whose delivery is on its way to the disk.
    places: VecDeque<Place>,
    disk: VecDeque<Then>,
    /// When each origin's last message was delivered here, of the last minute.
    lately: BTreeMap<NodeId, Instant>,
    seek_at: Instant,
    /// Whom to ask for a seat.
    usher: Option<NodeId>,
}

/// Before any history: nobody votes, so nothing is delivered.
fn nowhere() -> Epoch {
    Epoch { number: 0, voters: BTreeSet::new() }
}

impl Replica {
    /// A node with what it remembers, that sees to it that at most so many nodes vote.
    pub fn new(me: NodeId, seats: usize, store: &dyn HistoryStore, now: Instant) -> Result<Self, StoreFault> {
        let remembered = store.remembered()?;
        let mut decided = VecDeque::new();
        while let Some((slot, batch)) = store.slots(remembered.slot + 1 + decided.len() as u64, 1)?.pop() {
            decided.push_back((slot, batch));
        }
        let epoch = remembered.epoch.clone().or_else(|| remembered.founding.map(|founding| founding.epoch())).unwrap_or_else(nowhere);
        let mut ordered = remembered.ordered.clone();
        for message in decided.iter().flat_map(|(_, batch)| batch.messages()) {
            ordered::takes_its_place(&mut ordered, message.id);
        }
        let owner = speaking::owner(me, &remembered);
        let (speech, kept) = Speech::new(me, &remembered);
        let (kept_ordered, kept_causal): (Vec<Message>, Vec<Message>) =
            kept.into_iter().partition(|message| message.id.channel == Channel::Ordered);
        let own = kept_ordered.iter().filter(|message| message.id.origin == me).map(|message| message.id.sequence).max();
        let mut asking = Asking::default();
        asking.doubt(now);
        let mut replica = Self {
            me,
            founding: remembered.founding,
            left: remembered.left.clone(),
            joining: false,
            sent: own.max(speech.last_ordered()).max(ordered.get(&me).copied()).unwrap_or(0),
            owned: remembered.owner.as_ref().is_some_and(|owner| owner.node == me),
            owner: owner.clone(),
            speech,
            causal: Causal::new(me, epoch.clone(), causal_memory(&owner, &remembered, kept_causal), now),
            ordered: Ordered::new(
                me,
                epoch.clone(),
                ordered::Durable {
                    promised: remembered.promised,
                    accepted: remembered.accepted.clone(),
                    decided: remembered.decided,
                    epoch: remembered.epoch.clone(),
                    ordered,
                },
                now,
            ),
            delivery: Delivery::new(&remembered, decided),
            letters: Letters::default(),
            asking,
            sending: Sending::default(),
            seats: Seats::new(seats),
            decided_epoch: epoch,
            places: VecDeque::new(),
            disk: VecDeque::new(),
            lately: BTreeMap::new(),
            seek_at: now,
            usher: None,
        };
        for message in kept_ordered {
            replica.ordered.on_message(message, now);
        }
        replica.ordered.set_silent(true);
        replica.causal.fall_silent();
        Ok(replica)
    }

    /// The history it belongs to.
    pub fn founding(&self) -> Option<Founding> {
        self.founding
    }

    /// Whether the disk is about to know that the node belongs to another history.
    pub fn is_joining(&self) -> bool {
        self.joining
    }

    /// Whether it belonged to that history and left it for another one.
    pub fn has_left(&self, history: Uuid) -> bool {
        self.left.contains(&history)
    }

    /// What it says of its history to others. Who has not heard yet how far its history is does not call it young.
    pub fn head(&self) -> Option<Head> {
        let founding = self.founding.filter(|_| !self.joining)?;
        let knows = founding.founder == self.me || self.is_synchronised();
        Some(Head { founding, young: knows && self.is_untouched() })
    }

    /// Whether nothing was decided or delivered here.
    fn is_untouched(&self) -> bool {
        self.ordered.is_untouched() && self.delivery.index() == 0
    }

    /// A fingerprint of the history and of all that is delivered of it: equal where nothing is missing on either side.
    pub fn fingerprint(&self) -> Option<u64> {
        let founding = self.founding.filter(|_| !self.joining)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(founding.id.as_bytes()).update(&self.ordered.decided().to_be_bytes());
        for (origin, last) in self.causal.delivered() {
            hasher.update(origin.0.as_bytes()).update(&last.to_be_bytes());
        }
        let hash = hasher.finalize();
        Some(hash.as_bytes().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
    }

    /// The epoch in force.
    pub fn epoch(&self) -> &Epoch {
        self.causal.epoch()
    }

    /// The last slot decided here.
    pub fn decided(&self) -> u64 {
        self.ordered.decided()
    }

    /// How many messages are delivered here.
    pub fn delivered(&self) -> u64 {
        self.delivery.index()
    }

    /// How many ordered messages are delivered here.
    pub fn number(&self) -> u64 {
        self.delivery.number()
    }

    /// Messages known and not delivered.
    pub fn pending(&self) -> impl Iterator<Item = &Message> {
        self.in_channels().chain(self.speech.messages())
    }

    fn in_channels(&self) -> impl Iterator<Item = &Message> {
        self.causal.pending().chain(self.delivery.undelivered()).chain(self.ordered.waiting())
    }

    /// At most `limit` of them behind that one, in the order of their names, and those on their way to the disk; see [`UNDELIVERED_BUDGET`].
    pub fn undelivered(&self, after: Option<MessageId>, limit: usize) -> Vec<Message> {
        let stored = self.disk.iter().filter_map(|then| if let Then::OwnOrdered(message) = then { Some(message) } else { None });
        let behind = self.pending().chain(stored).filter(|message| after.is_none_or(|after| message.id > after));
        let known: BTreeMap<MessageId, &Message> = behind.map(|message| (message.id, message)).collect();
        let mut bytes = 0;
        let fits = |message: &&Message| {
            let first = bytes == 0;
            bytes += message.body.bytes().len() + 1;
            first || bytes <= UNDELIVERED_BUDGET
        };
        known.into_values().take(limit).take_while(fits).cloned().collect()
    }

    /// Whether a message is delivered here.
    pub fn is_delivered(&self, id: MessageId) -> bool {
        match id.channel {
            Channel::Causal => self.causal.is_delivered(id),
            Channel::Ordered => self.delivery.is_delivered(id),
        }
    }

    /// Whether all that a majority of the voters had is here.
    pub fn is_synchronised(&self) -> bool {
        self.founding.is_some() && self.asking.is_synchronised()
    }

    /// What is under way.
    pub fn transaction(&self) -> &Transaction {
        self.ordered.transaction()
    }

    /// Pages of history fetched and sent since the start.
    pub fn pages(&self) -> (u64, u64) {
        (self.asking.pages, self.sending.pages)
    }

    /// Whose ballot this node follows.
    pub fn coordinator(&self) -> Option<NodeId> {
        self.ordered.coordinator()
    }

    fn persist(&mut self, changes: Vec<Change>, then: Then, out: &mut Vec<Effect>) {
        // What still moves in a history that is being left comes to nothing: the replica is about to be built anew from the disk.
        if self.joining && !matches!(then, Then::Join(..)) {
            return;
        }
        let own = (!std::mem::replace(&mut self.owned, true)).then(|| Change::Own(self.owner.clone()));
        self.disk.push_back(then);
        out.push(Effect::Persist(own.into_iter().chain(changes).collect()));
    }

    /// A client's message. [`Effect::Accepted`] follows when it is durable.
    pub fn on_local(
        &mut self,
        world: &mut World<'_>,
        channel: Channel,
        media_type: String,
        body: Body,
        out: &mut Vec<Effect>,
    ) -> Result<MessageId, Full> {
        if self.joining {
            return Err(Full::Joining);
        }
        let sent = world.now.wall;
        let id = self.say(world, channel, media_type, body, sent, out).ok_or(Full::Pending)?;
        self.advance(world, out);
        Ok(id)
    }

    /// The oldest persist that was not reported yet is durable.
    pub fn on_persisted(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) -> Result<(), StoreFault> {
        match self.disk.pop_front() {
            Some(Then::Causal) => {
                let mut effects = Vec::new();
                self.causal.on_persisted(&mut effects);
                self.route_causal(world, effects, &mut Tell::default(), None, out);
            }
            Some(Then::Ordered) => {
                let mut effects = Vec::new();
                let causal = &self.causal;
                self.ordered.on_persisted(world.now.instant, &|frontier| causal.has(frontier), &mut effects);
                self.route_ordered(world, effects, out);
            }
            Some(Then::Delivered(places)) => out.extend(places.into_iter().map(Effect::Delivered)),
            Some(Then::OwnOrdered(message)) => {
                let id = message.id;
                if let Some(message) = self.speech.unless_withheld(message) {
                    self.ordered.on_message(message, world.now.instant);
                }
                self.accepted(id, out);
            }
            Some(Then::Released) => self.speak(world, out),
            Some(Then::Holdings(Some(call), holdings)) => out.push(Effect::Answer(call, HistoryAnswer::Holdings(holdings))),
            Some(Then::Holdings(None, holdings)) => {
                let epoch = self.causal.epoch().clone();
                self.seats.on_holdings(&epoch, self.me, holdings);
            }
            Some(Then::Join(founding, renamed)) => {
                *self = Self::new(self.me, self.seats.count(), world.store, world.now.instant)?;
                let accepted: Vec<MessageId> = renamed.values().copied().collect();
                out.push(Effect::Renamed(renamed));
                out.extend(accepted.into_iter().map(Effect::Accepted));
                out.push(Effect::Joined(founding));
            }
            Some(Then::Forgotten) | None => {}
        }
        self.advance(world, out);
        Ok(())
    }

    /// When [`Self::on_deadline`] is wanted.
    pub fn deadline(&self) -> Option<Instant> {
        if self.founding.is_none() || self.joining {
            return None;
        }
        let votes = self.causal.epoch().voters.contains(&self.me);
        let seek = Some(self.seek_at).filter(|_| self.seeks() || votes && self.seats.has_candidates());
        let asking = self.asking.deadline().filter(|_| self.may_ask());
        [self.causal.deadline(), self.ordered.deadline(), asking, seek].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        if self.founding.is_none() || self.joining {
            return;
        }
        let now = world.now.instant;
        let mut effects = Vec::new();
        self.causal.on_deadline(now, &mut effects);
        self.route_causal(world, effects, &mut Tell::default(), None, out);
        let mut effects = Vec::new();
        if self.ordered.deadline().is_some_and(|at| at <= now) {
            self.ordered.on_deadline(now, world.rng, &mut effects);
        }
        self.route_ordered(world, effects, out);
        self.advance(world, out);
        self.take_seats(world, out);
        self.advance(world, out);
    }

    fn ask(&self, node: NodeId, ask: Ask, asked: Asked, out: &mut Vec<Effect>) {
        if let Some(founding) = self.founding {
            out.push(Effect::Call(node, HistoryCall { history: founding.id, ask }, asked));
        }
    }

    /// Does what has become possible: delivers slots, proposes, asks for what is missing, sends letters.
    fn advance(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        if self.joining {
            return;
        }
        self.say_again(world, out);
        while let Some((changes, places)) = self.delivery.next(&self.causal, world.now.wall) {
            let slot = self.delivery.slot();
            for place in places.iter().filter(|place| place.id.origin == self.me) {
                self.sent = self.sent.max(place.id.sequence);
                out.extend(place.order.map(|order| Effect::Ordered(place.id, order)));
            }
            self.persist(changes, Then::Delivered(places), out);
            let mut effects = Vec::new();
            self.causal.on_slot(slot, &mut effects);
            self.route_causal(world, effects, &mut Tell::default(), None, out);
        }
        let (causal, mut effects) = (&self.causal, Vec::new());
        self.ordered.on_progress(world.now.instant, &|frontier| causal.has(frontier), &mut effects);
        self.route_ordered(world, effects, out);
        self.ask_for_more(world, out);
        self.end_silence(world, out);
        if self.founding.is_some() {
            for (node, letter) in self.letters.due() {
                self.ask(node, Ask::Tell(letter), Asked::Letter, out);
            }
        }
    }

    /// What must hold at all times.
    pub fn check(&self) {
        self.causal.check();
        self.ordered.check();
        self.delivery.check();
        self.letters.check();
        self.asking.check();
        self.sending.check();
        self.seats.check();
        assert!(self.founding.is_some() || self.delivery.index() == 0, "without a history nothing is delivered");
    }
}

/// What the causal channel remembers. Its newest messages are not kept on disk: the last one of each origin, but for those that another of
/// them names, is as good, only perhaps longer.
fn causal_memory(owner: &Owner, remembered: &Remembered, pending: Vec<Message>) -> causal::Durable {
    let named: BTreeSet<MessageId> = remembered.causal.iter().flat_map(|message| message.frontier.newest.iter().copied()).collect();
    let mut newest: BTreeSet<MessageId> = remembered.causal.iter().map(|message| message.id).filter(|id| !named.contains(id)).collect();
    for origin in owner.before.keys().chain([&owner.node]) {
        let said = pending.iter().map(|message| message.id).filter(|id| id.origin == *origin && owner.said(*id));
        if let Some(own) = said.max() {
            newest.retain(|id| id.origin != *origin);
            newest.insert(own);
        }
    }
    let delivered = remembered.causal.iter().map(|message| (message.id.origin, message.id.sequence)).collect();
    causal::Durable { delivered, pending, newest, slot: remembered.slot }
}

#[cfg(test)]
mod tests;
