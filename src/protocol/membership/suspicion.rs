//! How long a suspect has to show that it lives: the longer, the fewer suspect it.
//!
//! Lifeguard (Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection",
//! arXiv 1707.00788, section IV-B), where C counts the independent suspicions since the first and K is how many are looked for:
//!
//! ```text
//! SuspicionTimeout = max(Min, Max - (Max - Min) * log(C + 1) / log(K + 1))
//! ```
//!
//! 1. Only a suspicion raised by yet another node shortens the time; the same word by many ways does not.
//! 2. With nobody else who could confirm it, as between two nodes, the time is the shortest.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::NodeId;
use crate::time::Instant;

/// Min: with as many confirmations as are looked for.
pub const SHORTEST_SUSPICION: Duration = Duration::from_secs(5);
/// Max: with none.
pub const LONGEST_SUSPICION: Duration = Duration::from_secs(12);
/// K: how many confirmations are looked for at most.
pub const CONFIRMATIONS: usize = 3;

/// log(C + 1) / log(K + 1) in thousandths, by K and C. A table, since a logarithm need not be the same everywhere, bit for bit.
const SHRINKAGE: [[u32; CONFIRMATIONS + 1]; CONFIRMATIONS + 1] =
    [[1000, 1000, 1000, 1000], [0, 1000, 1000, 1000], [0, 631, 1000, 1000], [0, 500, 792, 1000]];

/// A suspicion held about a member.
#[derive(Debug, Clone)]
pub(super) struct Suspected {
    since: Instant,
    /// Who raised it: the first, and up to [`CONFIRMATIONS`] more.
    by: BTreeSet<NodeId>,
    /// K here.
    wanted: usize,
    /// By how much this node's own strain stretches the time.
    stretch: u32,
}

impl Suspected {
    /// Raised by `by`, in a network with so many live members, this node and the suspect included.
    pub(super) fn new(by: NodeId, live: usize, stretch: u32, now: Instant) -> Self {
        Self { since: now, by: BTreeSet::from([by]), wanted: live.saturating_sub(2).min(CONFIRMATIONS), stretch }
    }

    /// Another node's word; whether it was one more than were counted.
    pub(super) fn confirm(&mut self, by: NodeId) -> bool {
        self.by.len() <= CONFIRMATIONS && self.by.insert(by)
    }

    /// One of those who raised it.
    pub(super) fn one(&self) -> Option<NodeId> {
        self.by.first().copied()
    }

    /// When the suspect is declared dead.
    pub(super) fn ends(&self) -> Instant {
        let counted = self.by.len().saturating_sub(1).min(CONFIRMATIONS);
        let shrinkage = SHRINKAGE.get(self.wanted).and_then(|row| row.get(counted)).copied().unwrap_or(0);
        let span = LONGEST_SUSPICION - (LONGEST_SUSPICION - SHORTEST_SUSPICION) * shrinkage / 1000;
        self.since + span * self.stretch
    }

    /// It ends no sooner than that.
    pub(super) fn prolong(&mut self, until: Instant) {
        let short = until.since(self.ends());
        self.since = self.since + short;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::node;

    const SECOND: u64 = 1_000_000;

    fn ends(live: usize, confirmations: u8) -> u64 {
        let mut suspected = Suspected::new(node(0), live, 1, Instant(0));
        (1..=confirmations).for_each(|n| assert_eq!(suspected.confirm(node(n)), n <= 3));
        suspected.ends().0
    }

    #[test]
    fn the_time_shrinks_with_the_logarithm_of_confirmations() {
        assert_eq!([0, 1, 2, 3, 4].map(|n| ends(1000, n) / SECOND), [12, 8, 6, 5, 5]);
        let log = |n: usize| f64::from(u32::try_from(n + 1).unwrap()).ln();
        for (wanted, row) in SHRINKAGE.iter().enumerate().skip(1) {
            for (counted, shrinkage) in row.iter().enumerate().take(wanted + 1) {
                assert!((f64::from(*shrinkage) / 1000.0 - log(counted) / log(wanted)).abs() < 0.001);
            }
        }
    }

    #[test]
    fn the_same_word_twice_is_no_confirmation() {
        let mut suspected = Suspected::new(node(0), 1000, 1, Instant(0));
        assert!(!suspected.confirm(node(0)));
        assert!(suspected.confirm(node(1)) && !suspected.confirm(node(1)));
    }

    #[test]
    fn where_few_could_confirm_few_are_waited_for() {
        assert_eq!(ends(2, 0), 5 * SECOND, "nobody else is there");
        assert_eq!((ends(3, 0), ends(3, 1)), (12 * SECOND, 5 * SECOND));
    }

    #[test]
    fn strain_stretches_it() {
        assert_eq!(Suspected::new(node(0), 1000, 8, Instant(0)).ends().0, 96 * SECOND);
    }
}
