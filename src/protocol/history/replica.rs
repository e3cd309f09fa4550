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
//! 4. Everything that follows from a change of the durable state waits for the disk; persists are reported in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::history::asking::{Asking, Question, SessionId};
use crate::history::causal::{self, Causal, Tell, Whom};
use crate::history::delivery::Delivery;
use crate::history::disk::{Change, Founding, HistoryStore, Place, Remembered};
use crate::history::epoch::{Epoch, MAX_VOTERS};
use crate::history::letters::{Letters, merge};
use crate::history::message::{Body, Channel, Message, MessageId};
use crate::history::ordered::{self, Batch, Ordered};
use crate::history::seats::{ASKING, SEEKING, Seats};
use crate::history::sending::{self, Sending};
use crate::history::talk::{Ask, Head, HistoryAnswer, HistoryCall, Holdings, Known, Letter, Piece};
use crate::history::transaction::{Signal, Transaction};
use crate::ids::NodeId;
use crate::io::PeerCall;
use crate::store::StoreFault;
use crate::time::{Instant, Now};

/// How many others hear a rumor from a node.
pub const FAN_OUT: usize = 4;
/// How many members beside the voters say how far they are when a node synchronises.
const ASKED_BESIDE: usize = 4;
/// An origin that sent nothing for so long is compared only when all are.
const LATELY: Duration = Duration::from_secs(60);
/// No page is asked for while so many persists are under way, or so many slots wait for what came before them.
const MAX_UNDER_WAY: usize = 32;

/// What the replica sees of the network.
pub trait Network {
    /// Whether that node is believed alive.
    fn is_live(&self, node: NodeId) -> bool;

