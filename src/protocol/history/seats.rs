//! Seats: who is to vote in the next epoch, and what must be so before it may begin.
//!
//! A learner that has caught up asks for a seat. Where one is free, or its voter has been gone for [`VOTER_GRACE`], a voter **settles** the epoch
//! and wishes for the next one.
//!
//! 1. An epoch is changed only when it is settled: a majority of its voters, all of them in this epoch, said what they have; and a majority
//!    of them has all of it. So whatever anyone delivered by the word of an earlier epoch is held by a majority of this one, and fewer than half of the voters
//!    failing in each epoch loses nothing.
//! 2. Settled is settled: what is delivered later, in this epoch, is for the next one to settle.
//! 3. No view of who is alive decides a majority. It only decides who is wished for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::epoch::{Epoch, MAX_VOTERS};
use crate::history::message::{Channel, MessageId};
use crate::history::talk::Holdings;
use crate::ids::NodeId;
use crate::time::Instant;

/// A voter gone for so long gives its seat to a learner that has caught up.
pub(super) const VOTER_GRACE: Duration = Duration::from_secs(60);
/// A learner asks for a seat so often.
pub(super) const SEEKING: Duration = Duration::from_millis(500);
/// One that has not asked for so long is no candidate any more.
const CANDIDACY: Duration = Duration::from_secs(5);
/// How often voters are asked what they have while an epoch is being settled.
pub(super) const ASKING: Duration = Duration::from_millis(250);
/// Most candidates known at once.
const MAX_CANDIDATES: usize = 64;

/// The settling of one epoch.
#[derive(Debug)]
struct Settling {
    epoch: u64,
    answers: BTreeMap<NodeId, Holdings>,
    /// All that a majority had when it was asked first.
    all: Option<Holdings>,
    ask_at: Instant,
}

#[derive(Debug)]
pub(super) struct Seats {
    /// How many there are: with so many voters no more are wished for.
    count: usize,
    candidates: BTreeMap<NodeId, Instant>,
    /// Since when voters are gone.
    gone: BTreeMap<NodeId, Instant>,
    settling: Option<Settling>,
    /// The last epoch known to be settled.
    settled: u64,
}

