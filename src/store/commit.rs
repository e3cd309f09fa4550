//! What one commit changes: records with their indexes, and who claims which payload.
//!
//! Rows that nobody reads before the commit ends are written in the order of their keys, which are hashes and come in any order: so a
//! page of the database is visited once a commit and not once a row.
//!
//! 1. The indexes are those of the records ([`super::indexes`]), whatever the order in which rows are written.
//! 2. A payload is claimed by the records whose live versions name it, and by those that wait for the bytes of a version that covers
//!    the one that named it. ("The bytes of a covered version are deleted only when the bytes of the version that covers it are here";
//!    a tombstone needs no bytes.)
//! 3. A payload is here or missing, never both; it is missing exactly if a live version names it and it is not here.
//! 4. A payload that nobody claims leaves in the commit in which it lost its last claim or its last pin.
//! 5. A damaged copy is not here: its claims stay where a live version names it, and it is missing; what was only retained is gone.
//! 6. The counters are those of the tables, commit by commit.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::io::RecordChange;
use gossip_cdn_protocol::item::RecordKey;
use gossip_cdn_protocol::{ContentHash, Member, Persist, Record, Version};
use redb::{Error, ReadableTable, ReadableTableMetadata};

use super::damage::Evidence;
use super::encoding;
use super::folder::Folder;
use super::fresh::Rows;
use super::indexes::Indexes;
use super::pins::Pins;
use super::tables::{self, KeyBytes, OwnerBytes, RetainedBytes, Tables};
use super::{INLINE_MAX, Identity, Usage};

/// One commit in the making.
pub(super) struct Batch<'txn, 'pins> {
    tables: Tables<'txn>,
    pins: &'pins Pins,
    usage: Usage,
    indexes: Indexes,
    /// Claims of records that were not here before, and the sizes that they tell; not in the tables yet.
    fresh: Vec<(OwnerBytes, u64)>,
    /// Payloads that may have nobody left who claims them.
    candidates: BTreeSet<ContentHash>,
    /// Payloads that are not missing any more.
    settled: Vec<ContentHash>,
    damaged: Vec<Damaged>,
    /// Payloads that had been damaged and came.
    replaced: u64,
    identity: Option<Identity>,
}

/// A copy that turned out to be damaged and is not here any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) hash: ContentHash,
    /// The length that a record tells, if one misses it.
    pub(super) missed: Option<u64>,
    /// Whether its files may be touched: no good copy is about to take their names.
    pub(super) free: bool,
}

/// What is to be done when the commit is on disk.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) usage: Usage,
    /// Who this node is from now on, if that changed.
    pub(super) identity: Option<Identity>,
    /// Payloads that came, or that nobody misses any more.
    pub(super) settled: Vec<ContentHash>,
    /// Payloads removed.
    pub(super) collected: Vec<ContentHash>,
    /// Those of them that have files.
    pub(super) files: Vec<ContentHash>,
    /// Copies that turned out to be damaged.
    pub(super) damaged: Vec<Damaged>,
    /// How many payloads came that had been damaged.
    pub(super) replaced: u64,
}

impl<'txn, 'pins> Batch<'txn, 'pins> {
    pub(super) fn new(tables: Tables<'txn>, pins: &'pins Pins, usage: Usage, released: BTreeSet<ContentHash>) -> Self {
        let (indexes, fresh, settled, damaged) = (Indexes::default(), Vec::new(), Vec::new(), Vec::new());
        Self { tables, pins, usage, indexes, fresh, candidates: released, settled, damaged, replaced: 0, identity: None }
    }

