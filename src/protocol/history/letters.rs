//! Letters: what is to be told to other nodes, gathered for each while a letter to it is on its way.
//!
//! 1. To one node one letter is under way at a time, so a burst of messages costs a few calls and not one for each.
//! 2. A letter is bounded, and so is the number of nodes that one waits for. What does not fit is dropped: whatever must arrive is told again, or
//!    found when histories are compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::causal::{MAX_TOLD, TOLD_BUDGET, Tell};
use crate::history::ordered::Batch;
use crate::history::talk::{Letter, MAX_SLOTS};
use crate::ids::NodeId;

/// Most nodes that a letter waits for.
const MAX_LETTERS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Letters {
    waiting: BTreeMap<NodeId, Letter>,
    under_way: BTreeSet<NodeId>,
}

impl Letters {
    fn to(&mut self, node: NodeId) -> Option<&mut Letter> {
        if self.waiting.len() >= MAX_LETTERS && !self.waiting.contains_key(&node) {
            return None;
        }
        Some(self.waiting.entry(node).or_default())
    }

    /// Adds what is to be told of causal messages.
    pub(super) fn tell(&mut self, node: NodeId, tell: Tell) {
        let Some(letter) = self.to(node) else { return };
        merge(&mut letter.tell, tell);
    }

    /// Adds a slot that was decided.
    pub(super) fn decided(&mut self, node: NodeId, slot: u64, batch: &Batch) {
        let Some(letter) = self.to(node) else { return };
        letter.slots.insert(slot, batch.clone());
        // The latest tell most: whoever lacks those before them asks for all.
        while letter.slots.len() > MAX_SLOTS {
            letter.slots.pop_first();
        }
    }

    /// The letters that may be sent now.
    pub(super) fn due(&mut self) -> Vec<(NodeId, Letter)> {
        let due: Vec<NodeId> = self.waiting.keys().filter(|node| !self.under_way.contains(node)).copied().collect();
        self.under_way.extend(&due);
        due.into_iter().filter_map(|node| self.waiting.remove_entry(&node)).collect()
    }

    /// A letter was answered, or will not be.
    pub(super) fn on_ended(&mut self, node: NodeId) {
        self.under_way.remove(&node);
    }

    /// What must hold at all times.
    pub(super) fn check(&self) {
        assert!(self.waiting.len() <= MAX_LETTERS, "bounded");
    }
}

/// Puts two tells into one, as far as one carries them. The later epoch counts: what was held in an earlier one is held in it too.
pub(super) fn merge(tell: &mut Tell, more: Tell) {
    let Tell { epoch, messages, holds, delivered, lacks } = more;
    tell.epoch = tell.epoch.max(epoch);
    let mut bytes: usize = tell.messages.iter().map(|message| message.body.bytes().len()).sum();
    for message in messages {
        if tell.messages.iter().any(|known| known.id == message.id) {
            continue;
        }
        bytes += message.body.bytes().len();
        if tell.messages.len() >= MAX_TOLD || bytes > TOLD_BUDGET && !tell.messages.is_empty() {
            break;
        }
        tell.messages.push(message);
    }
    for (names, more) in [(&mut tell.holds, holds), (&mut tell.delivered, delivered), (&mut tell.lacks, lacks)] {
        for id in more {
            if names.len() < MAX_TOLD && !names.contains(&id) {
                names.push(id);
            }
        }
    }
}
