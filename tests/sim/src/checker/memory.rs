//! What can be asked of a network in which disks are copied, or put back to an earlier state.
//!
//! Whatever some disk has, or gets from a message under way, is asked for as ever. Beyond that:
//!
//! 1. A version is lost, and not asked for, from the moment when a disk is put back and no disk has it any more, or what covers it; until it
//!    is on a disk again. What it covered is asked for instead. Acknowledged or not: one that was durable on this disk alone, `copies=1`, was
//!    told to be nowhere else.
//! 2. Bytes are gone, and not asked for, from the moment when a disk is put back, or bytes rot, and no disk has them any more together with a
//!    version that claims them and stays; until one has them again.
//! 3. A receipt is a promise of the disk as it was: what a node had before its disk was put back, had written over, or rotted, counts as a
//!    copy of a write that waited for it.
//! 4. A node that takes another key while a write waits for its receipt may count as two copies: receipts bear the node's id and nothing else.
//! 5. From the moment of a copy, or of the state put back, the stamps of the key that is there prove nothing any more: of two writes under
//!    it since then, that one covers the other whose clock does, as every core must take it, whatever their writers had seen. No other
//!    version is covered in another way than ever, and none under a key taken since.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::{BlobId, ContentHash, NodeId, Record, Version, VersionId};

use super::{Checker, Made};
use crate::disk::Platter;

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// On no disk any more.
    lost: BTreeSet<(BlobId, VersionId)>,
    gone: BTreeSet<ContentHash>,
    /// What hosts held before their disks were put back.
    had: BTreeSet<(usize, BlobId, VersionId)>,
    /// Bytes that rotted there: also for versions that were about to name them.
    rotted: BTreeSet<(usize, ContentHash)>,
    /// Keys that prove nothing, and since when, in the world's microseconds.
    doubtful: BTreeMap<NodeId, u64>,
    /// Keys that hosts gave up for others.
    given_up: BTreeSet<(usize, NodeId)>,
    /// When keys were given up.
    changes: Vec<u64>,
    /// Versions that share their name with another: those that are covered by it, and what their writers had seen.
    twins: Vec<Twin>,
}

#[derive(Debug)]
struct Twin {
    blob: BlobId,
    version: Version,
    covers: BTreeSet<VersionId>,
}

impl Memory {
    pub(super) fn is_twin(&self, blob: BlobId, version: &Version) -> bool {
        self.twins_of(blob, version.id()).any(|twin| twin.version == *version)
    }

    pub(super) fn has_twin(&self, blob: BlobId, id: VersionId) -> bool {
        self.twins_of(blob, id).next().is_some()
    }

    fn twins_of(&self, blob: BlobId, id: VersionId) -> impl Iterator<Item = &Twin> {
        self.twins.iter().filter(move |twin| twin.blob == blob && twin.version.id() == id)
    }

    /// How many keys were taken since then.
    pub(super) fn keys_taken_since(&self, at: u64) -> usize {
        self.changes.iter().filter(|taken| **taken >= at).count()
    }

    pub(super) fn is_lost(&self, blob: BlobId, id: VersionId) -> bool {
        self.lost.contains(&(blob, id))
    }

    pub(super) fn is_gone(&self, hash: ContentHash) -> bool {
        self.gone.contains(&hash)
    }

    pub(super) fn on_durable(&mut self, blob: BlobId, id: VersionId) {
        self.lost.remove(&(blob, id));
    }

    fn is_doubtful(&self, key: NodeId, at: u64) -> bool {
        self.doubtful.get(&key).is_some_and(|since| *since <= at)
    }
}

/// The bytes on a disk that a version claims there which is expected to stay.
fn claimed(disk: &Platter, expected: &BTreeMap<BlobId, BTreeSet<VersionId>>) -> impl Iterator<Item = ContentHash> {
    let stays = |blob: BlobId, id: VersionId| expected.get(&blob).is_some_and(|live| live.contains(&id));
    let versions =
        disk.records().flat_map(move |(key, record)| record.versions().iter().filter(move |version| stays(key.blob, version.id())));
    versions.filter_map(|version| version.content.payload()).map(|payload| payload.hash).filter(|hash| disk.is_sound(*hash))
}

impl Checker {
    /// Whether there is a key that is not its node's alone.
    pub(crate) fn has_doubts(&self) -> bool {
        !self.memory.doubtful.is_empty()
    }

    /// Since when the stamps of a key would prove nothing if its disk, as it is now, were copied or put back: what still waits for the disk
    /// is not on it.
    pub(crate) fn horizon(&self, key: NodeId) -> u64 {
        let of_key = self.made.values().flat_map(|versions| versions.values()).filter(|made| made.version.origin == key && !made.durable);
        of_key.map(|made| made.at).min().unwrap_or(self.now)
    }

    /// A disk with that key was copied or put back.
    pub(crate) fn on_doubt(&mut self, key: NodeId, since: u64) {
        let held = self.memory.doubtful.entry(key).or_insert(since);
        *held = since.min(*held);
    }

    /// The disk of a host was put back from `before` to one with that key; `disks` are all there are now.
    pub(crate) fn on_put_back(&mut self, host: usize, key: NodeId, before: &Platter, disks: &[&Platter]) {
        self.memory.given_up.remove(&(host, key));
        self.on_lost(host, before, disks);
    }