    /// At most `n` random live peers.
    fn few(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<NodeId>;
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
    Join(Founding),
}

/// One node's part in the history.
#[derive(Debug)]
pub struct Replica {
    me: NodeId,
    founding: Option<Founding>,
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
    /// A node with what it remembers.
    pub fn new(me: NodeId, store: &dyn HistoryStore, now: Instant) -> Result<Self, StoreFault> {
        let remembered = store.remembered()?;
        let mut decided = VecDeque::new();
        while let Some((slot, batch)) = store.slots(remembered.slot + 1 + decided.len() as u64, 1)?.pop() {
            decided.push_back((slot, batch));
        }
        let epoch = remembered.epoch.clone().or_else(|| remembered.founding.map(|founding| founding.epoch())).unwrap_or_else(nowhere);
        let mut ordered = remembered.ordered.clone();
        for message in decided.iter().flat_map(|(_, batch)| batch.messages()) {
            let last = ordered.entry(message.id.origin).or_default();
            *last = (*last).max(message.id.sequence);
        }
        let (kept_ordered, kept_causal): (Vec<Message>, Vec<Message>) =
            remembered.kept.iter().cloned().partition(|message| message.id.channel == Channel::Ordered);
        let own = kept_ordered.iter().filter(|message| message.id.origin == me).map(|message| message.id.sequence).max();
        let mut asking = Asking::default();
        asking.doubt(now);
        let mut replica = Self {
            me,
            founding: remembered.founding,
            joining: false,
            sent: own.max(ordered.get(&me).copied()).unwrap_or(0),
            causal: Causal::new(me, epoch.clone(), causal_memory(me, &remembered, kept_causal), now),
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
            seats: Seats::default(),
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
        Ok(replica)
    }

    /// The history it belongs to.
    pub fn founding(&self) -> Option<Founding> {
        self.founding
    }

    /// What it says of its history to others.
    pub fn head(&self) -> Option<Head> {
        let young = self.ordered.is_untouched() && self.delivery.index() == 0;
        self.founding.filter(|_| !self.joining).map(|founding| Head { founding, young })
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
        self.causal.pending().chain(self.ordered.waiting())
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

    /// Founds a history with this node as its only voter, unless it belongs to one.
    pub fn found(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        if self.founding.is_none() && !self.joining {
            let id = uuid::Builder::from_random_bytes(world.rng.random()).into_uuid();
            self.join(Founding { id, founder: self.me }, out);
        }
    }

    /// An operator's word: leave this history for that one.
    pub fn adopt(&mut self, founding: Founding, out: &mut Vec<Effect>) {
        if self.founding != Some(founding) && !self.joining {
            self.join(founding, out);
        }
    }

    fn join(&mut self, founding: Founding, out: &mut Vec<Effect>) {
        self.joining = true;
        // What was delivered in the history that is left keeps its numbers there; what was not is sent anew, from 1 on.
        let mut next: BTreeMap<Channel, u64> = BTreeMap::new();
        let own: Vec<Message> = self.own().cloned().collect();
        let keep = own.into_iter().map(|message| {
            let sequence = next.entry(message.id.channel).or_default();
            *sequence += 1;
            let id = MessageId { sequence: *sequence, ..message.id };
            Change::Keep(Message { id, frontier: Default::default(), ..message })
        });
        let changes = std::iter::once(Change::Join(founding)).chain(keep).collect();
        self.persist(changes, Then::Join(founding), out);
    }

    /// This node's own messages that are not delivered, those on their way to the disk included.
    fn own(&self) -> impl Iterator<Item = &Message> {
        let stored = self.disk.iter().filter_map(|then| if let Then::OwnOrdered(message) = then { Some(message) } else { None });
        self.pending().filter(|message| message.id.origin == self.me).chain(stored)
    }

    fn persist(&mut self, changes: Vec<Change>, then: Then, out: &mut Vec<Effect>) {
        // What still moves in a history that is being left comes to nothing: the replica is about to be built anew from the disk.
        if self.joining && !matches!(then, Then::Join(_)) {
            return;
        }
        self.disk.push_back(then);
        out.push(Effect::Persist(changes));
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
        let id = match channel {
            Channel::Causal => {
                let mut effects = Vec::new();
                let id = self.causal.on_local(media_type, body, world.now.wall, world.now.instant, &mut effects).ok_or(Full::Pending)?;
                self.route_causal(world, effects, &mut Tell::default(), None, out);
                id
            }
            Channel::Ordered => {
                if self.ordered.waiting().count() >= ordered::MAX_WAITING {
                    return Err(Full::Pending);
                }
                self.sent += 1;
                let id = MessageId { origin: self.me, channel, sequence: self.sent };
                let frontier = self.causal.frontier_of_ordered();
                let message = Message { id, frontier, media_type, body, sent: world.now.wall };
                self.persist(vec![Change::Keep(message.clone())], Then::OwnOrdered(message), out);
                id
            }
        };
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
                self.ordered.on_message(message, world.now.instant);
                out.push(Effect::Accepted(id));
            }
            Some(Then::Holdings(Some(call), holdings)) => out.push(Effect::Answer(call, HistoryAnswer::Holdings(holdings))),
            Some(Then::Holdings(None, holdings)) => {
                let epoch = self.causal.epoch().clone();
                self.seats.on_holdings(&epoch, self.me, holdings);
            }
            Some(Then::Join(founding)) => {
                let accepted: Vec<MessageId> = self.own().map(|message| message.id).collect();
                *self = Self::new(self.me, world.store, world.now.instant)?;
                out.extend(accepted.into_iter().map(Effect::Accepted));
                out.push(Effect::Joined(founding));
            }
            None => {}
        }
        self.advance(world, out);
        Ok(())
    }

    /// A node says something about a history.
    pub fn on_call(
        &mut self,
        world: &mut World<'_>,
        from: NodeId,
        call: PeerCall,
        said: HistoryCall,
        out: &mut Vec<Effect>,
    ) -> Result<(), StoreFault> {
        if self.joining || self.founding.is_none_or(|founding| founding.id != said.history) {
            out.push(Effect::Answer(call, HistoryAnswer::Elsewhere(self.head())));
            return Ok(());
        }
        let answer = match said.ask {
            Ask::Tell(letter) => Some(HistoryAnswer::Told(self.on_letter(world, from, letter, out))),
            Ask::Step(step) => {
                let mut effects = Vec::new();
                self.ordered.on_step(world.now.instant, from, call, step, &mut effects);
                self.route_ordered(world, effects, out);
                None
            }
            Ask::HandOver(messages) => {
                messages.into_iter().for_each(|message| _ = self.ordered.on_message(message, world.now.instant));
                Some(HistoryAnswer::Taken(self.ordered.coordinator()))
            }
            Ask::Versions(theirs) => Some(HistoryAnswer::Versions(self.beyond(&theirs, world.now.instant))),
            Ask::UpdateMe(request) => Some(if self.sending.admit(from, world.now.instant) {
                self.ordered.on_signal(Signal::UpdateMeRequestReceived);
                let update = sending::page(&request, world.store)?;
                self.sending.on_sent(from, update.next.is_none());
                self.ordered.on_signal(Signal::UpdateByRequestSent);
                HistoryAnswer::Update(update)
            } else {
                HistoryAnswer::Busy
            }),
            Ask::Seat(slot) => {
                if slot >= self.ordered.decided() && self.causal.epoch().voters.contains(&self.me) {
                    self.seats.on_candidate(from, world.now.instant);
                }
                Some(HistoryAnswer::Taken(self.ordered.coordinator().filter(|node| *node != self.me)))
            }
            Ask::Settle(_) => {
                let holdings = self.holdings();
                self.persist(vec![], Then::Holdings(Some(call), holdings), out);
                None
            }
        };
        out.extend(answer.map(|answer| Effect::Answer(call, answer)));
        self.advance(world, out);
        Ok(())
    }

