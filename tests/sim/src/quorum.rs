//! Majorities, looked at from outside all nodes: whether those that were needed had on their disks what they needed to have.
//!
//! 1. A causal message is delivered first when a majority of one epoch's voters had it on disk while they were in that epoch.
//! 2. A slot is decided first when a majority of its epoch's voters had accepted its batch under one ballot, and a majority of them had
//!    confirmed that ballot when it was started.
//! 3. Once a majority has accepted a batch for a slot, nobody accepts another one for it under a greater ballot (Lamport, "Paxos Made
//!    Simple", 2001, P2c).
//! 4. Under one ballot a slot has one batch.
//! 5. An epoch is left only when a majority of its voters has on disk whatever was delivered by the word of an earlier one.
//!
//! What a disk had counts for ever: nobody is asked to have said it at a moment. So the checks lag behind the cores, and are never early.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::history::disk::{Change, Founding, HistoryStore};
use gossip_cdn_protocol::history::epoch::Epoch;
use gossip_cdn_protocol::history::memory::MemoryHistory;
use gossip_cdn_protocol::history::message::{Channel, MessageId};
use gossip_cdn_protocol::history::ordered::{Ballot, Batch};

/// What is on the disk of a node.
#[derive(Debug, Default)]
struct Memory {
    founding: Option<Founding>,
    epoch: u64,
    kept: BTreeSet<MessageId>,
    delivered: BTreeMap<NodeId, u64>,
}

impl Memory {
    fn has(&self, id: MessageId) -> bool {
        self.kept.contains(&id) || self.delivered.get(&id.origin).is_some_and(|last| id.sequence <= *last)
    }
}

/// What was ever on the disks of one history's nodes.
#[derive(Debug, Default)]
struct History {
    epochs: BTreeMap<u64, Epoch>,
    /// The epoch behind each slot that changed it.
    changes: BTreeMap<u64, u64>,
    decided: u64,
    /// Who had a message undelivered, by the epoch it was in.
    holders: BTreeMap<MessageId, BTreeMap<u64, BTreeSet<NodeId>>>,
    /// The first epoch whose majority had what was delivered.
    delivered_in: BTreeMap<MessageId, u64>,
    promised: BTreeMap<Ballot, BTreeSet<NodeId>>,
    accepted: BTreeMap<u64, Vec<(Ballot, Batch, BTreeSet<NodeId>)>>,
}

impl History {
    /// The epoch that a slot is decided in.
    fn epoch_of(&self, slot: u64) -> u64 {
        self.changes.range(..slot).next_back().map_or(1, |(_, epoch)| *epoch)
    }

    fn is_majority(&self, epoch: u64, nodes: &BTreeSet<NodeId>) -> bool {
        self.epochs.get(&epoch).is_some_and(|epoch| epoch.is_majority(nodes))
    }

    fn on_accepted(&mut self, slot: u64, ballot: Ballot, batch: &Batch, node: NodeId) -> Result<(), String> {
        // The epoch of a later slot is not known yet.
        let epoch = (slot == self.decided + 1).then(|| self.epoch_of(slot));
        let all = self.accepted.entry(slot).or_default();
        let is_chosen = |nodes| epoch.and_then(|epoch| self.epochs.get(&epoch)).is_some_and(|epoch| epoch.is_majority(nodes));
        if all.iter().any(|(earlier, other, nodes)| *earlier < ballot && other != batch && is_chosen(nodes)) {
            return Err(format!("another batch for slot {slot} than the one a majority had accepted before"));
        }
        if all.iter().any(|(known, other, _)| *known == ballot && other != batch) {
            return Err(format!("two batches for slot {slot} under one ballot"));
        }
        match all.iter_mut().find(|(known, same, _)| *known == ballot && same == batch) {
            Some((_, _, nodes)) => _ = nodes.insert(node),
            None => all.push((ballot, batch.clone(), BTreeSet::from([node]))),
        }
        Ok(())
    }

    /// The first time that a message is delivered anywhere.
    fn on_delivered(&mut self, id: MessageId) -> Result<(), String> {
        if self.delivered_in.contains_key(&id) {
            return Ok(());
        }
        let holders = self.holders.get(&id).into_iter().flatten();
        let by = holders.filter(|(epoch, nodes)| self.is_majority(**epoch, nodes)).map(|(epoch, _)| *epoch).next();
        self.delivered_in.insert(id, by.ok_or_else(|| format!("{id}, which no majority has"))?);
        Ok(())
    }

    /// The first time that a slot is decided anywhere.
    fn on_decided(&mut self, slot: u64, batch: &Batch) -> Result<(), String> {
        let epoch = self.epoch_of(slot);
        let none = BTreeSet::new();
        let is_sound = |(ballot, accepted, nodes): &(Ballot, Batch, BTreeSet<NodeId>)| {
            let promised = self.promised.get(ballot).unwrap_or(&none);
            accepted == batch && self.is_majority(epoch, nodes) && self.is_majority(epoch, promised)
        };
        let sound = self.accepted.get(&slot).is_some_and(|all| all.iter().any(is_sound));
        self.accepted.retain(|open, _| *open > slot);
        self.decided = slot;
        if sound { Ok(()) } else { Err(format!("slot {slot}, for which no majority of epoch {epoch} was started and accepted")) }
    }

