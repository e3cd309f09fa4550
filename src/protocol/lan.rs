//! Heartbeats on the local network: how nodes on one segment find each other without any bootstrap, and notice a silence fast.
//!
//! Every [`INTERVAL`] a node sends one small datagram to everybody on its segment, and hears theirs. This machine keeps who is heard
//! that way and who has fallen silent; what a heartbeat says of its sender is a claim like any other and goes to membership.
//!
//! 1. Silence accuses nobody: it is doubt, known to this node alone, and makes it call the silent one at once. Only a call that fails
//!    makes a suspicion that others hear of.
//! 2. A doubt ends with any sign of life, or when membership has judged. Who answers calls but sends no heartbeats is doubted once, and
//!    watched again from its next heartbeat on.
//! 3. Who was late itself doubts nobody (the observation behind Lifeguard, Dadgar, Phillips, Currey, DSN-W 2018: a slow member
//!    accuses healthy ones): a heartbeat of this node's own that comes late gives everybody a fresh start.
//! 4. At most [`MAX_NEIGHBOURS`] are watched. Beyond it, members are refreshed by their heartbeats, but their silence is noticed by
//!    exchanges only, and heartbeats introduce nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, PublicKey};
use crate::member::{BadMember, Member, MemberState};
use crate::time::Instant;
use crate::wire::VERSION;

/// Time between two heartbeats.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// How long a neighbour may be silent. Four heartbeats in a row may be lost; the fifth would be due 20 ms later, so that a silence is
/// noticed within half a second, timers and all.
pub const SILENCE: Duration = Duration::from_millis(480);
/// A heartbeat of this node's own that is later than this says that this node is slow, not that others are silent.
const LATE: Duration = Duration::from_millis(200);
/// Most neighbours watched: the stated size is 50 nodes on a segment, and some room.
pub const MAX_NEIGHBOURS: usize = 64;
/// Longest datagram, in bytes. A cluster's name, an address and a key of the greatest lengths fit.
pub const MAX_DATAGRAM: usize = 1024;

/// What a node says of itself to everybody on its segment. The short names are those of messages; `a` and `k` are address and key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Protocol version.
    #[serde(rename = "v")]
    pub version: u32,
    /// Cluster name.
    #[serde(rename = "c")]
    pub cluster: String,
    /// The sender.
    #[serde(rename = "n")]
    pub id: NodeId,
    /// Its incarnation.
    #[serde(rename = "i")]
    pub incarnation: u64,
    /// Its base URL.
    #[serde(rename = "a")]
    pub address: String,
    /// Its public key; the id is made from it.
    #[serde(rename = "k")]
    pub key: PublicKey,
}

/// Why a datagram is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// Longer than [`MAX_DATAGRAM`].
    #[error("a datagram of {0} bytes")]
    TooLong(usize),
    /// Not a heartbeat of any version.
    #[error("no heartbeat: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Of another cluster or protocol version.
    #[error("a heartbeat of another cluster or version")]
    Foreign,
    /// What it claims breaks a rule.
    #[error("{0}")]
    BadClaim(#[from] BadMember),
}

impl Heartbeat {
    /// Reads and checks a datagram of `cluster`: what it claims keeps the rules of a member claim.
    pub fn read(datagram: &[u8], cluster: &str) -> Result<Self, Unheard> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(Unheard::TooLong(datagram.len()));
        }
        let heartbeat: Self = serde_json::from_slice(datagram)?;
        if heartbeat.version != VERSION || heartbeat.cluster != cluster {
            return Err(Unheard::Foreign);
        }
        heartbeat.claim().validate()?;
        Ok(heartbeat)
    }

    /// Its sender as a member that is alive.
    pub fn claim(&self) -> Member {
        let Self { id, incarnation, key, .. } = *self;
        Member { id, address: self.address.clone(), incarnation, state: MemberState::Alive, key }
    }
}

/// A node whose heartbeats are heard.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    heard: Instant,
    /// Whether it has been silent for [`SILENCE`] and nothing else was heard of it since.
    silent: bool,
}

/// What has become due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A heartbeat of this node's own.
    pub beat: bool,
    /// Who has just fallen silent: to be called at once.
    pub silent: Vec<NodeId>,
}

/// Who is heard on the local network.
#[derive(Debug)]
pub struct Lan {
    /// [`MAX_NEIGHBOURS`] at most.
    neighbours: BTreeMap<NodeId, Neighbour>,
    next_beat: Instant,
}

