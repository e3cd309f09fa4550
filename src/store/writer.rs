//! The one writer: takes requests from a bounded queue, commits them in batches, then answers them all (group commit).
//!
//! A batch goes into the journal. One of messages is then read from memory, and so is one of uploads of which nothing was known ([`super::fresh`]); one of
//! other records and payloads is committed without waiting for the disk. The database has it durably with many others: when the journal has become long, when
//! a batch comes that does not fit into it or has something that the journal does not take ([`super::replay`]), and at the end.
//!
//! 1. Requests are made durable in the order in which they were queued: a commit covers a prefix of the queue.
//! 2. A request is answered only after its commit is on disk. Then readers see it.
//! 3. After a fault nothing more is written: the batch and everything behind it get that fault, until the store is opened again at somebody's
//!    wish ([`super::Store::reopen`]). What was queued before that wish is not written after it.
//! 4. Files are unlinked only after the commit that removed their rows, on disk in the database itself.
//! 5. The database takes what the journal has in its order: every commit that is on disk takes all that is before it.
//! 6. While a long journal of uploads goes into the database beside, on a thread that ends with that commit, later batches go into the journal's other
//!    half. Whatever else needs the database waits for that commit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};

use bytes::Bytes;
use gossip_cdn_protocol::history::disk::Change;
use gossip_cdn_protocol::{ContentHash, Persist, StoreFault};
use redb::{Database, Durability, Error, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::commit::{Batch, Damaged, Outcome};
use super::condition::Ailment;
use super::damage::Noted;
use super::fresh::Rows;
use super::history::{self, Front};
use super::journal::{HALF, Journal};
use super::pins::Pin;
use super::settling::{self, Settling};
use super::tables::{self, Tables};
use super::{Shared, fault, lock, opening, replay, unless_damaged};

/// Most requests in the queue; who finds it full waits. Two full batches: one being committed, one behind it.
const QUEUE: usize = 2048;
/// Most requests in a batch. A guess, about what arrives during an fsync of a slow disk.
const MAX_REQUESTS: usize = 1024;
/// A batch takes no more requests once it holds about this many bytes.
const MAX_BYTES: usize = 16 << 20;
/// The database takes what the journal has once that is so long: the more at once, the less each costs, and the longer does it take.
const LONG: usize = HALF - MAX_RECORD;
/// The same where messages are among it: rows of the history are neighbours anyway, and its readers and voters wait for less.
const LONG_HISTORY: usize = 4 << 20;
/// A record of the journal that is longer goes into the database at once: it is in few pieces there anyway.
const MAX_RECORD: usize = 1 << 20;
/// What a record weighs in a batch: about its rows.
const RECORD_BYTES: usize = 1024;

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<(), StoreFault>>;

/// A payload whose bytes are here: in this value if they are few, else durably in its file.
pub(super) struct PayloadRow {
    pub(super) hash: ContentHash,
    pub(super) size: u64,
    pub(super) inline: Option<Bytes>,
    /// Keeps the file from being unlinked by an earlier collection until the row is committed.
    pub(super) _pin: Pin,
}

pub(super) enum Request {
    /// With the payloads that waited for its records.
    Persist(Persist, Vec<PayloadRow>, Reply),
    Payload(PayloadRow, Option<Reply>),
    /// This node takes that Ed25519 seed for a key and begins its lives anew.
    Key([u8; 32], Reply),
    /// How far the scrub is.
    Scrub(Vec<u8>, Reply),
    /// The store is to be opened again.
    Reopen(Reply),
    /// Some pin is gone: look at what it kept.
    Wake,
}

impl Request {
    fn weight(&self) -> usize {
        match self {
            Self::Persist(persist, ..) => {
                (persist.records.len() + persist.members.len()) * RECORD_BYTES + history::weight(&persist.history)
            }
            Self::Payload(row, _) => row.inline.as_ref().map_or(0, Bytes::len),
            Self::Key(..) | Self::Scrub(..) | Self::Reopen(_) | Self::Wake => 0,
        }
    }

    /// Whether it changes nothing but the message history, if anything.
    fn is_history_alone(&self) -> bool {
        match self {
            Self::Persist(persist, ..) => persist.is_history_alone(),
            Self::Payload(..) | Self::Key(..) | Self::Scrub(..) | Self::Reopen(_) => false,
            Self::Wake => true,
        }
    }

    /// What it changes of the message history.
    fn history(&self) -> &[Change] {
        match self {
            Self::Persist(persist, ..) => &persist.history,
            Self::Payload(..) | Self::Key(..) | Self::Scrub(..) | Self::Reopen(_) | Self::Wake => &[],
        }
    }

    fn take_history(&mut self) -> Vec<Change> {
        match self {
            Self::Persist(persist, ..) => std::mem::take(&mut persist.history),
            Self::Payload(..) | Self::Key(..) | Self::Scrub(..) | Self::Reopen(_) | Self::Wake => vec![],
        }
    }

    /// The payloads that come with it, each as a request of its own.
    fn take_payloads(&mut self) -> Vec<Self> {
        let rows = match self {
            Self::Persist(_, rows, _) => std::mem::take(rows),
            Self::Payload(..) | Self::Key(..) | Self::Scrub(..) | Self::Reopen(_) | Self::Wake => vec![],
        };
        rows.into_iter().map(|row| Self::Payload(row, None)).collect()
    }

    fn reply(self) -> Option<Reply> {
        match self {
            Self::Persist(.., reply) | Self::Key(_, reply) | Self::Scrub(_, reply) | Self::Reopen(reply) => Some(reply),
            Self::Payload(_, reply) => reply,
            Self::Wake => None,
        }
    }
}

/// The end of the queue that requests go into.
pub(super) struct Queue {
    sender: Mutex<Option<mpsc::Sender<Request>>>,
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender: Mutex::new(Some(sender)) }, receiver)
    }

    /// Queues a request; waits for room.
    pub(super) async fn send(&self, request: Request) -> Result<(), StoreFault> {
        let Some(sender) = self.sender() else { return Err(refuse(request)) };
        match sender.send(request).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendError(request)) => Err(refuse(request)),
        }
    }

    /// The same, from the blocking pool.
    pub(super) fn blocking_send(&self, request: Request) -> Result<(), StoreFault> {
        let Some(sender) = self.sender() else { return Err(refuse(request)) };
        sender.blocking_send(request).map_err(|mpsc::error::SendError(request)| refuse(request))
    }

    /// Makes the writer look at released pins. A full queue does not need to be told: its next batch looks anyway.
    pub(super) fn wake(&self) {
        if let Some(sender) = self.sender()
            && let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(Request::Wake)
        {
            tracing::trace!("a pin outlived the writer; the next start sweeps what it kept");
        }
    }

    /// No more requests: the writer ends when it has committed those it has.
    pub(super) fn close(&self) {
        lock(&self.sender).take();
    }

    fn sender(&self) -> Option<mpsc::Sender<Request>> {
        lock(&self.sender).clone()
    }
}

