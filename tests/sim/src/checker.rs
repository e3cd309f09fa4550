//! The checker: what must hold after every event, and what must hold when the network has healed.
//!
//! It knows every version from the moment its node asked for it to be persisted, and what its writer had before it: `covers` is the
//! truth about causality, gathered from outside, against which the core's vector clocks are held.
//!
//! After every event:
//! 1. A version is made by a client's write and by nothing else, and covers exactly what its node had.
//! 2. No version leaves its node before it is durable there, and no incarnation.
//! 3. What a node has only grows: a version goes only when one that covers it is there.
//! 4. A write is acknowledged when it is durable, `copies=N` when it is durable on N nodes.
//! 5. A receipt is sent by who holds record and bytes durably.
//! 6. Nobody believes in an incarnation that its owner never had on disk.
//! 7. A page of a snapshot leaves nothing out.
//! 8. Bytes are deleted only when they are covered and the covering bytes are here.
//! 9. A node gives up its key only if the key is not its own alone or its disk forgot something, and writes nothing under it after that.
//!
//! What disks that are copied or put back change of it: [`memory`].
//!
//! In the end every node has, of every blob, exactly the durable versions that no durable version covers, with their bytes, and
//! nothing else.

mod memory;

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::io::{RecordChange, Written};
use gossip_cdn_protocol::wire::{Entry, Receipt};
use gossip_cdn_protocol::{BlobId, Content, ContentHash, Member, NodeId, Record, Version, VersionId};

use crate::disk::{Disk, Dropped};
use crate::meter::Samples;
use memory::Memory;

/// A version that some node made.
#[derive(Debug)]
struct Made {
    version: Version,
    covers: BTreeSet<VersionId>,
    host: usize,
    /// When, in the world's microseconds.
    at: u64,
    durable: bool,
    acknowledged: bool,
}

impl Made {
    fn hash(&self) -> Option<ContentHash> {
        self.version.content.payload().map(|payload| payload.hash)
    }
}

/// What a write that is being handled found, and asked for.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) before: Record,
    pub(crate) allowed: bool,
    /// What the version must say; `None` while nobody knows.
    pub(crate) content: Option<Content>,
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    made: BTreeMap<BlobId, BTreeMap<VersionId, Made>>,
    /// The greatest incarnation of each node that is on a disk.
    issued: BTreeMap<NodeId, u64>,
    memory: Memory,
    now: u64,
    failure: Option<String>,
    acknowledged: u64,
}

