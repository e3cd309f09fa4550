//! What a node keeps: records, members, messages and small payloads in one database, large payloads in files beside it.
//!
//! ```text
//!  core's Persist, payload rows ──> bounded queue ──> Writer (one thread) ──> one transaction, synchronised ──> answers
//!                                                       │ most of the time
//!                                                       └──> journal, one fsync ──> answers; in memory until the tables have it with many others
//!  clients' bytes ──> Upload ───────────┐
//!  peers' bytes ────> Incoming ─────────┴──> files, durable before their rows; unlinked when nobody claims them
//!  readers ─────────> short read transactions, open files
//! ```
//!
//! 1. What was acknowledged is on disk: an answer follows its commit, in the database or in the journal; a commit covers a prefix of the queue.
//! 2. A record is never durable before the payload its writer uploaded.
//! 3. A payload file has its name only when its bytes are on disk, and its row only after that.
//! 4. Readers see committed state only, and never wait for the writer.
//! 5. After a fault of the disk nothing is written and what is here is read on, until the store is opened again ([`Store::reopen`]).
//!
//! | room | subject |
//! |---|---|
//! | `folder` | layout, lock, card, files |
//! | `tables`, `encoding` | names, keys and values of the database; records in bytes |
//! | `writer`, `commit`, `indexes` | the queue and the batches; what one commit changes; the indexes of lists |
//! | `pins` | what must not be collected |
//! | `upload`, `tree`, `payloads` | bytes in, bytes out |
//! | `verified`, `damage` | which payloads were read right since the start, and what becomes of those that were not |
//! | `incoming`, `arrivals`, `arriving`, `traffic` | large payloads on their way from peers: transfers, what is here of them, readers |
//! | `rows` | rows of records that are not what was written |
//! | `scrub` | what a scrub needs of the store |
//! | `list` | pages of blobs |
//! | `history` | messages: what is kept, decided and delivered |
//! | `journal`, `replay` | what is durable before the database has it so; records and payloads in it |
//! | `fresh`, `settling` | uploads that the journal has and the tables do not yet; how they come there |
//! | `base`, `overlay`, `condition`, `faults` | the database's file: opened, failed, read without being written, opened again |
//! | `opening`, `counting` | the first transaction: identity, incarnation, sweep; the summary of the records at start |

mod arrivals;
mod arriving;
mod base;
mod commit;
mod condition;
mod counting;
mod damage;
mod direct;
mod encoding;
mod faults;
#[cfg(test)]
mod fixture;
mod folder;
mod fresh;
mod history;
mod incoming;
mod indexes;
mod journal;
mod list;
mod opening;
mod overlay;
mod payloads;
mod pins;
mod replay;
mod rows;
mod scrub;
mod settling;
mod tables;
mod traffic;
mod tree;
mod upload;
mod verified;
mod writer;

