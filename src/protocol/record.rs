//! Records: the live versions of one blob, and the rule that picks the winner.
//!
//! 1. The versions of a record form an antichain: none dominates another.
//! 2. Merging is associative, commutative and idempotent, so nodes agree whatever order they hear things in. (A record is a
//!    state-based CRDT: the maximal elements of a growing set under a partial order; Shapiro et al., INRIA RR-7506, section 2.2.)
//! 3. Merging never invents a version and never loses one that nothing dominates.
//! 4. The winner is the version with the greatest (stamp, origin). Whoever dominates has the greater stamp, so the rule never
//!    contradicts causality; it is consulted only between concurrent versions.

use serde::{Deserialize, Serialize};

use crate::planted::{Bug, is_planted};
use crate::vector_clock::VectorClock;
use crate::version::{Content, Malformed, Version, VersionId};

/// Largest record, in bytes of JSON: neither taken from outside nor made by merging.
pub const MAX_BYTES: usize = 1 << 20;
/// More versions do not fit into [`MAX_BYTES`]; they are not even read, since each is compared with each.
const MAX_VERSIONS: usize = 4096;

/// The live versions of one blob, the winner first.
///
/// An empty record is a blob that was never written here; it is not stored or sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Version>", into = "Vec<Version>")]
pub struct Record {
    versions: Vec<Version>,
}

// Reading is merging: whatever a peer or an older release wrote becomes an antichain in order.
impl From<Vec<Version>> for Record {
    fn from(versions: Vec<Version>) -> Self {
        let mut record = Self::default();
        for version in versions.into_iter().take(MAX_VERSIONS) {
            record.insert(version);
        }
        record
    }
}

impl From<Record> for Vec<Version> {
    fn from(record: Record) -> Self {
        record.versions
    }
}

impl Record {
    /// The live versions, the winner first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version that counts; `None` only of a blob never written.
    pub fn winner(&self) -> Option<&Version> {
        self.versions.first()
    }

    /// The live version of that name.
    pub fn version(&self, id: VersionId) -> Option<&Version> {
        self.versions.iter().find(|version| version.id() == id)
    }

    /// What a write at this node has seen: everything here.
    pub fn join(&self) -> VectorClock {
        let mut join = VectorClock::default();
        self.versions.iter().for_each(|version| join.join(&version.clock));
        join
    }

    /// Adds a version; returns whether anything changed.
    ///
    /// A version that is dominated by one already here changes nothing; one that dominates others replaces them.
    pub fn insert(&mut self, version: Version) -> bool {
        if self.versions.iter().any(|held| *held == version || held.dominates(&version)) {
            return false;
        }
        self.versions.retain(|held| is_planted(Bug::CoveredKept) || !version.dominates(held));
        let place = self.versions.partition_point(|held| rank(held) > rank(&version));
        self.versions.insert(place, version);
        true
    }

    /// Adds all versions of `other`; returns whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for version in &other.versions {
            changed |= self.insert(version.clone());
        }
        if is_planted(Bug::SiblingDropped) {
            self.versions.truncate(1);
        }
        changed
    }

    /// Checks what must hold of every record from outside, its size apart.
    pub fn validate(&self) -> Result<(), Malformed> {
        if self.versions.is_empty() {
            return Err(Malformed::NoVersion);
        }
        self.versions.iter().try_for_each(Version::validate)
    }
}

