//! The message history on disk: tables of its own for every history that the node ever belonged to, in the same database as the records, and
//! before them the journal ([`super::journal`]), which has what the tables do not have yet.
//!
//! | room | subject |
//! |---|---|
//! | `rows` | names, keys and values of the tables |
//! | `changes` | what one commit changes in them |
//! | `written` | changes in bytes, as the journal holds them |
//! | `front` | what the writer knows without asking the tables |
//! | `tail` | what is in the journal and not in the tables |
//! | here | what is read, of both |
//!
//! 1. Everything is read as of one moment: a [`History`] is a view that later changes do not change.
//! 2. What is read at a start follows what is undelivered and the number of origins, not the length of the history.
//! 3. A history that was left for another one stays as it was, readable under its id.
//! 4. A node without a history has no tables for it.

mod changes;
mod front;
mod rows;
mod tail;
mod written;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use gossip_cdn_protocol::StoreFault;
use gossip_cdn_protocol::history::disk::{Change, Founding, HistoryStore, Place, Remembered};
use gossip_cdn_protocol::history::message::{Channel, Message, MessageId};
use gossip_cdn_protocol::history::ordered::{Batch, Entry};
use redb::{Error, ReadOnlyTable, ReadTransaction, ReadableTable, TableError};
use uuid::Uuid;

pub(super) use changes::{is_journaled, note_journaled, weight, write};
pub(super) use front::Front;
pub(super) use tail::Tail;
pub(super) use written::{read, write as to_bytes};

use super::{Store, fault, lock, tables};
use rows::{Kind, Said, State};
use tail::Piece;

/// A page of messages takes no more once their bodies have so many bytes. It holds one message in any case.
pub const PAGE_BYTES: usize = 4 << 20;

/// How much is delivered of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistorySize {
    /// Messages delivered.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// One history as of one moment.
///
/// It keeps the pages of the last commit before from being used again: let it go soon.
pub struct History {
    transaction: ReadTransaction,
    id: Uuid,
    state: State,
    /// What the transaction does not have.
    tail: Vec<Arc<Piece>>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Store {
    /// The history that the node belongs to, or what it keeps until it belongs to one. `None`: nothing at all is there.
    pub fn history(&self) -> Result<Option<History>, StoreFault> {
        // In this order: what leaves the tail meanwhile is in the tables.
        let tail = self.tail();
        let read = || History::current(self.shared.database.begin_read()?, &tail);
        read().map_err(fault)
    }

    /// A history that the node belongs or belonged to.
    pub fn history_of(&self, id: Uuid) -> Result<Option<History>, StoreFault> {
        let tail = self.tail();
        let read = || History::open(self.shared.database.begin_read()?, id, &tail);
        read().map_err(fault)
    }

    /// The histories that the node left for another one, in the order of their ids.
    pub fn histories_set_aside(&self) -> Result<Vec<(Founding, HistorySize)>, StoreFault> {
        let read = || set_aside(&self.shared.database.begin_read()?);
        read().map_err(fault)
    }

    fn tail(&self) -> Arc<Tail> {
        Arc::clone(&lock(&self.shared.tail))
    }

    /// Reads of the current history; `nothing` where there is none.
    fn of_history<T>(&self, nothing: T, read: impl FnOnce(&History) -> Result<T, Error>) -> Result<T, StoreFault> {
        self.history()?.map_or(Ok(nothing), |history| read(&history).map_err(fault))
    }
}

impl HistoryStore for Store {
    fn remembered(&self) -> Result<Remembered, StoreFault> {
        self.of_history(Remembered::default(), History::remembered)
    }

    fn slots(&self, from: u64, limit: usize) -> Result<Vec<(u64, Batch)>, StoreFault> {
        self.of_history(Vec::new(), |history| history.slots(from, limit))
    }

    fn places(&self, from: u64, limit: usize) -> Result<Vec<Place>, StoreFault> {
        self.of_history(Vec::new(), |history| history.places(from, limit))
    }

    fn place(&self, id: MessageId) -> Result<Option<Place>, StoreFault> {
        self.of_history(None, |history| Ok(history.delivered(id)?.map(|(place, _)| place)))
    }

    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreFault> {
        self.of_history(None, |history| Ok(history.known(id)?.map(|(message, _)| message)))
    }

