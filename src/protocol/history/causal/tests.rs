//! Causal machines alone, on a network and disks that fail by dice: the five properties.

use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::record::tests::node;

fn id(place: usize) -> NodeId {
    node(u8::try_from(place).expect("few"))
}

#[derive(Debug, Default)]
struct Place {
    machine: Option<Causal>,
    disk: Durable,
    history: Vec<Message>,
    unsynced: VecDeque<Vec<Change>>,
    accepted: BTreeSet<MessageId>,
}

struct Net {
    rng: ChaCha8Rng,
    now: Instant,
    places: Vec<Place>,
    parcels: Vec<(usize, usize, Tell)>,
    loses: u32,
    epoch: Epoch,
}

impl Net {
    fn new(seed: u64, voters: usize, learners: usize) -> Self {
        let mut net = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Instant(0),
            places: (0..voters + learners).map(|_| Place::default()).collect(),
            parcels: vec![],
            loses: 0,
            epoch: Epoch { number: 1, voters: (0..voters).map(id).collect() },
        };
        (0..voters + learners).for_each(|place| net.start(place));
        net
    }

    fn start(&mut self, place: usize) {
        self.places[place].machine = Some(Causal::new(id(place), self.epoch.clone(), self.places[place].disk.clone(), self.now));
    }

    fn crash(&mut self, place: usize) {
        let kept = self.rng.random_range(0..=self.places[place].unsynced.len());
        (0..kept).for_each(|_| self.sync(place, false));
        self.places[place].machine = None;
        self.places[place].unsynced.clear();
    }

    fn say(&mut self, place: usize) {
        let now = self.now;
        self.with(place, |machine, out| {
            machine.on_local("text/plain".into(), Body::of(b"hello".to_vec()), WallTime(0), now, out).expect("there is room");
        });
    }

    fn with(&mut self, place: usize, act: impl FnOnce(&mut Causal, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        let Some(machine) = self.places[place].machine.as_mut() else { return };
        act(machine, &mut out);
        machine.check();
        for effect in out {
            match effect {
                Effect::Persist(changes) => self.places[place].unsynced.push_back(changes),
                Effect::Accepted(id) => assert!(self.places[place].accepted.insert(id)),
                Effect::Tell(Whom::Node(to), tell) => {
                    let to = (0..self.places.len()).find(|other| id(*other) == to).expect("one of them");
                    self.parcels.push((place, to, tell));
                }
                Effect::Tell(Whom::Learners | Whom::Rumor | Whom::AFew, tell) => {
                    let to = self.rng.random_range(0..self.places.len());
                    self.parcels.push((place, to, tell));
                }
                Effect::Delivered(message) => assert!(self.places[place].history.contains(&message), "durable by then"),
            }
        }
    }

    fn sync(&mut self, place: usize, report: bool) {
        let here = &mut self.places[place];
        let Some(changes) = here.unsynced.pop_front() else { return };
        for change in changes {
            match change {
                Change::Store(message) => {
                    if message.id.origin == id(place) {
                        here.disk.newest = BTreeSet::from([message.id]);
                    }
                    here.disk.pending.push(message);
                }
                Change::Deliver(message) => {
                    here.disk.pending.retain(|pending| pending.id != message.id);
                    let last = here.disk.delivered.entry(message.id.origin).or_default();
                    assert_eq!(message.id.sequence, *last + 1, "no duplication, no gap");
                    *last += 1;
                    here.disk.newest.retain(|id| id.origin != message.id.origin && !message.frontier.newest.contains(id));
                    here.disk.newest.insert(message.id);
                    here.history.push(message);
                }
            }
        }
        if report {
            self.with(place, Causal::on_persisted);
        }
    }

    fn step(&mut self) {
        let place = self.rng.random_range(0..self.places.len());
        match self.rng.random_range(0..10) {
            0..5 if !self.parcels.is_empty() => {
                let parcel = self.rng.random_range(0..self.parcels.len());
                let (from, to, tell) = self.parcels.swap_remove(parcel);
                if !self.rng.random_ratio(self.loses, 100) {
                    let now = self.now;
                    self.with(to, |machine, out| machine.on_tell(now, id(from), tell, out));
                }
            }
            5..9 => self.sync(place, true),
            _ => {
                self.now = self.now + Duration::from_millis(self.rng.random_range(1..400));
                let now = self.now;
                self.with(place, |machine, out| machine.on_deadline(now, out));
            }
        }
    }

    /// Two nodes compare what they have delivered, as exchanges do.
    fn meet(&mut self) {
        let (here, there) = (self.rng.random_range(0..self.places.len()), self.rng.random_range(0..self.places.len()));
        let Some(known) = self.places[here].machine.as_ref().map(|machine| machine.delivered().clone()) else { return };
        let lacks = |message: &&Message| known.get(&message.id.origin).is_none_or(|last| message.id.sequence > *last);
        let messages = self.places[there].history.iter().filter(lacks).cloned().collect();
        self.with(here, |machine, out| machine.on_history(messages, out));
    }

    /// Causal order in every history, and uniform agreement in what a majority must hold.
    fn check(&self) {
        for place in &self.places {
            let mut seen = BTreeSet::new();
            for message in &place.history {
                assert!(message.frontier.newest.iter().all(|before| seen.contains(before)), "causal order");
                assert!(seen.insert(message.id), "no duplication");
            }
            for message in &place.history {
                let on_disk = |other: &&Place| other.history.contains(message) || other.disk.pending.contains(message);
                let holders = (0..self.places.len()).filter(|other| on_disk(&&self.places[*other])).map(id).collect();
                assert!(self.epoch.is_majority(&holders), "what is delivered is on the disks of a majority");
            }
        }
    }
}