use std::io;
use std::ops::{Range, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gossip_cdn_protocol::item::{Item, ItemHasher, KeyHash, RecordKey, StateHash};
use gossip_cdn_protocol::sketch::SketchHasher;
use gossip_cdn_protocol::store::Missing;
use gossip_cdn_protocol::summary::Summary;
use gossip_cdn_protocol::{BlobId, ContentHash, Member, NodeId, Persist, Record, StoreFault};
use redb::{Error, ReadTransaction};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

pub use arriving::{Arriving, Stalled};
pub use condition::Ailment;
pub use damage::DamageCounts;
pub use folder::OpenError;
pub use history::{History, HistorySize, PAGE_BYTES};
pub use incoming::{Incoming, Next, Part, ReceiveFault};
pub use list::{ListFault, ListPage, ListQuery, Order, Which};
pub use payloads::{FirstReading, PayloadReader, PutFault, ReadFault};
pub use pins::Pin;
pub use scrub::{Inspection, ScrubState, Steps};
pub use traffic::TrafficCounts;
pub use upload::{Stored, Upload};
pub use writer::Writer;

use arrivals::Arrivals;
use base::Base;
use damage::{Damages, Evidence};
use faults::Faults;
use folder::Folder;
use fresh::{Fresh, Rows, merged};
use pins::Pins;
use traffic::Traffic;
use verified::Verified;
use writer::{PayloadRow, Queue, Request};

/// Largest payload kept inside the database, in bytes; larger ones are files. A value takes the next power of two of key, value and 8
/// bytes, so this is just below one.
pub const INLINE_MAX: usize = 65_472;
// What peers ask for in batches is exactly what is kept inside the database.
const _: () = assert!(INLINE_MAX as u64 == gossip_cdn_protocol::transfer::SMALL);

/// Room on a disk that was full, in bytes, with which it is written again. A guess: some commits of the greatest size.
const ENOUGH: u64 = 64 << 20;

/// How much of the disk is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// 5 % of the disk or 1 GiB, whichever is less.
    #[default]
    Usual,
    /// That many bytes.
    Bytes(u64),
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster the folder belongs to.
    pub cluster: String,
    /// Memory for the database's pages, in bytes.
    pub cache_bytes: usize,
    /// Disk space that uploads leave free.
    pub reserve: Reserve,
    /// An Ed25519 seed from a good source, for a folder that is new or restored.
    pub fresh_key: [u8; 32],
    /// The folder is a copy or came from a backup: it keeps its blobs and takes a new key.
    pub restored: bool,
}

/// Who this node is.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Ed25519 seed.
    pub secret: [u8; 32],
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// The id made from it.
    pub id: NodeId,
    /// The number of this life: greater than that of any before.
    pub incarnation: u64,
}

impl Identity {
    /// Of that key, in that life.
    fn new(secret: [u8; 32], incarnation: u64) -> Self {
        let public = SigningKey::from_bytes(&secret).verifying_key().to_bytes();
        Self { secret, public, id: NodeId::from_public_key(&public), incarnation }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// How much is stored, as of the last commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Blobs that are not deleted.
    pub live_blobs: u64,
    /// Blobs that are.
    pub tombstones: u64,
    /// Blobs, of both kinds, with several live versions.
    #[serde(default)]
    pub conflicts: u64,
    /// Payloads here.
    pub payloads: u64,
    /// Their bytes.
    pub payload_bytes: u64,
    /// Payloads whose copy here was damaged, and that no other node has given back yet.
    #[serde(default)]
    pub damaged: u64,
}

/// The disk that the folder is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes free, the reserve included.
    pub free: u64,
    /// Bytes of them that uploads leave alone.
    pub reserve: u64,
}

/// A time in which nothing that was queued was lost: it ends when the store fails and is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life(u64);

struct Shared {
    queue: Queue,
    pins: Pins,
    arrivals: Arrivals,
    traffic: Traffic,
    verified: Verified,
    damages: Damages,
    opened: tokio::time::Instant,
    usage: Mutex<Usage>,
    /// Since the start.
    commits: AtomicU64,
    identity: Mutex<Identity>,
    /// Replaced, never changed while somebody reads it.
    tail: Mutex<Arc<history::Tail>>,
    fresh: Fresh,
    /// How often the store was opened since the start. What was queued in one life is not written in a later one.
    lives: AtomicU64,
    hasher: ItemHasher,
    options: Options,
    database: Base,
    // Last: the folder stays locked until the database is closed.
    folder: Folder,
}

