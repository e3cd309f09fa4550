//! Spread: what is fresh, of records and of members, is pushed at once to a few random peers.
//!
//! Rumor mongering, infect and die (Demers et al., "Epidemic Algorithms for Replicated Database Maintenance", PODC 1987, section
//! 1.4): who learns something from a rumor and had not seen it pushes it once to [`FAN_OUT`] others. What rumors lose, the exchange
//! repairs.
//!
//! 1. At most one rumor call to a peer is under way; what is fresh meanwhile goes out with the next one, so a flood of writes
//!    costs calls per batch, not per write.
//! 2. A queue holds at most [`MAX_QUEUED`] records and as many words about members; beyond it the rest is left to the exchange.
//! 3. Of a member the claim goes out that is held when the call is made, so a queue never tells what is outdated.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::NodeId;
use crate::item::RecordKey;
use crate::member::Suspicion;
use crate::wire::{MAX_FRESH_MEMBERS, Receipt};

/// To how many peers a fresh record is pushed. The share s of nodes that miss it solves s = e^(-4(1-s)): about 2 %.
pub const FAN_OUT: usize = 4;
/// Most records, claims or suspicions waiting for one peer.
pub const MAX_QUEUED: usize = 4096;
/// What is learned by comparing is pushed on only when the comparison brought at most so much: a healed partition is no storm.
pub const MAX_PUSHED_ON: usize = 16;

#[derive(Debug, Default)]
struct Queue {
    keys: BTreeSet<RecordKey>,
    receipts: BTreeSet<Receipt>,
    members: BTreeSet<NodeId>,
    suspicions: BTreeSet<Suspicion>,
    calling: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.members.is_empty() && self.suspicions.is_empty()
    }
}

/// What is to be pushed to whom.
#[derive(Debug, Default)]
pub struct Spread {
    queues: BTreeMap<NodeId, Queue>,
}

/// What the next call to a peer carries, at most.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records to push.
    pub keys: Vec<RecordKey>,
    /// Receipts to wish for.
    pub receipts: Vec<Receipt>,
    /// Members whose claims to push.
    pub members: Vec<NodeId>,
    /// Suspicions to push.
    pub suspicions: Vec<Suspicion>,
}

impl Spread {
    /// Queues a record for a peer.
    pub fn push(&mut self, to: NodeId, key: RecordKey, receipt: Option<Receipt>) {
        let queue = self.queues.entry(to).or_default();
        if queue.keys.len() < MAX_QUEUED {
            queue.keys.insert(key);
            queue.receipts.extend(receipt);
        }
    }

    /// Queues for a peer that the claim about a member has changed.
    pub fn push_member(&mut self, to: NodeId, about: NodeId) {
        let queue = self.queues.entry(to).or_default();
        if queue.members.len() < MAX_QUEUED {
            queue.members.insert(about);
        }
    }

    /// Queues a suspicion for a peer.
    pub fn push_suspicion(&mut self, to: NodeId, suspicion: Suspicion) {
        let queue = self.queues.entry(to).or_default();
        if queue.suspicions.len() < MAX_QUEUED {
            queue.suspicions.insert(suspicion);
        }
    }

    /// The peers to which a call can be made now.
    pub fn ready(&self) -> Vec<NodeId> {
        self.queues.iter().filter(|(_, queue)| !queue.calling && !queue.is_empty()).map(|(peer, _)| *peer).collect()
    }

    /// Takes the first `limit` records queued for `to`, and words about members up to their bound, and marks the peer as called.
    pub fn take(&mut self, to: NodeId, limit: usize) -> Batch {
        let queue = self.queues.entry(to).or_default();
        queue.calling = true;
        let keys: Vec<RecordKey> = std::iter::from_fn(|| queue.keys.pop_first()).take(limit).collect();
        // A wish travels with its record, or not at all.
        let travels = |receipt: &Receipt| keys.iter().any(|key| key.blob == receipt.id);
        let (receipts, later) = std::mem::take(&mut queue.receipts).into_iter().partition(travels);
        queue.receipts = BTreeSet::from_iter::<Vec<Receipt>>(later);
        let members = std::iter::from_fn(|| queue.members.pop_first()).take(MAX_FRESH_MEMBERS).collect();
        let suspicions = std::iter::from_fn(|| queue.suspicions.pop_first()).take(MAX_FRESH_MEMBERS).collect();
        Batch { keys, receipts, members, suspicions }
    }

