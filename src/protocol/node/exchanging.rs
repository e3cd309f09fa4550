//! Exchanges and the reconciliations that follow from them.

use rand::RngExt;

use crate::ids::NodeId;
use crate::io::{CallFault, Misbehaviour, Outbox, Refusal};
use crate::node::merging::Via;
use crate::node::{MAX_RECONCILED_AT_ONCE, Node, Purpose};
use crate::planted::{Bug, is_planted};
use crate::reconciliation::{self, MAX_CALLS_AT_ONCE, Outcome, Step, Unfit};
use crate::store::{Store, StoreFault};
use crate::time::Now;
use crate::wire::{
    Answer, CellsRequest, Compared, Digest, FIRST_CELLS, ItemsRequest, MAX_RECORDS, PartitionsAnswer, RecordsAnswer, RecordsRequest,
    SketchesRequest,
};

impl<S: Store> Node<S> {
    /// What an exchange with that peer opens with.
    pub(super) fn digest(&self, now: Now, peer: NodeId) -> Digest {
        let occupied = self.snapshot.is_under_way() || self.reconciliation.is_occupied(peer, now.instant);
        Digest {
            root: self.records.summary().root(),
            members: self.membership.fingerprint(),
            history: self.history.fingerprint(),
            occupied,
        }
    }

    /// A peer opens an exchange: it is told what differs, and where its records do and there is a place for it, the first cells. Never refused, because it is
    /// a heartbeat too.
    pub(super) fn compare(&mut self, now: Now, peer: NodeId, theirs: Digest) -> Compared {
        let ours = self.digest(now, peer);
        let members = Some(ours.members).filter(|members| *members != theirs.members);
        let history = self.history.head().filter(|_| ours.history != theirs.history);
        if theirs.root == ours.root || is_planted(Bug::CountsCompared) && theirs.root.count == ours.root.count {
            self.served.close(peer);
            return Compared { members, history, ..Compared::default() };
        }
        let sketch = self.records.summary().sketch();
        let number = self.rng.random();
        let opened = !theirs.occupied && self.served.open(peer, number, sketch, now.instant);
        let cells = if opened { sketch.cells().iter().take(FIRST_CELLS).copied().collect() } else { vec![] };
        self.counters.cells_sent += cells.len() as u64;
        Compared { members, history, root: Some(ours.root), sketch: opened.then_some(number), cells }
    }

    /// The answer to an exchange that this node opened.
    pub(super) fn on_compared(&mut self, now: Now, peer: NodeId, theirs: Compared, out: &mut Outbox) {
        self.exchanged.insert(peer);
        self.compare_histories(now, peer, theirs.history, out);
        let Some(target) = self.membership.target(peer) else { return };
        let equal = theirs.members.is_none_or(|members| members == self.membership.fingerprint());
        self.compare_members(now, &target, equal, out);
        let Some(root) = theirs.root.filter(|root| *root != self.records.summary().root()) else {
            self.counters.exchanges_equal += 1;
            return;
        };
        if self.meets_newcomer(now, peer, &target, root, out) {
            return;
        }
        match theirs.sketch {
            Some(number) => {
                if self.reconciliation.gives_way(now.instant) {
                    self.end_reconciliation(Outcome::Broken);
                }
                self.reconciliation.begin(target, root, (number, &theirs.cells), &self.records, now.instant, &mut self.counters);
            }
            None if self.reconciliation.is_occupied(peer, now.instant) => {}
            None => self.reconciliation.pause(peer, now.instant, &mut self.rng, &mut self.counters),
        }
    }

    pub(super) fn on_cells(&mut self, now: Now, from: NodeId, request: &CellsRequest) -> Result<Answer, Refusal> {
        let answer = self.served.cells(from, request, now.instant)?;
        self.counters.cells_sent += answer.cells.len() as u64;
        Ok(Answer::Cells(answer))
    }

    pub(super) fn on_partitions(&mut self, now: Now, from: NodeId) -> Result<Answer, Refusal> {
        self.served.enter(from, now.instant)?;
        Ok(Answer::Partitions(PartitionsAnswer { roots: self.records.summary().partitions().to_vec() }))
    }

