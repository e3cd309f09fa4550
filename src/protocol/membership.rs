//! Membership: who is in the network, who answers, and whom to try next.
//!
//! The claims and their order are SWIM's (see [`crate::member`]). In this release a node judges by its own calls alone: no answer
//! makes a member suspect, a suspect is called every second, and [`SUSPICION`] without a sign of life makes it dead. Others' suspicion
//! counts for nothing, their word of a death does. (Indirect probes and shared suspicion are to come; they change who raises a
//! suspicion, not what it means.)
//!
//! 1. Only this node raises its own incarnation, and a raised one leaves only after it is on disk.
//! 2. A claim about another node is replaced only by one that overrides it, or by having heard from a suspect directly.
//! 3. Nobody is forgotten: the dead and those who left are tried for ever, one a second at most, each at a growing pause.
//! 4. The fingerprint covers id, address, incarnation and whether the member is alive, dead or left; suspicion is local and passing.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::ids::NodeId;
use crate::io::Target;
use crate::item::ItemHasher;
use crate::member::{Member, MemberState};
use crate::time::Instant;

/// How long a suspect has to show that it lives. A guess: five missed exchanges.
pub const SUSPICION: Duration = Duration::from_secs(5);
/// How often a suspect is called.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause between two tries of the same dead member, and of a silent bootstrap node.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(45);
/// First pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often a node renews its registration with a bootstrap node that answers.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// Most members kept. Beyond it newcomers are not taken in.
pub const MAX_MEMBERS: usize = crate::wire::MAX_MEMBERS - 1;
/// Most addresses introduced by hand that have not answered yet; the oldest gives way.
pub const MAX_CONTACTS: usize = 64;

/// What a node knows of another.
#[derive(Debug, Clone)]
struct Peer {
    member: Member,
    last_heard: Option<Instant>,
    /// When a suspect is declared dead.
    dead_at: Option<Instant>,
    /// When a suspect is called next.
    probe_at: Instant,
    retry: Retry,
    /// The address answered with another id: there is nobody to try there.
    address_taken: bool,
}

/// When to try again, at a growing pause.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    fn starting(at: Instant) -> Self {
        Self { at, pause: FIRST_PAUSE }
    }

    fn back_off(&mut self, now: Instant) {
        self.at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// An address that is not a member: a bootstrap node, or one introduced by hand.
#[derive(Debug, Clone)]
struct Contact {
    address: String,
    retry: Retry,
    calling: bool,
}

/// What a merge of claims changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Members whose claim was replaced or who are new, to be persisted.
    pub changed: Vec<Member>,
    /// This node was claimed suspect, dead or gone, or of an incarnation it never had: the incarnation to raise to.
    pub refute: Option<u64>,
}

/// The member list of a node.
#[derive(Debug)]
pub struct Membership {
    me: Member,
    peers: BTreeMap<NodeId, Peer>,
    /// The greatest incarnation asked to be persisted; only later than `me`'s while the disk works on it.
    refuted: u64,
    bootstraps: Vec<Contact>,
    introduced: Vec<Contact>,
    fingerprint: Option<u64>,
    /// The next time one of the dead may be tried.
    next_dead: Instant,
}

impl Membership {
    /// A node that knows `members` from earlier and may ask `bootstraps` and the addresses `introduced` by hand.
    pub fn new(me: Member, members: Vec<Member>, bootstraps: &[String], introduced: Vec<String>, now: Instant) -> Self {
        let contact = |address: String| Contact { address, retry: Retry::starting(now), calling: false };
        let mut membership = Self {
            bootstraps: bootstraps.iter().cloned().map(contact).collect(),
            introduced: introduced.into_iter().map(contact).collect(),
            peers: BTreeMap::new(),
            fingerprint: None,
            next_dead: now,
            refuted: me.incarnation,
            me,
        };
        for member in members {
            membership.take(member, now);
        }
        membership
    }

    /// This node.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// Everybody, this node included.
    pub fn list(&self) -> Vec<Member> {
        std::iter::once(&self.me).chain(self.peers.values().map(|peer| &peer.member)).cloned().collect()
    }

    /// Everybody else, with when they were last heard.
    pub fn others(&self) -> impl Iterator<Item = (&Member, Option<Instant>)> {
        self.peers.values().map(|peer| (&peer.member, peer.last_heard))
    }

    /// How many others are live.
    pub fn live_count(&self) -> usize {
        self.peers.values().filter(|peer| peer.member.state.is_live()).count()
    }