impl Lan {
    /// A node that hears nobody yet and sends its first heartbeat at once.
    pub fn new(now: Instant) -> Self {
        Self { neighbours: BTreeMap::new(), next_beat: now }
    }

    /// Whether one more can be watched.
    pub fn has_room(&self) -> bool {
        self.neighbours.len() < MAX_NEIGHBOURS
    }

    /// A heartbeat of that node came.
    pub fn on_heartbeat(&mut self, id: NodeId, now: Instant) {
        if self.has_room() || self.neighbours.contains_key(&id) {
            self.neighbours.insert(id, Neighbour { heard: now, silent: false });
        }
    }

    /// Something else than a heartbeat shows that it lives.
    pub fn on_sign_of_life(&mut self, id: NodeId) {
        if self.is_doubted(id) {
            self.neighbours.remove(&id);
        }
    }

    /// Whether it was heard by heartbeat, is silent now, and nothing else has shown yet how it is.
    pub fn is_doubted(&self, id: NodeId) -> bool {
        self.neighbours.get(&id).is_some_and(|neighbour| neighbour.silent)
    }

    /// What has become due; `is_alive` tells who is believed alive, for nobody else is doubted.
    pub fn on_deadline(&mut self, now: Instant, is_alive: impl Fn(NodeId) -> bool) -> Due {
        let mut due = Due::default();
        if now >= self.next_beat {
            due.beat = true;
            if now.since(self.next_beat) > LATE {
                self.neighbours.values_mut().for_each(|neighbour| neighbour.heard = now);
                self.next_beat = now + INTERVAL;
            } else {
                self.next_beat = self.next_beat + INTERVAL;
            }
        }
        self.neighbours.retain(|id, neighbour| {
            if !neighbour.silent && neighbour.heard + SILENCE <= now {
                neighbour.silent = true;
                if is_alive(*id) {
                    due.silent.push(*id);
                }
            }
            !neighbour.silent || is_alive(*id)
        });
        due
    }

    /// The next time something is to be done here.
    pub fn deadline(&self) -> Instant {
        let watched = self.neighbours.values().filter(|neighbour| !neighbour.silent);
        watched.map(|neighbour| neighbour.heard + SILENCE).fold(self.next_beat, Instant::min)
    }

    /// What must hold at all times.
    pub fn check(&self) {
        assert!(self.neighbours.len() <= MAX_NEIGHBOURS, "the table is bounded");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_public_key(&[n; 32])
    }

    fn at(millis: u64) -> Instant {
        Instant(millis * 1000)
    }

    fn heartbeat() -> Heartbeat {
        let key = PublicKey([1; 32]);
        let id = NodeId::from_public_key(&key.0);
        Heartbeat { version: VERSION, cluster: "c".into(), id, incarnation: 7, address: "http://127.0.0.1:7701".into(), key }
    }

    /// Plays the ticks of a node that is never late, until `until`; gives when each was found silent.
    fn silences(lan: &mut Lan, from: u64, until: u64) -> Vec<(u64, NodeId)> {
        let mut found = Vec::new();
        for millis in (from..=until).step_by(10) {
            found.extend(lan.on_deadline(at(millis), |_| true).silent.into_iter().map(|id| (millis, id)));
        }
        found
    }

    #[test]
    fn a_heartbeat_is_due_ten_times_a_second() {
        let mut lan = Lan::new(at(5));
        let beats = (0..1000).filter(|millis| lan.on_deadline(at(*millis), |_| true).beat).count();
        assert_eq!(beats, 10);
    }

    #[test]
    fn who_falls_silent_is_doubted_once_within_half_a_second() {
        let mut lan = Lan::new(at(0));
        lan.on_heartbeat(id(1), at(0));
        assert_eq!(silences(&mut lan, 0, 3000), [(480, id(1))]);
        assert!(lan.is_doubted(id(1)));
    }

    #[test]
    fn four_lost_heartbeats_raise_no_doubt() {
        let mut lan = Lan::new(at(0));
        for beat in (0..5000).step_by(470) {
            lan.on_heartbeat(id(1), at(beat));
            assert!(silences(&mut lan, beat, beat + 460).is_empty());
        }
    }

