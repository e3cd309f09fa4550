//! What has become due: done after every input, so that nothing waits for a tick that need not.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;

use crate::ids::{ContentHash, NodeId};
use crate::io::{Event, NoHolder, Outbox, Output, OwnCall, Reply, Target};
use crate::item::RecordKey;
use crate::member::Member;
use crate::node::{EXCHANGE_INTERVAL, Node, Purpose};
use crate::planted::{Bug, is_planted};
use crate::reconciliation::fill;
use crate::spread::FAN_OUT;
use crate::store::{Missing, Store, StoreFault};
use crate::time::Now;
use crate::transfer::Choice;
use crate::wire::{Join, MAX_RECEIPTS, Receipts, Request, Rumors};

/// How often the store is asked for payloads that are still missing.
const REFILL_INTERVAL: Duration = Duration::from_secs(1);
/// How many missing payloads are taken from the store at a time.
const REFILL_PAGE: usize = 512;

impl<S: Store> Node<S> {
    pub(super) fn work(&mut self, now: Now, out: &mut Outbox) -> Result<(), StoreFault> {
        if self.leaving || self.renounced.is_some() {
            return Ok(());
        }
        self.notice_lateness(now);
        self.end_vouches(now.instant, out);
        self.probe(now, out);
        self.bury(now, out);
        self.beat(now, out);
        self.make_contacts(now, out);
        self.exchange(now, out);
        self.served.expire(now.instant);
        self.take_snapshot(now, out);
        self.reconcile(now, out)?;
        self.verify(now, out)?;
        self.keep_history(now, out);
        self.refill(now)?;
        self.start_transfers(now, out)?;
        self.settle_receipts(out)?;
        self.seek_copies(now, out);
        self.push_news(now);
        self.send_rumors(out)
    }

    pub(super) fn call(&mut self, target: Target, request: Request, purpose: Purpose, out: &mut Outbox) {
        // Nothing of this node's own leaves once it has renounced its identity.
        if self.renounced.is_some() {
            return;
        }
        let call = OwnCall(self.number());
        self.calls.insert(call, purpose);
        out.push(Output::Call(call, target, self.envelope(request)));
    }

    fn make_contacts(&mut self, now: Now, out: &mut Outbox) {
        for address in self.membership.due_bootstraps(now.instant) {
            self.join(address, out);
        }
        for address in self.membership.due_introduced(now.instant) {
            self.introduce(address, None, out);
        }
        self.warn_suspects(now, out);
        if let Some(target) = self.membership.due_dead(now.instant) {
            self.begin_exchange(now, target, out);
        }
    }

    fn join(&mut self, address: String, out: &mut Outbox) {
        let root = self.records.summary().root();
        let member = self.membership.me().clone();
        let payload_bytes = self.records.store().payload_bytes().unwrap_or_default();
        let exchanged = std::mem::take(&mut self.exchanged);
        let history = self.history.founding().map(|founding| founding.id);
        let may_found =
            history.is_none() && self.membership.others().next().is_none() && self.membership.bootstraps().first() == Some(&address);
        let (wanted, messages) = (self.transfers.len() as u64, self.history.delivered());
        let (records, program) = (root.count, None);
        let join = Join { member, records, payload_bytes, root, wanted, messages, program, exchanged, history, may_found };
        let join = self.envelope(join);
        let call = OwnCall(self.number());
        self.calls.insert(call, Purpose::Join(address.clone()));
        out.push(Output::Join(call, address, join));
    }

    /// Tells every bootstrap node how this node is, at once.
    pub(super) fn join_all(&mut self, out: &mut Outbox) {
        for address in self.membership.bootstraps() {
            self.join(address, out);
        }
    }

    fn exchange(&mut self, now: Now, out: &mut Outbox) {
        if now.instant < self.next_exchange {
            return;
        }
        // From 0.9 to 1.1 of the interval, so that nodes started together do not stay in step.
        let thousandths = self.rng.random_range(900..1100_u32);
        self.next_exchange = now.instant + EXCHANGE_INTERVAL * thousandths / 1000;
        if let Some(target) = self.membership.pick(&mut self.rng) {
            self.begin_exchange(now, target, out);
        }
    }

    pub(super) fn begin_exchange(&mut self, now: Now, target: Target, out: &mut Outbox) {
        let Some(peer) = target.id else { return };
        self.on_probe_begun(now, peer);
        self.counters.exchanges += 1;
        let request = Request::Exchange(self.digest(now, peer));
        self.call(target, request, Purpose::Exchange(peer), out);
    }

    /// Takes payloads that are still missing from the store, from where the last page ended: each second, and when a transfer has ended
    /// while there may be more.
    fn refill(&mut self, now: Now) -> Result<(), StoreFault> {
        if now.instant < self.next_refill {
            return Ok(());
        }
        self.next_refill = now.instant + REFILL_INTERVAL;
        if !self.transfers.is_short(now.instant) {
            return Ok(());
        }
        let page = self.records.missing(self.refill_after, REFILL_PAGE)?;
        self.refill_after = if page.len() < REFILL_PAGE { None } else { page.last().map(|missing| missing.hash) };
        for missing in page {
            // Those at hand are left alone: a candidate would undo the pause of a want whose holders are all away.
            if !self.transfers.wants(missing.hash) {
                let origin = self.names(&missing)?;
                self.transfers.want(missing, origin.as_slice(), None, now.instant);
            }
        }
        Ok(())
    }

