//! Who is met: signs of life, member lists, introductions.

use crate::ids::NodeId;
use crate::io::{CallFault, ClientCall, Outbox, Output, OwnCall, Reply};
use crate::member::Member;
use crate::node::{After, Node, Purpose};
use crate::store::Store;
use crate::time::Now;
use crate::wire::MemberList;

impl<S: Store> Node<S> {
    pub(super) fn heard(&mut self, now: Now, from: NodeId, incarnation: u64, out: &mut Outbox) {
        self.lan.iter_mut().for_each(|lan| lan.on_sign_of_life(from));
        let recovered = self.membership.on_heard(from, incarnation, now.instant);
        self.keep_members(recovered.into_iter().collect(), None, out);
    }

    pub(super) fn merge_members(&mut self, now: Now, list: MemberList, out: &mut Outbox) {
        let lonely = self.membership.live_count() == 0;
        let merged = self.membership.merge(list.members, now.instant);
        self.keep_members(merged.changed, merged.refute, out);
        if lonely && self.membership.live_count() > 0 {
            self.next_exchange = now.instant;
        }
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
            out.push(Output::Persist(crate::io::Persist { token, records: vec![], members: vec![], incarnation: None, contacts }));
        }
        let Some(call) = call else { return };
        let reply = result
            .and_then(|id| self.membership.member(id).cloned().ok_or_else(|| CallFault::Malformed("its member list lacks itself".into())));
        out.push(Output::Reply(call, Reply::Introduce(reply)));
    }

    pub(super) fn on_joined(&mut self, now: Now, call: OwnCall, result: Result<Vec<Member>, CallFault>, out: &mut Outbox) {
        let Some(Purpose::Join(address)) = self.calls.remove(&call) else { return };
        match result {
            Ok(members) => {
                self.membership.on_join_ended(&address, true, now.instant);
                let members = members.into_iter().filter(|member| member.validate().is_ok()).collect();
                self.merge_members(now, MemberList { members }, out);
            }
            Err(fault) => self.on_no_answer(now, Purpose::Join(address), fault, out),
        }
    }
}