    /// Puts back what did not fit into the call.
    pub fn put_back(&mut self, to: NodeId, keys: impl IntoIterator<Item = RecordKey>, receipts: impl IntoIterator<Item = Receipt>) {
        let queue = self.queues.entry(to).or_default();
        queue.keys.extend(keys);
        queue.receipts.extend(receipts);
    }

    /// The call to `to` ended; a peer that did not answer gets nothing more until there is something new.
    pub fn on_ended(&mut self, to: NodeId, answered: bool) {
        let Some(queue) = self.queues.get_mut(&to) else { return };
        queue.calling = false;
        if !answered || queue.is_empty() {
            self.queues.remove(&to);
        }
    }

    /// What must hold at all times.
    pub fn check(&self) {
        for queue in self.queues.values() {
            // A batch put back may exceed the bound by itself.
            assert!(queue.keys.len() <= MAX_QUEUED + crate::wire::MAX_RECORDS, "the queue is bounded");
            assert!(queue.members.len() <= MAX_QUEUED && queue.suspicions.len() <= MAX_QUEUED, "the queue is bounded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlobId;
    use crate::item::KeyHash;
    use crate::record::tests::node;
    use crate::version::VersionId;

    fn key(n: u64) -> RecordKey {
        RecordKey { hash: KeyHash(n), blob: BlobId(uuid::Uuid::from_u128(u128::from(n))) }
    }

    #[test]
    fn what_comes_while_a_call_is_under_way_goes_out_with_the_next() {
        let mut spread = Spread::default();
        spread.push(node(1), key(1), None);
        assert_eq!(spread.take(node(1), 10).keys, [key(1)]);
        spread.push(node(1), key(2), None);
        spread.push(node(1), key(3), None);
        assert!(spread.ready().is_empty());
        spread.on_ended(node(1), true);
        assert_eq!(spread.ready(), [node(1)]);
        assert_eq!(spread.take(node(1), 10).keys, [key(2), key(3)]);
        spread.push(node(1), key(4), None);
        spread.on_ended(node(1), false);
        assert!(spread.ready().is_empty(), "a silent peer's queue is dropped: the exchange repairs");
    }

    #[test]
    fn a_wish_for_a_receipt_travels_with_its_record() {
        let mut spread = Spread::default();
        let receipt = Receipt { id: key(2).blob, version: VersionId { stamp: crate::Stamp(1), origin: node(9) } };
        spread.push(node(1), key(1), None);
        spread.push(node(1), key(2), Some(receipt));
        assert_eq!(spread.take(node(1), 1), Batch { keys: vec![key(1)], ..Batch::default() });
        spread.on_ended(node(1), true);
        assert_eq!(spread.take(node(1), 1), Batch { keys: vec![key(2)], receipts: vec![receipt], ..Batch::default() });
    }

    #[test]
    fn words_about_members_go_out_even_alone_and_in_bounded_calls() {
        let mut spread = Spread::default();
        let suspicion = Suspicion { id: node(2), incarnation: 1, by: node(3) };
        spread.push_suspicion(node(1), suspicion);
        assert_eq!(spread.take(node(1), 1), Batch { suspicions: vec![suspicion], ..Batch::default() });
        (0..300).for_each(|n: u64| spread.push_member(node(1), NodeId(uuid::Uuid::from_u128(u128::from(n)))));
        spread.on_ended(node(1), true);
        assert_eq!(spread.take(node(1), 1).members.len(), MAX_FRESH_MEMBERS);
        spread.on_ended(node(1), true);
        assert_eq!(spread.take(node(1), 1).members.len(), 300 - MAX_FRESH_MEMBERS);
    }

    #[test]
    fn a_queue_is_bounded() {
        let mut spread = Spread::default();
        (0..10_000).for_each(|n| spread.push(node(1), key(n), None));
        spread.check();
        assert_eq!(spread.take(node(1), usize::MAX).keys.len(), MAX_QUEUED);
    }
}