fn run(seed: u64, voters: usize, learners: usize) {
    let mut net = Net::new(seed, voters, learners);
    let count = voters + learners;
    net.loses = 20;
    for round in 0..4000 {
        if round % 100 == 0 {
            let place = net.rng.random_range(0..count);
            net.say(place);
        }
        if round % 150 == 0 {
            let place = net.rng.random_range(0..count);
            if net.places[place].machine.is_some() { net.crash(place) } else { net.start(place) }
        }
        net.step();
        if round % 50 == 0 {
            net.check();
        }
    }
    net.loses = 0;
    let down: Vec<usize> = (0..count).filter(|place| net.places[*place].machine.is_none()).collect();
    down.into_iter().for_each(|place| net.start(place));
    let accepted: BTreeSet<MessageId> = net.places.iter().flat_map(|place| place.accepted.clone()).collect();
    let settled =
        |net: &Net| (0..count).all(|place| accepted.iter().all(|id| net.places[place].history.iter().any(|message| message.id == *id)));
    let mut rounds = 0;
    while !settled(&net) && rounds < 60_000 {
        net.step();
        rounds += 1;
        if rounds % 200 == 0 {
            net.meet();
        }
    }
    net.check();
    assert!(settled(&net), "seed {seed}: what was accepted is delivered by every node");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_properties_hold_whatever_is_lost_and_whoever_crashes(seed in any::<u64>(), voters in 1..=5_usize, learners in 0..=2_usize) {
        run(seed, voters, learners);
    }
}

#[test]
fn a_minority_delivers_nothing_and_says_nothing_when_all_is_delivered() {
    let mut net = Net::new(1, 3, 0);
    net.crash(1);
    net.crash(2);
    net.say(0);
    (0..3000).for_each(|_| net.step());
    assert!(net.places[0].history.is_empty() && net.places[0].accepted.len() == 1);
    net.start(1);
    net.start(2);
    (0..6000).for_each(|_| net.step());
    assert!(net.places.iter().all(|place| place.history.len() == 1));
    assert!(net.parcels.is_empty(), "quiet: {:?}", net.parcels);
    assert!(net.places.iter().all(|place| place.machine.as_ref().is_some_and(|machine| machine.deadline().is_none())));
}

#[test]
fn a_learners_disk_does_not_count() {
    let mut net = Net::new(1, 3, 2);
    net.crash(1);
    net.crash(2);
    net.say(0);
    (0..6000).for_each(|_| net.step());
    assert!(net.places.iter().all(|place| place.history.is_empty()));
}

