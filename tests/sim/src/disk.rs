//! The simulated disk: what is committed, and what waits for the next fsync.
//!
//! 1. A payload is a file and, after it, a row that says that it is here; a record is a commit; a file that nobody claims any more is
//!    unlinked after the commit that took its row. All these steps wait in one queue and become durable in its order: a crash keeps a
//!    prefix of it, which may be empty and may end between any two of them.
//! 2. Reads see what is committed, nothing else; a payload is here when its row is.
//! 3. A payload belongs to the live versions that name it, and to the covered versions whose covering bytes are not here yet.
//!    Nobody's rows are collected in the same commit, unless an upload holds on to them; files without rows go at a start.
//!
//! Payload bytes are not stored: a [`Bytes`] stands for them, and its hash is taken from it, so that wrong bytes are noticed.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use gossip_cdn_protocol::history::disk::{HistoryStore, Place, Remembered};
use gossip_cdn_protocol::history::memory::MemoryHistory;
use gossip_cdn_protocol::history::message::{Message, MessageId};
use gossip_cdn_protocol::history::ordered::Batch;
use gossip_cdn_protocol::io::{RecordChange, TransferId};
use gossip_cdn_protocol::item::{Item, KeyHash, RecordKey, StateHash};
use gossip_cdn_protocol::records::first_key;
use gossip_cdn_protocol::store::Missing;
use gossip_cdn_protocol::{BlobId, Content, ContentHash, Member, NodeId, Persist, Record, Store, StoreFault, Version, VersionId};

use crate::base::Base;
use crate::plant::Plant;

/// What stands for the bytes of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes {
    pub(crate) seed: u64,
    pub(crate) size: u64,
}

impl Bytes {
    pub(crate) fn hash(self) -> ContentHash {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend(self.size.to_le_bytes());
        ContentHash::of(&bytes)
    }
}

/// What waits for the disk.
#[derive(Debug)]
pub(crate) enum Queued {
    /// The file of a payload, under the hash it was asked for by.
    File { name: ContentHash, bytes: Bytes },
    /// The row that says that a payload is here; a transfer waits for it, or an upload.
    Row { name: ContentHash, size: u64, transfer: Option<TransferId> },
    /// A file is to go.
    Unlink(ContentHash),
    /// A change of the core's.
    Persist(Persist),
}

/// Something that became durable.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) queued: Queued,
    /// Covered versions whose bytes were deleted with it.
    pub(crate) dropped: Vec<Dropped>,
    /// Versions that the disk did not have before.
    pub(crate) fresh: Vec<(BlobId, VersionId)>,
}

/// A version whose bytes were deleted.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(crate) key: RecordKey,
    pub(crate) version: VersionId,
    /// The live versions at that moment whose bytes are here.
    pub(crate) held: Vec<VersionId>,
}

/// What is durable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Platter {
    records: BTreeMap<RecordKey, (StateHash, Record)>,
    files: BTreeMap<ContentHash, Bytes>,
    /// The sizes of the payloads that are here.
    rows: BTreeMap<ContentHash, u64>,
    /// Files that have lost their rows and are to be unlinked.
    unclaimed: Vec<ContentHash>,
    /// Size and live owners of every payload named.
    owners: BTreeMap<ContentHash, (u64, BTreeSet<RecordKey>)>,
    /// Covered versions whose bytes are kept until the bytes of what covers them are here.
    retained: BTreeMap<RecordKey, Vec<Version>>,
    missing: BTreeMap<ContentHash, Missing>,
    members: BTreeMap<NodeId, Member>,
    contacts: Vec<String>,
    history: MemoryHistory,
    incarnation: u64,
    /// Uploads that hold on to a payload; in memory only.
    pins: BTreeMap<ContentHash, usize>,
    /// Bytes of all payloads.
    payload_bytes: u64,
    /// What was there before.
    base: Option<Rc<Base>>,
    plant: Option<Plant>,
}

