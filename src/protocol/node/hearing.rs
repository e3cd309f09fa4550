//! What is heard on the local network, and what is not heard any more.

use crate::io::{Event, Outbox, Output};
use crate::lan::Heartbeat;
use crate::member::{Member, MemberState};
use crate::membership::Membership;
use crate::node::Node;
use crate::store::Store;
use crate::time::Now;
use crate::wire::VERSION;

impl<S: Store> Node<S> {
    /// A datagram: whatever is no heartbeat of this cluster changes nothing.
    pub(super) fn on_datagram(&mut self, now: Now, datagram: &[u8], out: &mut Outbox) {
        let Some(lan) = self.lan.as_ref().filter(|_| !self.leaving) else { return };
        let Ok(heartbeat) = Heartbeat::read(datagram, &self.cluster) else {
            self.counters.heartbeats_ignored += 1;
            return;
        };
        let claim = heartbeat.claim();
        let id = claim.id;
        if id == self.id() {
            // This node's own come back to it; others' are those of another holder of its key.
            self.is_contradicted(now, &[claim]);
            return;
        }
        if self.membership.member(id).is_none() && !lan.has_room() {
            self.counters.heartbeats_ignored += 1;
            return;
        }
        self.counters.heartbeats_heard += 1;
        self.merge_members(now, id, vec![claim], out);
        self.heard(now, id, heartbeat.incarnation, out);
        // One of an earlier life, or of one that has left or must first refute its death, is not waited for.
        let is_current = |member: &Member| member.incarnation == heartbeat.incarnation && member.state == MemberState::Alive;
        if self.membership.member(id).is_some_and(is_current)
            && let Some(lan) = &mut self.lan
        {
            lan.on_heartbeat(id, now.instant);
        }
    }

    /// Sends this node's heartbeat when it is due, and calls at once whose heartbeats have stopped.
    pub(super) fn beat(&mut self, now: Now, out: &mut Outbox) {
        let Some(lan) = &mut self.lan else { return };
        let membership: &Membership = &self.membership;
        let is_alive = |id| membership.member(id).is_some_and(|member| member.state == MemberState::Alive);
        let due = lan.on_deadline(now.instant, is_alive);
        if due.beat {
            let Member { id, address, incarnation, key, .. } = self.membership.me().clone();
            self.counters.heartbeats_sent += 1;
            out.push(Output::Heartbeat(Heartbeat { version: VERSION, cluster: self.cluster.clone(), id, incarnation, address, key }));
        }
        for id in due.silent {
            out.push(Output::Event(Event::Silent(id)));
            if let Some(target) = self.membership.target(id) {
                self.begin_exchange(now, target, out);
            }
        }
    }