    /// Another key, and the first life with it.
    pub(super) fn take_key(&mut self, secret: [u8; 32]) -> Result<(), Error> {
        let identity = Identity::new(secret, 1);
        self.tables.write_identity(&identity)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// How far the scrub is.
    pub(super) fn scrub(&mut self, state: &[u8]) -> Result<(), Error> {
        self.tables.meta.insert(tables::SCRUB, state)?;
        Ok(())
    }

    /// Everything that is queued, as one change: what comes later in the list was queued later.
    pub(super) fn persist(&mut self, persists: &[&Persist]) -> Result<(), Error> {
        let mut records: Vec<&RecordChange> = persists.iter().flat_map(|persist| &persist.records).collect();
        // Neighbours share pages of the database. Stable, so that changes of one record stay in order.
        records.sort_by_key(|change| change.key);
        for change in records {
            self.record(change.key, &change.record, change.state.0)?;
        }
        for persist in persists {
            for member in &persist.members {
                self.member(member)?;
            }
            if let Some(incarnation) = persist.incarnation {
                self.tables.meta.insert(tables::INCARNATION, tables::to_json(&[], &incarnation)?.as_slice())?;
            }
            if let Some(contacts) = &persist.contacts {
                self.tables.meta.insert(tables::CONTACTS, tables::to_json(&[], contacts)?.as_slice())?;
            }
        }
        Ok(())
    }

    fn member(&mut self, member: &Member) -> Result<(), Error> {
        self.tables.members.insert(member.id.0.as_bytes(), tables::to_json(&[], member)?.as_slice())?;
        Ok(())
    }

    fn record(&mut self, key: RecordKey, new: &Record, state: u64) -> Result<(), Error> {
        let bytes = tables::key_bytes(key);
        let row = self.tables.records.insert(&bytes, encoding::row(state, new).as_slice())?;
        let old = row.map(|row| encoding::record_of(row.value())).transpose()?;
        self.indexes.update(key.blob, old.as_ref(), new, &mut self.usage);
        match old {
            Some(old) => self.claim(&bytes, &old, new),
            None => {
                self.fresh.extend(named(new).into_iter().map(|(hash, size)| (tables::owner_bytes(hash, &bytes), size)));
                Ok(())
            }
        }
    }

    /// Writes the claims of the records that are new, in the order of what they claim. Whatever reads claims comes after this.
    fn claim_fresh(&mut self) -> Result<(), Error> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort_unstable();
        for (pair, _) in &fresh {
            self.tables.owners.insert(pair, true)?;
        }
        for (pair, size) in fresh {
            self.need(tables::owned_hash(&pair), size, &tables::owner_key(&pair))?;
        }
        Ok(())
    }

    /// A live version of a record names a payload that it did not name before.
    fn need(&mut self, hash: ContentHash, size: u64, key: &KeyBytes) -> Result<(), Error> {
        if self.is_here(hash)? {
            self.tables.unowned.remove(&hash.0)?;
            self.pins.claimed(hash);
        } else if self.tables.missing.get(&hash.0)?.is_none() {
            self.tables.missing.insert(&hash.0, (size, key))?;
        }
        Ok(())
    }

    fn claim(&mut self, key: &KeyBytes, old: &Record, new: &Record) -> Result<(), Error> {
        self.claim_fresh()?;
        let (before, after) = (named(old), named(new));
        for (hash, size) in after.iter().filter(|(hash, _)| !before.contains_key(*hash)) {
            self.tables.owners.insert(&tables::owner_bytes(*hash, key), true)?;
            self.need(*hash, *size, key)?;
        }
        let mut waits: BTreeMap<ContentHash, ContentHash> = BTreeMap::new();
        for version in old.versions().iter().filter(|version| !new.versions().contains(version)) {
            let Some((hash, wait)) = hash_of(version).zip(self.wait(version, new)?) else { continue };
            waits.entry(hash).or_insert(wait);
            // Even where another live version names the same bytes: that one may be covered by something that is here.
            if self.is_here(hash)? {
                self.tables.retained.insert(&tables::retained_bytes(key, wait, hash), ())?;
            }
        }
        for hash in before.keys().filter(|hash| !after.contains_key(*hash)) {
            self.redirect(key, *hash, waits.get(hash).copied())?;
            self.tables.owners.insert(&tables::owner_bytes(*hash, key), false)?;
            self.disclaim_unless_retained(key, *hash)?;
        }
        Ok(())
    }

    fn is_here(&self, hash: ContentHash) -> Result<bool, Error> {
        Ok(self.tables.payloads.get(&hash.0)?.is_some())
    }

    /// Which payload's arrival the bytes of a covered version wait for before they are let go; `None`: they can go now.
    fn wait(&self, covered: &Version, new: &Record) -> Result<Option<ContentHash>, Error> {
        let mut absent = None;
        for coverer in new.versions().iter().filter(|coverer| coverer.dominates(covered)) {
            match hash_of(coverer) {
                Some(hash) if !self.is_here(hash)? => absent = absent.or(Some(hash)),
                Some(_) | None => return Ok(None),
            }
        }
        Ok(absent)
    }

