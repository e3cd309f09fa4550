//! Exchanges and the reconciliations that follow from them.

use crate::ids::NodeId;
use crate::io::Outbox;
use crate::node::{MAX_RECONCILED_AT_ONCE, Node, Purpose};
use crate::store::{Store, StoreFault};
use crate::wire::{Digest, MemberList, Request};

impl<S: Store> Node<S> {
    pub(super) fn digest(&self) -> Digest {
        Digest { root: self.records.summary().root(), members: self.membership.fingerprint() }
    }

    pub(super) fn on_digest(&mut self, peer: NodeId, theirs: Digest, out: &mut Outbox) -> Result<(), StoreFault> {
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

    pub(super) fn end_reconciliation(&mut self) {
        let peer: Vec<NodeId> = self.reconciliation.peer().into_iter().collect();
        for key in self.reconciliation.end() {
            self.push_fresh(key, &peer);
        }
    }
}