/// The store of a node. Clones are handles to the same one; the folder stays locked until the last is gone, and the [`Writer`] too.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.shared.folder.dir()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the folder, making what is missing: locks it, checks it, raises the incarnation durably, sweeps what a crash left.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Writer), OpenError> {
        Self::open_with(dir, options, Faults::default())
    }

    /// The same on a disk that may fail.
    fn open_with(dir: &Path, options: Options, faults: Faults) -> Result<(Self, Writer), OpenError> {
        let (shared, requests, journal) = opening::open(dir, options, faults)?;
        let shared = Arc::new(shared);
        Ok((Self { shared: Arc::clone(&shared) }, Writer::new(shared, requests, journal)))
    }

    /// Opens the store again, in a new life, behind everything that is queued and refused. What reads it meanwhile finds a fault. The store
    /// counts as ailing until [`Self::recovered`].
    pub async fn reopen(&self) -> Result<(), StoreFault> {
        let (reply, reopened) = oneshot::channel();
        self.shared.queue.send(Request::Reopen(reply)).await?;
        reopened.await.unwrap_or_else(|_| Err(StoreFault("the writer is gone".to_owned())))
    }

    /// Whoever needed it has read a store that was opened again.
    pub fn recovered(&self) {
        self.shared.database.condition().recover();
    }

    /// Why nothing can be written at this moment.
    pub fn ailment(&self) -> Option<Ailment> {
        self.shared.database.condition().ailment()
    }

    /// Tells when that changes.
    pub fn ailing(&self) -> watch::Receiver<Option<Ailment>> {
        self.shared.database.condition().watch()
    }

    /// Whether it failed for want of room, and there is still hardly any: less than the reserve, and than what a few commits take.
    pub fn is_too_full(&self) -> bool {
        let wanted = |disk: Disk| disk.reserve.min(ENOUGH);
        self.ailment().is_some_and(|ailment| ailment.no_room) && self.disk().is_ok_and(|disk| disk.free < wanted(disk))
    }

    /// How often the store failed since the start, and how often it was opened again.
    pub fn faults(&self) -> (u64, u64) {
        self.shared.database.condition().counts()
    }

    /// The number of the store's present life since the start, which [`Self::reopen`] raises.
    pub fn life(&self) -> Life {
        self.shared.life()
    }

    /// Who this node is: since this opening, or since it took another key.
    pub fn identity(&self) -> Identity {
        lock(&self.shared.identity).clone()
    }

    /// Takes another key, made from a seed of a good source, behind everything that is queued. It holds when this returns.
    pub async fn take_key(&self, secret: [u8; 32]) -> Result<(), StoreFault> {
        let (reply, durable) = oneshot::channel();
        self.shared.queue.send(Request::Key(secret, reply)).await?;
        durable.await.unwrap_or_else(|_| Err(StoreFault("the writer is gone".to_owned())))
    }

    /// The member claims that were persisted, in the order of node ids.
    pub fn members(&self) -> Result<Vec<Member>, StoreFault> {
        let read = || -> Result<Vec<Member>, Error> {
            let table = self.shared.database.begin_read()?.open_table(tables::MEMBERS)?;
            table.range::<&[u8; 16]>(..)?.map(|row| tables::from_json(row?.1.value())).collect()
        };
        reading(read)
    }

    /// The addresses introduced by hand that never answered.
    pub fn contacts(&self) -> Result<Vec<String>, StoreFault> {
        let read = || tables::meta(&self.shared.database.begin_read()?, tables::CONTACTS);
        read().map(Option::unwrap_or_default).map_err(fault)
    }

    /// Queues one atomic change behind all earlier ones, and with it the bytes that waited for its records; waits while the queue is full. The receiver
    /// yields when it is on disk.
    pub async fn persist(&self, persist: Persist) -> oneshot::Receiver<Result<(), StoreFault>> {
        let (reply, durable) = oneshot::channel();
        let payloads = self.shared.take_waiting(&persist);
        if let Err(fault) = self.shared.queue.send(Request::Persist(persist, payloads, reply)).await {
            // The request was answered with it.
            tracing::debug!(%fault, "a persist was refused");
        }
        durable
    }

    /// Takes no more changes; the writer commits what is queued and ends.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// Where the record of a blob stands, whether there is one or not.
    pub fn key(&self, blob: BlobId) -> RecordKey {
        self.shared.hasher.key(blob)
    }

    /// The committed record of a blob.
    pub fn blob(&self, blob: BlobId) -> Result<Option<Record>, StoreFault> {
        gossip_cdn_protocol::Store::record(self, self.key(blob))
    }

    /// The record of a blob as it is committed at this moment, and its payloads as of the same.
    pub fn moment(&self, blob: BlobId) -> Result<Option<(Record, Moment)>, StoreFault> {
        let (shared, key) = (Arc::clone(&self.shared), self.key(blob));
        reading(|| {
            if let Some((record, fresh)) = shared.fresh.blob(&tables::key_bytes(key))? {
                return Ok(Some((record, Moment { fresh, transaction: None, shared })));
            }
            let transaction = shared.database.begin_read()?;
            let record = record(&transaction, key)?;
            Ok(record.map(|record| (record, Moment { fresh: None, transaction: Some(transaction), shared })))
        })
    }

    /// A page of blobs.
    pub fn list(&self, query: &ListQuery) -> Result<ListPage, ListFault> {
        reading(|| Ok(list::page(&self.shared, query)))?
    }

    /// A payload, if it is here and, as far as it was read, what its name says. A small one that was not read since the start is checked
    /// now, a large one when its bytes are read.
    pub fn payload(&self, hash: ContentHash) -> Result<Option<PayloadReader>, StoreFault> {
        payloads::open(&self.shared, hash)
    }

    /// Begins to take a client's payload.
    pub fn upload(&self) -> Upload {
        Upload::new(Arc::clone(&self.shared))
    }

    /// Begins to take a large payload from one more peer, beside those at it and where earlier ones stopped. A fault if it is arriving
    /// in another size, or there is no room for what is missing of it. Blocks while what an earlier life left of it is read.
    pub fn incoming(&self, hash: ContentHash, size: u64) -> Result<Incoming, StoreFault> {
        incoming::begin(&self.shared, hash, size)
    }

    /// Takes a small payload from a peer; it is durable when this returns, unless no record claims it. Like an upload it does not touch
    /// the reserve: [`io::ErrorKind::StorageFull`].
    pub async fn put_verified(&self, hash: ContentHash, bytes: Bytes) -> Result<(), PutFault> {
        if bytes.len() > INLINE_MAX {
            return Err(PutFault::TooLarge);
        }
        if ContentHash::of(&bytes) != hash {
            self.shared.traffic.wrong(bytes.len() as u64);
            return Err(PutFault::WrongBytes);
        }
        let size = bytes.len() as u64;
        if gossip_cdn_protocol::Store::holds(self, hash)? {
            self.shared.traffic.redundant(size);
            return Ok(());
        }
        self.shared.require_room(size)?;
        let row = PayloadRow { hash, size, inline: Some(bytes), _pin: Pin::new(&self.shared, hash) };
        let (reply, durable) = oneshot::channel();
        self.shared.queue.send(Request::Payload(row, Some(reply))).await?;
        durable.await.unwrap_or_else(|_| Err(StoreFault("the writer is gone".to_owned())))?;
        self.shared.traffic.kept(size);
        Ok(())
    }

    /// A reader of a large payload that is arriving right now.
    pub fn arriving(&self, hash: ContentHash) -> Option<Arriving> {
        self.shared.arrivals.reader(hash)
    }

    /// Waits until the payload is arriving; for ever, if it never does.
    pub async fn next_arriving(&self, hash: ContentHash) -> Arriving {
        self.shared.arrivals.next_reader(hash).await
    }

    /// Writes a range of a payload to a peer in bao encoding, which begins and ends between groups. False: it is not here. Blocks.
    ///
    /// Every group is checked before it is written, so a damaged copy ends the stream with [`io::ErrorKind::InvalidData`].
    pub fn encode(&self, hash: ContentHash, range: Range<u64>, sink: impl io::Write) -> io::Result<bool> {
        payloads::encode(&self.shared, hash, &range, sink)
    }

    /// That many bytes came in a body that carries payloads.
    pub fn received(&self, bytes: usize) {
        self.shared.traffic.received(bytes as u64);
    }

    /// What came of payloads from other nodes since the start.
    pub fn traffic(&self) -> TrafficCounts {
        self.shared.traffic.counts()
    }

    /// Whether that many bytes can be stored without touching the reserve.
    pub fn room_for(&self, bytes: u64) -> io::Result<bool> {
        self.shared.room_for(bytes)
    }

    /// How much room there is.
    pub fn disk(&self) -> io::Result<Disk> {
        self.shared.disk()
    }

    /// What came of damage since the start.
    pub fn damage(&self) -> DamageCounts {
        self.shared.damages.counts()
    }

    /// How many commits were made since the start. Each is synchronised to the disk.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// How much is stored.
    pub fn usage(&self) -> Usage {
        lock(&self.shared.usage).clone()
    }
}