    fn start_transfers(&mut self, now: Now, out: &mut Outbox) -> Result<(), StoreFault> {
        while let Some(missing) = self.transfers.due(now.instant) {
            let hash = missing.hash;
            match self.transfers.choose(hash, &self.membership, &mut self.rng) {
                Choice::AllBusy => self.transfers.block(hash),
                Choice::Nobody => {
                    let in_vain = !self.transfers.is_coming(hash);
                    let waiters = self.transfers.pause(hash, now.instant);
                    out.extend(in_vain.then_some(Output::Event(Event::NoHolder(hash))));
                    out.extend(waiters.into_iter().map(|call| Output::Reply(call, Reply::Want(Err(NoHolder)))));
                }
                // Covered meanwhile: nobody needs these bytes here, but who waits for a transfer under way may have them.
                Choice::Holder(_) if self.names(&missing)?.is_none() => {
                    if self.transfers.is_coming(hash) {
                        self.transfers.pause(hash, now.instant);
                    } else {
                        self.give_up(hash, out);
                    }
                }
                Choice::Holder(from) => match self.transfers.start(hash, from, &self.membership, now.instant) {
                    Some(fetch) => {
                        self.counters.fetches += 1;
                        out.push(Output::Fetch(fetch));
                    }
                    None => self.transfers.block(hash),
                },
            }
        }
        Ok(())
    }

    fn give_up(&mut self, hash: ContentHash, out: &mut Outbox) {
        out.extend(self.transfers.drop_want(hash).into_iter().map(|call| Output::Reply(call, Reply::Want(Err(NoHolder)))));
    }

    /// The origin of a live version that names the payload; `None` if none does any more.
    pub(super) fn names(&self, missing: &Missing) -> Result<Option<NodeId>, StoreFault> {
        let record = self.records.record(missing.key)?;
        let naming = |version: &&crate::Version| version.content.payload().is_some_and(|payload| payload.hash == missing.hash);
        Ok(record.versions().iter().find(naming).map(|version| version.origin))
    }

    /// Pushes a fresh record to a few random live peers, but not to those it came from.
    pub(super) fn push_fresh(&mut self, key: RecordKey, except: &[NodeId]) {
        let origins = self.records.record(key).map(|record| record.versions().iter().map(|version| version.origin).collect::<Vec<_>>());
        let mut except = except.to_vec();
        except.extend(origins.unwrap_or_default());
        for target in self.membership.pick_some(FAN_OUT, &except, &mut self.rng) {
            if let Some(peer) = target.id {
                self.spread.push(peer, key, None);
            }
        }
    }

    fn send_rumors(&mut self, out: &mut Outbox) -> Result<(), StoreFault> {
        for peer in self.spread.ready() {
            let Some(target) = self.membership.target(peer) else {
                self.spread.on_ended(peer, false);
                continue;
            };
            let batch = self.spread.take(peer, crate::wire::MAX_RECORDS);
            let mut keys: VecDeque<RecordKey> = batch.keys.into();
            let records = fill(&mut keys, &self.records)?;
            // What waits for the disk is pushed again when it is there; what did not fit goes with the next call.
            let (receipts, later) = batch.receipts.into_iter().partition(|receipt| records.iter().any(|entry| entry.id == receipt.id));
            self.spread.put_back(peer, keys, Vec::from_iter::<Vec<_>>(later));
            let members: Vec<Member> = batch.members.iter().filter_map(|id| self.membership.claim(*id)).collect();
            let suspicions = batch.suspicions;
            if records.is_empty() && members.is_empty() && suspicions.is_empty() {
                self.spread.on_ended(peer, true);
                continue;
            }
            self.counters.rumors_sent += records.len() as u64;
            self.call(target, Request::Rumors(Rumors { records, receipts, members, suspicions }), Purpose::Rumors(peer), out);
        }
        Ok(())
    }

    /// The bytes of that payload are here: receipts may be due for the records that name it.
    pub(super) fn settle_payload(&mut self, hash: ContentHash) {
        if let Some(key) = self.transfers.key_of(hash) {
            self.unsettled.insert(key);
        }
    }

    fn settle_receipts(&mut self, out: &mut Outbox) -> Result<(), StoreFault> {
        for key in std::mem::take(&mut self.unsettled) {
            let owed = self.owed.take(key);
            if owed.is_empty() {
                continue;
            }
            let record = self.records.record(key)?;
            for (receipt, to) in owed {
                // A version that was covered meanwhile is owed no receipt: it is not what this node holds.
                let Some(version) = record.version(receipt.version) else { continue };
                let here = version.content.payload().map_or(Ok(true), |payload| self.records.holds(payload.hash))?;
                let here = here || is_planted(Bug::ReceiptWithoutPayload);
                if here && !self.records.is_pending(key) {
                    self.receipts_due.entry(to).or_default().insert(receipt);
                } else {
                    self.owed.owe(key, receipt, to);
                }
            }
        }
        for (to, receipts) in std::mem::take(&mut self.receipts_due) {
            let Some(target) = self.membership.target(to) else { continue };
            let receipts: Vec<_> = receipts.into_iter().collect();
            for page in receipts.chunks(MAX_RECEIPTS) {
                self.call(target.clone(), Request::Receipts(Receipts { receipts: page.to_vec() }), Purpose::Receipts(to), out);
            }
        }
        Ok(())
    }

    fn seek_copies(&mut self, now: Now, out: &mut Outbox) {
        for (call, written) in self.copies.on_deadline(now.instant) {
            out.push(Output::Reply(call, Reply::Write(Ok(written))));
        }
        for ask in self.copies.due(now.instant) {
            let targets = self.membership.pick_some(ask.count, &ask.asked, &mut self.rng);
            let peers: Vec<NodeId> = targets.iter().filter_map(|target| target.id).collect();
            for peer in &peers {
                self.spread.push(*peer, ask.key, Some(ask.receipt));
            }
            self.copies.on_asked(ask.call, &peers);
        }
    }
}
