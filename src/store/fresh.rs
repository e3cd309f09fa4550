//! Fresh rows: uploads that the journal has and the tables do not have yet, in memory.
//!
//! The keys of the tables are hashes, so a page is visited for every row; in the order of the keys thousands of rows share the visits. So a batch of
//! uploads of which nothing was known goes into the journal, is read from here, and is put into the tables with all the others when the journal
//! is long. Nothing was known: each blob is new and has one version, and its bytes came with it, are few, and neither here nor missing.
//!
//! 1. Fresh rows touch no row of the tables, so what is there is the union of both.
//! 2. A row is fresh from its append to the journal until a commit has it in the tables. Who looks here first and at the tables afterwards
//!    misses nothing.
//! 3. A transaction knows up to which record of the journal it has the rows: those are passed over, and nothing is found twice.
//! 4. Rows that are on their way into the tables do not change; later ones are kept apart. Nobody waits for that commit.
//! 5. Every commit takes all that are fresh before anything else.
//!
//! Bounded by the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use gossip_cdn_protocol::io::RecordChange;
use gossip_cdn_protocol::{ContentHash, Record};
use redb::{Error, ReadTransaction};

use super::tables::{self, KeyBytes, NameKey, OwnerBytes, StampBytes};
use super::writer::{PayloadRow, Request};
use super::{Usage, encoding, replay};

/// A payload with its bytes.
pub(super) type Inline = (ContentHash, Bytes);

/// Rows of uploads, as the tables will have them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The sequence behind the last record of the journal that has some of them.
    until: u64,
    pub(super) records: BTreeMap<KeyBytes, Vec<u8>>,
    pub(super) payloads: BTreeMap<ContentHash, Bytes>,
    pub(super) owners: BTreeSet<OwnerBytes>,
    pub(super) newest: BTreeSet<StampBytes>,
    pub(super) names: BTreeSet<NameKey>,
    pub(super) ids: BTreeSet<[u8; 16]>,
}

impl Rows {
    /// What a batch writes, if that may be fresh by the look of it.
    fn of(batch: &[Request]) -> Option<Self> {
        let mut rows = Self::default();
        for request in batch {
            match request {
                Request::Payload(PayloadRow { hash, inline: Some(bytes), .. }, _) => drop(rows.payloads.insert(*hash, bytes.clone())),
                Request::Persist(persist, ..) if replay::is_records_alone(persist) => {
                    persist.records.iter().try_for_each(|change| rows.add_record(change))?;
                }
                Request::Wake => (),
                Request::Payload(..) | Request::Persist(..) | Request::Key(..) | Request::Scrub(..) | Request::Reopen(_) => return None,
            }
        }
        Some(rows)
    }

