//! When a node speaks: what it keeps to itself at first, and what tells it that others know of it what it does not.
//!
//! A disk that was put back from a backup, or copied, has forgotten messages, ballots and votes of its node's. Whoever gives their names away a second
//! time makes others deliver different things under one name. So:
//!
//! 1. A node that begins is silent until it is synchronised: until a majority of the voters told it how far they are, and what they have seen
//!    of it. Before that nothing could be delivered anyway. It takes messages from its clients, and **withholds** them: they are on disk,
//!    and nobody hears of them. It gives no vote and starts no ballot. What it said in earlier lives it tells again when the silence ends;
//!    ordered messages among it are handed over meanwhile, since others may know them.
//! 2. What others have seen of a node and it does not remember ends its key: a message of a number, a ballot or a vote that it never gave.
//! 3. A message that was withheld under a key that was given up is said anew under the next, and nobody else has ever seen its first name. One that was not
//!    withheld may be known by that name, and keeps it: this node goes on telling it, as it does with those of others.
//! 4. Under a new key a node is a learner. It has given no vote; what its disk has accepted or promised is another's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Effect, Replica, Then, World};
use crate::history::causal::Tell;
use crate::history::disk::{Change, Last, Owner, Remembered};
use crate::history::message::{Body, Channel, Message, MessageId};
use crate::history::ordered;
use crate::history::talk::{HistoryAnswer, HistoryCall, Named, Traces};
use crate::identity::Conflict;
use crate::ids::NodeId;
use crate::time::WallTime;

/// Whose messages are a node's own. Under a key that the disk has not heard of it is the first life: what is kept from before was said under
/// the one before it.
pub(super) fn owner(me: NodeId, remembered: &Remembered) -> Owner {
    let Some(last) = remembered.owner.clone().filter(|owner| owner.node != me) else {
        return remembered.owner.clone().unwrap_or(Owner { node: me, before: BTreeMap::new() });
    };
    let kept: Vec<MessageId> =
        remembered.kept.iter().map(|message| message.id).filter(|id| last.said(*id) && !remembered.withheld.contains(id)).collect();
    let of = |origin: NodeId, channel: Channel| {
        let numbers = kept.iter().filter(move |id| id.origin == origin && id.channel == channel).map(|id| id.sequence);
        numbers.max().unwrap_or(0)
    };
    let origins: BTreeSet<NodeId> = kept.iter().map(|id| id.origin).collect();
    let last = |origin| (origin, Last { causal: of(origin, Channel::Causal), ordered: of(origin, Channel::Ordered) });
    Owner { node: me, before: origins.into_iter().map(last).collect() }
}

/// What a node keeps to itself.
#[derive(Debug)]
pub(super) struct Speech {
    silent: bool,
    /// The disk is asked to know that what was withheld may have been told.
    releasing: bool,
    /// Names of what is withheld.
    withheld: BTreeSet<MessageId>,
    /// Ordered ones of them, durable; at most [`ordered::MAX_WAITING`].
    ordered: Vec<Message>,
    /// Withheld under an earlier key, to be said anew.
    again: VecDeque<Message>,
    /// The earlier name of what is just being said anew.
    renamed: Option<MessageId>,
}

impl Speech {
    /// What a node that begins keeps to itself; and what it kept that others may know of.
    pub(super) fn new(me: NodeId, remembered: &Remembered) -> (Self, Vec<Message>) {
        let (withheld, told): (Vec<Message>, Vec<Message>) =
            remembered.kept.iter().cloned().partition(|message| remembered.withheld.contains(&message.id));
        // What others delivered under a name of this node's, while it withheld another message of that name, is theirs.
        let delivered = |id: MessageId| match id.channel {
            Channel::Causal => remembered.causal.iter().any(|last| last.id.origin == id.origin && id.sequence <= last.id.sequence),
            Channel::Ordered => remembered.ordered.get(&id.origin).is_some_and(|last| id.sequence <= *last),
        };
        let (own, again): (Vec<Message>, Vec<Message>) =
            withheld.into_iter().partition(|message| message.id.origin == me && !delivered(message.id));
        let again = again.into();
        let (ordered, causal): (Vec<Message>, Vec<Message>) = own.into_iter().partition(|message| message.id.channel == Channel::Ordered);
        let withheld = ordered.iter().chain(&causal).map(|message| message.id).collect();
        (Self { silent: true, releasing: false, withheld, ordered, again, renamed: None }, told.into_iter().chain(causal).collect())
    }

