//! Membership: who is in the network, who answers, and whom to try next.
//!
//! The claims and their order are SWIM's (see [`crate::member`]), as is their way: a member that neither this node nor others reach
//! ([`probing`]) is suspect, tells everybody that it lives by a greater incarnation, or is dead when its time is up. How long that is
//! depends on how many suspect it ([`suspicion`]) and on how this node itself does ([`health`]), as in Lifeguard.
//!
//! 1. Only this node raises its own incarnation, and a raised one leaves only after it is on disk.
//! 2. A claim about another node is replaced only by one that overrides it; a suspicion also ends with hearing from the suspect.
//! 3. Nobody is forgotten but by a person's word: the dead and those who left are tried for ever, one a second at most, each at a
//!    growing pause. The forgotten stay in the list, so that nobody's older list brings them back.
//! 4. The fingerprint covers id, address, incarnation and whether the member is live, dead, left or forgotten; suspicion passes, and
//!    is neither in it nor on disk.
//! 5. Only listing everybody costs as much as there are members: what happens once a second or at each message does not.

mod absent;
mod contacts;
pub(crate) mod health;
#[cfg(test)]
mod laws;
mod live;
pub mod probing;
mod retry;
pub(crate) mod schedule;
pub mod suspicion;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;

pub use self::contacts::{MAX_CONTACTS, RENEWAL};
pub use self::retry::LONGEST_PAUSE;

use self::absent::Absent;
use self::contacts::Contacts;
use self::health::LocalHealth;
use self::live::Live;
use self::retry::FIRST_PAUSE;
use self::schedule::Schedule;
use self::suspicion::{SHORTEST_SUSPICION, Suspected};
use crate::ids::NodeId;
use crate::io::{ForgetFault, Target};
use crate::item::ItemHasher;
use crate::member::{Member, MemberState, Suspicion};
use crate::planted::{Bug, is_planted};
use crate::time::Instant;

/// How often a suspect is called by who suspects it of its own experience.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// How often a member believed dead that still speaks is told so.
const TELLING_INTERVAL: Duration = Duration::from_secs(1);
/// Claims that changed no longer ago are exchanged when fingerprints differ.
pub const RECENT: Duration = Duration::from_secs(60);
/// Where recent changes, exchanged so often in a row with whomever, left lists apart, everything is exchanged.
const APART_FOR_ALL: u8 = 3;
/// Everything is exchanged at most so often: two who can never agree do it now and then, not always.
const ALL_INTERVAL: Duration = RECENT;
/// Most members kept. Beyond it newcomers are not taken in.
pub const MAX_MEMBERS: usize = crate::wire::MAX_MEMBERS - 1;
/// Up to so many members all of them are checked after every input; beyond, only what takes no walk.
const MAX_WALKED: usize = 32;

/// What a node knows of another.
#[derive(Debug, Clone)]
struct Peer {
    member: Member,
    last_heard: Option<Instant>,
    /// The address answered with another id: there is nobody to try there.
    address_taken: bool,
    suspicion: Option<Suspected>,
    /// When it was last told that it is believed dead, left or forgotten.
    told: Option<Instant>,
}

impl Peer {
    fn new(member: Member) -> Self {
        Self { member, last_heard: None, address_taken: false, suspicion: None, told: None }
    }
}

/// What a merge of claims changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Members whose claim was replaced or who are new: to be persisted, and told to others.
    pub changed: Vec<Member>,
    /// Members that others suspected or this node did, and that are proved alive by a greater incarnation.
    pub cleared: usize,
    /// This node was claimed suspect, dead or gone, or of an incarnation it never had: the incarnation to raise to.
    pub refute: Option<u64>,
}

/// What a suspicion changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing: it is known, outdated, or about somebody who is dead or unknown.
    Known,
    /// The member is suspect from now on.
    Raised,
    /// The member was suspect before, and has less time now.
    Confirmed,
    /// It is about this node, which lives: the incarnation to raise to.
    Mine(Option<u64>),
}

/// What a sign of life means.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new.
    Usual,
    /// It was suspect, and is trusted again here. Unless it speaks from a later life it should be told of the suspicion, so that it
    /// refutes it everywhere.
    Recovered(Option<Suspicion>),
    /// It is believed dead, left or forgotten and should be told, so that it raises its incarnation.
    Mistaken,
}

/// Whom a node may meet besides the members it knows.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// The bootstrap nodes.
    pub bootstraps: Vec<String>,
    /// Those given by hand that have not answered yet.
    pub introduced: Vec<String>,
}

