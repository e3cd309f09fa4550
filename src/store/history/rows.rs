//! The tables of a history: their names, keys and values.
//!
//! A name is `<history id>/<table and version of its layout>`; before a node belongs to a history the id is nil.
//!
//! | table | key | value |
//! |---|---|---|
//! | `messages` | name of a message | the message, as JSON |
//! | `kept` | name of a message that is not delivered | nothing, or the message |
//! | `accepted` | slot | ballot and batch, whole, as JSON |
//! | `slots` | slot | 1, then its batch in the bytes of the journal; in folders of format 3, the names of its messages, as JSON |
//! | `places` | index | name (25 bytes), time of delivery (8), slot and number (8 each, 0 for a causal one), then where its message stands |
//! | `indexes` | name of a message | index |
//! | `firsts` | slot | index of the first message delivered of it |
//! | `last` | origin and channel | sequence of the last message delivered |
//!
//! 1. A message is stored once: in the slot that decides it, or else in `messages`. What stands behind a place is 1 and which entry of its slot it is;
//!    or nothing, where it is the one in `messages`; or the message, as JSON, for what should not be: one that is not the one that already stands under that
//!    name. "Or the message" of `kept` is the same.
//! 2. The name of a message is 25 bytes in the order of [`MessageId`]: origin (16), channel (1), sequence (8).
//! 3. Where `histories` has a row for a history, all its tables exist.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use gossip_cdn_protocol::history::disk::{Founding, Order, Owner, Place};
use gossip_cdn_protocol::history::epoch::Epoch;
use gossip_cdn_protocol::history::message::{Channel, Message, MessageId};
use gossip_cdn_protocol::history::ordered::{Ballot, Batch, Entry};
use gossip_cdn_protocol::{NodeId, WallTime};
use redb::{Error, Key, ReadOnlyTable, ReadTransaction, Table, TableDefinition, Value, WriteTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::written;
use crate::store::encoding::{Rest, write_number};
use crate::store::tables;

/// The name of a message.
pub(super) type NameBytes = [u8; 25];
/// An origin and a channel.
pub(super) type LineBytes = [u8; 17];

/// The head of a row of `places`.
const PLACE: usize = 49;
const CAUSAL: u8 = 0;
const ORDERED: u8 = 1;

/// A table that every history has.
pub(super) struct Kind<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

pub(super) const MESSAGES: Kind<&[u8; 25], &[u8]> = Kind::new("messages_v1");
pub(super) const KEPT: Kind<&[u8; 25], &[u8]> = Kind::new("kept_v1");
pub(super) const ACCEPTED: Kind<u64, &[u8]> = Kind::new("accepted_v1");
pub(super) const SLOTS: Kind<u64, &[u8]> = Kind::new("slots_v1");
pub(super) const PLACES: Kind<u64, &[u8]> = Kind::new("places_v1");
pub(super) const INDEXES: Kind<&[u8; 25], u64> = Kind::new("indexes_v1");
pub(super) const FIRSTS: Kind<u64, u64> = Kind::new("firsts_v1");
pub(super) const LAST: Kind<&[u8; 17], u64> = Kind::new("last_v1");

impl<K: Key + 'static, V: Value + 'static> Kind<K, V> {
    const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    fn name(&self, history: Uuid) -> String {
        format!("{history}/{}", self.name)
    }

    /// Opens the table of that history, making it if it does not exist.
    pub(super) fn make<'txn>(&self, transaction: &'txn WriteTransaction, history: Uuid) -> Result<Table<'txn, K, V>, Error> {
        Ok(transaction.open_table(TableDefinition::new(&self.name(history)))?)
    }

    /// Opens the table of that history.
    pub(super) fn read(&self, transaction: &ReadTransaction, history: Uuid) -> Result<ReadOnlyTable<K, V>, Error> {
        Ok(transaction.open_table(TableDefinition::new(&self.name(history)))?)
    }

    /// Removes the table of that history.
    pub(super) fn remove(&self, transaction: &WriteTransaction, history: Uuid) -> Result<(), Error> {
        transaction.delete_table(TableDefinition::<K, V>::new(&self.name(history)))?;
        Ok(())
    }
}

/// The row of a history in `histories`: single values, written with every change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// How it began; `None` for what stands under the nil id.
    pub(super) founding: Option<Founding>,
    pub(super) promised: Option<Ballot>,
    /// The last slot decided.
    pub(super) decided: u64,
    /// The epoch behind it.
    pub(super) epoch: Option<Epoch>,
    /// The last slot delivered.
    pub(super) slot: u64,
    /// How many messages are delivered.
    pub(super) index: u64,
    /// How many of them are ordered.
    pub(super) number: u64,
    /// Bytes of the bodies of the messages delivered.
    pub(super) bytes: u64,
    /// Messages of this node's that are kept and nobody was told of. Empty but for moments after a start, or while no majority can be reached.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) withheld: BTreeSet<MessageId>,
    /// Whose messages are this node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<Owner>,
}

impl State {
    pub(super) fn promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(Some(ballot));
    }

    /// Slots are decided without gaps and in order.
    pub(super) fn decide(&mut self, slot: u64, epoch: &Epoch) -> Result<(), Error> {
        if slot != self.decided + 1 {
            return Err(damaged("a slot is decided out of its order"));
        }
        (self.decided, self.epoch) = (slot, Some(epoch.clone()));
        Ok(())
    }

    /// Messages are delivered without gaps and in order; `last` is the sequence before, of that origin and channel.
    pub(super) fn deliver(&mut self, place: &Place, message: &Message, last: u64) -> Result<(), Error> {
        if place.index != self.index + 1 || place.id != message.id || message.id.sequence != last + 1 {
            return Err(damaged("a message is delivered out of its order"));
        }
        if let Some(order) = place.order {
            self.number = order.number;
        }
        self.index = place.index;
        self.bytes += message.body.bytes().len() as u64;
        Ok(())
    }
}

