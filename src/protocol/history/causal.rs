//! The causal channel: uniform reliable causal broadcast.
//!
//! A message is delivered when a majority of the voters of one epoch has it on disk, and everything that came before it is delivered
//! (majority-ack uniform reliable broadcast: Cachin, Guerraoui, Rodrigues, "Introduction to Reliable and Secure Distributed
//! Programming", 2011, section 3.4.3; what came before is the frontier of [`crate::history::message`] instead of a vector).
//!
//! 1. **No duplication.** An origin's messages are delivered in the order of their numbers, and the last number delivered is on disk
//!    with the delivery.
//! 2. **No creation.** Only what a client gave to its origin is ever told.
//! 3. **Validity.** Who took a message tells the voters until it is delivered here.
//! 4. **Uniform agreement.** Whatever is delivered anywhere is on the disks of a majority, so it cannot get lost; who lacks it finds
//!    that out when it next compares histories with anybody ([`Causal::on_history`]).
//! 5. **Causal order.** Nothing is delivered before its frontier.
//! 6. While it is silent, a node gives nobody a message of its own: it does not know yet whether its name is used elsewhere.
//! 7. A node says that it has a message only when it is on disk, and in the epoch it is in; what it holds undelivered when it enters
//!    a later epoch it says anew.
//!
//! A learner's disk counts for nothing. It delivers what a majority is known to have, or what another node says it has delivered (a
//! mark, which is passed on once like the message). With nothing pending nothing is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::epoch::Epoch;
use crate::history::message::{Body, Channel, Frontier, Message, MessageId};
use crate::ids::NodeId;
use crate::planted::{Bug, is_planted};
use crate::time::{Instant, WallTime};

/// How often what is pending is told again to voters who have not said that they have it.
pub const RETELLING: Duration = Duration::from_secs(1);
/// How often it is looked whether anything is to be told again.
const LOOKING: Duration = Duration::from_millis(250);
/// Most messages pending here; beyond it a client's are refused and others' are left for later.
pub const MAX_PENDING: usize = 8192;
/// Most messages, and most names of each kind, in one [`Tell`].
pub const MAX_TOLD: usize = 512;
/// Bodies are added to a [`Tell`] until it holds about so many bytes.
pub const TOLD_BUDGET: usize = 1 << 20;

/// What a node says of causal messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tell {
    /// The number of the epoch it is in.
    pub epoch: u64,
    /// Messages it has on disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// Names of others that it has on disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<MessageId>,
    /// Names of those that it, or somebody it heard of, has delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delivered: Vec<MessageId>,
    /// Names of those that it lacks and asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<MessageId>,
}

/// Whom to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// This node.
    Node(NodeId),
    /// All who do not vote, where they are few, but for the message's origin: a voter's word reaches them all by itself.
    Learners,
    /// Those to whom this node passes rumors on, where nodes are many.
    Rumor,
    /// A few random ones.
    AFew,
}

/// Something to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A message that is not delivered yet.
    Store(Message),
    /// It is delivered here, next in this node's history.
    Deliver(Message),
}

/// What the machine wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make these durable together; report with [`Causal::on_persisted`], in the same order.
    Persist(Vec<Change>),
    /// A client's message is durable.
    Accepted(MessageId),
    /// Say this.
    Tell(Whom, Tell),
    /// A message is delivered, durably; each once, in this node's order.
    Delivered(Message),
}

/// What a node remembers on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durable {
    /// The last message of each origin that is delivered.
    pub delivered: BTreeMap<NodeId, u64>,
    /// Stored and not delivered.
    pub pending: Vec<Message>,
    /// The maximal messages delivered or sent.
    pub newest: BTreeSet<MessageId>,
    /// The last slot of the ordered channel delivered.
    pub slot: u64,
}

#[derive(Debug)]
enum Then {
    Stored(MessageId),
    Delivered(Message),
}

#[derive(Debug, Default)]
struct Pending {
    /// Unknown while only its name was told.
    message: Option<Message>,
    durable: bool,
    /// The voters known to have it on disk, by the epoch they said so in.
    holders: BTreeMap<u64, BTreeSet<NodeId>>,
    /// Somebody has delivered it.
    marked: bool,
    /// Who told its name, for as long as the message itself is not here.
    known_to: Option<NodeId>,
    /// When it was last told, or asked for; not since the start if `None`.
    told: Option<Instant>,
}

impl Pending {
    fn is_due(&self, now: Instant) -> bool {
        self.told.is_none_or(|told| now.since(told) >= RETELLING)
    }
}

