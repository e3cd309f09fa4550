//! What coordinators and voters say to each other, and what a slot decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::history::epoch::Epoch;
use crate::history::message::{Message, MessageId};
use crate::ids::{ContentHash, NodeId};

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
    /// In their order. Shared: a batch is held and handed on in many places at once.
    #[serde(with = "shared")]
    pub entries: Arc<Vec<Entry>>,
}

/// What is shared is written as what it is.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Entry;

    pub(super) fn serialize<S: Serializer>(entries: &Arc<Vec<Entry>>, serializer: S) -> Result<S::Ok, S::Error> {
        entries.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Vec<Entry>>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::new)
    }
}

impl Batch {
    /// One of these.
    pub fn of(entries: Vec<Entry>) -> Self {
        Self { entries: Arc::new(entries) }
    }

    /// What tells it from every other batch.
    pub fn hash(&self) -> ContentHash {
        let mut bytes = Vec::new();
        for entry in self.entries.iter() {
            match entry {
                Entry::Message(message) => {
                    bytes.push(0);
                    message.append_to(&mut bytes);
                }
                Entry::Epoch(epoch) => {
                    bytes.push(1);
                    bytes.extend_from_slice(&epoch.number.to_be_bytes());
                    bytes.extend_from_slice(&(epoch.voters.len() as u64).to_be_bytes());
                    epoch.voters.iter().for_each(|voter| bytes.extend_from_slice(voter.0.as_bytes()));
                }
            }
        }
        ContentHash::of(&bytes)
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

/// Whether an ordered message takes its place behind the last of its origin's. One that stands there already, or that comes too early, as in no
/// honest coordinator's batch, is passed over alike everywhere.
pub fn takes_its_place(last: &mut BTreeMap<NodeId, u64>, id: MessageId) -> bool {
    let last = last.entry(id.origin).or_default();
    let is_next = id.sequence == *last + 1;
    if is_next {
        *last = id.sequence;
    }
    is_next
}

/// A batch that a voter has under a ballot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The ballot.
    pub ballot: Ballot,
    /// The batch.
    pub batch: Batch,
}

/// That a slot is decided, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The slot.
    pub slot: u64,
    /// Hash of the batch.
    pub hash: ContentHash,
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
        /// The Commit of the slot before, where it was not sent apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<Decision>,
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
        /// What is known decided from that slot on, the first [`super::MAX_REPORTED`] slots of it.
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
    /// This voter must learn first what others know: it is behind, or has just begun and is silent.
    Behind,
    /// To Commit and Rollback.
    Taken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::message::{Body, Channel};
    use crate::record::tests::node;
    use crate::time::WallTime;

    #[test]
    fn batches_that_differ_in_anything_have_other_hashes() {
        let id = |origin, channel, sequence| MessageId { origin: node(origin), channel, sequence };
        let first = Message {
            id: id(1, Channel::Ordered, 7),
            frontier: Default::default(),
            media_type: "text/plain".into(),
            body: Body::Text("ab".into()),
            sent: WallTime(1),
        };
        let with = |change: &dyn Fn(&mut Message)| {
            let mut message = first.clone();
            change(&mut message);
            vec![Entry::Message(message)]
        };
        let epoch = |number, voters: &[u8]| Entry::Epoch(Epoch { number, voters: voters.iter().map(|n| node(*n)).collect() });
        let batches = [
            vec![],
            with(&|_| ()),
            with(&|message| message.id = id(2, Channel::Ordered, 7)),
            with(&|message| message.id = id(1, Channel::Causal, 7)),
            with(&|message| message.id = id(1, Channel::Ordered, 8)),
            with(&|message| message.frontier.slot = 1),
            with(&|message| _ = message.frontier.newest.insert(id(2, Channel::Causal, 1))),
            with(&|message| message.frontier.newest.extend([id(2, Channel::Causal, 1), id(3, Channel::Causal, 1)])),
            with(&|message| message.media_type = "text/plai".into()),
            with(&|message| (message.media_type, message.body) = ("text/plainab".into(), Body::Text(String::new()))),
            with(&|message| message.body = Body::Base64(b"ab".to_vec())),
            with(&|message| message.body = Body::Text("abc".into())),
            with(&|message| message.sent = WallTime(2)),
            [with(&|_| ()), with(&|_| ())].concat(),
            vec![epoch(1, &[1])],
            vec![epoch(2, &[1])],
            vec![epoch(1, &[1, 2])],
            vec![epoch(1, &[1]), epoch(1, &[2])],
        ];
        let hashes: std::collections::BTreeSet<ContentHash> = batches.iter().map(|entries| Batch::of(entries.clone()).hash()).collect();
        assert_eq!(hashes.len(), batches.len());
        assert_eq!(Batch::of(with(&|_| ())).hash(), Batch::of(vec![Entry::Message(first.clone())]).hash());
    }
}
