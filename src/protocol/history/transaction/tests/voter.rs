//! The rows of a voter: Start, Confirm, Update, Received, Commit and Rollback, by the machine that decides slots.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::super::*;
use crate::history::epoch::Epoch;
use crate::history::message::tests::message;
use crate::history::message::{Channel, Frontier, Message};
use crate::history::ordered::{
    Ballot, Batch, Change, Decision, Durable, Effect, Entry, LONGEST_SILENCE, Ordered, PARTICIPATION, SILENCE, Step, UNTOLD, Vote,
};
use crate::ids::NodeId;
use crate::io::PeerCall;
use crate::record::tests::node;
use crate::time::Instant;

/// One of three voters, with a disk that is done at once.
struct Voter {
    machine: Ordered,
    now: Instant,
    rng: ChaCha8Rng,
    persisted: Vec<Change>,
    did: Vec<Effect>,
}

pub(super) const ME: u8 = 1;
pub(super) const OTHER: u8 = 2;
pub(super) const THIRD: u8 = 3;
pub(super) const CALL: PeerCall = PeerCall(7);

fn ready(_: &Frontier) -> bool {
    true
}

fn ballot(round: u64, place: u8) -> Ballot {
    Ballot { round, node: node(place) }
}

pub(super) fn batch(place: u8, sequence: u64) -> Batch {
    Batch::of(vec![Entry::Message(message(place, Channel::Ordered, sequence, &[]))])
}

impl Voter {
    fn new() -> Self {
        let epoch = Epoch { number: 1, voters: [ME, OTHER, THIRD].map(node).into() };
        let machine = Ordered::new(node(ME), epoch, Durable::default(), Instant(0));
        Self { machine, now: Instant(0), rng: ChaCha8Rng::seed_from_u64(1), persisted: vec![], did: vec![] }
    }

    fn with(&mut self, act: impl FnOnce(&mut Ordered, Instant, &mut ChaCha8Rng, &mut Vec<Effect>)) -> Vec<Effect> {
        self.did.clear();
        let mut out = Vec::new();
        act(&mut self.machine, self.now, &mut self.rng, &mut out);
        while !out.is_empty() {
            for effect in std::mem::take(&mut out) {
                if let Effect::Persist(changes) = effect {
                    self.persisted.extend(changes);
                    self.machine.on_persisted(self.now, &ready, &mut out);
                } else {
                    self.did.push(effect);
                }
            }
            self.machine.check();
        }
        std::mem::take(&mut self.did)
    }

    fn state(&self) -> State {
        self.machine.transaction().state()
    }

    fn hears(&mut self, from: u8, step: Step) -> Vec<Effect> {
        self.with(|machine, now, _, out| machine.on_step(now, node(from), CALL, step, out))
    }

    fn is_answered(&mut self, from: u8, vote: Vote) -> Vec<Effect> {
        self.with(|machine, now, _, out| machine.on_vote(now, node(from), vote, &ready, out))
    }

    fn is_given(&mut self, message: Message) -> Vec<Effect> {
        self.with(|machine, now, _, out| {
            machine.on_message(message, now);
            machine.on_progress(now, &ready, out);
        })
    }

    /// Another voter hands its message over; nothing is done where the owner answers by itself.
    fn is_handed(&mut self, from: u8, sequence: u64) -> Vec<Effect> {
        let messages = vec![message(from, Channel::Ordered, sequence, &[])];
        self.with(|machine, now, _, out| _ = machine.on_handed(now, (node(from), CALL), messages, &ready, out))
    }

    /// Waits for the next deadline that makes it say or persist something, or changes its state.
    fn waits(&mut self) -> Vec<Effect> {
        let (before, persisted) = (self.state(), self.persisted.len());
        for _ in 0..64 {
            self.now = self.now.max(self.machine.deadline().expect("something is awaited"));
            let did = self.with(|machine, now, rng, out| machine.on_deadline(now, rng, out));
            let handed = did.iter().all(|effect| matches!(effect, Effect::HandOver(..)));
            if !(did.is_empty() || handed) || self.state() != before || self.persisted.len() > persisted {
                return did;
            }
        }
        panic!("nothing happened in {before:?}");
    }

