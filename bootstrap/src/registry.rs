//! Who is in the network, as a plain value: no disk, no clock, no lock.
//!
//! 1. A member's claim is its own word (alive or left). The registry's own judgement, dead, is shown to people but never told to nodes:
//!    who cannot reach the bootstrap may be reached by everybody else, and a false death would spread.
//! 2. A claim is replaced by one of a higher incarnation, or of the same one that has left. An older claim, one that comes after its member
//!    left, and one of the same incarnation from another address changes nothing; its sender is told the claim that is held about it. Two
//!    processes of one key, which a copied data folder makes, find out that way.
//! 3. The registry never holds more than [`MAX_MEMBERS`]. At the bound the longest unheard member that is not alive makes room; if all are
//!    alive a newcomer is introduced and not remembered.
//! 4. What must go to disk is named in `unsaved`, and nothing else is: new claims, deaths, departures, but no renewals.
//! 5. One member is named to found the message history, once: the first that may, while nobody who registered belongs to one. Who reports a
//!    history before anybody is named takes that place, so that nobody is named after it.
//! 6. Time is the monotonic clock of this process. After a restart each member has the full time again, whatever the clock on the wall did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gossip_cdn_protocol::summary::Root;
use gossip_cdn_protocol::wire::{Join, Program};
use gossip_cdn_protocol::{Instant, Member, MemberState, NodeId, Now, WallTime};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A member is shown as dead when it has not renewed for this long: three renewals of 5 s.
pub const SILENCE: Duration = Duration::from_secs(15);
/// A member is forgotten when it has not renewed for this long.
pub const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// An exchange is shown for this long.
pub const EXCHANGE_SHOWN: Duration = Duration::from_secs(60);
/// Most members remembered.
pub const MAX_MEMBERS: usize = 10_000;
/// Most exchanges remembered of one member: those of about half a minute.
pub const MAX_EXCHANGES: usize = 64;
/// Most members told to a newcomer.
pub const INTRODUCED: usize = 256;
/// Members told at a renewal. A few random ones are enough for two halves of a network to find each other, and 10,000 members that renew
/// every 5 s cost 5 MB/s instead of 150.
pub const INTRODUCED_AGAIN: usize = 8;

/// What is kept on disk of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its own word.
    pub claim: Member,
    /// Whether it was silent for too long.
    pub dead: bool,
    /// When it was last heard, as far as that was worth a write: milliseconds since 1970.
    pub last_seen: u64,
}

/// What must go to disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsaved {
    /// A member's row, or none where it is to be removed.
    pub members: Vec<(NodeId, Option<Saved>)>,
    /// Who is named to found the message history, if that is new.
    pub founder: Option<NodeId>,
}

impl Unsaved {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.founder.is_none()
    }
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing was known of this member.
    New,
    /// It replaces an older claim, or the member was dead.
    Changed,
    /// The same as before.
    Renewed,
    /// Older than what is held.
    Stale,
    /// There was no room for it.
    Unremembered,
}

/// What a member says of itself beside its claim; not kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The version of its program, and its live blobs.
    pub program: Option<Program>,
    /// Its records, tombstones included.
    pub records: u64,
    /// Bytes of the payloads it holds.
    pub payload_bytes: u64,
    /// Root of its record set.
    pub root: Root,
    /// Payloads on their way to it.
    pub wanted: u64,
    /// Messages delivered at it.
    pub messages: u64,
    /// The message history that it belongs to.
    pub history: Option<Uuid>,
}

/// A member as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its claim, with our judgement for a state.
    pub member: Member,
    /// What it said last; nothing since the start of this process if `None`.
    pub report: Option<Report>,
    /// When it was last heard.
    pub last_seen: WallTime,
    /// With whom it exchanged lately, and when it said so.
    pub exchanges: Vec<(NodeId, WallTime)>,
}

#[derive(Debug)]
struct Entry {
    claim: Member,
    dead: bool,
    heard: Instant,
    last_seen: WallTime,
    report: Option<Report>,
    exchanges: BTreeMap<NodeId, Now>,
}