#[test]
fn an_older_epochs_word_is_not_counted_in_a_later_one() {
    let epoch = |number, voters: &[usize]| Epoch { number, voters: voters.iter().copied().map(id).collect() };
    let mut machine = Causal::new(id(0), epoch(1, &[0, 1, 2]), Durable::default(), Instant(0));
    let mut out = Vec::new();
    machine.on_local("text/plain".into(), Body::of(vec![]), WallTime(0), Instant(0), &mut out);
    machine.on_persisted(&mut out);
    machine.on_epoch(Instant(0), epoch(2, &[0, 1, 2, 3]), &mut out);
    let name = MessageId { origin: id(0), channel: Channel::Causal, sequence: 1 };
    let holds = |epoch| Tell { epoch, holds: vec![name], ..Tell::default() };
    machine.on_tell(Instant(0), id(1), holds(2), &mut out);
    machine.on_tell(Instant(0), id(3), holds(1), &mut out);
    assert!(!machine.is_delivered(name), "two of four, and a stranger to the first epoch");
    machine.on_tell(Instant(0), id(3), holds(2), &mut out);
    assert!(machine.is_delivered(name));
}

#[test]
fn who_votes_alone_delivers_what_it_kept_from_before_its_start() {
    let epoch = Epoch { number: 1, voters: [id(0)].into() };
    let kept = MessageId { origin: id(0), channel: Channel::Causal, sequence: 1 };
    let (frontier, media_type, body) = (Frontier::default(), "text/plain".into(), Body::of(vec![]));
    let pending = vec![Message { id: kept, frontier, media_type, body, sent: WallTime(0) }];
    let mut machine = Causal::new(id(0), epoch, Durable { pending, ..Durable::default() }, Instant(0));
    let now = machine.deadline().expect("something is pending");
    machine.on_deadline(now, &mut Vec::new());
    assert!(machine.is_delivered(kept));
}

#[test]
fn only_what_is_on_disk_is_said_to_be_kept() {
    let epoch = Epoch { number: 1, voters: [0, 1, 2].map(id).into() };
    let mut machine = Causal::new(id(0), epoch, Durable::default(), Instant(0));
    let mut out = Vec::new();
    let theirs = |sequence| Message {
        id: MessageId { origin: id(1), channel: Channel::Causal, sequence },
        frontier: Frontier::default(),
        media_type: "text/plain".into(),
        body: Body::of(vec![]),
        sent: WallTime(0),
    };
    machine.on_history(vec![theirs(2)], &mut out);
    assert!(machine.pending().count() == 1 && machine.kept().next().is_none(), "it is known, and waits for the first in memory alone");
    machine.on_tell(Instant(0), id(2), Tell { epoch: 1, messages: vec![theirs(1)], ..Tell::default() }, &mut out);
    assert!(machine.kept().next().is_none(), "it is on its way to the disk");
    machine.on_persisted(&mut out);
    assert_eq!(machine.kept().next(), None, "a majority has the first, so it was delivered, and the second with it");
    assert!(machine.is_delivered(theirs(2).id));
    let own = machine.on_local("text/plain".into(), Body::of(vec![]), WallTime(0), Instant(0), &mut out).expect("there is room");
    // The two deliveries are on their way before it.
    (0..2).for_each(|_| machine.on_persisted(&mut out));
    assert_eq!(machine.kept().next(), None);
    machine.on_persisted(&mut out);
    assert_eq!(machine.kept().collect::<Vec<_>>(), [own]);
}

/// A machine in an epoch of the voters 0, 1 and 2, and what it has said since it stored another's message.
fn stored(me: usize, origin: usize) -> (Causal, MessageId, Vec<(Whom, Tell)>) {
    let epoch = Epoch { number: 1, voters: [0, 1, 2].map(id).into() };
    let mut machine = Causal::new(id(me), epoch, Durable::default(), Instant(0));
    let name = MessageId { origin: id(origin), channel: Channel::Causal, sequence: 1 };
    let (frontier, media_type, body) = (Frontier::default(), "text/plain".into(), Body::of(vec![]));
    let message = Message { id: name, frontier, media_type, body, sent: WallTime(0) };
    let mut out = Vec::new();
    machine.on_tell(Instant(0), id(origin), Tell { epoch: 1, messages: vec![message], ..Tell::default() }, &mut out);
    machine.on_persisted(&mut out);
    (machine, name, tells(out))
}

