//! Epochs: who counts for a majority.
//!
//! 1. A majority is of all voters of the epoch, dead ones included: no view of who is alive decides one.
//! 2. Two epochs in a row differ by one voter, so a majority of the one and a majority of the other have a voter in common (Ongaro,
//!    "Consensus: Bridging Theory and Practice", 2014, section 4.1).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::planted::{Bug, is_planted};

/// Most voters. Beyond it nodes are learners, who deliver the same history.
pub const MAX_VOTERS: usize = 7;

/// Who votes, from one epoch change to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// 1 for the founder's, and one more with every change.
    pub number: u64,
    /// The voters; never empty.
    pub voters: BTreeSet<NodeId>,
}

impl Epoch {
    /// The first epoch of a history: its founder votes alone.
    pub fn founding(founder: NodeId) -> Self {
        Self { number: 1, voters: BTreeSet::from([founder]) }
    }

    /// Whether `nodes` holds more than half of the voters; others in it do not count.
    pub fn is_majority(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let learners = is_planted(Bug::LearnerCounted) && !self.voters.is_empty();
        let counted = if learners { nodes.len() } else { self.voters.intersection(nodes).count() };
        2 * counted > self.voters.len()
    }

    /// Whether `next` may follow this epoch.
    pub fn may_become(&self, next: &Self) -> bool {
        let changed = self.voters.symmetric_difference(&next.voters).count();
        next.number == self.number + 1 && changed == 1 && (1..=MAX_VOTERS).contains(&next.voters.len())
    }

    /// The epoch after this one with a voter more.
    pub fn with(&self, voter: NodeId) -> Self {
        let mut voters = self.voters.clone();
        voters.insert(voter);
        Self { number: self.number + 1, voters }
    }

    /// The epoch after this one with a voter less.
    pub fn without(&self, voter: NodeId) -> Self {
        let mut voters = self.voters.clone();
        voters.remove(&voter);
        Self { number: self.number + 1, voters }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::node;

    fn epoch(voters: impl IntoIterator<Item = u8>) -> Epoch {
        Epoch { number: 3, voters: voters.into_iter().map(node).collect() }
    }

    #[test]
    fn the_dead_count_and_strangers_do_not() {
        let epoch = epoch(1..=4);
        assert!(!epoch.is_majority(&[1, 2].map(node).into()));
        assert!(!epoch.is_majority(&[1, 2, 8, 9].map(node).into()));
        assert!(epoch.is_majority(&[1, 2, 3].map(node).into()));
    }

    #[test]
    fn one_voter_changes_at_a_time() {
        let three = epoch(1..=3);
        assert!(three.may_become(&three.with(node(4))) && three.may_become(&three.without(node(1))));
        assert!(!three.may_become(&three.with(node(4)).without(node(1))));
        assert!(!three.may_become(&three.with(node(1))), "no change");
        assert!(!epoch([1]).may_become(&epoch([1]).without(node(1))), "somebody must vote");
        assert!(!epoch(1..=7).may_become(&epoch(1..=7).with(node(8))));
    }

    proptest! {
        #[test]
        fn majorities_of_epochs_in_a_row_meet(voters in 1..=7_u8, removes in any::<bool>(), first in any::<u8>(), second in any::<u8>()) {
            let before = epoch(0..voters);
            let after = if removes && voters > 1 { before.without(node(0)) } else { before.with(node(100)) };
            let some = |epoch: &Epoch, bits: u8| -> BTreeSet<NodeId> {
                epoch.voters.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, voter)| *voter).collect()
            };
            let (one, other) = (some(&before, first), some(&after, second));
            if before.is_majority(&one) && after.is_majority(&other) {
                prop_assert!(one.intersection(&other).next().is_some());
            }
        }
    }
}
