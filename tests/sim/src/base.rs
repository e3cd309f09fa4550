//! A million records that nobody needs to keep: deleted blobs whose records are made from their number when somebody asks.
//!
//! 24 bytes of memory each, shared by all disks that lie over it. They are tombstones, so that no payload belongs to them.

use gossip_cdn_protocol::item::{Item, ItemHasher, KeyHash, RecordKey, StateHash};
use gossip_cdn_protocol::{BlobId, Content, NodeId, Record, Stamp, VectorClock, Version};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    hash: u64,
    number: u32,
    state: u64,
}

/// Records below those of a disk.
#[derive(Debug)]
pub(crate) struct Base {
    rows: Vec<Row>,
}

impl Base {
    /// So many records of the cluster of that name.
    pub(crate) fn new(cluster: &str, count: u32) -> Self {
        let hasher = ItemHasher::new(cluster);
        let row = |number| Row { hash: hasher.key(blob(number)).hash.0, number, state: hasher.state(&record(number)).0 };
        let mut rows: Vec<Row> = (0..count).map(row).collect();
        rows.sort_unstable();
        Self { rows }
    }

    /// The rows from that hash on.
    fn from(&self, hash: KeyHash) -> &[Row] {
        let start = self.rows.partition_point(|row| row.hash < hash.0);
        self.rows.get(start..).unwrap_or_default()
    }

    pub(crate) fn record(&self, key: RecordKey) -> Option<Record> {
        let mut same = self.from(key.hash).iter().take_while(|row| row.hash == key.hash.0);
        same.find(|row| blob(row.number) == key.blob).map(|row| record(row.number))
    }

    /// The items from `key` on, in the order of their keys. (Of two records of one hash, which no seed has met, the order is that of
    /// their numbers.)
    pub(crate) fn items(&self, key: RecordKey) -> impl Iterator<Item = (RecordKey, Item)> {
        let item = |row: &Row| {
            let hash = KeyHash(row.hash);
            (RecordKey { hash, blob: blob(row.number) }, Item { key: hash, state: StateHash(row.state) })
        };
        self.from(key.hash).iter().map(item).filter(move |(found, _)| *found >= key)
    }
}

fn blob(number: u32) -> BlobId {
    let bits = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    BlobId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
}

fn record(number: u32) -> Record {
    let origin = NodeId::from_public_key(&[7; 32]);
    let stamp = Stamp(1_700_000_000_000 << 16 | u64::from(number));
    let mut clock = VectorClock::default();
    clock.include(origin, stamp);
    Record::from(vec![Version { stamp, origin, content: Content::Tombstone, clock }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_found_by_its_key_and_in_its_place() {
        let base = Base::new("test", 1000);
        let hasher = ItemHasher::new("test");
        let first = RecordKey { hash: KeyHash(0), blob: BlobId(uuid::Uuid::nil()) };
        let items: Vec<_> = base.items(first).collect();
        assert_eq!(items.len(), 1000);
        assert!(items.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (key, item) in items {
            let record = base.record(key).expect("it is there");
            assert_eq!(item, hasher.item(key.blob, &record));
            assert_eq!(record.versions()[0].validate(), Ok(()));
        }
        assert_eq!(base.record(first), None);
    }
}
