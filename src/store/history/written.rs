//! Changes in bytes, as the journal holds them.
//!
//! ```text
//! change   kind (1), then what it says; numbers and lengths are LEB128, names and hashes as they are
//! message  origin (16), channel (1), sequence, slot of the frontier, names of the frontier, media type, kind of body (1), body, time
//! ```
//!
//! 1. Changes read back as they were written, after the same changes: see [`Front`].
//! 2. What the reader has at hand is not written again: a batch that is decided as it was accepted, a message delivered of a slot that is decided
//!    in the same record.
//! 3. Bytes that were not written here are an error, never a panic and never memory beyond their own size.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::history::disk::{Change, Order, Place};
use gossip_cdn_protocol::history::epoch::Epoch;
use gossip_cdn_protocol::history::message::{Body, Channel, Frontier, Message, MessageId};
use gossip_cdn_protocol::history::ordered::{Accepted, Ballot, Batch, Entry};
use gossip_cdn_protocol::{NodeId, WallTime};
use redb::Error;

use super::front::Front;
use super::rows;
use crate::store::encoding::{Rest, write_number, write_text};

const KEEP: u8 = 0;
const PROMISE: u8 = 1;
const ACCEPT: u8 = 2;
const DECIDE: u8 = 3;
const DECIDE_ACCEPTED: u8 = 4;
const DELIVER: u8 = 5;
const DELIVER_DECIDED: u8 = 6;
const REACH: u8 = 7;

const MESSAGE: u8 = 0;
const EPOCH: u8 = 1;

const TEXT: u8 = 0;
const BYTES: u8 = 1;

/// The slots that the record at hand decides, and how many of each one's entries were passed.
type Decided = BTreeMap<u64, (Batch, usize)>;

/// The bytes of these changes; `front` is behind them afterwards. An error: one of them contradicts what was before it.
pub(in crate::store) fn write<'a>(changes: impl IntoIterator<Item = &'a Change>, front: &mut Front) -> Result<Vec<u8>, Error> {
    let (mut bytes, mut decided) = (Vec::new(), Decided::new());
    for change in changes {
        write_change(&mut bytes, change, front, &mut decided)?;
        front.apply(change)?;
    }
    Ok(bytes)
}

/// The changes of those bytes; `front` is behind them afterwards.
pub(in crate::store) fn read(bytes: &[u8], front: &mut Front) -> Result<Vec<Change>, Error> {
    let (mut rest, mut changes, mut decided) = (Rest(bytes), Vec::new(), Decided::new());
    while !rest.0.is_empty() {
        let change = read_change(&mut rest, front, &mut decided)?;
        front.apply(&change)?;
        changes.push(change);
    }
    Ok(changes)
}

fn write_change(bytes: &mut Vec<u8>, change: &Change, front: &Front, decided: &mut Decided) -> Result<(), Error> {
    match change {
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => {
            return Err(rows::damaged("a change that is none of the journal's"));
        }
        Change::Keep(message) => {
            bytes.push(KEEP);
            write_message(bytes, message);
        }
        Change::Promise(ballot) => {
            bytes.push(PROMISE);
            write_ballot(bytes, *ballot);
        }
        Change::Accept(slot, accepted) => {
            bytes.push(ACCEPT);
            write_number(bytes, *slot);
            write_ballot(bytes, accepted.ballot);
            write_batch(bytes, &accepted.batch);
        }
        Change::Decide(slot, batch, epoch) => {
            let as_accepted = front.accepted(*slot) == Some(batch);
            bytes.push(if as_accepted { DECIDE_ACCEPTED } else { DECIDE });
            write_number(bytes, *slot);
            write_epoch(bytes, epoch);
            if !as_accepted {
                write_batch(bytes, batch);
            }
            decided.insert(*slot, (batch.clone(), 0));
        }
        Change::Deliver(place, message) => {
            let entry = place.order.and_then(|order| position(decided, order.slot, message));
            bytes.push(if entry.is_some() { DELIVER_DECIDED } else { DELIVER });
            write_place(bytes, place);
            match entry {
                Some(entry) => write_number(bytes, entry as u64),
                None => write_message(bytes, message),
            }
        }
        Change::Reach(slot) => {
            bytes.push(REACH);
            write_number(bytes, *slot);
        }
    }
    Ok(())
}

/// Where a message stands in a slot that this record decides, not before what was delivered of it already.
fn position(decided: &mut Decided, slot: u64, message: &Message) -> Option<usize> {
    let (batch, passed) = decided.get_mut(&slot)?;
    let is_it = |entry: &Entry| matches!(entry, Entry::Message(said) if said == message);
    let entry = *passed + batch.entries.iter().skip(*passed).position(is_it)?;
    *passed = entry + 1;
    Some(entry)
}