    fn first_index_after(&self, slot: u64) -> Result<u64, StoreFault> {
        self.of_history(1, |history| history.first_index_after(slot))
    }
}

impl History {
    fn current(transaction: ReadTransaction, tail: &Tail) -> Result<Option<Self>, Error> {
        let id = tables::meta(&transaction, tables::HISTORY)?.unwrap_or_else(Uuid::nil);
        Self::open(transaction, id, tail)
    }

    fn open(transaction: ReadTransaction, id: Uuid, tail: &Tail) -> Result<Option<Self>, Error> {
        let Some(histories) = histories(&transaction)? else { return Ok(None) };
        let state = histories.get(id.as_bytes())?.map(|row| tables::from_json(row.value())).transpose()?;
        let Some(state) = state else { return Ok(None) };
        let from = tables::journaled(&transaction)?;
        let is_new = |piece: &&Arc<Piece>| tail.history == id && piece.sequence >= from;
        let pieces: Vec<Arc<Piece>> = tail.pieces.iter().filter(is_new).map(Arc::clone).collect();
        let state = if pieces.is_empty() { state } else { tail.state.clone() };
        Ok(Some(Self { transaction, id, state, tail: pieces }))
    }

    /// How it began; `None` before the node belongs to any.
    pub fn founding(&self) -> Option<Founding> {
        self.state.founding
    }

    /// How much is delivered of it.
    pub fn size(&self) -> HistorySize {
        self.state.size()
    }

    /// At most `limit` messages that were delivered here after that index, in this node's order; see [`PAGE_BYTES`]. Empty: there are none.
    pub fn page(&self, after: u64, limit: usize) -> Result<Vec<(Place, Message)>, StoreFault> {
        let read = || -> Result<Vec<(Place, Message)>, Error> {
            let (places, mut standing) = (self.table(&rows::PLACES)?, Standing::of(self)?);
            let rows = places.range((Bound::Excluded(after), Bound::Unbounded))?.map(|row| {
                let (index, row) = row?;
                let (place, behind) = rows::place_of(index.value(), row.value())?;
                Ok::<_, Error>((place, standing.message(&place, behind)?))
            });
            let tail = tail::delivered(&self.tail, after.saturating_add(1)).map(|(place, message)| Ok((*place, message.clone())));
            let (mut page, mut bytes) = (Vec::new(), 0);
            for delivered in rows.chain(tail).take(limit) {
                let (place, message) = delivered?;
                bytes += message.body.bytes().len();
                if bytes > PAGE_BYTES && !page.is_empty() {
                    break;
                }
                page.push((place, message));
            }
            Ok(page)
        };
        read().map_err(fault)
    }

    /// A message that is known here, and its place once it is delivered.
    pub fn find(&self, id: MessageId) -> Result<Option<(Message, Option<Place>)>, StoreFault> {
        self.known(id).map_err(fault)
    }

    fn table<K: redb::Key, V: redb::Value>(&self, kind: &Kind<K, V>) -> Result<ReadOnlyTable<K, V>, Error> {
        kind.read(&self.transaction, self.id)
    }

    fn remembered(&self) -> Result<Remembered, Error> {
        let State { founding, promised, decided, epoch, slot, index, number, bytes: _, withheld, owner } = self.state.clone();
        let mut remembered =
            Remembered { founding, promised, decided, epoch, slot, index, number, withheld, owner, ..Remembered::default() };
        for row in self.table(&rows::ACCEPTED)?.iter()? {
            let (slot, accepted) = row?;
            remembered.accepted.insert(slot.value(), tables::from_json(accepted.value())?);
        }
        for change in tail::changes(&self.tail) {
            if let Change::Accept(slot, accepted) = change {
                remembered.accepted.insert(*slot, accepted.clone());
            }
        }
        remembered.accepted = remembered.accepted.split_off(&(decided + 1));
        remembered.kept = self.kept()?;
        remembered.left = set_aside(&self.transaction)?.into_iter().map(|(founding, _)| founding.id).collect();
        let mut last = BTreeMap::new();
        for row in self.table(&rows::LAST)?.iter()? {
            let (line, sequence) = row?;
            last.insert(rows::line_of(line.value())?, sequence.value());
        }
        last.extend(tail::delivered(&self.tail, 0).map(|(place, _)| ((place.id.origin, place.id.channel), place.id.sequence)));
        for ((origin, channel), sequence) in last {
            match channel {
                Channel::Causal => remembered.causal.push(self.message(MessageId { origin, channel, sequence })?),
                Channel::Ordered => _ = remembered.ordered.insert(origin, sequence),
            }
        }
        Ok(remembered)
    }