    /// Number of the last ordered message withheld.
    pub(super) fn last_ordered(&self) -> Option<u64> {
        self.ordered.iter().map(|message| message.id.sequence).max()
    }

    /// The messages that no channel knows of.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.ordered.iter().chain(&self.again)
    }

    /// An own ordered message is durable: it is given back unless it is withheld.
    pub(super) fn unless_withheld(&mut self, message: Message) -> Option<Message> {
        if !self.withheld.contains(&message.id) {
            return Some(message);
        }
        self.ordered.push(message);
        None
    }
}

impl Replica {
    /// Whether this node keeps its votes and its own messages to itself.
    pub fn is_silent(&self) -> bool {
        self.speech.silent
    }

    /// Makes a message of what a client said; `None` while too much is pending.
    pub(super) fn say(
        &mut self,
        world: &mut World<'_>,
        channel: Channel,
        media_type: String,
        body: Body,
        sent: WallTime,
        out: &mut Vec<Effect>,
    ) -> Option<MessageId> {
        match channel {
            Channel::Causal => {
                let mut effects = Vec::new();
                let id = self.causal.on_local(media_type, body, sent, world.now.instant, &mut effects)?;
                self.withhold(id);
                self.route_causal(world, effects, &mut Tell::default(), None, out);
                Some(id)
            }
            Channel::Ordered => {
                // Those on their way to the disk, and those withheld, are among them.
                if self.sent.saturating_sub(self.ordered.own()) >= ordered::MAX_WAITING as u64 {
                    return None;
                }
                self.sent += 1;
                let id = MessageId { origin: self.me, channel, sequence: self.sent };
                self.withhold(id);
                let message = Message { id, frontier: self.causal.frontier_of_ordered(), media_type, body, sent };
                let changes = self.keep(message.clone());
                self.persist(changes, Then::OwnOrdered(message), out);
                Some(id)
            }
        }
    }

    fn withhold(&mut self, id: MessageId) {
        if self.speech.silent && !self.speech.releasing {
            self.speech.withheld.insert(id);
        }
    }

    /// What makes a message durable.
    pub(super) fn keep(&mut self, message: Message) -> Vec<Change> {
        let withheld = self.speech.withheld.contains(&message.id).then_some(Change::Withhold(message.id));
        let renamed = self.speech.renamed.take().map(Change::Forget);
        std::iter::once(Change::Keep(message)).chain(withheld).chain(renamed).collect()
    }

    /// Says anew what was withheld under an earlier key, as soon as it is known what others delivered under its name. Where that is the same
    /// message, it was told after all: by this disk, before it was put back.
    pub(super) fn say_again(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        while self.is_synchronised()
            && let Some(message) = self.speech.again.pop_front()
        {
            let Message { id, media_type, body, sent, .. } = message.clone();
            if self.is_delivered(id) {
                let (Ok(Some(_)), Ok(Some(delivered))) = (world.store.place(id), world.store.message(id)) else {
                    // On its way to the disk. A disk that cannot be read fails the next write too, and with it the core.
                    return self.speech.again.push_front(message);
                };
                if delivered == message {
                    self.persist(vec![Change::Forget(id)], Then::Forgotten, out);
                    continue;
                }
            }
            self.speech.renamed = Some(id);
            if self.say(world, id.channel, media_type, body, sent, out).is_none() {
                self.speech.renamed = None;
                self.speech.again.push_front(message);
                return;
            }
        }
    }