    /// A call was answered, or was not.
    pub fn on_answer(&mut self, world: &mut World<'_>, from: NodeId, asked: Asked, answer: Option<HistoryAnswer>, out: &mut Vec<Effect>) {
        if self.joining {
            return;
        }
        if let Some(HistoryAnswer::Elsewhere(Some(head))) = answer {
            self.on_head(from, head, out);
        }
        match (asked, answer) {
            (Asked::Letter, answer) => {
                self.letters.on_ended(from);
                if let Some(HistoryAnswer::Told(tell)) = answer {
                    let letter = Letter { tell, slots: BTreeMap::new() };
                    let reply = self.on_letter(world, from, letter, out);
                    self.tell(from, reply);
                }
            }
            (Asked::Step, Some(HistoryAnswer::Vote(vote))) => {
                let (causal, mut effects) = (&self.causal, Vec::new());
                self.ordered.on_vote(world.now.instant, from, vote, &|frontier| causal.has(frontier), &mut effects);
                self.route_ordered(world, effects, out);
            }
            (Asked::Versions(session), Some(HistoryAnswer::Versions(known))) => self.asking.on_versions(session, from, Some(known)),
            (Asked::Versions(session), _) => self.asking.on_versions(session, from, None),
            (Asked::Page(session), Some(HistoryAnswer::Update(update))) => {
                update.pieces.into_iter().for_each(|piece| self.on_piece(world, piece, out));
                self.ordered.on_signal(Signal::UpdateByRequestReceived);
                self.asking.on_page(session, from, update.next);
            }
            (Asked::Page(session), _) => {
                self.ordered.on_signal(Signal::UpdateByRequestReceived);
                self.asking.on_page_failed(session, from);
            }
            (Asked::Seat, Some(HistoryAnswer::Taken(coordinator))) => self.usher = coordinator,
            (Asked::Seat, _) => self.usher = None,
            (Asked::Holdings(epoch), Some(HistoryAnswer::Holdings(holdings))) if epoch == self.causal.epoch().number => {
                let ahead = holdings.slot > self.ordered.decided() || holdings.epoch > epoch;
                if ahead {
                    self.asking.on_ahead(from);
                }
                let epoch = self.causal.epoch().clone();
                self.seats.on_holdings(&epoch, from, holdings);
                self.take_seats(world, out);
            }
            (Asked::Step | Asked::HandOver | Asked::Holdings(_), _) => {}
        }
        self.advance(world, out);
    }

    /// Another node's history, as an exchange shows it where fingerprints differ.
    pub fn on_differ(&mut self, world: &mut World<'_>, from: NodeId, head: Head, out: &mut Vec<Effect>) {
        if self.founding.is_some_and(|founding| founding == head.founding) {
            if let Some(full) = self.asking.on_differ(from).filter(|_| !self.joining) {
                let known = self.known(full, world.now.instant);
                let questions = self.asking.begin(BTreeSet::from([from]), false, &known, world.now.instant);
                self.put(questions, out);
            }
        } else {
            self.on_head(from, head, out);
        }
        self.advance(world, out);
    }

    /// An exchange found nothing that differs.
    pub fn on_equal(&mut self, from: NodeId) {
        self.asking.on_equal(from);
    }

    /// This node heard nobody for longer than it takes to call a node dead, and hears somebody again.
    pub fn on_silence_ended(&mut self, now: Instant) {
        self.asking.doubt(now);
    }

