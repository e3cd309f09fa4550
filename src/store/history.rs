//! The message history on disk: tables of its own for every history that the node ever belonged to, in the same database and the same
//! commits as the records.
//!
//! | room | subject |
//! |---|---|
//! | `rows` | names, keys and values |
//! | `changes` | what one commit changes |
//! | here | what is read |
//!
//! 1. Everything is read as of one commit: a [`History`] is a view that later commits do not change.
//! 2. What is read at a start follows what is undelivered and the number of origins, not the length of the history.
//! 3. A history that was left for another one stays as it was, readable under its id.
//! 4. A node without a history has no tables for it.

mod changes;
mod rows;

use std::ops::Bound;

use gossip_cdn_protocol::StoreFault;
use gossip_cdn_protocol::history::disk::{Founding, HistoryStore, Place, Remembered};
use gossip_cdn_protocol::history::message::{Channel, Message, MessageId};
use gossip_cdn_protocol::history::ordered::{Batch, Entry};
use redb::{Error, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableError};
use uuid::Uuid;

pub(super) use changes::{weight, write};

use super::{Store, fault, tables};
use rows::{Kind, Said, State};

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

/// One history as of one commit.
///
/// It keeps the pages of that commit from being used again: let it go soon.
pub struct History {
    transaction: ReadTransaction,
    id: Uuid,
    state: State,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Store {
    /// The history that the node belongs to, or what it keeps until it belongs to one. `None`: nothing at all is there.
    pub fn history(&self) -> Result<Option<History>, StoreFault> {
        let read = || History::current(self.shared.database.begin_read()?);
        read().map_err(fault)
    }

    /// A history that the node belongs or belonged to.
    pub fn history_of(&self, id: Uuid) -> Result<Option<History>, StoreFault> {
        let read = || History::open(self.shared.database.begin_read()?, id);
        read().map_err(fault)
    }

    /// The histories that the node left for another one, in the order of their ids.
    pub fn histories_set_aside(&self) -> Result<Vec<(Founding, HistorySize)>, StoreFault> {
        let read = || set_aside(&self.shared.database.begin_read()?);
        read().map_err(fault)
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
    fn current(transaction: ReadTransaction) -> Result<Option<Self>, Error> {
        let id = tables::meta(&transaction, tables::HISTORY)?.unwrap_or_else(Uuid::nil);
        Self::open(transaction, id)
    }

    fn open(transaction: ReadTransaction, id: Uuid) -> Result<Option<Self>, Error> {
        let Some(histories) = histories(&transaction)? else { return Ok(None) };
        let state = histories.get(id.as_bytes())?.map(|row| tables::from_json(row.value())).transpose()?;
        Ok(state.map(|state| Self { transaction, id, state }))
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
            let (places, messages) = (self.table(&rows::PLACES)?, self.table(&rows::MESSAGES)?);
            let (mut page, mut bytes) = (Vec::new(), 0);
            for row in places.range((Bound::Excluded(after), Bound::Unbounded))?.take(limit) {
                let (index, row) = row?;
                let (place, other) = rows::place_of(index.value(), row.value())?;
                let message = said(&messages, place.id, other)?;
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
        let State { founding, promised, decided, epoch, slot, index, number, bytes: _ } = self.state.clone();
        let mut remembered = Remembered { founding, promised, decided, epoch, slot, index, number, ..Remembered::default() };
        for row in self.table(&rows::ACCEPTED)?.iter()? {
            let (slot, accepted) = row?;
            remembered.accepted.insert(slot.value(), tables::from_json(accepted.value())?);
        }
        remembered.kept = self.kept()?;
        remembered.left = set_aside(&self.transaction)?.into_iter().map(|(founding, _)| founding.id).collect();
        for row in self.table(&rows::LAST)?.iter()? {
            let (line, sequence) = row?;
            let ((origin, channel), sequence) = (rows::line_of(line.value())?, sequence.value());
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
            let entries: Vec<Said> = tables::from_json(row)?;
            Ok(Batch { entries: entries.into_iter().map(entry).collect::<Result<_, Error>>()? })
        };
        let rows = slots.range(from..)?.take(limit);
        rows.map(|row| row.map_err(Error::from).and_then(|(slot, row)| Ok((slot.value(), batch(row.value())?)))).collect()
    }

    fn places(&self, from: u64, limit: usize) -> Result<Vec<Place>, Error> {
        let places = self.table(&rows::PLACES)?;
        let rows = places.range(from..)?.take(limit);
        rows.map(|row| row.map_err(Error::from).and_then(|(index, row)| Ok(rows::place_of(index.value(), row.value())?.0))).collect()
    }

    /// A delivered message's place, and what its row says beside the name.
    fn delivered(&self, id: MessageId) -> Result<Option<(Place, Vec<u8>)>, Error> {
        let index = self.table(&rows::INDEXES)?.get(&rows::name_bytes(id))?.map(|row| row.value());
        let Some(index) = index else { return Ok(None) };
        let row = self.table(&rows::PLACES)?.get(index)?.ok_or_else(|| rows::damaged("a place is gone"))?;
        let (place, other) = rows::place_of(index, row.value())?;
        Ok(Some((place, other.to_vec())))
    }

    fn known(&self, id: MessageId) -> Result<Option<(Message, Option<Place>)>, Error> {
        let messages = self.table(&rows::MESSAGES)?;
        if let Some((place, other)) = self.delivered(id)? {
            return Ok(Some((said(&messages, id, &other)?, Some(place))));
        }
        let name = rows::name_bytes(id);
        if let Some(other) = self.table(&rows::KEPT)?.get(&name)? {
            return Ok(Some((said(&messages, id, other.value())?, None)));
        }
        // Decided, and waiting for what comes before it.
        Ok(messages.get(&name)?.map(|row| tables::from_json(row.value())).transpose()?.map(|message| (message, None)))
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
        kept.iter()?.map(|row| message(row?)).collect()
    }

    fn first_index_after(&self, slot: u64) -> Result<u64, Error> {
        let first = self.table(&rows::FIRSTS)?.range((Bound::Excluded(slot), Bound::Unbounded))?.next().transpose()?;
        Ok(first.map_or(self.state.index + 1, |(_, index)| index.value()))
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
