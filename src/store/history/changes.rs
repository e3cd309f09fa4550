//! What one commit changes of the history: all changes that are queued, in their order, in the transaction of the commit.
//!
//! 1. Slots are decided, and messages delivered, without gaps and in order; a change that says otherwise fails its batch, and the writer ends.
//! 2. What a commit does over and over it does once: of each origin the last message counts. What it undoes itself it does not do: a batch accepted
//!    for a slot that it decides, a message kept that it delivers.
//! 3. What stood under the nil id is gone once the node belongs to a history: [`Change::Join`] comes with it anew.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::history::disk::{Change, Founding, Place};
use gossip_cdn_protocol::history::epoch::Epoch;
use gossip_cdn_protocol::history::message::{Message, MessageId};
use gossip_cdn_protocol::history::ordered::{Accepted, Batch, Entry};
use redb::{Error, ReadableTable, Table, WriteTransaction};
use uuid::Uuid;

use super::rows::{self, LineBytes, NameBytes, Said, State};
use crate::store::tables;

/// What a change weighs in a batch beside its bodies: about its rows.
const CHANGE_BYTES: usize = 512;

/// About how many bytes a commit of these writes.
pub(in crate::store) fn weight(changes: &[Change]) -> usize {
    let body = |message: &Message| message.body.bytes().len() + CHANGE_BYTES;
    let bodies = |batch: &Batch| batch.messages().map(body).sum::<usize>();
    let weight = |change: &Change| match change {
        Change::Keep(message) | Change::Deliver(_, message) => body(message),
        Change::Accept(_, accepted) => bodies(&accepted.batch) + CHANGE_BYTES,
        Change::Decide(_, batch, _) => bodies(batch) + CHANGE_BYTES,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) => CHANGE_BYTES,
        Change::Own(_) | Change::Promise(_) | Change::Reach(_) => CHANGE_BYTES,
    };
    changes.iter().map(weight).sum()
}

/// Whether the journal may have a change. What happens once in a life goes to the tables at once.
pub(in crate::store) fn is_journaled(change: &Change) -> bool {
    match change {
        Change::Keep(_) | Change::Promise(_) | Change::Accept(..) | Change::Decide(..) | Change::Deliver(..) | Change::Reach(_) => true,
        Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => false,
    }
}

/// Makes these changes; without any, nothing is touched.
pub(in crate::store) fn write<'a>(transaction: &WriteTransaction, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), Error> {
    let changes: Vec<&Change> = changes.into_iter().collect();
    if changes.is_empty() {
        return Ok(());
    }
    let current = transaction.open_table(tables::META)?.get(tables::HISTORY)?.map(|row| tables::from_json(row.value())).transpose()?;
    let mut history = Changing::open(transaction, current.unwrap_or_else(Uuid::nil))?;
    for changes in changes.chunk_by(|_, next| !matches!(next, Change::Join(_))) {
        if let Some(Change::Join(founding)) = changes.first() {
            history = history.leave_for(founding)?;
        }
        history.decides = changes.iter().map(|change| if let Change::Decide(slot, ..) = change { *slot } else { 0 }).max().unwrap_or(0);
        for change in changes {
            history.apply(change)?;
        }
    }
    history.close()
}

/// The tables have everything up to the record of the journal before that one.
pub(in crate::store) fn note_journaled(transaction: &WriteTransaction, sequence: u64) -> Result<(), Error> {
    transaction.open_table(tables::META)?.insert(tables::JOURNALED, &sequence.to_be_bytes()[..])?;
    Ok(())
}

/// A slot with its batch, where its row has that, and how many entries of it were passed.
#[derive(Default)]
struct Standing {
    slot: u64,
    batch: Option<Batch>,
    passed: usize,
}

