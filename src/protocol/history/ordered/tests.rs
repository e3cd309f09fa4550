//! Ordered machines alone, on a network and disks that fail by dice.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::history::message::Channel;
use crate::history::message::tests::message;
use crate::record::tests::node;

fn any_frontier(_: &Frontier) -> bool {
    true
}

/// What is on its way.
#[derive(Debug)]
enum Parcel {
    Step { from: usize, to: usize, call: u64, step: Step },
    Vote { from: usize, to: usize, vote: Vote },
    Messages { from: usize, to: usize, call: u64, messages: Vec<Message> },
    Acceptance { from: usize, to: usize, vote: Vote },
    History { to: usize, from: usize, slot: u64 },
}

/// A node: its machine, its disk, and what waits for the disk.
#[derive(Debug)]
struct Place {
    machine: Option<Ordered>,
    disk: Durable,
    log: BTreeMap<u64, Batch>,
    own: Vec<Message>,
    unsynced: VecDeque<Vec<Change>>,
    /// Who waits for an answer, and whether to messages handed over.
    asked: BTreeMap<u64, (usize, bool)>,
    told: u64,
}

struct Net {
    rng: ChaCha8Rng,
    now: Instant,
    places: Vec<Place>,
    parcels: Vec<Parcel>,
    next_call: u64,
    loses: u32,
    voters: BTreeSet<NodeId>,
}

fn id(place: usize) -> NodeId {
    node(u8::try_from(place).expect("few"))
}