    /// All that a majority knows is known here: what was withheld is told as soon as the disk knows that it may have been.
    pub(super) fn end_silence(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        if !self.speech.silent || self.speech.releasing || !self.is_synchronised() {
            return;
        }
        if self.speech.withheld.is_empty() {
            return self.speak(world, out);
        }
        // What others delivered under its name is compared with it first: the release gives the name to that.
        if self.speech.again.front().is_some_and(|message| self.is_delivered(message.id)) {
            return;
        }
        self.speech.releasing = true;
        // What was withheld under an earlier key, and is not said anew yet, is told to nobody for longer.
        let again = self.speech.again.iter().map(|message| Change::Withhold(message.id));
        let changes = std::iter::once(Change::Release).chain(again).collect();
        self.persist(changes, Then::Released, out);
    }

    /// Tells what was withheld, and votes from now on.
    pub(super) fn speak(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        (self.speech.silent, self.speech.releasing) = (false, false);
        self.speech.withheld.clear();
        self.ordered.set_silent(false);
        for message in std::mem::take(&mut self.speech.ordered) {
            self.ordered.on_message(message, world.now.instant);
        }
        let mut effects = Vec::new();
        self.causal.speak(world.now.instant, &mut effects);
        self.route_causal(world, effects, &mut Tell::default(), None, out);
    }

    /// What this node has seen of another one that begins.
    pub(super) fn traces(&self, node: NodeId) -> Traces {
        let (ballot, slot) = self.ordered.votes_of(node);
        Traces { causal: self.causal.last_of(node), ordered: self.ordered.last_of(node), ballot, slot }
    }

    /// What a call shows others to have seen of this node, and it does not remember.
    pub fn contradicted_by_call(&self, call: &HistoryCall) -> Option<Conflict> {
        let ours = !self.joining && self.founding.is_some_and(|founding| founding.id == call.history);
        let mut found = None;
        if ours {
            call.ask.each(&mut |named| found = found.take().or_else(|| self.denial(&named)));
        }
        found
    }

    /// What an answer to a call about this node's history shows others to have seen of this node, and it does not remember.
    pub fn contradicted_by_answer(&self, answer: &HistoryAnswer) -> Option<Conflict> {
        let mut found = None;
        if !self.joining {
            answer.each(&mut |named| found = found.take().or_else(|| self.denial(&named)));
        }
        found
    }

    fn denial(&self, named: &Named<'_>) -> Option<Conflict> {
        match named {
            Named::Message(message) => self.denial_of_name(message.id).or_else(|| {
                let ours = self.undelivered_own(message.id).filter(|ours| *ours != *message);
                ours.map(|ours| Conflict::UnknownMessage(ours.id))
            }),
            Named::Name(id) => self.denial_of_name(*id),
            Named::Ballot(ballot) => {
                let unknown = ballot.node == self.me && !self.ordered.has_voted(Some(*ballot), 0);
                unknown.then_some(Conflict::UnknownVote(*ballot))
            }
            Named::Traces(Traces { causal, ordered, ballot, slot }) => {
                let last = [(Channel::Causal, *causal), (Channel::Ordered, *ordered)].into_iter().filter(|(_, sequence)| *sequence > 0);
                let mut names = last.map(|(channel, sequence)| MessageId { origin: self.me, channel, sequence });
                let vote = ballot.filter(|_| !self.ordered.has_voted(*ballot, *slot));
                names.find_map(|id| self.denial_of_name(id)).or(vote.map(Conflict::UnknownVote))
            }
        }
    }

    /// This node's own message of that name, if a channel holds it undelivered.
    fn undelivered_own(&self, id: MessageId) -> Option<&Message> {
        let held = if id.channel == Channel::Causal { self.causal.known(id) } else { self.ordered.known(id) };
        held.filter(|message| message.id.origin == self.me)
    }

    fn denial_of_name(&self, id: MessageId) -> Option<Conflict> {
        let last = match id.channel {
            Channel::Causal => self.causal.sent(),
            Channel::Ordered => self.sent,
        };
        let unknown = id.origin == self.me && (id.sequence > last || self.speech.withheld.contains(&id));
        unknown.then_some(Conflict::UnknownMessage(id))
    }
}