    fn slots(&self, from: u64, limit: usize) -> Result<Vec<(u64, Batch)>, Error> {
        let (slots, messages) = (self.table(&rows::SLOTS)?, self.table(&rows::MESSAGES)?);
        let entry = |entry| {
            Ok(match entry {
                Said::Name(id) => Entry::Message(said(&messages, id, &[])?),
                Said::Message(message) => Entry::Message(message),
                Said::Epoch(epoch) => Entry::Epoch(epoch),
            })
        };
        let batch = |row: &[u8]| -> Result<Batch, Error> {
            if let Some(batch) = rows::batch_of(row)? {
                return Ok(batch);
            }
            Ok(Batch::of(rows::said_of(row)?.into_iter().map(entry).collect::<Result<_, Error>>()?))
        };
        let rows = slots.range(from..)?.map(|row| row.map_err(Error::from).and_then(|(slot, row)| Ok((slot.value(), batch(row.value())?))));
        let tail = tail::decided(&self.tail, from).map(|(slot, batch)| Ok((slot, batch.clone())));
        rows.chain(tail).take(limit).collect()
    }

    fn places(&self, from: u64, limit: usize) -> Result<Vec<Place>, Error> {
        let places = self.table(&rows::PLACES)?;
        let rows = places.range(from..)?;
        let rows = rows.map(|row| row.map_err(Error::from).and_then(|(index, row)| Ok(rows::place_of(index.value(), row.value())?.0)));
        rows.chain(tail::delivered(&self.tail, from).map(|(place, _)| Ok(*place))).take(limit).collect()
    }

    /// A delivered message and its place.
    fn delivered(&self, id: MessageId) -> Result<Option<(Place, Message)>, Error> {
        if let Some((place, message)) = tail::delivered_as(&self.tail, id) {
            return Ok(Some((*place, message.clone())));
        }
        let index = self.table(&rows::INDEXES)?.get(&rows::name_bytes(id))?.map(|row| row.value());
        let Some(index) = index else { return Ok(None) };
        let row = self.table(&rows::PLACES)?.get(index)?.ok_or_else(|| rows::damaged("a place is gone"))?;
        let (place, behind) = rows::place_of(index, row.value())?;
        Ok(Some((place, Standing::of(self)?.message(&place, behind)?)))
    }

    fn known(&self, id: MessageId) -> Result<Option<(Message, Option<Place>)>, Error> {
        if let Some((place, message)) = self.delivered(id)? {
            return Ok(Some((message, Some(place))));
        }
        if let Some(message) = tail::kept(&self.tail, id) {
            return Ok(Some((message.clone(), None)));
        }
        let (messages, name) = (self.table(&rows::MESSAGES)?, rows::name_bytes(id));
        if let Some(other) = self.table(&rows::KEPT)?.get(&name)? {
            return Ok(Some((said(&messages, id, other.value())?, None)));
        }
        // Decided, and waiting for what comes before it.
        if let Some(row) = messages.get(&name)? {
            return Ok(Some((tables::from_json(row.value())?, None)));
        }
        for row in self.table(&rows::SLOTS)?.range(self.state.slot + 1..)? {
            let batch = rows::batch_of(row?.1.value())?;
            if let Some(message) = batch.iter().flat_map(Batch::messages).find(|message| message.id == id) {
                return Ok(Some((message.clone(), None)));
            }
        }
        Ok(tail::decided_as(&self.tail, id).map(|message| (message.clone(), None)))
    }

    fn message(&self, id: MessageId) -> Result<Message, Error> {
        self.known(id)?.map(|(message, _)| message).ok_or_else(|| rows::damaged("a message is gone"))
    }

