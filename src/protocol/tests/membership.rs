//! How one core judges its peers, all of them played by the test: who is asked when somebody does not answer, what is told to whom, and when.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::io::{CallFault, ClientCall, Outbox, OwnCall, PeerCall, Persist, Reply, Status, Target};
use gossip_cdn_protocol::member::Suspicion;
use gossip_cdn_protocol::memory::MemoryStore;
use gossip_cdn_protocol::node::{Config, Identity};
use gossip_cdn_protocol::wire::{Answer, Compared, Envelope, MemberList, Probe, Probed, Request, Rumors, Taken};
use gossip_cdn_protocol::{Command, Input, Instant, Member, MemberState, Node, NodeId, Now, Output, PublicKey};

fn member(n: u8) -> Member {
    let key = PublicKey([n; 32]);
    let id = NodeId::from_public_key(&key.0);
    Member { id, address: format!("http://127.0.0.1:{n}"), incarnation: 1, state: MemberState::Alive, key }
}

fn id(n: u8) -> NodeId {
    member(n).id
}

/// A call that the core made.
struct Made {
    at: u64,
    to: NodeId,
    incarnation: u64,
    request: Request,
}

/// Node 1 among peers that answer after a millisecond, or never.
struct Played {
    core: Node<MemoryStore>,
    /// Milliseconds.
    now: u64,
    made: Vec<Made>,
    /// What the core was told by answers to come.
    coming: BTreeMap<(u64, OwnCall), Input>,
    /// Who does not answer the core.
    silent: BTreeSet<NodeId>,
    /// Whether the others reach who is silent here.
    vouched: bool,
    /// What every peer says its member list is like; as the core's own, without.
    fingerprint: Option<u64>,
    /// What it says of it when changes were exchanged.
    afterwards: Option<u64>,
    /// Persists that are not done yet; done at once, without.
    disk: Option<Vec<Persist>>,
}

impl Played {
    /// Node 1, which knows the nodes from 2 to `last`.
    fn knowing(last: u8) -> Self {
        let config =
            Config { cluster: "c".into(), address: member(1).address, bootstraps: vec![], heartbeats: false, found: false, voters: 7 };
        let identity = Identity { key: member(1).key, incarnation: 1 };
        let members = (2..=last).map(member).collect();
        let core = Node::new(config, identity, members, vec![], MemoryStore::default(), [7; 32], Now::default())
            .expect("an empty disk can be read");
        let (made, coming, silent) = (vec![], BTreeMap::new(), BTreeSet::new());
        Self { core, now: 0, made, coming, silent, vouched: false, fingerprint: None, afterwards: None, disk: None }
    }

    /// Gives the core an input now, and plays what follows from it at once.
    fn give(&mut self, input: Input) -> Outbox {
        let mut out = Outbox::new();
        self.core.handle(Now { instant: Instant(self.now * 1000), ..Now::default() }, input, &mut out);
        for output in out.clone() {
            match output {
                Output::Call(call, target, envelope) => self.play(call, &target, envelope),
                Output::Persist(persist) => match &mut self.disk {
                    Some(waiting) => waiting.push(persist),
                    None => out.extend(self.give(Input::Persisted(persist.token, Ok(())))),
                },
                Output::Join(..)
                | Output::Answer(..)
                | Output::Reply(..)
                | Output::Fetch(_)
                | Output::Heartbeat(_)
                | Output::Event(_)
                | Output::Stop(_)
                | Output::IdentityTaken(_) => {}
            }
        }
        out
    }

