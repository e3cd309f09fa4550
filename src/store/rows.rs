//! Rows of records that are not what was written.
//!
//! A row begins with the hash of the record's state, and its key with the hash of the GUID; both are keyed, so neither fits a row of which a bit
//! has flipped. All rows are looked at when the folder is opened, before anything is counted or served. SHA-256 is not in the state hash.
//!
//! 1. A row in which one byte is wrong is put right: the byte is found by trying, and the hashes tell when it is.
//! 2. Any other damaged row goes, with its claims, before the records are counted: so the node lacks the record, and has it again from the
//!    first peer that it compares itself with. Its payloads stay; the record claims them when it is back.
//! 3. The indexes are those of the rows that are left.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::thread;

use gossip_cdn_protocol::item::{ItemHasher, KeyHash, RecordKey};
use gossip_cdn_protocol::{BlobId, ContentHash, Record};
use redb::{Error, ReadTransaction, ReadableTable, WriteTransaction};
use uuid::Uuid;

use super::indexes::Indexes;
use super::tables::{self, KeyBytes, OwnerBytes, RetainedBytes, Tables};
use super::{Usage, counting, encoding};

/// The longest row whose wrong byte is sought: 255 tries for each byte, a microsecond each.
const LONGEST: usize = 4096;
/// Most rows whose wrong byte is sought. More are no accident of a bit.
const MOST: usize = 64;
/// Records whose index rows are collected before they are written.
const AT_ONCE: usize = 10_000;

/// What became of damaged rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mended {
    /// Rows that were damaged.
    pub(super) found: usize,
    /// Of them, those that were put right.
    pub(super) righted: usize,
}

fn is_right(hasher: &ItemHasher, key: &KeyBytes, row: &[u8]) -> bool {
    let key = tables::key_of(key);
    let record = encoding::record_of(row).ok().filter(|record| *record != Record::default());
    key == hasher.key(key.blob) && record.is_some_and(|record| encoding::state_of(row).ok() == Some(hasher.state(&record).0))
}

/// The keys of the damaged rows. The partitions are divided between the processors, each with a transaction of its own.
pub(super) fn damaged(read: impl Fn() -> Result<ReadTransaction, Error> + Sync, hasher: &ItemHasher) -> Result<Vec<KeyBytes>, Error> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = u8::try_from(processors).unwrap_or(u8::MAX).min(counting::MOST_THREADS);
    thread::scope(|scope| {
        let looking: Vec<_> = counting::shares(threads).map(|share| scope.spawn(|| damaged_in(&read()?, hasher, share))).collect();
        looking.into_iter().try_fold(Vec::new(), |mut all, share| {
            all.extend(share.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            Ok(all)
        })
    })
}

fn damaged_in(transaction: &ReadTransaction, hasher: &ItemHasher, partitions: RangeInclusive<u8>) -> Result<Vec<KeyBytes>, Error> {
    let end = |hash, blob| tables::key_bytes(RecordKey { hash, blob: BlobId(blob) });
    let first = end(KeyHash::first_of(*partitions.start()), Uuid::nil());
    let last = end(KeyHash::last_of(*partitions.end()), Uuid::max());
    let has_records = transaction.list_tables()?.any(|table| redb::TableHandle::name(&table) == redb::TableHandle::name(&tables::RECORDS));
    let mut damaged = Vec::new();
    if !has_records {
        return Ok(damaged);
    }
    for row in transaction.open_table(tables::RECORDS)?.range::<&[u8; 24]>(&first..=&last)? {
        let (key, value) = row?;
        if !is_right(hasher, key.value(), value.value()) {
            damaged.push(*key.value());
        }
    }
    Ok(damaged)
}

/// Forgets the indexes, which are made again by [`mend`].
pub(super) fn drop_indexes(transaction: &WriteTransaction) -> Result<(), Error> {
    for table in [tables::NEWEST, tables::TOMBSTONES, tables::CONFLICTS] {
        transaction.delete_table(table)?;
    }
    transaction.delete_table(tables::NAMES)?;
    transaction.delete_table(tables::IDS)?;
    Ok(())
}