fn tells(out: Vec<Effect>) -> Vec<(Whom, Tell)> {
    out.into_iter().filter_map(|effect| if let Effect::Tell(whom, tell) = effect { Some((whom, tell)) } else { None }).collect()
}

#[test]
fn a_voters_word_goes_to_those_who_do_not_vote_too_and_to_the_origin() {
    let (_, name, told) = stored(0, 7);
    let word = Tell { epoch: 1, holds: vec![name], ..Tell::default() };
    assert!(told.contains(&(Whom::Node(id(7)), word)), "it waits for a majority's word");
    assert!(
        told.iter().any(|(whom, tell)| *whom == Whom::Learners && tell.messages.len() == 1),
        "who may not have heard of it gets it with that"
    );
    let (_, _, told) = stored(7, 1);
    assert!(told.iter().all(|(whom, _)| *whom == Whom::Rumor), "a learner has no word to give: {told:?}");
}

#[test]
fn what_was_withheld_is_told_as_soon_as_the_silence_ends() {
    let epoch = Epoch { number: 1, voters: (0..3).map(id).collect() };
    let mut machine = Causal::new(id(0), epoch, Durable::default(), Instant(0));
    machine.fall_silent();
    let (now, mut out) = (Instant(1), Vec::new());
    let name = machine.on_local("text/plain".into(), Body::of(b"hello".to_vec()), WallTime(0), now, &mut out).expect("there is room");
    machine.on_persisted(&mut out);
    let asked = Tell { epoch: 1, lacks: vec![name], ..Tell::default() };
    machine.on_tell(now, id(1), asked, &mut out);
    assert_eq!(tells(std::mem::take(&mut out)), vec![], "nor to one who knows the name");
    machine.speak(now, &mut out);
    let told = tells(out);
    for voter in [id(1), id(2)] {
        let whole = |(whom, tell): &(Whom, Tell)| *whom == Whom::Node(voter) && tell.messages.iter().any(|message| message.id == name);
        assert!(told.iter().any(whole), "{told:?}");
    }
}

#[test]
fn what_does_not_fit_into_one_letter_is_told_at_the_next_look() {
    let epoch = Epoch { number: 1, voters: (0..2).map(id).collect() };
    let mut machine = Causal::new(id(0), epoch, Durable::default(), Instant(0));
    let (mut now, mut out) = (Instant(1), Vec::new());
    let body = || Body::of(vec![b'x'; crate::history::message::MAX_BODY]);
    let count = 3 * TOLD_BUDGET / crate::history::message::MAX_BODY;
    for _ in 0..count {
        machine.on_local("text/plain".into(), body(), WallTime(0), now, &mut out).expect("there is room");
        machine.on_persisted(&mut out);
    }
    let mut told = BTreeSet::new();
    let mut looks = 0;
    while told.len() < count {
        out.clear();
        now = machine.deadline().expect("they are pending");
        machine.on_deadline(now, &mut out);
        let again: Vec<MessageId> =
            tells(std::mem::take(&mut out)).iter().flat_map(|(_, tell)| tell.messages.iter().map(|message| message.id)).collect();
        looks += u32::from(!again.is_empty());
        assert!(again.into_iter().all(|id| told.insert(id)), "each once before any again");
    }
    assert_eq!(looks, 3);
    assert!(now.since(Instant(1)) < 2 * RETELLING);
}

#[test]
fn only_what_was_told_a_while_ago_is_told_again() {
    let (mut machine, name, _) = stored(0, 7);
    let mut again = |at: Instant| {
        let mut out = Vec::new();
        machine.on_deadline(at, &mut out);
        tells(out)
    };
    assert_eq!(again(Instant(0) + RETELLING / 2), [], "it is on its way");
    let told = again(Instant(0) + RETELLING);
    let to = |whom: Whom| told.iter().filter(|(told, _)| *told == whom).map(|(_, tell)| tell.clone()).next();
    for voter in [1, 2] {
        assert_eq!(to(Whom::Node(id(voter))).map(|tell| tell.messages.len()), Some(1));
    }
    assert_eq!(to(Whom::AFew).map(|tell| tell.holds), Some(vec![name]), "perhaps they reach who is not reached from here");
    assert_eq!(again(Instant(0) + RETELLING + RETELLING / 2), []);
}
