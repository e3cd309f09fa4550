//! Who does not answer: probes, suspicions, deaths, and probes on others' behalf.

use crate::ids::NodeId;
use crate::io::{Event, Outbox, Output, PeerCall, Refusal, Target, Token};
use crate::member::{MemberState, Suspicion};
use crate::membership::Doubt;
use crate::membership::health::{LATE, SLOW_PERSIST};
use crate::membership::probing::{Due, HELPERS, PROBE_TIMEOUT};
use crate::node::{Node, Purpose};
use crate::store::Store;
use crate::time::{Instant, Now};
use crate::wire::{Answer, Probe, Probed, Request, Rumors};

/// Most probes under way on others' behalf; who asks beyond it is told that nothing came of it.
const MAX_VOUCHES: usize = 256;

impl<S: Store> Node<S> {
    /// An exchange with that member begins: it is a probe, unless this node knows already that it does not answer.
    pub(super) fn on_probe_begun(&mut self, now: Now, peer: NodeId) {
        if self.membership.is_probed(peer) && self.probes.begin(peer, self.membership.patience(), now.instant) {
            self.counters.probes += 1;
        }
        // Whoever calls a suspect tells it so: it can refute all the sooner (Lifeguard's buddy system, section IV-C).
        if let Some(suspicion) = self.membership.suspicion(peer) {
            self.spread.push_suspicion(peer, suspicion);
        }
    }

    /// A call to that member failed.
    pub(super) fn on_unreached(&mut self, now: Now, peer: NodeId, out: &mut Outbox) {
        if self.membership.is_probed(peer) && self.probes.on_failed(peer, now.instant) {
            self.ask_others(now, peer, out);
        }
    }

    /// Whose time is up is asked for, or suspected.
    pub(super) fn probe(&mut self, now: Now, out: &mut Outbox) {
        while let Some(due) = self.probes.due(now.instant) {
            match due {
                Due::Ask(id) => self.ask_others(now, id, out),
                Due::Missed { id, alone } => self.on_missed(now, id, alone, out),
            }
        }
    }

    fn ask_others(&mut self, now: Now, about: NodeId, out: &mut Outbox) {
        let Some(target) = self.membership.target(about).filter(|_| self.membership.is_probed(about) && !self.leaving) else {
            self.probes.end(about);
            return;
        };
        let helpers = self.membership.pick_some(HELPERS, &[about], &mut self.rng);
        self.probes.on_asked(about, helpers.len(), self.membership.patience(), now.instant);
        self.counters.probes_indirect += helpers.len() as u64;
        let probe = Probe { id: about, address: target.address.clone() };
        for helper in helpers {
            let Some(id) = helper.id else { continue };
            self.call(helper, Request::Probe(probe.clone()), Purpose::Ask(id, about), out);
        }
        self.call(target, Request::Probe(probe), Purpose::Probe(about), out);
    }

    /// A helper answered.
    pub(super) fn on_probed(&mut self, now: Now, about: NodeId, alive: bool, out: &mut Outbox) {
        if alive {
            self.probes.end(about);
        } else if let Some(Due::Missed { id, alone }) = self.probes.on_unreached(about, true) {
            self.on_missed(now, id, alone, out);
        }
    }

    /// A helper said nothing, or the second direct call brought nothing.
    pub(super) fn on_asked_in_vain(&mut self, now: Now, about: NodeId, out: &mut Outbox) {
        if let Some(Due::Missed { id, alone }) = self.probes.on_unreached(about, false) {
            self.on_missed(now, id, alone, out);
        }
    }

    fn on_missed(&mut self, now: Now, id: NodeId, alone: bool, out: &mut Outbox) {
        if alone {
            self.membership.health().on_strain();
        }
        let Some((suspicion, doubt)) = self.membership.suspect(id, now.instant) else { return };
        if doubt == Doubt::Raised {
            self.counters.suspicions += 1;
        }
        self.tell_doubt(suspicion, doubt, None, out);
    }

