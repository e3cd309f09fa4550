//! The message history at a node: its replica's wishes become calls and persists, its clients are answered.
//!
//! 1. All changes that one input brings about are one persist.
//! 2. A client that said something is answered when that is durable, or, where it waits, when it is delivered or its time is over; never twice. One that
//!    waits for an ordered message does not wait for this node's disk to have the delivery, which a majority has: it is answered when that is asked for.
//! 3. What is said while the node joins a history is taken as soon as it has joined.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;

use crate::history::disk::{Change, Founding};
use crate::history::message::MessageId;
use crate::history::replica::{Asked, Effect, Network, Replica, World};
use crate::history::talk::{Head, HistoryAnswer, HistoryCall};
use crate::ids::NodeId;
use crate::io::{
    AdoptFault, ClientCall, Event, HistoryStatus, Outbox, Output, PeerCall, Persist, Refusal, Reply, Said, Say, SayFault, Standing, Token,
};
use crate::membership::Membership;
use crate::node::{After, Node, Purpose};
use crate::store::{Store, StoreFault};
use crate::time::{Instant, Now};
use crate::wire::{Answer, Request};

/// A node that heard nobody for so long asks for what it missed when it hears somebody again.
const SILENCE: Duration = Duration::from_secs(12);
/// Most messages of clients that are held until the node has joined a history: moments.
const MAX_HELD: usize = 256;
/// Most foreign histories remembered to be adopted.
const MAX_APART: usize = 16;

impl Network for Membership {
    fn is_live(&self, node: NodeId) -> bool {
        Self::is_live(self, node)
    }

    fn few(&self, n: usize, rng: &mut ChaCha8Rng) -> Vec<NodeId> {
        self.pick_some(n, &[], rng).into_iter().filter_map(|target| target.id).collect()
    }

    fn all(&self, most: usize) -> Option<Vec<NodeId>> {
        (self.live_count() <= most).then(|| self.live_ids())
    }

    fn next(&self, n: usize) -> Vec<NodeId> {
        self.successors(n)
    }
}

/// A client that waits for its message.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    call: ClientCall,
    /// Until when it waits for the delivery; `None` if it waits for the disk alone.
    until: Option<Instant>,
    durable: bool,
}

/// What follows from the history and is not done yet.
#[derive(Debug)]
pub(super) struct Telling {
    found: bool,
    changes: Vec<Change>,
    /// How many of the replica's persists those changes are.
    persists: usize,
    /// The persists on their way to the disk, and how many of the replica's each is.
    under_way: VecDeque<(Token, usize)>,
    waiting: BTreeMap<MessageId, Waiting>,
    /// Answers that follow the persist that the input at hand asks for.
    told: Vec<(ClientCall, Said)>,
    /// When the time of those is over whose messages are durable.
    ends: BTreeSet<(Instant, MessageId)>,
    /// Said while the node joins a history; taken when it has.
    held: VecDeque<(ClientCall, Say)>,
    adopting: Option<ClientCall>,
    apart: BTreeMap<uuid::Uuid, Founding>,
    heard: Instant,
}

impl Telling {
    pub(super) fn new(found: bool, now: Instant) -> Self {
        Self {
            found,
            changes: vec![],
            persists: 0,
            under_way: VecDeque::new(),
            waiting: BTreeMap::new(),
            told: vec![],
            ends: BTreeSet::new(),
            held: VecDeque::new(),
            adopting: None,
            apart: BTreeMap::new(),
            heard: now,
        }
    }

    /// When a client's time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Answers those who were to be answered behind a persist.
    fn tell(&mut self, out: &mut Outbox) {
        out.extend(self.told.drain(..).map(|(call, said)| Output::Reply(call, Reply::Say(Ok(said)))));
    }

    /// The core is at its end: who waits for the disk is told that it failed, who waits for a delivery that it did not come.
    pub(super) fn stop(&mut self, fault: &StoreFault, key_taken: bool, out: &mut Outbox) {
        self.ends.clear();
        self.tell(out);
        let lost = || if key_taken { SayFault::KeyTaken } else { SayFault::Store(fault.clone()) };
        for (id, waiting) in std::mem::take(&mut self.waiting) {
            let result = if waiting.durable { Ok(Said { id, standing: Standing::Pending }) } else { Err(lost()) };
            out.push(Output::Reply(waiting.call, Reply::Say(result)));
        }
        for (call, _) in std::mem::take(&mut self.held) {
            out.push(Output::Reply(call, Reply::Say(Err(lost()))));
        }
        let fault = if key_taken { AdoptFault::KeyTaken } else { AdoptFault::Store(fault.clone()) };
        let adopting = self.adopting.take();
        out.extend(adopting.map(|call| Output::Reply(call, Reply::AdoptHistory(Err(fault)))));
    }
}

impl<S: Store> Node<S> {
    /// This node's part in the history, for the simulator's checks.
    pub fn history(&self) -> &Replica {
        &self.history
    }