impl Seats {
    /// So many, and no more than [`MAX_VOTERS`].
    pub(super) fn new(count: usize) -> Self {
        let count = count.clamp(1, MAX_VOTERS);
        Self { count, candidates: BTreeMap::new(), gone: BTreeMap::new(), settling: None, settled: 0 }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A learner asks for a seat.
    pub(super) fn on_candidate(&mut self, node: NodeId, now: Instant) {
        if self.candidates.len() < MAX_CANDIDATES || self.candidates.contains_key(&node) {
            self.candidates.insert(node, now);
        }
    }

    /// What is seen of the voters' liveness.
    pub(super) fn observe(&mut self, epoch: &Epoch, is_live: impl Fn(NodeId) -> bool, now: Instant) {
        self.candidates.retain(|node, asked| now.since(*asked) < CANDIDACY && is_live(*node) && !epoch.voters.contains(node));
        self.gone.retain(|node, _| epoch.voters.contains(node) && !is_live(*node));
        for voter in epoch.voters.iter().filter(|voter| !is_live(**voter)) {
            self.gone.entry(*voter).or_insert(now);
        }
    }

    /// The epoch that should follow: a voter more, or one less that is gone for long and has somebody to replace it.
    pub(super) fn wanted(&self, epoch: &Epoch, now: Instant) -> Option<Epoch> {
        let candidate = self.candidates.keys().next()?;
        if epoch.voters.len() < self.count {
            return Some(epoch.with(*candidate));
        }
        let long_gone = self.gone.iter().filter(|(_, since)| now.since(**since) >= VOTER_GRACE);
        long_gone.min_by_key(|(_, since)| **since).map(|(voter, _)| epoch.without(*voter))
    }

    /// Whether that epoch is settled.
    pub(super) fn is_settled(&self, epoch: &Epoch) -> bool {
        self.settled >= epoch.number
    }

    /// Whether the voters of that epoch are to be asked now what they have.
    pub(super) fn asks(&mut self, epoch: &Epoch, now: Instant) -> bool {
        let settling = match &mut self.settling {
            Some(settling) if settling.epoch == epoch.number => settling,
            stale => stale.insert(Settling { epoch: epoch.number, answers: BTreeMap::new(), all: None, ask_at: now }),
        };
        let due = settling.ask_at <= now;
        if due {
            settling.ask_at = now + ASKING;
        }
        due
    }

    /// A voter, this node too, said what it has.
    pub(super) fn on_holdings(&mut self, epoch: &Epoch, from: NodeId, holdings: Holdings) {
        let Some(settling) = self.settling.as_mut().filter(|settling| settling.epoch == epoch.number) else { return };
        if holdings.epoch != epoch.number || !epoch.voters.contains(&from) {
            return;
        }
        settling.answers.insert(from, holdings);
        let answered: BTreeSet<NodeId> = settling.answers.keys().copied().collect();
        if settling.all.is_none() && epoch.is_majority(&answered) {
            settling.all = Some(union(settling.answers.values()));
        }
        let Some(all) = &settling.all else { return };
        let having = settling.answers.iter().filter(|(_, holdings)| has_all(holdings, all)).map(|(node, _)| *node).collect();
        if epoch.is_majority(&having) {
            self.settled = epoch.number;
            self.settling = None;
        }
    }

    /// Whether there is anything for [`Self::wanted`] to look at.
    pub(super) fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// What must hold at all times.
    pub(super) fn check(&self) {
        assert!(self.candidates.len() <= MAX_CANDIDATES, "bounded");
        assert!(self.settling.as_ref().is_none_or(|settling| settling.epoch > self.settled), "what is settled is settled");
    }
}

fn union<'a>(all: impl Iterator<Item = &'a Holdings>) -> Holdings {
    let mut union = Holdings::default();
    let mut kept: BTreeSet<MessageId> = BTreeSet::new();
    for holdings in all {
        union.epoch = holdings.epoch;
        union.slot = union.slot.max(holdings.slot);
        for (origin, last) in &holdings.delivered {
            let known = union.delivered.entry(*origin).or_default();
            *known = (*known).max(*last);
        }
        kept.extend(&holdings.kept);
    }
    kept.retain(|id| union.delivered.get(&id.origin).is_none_or(|last| id.sequence > *last));
    union.kept = kept.into_iter().collect();
    union
}