/// A blob as of one moment. To be dropped soon: pages of that moment are not used again before.
pub struct Moment {
    shared: Arc<Shared>,
    /// The winner's payload, if it was fresh.
    fresh: Option<fresh::Inline>,
    /// `None`: the record was fresh.
    transaction: Option<ReadTransaction>,
}

impl Moment {
    /// A payload of the blob, as [`Store::payload`] gives it.
    pub fn payload(self, hash: ContentHash) -> Result<Option<PayloadReader>, StoreFault> {
        match self.fresh {
            Some((fresh, bytes)) if fresh == hash => Ok(payloads::small(&self.shared, hash, bytes)),
            Some(_) | None => payloads::open_as_of(&self.shared, self.transaction, hash),
        }
    }
}

fn record(transaction: &ReadTransaction, key: RecordKey) -> Result<Option<Record>, Error> {
    let table = transaction.open_table(tables::RECORDS)?;
    table.get(&tables::key_bytes(key))?.map(|row| encoding::record_of(row.value())).transpose()
}

impl gossip_cdn_protocol::Store for Store {
    fn record(&self, key: RecordKey) -> Result<Option<Record>, StoreFault> {
        if let Some(row) = self.shared.fresh.record(&tables::key_bytes(key)) {
            return encoding::record_of(&row).map(Some).map_err(fault);
        }
        reading(|| record(&self.shared.database.begin_read()?, key))
    }

