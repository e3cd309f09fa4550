//! A voter: what it confirms and takes, by ballots alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Accepted, Ballot, Batch, Change, Decision, Effect, MAX_AHEAD, MAX_REPORTED, Ordered, PARTICIPATION, SILENCE, Step, Then, Vote,
};
use crate::history::transaction::Signal;
use crate::ids::{ContentHash, NodeId};
use crate::io::PeerCall;
use crate::planted::{Bug, is_planted};
use crate::time::Instant;

impl Ordered {
    /// A coordinator says something.
    pub fn on_step(&mut self, now: Instant, from: NodeId, call: PeerCall, step: Step, out: &mut Vec<Effect>) {
        match step {
            Step::Start { ballot, slot } if ballot.node == from => self.on_start(now, call, ballot, slot, out),
            Step::Update { ballot, slot, batch, commit } if ballot.node == from => {
                if let Some(Decision { slot, hash }) = commit {
                    self.on_commit(now, from, ballot, slot, hash, out);
                }
                self.on_update(now, call, ballot, slot, batch, out);
            }
            Step::Commit { ballot, slot, hash } => {
                self.on_commit(now, from, ballot, slot, hash, out);
                out.push(Effect::Answer(call, Vote::Taken));
            }
            Step::Rollback { ballot } => {
                if self.followed == Some(ballot) {
                    self.transaction.on_signal(Signal::RollbackReceived, now);
                    (self.followed, self.participates_until) = (None, None);
                }
                out.push(Effect::Answer(call, Vote::Taken));
            }
            // Nobody speaks for another coordinator.
            Step::Start { .. } | Step::Update { .. } => self.refuse(call, out),
        }
    }

    /// What this voter has accepted for that slot and later ones, and does not know decided.
    pub(super) fn accepted_from(&self, slot: u64) -> BTreeMap<u64, Accepted> {
        let from = if is_planted(Bug::AcceptedForgotten) { u64::MAX } else { slot.max(self.decided + 1) };
        self.accepted.range(from..).map(|(slot, accepted)| (*slot, accepted.clone())).collect()
    }

    fn participate(&mut self, signal: Signal, now: Instant) {
        self.transaction.on_signal(signal, now);
        self.participates_until = Some(now + PARTICIPATION);
    }

    /// Names the ballot promised, and so waits until it is on disk: nobody hears of a ballot that its node might forget.
    pub(super) fn refuse(&mut self, call: PeerCall, out: &mut Vec<Effect>) {
        let vote = Vote::Refused { promised: self.promised.unwrap_or(Ballot { round: 0, node: self.me }) };
        match self.disk.back_mut() {
            Some(then) => then.push(Then::Answer(call, vote)),
            None => out.push(Effect::Answer(call, vote)),
        }
    }

    pub(super) fn on_start(&mut self, now: Instant, call: PeerCall, ballot: Ballot, slot: u64, out: &mut Vec<Effect>) {
        if self.promised.is_some_and(|promised| promised > ballot) {
            return self.refuse(call, out);
        }
        self.follow(now, ballot, out);
        self.participate(Signal::StartTransactionReceived, now);
        let accepted = self.accepted_from(slot);
        let decided = self.recent.range(slot..).take(MAX_REPORTED).map(|(slot, batch)| (*slot, batch.clone())).collect();
        let at_hand = slot > self.decided || self.recent.contains_key(&slot);
        let vote = if at_hand { Vote::Confirm { ballot, accepted, decided } } else { Vote::Ahead { decided: self.decided } };
        self.promised = Some(ballot);
        self.persist(vec![Change::Promise(ballot)], vec![Then::Answer(call, vote)], out);
    }

    pub(super) fn on_update(&mut self, now: Instant, call: PeerCall, ballot: Ballot, slot: u64, batch: Batch, out: &mut Vec<Effect>) {
        if self.promised.is_some_and(|promised| promised > ballot) {
            return self.refuse(call, out);
        }
        self.follow(now, ballot, out);
        if slot <= self.decided {
            let vote = match self.recent.get(&slot) {
                Some(batch) => Vote::Decided { slot, batch: batch.clone() },
                None => Vote::Ahead { decided: self.decided },
            };
            out.push(Effect::Answer(call, vote));
            return;
        }
        if slot > self.decided + 1 {
            // Who proposes for a slot knows all before it.
            out.push(Effect::Behind(ballot.node, slot - 1));
        }
        if slot > self.decided + MAX_AHEAD {
            out.push(Effect::Answer(call, Vote::Behind));
            return;
        }
        self.participate(Signal::UpdateReceived, now);
        let accepted = Accepted { ballot, batch };
        self.promised = Some(ballot);
        self.accepted.insert(slot, accepted.clone());
        self.persist(vec![Change::Accept(slot, accepted)], vec![Then::Received(call, ballot, slot)], out);
    }

    /// A voter, this one or the coordinator, has the batch proposed for that slot under that ballot, durably. Where that makes a majority, the slot is
    /// decided: a ballot proposes one batch for a slot.
    pub fn on_acceptance(&mut self, now: Instant, voter: NodeId, ballot: Ballot, slot: u64, out: &mut Vec<Effect>) {
        let latest = self.acceptances.as_ref().map(|(slot, ballot, _)| (*slot, *ballot));
        if slot <= self.decided || latest > Some((slot, ballot)) {
            return;
        }
        if latest < Some((slot, ballot)) {
            self.acceptances = Some((slot, ballot, BTreeSet::new()));
        }
        let Some((.., voters)) = &mut self.acceptances else { return };
        voters.insert(voter);
        let is_decided = slot == self.decided + 1 && (self.epoch.is_majority(voters) || is_planted(Bug::VoteTakenForMajority));
        let held = self.accepted.get(&slot).filter(|accepted| is_decided && accepted.ballot == ballot);
        if let Some(batch) = held.map(|accepted| accepted.batch.clone()) {
            self.decide(now, slot, batch, out);
        }
    }

    pub(super) fn on_commit(&mut self, now: Instant, from: NodeId, ballot: Ballot, slot: u64, hash: ContentHash, out: &mut Vec<Effect>) {
        if Some(ballot) >= self.seen {
            self.follow(now, ballot, out);
        }
        if slot <= self.decided {
            return;
        }
        let is_it = |accepted: &&Accepted| accepted.batch.hash() == hash || is_planted(Bug::CommitOfAnyBatch);
        let held = self.accepted.get(&slot).filter(is_it).map(|accepted| accepted.batch.clone());
        match held {
            Some(batch) if slot == self.decided + 1 => self.decide(now, slot, batch, out),
            Some(_) | None => out.push(Effect::Behind(from, slot)),
        }
    }

    /// Another node coordinates with a ballot at least as great as any confirmed here.
    pub(super) fn follow(&mut self, now: Instant, ballot: Ballot, out: &mut Vec<Effect>) {
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.ballot < ballot) {
            self.roll_back(now, out);
        }
        self.seen = self.seen.max(Some(ballot));
        if self.followed != Some(ballot) {
            self.followed = Some(ballot);
            self.hand_over_anew(now);
        }
        (self.heard, self.silence, self.ballot_at) = (now, SILENCE, None);
    }
}