impl Entry {
    fn state(&self, now: Instant) -> MemberState {
        match self.claim.state {
            MemberState::Left => MemberState::Left,
            MemberState::Alive | MemberState::Suspect | MemberState::Dead | MemberState::Forgotten => {
                let silent = self.dead || now.since(self.heard) >= SILENCE;
                if silent { MemberState::Dead } else { MemberState::Alive }
            }
        }
    }
}

/// The members of a network.
#[derive(Debug)]
pub struct Registry {
    members: BTreeMap<NodeId, Entry>,
    /// Who was named, or had a history first.
    founder: Option<NodeId>,
    unsaved: BTreeSet<NodeId>,
    founder_unsaved: bool,
    /// Whether what was taken to be saved is still on its way.
    saving: bool,
    random: ChaCha8Rng,
}

impl Registry {
    /// Goes on with what was on disk.
    pub fn new(now: Now, saved: Vec<Saved>, founder: Option<NodeId>, seed: [u8; 32]) -> Self {
        let entry = |saved: Saved| Entry {
            claim: saved.claim,
            dead: saved.dead,
            heard: now.instant,
            last_seen: WallTime(saved.last_seen),
            report: None,
            exchanges: BTreeMap::new(),
        };
        let members = saved.into_iter().map(|saved| (saved.claim.id, entry(saved))).collect();
        let random = ChaCha8Rng::from_seed(seed);
        Self { members, founder, unsaved: BTreeSet::new(), founder_unsaved: false, saving: false, random }
    }

    /// Takes a member's word. The claim has been validated.
    pub fn join(&mut self, now: Now, join: Join) -> Taken {
        let id = join.member.id;
        let taken = match self.members.get(&id) {
            None => Taken::New,
            Some(held) if is_stale(&join.member, &held.claim) => return Taken::Stale,
            Some(held) if join.member != held.claim || held.dead => Taken::Changed,
            Some(_) => Taken::Renewed,
        };
        if taken == Taken::New && !self.make_room(now.instant) {
            return Taken::Unremembered;
        }
        let mut exchanges = self.members.remove(&id).map(|held| held.exchanges).unwrap_or_default();
        let Join { member, records, payload_bytes, root, wanted, messages, program, exchanged, history, may_found: _ } = join;
        remember_exchanges(&mut exchanges, now, exchanged);
        let report = Report { program, records, payload_bytes, root, wanted, messages, history };
        let entry = Entry { claim: member, dead: false, heard: now.instant, last_seen: now.wall, report: Some(report), exchanges };
        self.members.insert(id, entry);
        if taken != Taken::Renewed {
            self.unsaved.insert(id);
        }
        taken
    }

    /// Whether who asks is to found the message history.
    pub fn names(&mut self, join: &Join, taken: Taken) -> bool {
        let remembered = !matches!(taken, Taken::Stale | Taken::Unremembered);
        if self.founder.is_none() && remembered && (join.history.is_some() || join.may_found) {
            self.founder = Some(join.member.id);
            self.founder_unsaved = true;
        }
        // An answer may have been lost: who was named hears it until it belongs to a history.
        self.founder == Some(join.member.id) && join.history.is_none()
    }

    /// Whom to tell `asking` about: live members first, at random beyond the bound, and the newer claim about itself if there is one.
    pub fn introduce(&mut self, now: Instant, asking: &Member, taken: Taken) -> Vec<Member> {
        let bound = match taken {
            Taken::New | Taken::Changed | Taken::Stale | Taken::Unremembered => INTRODUCED,
            Taken::Renewed => INTRODUCED_AGAIN,
        };
        let itself = self.members.get(&asking.id).filter(|held| held.claim != *asking).map(|held| held.claim.clone());
        let mut introduced: Vec<Member> = itself.into_iter().collect();
        for live in [true, false] {
            let others = self.members.values().filter(|held| held.claim.id != asking.id && held.state(now).is_live() == live);
            let room = bound.saturating_sub(introduced.len());
            introduced.extend(others.sample(&mut self.random, room).into_iter().map(|held| held.claim.clone()));
        }
        introduced
    }