    fn keys(&self, hash: KeyHash) -> Result<Vec<RecordKey>, StoreFault> {
        let end = |blob| tables::key_bytes(RecordKey { hash, blob: BlobId(blob) });
        let (first, last) = (end(Uuid::nil()), end(Uuid::max()));
        let read = || -> Result<Vec<RecordKey>, Error> {
            let (transaction, fresh) = self.shared.beside(|rows| rows.records.range(first..=last).map(|(key, _)| (*key, ())).collect())?;
            let table = transaction.open_table(tables::RECORDS)?;
            let stored = table.range::<&[u8; 24]>(&first..=&last)?.map(|row| Ok((*row?.0.value(), ())));
            merged(fresh, stored).map(|row| Ok(tables::key_of(&row?.0))).collect()
        };
        reading(read)
    }

    fn items(&self, from: RecordKey, limit: usize) -> Result<Vec<(RecordKey, Item)>, StoreFault> {
        let read = || -> Result<Vec<(RecordKey, Item)>, Error> {
            let from = tables::key_bytes(from);
            let state = |rows: &Rows| rows.records.range(from..).take(limit).map(|(key, row)| (*key, encoding::state_of(row))).collect();
            let (transaction, fresh) = self.shared.beside(state)?;
            let table = transaction.open_table(tables::RECORDS)?;
            let stored = table.range::<&[u8; 24]>(&from..)?.map(|row| {
                let (key, row) = row?;
                Ok((*key.value(), encoding::state_of(row.value())))
            });
            merged(fresh, stored)
                .take(limit)
                .map(|row| {
                    let (key, state) = row?;
                    let key = tables::key_of(&key);
                    Ok((key, Item { key: key.hash, state: StateHash(state?) }))
                })
                .collect()
        };
        reading(read)
    }