    /// What was delivered in an epoch before this one, and no majority of this one's voters has.
    fn unsettled(&self, epoch: &Epoch, has: impl Fn(NodeId, MessageId) -> bool) -> Option<MessageId> {
        let earlier = self.delivered_in.iter().filter(|(_, by)| **by < epoch.number).map(|(id, _)| *id);
        let having = |id| epoch.voters.iter().copied().filter(|voter| has(*voter, id)).collect();
        earlier.into_iter().find(|id| !epoch.is_majority(&having(*id)))
    }
}

/// All disks, as far as votes are concerned.
#[derive(Debug, Default)]
pub(crate) struct Quorums {
    nodes: BTreeMap<NodeId, Memory>,
    histories: BTreeMap<Founding, History>,
}

impl Quorums {
    /// A node starts with what is on its disk.
    pub(crate) fn on_start(&mut self, node: NodeId, disk: &MemoryHistory) {
        let Ok(remembered) = disk.remembered() else { return };
        let causal = |id: &MessageId| id.channel == Channel::Causal;
        let memory = Memory {
            founding: remembered.founding,
            epoch: remembered.epoch.map_or(1, |epoch| epoch.number),
            kept: remembered.kept.iter().map(|message| message.id).filter(causal).collect(),
            delivered: remembered.causal.iter().map(|message| (message.id.origin, message.id.sequence)).collect(),
        };
        self.nodes.insert(node, memory);
    }

    /// A node's disk has something more, in this order.
    pub(crate) fn on_durable(&mut self, node: NodeId, changes: &[Change]) -> Result<(), String> {
        changes.iter().try_for_each(|change| self.on_change(node, change))
    }

    fn on_change(&mut self, node: NodeId, change: &Change) -> Result<(), String> {
        if let Change::Join(founding) = change {
            let history = self.histories.entry(*founding).or_default();
            history.epochs.insert(1, founding.epoch());
            self.nodes.insert(node, Memory { founding: Some(*founding), epoch: 1, ..Memory::default() });
            return Ok(());
        }
        let memory = self.nodes.entry(node).or_default();
        let Some(history) = memory.founding.and_then(|founding| self.histories.get_mut(&founding)) else { return Ok(()) };
        match change {
            Change::Keep(message) if message.id.channel == Channel::Causal => {
                memory.kept.insert(message.id);
                history.holders.entry(message.id).or_default().entry(memory.epoch).or_default().insert(node);
                Ok(())
            }
            Change::Deliver(place, message) if place.order.is_none() => {
                memory.kept.remove(&place.id);
                memory.delivered.insert(message.id.origin, message.id.sequence);
                history.on_delivered(place.id)
            }
            Change::Promise(ballot) => {
                history.promised.entry(*ballot).or_default().insert(node);
                Ok(())
            }
            Change::Accept(slot, accepted) => history.on_accepted(*slot, accepted.ballot, &accepted.batch, node),
            Change::Decide(slot, batch, epoch) => self.on_decide(node, *slot, batch, epoch),
            Change::Forget(id) => {
                memory.kept.remove(id);
                Ok(())
            }
            Change::Join(_) | Change::Keep(_) | Change::Deliver(..) | Change::Reach(_) => Ok(()),
            Change::Withhold(_) | Change::Release | Change::Own(_) => Ok(()),
        }
    }

    fn on_decide(&mut self, node: NodeId, slot: u64, batch: &Batch, behind: &Epoch) -> Result<(), String> {
        let Some(founding) = self.nodes.get(&node).and_then(|memory| memory.founding) else { return Ok(()) };
        let Some(history) = self.histories.get_mut(&founding) else { return Ok(()) };
        if slot > history.decided {
            history.on_decided(slot, batch)?;
            let left = history.epoch_of(slot);
            if behind.number > left {
                let has = |voter, id| self.nodes.get(&voter).is_some_and(|memory| memory.has(id));
                let unsettled = history.epochs.get(&left).and_then(|epoch| history.unsettled(epoch, has));
                if let Some(id) = unsettled {
                    return Err(format!("an epoch behind {left}, which is not settled: no majority of it has {id}"));
                }
                history.changes.insert(slot, behind.number);
                history.epochs.insert(behind.number, behind.clone());
            }
        }
        let Some(memory) = self.nodes.get_mut(&node).filter(|memory| memory.epoch < behind.number) else { return Ok(()) };
        memory.epoch = behind.number;
        for id in &memory.kept {
            history.holders.entry(*id).or_default().entry(behind.number).or_default().insert(node);
        }
        Ok(())
    }
}