fn read_change(rest: &mut Rest<'_>, front: &Front, decided: &mut Decided) -> Result<Change, Error> {
    let [kind] = rest.array()?;
    Ok(match kind {
        KEEP => Change::Keep(read_message(rest)?),
        PROMISE => Change::Promise(read_ballot(rest)?),
        ACCEPT => {
            let (slot, ballot) = (rest.number()?, read_ballot(rest)?);
            Change::Accept(slot, Accepted { ballot, batch: read_batch(rest)? })
        }
        DECIDE | DECIDE_ACCEPTED => {
            let (slot, epoch) = (rest.number()?, read_epoch(rest)?);
            let batch = if kind == DECIDE {
                read_batch(rest)?
            } else {
                front.accepted(slot).cloned().ok_or_else(|| rows::damaged("a slot is decided as it never was accepted"))?
            };
            decided.insert(slot, (batch.clone(), 0));
            Change::Decide(slot, batch, epoch)
        }
        DELIVER => {
            let place = read_place(rest)?;
            let message = read_message(rest)?;
            Change::Deliver(place(message.id), message)
        }
        DELIVER_DECIDED => {
            let place = read_place(rest)?;
            let (slot, entry) = (place(no_name()).order.map_or(0, |order| order.slot), rest.number()?);
            let entry = usize::try_from(entry).ok().and_then(|entry| decided.get(&slot)?.0.entries.get(entry));
            let Some(Entry::Message(message)) = entry else { return Err(rows::damaged("a message is delivered that was not decided")) };
            Change::Deliver(place(message.id), message.clone())
        }
        REACH => Change::Reach(rest.number()?),
        _ => return Err(rows::damaged("the journal has a change that there is not")),
    })
}

fn write_ballot(bytes: &mut Vec<u8>, ballot: Ballot) {
    write_number(bytes, ballot.round);
    bytes.extend_from_slice(ballot.node.0.as_bytes());
}

fn read_ballot(rest: &mut Rest<'_>) -> Result<Ballot, Error> {
    Ok(Ballot { round: rest.number()?, node: rest.node()? })
}

fn write_epoch(bytes: &mut Vec<u8>, epoch: &Epoch) {
    write_number(bytes, epoch.number);
    write_number(bytes, epoch.voters.len() as u64);
    epoch.voters.iter().for_each(|voter| bytes.extend_from_slice(voter.0.as_bytes()));
}

fn read_epoch(rest: &mut Rest<'_>) -> Result<Epoch, Error> {
    let (number, count) = (rest.number()?, rest.number()?);
    let voters: BTreeSet<NodeId> = (0..count).map(|_| rest.node()).collect::<Result<_, Error>>()?;
    Ok(Epoch { number, voters })
}

pub(super) fn write_batch(bytes: &mut Vec<u8>, batch: &Batch) {
    write_number(bytes, batch.entries.len() as u64);
    for entry in batch.entries.iter() {
        match entry {
            Entry::Message(message) => {
                bytes.push(MESSAGE);
                write_message(bytes, message);
            }
            Entry::Epoch(epoch) => {
                bytes.push(EPOCH);
                write_epoch(bytes, epoch);
            }
        }
    }
}

pub(super) fn read_batch(rest: &mut Rest<'_>) -> Result<Batch, Error> {
    let entries = (0..rest.number()?).map(|_| match rest.array()? {
        [MESSAGE] => Ok(Entry::Message(read_message(rest)?)),
        [EPOCH] => Ok(Entry::Epoch(read_epoch(rest)?)),
        [_] => Err(rows::damaged("a batch has an entry that there is not")),
    });
    Ok(Batch::of(entries.collect::<Result<_, Error>>()?))
}

/// All of a place but the name of its message, which stands with that.
fn write_place(bytes: &mut Vec<u8>, place: &Place) {
    let order = place.order.unwrap_or(Order { slot: 0, number: 0 });
    for number in [place.index, place.delivered.0, order.slot, order.number] {
        write_number(bytes, number);
    }
}

fn read_place(rest: &mut Rest<'_>) -> Result<impl Fn(MessageId) -> Place + use<>, Error> {
    let (index, delivered) = (rest.number()?, WallTime(rest.number()?));
    let (slot, number) = (rest.number()?, rest.number()?);
    let order = (slot > 0).then_some(Order { slot, number });
    Ok(move |id| Place { id, index, order, delivered })
}

fn no_name() -> MessageId {
    MessageId { origin: NodeId(uuid::Uuid::nil()), channel: Channel::Ordered, sequence: 0 }
}

fn write_name(bytes: &mut Vec<u8>, id: MessageId) {
    bytes.extend_from_slice(&rows::line_bytes(id.origin, id.channel));
    write_number(bytes, id.sequence);
}

fn read_name(rest: &mut Rest<'_>) -> Result<MessageId, Error> {
    let (origin, channel) = rows::line_of(&rest.array()?)?;
    Ok(MessageId { origin, channel, sequence: rest.number()? })
}

fn write_message(bytes: &mut Vec<u8>, message: &Message) {
    write_name(bytes, message.id);
    write_number(bytes, message.frontier.slot);
    write_number(bytes, message.frontier.newest.len() as u64);
    message.frontier.newest.iter().for_each(|name| write_name(bytes, *name));
    write_text(bytes, &message.media_type);
    bytes.push(match &message.body {
        Body::Text(_) => TEXT,
        Body::Base64(_) => BYTES,
    });
    write_number(bytes, message.body.bytes().len() as u64);
    bytes.extend_from_slice(message.body.bytes());
    write_number(bytes, message.sent.0);
}

fn read_message(rest: &mut Rest<'_>) -> Result<Message, Error> {
    let id = read_name(rest)?;
    let (slot, count) = (rest.number()?, rest.number()?);
    let newest = (0..count).map(|_| read_name(rest)).collect::<Result<_, Error>>()?;
    let media_type = rest.text()?;
    let [kind] = rest.array()?;
    let body = match kind {
        TEXT => Body::Text(rest.text()?),
        BYTES => {
            let length = usize::try_from(rest.number()?).map_err(|_| rows::damaged("a body ends early"))?;
            Body::Base64(rest.take(length)?.to_vec())
        }
        _ => return Err(rows::damaged("the journal has a body that there is not")),
    };
    Ok(Message { id, frontier: Frontier { slot, newest }, media_type, body, sent: WallTime(rest.number()?) })
}
