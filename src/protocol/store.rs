//! What the core asks of the disk: one small synchronous trait, implemented over redb by the node and over a map by the simulator.
//!
//! Only reads are here. Writing is an output with a completion ([`crate::Output::Persist`]), so the core never waits for a disk.

use std::ops::RangeInclusive;

use crate::history::disk::{HistoryStore, NoHistory};
use crate::ids::ContentHash;
use crate::item::{Item, KeyHash, RecordKey};
use crate::record::Record;
use crate::records::{SCAN_PAGE, first_key, next_key};
use crate::sketch::SketchHasher;
use crate::summary::Summary;

/// The store cannot be read. The core stops; a new one is built from a store opened anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct StoreFault(pub String);

/// A payload that a record names and that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its hash.
    pub hash: ContentHash,
    /// Its length in bytes.
    pub size: u64,
    /// A record that names it.
    pub key: RecordKey,
}

/// The durable state of a node, as of the last commit.
pub trait Store {
    /// The committed record of that key.
    fn record(&self, key: RecordKey) -> Result<Option<Record>, StoreFault>;

    /// The keys of the committed records with that hash: one, but for an accident of hashing.
    fn keys(&self, hash: KeyHash) -> Result<Vec<RecordKey>, StoreFault>;

    /// At most `limit` committed items from `from` on, in the order of their keys. Reads no record.
    fn items(&self, from: RecordKey, limit: usize) -> Result<Vec<(RecordKey, Item)>, StoreFault>;

    /// Shows the committed items of these partitions, each once. Reads no record.
    fn scan(&self, partitions: RangeInclusive<u8>, each: &mut dyn FnMut(Item)) -> Result<(), StoreFault> {
        let mut from = Some(first_key(KeyHash::first_of(*partitions.start())));
        while let Some(start) = from {
            let page = self.items(start, SCAN_PAGE)?;
            let inside = page.iter().take_while(|(key, _)| key.hash.partition() <= *partitions.end());
            from = if inside.clone().count() < SCAN_PAGE { None } else { page.last().and_then(|(key, _)| next_key(*key)) };
            inside.for_each(|(_, item)| each(*item));
        }
        Ok(())
    }

    /// Counts all committed items: the summary of the set as it is now.
    fn count(&self, hasher: &SketchHasher) -> Result<Summary, StoreFault> {
        let mut summary = Summary::new(hasher.clone());
        self.scan(0..=u8::MAX, &mut |item| summary.add(item))?;
        Ok(summary)
    }

    /// Committed records from `from` on, in the order of their keys: at most `limit`, and no more once about `budget` bytes were
    /// read. None only where there is none.
    fn records(&self, from: RecordKey, limit: usize, budget: usize) -> Result<Vec<(RecordKey, Record)>, StoreFault> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (key, _) in self.items(from, limit)? {
            if bytes >= budget && !records.is_empty() {
                break;
            }
            if let Some(record) = self.record(key)? {
                bytes += crate::wire::record_size(&record);
                records.push((key, record));
            }
        }
        Ok(records)
    }

    /// Whether the payload is here durably.
    fn holds(&self, hash: ContentHash) -> Result<bool, StoreFault>;

    /// At most `limit` payloads that committed records name and that are not here, after `after` in the order of hashes.
    fn missing(&self, after: Option<ContentHash>, limit: usize) -> Result<Vec<Missing>, StoreFault>;

    /// Bytes of all payloads here.
    fn payload_bytes(&self) -> Result<u64, StoreFault>;

    /// The message history; of a store that keeps none, an empty one.
    fn history(&self) -> &dyn HistoryStore {
        &NoHistory
    }
}