/// Puts right what can be, removes what cannot, and makes the indexes anew.
pub(super) fn mend(tables: &mut Tables<'_>, hasher: &ItemHasher, damaged: &[KeyBytes], usage: &mut Usage) -> Result<Mended, Error> {
    let (mut righted, mut lost) = (0, BTreeSet::new());
    for (n, key) in damaged.iter().enumerate() {
        let Some(row) = tables.records.remove(key)?.map(|row| row.value().to_vec()) else { continue };
        match right(hasher, *key, row).filter(|_| n < MOST) {
            Some((right_key, row)) => {
                tables.records.insert(&right_key, row.as_slice())?;
                righted += 1;
                if right_key != *key {
                    lost.insert(*key);
                }
            }
            None => drop(lost.insert(*key)),
        }
    }
    drop_claims(tables, &lost, usage)?;
    index(tables, usage)?;
    Ok(Mended { found: damaged.len(), righted })
}

/// The row as it was, if one byte of it or of its key is wrong.
fn right(hasher: &ItemHasher, mut key: KeyBytes, mut row: Vec<u8>) -> Option<(KeyBytes, Vec<u8>)> {
    if row.len() > LONGEST {
        return None;
    }
    if encoding::record_of(&row).is_ok_and(|record| encoding::state_of(&row).ok() == Some(hasher.state(&record).0)) {
        return with_a_byte_changed(&mut key, |key| is_right(hasher, key, &row)).then_some((key, row));
    }
    with_a_byte_changed(&mut row, |row| is_right(hasher, &key, row)).then_some((key, row))
}

/// Changes one byte so that `is_right` says yes; if there is none, nothing.
fn with_a_byte_changed<B: AsMut<[u8]>>(bytes: &mut B, is_right: impl Fn(&B) -> bool) -> bool {
    for at in 0..bytes.as_mut().len() {
        for mask in 1..=u8::MAX {
            bytes.as_mut()[at] ^= mask;
            if is_right(bytes) {
                return true;
            }
            bytes.as_mut()[at] ^= mask;
        }
    }
    false
}

/// These records claim nothing any more. What they named stays where it is.
fn drop_claims(tables: &mut Tables<'_>, lost: &BTreeSet<KeyBytes>, usage: &mut Usage) -> Result<(), Error> {
    if lost.is_empty() {
        return Ok(());
    }
    tables.owners.retain(|pair: &OwnerBytes, _| !lost.contains(&tables::owner_key(pair)))?;
    tables.retained.retain(|row: &RetainedBytes, ()| !row.first_chunk::<24>().is_some_and(|key| lost.contains(key)))?;
    let mut unknown = Vec::new();
    for row in tables.missing.iter()? {
        let (hash, value) = row?;
        if lost.contains(value.value().1) {
            unknown.push(*hash.value());
        }
    }
    for hash in unknown {
        tables.missing.remove(&hash)?;
        let (first, last) = tables::owners_of(ContentHash(hash));
        let mut others = tables.owners.range::<&OwnerBytes>(&first..=&last)?;
        let other = others.find_map(|row| row.ok().filter(|(_, live)| live.value()).map(|(pair, _)| tables::owner_key(pair.value())));
        let record =
            other.map(|key| tables.records.get(&key)).transpose()?.flatten().map(|row| encoding::record_of(row.value())).transpose()?;
        let named = record.iter().flat_map(Record::versions).filter_map(|version| version.content.payload());
        let size = named.filter(|payload| payload.hash.0 == hash).map(|payload| payload.size).next();
        if let Some((key, size)) = other.zip(size) {
            tables.missing.insert(&hash, (size, &key))?;
            continue;
        }
        let was = tables.damaged.remove(&hash)?.is_some();
        usage.damaged = usage.damaged.saturating_sub(u64::from(was));
    }
    Ok(())
}