    fn with_history<T>(&mut self, now: Now, out: &mut Outbox, act: impl FnOnce(&mut Replica, &mut World<'_>, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let store = self.records.store().history();
        let mut world = World { now, rng: &mut self.rng, network: &self.membership, store };
        let result = act(&mut self.history, &mut world, &mut effects);
        effects.into_iter().for_each(|effect| self.perform_effect(effect, out));
        result
    }

    fn perform_effect(&mut self, effect: Effect, out: &mut Outbox) {
        match effect {
            Effect::Persist(changes) => {
                self.telling.changes.extend(changes);
                self.telling.persists += 1;
            }
            Effect::Call(node, call, asked) => match self.membership.target(node).filter(|_| !self.leaving) {
                Some(target) => self.call(target, Request::History(Box::new(call)), Purpose::History(node, asked), out),
                None => self.unanswered.push((node, asked)),
            },
            Effect::Answer(call, answer) => {
                let ended = self.renounced.as_ref().map(|_| Refusal::Stopped { cluster: self.cluster.clone() });
                let answer = ended.map_or_else(|| Ok(self.envelope(Answer::History(Box::new(answer)))), Err);
                out.push(Output::Answer(call, answer));
            }
            Effect::Renamed(names) => {
                let waiting = std::mem::take(&mut self.telling.waiting);
                self.telling.waiting = waiting.into_iter().map(|(id, client)| (names.get(&id).map_or(id, |id| *id), client)).collect();
            }
            Effect::Accepted(id) => self.on_accepted(id, out),
            // What is decided is not written any more once the key is another's.
            Effect::Ordered(..) if self.renounced.is_some() => {}
            Effect::Ordered(id, order) => {
                if self.telling.waiting.get(&id).is_some_and(|waiting| waiting.durable)
                    && let Some(call) = self.waits_no_more(id)
                {
                    self.telling.told.push((call, Said { id, standing: Standing::Ordered(order) }));
                }
            }
            Effect::Delivered(place) => {
                out.push(Output::Event(Event::Delivered(place)));
                self.tell_client(place.id, Standing::Delivered(place), out);
            }
            Effect::Joined(founding) => {
                // What was asked in the history that was left is no answer in this one.
                self.calls.retain(|_, purpose| !matches!(purpose, Purpose::History(..)));
                self.unanswered.clear();
                out.push(Output::Event(Event::HistoryJoined(founding)));
                self.telling.apart.remove(&founding.id);
                let adopting = self.telling.adopting.take();
                out.extend(adopting.map(|call| Output::Reply(call, Reply::AdoptHistory(Ok(founding)))));
            }
            Effect::Apart(node, founding) => {
                if self.telling.apart.len() < MAX_APART && self.telling.apart.insert(founding.id, founding).is_none() {
                    out.push(Output::Event(Event::HistoriesApart(node, founding)));
                }
            }
        }
    }

    /// Who waits for a delivery is told that the message is durable, now or when it is.
    pub(super) fn conclude_sayings(&mut self, out: &mut Outbox) {
        for (_, id) in std::mem::take(&mut self.telling.ends) {
            self.tell_client(id, Standing::Pending, out);
        }
        self.telling.waiting.values_mut().for_each(|waiting| waiting.until = None);
    }

    fn on_accepted(&mut self, id: MessageId, out: &mut Outbox) {
        let Some(waiting) = self.telling.waiting.get_mut(&id) else { return };
        waiting.durable = true;
        match waiting.until {
            Some(until) => drop(self.telling.ends.insert((until, id))),
            None => self.tell_client(id, Standing::Pending, out),
        }
    }

    fn tell_client(&mut self, id: MessageId, standing: Standing, out: &mut Outbox) {
        let call = self.waits_no_more(id);
        out.extend(call.map(|call| Output::Reply(call, Reply::Say(Ok(Said { id, standing })))));
    }

    /// The client that waits for that message, which is about to be answered.
    fn waits_no_more(&mut self, id: MessageId) -> Option<ClientCall> {
        let waiting = self.telling.waiting.remove(&id)?;
        if let Some(until) = waiting.until {
            self.telling.ends.remove(&(until, id));
        }
        Some(waiting.call)
    }

    pub(super) fn on_say(&mut self, now: Now, call: ClientCall, say: Say, out: &mut Outbox) {
        if self.history.is_joining() && self.telling.held.len() < MAX_HELD {
            self.telling.held.push_back((call, say));
            return;
        }
        let Say { channel, media_type, body, wait } = say;
        let until = wait.filter(|_| !self.concluding).map(|wait| now.instant + wait);
        match self.with_history(now, out, |replica, world, out| replica.on_local(world, channel, media_type, body, out)) {
            Ok(id) => {
                self.telling.waiting.insert(id, Waiting { call, until, durable: false });
            }
            Err(full) => out.push(Output::Reply(call, Reply::Say(Err(SayFault::Full(full))))),
        }
    }

    pub(super) fn on_adopt(&mut self, now: Now, call: ClientCall, id: uuid::Uuid, out: &mut Outbox) {
        let fault = if self.history.founding().is_some_and(|founding| founding.id == id) {
            AdoptFault::Current
        } else if self.history.has_left(id) {
            AdoptFault::Left
        } else if let Some(founding) = self.telling.apart.get(&id).copied() {
            self.telling.adopting = Some(call);
            return self.with_history(now, out, |replica, _, out| replica.adopt(founding, out));
        } else {
            AdoptFault::Unknown
        };
        out.push(Output::Reply(call, Reply::AdoptHistory(Err(fault))));
    }

    pub(super) fn on_history_call(
        &mut self,
        now: Now,
        from: NodeId,
        call: PeerCall,
        said: HistoryCall,
        out: &mut Outbox,
    ) -> Result<(), StoreFault> {
        let conflict = self.history.contradicted_by_call(&said);
        if self.is_contradicted_by_history(now, conflict) {
            return Ok(());
        }
        self.with_history(now, out, |replica, world, out| replica.on_call(world, from, call, said, out))
    }

    pub(super) fn on_history_answer(&mut self, now: Now, from: NodeId, asked: Asked, answer: HistoryAnswer, out: &mut Outbox) {
        let conflict = self.history.contradicted_by_answer(&answer);
        if !self.is_contradicted_by_history(now, conflict) {
            self.with_history(now, out, |replica, world, out| replica.on_answer(world, from, asked, Some(answer), out));
        }
    }

    /// An exchange showed the other node's history, if it differs from this node's.
    pub(super) fn compare_histories(&mut self, now: Now, from: NodeId, theirs: Option<Head>, out: &mut Outbox) {
        match theirs {
            Some(head) => self.with_history(now, out, |replica, world, out| replica.on_differ(world, from, head, out)),
            None => self.history.on_equal(from),
        }
    }

    pub(super) fn on_history_persisted(&mut self, now: Now, token: Token, out: &mut Outbox) -> Result<(), StoreFault> {
        // Persists become durable in their order, whatever the order in which that is heard of.
        while let Some((_, persists)) = self.telling.under_way.pop_front_if(|(earlier, _)| *earlier <= token) {
            for _ in 0..persists {
                self.with_history(now, out, |replica, world, out| replica.on_persisted(world, out))?;
            }
        }
        while !self.history.is_joining()
            && let Some((call, say)) = self.telling.held.pop_front()
        {
            self.on_say(now, call, say, out);
        }
        Ok(())
    }

    /// This node heard somebody.
    pub(super) fn on_heard_of_history(&mut self, now: Now) {
        if now.instant.since(self.telling.heard) > SILENCE {
            self.history.on_silence_ended(now.instant);
        }
        self.telling.heard = now.instant;
    }

    /// A bootstrap node names this node the founder.
    pub(super) fn on_named(&mut self) {
        self.telling.found = self.history.founding().is_none();
    }

    /// What has become due.
    pub(super) fn keep_history(&mut self, now: Now, out: &mut Outbox) {
        if std::mem::take(&mut self.telling.found) {
            self.with_history(now, out, |replica, world, out| replica.found(world, out));
        }
        if self.history.deadline().is_some_and(|at| at <= now.instant) {
            self.with_history(now, out, |replica, world, out| replica.on_deadline(world, out));
        }
        // An answer that did not come may lead to calls that cannot be made either.
        while let Some((node, asked)) = self.unanswered.pop() {
            self.with_history(now, out, |replica, world, out| replica.on_answer(world, node, asked, None, out));
        }
        while let Some((at, id)) = self.telling.ends.first().copied().filter(|(at, _)| *at <= now.instant) {
            self.telling.ends.remove(&(at, id));
            self.tell_client(id, Standing::Pending, out);
        }
    }

    /// Asks for everything to be persisted that the input at hand changed of the history.
    pub(super) fn write_history(&mut self, out: &mut Outbox) {
        let persists = std::mem::take(&mut self.telling.persists);
        if self.renounced.is_some() {
            // What still moves in this core comes to nothing, and nobody is told of it: the next one begins with what the disk has.
            self.telling.changes.clear();
        } else if persists > 0 {
            let persist = Persist { token: self.token(), history: std::mem::take(&mut self.telling.changes), ..Persist::default() };
            self.telling.under_way.push_back((persist.token, persists));
            self.after.insert(persist.token, After::default());
            out.push(Output::Persist(persist));
        }
        self.telling.tell(out);
    }

    pub(super) fn history_status(&self, now: Now) -> HistoryStatus {
        let history = &self.history;
        let (pages_fetched, pages_sent) = history.pages();
        HistoryStatus {
            founding: history.founding(),
            apart: self.telling.apart.values().copied().collect(),
            epoch: history.epoch().clone(),
            coordinator: history.coordinator(),
            slot: history.decided(),
            delivered: history.delivered(),
            number: history.number(),
            pending: history.pending().count(),
            synchronised: history.is_synchronised(),
            transaction: history.transaction().clone(),
            since: now.wall_at(history.transaction().since),
            pages_fetched,
            pages_sent,
        }
    }
}