    fn play(&mut self, call: OwnCall, target: &Target, envelope: Envelope<Request>) {
        let to = target.id.expect("only members are called here");
        let answer = match &envelope.body {
            Request::Exchange(_) => Answer::Exchange(Compared { members: self.fingerprint, ..Compared::default() }),
            Request::Probe(probe) => {
                let alive = probe.id == to || self.vouched || !self.silent.contains(&probe.id);
                Answer::Probe(Probed { alive })
            }
            Request::Members(_) => Answer::Members(MemberList { members: vec![], fingerprint: self.afterwards }),
            Request::Cells(_)
            | Request::Partitions(_)
            | Request::Sketches(_)
            | Request::Items(_)
            | Request::Records(_)
            | Request::Rumors(_)
            | Request::Receipts(_)
            | Request::Holds(_)
            | Request::Snapshot(_)
            | Request::History(_) => Answer::Taken(Taken {}),
        };
        self.made.push(Made { at: self.now, to, incarnation: envelope.incarnation, request: envelope.body });
        let (at, result) = if self.silent.contains(&to) {
            (self.now + 3000, Err(CallFault::Unreachable))
        } else {
            (self.now + 1, Ok(Envelope { sender: to, incarnation: 1, body: answer, version: envelope.version, cluster: "c".into() }))
        };
        self.coming.insert((at, call), Input::Answered(call, result));
    }

    /// Lets so many milliseconds pass.
    fn pass(&mut self, millis: u64) -> Outbox {
        let (until, mut all) = (self.now + millis, Outbox::new());
        loop {
            let due = self.core.deadline().map(|at| at.0.div_ceil(1000).max(self.now));
            let comes = self.coming.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = due.into_iter().chain(comes).min().filter(|next| *next <= until) else { break };
            self.now = next;
            let input = if comes == Some(next) { self.coming.pop_first().map(|(_, input)| input) } else { None };
            all.extend(self.give(input.unwrap_or(Input::Tick)));
        }
        self.now = until;
        all
    }

    /// Node `n` sends that.
    fn hear(&mut self, n: u8, body: Request) -> Outbox {
        self.give(Input::Request(PeerCall(self.now), Envelope { version: 1, cluster: "c".into(), sender: id(n), incarnation: 1, body }))
    }

    fn hear_suspicion(&mut self, of: u8, by: u8) {
        let suspicions = vec![Suspicion { id: id(of), incarnation: 1, by: id(by) }];
        self.hear(by, Request::Rumors(Rumors { suspicions, ..Rumors::default() }));
    }

    fn status(&mut self) -> Status {
        let out = self.give(Input::Command(ClientCall(1), Command::Status));
        let status =
            out.into_iter().find_map(|output| if let Output::Reply(_, Reply::Status(status)) = output { Some(*status) } else { None });
        status.expect("answers")
    }

    fn state(&mut self, n: u8) -> MemberState {
        let out = self.give(Input::Command(ClientCall(1), Command::Members));
        let shown =
            out.into_iter().find_map(|output| if let Output::Reply(_, Reply::Members(shown)) = output { Some(shown) } else { None });
        shown.expect("answers").into_iter().find(|view| view.member.id == id(n)).expect("known").member.state
    }

    /// The calls of a kind: when, and to whom.
    fn calls(&self, chosen: impl Fn(&Request) -> bool) -> Vec<(u64, NodeId)> {
        self.made.iter().filter(|made| chosen(&made.request)).map(|made| (made.at, made.to)).collect()
    }

    fn probes(&self, of: u8) -> Vec<(u64, NodeId)> {
        self.calls(|request| matches!(request, Request::Probe(probe) if probe.id == id(of)))
    }

    /// To whom was said in a rumor that that member is in that state.
    fn told_of(&self, n: u8, state: MemberState) -> Vec<NodeId> {
        let tells = |rumors: &Rumors| rumors.members.iter().any(|member| member.id == id(n) && member.state == state);
        self.calls(|request| matches!(request, Request::Rumors(rumors) if tells(rumors))).into_iter().map(|(_, to)| to).collect()
    }

    /// When, and to whom, a suspicion of that member was told.
    fn suspicions_of(&self, n: u8) -> Vec<(u64, NodeId)> {
        let tells = |rumors: &Rumors| rumors.suspicions.iter().any(|suspicion| suspicion.id == id(n));
        self.calls(|request| matches!(request, Request::Rumors(rumors) if tells(rumors)))
    }

    /// Lets time pass until that member is in that state; gives the milliseconds.
    fn until(&mut self, n: u8, state: MemberState) -> u64 {
        let began = self.now;
        while self.state(n) != state {
            self.pass(10);
            assert!(self.now < began + 120_000, "never {state:?}");
        }
        self.now - began
    }
}