    /// The addresses introduced by hand that have not answered yet.
    pub fn introduced(&self) -> Vec<String> {
        self.introduced.iter().map(|contact| contact.address.clone()).collect()
    }

    /// Where to reach a member, unless its address is known to be another's.
    pub fn target(&self, id: NodeId) -> Option<Target> {
        let peer = self.peers.get(&id).filter(|peer| !peer.address_taken)?;
        Some(Target { id: Some(id), address: peer.member.address.clone() })
    }

    /// Whether a member is known and live.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.member.state.is_live() && !peer.address_taken)
    }

    /// The fingerprint that exchanges compare. Order does not matter, so the sum of the claims' hashes will do.
    pub fn fingerprint(&mut self, hasher: &ItemHasher) -> u64 {
        if let Some(fingerprint) = self.fingerprint {
            return fingerprint;
        }
        let claims = std::iter::once(&self.me).chain(self.peers.values().map(|peer| &peer.member));
        let fingerprint = claims.fold(0_u64, |sum, member| {
            let class = if member.state.is_live() { "live" } else { member.state.name() };
            sum.wrapping_add(hasher.fingerprint(format!("{} {} {} {class}", member.id, member.address, member.incarnation).as_bytes()))
        });
        self.fingerprint = Some(fingerprint);
        fingerprint
    }

    /// Takes in what another node believes.
    pub fn merge(&mut self, claims: Vec<Member>, now: Instant) -> Merged {
        let mut merged = Merged::default();
        for claim in claims {
            if claim.id == self.me.id {
                if self.denies(&claim) {
                    self.refuted = self.refuted.max(claim.incarnation) + 1;
                    merged.refute = Some(self.refuted);
                }
            } else {
                // Another's suspicion is no more than a hint here: this node's own calls decide.
                let state = if claim.state == MemberState::Suspect { MemberState::Alive } else { claim.state };
                let claim = Member { state, ..claim };
                if self.take(claim.clone(), now) {
                    merged.changed.push(claim);
                }
            }
        }
        merged
    }

    /// Whether a claim about this node is wrong, and not about an earlier life. What is asked of the disk already needs no second time.
    fn denies(&self, claim: &Member) -> bool {
        let wrong = claim.state > self.me.state || claim.address != self.me.address;
        claim.incarnation > self.me.incarnation.max(self.refuted) || claim.incarnation == self.me.incarnation.max(self.refuted) && wrong
    }

    fn take(&mut self, claim: Member, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&claim.id) else {
            if self.peers.len() >= MAX_MEMBERS {
                return false;
            }
            let dead_at = (claim.state == MemberState::Suspect).then(|| now + SUSPICION);
            let peer = Peer { last_heard: None, dead_at, probe_at: now, retry: Retry::starting(now), address_taken: false, member: claim };
            self.peers.insert(peer.member.id, peer);
            self.fingerprint = None;
            return true;
        };
        if !claim.overrides(&peer.member) {
            return false;
        }
        peer.address_taken &= claim.address == peer.member.address && claim.incarnation == peer.member.incarnation;
        if claim.incarnation > peer.member.incarnation {
            peer.retry = Retry::starting(now);
        }
        peer.dead_at = (claim.state == MemberState::Suspect).then(|| now + SUSPICION);
        peer.member = claim;
        self.fingerprint = None;
        true
    }

    /// A message came from `id`: a sign of life, if not of an earlier life.
    ///
    /// A suspect is trusted again at once. Who was declared dead stays so until it raises its incarnation, which it does when
    /// it next compares member lists with anybody.
    pub fn on_heard(&mut self, id: NodeId, incarnation: u64, now: Instant) -> Option<Member> {
        let peer = self.peers.get_mut(&id).filter(|peer| incarnation >= peer.member.incarnation)?;
        peer.last_heard = Some(now);
        peer.retry = Retry::starting(now);
        peer.address_taken = false;
        if peer.member.state != MemberState::Suspect {
            return None;
        }
        peer.member.state = MemberState::Alive;
        peer.dead_at = None;
        Some(peer.member.clone())
    }

    /// A call to `id` brought no answer.
    pub fn on_silent(&mut self, id: NodeId, now: Instant) -> Option<Member> {
        let peer = self.peers.get_mut(&id)?;
        peer.retry.back_off(now);
        if peer.member.state != MemberState::Alive {
            return None;
        }
        peer.member.state = MemberState::Suspect;
        peer.dead_at = Some(now + SUSPICION);
        peer.probe_at = now;
        Some(peer.member.clone())
    }

    /// The suspects that are to be called now: each every second, until it is heard or its time is up.
    pub fn due_suspects(&mut self, now: Instant) -> Vec<Target> {
        let due = self.peers.values_mut().filter(|peer| peer.dead_at.is_some() && peer.probe_at <= now && !peer.address_taken);
        due.map(|peer| {
            peer.probe_at = now + PROBE_INTERVAL;
            Target { id: Some(peer.member.id), address: peer.member.address.clone() }
        })
        .collect()
    }

    /// The address of `id` answered with another id: nobody of that name is there any more.
    pub fn on_address_taken(&mut self, id: NodeId) -> Option<Member> {
        let peer = self.peers.get_mut(&id)?;
        peer.address_taken = true;
        peer.dead_at = None;
        if !peer.member.state.is_live() {
            return None;
        }
        peer.member.state = MemberState::Dead;
        self.fingerprint = None;
        Some(peer.member.clone())
    }

    /// Declares dead whose suspicion has run out.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Member> {
        let mut dead = Vec::new();
        for peer in self.peers.values_mut().filter(|peer| peer.dead_at.is_some_and(|at| at <= now)) {
            peer.dead_at = None;
            peer.member.state = MemberState::Dead;
            peer.retry.back_off(now);
            dead.push(peer.member.clone());
        }
        if !dead.is_empty() {
            self.fingerprint = None;
        }
        dead
    }

    /// The next time something is to be done here.
    pub fn deadline(&self) -> Option<Instant> {
        let suspicions =
            self.peers.values().filter_map(|peer| Some(peer.dead_at?.min(if peer.address_taken { peer.dead_at? } else { peer.probe_at })));
        let contacts = self.bootstraps.iter().chain(&self.introduced).filter(|contact| !contact.calling).map(|contact| contact.retry.at);
        let dead = self.triable().map(|peer| peer.retry.at.max(self.next_dead));
        suspicions.chain(contacts).chain(dead).min()
    }

    fn triable(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| !peer.member.state.is_live() && !peer.address_taken)
    }

    /// This node's incarnation is on disk and may be told.
    pub fn raise(&mut self, incarnation: u64) {
        if incarnation > self.me.incarnation {
            self.me.incarnation = incarnation;
            self.fingerprint = None;
        }
    }

    /// This node is about to stop.
    pub fn leave(&mut self) {
        self.me.state = MemberState::Left;
        self.fingerprint = None;
    }

    /// A random live member.
    pub fn pick(&self, rng: &mut ChaCha8Rng) -> Option<Target> {
        self.pick_some(1, &[], rng).pop()
    }

    /// Up to `count` different live members in random order, none of `except`.
    pub fn pick_some(&self, count: usize, except: &[NodeId], rng: &mut ChaCha8Rng) -> Vec<Target> {
        let mut live: Vec<&Member> = self
            .peers
            .values()
            .filter(|peer| peer.member.state.is_live() && !peer.address_taken && !except.contains(&peer.member.id))
            .map(|peer| &peer.member)
            .collect();
        let mut picked = Vec::with_capacity(count.min(live.len()));
        while picked.len() < count && !live.is_empty() {
            let member = live.swap_remove(rng.random_range(0..live.len()));
            picked.push(Target { id: Some(member.id), address: member.address.clone() });
        }
        picked
    }

    /// One of the dead and gone whose turn has come, the most recently heard first.
    pub fn due_dead(&mut self, now: Instant) -> Option<Target> {
        if now < self.next_dead {
            return None;
        }
        let due = self.triable().filter(|peer| peer.retry.at <= now).max_by_key(|peer| (peer.last_heard, peer.member.id))?.member.id;
        self.next_dead = now + Duration::from_secs(1);
        self.peers.get_mut(&due)?.retry.back_off(now);
        self.target(due)
    }

    /// Bootstrap nodes whose turn has come; each must be reported by [`Self::on_join_ended`].
    pub fn due_bootstraps(&mut self, now: Instant) -> Vec<String> {
        due(&mut self.bootstraps, now)
    }

    /// Addresses introduced by hand whose turn has come; each must be reported by [`Self::on_introduction_ended`].
    pub fn due_introduced(&mut self, now: Instant) -> Vec<String> {
        due(&mut self.introduced, now)
    }

    /// The addresses of all bootstrap nodes.
    pub fn bootstraps(&self) -> Vec<String> {
        self.bootstraps.iter().map(|contact| contact.address.clone()).collect()
    }

    /// A bootstrap node answered, or not.
    pub fn on_join_ended(&mut self, address: &str, answered: bool, now: Instant) {
        for contact in self.bootstraps.iter_mut().filter(|contact| contact.address == address) {
            contact.calling = false;
            if answered {
                contact.retry = Retry { at: now + RENEWAL, pause: FIRST_PAUSE };
            } else {
                contact.retry.back_off(now);
            }
        }
    }

    /// Remembers an address that somebody gave by hand; returns whether it is new.
    pub fn introduce(&mut self, address: String, now: Instant) -> bool {
        if self.introduced.iter().any(|contact| contact.address == address) {
            return false;
        }
        if self.introduced.len() >= MAX_CONTACTS {
            self.introduced.remove(0);
        }
        let retry = Retry { at: now + LONGEST_PAUSE, pause: LONGEST_PAUSE };
        self.introduced.push(Contact { address, retry, calling: false });
        true
    }

    /// An address introduced by hand is `settled`: it is a member's from now on, or refused this node for good; or it did not answer.
    /// Returns whether the addresses changed.
    pub fn on_introduction_ended(&mut self, address: &str, settled: bool, now: Instant) -> bool {
        let before = self.introduced.len();
        if settled {
            self.introduced.retain(|contact| contact.address != address);
        }
        for contact in self.introduced.iter_mut().filter(|contact| contact.address == address) {
            contact.calling = false;
            contact.retry.back_off(now);
        }
        self.introduced.len() != before
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(!self.peers.contains_key(&self.me.id), "a node is not its own peer");
        assert!(self.peers.len() <= MAX_MEMBERS && self.introduced.len() <= MAX_CONTACTS, "the lists are bounded");
        for peer in self.peers.values() {
            assert_eq!(peer.dead_at.is_some(), peer.member.state == MemberState::Suspect, "exactly the suspects have a deadline");
        }
    }
}