    /// In the state that the table begins a row with.
    fn coordinating(state: State) -> Self {
        let mut voter = Self::new();
        voter.is_given(message(ME, Channel::Ordered, 1, &[]));
        if state != State::IncomingMessageReceived {
            voter.waits();
        }
        if state == State::UpdatingRemote {
            voter.is_answered(OTHER, confirm(ballot(1, ME)));
        }
        assert_eq!(voter.state(), state);
        voter
    }

    fn participating(state: State) -> Self {
        let mut voter = Self::new();
        if state != State::Connected {
            voter.hears(OTHER, Step::Start { ballot: ballot(1, OTHER), slot: 1 });
        }
        if state == State::UpdatedByRemote {
            voter.hears(OTHER, Step::Update { ballot: ballot(1, OTHER), slot: 1, batch: batch(OTHER, 1), commit: None });
        }
        assert_eq!(voter.state(), state);
        voter
    }
}

fn confirm(ballot: Ballot) -> Vote {
    Vote::Confirm { ballot, accepted: BTreeMap::new(), decided: BTreeMap::new() }
}

/// What is said to both others, in the order of their ids.
fn to_both(step: &Step) -> Vec<Effect> {
    let others: BTreeSet<NodeId> = [OTHER, THIRD].map(node).into();
    others.into_iter().map(|voter| Effect::Ask(voter, step.clone())).collect()
}

fn is_decided(did: &[Effect], of: &Batch) -> bool {
    did.iter().any(|effect| matches!(effect, Effect::Decided(1, batch) if batch == of))
}

const COORDINATING: [State; 3] = [State::IncomingMessageReceived, State::StartedTransaction, State::UpdatingRemote];
const PARTICIPATING: [State; 3] = [State::Connected, State::InTransaction, State::UpdatedByRemote];

#[test]
fn without_a_signal_a_connected_node_stays_and_does_nothing() {
    let voter = Voter::new();
    assert_eq!((voter.state(), voter.machine.deadline()), (State::Connected, None));
}

#[test]
fn start_received_is_promised_durably() {
    let mut voter = Voter::participating(State::Connected);
    let did = voter.hears(OTHER, Step::Start { ballot: ballot(1, OTHER), slot: 1 });
    assert_eq!(did, [Effect::Answer(CALL, confirm(ballot(1, OTHER)))]);
    assert_eq!(voter.persisted, [Change::Promise(ballot(1, OTHER))]);
    assert_eq!(voter.state(), State::InTransaction);
}

#[test]
fn update_received_is_stored_durably_and_acknowledged() {
    let mut voter = Voter::participating(State::InTransaction);
    let did = voter.hears(OTHER, Step::Update { ballot: ballot(1, OTHER), slot: 1, batch: batch(OTHER, 1), commit: None });
    assert_eq!(did, [Effect::Answer(CALL, Vote::Received { ballot: ballot(1, OTHER), slot: 1 })]);
    assert!(matches!(voter.persisted.last(), Some(Change::Accept(1, accepted)) if accepted.batch == batch(OTHER, 1)));
    assert_eq!(voter.state(), State::UpdatedByRemote);
}

#[test]
fn commit_received_fixes_the_slot() {
    let mut voter = Voter::participating(State::UpdatedByRemote);
    let (of, ballot) = (batch(OTHER, 1), ballot(1, OTHER));
    let did = voter.hears(OTHER, Step::Commit { ballot, slot: 1, hash: of.hash() });
    assert!(is_decided(&did, &of) && did.contains(&Effect::Answer(CALL, Vote::Taken)));
    assert_eq!((voter.state(), voter.machine.decided()), (State::Connected, 1));
}

