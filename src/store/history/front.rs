//! What the writer knows of the current history without asking the tables: how far it is, and what may come next.

use std::collections::BTreeMap;

use gossip_cdn_protocol::history::disk::Change;
use gossip_cdn_protocol::history::ordered::Batch;
use redb::{Error, ReadTransaction, ReadableTable};
use uuid::Uuid;

use super::rows::{self, LineBytes, State};
use super::{History, Tail};
use crate::store::tables;

/// A history behind all its changes.
#[derive(Debug)]
pub(in crate::store) struct Front {
    pub(super) id: Uuid,
    pub(super) state: State,
    /// Batches accepted for slots that are not decided.
    accepted: BTreeMap<u64, Batch>,
    /// The last message delivered of each origin and channel.
    last: BTreeMap<LineBytes, u64>,
}

impl Front {
    /// Of the history that the node belongs to; `None` while its tables are not made.
    pub(in crate::store) fn of(transaction: ReadTransaction) -> Result<Option<Self>, Error> {
        let Some(history) = History::current(transaction, &Tail::default())? else { return Ok(None) };
        let (mut accepted, mut last) = (BTreeMap::new(), BTreeMap::new());
        for row in history.table(&rows::ACCEPTED)?.iter()? {
            let (slot, row) = row?;
            let row: gossip_cdn_protocol::history::ordered::Accepted = tables::from_json(row.value())?;
            accepted.insert(slot.value(), row.batch);
        }
        for row in history.table(&rows::LAST)?.iter()? {
            let (line, sequence) = row?;
            last.insert(*line.value(), sequence.value());
        }
        Ok(Some(Self { id: history.id, state: history.state, accepted, last }))
    }

    /// What was accepted for a slot that is not decided.
    pub(super) fn accepted(&self, slot: u64) -> Option<&Batch> {
        self.accepted.get(&slot)
    }

    /// Goes behind a change. An error: it contradicts what was before it.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Join(_) | Change::Withhold(_) | Change::Release | Change::Forget(_) | Change::Own(_) => {
                return Err(rows::damaged("the journal has a change that is none of its own"));
            }
            Change::Keep(_) => {}
            Change::Promise(ballot) => self.state.promise(*ballot),
            Change::Accept(slot, accepted) => {
                self.state.promise(accepted.ballot);
                self.accepted.insert(*slot, accepted.batch.clone());
            }
            Change::Decide(slot, _, epoch) => {
                self.state.decide(*slot, epoch)?;
                self.accepted = self.accepted.split_off(&(slot + 1));
            }
            Change::Deliver(place, message) => {
                let line = rows::line_bytes(message.id.origin, message.id.channel);
                let last = self.last.insert(line, message.id.sequence).unwrap_or(0);
                self.state.deliver(place, message, last)?;
            }
            Change::Reach(slot) => self.state.slot = *slot,
        }
        Ok(())
    }
}