impl Net {
    fn new(seed: u64, count: usize, voters: usize) -> Self {
        let place = |_| Place {
            machine: None,
            disk: Durable::default(),
            log: BTreeMap::new(),
            own: vec![],
            unsynced: VecDeque::new(),
            asked: BTreeMap::new(),
            told: 0,
        };
        let mut net = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Instant(0),
            places: (0..count).map(place).collect(),
            parcels: vec![],
            next_call: 0,
            loses: 0,
            voters: (0..voters).map(id).collect(),
        };
        (0..count).for_each(|place| net.start(place));
        net
    }

    fn start(&mut self, place: usize) {
        let founding = Epoch { number: 1, voters: self.voters.clone() };
        let here = &mut self.places[place];
        let mut machine = Ordered::new(id(place), founding, here.disk.clone(), self.now);
        for message in here.own.clone() {
            machine.on_message(message, self.now);
        }
        here.told = here.disk.decided;
        here.machine = Some(machine);
    }

    fn crash(&mut self, place: usize) {
        let kept = self.rng.random_range(0..=self.places[place].unsynced.len());
        (0..kept).for_each(|_| self.sync(place, false));
        let here = &mut self.places[place];
        here.machine = None;
        here.unsynced.clear();
        here.asked.clear();
    }

    fn say(&mut self, place: usize, sequence: u64) {
        let message = message(u8::try_from(place).expect("few"), Channel::Ordered, sequence, &[]);
        self.places[place].own.push(message.clone());
        let now = self.now;
        self.with(place, |machine, out| {
            machine.on_message(message, now);
            machine.on_progress(now, &any_frontier, out);
        });
    }

    fn with(&mut self, place: usize, act: impl FnOnce(&mut Ordered, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        let Some(machine) = self.places[place].machine.as_mut() else { return };
        act(machine, &mut out);
        machine.check();
        for effect in out {
            self.perform(place, effect);
        }
    }

    fn place_of(&self, node: NodeId) -> usize {
        (0..self.places.len()).find(|place| id(*place) == node).expect("one of them")
    }

    fn perform(&mut self, from: usize, effect: Effect) {
        match effect {
            Effect::Persist(changes) => self.places[from].unsynced.push_back(changes),
            Effect::Ask(to, step) => {
                self.next_call += 1;
                let parcel = Parcel::Step { from, to: self.place_of(to), call: self.next_call, step };
                self.parcels.push(parcel);
            }
            Effect::Answer(call, vote) => {
                let asked = self.places[from].asked.remove(&call.0);
                self.parcels.extend(asked.map(|(to, handed)| match handed {
                    true => Parcel::Acceptance { from, to, vote },
                    false => Parcel::Vote { from, to, vote },
                }));
            }
            Effect::Behind(whom, slot) => self.parcels.push(Parcel::History { to: from, from: self.place_of(whom), slot }),
            Effect::Reached(..) => {}
            Effect::Decided(slot, batch) => {
                let here = &mut self.places[from];
                assert_eq!(slot, here.told + 1, "each slot is reported once, in order");
                assert_eq!(here.log.get(&slot), Some(&batch), "and durable by then");
                here.told = slot;
            }
            Effect::HandOver(to, messages) => {
                self.next_call += 1;
                let parcel = Parcel::Messages { from, to: self.place_of(to), call: self.next_call, messages };
                self.parcels.push(parcel);
            }
        }
    }

    /// The oldest persist of a place reaches its disk.
    fn sync(&mut self, place: usize, report: bool) {
        let here = &mut self.places[place];
        let Some(changes) = here.unsynced.pop_front() else { return };
        for change in changes {
            match change {
                Change::Promise(ballot) => here.disk.promised = here.disk.promised.max(Some(ballot)),
                Change::Accept(slot, accepted) => {
                    here.disk.promised = here.disk.promised.max(Some(accepted.ballot));
                    here.disk.accepted.insert(slot, accepted);
                }
                Change::Decide(slot, batch) => {
                    assert_eq!(slot, here.disk.decided + 1);
                    here.disk.decided = slot;
                    here.disk.accepted.retain(|accepted, _| *accepted > slot);
                    let epoch = here.disk.epoch.clone().unwrap_or(Epoch { number: 1, voters: self.voters.clone() });
                    here.disk.epoch = Some(batch.next_epoch(&epoch).unwrap_or(epoch));
                    for message in batch.messages() {
                        here.own.retain(|own| own.id != message.id);
                        let last = here.disk.ordered.entry(message.id.origin).or_default();
                        *last = (*last).max(message.id.sequence);
                    }
                    here.log.insert(slot, batch);
                }
            }
        }
        if report {
            let now = self.now;
            self.with(place, |machine, out| machine.on_persisted(now, &any_frontier, out));
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        let now = self.now;
        match parcel {
            Parcel::Step { from, to, call, step } => {
                self.places[to].asked.insert(call, (from, false));
                self.with(to, |machine, out| machine.on_step(now, id(from), PeerCall(call), step, out));
            }
            Parcel::Vote { from, to, vote } => self.with(to, |machine, out| machine.on_vote(now, id(from), vote, &any_frontier, out)),
            Parcel::Messages { from, to, call, messages } => {
                self.places[to].asked.insert(call, (from, true));
                self.with(to, |machine, out| _ = machine.on_handed(now, (id(from), PeerCall(call)), messages, &any_frontier, out));
            }
            Parcel::Acceptance { from, to, vote } => {
                let Vote::Received { ballot, slot } = vote else { panic!("messages are answered with {vote:?}") };
                self.with(to, |machine, out| machine.on_acceptance(now, id(from), ballot, slot, out));
            }
            Parcel::History { to, from, slot } => {
                let known: Vec<(u64, Batch)> = self.places[from].log.range(..=slot).map(|(slot, batch)| (*slot, batch.clone())).collect();
                self.with(to, |machine, out| {
                    known.into_iter().for_each(|(slot, batch)| machine.on_decided(now, slot, batch, out));
                    machine.on_progress(now, &any_frontier, out);
                });
            }
        }
    }

    /// Something happens.
    fn step(&mut self) {
        let place = self.rng.random_range(0..self.places.len());
        match self.rng.random_range(0..10) {
            0..5 if !self.parcels.is_empty() => {
                let parcel = self.rng.random_range(0..self.parcels.len());
                let parcel = self.parcels.swap_remove(parcel);
                if !self.rng.random_ratio(self.loses, 100) {
                    self.deliver(parcel);
                }
            }
            5..9 => self.sync(place, true),
            _ => {
                self.now = self.now + Duration::from_millis(self.rng.random_range(1..200));
                let mut rng = ChaCha8Rng::seed_from_u64(self.rng.random());
                let now = self.now;
                self.with(place, |machine, out| {
                    if machine.deadline().is_some_and(|deadline| deadline <= now) {
                        machine.on_deadline(now, &mut rng, out);
                    }
                });
            }
        }
        self.check();
    }

    /// Agreement, single places, each origin's order: at every moment, on every disk.
    fn check(&self) {
        let longest = self.places.iter().max_by_key(|place| place.log.len()).expect("some");
        for place in &self.places {
            for (slot, batch) in &place.log {
                assert_eq!(longest.log.get(slot), Some(batch), "slot {slot} is decided in two ways");
            }
        }
    }

    fn order(&self, place: usize) -> Vec<MessageId> {
        let mut last: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut order = Vec::new();
        for message in self.places[place].log.values().flat_map(Batch::messages) {
            let expected = last.entry(message.id.origin).or_default();
            if message.id.sequence > *expected {
                assert_eq!(message.id.sequence, *expected + 1, "an origin's messages stand in their order");
                *expected += 1;
                order.push(message.id);
            }
        }
        order
    }
}

fn run(seed: u64, count: usize, voters: usize, faults: bool) {
    let mut net = Net::new(seed, count, voters);
    let mut sequences = vec![0; count];
    let mut said = BTreeSet::new();
    net.loses = if faults { 20 } else { 0 };
    for round in 0..6000 {
        if round % 200 == 0 {
            let place = net.rng.random_range(0..count);
            if net.places[place].machine.is_some() {
                sequences[place] += 1;
                said.insert(MessageId { origin: id(place), channel: Channel::Ordered, sequence: sequences[place] });
                net.say(place, sequences[place]);
            }
        }
        if faults && round % 150 == 0 {
            let place = net.rng.random_range(0..count);
            if net.places[place].machine.is_some() { net.crash(place) } else { net.start(place) }
        }
        net.step();
    }
    net.loses = 0;
    let down: Vec<usize> = (0..count).filter(|place| net.places[*place].machine.is_none()).collect();
    down.into_iter().for_each(|place| net.start(place));
    for round in 0..40_000 {
        net.step();
        // What a rumor or an exchange does elsewhere: everybody hears what was decided.
        if round % 500 == 0 {
            let most = (0..count).max_by_key(|place| net.places[*place].log.len()).expect("some");
            (0..count).for_each(|to| net.parcels.push(Parcel::History { to, from: most, slot: u64::MAX }));
            if (0..count).all(|place| net.order(place).len() == said.len()) {
                break;
            }
        }
    }
    for place in 0..count {
        assert_eq!(net.order(place).into_iter().collect::<BTreeSet<_>>(), said, "seed {seed}: everything said is ordered at {place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_nodes_decide_alike_and_nothing_said_is_lost(seed in any::<u64>(), voters in 1..=5_usize, learners in 0..=2_usize) {
        run(seed, voters + learners, voters, true);
    }
}

#[test]
fn without_faults_a_coordinator_starts_once() {
    let mut net = Net::new(1, 3, 3);
    for sequence in 1..=5 {
        net.say(0, sequence);
        (0..3000).for_each(|_| net.step());
    }
    assert_eq!(net.order(0).len(), 5);
    let rounds: BTreeSet<u64> = net.places.iter().filter_map(|place| Some(place.disk.promised?.round)).collect();
    assert!(rounds.into_iter().max() <= Some(2), "the steady coordinator skips Start");
}

#[test]
fn after_a_silence_a_message_is_handed_over_and_not_fought_for() {
    let (epoch, at) = (Epoch { number: 1, voters: (0..3).map(id).collect() }, |millis: u64| Instant(millis * 1000));
    let (mut machine, mut rng, mut out) = (Ordered::new(id(1), epoch, Durable::default(), at(0)), ChaCha8Rng::seed_from_u64(1), vec![]);
    let ballot = Ballot { round: 1, node: id(0) };
    machine.on_step(at(1), id(0), PeerCall(1), Step::Start { ballot, slot: 1 }, &mut out);
    machine.on_persisted(at(2), &any_frontier, &mut out);
    let mut handed = |machine: &mut Ordered, now: Instant| -> Vec<u64> {
        out.clear();
        machine.on_deadline(now, &mut rng, &mut out);
        assert!(
            out.iter().all(|effect| matches!(effect, Effect::HandOver(to, _) if *to == id(0))),
            "nothing but to the coordinator: {out:?}"
        );
        out.iter()
            .flat_map(|effect| if let Effect::HandOver(_, messages) = effect { &messages[..] } else { &[] })
            .map(|message| message.id.sequence)
            .collect()
    };
    // A quiet hour later: the transaction that it was in is over.
    let hour = 3_600_000;
    assert!(handed(&mut machine, at(5000)).is_empty());
    machine.on_message(message(1, Channel::Ordered, 1, &[]), at(hour));
    assert_eq!((machine.deadline(), handed(&mut machine, at(hour))), (Some(at(hour)), vec![1]));
    machine.on_message(message(1, Channel::Ordered, 2, &[]), at(hour + 1));
    assert!(machine.deadline() > Some(at(hour + 1)) && handed(&mut machine, at(hour + 1)).is_empty(), "one call at a time");
    machine.on_handed_over(at(hour + 2), id(0), true);
    assert_eq!((machine.deadline(), handed(&mut machine, at(hour + 2))), (Some(at(hour + 2)), vec![2]), "what came meanwhile");
    machine.on_handed_over(at(hour + 3), id(0), true);
    assert_eq!(handed(&mut machine, at(hour + 3)), Vec::<u64>::new());
    assert_eq!(handed(&mut machine, at(hour + 1003)), vec![1, 2], "again, for they wait still");
    assert!(machine.deadline() <= Some(at(hour + 2000)), "nobody is waited for in vain");
}

#[test]
fn who_does_not_take_what_is_handed_over_is_followed_no_more() {
    let at = |millis: u64| Instant(millis * 1_000_000);
    // A learner that follows a coordinator which is gone for good.
    let epoch = Epoch { number: 1, voters: (0..3).map(id).collect() };
    let mut machine = Ordered::new(id(5), epoch, Durable::default(), at(0));
    let (mut out, mut rng) = (Vec::new(), ChaCha8Rng::seed_from_u64(1));
    let ballot = Ballot { round: 1, node: id(0) };
    machine.on_step(at(0), id(0), PeerCall(1), Step::Commit { ballot, slot: 1, hash: crate::ContentHash([0; 32]) }, &mut out);
    machine.on_message(message(5, Channel::Ordered, 1, &[]), at(0));
    let mut asked = BTreeSet::new();
    for second in 0..20 {
        out.clear();
        machine.on_deadline(at(second * 1000), &mut rng, &mut out);
        for to in out.iter().filter_map(|effect| if let Effect::HandOver(to, _) = effect { Some(*to) } else { None }) {
            asked.insert(to);
            machine.on_handed_over(at(second * 1000 + 500), to, false);
        }
    }
    assert_eq!(asked, (0..3).map(id).collect());
    // The next coordinator is followed, although a call to the one before it fails after that.
    let ballot = Ballot { round: 2, node: id(1) };
    machine.on_step(at(30_000), id(1), PeerCall(2), Step::Commit { ballot, slot: 1, hash: crate::ContentHash([0; 32]) }, &mut out);
    machine.on_handed_over(at(30_001), id(0), false);
    assert_eq!(machine.coordinator(), Some(id(1)));
    machine.on_handed_over(at(30_002), id(1), false);
    assert_eq!(machine.coordinator(), None);
}

#[test]
fn a_batch_that_a_majority_has_survives_its_coordinator() {
    let mut net = Net::new(1, 3, 3);
    net.say(0, 1);
    // Until the batch is durable at two, whatever was told of it.
    let durable = |net: &Net| net.places.iter().filter(|place| !place.disk.accepted.is_empty()).count() >= 2;
    while !durable(&net) {
        net.step();
    }
    let batch = net.places.iter().find_map(|place| place.disk.accepted.get(&1)).cloned().expect("accepted").batch;
    net.crash(0);
    net.parcels.clear();
    net.say(1, 1);
    (0..20_000).for_each(|_| net.step());
    assert_eq!(net.places[1].log.get(&1), Some(&batch), "it is proposed before anything new");
    assert_eq!(net.order(1).len(), 2);
}

#[test]
fn what_only_a_dead_coordinator_knew_to_be_decided_is_decided_without_another_message() {
    let mut net = Net::new(1, 3, 3);
    net.say(0, 1);
    while net.places[0].log.is_empty() {
        net.step();
    }
    net.crash(0);
    net.parcels.clear();
    let others = |net: &Net| net.places[1..].iter().filter(|place| place.log == net.places[0].log).count();
    assert!(others(&net) < 2, "somebody is left to hear of it");
    (0..20_000).for_each(|_| net.step());
    assert_eq!(others(&net), 2);
}

#[test]
fn the_epoch_changes_where_its_batch_stands() {
    let mut net = Net::new(1, 4, 3);
    net.say(0, 1);
    (0..5000).for_each(|_| net.step());
    let coordinator = (0..3).find(|place| net.places[*place].machine.as_ref().is_some_and(Ordered::is_coordinator)).expect("one");
    let now = net.now;
    net.with(coordinator, |machine, out| {
        machine.wish(machine.epoch().with(id(3)));
        machine.on_progress(now, &any_frontier, out);
    });
    (0..5000).for_each(|_| net.step());
    net.say(coordinator, if coordinator == 0 { 2 } else { 1 });
    (0..20_000).for_each(|_| net.step());
    let machine = net.places[coordinator].machine.as_ref().expect("runs");
    assert_eq!((machine.epoch().number, machine.epoch().voters.len()), (2, 4));
    assert_eq!(net.order(coordinator).len(), 2);
}

#[test]
fn a_minority_decides_nothing() {
    let mut net = Net::new(1, 3, 3);
    net.crash(1);
    net.crash(2);
    net.say(0, 1);
    (0..20_000).for_each(|_| net.step());
    assert!(net.places[0].log.is_empty());
    assert!(net.places[0].machine.as_ref().is_some_and(|machine| machine.waiting().count() == 1), "it waits");
    net.start(1);
    (0..20_000).for_each(|_| net.step());
    assert_eq!(net.order(0).len(), 1);
}