#[test]
fn rollback_received_keeps_what_was_accepted_until_the_slot_is_decided() {
    let mut voter = Voter::participating(State::UpdatedByRemote);
    voter.hears(OTHER, Step::Rollback { ballot: ballot(1, OTHER) });
    assert_eq!(voter.state(), State::Connected);
    let did = voter.hears(THIRD, Step::Start { ballot: ballot(2, THIRD), slot: 1 });
    let Some(Effect::Answer(CALL, Vote::Confirm { accepted, .. })) = did.last() else { panic!("{did:?}") };
    assert_eq!(accepted[&1].batch, batch(OTHER, 1));
}

#[test]
fn a_message_that_arrives_is_kept_for_the_update() {
    let mut voter = Voter::new();
    voter.is_given(message(ME, Channel::Ordered, 1, &[]));
    assert_eq!((voter.state(), voter.machine.waiting().count()), (State::IncomingMessageReceived, 1));
}

#[test]
fn start_sent_awaits_confirmations() {
    let mut voter = Voter::coordinating(State::IncomingMessageReceived);
    let did = voter.waits();
    let start = Step::Start { ballot: ballot(1, ME), slot: 1 };
    assert_eq!(did, to_both(&start));
    assert_eq!(voter.persisted, [Change::Promise(ballot(1, ME))], "it confirms for itself, durably");
    assert_eq!(voter.state(), State::StartedTransaction);
    assert!(voter.now.0 >= u64::try_from(SILENCE.as_micros()).expect("short"), "not before a silence");
}

#[test]
fn with_a_majority_of_confirmations_the_update_goes_out() {
    let mut voter = Voter::coordinating(State::StartedTransaction);
    let did = voter.is_answered(OTHER, confirm(ballot(1, ME)));
    let update = Step::Update { ballot: ballot(1, ME), slot: 1, batch: batch(ME, 1), commit: None };
    assert_eq!(did, to_both(&update));
    assert_eq!(voter.state(), State::UpdatingRemote);
}

#[test]
fn without_a_majority_in_time_it_rolls_back_and_tries_again_after_a_pause_that_grows() {
    let mut voter = Voter::coordinating(State::UpdatingRemote);
    let mut pauses = Vec::new();
    for round in 1..=6 {
        let did = voter.waits();
        let rollback = to_both(&Step::Rollback { ballot: ballot(round, ME) });
        assert!(did.starts_with(&rollback), "{did:?}");
        assert_eq!((voter.state(), voter.machine.waiting().count()), (State::Connected, 1), "the message stays");
        let since = voter.now;
        voter.waits();
        pauses.push(voter.now.since(since));
        assert_eq!(voter.state(), State::StartedTransaction, "and is tried again");
    }
    assert!(pauses[0] >= 2 * SILENCE && pauses[4] >= LONGEST_SILENCE && pauses[5] < 2 * LONGEST_SILENCE, "{pauses:?}");
}

#[test]
fn with_a_majority_of_acknowledgements_it_commits() {
    let mut voter = Voter::coordinating(State::UpdatingRemote);
    let did = voter.is_answered(OTHER, Vote::Received { ballot: ballot(1, ME), slot: 1 });
    let of = batch(ME, 1);
    assert!(is_decided(&did, &of), "{did:?}");
    assert_eq!(voter.state(), State::Connected);
    // Nobody else waits for it, and nothing comes that it could go along with.
    let since = voter.now;
    let told = voter.waits();
    assert_eq!(told, to_both(&Step::Commit { ballot: ballot(1, ME), slot: 1, hash: of.hash() }));
    assert_eq!((voter.now.since(since), voter.machine.deadline()), (UNTOLD, None));
}

#[test]
fn whose_message_is_decided_is_told_at_once_and_the_others_with_the_next_batch() {
    let mut voter = Voter::coordinating(State::UpdatingRemote);
    voter.is_given(message(THIRD, Channel::Ordered, 1, &[]));
    voter.is_answered(OTHER, Vote::Received { ballot: ballot(1, ME), slot: 1 });
    let did = voter.is_answered(OTHER, Vote::Received { ballot: ballot(1, ME), slot: 2 });
    let decision = Decision { slot: 2, hash: batch(THIRD, 1).hash() };
    let commits: Vec<&Effect> = did.iter().filter(|effect| matches!(effect, Effect::Ask(_, Step::Commit { .. }))).collect();
    let commit = Effect::Ask(node(THIRD), Step::Commit { ballot: ballot(1, ME), slot: 2, hash: decision.hash });
    assert_eq!(commits, [&commit], "{did:?}");
    let did = voter.is_given(message(ME, Channel::Ordered, 2, &[]));
    let update = Step::Update { ballot: ballot(1, ME), slot: 3, batch: batch(ME, 2), commit: Some(decision) };
    assert!(to_both(&update).iter().all(|update| did.contains(update)), "{did:?}");
}