impl Checker {
    /// Time passes.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    pub(crate) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.failure.is_none() {
            self.failure = Some(what());
        }
    }

    pub(crate) fn failure(&self) -> Option<&String> {
        self.failure.as_ref()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn made(&self, blob: BlobId, id: VersionId) -> Option<&Made> {
        self.made.get(&blob).and_then(|versions| versions.get(&id))
    }

    /// Whether `upper` was written by somebody who had `lower`, or had what covered it.
    fn covers(&self, blob: BlobId, upper: VersionId, lower: VersionId) -> bool {
        let seen = self.made(blob, upper).is_some_and(|made| made.covers.contains(&lower));
        seen || self.covers_by_name(blob, upper, lower) || self.covers_twin(blob, upper, lower)
    }

    /// The same of two versions of one record. Where two share a name, their clocks tell which it is.
    fn covers_there(&self, blob: BlobId, upper: &Version, lower: &Version) -> bool {
        let shared = [upper, lower].iter().any(|version| self.memory.has_twin(blob, version.id()));
        if shared { upper.dominates(lower) } else { self.covers(blob, upper.id(), lower.id()) }
    }

    fn holds(&self, blob: BlobId, record: &Record, id: VersionId) -> bool {
        record.versions().iter().any(|version| version.id() == id || self.covers(blob, version.id(), id))
    }

    /// A node asked for a record to be persisted. `before` is what it had.
    pub(crate) fn on_change(&mut self, host: usize, own: uuid::Uuid, before: &Record, change: &RecordChange, writing: Option<&Writing>) {
        let (blob, record) = (change.key.blob, &change.record);
        for version in record.versions() {
            let held = before.versions().contains(version);
            // One that was lost with the power may be made again, alike to the letter, by somebody who had less.
            let lost = |made: &Made| made.version == *version && !made.durable && writing.is_some();
            let anew = self.made(blob, version.id()).is_some_and(lost) || !self.is_known(blob, version);
            if version.origin.0 == own && !held && anew {
                self.on_made(host, blob, version, writing);
            }
            let known = self.is_known(blob, version);
            self.require(known, || format!("n{host} has version {version:?} of {blob}, which nobody wrote"));
        }
        for version in before.versions() {
            let kept = self.holds(blob, record, version.id());
            self.require(kept, || format!("n{host} dropped version {} of {blob}, which nothing covers", version.id()));
        }
        for (n, version) in record.versions().iter().enumerate() {
            let covered = record.versions().iter().any(|other| self.covers_there(blob, other, version));
            self.require(!covered, || format!("n{host} keeps version {} of {blob}, which another there covers", version.id()));
            let ordered = n == 0 || record.versions()[n - 1].id() > version.id();
            self.require(ordered, || format!("n{host} orders the versions of {blob} in another way"));
        }
    }

    fn on_made(&mut self, host: usize, blob: BlobId, version: &Version, writing: Option<&Writing>) {
        let id = version.id();
        let Some(writing) = writing else {
            self.fail(format!("n{host} made version {id} of {blob} though nobody asked it to"));
            return;
        };
        self.check_key(host, version.origin);
        self.require(writing.allowed, || format!("n{host} wrote {id} of {blob} against its precondition"));
        let said = writing.content.as_ref().is_none_or(|content| *content == version.content);
        self.require(said, || format!("version {id} of {blob} does not say what its client said"));
        let was_durable = self.made(blob, id).is_some_and(|made| made.durable);
        let twin = self.twin_of(blob, version);
        // A version that was lost before it was durable was never seen by anybody: its stamp may be used again.
        let free = self.made(blob, id).is_none_or(|made| !made.durable && made.host == host) || twin.is_some();
        self.require(free, || format!("n{host} used the name {id} of {blob} twice"));
        let covers = self.seen(blob, &writing.before);
        if twin == Some(false) {
            self.add_twin(blob, version.clone(), covers);
            return;
        }
        let made =
            Made { version: version.clone(), covers, host, at: self.now, durable: twin.is_some() && was_durable, acknowledged: false };
        self.add_made(blob, made);
    }

    /// Whether somebody wrote exactly that.
    fn is_known(&self, blob: BlobId, version: &Version) -> bool {
        self.made(blob, version.id()).is_some_and(|made| made.version == *version) || self.memory.is_twin(blob, version)
    }

    /// Versions are on a disk that had them not. Gives how many of them were made elsewhere, and notes how long they took.
    pub(crate) fn on_fresh(&self, host: usize, fresh: &[(BlobId, VersionId)], spread: &mut Samples) -> u64 {
        let from_elsewhere = fresh.iter().filter_map(|(blob, id)| self.made(*blob, *id)).filter(|made| made.host != host);
        from_elsewhere.fold(0, |count, made| {
            spread.add(self.now - made.at);
            count + 1
        })
    }

    /// An incarnation of a node is on its disk.
    pub(crate) fn on_issued(&mut self, node: NodeId, incarnation: u64) {
        let issued = self.issued.entry(node).or_default();
        *issued = incarnation.max(*issued);
    }

    /// A node believes something of others.
    pub(crate) fn on_claims(&mut self, host: usize, claims: &[Member]) {
        for claim in claims {
            let issued = self.issued.get(&claim.id).copied().unwrap_or_default();
            let (node, incarnation) = (claim.id, claim.incarnation);
            self.require(incarnation <= issued, || format!("n{host} believes in incarnation {incarnation} of {node}, which had {issued}"));
        }
    }

    /// A record became durable at a node.
    pub(crate) fn on_durable(&mut self, host: usize, change: &RecordChange) {
        let Some(versions) = self.made.get_mut(&change.key.blob) else { return };
        for version in change.record.versions() {
            let twin = self.memory.has_twin(change.key.blob, version.id());
            if let Some(made) = versions.get_mut(&version.id()).filter(|made| made.host == host || twin) {
                made.durable = true;
            }
            self.memory.on_durable(change.key.blob, version.id());
        }
    }

    /// A node sends records.
    pub(crate) fn on_sent(&mut self, host: usize, entries: &[Entry]) {
        for entry in entries {
            for version in entry.versions.versions() {
                let durable = self.made(entry.id, version.id()).is_some_and(|made| made.durable);
                let known = self.is_known(entry.id, version);
                self.require(known, || format!("n{host} sends version {version:?} of {}, which nobody wrote", entry.id));
                self.require(durable, || format!("n{host} sends version {} of {} before it is durable", version.id(), entry.id));
            }
        }
    }

    /// A node promises to have a version.
    pub(crate) fn on_receipt(&mut self, host: usize, disk: &Disk, record: &Record, receipt: Receipt) {
        let version = record.version(receipt.version);
        let held = version.is_some_and(|version| version.content.payload().is_none_or(|payload| disk.bytes(payload.hash).is_some()));
        self.require(held, || format!("n{host} gives a receipt for {} of {} and does not hold it", receipt.version, receipt.id));
    }

    /// A write is acknowledged. `here` is the node's disk with the durable record of the blob, `others` those of others.
    pub(crate) fn on_acknowledged<'a>(
        &mut self,
        host: usize,
        written: &Written,
        here: (&'a Disk, Record),
        mut others: Vec<(usize, &'a Disk, Record)>,
    ) {
        let (blob, id) = (written.blob, written.version);
        self.acknowledged += 1;
        let held = self.holds(blob, &here.1, id);
        self.require(held, || format!("n{host} acknowledged {id} of {blob}, which is not durable there"));
        others.push((host, here.0, here.1));
        // One that was covered since then was durable, or the covering one could not be there.
        let has = |(number, disk, record): &&(usize, &Disk, Record)| {
            // One that was put back may have heard of it again, and wait for the bytes.
            self.had(*number, blob, id)
                || match record.version(id) {
                    Some(version) => version.content.payload().is_none_or(|payload| disk.bytes(payload.hash).is_some()),
                    None => self.holds(blob, record, id),
                }
        };
        let made_at = self.made(blob, id).map_or(0, |made| made.at);
        let durable = others.iter().filter(has).count() + self.memory.keys_taken_since(made_at);
        self.require(durable >= written.copies, || {
            format!("n{host} acknowledged {id} of {blob} as durable on {} nodes, it is on {durable}", written.copies)
        });
        if let Some(made) = self.made.get_mut(&blob).and_then(|versions| versions.get_mut(&id)) {
            made.acknowledged = true;
        }
    }

    /// A node deleted the bytes of a version.
    pub(crate) fn on_dropped(&mut self, host: usize, dropped: &Dropped) {
        let Dropped { key, version, held } = dropped;
        let covered = held.iter().any(|other| self.covers(key.blob, *other, *version));
        self.require(covered, || format!("n{host} deleted the bytes of {version} of {} too early", key.blob));
    }

    /// Of every blob the durable versions that no durable version covers.
    pub(crate) fn expected(&self) -> BTreeMap<BlobId, BTreeSet<VersionId>> {
        let mut expected = BTreeMap::new();
        for (blob, versions) in &self.made {
            let durable = versions.iter().filter(|(id, made)| made.durable && !self.memory.is_lost(*blob, **id));
            let durable: Vec<(&VersionId, &Made)> = durable.collect();
            let covered: BTreeSet<&VersionId> = durable.iter().flat_map(|(_, made)| &made.covers).collect();
            let by_name = |id: VersionId| durable.iter().any(|(upper, _)| self.covers_by_name(*blob, **upper, id));
            let live = durable.iter().map(|(id, _)| **id).filter(|id| !covered.contains(id) && !by_name(*id));
            let live: BTreeSet<VersionId> = live.collect();
            if !live.is_empty() {
                expected.insert(*blob, live);
            }
        }
        expected
    }

    /// Why a disk is not yet what it must be in the end.
    pub(crate) fn gap(&self, host: usize, disk: &Disk, expected: &BTreeMap<BlobId, BTreeSet<VersionId>>) -> Option<String> {
        let platter = disk.platter();
        let found: BTreeMap<BlobId, &Record> = platter.records().map(|(key, record)| (key.blob, record)).collect();
        if let Some(blob) = found.keys().find(|blob| !expected.contains_key(blob)) {
            return Some(format!("n{host} has {blob}, which was never durably written"));
        }
        let (mut named, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for (blob, live) in expected {
            let versions = found.get(blob).map_or(&[][..], |record| record.versions());
            let ids: BTreeSet<VersionId> = versions.iter().map(Version::id).collect();
            if let Some(lost) = live.difference(&ids).next() {
                let told = if self.made(*blob, *lost).is_some_and(|made| made.acknowledged) { "acknowledged" } else { "durable" };
                return Some(format!("n{host} lacks version {lost} of {blob}, which was {told}"));
            }
            if let Some(back) = ids.difference(live).next() {
                return Some(format!("n{host} has version {back} of {blob}, which was covered"));
            }
            for payload in versions.iter().filter_map(|version| version.content.payload()) {
                named.insert(payload.hash);
                match platter.files().get(&payload.hash) {
                    None if self.memory.is_gone(payload.hash) => _ = waiting.insert(*blob),
                    None => return Some(format!("n{host} lacks the bytes {} of {blob}", payload.hash)),
                    Some(bytes) if bytes.hash() != payload.hash => return Some(format!("n{host} holds wrong bytes for {}", payload.hash)),
                    Some(_) => {}
                }
            }
        }
        // The bytes of what was covered wait for those of what covers it.
        named.extend(waiting.iter().filter_map(|blob| self.made.get(blob)).flat_map(|versions| versions.values().filter_map(Made::hash)));
        if let Some(hash) = platter.unfounded() {
            return Some(format!("n{host} says that the bytes {hash} are here, and has no file of them"));
        }
        let nobodys = platter.rows().chain(platter.files().keys().copied()).find(|hash| !named.contains(hash));
        nobodys.map(|hash| format!("n{host} keeps the bytes {hash}, which no version names"))
    }
}
