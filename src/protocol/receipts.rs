//! Receipts: on how many nodes is a version durable?
//!
//! Two halves. The asking half ([`Copies`]) counts the receipts for writes whose client wants more than one copy, and asks further
//! peers while they are missing. The answering half ([`Owed`]) remembers who wished for a receipt of which version until record and
//! payload are both on disk here.
//!
//! 1. A receipt is sent only for a version that is live in the persisted record and whose payload is held durably.
//! 2. A node counts once, however often it answers.
//! 3. Both tables are bounded; a wish beyond the bound is refused (asking) or dropped (answering, the asker turns to others).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::NodeId;
use crate::io::{ClientCall, Written};
use crate::item::RecordKey;
use crate::time::Instant;
use crate::wire::Receipt;

/// Most writes waiting for receipts.
pub const MAX_WAITING: usize = 1024;
/// Most receipts owed.
pub const MAX_OWED: usize = 8192;
/// How long a peer has to send its receipt before another is asked as well. A guess: a few fsyncs and a small transfer.
pub const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Waiting {
    written: Written,
    key: RecordKey,
    wanted: usize,
    have: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
    ask_again: Instant,
    give_up: Instant,
}

/// A write that needs more peers to be asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its record.
    pub key: RecordKey,
    /// What to wish for.
    pub receipt: Receipt,
    /// How many more peers to ask.
    pub count: usize,
    /// Whom it has asked already.
    pub asked: Vec<NodeId>,
    /// Whose write it is.
    pub call: ClientCall,
}

/// Writes of this node waiting for receipts of others.
#[derive(Debug, Default)]
pub struct Copies {
    waiting: BTreeMap<ClientCall, Waiting>,
}

impl Copies {
    /// Whether no more writes can wait.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Waits until `written` is durable on `wanted` nodes, this one included, or `give_up`.
    pub fn wait(&mut self, call: ClientCall, written: Written, key: RecordKey, wanted: usize, now: Instant, give_up: Instant) {
        let (have, asked) = (BTreeSet::new(), BTreeSet::new());
        self.waiting.insert(call, Waiting { written, key, wanted, have, asked, ask_again: now, give_up });
    }

    /// The writes for which more peers are to be asked now; report each with [`Self::on_asked`].
    pub fn due(&mut self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (call, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| waiting.ask_again <= now) {
            waiting.ask_again = now + PATIENCE;
            asks.push(Ask {
                key: waiting.key,
                receipt: Receipt { id: waiting.written.blob, version: waiting.written.version },
                count: waiting.wanted.saturating_sub(1 + waiting.have.len()),
                asked: waiting.asked.iter().copied().collect(),
                call: *call,
            });
        }
        asks
    }

    /// These peers were asked. Once everybody was, everybody is asked again: the wish or the receipt may have been lost.
    pub fn on_asked(&mut self, call: ClientCall, peers: &[NodeId]) {
        let Some(waiting) = self.waiting.get_mut(&call) else { return };
        if peers.is_empty() {
            waiting.asked = waiting.have.clone();
        }
        waiting.asked.extend(peers);
    }

    /// `from` holds that version durably. Returns the writes that are complete now.
    pub fn on_receipt(&mut self, from: NodeId, receipt: Receipt) -> Vec<(ClientCall, Written)> {
        for waiting in self.waiting.values_mut() {
            if waiting.written.blob == receipt.id && waiting.written.version == receipt.version {
                waiting.have.insert(from);
            }
        }
        self.take(|waiting| waiting.have.len() + 1 >= waiting.wanted)
    }

    /// The writes whose time is up.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<(ClientCall, Written)> {
        self.take(|waiting| waiting.give_up <= now)
    }

    fn take(&mut self, over: impl Fn(&Waiting) -> bool) -> Vec<(ClientCall, Written)> {
        let calls: Vec<ClientCall> = self.waiting.iter().filter(|(_, waiting)| over(waiting)).map(|(call, _)| *call).collect();
        calls
            .into_iter()
            .filter_map(|call| self.waiting.remove(&call).map(|w| (call, Written { copies: 1 + w.have.len(), ..w.written })))
            .collect()
    }

    /// When something is to be done here.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.ask_again.min(waiting.give_up)).min()
    }
}

/// Receipts that others wish for.
#[derive(Debug, Default)]
pub struct Owed {
    owed: BTreeMap<RecordKey, BTreeSet<(Receipt, NodeId)>>,
    len: usize,
}

impl Owed {
    /// Remembers that `to` wishes for a receipt.
    pub fn owe(&mut self, key: RecordKey, receipt: Receipt, to: NodeId) {
        if self.len < MAX_OWED && self.owed.entry(key).or_default().insert((receipt, to)) {
            self.len += 1;
        }
    }

    /// What is owed for a record: to be settled, or put back with [`Self::owe`].
    pub fn take(&mut self, key: RecordKey) -> BTreeSet<(Receipt, NodeId)> {
        let taken = self.owed.remove(&key).unwrap_or_default();
        self.len -= taken.len();
        taken
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert_eq!(self.len, self.owed.values().map(BTreeSet::len).sum::<usize>(), "the count is right");
        assert!(self.len <= MAX_OWED, "the table is bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BlobId;
    use crate::item::KeyHash;
    use crate::record::tests::node;
    use crate::version::VersionId;

    fn write(n: u8) -> (Written, RecordKey, Receipt) {
        let blob = BlobId(uuid::Uuid::from_u128(u128::from(n)));
        let version = VersionId { stamp: crate::Stamp(u64::from(n)), origin: node(0) };
        let written = Written { blob, version, payload: None, replaced: false, copies: 1 };
        (written, RecordKey { hash: KeyHash(u64::from(n)), blob }, Receipt { id: blob, version })
    }

    #[test]
    fn a_node_counts_once_and_more_are_asked_while_receipts_are_missing() {
        let mut copies = Copies::default();
        let (written, key, receipt) = write(1);
        copies.wait(ClientCall(1), written, key, 3, Instant(0), Instant(0) + PATIENCE * 3);
        assert_eq!(copies.due(Instant(0)).first().map(|ask| ask.count), Some(2));
        copies.on_asked(ClientCall(1), &[node(1), node(2)]);
        assert!(copies.due(Instant(0)).is_empty());
        assert!(copies.on_receipt(node(1), receipt).is_empty());
        assert!(copies.on_receipt(node(1), receipt).is_empty());
        let again = copies.due(Instant(0) + PATIENCE);
        assert_eq!(again.first().map(|ask| (ask.count, ask.asked.len())), Some((1, 2)));
        let done = copies.on_receipt(node(3), receipt);
        assert_eq!(done.first().map(|(call, written)| (*call, written.copies)), Some((ClientCall(1), 3)));
        assert_eq!(copies.deadline(), None);
    }

    #[test]
    fn at_the_timeout_the_copies_so_far_are_told() {
        let mut copies = Copies::default();
        let (written, key, receipt) = write(1);
        copies.wait(ClientCall(1), written, key, 3, Instant(0), Instant(9));
        copies.on_receipt(node(1), receipt);
        assert!(copies.on_deadline(Instant(8)).is_empty());
        assert_eq!(copies.on_deadline(Instant(9)).first().map(|(_, written)| written.copies), Some(2));
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let mut owed = Owed::default();
        let (_, key, receipt) = write(1);
        for n in 0..MAX_OWED + 10 {
            owed.owe(key, receipt, NodeId(uuid::Uuid::from_u128(n as u128)));
        }
        owed.check();
        assert_eq!(owed.take(key).len(), MAX_OWED);
        owed.check();
    }
}