impl Platter {
    fn apply(&mut self, queued: Queued) -> Committed {
        let (mut dropped, mut fresh) = (Vec::new(), Vec::new());
        match &queued {
            Queued::File { name, bytes } => drop(self.files.insert(*name, *bytes)),
            Queued::Row { name, size, .. } => {
                let replaced = self.rows.insert(*name, *size);
                self.payload_bytes += size - replaced.unwrap_or(0);
                self.on_payload(*name);
            }
            Queued::Unlink(name) => {
                // Its row may have come again, or an upload of the same bytes.
                if !self.rows.contains_key(name) && !self.pins.contains_key(name) {
                    self.files.remove(name);
                }
            }
            Queued::Persist(persist) => {
                for change in &persist.records {
                    let before = self.record(change.key).versions().to_vec();
                    let unknown = change.record.versions().iter().filter(|version| !before.contains(version));
                    fresh.extend(unknown.map(|version| (change.key.blob, version.id())));
                    let had: Vec<Version> = before.into_iter().filter(|version| self.has_bytes_of(version)).collect();
                    self.put_record(change);
                    let record = self.record(change.key);
                    let held = || record.versions().iter().filter(|version| self.has_bytes_of(version)).map(Version::id).collect();
                    let gone = had.into_iter().filter(|version| !self.has_bytes_of(version));
                    dropped.extend(gone.map(|version| Dropped { key: change.key, version: version.id(), held: held() }));
                }
                for member in &persist.members {
                    self.members.insert(member.id, member.clone());
                }
                persist.history.iter().cloned().for_each(|change| self.history.apply(change));
                self.incarnation = persist.incarnation.unwrap_or(0).max(self.incarnation);
                if let Some(contacts) = &persist.contacts {
                    self.contacts.clone_from(contacts);
                }
            }
        }
        Committed { queued, dropped, fresh }
    }

    /// The versions that are here with their bytes.
    pub(crate) fn held(&self) -> BTreeSet<(BlobId, VersionId)> {
        let held = |(key, record): (&RecordKey, &Record)| {
            let versions = record.versions().iter().filter(|version| self.has_bytes_of(version));
            versions.map(|version| (key.blob, version.id())).collect::<Vec<_>>()
        };
        self.records().flat_map(held).collect()
    }

