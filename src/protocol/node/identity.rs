//! What a node does when its key turns out not to be its own alone.

use crate::identity::Conflict;
use crate::io::{Command, Input, Outbox, Output};
use crate::member::Member;
use crate::node::{Node, refuse};
use crate::record::Record;
use crate::store::{Store, StoreFault};
use crate::time::Now;
use crate::wire::Request;

impl<S: Store> Node<S> {
    /// Whether claims of others end this identity.
    pub(super) fn is_contradicted(&mut self, now: Now, claims: &[Member]) -> bool {
        let conflict = self.uniqueness.of_claims(self.membership.me(), claims, now.instant);
        self.renounce(conflict)
    }

    /// Whether a record of others ends this identity.
    pub(super) fn is_outwritten(&mut self, now: Now, ours: &Record, theirs: &Record) -> bool {
        let conflict = self.uniqueness.of_record(self.id(), ours, theirs, now.instant);
        self.renounce(conflict)
    }

    /// Whether what the history shows ends this identity.
    pub(super) fn is_contradicted_by_history(&mut self, now: Now, conflict: Option<Conflict>) -> bool {
        let believed = conflict.filter(|_| self.uniqueness.is_settled(now.instant));
        self.renounce(believed)
    }

    /// A message bears this node's own id. Its own come back to it where an address leads to itself; another holder of its key says in
    /// its member list where it is.
    pub(super) fn on_request_from_self(&mut self, now: Now, request: &Request) {
        let Request::Members(list) = request else { return };
        let valid: Vec<Member> = list.members.iter().filter(|claim| claim.validate().is_ok()).cloned().collect();
        self.is_contradicted(now, &valid);
    }

    /// Gives up the identity: from now on nothing leaves under it. What was written before is waited for, so that who wrote learns that it is
    /// durable; to others it is told under the next.
    fn renounce(&mut self, conflict: Option<Conflict>) -> bool {
        // Who is about to stop finds out in its next life.
        if !self.leaving && self.renounced.is_none() {
            self.renounced = conflict;
        }
        self.renounced.is_some()
    }

    /// Only the disk is still listened to, and who asks how this node is gets an answer.
    pub(super) fn wind_up(&mut self, now: Now, input: Input, fault: &StoreFault, out: &mut Outbox) -> Result<(), StoreFault> {
        if let Input::Persisted(token, result) = input {
            return self.on_persisted(now, token, result, out);
        }
        if let Input::Command(call, command @ (Command::Status | Command::Members)) = input {
            return self.on_command(now, call, command, out);
        }
        refuse(fault, true, input, &self.cluster, out);
        Ok(())
    }

    /// Ends an identity that was given up, once the disk has everything.
    pub(super) fn end_identity(&mut self, out: &mut Outbox) {
        if self.stopped.is_none()
            && self.after.is_empty()
            && let Some(conflict) = &self.renounced
        {
            self.counters.keys_taken += 1;
            self.end(ending(conflict), Output::IdentityTaken(conflict.clone()), out);
        }
    }
}