/// The state of the causal channel at one node.
#[derive(Debug)]
pub struct Causal {
    me: NodeId,
    /// The epochs known, the one in force last; older ones as long as something pending was acknowledged in them.
    epochs: BTreeMap<u64, Epoch>,
    /// Number of the last own message.
    sent: u64,
    delivered: BTreeMap<NodeId, u64>,
    newest: BTreeSet<MessageId>,
    slot: u64,
    pending: BTreeMap<MessageId, Pending>,
    retell_at: Option<Instant>,
    /// This node's own messages are kept and told to nobody.
    silent: bool,
    disk: VecDeque<Vec<Then>>,
}

impl Causal {
    /// A node in `epoch` that remembers `durable`.
    pub fn new(me: NodeId, epoch: Epoch, durable: Durable, now: Instant) -> Self {
        let Durable { delivered, pending, newest, slot } = durable;
        let own = pending.iter().filter(|message| message.id.origin == me).map(|message| message.id.sequence).max();
        let mut machine = Self {
            me,
            sent: own.max(delivered.get(&me).copied()).unwrap_or(0),
            epochs: BTreeMap::from([(epoch.number, epoch)]),
            delivered,
            newest,
            slot,
            pending: BTreeMap::new(),
            retell_at: (!pending.is_empty()).then_some(now),
            silent: false,
            disk: VecDeque::new(),
        };
        for message in pending {
            let id = message.id;
            machine.pending.insert(id, Pending { message: Some(message), durable: true, ..Pending::default() });
            machine.count(id, me, machine.epoch().number);
        }
        machine
    }

    /// From now on this node's own messages are told to nobody, until [`Self::speak`].
    pub fn fall_silent(&mut self) {
        self.silent = true;
    }

