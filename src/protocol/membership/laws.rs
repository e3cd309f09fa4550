//! Laws of membership, whatever comes in whatever order.

use proptest::prelude::*;

use super::suspicion::{CONFIRMATIONS, LONGEST_SUSPICION};
use super::tests::{SECOND, knowing, member};
use super::*;

const STATES: [MemberState; 5] = [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left, MemberState::Forgotten];

/// A claim about one of the nodes from 1, the one under test, to 6. One life has one address: only its owner gives it.
fn claim() -> impl Strategy<Value = Member> {
    (1..7_u8, 1..4_u64, 0..STATES.len()).prop_map(|(n, incarnation, state)| {
        let claim = member(n, incarnation, STATES[state]);
        Member { address: format!("{}{incarnation}", claim.address), ..claim }
    })
}

#[derive(Debug, Clone)]
enum Step {
    Merge(Vec<Member>),
    Suspect(u8),
    Doubt { of: u8, by: u8, incarnation: u64 },
    Hear { of: u8, incarnation: u64 },
    Late,
    Taken(u8),
    Forget(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(claim(), 1..4).prop_map(Step::Merge),
        (2..7_u8).prop_map(Step::Suspect),
        (1..7_u8, 1..9_u8, 1..4_u64).prop_map(|(of, by, incarnation)| Step::Doubt { of, by, incarnation }),
        (2..7_u8, 1..4_u64).prop_map(|(of, incarnation)| Step::Hear { of, incarnation }),
        Just(Step::Late),
        (2..7_u8).prop_map(Step::Taken),
        (1..7_u8).prop_map(Step::Forget),
        (1..20_u64).prop_map(Step::Pass),
    ]
}

fn id(n: u8) -> NodeId {
    member(n, 1, MemberState::Alive).id
}

/// Does a step; gives who was declared dead by it.
fn take(list: &mut Membership, step: Step, now: &mut Instant) -> Vec<NodeId> {
    match step {
        Step::Merge(claims) => drop(list.merge(claims, *now)),
        Step::Suspect(n) => drop(list.suspect(id(n), *now)),
        Step::Doubt { of, by, incarnation } => drop(list.doubt(Suspicion { id: id(of), incarnation, by: id(by) }, *now)),
        Step::Hear { of, incarnation } => drop(list.on_heard(id(of), incarnation, *now)),
        Step::Late => list.on_late(*now),
        Step::Taken(n) => drop(list.on_address_taken(id(n), *now)),
        Step::Forget(n) => drop(list.forget(id(n), *now)),
        Step::Pass(seconds) => {
            *now = *now + Duration::from_secs(seconds);
            drop(list.due_suspects(*now));
            drop(list.due_dead(*now));
            return list.on_deadline(*now).into_iter().map(|member| member.id).collect();
        }
    }
    vec![]
}

/// What the fingerprint covers of the others.
fn covered(list: &Membership) -> Vec<(NodeId, String, u64, MemberState)> {
    let of = |(member, _): (&Member, _)| {
        let state = if member.state.is_live() { MemberState::Alive } else { member.state };
        (member.id, member.address.clone(), member.incarnation, state)
    };
    list.others().map(of).collect()
}

