//! Letters: what is to be told to other nodes, gathered for each while a letter to it is on its way.
//!
//! 1. To one node one letter is under way at a time, so a burst of messages costs a few calls and not one for each. What cannot wait, the first
//!    word of a message to a voter, goes in a second one.
//! 2. A letter is bounded, and so is the number of nodes that one waits for. What does not fit is dropped: whatever must arrive is told again, or
//!    found when histories are compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::causal::{MAX_TOLD, TOLD_BUDGET, Tell};
use crate::history::ordered::Batch;
use crate::history::talk::{Letter, MAX_SLOTS};
use crate::ids::NodeId;

/// Most letters under way to one node.
const MAX_UNDER_WAY: usize = 2;
/// Most nodes that a letter waits for.
const MAX_LETTERS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Letters {
    waiting: BTreeMap<NodeId, Letter>,
    /// Nodes for which something waits that should not.
    urgent: BTreeSet<NodeId>,
    /// How many letters, from 1 to [`MAX_UNDER_WAY`].
    under_way: BTreeMap<NodeId, usize>,
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

    /// What waits for that node should not wait for an answer to a letter before.
    pub(super) fn hurry(&mut self, node: NodeId) {
        if self.waiting.contains_key(&node) {
            self.urgent.insert(node);
        }
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
        let may = |node: &&NodeId| {
            let most = if self.urgent.contains(node) { MAX_UNDER_WAY } else { 1 };
            self.under_way.get(node).is_none_or(|count| *count < most)
        };
        let due: Vec<NodeId> = self.waiting.keys().filter(may).copied().collect();
        for node in &due {
            self.urgent.remove(node);
            *self.under_way.entry(*node).or_default() += 1;
        }
        due.into_iter().filter_map(|node| self.waiting.remove_entry(&node)).collect()
    }

    /// A letter was answered, or will not be.
    pub(super) fn on_ended(&mut self, node: NodeId) {
        if let Some(count) = self.under_way.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&node);
            }
        }
    }

    /// What must hold at all times.
    pub(super) fn check(&self) {
        assert!(self.waiting.len() <= MAX_LETTERS && self.urgent.len() <= MAX_LETTERS, "bounded");
        assert!(self.under_way.values().all(|count| (1..=MAX_UNDER_WAY).contains(count)), "so many and no more");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::node;

    fn telling(epoch: u64) -> Tell {
        Tell { epoch, ..Tell::default() }
    }

    #[test]
    fn one_letter_is_under_way_and_a_second_one_where_something_cannot_wait() {
        let (mut letters, to) = (Letters::default(), node(1));
        let due = |letters: &mut Letters| letters.due().len();
        letters.tell(to, telling(1));
        assert_eq!(due(&mut letters), 1);
        letters.tell(to, telling(2));
        assert_eq!(due(&mut letters), 0, "it waits for the answer");
        letters.hurry(to);
        assert_eq!(due(&mut letters), 1);
        letters.tell(to, telling(3));
        letters.hurry(to);
        letters.hurry(node(2));
        assert_eq!(due(&mut letters), 0, "there are two");
        letters.on_ended(to);
        assert_eq!(due(&mut letters), 1, "it is still urgent");
        letters.on_ended(to);
        letters.on_ended(to);
        letters.on_ended(to);
        letters.tell(to, telling(4));
        assert_eq!(due(&mut letters), 1);
        letters.check();
    }
}
