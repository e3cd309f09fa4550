//! Bugs put into the core on purpose, for the simulator to find.
//!
//! 1. Only a build with `--cfg planted` has them: in every other build [`is_planted`] is a constant `false`, and the compiler leaves the
//!    branches out with it.
//! 2. At most one is in at a time, for one thread: a simulated network runs in one, and several run side by side.
//!
//! They are mutations (DeMillo, Lipton, Sayward, "Hints on Test Data Selection", Computer 1978): each breaks one rule that this crate
//! promises, at the one place that keeps it.

/// A rule of the core that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A reconciliation leaves out the records that are tombstones.
    ForgottenTombstone,
    /// A snapshot leaves out the records that are tombstones.
    SnapshotWithoutTombstones,
    /// A rumor replaces the record that is here, however old it is.
    StaleRumor,
    /// A merge keeps the winner and drops its siblings.
    SiblingDropped,
    /// A merge keeps versions that the new one covers.
    CoveredKept,
    /// A write covers the winner and not its siblings.
    WinnerCoveredAlone,
    /// A write's stamp is made of the time alone, whatever stamps the record has.
    StampOfTheTime,
    /// A change starts from what the disk has, not from what waits for it.
    LostUpdate,
    /// A version of this node's own leaves before the disk has it.
    LeavesEarly,
    /// A receipt is given for a version whose payload is not here yet.
    ReceiptWithoutPayload,
    /// When a record is replaced, its sketch keeps the item it had.
    SketchNotUpdated,
    /// Two sets are taken for equal when they have as many items.
    CountsCompared,
    /// Cells of the peer are subtracted from this node's cells of another instant.
    CellsOfTwoInstants,
    /// A node that is believed dead says that it lives without raising its incarnation.
    RefutationNotRaised,
    /// A node that hears of another's death raises the other's incarnation.
    RaisedByAnother,
    /// A causal message is delivered as soon as its node has it.
    DeliveredWithoutMajority,
    /// A causal message is delivered before its frontier is.
    DependencySkipped,
    /// A voter that confirms a ballot does not report what it accepted.
    AcceptedForgotten,
    /// A voter says that it has a message before the disk has it.
    HeldEarly,
    /// Whoever has a message counts for a majority, voter or not.
    LearnerCounted,
    /// A call of another history is taken as one of this node's.
    HistoriesMerged,
    /// An epoch is changed before it is settled.
    UnsettledEpoch,
    /// What was acknowledged in one epoch counts for a majority of another.
    OldEpochCounted,
    /// A coordinator goes on in a new epoch without a Start.
    StartSkipped,
    /// A Commit is taken for whatever was accepted for its slot, under any ballot.
    CommitOfAnyBatch,
    /// A message that stands in the order is tried again, and delivered again.
    DeliveredTwice,
    /// A voter takes one vote for a batch, its own or the coordinator's, for the votes of a majority.
    VoteTakenForMajority,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::ForgottenTombstone,
        Self::SnapshotWithoutTombstones,
        Self::StaleRumor,
        Self::SiblingDropped,
        Self::CoveredKept,
        Self::WinnerCoveredAlone,
        Self::StampOfTheTime,
        Self::LostUpdate,
        Self::LeavesEarly,
        Self::ReceiptWithoutPayload,
        Self::SketchNotUpdated,
        Self::CountsCompared,
        Self::CellsOfTwoInstants,
        Self::RefutationNotRaised,
        Self::RaisedByAnother,
        Self::DeliveredWithoutMajority,
        Self::DependencySkipped,
        Self::AcceptedForgotten,
        Self::HeldEarly,
        Self::LearnerCounted,
        Self::HistoriesMerged,
        Self::UnsettledEpoch,
        Self::OldEpochCounted,
        Self::StartSkipped,
        Self::CommitOfAnyBatch,
        Self::DeliveredTwice,
        Self::VoteTakenForMajority,
    ];

    /// As it is named on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForgottenTombstone => "forgotten-tombstone",
            Self::SnapshotWithoutTombstones => "snapshot-without-tombstones",
            Self::StaleRumor => "stale-rumor",
            Self::SiblingDropped => "sibling-dropped",
            Self::CoveredKept => "covered-kept",
            Self::WinnerCoveredAlone => "winner-covered-alone",
            Self::StampOfTheTime => "stamp-of-the-time",
            Self::LostUpdate => "core-lost-update",
            Self::LeavesEarly => "leaves-early",
            Self::ReceiptWithoutPayload => "receipt-without-payload",
            Self::SketchNotUpdated => "sketch-not-updated",
            Self::CountsCompared => "counts-compared",
            Self::CellsOfTwoInstants => "cells-of-two-instants",
            Self::RefutationNotRaised => "refutation-not-raised",
            Self::RaisedByAnother => "raised-by-another",
            Self::DeliveredWithoutMajority => "delivered-without-majority",
            Self::DependencySkipped => "dependency-skipped",
            Self::AcceptedForgotten => "accepted-forgotten",
            Self::HeldEarly => "held-early",
            Self::LearnerCounted => "learner-counted",
            Self::HistoriesMerged => "histories-merged",
            Self::UnsettledEpoch => "unsettled-epoch",
            Self::OldEpochCounted => "old-epoch-counted",
            Self::StartSkipped => "start-skipped",
            Self::CommitOfAnyBatch => "commit-of-any-batch",
            Self::DeliveredTwice => "delivered-twice",
            Self::VoteTakenForMajority => "vote-taken-for-majority",
        }
    }
}

#[cfg(planted)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this build has bugs to put in.
pub const POSSIBLE: bool = cfg!(planted);

/// Puts a bug into the cores that run on this thread, or takes it out. Does nothing where [`POSSIBLE`] is false.
#[cfg(planted)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Puts a bug into the cores that run on this thread, or takes it out. Does nothing where [`POSSIBLE`] is false.
#[cfg(not(planted))]
pub fn plant(_: Option<Bug>) {}

/// Whether that bug is in.
#[cfg(planted)]
#[inline]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether that bug is in.
#[cfg(not(planted))]
#[inline]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_in_only_where_the_build_asks_for_bugs() {
        for bug in Bug::ALL {
            plant(Some(bug));
            assert!(Bug::ALL.into_iter().all(|other| is_planted(other) == (POSSIBLE && other == bug)));
        }
        plant(None);
        assert!(!Bug::ALL.into_iter().any(is_planted));
    }
}
