//! The records as the core sees them: what is committed, overlaid with what it has asked to persist.
//!
//! 1. A read sees every change that was made here, persisted or not.
//! 2. The summary is that of the overlaid set after every change.
//! 3. A record that holds an unpersisted version of this node's own is not given to anybody.
//!
//! The overlay is bounded by [`MAX_PENDING`]: beyond it clients' writes are refused as busy and peers' records are left for the next
//! exchange.

use std::collections::BTreeMap;

use crate::ids::{BlobId, ContentHash};
use crate::io::Token;
use crate::item::{Item, ItemHasher, KeyHash, RecordKey, StateHash};
use crate::planted::{Bug, is_planted};
use crate::record::Record;
use crate::store::{Missing, Store, StoreFault};
use crate::summary::Summary;

/// Most records whose persisting is under way at once: two full batches of the node's writer, one being committed, one behind it. The keys of a
/// batch are anywhere in the indexes, so the larger it is the more of them share a page that is written; beyond, a client's write would wait long.
pub const MAX_PENDING: usize = 32_768;

/// How many items a scan of the store takes at a time.
pub(crate) const SCAN_PAGE: usize = 4096;

#[derive(Debug)]
struct Pending {
    record: Record,
    state: StateHash,
    /// The last persist that carries this record.
    token: Token,
    /// Whether a version of this node's own is among what is not yet persisted.
    own: bool,
}

/// The record set of a node.
#[derive(Debug)]
pub struct Records<S> {
    store: S,
    hasher: ItemHasher,
    pending: BTreeMap<RecordKey, Pending>,
    /// Room in the overlay that is set aside for records under way.
    reserved: usize,
    summary: Summary,
}

/// Records in the order of their keys.
#[derive(Debug)]
pub struct Page {
    /// The records.
    pub records: Vec<(RecordKey, Record)>,
    /// The last key looked at, if there may be more behind it.
    pub next: Option<RecordKey>,
}

impl std::fmt::Debug for ItemHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemHasher").finish_non_exhaustive()
    }
}

impl<S: Store> Records<S> {
    /// Takes over a store; counts its items once.
    pub fn open(store: S, hasher: ItemHasher) -> Result<Self, StoreFault> {
        let summary = store.count(hasher.sketch())?;
        Ok(Self { store, hasher, pending: BTreeMap::new(), reserved: 0, summary })
    }

    fn count_afresh(&self) -> Result<Summary, StoreFault> {
        let mut summary = Summary::new(self.hasher.sketch().clone());
        let mut from = Some(first_key(KeyHash(0)));
        while let Some(start) = from {
            let page = self.items(start, SCAN_PAGE)?;
            page.iter().for_each(|(_, item)| summary.add(*item));
            from = if page.len() < SCAN_PAGE { None } else { page.last().and_then(|(key, _)| next_key(*key)) };
        }
        Ok(summary)
    }

    /// The committed state below the overlay.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The sums that exchanges compare.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What makes keys and items.
    pub fn hasher(&self) -> &ItemHasher {
        &self.hasher
    }

    /// Where the record of `blob` stands.
    pub fn key(&self, blob: BlobId) -> RecordKey {
        self.hasher.key(blob)
    }

    /// How many records fill the overlay, with those that room is set aside for.
    pub fn taken(&self) -> usize {
        self.pending.len() + self.reserved
    }

    /// How many more changes can be taken for now.
    pub fn room(&self) -> usize {
        MAX_PENDING.saturating_sub(self.taken())
    }

    /// Whether no more changes can be taken for now.
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Sets room aside for so many records, instead of what was set aside before.
    pub fn reserve(&mut self, records: usize) {
        self.reserved = records;
    }

    /// Whether so many changes can be taken on top of those that wait for the disk.
    pub fn has_room(&self, changes: usize) -> bool {
        changes <= self.room()
    }

    /// The record of that key, persisted or not; empty if the blob was never written.
    pub fn record(&self, key: RecordKey) -> Result<Record, StoreFault> {
        match self.pending.get(&key) {
            Some(pending) if !is_planted(Bug::LostUpdate) => Ok(pending.record.clone()),
            Some(_) | None => Ok(self.store.record(key)?.unwrap_or_default()),
        }
    }

    /// The record of that key if it may leave this node.
    pub fn shareable(&self, key: RecordKey) -> Result<Option<Record>, StoreFault> {
        match self.pending.get(&key) {
            Some(pending) if pending.own && !is_planted(Bug::LeavesEarly) => Ok(None),
            Some(pending) => Ok(Some(pending.record.clone())),
            None => self.store.record(key),
        }
    }

