//! One key, one node: noticing that this node's key is, or was, another's too.
//!
//! A data folder that is copied and started twice makes two nodes of one key; one put back from a backup makes a node that has forgotten
//! what it told. Both write under stamps that others take for proof that all earlier writes of that node were seen, and so over what they
//! never saw. The cure is that of `--restored`: keep the blobs, take a new key.
//!
//! 1. Stamps and incarnations leave a node only after they are on its disk, and an address lasts as long as a life. So each of these is
//!    evidence, and none of them happens to a node that is alone with its key and forgot nothing, however it crashed, moved, or was
//!    slandered as dead: a record that names a stamp of this node's beyond those that its own store knows of that blob; a claim of an
//!    incarnation beyond its own; a claim that it is at another address in this life; a message, a ballot or a vote of its own in the history
//!    that it does not remember.
//! 2. Claims of earlier lives are history: a node that was started again under another address has moved.
//! 3. The next key is nobody's but its maker's. So of two holders of a key each gives it up once at the most, and both are alone then.
//! 4. Nothing is believed until a key is settled, [`SETTLING`] after it took the place of another: claims and records are not signed, and
//!    a liar is not to keep a node from ever having a name. Until then a claim is refuted with a greater incarnation.

use std::time::Duration;

use crate::history::message::MessageId;
use crate::history::ordered::Ballot;
use crate::ids::NodeId;
use crate::member::Member;
use crate::record::Record;
use crate::stamp::Stamp;
use crate::time::Instant;

/// How long a key that took the place of another is kept whatever others say. A guess: each key that is given up stays in the clocks of
/// what it wrote and in the list of members.
pub const SETTLING: Duration = Duration::from_secs(600);

/// Why a node gives up its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A peer has a record with a stamp of this node's that it does not remember.
    #[error("there are writes under its key, up to the stamp {0}, that its own store does not know")]
    UnknownStamp(Stamp),
    /// A peer knows of a later life than this one.
    #[error("others know it from its life {0}, which its own store does not know")]
    UnknownIncarnation(u64),
    /// There is another holder of the key, in this life or a later one.
    #[error("another node has the same key, at {0}")]
    Elsewhere(String),
    /// A peer knows a message of this node's by a name that it never gave, or never told.
    #[error("others know its message {0}, which it does not remember to have sent")]
    UnknownMessage(MessageId),
    /// A peer knows of a ballot of this node's, or of a vote for one, that it does not remember.
    #[error("others know its vote for the ballot {} of {}, which it does not remember", .0.round, .0.node)]
    UnknownVote(Ballot),
}

/// By what a node tells whether it is alone with its key.
#[derive(Debug, Clone, Copy)]
pub struct Uniqueness {
    /// The incarnation with which this life began.
    born: u64,
    /// Nothing is believed before.
    settled: Instant,
}

impl Uniqueness {
    /// Of a life that began as incarnation `born`, with a key that was on disk before.
    pub fn new(born: u64) -> Self {
        Self { born, settled: Instant::default() }
    }

    /// The key took the place of another: it is kept until then, whatever is heard.
    pub fn settle(&mut self, settled: Instant) {
        self.settled = settled;
    }

    /// Whether what others say is believed.
    pub fn is_settled(&self, now: Instant) -> bool {
        now >= self.settled
    }

    /// What `claims`, each of them valid, tell against `me`.
    pub fn of_claims(&self, me: &Member, claims: &[Member], now: Instant) -> Option<Conflict> {
        let own = claims.iter().filter(|claim| claim.id == me.id && self.is_settled(now));
        own.into_iter().find_map(|claim| {
            if claim.incarnation >= self.born && claim.address != me.address {
                Some(Conflict::Elsewhere(claim.address.clone()))
            } else if claim.incarnation > me.incarnation {
                Some(Conflict::UnknownIncarnation(claim.incarnation))
            } else {
                None
            }
        })
    }