    fn on_head(&mut self, from: NodeId, head: Head, out: &mut Vec<Effect>) {
        if self.joining {
            return;
        }
        match self.head() {
            None => self.join(head.founding, out),
            Some(ours) if ours.founding == head.founding => {}
            Some(ours) if ours.young && (!head.young || head.founding.id < ours.founding.id) => self.join(head.founding, out),
            Some(ours) if !ours.young && !head.young => out.push(Effect::Apart(from, head.founding)),
            // The other one yields.
            Some(_) => {}
        }
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

    fn on_letter(&mut self, world: &mut World<'_>, from: NodeId, letter: Letter, out: &mut Vec<Effect>) -> Tell {
        let Letter { tell, slots } = letter;
        for (slot, batch) in slots {
            if slot > self.ordered.decided() + 1 {
                self.asking.on_ahead(from);
            } else if slot > self.ordered.decided() {
                // Heard for the first time: passed on once.
                for peer in world.network.few(FAN_OUT, world.rng).into_iter().filter(|peer| *peer != from) {
                    self.letters.decided(peer, slot, &batch);
                }
                self.on_piece(world, Piece::Slot(slot, batch), out);
            }
        }
        if tell.epoch > self.causal.epoch().number {
            self.asking.on_ahead(from);
        }
        let (mut effects, mut answer) = (Vec::new(), Tell { epoch: self.causal.epoch().number, ..Tell::default() });
        self.causal.on_tell(world.now.instant, from, tell, &mut effects);
        self.route_causal(world, effects, &mut answer, Some(from), out);
        answer
    }

    fn on_piece(&mut self, world: &mut World<'_>, piece: Piece, out: &mut Vec<Effect>) {
        match piece {
            Piece::Message(message) => {
                let mut effects = Vec::new();
                self.causal.on_history(vec![message], &mut effects);
                self.route_causal(world, effects, &mut Tell::default(), None, out);
            }
            Piece::Slot(slot, batch) => {
                let mut effects = Vec::new();
                self.ordered.on_decided(slot, batch, &mut effects);
                self.route_ordered(world, effects, out);
            }
        }
    }

    fn tell(&mut self, node: NodeId, tell: Tell) {
        if tell != (Tell { epoch: tell.epoch, ..Tell::default() }) {
            self.letters.tell(node, tell);
        }
    }

    /// Carries out what the causal channel wants; what it says to `asker` goes into `answer`.
    fn route_causal(
        &mut self,
        world: &mut World<'_>,
        effects: Vec<causal::Effect>,
        answer: &mut Tell,
        asker: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                causal::Effect::Persist(changes) => {
                    let changes = changes.into_iter().map(|change| self.causal_change(world, change)).collect();
                    self.persist(changes, Then::Causal, out);
                }
                causal::Effect::Accepted(id) => out.push(Effect::Accepted(id)),
                causal::Effect::Delivered(message) => {
                    let place = self.places.pop_front().filter(|place| place.id == message.id);
                    out.extend(place.map(Effect::Delivered));
                }
                causal::Effect::Tell(Whom::Node(node), tell) if Some(node) == asker => merge(answer, tell),
                causal::Effect::Tell(Whom::Node(node), tell) => self.tell(node, tell),
                causal::Effect::Tell(Whom::AFew, tell) => {
                    for node in world.network.few(FAN_OUT, world.rng).into_iter().filter(|node| Some(*node) != asker) {
                        self.tell(node, tell.clone());
                    }
                }
            }
        }
    }

    fn causal_change(&mut self, world: &World<'_>, change: causal::Change) -> Change {
        match change {
            causal::Change::Store(message) => Change::Keep(message),
            causal::Change::Deliver(message) => {
                let place = self.delivery.place(message.id, None, world.now.wall);
                self.places.push_back(place);
                self.lately.insert(message.id.origin, world.now.instant);
                Change::Deliver(place, message)
            }
        }
    }