#[test]
fn silence_asks_three_others_after_a_second_and_the_member_once_more() {
    let mut node = Played::knowing(9);
    node.silent.insert(id(2));
    while node.probes(2).is_empty() {
        node.pass(1);
    }
    let exchanged = node.calls(|request| matches!(request, Request::Exchange(_)));
    let began = exchanged.into_iter().find(|(_, to)| *to == id(2)).expect("it was called").0;
    let asked = node.probes(2);
    assert!(asked.iter().all(|(at, _)| *at == began + 1000), "{began}: {asked:?}");
    let asked: BTreeSet<NodeId> = asked.into_iter().map(|(_, to)| to).collect();
    assert_eq!((asked.len(), asked.contains(&id(2))), (4, true));
}

#[test]
fn one_word_for_a_silent_member_is_enough() {
    let mut node = Played::knowing(9);
    node.silent.insert(id(2));
    node.vouched = true;
    node.pass(120_000);
    let counters = node.status().counters;
    assert_eq!((node.state(2), counters.suspicions), (MemberState::Alive, 0));
    assert!(counters.probes_indirect > 0);
}

#[test]
fn who_nobody_reaches_is_suspect_called_each_second_and_dead_and_each_step_is_told_to_four() {
    let mut node = Played::knowing(9);
    node.silent.insert(id(2));
    node.until(2, MemberState::Suspect);
    let suspected = node.now;
    let waited = node.until(2, MemberState::Dead);
    assert!((11_900..=12_100).contains(&waited), "{waited} ms without anybody's confirmation");
    node.pass(10);
    let told: Vec<NodeId> = node.suspicions_of(2).into_iter().map(|(_, to)| to).filter(|to| *to != id(2)).collect();
    assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (4, 4));
    let warned = node.suspicions_of(2).into_iter().filter(|(at, to)| *to == id(2) && *at >= suspected).count();
    assert!((11..=14).contains(&warned), "{warned} warnings in 12 s");
    let told = node.told_of(2, MemberState::Dead);
    assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (4, 4));
    assert!(!told.contains(&id(2)));
}

#[test]
fn others_experience_shortens_the_time_and_the_same_word_again_does_not() {
    let mut node = Played::knowing(9);
    node.silent.insert(id(2));
    node.until(2, MemberState::Suspect);
    for by in [3, 4, 5, 3, 4, 5] {
        node.hear_suspicion(2, by);
    }
    let waited = node.until(2, MemberState::Dead);
    assert!((4900..=5100).contains(&waited), "{waited} ms");
    assert_eq!(node.status().counters.confirmations, 3);
}

#[test]
fn a_later_life_ends_a_suspicion_and_is_told_on() {
    let mut node = Played::knowing(9);
    node.hear_suspicion(2, 3);
    assert_eq!(node.state(2), MemberState::Suspect);
    let members = vec![Member { incarnation: 2, ..member(2) }];
    node.hear(4, Request::Rumors(Rumors { members, ..Rumors::default() }));
    assert_eq!(node.state(2), MemberState::Alive);
    node.pass(30_000);
    assert_eq!((node.state(2), node.status().counters.suspicions_false), (MemberState::Alive, 1));
    assert_eq!(node.told_of(2, MemberState::Alive).len(), 4);
}

#[test]
fn a_refutation_leaves_only_when_it_is_on_disk_and_then_to_four() {
    let mut node = Played::knowing(9);
    node.disk = Some(vec![]);
    node.hear_suspicion(1, 2);
    node.hear_suspicion(1, 3);
    node.pass(10_000);
    let waiting = node.disk.take().expect("kept");
    let asked: Vec<u64> = waiting.iter().filter_map(|persist| persist.incarnation).collect();
    assert_eq!(asked, [2], "asked of the disk once");
    assert!(node.made.iter().all(|made| made.incarnation == 1) && node.told_of(1, MemberState::Alive).is_empty());
    for persist in waiting {
        node.give(Input::Persisted(persist.token, Ok(())));
    }
    node.pass(10);
    assert_eq!(node.told_of(1, MemberState::Alive).len(), 4);
    assert_eq!(node.made.last().map(|made| made.incarnation), Some(2));
}