/// The queue is closed.
fn refuse(request: Request) -> StoreFault {
    let fault = StoreFault("it is closed".to_owned());
    answer(request, Err(fault.clone()));
    fault
}

fn answer(request: Request, result: Result<(), StoreFault>) {
    if let Some(reply) = request.reply()
        && reply.send(result).is_err()
    {
        tracing::trace!("nobody waits for this commit any more");
    }
}

/// The one writer of a store.
pub struct Writer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    journal: Journal,
    /// The current history behind all its changes; read from the database when it is needed first, and again behind each commit there.
    front: Option<Front>,
    /// Taken from the queue, to be written behind what was taken before.
    held: VecDeque<Request>,
    /// Why nothing is written, since a fault.
    fault: Option<StoreFault>,
    settling: Option<Settling>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, requests: mpsc::Receiver<Request>, journal: Journal) -> Self {
        Self { shared, requests, journal, front: None, held: VecDeque::new(), fault: None, settling: None }
    }

    /// Writes until [`super::Store::close`] is called and the queue is empty. Blocks: give it a thread.
    pub fn run(mut self) -> Result<(), StoreFault> {
        thread::scope(|scope| self.run_in(scope))
    }

    fn run_in<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Result<(), StoreFault> {
        while let Some(first) = self.held.pop_front().or_else(|| self.requests.blocking_recv()) {
            if let Request::Reopen(_) = first {
                let reopened = self.reopen();
                answer(first, reopened);
            } else if let Some(fault) = &self.fault {
                answer(first, Err(fault.clone()));
            } else {
                let batch = self.gather(first);
                self.write(batch);
                if self.fault.is_none()
                    && let Err(error) = unless_damaged(|| self.shorten(scope))
                {
                    self.fail(&error);
                }
            }
        }
        // After a fault the next opening finds what the journal has.
        if self.fault.is_some() { Ok(()) } else { unless_damaged(|| self.settle()).map_err(fault) }
    }

    /// Has what is in the journal put into the database where it has become long: at once if messages are among it, else beside.
    fn shorten<'scope>(&mut self, scope: &'scope Scope<'scope, '_>) -> Result<(), Error> {
        let has_history = lock(&self.shared.tail).changes().next().is_some();
        if has_history && self.journal.taken() >= LONG_HISTORY {
            return self.settle();
        }
        if self.journal.taken() < LONG {
            return Ok(());
        }
        self.await_settled()?;
        if !self.journal.turn() {
            return self.settle();
        }
        let (shared, fresh) = (Arc::clone(&self.shared), self.shared.fresh.leave());
        self.settling = Some(Settling::begin(scope, shared, fresh, self.journal.sequence())?);
        Ok(())
    }

    /// Waits until nobody writes the database beside.
    fn await_settled(&mut self) -> Result<(), Error> {
        if let Some(settling) = self.settling.take() {
            self.journal.release(settling.wait()?);
        }
        Ok(())
    }

    /// The same, if that is over already.
    fn note_settled(&mut self) -> Result<(), Error> {
        if self.settling.as_ref().is_some_and(Settling::is_over) { self.await_settled() } else { Ok(()) }
    }

    /// Nothing more is written; what is here can be read.
    fn fail(&mut self, error: &Error) {
        if let Err(error) = self.await_settled() {
            tracing::debug!(%error, "what was put into the database beside failed too");
        }
        let shared = &self.shared;
        shared.database.condition().ail(Ailment::of(error));
        // What was condemned is not collected, and who waits for that goes on to be refused.
        shared.pins.spare_all();
        let journaled = |database: &Database| {
            opening::read_on(database, self.journal.bodies().map_err(Error::Io)?)?;
            shared.fresh.clear();
            Ok(())
        };
        shared.database.read_on(shared.folder.database(), journaled);
        let why = shared.database.condition().ailment().map_or_else(|| error.to_string(), |ailment| ailment.why);
        self.fault = Some(StoreFault(why));
    }

    fn reopen(&mut self) -> Result<(), StoreFault> {
        if let Err(error) = self.await_settled() {
            self.fail(&error);
        }
        match opening::reopen(&self.shared) {
            Ok(journal) => {
                (self.journal, self.front, self.fault) = (journal, None, None);
                self.shared.lives.fetch_add(1, Ordering::Relaxed);
                self.shared.database.condition().note_reopening();
                Ok(())
            }
            Err(error) => {
                self.fail(&error);
                Err(fault(error))
            }
        }
    }

    /// What is queued, as far as it is one kind: of the history alone, which goes into the journal, or not. Where the kinds alternate a commit for
    /// each turn would cost more than to have all of it in the database: then it is one batch.
    fn gather(&mut self, first: Request) -> Vec<Request> {
        let (mut weight, mut batch, mut turns) = (0, Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(mut request) = next {
            if matches!(request, Request::Reopen(_)) {
                self.held.push_front(request);
                break;
            }
            for request in request.take_payloads().into_iter().chain([request]) {
                let is_turn = !matches!(request, Request::Wake)
                    && batch
                        .iter()
                        .rfind(|before| !matches!(before, Request::Wake))
                        .is_some_and(|before: &Request| before.is_history_alone() != request.is_history_alone());
                if is_turn {
                    turns.push(batch.len());
                }
                weight += request.weight();
                batch.push(request);
            }
            let is_full = batch.len() >= MAX_REQUESTS || weight >= MAX_BYTES;
            next = if is_full { None } else { self.held.pop_front().or_else(|| self.requests.try_recv().ok()) };
        }
        if let [turn] = turns[..] {
            let behind = batch.split_off(turn);
            behind.into_iter().rev().for_each(|request| self.held.push_front(request));
        }
        batch
    }

    fn write(&mut self, mut batch: Vec<Request>) {
        let released = self.shared.pins.take_released();
        let noted = self.shared.damages.noted();
        let idle = released.is_empty() && noted.is_empty() && batch.iter().all(|request| matches!(request, Request::Wake));
        if idle {
            return;
        }
        let nothing_else = released.is_empty() && noted.is_empty();
        let journaled = match self.note_settled().and_then(|()| self.journal(&mut batch, nothing_else)) {
            Ok(false) if nothing_else => unless_damaged(|| self.journal_fresh(&batch)),
            journaled => journaled,
        };
        let written = match journaled {
            Ok(true) => Ok(None),
            Ok(false) => unless_damaged(|| self.commit(&batch, released, &noted)).map(Some),
            Err(error) => Err(error),
        };
        match written {
            Ok(outcome) => {
                if let Some(outcome) = &outcome {
                    lock(&self.shared.usage).clone_from(&outcome.usage);
                    if let Some(identity) = &outcome.identity {
                        lock(&self.shared.identity).clone_from(identity);
                    }
                    outcome.settled.iter().for_each(|hash| self.shared.arrivals.forget(&self.shared, *hash));
                    self.on_verified(&batch, outcome);
                    self.shared.damages.settle(&noted);
                }
                // Unlinking gigabytes takes a while, so the answers go first.
                self.answer_all(batch, &Ok(()));
                outcome.iter().for_each(|outcome| self.unlink(outcome));
            }
            Err(error) => {
                // First, so that who is answered can read.
                self.fail(&error);
                self.answer_all(batch, &Err(fault(error)));
            }
        }
    }

    /// Puts a batch that changes the history alone into the journal. False: it is not one, or it does not fit; nothing was written.
    fn journal(&mut self, batch: &mut [Request], nothing_else: bool) -> Result<bool, Error> {
        let alone = nothing_else && batch.iter().all(Request::is_history_alone);
        if !alone || !batch.iter().flat_map(Request::history).all(history::is_journaled) {
            return Ok(false);
        }
        if self.front.is_none() {
            self.front = Front::of(self.shared.database.begin_read()?)?;
        }
        let Some(front) = &mut self.front else { return Ok(false) };
        let sequence = self.journal.sequence();
        let bytes = history::to_bytes(batch.iter().flat_map(Request::history), front)?;
        if bytes.is_empty() {
            return Ok(true);
        }
        if bytes.len() > MAX_RECORD || !self.journal.append(&bytes)? {
            // It is ahead of what is on disk.
            self.front = None;
            return Ok(false);
        }
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        let changes = batch.iter_mut().flat_map(Request::take_history).collect();
        Arc::make_mut(&mut lock(&self.shared.tail)).push(sequence, changes, front);
        Ok(true)
    }

    /// Puts uploads of which nothing was known into the journal, where they are fresh. False: something was known, or they do not fit; nothing was
    /// written.
    fn journal_fresh(&mut self, batch: &[Request]) -> Result<bool, Error> {
        if !fits(batch) {
            return Ok(false);
        }
        let Some(rows) = self.shared.fresh.of_batch(batch, || self.shared.database.begin_read())? else { return Ok(false) };
        let bytes = rows.to_bytes();
        if bytes.len() > MAX_RECORD || !self.journal.append(&bytes)? {
            return Ok(false);
        }
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        rows.payloads.keys().for_each(|hash| self.shared.verified.add(*hash));
        rows.count(&mut lock(&self.shared.usage));
        self.shared.fresh.add(rows, self.journal.sequence());
        Ok(true)
    }

    /// Puts what the journal has into the database.
    fn settle(&mut self) -> Result<(), Error> {
        self.await_settled()?;
        if self.journal.is_empty() {
            return Ok(());
        }
        let fresh = self.shared.fresh.leave();
        let mut transaction = self.shared.database.begin_write()?;
        transaction.set_quick_repair(true);
        settling::write_fresh(&self.shared, &transaction, &fresh)?;
        self.write_history(&transaction, &[])?;
        transaction.commit()?;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.on_settled();
        Ok(())
    }

    /// What the journal has, and behind it what this batch changes of the history.
    fn write_history(&self, transaction: &WriteTransaction, batch: &[Request]) -> Result<(), Error> {
        let tail = Arc::clone(&lock(&self.shared.tail));
        history::write(transaction, tail.changes().chain(batch.iter().flat_map(Request::history)))?;
        history::note_journaled(transaction, self.journal.sequence())
    }

    /// The database has everything.
    fn on_settled(&mut self) {
        *lock(&self.shared.tail) = Arc::default();
        self.shared.fresh.left();
        self.journal.restart();
        self.front = None;
    }

    fn commit(&mut self, batch: &[Request], released: BTreeSet<ContentHash>, noted: &Noted) -> Result<Outcome, Error> {
        self.await_settled()?;
        let fresh = self.shared.fresh.leave();
        let mut transaction = self.shared.database.begin_write()?;
        let is_asked_for = released.is_empty() && noted.is_empty();
        let outcome = if is_asked_for && fresh.is_empty() && batch.iter().all(Request::is_history_alone) {
            // The other tables are left alone.
            Outcome { usage: lock(&self.shared.usage).clone(), ..Outcome::default() }
        } else {
            self.change(&transaction, batch, &fresh, released, noted)?
        };
        // What is collected must not come back from the journal.
        if is_asked_for && outcome.collected.is_empty() && self.journal_rows(batch)? {
            transaction.set_durability(Durability::None)?;
            tables::note_replayed(&transaction, self.journal.sequence())?;
            transaction.commit()?;
            self.shared.fresh.left();
        } else {
            transaction.set_quick_repair(true);
            self.write_history(&transaction, batch)?;
            transaction.commit()?;
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            self.on_settled();
        }
        Ok(outcome)
    }

    /// Puts the records and payloads of a batch into the journal. False: it has something else, or does not fit; nothing was written.
    fn journal_rows(&mut self, batch: &[Request]) -> Result<bool, Error> {
        if !fits(batch) {
            return Ok(false);
        }
        let Some(bytes) = replay::to_bytes(batch) else { return Ok(false) };
        if bytes.is_empty() {
            return Ok(true);
        }
        let is_there = bytes.len() <= MAX_RECORD && self.journal.append(&bytes)?;
        self.shared.commits.fetch_add(u64::from(is_there), Ordering::Relaxed);
        Ok(is_there)
    }

    /// What a batch changes beside the history, behind what is fresh.
    fn change(
        &self,
        transaction: &WriteTransaction,
        batch: &[Request],
        fresh: &Rows,
        released: BTreeSet<ContentHash>,
        noted: &Noted,
    ) -> Result<Outcome, Error> {
        let tables = Tables::open(transaction)?;
        let usage = tables.usage()?;
        let mut changes = Batch::new(tables, &self.shared.pins, usage, released);
        changes.fresh(fresh)?;
        // Before any copy that comes now.
        for (hash, (_, evidence)) in noted {
            changes.damaged(*hash, evidence, &self.shared.folder)?;
        }
        let (mut persists, mut key) = (Vec::new(), None);
        // All becomes durable at once, so the bytes may as well come first: then no record of this commit misses them.
        for request in batch {
            match request {
                Request::Persist(persist, ..) => persists.push(persist),
                Request::Payload(row, _) => changes.payload(row.hash, row.size, row.inline.as_deref())?,
                Request::Key(secret, _) => key = Some(*secret),
                Request::Scrub(state, _) => changes.scrub(state)?,
                Request::Reopen(_) | Request::Wake => (),
            }
        }
        changes.persist(&persists)?;
        // An incarnation that was raised before is that of the old key.
        if let Some(secret) = key {
            changes.take_key(secret)?;
        }
        changes.finish()
    }

    fn answer_all(&self, batch: Vec<Request>, result: &Result<(), StoreFault>) {
        batch.into_iter().for_each(|request| answer(request, result.clone()));
    }

    /// What came was checked on its way in, what was lost is to be checked when it comes again.
    fn on_verified(&self, batch: &[Request], outcome: &Outcome) {
        let Shared { verified, damages, .. } = &*self.shared;
        outcome.damaged.iter().for_each(|damaged| verified.forget(damaged.hash));
        for request in batch {
            if let Request::Payload(row, _) = request {
                verified.add(row.hash);
            }
        }
        damages.count_payloads(outcome.damaged.len(), outcome.replaced);
    }

    /// What is right of a damaged payload that is missed is kept for its transfer.
    fn set_aside(&self, outcome: &Outcome) {
        let Shared { folder, arrivals, pins, .. } = &*self.shared;
        for Damaged { hash, missed, free } in &outcome.damaged {
            tracing::error!(%hash, "the copy of a payload was damaged; it is fetched again from another node if one has it");
            if !free {
                continue;
            }
            let done = match missed {
                Some(size) => folder.set_aside(*hash, *size).map(|left| arrivals.keep(&self.shared, *hash, left)),
                None => folder.remove(*hash),
            };
            if let Err(error) = done {
                tracing::warn!(%hash, %error, "a damaged payload file stays until the next start");
            }
            pins.spare(&[*hash]);
        }
    }

    fn unlink(&self, outcome: &Outcome) {
        self.set_aside(outcome);
        for hash in &outcome.files {
            if let Err(error) = self.shared.folder.remove(*hash) {
                tracing::warn!(%hash, %error, "a payload file stays until the next start");
            }
        }
        self.shared.pins.spare(&outcome.collected);
    }
}