/// A history in a write transaction.
struct Changing<'txn, 'changes> {
    transaction: &'txn WriteTransaction,
    id: Uuid,
    state: State,
    messages: Table<'txn, &'static [u8; 25], &'static [u8]>,
    kept: Table<'txn, &'static [u8; 25], &'static [u8]>,
    accepted: Table<'txn, u64, &'static [u8]>,
    slots: Table<'txn, u64, &'static [u8]>,
    places: Table<'txn, u64, &'static [u8]>,
    indexes: Table<'txn, &'static [u8; 25], u64>,
    firsts: Table<'txn, u64, u64>,
    last: Table<'txn, &'static [u8; 17], u64>,
    /// The messages that this commit found, or put, under their names.
    said: BTreeMap<NameBytes, &'changes Message>,
    /// The last message delivered of each origin and channel, where this commit moves it.
    moved: BTreeMap<LineBytes, u64>,
    /// The slot of which a message was delivered last.
    first: Option<u64>,
    /// The last slot that this commit decides.
    decides: u64,
    /// The slots that it decided.
    decided: BTreeMap<u64, &'changes Batch>,
    /// The slot that is being delivered.
    standing: Standing,
    /// Whether there are rows of slots that name what stands in `messages`.
    has_names: bool,
    /// The messages that this commit keeps.
    keeps: BTreeMap<NameBytes, &'changes Message>,
    /// The names of those kept before it: few, and most that are delivered are not among them.
    was_kept: BTreeSet<NameBytes>,
}

impl<'txn, 'changes> Changing<'txn, 'changes> {
    fn open(transaction: &'txn WriteTransaction, id: Uuid) -> Result<Self, Error> {
        let histories = transaction.open_table(tables::HISTORIES)?;
        let state = histories.get(id.as_bytes())?.map(|row| tables::from_json(row.value())).transpose()?;
        let kept = rows::KEPT.make(transaction, id)?;
        let was_kept = kept.iter()?.map(|row| row.map(|(name, _)| *name.value())).collect::<Result<_, _>>()?;
        let slots = rows::SLOTS.make(transaction, id)?;
        // Those with names are older, and stand before the others.
        let has_names = slots.first()?.map(|(_, row)| rows::batch_of(row.value())).transpose()?.is_some_and(|batch| batch.is_none());
        Ok(Self {
            transaction,
            id,
            state: state.unwrap_or_default(),
            messages: rows::MESSAGES.make(transaction, id)?,
            kept,
            was_kept,
            accepted: rows::ACCEPTED.make(transaction, id)?,
            slots,
            has_names,
            places: rows::PLACES.make(transaction, id)?,
            indexes: rows::INDEXES.make(transaction, id)?,
            firsts: rows::FIRSTS.make(transaction, id)?,
            last: rows::LAST.make(transaction, id)?,
            said: BTreeMap::new(),
            moved: BTreeMap::new(),
            first: None,
            decides: 0,
            decided: BTreeMap::new(),
            standing: Standing::default(),
            keeps: BTreeMap::new(),
        })
    }

    fn close(mut self) -> Result<(), Error> {
        for (line, sequence) in std::mem::take(&mut self.moved) {
            self.last.insert(&line, sequence)?;
        }
        for (name, message) in std::mem::take(&mut self.keeps) {
            let other = self.say(message)?;
            self.kept.insert(&name, other.as_slice())?;
        }
        let mut histories = self.transaction.open_table(tables::HISTORIES)?;
        histories.insert(self.id.as_bytes(), tables::to_json(&[], &self.state)?.as_slice())?;
        Ok(())
    }

    fn leave_for(self, founding: &Founding) -> Result<Self, Error> {
        let (transaction, left) = (self.transaction, self.id);
        self.close()?;
        if left.is_nil() {
            forget(transaction, left)?;
        }
        transaction.open_table(tables::META)?.insert(tables::HISTORY, tables::to_json(&[], &founding.id)?.as_slice())?;
        let mut joined = Self::open(transaction, founding.id)?;
        joined.state.founding = Some(*founding);
        Ok(joined)
    }

