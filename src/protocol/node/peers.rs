//! What peers ask, what they answer.

use crate::ids::NodeId;
use crate::io::{CallFault, Event, Misbehaviour, Outbox, Output, OwnCall, Refusal};
use crate::node::{Node, Purpose};
use crate::store::{Store, StoreFault};
use crate::time::Now;
use crate::wire::{Answer, Envelope, HoldsAnswer, MemberList, Request, Taken, VERSION};

impl<S: Store> Node<S> {
    pub(super) fn on_request(
        &mut self,
        now: Now,
        request: Envelope<Request>,
        out: &mut Outbox,
    ) -> Result<Result<Envelope<Answer>, Refusal>, StoreFault> {
        if let Err(refusal) = self.admit(&request, out) {
            return Ok(Err(refusal));
        }
        let (from, incarnation) = (request.sender, request.incarnation);
        self.heard(now, from, incarnation, out);
        let answer = match request.body {
            Request::Exchange(digest) => Answer::Exchange(self.compare(now, from, digest)),
            Request::Cells(cells) => return Ok(self.on_cells(now, from, &cells).map(|answer| self.envelope(answer))),
            Request::Partitions(_) => return Ok(self.on_partitions(now, from).map(|answer| self.envelope(answer))),
            Request::Sketches(sketches) => return Ok(self.on_sketches(now, from, &sketches)?.map(|answer| self.envelope(answer))),
            Request::Items(items) => return Ok(self.on_items(now, from, &items)?.map(|answer| self.envelope(answer))),
            Request::Records(records) => return Ok(self.on_records(now, from, records, out)?.map(|answer| self.envelope(answer))),
            Request::Members(list) => {
                self.merge_members(now, list, out);
                Answer::Members(MemberList { members: self.membership.list() })
            }
            Request::Rumors(rumors) => {
                self.on_rumors(now, from, rumors, out)?;
                Answer::Taken(Taken {})
            }
            Request::Receipts(receipts) => {
                self.on_receipts(from, receipts, out);
                Answer::Taken(Taken {})
            }
            Request::Holds(holds) => Answer::Holds(HoldsAnswer { holds: self.records.holds(holds.hash)? }),
        };
        Ok(Ok(self.envelope(answer)))
    }

    /// Refuses what is not for this node, or breaks a rule, before anything changes.
    fn admit(&mut self, request: &Envelope<Request>, out: &mut Outbox) -> Result<(), Refusal> {
        let (kind, refusal) = if request.version != VERSION {
            (Misbehaviour::Foreign, Refusal::UnknownVersion { ours: VERSION, theirs: request.version })
        } else if request.cluster != self.cluster {
            (Misbehaviour::Foreign, Refusal::OtherCluster { ours: self.cluster.clone(), theirs: request.cluster.clone() })
        } else if request.sender == self.id() {
            return Err(Refusal::FromSelf);
        } else if let Err(fault) = request.body.validate() {
            (Misbehaviour::Malformed, Refusal::Malformed(fault.to_string()))
        } else {
            return Ok(());
        };
        self.misbehaved(request.sender, kind, refusal.to_string(), out);
        Err(refusal)
    }

    pub(super) fn on_answered(
        &mut self,
        now: Now,
        call: OwnCall,
        result: Result<Envelope<Answer>, CallFault>,
        out: &mut Outbox,
    ) -> Result<(), StoreFault> {
        let Some(purpose) = self.calls.remove(&call) else { return Ok(()) };
        match self.accept(now, &purpose, result, out) {
            Ok(envelope) => {
                self.heard(now, envelope.sender, envelope.incarnation, out);
                self.on_answer(now, purpose, envelope, out)
            }
            Err(fault) => {
                self.on_no_answer(now, purpose, fault, out);
                Ok(())
            }
        }
    }