    /// Whether a start from here is told apart from one of `other`.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        (self.incarnation, &self.records, &self.history) != (other.incarnation, &other.records, &other.history)
    }

    fn has_bytes_of(&self, version: &Version) -> bool {
        version.content.payload().is_none_or(|payload| self.rows.contains_key(&payload.hash))
    }

    fn put_record(&mut self, change: &RecordChange) {
        let mut record = change.record.clone();
        if self.plant == Some(Plant::DropTombstones) && record.winner().is_some_and(|winner| winner.content == Content::Tombstone) {
            return;
        }
        if self.plant == Some(Plant::OneSibling) {
            record = Record::from(record.winner().cloned().into_iter().collect::<Vec<_>>());
        }
        let key = change.key;
        let old = self.records.insert(key, (change.state, record.clone())).map(|(_, record)| record).unwrap_or_default();
        let named = |record: &Record| -> BTreeSet<(ContentHash, u64)> {
            record.versions().iter().filter_map(|version| version.content.payload()).map(|payload| (payload.hash, payload.size)).collect()
        };
        for (hash, size) in named(&record) {
            self.owners.entry(hash).or_insert((size, BTreeSet::new())).1.insert(key);
        }
        for (hash, _) in named(&old).difference(&named(&record)) {
            if let Some((_, keys)) = self.owners.get_mut(hash) {
                keys.remove(&key);
            }
        }
        let covered = old.versions().iter().filter(|version| !record.versions().contains(version) && version.content.payload().is_some());
        if self.plant != Some(Plant::EarlyCollection) {
            self.retained.entry(key).or_default().extend(covered.cloned());
        }
        self.release(key);
        for (hash, _) in named(&old).union(&named(&record)) {
            self.settle(*hash);
        }
    }

    fn on_payload(&mut self, hash: ContentHash) {
        let owners = self.owners.get(&hash).map(|(_, keys)| keys.clone()).unwrap_or_default();
        owners.into_iter().for_each(|key| self.release(key));
        self.settle(hash);
    }

    /// Lets go of the covered versions whose covering bytes are here.
    fn release(&mut self, key: RecordKey) {
        let Some(mut retained) = self.retained.remove(&key) else { return };
        let before: Vec<ContentHash> = hashes(&retained);
        let record = self.record(key);
        retained.retain(|covered| !record.versions().iter().any(|version| version.dominates(covered) && self.has_bytes_of(version)));
        if !retained.is_empty() {
            self.retained.insert(key, retained);
        }
        before.into_iter().for_each(|hash| self.settle(hash));
    }

    /// A payload is missing, here, or nobody's.
    fn settle(&mut self, hash: ContentHash) {
        let owner = self.owners.get(&hash).and_then(|(size, keys)| Some((*size, *keys.first()?)));
        let here = self.rows.contains_key(&hash);
        match owner {
            Some((size, key)) if !here => drop(self.missing.insert(hash, Missing { hash, size, key })),
            Some(_) => drop(self.missing.remove(&hash)),
            None => {
                self.missing.remove(&hash);
                self.owners.remove(&hash);
                let claimed = self.pins.contains_key(&hash) || self.retained.values().any(|retained| hashes(retained).contains(&hash));
                if let Some(size) = self.rows.get(&hash).copied().filter(|_| !claimed) {
                    self.rows.remove(&hash);
                    self.payload_bytes -= size;
                    self.unclaimed.push(hash);
                }
            }
        }
    }

    /// The bytes that are here of a payload are others from now on.
    fn rot(&mut self, hash: ContentHash) {
        if let Some(bytes) = self.files.get_mut(&hash) {
            bytes.seed ^= 1 << 61;
        }
    }

    /// A payload turned out not to be here: what names it lacks it, and what only waited to be covered goes without it.
    fn lose(&mut self, hash: ContentHash) {
        self.files.remove(&hash);
        self.payload_bytes -= self.rows.remove(&hash).unwrap_or(0);
        for retained in self.retained.values_mut() {
            retained.retain(|version| version.content.payload().is_none_or(|payload| payload.hash != hash));
        }
        self.settle(hash);
    }

    /// Payloads that are said to be here, and whose bytes are others.
    fn rotten(&self) -> Vec<ContentHash> {
        let rotten = self.files.iter().filter(|(hash, bytes)| self.has_row(**hash) && bytes.hash() != **hash);
        rotten.map(|(hash, _)| *hash).collect()
    }

    /// Nobody's payloads are swept at a start, and files without rows.
    fn sweep(&mut self) {
        let all: Vec<ContentHash> = self.rows.keys().copied().collect();
        all.into_iter().for_each(|hash| self.settle(hash));
        self.unclaimed.clear();
        self.files.retain(|hash, _| self.rows.contains_key(hash));
        if self.plant == Some(Plant::CollectTombstones) {
            self.records.retain(|_, (_, record)| record.winner().is_some_and(|winner| winner.content != Content::Tombstone));
        }
    }

    /// All records.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&RecordKey, &Record)> {
        self.records.iter().map(|(key, (_, record))| (key, record))
    }

    /// The message history.
    pub(crate) fn history(&self) -> &MemoryHistory {
        &self.history
    }

    /// The files of payloads.
    pub(crate) fn files(&self) -> &BTreeMap<ContentHash, Bytes> {
        &self.files
    }

    /// The payloads that are said to be here.
    pub(crate) fn rows(&self) -> impl Iterator<Item = ContentHash> {
        self.rows.keys().copied()
    }

    /// Whether a payload is said to be here.
    pub(crate) fn has_row(&self, hash: ContentHash) -> bool {
        self.rows.contains_key(&hash)
    }

    /// Whether a payload is here as it was written.
    pub(crate) fn is_sound(&self, hash: ContentHash) -> bool {
        self.has_row(hash) && self.files.get(&hash).is_some_and(|bytes| bytes.hash() == hash)
    }

    /// A payload that is said to be here and has no file.
    pub(crate) fn unfounded(&self) -> Option<ContentHash> {
        self.rows.keys().find(|hash| !self.files.contains_key(hash)).copied()
    }

    fn lookup(&self, key: RecordKey) -> Option<Record> {
        let own = self.records.get(&key).map(|(_, record)| record.clone());
        own.or_else(|| self.base.as_ref().and_then(|base| base.record(key)))
    }

    /// The items from `from` on, in the order of their keys: those of the base where the disk has nothing newer.
    fn items(&self, from: RecordKey) -> impl Iterator<Item = (RecordKey, Item)> {
        let item = |(key, (state, _)): (&RecordKey, &(StateHash, Record))| (*key, Item { key: key.hash, state: *state });
        let mut own = self.records.range(from..).map(item).peekable();
        let mut below = self.base.iter().flat_map(move |base| base.items(from)).peekable();
        std::iter::from_fn(move || match (own.peek(), below.peek()) {
            (Some((mine, _)), Some((theirs, _))) if mine == theirs => {
                below.next();
                own.next()
            }
            (Some((mine, _)), Some((theirs, _))) if mine > theirs => below.next(),
            (None, Some(_)) => below.next(),
            (Some(_), _) | (None, None) => own.next(),
        })
    }

    fn record(&self, key: RecordKey) -> Record {
        self.lookup(key).unwrap_or_default()
    }
}