    /// What waited for `from` waits for `to` instead; `None`: for nothing.
    fn redirect(&mut self, key: &KeyBytes, from: ContentHash, to: Option<ContentHash>) -> Result<(), Error> {
        let (first, last) = tables::retained_until(key, from);
        let rows = self.tables.retained.range::<&RetainedBytes>(&first..=&last)?;
        let waiting: Vec<ContentHash> = rows.map(|row| row.map(|(row, _)| tables::retained_hash(row.value()))).collect::<Result<_, _>>()?;
        for hash in waiting {
            self.tables.retained.remove(&tables::retained_bytes(key, from, hash))?;
            match to {
                Some(wait) => drop(self.tables.retained.insert(&tables::retained_bytes(key, wait, hash), ())?),
                None => self.disclaim_unless_retained(key, hash)?,
            }
        }
        Ok(())
    }

    /// Ends a claim, unless a live version of the record names the payload or another covered one of it still waits: the same
    /// bytes may be owed to several versions of one record.
    fn disclaim_unless_retained(&mut self, key: &KeyBytes, hash: ContentHash) -> Result<(), Error> {
        let named = self.tables.owners.get(&tables::owner_bytes(hash, key))?.is_some_and(|live| live.value());
        if named || self.is_retained(key, hash)? { Ok(()) } else { self.disclaim(key, hash) }
    }