    /// `None`: it is not of one version with bytes, or not the first of its blob.
    fn add_record(&mut self, change: &RecordChange) -> Option<()> {
        let [version] = change.record.versions() else { return None };
        let payload = version.content.payload()?;
        let (key, blob) = (tables::key_bytes(change.key), change.key.blob);
        let before = self.records.insert(key, encoding::row(change.state.0, &change.record));
        self.owners.insert(tables::owner_bytes(payload.hash, &key));
        self.newest.insert(tables::stamp_bytes(version.stamp, blob));
        self.names.insert((payload.file_name.clone().unwrap_or_default(), *blob.0.as_bytes()));
        self.ids.insert(*blob.0.as_bytes());
        before.is_none().then_some(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// As the journal has them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let payloads = self.payloads.iter().map(|(hash, bytes)| (*hash, bytes.len() as u64, Some(&bytes[..])));
        replay::body(payloads, self.records.iter().map(|(key, row)| (*key, &row[..])))
    }

    /// Adds them to the counters.
    pub(super) fn count(&self, usage: &mut Usage) {
        usage.live_blobs += self.records.len() as u64;
        usage.payloads += self.payloads.len() as u64;
        usage.payload_bytes += self.payloads.values().map(|bytes| bytes.len() as u64).sum::<u64>();
    }

    /// Whether bytes and claims belong together: what is claimed is here or in one of `others`, what is here is claimed.
    fn are_claimed(&self, others: &Layers) -> bool {
        let claimed: BTreeSet<ContentHash> = self.owners.iter().map(tables::owned_hash).collect();
        claimed.iter().all(|hash| self.payloads.contains_key(hash) || others.payload(*hash).is_some())
            && self.payloads.keys().all(|hash| claimed.contains(hash))
    }

    /// Whether the tables know nothing of them.
    fn are_unknown(&self, transaction: &ReadTransaction) -> Result<bool, Error> {
        let records = transaction.open_table(tables::RECORDS)?;
        for key in self.records.keys() {
            if records.get(key)?.is_some() {
                return Ok(false);
            }
        }
        let (here, missing) = (transaction.open_table(tables::PAYLOADS)?, transaction.open_table(tables::MISSING)?);
        for hash in self.payloads.keys() {
            if here.get(&hash.0)?.is_some() || missing.get(&hash.0)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// All that is fresh.
#[derive(Default)]
pub(super) struct Fresh {
    layers: RwLock<Layers>,
}

#[derive(Default)]
struct Layers {
    young: Rows,
    /// On their way into the tables; all of them were here before the young ones.
    leaving: Option<Arc<Rows>>,
}

impl Layers {
    fn iter(&self) -> impl Iterator<Item = &Rows> {
        self.leaving.as_deref().into_iter().chain([&self.young]).filter(|rows| !rows.is_empty())
    }

    fn record(&self, key: &KeyBytes) -> Option<&[u8]> {
        self.iter().find_map(|rows| rows.records.get(key)).map(Vec::as_slice)
    }

    fn payload(&self, hash: ContentHash) -> Option<&Bytes> {
        self.iter().find_map(|rows| rows.payloads.get(&hash))
    }
}

impl Fresh {
    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of a record.
    pub(super) fn record(&self, key: &KeyBytes) -> Option<Vec<u8>> {
        self.read().record(key).map(<[u8]>::to_vec)
    }

    /// The bytes of a payload.
    pub(super) fn payload(&self, hash: ContentHash) -> Option<Bytes> {
        self.read().payload(hash).cloned()
    }

    /// A record, and the payload that it claims if that is fresh too.
    pub(super) fn blob(&self, key: &KeyBytes) -> Result<Option<(Record, Option<Inline>)>, Error> {
        let layers = self.read();
        let Some(row) = layers.record(key) else { return Ok(None) };
        let record = encoding::record_of(row)?;
        let hash = record.winner().and_then(|winner| winner.content.payload()).map(|payload| payload.hash);
        let payload = hash.and_then(|hash| Some((hash, layers.payload(hash)?.clone())));
        Ok(Some((record, payload)))
    }

    /// Begins to read the tables; gives beside that what `take` wants of the fresh rows that they lack.
    pub(super) fn beside<T>(
        &self,
        begin: impl FnOnce() -> Result<ReadTransaction, Error>,
        take: impl Fn(&Rows) -> Vec<T>,
    ) -> Result<(ReadTransaction, Vec<T>), Error> {
        let parts: Vec<(u64, Vec<T>)> = self.read().iter().map(|rows| (rows.until, take(rows))).collect();
        let transaction = begin()?;
        if parts.is_empty() {
            return Ok((transaction, Vec::new()));
        }
        let there = tables::rows_until(&transaction)?;
        let lacking = parts.into_iter().filter(|(until, _)| *until > there).flat_map(|(_, part)| part).collect();
        Ok((transaction, lacking))
    }

    /// What a batch adds, if nothing was known of it.
    pub(super) fn of_batch(
        &self,
        batch: &[Request],
        begin: impl FnOnce() -> Result<ReadTransaction, Error>,
    ) -> Result<Option<Rows>, Error> {
        let Some(mut rows) = Rows::of(batch).filter(|rows| !rows.is_empty()) else { return Ok(None) };
        {
            let layers = self.read();
            if !rows.are_claimed(&layers) || rows.records.keys().any(|key| layers.record(key).is_some()) {
                return Ok(None);
            }
            rows.payloads.retain(|hash, _| layers.payload(*hash).is_none());
        }
        Ok(if rows.are_unknown(&begin()?)? { Some(rows) } else { None })
    }

    /// The journal has these, in the record before that sequence.
    pub(super) fn add(&self, rows: Rows, until: u64) {
        let Rows { until: _, records, payloads, owners, newest, names, ids } = rows;
        let mut layers = self.write();
        let young = &mut layers.young;
        young.until = until;
        young.records.extend(records);
        young.payloads.extend(payloads);
        young.owners.extend(owners);
        young.newest.extend(newest);
        young.names.extend(names);
        young.ids.extend(ids);
    }

    /// All of them are about to be put into the tables.
    pub(super) fn leave(&self) -> Arc<Rows> {
        let mut layers = self.write();
        let leaving = Arc::new(std::mem::take(&mut layers.young));
        layers.leaving = Some(Arc::clone(&leaving));
        leaving
    }

    /// The tables have those that were about to leave.
    pub(super) fn left(&self) {
        let left = self.write().leaving.take();
        // Thousands of rows, given back while nobody waits.
        drop(left);
    }

    /// The tables have everything that the journal has.
    pub(super) fn clear(&self) {
        *self.write() = Layers::default();
    }
}

/// Both in one order, the order of their keys: `fresh` in any, `stored` in that one.
pub(super) fn merged<K: Ord, V>(
    mut fresh: Vec<(K, V)>,
    stored: impl Iterator<Item = Result<(K, V), Error>>,
) -> impl Iterator<Item = Result<(K, V), Error>> {
    fresh.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (mut fresh, mut stored) = (fresh.into_iter().peekable(), stored.peekable());
    std::iter::from_fn(move || match (fresh.peek(), stored.peek()) {
        (Some((one, _)), Some(Ok((other, _)))) if one < other => fresh.next().map(Ok),
        (Some(_), None) => fresh.next().map(Ok),
        (_, Some(_)) => stored.next(),
        (None, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{BlobId, Content, Record, Store as _};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, blob, content, noise, write};
    use super::super::{ListQuery, Store};
    use super::*;

    fn first(bytes: &[u8]) -> Record {
        write(&Record::default(), 1, 5, content(bytes, Some("name")))
    }

    /// How many records are fresh.
    fn count(store: &Store) -> usize {
        store.shared.fresh.read().iter().map(|rows| rows.records.len()).sum()
    }

    async fn put(fixture: &Fixture, n: u128, bytes: &[u8]) {
        let stored = fixture.upload(bytes).await;
        fixture.persist(&[(blob(n), &first(bytes))]).await;
        drop(stored);
    }

    #[tokio::test]
    async fn an_upload_is_fresh_if_nothing_was_known_of_it() {
        let fixture = Fixture::new();
        let store = &fixture.store;
        put(&fixture, 1, b"a").await;
        assert_eq!(count(store), 1);
        put(&fixture, 2, b"a").await;
        assert_eq!((count(store), store.usage().payloads), (2, 1), "the same bytes as of another that is fresh");
        let heard = first(b"elsewhere");
        type Changes = Vec<(BlobId, Record)>;
        let known: [(&str, Changes); 5] = [
            ("it is of a blob that is fresh", vec![(blob(1), write(&first(b"a"), 1, 6, content(b"b", None)))]),
            ("its bytes are not here", vec![(blob(3), heard)]),
            ("it is deleted", vec![(blob(4), write(&Record::default(), 1, 5, Content::Tombstone))]),
            ("its bytes are in the tables", vec![(blob(5), first(b"a"))]),
            ("it is of a blob in the tables", vec![(blob(2), write(&first(b"a"), 2, 9, content(b"a", None)))]),
        ];
        for (why, changes) in known {
            fixture.persist(&changes.iter().map(|(blob, record)| (*blob, record)).collect::<Vec<_>>()).await;
            assert_eq!(count(store), 0, "{why}");
        }
        put(&fixture, 6, b"elsewhere").await;
        assert_eq!((count(store), store.missing(None, 9).unwrap().len()), (0, 1), "its bytes were missing");
        put(&fixture, 7, &noise(100_000, 1)).await;
        assert_eq!(count(store), 0, "its bytes are in a file");
    }

    #[tokio::test]
    async fn rows_on_their_way_into_the_tables_are_read_once_before_and_behind_the_commit() {
        let fixture = Fixture::new();
        let fresh = &fixture.store.shared.fresh;
        put(&fixture, 1, b"a").await;
        let rows = fresh.leave();
        put(&fixture, 2, b"b").await;
        let seen = || {
            let store = &fixture.store;
            let listed = store.list(&ListQuery { limit: 9, ..ListQuery::default() }).unwrap().entries.len();
            let bytes = [&b"a"[..], b"b"].map(|bytes| fixture.bytes(ContentHash::of(bytes)).as_deref() == Some(bytes));
            (listed, bytes, [1, 2].map(|n| store.blob(blob(n)).unwrap().is_some()))
        };
        let all = (2, [true; 2], [true; 2]);
        assert_eq!(seen(), all);
        let transaction = fixture.store.shared.database.begin_write().unwrap();
        let pins = super::super::pins::Pins::sparing();
        let opened = tables::Tables::open(&transaction).unwrap();
        let mut batch = super::super::commit::Batch::new(opened, &pins, Usage::default(), BTreeSet::new());
        batch.fresh(&rows).unwrap();
        batch.finish().unwrap();
        tables::note_replayed(&transaction, rows.until).unwrap();
        transaction.commit().unwrap();
        assert_eq!(seen(), all, "committed, and still here");
        fresh.left();
        assert_eq!((seen(), count(&fixture.store)), (all, 1));
    }

    proptest! {
        #[test]
        fn both_are_merged_in_order(fresh in prop::collection::btree_set(0..100u8, 0..20), stored in prop::collection::btree_set(0..100u8, 0..20)) {
            let stored: Vec<u8> = stored.difference(&fresh).copied().collect();
            let rows = stored.iter().map(|key| Ok((*key, ())));
            let found: Vec<u8> = merged(fresh.iter().rev().map(|key| (*key, ())).collect(), rows).map(|row| row.unwrap().0).collect();
            let expected: BTreeSet<u8> = fresh.iter().chain(&stored).copied().collect();
            prop_assert_eq!(found, Vec::from_iter(expected));
        }
    }
}