    pub(super) fn on_sketches(&mut self, now: Now, from: NodeId, request: &SketchesRequest) -> Result<Result<Answer, Refusal>, StoreFault> {
        if let Err(refusal) = self.served.enter(from, now.instant) {
            return Ok(Err(refusal));
        }
        let answer = reconciliation::sketches_of(request, &self.records)?;
        self.counters.cells_sent += answer.cells.len() as u64;
        Ok(Ok(Answer::Sketches(answer)))
    }

    pub(super) fn on_items(&mut self, now: Now, from: NodeId, request: &ItemsRequest) -> Result<Result<Answer, Refusal>, StoreFault> {
        if let Err(refusal) = self.served.enter(from, now.instant) {
            return Ok(Err(refusal));
        }
        Ok(Ok(Answer::Items(reconciliation::items_of(request, &self.records)?)))
    }

    pub(super) fn on_records(
        &mut self,
        now: Now,
        from: NodeId,
        request: RecordsRequest,
        out: &mut Outbox,
    ) -> Result<Result<Answer, Refusal>, StoreFault> {
        if let Err(refusal) = self.served.enter(from, now.instant) {
            return Ok(Err(refusal));
        }
        self.merge_records(now, from, request.give, Via::Given, out)?;
        if request.last {
            self.served.close(from);
        }
        Ok(Ok(Answer::Records(reconciliation::records_of(&request.ask, &self.records)?)))
    }

    /// An answer to a step of a reconciliation.
    pub(super) fn on_step(&mut self, now: Now, peer: NodeId, step: &Step, answer: Answer, out: &mut Outbox) -> Result<(), StoreFault> {
        let fits = match answer {
            Answer::Records(answer) => {
                let RecordsAnswer { give, seen } = answer.clone();
                let changed = self.merge_records(now, peer, give, Via::Asked, out)?;
                if self.renounced.is_some() {
                    return Ok(());
                }
                self.reconciliation.on_records(step, &RecordsAnswer { give: answer.give, seen }, &changed, &self.records)?
            }
            Answer::Exchange(_)
            | Answer::Cells(_)
            | Answer::Partitions(_)
            | Answer::Sketches(_)
            | Answer::Items(_)
            | Answer::Snapshot(_)
            | Answer::Members(_)
            | Answer::Taken(_)
            | Answer::Holds(_)
            | Answer::History(_)
            | Answer::Probe(_) => self.reconciliation.on_told(step, answer, &self.records, &mut self.counters)?,
        };
        if fits == Err(Unfit) {
            self.misbehaved(peer, Misbehaviour::Malformed, "an answer to another question".into(), out);
            self.end_reconciliation(Outcome::Broken);
        }
        Ok(())
    }

    /// A step of a reconciliation brought no answer.
    pub(super) fn on_step_failed(&mut self, now: Now, peer: NodeId, step: &Step, fault: &CallFault) {
        if !self.reconciliation.is_current(step) {
            return;
        }
        if *fault == CallFault::Busy {
            self.end_reconciliation(Outcome::Refused);
            self.reconciliation.pause(peer, now.instant, &mut self.rng, &mut self.counters);
        } else {
            self.end_reconciliation(Outcome::Broken);
        }
    }

    /// Makes the calls of the reconciliation under way that can be made now.
    pub(super) fn reconcile(&mut self, now: Now, out: &mut Outbox) -> Result<(), StoreFault> {
        // Records beyond what the disk keeps up with would be dropped, so they are asked for when it has.
        while self.after.len() <= MAX_RECONCILED_AT_ONCE && self.records.has_room(MAX_CALLS_AT_ONCE * MAX_RECORDS) {
            let Some((target, request, step)) = self.reconciliation.next_call(&self.records, now.instant, &mut self.counters)? else {
                break;
            };
            let Some(peer) = target.id else { break };
            self.call(target, request, Purpose::Reconcile(peer, step), out);
        }
        if self.reconciliation.is_over() {
            self.end_reconciliation(Outcome::Done);
        }
        Ok(())
    }

    fn end_reconciliation(&mut self, outcome: Outcome) {
        let peer: Vec<NodeId> = self.reconciliation.peer().into_iter().collect();
        for key in self.reconciliation.end(outcome, &mut self.counters) {
            self.push_fresh(key, &peer);
        }
    }
}