/// Whether a batch may be put into one piece, to be a record of the journal.
fn fits(batch: &[Request]) -> bool {
    batch.iter().map(Request::weight).sum::<usize>() <= MAX_RECORD
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing is collected any more, whatever was condemned when the writing ended: nobody may wait for it.
        self.shared.pins.spare_all();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use gossip_cdn_protocol::history::disk::{Founding, HistoryStore as _};
    use gossip_cdn_protocol::history::message::{Body, Channel, Frontier, Message, MessageId};
    use gossip_cdn_protocol::{Content, Record, WallTime};

    use super::super::fixture::{Fixture, blob, content, copy_dir, files, node, noise, options, persist, start, write};
    use super::super::{Store, tables};
    use super::*;

    #[tokio::test]
    async fn requests_are_committed_in_the_order_of_the_queue_and_answered_together() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
        let first = write(&Record::default(), 1, 5, content(b"a", None));
        let second = write(&first, 1, 6, content(b"b", None));
        let third = write(&second, 1, 7, content(b"c", None));
        let mut answers = Vec::new();
        for record in [&first, &second, &third] {
            answers.push(store.persist(persist(&[(blob(1), record)])).await);
        }
        let head = writer.requests.try_recv().unwrap();
        let batch = writer.gather(head);
        assert_eq!(batch.len(), 3, "one commit takes everything that waits");
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "nothing is answered before the commit");
        writer.write(batch);
        assert!(answers.iter_mut().all(|answer| answer.try_recv() == Ok(Ok(()))));
        assert_eq!(store.blob(blob(1)).unwrap(), Some(third));
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_requests_and_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
        for _ in 0..MAX_REQUESTS + 10 {
            drop(store.persist(persist(&[])).await);
        }
        let head = writer.requests.try_recv().unwrap();
        assert_eq!(writer.gather(head).len(), MAX_REQUESTS);
        let head = writer.requests.try_recv().unwrap();
        assert_eq!(writer.gather(head).len(), 10);
        let mut pinned = Vec::new();
        for n in 0..=u8::MAX {
            for m in 0..2 {
                let bytes = noise(super::super::INLINE_MAX - m, n);
                let mut upload = store.upload();
                upload.write(bytes.clone().into()).await.unwrap();
                pinned.push(upload.finish().await.unwrap());
                let record = write(&Record::default(), 1, 5, content(&bytes, None));
                drop(store.persist(persist(&[(blob(u128::from(n)), &record)])).await);
            }
        }
        let head = writer.requests.try_recv().unwrap();
        let batch = writer.gather(head);
        assert!(batch.iter().map(Request::weight).sum::<usize>() < MAX_BYTES + super::super::INLINE_MAX + RECORD_BYTES);
        assert!(batch.len() > 250, "{}", batch.len());
    }

    fn message(origin: u8, sequence: u64) -> Message {
        let id = MessageId { origin: node(origin), channel: Channel::Causal, sequence };
        Message { id, frontier: Frontier::default(), media_type: "text/plain".into(), body: Body::Text("a".into()), sent: WallTime(1) }
    }

    /// A message that is kept: a change of the history alone.
    async fn keep(store: &Store, sequence: u64) {
        let history = vec![Change::Keep(message(1, sequence))];
        drop(store.persist(Persist { history, ..Persist::default() }).await);
    }

    async fn join(store: &Store, writer: &mut Writer) {
        let founding = Founding { id: uuid::Uuid::from_u128(1), founder: node(1) };
        drop(store.persist(Persist { history: vec![Change::Join(founding)], ..Persist::default() }).await);
        let head = writer.requests.try_recv().unwrap();
        writer.write(vec![head]);
    }

    #[tokio::test]
    async fn two_kinds_are_two_batches_and_kinds_that_alternate_one() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
        join(&store, &mut writer).await;
        let record = write(&Record::default(), 1, 5, content(b"a", None));
        let mut sequence = 0;
        for (kinds, batches) in
            [("hhh", vec![3]), ("hwhw", vec![4]), ("rrwh", vec![3, 1]), ("hwrr", vec![2, 2]), ("hrhw", vec![4]), ("rhrr", vec![4])]
        {
            for kind in kinds.chars() {
                match kind {
                    'h' => {
                        sequence += 1;
                        keep(&store, sequence).await;
                    }
                    'r' => drop(store.persist(persist(&[(blob(1), &record)])).await),
                    _ => store.shared.queue.wake(),
                }
            }
            let mut found = Vec::new();
            while let Some(head) = writer.held.pop_front().or_else(|| writer.requests.try_recv().ok()) {
                let batch = writer.gather(head);
                found.push(batch.len());
                writer.write(batch);
            }
            assert_eq!(found, batches, "{kinds}");
            let kept: Vec<u64> = store.remembered().unwrap().kept.iter().map(|message| message.id.sequence).collect();
            assert_eq!(kept, (1..=sequence).collect::<Vec<_>>(), "{kinds}");
        }
    }

    #[tokio::test]
    async fn what_is_synchronised_to_the_disk_is_counted_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
        join(&store, &mut writer).await;
        assert_eq!(store.commits(), 1);
        drop(store.persist(Persist::default()).await);
        let head = writer.requests.try_recv().unwrap();
        writer.write(vec![head]);
        assert_eq!(store.commits(), 1, "there was nothing to be written");
        keep(&store, 1).await;
        let head = writer.requests.try_recv().unwrap();
        writer.write(vec![head]);
        assert_eq!(store.commits(), 2, "into the journal");
        writer.settle().unwrap();
        assert_eq!(store.commits(), 3, "and from there into the database");
        writer.settle().unwrap();
        assert_eq!(store.commits(), 3);
    }

    #[tokio::test]
    async fn closing_commits_what_is_queued_and_refuses_what_comes_later() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        let record = write(&Record::default(), 1, 5, content(b"a", None));
        let queued = store.persist(persist(&[(blob(1), &record)])).await;
        store.close();
        let late = store.persist(persist(&[])).await;
        start(writer).join().unwrap().unwrap();
        assert_eq!(queued.await.unwrap(), Ok(()));
        assert!(late.await.unwrap().is_err());
        assert_eq!(store.blob(blob(1)).unwrap(), Some(record));
    }

    #[tokio::test]
    async fn a_fault_fails_its_batch_and_everything_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        let transaction = store.shared.database.begin_write().unwrap();
        let damaged = tables::key_bytes(store.shared.hasher.key(blob(1)));
        transaction.open_table(tables::RECORDS).unwrap().insert(&damaged, &b"damaged"[..]).unwrap();
        transaction.commit().unwrap();
        let record = write(&Record::default(), 1, 5, content(b"a", None));
        let before = store.persist(persist(&[(blob(2), &record)])).await;
        let faulty = store.persist(persist(&[(blob(1), &record)])).await;
        let writer = start(writer);
        assert!(faulty.await.unwrap().is_err());
        assert!(before.await.unwrap().is_err(), "of a batch all or nothing is written");
        let behind = store.persist(persist(&[(blob(2), &record)])).await;
        assert!(behind.await.unwrap().is_err());
        assert_eq!(store.blob(blob(2)).unwrap(), None, "it can be read");
        assert!(store.ailment().is_some());
        store.close();
        assert_eq!(writer.join().unwrap(), Ok(()));
    }

    /// A payload and its record in the queue of a writer that has not run.
    struct Uploaded {
        dir: tempfile::TempDir,
        store: Store,
        writer: Writer,
        bytes: Vec<u8>,
        stored: super::super::Stored,
        record: Record,
        durable: oneshot::Receiver<Result<(), StoreFault>>,
    }

    async fn uploaded(size: usize) -> Uploaded {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        let bytes = noise(size, 1);
        let mut upload = store.upload();
        upload.write(bytes.clone().into()).await.unwrap();
        let stored = upload.finish().await.unwrap();
        let record = write(&Record::default(), 1, 5, content(&bytes, None));
        let durable = store.persist(persist(&[(blob(1), &record)])).await;
        Uploaded { dir, store, writer, bytes, stored, record, durable }
    }

    #[tokio::test]
    async fn a_record_is_never_durable_before_its_payload() {
        for (size, is_large) in [(10, false), (300_000, true)] {
            let Uploaded { dir, store, mut writer, bytes, stored, record, durable } = uploaded(size).await;
            // The power goes after a commit of the first request alone: the shortest prefix.
            let first = writer.requests.try_recv().unwrap();
            let batch = if is_large { vec![first] } else { writer.gather(first) };
            writer.write(batch);
            assert!(gossip_cdn_protocol::Store::holds(&store, stored.hash).unwrap());
            assert_eq!(store.blob(blob(1)).unwrap().is_none(), is_large);
            store.close();
            start(writer).join().unwrap().unwrap();
            assert_eq!(durable.await.unwrap(), Ok(()));
            drop(stored);
            drop(store);
            let opened = Fixture::at(dir).unwrap();
            assert_eq!(opened.store.blob(blob(1)).unwrap(), Some(record));
            assert_eq!(opened.bytes(ContentHash::of(&bytes)), Some(bytes));
        }
    }

    #[tokio::test]
    async fn a_payload_and_its_record_come_back_from_two_records_of_the_journal() {
        let Uploaded { dir, store: _store, mut writer, bytes, stored, record, durable } = uploaded(300_000).await;
        let mut crashes = Vec::new();
        for _ in 0..2 {
            let request = writer.requests.try_recv().unwrap();
            writer.write(vec![request]);
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            crashes.push(Fixture::at(copy).unwrap());
        }
        assert_eq!((durable.await.unwrap(), writer.journal.bodies().unwrap().len()), (Ok(()), 2));
        assert_eq!(crashes[0].bytes(stored.hash), None, "nobody claimed it");
        assert!(crashes[0].files("payloads").is_empty());
        assert_eq!((crashes[1].bytes(stored.hash), crashes[1].store.blob(blob(1)).unwrap()), (Some(bytes), Some(record)));
    }

    #[tokio::test]
    async fn a_payload_goes_with_its_record_whoever_lets_go_of_it() {
        for size in [10, 300_000] {
            let Uploaded { dir: _dir, store, mut writer, bytes, stored, record, durable } = uploaded(size).await;
            // As after a fault that ended the core: nobody waits for the write any more.
            drop(stored);
            drop(durable);
            let head = writer.requests.try_recv().unwrap();
            let batch = writer.gather(head);
            writer.write(batch);
            assert_eq!(store.blob(blob(1)).unwrap(), Some(record));
            assert!(super::super::fixture::bytes(&store, ContentHash::of(&bytes)) == Some(bytes), "{size}");
        }
    }

    #[tokio::test]
    async fn a_small_upload_is_one_record_of_the_journal_and_no_commit_of_the_database() {
        let Uploaded { dir, store, mut writer, bytes, stored, record, durable } = uploaded(10).await;
        assert!(!gossip_cdn_protocol::Store::holds(&store, stored.hash).unwrap(), "it waits for its record");
        let database = std::fs::read(dir.path().join("store.redb")).unwrap();
        let head = writer.requests.try_recv().unwrap();
        let batch = writer.gather(head);
        assert!(matches!(batch[..], [Request::Payload(..), Request::Persist(..)]));
        writer.write(batch);
        assert_eq!((durable.await.unwrap(), writer.journal.bodies().unwrap().len()), (Ok(()), 1));
        assert!(std::fs::read(dir.path().join("store.redb")).unwrap() == database);
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let crashed = Fixture::at(copy).unwrap();
        for store in [&store, &crashed.store] {
            assert_eq!(store.blob(blob(1)).unwrap(), Some(record.clone()));
            assert_eq!(super::super::fixture::bytes(store, stored.hash), Some(bytes.clone()));
        }
        writer.settle().unwrap();
        assert!(writer.journal.bodies().unwrap().is_empty() && store.commits() == 2);
        assert_eq!((store.blob(blob(1)).unwrap(), store.usage()), (Some(record), crashed.store.usage()));
    }

    /// Uploads of so many bytes, in the queue.
    async fn queue_uploads(store: &Store, numbers: std::ops::Range<u8>) -> Vec<(Vec<u8>, super::super::Stored)> {
        let mut uploads = Vec::new();
        for n in numbers {
            let bytes = noise(60_000, n);
            let mut upload = store.upload();
            upload.write(bytes.clone().into()).await.unwrap();
            let stored = upload.finish().await.unwrap();
            let record = write(&Record::default(), 1, 5, content(&bytes, None));
            drop(store.persist(persist(&[(blob(n.into()), &record)])).await);
            uploads.push((bytes, stored));
        }
        uploads
    }

    /// Writes what is queued, a batch for each request.
    fn write_queued(writer: &mut Writer) {
        while let Ok(head) = writer.requests.try_recv() {
            let batch = writer.gather(head);
            writer.write(batch);
        }
    }

    #[tokio::test]
    async fn a_long_journal_goes_into_the_database_while_later_batches_go_into_its_other_half() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
        let mut uploads = Vec::new();
        for n in 0..12 {
            uploads.extend(queue_uploads(&store, n * 10..(n + 1) * 10).await);
            write_queued(&mut writer);
        }
        assert!(writer.journal.taken() >= LONG - MAX_RECORD, "all of it went there");
        uploads.extend(queue_uploads(&store, 120..135).await);
        write_queued(&mut writer);
        // Nobody can write the database, as if the commit took long.
        let held = store.shared.database.begin_write().unwrap();
        thread::scope(|scope| {
            writer.shorten(scope).unwrap();
            assert!(writer.settling.is_some() && writer.journal.taken() == 0);
            uploads.extend(queue_uploads(&store, 135..140).now_or_never().unwrap());
            write_queued(&mut writer);
            assert!(writer.settling.is_some() && writer.journal.taken() > 0, "they did not wait");
            let crashes = [(); 2].map(|()| tempfile::tempdir().unwrap());
            copy_dir(dir.path(), crashes[0].path());
            drop(held);
            writer.await_settled().unwrap();
            copy_dir(dir.path(), crashes[1].path());
            assert_eq!(writer.journal.bodies().unwrap().len(), 1);
            for crashed in crashes.map(|crash| Fixture::at(crash).unwrap()) {
                for store in [&store, &crashed.store] {
                    assert_eq!((store.usage().live_blobs, store.usage().payloads), (140, 140));
                    for (n, (bytes, stored)) in (0..).zip(&uploads) {
                        assert!(super::super::fixture::bytes(store, stored.hash).as_ref() == Some(bytes));
                        assert!(store.blob(blob(n)).unwrap().is_some());
                    }
                }
            }
        });
    }

    #[tokio::test]
    async fn what_is_unlinked_is_gone_from_the_database_first() {
        let Uploaded { dir, store, mut writer, stored, record, .. } = uploaded(300_000).await;
        let head = writer.requests.try_recv().unwrap();
        let batch = writer.gather(head);
        writer.write(batch);
        assert_eq!(writer.journal.bodies().unwrap().len(), 1);
        drop(stored);
        let deleted = write(&record, 1, 6, Content::Tombstone);
        drop(store.persist(persist(&[(blob(1), &deleted)])).await);
        let head = writer.requests.try_recv().unwrap();
        writer.write(vec![head]);
        assert!(writer.journal.bodies().unwrap().is_empty(), "the database has everything");
        assert!(files(&dir.path().join("payloads")).is_empty());
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let crashed = Fixture::at(copy).unwrap();
        assert_eq!(crashed.store.blob(blob(1)).unwrap(), Some(deleted));
        assert_eq!(crashed.store.usage(), store.usage());
    }
}