    /// Another node's suspicion arrived. Nothing is probed for its sake: that all who hear of it do so would be a storm.
    pub(super) fn on_suspicion(&mut self, now: Now, from: NodeId, suspicion: Suspicion, out: &mut Outbox) {
        let doubt = self.membership.doubt(suspicion, now.instant);
        if doubt == Doubt::Raised {
            self.counters.suspicions_heard += 1;
        }
        self.tell_doubt(suspicion, doubt, Some(from), out);
    }

    fn tell_doubt(&mut self, suspicion: Suspicion, doubt: Doubt, from: Option<NodeId>, out: &mut Outbox) {
        match doubt {
            Doubt::Known => return,
            Doubt::Mine(incarnation) => {
                self.keep_members(vec![], incarnation, out);
                return;
            }
            Doubt::Raised => out.push(Output::Event(Event::MemberChanged(suspicion.id, MemberState::Suspect))),
            Doubt::Confirmed => self.counters.confirmations += 1,
        }
        self.spread.tell_suspicion(suspicion, from);
    }

    /// Calls those whom this node itself suspects, and tells them so.
    pub(super) fn warn_suspects(&mut self, now: Now, out: &mut Outbox) {
        for (target, suspicion) in self.membership.due_suspects(now.instant) {
            let rumors = Rumors { suspicions: vec![suspicion], ..Rumors::default() };
            self.call(target, Request::Rumors(rumors), Purpose::Warning(suspicion.id), out);
        }
    }

    /// Declares dead whose time to refute is over.
    pub(super) fn bury(&mut self, now: Now, out: &mut Outbox) {
        let dead = self.membership.on_deadline(now.instant);
        self.counters.deaths += dead.len() as u64;
        let ids: Vec<NodeId> = dead.iter().map(|member| member.id).collect();
        self.keep_members(dead, None, out);
        ids.into_iter().for_each(|id| self.spread.tell_member(id, None));
    }

    /// A peer asks whether this node reaches another. The answer, unless it has to wait for that one's.
    pub(super) fn on_probe(&mut self, now: Now, call: PeerCall, probe: Probe, out: &mut Outbox) -> Option<bool> {
        if probe.id == self.id() {
            return Some(true);
        }
        if self.vouches.len() >= MAX_VOUCHES || self.leaving {
            return Some(false);
        }
        // Who asks must know in time that nothing came of it.
        self.vouches.set(call, now.instant + PROBE_TIMEOUT);
        let target = Target { id: Some(probe.id), address: probe.address.clone() };
        let id = probe.id;
        self.call(target, Request::Probe(probe), Purpose::Vouch(id, call), out);
        None
    }

    /// Tells who asked what came of it, if it still waits.
    pub(super) fn vouch(&mut self, call: PeerCall, alive: bool, out: &mut Outbox) {
        if self.vouches.remove(call).is_some() {
            out.push(Output::Answer(call, Ok(self.envelope(Answer::Probe(Probed { alive })))));
        }
    }

    /// Tells those whose time is up that nothing came of it.
    pub(super) fn end_vouches(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(call) = self.vouches.pop_due(now) {
            let answer: Result<_, Refusal> = Ok(self.envelope(Answer::Probe(Probed { alive: false })));
            out.push(Output::Answer(call, answer));
        }
    }

    /// The exchange is due each second: how late it begins tells how late this node is with everything.
    pub(super) fn notice_lateness(&mut self, now: Now) {
        if now.instant.since(self.next_exchange) > LATE {
            self.membership.on_late(now.instant);
        }
    }

    /// One persist at a time is watched: how long the disk takes for it tells how long it takes for all.
    pub(super) fn watch_disk(&mut self, now: Now, ended: Token) {
        if let Some((_, since)) = self.watched.take_if(|(token, _)| *token <= ended)
            && now.instant.since(since) > SLOW_PERSIST
        {
            self.membership.health().on_strain();
        }
        if self.watched.is_none() {
            self.watched = self.after.last_key_value().map(|(token, _)| (*token, now.instant));
        }
    }
}