/// The member list of a node.
#[derive(Debug)]
pub struct Membership {
    me: Member,
    peers: BTreeMap<NodeId, Peer>,
    live: Live,
    absent: Absent,
    /// When each suspect is declared dead.
    deaths: Schedule<NodeId>,
    /// When each that this node suspects of its own experience is called next.
    calls: Schedule<NodeId>,
    /// When each claim that changed within [`RECENT`] did.
    recent: Schedule<NodeId>,
    /// Whether this node has had somebody's whole list in this life, or met somebody with the very list it has.
    complete: bool,
    /// How often in a row recent changes were exchanged, and the lists were not the same after it.
    apart: u8,
    /// Everything is not exchanged again before.
    next_all: Instant,
    health: LocalHealth,
    contacts: Contacts,
    /// The greatest incarnation asked to be persisted; only later than `me`'s while the disk works on it.
    refuted: u64,
    /// Sum of the hashes of all claims, this node's included.
    fingerprint: u64,
    hasher: ItemHasher,
    /// For the pauses between tries alone.
    rng: ChaCha8Rng,
}

impl Membership {
    /// A node that knows `members` from earlier and may ask at `addresses`.
    pub fn new(me: Member, members: Vec<Member>, addresses: Addresses, hasher: ItemHasher, rng: ChaCha8Rng, now: Instant) -> Self {
        let mut membership = Self {
            peers: BTreeMap::new(),
            live: Live::default(),
            absent: Absent::default(),
            deaths: Schedule::default(),
            calls: Schedule::default(),
            recent: Schedule::default(),
            complete: false,
            apart: 0,
            next_all: now,
            health: LocalHealth::default(),
            contacts: Contacts::new(addresses, now),
            refuted: me.incarnation,
            fingerprint: hash_of(&hasher, &me),
            me,
            hasher,
            rng,
        };
        for member in members {
            membership.take(member, now);
        }
        // What was known before is no news.
        membership.recent = Schedule::default();
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

    /// The claim held about a member, or this node.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        if id == self.me.id { Some(&self.me) } else { self.peers.get(&id).map(|peer| &peer.member) }
    }

    /// The claim about a member as it is told to others: suspicions travel by themselves.
    pub fn claim(&self, id: NodeId) -> Option<Member> {
        let member = self.member(id)?;
        Some(Member { state: if member.state.is_live() { MemberState::Alive } else { member.state }, ..member.clone() })
    }

    /// How many others are live.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Where to reach a member, unless its address is known to be another's.
    pub fn target(&self, id: NodeId) -> Option<Target> {
        let peer = self.peers.get(&id).filter(|peer| !peer.address_taken)?;
        Some(Target { id: Some(id), address: peer.member.address.clone() })
    }