fn hashes(versions: &[Version]) -> Vec<ContentHash> {
    versions.iter().filter_map(|version| version.content.payload()).map(|payload| payload.hash).collect()
}

/// The core's view of a disk.
#[derive(Debug, Clone)]
pub(crate) struct View(Rc<RefCell<Platter>>);

impl Store for View {
    fn record(&self, key: RecordKey) -> Result<Option<Record>, StoreFault> {
        Ok(self.0.borrow().lookup(key))
    }

    fn keys(&self, hash: KeyHash) -> Result<Vec<RecordKey>, StoreFault> {
        let platter = self.0.borrow();
        Ok(platter.items(first_key(hash)).map(|(key, _)| key).take_while(|key| key.hash == hash).collect())
    }

    fn items(&self, from: RecordKey, limit: usize) -> Result<Vec<(RecordKey, Item)>, StoreFault> {
        let platter = self.0.borrow();
        Ok(platter.items(from).take(limit).collect())
    }

    fn holds(&self, hash: ContentHash) -> Result<bool, StoreFault> {
        let platter = self.0.borrow();
        Ok(platter.rows.contains_key(&hash) || platter.plant == Some(Plant::HoldsEverything))
    }

    fn missing(&self, after: Option<ContentHash>, limit: usize) -> Result<Vec<Missing>, StoreFault> {
        let platter = self.0.borrow();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(platter.missing.range((from, Bound::Unbounded)).take(limit).map(|(_, missing)| missing.clone()).collect())
    }

    fn payload_bytes(&self) -> Result<u64, StoreFault> {
        Ok(self.0.borrow().payload_bytes)
    }

    fn history(&self) -> &dyn HistoryStore {
        self
    }
}

impl HistoryStore for View {
    fn remembered(&self) -> Result<Remembered, StoreFault> {
        self.0.borrow().history.remembered()
    }

    fn slots(&self, from: u64, limit: usize) -> Result<Vec<(u64, Batch)>, StoreFault> {
        self.0.borrow().history.slots(from, limit)
    }

    fn places(&self, from: u64, limit: usize) -> Result<Vec<Place>, StoreFault> {
        self.0.borrow().history.places(from, limit)
    }