/// What those are told who come too late.
pub(super) fn ending(conflict: &Conflict) -> StoreFault {
    StoreFault(format!("this node takes a new key and goes on: {conflict}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BlobId, ContentHash, NodeId, PublicKey};
    use crate::io::{ClientCall, Command, Condition, PeerCall, Refusal, Reply, SayFault, WriteFault};
    use crate::member::MemberState;
    use crate::memory::MemoryStore;
    use crate::node::{Config, Identity};
    use crate::stamp::Stamp;
    use crate::time::{Instant, WallTime};
    use crate::vector_clock::VectorClock;
    use crate::version::{Content, Version};
    use crate::wire::{Entry, Envelope, Introduction, MembersRequest, Rumors, VERSION};

    fn deleted(n: u8, stamp: u64) -> Record {
        let (origin, stamp) = (member(n, 1, n).id, Stamp(stamp));
        let clock: VectorClock = [(origin, stamp)].into_iter().collect();
        Record::from(vec![Version { stamp, origin, content: Content::Tombstone, clock }])
    }

    fn member(n: u8, incarnation: u64, port: u8) -> Member {
        let key = PublicKey([n; 32]);
        let address = format!("http://127.0.0.1:{port}");
        Member { id: NodeId::from_public_key(&key.0), address, incarnation, state: MemberState::Alive, key }
    }

    /// Node 1 in its fourth life, which knows node 2.
    fn node() -> Node<MemoryStore> {
        let config = Config {
            cluster: "c".into(),
            address: member(1, 4, 1).address,
            bootstraps: vec!["http://b".into()],
            heartbeats: false,
            found: false,
            voters: 7,
        };
        let identity = Identity { key: PublicKey([1; 32]), incarnation: 4 };
        Node::new(config, identity, vec![member(2, 1, 2)], vec![], MemoryStore::with_every_payload(), [0; 32], at(0))
            .expect("the disk can be read")
    }

    fn at(seconds: u64) -> Now {
        Now { instant: Instant(seconds * 1_000_000), wall: WallTime(seconds * 1000) }
    }

    fn given(node: &mut Node<MemoryStore>, seconds: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        node.handle(at(seconds), input, &mut out);
        out
    }

    fn request(from: u8, body: Request) -> Input {
        let sender = member(from, 1, from).id;
        Input::Request(PeerCall(7), Envelope { version: VERSION, cluster: "c".into(), sender, incarnation: 1, body })
    }

    fn members(from: u8, claim: Member) -> Input {
        request(from, Request::Members(MembersRequest { members: vec![claim], full: true }))
    }

    fn rumor(record: Record) -> Input {
        request(
            2,
            Request::Rumors(Rumors {
                records: vec![Entry { id: BlobId(uuid::Uuid::from_u128(1)), versions: record }],
                ..Rumors::default()
            }),
        )
    }

    fn conflict(out: &[Output]) -> Option<&Conflict> {
        out.iter().find_map(|output| if let Output::IdentityTaken(conflict) = output { Some(conflict) } else { None })
    }

    #[test]
    fn what_contradicts_an_identity_ends_it_wherever_it_is_heard() {
        let elsewhere = Conflict::Elsewhere("http://127.0.0.1:9".into());
        for (input, expected) in [
            (members(2, member(1, 4, 9)), Some(elsewhere.clone())),
            (members(1, member(1, 4, 9)), Some(elsewhere)),
            (members(1, member(1, 5, 1)), Some(Conflict::UnknownIncarnation(5))),
            (members(2, member(1, 3, 9)), None),
            (rumor(deleted(1, 5)), Some(Conflict::UnknownStamp(Stamp(5)))),
            (rumor(deleted(2, 5)), None),
        ] {
            let out = given(&mut node(), 0, input);
            assert_eq!(conflict(&out), expected.as_ref());
        }
        // A bootstrap node's word counts like a member's.
        let mut node = node();
        let out = given(&mut node, 0, Input::Tick);
        let joined = out.iter().find_map(|output| if let Output::Join(call, ..) = output { Some(*call) } else { None });
        let out = given(
            &mut node,
            0,
            Input::Joined(joined.expect("it joins"), Ok(Introduction { members: vec![member(1, 9, 1)], founder: false })),
        );
        assert_eq!(conflict(&out), Some(&Conflict::UnknownIncarnation(9)));
    }

    #[test]
    fn nothing_leaves_under_an_identity_that_was_given_up_and_whoever_waits_is_told() {
        let mut node = node();
        let timeout = std::time::Duration::from_secs(60);
        let write = |copies| crate::io::Write { blob: None, change: put(), condition: Condition::default(), copies, timeout };
        let out = given(&mut node, 0, Input::Command(ClientCall(1), Command::Write(write(3))));
        let token = out.iter().find_map(|output| if let Output::Persist(persist) = output { Some(persist.token) } else { None });
        given(&mut node, 0, Input::Command(ClientCall(2), Command::Introduce("http://127.0.0.1:5".into())));
        let stopped = Output::Answer(PeerCall(7), Err(Refusal::Stopped { cluster: "c".into() }));
        assert_eq!(given(&mut node, 2, rumor(deleted(1, 5))), std::slice::from_ref(&stopped), "though an exchange was due");
        assert_eq!(node.deadline(), None);
        let late = given(&mut node, 9, Input::Command(ClientCall(3), Command::Write(write(1))));
        assert_eq!(late, [Output::Reply(ClientCall(3), Reply::Write(Err(WriteFault::KeyTaken)))]);
        let late = given(&mut node, 9, Input::Command(ClientCall(4), Command::Say(say())));
        assert_eq!(late, [Output::Reply(ClientCall(4), Reply::Say(Err(SayFault::KeyTaken)))]);
        let status = given(&mut node, 9, Input::Command(ClientCall(5), Command::Status));
        assert!(matches!(&status[..], [Output::Reply(ClientCall(5), Reply::Status(_))]));
        assert_eq!(given(&mut node, 9, members(2, member(3, 1, 3))), std::slice::from_ref(&stopped));
        assert_eq!(given(&mut node, 9, Input::Tick), []);

        let out = given(&mut node, 9, Input::Persisted(token.expect("a write is persisted"), Ok(())));
        let is_told = |output: &Output| matches!(output, Output::Reply(ClientCall(1), Reply::Write(Ok(written))) if written.copies == 1);
        assert!(out.iter().any(is_told), "it is durable here: {out:?}");
        assert!(out.iter().any(|output| matches!(output, Output::Reply(ClientCall(2), Reply::Introduce(Err(_))))));
        assert!(out.iter().all(|output| matches!(output, Output::Reply(..) | Output::IdentityTaken(_))), "{out:?}");
        assert!(conflict(&out).is_some());
        assert_eq!(given(&mut node, 9, rumor(deleted(1, 6))), [stopped]);
        assert_eq!(node.counters().keys_taken, 1);
    }

    #[test]
    fn a_disk_that_refuses_while_the_identity_ends_stops_the_node_instead() {
        let mut node = node();
        let write = crate::io::Write { blob: None, change: put(), condition: Condition::default(), copies: 1, timeout: Default::default() };
        let out = given(&mut node, 0, Input::Command(ClientCall(1), Command::Write(write)));
        let token = out.iter().find_map(|output| if let Output::Persist(persist) = output { Some(persist.token) } else { None });
        given(&mut node, 0, rumor(deleted(1, 5)));
        let out = given(&mut node, 0, Input::Persisted(token.expect("a write is persisted"), Err(StoreFault("full".into()))));
        assert!(matches!(out.last(), Some(Output::Stop(_))) && conflict(&out).is_none(), "{out:?}");
    }

    fn say() -> crate::io::Say {
        let body = crate::history::message::Body::Text("a".into());
        crate::io::Say { channel: crate::history::message::Channel::Causal, media_type: "text/plain".into(), body, wait: None }
    }

    fn put() -> crate::io::Change {
        let hash = ContentHash::of(b"a");
        let sha256 = crate::ids::Sha256Digest([0; 32]);
        crate::io::Change::Put(crate::version::Payload { hash, sha256, size: 1, media_type: "text/plain".into(), file_name: None })
    }

    #[test]
    fn a_core_that_follows_goes_on_counting_and_keeps_its_key_though_it_is_slandered() {
        let (first, mut node) = (given(&mut node(), 0, Input::Tick), node());
        assert!(!first.is_empty());
        let counters = crate::io::Counters { keys_taken: 1, writes: 5, ..node.counters() };
        node.follow(counters, Instant(0));
        assert_eq!(node.counters(), counters);
        let out = given(&mut node, 1, members(2, member(1, 6, 9)));
        assert_eq!(conflict(&out), None);
        assert!(out.iter().any(|output| matches!(output, Output::Persist(persist) if persist.incarnation == Some(7))), "it is refuted");
        for token in out.iter().filter_map(|output| if let Output::Persist(persist) = output { Some(persist.token) } else { None }) {
            given(&mut node, 1, Input::Persisted(token, Ok(())));
        }
        let later = crate::identity::SETTLING.as_secs();
        assert!(conflict(&given(&mut node, later, members(2, member(1, 9, 9)))).is_some());
    }

    #[test]
    fn who_is_about_to_stop_keeps_its_key() {
        let mut node = node();
        given(&mut node, 0, Input::Command(ClientCall(1), Command::Leave));
        assert_eq!(conflict(&given(&mut node, 1, members(2, member(1, 6, 9)))), None);
    }
}