/// A coordinator that is handed a message by that voter, among so many.
fn handed_over(voters: u8, by: u8) -> (Voter, Vec<Effect>) {
    let mut voter = Voter::new();
    voter.machine = Ordered::new(node(ME), Epoch { number: 1, voters: (1..=voters).map(node).collect() }, Durable::default(), Instant(0));
    voter.is_given(message(ME, Channel::Ordered, 1, &[]));
    voter.waits();
    for other in [OTHER, THIRD] {
        voter.is_answered(other, confirm(ballot(1, ME)));
    }
    for other in [OTHER, THIRD] {
        voter.is_answered(other, Vote::Received { ballot: ballot(1, ME), slot: 1 });
    }
    voter.waits();
    let did = voter.is_handed(by, 1);
    (voter, did)
}

#[test]
fn who_hands_over_what_is_proposed_at_once_is_answered_with_the_coordinators_vote_and_asked_first() {
    for (by, other) in [(OTHER, THIRD), (THIRD, OTHER)] {
        let (_, did) = handed_over(3, by);
        let update = Step::Update { ballot: ballot(1, ME), slot: 2, batch: batch(by, 1), commit: None };
        let asked = [by, other].map(|voter| Effect::Ask(node(voter), update.clone()));
        let vote = Effect::Answer(CALL, Vote::Received { ballot: ballot(1, ME), slot: 2 });
        assert_eq!(did, [asked.as_slice(), &[vote]].concat());
    }
}

#[test]
fn what_is_handed_over_while_another_batch_is_proposed_is_answered_without_a_vote() {
    let (mut voter, _) = handed_over(3, THIRD);
    assert_eq!(voter.is_handed(OTHER, 1), []);
    assert_eq!(voter.is_handed(THIRD, 1), [], "nor is what stands in that batch");
}

#[test]
fn a_voter_that_was_given_the_coordinators_vote_is_told_no_commit_if_two_are_a_majority() {
    for (voters, told) in [(3, false), (5, true)] {
        let (mut voter, _) = handed_over(voters, THIRD);
        let mut did = Vec::new();
        for other in (2..=voters).take(usize::from(voters / 2)) {
            did = voter.is_answered(other, Vote::Received { ballot: ballot(1, ME), slot: 2 });
        }
        assert!(did.contains(&Effect::Decided(2, batch(THIRD, 1))), "{did:?}");
        let commit = Effect::Ask(node(THIRD), Step::Commit { ballot: ballot(1, ME), slot: 2, hash: batch(THIRD, 1).hash() });
        assert_eq!(did.contains(&commit), told, "{did:?}");
        // The answer may have been lost.
        assert!(told || voter.waits().contains(&commit));
    }
}

#[test]
fn a_voter_decides_by_the_coordinators_vote_and_its_own_if_two_are_a_majority() {
    for (voters, batch_of, decides) in [(3, ballot(1, OTHER), true), (5, ballot(1, OTHER), false), (3, ballot(2, OTHER), false)] {
        let mut voter = Voter::new();
        voter.machine =
            Ordered::new(node(ME), Epoch { number: 1, voters: (1..=voters).map(node).collect() }, Durable::default(), Instant(0));
        let update = Step::Update { ballot: batch_of, slot: 1, batch: batch(ME, 1), commit: None };
        let vote = |voter: &mut Voter| voter.with(|machine, now, _, out| machine.on_acceptance(now, node(OTHER), ballot(1, OTHER), 1, out));
        assert_eq!(vote(&mut voter), [], "it has no batch");
        let did = voter.hears(OTHER, update.clone());
        assert_eq!(is_decided(&did, &batch(ME, 1)), decides, "{voters} {did:?}");
        // The other way round.
        let mut voter = Voter::new();
        voter.machine =
            Ordered::new(node(ME), Epoch { number: 1, voters: (1..=voters).map(node).collect() }, Durable::default(), Instant(0));
        assert!(!is_decided(&voter.hears(OTHER, update), &batch(ME, 1)));
        assert_eq!(is_decided(&vote(&mut voter), &batch(ME, 1)), decides);
    }
}