    /// A disk does not have any more what it had `before`; `disks` are all there are now.
    pub(crate) fn on_lost(&mut self, host: usize, before: &Platter, disks: &[&Platter]) {
        for (blob, id) in before.held() {
            let covered = self.made(blob, id).into_iter().flat_map(|made| made.covers.clone()).collect::<Vec<_>>();
            self.memory.had.extend(covered.into_iter().chain([id]).map(|id| (host, blob, id)));
        }
        let on_some_disk = |blob: BlobId, id: VersionId| {
            let records = disks.iter().flat_map(|disk| disk.records()).filter(|(key, _)| key.blob == blob);
            records.into_iter().any(|(_, record)| self.holds(blob, record, id))
        };
        let durable = self
            .made
            .iter()
            .flat_map(|(blob, versions)| versions.iter().filter(|(_, made)| made.durable).map(|(id, _)| (*blob, *id)).collect::<Vec<_>>());
        let lost: Vec<(BlobId, VersionId)> = durable.filter(|(blob, id)| !on_some_disk(*blob, *id)).collect();
        self.memory.lost.extend(lost);
        // Bytes stay where a version claims them that stays itself: those that came without it, or for another one, may go.
        let expected = self.expected();
        let here: BTreeSet<ContentHash> = disks.iter().flat_map(|disk| claimed(disk, &expected)).collect();
        // Those of a version that is live again, because what covered it is lost, may have gone before.
        let all = self.made.values().flat_map(|versions| versions.values()).filter_map(Made::hash);
        let gone: Vec<ContentHash> = all.filter(|hash| !here.contains(hash)).collect();
        self.memory.gone.extend(gone);
    }

    /// Bytes turned out to have rotted on the disk of a host.
    pub(crate) fn on_rotten(&mut self, host: usize, hash: ContentHash) {
        self.memory.rotted.insert((host, hash));
    }

    /// Whether a host had a version before its disk was put back, or its bytes rotted.
    pub(super) fn had(&self, host: usize, blob: BlobId, id: VersionId) -> bool {
        let hash = self.made(blob, id).and_then(Made::hash);
        self.memory.had.contains(&(host, blob, id)) || hash.is_some_and(|hash| self.memory.rotted.contains(&(host, hash)))
    }

    /// The bytes of a payload are on a disk.
    pub(crate) fn on_bytes(&mut self, hash: ContentHash) {
        self.memory.gone.remove(&hash);
    }

    /// The core of a host has ended with its key.
    pub(crate) fn on_renounced(&mut self, host: usize, key: NodeId, why: &str) {
        let doubtful = self.memory.doubtful.contains_key(&key);
        self.require(doubtful, || format!("n{host} gives up a key that is its own alone: {why}"));
    }

    /// A host takes another key instead.
    pub(crate) fn on_given_up(&mut self, host: usize, key: NodeId) {
        let first = self.memory.given_up.insert((host, key));
        self.require(first, || format!("n{host} gives up the key of {key} twice"));
        self.memory.changes.push(self.now);
    }

    /// A host writes under a key.
    pub(super) fn check_key(&mut self, host: usize, key: NodeId) {
        let given_up = self.memory.given_up.contains(&(host, key));
        self.require(!given_up, || format!("n{host} writes under the key of {key}, which it gave up"));
    }

    /// Whether `upper` covers `lower` only because its clock names it, under a key whose stamps prove nothing.
    pub(super) fn covers_by_name(&self, blob: BlobId, upper: VersionId, lower: VersionId) -> bool {
        if self.memory.doubtful.is_empty() {
            return false;
        }
        let (Some(upper), Some(lower)) = (self.made(blob, upper), self.made(blob, lower)) else { return false };
        self.memory.is_doubtful(lower.version.origin, lower.at) && upper.version.dominates(&lower.version)
    }

    /// Whether `upper` covers what shares its name with another, and is covered by that.
    pub(super) fn covers_twin(&self, blob: BlobId, upper: VersionId, lower: VersionId) -> bool {
        let upper = self.made(blob, upper);
        upper.is_some_and(|made| self.memory.twins_of(blob, lower).any(|twin| made.version.dominates(&twin.version)))
    }

    /// What a writer covers who had seen that: all this, and what it covers.
    pub(super) fn seen(&self, blob: BlobId, before: &Record) -> BTreeSet<VersionId> {
        let mut seen = BTreeSet::new();
        for version in before.versions() {
            // Of a name that two versions share, only the covered one was seen.
            if let Some(twin) = self.memory.twins_of(blob, version.id()).find(|twin| twin.version == *version) {
                seen.extend(&twin.covers);
                continue;
            }
            seen.insert(version.id());
            seen.extend(self.made(blob, version.id()).into_iter().flat_map(|made| &made.covers));
        }
        seen
    }

    /// Two holders of one key may give two versions one name. That of the greater clock covers the other, or with equal clocks that of the
    /// greater content. Gives whether this one covers the other, if it has one.
    pub(super) fn twin_of(&self, blob: BlobId, version: &Version) -> Option<bool> {
        let made = self.made(blob, version.id()).filter(|made| self.memory.is_doubtful(version.origin, made.at))?;
        (made.version != *version).then(|| version.dominates(&made.version))
    }

    /// A version shares its name with another that covers it.
    pub(super) fn add_twin(&mut self, blob: BlobId, version: Version, covers: BTreeSet<VersionId>) {
        self.memory.twins.push(Twin { blob, version, covers });
    }

    /// A version has its name from now on; who covered another of that name covers that one still, and this one only if its clock says so.
    pub(super) fn add_made(&mut self, blob: BlobId, made: Made) {
        let id = made.version.id();
        let versions = self.made.entry(blob).or_default();
        let Some(before) = versions.insert(id, made).filter(|before| versions.get(&id).is_some_and(|made| made.version != before.version))
        else {
            return;
        };
        if self.memory.is_doubtful(id.origin, before.at) {
            versions.values_mut().for_each(|made| _ = made.covers.remove(&id));
            self.add_twin(blob, before.version, before.covers);
        }
    }
}
