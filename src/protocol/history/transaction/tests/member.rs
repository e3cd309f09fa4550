//! The rows of whoever asks for an update or is asked, by a whole node's history, and the state that is shown where several things are under way.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::super::*;
use super::voter::{CALL, ME, OTHER, THIRD, batch};
use crate::history::disk::Founding;
use crate::history::epoch::MAX_VOTERS;
use crate::history::memory::MemoryHistory;
use crate::history::message::Channel;
use crate::history::message::tests::message;
use crate::history::replica::{self, Asked, Network, Replica, World};
use crate::history::talk::{Ask, HistoryAnswer, HistoryCall, Known, Update, UpdateMe};
use crate::ids::NodeId;
use crate::record::tests::node;
use crate::time::{Instant, Now, WallTime};

/// A node that belongs to a history founded by another.
struct Member {
    replica: Replica,
    disk: MemoryHistory,
    now: Instant,
}

/// Everybody is believed alive, and no rumor goes out.
struct Everybody;

impl Network for Everybody {
    fn is_live(&self, _: NodeId) -> bool {
        true
    }

    fn few(&self, _: usize, _: &mut ChaCha8Rng) -> Vec<NodeId> {
        vec![]
    }

    fn all(&self, _: usize) -> Option<Vec<NodeId>> {
        None
    }

    fn next(&self, _: usize) -> Vec<NodeId> {
        vec![]
    }
}

fn founding() -> Founding {
    Founding { id: uuid::Uuid::from_u128(1), founder: node(OTHER) }
}

fn call(ask: Ask) -> HistoryCall {
    HistoryCall { history: founding().id, ask }
}

impl Member {
    fn new() -> Self {
        let mut disk = MemoryHistory::default();
        disk.apply(crate::history::disk::Change::Join(founding()));
        let replica = Replica::new(node(ME), MAX_VOTERS, &disk, Instant(0)).expect("opens");
        Self { replica, disk, now: Instant(0) }
    }

