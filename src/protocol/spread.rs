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
//! 4. News of members goes out at once after a quiet time, and else gathered: to [`FAN_OUT`] peers each [`NEWS_INTERVAL`] however
//!    much there is, so that a thousand nodes that start together do not make a call for each word about each other.
//! 5. What a turn costs follows what there is to send, not how many peers have a queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NodeId;
use crate::item::RecordKey;
use crate::member::Suspicion;
use crate::time::Instant;
use crate::wire::{MAX_FRESH_MEMBERS, Receipt};

/// To how many peers a fresh record is pushed. The share s of nodes that miss it solves s = e^(-4(1-s)): about 2 %.
pub const FAN_OUT: usize = 4;
/// Most records, claims or suspicions waiting for one peer.
pub const MAX_QUEUED: usize = 4096;
/// What is learned by comparing is pushed on only when the comparison brought at most so much: a healed partition is no storm.
pub const MAX_PUSHED_ON: usize = 16;

/// Time between two rounds of news of members. A guess: a tenth of what spreading takes at 1000 nodes.
pub const NEWS_INTERVAL: Duration = Duration::from_millis(100);

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
    /// The peers that have something queued and no call under way.
    ready: BTreeSet<NodeId>,
    news: News,
    /// When news may go out next.
    next_news: Instant,
}

/// What is fresh of members, each with who said so first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Members whose claims changed.
    pub members: BTreeMap<NodeId, Option<NodeId>>,
    /// Suspicions.
    pub suspicions: BTreeMap<Suspicion, Option<NodeId>>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.suspicions.is_empty()
    }

    /// To whom not to tell it: of a single word whom it is from and about, of several nobody, since they have little in common.
    pub fn except(&self) -> Vec<NodeId> {
        let words = self.members.iter().map(|(about, from)| (*about, None, *from));
        let words = words.chain(self.suspicions.iter().map(|(suspicion, from)| (suspicion.id, Some(suspicion.by), *from)));
        match (self.members.len() + self.suspicions.len(), words.last()) {
            (1, Some((about, by, from))) => [Some(about), by, from].into_iter().flatten().collect(),
            _ => vec![],
        }
    }
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
    /// The claim about a member has changed, as `from` said or this node found: some peers are to be told.
    pub fn tell_member(&mut self, about: NodeId, from: Option<NodeId>) {
        if self.news.members.len() < MAX_QUEUED {
            self.news.members.entry(about).or_insert(from);
        }
    }

    /// A suspicion was raised or confirmed: some peers are to be told.
    pub fn tell_suspicion(&mut self, suspicion: Suspicion, from: Option<NodeId>) {
        if self.news.suspicions.len() < MAX_QUEUED {
            self.news.suspicions.entry(suspicion).or_insert(from);
        }
    }

    /// The news that are to be told now, to [`FAN_OUT`] peers.
    pub fn due_news(&mut self, now: Instant) -> Option<News> {
        if self.news.is_empty() || now < self.next_news {
            return None;
        }
        self.next_news = now + NEWS_INTERVAL;
        Some(std::mem::take(&mut self.news))
    }

    /// Queues for a peer those news that are neither from nor about it.
    pub fn push_news(&mut self, to: NodeId, news: &News) {
        for (about, from) in &news.members {
            if *about != to && *from != Some(to) {
                self.push_member(to, *about);
            }
        }
        for (suspicion, from) in &news.suspicions {
            if suspicion.id != to && suspicion.by != to && *from != Some(to) {
                self.push_suspicion(to, *suspicion);
            }
        }
    }

    /// When news are due.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.news.is_empty()).then_some(self.next_news)
    }

    /// Queues a record for a peer.
    pub fn push(&mut self, to: NodeId, key: RecordKey, receipt: Option<Receipt>) {
        let queue = self.queue(to);
        if queue.keys.len() < MAX_QUEUED {
            queue.keys.insert(key);
            queue.receipts.extend(receipt);
        }
    }

    /// Queues for a peer that the claim about a member has changed.
    pub fn push_member(&mut self, to: NodeId, about: NodeId) {
        let queue = self.queue(to);
        if queue.members.len() < MAX_QUEUED {
            queue.members.insert(about);
        }
    }

    /// Queues a suspicion for a peer.
    pub fn push_suspicion(&mut self, to: NodeId, suspicion: Suspicion) {
        let queue = self.queue(to);
        if queue.suspicions.len() < MAX_QUEUED {
            queue.suspicions.insert(suspicion);
        }
    }

    /// The queue of a peer that is about to get something to send.
    fn queue(&mut self, to: NodeId) -> &mut Queue {
        let queue = self.queues.entry(to).or_default();
        if !queue.calling {
            self.ready.insert(to);
        }
        queue
    }

    /// The peers to which a call can be made now.
    pub fn ready(&self) -> Vec<NodeId> {
        self.ready.iter().copied().collect()
    }

    /// Takes the first `limit` records queued for `to`, and words about members up to their bound, and marks the peer as called.
    pub fn take(&mut self, to: NodeId, limit: usize) -> Batch {
        self.ready.remove(&to);
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
            self.ready.remove(&to);
        } else {
            self.ready.insert(to);
        }
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(self.news.members.len() <= MAX_QUEUED && self.news.suspicions.len() <= MAX_QUEUED, "news are bounded");
        for (peer, queue) in &self.queues {
            assert_eq!(self.ready.contains(peer), !queue.calling && !queue.is_empty(), "exactly who can be called is ready");
        }
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
    fn however_much_is_news_it_goes_out_once_in_a_tenth_of_a_second() {
        let mut spread = Spread::default();
        let at = |millis: u64| Instant(millis * 1000);
        spread.tell_member(node(2), Some(node(3)));
        assert_eq!(spread.due_news(at(5)).map(|news| news.except()), Some(vec![node(2), node(3)]), "after a quiet time at once");
        (0..10_000).for_each(|n: u64| spread.tell_member(NodeId(uuid::Uuid::from_u128(u128::from(n))), None));
        spread.tell_suspicion(Suspicion { id: node(2), incarnation: 1, by: node(3) }, None);
        assert_eq!((spread.due_news(at(104)), spread.deadline()), (None, Some(at(105))));
        let news = spread.due_news(at(105)).expect("it is time");
        assert_eq!((news.members.len(), news.suspicions.len(), news.except()), (MAX_QUEUED, 1, vec![]));
        assert_eq!(spread.deadline(), None);
    }

    #[test]
    fn news_do_not_go_to_whom_they_are_from_or_about() {
        let mut spread = Spread::default();
        spread.tell_member(node(2), Some(node(3)));
        spread.tell_suspicion(Suspicion { id: node(4), incarnation: 1, by: node(5) }, Some(node(6)));
        let news = spread.due_news(Instant(0)).expect("at once");
        (2..8).for_each(|n| spread.push_news(node(n), &news));
        let told = |spread: &mut Spread, n: u8| {
            let batch = spread.take(node(n), 1);
            (batch.members.len(), batch.suspicions.len())
        };
        assert_eq!((2..8).map(|n| told(&mut spread, n)).collect::<Vec<_>>(), [(0, 1), (0, 1), (1, 0), (1, 0), (1, 0), (1, 1)]);
    }

    #[test]
    fn a_queue_is_bounded() {
        let mut spread = Spread::default();
        (0..10_000).for_each(|n| spread.push(node(1), key(n), None));
        spread.check();
        assert_eq!(spread.take(node(1), usize::MAX).keys.len(), MAX_QUEUED);
    }
}