fn index(tables: &mut Tables<'_>, usage: &mut Usage) -> Result<(), Error> {
    (usage.live_blobs, usage.tombstones, usage.conflicts) = (0, 0, 0);
    let mut from = [0; 24];
    loop {
        let mut page = Vec::new();
        for row in tables.records.range::<&[u8; 24]>(&from..)?.take(AT_ONCE) {
            let (key, value) = row?;
            page.push((*key.value(), encoding::record_of(value.value())?));
        }
        let mut indexes = Indexes::default();
        for (key, record) in &page {
            indexes.update(tables::key_of(key).blob, None, record, usage);
        }
        indexes.apply(tables)?;
        let last = page.last().map(|(key, _)| tables::key_of(key)).filter(|_| page.len() == AT_ONCE);
        match last.and_then(gossip_cdn_protocol::records::next_key) {
            Some(next) => from = tables::key_bytes(next),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::{Content, Store as _};
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::super::fixture::{CLUSTER, Fixture, blob, content, copy_dir, noise, options, write};
    use super::super::{ListQuery, Order, PayloadReader, Store, Which};
    use super::*;

    fn bytes(n: u8) -> Vec<u8> {
        noise(50 + usize::from(n) * 40, n)
    }

    /// A store of 20 blobs, each fourth of them deleted.
    async fn blobs() -> (Fixture, Vec<Record>) {
        let fixture = Fixture::new();
        let mut records = Vec::new();
        for n in 0..20u8 {
            let stored = fixture.upload(&bytes(n)).await;
            let mut record = write(&Record::default(), 1, 5 + u64::from(n), content(&bytes(n), Some("name")));
            if n % 4 == 3 {
                record = write(&record, 2, 100 + u64::from(n), Content::Tombstone);
            }
            fixture.persist(&[(blob(n.into()), &record)]).await;
            drop(stored);
            records.push(record);
        }
        fixture.settle().await;
        (fixture, records)
    }

    fn key(n: u128) -> KeyBytes {
        tables::key_bytes(ItemHasher::new(CLUSTER).key(blob(n)))
    }

    /// Puts other bytes in the place of a record's row.
    fn spoil(fixture: &Fixture, n: u128, spoil: impl FnOnce(KeyBytes, Vec<u8>) -> (KeyBytes, Vec<u8>)) {
        let transaction = fixture.store.shared.database.begin_write().unwrap();
        let mut records = transaction.open_table(tables::RECORDS).unwrap();
        let row = records.remove(&key(n)).unwrap().map(|row| row.value().to_vec()).unwrap();
        let (key, row) = spoil(key(n), row);
        records.insert(&key, row.as_slice()).unwrap();
        drop(records);
        transaction.commit().unwrap();
    }

    fn list(store: &Store, which: Which) -> Vec<u128> {
        let page = store.list(&ListQuery { which, order: Order::Newest, limit: 99, ..ListQuery::default() }).unwrap();
        page.entries.into_iter().map(|(blob, _)| blob.0.as_u128()).collect()
    }

    #[tokio::test]
    async fn a_row_in_which_one_byte_is_wrong_is_put_right() {
        let (fixture, records) = blobs().await;
        let (live, deleted) = (list(&fixture.store, Which::Live), list(&fixture.store, Which::Deleted));
        let usage = fixture.store.usage();
        // In the state hash, in a version, at the end, in both parts of the key.
        for (n, at) in [(0, 3), (1, 20), (2, 60), (3, 33)] {
            spoil(&fixture, n, |key, mut row| {
                row[at] ^= 0x24;
                (key, row)
            });
        }
        for (n, at) in [(4, 0), (5, 20)] {
            spoil(&fixture, n, |mut key, row| {
                key[at] ^= 0x81;
                (key, row)
            });
        }
        let fixture = fixture.reopened();
        for (n, record) in (0..).zip(&records) {
            assert_eq!(fixture.store.blob(blob(n)).unwrap().as_ref(), Some(record), "{n}");
        }
        assert_eq!((fixture.store.damage().records, fixture.store.damage().records_righted), (6, 6));
        assert_eq!((list(&fixture.store, Which::Live), list(&fixture.store, Which::Deleted)), (live, deleted));
        assert_eq!(fixture.store.usage(), usage);
        assert_eq!(fixture.reopened().store.damage().records, 0);
    }

    #[tokio::test]
    async fn a_row_beyond_repair_goes_and_the_record_is_as_it_was_when_it_is_heard_again() {
        let (fixture, records) = blobs().await;
        let usage = fixture.store.usage();
        spoil(&fixture, 1, |key, _| (key, b"nothing that could be read".to_vec()));
        let fixture = fixture.reopened();
        assert_eq!((fixture.store.damage().records, fixture.store.damage().records_righted), (1, 0));
        assert_eq!(fixture.store.blob(blob(1)).unwrap(), None);
        let hasher = ItemHasher::new(CLUSTER);
        assert_eq!(fixture.store.count(hasher.sketch()).unwrap().root().count, 19, "what peers compare lacks it");
        assert!(!list(&fixture.store, Which::Live).contains(&1) && fixture.store.usage().live_blobs == usage.live_blobs - 1);
        assert_eq!(fixture.bytes(ContentHash::of(&bytes(1))), Some(bytes(1)), "its bytes stay");
        fixture.persist(&[(blob(1), &records[1])]).await;
        assert!(list(&fixture.store, Which::Live).contains(&1));
        assert_eq!(fixture.store.usage(), usage);
        // It claims them again, and lets go of them.
        fixture.persist(&[(blob(1), &write(&records[1], 1, 500, Content::Tombstone))]).await;
        fixture.settle().await;
        assert_eq!(fixture.bytes(ContentHash::of(&bytes(1))), None);
    }

    /// What a store says of a blob and its bytes is right, or it says that there is nothing, or that it cannot be read.
    fn assert_nothing_wrong(store: &Store, expected: &[Record]) {
        for (n, record) in (0..).zip(expected) {
            let Ok(Some(mut found)) = store.blob(blob(n)) else { continue };
            // SHA-256 is not in the state hash.
            let mut versions = found.versions().to_vec();
            for (found, version) in versions.iter_mut().zip(record.versions()) {
                if let (Content::Payload(found), Content::Payload(version)) = (&mut found.content, &version.content) {
                    found.sha256 = version.sha256;
                }
            }
            found = Record::from(versions);
            assert_eq!(found, *record, "{n}");
        }
        for n in 0..20 {
            if let Ok(Some(PayloadReader::Inline(found))) = store.payload(ContentHash::of(&bytes(n))) {
                assert!(found == bytes(n), "{n}");
            }
        }
        drop(store.list(&ListQuery { limit: 99, ..ListQuery::default() }));
        drop(store.missing(None, 99));
    }

    #[tokio::test]
    async fn a_byte_flipped_anywhere_in_the_database_makes_no_wrong_answer() {
        let (mut fixture, records) = blobs().await;
        fixture.stop().unwrap();
        let (dir, files) = (tempfile::tempdir().unwrap(), ["store.redb", "journal"]);
        copy_dir(fixture.dir(), dir.path());
        let [all, journal] = files.map(|file| std::fs::read(dir.path().join(file)).unwrap());
        let used: Vec<usize> = (0..all.len()).filter(|at| all[*at] != 0).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(18);
        let (mut opened, mut refused) = (0, 0);
        for _ in 0..48 {
            let at = used[rng.random_range(0..used.len())];
            let mut spoilt = all.clone();
            spoilt[at] ^= 1 << rng.random_range(0..8);
            for (file, bytes) in files.into_iter().zip([&spoilt, &journal]) {
                std::fs::write(dir.path().join(file), bytes).unwrap();
            }
            match Store::open(dir.path(), options()) {
                Ok((store, _writer)) => {
                    assert_nothing_wrong(&store, &records);
                    opened += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("--data"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(opened > 24, "{opened} opened, {refused} refused");
    }
}