fn has_all(holdings: &Holdings, all: &Holdings) -> bool {
    let kept: BTreeSet<&MessageId> = holdings.kept.iter().collect();
    let delivered = |origin: &NodeId| holdings.delivered.get(origin).map_or(0, |last| *last);
    let has = |id: MessageId| id.sequence <= delivered(&id.origin) || kept.contains(&id);
    let has_range = |(origin, last): (&NodeId, &u64)| {
        // More than it keeps cannot be kept.
        let missing = last.saturating_sub(delivered(origin));
        missing <= kept.len() as u64
            && (delivered(origin) + 1..=*last).all(|sequence| has(MessageId { origin: *origin, channel: Channel::Causal, sequence }))
    };
    holdings.slot >= all.slot && all.kept.iter().all(|id| has(*id)) && all.delivered.iter().all(has_range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::node;

    fn three() -> Epoch {
        Epoch { number: 4, voters: [1, 2, 3].map(node).into() }
    }

    fn holdings(epoch: u64, slot: u64, delivered: &[(u8, u64)], kept: &[(u8, u64)]) -> Holdings {
        let id = |(origin, sequence): &(u8, u64)| MessageId { origin: node(*origin), channel: Channel::Causal, sequence: *sequence };
        Holdings {
            epoch,
            slot,
            delivered: delivered.iter().map(|(origin, last)| (node(*origin), *last)).collect(),
            kept: kept.iter().map(id).collect(),
        }
    }

    #[test]
    fn an_epoch_is_settled_when_a_majority_has_what_a_majority_had() {
        let (mut seats, epoch) = (Seats::new(MAX_VOTERS), three());
        assert!(seats.asks(&epoch, Instant(0)) && !seats.asks(&epoch, Instant(1)));
        seats.on_holdings(&epoch, node(1), holdings(4, 7, &[(1, 2)], &[]));
        seats.on_holdings(&epoch, node(9), holdings(4, 7, &[(1, 2)], &[]));
        assert!(!seats.is_settled(&epoch), "a learner's word is nothing");
        seats.on_holdings(&epoch, node(2), holdings(3, 7, &[(1, 2)], &[]));
        assert!(!seats.is_settled(&epoch), "nor that of a voter in an older epoch");
        seats.on_holdings(&epoch, node(2), holdings(4, 6, &[(1, 1)], &[(1, 2), (2, 1)]));
        assert!(!seats.is_settled(&epoch), "one lacks a slot, the other a message");
        seats.on_holdings(&epoch, node(2), holdings(4, 7, &[(1, 1)], &[(2, 1)]));
        seats.on_holdings(&epoch, node(1), holdings(4, 8, &[(1, 2), (2, 1)], &[]));
        assert!(!seats.is_settled(&epoch), "the second lacks the message 2 of 1");
        seats.on_holdings(&epoch, node(2), holdings(4, 7, &[(1, 1)], &[(1, 2), (2, 1)]));
        assert!(seats.is_settled(&epoch) && !seats.is_settled(&epoch.with(node(8))));
    }

    #[test]
    fn a_free_seat_goes_to_who_asks_for_it() {
        let (mut seats, epoch) = (Seats::new(MAX_VOTERS), three());
        assert_eq!(seats.wanted(&epoch, Instant(0)), None);
        seats.on_candidate(node(4), Instant(0));
        assert_eq!(seats.wanted(&epoch, Instant(0)), Some(epoch.with(node(4))));
        seats.observe(&epoch, |_| true, Instant(5_000_000));
        assert_eq!(seats.wanted(&epoch, Instant(5_000_000)), None, "it asks no more");
    }

    #[test]
    fn a_seat_is_taken_from_who_is_gone_for_a_minute_and_only_if_somebody_takes_it() {
        let (mut seats, epoch) = (Seats::new(MAX_VOTERS), Epoch { number: 9, voters: (1..=7).map(node).collect() });
        let second = |n: u64| Instant(n * 1_000_000);
        let gone = |id: NodeId| id != node(3);
        seats.observe(&epoch, gone, second(0));
        assert_eq!(seats.wanted(&epoch, second(70)), None);
        seats.on_candidate(node(8), second(59));
        seats.observe(&epoch, gone, second(59));
        assert_eq!(seats.wanted(&epoch, second(59)), None);
        assert_eq!(seats.wanted(&epoch, second(60)), Some(epoch.without(node(3))));
        seats.observe(&epoch, |_| true, second(61));
        assert_eq!(seats.wanted(&epoch, second(63)), None, "it is back");
    }

    #[test]
    fn no_more_seats_are_given_than_there_are_but_none_is_taken_away() {
        let (mut seats, three) = (Seats::new(3), three());
        seats.on_candidate(node(8), Instant(0));
        assert_eq!(seats.wanted(&three, Instant(0)), None);
        let two = three.without(node(3));
        assert_eq!(seats.wanted(&two, Instant(0)), Some(two.with(node(8))));
        let five = Epoch { number: 9, voters: (1..=5).map(node).collect() };
        assert_eq!(seats.wanted(&five, Instant(0)), None, "who votes goes on voting");
    }
}