    /// The keys of the records with that hash, persisted or not.
    pub fn keys(&self, hash: KeyHash) -> Result<Vec<RecordKey>, StoreFault> {
        let mut keys = self.store.keys(hash)?;
        keys.extend(self.pending.range(first_key(hash)..).map(|(key, _)| *key).take_while(|key| key.hash == hash));
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// At most `limit` items from `from` on, in the order of their keys, persisted or not.
    pub fn items(&self, from: RecordKey, limit: usize) -> Result<Vec<(RecordKey, Item)>, StoreFault> {
        let mut page: BTreeMap<RecordKey, Item> = self.store.items(from, limit)?.into_iter().collect();
        // Beyond the last committed item of a full page the store may hold more, so the overlay must not run ahead of it.
        let end = if page.len() < limit { None } else { page.last_key_value().map(|(key, _)| *key) };
        for (key, pending) in self.pending.range(from..).take_while(|(key, _)| end.is_none_or(|end| **key <= end)) {
            page.insert(*key, Item { key: key.hash, state: pending.state });
        }
        Ok(page.into_iter().take(limit).collect())
    }

    /// The records from `from` on to the end of partition `last` that may leave this node: at most `limit`, and no more once
    /// about `budget` bytes are there.
    pub fn page(&self, from: RecordKey, last: u8, limit: usize, budget: usize) -> Result<Page, StoreFault> {
        let committed = self.store.records(from, limit, budget)?;
        // Beyond the last committed record of this page the store may hold more.
        let end = committed.last().map(|(key, _)| *key);
        let mut all: BTreeMap<RecordKey, Option<Record>> = committed.into_iter().map(|(key, record)| (key, Some(record))).collect();
        for (key, pending) in self.pending.range(from..).take_while(|(key, _)| end.is_none_or(|end| **key <= end)) {
            all.insert(*key, (!pending.own).then(|| pending.record.clone()));
        }
        let (mut records, mut bytes) = (Vec::with_capacity(all.len()), 0);
        let mut seen = None;
        for (key, record) in all {
            if key.hash.partition() > last {
                return Ok(Page { records, next: None });
            }
            let size = record.as_ref().map_or(0, crate::wire::record_size);
            if records.len() == limit || bytes + size > budget && !records.is_empty() {
                return Ok(Page { records, next: seen });
            }
            bytes += size;
            seen = Some(key);
            records.extend(record.map(|record| (key, record)));
        }
        Ok(Page { records, next: seen.filter(|_| end.is_some()) })
    }

    /// Whether the payload is here durably.
    pub fn holds(&self, hash: ContentHash) -> Result<bool, StoreFault> {
        self.store.holds(hash)
    }

    /// Payloads that committed records name and that are not here.
    pub fn missing(&self, after: Option<ContentHash>, limit: usize) -> Result<Vec<Missing>, StoreFault> {
        self.store.missing(after, limit)
    }

    /// The item of a record in its place; `None` of one that was never written.
    pub fn item(&self, key: RecordKey, record: &Record) -> Option<Item> {
        record.winner().map(|_| Item { key: key.hash, state: self.hasher.state(record) })
    }

    /// Replaces the record of `key`, which was `before` in the summary and is `state` now, as part of the persist `token`. `own`: it
    /// holds a new version of this node's own.
    pub fn put(&mut self, key: RecordKey, before: Option<Item>, after: Record, state: StateHash, token: Token, own: bool) {
        before.into_iter().for_each(|before| self.summary.remove(before));
        self.summary.add(Item { key: key.hash, state });
        let own = own || self.pending.get(&key).is_some_and(|pending| pending.own);
        self.pending.insert(key, Pending { record: after, state, token, own });
    }

    /// Replaces the summary by one counted afresh; returns the root before.
    pub fn replace_summary(&mut self, summary: Summary) -> crate::summary::Root {
        std::mem::replace(&mut self.summary, summary).root()
    }

    /// The persist `token` is on disk: its keys are read from the store again, unless a later persist carries them too.
    pub fn on_persisted(&mut self, token: Token, keys: &[RecordKey]) {
        for key in keys {
            if self.pending.get(key).is_some_and(|pending| pending.token == token) {
                self.pending.remove(key);
            }
        }
    }

    /// The last persist that carries this node's own change of that record, if it waits for the disk.
    pub fn own_change(&self, key: RecordKey) -> Option<Token> {
        self.pending.get(&key).filter(|pending| pending.own).map(|pending| pending.token)
    }

    /// Whether a change of that record waits for the disk.
    pub fn is_pending(&self, key: RecordKey) -> bool {
        self.pending.contains_key(&key)
    }

    /// Counts an item that is not there: what a fault in the upkeep of the summary would do.
    #[cfg(test)]
    pub(crate) fn miscount(&mut self, item: Item) {
        self.summary.add(item);
    }

    /// Counts everything afresh and compares: the invariant of the summary. A pass over all keys, for the simulator.
    pub fn verify_summary(&self) -> Result<bool, StoreFault> {
        Ok(self.count_afresh()? == self.summary)
    }
}

/// The first key with that hash.
pub fn first_key(hash: KeyHash) -> RecordKey {
    RecordKey { hash, blob: BlobId(uuid::Uuid::nil()) }
}

/// The key right after `key`; `None` after the last of all.
pub fn next_key(key: RecordKey) -> Option<RecordKey> {
    match key.blob.0.as_u128().checked_add(1) {
        Some(next) => Some(RecordKey { hash: key.hash, blob: BlobId(uuid::Uuid::from_u128(next)) }),
        None => key.hash.0.checked_add(1).map(|next| first_key(KeyHash(next))),
    }
}
