//! A store in memory: for whoever drives a core without a disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ids::ContentHash;
use crate::item::{Item, KeyHash, RecordKey, StateHash};
use crate::record::Record;
use crate::records::first_key;
use crate::store::{Missing, Store, StoreFault};

/// Records in a map, and either no payload or every one; nothing to begin with. A clone is the same store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    rows: Rc<RefCell<BTreeMap<RecordKey, (StateHash, Record)>>>,
    holds_all: bool,
}

impl MemoryStore {
    /// One that has whatever bytes it is asked for.
    pub fn with_every_payload() -> Self {
        Self { holds_all: true, ..Self::default() }
    }

    /// Puts a record in the place of what was there.
    pub fn put(&self, key: RecordKey, state: StateHash, record: Record) {
        self.rows.borrow_mut().insert(key, (state, record));
    }
}

impl Store for MemoryStore {
    fn record(&self, key: RecordKey) -> Result<Option<Record>, StoreFault> {
        Ok(self.rows.borrow().get(&key).map(|(_, record)| record.clone()))
    }

    fn keys(&self, hash: KeyHash) -> Result<Vec<RecordKey>, StoreFault> {
        Ok(self.rows.borrow().range(first_key(hash)..).map(|(key, _)| *key).take_while(|key| key.hash == hash).collect())
    }

    fn items(&self, from: RecordKey, limit: usize) -> Result<Vec<(RecordKey, Item)>, StoreFault> {
        let item = |(key, (state, _)): (&RecordKey, &(StateHash, Record))| (*key, Item { key: key.hash, state: *state });
        Ok(self.rows.borrow().range(from..).take(limit).map(item).collect())
    }

    fn holds(&self, _: ContentHash) -> Result<bool, StoreFault> {
        Ok(self.holds_all)
    }

    fn missing(&self, _: Option<ContentHash>, _: usize) -> Result<Vec<Missing>, StoreFault> {
        Ok(vec![])
    }

    fn payload_bytes(&self) -> Result<u64, StoreFault> {
        Ok(0)
    }
}
