//! How a causal message gets around: in how many rounds, and when it is delivered where.
//!
//! A round is a call between two nodes, whichever half of it brought the news. Each node keeps the first round in which it had something:
//!
//! 1. Who took the message from its client has it in round 0; who gets it from a node that has it since round r has it in round r + 1, or in
//!    one more than the round in which it heard its name, if that is later: it had to ask.
//! 2. A page of history costs three: the exchange that finds that something is missing, the question how far, and the page.
//! 3. A message is delivered in the round of the news that was missing for it: the message itself, the last voter's word of a majority, or
//!    somebody's word that it is delivered.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::history::causal::Tell;
use gossip_cdn_protocol::history::message::{Channel, Message, MessageId};
use gossip_cdn_protocol::history::talk::{Ask, HistoryAnswer, HistoryCall, Piece};
use gossip_cdn_protocol::io::ClientCall;

/// Calls that it takes to get a page of what is missing.
const PAGE_ROUNDS: u64 = 3;

/// What one node knows of one message, by the round in which it learned it.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    name: Option<u64>,
    message: Option<u64>,
    /// The latest voter's word so far.
    word: u64,
    mark: Option<u64>,
    delivered: Option<u64>,
}

/// One message.
#[derive(Debug, Clone, Default)]
struct Followed {
    said: u64,
    nodes: BTreeMap<NodeId, Heard>,
    /// When it was delivered where it was last.
    last: u64,
}

impl Followed {
    fn at(&mut self, node: NodeId) -> &mut Heard {
        self.nodes.entry(node).or_default()
    }

    fn known(&self, node: NodeId) -> Heard {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    fn named(&mut self, to: NodeId, round: u64) {
        self.at(to).name.get_or_insert(round);
    }

    fn on_message(&mut self, from: NodeId, to: NodeId) {
        let Some(theirs) = self.known(from).message else { return };
        let heard = self.at(to);
        let asked = heard.name.map_or(0, |name| name + 1);
        heard.message.get_or_insert(asked.max(theirs + 1));
    }

    fn on_word(&mut self, from: NodeId, to: NodeId) {
        let Some(theirs) = self.known(from).message else { return };
        let heard = self.at(to);
        if heard.delivered.is_none() {
            heard.word = heard.word.max(theirs + 1);
        }
        self.named(to, theirs + 1);
    }

    fn on_mark(&mut self, from: NodeId, to: NodeId) {
        let theirs = self.known(from);
        let Some(mark) = theirs.mark.or(theirs.delivered) else { return };
        self.at(to).mark.get_or_insert(mark + 1);
        self.named(to, mark + 1);
    }

    fn on_page(&mut self, from: NodeId, to: NodeId) {
        let Some(theirs) = self.known(from).delivered else { return };
        let heard = self.at(to);
        heard.message.get_or_insert(theirs + PAGE_ROUNDS);
        heard.mark.get_or_insert(theirs + PAGE_ROUNDS);
    }

    fn on_delivered(&mut self, node: NodeId, now: u64) {
        self.last = self.last.max(now);
        let heard = self.at(node);
        let enough = heard.mark.unwrap_or(heard.word);
        heard.delivered.get_or_insert(heard.message.unwrap_or_default().max(enough));
    }
}

/// The causal messages that clients said, and how far each has got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broadcasts {
    asked: BTreeMap<ClientCall, u64>,
    followed: BTreeMap<MessageId, Followed>,
}

impl Broadcasts {
    pub(crate) fn on_said(&mut self, call: ClientCall, now: u64) {
        self.asked.insert(call, now);
    }

    /// The client was told that its message is kept.
    pub(crate) fn on_accepted(&mut self, call: ClientCall, id: MessageId) {
        let Some(said) = self.asked.remove(&call).filter(|_| id.channel == Channel::Causal) else { return };
        let followed = self.followed.entry(id).or_default();
        followed.said = said;
        followed.at(id.origin).message = Some(0);
    }

    pub(crate) fn on_call(&mut self, from: NodeId, to: NodeId, call: &HistoryCall) {
        if let Ask::Tell(letter) = &call.ask {
            self.on_tell(from, to, &letter.tell);
        }
    }