    fn route_ordered(&mut self, world: &mut World<'_>, effects: Vec<ordered::Effect>, out: &mut Vec<Effect>) {
        for effect in effects {
            match effect {
                ordered::Effect::Persist(changes) => {
                    let changes = changes.into_iter().map(|change| self.ordered_change(change)).collect();
                    self.persist(changes, Then::Ordered, out);
                }
                ordered::Effect::Ask(voter, step) => self.ask(voter, Ask::Step(step), Asked::Step, out),
                ordered::Effect::Answer(call, vote) => out.push(Effect::Answer(call, HistoryAnswer::Vote(vote))),
                ordered::Effect::Behind(node, _) => self.asking.on_ahead(node),
                ordered::Effect::Decided(slot, batch) => self.on_decided(world, slot, batch, out),
                ordered::Effect::HandOver(node, messages) => self.ask(node, Ask::HandOver(messages), Asked::HandOver, out),
            }
        }
    }

    fn ordered_change(&mut self, change: ordered::Change) -> Change {
        match change {
            ordered::Change::Promise(ballot) => Change::Promise(ballot),
            ordered::Change::Accept(slot, accepted) => Change::Accept(slot, accepted),
            ordered::Change::Decide(slot, batch) => {
                if let Some(next) = batch.next_epoch(&self.decided_epoch) {
                    self.decided_epoch = next;
                }
                Change::Decide(slot, batch, self.decided_epoch.clone())
            }
        }
    }