    fn apply(&mut self, change: &'changes Change) -> Result<(), Error> {
        match change {
            // It changes which history this is: see `write`.
            Change::Join(_) => {}
            Change::Keep(message) => _ = self.keeps.insert(rows::name_bytes(message.id), message),
            Change::Withhold(id) => _ = self.state.withheld.insert(*id),
            Change::Release => self.release()?,
            Change::Forget(id) => self.forget(*id)?,
            Change::Own(owner) => self.state.owner = Some(owner.clone()),
            Change::Promise(ballot) => self.state.promise(*ballot),
            Change::Accept(slot, accepted) => self.accept(*slot, accepted)?,
            Change::Decide(slot, batch, epoch) => self.decide(*slot, batch, epoch)?,
            Change::Deliver(place, message) => self.deliver(place, message)?,
            Change::Reach(slot) => self.state.slot = *slot,
        }
        Ok(())
    }

    /// What others delivered under the name of a message that was withheld is what has the name now.
    fn release(&mut self) -> Result<(), Error> {
        for id in std::mem::take(&mut self.state.withheld) {
            let name = rows::name_bytes(id);
            if self.indexes.get(&name)?.is_some() {
                self.keep_no_more(&name)?;
            }
        }
        Ok(())
    }

    /// Sees to it that a message stands under its name. What a row must say beside that name: nothing, or the message, if another one
    /// has the name already.
    fn say(&mut self, message: &'changes Message) -> Result<Vec<u8>, Error> {
        let name = rows::name_bytes(message.id);
        if self.said.get(&name).is_some_and(|said| *said == message) {
            return Ok(Vec::new());
        }
        let bytes = tables::to_json(&[], message)?;
        // In one descent, for nearly always there is none yet.
        let before = self.messages.insert(&name, bytes.as_slice())?.map(|row| row.value().to_vec());
        match before {
            Some(other) if other != bytes => {
                self.messages.insert(&name, other.as_slice())?;
                Ok(bytes)
            }
            Some(_) | None => {
                self.said.insert(name, message);
                Ok(Vec::new())
            }
        }
    }

    fn forget(&mut self, id: MessageId) -> Result<(), Error> {
        let name = rows::name_bytes(id);
        let kept = self.keep_no_more(&name)?;
        if kept && self.indexes.get(&name)?.is_none() {
            match self.decided_as(id)?.filter(|_| self.has_names) {
                Some(Said::Message(decided)) => {
                    self.spell_out(id)?;
                    self.messages.insert(&name, tables::to_json(&[], &decided)?.as_slice())?;
                }
                Some(Said::Name(_) | Said::Epoch(_)) => {}
                None => _ = self.messages.remove(&name)?,
            }
            self.said.remove(&name);
        }
        self.state.withheld.remove(&id);
        Ok(())
    }

    /// Whether it was kept.
    fn keep_no_more(&mut self, name: &NameBytes) -> Result<bool, Error> {
        let (now, before) = (self.keeps.remove(name).is_some(), self.was_kept.remove(name));
        if before {
            self.kept.remove(name)?;
        }
        Ok(now || before)
    }