    /// Checks an answer like a request, and that it comes from whom it was asked.
    fn accept(
        &mut self,
        now: Now,
        purpose: &Purpose,
        result: Result<Envelope<Answer>, CallFault>,
        out: &mut Outbox,
    ) -> Result<Envelope<Answer>, CallFault> {
        let expected = purpose.peer();
        let envelope = match result {
            Ok(envelope) => envelope,
            Err(fault) => {
                if let (CallFault::Malformed(what), Some(peer)) = (&fault, expected) {
                    self.misbehaved(peer, Misbehaviour::Malformed, what.clone(), out);
                }
                return Err(fault);
            }
        };
        if envelope.version != VERSION || envelope.cluster != self.cluster {
            self.misbehaved(envelope.sender, Misbehaviour::Foreign, "an answer of another cluster or version".into(), out);
            return Err(CallFault::Refused(format!(
                "it belongs to the cluster {:?} and speaks version {}",
                envelope.cluster, envelope.version
            )));
        }
        if let Some(peer) = expected.filter(|peer| *peer != envelope.sender) {
            let struck = self.membership.on_address_taken(peer, now.instant);
            self.keep_members(struck.into_iter().collect(), None, out);
            out.push(Output::Event(Event::AddressTaken(peer, envelope.sender)));
            return Err(CallFault::Unreachable);
        }
        if let Err(fault) = envelope.body.validate() {
            self.misbehaved(envelope.sender, Misbehaviour::Malformed, fault.to_string(), out);
            return Err(CallFault::Malformed(fault.to_string()));
        }
        Ok(envelope)
    }

    fn on_answer(&mut self, now: Now, purpose: Purpose, envelope: Envelope<Answer>, out: &mut Outbox) -> Result<(), StoreFault> {
        match (purpose, envelope.body) {
            (Purpose::Exchange(peer), Answer::Exchange(theirs)) => self.on_compared(now, peer, theirs, out),
            (Purpose::Reconcile(peer, step), answer) => self.on_step(now, peer, &step, answer, out)?,
            (Purpose::Members(_) | Purpose::Farewell, Answer::Members(list)) => self.merge_members(now, list, out),
            (Purpose::Introduction(address, call), Answer::Members(list)) => {
                self.merge_members(now, list, out);
                self.on_introduced(now, &address, call, Ok(envelope.sender), out);
            }
            (Purpose::Rumors(peer), Answer::Taken(_)) => self.spread.on_ended(peer, true),
            (Purpose::Receipts(_), Answer::Taken(_)) => {}
            (Purpose::Holds(peer, call), Answer::Holds(answer)) => self.on_search_answer(call, Some(peer).filter(|_| answer.holds), out),
            (purpose, _) => {
                self.misbehaved(envelope.sender, Misbehaviour::Malformed, "an answer to another question".into(), out);
                self.on_no_answer(now, purpose, CallFault::Malformed("an answer to another question".into()), out);
            }
        }
        Ok(())
    }

    pub(super) fn on_no_answer(&mut self, now: Now, purpose: Purpose, fault: CallFault, out: &mut Outbox) {
        self.counters.calls_failed += 1;
        // A refusal and a plea for patience are signs of life; what is no message at all may come from anybody at that address.
        let silent = matches!(fault, CallFault::Unreachable | CallFault::Malformed(_));
        if let Some(peer) = purpose.peer().filter(|_| silent) {
            let suspected = self.membership.on_silent(peer, now.instant);
            self.keep_members(suspected.into_iter().collect(), None, out);
        }
        if let (Some(lan), Some(peer), false) = (&mut self.lan, purpose.peer(), silent) {
            lan.on_sign_of_life(peer);
        }
        match purpose {
            Purpose::Reconcile(peer, step) => self.on_step_failed(now, peer, &step, &fault),
            Purpose::Rumors(peer) => self.spread.on_ended(peer, false),
            Purpose::Holds(_, call) => self.on_search_answer(call, None, out),
            Purpose::Introduction(address, call) => self.on_introduced(now, &address, call, Err(fault), out),
            Purpose::Join(address) => self.membership.on_join_ended(&address, false, now.instant),
            Purpose::Exchange(_) | Purpose::Members(_) | Purpose::Receipts(_) | Purpose::Farewell => {}
        }
    }
}

impl Purpose {
    /// The member called.
    fn peer(&self) -> Option<NodeId> {
        match self {
            Self::Exchange(peer)
            | Self::Reconcile(peer, _)
            | Self::Members(peer)
            | Self::Rumors(peer)
            | Self::Receipts(peer)
            | Self::Holds(peer, _) => Some(*peer),
            Self::Introduction(..) | Self::Farewell | Self::Join(_) => None,
        }
    }
}
