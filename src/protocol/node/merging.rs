//! Records that came from others.

use crate::ids::NodeId;
use crate::io::{Event, Outbox, Output};
use crate::item::RecordKey;
use crate::node::{After, Node};
use crate::record::{MAX_BYTES, Record};
use crate::store::{Missing, Store, StoreFault};
use crate::time::Now;
use crate::version::Content;
use crate::wire::{self, Entry, Rumors};

/// Why records came, which decides whether they are pushed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Rumor,
    Given,
    Asked,
}

impl<S: Store> Node<S> {
    pub(super) fn on_rumors(&mut self, now: Now, from: NodeId, rumors: Rumors, out: &mut Outbox) -> Result<(), StoreFault> {
        self.on_member_rumors(now, from, rumors.members, rumors.suspicions, out);
        self.merge_records(now, from, rumors.records, Via::Rumor, out)?;
        for receipt in rumors.receipts {
            let key = self.records.key(receipt.id);
            self.owed.owe(key, receipt, from);
            self.unsettled.insert(key);
        }
        Ok(())
    }

    /// Merges records of others; returns those that changed something.
    pub(super) fn merge_records(
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
}