    /// Lets time pass: silent members die, dead and departed ones are forgotten. Gives those that died.
    pub fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        let mut died = Vec::new();
        let forgotten = self.members.extract_if(.., |_, held| now.since(held.heard) >= MEMORY).map(|(id, _)| id);
        self.unsaved.extend(forgotten);
        for (id, held) in &mut self.members {
            held.exchanges.retain(|_, said| now.since(said.instant) < EXCHANGE_SHOWN);
            if held.state(now) == MemberState::Dead && !held.dead {
                held.dead = true;
                self.unsaved.insert(*id);
                died.push(*id);
            }
        }
        died
    }

    /// Whether all changes so far are durable.
    pub fn is_saved(&self) -> bool {
        self.unsaved.is_empty() && !self.founder_unsaved && !self.saving
    }

    /// Takes what must go to disk. [`Registry::on_saved`] tells how it went.
    pub fn take_unsaved(&mut self) -> Unsaved {
        let saved = |held: &Entry| Saved { claim: held.claim.clone(), dead: held.dead, last_seen: held.last_seen.0 };
        let members = std::mem::take(&mut self.unsaved).into_iter().map(|id| (id, self.members.get(&id).map(saved))).collect();
        let founder = self.founder.filter(|_| std::mem::take(&mut self.founder_unsaved));
        let unsaved = Unsaved { members, founder };
        self.saving = !unsaved.is_empty();
        unsaved
    }

    /// What was taken is durable, but for `failed`.
    pub fn on_saved(&mut self, failed: Unsaved) {
        self.saving = false;
        self.unsaved.extend(failed.members.into_iter().map(|(id, _)| id));
        self.founder_unsaved |= failed.founder.is_some();
    }

    /// All members, in the order of their ids.
    pub fn shown(&self, now: Instant) -> Vec<Shown> {
        let fresh = |said: &Now| now.since(said.instant) < EXCHANGE_SHOWN;
        let shown = |held: &Entry| Shown {
            member: Member { state: held.state(now), ..held.claim.clone() },
            report: held.report.clone(),
            last_seen: held.last_seen,
            exchanges: held.exchanges.iter().filter(|(_, said)| fresh(said)).map(|(id, said)| (*id, said.wall)).collect(),
        };
        self.members.values().map(shown).collect()
    }

    /// How many members are alive, dead, and departed.
    pub fn counts(&self, now: Instant) -> [(MemberState, u64); 3] {
        let count = |state| (state, self.members.values().map(|held| u64::from(held.state(now) == state)).sum());
        [count(MemberState::Alive), count(MemberState::Dead), count(MemberState::Left)]
    }

    /// Makes room for one more; false if all are alive.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.members.len() < MAX_MEMBERS {
            return true;
        }
        let gone = self.members.values().filter(|held| !held.state(now).is_live());
        let Some(longest) = gone.min_by_key(|held| held.heard).map(|held| held.claim.id) else { return false };
        self.members.remove(&longest);
        self.unsaved.insert(longest);
        true
    }
}

/// Whether `claim` says nothing that `held` does not override. A node has one address in each of its lives.
fn is_stale(claim: &Member, held: &Member) -> bool {
    let elsewhere = claim.incarnation == held.incarnation && claim.address != held.address;
    elsewhere || (claim.incarnation, claim.state) < (held.incarnation, held.state)
}

