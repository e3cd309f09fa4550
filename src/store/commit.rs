//! What one commit changes: records with their indexes, and who claims which payload.
//!
//! 1. Every live blob is in all three indexes of live blobs and every deleted one in that of tombstones, under its winner.
//! 2. A payload is claimed by the records whose live versions name it, and by those that wait for the bytes of a version that covers
//!    the one that named it. ("The bytes of a covered version are deleted only when the bytes of the version that covers it are here";
//!    a tombstone needs no bytes.)
//! 3. A payload is here or missing, never both; it is missing exactly if a live version names it and it is not here.
//! 4. A payload that nobody claims leaves in the commit in which it lost its last claim or its last pin.
//! 5. The counters are those of the tables, commit by commit.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::item::RecordKey;
use gossip_cdn_protocol::{BlobId, ContentHash, Member, Persist, Record, Version};
use redb::{Error, ReadableTable};

use super::pins::Pins;
use super::tables::{self, KeyBytes, PairBytes, Tables};
use super::writer::PayloadRow;
use super::{INLINE_MAX, Usage};

/// One commit in the making.
pub(super) struct Batch<'txn, 'pins> {
    tables: Tables<'txn>,
    pins: &'pins Pins,
    usage: Usage,
    /// Payloads that may have nobody left who claims them.
    candidates: BTreeSet<ContentHash>,
    /// Payloads that are not missing any more.
    settled: Vec<ContentHash>,
}

/// What is to be done when the commit is on disk.
pub(super) struct Outcome {
    pub(super) usage: Usage,
    /// Payloads that came, or that nobody misses any more.
    pub(super) settled: Vec<ContentHash>,
    /// Payloads removed.
    pub(super) collected: Vec<ContentHash>,
    /// Those of them that have files.
    pub(super) files: Vec<ContentHash>,
}

impl<'txn, 'pins> Batch<'txn, 'pins> {
    pub(super) fn new(tables: Tables<'txn>, pins: &'pins Pins, usage: Usage, released: BTreeSet<ContentHash>) -> Self {
        Self { tables, pins, usage, candidates: released, settled: Vec::new() }
    }

    pub(super) fn persist(&mut self, persist: &Persist) -> Result<(), Error> {
        for change in &persist.records {
            self.record(change.key, &change.record, change.state.0)?;
        }
        for member in &persist.members {
            self.member(member)?;
        }
        if let Some(incarnation) = persist.incarnation {
            self.tables.meta.insert(tables::INCARNATION, tables::to_json(&[], &incarnation)?.as_slice())?;
        }
        if let Some(contacts) = &persist.contacts {
            self.tables.meta.insert(tables::CONTACTS, tables::to_json(&[], contacts)?.as_slice())?;
        }
        Ok(())
    }

    fn member(&mut self, member: &Member) -> Result<(), Error> {
        self.tables.members.insert(member.id.0.as_bytes(), tables::to_json(&[], member)?.as_slice())?;
        Ok(())
    }

    fn record(&mut self, key: RecordKey, new: &Record, state: u64) -> Result<(), Error> {
        let bytes = tables::key_bytes(key);
        let row = tables::to_json(&state.to_be_bytes(), new)?;
        let old = match self.tables.records.insert(&bytes, row.as_slice())? {
            Some(row) => tables::record_of(row.value())?,
            None => Record::default(),
        };
        self.unlist(key.blob, old.winner())?;
        self.list(key.blob, new.winner())?;
        self.claim(&bytes, &old, new)
    }

    fn unlist(&mut self, blob: BlobId, winner: Option<&Version>) -> Result<(), Error> {
        let Some(winner) = winner else { return Ok(()) };
        let stamp = tables::stamp_bytes(winner.stamp, blob);
        let Some(payload) = winner.content.payload() else {
            self.tables.tombstones.remove(&stamp)?;
            self.usage.tombstones = self.usage.tombstones.saturating_sub(1);
            return Ok(());
        };
        self.tables.newest.remove(&stamp)?;
        self.tables.names.remove((payload.file_name.as_deref().unwrap_or_default(), blob.0.as_bytes()))?;
        self.tables.ids.remove(blob.0.as_bytes())?;
        self.usage.live_blobs = self.usage.live_blobs.saturating_sub(1);
        Ok(())
    }

    fn list(&mut self, blob: BlobId, winner: Option<&Version>) -> Result<(), Error> {
        let Some(winner) = winner else { return Ok(()) };
        let stamp = tables::stamp_bytes(winner.stamp, blob);
        let Some(payload) = winner.content.payload() else {
            self.tables.tombstones.insert(&stamp, ())?;
            self.usage.tombstones += 1;
            return Ok(());
        };
        self.tables.newest.insert(&stamp, ())?;
        self.tables.names.insert((payload.file_name.as_deref().unwrap_or_default(), blob.0.as_bytes()), ())?;
        self.tables.ids.insert(blob.0.as_bytes(), ())?;
        self.usage.live_blobs += 1;
        Ok(())
    }