    /// A slot is decided, durably here.
    fn on_decided(&mut self, world: &mut World<'_>, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        if self.ordered.is_coordinator() {
            for peer in world.network.few(FAN_OUT, world.rng).into_iter().filter(|peer| !self.causal.epoch().voters.contains(peer)) {
                self.letters.decided(peer, slot, &batch);
            }
        }
        if let Some(epoch) = batch.next_epoch(self.causal.epoch()) {
            let mut effects = Vec::new();
            self.causal.on_epoch(epoch, &mut effects);
            self.route_causal(world, effects, &mut Tell::default(), None, out);
        }
        self.delivery.on_decided(slot, batch);
    }

    fn ask(&self, node: NodeId, ask: Ask, asked: Asked, out: &mut Vec<Effect>) {
        if let Some(founding) = self.founding {
            out.push(Effect::Call(node, HistoryCall { history: founding.id, ask }, asked));
        }
    }

    fn put(&mut self, questions: impl IntoIterator<Item = Question>, out: &mut Vec<Effect>) {
        for Question { to, ask, session } in questions {
            let asked = match &ask {
                Ask::UpdateMe(_) => {
                    self.ordered.on_signal(Signal::UpdateMeRequestSent);
                    Asked::Page(session)
                }
                Ask::Versions(_) | Ask::Tell(_) | Ask::Step(_) | Ask::HandOver(_) | Ask::Seat(_) | Ask::Settle(_) => {
                    Asked::Versions(session)
                }
            };
            self.ask(to, ask, asked, out);
        }
    }

    /// How far this node is.
    fn known(&mut self, full: bool, now: Instant) -> Known {
        self.lately.retain(|_, at| now.since(*at) < LATELY);
        let named = |origin: &NodeId| full || self.lately.contains_key(origin);
        let origins = self.causal.delivered().iter().filter(|(origin, _)| named(origin)).map(|(origin, last)| (*origin, *last)).collect();
        Known { slot: self.ordered.decided(), origins, full }
    }

    /// How far this node is where it is farther than another one.
    fn beyond(&mut self, theirs: &Known, now: Instant) -> Known {
        let mut ours = self.known(theirs.full, now);
        for origin in theirs.origins.keys() {
            if let Some(last) = self.causal.delivered().get(origin) {
                ours.origins.insert(*origin, *last);
            }
        }
        ours.origins.retain(|origin, last| theirs.origins.get(origin).is_none_or(|theirs| theirs < last));
        ours
    }

    fn holdings(&self) -> Holdings {
        let kept = self.causal.pending().map(|message| message.id).filter(|id| self.causal.keeps(*id)).collect();
        Holdings { epoch: self.causal.epoch().number, slot: self.ordered.decided(), delivered: self.causal.delivered().clone(), kept }
    }

    /// Whether this node is a learner that has caught up and might vote.
    fn seeks(&self) -> bool {
        let epoch = self.causal.epoch();
        self.is_synchronised() && !epoch.voters.contains(&self.me) && !epoch.voters.is_empty()
    }

    /// Asks for a seat, or sees to it that one is given.
    fn take_seats(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        let (now, epoch) = (world.now.instant, self.causal.epoch().clone());
        if self.seeks() && self.seek_at <= now {
            // With all seats taken one may become free in a minute at the soonest.
            self.seek_at = now + if epoch.voters.len() < MAX_VOTERS { SEEKING } else { 4 * SEEKING };
            let live: Vec<NodeId> = epoch.voters.iter().copied().filter(|voter| world.network.is_live(*voter)).collect();
            let any = (!live.is_empty()).then(|| live[world.rng.random_range(0..live.len())]);
            if let Some(voter) = self.usher.take().filter(|usher| live.contains(usher)).or(any) {
                self.ask(voter, Ask::Seat(self.ordered.decided()), Asked::Seat, out);
            }
        }
        if !epoch.voters.contains(&self.me) {
            return;
        }
        self.seats.observe(&epoch, |node| node == self.me || world.network.is_live(node), now);
        if self.seek_at <= now {
            self.seek_at = now + ASKING;
        }
        let Some(next) = self.seats.wanted(&epoch, now) else { return };
        if self.ordered.coordinator().is_some_and(|node| node != self.me && world.network.is_live(node)) {
            return;
        }
        if self.seats.is_settled(&epoch) {
            self.ordered.wish(next);
        } else if self.seats.asks(&epoch, now) {
            self.persist(vec![], Then::Holdings(None, self.holdings()), out);
            for voter in epoch.voters.iter().filter(|voter| **voter != self.me) {
                self.ask(*voter, Ask::Settle(epoch.number), Asked::Holdings(epoch.number), out);
            }
        }
    }

    /// Does what has become possible: delivers slots, proposes, asks for what is missing, sends letters.
    fn advance(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        if self.joining {
            return;
        }
        while let Some((changes, places)) = self.delivery.next(&self.causal, world.now.wall) {
            let slot = self.delivery.slot();
            self.persist(changes, Then::Delivered(places), out);
            let mut effects = Vec::new();
            self.causal.on_slot(slot, &mut effects);
            self.route_causal(world, effects, &mut Tell::default(), None, out);
        }
        let (causal, mut effects) = (&self.causal, Vec::new());
        self.ordered.on_progress(world.now.instant, &|frontier| causal.has(frontier), &mut effects);
        self.route_ordered(world, effects, out);
        self.ask_for_more(world, out);
        if self.founding.is_some() {
            for (node, letter) in self.letters.due() {
                self.ask(node, Ask::Tell(letter), Asked::Letter, out);
            }
        }
    }

    /// Whether disk and delivery keep up with what is fetched.
    fn may_ask(&self) -> bool {
        self.disk.len() < MAX_UNDER_WAY && self.delivery.waiting() < MAX_UNDER_WAY
    }

    fn ask_for_more(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        let now = world.now.instant;
        if self.founding.is_none() || !self.may_ask() {
            return;
        }
        if let Some(whom) = self.asking.due(now) {
            let general = whom.is_none();
            let mut nodes: BTreeSet<NodeId> = whom.into_iter().collect();
            if general {
                nodes.extend(self.causal.epoch().voters.iter().filter(|voter| **voter != self.me));
                nodes.extend(world.network.few(ASKED_BESIDE, world.rng));
            }
            let known = self.known(true, now);
            let questions = self.asking.begin(nodes, general, &known, now);
            self.put(questions, out);
        }
        if self.asking.is_busy() && !self.asking.is_fetching() {
            let ours = self.known(true, now);
            let question = self.asking.proceed(self.me, self.causal.epoch(), &ours, now);
            self.put(question, out);
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
fn causal_memory(me: NodeId, remembered: &Remembered, pending: Vec<Message>) -> causal::Durable {
    let named: BTreeSet<MessageId> = remembered.causal.iter().flat_map(|message| message.frontier.newest.iter().copied()).collect();
    let mut newest: BTreeSet<MessageId> = remembered.causal.iter().map(|message| message.id).filter(|id| !named.contains(id)).collect();
    if let Some(own) = pending.iter().filter(|message| message.id.origin == me).map(|message| message.id).max() {
        newest.retain(|id| id.origin != me);
        newest.insert(own);
    }
    let delivered = remembered.causal.iter().map(|message| (message.id.origin, message.id.sequence)).collect();
    causal::Durable { delivered, pending, newest, slot: remembered.slot }
}

#[cfg(test)]
mod tests;
