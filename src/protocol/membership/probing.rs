//! Probes: does a member answer, me or anybody?
//!
//! SWIM (section 3.1): who does not answer a direct probe in time is probed by k others on this node's behalf, so that one lossy path
//! alone makes nobody suspect. The exchange is the direct probe; with the others this node tries once more itself. As long as nobody has
//! said anything, others are asked up to [`ROUNDS`] times in the time that there is: where messages are lost, each round that finds
//! nothing makes it less likely by far that only messages were lost, and costs nothing where the first one ends the probe.
//!
//! 1. A member is under one probe at a time, whatever calls to it are under way.
//! 2. Any message from the member, or one other's word that it answers, ends its probe well.
//! 3. A probe ends badly only when the time is up, or when everybody who was asked, this node included, failed to reach it.
//! 4. At most [`ROUNDS`] times [`HELPERS`] others are asked for one probe.

use std::collections::BTreeMap;
use std::time::Duration;

use super::schedule::Schedule;
use crate::ids::NodeId;
use crate::time::Instant;

/// How long a direct probe waits for its answer.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// After how long others are asked: what asking takes there and back where nodes are 100 ms apart, and some.
pub const ROUND: Duration = Duration::from_millis(500);
/// How often others are asked. With the last round the time of all of them is up.
pub const ROUNDS: u32 = 3;
/// k: how many others are asked.
pub const HELPERS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Stage {
    Direct {
        since: Instant,
    },
    Indirect {
        /// How often others were asked.
        round: u32,
        /// How many of those asked have not said yet that they do not reach it; this node is one of them.
        open: usize,
        /// Whether anybody but this node was asked and nobody has said a word.
        alone: bool,
    },
}

/// What a probe has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Others are to be asked: report with [`Probes::on_asked`].
    Ask(NodeId),
    /// Nobody reaches it. `alone`: nobody who was asked said a word either, which may be this node's own fault.
    Missed { id: NodeId, alone: bool },
}

/// The probes under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    stages: BTreeMap<NodeId, Stage>,
    deadlines: Schedule<NodeId>,
}

impl Probes {
    /// A direct probe begins; whether it is one more.
    pub(crate) fn begin(&mut self, id: NodeId, patience: u32, now: Instant) -> bool {
        if self.stages.contains_key(&id) {
            return false;
        }
        self.stages.insert(id, Stage::Direct { since: now });
        self.deadlines.set(id, now + PROBE_TIMEOUT * patience);
        true
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.stages.contains_key(&id)
    }

    /// A call failed. Whether others are to be asked at once: an address that refuses needs no patience, one that is silent has used
    /// it up already.
    pub(crate) fn on_failed(&mut self, id: NodeId, now: Instant) -> bool {
        match self.stages.get(&id) {
            None => {
                self.stages.insert(id, Stage::Direct { since: now });
                true
            }
            Some(Stage::Direct { since }) => now.since(*since) < PROBE_TIMEOUT,
            Some(Stage::Indirect { .. }) => false,
        }
    }

    /// So many others were asked, and the member itself once more.
    pub(crate) fn on_asked(&mut self, id: NodeId, helpers: usize, patience: u32, now: Instant) {
        let (round, open, alone) = match self.stages.get(&id) {
            Some(Stage::Indirect { round, open, alone }) => (*round, *open, *alone),
            Some(Stage::Direct { .. }) | None => (0, 0, helpers > 0),
        };
        self.stages.insert(id, Stage::Indirect { round: round + 1, open: open + helpers + 1, alone });
        self.deadlines.set(id, now + ROUND * patience);
    }

    /// One of those asked does not reach it: a helper that said so, or one that said nothing, or this node.
    pub(crate) fn on_unreached(&mut self, id: NodeId, said: bool) -> Option<Due> {
        let Some(Stage::Indirect { open, alone, .. }) = self.stages.get_mut(&id) else { return None };
        *open = open.saturating_sub(1);
        *alone &= !said;
        let (open, alone) = (*open, *alone);
        (open == 0).then(|| self.end(id)).map(|_| Due::Missed { id, alone })
    }

    /// It lives, or nobody cares any more; whether a probe was under way.
    pub(crate) fn end(&mut self, id: NodeId) -> bool {
        self.deadlines.remove(id);
        self.stages.remove(&id).is_some()
    }