    fn is_retained(&self, key: &KeyBytes, hash: ContentHash) -> Result<bool, Error> {
        let (first, last) = tables::retained_by(key);
        for row in self.tables.retained.range::<&RetainedBytes>(&first..=&last)? {
            if tables::retained_hash(row?.0.value()) == hash {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn disclaim(&mut self, key: &KeyBytes, hash: ContentHash) -> Result<(), Error> {
        self.tables.owners.remove(&tables::owner_bytes(hash, key))?;
        self.candidates.insert(hash);
        if self.tables.missing.remove(&hash.0)?.is_none() {
            return Ok(());
        }
        match self.claimants(hash)?.into_iter().find(|(_, live)| *live) {
            Some((other, _)) => {
                let size = self.named_size(&other, hash)?;
                self.tables.missing.insert(&hash.0, (size, &other))?;
            }
            None => {
                self.settled.push(hash);
                self.forget_damage(hash)?;
            }
        }
        Ok(())
    }

    /// Nobody misses that payload any more. True: it had been damaged.
    fn forget_damage(&mut self, hash: ContentHash) -> Result<bool, Error> {
        let was = self.tables.damaged.remove(&hash.0)?.is_some();
        self.usage.damaged = self.usage.damaged.saturating_sub(u64::from(was));
        Ok(was)
    }

    /// The records that claim a payload, and whether a live version of theirs names it.
    fn claimants(&self, hash: ContentHash) -> Result<Vec<(KeyBytes, bool)>, Error> {
        let (first, last) = tables::owners_of(hash);
        let rows = self.tables.owners.range::<&OwnerBytes>(&first..=&last)?;
        rows.map(|row| row.map(|(pair, live)| (tables::owner_key(pair.value()), live.value())).map_err(Error::from)).collect()
    }

    fn named_size(&self, key: &KeyBytes, hash: ContentHash) -> Result<u64, Error> {
        let record = self.tables.records.get(key)?.map(|row| encoding::record_of(row.value())).transpose()?;
        Ok(record.and_then(|record| named(&record).get(&hash).copied()).unwrap_or_default())
    }

    /// The bytes of a payload are here.
    pub(super) fn payload(&mut self, hash: ContentHash, size: u64, inline: Option<&[u8]>) -> Result<(), Error> {
        self.candidates.insert(hash);
        self.settled.push(hash);
        let is_here = self.tables.payloads.insert(&hash.0, size)?.is_some();
        if let Some(bytes) = inline {
            let same = is_here && self.tables.inline.get(&hash.0)?.is_some_and(|row| row.value() == bytes);
            if !same {
                self.tables.inline.insert(&hash.0, bytes)?;
            }
        }
        if is_here {
            return Ok(());
        }
        self.replaced += u64::from(self.forget_damage(hash)?);
        self.usage.payloads += 1;
        self.usage.payload_bytes = self.usage.payload_bytes.saturating_add(size);
        self.tables.missing.remove(&hash.0)?;
        // Most of the time nothing waits for anything. The claims of records new in this commit retain nothing.
        if !self.tables.retained.is_empty()? {
            for (key, _) in self.claimants(hash)? {
                self.redirect(&key, hash, None)?;
            }
        }
        Ok(())
    }

    /// Uploads that touch nothing that is here.
    pub(super) fn fresh(&mut self, rows: &Rows) -> Result<(), Error> {
        let Tables { records, newest, names, ids, payloads, inline, owners, .. } = &mut self.tables;
        for (hash, bytes) in &rows.payloads {
            payloads.insert(&hash.0, bytes.len() as u64)?;
        }
        for (hash, bytes) in &rows.payloads {
            inline.insert(&hash.0, &bytes[..])?;
        }
        for (key, row) in &rows.records {
            records.insert(key, row.as_slice())?;
        }
        for pair in &rows.owners {
            owners.insert(pair, true)?;
        }
        for key in &rows.newest {
            newest.insert(key, ())?;
        }
        for (name, id) in &rows.names {
            names.insert((name.as_str(), id), ())?;
        }
        for id in &rows.ids {
            ids.insert(id, ())?;
        }
        rows.count(&mut self.usage);
        Ok(())
    }

    /// The copy of a payload is damaged, or was when it was looked at.
    pub(super) fn damaged(&mut self, hash: ContentHash, evidence: &Evidence, folder: &Folder) -> Result<(), Error> {
        let Some(size) = self.tables.payloads.get(&hash.0)?.map(|row| row.value()) else { return Ok(()) };
        let still = match evidence {
            Evidence::Inline => self.tables.inline.get(&hash.0)?.is_none_or(|row| ContentHash::of(row.value()) != hash),
            Evidence::File(_) | Evidence::NoFile => {
                self.tables.inline.get(&hash.0)?.is_none() && evidence.holds(&folder.payload(hash)).map_err(Error::Io)?
            }
        };
        if !still {
            return Ok(());
        }
        let free = matches!(evidence, Evidence::File(_)) && self.pins.condemn_damaged(hash);
        let missed = self.lose(hash, size)?;
        self.damaged.push(Damaged { hash, missed, free });
        Ok(())
    }

    /// Removes the rows of a payload whose bytes are gone. It is missing then, if a live version names it: the size that one tells.
    fn lose(&mut self, hash: ContentHash, size: u64) -> Result<Option<u64>, Error> {
        self.claim_fresh()?;
        self.tables.remove_payload(hash, size, &mut self.usage)?;
        let mut missed = None;
        for (key, live) in self.claimants(hash)? {
            self.drop_retained(&key, hash)?;
            if !live {
                self.tables.owners.remove(&tables::owner_bytes(hash, &key))?;
            } else if missed.is_none() {
                let size = self.named_size(&key, hash)?;
                self.tables.missing.insert(&hash.0, (size, &key))?;
                self.tables.damaged.insert(&hash.0, ())?;
                self.usage.damaged += 1;
                missed = Some(size);
            }
        }
        Ok(missed)
    }

    /// That record retains those bytes no more, whatever for.
    fn drop_retained(&mut self, key: &KeyBytes, hash: ContentHash) -> Result<(), Error> {
        let (first, last) = tables::retained_by(key);
        let rows = self.tables.retained.range::<&RetainedBytes>(&first..=&last)?;
        let rows: Vec<RetainedBytes> = rows.map(|row| row.map(|(row, _)| *row.value())).collect::<Result<_, _>>()?;
        for row in rows.into_iter().filter(|row| tables::retained_hash(row) == hash) {
            self.tables.retained.remove(&row)?;
        }
        Ok(())
    }

    /// Collects what nobody claims, and writes the counters.
    pub(super) fn finish(mut self) -> Result<Outcome, Error> {
        self.claim_fresh()?;
        self.indexes.apply(&mut self.tables)?;
        let mut collected = Vec::new();
        let mut files = Vec::new();
        for hash in std::mem::take(&mut self.candidates) {
            let Some(size) = self.tables.payloads.get(&hash.0)?.map(|row| row.value()) else { continue };
            if !self.claimants(hash)?.is_empty() {
                continue;
            }
            if !self.pins.condemn(hash) {
                self.tables.unowned.insert(&hash.0, ())?;
                continue;
            }
            self.tables.remove_payload(hash, size, &mut self.usage)?;
            collected.push(hash);
            if size > INLINE_MAX as u64 {
                files.push(hash);
            }
        }
        self.tables.meta.insert(tables::USAGE, tables::to_json(&[], &self.usage)?.as_slice())?;
        let Self { usage, identity, settled, damaged, replaced, .. } = self;
        Ok(Outcome { usage, identity, settled, collected, files, damaged, replaced })
    }
}

impl Tables<'_> {
    /// Removes the rows of a payload that nobody claims.
    pub(super) fn remove_payload(&mut self, hash: ContentHash, size: u64, usage: &mut Usage) -> Result<(), Error> {
        self.payloads.remove(&hash.0)?;
        self.inline.remove(&hash.0)?;
        self.unowned.remove(&hash.0)?;
        usage.payloads = usage.payloads.saturating_sub(1);
        usage.payload_bytes = usage.payload_bytes.saturating_sub(size);
        Ok(())
    }
}

fn hash_of(version: &Version) -> Option<ContentHash> {
    version.content.payload().map(|payload| payload.hash)
}

/// The payloads that live versions name, with their sizes.
fn named(record: &Record) -> BTreeMap<ContentHash, u64> {
    record.versions().iter().filter_map(|version| version.content.payload()).map(|payload| (payload.hash, payload.size)).collect()
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::item::ItemHasher;
    use gossip_cdn_protocol::{Content, Store as _};
    use proptest::prelude::*;
    use redb::Database;
    use redb::backends::InMemoryBackend;

    use super::super::fixture::{CLUSTER, Fixture, blob, content, noise, write};
    use super::*;

    #[tokio::test]
    async fn covered_bytes_are_kept_until_the_covering_bytes_are_here() {
        let fixture = Fixture::new();
        let [old, newer, newest] = [noise(100_000, 1), noise(100_000, 2), noise(10, 3)];
        let hash = |bytes: &[u8]| ContentHash::of(bytes);
        let first = write(&Record::default(), 1, 5, content(&old, None));
        let stored = fixture.upload(&old).await;
        fixture.persist(&[(blob(1), &first)]).await;
        drop(stored);
        // Two later versions are heard of, one after the other; their bytes are elsewhere.
        let second = write(&first, 2, 6, content(&newer, None));
        fixture.persist(&[(blob(1), &second)]).await;
        let third = write(&second, 2, 7, content(&newest, None));
        fixture.persist(&[(blob(1), &third)]).await;
        fixture.settle().await;
        assert!(fixture.bytes(hash(&old)).is_some());
        assert_eq!(fixture.store.missing(None, 9).unwrap().iter().map(|missing| missing.hash).collect::<Vec<_>>(), [hash(&newest)]);
        // What the second version named covers nothing any more and is not kept.
        let stored = fixture.upload(&newer).await;
        drop(stored);
        fixture.settle().await;
        assert!(fixture.bytes(hash(&newer)).is_none() && fixture.bytes(hash(&old)).is_some());
        let fixture = fixture.reopened();
        fixture.store.put_verified(hash(&newest), newest.clone().into()).await.unwrap();
        fixture.settle().await;
        assert!(fixture.bytes(hash(&old)).is_none() && fixture.files("payloads").is_empty());
        assert!(fixture.bytes(hash(&newest)) == Some(newest));
    }

    #[tokio::test]
    async fn bytes_that_two_covered_versions_named_wait_for_what_covers_either() {
        let fixture = Fixture::new();
        let stored = fixture.upload(b"old").await;
        let first = write(&Record::default(), 1, 5, content(b"old", None));
        fixture.persist(&[(blob(1), &first)]).await;
        drop(stored);
        // The first version is covered by one whose bytes are elsewhere; a sibling of that one names the old bytes again.
        let mut record = write(&first, 1, 6, content(b"elsewhere", None));
        fixture.persist(&[(blob(1), &record)]).await;
        let sibling = write(&Record::default(), 3, 7, content(b"old", None));
        record.merge(&sibling);
        fixture.persist(&[(blob(1), &record)]).await;
        // The sibling is deleted by somebody who did not know the first two.
        record.merge(&write(&sibling, 3, 8, Content::Tombstone));
        fixture.persist(&[(blob(1), &record)]).await;
        assert!(fixture.bytes(ContentHash::of(b"old")).is_some(), "the first version is still covered by bytes that are not here");
        fixture.store.put_verified(ContentHash::of(b"elsewhere"), b"elsewhere".to_vec().into()).await.unwrap();
        assert!(fixture.bytes(ContentHash::of(b"old")).is_none());
    }

    #[tokio::test]
    async fn bytes_that_two_siblings_named_wait_for_what_covers_each() {
        let fixture = Fixture::new();
        let (a, b) = (write(&Record::default(), 1, 5, content(b"same", None)), write(&Record::default(), 2, 6, content(b"same", None)));
        let mut record = a.clone();
        record.merge(&b);
        let stored = [fixture.upload(b"same").await, fixture.upload(b"here").await];
        fixture.persist(&[(blob(1), &record)]).await;
        // One sibling is covered by bytes that are elsewhere while the other still names the same bytes; then that one by bytes here.
        record.merge(&write(&a, 1, 7, content(b"elsewhere", None)));
        fixture.persist(&[(blob(1), &record)]).await;
        record.merge(&write(&b, 2, 8, content(b"here", None)));
        fixture.persist(&[(blob(1), &record)]).await;
        drop(stored);
        fixture.settle().await;
        assert!(fixture.bytes(ContentHash::of(b"same")).is_some(), "the first sibling is covered by bytes that are not here");
        fixture.store.put_verified(ContentHash::of(b"elsewhere"), b"elsewhere".to_vec().into()).await.unwrap();
        fixture.settle().await;
        assert!(fixture.bytes(ContentHash::of(b"same")).is_none());
    }

    #[tokio::test]
    async fn a_tombstone_needs_no_bytes() {
        let fixture = Fixture::new();
        let stored = fixture.upload(b"old").await;
        let first = write(&Record::default(), 1, 5, content(b"old", None));
        fixture.persist(&[(blob(1), &first)]).await;
        drop(stored);
        let waiting = write(&first, 2, 6, content(b"elsewhere", None));
        fixture.persist(&[(blob(1), &waiting)]).await;
        assert!(fixture.bytes(ContentHash::of(b"old")).is_some());
        fixture.persist(&[(blob(1), &write(&waiting, 2, 7, Content::Tombstone))]).await;
        assert!(fixture.bytes(ContentHash::of(b"old")).is_none());
        assert_eq!(fixture.store.missing(None, 9).unwrap(), []);
    }

    #[tokio::test]
    async fn a_payload_stays_as_long_as_one_blob_names_it() {
        let fixture = Fixture::new();
        let stored = fixture.upload(b"both").await;
        let first = write(&Record::default(), 1, 5, content(b"both", None));
        fixture.persist(&[(blob(1), &first), (blob(2), &first)]).await;
        drop(stored);
        fixture.persist(&[(blob(1), &write(&first, 1, 6, Content::Tombstone))]).await;
        assert!(fixture.bytes(ContentHash::of(b"both")).is_some());
        fixture.persist(&[(blob(2), &write(&first, 1, 6, Content::Tombstone))]).await;
        assert!(fixture.bytes(ContentHash::of(b"both")).is_none());
    }

    #[tokio::test]
    async fn what_is_missing_is_told_with_a_record_that_names_it_and_in_pages() {
        let fixture = Fixture::new();
        let hasher = ItemHasher::new(CLUSTER);
        let first = write(&Record::default(), 1, 5, content(b"both", None));
        fixture.persist(&[(blob(1), &first), (blob(2), &first)]).await;
        fixture.persist(&[(blob(1), &write(&first, 1, 6, Content::Tombstone))]).await;
        let missing = fixture.store.missing(None, 9).unwrap();
        assert_eq!(missing.len(), 1);
        assert_eq!((missing[0].size, missing[0].key), (4, hasher.key(blob(2))));
        for n in 3..10 {
            let record = write(&Record::default(), 1, 5, content(&[u8::try_from(n).unwrap()], None));
            fixture.persist(&[(blob(n), &record)]).await;
        }
        let mut after = None;
        let mut found = Vec::new();
        loop {
            let page = fixture.store.missing(after, 3).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.hash);
            found.extend(page.into_iter().map(|missing| missing.hash));
        }
        assert!(found.len() == 8 && found.is_sorted());
    }

    /// One step of a random history of what a node hears.
    #[derive(Debug, Clone)]
    enum Step {
        /// A version of blob `at` by a node; bytes 0 mean a tombstone. Apart: its writer had seen nothing.
        Hear { at: u128, origin: u8, bytes: u8, apart: bool },
        /// Bytes arrive.
        Arrive(u8),
        /// The copy of these bytes is found damaged, if there is one.
        Damage(u8),
        /// The commit ends here.
        Commit,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let hear = (0..2u128, 1..4u8, 0..5u8, any::<bool>());
        let step = prop_oneof![
            3 => hear.prop_map(|(at, origin, bytes, apart)| Step::Hear { at, origin, bytes, apart }),
            2 => (1..5u8).prop_map(Step::Arrive),
            1 => (1..5u8).prop_map(Step::Damage),
            1 => Just(Step::Commit),
        ];
        prop::collection::vec(step, 0..30)
    }

    /// Every version ever heard of, by blob, and the records they make.
    #[derive(Default)]
    struct Heard {
        records: BTreeMap<u128, Record>,
        versions: Vec<(u128, Version)>,
        /// Those that were live while their bytes were here.
        readable: BTreeSet<(u128, Version)>,
    }

    impl Heard {
        fn note_readable(&mut self, here: &BTreeSet<ContentHash>) {
            for (at, record) in &self.records {
                let readable = record.versions().iter().filter(|version| hash_of(version).is_some_and(|hash| here.contains(&hash)));
                self.readable.extend(readable.map(|version| (*at, version.clone())));
            }
        }
    }

    fn hear(heard: &mut Heard, batch: &mut Batch<'_, '_>, at: u128, origin: u8, bytes: u8, apart: bool) {
        let old = heard.records.entry(at).or_default();
        let stamp = u64::try_from(heard.versions.len()).unwrap() + 1;
        let seen = if apart { Record::default() } else { old.clone() };
        let content = if bytes == 0 { Content::Tombstone } else { content(&[bytes], Some("name")) };
        let written = write(&seen, origin, stamp, content);
        let version = written.versions().iter().find(|version| version.stamp.0 == stamp).unwrap().clone();
        old.insert(version.clone());
        heard.versions.push((at, version));
        let hasher = ItemHasher::new(CLUSTER);
        batch.record(hasher.key(blob(at)), old, hasher.state(old).0).unwrap();
    }

    fn here(tables: &Tables<'_>) -> BTreeSet<ContentHash> {
        tables.payloads.iter().unwrap().map(|row| ContentHash(*row.unwrap().0.value())).collect()
    }

    /// The invariants of this module, against every row.
    fn check(tables: &Tables<'_>, heard: &Heard, usage: &Usage) {
        let here = here(tables);
        let winners = heard.records.values().filter_map(Record::winner);
        let (live, deleted): (Vec<&Version>, Vec<&Version>) = winners.partition(|winner| hash_of(winner).is_some());
        let count = |table: &dyn Fn() -> redb::Result<u64>| usize::try_from(table().unwrap()).unwrap();
        assert_eq!(count(&|| tables.newest.len()), live.len());
        assert_eq!(count(&|| tables.names.len()), live.len());
        assert_eq!(count(&|| tables.ids.len()), live.len());
        assert_eq!(count(&|| tables.tombstones.len()), deleted.len());
        let conflicts = heard.records.iter().filter(|(_, record)| record.versions().len() > 1);
        let conflicts: BTreeSet<_> = conflicts.map(|(at, record)| tables::stamp_bytes(record.winner().unwrap().stamp, blob(*at))).collect();
        assert_eq!(tables.conflicts.iter().unwrap().map(|row| *row.unwrap().0.value()).collect::<BTreeSet<_>>(), conflicts);
        assert_eq!(usage.conflicts, conflicts.len() as u64);
        let expected = (live.len() as u64, deleted.len() as u64, here.len() as u64, here.len() as u64);
        assert_eq!((usage.live_blobs, usage.tombstones, usage.payloads, usage.payload_bytes), expected);

        let named: BTreeSet<ContentHash> = heard.records.values().flat_map(|record| named(record).into_keys()).collect();
        let missing: BTreeSet<ContentHash> = tables.missing.iter().unwrap().map(|row| ContentHash(*row.unwrap().0.value())).collect();
        assert_eq!(missing, named.difference(&here).copied().collect());
        let damaged: BTreeSet<ContentHash> = tables.damaged.iter().unwrap().map(|row| ContentHash(*row.unwrap().0.value())).collect();
        assert!(damaged.is_subset(&missing) && usage.damaged == damaged.len() as u64);

        let mut claimed: BTreeSet<ContentHash> = named.clone();
        for row in tables.retained.iter().unwrap() {
            let row = row.unwrap().0;
            let (key, rest) = row.value().split_first_chunk::<24>().unwrap();
            let wait = ContentHash(*rest.first_chunk().unwrap());
            let hash = tables::retained_hash(row.value());
            assert!(tables.owners.get(&tables::owner_bytes(hash, key)).unwrap().is_some());
            assert_eq!(tables.owners.get(&tables::owner_bytes(wait, key)).unwrap().map(|row| row.value()), Some(true));
            assert!(here.contains(&hash) && missing.contains(&wait), "it waits for what is missing");
            claimed.insert(hash);
        }
        assert!(here.is_subset(&claimed), "nothing is here that nobody claims");
        assert!(tables.unowned.is_empty().unwrap() && tables.inline.len().unwrap() == here.len() as u64);
        for row in tables.owners.iter().unwrap() {
            let (pair, live) = row.unwrap();
            let hash = ContentHash(*pair.value().first_chunk().unwrap());
            let record = &heard.records[&tables::key_of(&tables::owner_key(pair.value())).blob.0.as_u128()];
            assert_eq!(live.value(), super::named(record).contains_key(&hash));
            assert!(live.value() || here.contains(&hash));
        }
    }

    /// Of a payload that went: every version that could be read from it is covered by one whose bytes are here, or by a tombstone.
    fn check_gone(gone: ContentHash, heard: &Heard, here: &BTreeSet<ContentHash>) {
        for (at, version) in heard.readable.iter().filter(|(_, version)| hash_of(version) == Some(gone)) {
            let mut coverers = heard.versions.iter().filter(|(other, coverer)| other == at && coverer.dominates(version));
            assert!(coverers.any(|(_, coverer)| hash_of(coverer).is_none_or(|hash| here.contains(&hash))), "{gone} went too early");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn indexes_claims_and_counters_agree_with_the_records_after_every_commit(steps in steps()) {
            let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let transaction = database.begin_write().unwrap();
            let pins = Pins::default();
            let (mut heard, mut usage, mut before) = (Heard::default(), Usage::default(), BTreeSet::new());
            for commit in steps.split(|step| matches!(step, Step::Commit)) {
                let mut batch = Batch::new(Tables::open(&transaction).unwrap(), &pins, usage, BTreeSet::new());
                // As the writer does: what is damaged is lost before anything else of a commit.
                for step in commit {
                    let Step::Damage(bytes) = *step else { continue };
                    let hash = ContentHash::of(&[bytes]);
                    if here(&batch.tables).contains(&hash) {
                        batch.lose(hash, 1).unwrap();
                        before.remove(&hash);
                        // Whoever owed these bytes, or was owed others only until they came, is owed nothing.
                        let lost = heard.versions.iter().filter(|(_, version)| hash_of(version) == Some(hash));
                        let free = |at: u128, version: &Version| {
                            lost.clone().any(|(other, lost)| *other == at && (lost == version || lost.dominates(version)))
                        };
                        heard.readable.retain(|(at, version)| !free(*at, version));
                    }
                }
                for step in commit {
                    match *step {
                        Step::Hear { at, origin, bytes, apart } => hear(&mut heard, &mut batch, at, origin, bytes, apart),
                        Step::Arrive(bytes) => batch.payload(ContentHash::of(&[bytes]), 1, Some(&[bytes])).unwrap(),
                        Step::Damage(_) | Step::Commit => (),
                    }
                    heard.note_readable(&here(&batch.tables));
                    before.extend(here(&batch.tables));
                }
                let outcome = batch.finish().unwrap();
                usage = outcome.usage;
                pins.spare(&outcome.collected);
                let tables = Tables::open(&transaction).unwrap();
                check(&tables, &heard, &usage);
                let after = here(&tables);
                before.difference(&after).for_each(|gone| check_gone(*gone, &heard, &after));
                before = after;
            }
        }
    }
}
