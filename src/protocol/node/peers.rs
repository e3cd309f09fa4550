//! What peers ask, what they answer.

use crate::ids::NodeId;
use crate::io::{CallFault, Event, Misbehaviour, Outbox, Output, OwnCall, PeerCall, Refusal};
use crate::node::{Node, Purpose};
use crate::store::{Store, StoreFault};
use crate::time::Now;
use crate::wire::{Answer, Envelope, HoldsAnswer, MemberList, MembersRequest, Probed, Request, Taken, VERSION};

impl<S: Store> Node<S> {
    /// The answer, unless it has to wait for another node's.
    pub(super) fn on_request(
        &mut self,
        now: Now,
        call: PeerCall,
        request: Envelope<Request>,
        out: &mut Outbox,
    ) -> Result<Option<Result<Envelope<Answer>, Refusal>>, StoreFault> {
        if let Err(refusal) = self.admit(now, &request, out) {
            return Ok(Some(Err(refusal)));
        }
        let (from, incarnation) = (request.sender, request.incarnation);
        self.heard(now, from, incarnation, out);
        let answer = match request.body {
            Request::Probe(probe) => match self.on_probe(now, call, probe, out) {
                Some(alive) => Answer::Probe(Probed { alive }),
                None => return Ok(None),
            },
            Request::History(said) => {
                self.on_history_call(now, from, call, *said, out)?;
                return Ok(None);
            }
            Request::Exchange(digest) => Answer::Exchange(self.compare(now, from, digest)),
            Request::Cells(cells) => return Ok(Some(self.on_cells(now, from, &cells).map(|answer| self.envelope(answer)))),
            Request::Partitions(_) => return Ok(Some(self.on_partitions(now, from).map(|answer| self.envelope(answer)))),
            Request::Sketches(sketches) => return Ok(Some(self.on_sketches(now, from, &sketches)?.map(|answer| self.envelope(answer)))),
            Request::Items(items) => return Ok(Some(self.on_items(now, from, &items)?.map(|answer| self.envelope(answer)))),
            Request::Records(records) => return Ok(Some(self.on_records(now, from, records, out)?.map(|answer| self.envelope(answer)))),
            Request::Snapshot(stretch) => {
                return Ok(Some(self.on_snapshot_request(now, from, &stretch)?.map(|answer| self.envelope(answer))));
            }
            Request::Members(MembersRequest { members, full }) => {
                self.merge_members(now, from, members, out);
                let members = if full { self.membership.list() } else { self.membership.recent_changes(now.instant) };
                Answer::Members(MemberList { members, fingerprint: Some(self.membership.fingerprint()) })
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
        Ok(Some(Ok(self.envelope(answer))))
    }

    /// Refuses what is not for this node, or breaks a rule, before anything changes.
    fn admit(&mut self, now: Now, request: &Envelope<Request>, out: &mut Outbox) -> Result<(), Refusal> {
        let (kind, refusal) = if request.version != VERSION {
            (Misbehaviour::Foreign, Refusal::UnknownVersion { ours: VERSION, theirs: request.version })
        } else if request.cluster != self.cluster {
            (Misbehaviour::Foreign, Refusal::OtherCluster { ours: self.cluster.clone(), theirs: request.cluster.clone() })
        } else if request.sender == self.id() {
            self.on_request_from_self(now, &request.body);
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
                if matches!(purpose, Purpose::Exchange(_) | Purpose::Probe(_)) {
                    self.membership.health().on_success();
                }
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
            (Purpose::Snapshot(peer, asked), answer) => self.on_snapshot(now, peer, asked, answer, out)?,
            (Purpose::Probe(_), Answer::Probe(_)) | (Purpose::Warning(_), Answer::Taken(_)) => {}
            (Purpose::Ask(_, about), Answer::Probe(probed)) => self.on_probed(now, about, probed.alive, out),
            (Purpose::Vouch(_, peer_call), Answer::Probe(_)) => self.vouch(peer_call, true, out),
            (Purpose::Members(_, full), Answer::Members(list)) => {
                self.merge_members(now, envelope.sender, list.members, out);
                match list.fingerprint {
                    _ if full => self.membership.on_complete(),
                    Some(fingerprint) => self.membership.on_changes_exchanged(fingerprint),
                    None => {}
                }
            }
            (Purpose::Farewell, Answer::Members(_)) => {}
            (Purpose::Introduction(address, call), Answer::Members(list)) => {
                self.merge_members(now, envelope.sender, list.members, out);
                self.membership.on_complete();
                self.on_introduced(now, &address, call, Ok(envelope.sender), out);
            }
            (Purpose::History(peer, asked), Answer::History(answer)) => self.on_history_answer(now, peer, asked, *answer, out),
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
        if let Some(peer) = purpose.peer().filter(|peer| silent && self.is_judged(&purpose, *peer)) {
            self.on_unreached(now, peer, out);
        }
        if let (Some(lan), Some(peer), false) = (&mut self.lan, purpose.peer(), silent) {
            lan.on_sign_of_life(peer);
        }
        match purpose {
            Purpose::Reconcile(peer, step) => self.on_step_failed(now, peer, &step, &fault),
            Purpose::Snapshot(peer, asked) => self.on_no_snapshot(now, peer, asked, &fault),
            Purpose::History(peer, asked) => self.unanswered.push((peer, asked)),
            Purpose::Rumors(peer) => self.spread.on_ended(peer, false),
            Purpose::Holds(_, call) => self.on_search_answer(call, None, out),
            Purpose::Introduction(address, call) => self.on_introduced(now, &address, call, Err(fault), out),
            Purpose::Join(address) => self.membership.on_join_ended(&address, false, now.instant),
            Purpose::Ask(_, about) => self.on_asked_in_vain(now, about, out),
            Purpose::Probe(peer) => self.on_asked_in_vain(now, peer, out),
            Purpose::Vouch(_, peer_call) => self.vouch(peer_call, false, out),
            Purpose::Exchange(_) | Purpose::Members(..) | Purpose::Receipts(_) | Purpose::Warning(_) | Purpose::Farewell => {}
        }
    }

    /// Whether the silence of `peer` under such a call says something new of it.
    fn is_judged(&self, purpose: &Purpose, peer: NodeId) -> bool {
        match purpose {
            // Its probe has taken the silence into account, or has ended well since by another's word.
            Purpose::Exchange(_) | Purpose::Probe(_) => self.probes.contains(peer),
            // One asked on a peer's behalf is that peer's to judge: else a dead node would be probed by those who probe for others, and so on.
            // And the silence of one asked to help may be that of the one it was asked about, or of a path: where a call in ten gets no
            // answer, each probe would bring about the next. Whether it lives is found by an exchange, as with everybody.
            Purpose::Vouch(..) | Purpose::Ask(..) => false,
            // What is said because something happened to somebody: else one suspicion, told to all, would raise the next ones.
            Purpose::Rumors(_) | Purpose::Members(..) => false,
            Purpose::Reconcile(..)
            | Purpose::Snapshot(..)
            | Purpose::History(..)
            | Purpose::Receipts(_)
            | Purpose::Holds(..)
            | Purpose::Warning(_)
            | Purpose::Introduction(..)
            | Purpose::Farewell
            | Purpose::Join(_) => true,
        }
    }
}

impl Purpose {
    /// The member called.
    fn peer(&self) -> Option<NodeId> {
        match self {
            Self::Exchange(peer)
            | Self::Reconcile(peer, _)
            | Self::Snapshot(peer, _)
            | Self::Members(peer, _)
            | Self::Probe(peer)
            | Self::Ask(peer, _)
            | Self::History(peer, _)
            | Self::Vouch(peer, _)
            | Self::Warning(peer)
            | Self::Rumors(peer)
            | Self::Receipts(peer)
            | Self::Holds(peer, _) => Some(*peer),
            Self::Introduction(..) | Self::Farewell | Self::Join(_) => None,
        }
    }
}