    fn place(&self, id: MessageId) -> Result<Option<Place>, StoreFault> {
        self.0.borrow().history.place(id)
    }

    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreFault> {
        self.0.borrow().history.message(id)
    }

    fn first_index_after(&self, slot: u64) -> Result<u64, StoreFault> {
        self.0.borrow().history.first_index_after(slot)
    }
}

/// A disk.
#[derive(Debug)]
pub(crate) struct Disk {
    platter: Rc<RefCell<Platter>>,
    queue: VecDeque<Queued>,
    /// How much of the queue the fsync under way covers.
    syncing: Option<usize>,
    plant: Option<Plant>,
}

impl Disk {
    pub(crate) fn new(plant: Option<Plant>) -> Self {
        let platter = Platter { incarnation: 0, plant, ..Platter::default() };
        Self { platter: Rc::new(RefCell::new(platter)), queue: VecDeque::new(), syncing: None, plant }
    }

    /// The message history on it.
    pub(crate) fn history(&self) -> Ref<'_, MemoryHistory> {
        Ref::map(self.platter.borrow(), |platter| &platter.history)
    }

    pub(crate) fn view(&self) -> View {
        View(Rc::clone(&self.platter))
    }

    /// A start: sweeps, and raises the incarnation durably.
    pub(crate) fn open(&mut self) -> (u64, Vec<Member>, Vec<String>) {
        let mut platter = self.platter.borrow_mut();
        platter.sweep();
        if self.plant != Some(Plant::SameIncarnation) || platter.incarnation == 0 {
            platter.incarnation += 1;
        }
        (platter.incarnation, platter.members.values().cloned().collect(), platter.contacts.clone())
    }

    /// Lies over records that were there before.
    pub(crate) fn lay_over(&self, base: &Rc<Base>) {
        self.platter.borrow_mut().base = Some(Rc::clone(base));
    }

    /// Members known from an earlier life.
    pub(crate) fn remember(&mut self, members: Vec<Member>) {
        self.platter.borrow_mut().members = members.into_iter().map(|member| (member.id, member)).collect();
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.platter.borrow().incarnation
    }

    /// What is durable, kept elsewhere.
    pub(crate) fn image(&self) -> Platter {
        Platter { pins: BTreeMap::new(), ..self.platter.borrow().clone() }
    }

    /// Only that is durable now. Gives what was.
    pub(crate) fn put_back(&mut self, image: Platter) -> Platter {
        (self.queue, self.syncing) = (VecDeque::new(), None);
        self.platter.replace(image)
    }

    /// Another key is taken: lives are counted afresh.
    pub(crate) fn take_key(&mut self) {
        self.platter.borrow_mut().incarnation = 0;
    }

    /// Queues something.
    pub(crate) fn queue(&mut self, mut queued: Queued) {
        if let (Some(Plant::LostUpdate), Queued::Persist(persist)) = (self.plant, &mut queued) {
            let waits = |key: RecordKey| {
                self.queue.iter().any(|queued| match queued {
                    Queued::File { .. } | Queued::Row { .. } | Queued::Unlink(_) => false,
                    Queued::Persist(earlier) => earlier.records.iter().any(|change| change.key == key),
                })
            };
            persist.records.retain(|change| !waits(change.key));
        }
        self.queue.push_back(queued);
    }

    /// Queues a payload that came: its file, and the row behind it.
    pub(crate) fn queue_payload(&mut self, name: ContentHash, bytes: Bytes, transfer: Option<TransferId>) {
        let (file, row) = (Queued::File { name, bytes }, Queued::Row { name, size: bytes.size, transfer });
        let (first, second) = if self.plant == Some(Plant::RowBeforeFile) { (row, file) } else { (file, row) };
        self.queue.extend([first, second]);
    }

    /// Begins an fsync of everything queued, unless there is nothing or one is under way.
    pub(crate) fn begin(&mut self) -> bool {
        let begins = self.syncing.is_none() && !self.queue.is_empty();
        if begins {
            self.syncing = Some(self.queue.len());
        }
        begins
    }

    /// The fsync is done: gives what became durable.
    pub(crate) fn finish(&mut self) -> Vec<Committed> {
        let count = self.syncing.take().unwrap_or(0);
        self.commit(count)
    }

    /// The process is gone. `count` of what waited reached the disk; gives it, and how much was lost.
    pub(crate) fn crash(&mut self, count: usize) -> (Vec<Committed>, usize) {
        self.syncing = None;
        let kept = self.commit(count.min(self.queue.len()));
        let lost = self.queue.len();
        self.queue.clear();
        self.platter.borrow_mut().pins.clear();
        (kept, lost)
    }

    fn commit(&mut self, count: usize) -> Vec<Committed> {
        let mut platter = self.platter.borrow_mut();
        let committed = self.queue.drain(..count).map(|queued| platter.apply(queued)).collect();
        self.queue.extend(platter.unclaimed.drain(..).map(Queued::Unlink));
        committed
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next persist that waits, if one does.
    pub(crate) fn next_persist(&self) -> Option<gossip_cdn_protocol::io::Token> {
        self.queue.iter().find_map(|queued| match queued {
            Queued::File { .. } | Queued::Row { .. } | Queued::Unlink(_) => None,
            Queued::Persist(persist) => Some(persist.token),
        })
    }

    /// An upload holds on to a payload.
    pub(crate) fn pin(&self, hash: ContentHash) {
        *self.platter.borrow_mut().pins.entry(hash).or_default() += 1;
    }

    /// An upload lets go.
    pub(crate) fn unpin(&mut self, hash: ContentHash) {
        let mut platter = self.platter.borrow_mut();
        if let Some(pins) = platter.pins.get_mut(&hash) {
            *pins -= 1;
            if *pins == 0 {
                platter.pins.remove(&hash);
                platter.settle(hash);
            }
        }
        self.queue.extend(platter.unclaimed.drain(..).map(Queued::Unlink));
    }

    /// The bytes of a payload that is here.
    pub(crate) fn bytes(&self, hash: ContentHash) -> Option<Bytes> {
        let platter = self.platter.borrow();
        platter.files.get(&hash).copied().filter(|_| platter.rows.contains_key(&hash))
    }

    /// The bytes that are here of a payload rot, unless an upload is about to name them: that is, has just written them.
    pub(crate) fn rot(&mut self, hash: ContentHash) {
        let mut platter = self.platter.borrow_mut();
        if platter.is_sound(hash) && !platter.pins.contains_key(&hash) {
            platter.rot(hash);
        }
    }

    /// Payloads whose bytes have rotted.
    pub(crate) fn rotten(&self) -> Vec<ContentHash> {
        self.platter.borrow().rotten()
    }

    /// Somebody found that a payload is not here.
    pub(crate) fn lose(&mut self, hash: ContentHash) {
        if self.plant != Some(Plant::RotIgnored) {
            self.platter.borrow_mut().lose(hash);
        }
    }

    /// The durable record of a key; empty if there is none.
    pub(crate) fn record(&self, key: RecordKey) -> Record {
        self.platter.borrow().record(key)
    }

    /// Whether a payload is here or on its way to the disk.
    pub(crate) fn expects(&self, hash: ContentHash) -> bool {
        let queued = |queued: &Queued| matches!(queued, Queued::Row { name, .. } if *name == hash);
        self.bytes(hash).is_some() || self.queue.iter().any(queued)
    }

    /// A payload that is missing, the first behind `after`.
    pub(crate) fn lacks(&self, after: ContentHash) -> Option<Missing> {
        self.platter.borrow().missing.range(after..).next().map(|(_, missing)| missing.clone())
    }

    /// What is durable, to be looked at.
    pub(crate) fn platter(&self) -> Ref<'_, Platter> {
        self.platter.borrow()
    }
}
