//! Snapshots: taking them from others, serving them.

use crate::ids::NodeId;
use crate::io::{CallFault, Misbehaviour, Outbox, Refusal, Target};
use crate::node::merging::Via;
use crate::node::{MAX_RECONCILED_AT_ONCE, Node, Purpose};
use crate::records::MAX_PENDING;
use crate::snapshot::{Ended, MAX_SOURCES, Question, is_newcomer, may_take, page_of};
use crate::store::{Store, StoreFault};
use crate::summary::Root;
use crate::time::Now;
use crate::wire::{Answer, SNAPSHOT_PAGE, SnapshotAnswer, SnapshotRequest};

/// How much of the overlay pages may fill. The rest is left to clients' writes and to rumors.
const SHARE: usize = MAX_PENDING / 4 * 3;

impl<S: Store> Node<S> {
    /// A peer's root differs from this node's: whether a snapshot is what helps, here or there, and no reconciliation.
    pub(super) fn meets_newcomer(&mut self, now: Now, peer: NodeId, target: &Target, theirs: Root, out: &mut Outbox) -> bool {
        let ours = self.records.summary().root();
        if self.snapshot.is_under_way() {
            self.snapshot.join(target.clone(), theirs.count);
            return true;
        }
        let reconciles = self.reconciliation.peer().is_some();
        if !reconciles && may_take(ours, theirs) && self.snapshot.begin(target.clone(), theirs.count, now.instant) {
            // Others are asked at once whether they have as much, rather than one a second.
            for other in self.membership.pick_some(MAX_SOURCES - 1, &[peer], &mut self.rng) {
                self.begin_exchange(now, other, out);
            }
            return true;
        }
        is_newcomer(theirs, ours) && self.snapshot.leaves_alone(peer, theirs)
    }

    /// Asks for the pages that there is room for, and ends the snapshot when it is through.
    pub(super) fn take_snapshot(&mut self, now: Now, out: &mut Outbox) {
        if !self.snapshot.is_under_way() {
            return;
        }
        loop {
            let persisting = self.after.len() > MAX_RECONCILED_AT_ONCE;
            let room = if persisting { 0 } else { SHARE.saturating_sub(self.records.taken()) };
            let Some((target, question)) = self.snapshot.next(now.instant, room) else { break };
            self.records.reserve(self.snapshot.reserved());
            let Some(peer) = target.id else { continue };
            self.call(target, question.request(), Purpose::Snapshot(peer, question), out);
        }
        match self.snapshot.end(now.instant) {
            // The ordinary reconciliation, both ways, follows from the exchange.
            Some(Ended::Complete(giver)) => {
                self.counters.snapshots += 1;
                self.begin_exchange(now, giver, out);
            }
            Some(Ended::BrokenOff) | None => {}
        }
        self.records.reserve(self.snapshot.reserved());
    }

    /// An answer to a snapshot that has ended meanwhile changes nothing.
    pub(super) fn on_snapshot(
        &mut self,
        now: Now,
        peer: NodeId,
        asked: Question,
        answer: Answer,
        out: &mut Outbox,
    ) -> Result<(), StoreFault> {
        if self.snapshot.asked(peer) != Some(asked) {
            return Ok(());
        }
        match (asked, answer) {
            (Question::Partitions, Answer::Partitions(answer)) => {
                let equal = self.snapshot.on_partitions(peer, &answer.roots, self.records.summary());
                self.counters.snapshot_partitions_skipped += equal;
            }
            (Question::Page(stretch), Answer::Snapshot(answer)) if self.advances(&stretch, &answer) => {
                self.counters.snapshot_pages += 1;
                self.counters.snapshot_records += answer.give.len() as u64;
                // Its room is given back only to be taken by its records at once.
                self.records.reserve(self.snapshot.reserved() - SNAPSHOT_PAGE);
                let changed = self.merge_records(now, peer, answer.give, Via::Snapshot, out)?;
                self.snapshot.on_page(peer, answer.next, !changed.is_empty(), now.instant);
            }
            (Question::Partitions | Question::Page(_), _) => {
                self.misbehaved(peer, Misbehaviour::Malformed, "an answer that does not lead on".into(), out);
                self.snapshot.on_failed(peer, false, now.instant);
            }
        }
        Ok(())
    }

    pub(super) fn on_no_snapshot(&mut self, now: Now, peer: NodeId, asked: Question, fault: &CallFault) {
        if self.snapshot.asked(peer) == Some(asked) {
            self.snapshot.on_failed(peer, *fault == CallFault::Busy, now.instant);
        }
    }

    /// Whether a page ends within its stretch, and the rest of it is shorter.
    fn advances(&self, asked: &SnapshotRequest, answer: &SnapshotAnswer) -> bool {
        let Some(next) = answer.next.map(|next| self.records.key(next)) else { return true };
        let farther = asked.after.is_none_or(|after| self.records.key(after) < next);
        farther && (asked.first..=asked.last).contains(&next.hash.partition())
    }

    /// A peer takes a snapshot.
    pub(super) fn on_snapshot_request(
        &mut self,
        now: Now,
        from: NodeId,
        request: &SnapshotRequest,
    ) -> Result<Result<Answer, Refusal>, StoreFault> {
        if let Err(refusal) = self.served.enter(from, now.instant) {
            return Ok(Err(refusal));
        }
        self.counters.snapshot_pages_served += 1;
        Ok(Ok(Answer::Snapshot(page_of(request, &self.records)?)))
    }
}