    /// Whose time is up.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        let id = self.deadlines.pop_due(now)?;
        match self.stages.get(&id).copied() {
            Some(Stage::Indirect { round: ROUNDS.., alone, .. }) => {
                self.stages.remove(&id);
                Some(Due::Missed { id, alone })
            }
            Some(Stage::Indirect { .. } | Stage::Direct { .. }) | None => Some(Due::Ask(id)),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first()
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.stages.len(), self.deadlines.len(), "every probe has an end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::node;

    const MS: u64 = 1000;

    #[test]
    fn silence_asks_others_and_their_silence_ends_it() {
        let mut probes = Probes::default();
        assert!(probes.begin(node(1), 1, Instant(0)));
        assert!(!probes.begin(node(1), 1, Instant(500 * MS)), "one probe at a time");
        assert_eq!(probes.due(Instant(999 * MS)), None);
        assert_eq!(probes.due(Instant(1000 * MS)), Some(Due::Ask(node(1))));
        for asked in [1000, 1500, 2000] {
            probes.on_asked(node(1), 3, 1, Instant(asked * MS));
            probes.check();
            assert!(!probes.on_failed(node(1), Instant(asked * MS)), "they are asked already");
            assert_eq!(probes.due(Instant((asked + 499) * MS)), None);
            if asked < 2000 {
                assert_eq!(probes.due(Instant((asked + 500) * MS)), Some(Due::Ask(node(1))));
            }
        }
        assert_eq!(probes.due(Instant(2500 * MS)), Some(Due::Missed { id: node(1), alone: true }));
        assert!(!probes.end(node(1)));
    }

    #[test]
    fn an_address_that_refuses_needs_no_patience_and_a_silent_one_has_used_it_up() {
        let mut probes = Probes::default();
        probes.begin(node(1), 8, Instant(0));
        assert!(probes.on_failed(node(1), Instant(20 * MS)));
        probes.begin(node(2), 8, Instant(0));
        assert!(!probes.on_failed(node(2), Instant(3000 * MS)), "under strain even that is waited out");
        assert!(probes.on_failed(node(3), Instant(0)), "a failed call is a failed probe");
    }

    #[test]
    fn when_nobody_reaches_it_there_is_nothing_to_wait_for() {
        let mut probes = Probes::default();
        probes.on_failed(node(1), Instant(0));
        probes.on_asked(node(1), 2, 1, Instant(0));
        assert_eq!(probes.on_unreached(node(1), false), None);
        assert_eq!(probes.on_unreached(node(1), true), None);
        assert_eq!(probes.on_unreached(node(1), false), Some(Due::Missed { id: node(1), alone: false }));
        assert_eq!(probes.deadline(), None);
    }

    #[test]
    fn of_those_asked_twice_all_have_to_fail_and_one_word_is_a_word() {
        let mut probes = Probes::default();
        probes.on_failed(node(1), Instant(0));
        probes.on_asked(node(1), 1, 1, Instant(0));
        assert_eq!(probes.on_unreached(node(1), true), None);
        assert_eq!(probes.due(Instant(500 * MS)), Some(Due::Ask(node(1))));
        probes.on_asked(node(1), 1, 1, Instant(500 * MS));
        assert_eq!((probes.on_unreached(node(1), false), probes.on_unreached(node(1), false)), (None, None));
        assert_eq!(probes.on_unreached(node(1), false), Some(Due::Missed { id: node(1), alone: false }));
    }

    #[test]
    fn any_sign_of_life_ends_it_well() {
        let mut probes = Probes::default();
        probes.begin(node(1), 1, Instant(0));
        assert!(probes.end(node(1)));
        assert_eq!(probes.due(Instant(u64::MAX)), None);
        assert_eq!(probes.on_unreached(node(1), true), None, "what comes later changes nothing");
    }

    #[test]
    fn with_nobody_to_ask_it_is_not_this_nodes_fault() {
        let mut probes = Probes::default();
        probes.on_failed(node(1), Instant(0));
        probes.on_asked(node(1), 0, 1, Instant(0));
        assert_eq!(probes.on_unreached(node(1), false), Some(Due::Missed { id: node(1), alone: false }));
    }
}