#[test]
fn news_of_a_member_is_pushed_to_four_once_and_not_back() {
    let mut node = Played::knowing(9);
    for from in [2, 3, 2] {
        node.hear(from, Request::Rumors(Rumors { members: vec![member(20)], ..Rumors::default() }));
        node.pass(100);
    }
    let told = node.told_of(20, MemberState::Alive);
    assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (4, 4));
    assert!(!told.contains(&id(2)) && !told.contains(&id(20)));
}

#[test]
fn where_fingerprints_differ_what_is_recent_is_told_and_everything_at_first_and_where_that_did_not_do() {
    let mut node = Played::knowing(2);
    (node.fingerprint, node.afterwards) = (Some(1), Some(1));
    let full = |node: &Played| -> Vec<bool> {
        node.made.iter().filter_map(|made| if let Request::Members(list) = &made.request { Some(list.full) } else { None }).collect()
    };
    node.pass(7500);
    assert_eq!(full(&node).get(..7), Some([true, false, false, false, true, false, false].as_slice()));
    node.pass(40_000);
    assert_eq!(full(&node).iter().filter(|full| **full).count(), 2, "who never agree tell everything once a minute");
    node.made.clear();
    node.afterwards = Some(node.core.membership().fingerprint());
    node.pass(200_000);
    assert!(full(&node).len() > 100 && !full(&node).contains(&true), "what was recent was all that was missing");
}

#[test]
fn the_silence_of_one_who_is_asked_to_help_brings_about_no_probe() {
    let mut node = Played::knowing(9);
    node.silent = (2..=9).map(id).collect();
    node.pass(1500);
    node.silent.clear();
    let of = |node: &Played, chosen: fn(&Request) -> bool| BTreeSet::from_iter(node.calls(chosen).into_iter().map(|(_, to)| to));
    let called = of(&node, |request| matches!(request, Request::Exchange(_)));
    let asked = of(&node, |request| matches!(request, Request::Probe(_)));
    let helpers: Vec<u8> = (2..=9).filter(|n| asked.contains(&id(*n)) && !called.contains(&id(*n))).collect();
    node.pass(10_000);
    assert!(!helpers.is_empty() && helpers.iter().all(|n| node.probes(*n).is_empty()));
}

#[test]
fn who_is_asked_to_probe_answers_within_a_second_and_suspects_nobody_for_it() {
    let mut node = Played::knowing(9);
    let answered = |out: &Outbox| {
        out.iter().find_map(|output| {
            let Output::Answer(_, Ok(Envelope { body: Answer::Probe(probed), .. })) = output else { return None };
            Some(probed.alive)
        })
    };
    let ask = |n: u8| Request::Probe(Probe { id: id(n), address: member(n).address });
    assert_eq!(answered(&node.hear(2, ask(1))), Some(true), "it is the one");
    assert_eq!(answered(&node.hear(2, ask(3))), None);
    assert_eq!(answered(&node.pass(2)), Some(true));
    node.silent.insert(id(4));
    assert_eq!(answered(&node.hear(2, ask(4))), None);
    assert_eq!(answered(&node.pass(990)), None);
    assert_eq!(answered(&node.pass(20)), Some(false));
    node.pass(5);
    assert_eq!((node.probes(4).len(), node.state(4)), (1, MemberState::Alive), "it asks nobody in its turn");
}

#[test]
fn a_node_that_was_late_is_more_patient_until_others_answer() {
    let mut node = Played::knowing(9);
    node.pass(5000);
    assert_eq!(node.status().local_health, 1);
    node.now += 5000;
    node.give(Input::Tick);
    assert_eq!(node.status().local_health, 2);
    node.pass(3000);
    assert_eq!(node.status().local_health, 1);
}

#[test]
fn a_node_that_hears_nobody_at_all_blames_itself() {
    let mut node = Played::knowing(9);
    node.silent.extend((2..=9).map(id));
    node.pass(8000);
    let health = node.status().local_health;
    assert!(health > 1, "{health}");
}