    /// Messages kept here undelivered, in the order of their names: causal ones, and ordered ones that this node took from its clients.
    fn kept(&self) -> Result<Vec<Message>, Error> {
        let (kept, messages) = (self.table(&rows::KEPT)?, self.table(&rows::MESSAGES)?);
        let message = |(name, other): (redb::AccessGuard<'_, &rows::NameBytes>, redb::AccessGuard<'_, &[u8]>)| {
            said(&messages, rows::name_of(name.value())?, other.value())
        };
        let mut found = BTreeMap::new();
        for row in kept.iter()? {
            let message = message(row?)?;
            found.insert(message.id, message);
        }
        for change in tail::changes(&self.tail) {
            match change {
                Change::Keep(message) => _ = found.insert(message.id, message.clone()),
                // What is withheld under that name is another one, until it is compared.
                Change::Deliver(place, _) if !self.state.withheld.contains(&place.id) => _ = found.remove(&place.id),
                Change::Deliver(..) | Change::Promise(_) | Change::Accept(..) | Change::Decide(..) | Change::Reach(_) => {}
                Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => {}
            }
        }
        Ok(found.into_values().collect())
    }

    fn first_index_after(&self, slot: u64) -> Result<u64, Error> {
        let first = self.table(&rows::FIRSTS)?.range((Bound::Excluded(slot), Bound::Unbounded))?.next().transpose()?;
        if let Some((_, index)) = first {
            return Ok(index.value());
        }
        let later = tail::delivered(&self.tail, 0).find(|(place, _)| place.order.is_some_and(|order| order.slot > slot));
        Ok(later.map_or(self.state.index + 1, |(place, _)| place.index))
    }
}

impl State {
    fn size(&self) -> HistorySize {
        HistorySize { messages: self.index, bytes: self.bytes }
    }
}

type Histories = ReadOnlyTable<&'static [u8; 16], &'static [u8]>;

/// The histories that were left for another one.
fn set_aside(transaction: &ReadTransaction) -> Result<Vec<(Founding, HistorySize)>, Error> {
    let current: Option<Uuid> = tables::meta(transaction, tables::HISTORY)?;
    let Some(histories) = histories(transaction)? else { return Ok(Vec::new()) };
    let mut aside = Vec::new();
    for row in histories.iter()? {
        let state: State = tables::from_json(row?.1.value())?;
        let founding = state.founding.filter(|founding| Some(founding.id) != current);
        aside.extend(founding.map(|founding| (founding, state.size())));
    }
    Ok(aside)
}

/// The rows of all histories; `None` where none ever had one.
fn histories(transaction: &ReadTransaction) -> Result<Option<Histories>, Error> {
    match transaction.open_table(tables::HISTORIES) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Messages where they stand.
struct Standing {
    messages: ReadOnlyTable<&'static [u8; 25], &'static [u8]>,
    slots: ReadOnlyTable<u64, &'static [u8]>,
    /// The slot read last: whoever reads a page reads all of it.
    last: Option<(u64, Batch)>,
}

impl Standing {
    fn of(history: &History) -> Result<Self, Error> {
        Ok(Self { messages: history.table(&rows::MESSAGES)?, slots: history.table(&rows::SLOTS)?, last: None })
    }

    /// The message of a place, by what its row says behind that.
    fn message(&mut self, place: &Place, behind: &[u8]) -> Result<Message, Error> {
        let Some(entry) = rows::entry_of(behind)? else { return said(&self.messages, place.id, behind) };
        let slot = place.order.map_or(0, |order| order.slot);
        let batch = match self.last.take().filter(|(last, _)| *last == slot) {
            Some((_, batch)) => batch,
            None => self.slots.get(slot)?.map(|row| rows::batch_of(row.value())).transpose()?.flatten().unwrap_or_default(),
        };
        let found = match batch.entries.get(entry) {
            Some(Entry::Message(message)) if message.id == place.id => Ok(message.clone()),
            Some(_) | None => Err(rows::damaged("a message is gone from its slot")),
        };
        self.last = Some((slot, batch));
        found
    }
}

/// What a row means that names a message: the one under that name, unless the row says another one.
fn said(messages: &impl ReadableTable<&'static [u8; 25], &'static [u8]>, id: MessageId, other: &[u8]) -> Result<Message, Error> {
    if !other.is_empty() {
        return tables::from_json(other);
    }
    let row = messages.get(&rows::name_bytes(id))?.ok_or_else(|| rows::damaged("a message is gone"))?;
    tables::from_json(row.value())
}

#[cfg(test)]
mod tests;
