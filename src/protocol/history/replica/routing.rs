//! What the channels want done, carried out: changes, words to others, deliveries.

use std::collections::BTreeSet;

use super::{Asked, Effect, FAN_OUT, Replica, TOLD_DIRECTLY, Then, World};
use crate::history::causal::{self, Tell, Whom};
use crate::history::disk::Change;
use crate::history::letters::merge;
use crate::history::message::MessageId;
use crate::history::ordered::{self, Batch};
use crate::history::talk::{Ask, HistoryAnswer};
use crate::ids::NodeId;

impl Replica {
    pub(super) fn tell(&mut self, node: NodeId, tell: Tell) {
        if tell != (Tell { epoch: tell.epoch, ..Tell::default() }) {
            let first = tell.messages.iter().any(|message| message.id.origin == self.me) && self.causal.epoch().voters.contains(&node);
            self.letters.tell(node, tell);
            if first {
                self.letters.hurry(node);
            }
        }
    }

    /// An own message is durable. While a history is being joined it is about to get another name, and is said to be accepted under that.
    pub(super) fn accepted(&self, id: MessageId, out: &mut Vec<Effect>) {
        if !self.joining {
            out.push(Effect::Accepted(id));
        }
    }

    /// Carries out what the causal channel wants; what it says to `asker` goes into `answer`.
    pub(super) fn route_causal(
        &mut self,
        world: &mut World<'_>,
        effects: Vec<causal::Effect>,
        answer: &mut Tell,
        asker: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                causal::Effect::Persist(changes) => {
                    let changes = changes.into_iter().flat_map(|change| self.causal_change(world, change)).collect();
                    self.persist(changes, Then::Causal, out);
                }
                causal::Effect::Accepted(id) => self.accepted(id, out),
                causal::Effect::Delivered(message) => {
                    let place = self.places.pop_front().filter(|place| place.id == message.id);
                    out.extend(place.map(Effect::Delivered));
                }
                causal::Effect::Tell(Whom::Node(node), tell) if Some(node) == asker => merge(answer, tell),
                causal::Effect::Tell(Whom::Node(node), tell) => self.tell(node, tell),
                causal::Effect::Tell(whom, tell) => {
                    let origins: BTreeSet<NodeId> = tell.messages.iter().map(|message| message.id.origin).collect();
                    let others = self.meant(world, whom).into_iter().filter(|node| Some(*node) != asker && !origins.contains(node));
                    others.for_each(|node| self.tell(node, tell.clone()));
                }
            }
        }
    }

    /// Who is meant.
    fn meant(&self, world: &mut World<'_>, whom: Whom) -> Vec<NodeId> {
        let voters = &self.causal.epoch().voters;
        match whom {
            Whom::Node(node) => vec![node],
            Whom::AFew => world.network.few(FAN_OUT, world.rng),
            Whom::Learners => {
                let all = world.network.all(TOLD_DIRECTLY).unwrap_or_default();
                all.into_iter().filter(|node| !voters.contains(node)).collect()
            }
            Whom::Rumor if world.network.all(TOLD_DIRECTLY).is_some() => vec![],
            Whom::Rumor => world.network.next(FAN_OUT),
        }
    }

    pub(super) fn causal_change(&mut self, world: &World<'_>, change: causal::Change) -> Vec<Change> {
        match change {
            causal::Change::Store(message) => self.keep(message),
            causal::Change::Deliver(message) => {
                let place = self.delivery.place(message.id, None, world.now.wall);
                self.places.push_back(place);
                self.lately.insert(message.id.origin, world.now.instant);
                vec![Change::Deliver(place, message)]
            }
        }
    }

    pub(super) fn route_ordered(&mut self, world: &mut World<'_>, effects: Vec<ordered::Effect>, out: &mut Vec<Effect>) {
        for effect in effects {
            match effect {
                ordered::Effect::Persist(changes) => {
                    let changes = changes.into_iter().map(|change| self.ordered_change(change)).collect();
                    self.persist(changes, Then::Ordered, out);
                }
                ordered::Effect::Ask(voter, step) => self.ask(voter, Ask::Step(step), Asked::Step, out),
                ordered::Effect::Answer(call, vote) => out.push(Effect::Answer(call, HistoryAnswer::Vote(vote))),
                ordered::Effect::Behind(node, _) => self.asking.on_ahead(node),
                ordered::Effect::Reached(slot, batch) => self.delivery.on_decided(slot, batch),
                ordered::Effect::Decided(slot, batch) => self.on_decided(world, slot, &batch, out),
                ordered::Effect::HandOver(node, messages) => self.ask(node, Ask::HandOver(messages), Asked::HandOver, out),
            }
        }
    }

    pub(super) fn ordered_change(&mut self, change: ordered::Change) -> Change {
        match change {
            ordered::Change::Promise(ballot) => Change::Promise(ballot),
            ordered::Change::Accept(slot, accepted) => Change::Accept(slot, accepted),
            ordered::Change::Decide(slot, batch) => {
                if let Some(next) = batch.next_epoch(&self.decided_epoch) {
                    self.decided_epoch = next;
                }
                Change::Decide(slot, batch, self.decided_epoch.clone())
            }
        }
    }

    /// A slot is decided, durably here.
    pub(super) fn on_decided(&mut self, world: &mut World<'_>, slot: u64, batch: &Batch, out: &mut Vec<Effect>) {
        if self.ordered.is_coordinator() {
            for peer in world.network.few(FAN_OUT, world.rng).into_iter().filter(|peer| !self.causal.epoch().voters.contains(peer)) {
                self.letters.decided(peer, slot, batch);
            }
        }
        if let Some(epoch) = batch.next_epoch(self.causal.epoch()) {
            let mut effects = Vec::new();
            self.causal.on_epoch(world.now.instant, epoch, &mut effects);
            self.route_causal(world, effects, &mut Tell::default(), None, out);
        }
    }
}
