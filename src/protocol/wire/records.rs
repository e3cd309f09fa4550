//! Messages by which two nodes compare their record sets and give each other what is missing.

use serde::{Deserialize, Serialize};

use super::hex::{hex_items, hex_keys, hex64, hex64_option};
use super::{BadMessage, Entry, MAX_ITEMS, MAX_RECORDS, at_most, validate_entries};
use crate::item::{Item, KeyHash};
use crate::summary::{PARTITIONS, Root};

/// The digest that opens an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Root of the record set.
    #[serde(rename = "r")]
    pub root: Root,
    /// Fingerprint of the member list.
    #[serde(rename = "m", with = "hex64")]
    pub members: u64,
}

/// The roots of the sender's partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions {
    /// One for each of the 256, in order.
    pub roots: Vec<Root>,
    /// Go on from this key hash; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub from: Option<u64>,
}

/// The items of the partitions that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items {
    /// Which partitions differ.
    pub partitions: Vec<u8>,
    /// Their items in the order of key hashes, 32 hexadecimal digits each.
    #[serde(with = "hex_items")]
    pub items: Vec<Item>,
    /// Where to go on: all items of lower key hashes are here. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub next: Option<u64>,
}

/// Records given, records asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsRequest {
    /// What the receiver lacks.
    pub give: Vec<Entry>,
    /// Key hashes of the records wanted.
    #[serde(with = "hex_keys")]
    pub ask: Vec<KeyHash>,
}

/// Records asked for; those that did not fit are asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsAnswer {
    /// As many as fit, in the order asked.
    pub give: Vec<Entry>,
    /// How many of the key hashes asked for were looked at.
    pub seen: usize,
}

impl Partitions {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        let found = self.roots.len();
        if found == PARTITIONS { Ok(()) } else { Err(BadMessage::TooMany { found, bound: PARTITIONS }) }
    }
}

impl Items {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.items.len(), MAX_ITEMS)?;
        at_most(self.partitions.len(), PARTITIONS)?;
        let ordered = self.partitions.is_sorted_by(|a, b| a < b) && self.items.is_sorted();
        if ordered { Ok(()) } else { Err(BadMessage::Unordered) }
    }
}

impl RecordsRequest {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.ask.len(), MAX_RECORDS)?;
        validate_entries(&self.give)
    }
}