fn remember_exchanges(exchanges: &mut BTreeMap<NodeId, Now>, now: Now, exchanged: BTreeSet<NodeId>) {
    exchanges.extend(exchanged.into_iter().map(|peer| (peer, now)));
    while exchanges.len() > MAX_EXCHANGES {
        let Some(oldest) = exchanges.iter().min_by_key(|(_, said)| said.instant).map(|(peer, _)| *peer) else { return };
        exchanges.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::PublicKey;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { instant: Instant(seconds * 1_000_000), wall: WallTime(1_700_000_000_000 + seconds * 1000) }
    }

    fn member(number: u64) -> Member {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Member {
            id: NodeId::from_public_key(&key),
            address: format!("http://127.0.0.1:{}", 1 + number % 60_000),
            incarnation: 1,
            state: MemberState::Alive,
            key: PublicKey(key),
        }
    }

    fn claim(member: &Member) -> Join {
        let (root, exchanged) = (Root::default(), BTreeSet::new());
        let (member, program) = (member.clone(), None);
        Join { member, records: 1, payload_bytes: 2, root, wanted: 0, messages: 0, program, exchanged, history: None, may_found: false }
    }

    fn registry() -> Registry {
        Registry::new(at(0), Vec::new(), None, [7; 32])
    }

    fn state(registry: &Registry, id: NodeId, now: u64) -> Option<MemberState> {
        registry.shown(at(now).instant).into_iter().find(|shown| shown.member.id == id).map(|shown| shown.member.state)
    }

    fn saved(registry: &mut Registry) -> Vec<(NodeId, Option<Saved>)> {
        let unsaved = registry.take_unsaved();
        registry.on_saved(Unsaved::default());
        unsaved.members
    }

    #[test]
    fn who_is_silent_is_dead_and_then_forgotten() {
        let (mut registry, node) = (registry(), member(1));
        registry.join(at(0), claim(&node));
        assert_eq!(state(&registry, node.id, 14), Some(MemberState::Alive));
        assert_eq!(state(&registry, node.id, 15), Some(MemberState::Dead));
        assert_eq!(registry.expire(at(15).instant), [node.id], "its death is told");
        assert_eq!(registry.expire(at(16).instant), [], "once");
        registry.expire(at(24 * 3600 - 1).instant);
        assert_eq!(state(&registry, node.id, 24 * 3600 - 1), Some(MemberState::Dead));
        registry.expire(at(24 * 3600).instant);
        assert_eq!(state(&registry, node.id, 24 * 3600), None);
    }

    #[test]
    fn the_first_that_may_is_named_founder_until_it_has_a_history_and_nobody_after_it() {
        let mut registry = registry();
        let mut asks = |number, history, may_found| {
            let join = Join { history, may_found, ..claim(&member(number)) };
            let taken = registry.join(at(0), join.clone());
            registry.names(&join, taken)
        };
        assert!(!asks(1, None, false), "it knows others, or has another bootstrap node before this one");
        assert!(asks(2, None, true));
        assert!(!asks(3, None, true), "one is enough");
        assert!(asks(2, None, false), "the answer may not have come");
        assert!(!asks(2, Some(Uuid::from_u128(1)), false));
        let unsaved = registry.take_unsaved();
        assert_eq!(unsaved.founder, Some(member(2).id));
        registry.on_saved(unsaved);
        assert_eq!(registry.take_unsaved().founder, Some(member(2).id), "what could not be written is written later");
        registry.on_saved(Unsaved::default());
        assert!(registry.is_saved());
        let mut again = Registry::new(at(0), Vec::new(), Some(member(2).id), [7; 32]);
        let join = Join { may_found: true, ..claim(&member(4)) };
        let taken = again.join(at(0), join.clone());
        assert!(!again.names(&join, taken), "a name outlasts the process");
    }

    #[test]
    fn where_somebody_has_a_history_nobody_is_named() {
        let mut registry = registry();
        let mut asks = |number, history| {
            let join = Join { history, may_found: history.is_none(), ..claim(&member(number)) };
            let taken = registry.join(at(0), join.clone());
            registry.names(&join, taken)
        };
        assert!(!asks(1, Some(Uuid::from_u128(1))));
        assert!(!asks(2, None));
    }

    #[test]
    fn a_renewal_keeps_alive_and_costs_no_write() {
        let (mut registry, node) = (registry(), member(1));
        assert_eq!(registry.join(at(0), claim(&node)), Taken::New);
        assert_eq!(saved(&mut registry).len(), 1);
        for seconds in (5..100).step_by(5) {
            assert_eq!(registry.join(at(seconds), claim(&node)), Taken::Renewed);
            registry.expire(at(seconds).instant);
        }
        assert!(registry.is_saved());
        assert_eq!(state(&registry, node.id, 100), Some(MemberState::Alive));
    }

    #[test]
    fn a_death_a_return_and_an_oblivion_are_written_once_each() {
        let (mut registry, node) = (registry(), member(1));
        registry.join(at(0), claim(&node));
        saved(&mut registry);
        registry.expire(at(20).instant);
        registry.expire(at(21).instant);
        let death = saved(&mut registry);
        assert!(matches!(&death[..], [(id, Some(Saved { dead: true, .. }))] if *id == node.id), "{death:?}");
        assert_eq!(registry.join(at(22), claim(&node)), Taken::Changed);
        assert!(matches!(&saved(&mut registry)[..], [(_, Some(Saved { dead: false, .. }))]));
        registry.expire(at(22 + 24 * 3600).instant);
        assert!(matches!(&saved(&mut registry)[..], [(_, None)]));
        assert!(registry.is_saved());
    }

    #[test]
    fn what_could_not_be_written_is_still_unsaved() {
        let (mut registry, node) = (registry(), member(1));
        registry.join(at(0), claim(&node));
        let unsaved = registry.take_unsaved();
        assert_eq!(unsaved.members.len(), 1);
        assert!(!registry.is_saved(), "it is on its way");
        registry.on_saved(unsaved);
        assert!(!registry.is_saved());
        assert_eq!(saved(&mut registry).len(), 1);
        assert!(registry.is_saved());
    }

    #[test]
    fn a_new_incarnation_replaces_and_an_older_one_does_not() {
        let (mut registry, node) = (registry(), member(1));
        let moved = Member { incarnation: 2, address: "http://10.0.0.1:80".to_owned(), ..node.clone() };
        assert_eq!(registry.join(at(0), claim(&node)), Taken::New);
        assert_eq!(registry.join(at(1), claim(&moved)), Taken::Changed);
        assert_eq!(registry.join(at(2), claim(&node)), Taken::Stale);
        assert_eq!(registry.shown(at(2).instant)[0].member, moved);
        assert_eq!(registry.introduce(at(2).instant, &node, Taken::Stale), [moved], "it learns what is said of it");
    }

    #[test]
    fn of_two_that_claim_one_life_the_second_learns_of_the_first() {
        let (mut registry, node) = (registry(), member(1));
        let copy = Member { address: "http://10.0.0.1:80".to_owned(), ..node.clone() };
        assert_eq!(registry.join(at(0), claim(&node)), Taken::New);
        for state in [MemberState::Alive, MemberState::Left] {
            let copy = Member { state, ..copy.clone() };
            assert_eq!(registry.join(at(1), claim(&copy)), Taken::Stale);
            assert_eq!(registry.introduce(at(1).instant, &copy, Taken::Stale), std::slice::from_ref(&node));
        }
        assert_eq!(registry.join(at(2), claim(&node)), Taken::Renewed);
    }

    #[test]
    fn who_left_stays_so_until_a_new_life() {
        let (mut registry, node) = (registry(), member(1));
        let left = Member { state: MemberState::Left, ..node.clone() };
        registry.join(at(0), claim(&node));
        assert_eq!(registry.join(at(1), claim(&left)), Taken::Changed);
        assert_eq!(registry.join(at(2), claim(&node)), Taken::Stale, "a renewal that was late");
        assert_eq!(state(&registry, node.id, 60), Some(MemberState::Left));
        let again = Member { incarnation: 2, ..node.clone() };
        assert_eq!(registry.join(at(61), claim(&again)), Taken::Changed);
        assert_eq!(state(&registry, node.id, 62), Some(MemberState::Alive));
    }

    #[test]
    fn the_judgement_of_the_bootstrap_is_never_told_to_nodes() {
        let (mut registry, silent, newcomer) = (registry(), member(1), member(2));
        registry.join(at(0), claim(&silent));
        registry.expire(at(60).instant);
        let taken = registry.join(at(60), claim(&newcomer));
        assert_eq!(state(&registry, silent.id, 60), Some(MemberState::Dead));
        assert_eq!(registry.introduce(at(60).instant, &newcomer, taken), [silent]);
    }

    #[test]
    fn a_newcomer_meets_the_living_first_and_a_bounded_number() {
        let mut registry = registry();
        (0..100).for_each(|number| _ = registry.join(at(0), claim(&member(number))));
        (100..400).for_each(|number| _ = registry.join(at(20), claim(&member(number))));
        let newcomer = member(1000);
        let met = registry.introduce(at(21).instant, &newcomer, Taken::New);
        let living: BTreeSet<NodeId> = (100..400).map(|number| member(number).id).collect();
        assert_eq!(met.len(), INTRODUCED);
        assert!(met.iter().all(|member| living.contains(&member.id)));
        assert_ne!(met, registry.introduce(at(21).instant, &newcomer, Taken::New), "a random choice");
        assert_eq!(registry.introduce(at(21).instant, &newcomer, Taken::Renewed).len(), INTRODUCED_AGAIN);
        let met = registry.introduce(at(60).instant, &newcomer, Taken::New);
        assert_eq!(met.len(), INTRODUCED, "the dead are better than nobody");
    }

    #[test]
    fn the_registry_is_bounded_and_the_longest_silent_makes_room() {
        let mut registry = registry();
        let full = u64::try_from(MAX_MEMBERS).unwrap();
        (0..full).for_each(|number| _ = registry.join(at(number / 1000), claim(&member(number))));
        assert_eq!(registry.join(at(10), claim(&member(full))), Taken::Unremembered, "all are alive");
        assert_eq!(
            registry.introduce(at(10).instant, &member(full), Taken::Unremembered).len(),
            INTRODUCED,
            "it is introduced all the same"
        );
        assert_eq!(registry.join(at(20), claim(&member(full))), Taken::New);
        assert_eq!(registry.shown(at(20).instant).len(), MAX_MEMBERS);
        assert!((0..1000).any(|number| state(&registry, member(number).id, 20).is_none()), "one of the longest silent is gone");
    }

    #[test]
    fn exchanges_are_shown_for_a_minute_and_bounded() {
        let (mut registry, node) = (registry(), member(1));
        let peers: BTreeSet<NodeId> = (10..500).map(|number| member(number).id).collect();
        registry.join(at(0), Join { exchanged: peers, ..claim(&node) });
        registry.join(at(10), Join { exchanged: BTreeSet::from([member(2).id]), ..claim(&node) });
        let exchanges = registry.shown(at(11).instant)[0].exchanges.clone();
        assert_eq!(exchanges.len(), MAX_EXCHANGES);
        assert!(exchanges.contains(&(member(2).id, at(10).wall)));
        assert_eq!(registry.shown(at(65).instant)[0].exchanges, [(member(2).id, at(10).wall)]);
        assert!(registry.shown(at(70).instant)[0].exchanges.is_empty());
    }

    #[test]
    fn after_a_restart_everybody_has_the_full_time_again() {
        let (mut registry, node) = (registry(), member(1));
        registry.join(at(0), claim(&node));
        let rows = saved(&mut registry).into_iter().filter_map(|(_, row)| row).collect();
        let later = Now { instant: Instant(0), wall: WallTime(at(1_000_000).wall.0) };
        let mut restarted = Registry::new(later, rows, None, [8; 32]);
        restarted.expire(at(14).instant);
        assert_eq!(state(&restarted, node.id, 14), Some(MemberState::Alive));
        assert_eq!(restarted.join(at(14), claim(&node)), Taken::Renewed);
    }
}
