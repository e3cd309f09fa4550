//! Records that came from others.

use std::collections::BTreeSet;

use crate::ids::NodeId;
use crate::io::{Event, Outbox, Output};
use crate::item::RecordKey;
use crate::node::{After, Node};
use crate::planted::{Bug, is_planted};
use crate::record::{MAX_BYTES, Record};
use crate::records::Records;
use crate::store::{Missing, Store, StoreFault};
use crate::time::Now;
use crate::transfer::MAX_WANTS;
use crate::version::Content;
use crate::wire::{self, Entry, Rumors};

/// Why records came, which decides whether they are pushed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Rumor,
    Given,
    Asked,
    Snapshot,
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
        self.counters.records_received += entries.len() as u64;
        let entries: Vec<(RecordKey, Entry)> = entries.into_iter().map(|entry| (self.records.key(entry.id), entry)).collect();
        let present = match via {
            Via::Snapshot => Present::scan(&entries, &self.records)?,
            Via::Rumor | Via::Given | Via::Asked => Present::default(),
        };
        let room = self.records.room();
        let mut changes: Vec<(RecordKey, Record, Record)> = Vec::with_capacity(entries.len().min(room));
        let mut met = BTreeSet::new();
        for (key, Entry { id, versions }) in entries {
            // Twice in one message: the second merge would start from the state before the first.
            if changes.len() == room || !met.insert(key) {
                continue;
            }
            let is_tombstone = versions.winner().is_some_and(|winner| winner.content == Content::Tombstone);
            if is_planted(Bug::ForgottenTombstone) && via != Via::Rumor && is_tombstone {
                continue;
            }
            let before = if present.lacks(key) { Record::default() } else { self.records.record(key)? };
            if self.is_outwritten(now, &before, &versions) {
                return Ok(vec![]);
            }
            let ground = if is_planted(Bug::StaleRumor) && via == Via::Rumor { &Record::default() } else { &before };
            let Some(record) = merged(ground, versions) else { continue };
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
        self.want_payloads(now, from, &changes, via)?;
        self.persist_records(changes, false, After::default(), out);
        let few = keys.len() <= crate::spread::MAX_PUSHED_ON;
        if via == Via::Rumor || via == Via::Given && few {
            for key in &keys {
                self.push_fresh(*key, &[from]);
            }
        }
        Ok(keys)
    }

    fn want_payloads(&mut self, now: Now, from: NodeId, changes: &[(RecordKey, Record, Record)], via: Via) -> Result<(), StoreFault> {
        for (key, _, record) in changes {
            for version in record.versions() {
                let Content::Payload(payload) = &version.content else { continue };
                // A snapshot tells of more payloads than can be wanted at a time; the refill takes the others from the disk.
                if via == Via::Snapshot && self.transfers.len() >= MAX_WANTS || self.records.holds(payload.hash)? {
                    continue;
                }
                let missing = Missing { hash: payload.hash, size: payload.size, key: *key };
                // The origin is asked last of the two: by then the sender has shown whether it has the bytes already.
                self.transfers.want(missing, &[version.origin, from], None, now.instant);
            }
        }
        Ok(())
    }
}

/// What becomes of a record when others' versions are merged into it; `None` if nothing does.
///
/// Two records of bearable size may make one that nobody would take: then both sides keep what they have until somebody writes over
/// it.
fn merged(before: &Record, versions: Record) -> Option<Record> {
    if before.winner().is_none() {
        // Whatever was read is an antichain already.
        return Some(versions).filter(|record| record.winner().is_some() && wire::record_size(record) <= MAX_BYTES);
    }
    let mut record = before.clone();
    (record.merge(&versions) && wire::record_size(&record) <= MAX_BYTES).then_some(record)
}

/// Which records lie between the least and the greatest of a page, so that those which are new need not be looked up one by one.
#[derive(Debug, Default)]
struct Present {
    /// The records from the first of these keys to the last are known: they are in `keys`.
    known: Option<(RecordKey, RecordKey)>,
    keys: Vec<RecordKey>,
}

impl Present {
    /// One scan, of not many more items than the page has.
    fn scan<S: Store>(entries: &[(RecordKey, Entry)], records: &Records<S>) -> Result<Self, StoreFault> {
        let keys = || entries.iter().map(|(key, _)| *key);
        let (Some(least), Some(greatest)) = (keys().min(), keys().max()) else { return Ok(Self::default()) };
        let limit = entries.len() * 2;
        let items = records.items(least, limit)?;
        let end = match items.last() {
            Some((last, _)) if items.len() == limit => greatest.min(*last),
            Some(_) | None => greatest,
        };
        Ok(Self { known: Some((least, end)), keys: items.into_iter().map(|(key, _)| key).collect() })
    }

    /// Whether there is surely no record of that key.
    fn lacks(&self, key: RecordKey) -> bool {
        self.known.is_some_and(|(least, end)| (least..=end).contains(&key)) && self.keys.binary_search(&key).is_err()
    }
}
