//! What the core asks of the disk: one small synchronous trait, implemented over redb by the node and over a map by the simulator.
//!
//! Only reads are here. Writing is an output with a completion ([`crate::Output::Persist`]), so the core never waits for a disk.

use crate::ids::ContentHash;
use crate::item::{Item, KeyHash, RecordKey};
use crate::record::Record;

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

    /// Whether the payload is here durably.
    fn holds(&self, hash: ContentHash) -> Result<bool, StoreFault>;

    /// At most `limit` payloads that committed records name and that are not here, after `after` in the order of hashes.
    fn missing(&self, after: Option<ContentHash>, limit: usize) -> Result<Vec<Missing>, StoreFault>;

    /// Bytes of all payloads here.
    fn payload_bytes(&self) -> Result<u64, StoreFault>;
}
