//! What peers ask, what they answer.

use crate::ids::{ContentHash, NodeId};
use crate::io::{CallFault, ClientCall, Event, FetchFault, Misbehaviour, Outbox, Output, OwnCall, Refusal, Reply, TransferId};
use crate::item::RecordKey;
use crate::member::Member;
use crate::node::{After, MAX_RECONCILED_AT_ONCE, Node, Purpose};
use crate::reconciliation;
use crate::record::{MAX_BYTES, Record};
use crate::store::{Missing, Store, StoreFault};
use crate::time::Now;
use crate::version::Content;
use crate::wire::{
    self, Answer, Digest, Entry, Envelope, HoldsAnswer, MemberList, Receipts, RecordsRequest, Request, Rumors, Taken, VERSION,
};

/// Why records came, which decides whether they are pushed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Via {
    Rumor,
    Given,
    Asked,
}

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
            Request::Exchange(_) => Answer::Exchange(self.digest()),
            Request::Partitions(partitions) => Answer::Partitions(reconciliation::items_of(&partitions, &self.records)?),
            Request::Records(RecordsRequest { give, ask }) => {
                self.merge_records(now, from, give, Via::Given, out)?;
                Answer::Records(reconciliation::records_of(&ask, &self.records)?)
            }
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

    fn heard(&mut self, now: Now, from: NodeId, incarnation: u64, out: &mut Outbox) {
        let recovered = self.membership.on_heard(from, incarnation, now.instant);
        self.keep_members(recovered.into_iter().collect(), None, out);
    }

    pub(super) fn digest(&mut self) -> Digest {
        Digest { root: self.records.summary().root(), members: self.membership.fingerprint(self.records.hasher()) }
    }

    fn merge_members(&mut self, now: Now, list: MemberList, out: &mut Outbox) {
        let lonely = self.membership.live_count() == 0;
        let merged = self.membership.merge(list.members, now.instant);
        self.keep_members(merged.changed, merged.refute, out);
        if lonely && self.membership.live_count() > 0 {
            self.next_exchange = now.instant;
        }
    }

    fn on_rumors(&mut self, now: Now, from: NodeId, rumors: Rumors, out: &mut Outbox) -> Result<(), StoreFault> {
        self.merge_records(now, from, rumors.records, Via::Rumor, out)?;
        for receipt in rumors.receipts {
            let key = self.records.key(receipt.id);
            self.owed.owe(key, receipt, from);
            self.unsettled.insert(key);
        }
        Ok(())
    }

    fn on_receipts(&mut self, from: NodeId, receipts: Receipts, out: &mut Outbox) {
        for receipt in receipts.receipts {
            for (call, written) in self.copies.on_receipt(from, receipt) {
                out.push(Output::Reply(call, Reply::Write(Ok(written))));
            }
        }
    }

    /// Merges records of others; returns those that changed something.
    fn merge_records(
        &mut self,
        now: Now,
        from: NodeId,
        entries: Vec<Entry>,
        via: Via,
        out: &mut Outbox,
    ) -> Result<Vec<RecordKey>, StoreFault> {
        let mut changes: Vec<(RecordKey, Record, Record)> = Vec::new();
        for Entry { id, versions } in entries {
            self.counters.records_received += 1;
            let key = self.records.key(id);
            // Twice in one message: the second merge would start from the state before the first.
            if self.records.is_full() || changes.iter().any(|(other, ..)| *other == key) {
                continue;
            }
            let before = self.records.record(key)?;
            let mut record = before.clone();
            // Two records of bearable size may make one that nobody would take: then both sides keep what they have until somebody
            // writes over it.
            if !record.merge(&versions) || wire::record_size(&record) > MAX_BYTES {
                continue;
            }
            for version in record.versions() {
                if !self.clock.observe(now.wall, version.stamp) {
                    self.counters.stamps_far_ahead += 1;
                }
            }
            if record.versions().len() > before.versions().len().max(1) {
                self.counters.conflicts += 1;
                out.push(Output::Event(Event::Conflict(id)));
            }
            changes.push((key, before, record));
        }
        let keys: Vec<RecordKey> = changes.iter().map(|(key, ..)| *key).collect();
        self.counters.records_changed += keys.len() as u64;
        if changes.is_empty() {
            return Ok(keys);
        }
        for (key, _, record) in &changes {
            for version in record.versions() {
                let Content::Payload(payload) = &version.content else { continue };
                if !self.records.holds(payload.hash)? {
                    let missing = Missing { hash: payload.hash, size: payload.size, key: *key };
                    // The origin is asked last of the two: by then the sender has shown whether it has the bytes already.
                    self.transfers.want(missing, &[version.origin, from], None, now.instant);
                }
            }
        }
        self.persist_records(changes, false, After::default(), out);
        let few = keys.len() <= crate::spread::MAX_PUSHED_ON;
        if via == Via::Rumor || via == Via::Given && few {
            for key in &keys {
                self.push_fresh(*key, &[from]);
            }
        }
        Ok(keys)
    }

    pub(super) fn on_answered(
        &mut self,
        now: Now,
        call: OwnCall,
        result: Result<Envelope<Answer>, CallFault>,
        out: &mut Outbox,
    ) -> Result<(), StoreFault> {
        let Some(purpose) = self.calls.remove(&call) else { return Ok(()) };
        match self.accept(&purpose, result, out) {
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
            let struck = self.membership.on_address_taken(peer);
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
            (Purpose::Exchange(peer), Answer::Exchange(theirs)) => self.on_digest(peer, theirs, out)?,
            (Purpose::Partitions(_, from), Answer::Partitions(items)) => {
                self.reconciliation.on_items(from, items, &self.records)?;
                self.step_reconciliation(out)?;
            }
            (Purpose::Records(peer), Answer::Records(answer)) => {
                let changed = self.merge_records(now, peer, answer.give, Via::Asked, out)?;
                self.reconciliation.on_records(answer.seen, &changed);
                self.step_reconciliation(out)?;
            }
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

    fn on_digest(&mut self, peer: NodeId, theirs: Digest, out: &mut Outbox) -> Result<(), StoreFault> {
        self.exchanged.insert(peer);
        let ours = self.digest();
        let Some(target) = self.membership.target(peer) else { return Ok(()) };
        if theirs.members != ours.members {
            let request = Request::Members(MemberList { members: self.membership.list() });
            self.call(target.clone(), request, Purpose::Members(peer), out);
        }
        if theirs.root == ours.root {
            self.counters.exchanges_equal += 1;
        } else if self.reconciliation.begin(target) {
            self.step_reconciliation(out)?;
        }
        Ok(())
    }

    pub(super) fn step_reconciliation(&mut self, out: &mut Outbox) -> Result<(), StoreFault> {
        // Records beyond what the disk keeps up with would be dropped: the next exchange goes on.
        let step = if self.after.len() > MAX_RECONCILED_AT_ONCE { None } else { self.reconciliation.step(&self.records)? };
        let Some((target, request)) = step else {
            self.end_reconciliation();
            return Ok(());
        };
        let Some(peer) = target.id else { return Ok(()) };
        let purpose = if let Request::Partitions(partitions) = &request {
            Purpose::Partitions(peer, partitions.from)
        } else {
            Purpose::Records(peer)
        };
        self.call(target, request, purpose, out);
        Ok(())
    }

    fn end_reconciliation(&mut self) {
        let peer: Vec<NodeId> = self.reconciliation.peer().into_iter().collect();
        for key in self.reconciliation.end() {
            self.push_fresh(key, &peer);
        }
    }

    fn on_no_answer(&mut self, now: Now, purpose: Purpose, fault: CallFault, out: &mut Outbox) {
        self.counters.calls_failed += 1;
        // A refusal and a plea for patience are signs of life; what is no message at all may come from anybody at that address.
        let silent = matches!(fault, CallFault::Unreachable | CallFault::Malformed(_));
        if let Some(peer) = purpose.peer().filter(|_| silent) {
            let suspected = self.membership.on_silent(peer, now.instant);
            self.keep_members(suspected.into_iter().collect(), None, out);
        }
        match purpose {
            Purpose::Partitions(..) | Purpose::Records(_) => self.end_reconciliation(),
            Purpose::Rumors(peer) => self.spread.on_ended(peer, false),
            Purpose::Holds(_, call) => self.on_search_answer(call, None, out),
            Purpose::Introduction(address, call) => self.on_introduced(now, &address, call, Err(fault), out),
            Purpose::Join(address) => self.membership.on_join_ended(&address, false, now.instant),
            Purpose::Exchange(_) | Purpose::Members(_) | Purpose::Receipts(_) | Purpose::Farewell => {}
        }
    }

    fn on_introduced(&mut self, now: Now, address: &str, call: Option<ClientCall>, result: Result<NodeId, CallFault>, out: &mut Outbox) {
        let again = matches!(result, Err(CallFault::Unreachable | CallFault::Busy));
        let mut changed = self.membership.on_introduction_ended(address, !again, now.instant);
        if call.is_some() && again {
            changed |= self.membership.introduce(address.to_owned(), now.instant);
        }
        if changed {
            let contacts = Some(self.membership.introduced());
            let token = self.token();
            self.after.insert(token, After::default());
            out.push(Output::Persist(crate::io::Persist { token, records: vec![], members: vec![], incarnation: None, contacts }));
        }
        let Some(call) = call else { return };
        let known = |id: NodeId| self.membership.list().into_iter().find(|member| member.id == id);
        let reply = result.and_then(|id| known(id).ok_or_else(|| CallFault::Malformed("its member list lacks itself".into())));
        out.push(Output::Reply(call, Reply::Introduce(reply)));
    }

    fn on_search_answer(&mut self, call: ClientCall, holder: Option<NodeId>, out: &mut Outbox) {
        let address = holder.and_then(|id| self.membership.target(id));
        let Some(search) = self.searches.get_mut(&call) else { return };
        search.found.holders.extend(holder.zip(address).map(|(id, target)| (id, target.address)));
        search.open -= 1;
        if search.open > 0 {
            return;
        }
        if let Some(mut search) = self.searches.remove(&call) {
            search.found.holders.sort_unstable();
            out.push(Output::Reply(call, Reply::Holders(Some(search.found))));
        }
    }

    pub(super) fn on_joined(&mut self, now: Now, call: OwnCall, result: Result<Vec<Member>, CallFault>, out: &mut Outbox) {
        let Some(Purpose::Join(address)) = self.calls.remove(&call) else { return };
        match result {
            Ok(members) => {
                self.membership.on_join_ended(&address, true, now.instant);
                let members = members.into_iter().filter(|member| member.validate().is_ok()).collect();
                self.merge_members(now, MemberList { members }, out);
            }
            Err(fault) => self.on_no_answer(now, Purpose::Join(address), fault, out),
        }
    }

    pub(super) fn on_fetched(
        &mut self,
        now: Now,
        transfer: TransferId,
        results: Vec<(ContentHash, Result<(), FetchFault>)>,
        out: &mut Outbox,
    ) -> Result<(), StoreFault> {
        let Some(holder) = self.transfers.holder(transfer) else { return Ok(()) };
        let mut silent = false;
        for (hash, result) in results {
            match result {
                Ok(()) => self.on_payload_here(hash, out),
                Err(fault) => {
                    self.counters.fetches_failed += 1;
                    match fault {
                        FetchFault::WrongBytes => {
                            self.misbehaved(holder, Misbehaviour::WrongBytes, format!("bytes that are not {hash}"), out)
                        }
                        FetchFault::ShortBody => {
                            self.misbehaved(holder, Misbehaviour::ShortBody, format!("the bytes of {hash} ended early"), out)
                        }
                        FetchFault::Absent | FetchFault::Unreachable | FetchFault::Busy | FetchFault::Local => {}
                    }
                    silent |= fault == FetchFault::Unreachable;
                    self.transfers.on_failed(transfer, hash, now.instant);
                }
            }
        }
        self.transfers.on_ended(transfer, now.instant);
        if silent {
            let suspected = self.membership.on_silent(holder, now.instant);
            self.keep_members(suspected.into_iter().collect(), None, out);
        }
        Ok(())
    }

    fn on_payload_here(&mut self, hash: ContentHash, out: &mut Outbox) {
        self.counters.payloads_fetched += 1;
        self.settle_payload(hash);
        for call in self.transfers.drop_want(hash) {
            out.push(Output::Reply(call, Reply::Want(Ok(()))));
        }
    }
}

impl Purpose {
    /// The member called.
    fn peer(&self) -> Option<NodeId> {
        match self {
            Self::Exchange(peer)
            | Self::Partitions(peer, _)
            | Self::Records(peer)
            | Self::Members(peer)
            | Self::Rumors(peer)
            | Self::Receipts(peer)
            | Self::Holds(peer, _) => Some(*peer),
            Self::Introduction(..) | Self::Farewell | Self::Join(_) => None,
        }
    }
}
