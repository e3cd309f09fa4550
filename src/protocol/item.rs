//! Items: what two nodes compare instead of records.
//!
//! An item is 16 bytes: a keyed hash of the GUID and a keyed hash of the live versions, so equal items mean equal records, but for an
//! accident of 64-bit hashing that costs a retry at the next change. The key is derived from the cluster's name, which keeps the
//! sets of different clusters unrelated.

use std::fmt;

use crate::ids::BlobId;
use crate::record::Record;
use crate::sketch::SketchHasher;

/// The keyed hash of a GUID. Records are ordered by it, so that an item leads to its record by a seek.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Which of the 256 partitions it belongs to: its top byte.
    pub fn partition(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// The first key hash of a partition.
    pub fn first_of(partition: u8) -> Self {
        Self(u64::from(partition) << 56)
    }

    /// The last key hash of a partition.
    pub fn last_of(partition: u8) -> Self {
        Self(Self::first_of(partition).0 | u64::MAX >> 8)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a record stands in the order of all records: by the hash of its GUID, then by the GUID itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The keyed hash of the GUID.
    pub hash: KeyHash,
    /// The GUID.
    pub blob: BlobId,
}

/// The keyed hash of a record's live versions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(pub u64);

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One record in the set that two nodes compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Which record.
    pub key: KeyHash,
    /// What is in it.
    pub state: StateHash,
}

impl Item {
    /// The 16 bytes as a number, key first.
    pub fn bits(self) -> u128 {
        u128::from(self.key.0) << 64 | u128::from(self.state.0)
    }

    /// The item of those 16 bytes.
    pub fn from_bits(bits: u128) -> Self {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        Self { key: KeyHash(half(bits >> 64)), state: StateHash(half(bits)) }
    }
}

/// Makes items: the hash keys of a cluster.
#[derive(Clone)]
pub struct ItemHasher {
    guid_key: [u8; 32],
    state_key: [u8; 32],
    sketch: SketchHasher,
}

impl ItemHasher {
    /// The hasher of the cluster of that name.
    pub fn new(cluster: &str) -> Self {
        Self {
            guid_key: blake3::derive_key("gossip-cdn v1 item: hash of the GUID", cluster.as_bytes()),
            state_key: blake3::derive_key("gossip-cdn v1 item: hash of the live versions", cluster.as_bytes()),
            sketch: SketchHasher::new(cluster),
        }
    }

    /// What hashes this cluster's items for sketches.
    pub fn sketch(&self) -> &SketchHasher {
        &self.sketch
    }

    /// Where the record of `blob` stands.
    pub fn key(&self, blob: BlobId) -> RecordKey {
        let hash = blake3::keyed_hash(&self.guid_key, blob.0.as_bytes());
        RecordKey { hash: KeyHash(first_eight(&hash)), blob }
    }

    /// The hash of everything in a record that all nodes must agree on.
    pub fn state(&self, record: &Record) -> StateHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.state_key);
        let number = |hasher: &mut blake3::Hasher, n: u64| {
            hasher.update(&n.to_le_bytes());
        };
        // Every field has a fixed length or is preceded by it, so no two records hash the same bytes.
        for version in record.versions() {
            number(&mut hasher, version.stamp.0);
            hasher.update(version.origin.0.as_bytes());
            number(&mut hasher, version.clock.iter().len() as u64);
            for (node, stamp) in version.clock.iter() {
                hasher.update(node.0.as_bytes());
                number(&mut hasher, stamp.0);
            }
            let Some(payload) = version.content.payload() else {
                number(&mut hasher, 0);
                continue;
            };
            number(&mut hasher, 1);
            hasher.update(&payload.hash.0);
            number(&mut hasher, payload.size);
            number(&mut hasher, payload.media_type.len() as u64);
            hasher.update(payload.media_type.as_bytes());
            // One more than the length, so that no name and an empty one differ.
            number(&mut hasher, payload.file_name.as_ref().map_or(0, |name| name.len() as u64 + 1));
            hasher.update(payload.file_name.as_deref().unwrap_or_default().as_bytes());
        }
        StateHash(first_eight(&hasher.finalize()))
    }

    /// The item of a record.
    pub fn item(&self, blob: BlobId, record: &Record) -> Item {
        Item { key: self.key(blob).hash, state: self.state(record) }
    }

    /// A hash of anything else that nodes of this cluster compare, such as member lists.
    pub fn fingerprint(&self, bytes: &[u8]) -> u64 {
        first_eight(&blake3::keyed_hash(&self.state_key, bytes))
    }
}

fn first_eight(hash: &blake3::Hash) -> u64 {
    hash.as_bytes()[..8].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{node, payload, write};

    #[test]
    fn an_item_changes_with_everything_that_nodes_must_agree_on() {
        let hasher = ItemHasher::new("a");
        let blob = BlobId(uuid::Uuid::from_u128(1));
        let version = write(&Record::default(), node(1), 5, payload(1));
        let item = |change: fn(&mut crate::Version)| {
            let mut version = version.clone();
            change(&mut version);
            hasher.item(blob, &Record::from(vec![version]))
        };
        let same = item(|_| ());
        assert_eq!(same, item(|_| ()));
        assert_ne!(same, item(|version| version.stamp.0 += 1));
        assert_ne!(same, item(|version| version.clock.include(node(2), crate::Stamp(1))));
        assert_ne!(same, item(|version| version.content = payload(2)));
        assert_ne!(same, item(|version| version.content = crate::Content::Tombstone));
        assert_ne!(same.key, hasher.item(BlobId(uuid::Uuid::from_u128(2)), &Record::default()).key);
        assert_ne!(same.key, ItemHasher::new("b").item(blob, &Record::default()).key, "clusters are unrelated");
    }
}
