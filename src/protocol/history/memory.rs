//! A history on a disk made of maps: for who drives the machines alone, and for the simulator.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::history::disk::Founding;
use crate::history::disk::{Change, HistoryStore, Owner, Place, Remembered};
use crate::history::epoch::Epoch;
use crate::history::message::{Channel, Message, MessageId};
use crate::history::ordered::{Accepted, Ballot, Batch};
use crate::ids::NodeId;
use crate::store::StoreFault;

/// The tables of one history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tables {
    founding: Option<Founding>,
    promised: Option<Ballot>,
    accepted: BTreeMap<u64, Accepted>,
    slots: BTreeMap<u64, (Batch, Epoch)>,
    kept: BTreeMap<MessageId, Message>,
    withheld: BTreeSet<MessageId>,
    messages: BTreeMap<MessageId, Message>,
    places: BTreeMap<u64, Place>,
    indexes: BTreeMap<MessageId, u64>,
    last: BTreeMap<(Channel, NodeId), u64>,
    slot: u64,
    owner: Option<Owner>,
}

/// All histories that a node ever belonged to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryHistory {
    founding: Option<Founding>,
    tables: BTreeMap<Uuid, Tables>,
    nothing: Tables,
}

impl MemoryHistory {
    fn current(&self) -> &Tables {
        let id = self.founding.map_or(Uuid::nil(), |founding| founding.id);
        self.tables.get(&id).unwrap_or(&self.nothing)
    }

    fn tables(&mut self) -> &mut Tables {
        self.tables.entry(self.founding.map_or(Uuid::nil(), |founding| founding.id)).or_default()
    }

    /// Makes a change.
    ///
    /// # Panics
    ///
    /// If it breaks the order in which slots are decided and places are given.
    pub fn apply(&mut self, change: Change) {
        if let Change::Join(founding) = change {
            self.founding = Some(founding);
            self.tables().founding = Some(founding);
            return;
        }
        let tables = self.tables();
        match change {
            Change::Join(_) => {}
            Change::Keep(message) => _ = tables.kept.insert(message.id, message),
            Change::Withhold(id) => _ = tables.withheld.insert(id),
            Change::Release => {
                // What others delivered under the name of one that was withheld is what has the name now.
                let taken = |id: &MessageId| tables.indexes.contains_key(id);
                std::mem::take(&mut tables.withheld).iter().filter(|id| taken(id)).for_each(|id| _ = tables.kept.remove(id));
            }
            Change::Forget(id) => {
                tables.kept.remove(&id);
                tables.withheld.remove(&id);
            }
            Change::Own(owner) => tables.owner = Some(owner),
            Change::Promise(ballot) => tables.promised = tables.promised.max(Some(ballot)),
            Change::Accept(slot, accepted) => {
                tables.promised = tables.promised.max(Some(accepted.ballot));
                tables.accepted.insert(slot, accepted);
            }
            Change::Decide(slot, batch, epoch) => {
                assert_eq!(slot, tables.slots.keys().next_back().map_or(1, |last| last + 1), "slots are decided in order");
                tables.accepted.retain(|accepted, _| *accepted > slot);
                tables.slots.insert(slot, (batch, epoch));
            }
            Change::Deliver(place, message) => {
                assert_eq!(place.index, tables.places.len() as u64 + 1, "places are given in order");
                // What is withheld under that name is another one, until it is compared.
                if !tables.withheld.contains(&message.id) {
                    tables.kept.remove(&message.id);
                }
                let last = tables.last.insert((message.id.channel, message.id.origin), message.id.sequence);
                assert_eq!(message.id.sequence, last.unwrap_or(0) + 1, "an origin's messages are delivered in their order");
                tables.indexes.insert(place.id, place.index);
                tables.places.insert(place.index, place);
                tables.messages.insert(message.id, message);
            }
            Change::Reach(slot) => tables.slot = slot,
        }
    }