    fn scan(&self, partitions: RangeInclusive<u8>, each: &mut dyn FnMut(Item)) -> Result<(), StoreFault> {
        let (first, last) = (KeyHash::first_of(*partitions.start()), KeyHash::last_of(*partitions.end()));
        let first = tables::key_bytes(RecordKey { hash: first, blob: BlobId(Uuid::nil()) });
        let last = tables::key_bytes(RecordKey { hash: last, blob: BlobId(Uuid::max()) });
        let read = || -> Result<(), Error> {
            let state = |rows: &Rows| rows.records.range(first..=last).map(|(key, row)| (*key, encoding::state_of(row))).collect();
            let (transaction, fresh) = self.shared.beside(state)?;
            for (key, state) in fresh {
                each(Item { key: tables::key_of(&key).hash, state: StateHash(state?) });
            }
            let table = transaction.open_table(tables::RECORDS)?;
            for row in table.range::<&[u8; 24]>(&first..=&last)? {
                let (key, value) = row?;
                each(Item { key: tables::key_of(key.value()).hash, state: StateHash(encoding::state_of(value.value())?) });
            }
            Ok(())
        };
        reading(read)
    }

    fn count(&self, hasher: &SketchHasher) -> Result<Summary, StoreFault> {
        counting::count(self, hasher)
    }

    fn records(&self, from: RecordKey, limit: usize, budget: usize) -> Result<Vec<(RecordKey, Record)>, StoreFault> {
        let read = || -> Result<Vec<(RecordKey, Record)>, Error> {
            let from = tables::key_bytes(from);
            let some = |rows: &Rows| rows.records.range(from..).take(limit).map(|(key, row)| (*key, row.clone())).collect();
            let (transaction, fresh) = self.shared.beside(some)?;
            let table = transaction.open_table(tables::RECORDS)?;
            let stored = table.range::<&[u8; 24]>(&from..)?.map(|row| {
                let (key, row) = row?;
                Ok((*key.value(), row.value().to_vec()))
            });
            let (mut records, mut bytes) = (Vec::new(), 0);
            for row in merged(fresh, stored).take(limit) {
                let (key, row) = row?;
                records.push((tables::key_of(&key), encoding::record_of(&row)?));
                bytes += row.len();
                if bytes >= budget {
                    break;
                }
            }
            Ok(records)
        };
        reading(read)
    }

    fn holds(&self, hash: ContentHash) -> Result<bool, StoreFault> {
        if self.shared.damages.is_noted(hash) {
            return Ok(false);
        }
        if self.shared.fresh.payload(hash).is_some() {
            return Ok(true);
        }
        let read = || -> Result<bool, Error> {
            let table = self.shared.database.begin_read()?.open_table(tables::PAYLOADS)?;
            Ok(table.get(&hash.0)?.is_some())
        };
        reading(read)
    }

    fn missing(&self, after: Option<ContentHash>, limit: usize) -> Result<Vec<Missing>, StoreFault> {
        use std::ops::Bound;
        let start = after.as_ref().map_or(Bound::Unbounded, |hash| Bound::Excluded(&hash.0));
        let read = || -> Result<Vec<Missing>, Error> {
            let table = self.shared.database.begin_read()?.open_table(tables::MISSING)?;
            let rows = table.range::<&[u8; 32]>((start, Bound::Unbounded))?;
            rows.take(limit)
                .map(|row| {
                    let (hash, value) = row?;
                    let (size, key) = value.value();
                    Ok(Missing { hash: ContentHash(*hash.value()), size, key: tables::key_of(key) })
                })
                .collect()
        };
        reading(read)
    }

    fn payload_bytes(&self) -> Result<u64, StoreFault> {
        Ok(self.usage().payload_bytes)
    }