#[test]
fn a_batch_counts_as_held_here_when_the_disk_has_it() {
    let mut voter = Voter::new();
    let mut out = Vec::new();
    let update = Step::Update { ballot: ballot(1, OTHER), slot: 1, batch: batch(ME, 1), commit: None };
    voter.machine.on_step(voter.now, node(OTHER), CALL, update, &mut out);
    voter.machine.on_acceptance(voter.now, node(OTHER), ballot(1, OTHER), 1, &mut out);
    assert_eq!(voter.machine.decided(), 0);
    voter.machine.on_persisted(voter.now, &ready, &mut out);
    assert_eq!(voter.machine.decided(), 1);
}

#[test]
fn a_coordinator_that_gives_up_tells_first_what_is_decided() {
    let mut voter = Voter::coordinating(State::UpdatingRemote);
    voter.is_answered(OTHER, Vote::Received { ballot: ballot(1, ME), slot: 1 });
    let did = voter.hears(THIRD, Step::Start { ballot: ballot(2, THIRD), slot: 1 });
    let commit = to_both(&Step::Commit { ballot: ballot(1, ME), slot: 1, hash: batch(ME, 1).hash() });
    assert!(did.starts_with(&commit), "{did:?}");
}

#[test]
fn the_commit_goes_along_with_the_next_batch_where_there_is_one() {
    let mut voter = Voter::coordinating(State::UpdatingRemote);
    voter.is_given(message(ME, Channel::Ordered, 2, &[]));
    let did = voter.is_answered(OTHER, Vote::Received { ballot: ballot(1, ME), slot: 1 });
    let commit = Some(Decision { slot: 1, hash: batch(ME, 1).hash() });
    let update = to_both(&Step::Update { ballot: ballot(1, ME), slot: 2, batch: batch(ME, 2), commit });
    assert!(is_decided(&did, &batch(ME, 1)) && update.iter().all(|update| did.contains(update)), "{did:?}");
    assert!(!did.iter().any(|effect| matches!(effect, Effect::Ask(_, Step::Commit { .. }))), "{did:?}");
    assert_eq!(voter.state(), State::UpdatingRemote);
    // Nothing waits behind it.
    voter.is_answered(OTHER, Vote::Received { ballot: ballot(1, ME), slot: 2 });
    let did = voter.waits();
    let commit = to_both(&Step::Commit { ballot: ballot(1, ME), slot: 2, hash: batch(ME, 2).hash() });
    assert!(commit.iter().all(|commit| did.contains(commit)), "{did:?}");
}

#[test]
fn a_batch_that_brings_a_commit_decides_the_slot_before_if_that_is_the_one_held() {
    for (held, decides) in [(1, true), (9, false)] {
        let mut voter = Voter::participating(State::UpdatedByRemote);
        let commit = Some(Decision { slot: 1, hash: batch(OTHER, held).hash() });
        let did = voter.hears(OTHER, Step::Update { ballot: ballot(1, OTHER), slot: 2, batch: batch(OTHER, 2), commit });
        assert_eq!(is_decided(&did, &batch(OTHER, 1)), decides, "{did:?}");
        assert_eq!(did.contains(&Effect::Behind(node(OTHER), 1)), !decides, "{did:?}");
        assert!(did.contains(&Effect::Answer(CALL, Vote::Received { ballot: ballot(1, OTHER), slot: 2 })), "{did:?}");
        assert_eq!(voter.state(), State::UpdatedByRemote);
    }
}

