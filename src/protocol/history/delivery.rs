//! Delivery: both channels become one order at this node.
//!
//! 1. A slot is delivered after all earlier ones, and when everything in the frontiers of its messages is. That comes in any case: its coordinator had it
//!    delivered before it put the message into a batch, and what one node delivered every correct node delivers.
//! 2. An index and a number are given once, in order, without gaps.
//! 3. A message that is not the next of its origin is passed over, alike everywhere: it stands in an earlier batch, so it is delivered once;
//!    or no honest coordinator made the batch.

use std::collections::{BTreeMap, VecDeque};

use crate::history::causal::Causal;
use crate::history::disk::{Change, Order, Place, Remembered};
use crate::history::message::{Message, MessageId};
use crate::history::ordered::{Batch, takes_its_place};
use crate::ids::NodeId;
use crate::planted::{Bug, is_planted};
use crate::time::WallTime;

/// How far this node has delivered, and what it may deliver next.
#[derive(Debug)]
pub(super) struct Delivery {
    index: u64,
    slot: u64,
    number: u64,
    /// The last ordered message of each origin.
    ordered: BTreeMap<NodeId, u64>,
    /// Decided slots whose frontiers are not delivered yet.
    decided: VecDeque<(u64, Batch)>,
}

impl Delivery {
    /// What was delivered before, and the slots that were decided and not delivered.
    pub(super) fn new(remembered: &Remembered, decided: VecDeque<(u64, Batch)>) -> Self {
        let Remembered { index, slot, number, ordered, .. } = remembered;
        Self { index: *index, slot: *slot, number: *number, ordered: ordered.clone(), decided }
    }

    /// How many messages are delivered here.
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    /// The last slot delivered.
    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// How many ordered messages are delivered here.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The messages of slots that wait for what came before them.
    pub(super) fn undelivered(&self) -> impl Iterator<Item = &Message> {
        self.decided.iter().flat_map(|(_, batch)| batch.messages()).filter(|message| !self.is_delivered(message.id))
    }

    /// Whether an ordered message is delivered here.
    pub(super) fn is_delivered(&self, id: MessageId) -> bool {
        self.ordered.get(&id.origin).is_some_and(|last| id.sequence <= *last)
    }

    /// A slot is decided, the next after the last one.
    pub(super) fn on_decided(&mut self, slot: u64, batch: Batch) {
        self.decided.push_back((slot, batch));
    }

    /// A causal message is delivered now.
    pub(super) fn place(&mut self, id: MessageId, order: Option<Order>, now: WallTime) -> Place {
        self.index += 1;
        Place { id, index: self.index, order, delivered: now }
    }

    /// Delivers the next slot, if it may be: the changes that say so, and the places given.
    pub(super) fn next(&mut self, causal: &Causal, now: WallTime) -> Option<(Vec<Change>, Vec<Place>)> {
        let ready = |message: &Message| message.frontier.newest.iter().all(|id| causal.is_delivered(*id));
        self.decided.front().filter(|(_, batch)| batch.messages().all(ready))?;
        let (slot, batch) = self.decided.pop_front()?;
        let (mut changes, mut places) = (Vec::new(), Vec::new());
        for message in batch.messages() {
            let again = self.is_delivered(message.id) && is_planted(Bug::DeliveredTwice);
            if !takes_its_place(&mut self.ordered, message.id) && !again {
                continue;
            }
            self.number += 1;
            let place = self.place(message.id, Some(Order { slot, number: self.number }), now);
            changes.push(Change::Deliver(place, message.clone()));
            places.push(place);
        }
        self.slot = slot;
        changes.push(Change::Reach(slot));
        Some((changes, places))
    }

    /// What must hold at all times.
    pub(super) fn check(&self) {
        assert!(self.number <= self.index, "an ordered message has a place too");
        assert!(self.decided.front().is_none_or(|(slot, _)| *slot == self.slot + 1), "slots are delivered in order");
    }
}