    /// Whether a member is known and live.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.live.contains(id)
    }

    /// The fingerprint that exchanges compare. Order does not matter, so the sum of the claims' hashes will do.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Takes in what another node believes. Suspicions come by [`Self::doubt`], with the name of who has them.
    pub fn merge(&mut self, claims: Vec<Member>, now: Instant) -> Merged {
        let mut merged = Merged::default();
        for claim in claims {
            if claim.id == self.me.id {
                merged.refute = self.refute(&claim).or(merged.refute);
                continue;
            }
            let raised = is_planted(Bug::RaisedByAnother) && claim.state == MemberState::Dead;
            let claim = if raised { Member { incarnation: claim.incarnation + 1, state: MemberState::Alive, ..claim } } else { claim };
            let suspected = self.deaths.contains(claim.id);
            if self.take(claim.clone(), now) {
                let live = claim.state.is_live();
                merged.cleared += usize::from(suspected && live);
                merged.changed.push(Member { state: if live { MemberState::Alive } else { claim.state }, ..claim });
            }
        }
        merged
    }

    /// The incarnation to raise to, if a claim about this node is wrong.
    fn refute(&mut self, claim: &Member) -> Option<u64> {
        if !self.denies(claim) {
            return None;
        }
        self.refuted = self.refuted.max(claim.incarnation) + u64::from(!is_planted(Bug::RefutationNotRaised));
        Some(self.refuted)
    }

    /// Whether a claim about this node is wrong, and not about an earlier life. What is asked of the disk already needs no second time.
    fn denies(&self, claim: &Member) -> bool {
        let wrong = claim.state > self.me.state || claim.address != self.me.address;
        claim.incarnation > self.me.incarnation.max(self.refuted) || claim.incarnation == self.me.incarnation.max(self.refuted) && wrong
    }

    fn take(&mut self, claim: Member, now: Instant) -> bool {
        let state = if claim.state.is_live() { MemberState::Alive } else { claim.state };
        let claim = Member { state, ..claim };
        match self.peers.get(&claim.id) {
            None if self.peers.len() >= MAX_MEMBERS => return false,
            Some(peer) if !claim.overrides(&peer.member) => return false,
            None | Some(_) => self.believe(claim, now),
        }
        true
    }

    /// Replaces the claim held about a member, which is suspect no more, and puts the member where that belongs.
    fn believe(&mut self, claim: Member, now: Instant) {
        let (id, state) = (claim.id, claim.state);
        let before = self.peers.get(&id).map(|peer| hash_of(&self.hasher, &peer.member));
        let after = hash_of(&self.hasher, &claim);
        self.fingerprint = self.fingerprint.wrapping_sub(before.unwrap_or(0)).wrapping_add(after);
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(claim.clone()));
        peer.address_taken &= claim.address == peer.member.address && claim.incarnation == peer.member.incarnation;
        peer.member = claim;
        peer.suspicion = None;
        let (last_heard, taken) = (peer.last_heard, peer.address_taken);
        self.deaths.remove(id);
        self.calls.remove(id);
        if state.is_live() {
            self.live.insert(id);
            self.absent.remove(id);
        } else {
            self.live.remove(id);
            self.absent.remove(id);
            if state != MemberState::Forgotten && !taken {
                self.absent.enter(id, last_heard, now + FIRST_PAUSE);
            }
        }
        if before != Some(after) {
            self.recent.set(id, now);
            self.forget_news(now);
        }
    }

    fn forget_news(&mut self, now: Instant) {
        while self.recent.first().is_some_and(|at| now.since(at) > RECENT) {
            self.recent.pop_due(now);
        }
    }

    /// The same claim but for the state.
    fn believe_state(&mut self, id: NodeId, state: MemberState, now: Instant) -> Option<Member> {
        let claim = Member { state, ..self.peers.get(&id)?.member.clone() };
        self.believe(claim.clone(), now);
        Some(claim)
    }

    /// A message came from `id`: a sign of life, if not of an earlier life.
    ///
    /// A suspect is trusted again at once. Who was declared dead stays so until it raises its incarnation.
    pub fn on_heard(&mut self, id: NodeId, incarnation: u64, now: Instant) -> Heard {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| incarnation >= peer.member.incarnation) else { return Heard::Usual };
        peer.last_heard = Some(now);
        peer.address_taken = false;
        let (state, same_life) = (peer.member.state, incarnation == peer.member.incarnation);
        match state {
            MemberState::Alive => Heard::Usual,
            MemberState::Suspect => {
                let by = peer.suspicion.as_ref().and_then(Suspected::one).unwrap_or(self.me.id);
                let suspicion = Suspicion { id, incarnation: peer.member.incarnation, by };
                self.believe_state(id, MemberState::Alive, now);
                Heard::Recovered(Some(suspicion).filter(|_| same_life))
            }
            MemberState::Dead | MemberState::Left | MemberState::Forgotten => {
                let told = peer.told.is_some_and(|at| now.since(at) < TELLING_INTERVAL);
                let mistaken = same_life && !told;
                if mistaken {
                    peer.told = Some(now);
                }
                if state != MemberState::Forgotten {
                    self.absent.enter(id, Some(now), now);
                }
                if mistaken { Heard::Mistaken } else { Heard::Usual }
            }
        }
    }

    /// Whether a member that does not answer is to be probed: it is live, and this node does not suspect it already.
    pub fn is_probed(&self, id: NodeId) -> bool {
        self.live.contains(id) && !self.calls.contains(id)
    }

    /// Neither this node nor others reach a member. Gives the suspicion to tell, with what it changed.
    pub fn suspect(&mut self, id: NodeId, now: Instant) -> Option<(Suspicion, Doubt)> {
        let incarnation = self.peers.get(&id).filter(|peer| peer.member.state.is_live())?.member.incarnation;
        let suspicion = Suspicion { id, incarnation, by: self.me.id };
        let doubt = self.count(suspicion, now);
        self.calls.set(id, now);
        Some((suspicion, doubt))
    }

    /// Another node suspects a member.
    pub fn doubt(&mut self, suspicion: Suspicion, now: Instant) -> Doubt {
        if suspicion.id == self.me.id {
            let claim = Member { incarnation: suspicion.incarnation, state: MemberState::Suspect, ..self.me.clone() };
            return Doubt::Mine(self.refute(&claim));
        }
        // What this node itself said comes back late: it knows better by now.
        if suspicion.by == self.me.id { Doubt::Known } else { self.count(suspicion, now) }
    }

    fn count(&mut self, Suspicion { id, incarnation, by }: Suspicion, now: Instant) -> Doubt {
        let live = self.live.len() + 1;
        let meant = |peer: &&mut Peer| peer.member.state.is_live() && peer.member.incarnation == incarnation;
        let Some(peer) = self.peers.get_mut(&id).filter(meant) else { return Doubt::Known };
        let (suspected, doubt) = match &mut peer.suspicion {
            Some(suspected) => (suspected, Doubt::Confirmed),
            none => (none.insert(Suspected::new(by, live, self.health.multiplier(), now)), Doubt::Raised),
        };
        if doubt == Doubt::Confirmed && !suspected.confirm(by) {
            return Doubt::Known;
        }
        peer.member.state = MemberState::Suspect;
        self.deaths.set(id, suspected.ends());
        doubt
    }

    /// The suspicions of this node's own whose subject is to be called now: each every second, until it is heard or its time is up.
    pub fn due_suspects(&mut self, now: Instant) -> Vec<(Target, Suspicion)> {
        let due: Vec<NodeId> = std::iter::from_fn(|| self.calls.pop_due(now)).collect();
        due.iter().for_each(|id| self.calls.set(*id, now + CALL_INTERVAL));
        due.into_iter().filter_map(|id| self.target(id).zip(self.suspicion(id))).collect()
    }

    /// A suspicion held about a member, as it is told: in the name of one who has it.
    pub fn suspicion(&self, id: NodeId) -> Option<Suspicion> {
        let peer = self.peers.get(&id)?;
        let by = if self.calls.contains(id) { Some(self.me.id) } else { peer.suspicion.as_ref()?.one() };
        Some(Suspicion { id, incarnation: peer.member.incarnation, by: by? })
    }

    /// This node did nothing for a while: nobody is declared dead before having had a chance since.
    pub fn on_late(&mut self, now: Instant) {
        self.health.on_strain();
        let suspects: Vec<NodeId> = self.deaths.keys().collect();
        for id in suspects {
            let Some(suspected) = self.peers.get_mut(&id).and_then(|peer| peer.suspicion.as_mut()) else { continue };
            suspected.prolong(now + SHORTEST_SUSPICION);
            self.deaths.set(id, suspected.ends());
        }
    }

    /// How this node itself does.
    pub(crate) fn health(&mut self) -> &mut LocalHealth {
        &mut self.health
    }

    /// By how much this node's own strain stretches its patience with others, from 1 to 8.
    pub fn patience(&self) -> u32 {
        self.health.multiplier()
    }

    /// A peer has the same fingerprint, so its list is this one.
    pub fn on_agreed(&mut self) {
        self.complete = true;
        self.apart = 0;
    }

    /// A peer has another fingerprint; whether everything is to be exchanged with it, or the recent changes.
    pub fn on_differed(&mut self, now: Instant) -> bool {
        if !self.complete {
            return true;
        }
        let all = self.apart >= APART_FOR_ALL && now >= self.next_all;
        if all {
            self.apart = 0;
            self.next_all = now + ALL_INTERVAL;
        }
        all
    }

    /// Recent changes were exchanged with a peer, whose fingerprint after it is this.
    ///
    /// That fingerprints differ for a while after each change is the way of things, and no reason to exchange everything; that they
    /// differ when what is recent has just been exchanged is one, unless something changed in that moment.
    pub fn on_changes_exchanged(&mut self, fingerprint: u64) {
        if fingerprint == self.fingerprint {
            self.on_agreed();
        } else {
            self.apart = self.apart.saturating_add(1);
        }
    }

    /// Another node's whole list has been merged.
    pub fn on_complete(&mut self) {
        self.complete = true;
    }

    /// The claims that changed within [`RECENT`], and this node's own.
    pub fn recent_changes(&mut self, now: Instant) -> Vec<Member> {
        self.forget_news(now);
        let changed = self.recent.keys().filter_map(|id| self.peers.get(&id).map(|peer| &peer.member));
        std::iter::once(&self.me).chain(changed).cloned().collect()
    }

    /// The address of `id` answered with another id: nobody of that name is there any more.
    pub fn on_address_taken(&mut self, id: NodeId, now: Instant) -> Option<Member> {
        let peer = self.peers.get_mut(&id)?;
        peer.address_taken = true;
        self.absent.remove(id);
        if peer.member.state.is_live() { self.believe_state(id, MemberState::Dead, now) } else { None }
    }

    /// Declares dead whose suspicion has run out.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Member> {
        let due: Vec<NodeId> = std::iter::from_fn(|| self.deaths.pop_due(now)).collect();
        due.into_iter().filter_map(|id| self.believe_state(id, MemberState::Dead, now)).collect()
    }

    /// A person says that a member will not come back. Gives the claim that replaces the one held; of one forgotten already, that.
    pub fn forget(&mut self, id: NodeId, now: Instant) -> Result<Member, ForgetFault> {
        if id == self.me.id {
            return Err(ForgetFault::Myself);
        }
        let state = self.peers.get(&id).map(|peer| peer.member.state);
        match state {
            None => Err(ForgetFault::Unknown),
            Some(MemberState::Alive | MemberState::Suspect) => Err(ForgetFault::Live),
            Some(MemberState::Dead | MemberState::Left | MemberState::Forgotten) => {
                self.believe_state(id, MemberState::Forgotten, now).ok_or(ForgetFault::Unknown)
            }
        }
    }

    /// The next time something is to be done here.
    pub fn deadline(&self) -> Option<Instant> {
        let timers = [self.deaths.first(), self.calls.first(), self.contacts.deadline(), self.absent.deadline()];
        timers.into_iter().flatten().min()
    }

    /// This node's incarnation is on disk and may be told.
    pub fn raise(&mut self, incarnation: u64) {
        if incarnation > self.me.incarnation {
            self.be(Member { incarnation, ..self.me.clone() });
        }
    }

    /// This node is about to stop.
    pub fn leave(&mut self) {
        self.be(Member { state: MemberState::Left, ..self.me.clone() });
    }

    fn be(&mut self, me: Member) {
        let (before, after) = (hash_of(&self.hasher, &self.me), hash_of(&self.hasher, &me));
        self.fingerprint = self.fingerprint.wrapping_sub(before).wrapping_add(after);
        self.me = me;
    }

    /// A random live member.
    pub fn pick(&self, rng: &mut ChaCha8Rng) -> Option<Target> {
        self.pick_some(1, &[], rng).pop()
    }

    /// Up to `count` different live members in random order, none of `except`. Costs as much as are picked.
    pub fn pick_some(&self, count: usize, except: &[NodeId], rng: &mut ChaCha8Rng) -> Vec<Target> {
        self.live.draw(count, except, rng).into_iter().filter_map(|id| self.target(id)).collect()
    }

    /// The live members, but for this one.
    pub fn live_ids(&self) -> Vec<NodeId> {
        self.live.ids().collect()
    }

    /// Up to `degree` live members to which this node passes on what all are to hear, as [`live`] chooses them.
    pub fn successors(&self, degree: usize) -> Vec<NodeId> {
        self.live.successors(self.me.id, degree)
    }

    /// One of the dead and gone whose turn has come.
    pub fn due_dead(&mut self, now: Instant) -> Option<Target> {
        let due = self.absent.due(now, &mut self.rng)?;
        self.target(due)
    }

    /// Bootstrap nodes whose turn has come; each must be reported by [`Self::on_join_ended`].
    pub fn due_bootstraps(&mut self, now: Instant) -> Vec<String> {
        self.contacts.due_bootstraps(now)
    }

    /// Addresses introduced by hand whose turn has come; each must be reported by [`Self::on_introduction_ended`].
    pub fn due_introduced(&mut self, now: Instant) -> Vec<String> {
        self.contacts.due_introduced(now)
    }

    /// The addresses of all bootstrap nodes.
    pub fn bootstraps(&self) -> Vec<String> {
        self.contacts.bootstraps()
    }

    /// The addresses introduced by hand that have not answered yet.
    pub fn introduced(&self) -> Vec<String> {
        self.contacts.introduced()
    }

    /// A bootstrap node answered, or not.
    pub fn on_join_ended(&mut self, address: &str, answered: bool, now: Instant) {
        self.contacts.on_join_ended(address, answered, now, &mut self.rng);
    }

    /// Remembers an address that somebody gave by hand; returns whether it is new.
    pub fn introduce(&mut self, address: String, now: Instant) -> bool {
        self.contacts.introduce(address, now)
    }

    /// An address introduced by hand is `settled`: it is a member's from now on, or refused this node for good; or it did not answer.
    /// Returns whether the addresses changed.
    pub fn on_introduction_ended(&mut self, address: &str, settled: bool, now: Instant) -> bool {
        self.contacts.on_introduction_ended(address, settled, now, &mut self.rng)
    }

    /// What must hold at all times. Walks the members only while they are few: this is asked after every input.
    pub fn check(&self) {
        assert!(self.peers.len() <= MAX_MEMBERS, "the list is bounded");
        assert!(self.live.len() + self.absent.len() <= self.peers.len(), "nobody is live and absent");
        assert!(self.calls.len() <= self.deaths.len(), "only suspects are called");
        assert!(self.recent.len() <= self.peers.len(), "news are of members");
        self.live.check();
        self.absent.check();
        self.contacts.check();
        if self.peers.len() <= MAX_WALKED {
            self.check_each();
        }
    }

    /// What must hold of each member.
    pub fn check_each(&self) {
        assert!(!self.peers.contains_key(&self.me.id), "a node is not its own peer");
        let mut fingerprint = hash_of(&self.hasher, &self.me);
        for (id, Peer { member, address_taken, suspicion, .. }) in &self.peers {
            let (state, id) = (member.state, *id);
            fingerprint = fingerprint.wrapping_add(hash_of(&self.hasher, member));
            assert_eq!(self.deaths.contains(id), state == MemberState::Suspect, "exactly the suspects have a deadline");
            assert_eq!(suspicion.is_some(), state == MemberState::Suspect, "exactly the suspects have suspecters");
            assert!(!self.calls.contains(id) || state == MemberState::Suspect, "only suspects are called");
            assert_eq!(self.live.contains(id), state.is_live(), "exactly the live are picked");
            let tried = matches!(state, MemberState::Dead | MemberState::Left) && !address_taken;
            assert_eq!(self.absent.contains(id), tried, "exactly the dead and gone are tried, where they can be");
        }
        assert_eq!(fingerprint, self.fingerprint, "the fingerprint is the sum of the claims");
    }
}