#[test]
fn a_coordinator_gives_way_to_a_greater_ballot_and_hands_its_messages_over() {
    for state in COORDINATING {
        let mut voter = Voter::coordinating(state);
        let did = voter.hears(OTHER, Step::Start { ballot: ballot(9, OTHER), slot: 1 });
        let rolled_back = did.contains(&Effect::Ask(node(THIRD), Step::Rollback { ballot: ballot(1, ME) }));
        assert_eq!(rolled_back, state != State::IncomingMessageReceived, "{state:?}");
        assert!(
            matches!(did.last(), Some(Effect::Answer(CALL, Vote::Confirm { ballot: confirmed, .. })) if *confirmed == ballot(9, OTHER))
        );
        assert_eq!(voter.machine.transaction().participant, State::InTransaction, "{state:?}");
        let did = voter.with(|machine, now, rng, out| machine.on_deadline(now, rng, out));
        assert_eq!(did, [Effect::HandOver(node(OTHER), vec![message(ME, Channel::Ordered, 1, &[])])], "{state:?}");
    }
}

#[test]
fn a_participant_follows_a_greater_ballot_and_reports_what_it_accepted() {
    for state in [State::InTransaction, State::UpdatedByRemote] {
        let mut voter = Voter::participating(state);
        let did = voter.hears(THIRD, Step::Start { ballot: ballot(2, THIRD), slot: 1 });
        let Some(Effect::Answer(CALL, Vote::Confirm { accepted, .. })) = did.last() else { panic!("{did:?}") };
        assert_eq!(accepted.contains_key(&1), state == State::UpdatedByRemote);
        assert_eq!(voter.state(), State::InTransaction);
    }
}

#[test]
fn an_older_ballot_is_refused_in_every_state_and_changes_nothing() {
    let coordinating = COORDINATING.into_iter().skip(1).map(Voter::coordinating);
    let participating = PARTICIPATING.into_iter().skip(1).map(Voter::participating);
    for mut voter in coordinating.chain(participating) {
        let (state, persisted) = (voter.state(), voter.persisted.len());
        let promised = if COORDINATING.contains(&state) { ballot(1, ME) } else { ballot(1, OTHER) };
        let older = ballot(0, THIRD);
        for step in [Step::Start { ballot: older, slot: 1 }, Step::Update { ballot: older, slot: 1, batch: batch(THIRD, 1), commit: None }]
        {
            let did = voter.hears(THIRD, step);
            assert_eq!(did, [Effect::Answer(CALL, Vote::Refused { promised })], "{state:?}");
        }
        assert_eq!((voter.state(), voter.persisted.len()), (state, persisted));
    }
}

#[test]
fn an_update_of_the_ballot_followed_needs_no_start() {
    let mut voter = Voter::participating(State::UpdatedByRemote);
    voter.hears(OTHER, Step::Commit { ballot: ballot(1, OTHER), slot: 1, hash: batch(OTHER, 1).hash() });
    assert_eq!(voter.state(), State::Connected);
    let did = voter.hears(OTHER, Step::Update { ballot: ballot(1, OTHER), slot: 2, batch: batch(OTHER, 2), commit: None });
    assert_eq!(did, [Effect::Answer(CALL, Vote::Received { ballot: ballot(1, OTHER), slot: 2 })]);
    assert_eq!(voter.state(), State::UpdatedByRemote);
}

#[test]
fn a_commit_of_what_is_not_held_is_asked_for_in_every_state() {
    for state in PARTICIPATING {
        let mut voter = Voter::participating(state);
        let did = voter.hears(OTHER, Step::Commit { ballot: ballot(1, OTHER), slot: 1, hash: batch(OTHER, 9).hash() });
        assert!(did.contains(&Effect::Behind(node(OTHER), 1)) && voter.machine.decided() == 0, "{state:?}");
        voter.with(|machine, now, _, out| machine.on_decided(now, 1, batch(OTHER, 9), out));
        assert_eq!((voter.state(), voter.machine.decided()), (State::Connected, 1), "{state:?}");
    }
}

