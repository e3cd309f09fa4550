//! What a history needs of the disk: the changes to be made durable, and what is read back.
//!
//! 1. The changes of one persist are durable together or not at all, and persists become durable in the order in which they were asked for.
//! 2. A history has tables of its own, under its id: another one that is joined later leaves them as they are, to be read.
//! 3. A message's index is its place 1, 2, 3, ... in the order in which this node delivered: without gaps, never used twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::history::epoch::Epoch;
use crate::history::message::{Channel, Message, MessageId};
use crate::history::ordered::{Accepted, Ballot, Batch};
use crate::ids::NodeId;
use crate::store::StoreFault;
use crate::time::WallTime;

/// How a history began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founding {
    /// Random; tells it from every other history.
    pub id: Uuid,
    /// Who voted alone in its first epoch.
    pub founder: NodeId,
}

impl Founding {
    /// The first epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch::founding(self.founder)
    }
}

/// By which names a node has spoken in a history: its own, and before that those of keys that it gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its id.
    pub node: NodeId,
    /// Earlier ones, each with the numbers of the last messages that it said under it and kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<NodeId, Last>,
}

/// The last messages of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Last {
    /// Number of the last causal one.
    pub causal: u64,
    /// Number of the last ordered one.
    pub ordered: u64,
}

impl Owner {
    /// Whether a message, as it is kept on this node's disk, was said here. Whoever has a key beside this node, on a copy of its disk, goes
    /// on behind the last number.
    pub fn said(&self, id: MessageId) -> bool {
        let before = |last: &Last| id.sequence <= if id.channel == Channel::Causal { last.causal } else { last.ordered };
        id.origin == self.node || self.before.get(&id.origin).is_some_and(before)
    }
}

/// Something to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// From here on this node belongs to that history. What it kept undelivered of its own goes along, anew: see [`Change::Keep`].
    Join(Founding),
    /// A message that is not delivered here yet: a causal one, or an ordered one of this node's own.
    Keep(Message),
    /// That message, kept and of this node's own, is told to nobody until [`Change::Release`].
    Withhold(MessageId),
    /// What was withheld may be told from here on.
    Release,
    /// That message, kept and withheld, is given up: it is kept under another name.
    Forget(MessageId),
    /// Who speaks for this node in the history from here on.
    Own(Owner),
    /// No vote for an older ballot.
    Promise(Ballot),
    /// A batch under a ballot; also a promise of that ballot. Replaces what was accepted for that slot.
    Accept(u64, Accepted),
    /// A slot is decided, the next after the last one, and that epoch is in force behind it. What was accepted for it is forgotten.
    Decide(u64, Batch, Epoch),
    /// A message is delivered here. It is kept undelivered no more.
    Deliver(Place, Message),
    /// Everything up to that slot is delivered here.
    Reach(u64),
}

/// Where a message stands in this node's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which message.
    pub id: MessageId,
    /// Its place in the order in which this node delivered.
    pub index: u64,
    /// Of an ordered one: its slot, and its number in the common order.
    pub order: Option<Order>,
    /// When this node delivered it, by its clock.
    pub delivered: WallTime,
}

/// Where an ordered message stands on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The decision by which.
    pub slot: u64,
    /// Its place 1, 2, 3, ... over all batches.
    pub number: u64,
}

/// What a node remembers of its history: everything but the messages delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remembered {
    /// `None` before any was joined.
    pub founding: Option<Founding>,
    /// The histories that it left for another one.
    pub left: BTreeSet<Uuid>,
    /// The greatest ballot confirmed.
    pub promised: Option<Ballot>,
    /// Accepted for slots that are not decided here.
    pub accepted: BTreeMap<u64, Accepted>,
    /// The last slot decided here.
    pub decided: u64,
    /// The epoch behind it; `None` is the founding one.
    pub epoch: Option<Epoch>,
    /// Kept and not delivered.
    pub kept: Vec<Message>,
    /// Of what is kept, this node's own that nobody was told of.
    pub withheld: BTreeSet<MessageId>,
    /// Who spoke last for this node in the history; `None` before anything was kept.
    pub owner: Option<Owner>,
    /// The last slot delivered.
    pub slot: u64,
    /// How many messages are delivered: the last index.
    pub index: u64,
    /// How many of them are ordered: the last number.
    pub number: u64,
    /// The last causal message delivered of each origin.
    pub causal: Vec<Message>,
    /// The sequence of the last ordered message delivered of each origin.
    pub ordered: BTreeMap<NodeId, u64>,
}

/// The disk of a node that never had a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl HistoryStore for NoHistory {
    fn remembered(&self) -> Result<Remembered, StoreFault> {
        Ok(Remembered::default())
    }

    fn slots(&self, _: u64, _: usize) -> Result<Vec<(u64, Batch)>, StoreFault> {
        Ok(vec![])
    }

    fn places(&self, _: u64, _: usize) -> Result<Vec<Place>, StoreFault> {
        Ok(vec![])
    }

    fn place(&self, _: MessageId) -> Result<Option<Place>, StoreFault> {
        Ok(None)
    }

    fn message(&self, _: MessageId) -> Result<Option<Message>, StoreFault> {
        Ok(None)
    }

    fn first_index_after(&self, _: u64) -> Result<u64, StoreFault> {
        Ok(1)
    }
}

/// The durable history of a node, as of the last commit.
pub trait HistoryStore {
    /// Everything but the messages delivered. Read once, at the start and after [`Change::Join`].
    fn remembered(&self) -> Result<Remembered, StoreFault>;

    /// At most `limit` decided slots from `from` on.
    fn slots(&self, from: u64, limit: usize) -> Result<Vec<(u64, Batch)>, StoreFault>;

    /// At most `limit` places from that index on.
    fn places(&self, from: u64, limit: usize) -> Result<Vec<Place>, StoreFault>;

    /// Where a message was delivered.
    fn place(&self, id: MessageId) -> Result<Option<Place>, StoreFault>;

    /// A message, delivered, decided or kept.
    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreFault>;

    /// The index of the first message delivered of a slot later than that; of the end if there is none.
    fn first_index_after(&self, slot: u64) -> Result<u64, StoreFault>;
}