    fn claim(&mut self, key: &KeyBytes, old: &Record, new: &Record) -> Result<(), Error> {
        let (before, after) = (named(old), named(new));
        for (hash, size) in after.iter().filter(|(hash, _)| !before.contains_key(*hash)) {
            self.tables.owners.insert(&tables::owner_bytes(*hash, key), true)?;
            self.tables.retained.remove(&tables::retained_bytes(key, *hash))?;
            if self.is_here(*hash)? {
                self.tables.unowned.remove(&hash.0)?;
                self.pins.claimed(*hash);
            } else if self.tables.missing.get(&hash.0)?.is_none() {
                self.tables.missing.insert(&hash.0, (*size, key))?;
            }
        }
        for hash in before.keys().filter(|hash| !after.contains_key(*hash)) {
            let wait = self.wait(old, new, *hash)?;
            self.redirect(key, *hash, wait)?;
            match wait {
                Some(wait) if self.is_here(*hash)? => self.retain(key, *hash, wait)?,
                Some(_) | None => self.disclaim(key, *hash)?,
            }
        }
        Ok(())
    }

    fn is_here(&self, hash: ContentHash) -> Result<bool, Error> {
        Ok(self.tables.payloads.get(&hash.0)?.is_some())
    }

    /// Which payload's arrival a covered one waits for before it is let go; `None`: it can go now.
    fn wait(&self, old: &Record, new: &Record, covered: ContentHash) -> Result<Option<ContentHash>, Error> {
        for version in old.versions().iter().filter(|version| hash_of(version) == Some(covered)) {
            let mut absent = None;
            let mut replaced = false;
            for coverer in new.versions().iter().filter(|coverer| coverer.dominates(version)) {
                match hash_of(coverer) {
                    Some(hash) if !self.is_here(hash)? => absent = absent.or(Some(hash)),
                    Some(_) | None => replaced = true,
                }
            }
            if !replaced && absent.is_some() {
                return Ok(absent);
            }
        }
        Ok(None)
    }

    fn retain(&mut self, key: &KeyBytes, hash: ContentHash, wait: ContentHash) -> Result<(), Error> {
        self.tables.owners.insert(&tables::owner_bytes(hash, key), false)?;
        self.tables.retained.insert(&tables::retained_bytes(key, hash), &wait.0)?;
        Ok(())
    }

    /// What waited for `from` waits for `to` instead; `None`: for nothing.
    fn redirect(&mut self, key: &KeyBytes, from: ContentHash, to: Option<ContentHash>) -> Result<(), Error> {
        let (first, last) = tables::retained_by(key);
        let mut waiting = Vec::new();
        for row in self.tables.retained.range::<&PairBytes>(&first..=&last)? {
            let (pair, wait) = row?;
            if *wait.value() == from.0 {
                waiting.push(tables::retained_hash(pair.value()));
            }
        }
        for hash in waiting {
            match to {
                Some(wait) => self.retain(key, hash, wait)?,
                None => {
                    self.tables.retained.remove(&tables::retained_bytes(key, hash))?;
                    self.disclaim(key, hash)?;
                }
            }
        }
        Ok(())
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
            None => self.settled.push(hash),
        }
        Ok(())
    }

    /// The records that claim a payload, and whether a live version of theirs names it.
    fn claimants(&self, hash: ContentHash) -> Result<Vec<(KeyBytes, bool)>, Error> {
        let (first, last) = tables::owners_of(hash);
        let rows = self.tables.owners.range::<&PairBytes>(&first..=&last)?;
        rows.map(|row| row.map(|(pair, live)| (tables::owner_key(pair.value()), live.value())).map_err(Error::from)).collect()
    }

    fn named_size(&self, key: &KeyBytes, hash: ContentHash) -> Result<u64, Error> {
        let record = self.tables.records.get(key)?.map(|row| tables::record_of(row.value())).transpose()?;
        Ok(record.and_then(|record| named(&record).get(&hash).copied()).unwrap_or_default())
    }

    /// The bytes of a payload are here.
    pub(super) fn payload(&mut self, row: &PayloadRow) -> Result<(), Error> {
        self.candidates.insert(row.hash);
        self.settled.push(row.hash);
        if self.tables.payloads.insert(&row.hash.0, row.size)?.is_some() {
            return Ok(());
        }
        if let Some(bytes) = &row.inline {
            self.tables.inline.insert(&row.hash.0, &bytes[..])?;
        }
        self.usage.payloads += 1;
        self.usage.payload_bytes = self.usage.payload_bytes.saturating_add(row.size);
        self.tables.missing.remove(&row.hash.0)?;
        for (key, _) in self.claimants(row.hash)? {
            self.redirect(&key, row.hash, None)?;
        }
        Ok(())
    }

    /// Collects what nobody claims, and writes the counters.
    pub(super) fn finish(mut self) -> Result<Outcome, Error> {
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
        Ok(Outcome { usage: self.usage, settled: self.settled, collected, files })
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