fn due(contacts: &mut [Contact], now: Instant) -> Vec<String> {
    let mut addresses = Vec::new();
    for contact in contacts.iter_mut().filter(|contact| !contact.calling && contact.retry.at <= now) {
        contact.calling = true;
        addresses.push(contact.address.clone());
    }
    addresses
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::ids::PublicKey;

    fn member(n: u8, incarnation: u64, state: MemberState) -> Member {
        let key = PublicKey([n; 32]);
        Member { id: NodeId::from_public_key(&key.0), address: format!("http://127.0.0.1:{n}"), incarnation, state, key }
    }

    fn alone() -> Membership {
        Membership::new(member(1, 1, MemberState::Alive), vec![], &[], vec![], Instant(0))
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_member_that_does_not_answer_is_suspect_then_dead_and_tried_for_ever() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        assert_eq!(list.on_silent(other.id, Instant(0)).map(|member| member.state), Some(MemberState::Suspect));
        assert!(list.is_live(other.id), "a suspect is still exchanged with");
        list.check();
        assert!(list.on_deadline(Instant(4 * SECOND)).is_empty());
        assert_eq!(list.on_deadline(Instant(5 * SECOND)).len(), 1);
        assert!(!list.is_live(other.id));
        let tries = (5..1000).filter(|second| list.due_dead(Instant(second * SECOND)).is_some()).count();
        assert!((20..40).contains(&tries), "{tries} tries: growing pauses up to 45 s, but never an end");
    }

    #[test]
    fn a_suspect_that_is_heard_is_trusted_again_and_the_dead_must_raise_their_incarnation() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        list.on_silent(other.id, Instant(0));
        assert!(list.on_heard(other.id, 1, Instant(1)).is_some());
        assert!(list.on_deadline(Instant(100 * SECOND)).is_empty());
        list.merge(vec![member(2, 1, MemberState::Dead)], Instant(0));
        assert!(list.on_heard(other.id, 1, Instant(1)).is_none());
        assert!(!list.is_live(other.id));
        list.merge(vec![member(2, 2, MemberState::Alive)], Instant(0));
        assert!(list.is_live(other.id));
    }

    #[test]
    fn a_claim_of_my_death_is_refuted_by_a_greater_incarnation() {
        let mut list = alone();
        assert_eq!(list.merge(vec![member(1, 1, MemberState::Alive)], Instant(0)), Merged::default());
        assert_eq!(list.merge(vec![member(1, 1, MemberState::Suspect)], Instant(0)).refute, Some(2));
        assert_eq!(list.merge(vec![member(1, 1, MemberState::Dead)], Instant(0)).refute, None, "refuted already, on its way to the disk");
        assert_eq!(list.merge(vec![member(1, 7, MemberState::Alive)], Instant(0)).refute, Some(8));
        assert_eq!(list.merge(vec![member(1, 5, MemberState::Dead)], Instant(0)).refute, None, "the disk is never asked for a smaller one");
        assert_eq!(list.me().incarnation, 1, "told only after it is on disk");
        list.raise(8);
        assert_eq!(list.me().incarnation, 8);
    }

    #[test]
    fn a_claim_that_i_am_elsewhere_is_refuted() {
        let mut list = alone();
        let moved = Member { address: "http://127.0.0.1:99".into(), ..member(1, 1, MemberState::Alive) };
        assert_eq!(list.merge(vec![moved], Instant(0)).refute, Some(2));
    }

    #[test]
    fn the_suspicion_of_others_decides_nothing_and_a_suspect_is_called_every_second() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        assert_eq!(list.merge(vec![member(2, 1, MemberState::Suspect)], Instant(0)), Merged::default());
        list.on_silent(other.id, Instant(0));
        let calls: usize = (0..50).map(|tenth| list.due_suspects(Instant(tenth * SECOND / 10)).len()).sum();
        assert_eq!(calls, 5);
        list.on_heard(other.id, 1, Instant(5 * SECOND));
        assert!(list.due_suspects(Instant(9 * SECOND)).is_empty());
    }

    #[test]
    fn fingerprints_agree_whatever_the_order_and_ignore_suspicion() {
        let hasher = ItemHasher::new("x");
        let others = [member(2, 1, MemberState::Alive), member(3, 4, MemberState::Left)];
        let (mut a, mut b) = (alone(), alone());
        a.merge(others.to_vec(), Instant(0));
        b.merge(others.iter().rev().cloned().collect(), Instant(0));
        assert_eq!(a.fingerprint(&hasher), b.fingerprint(&hasher));
        a.on_silent(others[0].id, Instant(0));
        assert_eq!(a.fingerprint(&hasher), b.fingerprint(&hasher));
        a.on_deadline(Instant(100 * SECOND));
        assert_ne!(a.fingerprint(&hasher), b.fingerprint(&hasher));
    }

    #[test]
    fn picks_are_live_different_and_none_of_the_excepted() {
        let mut list = alone();
        let others: Vec<Member> = (2..10).map(|n| member(n, 1, if n == 9 { MemberState::Dead } else { MemberState::Alive })).collect();
        list.merge(others.clone(), Instant(0));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let picked = list.pick_some(100, &[others[0].id], &mut rng);
        let mut ids: Vec<NodeId> = picked.iter().filter_map(|target| target.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6);
        assert!(!ids.contains(&others[0].id) && !ids.contains(&others[7].id));
    }

    #[test]
    fn an_address_that_answers_with_another_id_is_struck_until_the_member_moves() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        list.on_address_taken(other.id);
        assert_eq!(list.due_dead(Instant(1000 * SECOND)), None);
        list.merge(vec![Member { address: "http://127.0.0.1:99".into(), ..member(2, 2, MemberState::Alive) }], Instant(0));
        assert!(list.is_live(other.id));
    }

    #[test]
    fn bootstraps_are_renewed_while_they_answer_and_tried_slower_while_they_do_not() {
        let mut list = Membership::new(member(1, 1, MemberState::Alive), vec![], &["http://b".into()], vec![], Instant(0));
        assert_eq!(list.due_bootstraps(Instant(0)), ["http://b"]);
        assert!(list.due_bootstraps(Instant(SECOND)).is_empty(), "one call at a time");
        list.on_join_ended("http://b", true, Instant(SECOND));
        assert_eq!(list.deadline(), Some(Instant(6 * SECOND)));
        let mut now = Instant(6 * SECOND);
        for _ in 0..20 {
            list.due_bootstraps(now);
            list.on_join_ended("http://b", false, now);
            now = list.deadline().expect("tried for ever");
        }
        let last = now;
        list.due_bootstraps(now);
        list.on_join_ended("http://b", false, now);
        assert_eq!(list.deadline().map(|next| next.since(last)), Some(LONGEST_PAUSE));
    }
}