    /// What was not told is told.
    pub fn speak(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.silent) {
            let own = self.pending.iter_mut().filter(|(id, _)| id.origin == self.me);
            own.for_each(|(_, pending)| pending.told = None);
            self.retell(now, out);
            self.try_deliver(out);
        }
    }

    fn is_withheld(&self, id: MessageId) -> bool {
        self.silent && id.origin == self.me
    }

    /// Number of this node's last message.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The greatest number known here of an origin's messages.
    pub fn last_of(&self, origin: NodeId) -> u64 {
        let first = MessageId { origin, channel: Channel::Causal, sequence: 0 };
        let last = MessageId { sequence: u64::MAX, ..first };
        let pending = self.pending.range(first..=last).next_back().map(|(id, _)| id.sequence);
        pending.max(self.delivered.get(&origin).copied()).unwrap_or(0)
    }

    /// A message that is known and not delivered.
    pub fn known(&self, id: MessageId) -> Option<&Message> {
        self.pending.get(&id).and_then(|pending| pending.message.as_ref())
    }

    /// The epoch in force.
    pub fn epoch(&self) -> &Epoch {
        // The map is never empty: it is made with one epoch, and the last one stays.
        self.epochs.last_key_value().map_or_else(|| unreachable!("an epoch is in force"), |(_, epoch)| epoch)
    }

    /// Whether everything in a frontier is delivered here.
    pub fn has(&self, frontier: &Frontier) -> bool {
        frontier.slot <= self.slot && frontier.newest.iter().all(|id| self.is_delivered(*id))
    }

    /// Whether a message is delivered here.
    pub fn is_delivered(&self, id: MessageId) -> bool {
        self.delivered.get(&id.origin).is_some_and(|last| id.sequence <= *last)
    }

    /// The messages that are known and not delivered.
    pub fn pending(&self) -> impl Iterator<Item = &Message> {
        self.pending.values().filter_map(|pending| pending.message.as_ref())
    }

    /// What comes before a message that this node would send now.
    pub fn frontier(&self) -> Frontier {
        Frontier { slot: self.slot, newest: self.newest.iter().copied().filter(|id| id.origin != self.me).collect() }
    }

    /// What comes before an ordered message that this node would send now.
    pub fn frontier_of_ordered(&self) -> Frontier {
        Frontier { slot: self.slot, newest: self.newest.clone() }
    }

    /// The undelivered messages that are on this node's disk. What another node delivered and this one only knows of is not among them.
    pub fn kept(&self) -> impl Iterator<Item = MessageId> {
        self.pending.iter().filter(|(_, pending)| pending.durable).map(|(id, _)| *id)
    }

    /// A client's message: gives its name, or `None` while too much is pending. [`Effect::Accepted`] follows when it is durable.
    pub fn on_local(&mut self, media_type: String, body: Body, sent: WallTime, now: Instant, out: &mut Vec<Effect>) -> Option<MessageId> {
        if self.pending.len() >= MAX_PENDING {
            return None;
        }
        self.sent += 1;
        let id = MessageId { origin: self.me, channel: Channel::Causal, sequence: self.sent };
        let message = Message { id, frontier: self.frontier(), media_type, body, sent };
        self.newest = BTreeSet::from([id]);
        self.store(message, now, out);
        Some(id)
    }

    fn store(&mut self, message: Message, now: Instant, out: &mut Vec<Effect>) {
        let id = message.id;
        let pending = self.pending.entry(id).or_default();
        (pending.message, pending.known_to, pending.told) = (Some(message.clone()), None, Some(now));
        self.retell_at.get_or_insert(now + LOOKING);
        self.persist(vec![Change::Store(message)], vec![Then::Stored(id)], out);
        if is_planted(Bug::HeldEarly) {
            let tell = Tell { epoch: self.epoch().number, holds: vec![id], ..Tell::default() };
            out.extend(self.other_voters().into_iter().map(|voter| Effect::Tell(Whom::Node(voter), tell.clone())));
        }
    }

    fn persist(&mut self, changes: Vec<Change>, then: Vec<Then>, out: &mut Vec<Effect>) {
        self.disk.push_back(then);
        out.push(Effect::Persist(changes));
    }

    /// The oldest persist that was not reported yet is durable.
    pub fn on_persisted(&mut self, out: &mut Vec<Effect>) {
        for then in self.disk.pop_front().unwrap_or_default() {
            match then {
                Then::Stored(id) => self.on_stored(id, out),
                Then::Delivered(message) => {
                    let tell = Tell { epoch: self.epoch().number, delivered: vec![message.id], ..Tell::default() };
                    // A majority's word reaches voters only: one of them tells the learners.
                    if self.epoch().voters.contains(&self.me) {
                        out.push(Effect::Tell(Whom::Rumor, tell));
                    }
                    out.push(Effect::Delivered(message));
                }
            }
        }
    }

    fn on_stored(&mut self, id: MessageId, out: &mut Vec<Effect>) {
        let own = id.origin == self.me;
        if own {
            out.push(Effect::Accepted(id));
        }
        let epoch = self.epoch().number;
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.durable = true;
        let Some(message) = pending.message.clone() else { return };
        if self.is_withheld(id) {
            self.count(id, self.me, epoch);
            return;
        }
        let voter = self.epoch().voters.contains(&self.me);
        let whole = Tell { epoch, messages: vec![message.clone()], ..Tell::default() };
        out.push(Effect::Tell(Whom::Rumor, whole.clone()));
        if voter {
            out.push(Effect::Tell(Whom::Learners, whole.clone()));
            if !own && !self.epoch().voters.contains(&id.origin) {
                out.push(Effect::Tell(Whom::Node(id.origin), Tell { epoch, holds: vec![id], ..Tell::default() }));
            }
        }
        for to in self.other_voters() {
            let tell = if own { whole.clone() } else { Tell { epoch, holds: vec![id], ..Tell::default() } };
            if own || voter {
                out.push(Effect::Tell(Whom::Node(to), tell));
            }
        }
        self.count(id, self.me, epoch);
        self.try_deliver(out);
    }

    fn other_voters(&self) -> Vec<NodeId> {
        self.epoch().voters.iter().copied().filter(|voter| *voter != self.me).collect()
    }

    /// A voter has it on disk and said so in that epoch. What others say is not counted, here or where a majority is sought.
    fn count(&mut self, id: MessageId, node: NodeId, epoch: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.holders.entry(epoch).or_default().insert(node);
        }
    }

    /// Another node says something.
    pub fn on_tell(&mut self, now: Instant, from: NodeId, tell: Tell, out: &mut Vec<Effect>) {
        let Tell { epoch, messages, holds, delivered, lacks } = tell;
        let mut answer = Tell { epoch: self.epoch().number, ..Tell::default() };
        for message in messages {
            let id = message.id;
            if self.is_delivered(id) {
                answer.delivered.push(id);
                continue;
            }
            let known = self.pending.get(&id).is_some_and(|pending| pending.message.is_some());
            if !known && self.pending.len() < MAX_PENDING {
                self.store(message, now, out);
            }
            self.count(id, from, epoch);
        }
        for id in holds {
            if self.is_delivered(id) {
                answer.delivered.push(id);
            } else {
                self.hear_of(now, id, from, &mut answer);
                self.count(id, from, epoch);
            }
        }
        for id in delivered {
            self.on_mark(now, id, from, &mut answer, out);
        }
        for id in lacks {
            let held = self
                .pending
                .get(&id)
                .filter(|pending| pending.durable && !self.is_withheld(id))
                .and_then(|pending| pending.message.clone());
            answer.messages.extend(held);
        }
        if answer != (Tell { epoch: answer.epoch, ..Tell::default() }) {
            out.push(Effect::Tell(Whom::Node(from), answer));
        }
        self.try_deliver(out);
    }

    /// The last message of each origin that is delivered here: what two nodes compare when they meet.
    pub fn delivered(&self) -> &BTreeMap<NodeId, u64> {
        &self.delivered
    }

    /// Messages that another node has delivered, in its order: what it has and this node lacks.
    pub fn on_history(&mut self, messages: Vec<Message>, out: &mut Vec<Effect>) {
        for message in messages {
            if self.is_delivered(message.id) || self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&message.id) {
                continue;
            }
            let pending = self.pending.entry(message.id).or_default();
            pending.marked = true;
            pending.message.get_or_insert(message);
            self.try_deliver(out);
        }
    }

    /// A name came without its message: it is asked for.
    fn hear_of(&mut self, now: Instant, id: MessageId, from: NodeId, answer: &mut Tell) {
        if self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&id) {
            return;
        }
        let pending = self.pending.entry(id).or_default();
        if pending.message.is_none() {
            (pending.known_to, pending.told) = (Some(from), Some(now));
            answer.lacks.push(id);
            self.retell_at.get_or_insert(now + LOOKING);
        }
    }

    fn on_mark(&mut self, now: Instant, id: MessageId, from: NodeId, answer: &mut Tell, out: &mut Vec<Effect>) {
        if self.is_delivered(id) {
            return;
        }
        self.hear_of(now, id, from, answer);
        let epoch = self.epoch().number;
        let Some(pending) = self.pending.get_mut(&id).filter(|pending| !pending.marked) else { return };
        pending.marked = true;
        out.push(Effect::Tell(Whom::Rumor, Tell { epoch, delivered: vec![id], ..Tell::default() }));
    }

    /// Delivers whatever may be delivered, until nothing moves.
    fn try_deliver(&mut self, out: &mut Vec<Effect>) {
        while let Some(message) = self.deliverable() {
            self.pending.remove(&message.id);
            self.delivered.insert(message.id.origin, message.id.sequence);
            // A key that is kept whatever is said may have been another's too: what that one sent under it counts.
            if message.id.origin == self.me {
                self.sent = self.sent.max(message.id.sequence);
            }
            // An own message was the newest when it was sent, under an earlier key too; what is delivered since then does not come before it.
            let sent = if message.id.origin == self.me { self.sent } else { message.id.sequence };
            let last = self.newest.iter().filter(|id| id.origin == message.id.origin).map(|id| id.sequence).max();
            self.newest.retain(|id| !message.frontier.newest.contains(id) && (id.origin != message.id.origin));
            self.newest.insert(MessageId { sequence: sent.max(last.unwrap_or(0)), ..message.id });
            self.persist(vec![Change::Deliver(message.clone())], vec![Then::Delivered(message)], out);
        }
    }

    /// A message that may be delivered. Of each origin only the next one can be, so only that is looked at.
    fn deliverable(&self) -> Option<Message> {
        let mut following = self.pending.first_key_value();
        while let Some((MessageId { origin, .. }, _)) = following {
            let sequence = self.delivered.get(origin).map_or(0, |last| *last) + 1;
            let next = MessageId { origin: *origin, channel: Channel::Causal, sequence };
            if let Some(message) = self.pending.get(&next).and_then(|pending| self.may_deliver(pending)) {
                return Some(message.clone());
            }
            let end = MessageId { origin: *origin, channel: Channel::Causal, sequence: u64::MAX };
            following = self.pending.range((Bound::Excluded(end), Bound::Unbounded)).next();
        }
        None
    }

    /// The message, if it is here, a majority has it, and its frontier is delivered.
    fn may_deliver<'a>(&self, pending: &'a Pending) -> Option<&'a Message> {
        let everywhere = pending.marked || self.has_majority(pending) || is_planted(Bug::DeliveredWithoutMajority);
        let ready = |message: &&Message| self.has(&message.frontier) || is_planted(Bug::DependencySkipped);
        let told = |message: &&Message| pending.marked || !self.is_withheld(message.id);
        pending.message.as_ref().filter(|_| everywhere).filter(ready).filter(told)
    }

    /// Whether a majority of one epoch's voters has it, as they said in that epoch.
    fn has_majority(&self, pending: &Pending) -> bool {
        if is_planted(Bug::OldEpochCounted) {
            let all = pending.holders.values().flatten().copied().collect();
            return self.epochs.values().any(|epoch| epoch.is_majority(&all));
        }
        pending.holders.iter().any(|(epoch, holders)| self.epochs.get(epoch).is_some_and(|epoch| epoch.is_majority(holders)))
    }

    /// A later epoch is in force: what is held undelivered is said anew in it.
    pub fn on_epoch(&mut self, now: Instant, epoch: Epoch, out: &mut Vec<Effect>) {
        if epoch.number <= self.epoch().number {
            return;
        }
        let number = epoch.number;
        self.epochs.insert(number, epoch);
        let held: Vec<MessageId> = self.kept().collect();
        held.iter().for_each(|id| self.count(*id, self.me, number));
        self.pending.values_mut().for_each(|pending| pending.told = None);
        self.retell(now, out);
        self.try_deliver(out);
        self.let_epochs_go();
    }

    fn let_epochs_go(&mut self) {
        let named: BTreeSet<u64> = self.pending.values().flat_map(|pending| pending.holders.keys().copied()).collect();
        let last = self.epoch().number;
        self.epochs.retain(|number, _| *number == last || named.contains(number));
    }

    /// The ordered channel delivered up to `slot` here.
    pub fn on_slot(&mut self, slot: u64, out: &mut Vec<Effect>) {
        self.slot = self.slot.max(slot);
        self.try_deliver(out);
    }

    /// When [`Self::on_deadline`] is wanted: never while nothing is pending.
    pub fn deadline(&self) -> Option<Instant> {
        self.retell_at.filter(|_| !self.pending.is_empty())
    }

    /// Time has passed: what is pending is told again.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.retell_at = Some(now + LOOKING);
            self.retell(now, out);
            // A founder alone is a majority, and nobody's answer will tell it so.
            self.try_deliver(out);
        }
    }

    /// Tells each voter what is due and it has not said it has; a voter tells it by name too what it may not know that this one has. A few
    /// others hear the names: perhaps they reach a voter that this node does not reach. What does not fit is told at the next look.
    fn retell(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let epoch = self.epoch().number;
        let voter = self.epoch().voters.contains(&self.me);
        let due = self.due(now);
        for to in self.other_voters() {
            let mut tell = Tell { epoch, ..Tell::default() };
            for (id, pending) in due.iter().filter_map(|id| self.pending.get_key_value(id)) {
                let theirs = pending.holders.get(&epoch).is_some_and(|holders| holders.contains(&to));
                match &pending.message {
                    None if pending.known_to == Some(to) || theirs => tell.lacks.push(*id),
                    Some(message) if pending.durable && !theirs => tell.messages.push(message.clone()),
                    // It may not know that this voter has it.
                    Some(_) if pending.durable && voter => tell.holds.push(*id),
                    Some(_) | None => {}
                }
            }
            if tell != (Tell { epoch, ..Tell::default() }) {
                out.push(Effect::Tell(Whom::Node(to), tell));
            }
        }
        let mut holds = Vec::new();
        for id in due {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            pending.told = Some(now);
            holds.extend(pending.durable.then_some(id));
        }
        if !holds.is_empty() {
            out.push(Effect::Tell(Whom::AFew, Tell { epoch, holds, ..Tell::default() }));
        }
    }

    /// Names of what is to be told again and fits into one [`Tell`].
    fn due(&self, now: Instant) -> Vec<MessageId> {
        let due = self.pending.iter().filter(|(id, pending)| pending.is_due(now) && !self.is_withheld(**id));
        let mut bytes = 0;
        let fits = |(_, pending): &(&MessageId, &Pending)| {
            let before = bytes;
            bytes += pending.message.as_ref().map_or(0, |message| message.body.bytes().len());
            before <= TOLD_BUDGET
        };
        due.take(MAX_TOLD).take_while(fits).map(|(id, _)| *id).collect()
    }

    /// What must hold at all times.
    pub fn check(&self) {
        // One for each name told with a message that was on its way when the bound was reached.
        assert!(self.pending.len() <= MAX_PENDING, "bounded");
        assert!(self.pending.keys().all(|id| !self.is_delivered(*id)), "what is delivered is pending no more");
        assert!(self.delivered.get(&self.me).is_none_or(|last| *last <= self.sent), "only what was sent is delivered");
        assert!(self.newest.len() <= self.delivered.len() + self.pending.len() + 1, "one newest message for each origin");
    }
}

#[cfg(test)]
mod tests;