#[test]
fn a_commit_of_another_ends_what_this_node_proposed_or_was_about_to() {
    for state in [State::IncomingMessageReceived, State::UpdatingRemote] {
        let mut voter = Voter::coordinating(state);
        voter.with(|machine, now, _, out| machine.on_decided(now, 1, batch(OTHER, 1), out));
        assert_eq!((voter.state(), voter.machine.waiting().count()), (State::Connected, 1), "{state:?}");
    }
}

#[test]
fn a_start_without_a_majority_is_rolled_back() {
    let mut voter = Voter::coordinating(State::StartedTransaction);
    let did = voter.waits();
    assert!(did.contains(&Effect::Ask(node(OTHER), Step::Rollback { ballot: ballot(1, ME) })));
    assert_eq!(voter.state(), State::Connected);
}

#[test]
fn a_refusal_is_a_rollback_and_the_next_ballot_is_greater() {
    for state in [State::StartedTransaction, State::UpdatingRemote] {
        let mut voter = Voter::coordinating(state);
        voter.is_answered(OTHER, Vote::Refused { promised: ballot(5, THIRD) });
        assert_eq!(voter.state(), State::Connected);
        let did = voter.waits();
        assert!(did.contains(&Effect::Ask(node(OTHER), Step::Start { ballot: ballot(6, ME), slot: 1 })), "{did:?}");
    }
}

#[test]
fn a_participant_whose_coordinator_is_silent_is_connected_again_and_still_bound() {
    for state in [State::InTransaction, State::UpdatedByRemote] {
        let mut voter = Voter::participating(state);
        voter.waits();
        assert_eq!((voter.state(), voter.now.since(Instant(0))), (State::Connected, PARTICIPATION));
        assert_eq!(voter.machine.deadline().is_some(), state == State::UpdatedByRemote, "what it has accepted it will see through");
        assert_eq!(voter.machine.transaction().signals[&Signal::Timeout], 1);
        let did = voter.hears(THIRD, Step::Start { ballot: ballot(0, THIRD), slot: 1 });
        assert_eq!(did, [Effect::Answer(CALL, Vote::Refused { promised: ballot(1, OTHER) })], "a promise does not time out");
    }
}

#[test]
fn a_confirmed_ballot_without_anything_to_propose_waits_for_nothing() {
    let mut voter = Voter::coordinating(State::StartedTransaction);
    voter.with(|machine, now, _, out| machine.on_decided(now, 1, batch(ME, 1), out));
    voter.is_answered(OTHER, confirm(ballot(1, ME)));
    assert_eq!((voter.state(), voter.machine.deadline()), (State::Connected, None));
    assert!(voter.machine.is_coordinator(), "and is ready for the next message");
}

#[test]
fn an_own_message_is_taken_however_many_of_others_wait() {
    let mut voter = Voter::new();
    for sequence in 1..=crate::history::ordered::MAX_WAITING as u64 {
        assert!(voter.machine.on_message(message(THIRD, Channel::Ordered, sequence, &[]), Instant(0)));
    }
    assert!(!voter.machine.on_message(message(OTHER, Channel::Ordered, 1, &[]), Instant(0)), "another's is left to who hands it over");
    assert!(voter.machine.on_message(message(ME, Channel::Ordered, 1, &[]), Instant(0)));
    voter.machine.check();
}

#[test]
fn what_stands_in_a_batch_too_early_waits_on() {
    let early = message(OTHER, Channel::Ordered, 2, &[]);
    let mut voter = Voter::new();
    assert!(voter.machine.on_message(early.clone(), Instant(0)));
    voter.machine.on_decided(Instant(0), 1, batch(OTHER, 2), &mut vec![]);
    assert!(!voter.machine.is_ordered(early.id) && voter.machine.known(early.id).is_some(), "its place is behind the first");
    voter.machine.on_decided(Instant(0), 2, batch(OTHER, 1), &mut vec![]);
    voter.machine.on_decided(Instant(0), 3, batch(OTHER, 2), &mut vec![]);
    assert!(voter.machine.is_ordered(early.id) && voter.machine.known(early.id).is_none());
}