    #[test]
    fn any_sign_of_life_ends_a_doubt_and_only_a_heartbeat_begins_the_watch_again() {
        let mut lan = Lan::new(at(0));
        for sign in 0..2 {
            let start = sign * 10_000;
            lan.on_deadline(at(start), |_| true);
            lan.on_heartbeat(id(1), at(start));
            assert_eq!(silences(&mut lan, start, start + 1000).len(), 1);
            if sign == 0 {
                lan.on_sign_of_life(id(1))
            } else {
                lan.on_heartbeat(id(1), at(start + 1000))
            }
            assert!(!lan.is_doubted(id(1)));
            assert_eq!(silences(&mut lan, start + 1000, start + 5000).len(), usize::from(sign == 1));
        }
    }

    #[test]
    fn who_said_goodbye_or_is_judged_already_is_not_doubted() {
        let mut lan = Lan::new(at(0));
        lan.on_heartbeat(id(1), at(0));
        for millis in (0..1000).step_by(10) {
            assert!(lan.on_deadline(at(millis), |_| false).silent.is_empty());
        }
        lan.on_heartbeat(id(1), at(1000));
        assert_eq!(silences(&mut lan, 1000, 2000).len(), 1);
        lan.on_deadline(at(2010), |_| false);
        assert!(!lan.is_doubted(id(1)), "membership has judged");
    }

    #[test]
    fn who_was_late_itself_doubts_nobody() {
        let mut lan = Lan::new(at(0));
        lan.on_deadline(at(0), |_| true);
        lan.on_heartbeat(id(1), at(0));
        assert!(lan.on_deadline(at(60_000), |_| true).silent.is_empty(), "stopped for a minute");
        assert_eq!(silences(&mut lan, 60_010, 61_000), [(60_480, id(1))]);
    }

    #[test]
    fn beyond_the_bound_nobody_more_is_watched() {
        let mut lan = Lan::new(at(0));
        (0..=u8::MAX).for_each(|n| lan.on_heartbeat(id(n), at(0)));
        lan.check();
        assert!(!lan.has_room());
        assert_eq!(silences(&mut lan, 0, 1000).len(), MAX_NEIGHBOURS);
    }

    #[test]
    fn a_heartbeat_reads_back_and_the_longest_fits() {
        let heartbeat = heartbeat();
        let json = serde_json::to_vec(&heartbeat).expect("serialises");
        assert!(json.len() < 200, "{}", json.len());
        assert_eq!(Heartbeat::read(&json, "c").expect("reads"), heartbeat);
        // A cluster's name has 100 bytes at most, and a quotation mark takes two.
        let address = format!("http://{}", "a".repeat(crate::member::MAX_ADDRESS - 7));
        let longest = Heartbeat { cluster: "\"".repeat(100), address, incarnation: crate::member::MAX_INCARNATION, ..heartbeat };
        let json = serde_json::to_vec(&longest).expect("serialises");
        assert!(json.len() <= MAX_DATAGRAM, "{}", json.len());
        assert_eq!(Heartbeat::read(&json, &longest.cluster).expect("reads"), longest);
    }

    #[test]
    fn foreign_long_and_lying_heartbeats_are_refused() {
        let refused = |change: fn(&mut Heartbeat)| {
            let mut heartbeat = heartbeat();
            change(&mut heartbeat);
            Heartbeat::read(&serde_json::to_vec(&heartbeat).expect("serialises"), "c").expect_err("refused")
        };
        assert!(matches!(refused(|heartbeat| heartbeat.cluster = "d".into()), Unheard::Foreign));
        assert!(matches!(refused(|heartbeat| heartbeat.version = 2), Unheard::Foreign));
        assert!(matches!(refused(|heartbeat| heartbeat.key = PublicKey([2; 32])), Unheard::BadClaim(BadMember::KeyMismatch)));
        assert!(matches!(refused(|heartbeat| heartbeat.address = "x".into()), Unheard::BadClaim(BadMember::BadAddress)));
        assert!(matches!(refused(|heartbeat| heartbeat.incarnation = u64::MAX), Unheard::BadClaim(BadMember::BadIncarnation)));
        assert!(matches!(Heartbeat::read(&[b' '; MAX_DATAGRAM + 1], "c"), Err(Unheard::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(Heartbeat::read(&bytes, "c").is_err());
        }

        #[test]
        fn a_damaged_heartbeat_is_refused_or_says_what_it_said(at in 0_usize..200, byte in any::<u8>()) {
            let mut json = serde_json::to_vec(&heartbeat()).expect("serialises");
            let at = at % json.len();
            json[at] = byte;
            if let Ok(read) = Heartbeat::read(&json, "c") {
                prop_assert_eq!(read.id, heartbeat().id);
            }
        }
    }
}