    fn with(&mut self, act: impl FnOnce(&mut Replica, &mut World<'_>, &mut Vec<replica::Effect>)) -> Vec<replica::Effect> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let now = Now { instant: self.now, wall: WallTime(0) };
        let mut did = Vec::new();
        act(&mut self.replica, &mut World { now, rng: &mut rng, network: &Everybody, store: &self.disk }, &mut did);
        self.replica.check();
        did
    }

    /// Persists what was done, and what follows from that.
    fn settles(&mut self, mut did: Vec<replica::Effect>) -> Vec<replica::Effect> {
        let mut rest = Vec::new();
        while !did.is_empty() {
            for effect in std::mem::take(&mut did) {
                if let replica::Effect::Persist(changes) = effect {
                    changes.into_iter().for_each(|change| self.disk.apply(change));
                    did.extend(self.with(|replica, world, out| replica.on_persisted(world, out).expect("reads")));
                } else {
                    rest.push(effect);
                }
            }
        }
        rest
    }

    fn is_answered(&mut self, asked: Asked, answer: Option<HistoryAnswer>) -> Vec<replica::Effect> {
        let did = self.with(|replica, world, out| replica.on_answer(world, node(OTHER), asked, answer, out));
        self.settles(did)
    }

    fn transaction(&self) -> &Transaction {
        self.replica.transaction()
    }

    /// It has asked the founder for what it lacks, and waits: with what it asked.
    fn waiting() -> (Self, Asked) {
        let mut member = Self::new();
        let did = member.with(|replica, world, out| replica.on_deadline(world, out));
        let Some(replica::Effect::Call(_, _, versions)) = did.last().cloned() else { panic!("{did:?}") };
        let known = Known { slot: 1, origins: BTreeMap::new(), full: true, traces: None };
        let did = member.is_answered(versions, Some(HistoryAnswer::Versions(known)));
        let [replica::Effect::Call(to, asked_for, page)] = &did[..] else { panic!("{did:?}") };
        assert_eq!((*to, asked_for), (node(OTHER), &call(Ask::UpdateMe(UpdateMe::default()))));
        assert_eq!(member.transaction().state(), State::WaitForUpdateByRequest);
        (member, *page)
    }
}

#[test]
fn an_update_asked_for_is_stored_and_delivered_when_it_comes() {
    let (mut member, page) = Member::waiting();
    let piece = crate::history::talk::Piece::Slot(1, batch(OTHER, 1));
    let did = member.is_answered(page, Some(HistoryAnswer::Update(Update { pieces: vec![piece], next: None })));
    assert!(
        did.iter()
            .any(|effect| matches!(effect, replica::Effect::Delivered(place) if place.id == message(OTHER, Channel::Ordered, 1, &[]).id))
    );
    assert_eq!((member.transaction().asker, member.replica.number()), (State::Connected, 1));
}

#[test]
fn an_update_that_does_not_come_is_awaited_no_more_and_asked_for_again() {
    let (mut member, page) = Member::waiting();
    member.is_answered(page, None);
    assert_eq!((member.transaction().asker, member.transaction().signals[&Signal::Timeout]), (State::Connected, 1));
    assert!(!member.replica.is_synchronised());
    member.now = member.replica.deadline().expect("it asks again");
    let did = member.with(|replica, world, out| replica.on_deadline(world, out));
    assert!(matches!(&did[..], [replica::Effect::Call(to, HistoryCall { ask: Ask::Versions(_), .. }, _)] if *to == node(OTHER)), "{did:?}");
}

#[test]
fn a_request_for_an_update_is_served_and_over_with_its_answer() {
    let mut member = Member::new();
    let request = call(Ask::UpdateMe(UpdateMe::default()));
    let did = member.with(|replica, world, out| replica.on_call(world, node(THIRD), CALL, request, out).expect("reads"));
    assert!(did.contains(&replica::Effect::Answer(CALL, HistoryAnswer::Update(Update::default()))), "{did:?}");
    let signals = &member.transaction().signals;
    assert_eq!((signals[&Signal::UpdateMeRequestReceived], signals[&Signal::UpdateByRequestSent]), (1, 1), "it passed through both states");
    assert_eq!(member.transaction().sender, State::Connected);
}

#[test]
fn sending_is_a_state_between_its_two_signals() {
    let mut transaction = Transaction::new(Instant(0));
    transaction.on_signal(Signal::UpdateMeRequestReceived, Instant(0));
    assert_eq!(transaction.state(), State::SendingUpdateByRequest);
    transaction.on_signal(Signal::UpdateByRequestSent, Instant(0));
    assert_eq!(transaction.state(), State::Connected);
}

#[test]
fn of_several_things_under_way_the_coordinators_shows_first_and_the_senders_last() {
    let mut transaction = Transaction::new(Instant(0));
    let lines = [
        (Signal::UpdateMeRequestReceived, State::SendingUpdateByRequest),
        (Signal::UpdateMeRequestSent, State::WaitForUpdateByRequest),
        (Signal::StartTransactionReceived, State::InTransaction),
        (Signal::StartTransactionSent, State::StartedTransaction),
    ];
    for (signal, state) in lines {
        transaction.on_signal(signal, Instant(0));
        assert_eq!(transaction.state(), state);
    }
}

#[test]
fn a_state_is_as_old_as_its_first_moment_however_often_a_signal_comes_in_it() {
    let mut transaction = Transaction::new(Instant(1));
    for (at, signal, since) in [
        (2, Signal::CommitReceived, 1),
        (3, Signal::IncomingMessageArrived, 3),
        (4, Signal::IncomingMessageArrived, 3),
        (5, Signal::UpdateMeRequestReceived, 3),
        (6, Signal::StartTransactionSent, 6),
        (7, Signal::RollbackSent, 7),
        (8, Signal::UpdateByRequestSent, 8),
    ] {
        transaction.on_signal(signal, Instant(at));
        assert_eq!(transaction.since, Instant(since), "{signal:?}");
    }
    transaction.on_signal(Signal::StartTransactionReceived, Instant(9));
    transaction.on_timeout(Line::Participant, Instant(10));
    assert_eq!((transaction.state(), transaction.since), (State::Connected, Instant(10)));
    transaction.on_signal(Signal::StartTransactionSent, Instant(11));
    transaction.on_nothing_to_propose(Instant(12));
    assert_eq!((transaction.state(), transaction.since), (State::Connected, Instant(12)));
}

#[test]
fn what_stands_in_a_batch_too_early_is_delivered_in_its_place() {
    // What is delivered goes by the same rule as what is decided, and so does a node that starts again.
    let (mut member, page) = Member::waiting();
    let slots = [2, 1, 2, 1, 3].map(|sequence| batch(OTHER, sequence));
    let pieces = (1..).zip(slots).map(|(slot, batch)| crate::history::talk::Piece::Slot(slot, batch)).collect();
    let did = member.is_answered(page, Some(HistoryAnswer::Update(Update { pieces, next: None })));
    let delivered =
        did.iter().filter_map(|effect| if let replica::Effect::Delivered(place) = effect { Some(place.id.sequence) } else { None });
    assert_eq!(delivered.collect::<Vec<_>>(), [1, 2, 3]);
    let again = Replica::new(node(ME), MAX_VOTERS, &member.disk, member.now).expect("opens");
    assert_eq!((member.replica.number(), again.number(), again.decided()), (3, 3, 5));
}