    fn history(&self) -> &dyn gossip_cdn_protocol::history::disk::HistoryStore {
        self
    }
}

impl Shared {
    /// The copy of that payload is damaged: it is not here any more, and its rows go with the next commit.
    fn note_damage(&self, hash: ContentHash, evidence: Evidence) {
        self.verified.forget(hash);
        self.damages.note(hash, evidence);
        self.queue.wake();
    }

    /// The payloads that waited for these records: from here on they go where the records go, whoever lets go of their pins.
    fn take_waiting(self: &Arc<Self>, persist: &Persist) -> Vec<PayloadRow> {
        let versions = persist.records.iter().flat_map(|change| change.record.versions());
        let payloads = versions.filter_map(|version| version.content.payload());
        let rows = payloads.filter_map(|payload| {
            let (hash, bytes) = (payload.hash, self.pins.take_waiting(payload.hash)?);
            Some(PayloadRow { hash, size: bytes.len() as u64, inline: Some(bytes), _pin: Pin::new(self, hash) })
        });
        rows.collect()
    }

    /// Begins to read the tables; gives beside that what `take` wants of the fresh rows that they lack.
    fn beside<T>(&self, take: impl Fn(&Rows) -> Vec<T>) -> Result<(ReadTransaction, Vec<T>), Error> {
        self.fresh.beside(|| self.database.begin_read(), take)
    }

    fn life(&self) -> Life {
        Life(self.lives.load(Ordering::Relaxed))
    }

    fn disk(&self) -> io::Result<Disk> {
        let disk = rustix::fs::statvfs(self.folder.dir())?;
        let reserve = match self.options.reserve {
            Reserve::Usual => (disk.f_blocks.saturating_mul(disk.f_frsize) / 20).min(1 << 30),
            Reserve::Bytes(bytes) => bytes,
        };
        Ok(Disk { free: disk.f_bavail.saturating_mul(disk.f_frsize), reserve })
    }

    fn room_for(&self, bytes: u64) -> io::Result<bool> {
        let Disk { free, reserve } = self.disk()?;
        Ok(free >= bytes.saturating_add(reserve))
    }

