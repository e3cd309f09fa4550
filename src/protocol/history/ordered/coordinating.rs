//! A coordinator: from Start to Commit, or to Rollback.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Accepted, BATCH_BUDGET, Ballot, Batch, Change, Decision, Effect, Entry, LONGEST_SILENCE, MAX_BATCH, Ordered, PATIENCE, Ready, SILENCE,
    Step, Then, UNTOLD, Vote,
};
use crate::history::message::{Message, MessageId};
use crate::history::transaction::Signal;
use crate::ids::NodeId;
use crate::io::PeerCall;
use crate::planted::{Bug, is_planted};
use crate::time::Instant;

/// Where a coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Start is sent; who confirmed.
    Starting(BTreeSet<NodeId>),
    /// A majority confirmed; nothing is proposed.
    Steady,
    /// Update is sent; who has it, and who is told when this node has it.
    Updating { slot: u64, batch: Batch, received: BTreeSet<NodeId>, confided: BTreeSet<NodeId> },
}

#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) ballot: Ballot,
    /// The epoch for which a majority confirmed or is asked to.
    pub(super) epoch: u64,
    pub(super) phase: Phase,
    /// What the greatest ballot reported for each slot.
    pub(super) reported: BTreeMap<u64, Accepted>,
    /// When the phase under way is rolled back.
    pub(super) until: Instant,
    /// Decided just now, and not told to all.
    pub(super) untold: Option<Untold>,
}

/// A decision that some voters were not told.
#[derive(Debug)]
pub(super) struct Untold {
    decision: Decision,
    /// Those voters.
    voters: Vec<NodeId>,
    /// When they are told, unless the next batch comes first.
    pub(super) until: Instant,
}

impl Ordered {
    /// A voter answered.
    pub fn on_vote(&mut self, now: Instant, from: NodeId, vote: Vote, ready: Ready<'_>, out: &mut Vec<Effect>) {
        match vote {
            Vote::Confirm { ballot, accepted, decided } => {
                for (slot, batch) in decided {
                    self.on_decided(now, slot, batch, out);
                }
                self.on_confirm(now, from, ballot, accepted, ready, out);
            }
            Vote::Received { ballot, slot } => self.on_received(now, from, ballot, slot, ready, out),
            Vote::Decided { slot, batch } => {
                self.on_decided(now, slot, batch, out);
                self.proceed(now, ready, out);
            }
            Vote::Refused { promised } => {
                self.seen = self.seen.max(Some(promised));
                if self.coordinator.as_ref().is_some_and(|coordinator| promised > coordinator.ballot) {
                    self.roll_back(now, out);
                }
            }
            Vote::Ahead { decided } if decided > self.decided => out.push(Effect::Behind(from, decided)),
            Vote::Ahead { .. } | Vote::Behind | Vote::Taken => {}
        }
    }