/// What versions are ordered by: the winner is the greatest.
fn rank(version: &Version) -> (VersionId, &Content, &VectorClock) {
    (version.id(), &version.content, &version.clock)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ContentHash, NodeId, Sha256Digest};
    use crate::stamp::Stamp;
    use crate::version::{Content, Payload};

    pub(crate) fn node(n: u8) -> NodeId {
        NodeId::from_public_key(&[n; 32])
    }

    pub(crate) fn payload(n: u8) -> Content {
        Content::Payload(Payload {
            hash: ContentHash::of(&[n]),
            sha256: Sha256Digest([n; 32]),
            size: 1,
            media_type: "text/plain".into(),
            file_name: None,
        })
    }

    /// A write by `origin` that has seen `record`.
    pub(crate) fn write(record: &Record, origin: NodeId, at_least: u64, content: Content) -> Version {
        let mut clock = record.join();
        let stamp = Stamp(at_least.max(clock.greatest().0 + 1));
        clock.include(origin, stamp);
        Version { stamp, origin, content, clock }
    }

    /// One step of a random history at one of three replicas.
    #[derive(Debug, Clone)]
    enum Step {
        Write { at: usize, stamp: u64, delete: bool },
        Merge { from: usize, to: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3usize, 1..50u64, any::<bool>()).prop_map(|(at, stamp, delete)| Step::Write { at, stamp, delete }),
            (0..3usize, 0..3usize).prop_map(|(from, to)| Step::Merge { from, to }),
        ];
        prop::collection::vec(step, 0..20)
    }

    /// Plays a history that could have happened; gives the replicas and every version ever written.
    fn play(steps: &[Step]) -> (Vec<Record>, Vec<Version>) {
        let mut replicas = vec![Record::default(); 3];
        let mut written = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            match *step {
                Step::Write { at, stamp, delete } => {
                    let content = if delete { Content::Tombstone } else { payload(u8::try_from(n).expect("few steps")) };
                    let version = write(&replicas[at], node(u8::try_from(at).expect("three")), stamp, content);
                    replicas[at].insert(version.clone());
                    written.push(version);
                }
                Step::Merge { from, to } => {
                    let other = replicas[from].clone();
                    replicas[to].merge(&other);
                }
            }
        }
        (replicas, written)
    }

    fn merged(a: &Record, b: &Record) -> Record {
        let mut record = a.clone();
        record.merge(b);
        record
    }

    proptest! {
        #[test]
        fn merge_is_associative_commutative_and_idempotent(steps in steps()) {
            let (replicas, _) = play(&steps);
            let [a, b, c] = &replicas[..] else { unreachable!() };
            prop_assert_eq!(merged(a, b), merged(b, a));
            prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
            prop_assert_eq!(&merged(a, a), a);
        }

        #[test]
        fn merge_keeps_exactly_the_undominated_versions(steps in steps()) {
            let (replicas, written) = play(&steps);
            let all = merged(&merged(&replicas[0], &replicas[1]), &replicas[2]);
            for version in &written {
                let covered = written.iter().any(|other| other.dominates(version));
                prop_assert_eq!(all.versions().contains(version), !covered);
            }
            prop_assert!(all.versions().iter().all(|version| written.contains(version)), "nothing was invented");
        }

        #[test]
        fn who_dominates_has_the_greater_stamp_so_the_winner_never_contradicts_causality(steps in steps()) {
            let (_, written) = play(&steps);
            for a in &written {
                prop_assert_eq!(a.validate(), Ok(()));
                for b in &written {
                    prop_assert!(!a.dominates(b) || a.stamp > b.stamp);
                    prop_assert!(!(a.dominates(b) && b.dominates(a)));
                }
            }
        }

        #[test]
        fn a_record_reads_back_as_it_was_written(steps in steps()) {
            let (replicas, _) = play(&steps);
            let json = serde_json::to_string(&replicas[0]).expect("serialises");
            prop_assert_eq!(&serde_json::from_str::<Record>(&json).expect("reads"), &replicas[0]);
        }
    }

    #[test]
    fn concurrent_writes_are_both_kept_and_the_greater_stamp_wins() {
        let mut a = Record::default();
        a.insert(write(&Record::default(), node(1), 5, payload(1)));
        let mut b = Record::default();
        b.insert(write(&Record::default(), node(2), 9, payload(2)));
        a.merge(&b);
        assert_eq!(a.versions().len(), 2);
        assert_eq!(a.winner().map(|winner| winner.origin), Some(node(2)));
        let later = write(&a, node(3), 1, Content::Tombstone);
        assert!(a.insert(later.clone()));
        assert_eq!(a.versions(), [later], "a later write covers the winner and the sibling");
        assert!(!a.merge(&b), "and what it covers does not come back");
    }

    #[test]
    fn equal_clocks_of_a_cloned_disk_leave_one_version_everywhere() {
        let one = write(&Record::default(), node(1), 5, payload(1));
        let other = Version { content: payload(2), ..one.clone() };
        assert_eq!(Record::from(vec![one.clone(), other.clone()]), Record::from(vec![other, one]));
    }

    #[test]
    fn malformed_versions_are_refused() {
        let good = write(&Record::default(), node(1), 5, payload(1));
        let with = |change: fn(&mut Version)| {
            let mut version = good.clone();
            change(&mut version);
            version.validate()
        };
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(with(|version| version.stamp = Stamp(6)), Err(Malformed::StampNotInClock));
        assert_eq!(with(|version| version.clock.include(node(2), Stamp(5))), Err(Malformed::StampNotGreatest));
        assert_eq!(
            with(|version| {
                version.stamp = Stamp::END;
                version.clock.include(version.origin, Stamp::END);
            }),
            Err(Malformed::StampBeyondEnd)
        );
        assert_eq!(Record::default().validate(), Err(Malformed::NoVersion));
    }
}