/// The hash of what the fingerprint covers of a claim.
fn hash_of(hasher: &ItemHasher, member: &Member) -> u64 {
    let class = if member.state.is_live() { "live" } else { member.state.name() };
    hasher.fingerprint(format!("{} {} {} {class}", member.id, member.address, member.incarnation).as_bytes())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::ids::PublicKey;

    pub(super) fn member(n: u8, incarnation: u64, state: MemberState) -> Member {
        let key = PublicKey([n; 32]);
        Member { id: NodeId::from_public_key(&key.0), address: format!("http://127.0.0.1:{n}"), incarnation, state, key }
    }

    fn alone() -> Membership {
        knowing(vec![], &[])
    }

    pub(super) fn knowing(members: Vec<Member>, bootstraps: &[&str]) -> Membership {
        let addresses = Addresses { bootstraps: bootstraps.iter().map(ToString::to_string).collect(), introduced: vec![] };
        let rng = ChaCha8Rng::seed_from_u64(1);
        Membership::new(member(1, 1, MemberState::Alive), members, addresses, ItemHasher::new("x"), rng, Instant(0))
    }

    pub(super) const SECOND: u64 = 1_000_000;

    #[test]
    fn a_member_that_does_not_answer_is_suspect_then_dead_and_tried_for_ever() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        assert_eq!(list.suspect(other.id, Instant(0)).map(|(_, doubt)| doubt), Some(Doubt::Raised));
        assert!(list.is_live(other.id), "a suspect is still exchanged with");
        list.check();
        assert!(list.on_deadline(Instant(4 * SECOND)).is_empty());
        assert_eq!(list.on_deadline(Instant(5 * SECOND)).len(), 1, "nobody else could confirm it");
        assert!(!list.is_live(other.id));
        list.check();
        let tries = (5..1000).filter(|second| list.due_dead(Instant(second * SECOND)).is_some()).count();
        assert!((20..45).contains(&tries), "{tries} tries: growing pauses up to 45 s, but never an end");
    }

    #[test]
    fn a_suspect_that_is_heard_is_trusted_again_and_told_and_the_dead_must_raise_their_incarnation() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        let (suspicion, _) = list.suspect(other.id, Instant(0)).expect("it is known");
        assert_eq!(list.on_heard(other.id, 1, Instant(1)), Heard::Recovered(Some(suspicion)));
        assert!(list.on_deadline(Instant(100 * SECOND)).is_empty());
        list.merge(vec![member(2, 1, MemberState::Dead)], Instant(0));
        assert_eq!(list.on_heard(other.id, 1, Instant(SECOND)), Heard::Mistaken);
        assert_eq!(list.on_heard(other.id, 1, Instant(SECOND + 1)), Heard::Usual, "told once a second is enough");
        assert!(!list.is_live(other.id));
        list.merge(vec![member(2, 2, MemberState::Alive)], Instant(0));
        assert!(list.is_live(other.id));
    }

    #[test]
    fn others_suspicions_count_each_once_and_shorten_the_time() {
        let mut list = knowing((2..=10).map(|n| member(n, 1, MemberState::Alive)).collect(), &[]);
        let suspect = member(2, 1, MemberState::Alive).id;
        let by = |n: u8, incarnation| Suspicion { id: suspect, incarnation, by: member(n, 1, MemberState::Alive).id };
        assert_eq!(list.doubt(by(3, 0), Instant(0)), Doubt::Known, "an earlier life is not meant");
        assert_eq!(list.doubt(by(3, 1), Instant(0)), Doubt::Raised);
        assert_eq!(list.doubt(by(3, 1), Instant(0)), Doubt::Known);
        assert_eq!(list.deaths.first(), Some(Instant(12 * SECOND)));
        assert!(list.due_suspects(Instant(0)).is_empty(), "who only heard of it does not call");
        assert_eq!(
            [4, 5, 6, 7].map(|n| list.doubt(by(n, 1), Instant(SECOND))),
            [Doubt::Confirmed, Doubt::Confirmed, Doubt::Confirmed, Doubt::Known]
        );
        assert_eq!(list.deaths.first(), Some(Instant(5 * SECOND)));
        assert_eq!(list.doubt(Suspicion { by: list.me().id, ..by(3, 1) }, Instant(0)), Doubt::Known, "an echo");
        list.check();
        let refuted = list.merge(vec![member(2, 2, MemberState::Alive)], Instant(SECOND));
        assert_eq!((refuted.changed.len(), refuted.cleared), (1, 1));
        assert_eq!(list.doubt(by(8, 1), Instant(SECOND)), Doubt::Known, "a greater incarnation refutes it");
        list.check();
    }

    #[test]
    fn who_slept_buries_nobody_before_they_had_a_chance() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        list.suspect(other.id, Instant(0));
        list.on_late(Instant(3600 * SECOND));
        assert_eq!(list.patience(), 2);
        assert!(list.on_deadline(Instant(3604 * SECOND)).is_empty());
        assert_eq!(list.on_deadline(Instant(3605 * SECOND)).len(), 1);
    }

    #[test]
    fn what_changed_in_the_last_minute_is_told_and_everything_where_that_does_not_do() {
        let other = member(2, 1, MemberState::Alive);
        let mut list = knowing(vec![other.clone()], &[]);
        let told = |list: &mut Membership, second: u64| list.recent_changes(Instant(second * SECOND)).len();
        assert_eq!(told(&mut list, 0), 1, "itself; what is known from earlier is no news");
        list.merge(vec![member(3, 1, MemberState::Alive)], Instant(10 * SECOND));
        assert_eq!((told(&mut list, 70), told(&mut list, 71)), (2, 1));
        let (now, own) = (Instant(80 * SECOND), list.fingerprint());
        assert!(list.on_differed(now), "it has had nobody's whole list yet");
        list.on_complete();
        let apart = |list: &mut Membership, at: Instant| {
            list.on_changes_exchanged(!own);
            list.on_differed(at)
        };
        let later = now + ALL_INTERVAL;
        assert_eq!([0; 4].map(|_| apart(&mut list, now)), [false, false, true, false]);
        assert_eq!([0; 4].map(|_| apart(&mut list, now)), [false; 4], "not again within a minute");
        assert!(apart(&mut list, later));
        assert_eq!([0; 2].map(|_| apart(&mut list, later + ALL_INTERVAL)), [false; 2]);
        list.on_changes_exchanged(own);
        assert_eq!([0; 3].map(|_| apart(&mut list, later + ALL_INTERVAL)), [false, false, true], "in a row");
    }

    #[test]
    fn who_meets_the_very_list_it_has_needs_nobodys() {
        let mut list = knowing(vec![member(2, 1, MemberState::Alive)], &[]);
        list.on_agreed();
        assert!(!list.on_differed(Instant(0)));
    }

    #[test]
    fn that_lists_differ_is_no_reason_to_exchange_them_whole() {
        let mut list = knowing(vec![member(2, 1, MemberState::Alive)], &[]);
        list.on_complete();
        assert!((0..100).all(|second| !list.on_differed(Instant(second * SECOND))));
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
    fn a_suspicion_of_myself_is_refuted() {
        let mut list = alone();
        let suspicion = Suspicion { id: list.me().id, incarnation: 1, by: member(2, 1, MemberState::Alive).id };
        assert_eq!(list.doubt(suspicion, Instant(0)), Doubt::Mine(Some(2)));
        assert_eq!(list.doubt(suspicion, Instant(0)), Doubt::Mine(None), "it is being refuted");
        list.raise(2);
        assert_eq!(list.doubt(suspicion, Instant(0)), Doubt::Mine(None), "it is outdated");
    }

    #[test]
    fn a_suspect_is_called_every_second_by_who_suspects_it_itself() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        list.suspect(other.id, Instant(0));
        let calls: usize = (0..50).map(|tenth| list.due_suspects(Instant(tenth * SECOND / 10)).len()).sum();
        assert_eq!(calls, 5);
        list.on_heard(other.id, 1, Instant(5 * SECOND));
        assert!(list.due_suspects(Instant(9 * SECOND)).is_empty());
    }

    #[test]
    fn fingerprints_agree_whatever_the_order_and_ignore_suspicion() {
        let others = [member(2, 1, MemberState::Alive), member(3, 4, MemberState::Left)];
        let (mut a, mut b) = (alone(), alone());
        a.merge(others.to_vec(), Instant(0));
        b.merge(others.iter().rev().cloned().collect(), Instant(0));
        assert_eq!(a.fingerprint(), b.fingerprint());
        a.suspect(others[0].id, Instant(0));
        assert_eq!(a.fingerprint(), b.fingerprint());
        a.on_deadline(Instant(100 * SECOND));
        assert_ne!(a.fingerprint(), b.fingerprint());
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
    fn only_the_dead_and_gone_are_forgotten_and_untried_until_they_come_back() {
        let others = vec![member(2, 1, MemberState::Alive), member(3, 1, MemberState::Dead), member(4, 1, MemberState::Left)];
        let mut list = knowing(others.clone(), &[]);
        assert_eq!(list.forget(list.me().id, Instant(0)), Err(ForgetFault::Myself));
        assert_eq!(list.forget(member(9, 1, MemberState::Dead).id, Instant(0)), Err(ForgetFault::Unknown));
        assert_eq!(list.forget(others[0].id, Instant(0)), Err(ForgetFault::Live));
        for other in &others[1..] {
            assert_eq!(list.forget(other.id, Instant(0)).map(|member| member.state), Ok(MemberState::Forgotten));
            assert!(list.forget(other.id, Instant(0)).is_ok(), "once more does no harm");
        }
        list.check();
        assert_eq!((list.due_dead(Instant(1000 * SECOND)), list.live_count(), list.list().len()), (None, 1, 4));
        list.merge(vec![others[1].clone()], Instant(0));
        assert!(!list.is_live(others[1].id), "an older list does not bring it back");
        list.merge(vec![member(3, 2, MemberState::Alive)], Instant(0));
        assert!(list.is_live(others[1].id), "a new life does");
        list.check();
    }

    #[test]
    fn an_address_that_answers_with_another_id_is_struck_until_the_member_moves() {
        let mut list = alone();
        let other = member(2, 1, MemberState::Alive);
        list.merge(vec![other.clone()], Instant(0));
        list.on_address_taken(other.id, Instant(0));
        assert_eq!(list.due_dead(Instant(1000 * SECOND)), None);
        list.merge(vec![Member { address: "http://127.0.0.1:99".into(), ..member(2, 2, MemberState::Alive) }], Instant(0));
        assert!(list.is_live(other.id));
    }

    #[test]
    fn bootstraps_are_renewed_while_they_answer_and_tried_slower_while_they_do_not() {
        let mut list = knowing(vec![], &["http://b"]);
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
        let pause = list.deadline().expect("tried for ever").since(last);
        assert!(pause <= LONGEST_PAUSE && pause >= LONGEST_PAUSE * 4 / 5, "{pause:?}");
    }
}