    /// The same, as an error that callers pass on.
    fn require_room(&self, bytes: u64) -> io::Result<()> {
        if self.room_for(bytes)? { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

/// Reads the database. Where a page is not what was written redb may panic, and that is a fault like any other.
fn reading<T>(read: impl FnOnce() -> Result<T, Error>) -> Result<T, StoreFault> {
    unless_damaged(read).map_err(fault)
}

/// The same, as redb says it.
fn unless_damaged<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let damaged = |_| Err(Error::Corrupted("a page of the database is damaged".to_owned()));
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(damaged)
}

/// What redb says, for whom it concerns.
fn fault(error: Error) -> StoreFault {
    StoreFault(error.to_string())
}

/// Locks; a panic elsewhere leaves these small values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::records::{first_key, next_key};
    use gossip_cdn_protocol::{Content, MemberState, PublicKey, Store as _};

    use super::fixture::{CLUSTER, Fixture, blob, content, noise, persist, write};
    use super::*;

    #[tokio::test]
    async fn a_scan_of_items_equals_the_records() {
        let fixture = Fixture::new();
        let hasher = ItemHasher::new(CLUSTER);
        let mut expected = Vec::new();
        for n in 0..50 {
            let mut record = write(&Record::default(), 1, 5 + n, content(&[1], Some("name")));
            if n % 3 == 0 {
                record = write(&record, 2, 100 + n, Content::Tombstone);
            }
            fixture.persist(&[(blob(u128::from(n)), &record)]).await;
            expected.push((hasher.key(blob(u128::from(n))), hasher.item(blob(u128::from(n)), &record)));
        }
        expected.sort_unstable();
        let fixture = fixture.after_a_crash();
        for limit in [1, 7, 50, 51] {
            let mut found = Vec::new();
            let mut from = Some(first_key(KeyHash(0)));
            while let Some(start) = from {
                let page = fixture.store.items(start, limit).unwrap();
                from = page.last().and_then(|(key, _)| next_key(*key));
                found.extend(page);
            }
            assert_eq!(found, expected);
        }
        for (key, _) in &expected {
            assert_eq!(fixture.store.keys(key.hash).unwrap(), [*key]);
            assert_eq!(fixture.store.record(*key).unwrap(), fixture.store.blob(key.blob).unwrap());
        }
        assert_eq!(fixture.store.keys(KeyHash(1)).unwrap(), []);
        assert_eq!(fixture.store.blob(blob(1000)).unwrap(), None);
    }

    #[tokio::test]
    async fn keys_whose_hashes_collide_are_all_found() {
        let fixture = Fixture::new();
        let record = write(&Record::default(), 1, 5, content(&[1], None));
        let mut change = persist(&[(blob(1), &record), (blob(2), &record)]);
        change.records.iter_mut().for_each(|change| change.key.hash = KeyHash(7));
        let keys: Vec<RecordKey> = change.records.iter().map(|change| change.key).collect();
        fixture.store.persist(change).await.await.unwrap().unwrap();
        assert_eq!(fixture.store.keys(KeyHash(7)).unwrap(), keys);
    }

    #[tokio::test]
    async fn members_and_contacts_read_back_after_a_crash() {
        let fixture = Fixture::new();
        let member = |n: u8, incarnation| Member {
            id: NodeId::from_public_key(&[n; 32]),
            address: format!("http://127.0.0.1:{n}"),
            incarnation,
            state: MemberState::Alive,
            key: PublicKey([n; 32]),
        };
        assert_eq!(fixture.store.contacts().unwrap(), Vec::<String>::new());
        let mut change = Persist { members: vec![member(1, 1), member(2, 1)], contacts: Some(vec!["http://a".into()]), ..persist(&[]) };
        fixture.store.persist(change.clone()).await.await.unwrap().unwrap();
        change.members = vec![member(2, 5)];
        change.contacts = None;
        fixture.store.persist(change).await.await.unwrap().unwrap();
        let fixture = fixture.after_a_crash();
        let mut expected = vec![member(1, 1), member(2, 5)];
        expected.sort_unstable_by_key(|member| member.id);
        assert_eq!(fixture.store.members().unwrap(), expected);
        assert_eq!(fixture.store.contacts().unwrap(), ["http://a"]);
    }

    #[tokio::test]
    async fn small_payloads_from_peers_leave_the_reserve_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), Options { reserve: Reserve::Bytes(u64::MAX / 2), ..fixture::options() }).unwrap();
        let writer = fixture::start(writer);
        let refused = store.put_verified(ContentHash::of(b"right"), Bytes::from_static(b"right")).await;
        assert!(matches!(refused, Err(PutFault::Local(error)) if error.kind() == io::ErrorKind::StorageFull));
        store.close();
        writer.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn small_payloads_from_peers_are_checked() {
        let fixture = Fixture::new();
        let record = write(&Record::default(), 1, 5, content(b"right", None));
        fixture.persist(&[(blob(1), &record)]).await;
        let hash = ContentHash::of(b"right");
        assert!(matches!(fixture.store.put_verified(hash, Bytes::from_static(b"wrong")).await, Err(PutFault::WrongBytes)));
        let large = noise(INLINE_MAX + 1, 1);
        assert!(matches!(fixture.store.put_verified(ContentHash::of(&large), large.into()).await, Err(PutFault::TooLarge)));
        assert!(!fixture.store.holds(hash).unwrap());
        fixture.store.put_verified(hash, Bytes::from_static(b"right")).await.unwrap();
        let fixture = fixture.after_a_crash();
        assert!(fixture.store.holds(hash).unwrap());
        assert_eq!(fixture.store.payload_bytes(), Ok(5));
    }
}