    /// Everything that is said in the current history, in whatever state it is.
    pub fn said(&self) -> impl Iterator<Item = &Message> {
        let tables = self.current();
        let accepted = tables.accepted.values().map(|accepted| &accepted.batch);
        let batches = accepted.chain(tables.slots.values().map(|(batch, _)| batch));
        tables.kept.values().chain(tables.messages.values()).chain(batches.flat_map(Batch::messages))
    }

    /// Who votes behind the last slot.
    pub fn epoch(&self) -> Option<Epoch> {
        let last = self.current().slots.values().next_back().map(|(_, epoch)| epoch.clone());
        last.or_else(|| self.founding.map(|founding| founding.epoch()))
    }

    /// Every message withheld.
    pub fn withheld(&self) -> impl Iterator<Item = &Message> {
        let tables = self.current();
        tables.withheld.iter().filter_map(|id| tables.kept.get(id))
    }

    /// Every message kept and not delivered.
    pub fn kept(&self) -> impl Iterator<Item = &Message> {
        self.current().kept.values()
    }

    /// Every message delivered in the current history, in this node's order.
    pub fn delivered(&self) -> impl Iterator<Item = (&Place, &Message)> {
        let tables = self.current();
        tables.places.values().filter_map(|place| Some((place, tables.messages.get(&place.id)?)))
    }

    /// What was delivered at that place, and in which history: the current one, or one that was left.
    pub fn at(&self, place: Place) -> Option<(Founding, &Message)> {
        let mut all = std::iter::once(self.current()).chain(self.tables.values());
        let tables = all.find(|tables| tables.places.get(&place.index) == Some(&place))?;
        Some((tables.founding?, tables.messages.get(&place.id)?))
    }

    /// The history that the node belongs to.
    pub fn founding(&self) -> Option<Founding> {
        self.founding
    }
}

impl HistoryStore for MemoryHistory {
    fn remembered(&self) -> Result<Remembered, StoreFault> {
        let tables = self.current();
        let of = |channel: Channel| tables.last.iter().filter(move |((of, _), _)| *of == channel).map(|((_, node), last)| (*node, *last));
        let last = of(Channel::Causal)
            .filter_map(|(origin, sequence)| tables.messages.get(&MessageId { origin, channel: Channel::Causal, sequence }).cloned());
        Ok(Remembered {
            founding: self.founding,
            left: self
                .tables
                .keys()
                .copied()
                .filter(|id| !id.is_nil() && self.founding.is_some_and(|founding| founding.id != *id))
                .collect(),
            promised: tables.promised,
            accepted: tables.accepted.clone(),
            decided: tables.slots.keys().next_back().map_or(0, |last| *last),
            epoch: tables.slots.values().next_back().map(|(_, epoch)| epoch.clone()),
            kept: tables.kept.values().cloned().collect(),
            withheld: tables.withheld.clone(),
            owner: tables.owner.clone(),
            slot: tables.slot,
            index: tables.places.len() as u64,
            number: tables.places.values().filter_map(|place| Some(place.order?.number)).max().unwrap_or(0),
            causal: last.collect(),
            ordered: of(Channel::Ordered).collect(),
        })
    }

    fn slots(&self, from: u64, limit: usize) -> Result<Vec<(u64, Batch)>, StoreFault> {
        Ok(self.current().slots.range(from..).take(limit).map(|(slot, (batch, _))| (*slot, batch.clone())).collect())
    }

    fn places(&self, from: u64, limit: usize) -> Result<Vec<Place>, StoreFault> {
        Ok(self.current().places.range(from..).take(limit).map(|(_, place)| *place).collect())
    }

    fn place(&self, id: MessageId) -> Result<Option<Place>, StoreFault> {
        let tables = self.current();
        Ok(tables.indexes.get(&id).and_then(|index| tables.places.get(index)).copied())
    }

    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreFault> {
        let tables = self.current();
        Ok(tables.messages.get(&id).or_else(|| tables.kept.get(&id)).cloned())
    }

    fn first_index_after(&self, slot: u64) -> Result<u64, StoreFault> {
        let places = &self.current().places;
        let first = places.values().find(|place| place.order.is_some_and(|order| order.slot > slot));
        Ok(first.map_or(places.len() as u64 + 1, |place| place.index))
    }
}
