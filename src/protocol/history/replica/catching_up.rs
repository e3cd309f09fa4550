//! How a node learns that it lacks something of the history, and asks for it; and how far it says that it is.

use std::collections::BTreeSet;

use super::{ASKED_BESIDE, Asked, Effect, LATELY, MAX_UNDER_WAY, Replica, World};
use crate::history::asking::Question;
use crate::history::talk::{Ask, Head, Known};
use crate::history::transaction::Signal;
use crate::ids::NodeId;
use crate::time::Instant;

impl Replica {
    /// Another node's history, as an exchange shows it where fingerprints differ.
    pub fn on_differ(&mut self, world: &mut World<'_>, from: NodeId, head: Head, out: &mut Vec<Effect>) {
        if self.founding.is_some_and(|founding| founding == head.founding) {
            if let Some(full) = self.asking.on_differ(from).filter(|_| !self.joining) {
                let known = self.known(full, world.now.instant);
                let questions = self.asking.begin(BTreeSet::from([from]), false, &known, world.now.instant);
                self.put(questions, world.now.instant, out);
            }
        } else {
            self.on_head(from, head, out);
        }
        self.advance(world, out);
    }

    /// An exchange found nothing that differs.
    pub fn on_equal(&mut self, from: NodeId) {
        self.asking.on_equal(from);
    }

    /// This node heard nobody for longer than it takes to call a node dead, and hears somebody again.
    pub fn on_silence_ended(&mut self, now: Instant) {
        self.asking.doubt(now);
    }

    pub(super) fn put(&mut self, questions: impl IntoIterator<Item = Question>, now: Instant, out: &mut Vec<Effect>) {
        for Question { to, ask, session } in questions {
            let asked = match &ask {
                Ask::UpdateMe(_) => {
                    self.ordered.transaction_mut().on_signal(Signal::UpdateMeRequestSent, now);
                    Asked::Page(session)
                }
                Ask::Versions(_) | Ask::Tell(_) | Ask::Step(_) | Ask::HandOver(_) | Ask::Seat(_) | Ask::Settle(_) => {
                    Asked::Versions(session)
                }
            };
            self.ask(to, ask, asked, out);
        }
    }

    /// How far this node is.
    pub(super) fn known(&mut self, full: bool, now: Instant) -> Known {
        self.lately.retain(|_, at| now.since(*at) < LATELY);
        let named = |origin: &NodeId| full || self.lately.contains_key(origin);
        let origins = self.causal.delivered().iter().filter(|(origin, _)| named(origin)).map(|(origin, last)| (*origin, *last)).collect();
        Known { slot: self.ordered.decided(), origins, full, traces: None }
    }

    /// How far this node is where it is farther than another one.
    pub(super) fn beyond(&mut self, from: NodeId, theirs: &Known, now: Instant) -> Known {
        let mut ours = self.known(theirs.full, now);
        for origin in theirs.origins.keys() {
            if let Some(last) = self.causal.delivered().get(origin) {
                ours.origins.insert(*origin, *last);
            }
        }
        ours.origins.retain(|origin, last| theirs.origins.get(origin).is_none_or(|theirs| theirs < last));
        ours.traces = Some(self.traces(from));
        ours
    }

    /// Whether the disk keeps up with what is fetched. However many slots wait for what comes before them, that must be asked for.
    pub(super) fn may_ask(&self) -> bool {
        self.disk.len() < MAX_UNDER_WAY
    }

    pub(super) fn ask_for_more(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        let now = world.now.instant;
        if self.founding.is_none() || !self.may_ask() {
            return;
        }
        if let Some(whom) = self.asking.due(now) {
            let general = whom.is_none();
            let mut nodes: BTreeSet<NodeId> = whom.into_iter().collect();
            if general {
                nodes.extend(self.causal.epoch().voters.iter().filter(|voter| **voter != self.me));
                nodes.extend(world.network.few(ASKED_BESIDE, world.rng));
            }
            let known = self.known(true, now);
            let questions = self.asking.begin(nodes, general, &known, now);
            self.put(questions, world.now.instant, out);
        }
        if self.asking.is_busy() && !self.asking.is_fetching() {
            let ours = self.known(true, now);
            let question = self.asking.proceed(self.me, self.causal.epoch(), &ours, now);
            self.put(question, world.now.instant, out);
        }
    }
}