    /// What the first slot that is not delivered yet says of a message of that name, if one does.
    fn decided_as(&self, id: MessageId) -> Result<Option<Said>, Error> {
        for row in self.slots.range(self.state.slot + 1..)? {
            let said = rows::said_of(row?.1.value())?;
            let is_it = |said: &Said| match said {
                Said::Name(name) => *name == id,
                Said::Message(message) => message.id == id,
                Said::Epoch(_) => false,
            };
            if let Some(found) = said.into_iter().find(is_it) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Another message is to stand under that name: slots that are not delivered yet, and rely on what stands there, get that whole.
    fn spell_out(&mut self, id: MessageId) -> Result<(), Error> {
        let stands = self.messages.get(&rows::name_bytes(id))?.map(|row| tables::from_json::<Message>(row.value())).transpose()?;
        let Some(stands) = stands else { return Ok(()) };
        let mut changed = Vec::new();
        for row in self.slots.range(self.state.slot + 1..)? {
            let (slot, row) = row?;
            let mut said = rows::said_of(row.value())?;
            let relying: Vec<&mut Said> = said.iter_mut().filter(|said| matches!(said, Said::Name(name) if *name == id)).collect();
            if !relying.is_empty() {
                relying.into_iter().for_each(|said| *said = Said::Message(stands.clone()));
                changed.push((slot.value(), said));
            }
        }
        for (slot, said) in changed {
            self.slots.insert(slot, tables::to_json(&[], &said)?.as_slice())?;
        }
        Ok(())
    }

    /// Whole and apart: a batch that is never decided leaves nothing behind.
    fn accept(&mut self, slot: u64, accepted: &Accepted) -> Result<(), Error> {
        self.state.promise(accepted.ballot);
        if slot <= self.decides {
            return Ok(());
        }
        self.accepted.insert(slot, tables::to_json(&[], accepted)?.as_slice())?;
        Ok(())
    }

    fn decide(&mut self, slot: u64, batch: &'changes Batch, epoch: &Epoch) -> Result<(), Error> {
        self.state.decide(slot, epoch)?;
        self.slots.insert(slot, rows::slot_row(batch).as_slice())?;
        self.decided.insert(slot, batch);
        self.accepted.retain_in(..=slot, |_, _| false)?;
        Ok(())
    }

    /// Where a message stands in the batch of its slot, not before what was delivered of that already. `None`: the row of the slot does not
    /// have it.
    fn entry(&mut self, slot: u64, message: &Message) -> Result<Option<usize>, Error> {
        if self.standing.slot != slot {
            let batch = match self.decided.get(&slot) {
                Some(batch) => Some((*batch).clone()),
                None => self.slots.get(slot)?.map(|row| rows::batch_of(row.value())).transpose()?.flatten(),
            };
            self.standing = Standing { slot, batch, passed: 0 };
        }
        let Standing { batch: Some(batch), passed, .. } = &mut self.standing else { return Ok(None) };
        let is_it = |entry: &Entry| matches!(entry, Entry::Message(said) if said == message);
        let Some(entry) = batch.entries.iter().skip(*passed).position(is_it).map(|entry| *passed + entry) else { return Ok(None) };
        *passed = entry + 1;
        Ok(Some(entry))
    }

    fn deliver(&mut self, place: &Place, message: &'changes Message) -> Result<(), Error> {
        let (name, line) = (rows::name_bytes(message.id), rows::line_bytes(message.id.origin, message.id.channel));
        let last = match self.moved.insert(line, message.id.sequence) {
            Some(last) => Some(last),
            None => self.last.get(&line)?.map(|row| row.value()),
        };
        self.state.deliver(place, message, last.unwrap_or(0))?;
        let entry = place.order.map(|order| self.entry(order.slot, message)).transpose()?.flatten();
        let behind = entry.map_or_else(|| self.say(message), |entry| Ok(rows::in_slot(entry)))?;
        self.places.insert(place.index, rows::place_row(place, &behind).as_slice())?;
        self.indexes.insert(&name, place.index)?;
        // What is withheld under that name is another one, until it is compared.
        if !self.state.withheld.contains(&message.id) {
            let was_kept = self.was_kept.contains(&name);
            self.keep_no_more(&name)?;
            if was_kept && entry.is_some() && !self.has_names {
                self.messages.remove(&name)?;
                self.said.remove(&name);
            }
        }
        if let Some(order) = place.order
            && self.first.replace(order.slot) != Some(order.slot)
            && self.firsts.get(order.slot)?.is_none()
        {
            self.firsts.insert(order.slot, place.index)?;
        }
        Ok(())
    }
}

/// Removes everything of a history.
fn forget(transaction: &WriteTransaction, id: Uuid) -> Result<(), Error> {
    transaction.open_table(tables::HISTORIES)?.remove(id.as_bytes())?;
    rows::MESSAGES.remove(transaction, id)?;
    rows::KEPT.remove(transaction, id)?;
    rows::ACCEPTED.remove(transaction, id)?;
    rows::SLOTS.remove(transaction, id)?;
    rows::PLACES.remove(transaction, id)?;
    rows::INDEXES.remove(transaction, id)?;
    rows::FIRSTS.remove(transaction, id)?;
    rows::LAST.remove(transaction, id)
}
