//! Payloads that come, receipts for them, and the search for their holders.

use crate::ids::{ContentHash, NodeId};
use crate::io::{ClientCall, FetchFault, Misbehaviour, Outbox, Output, Reply, TransferId};
use crate::node::Node;
use crate::store::{Store, StoreFault};
use crate::time::Now;
use crate::wire::Receipts;

impl<S: Store> Node<S> {
    pub(super) fn on_receipts(&mut self, from: NodeId, receipts: Receipts, out: &mut Outbox) {
        for receipt in receipts.receipts {
            for (call, written) in self.copies.on_receipt(from, receipt) {
                out.push(Output::Reply(call, Reply::Write(Ok(written))));
            }
        }
    }

    pub(super) fn on_search_answer(&mut self, call: ClientCall, holder: Option<NodeId>, out: &mut Outbox) {
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
        if self.refill_after.is_some() {
            // More are known to be missing than a page held.
            self.next_refill = now.instant;
        }
        if silent {
            self.on_unreached(now, holder, out);
        }
        Ok(())
    }

    fn on_payload_here(&mut self, hash: ContentHash, out: &mut Outbox) {
        // The first of its transfers says it, the others end with it.
        self.counters.payloads_fetched += u64::from(self.transfers.wants(hash));
        self.settle_payload(hash);
        for call in self.transfers.drop_want(hash) {
            out.push(Output::Reply(call, Reply::Want(Ok(()))));
        }
    }
}