    pub(crate) fn on_answer(&mut self, from: NodeId, to: NodeId, answer: &HistoryAnswer) {
        match answer {
            HistoryAnswer::Told(tell) => self.on_tell(from, to, tell),
            HistoryAnswer::Update(update) => {
                for piece in &update.pieces {
                    if let Piece::Message(Message { id, .. }) = piece
                        && let Some(followed) = self.followed.get_mut(id)
                    {
                        followed.on_page(from, to);
                    }
                }
            }
            HistoryAnswer::Vote(_)
            | HistoryAnswer::Taken(_)
            | HistoryAnswer::Versions(_)
            | HistoryAnswer::Holdings(_)
            | HistoryAnswer::Busy
            | HistoryAnswer::Elsewhere(_) => {}
        }
    }

    fn on_tell(&mut self, from: NodeId, to: NodeId, tell: &Tell) {
        let Tell { messages, holds, delivered, .. } = tell;
        let bodies: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        for (names, learn) in [
            (&bodies, Followed::on_message as fn(&mut Followed, NodeId, NodeId)),
            // Who tells a message has it.
            (&bodies, Followed::on_word),
            (holds, Followed::on_word),
            (delivered, Followed::on_mark),
        ] {
            for id in names {
                if let Some(followed) = self.followed.get_mut(id) {
                    learn(followed, from, to);
                }
            }
        }
    }

    pub(crate) fn on_delivered(&mut self, node: NodeId, id: MessageId, now: u64) {
        if let Some(followed) = self.followed.get_mut(&id) {
            followed.on_delivered(node, now);
        }
    }

    /// How many are followed.
    pub(crate) fn count(&self) -> usize {
        self.followed.len()
    }

    /// How many of these nodes have not delivered each message, all added up.
    pub(crate) fn missing(&self, nodes: &BTreeSet<NodeId>) -> usize {
        let lacks = |followed: &Followed| nodes.iter().filter(|node| followed.known(**node).delivered.is_none()).count();
        self.followed.values().map(lacks).sum()
    }

    /// The rounds in which nodes other than its origin had a message, and in which all delivered it.
    pub(crate) fn rounds(&self) -> (Vec<u64>, Vec<u64>) {
        let others = || self.followed.iter().flat_map(|(id, followed)| followed.nodes.iter().filter(|(node, _)| **node != id.origin));
        (others().filter_map(|(_, heard)| heard.message).collect(), others().filter_map(|(_, heard)| heard.delivered).collect())
    }

    /// How long it took from the client's question to the last delivery of each, in microseconds.
    pub(crate) fn times(&self) -> impl Iterator<Item = u64> {
        self.followed.values().map(|followed| followed.last.saturating_sub(followed.said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key(&[n; 32])
    }

    /// Node 1 has heard in one round the message that node 0 said.
    fn one_told() -> Followed {
        let mut followed = Followed::default();
        followed.at(node(0)).message = Some(0);
        followed.on_message(node(0), node(1));
        followed
    }

    #[test]
    fn a_round_is_a_call_and_a_page_costs_three() {
        let mut followed = one_told();
        followed.on_word(node(1), node(2));
        followed.on_message(node(1), node(2));
        assert_eq!(followed.known(node(1)).message, Some(1));
        assert_eq!(followed.known(node(2)).message, Some(3), "it heard the name in round 2 and had to ask");
        followed.on_delivered(node(2), 10);
        assert_eq!(followed.known(node(2)).delivered, Some(3));
        followed.on_page(node(2), node(3));
        followed.on_delivered(node(3), 20);
        assert_eq!((followed.known(node(3)).delivered, followed.last), (Some(6), 20));
    }

    #[test]
    fn a_message_is_delivered_with_the_news_that_was_missing() {
        let mut followed = one_told();
        followed.on_word(node(1), node(0));
        followed.on_delivered(node(0), 1);
        assert_eq!(followed.known(node(0)).delivered, Some(2), "a voter's word came back");
        followed.on_mark(node(0), node(1));
        followed.on_delivered(node(1), 2);
        assert_eq!(followed.known(node(1)).delivered, Some(3), "the message was there long before");
    }
}