    /// A member as it is shown: one whose heartbeats have stopped is suspect here, whatever others hear of it.
    pub(super) fn as_seen(&self, member: &Member) -> Member {
        let doubted = member.state == MemberState::Alive && self.lan.as_ref().is_some_and(|lan| lan.is_doubted(member.id));
        Member { state: if doubted { MemberState::Suspect } else { member.state }, ..member.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, PublicKey};
    use crate::io::{CallFault, ClientCall, Command, Input, OwnCall, Reply};
    use crate::memory::MemoryStore;
    use crate::node::{Config, Identity};
    use crate::time::{Instant, WallTime};

    fn at(millis: u64) -> Now {
        Now { instant: Instant(millis * 1000), wall: WallTime(millis) }
    }

    fn heartbeat(n: u8, incarnation: u64) -> Heartbeat {
        let key = PublicKey([n; 32]);
        let (id, address) = (NodeId::from_public_key(&key.0), format!("http://127.0.0.1:{n}"));
        Heartbeat { version: VERSION, cluster: "c".into(), id, incarnation, address, key }
    }

    fn datagram(heartbeat: &Heartbeat) -> Input {
        Input::Datagram(serde_json::to_vec(heartbeat).expect("serialises"))
    }

    /// Node 1, alone, with its first heartbeat and exchange behind it.
    fn node() -> Node<MemoryStore> {
        let config = Config {
            cluster: "c".into(),
            address: "http://127.0.0.1:1".into(),
            bootstraps: vec![],
            heartbeats: true,
            found: false,
            voters: 7,
        };
        let identity = Identity { key: PublicKey([1; 32]), incarnation: 1 };
        let mut node =
            Node::new(config, identity, vec![], vec![], MemoryStore::default(), [0; 32], at(0)).expect("an empty disk can be read");
        tick(&mut node, 0);
        node
    }

    fn given(node: &mut Node<MemoryStore>, millis: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        node.handle(at(millis), input, &mut out);
        out
    }

    fn tick(node: &mut Node<MemoryStore>, millis: u64) -> Vec<Output> {
        given(node, millis, Input::Tick)
    }

    fn called(out: &[Output]) -> Vec<(OwnCall, NodeId)> {
        let call = |output: &Output| if let Output::Call(call, target, _) = output { Some((*call, target.id?)) } else { None };
        out.iter().filter_map(call).collect()
    }

    /// How the node shows the others, and how it tells of them.
    fn states(node: &mut Node<MemoryStore>, millis: u64) -> Vec<(MemberState, MemberState)> {
        let out = given(node, millis, Input::Command(ClientCall(1), Command::Members));
        let Some(Output::Reply(_, Reply::Members(shown))) = out.into_iter().find(|output| matches!(output, Output::Reply(..))) else {
            panic!("no reply");
        };
        let others = shown.iter().filter(|view| !view.is_self);
        others.map(|view| (view.member.state, node.membership.member(view.member.id).expect("known").state)).collect()
    }

    #[test]
    fn a_newcomer_heard_by_a_lonely_node_is_kept_and_exchanged_with_at_once() {
        let mut node = node();
        let out = given(&mut node, 1, datagram(&heartbeat(2, 1)));
        assert_eq!(called(&out).into_iter().map(|(_, id)| id).collect::<Vec<_>>(), [heartbeat(2, 1).id]);
        assert!(out.iter().any(|output| matches!(output, Output::Persist(persist) if persist.members.len() == 1)));
    }

    #[test]
    fn who_falls_silent_is_called_at_once_and_told_to_others_only_if_that_fails() {
        for answers in [false, true] {
            let mut node = node();
            let first = called(&given(&mut node, 1, datagram(&heartbeat(2, 1))));
            assert_eq!(states(&mut node, 2), [(MemberState::Alive, MemberState::Alive)]);
            (100..480).step_by(100).for_each(|millis| drop(tick(&mut node, millis)));
            let call = called(&tick(&mut node, 481))[0].0;
            assert_ne!(call, first[0].0);
            assert_eq!(states(&mut node, 482), [(MemberState::Suspect, MemberState::Alive)], "suspected here, and only here");
            let answer = if answers { CallFault::Busy } else { CallFault::Unreachable };
            let again = called(&given(&mut node, 490, Input::Answered(call, Err(answer.clone()))));
            assert_eq!(again.len(), usize::from(!answers), "with nobody else to ask, it is called once more itself");
            again.into_iter().for_each(|(call, _)| drop(given(&mut node, 490, Input::Answered(call, Err(answer.clone())))));
            let state = states(&mut node, 491);
            assert_eq!(
                state,
                [if answers { (MemberState::Alive, MemberState::Alive) } else { (MemberState::Suspect, MemberState::Suspect) }]
            );
        }
    }

    #[test]
    fn a_heartbeat_of_a_greater_incarnation_or_another_address_is_a_new_claim_and_an_older_one_none() {
        let mut node = node();
        given(&mut node, 1, datagram(&heartbeat(2, 5)));
        given(&mut node, 2, datagram(&Heartbeat { address: "http://127.0.0.1:99".into(), ..heartbeat(2, 6) }));
        given(&mut node, 3, datagram(&heartbeat(2, 4)));
        let member = node.membership.member(heartbeat(2, 1).id).cloned().expect("known");
        assert_eq!((member.incarnation, member.address.as_str()), (6, "http://127.0.0.1:99"));
    }

    #[test]
    fn its_own_heartbeats_and_hostile_ones_change_nothing() {
        let mut node = node();
        for (input, ignored) in [
            (datagram(&heartbeat(1, 1)), 0),
            (Input::Datagram(b"{".to_vec()), 1),
            (Input::Datagram(vec![0xff; 5000]), 2),
            (datagram(&Heartbeat { cluster: "d".into(), ..heartbeat(2, 1) }), 3),
            (datagram(&Heartbeat { key: PublicKey([9; 32]), ..heartbeat(2, 1) }), 4),
        ] {
            assert_eq!(given(&mut node, 1, input), []);
            assert_eq!(node.counters.heartbeats_ignored, ignored);
        }
        assert!(states(&mut node, 2).is_empty());
        assert_eq!((node.counters.heartbeats_sent, node.counters.heartbeats_heard), (1, 0));
    }

    #[test]
    fn a_flood_of_newcomers_is_bounded_and_members_are_heard_all_the_same() {
        let mut node = node();
        for n in 2..=u8::MAX {
            given(&mut node, 1, datagram(&heartbeat(n, 1)));
        }
        assert_eq!(node.membership.others().count(), crate::lan::MAX_NEIGHBOURS);
        let heard = node.counters.heartbeats_heard;
        given(&mut node, 2, datagram(&heartbeat(2, 1)));
        assert_eq!(node.counters.heartbeats_heard, heard + 1);
        node.check();
    }

    #[test]
    fn a_node_that_leaves_beats_no_more() {
        let mut node = node();
        given(&mut node, 1, Input::Command(ClientCall(1), Command::Leave));
        assert!(tick(&mut node, 1000).is_empty());
        assert!(given(&mut node, 1001, datagram(&heartbeat(2, 1))).is_empty());
    }
}
