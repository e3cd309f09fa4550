//! Which history a node belongs to: founding one, joining one, leaving one for another.
//!
//! 1. Until the disk has it nothing of the new history is said or taken, and nothing of the old one moves.
//! 2. Only a young history is left without an operator's word: nothing was decided or delivered in it, as its founder or a majority said; or
//!    its founder has left it, and nothing of it has come here.
//! 3. No history is joined a second time: a number is used once in a history.

use std::collections::BTreeMap;

use rand::RngExt;

use super::{Effect, Replica, Then, World};
use crate::history::disk::{Change, Founding, Owner};
use crate::history::message::{Channel, Message, MessageId};
use crate::history::talk::Head;
use crate::ids::NodeId;

impl Replica {
    /// Founds a history with this node as its only voter, unless it belongs to one.
    pub fn found(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        if self.founding.is_none() && !self.joining {
            let id = uuid::Builder::from_random_bytes(world.rng.random()).into_uuid();
            self.join(Founding { id, founder: self.me }, out);
        }
    }

    /// An operator's word: leave this history for that one.
    pub fn adopt(&mut self, founding: Founding, out: &mut Vec<Effect>) {
        if self.founding != Some(founding) && !self.joining {
            self.join(founding, out);
        }
    }

    pub(super) fn join(&mut self, founding: Founding, out: &mut Vec<Effect>) {
        self.joining = true;
        // What was delivered in the history that is left keeps its numbers there; what was not is sent anew, from 1 on.
        // What was kept under an earlier key gets the name that that key would have given it, and so is known again if it did.
        let mut next: BTreeMap<(NodeId, Channel), u64> = BTreeMap::new();
        let own: Vec<Message> = self.own().cloned().collect();
        let (mut changes, mut renamed) = (vec![Change::Join(founding)], BTreeMap::new());
        changes.push(Change::Own(Owner { node: self.me, before: BTreeMap::new() }));
        for message in own {
            let sequence = next.entry((message.id.origin, message.id.channel)).or_default();
            *sequence += 1;
            let id = MessageId { sequence: *sequence, ..message.id };
            renamed.insert(message.id, id);
            changes.push(Change::Keep(Message { id, frontier: Default::default(), ..message }));
            changes.push(Change::Withhold(id));
        }
        self.persist(changes, Then::Join(founding, renamed), out);
    }

    /// This node's own messages that are not delivered, those under earlier keys and those on their way to the disk included.
    pub(super) fn own(&self) -> impl Iterator<Item = &Message> {
        let stored = self.disk.iter().filter_map(|then| if let Then::OwnOrdered(message) = then { Some(message) } else { None });
        self.in_channels().filter(|message| self.owner.said(message.id)).chain(self.speech.messages()).chain(stored)
    }

    pub(super) fn on_head(&mut self, from: NodeId, head: Head, out: &mut Vec<Effect>) {
        if self.joining {
            return;
        }
        match self.head() {
            None => self.join(head.founding, out),
            Some(ours) if ours.founding == head.founding => {}
            // Its own numbers there are taken, and others may have delivered what bears them.
            Some(_) if self.has_left(head.founding.id) => out.push(Effect::Apart(from, head.founding)),
            // Its founder is gone from it, and this node knows nobody else there who could have gone on.
            Some(ours) if ours.founding.founder == from && self.is_untouched() => self.join(head.founding, out),
            Some(ours) if ours.young && (!head.young || head.founding.id < ours.founding.id) => self.join(head.founding, out),
            Some(ours) if !ours.young && !head.young => out.push(Effect::Apart(from, head.founding)),
            // The other one yields.
            Some(_) => {}
        }
    }
}
