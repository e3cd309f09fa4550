//! Who is met: signs of life, member lists, introductions.

use crate::ids::NodeId;
use crate::io::{CallFault, ClientCall, Event, Outbox, Output, OwnCall, Reply, Target};
use crate::member::{Member, MemberState, Suspicion};
use crate::membership::Heard;
use crate::node::{After, Node, Purpose};
use crate::spread::{FAN_OUT, MAX_PUSHED_ON};
use crate::store::Store;
use crate::time::Now;
use crate::wire::{Introduction, MembersRequest, Request};

impl<S: Store> Node<S> {
    pub(super) fn heard(&mut self, now: Now, from: NodeId, incarnation: u64, out: &mut Outbox) {
        self.lan.iter_mut().for_each(|lan| lan.on_sign_of_life(from));
        self.on_heard_of_history(now);
        self.probes.end(from);
        match self.membership.on_heard(from, incarnation, now.instant) {
            Heard::Usual => {}
            Heard::Recovered(suspicion) => {
                self.counters.suspicions_false += 1;
                out.push(Output::Event(Event::MemberChanged(from, MemberState::Alive)));
                if let Some(suspicion) = suspicion {
                    self.spread.push_suspicion(from, suspicion);
                }
            }
            Heard::Mistaken => self.spread.push_member(from, from),
        }
    }

    /// Merges claims that another node gave to compare.
    pub(super) fn merge_members(&mut self, now: Now, from: NodeId, claims: Vec<Member>, out: &mut Outbox) {
        let changed = self.take_members(now, claims, out);
        if changed.len() <= MAX_PUSHED_ON {
            changed.into_iter().for_each(|id| self.spread.tell_member(id, Some(from)));
        }
    }

    /// Merges claims and suspicions that another node pushed, and pushes on what is news here.
    pub(super) fn on_member_rumors(&mut self, now: Now, from: NodeId, members: Vec<Member>, suspicions: Vec<Suspicion>, out: &mut Outbox) {
        for id in self.take_members(now, members, out) {
            self.spread.tell_member(id, Some(from));
        }
        for suspicion in suspicions {
            self.on_suspicion(now, from, suspicion, out);
        }
    }

    /// Merges claims; gives the members about whom they were news.
    fn take_members(&mut self, now: Now, claims: Vec<Member>, out: &mut Outbox) -> Vec<NodeId> {
        if self.is_contradicted(now, &claims) {
            return vec![];
        }
        let lonely = self.membership.live_count() == 0;
        let merged = self.membership.merge(claims, now.instant);
        self.counters.suspicions_false += merged.cleared as u64;
        let changed = merged.changed.iter().map(|member| member.id).collect();
        for member in merged.changed.iter().filter(|member| member.state.is_live()) {
            self.transfers.on_returned(member.id, now.instant);
        }
        self.keep_members(merged.changed, merged.refute, out);
        if lonely && self.membership.live_count() > 0 {
            self.next_exchange = now.instant;
        }
        changed
    }

    /// Pushes what is fresh of members to a few random live peers, when its time has come.
    pub(super) fn push_news(&mut self, now: Now) {
        let Some(news) = self.spread.due_news(now.instant) else { return };
        for target in self.membership.pick_some(FAN_OUT, &news.except(), &mut self.rng) {
            if let Some(peer) = target.id {
                self.spread.push_news(peer, &news);
            }
        }
    }

    /// An exchange compared the fingerprints of the member lists.
    pub(super) fn compare_members(&mut self, now: Now, target: &Target, equal: bool, out: &mut Outbox) {
        let Some(peer) = target.id else { return };
        if equal {
            self.membership.on_agreed();
            return;
        }
        let full = self.membership.on_differed(now.instant);
        let members = if full { self.membership.list() } else { self.membership.recent_changes(now.instant) };
        self.call(target.clone(), Request::Members(MembersRequest { members, full }), Purpose::Members(peer, full), out);
    }

    pub(super) fn on_introduced(
        &mut self,
        now: Now,
        address: &str,
        call: Option<ClientCall>,
        result: Result<NodeId, CallFault>,
        out: &mut Outbox,
    ) {
        let again = matches!(result, Err(CallFault::Unreachable | CallFault::Busy));
        let mut changed = self.membership.on_introduction_ended(address, !again, now.instant);
        if call.is_some() && again {
            changed |= self.membership.introduce(address.to_owned(), now.instant);
        }
        if changed {
            let contacts = Some(self.membership.introduced());
            let token = self.token();
            self.after.insert(token, After::default());
            out.push(Output::Persist(crate::io::Persist { token, contacts, ..Default::default() }));
        }
        let Some(call) = call else { return };
        let reply = result
            .and_then(|id| self.membership.member(id).cloned().ok_or_else(|| CallFault::Malformed("its member list lacks itself".into())));
        out.push(Output::Reply(call, Reply::Introduce(reply)));
    }

    pub(super) fn on_joined(&mut self, now: Now, call: OwnCall, result: Result<Introduction, CallFault>, out: &mut Outbox) {
        let Some(Purpose::Join(address)) = self.calls.remove(&call) else { return };
        match result {
            Ok(Introduction { members, founder }) => {
                if founder {
                    self.on_named();
                }
                self.membership.on_join_ended(&address, true, now.instant);
                // What the bootstrap node tells one newcomer it tells others too: it is not pushed on.
                self.take_members(now, members.into_iter().filter(|member| member.validate().is_ok()).collect(), out);
            }
            Err(fault) => self.on_no_answer(now, Purpose::Join(address), fault, out),
        }
    }
}