/// What stands in a slot, as its row says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// The message of that name, in `messages`. Rows that are written today name none.
    Name(MessageId),
    /// This message.
    Message(Message),
    /// From the next slot on these vote.
    Epoch(Epoch),
}

/// The first byte of a row of `slots` with the batch in it; of one with names it is a bracket.
const WHOLE: u8 = 1;
/// The first byte behind a place whose message stands in its slot; of a message as JSON it is a brace.
const IN_SLOT: u8 = 1;

/// The row of a slot.
pub(super) fn slot_row(batch: &Batch) -> Vec<u8> {
    let mut row = vec![WHOLE];
    written::write_batch(&mut row, batch);
    row
}

/// The batch in the row of a slot; `None` if that names messages.
pub(super) fn batch_of(row: &[u8]) -> Result<Option<Batch>, Error> {
    match row.split_first() {
        Some((&WHOLE, batch)) => written::read_batch(&mut Rest(batch)).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// What stands in the row of a slot.
pub(super) fn said_of(row: &[u8]) -> Result<Vec<Said>, Error> {
    let Some(batch) = batch_of(row)? else { return tables::from_json(row) };
    let said = |entry: &Entry| match entry {
        Entry::Message(message) => Said::Message(message.clone()),
        Entry::Epoch(epoch) => Said::Epoch(epoch.clone()),
    };
    Ok(batch.entries.iter().map(said).collect())
}

/// What stands behind a place whose message is that entry of its slot.
pub(super) fn in_slot(entry: usize) -> Vec<u8> {
    let mut bytes = vec![IN_SLOT];
    write_number(&mut bytes, entry as u64);
    bytes
}

/// Which entry of its slot the message of a place is; `None` if it does not stand there.
pub(super) fn entry_of(behind: &[u8]) -> Result<Option<usize>, Error> {
    match behind.split_first() {
        Some((&IN_SLOT, entry)) => usize::try_from(Rest(entry).number()?).map(Some).map_err(|_| damaged("no slot has so many entries")),
        Some(_) | None => Ok(None),
    }
}

fn channel_byte(channel: Channel) -> u8 {
    match channel {
        Channel::Causal => CAUSAL,
        Channel::Ordered => ORDERED,
    }
}

fn channel_of(byte: u8) -> Result<Channel, Error> {
    match byte {
        CAUSAL => Ok(Channel::Causal),
        ORDERED => Ok(Channel::Ordered),
        _ => Err(damaged("a row names a channel that there is not")),
    }
}

/// The bytes of a message's name.
pub(super) fn name_bytes(id: MessageId) -> NameBytes {
    let mut bytes = [0; 25];
    let (line, sequence) = bytes.split_at_mut(17);
    line.copy_from_slice(&line_bytes(id.origin, id.channel));
    sequence.copy_from_slice(&id.sequence.to_be_bytes());
    bytes
}

/// The bytes of an origin's channel.
pub(super) fn line_bytes(origin: NodeId, channel: Channel) -> LineBytes {
    let mut bytes = [channel_byte(channel); 17];
    bytes.iter_mut().zip(origin.0.as_bytes()).for_each(|(byte, from)| *byte = *from);
    bytes
}

/// The message of those bytes.
pub(super) fn name_of(bytes: &NameBytes) -> Result<MessageId, Error> {
    let mut rest = &bytes[..];
    let (origin, channel) = line_of(&array(&mut rest)?)?;
    Ok(MessageId { origin, channel, sequence: u64::from_be_bytes(array(&mut rest)?) })
}

/// The origin and channel of those bytes.
pub(super) fn line_of(bytes: &LineBytes) -> Result<(NodeId, Channel), Error> {
    let mut rest = &bytes[..];
    let origin = NodeId(Uuid::from_bytes(array(&mut rest)?));
    let [channel] = array(&mut rest)?;
    Ok((origin, channel_of(channel)?))
}

/// The row of a place; `behind` says where its message stands.
pub(super) fn place_row(place: &Place, behind: &[u8]) -> Vec<u8> {
    let order = place.order.unwrap_or(Order { slot: 0, number: 0 });
    let mut row = Vec::with_capacity(PLACE + behind.len());
    row.extend_from_slice(&name_bytes(place.id));
    for number in [place.delivered.0, order.slot, order.number] {
        row.extend_from_slice(&number.to_be_bytes());
    }
    row.extend_from_slice(behind);
    row
}

/// The place that a row tells, and what stands behind it.
pub(super) fn place_of(index: u64, row: &[u8]) -> Result<(Place, &[u8]), Error> {
    let mut rest = row;
    let id = name_of(&array(&mut rest)?)?;
    let delivered = WallTime(u64::from_be_bytes(array(&mut rest)?));
    let (slot, number) = (u64::from_be_bytes(array(&mut rest)?), u64::from_be_bytes(array(&mut rest)?));
    let order = (slot > 0).then_some(Order { slot, number });
    Ok((Place { id, index, order, delivered }, rest))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(|| damaged("a row ends early"))?;
    *rest = tail;
    Ok(*head)
}

/// What is read cannot be, or what is to be written contradicts it.
pub(super) fn damaged(how: &str) -> Error {
    Error::Corrupted(format!("the message history: {how}"))
}