    pub(super) fn on_confirm(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        accepted: BTreeMap<u64, Accepted>,
        ready: Ready<'_>,
        out: &mut Vec<Effect>,
    ) {
        self.on_voted(from, ballot, 0);
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.ballot == ballot) else { return };
        let Phase::Starting(confirmed) = &mut coordinator.phase else { return };
        confirmed.insert(from);
        for (slot, accepted) in accepted {
            let known = coordinator.reported.get(&slot).map(|known| known.ballot);
            if known.is_none_or(|known| known < accepted.ballot) {
                coordinator.reported.insert(slot, accepted);
            }
        }
        if self.epoch.is_majority(confirmed) {
            coordinator.phase = Phase::Steady;
            self.silence = SILENCE;
            self.proceed(now, ready, out);
        }
    }

    pub(super) fn on_received(&mut self, now: Instant, from: NodeId, ballot: Ballot, of: u64, ready: Ready<'_>, out: &mut Vec<Effect>) {
        self.on_voted(from, ballot, of);
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.ballot == ballot) else { return };
        let Phase::Updating { slot, batch, received, confided } = &mut coordinator.phase else { return };
        if *slot != of {
            return;
        }
        received.insert(from);
        if !self.epoch.is_majority(received) {
            return;
        }
        // Who was told this node's vote knows by its own that there is a majority, if two are one.
        let mut knowing = std::mem::take(confided);
        knowing.retain(|voter| received.contains(&self.me) && self.epoch.is_majority(&BTreeSet::from([self.me, *voter])));
        let (slot, batch) = (*slot, batch.clone());
        let voters = self.epoch.voters.iter().copied().filter(|voter| *voter != self.me).collect();
        coordinator.phase = Phase::Steady;
        self.transaction.on_signal(Signal::CommitSent, now);
        let hash = batch.hash();
        coordinator.untold = Some(Untold { decision: Decision { slot, hash }, voters, until: now + UNTOLD });
        let origins: BTreeSet<NodeId> = batch.messages().map(|message| message.id.origin).collect();
        self.record(slot, batch, out);
        self.proceed(now, ready, out);
        self.tell_some(|voter| origins.contains(voter) && !knowing.contains(voter), out);
    }

    /// Tells what is decided to all who were not told.
    pub(super) fn tell_rest(&mut self, out: &mut Vec<Effect>) {
        self.tell_some(|_| true, out);
    }

    fn tell_some(&mut self, whom: impl Fn(&NodeId) -> bool, out: &mut Vec<Effect>) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let Some(mut untold) = coordinator.untold.take() else { return };
        let (ballot, Decision { slot, hash }) = (coordinator.ballot, untold.decision);
        let (told, rest): (Vec<NodeId>, Vec<NodeId>) = untold.voters.into_iter().partition(whom);
        untold.voters = rest;
        coordinator.untold = Some(untold).filter(|untold| !untold.voters.is_empty());
        out.extend(told.into_iter().map(|voter| Effect::Ask(voter, Step::Commit { ballot, slot, hash })));
    }

    /// A voter says that it gave its vote, late perhaps.
    fn on_voted(&mut self, voter: NodeId, ballot: Ballot, slot: u64) {
        if self.epoch.voters.contains(&voter) {
            let voted = self.votes.entry(voter).or_insert((ballot, slot));
            *voted = (*voted).max((ballot, slot));
        }
    }

    /// Begins a ballot.
    pub(super) fn start(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let round = self.seen.max(self.promised).map_or(0, |seen| seen.round) + 1;
        let ballot = Ballot { round, node: self.me };
        let phase = Phase::Starting(BTreeSet::new());
        self.coordinator =
            Some(Coordinator { ballot, epoch: self.epoch.number, phase, reported: BTreeMap::new(), until: now + PATIENCE, untold: None });
        (self.seen, self.promised, self.followed, self.ballot_at) = (Some(ballot), Some(ballot), None, None);
        self.transaction.on_signal(Signal::StartTransactionSent, now);
        self.persist(vec![Change::Promise(ballot)], vec![Then::OwnConfirm(ballot)], out);
    }

    /// The own ballot is durable: it is asked for now, and not sooner, or a node that forgot it in a crash would use it twice.
    pub(super) fn ask_for_ballot(&mut self, ballot: Ballot, out: &mut Vec<Effect>) {
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.ballot == ballot) {
            let slot = self.decided + 1;
            out.extend(self.others().into_iter().map(|voter| Effect::Ask(voter, Step::Start { ballot, slot })));
        }
    }

    /// Messages are handed over by that node. True: all of them are proposed now, and the call is answered with this node's vote.
    pub fn on_handed(
        &mut self,
        now: Instant,
        (from, call): (NodeId, PeerCall),
        messages: Vec<Message>,
        ready: Ready<'_>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let mut names: BTreeSet<MessageId> = messages.iter().map(|message| message.id).collect();
        messages.into_iter().for_each(|message| _ = self.on_message(message, now));
        let is_free = self.coordinator.as_ref().is_some_and(|coordinator| coordinator.phase == Phase::Steady);
        self.proceed(now, ready, out);
        let Some(Coordinator { ballot, phase: Phase::Updating { slot, batch, confided, .. }, .. }) = &mut self.coordinator else {
            return false;
        };
        batch.messages().for_each(|message| _ = names.remove(&message.id));
        let Some(then) = self.disk.back_mut().filter(|_| is_free && names.is_empty()) else { return false };
        confided.insert(from);
        then.push(Then::Answer(call, Vote::Received { ballot: *ballot, slot: *slot }));
        true
    }

    /// Proposes for the next slot, if there is something to propose.
    pub(super) fn proceed(&mut self, now: Instant, ready: Ready<'_>, out: &mut Vec<Effect>) {
        let slot = self.decided + 1;
        let Some(coordinator) = self.coordinator.as_ref().filter(|coordinator| coordinator.phase == Phase::Steady) else { return };
        if coordinator.epoch != self.epoch.number && !is_planted(Bug::StartSkipped) {
            // A new epoch begins with a Start, by whoever votes in it.
            self.tell_rest(out);
            self.coordinator = None;
            if self.epoch.voters.contains(&self.me) {
                self.start(now, out);
            }
            return;
        }
        let ballot = coordinator.ballot;
        let batch = coordinator.reported.get(&slot).map_or_else(|| self.form(ready), |accepted| accepted.batch.clone());
        if batch.entries.is_empty() {
            return self.transaction.on_nothing_to_propose(now);
        }
        let mut commit = None;
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.phase = Phase::Updating { slot, batch: batch.clone(), received: BTreeSet::new(), confided: BTreeSet::new() };
            coordinator.until = now + PATIENCE;
            commit = coordinator.untold.take().map(|untold| untold.decision);
        }
        self.transaction.on_signal(Signal::UpdateRemoteNodes, now);
        let accepted = Accepted { ballot, batch: batch.clone() };
        self.accepted.insert(slot, accepted.clone());
        self.persist(vec![Change::Accept(slot, accepted)], vec![Then::OwnReceived(ballot, slot)], out);
        // First to those for whose messages somebody may wait there.
        let (theirs, others): (Vec<NodeId>, Vec<NodeId>) =
            self.others().into_iter().partition(|voter| batch.messages().any(|message| message.id.origin == *voter));
        let update = |batch| Step::Update { ballot, slot, batch, commit };
        out.extend(theirs.into_iter().chain(others).map(|voter| Effect::Ask(voter, update(batch.clone()))));
    }

    /// All messages that may stand in the next slot, each origin's in their order, and the epoch wished for.
    pub(super) fn form(&self, ready: Ready<'_>) -> Batch {
        let mut entries = Vec::new();
        let (mut bytes, mut next) = (0, BTreeMap::new());
        for message in self.waiting.values() {
            let expected =
                next.entry(message.id.origin).or_insert_with(|| self.ordered.get(&message.id.origin).map_or(0, |last| *last) + 1);
            if message.id.sequence != *expected || !ready(&message.frontier) {
                continue;
            }
            bytes += message.body.bytes().len();
            if entries.len() == MAX_BATCH || bytes > BATCH_BUDGET && !entries.is_empty() {
                break;
            }
            *expected += 1;
            entries.push(Entry::Message(message.clone()));
        }
        entries.extend(self.wish.clone().map(Entry::Epoch));
        Batch::of(entries)
    }

    /// Gives up this node's ballot; its messages are tried again later.
    pub(super) fn roll_back(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.tell_rest(out);
        let Some(coordinator) = self.coordinator.take() else { return };
        let ballot = coordinator.ballot;
        self.transaction.on_signal(Signal::RollbackSent, now);
        // One that is not on disk yet was asked of nobody.
        let unheard = matches!(&coordinator.phase, Phase::Starting(confirmed) if !confirmed.contains(&self.me));
        let told = self.others().into_iter().filter(|_| !unheard);
        out.extend(told.map(|voter| Effect::Ask(voter, Step::Rollback { ballot })));
        self.silence = (self.silence * 2).min(LONGEST_SILENCE);
        (self.heard, self.ballot_at) = (now, None);
        self.hand_over_anew(now);
    }
}