proptest! {
    #[test]
    fn the_order_of_claims_leaves_no_trace(claims in proptest::collection::vec(claim(), 0..30), cut in 0..30_usize) {
        let others = |claims: Vec<Member>| claims.into_iter().filter(|claim| claim.id != id(1)).collect::<Vec<_>>();
        let claims = others(claims);
        let (mut forwards, mut backwards) = (knowing(vec![], &[]), knowing(vec![], &[]));
        forwards.merge(claims.clone(), Instant(0));
        let (first, second) = claims.split_at(cut.min(claims.len()));
        backwards.merge(second.iter().rev().cloned().collect(), Instant(SECOND));
        backwards.merge(claims.iter().rev().cloned().collect(), Instant(2 * SECOND));
        backwards.merge(first.to_vec(), Instant(3 * SECOND));
        prop_assert_eq!(covered(&forwards), covered(&backwards));
        prop_assert_eq!(forwards.fingerprint(), backwards.fingerprint());
        prop_assert_eq!(backwards.merge(claims, Instant(4 * SECOND)), Merged::default(), "nothing is news twice");
    }

    #[test]
    fn nothing_breaks_what_must_hold_and_no_claim_gives_way_to_a_lesser_one(steps in proptest::collection::vec(step(), 0..60)) {
        let mut list = knowing((2..5).map(|n| member(n, 1, MemberState::Alive)).collect(), &[]);
        let mut now = Instant(0);
        for step in steps {
            let before = covered(&list);
            take(&mut list, step, &mut now);
            list.check();
            let after = covered(&list);
            for (id, _, incarnation, state) in before {
                let held = after.iter().find(|held| held.0 == id).map(|held| (held.2, held.3));
                prop_assert!(held >= Some((incarnation, state)), "nobody is dropped, and nothing is taken back");
            }
            prop_assert_eq!(list.me().incarnation, 1, "only the disk raises it");
        }
    }

    #[test]
    fn nobody_is_declared_dead_within_five_seconds_of_being_suspected(steps in proptest::collection::vec(step(), 0..60)) {
        let mut list = knowing((2..7).map(|n| member(n, 1, MemberState::Alive)).collect(), &[]);
        let (mut now, mut since) = (Instant(0), BTreeMap::new());
        for step in steps {
            for dead in take(&mut list, step, &mut now) {
                let suspected: Instant = since.remove(&dead).expect("it was suspected before");
                prop_assert!(now.since(suspected) >= SHORTEST_SUSPICION);
            }
            let suspects: Vec<NodeId> =
                list.others().filter(|(member, _)| member.state == MemberState::Suspect).map(|(member, _)| member.id).collect();
            since.retain(|id, _| suspects.contains(id));
            suspects.into_iter().for_each(|id| { since.entry(id).or_insert(now); });
        }
    }

    #[test]
    fn a_word_more_never_gives_a_suspect_more_time(live in 0..10_usize, stretch in 1..9_u32, by in proptest::collection::vec(1..9_u8, 0..12)) {
        let mut suspected = Suspected::new(id(1), live, stretch, Instant(0));
        let (mut ends, mut names) = (suspected.ends(), std::collections::BTreeSet::from([1]));
        prop_assert!(ends.since(Instant(0)) <= LONGEST_SUSPICION * stretch);
        for n in by {
            let counts = names.len() <= CONFIRMATIONS && names.insert(n);
            prop_assert_eq!(suspected.confirm(id(n)), counts);
            prop_assert!(suspected.ends() <= ends && suspected.ends().since(Instant(0)) >= SHORTEST_SUSPICION * stretch);
            ends = suspected.ends();
        }
    }

    #[test]
    fn every_probe_ends_whatever_is_said(steps in proptest::collection::vec((0..6_u8, 1..5_u8, 0..3_usize), 0..80)) {
        let (mut probes, mut now) = (probing::Probes::default(), Instant(0));
        for (what, n, helpers) in steps {
            match what {
                0 => drop(probes.begin(id(n), 1, now)),
                1 => {
                    if probes.on_failed(id(n), now) {
                        probes.on_asked(id(n), helpers, 1, now);
                    }
                }
                2 => drop(probes.on_unreached(id(n), helpers > 0)),
                3 => drop(probes.end(id(n))),
                _ => now = now + Duration::from_millis(300),
            }
            while let Some(due) = probes.due(now) {
                if let probing::Due::Ask(id) = due {
                    probes.on_asked(id, helpers, 1, now);
                }
            }
            probes.check();
        }
        now = now + probing::PROBE_TIMEOUT;
        for _ in 0..probing::ROUNDS {
            while let Some(due) = probes.due(now) {
                if let probing::Due::Ask(id) = due {
                    probes.on_asked(id, 3, 1, now);
                }
            }
            now = now + probing::ROUND;
        }
        while let Some(due) = probes.due(now) {
            let missed = matches!(due, probing::Due::Missed { .. });
            prop_assert!(missed);
        }
        prop_assert_eq!(probes.deadline(), None);
    }
}