    /// What a peer's record of a blob tells against `me`, whose own is `ours`.
    pub fn of_record(&self, me: NodeId, ours: &Record, theirs: &Record, now: Instant) -> Option<Conflict> {
        let greatest = |record: &Record| record.versions().iter().map(|version| version.clock.entry(me)).max().unwrap_or_default();
        let stamp = greatest(theirs);
        (stamp > greatest(ours) && self.is_settled(now)).then_some(Conflict::UnknownStamp(stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PublicKey;
    use crate::member::MemberState;
    use crate::vector_clock::VectorClock;
    use crate::version::{Content, Version};

    fn id(n: u8) -> NodeId {
        NodeId::from_public_key(&[n; 32])
    }

    /// A delete by `origin` that had seen `seen`.
    fn record(origin: u8, stamp: u64, seen: &[(u8, u64)]) -> Record {
        let clock: VectorClock = seen.iter().map(|(n, stamp)| (id(*n), Stamp(*stamp))).chain([(id(origin), Stamp(stamp))]).collect();
        let mut record = Record::default();
        record.insert(Version { stamp: Stamp(stamp), origin: id(origin), content: Content::Tombstone, clock });
        record
    }

    fn claim(incarnation: u64, port: u16, state: MemberState) -> Member {
        let key = PublicKey([1; 32]);
        Member { id: id(1), address: format!("http://127.0.0.1:{port}"), incarnation, state, key }
    }

    #[test]
    fn a_stamp_that_was_never_issued_is_evidence_whoever_covers_it() {
        let uniqueness = Uniqueness::new(1);
        let found = |ours: &Record, theirs: &Record| uniqueness.of_record(id(1), ours, theirs, Instant(0));
        let ours = record(1, 5, &[]);
        assert_eq!(found(&ours, &ours), None);
        assert_eq!(found(&ours, &record(1, 4, &[])), None, "an older one was covered here");
        assert_eq!(found(&ours, &record(2, 9, &[(1, 5)])), None, "written over what this node made");
        assert_eq!(found(&ours, &record(2, 9, &[])), None, "another's");
        assert_eq!(found(&ours, &record(1, 6, &[])), Some(Conflict::UnknownStamp(Stamp(6))));
        assert_eq!(found(&ours, &record(2, 9, &[(1, 8)])), Some(Conflict::UnknownStamp(Stamp(8))));
        assert_eq!(found(&Record::default(), &record(1, 1, &[])), Some(Conflict::UnknownStamp(Stamp(1))));
    }

    #[test]
    fn a_later_life_or_another_address_in_this_one_is_evidence_and_slander_and_history_are_not() {
        // Born as 4, and twice taken for dead since.
        let (uniqueness, me) = (Uniqueness::new(4), claim(6, 1, MemberState::Alive));
        let found = |claim: Member| uniqueness.of_claims(&me, &[claim], Instant(0));
        assert_eq!(found(claim(6, 1, MemberState::Alive)), None);
        for state in [MemberState::Suspect, MemberState::Dead, MemberState::Left, MemberState::Forgotten] {
            assert_eq!(found(claim(6, 1, state)), None, "to be refuted, if at all");
        }
        assert_eq!(found(claim(3, 2, MemberState::Alive)), None, "it has moved");
        assert_eq!(found(claim(4, 2, MemberState::Alive)), Some(Conflict::Elsewhere("http://127.0.0.1:2".into())));
        assert_eq!(found(claim(9, 2, MemberState::Dead)), Some(Conflict::Elsewhere("http://127.0.0.1:2".into())));
        assert_eq!(found(claim(7, 1, MemberState::Dead)), Some(Conflict::UnknownIncarnation(7)));
        let another = Member { id: id(2), key: PublicKey([2; 32]), ..claim(9, 2, MemberState::Alive) };
        assert_eq!(found(another), None);
    }

    #[test]
    fn a_new_key_is_kept_for_a_while_whatever_is_said() {
        let mut uniqueness = Uniqueness::new(1);
        uniqueness.settle(Instant(10));
        let (me, elsewhere) = (claim(1, 1, MemberState::Alive), [claim(2, 2, MemberState::Alive)]);
        for (now, is_evidence) in [(9, false), (10, true)] {
            assert_eq!(uniqueness.of_record(id(1), &Record::default(), &record(1, 1, &[]), Instant(now)).is_some(), is_evidence);
            assert_eq!(uniqueness.of_claims(&me, &elsewhere, Instant(now)).is_some(), is_evidence);
        }
    }
}
