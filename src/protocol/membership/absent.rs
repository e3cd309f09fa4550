//! The dead and those who left: tried for ever, because no partition is the last word.
//!
//! 1. At most one of them is tried in a second, all together.
//! 2. None is tried sooner than its own pause, which grows from try to try up to [`super::LONGEST_PAUSE`].
//! 3. Of those whose pause is over, the one heard last comes first; every fourth try goes to who waits longest, so that
//!    however many are dead nobody's turn stays away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;

use super::retry::Retry;
use super::schedule::Schedule;
use crate::ids::NodeId;
use crate::time::Instant;

/// Time between two tries of whomever.
const TRY_INTERVAL: Duration = Duration::from_secs(1);
/// One try in so many goes to who waits longest. A guess.
const PATIENCE: u64 = 4;

#[derive(Debug)]
struct Away {
    last_heard: Option<Instant>,
    retry: Retry,
}

/// Whom to try again, and when.
#[derive(Debug, Default)]
pub(super) struct Absent {
    away: BTreeMap<NodeId, Away>,
    /// Those whose pause is not over.
    paused: Schedule<NodeId>,
    /// Those whose turn it is, by when they were heard and by how long they wait.
    ready: BTreeSet<(Option<Instant>, NodeId)>,
    waiting: Schedule<NodeId>,
    next: Instant,
    tries: u64,
}

impl Absent {
    pub(super) fn len(&self) -> usize {
        self.away.len()
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.away.contains_key(&id)
    }

    /// From now on `id` is tried, first at `at`.
    pub(super) fn enter(&mut self, id: NodeId, last_heard: Option<Instant>, at: Instant) {
        self.remove(id);
        self.away.insert(id, Away { last_heard, retry: Retry::starting(at) });
        self.paused.set(id, at);
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        let Some(away) = self.away.remove(&id) else { return };
        self.paused.remove(id);
        self.waiting.remove(id);
        self.ready.remove(&(away.last_heard, id));
    }

    /// The one to be tried now, if it is time for one.
    pub(super) fn due(&mut self, now: Instant, rng: &mut ChaCha8Rng) -> Option<NodeId> {
        while let Some(id) = self.paused.pop_due(now) {
            let away = self.away.get(&id)?;
            self.ready.insert((away.last_heard, id));
            self.waiting.set(id, away.retry.at);
        }
        if now < self.next {
            return None;
        }
        let patient = self.tries.is_multiple_of(PATIENCE).then(|| self.waiting.pop_due(now)).flatten();
        let id = patient.or_else(|| self.ready.last().map(|(_, id)| *id))?;
        let away = self.away.get_mut(&id)?;
        self.waiting.remove(id);
        self.ready.remove(&(away.last_heard, id));
        away.retry.back_off(now, rng);
        self.paused.set(id, away.retry.at);
        self.next = now + TRY_INTERVAL;
        self.tries += 1;
        Some(id)
    }

    /// When the next one may be due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ready = (!self.ready.is_empty()).then_some(self.next);
        ready.or_else(|| self.paused.first().map(|at| at.max(self.next)))
    }

    pub(super) fn check(&self) {
        assert_eq!(self.paused.len() + self.waiting.len(), self.away.len(), "everybody pauses or waits for a turn");
        assert_eq!(self.waiting.len(), self.ready.len(), "who waits stands in both orders");
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::record::tests::node;

    const SECOND: u64 = 1_000_000;

    /// Who was tried in each of so many seconds.
    fn tried(absent: &mut Absent, seconds: std::ops::Range<u64>) -> Vec<NodeId> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut tried = Vec::new();
        for tenth in seconds.start * 10..seconds.end * 10 {
            tried.extend(absent.due(Instant(tenth * SECOND / 10), &mut rng));
            absent.check();
        }
        tried
    }

    #[test]
    fn one_is_tried_at_growing_pauses_and_for_ever() {
        let mut absent = Absent::default();
        absent.enter(node(1), None, Instant(0));
        assert_eq!(tried(&mut absent, 0..16).len(), 5, "after 1, 2, 4 and 8 seconds");
        let later = tried(&mut absent, 100..1000).len();
        assert!((19..=26).contains(&later), "{later}: each 36 to 45 seconds");
    }

    #[test]
    fn all_together_are_tried_once_a_second_and_the_one_heard_last_first() {
        let mut absent = Absent::default();
        (0..200).for_each(|n| absent.enter(node(n), Some(Instant(u64::from(n))), Instant(0)));
        let tries = tried(&mut absent, 0..100);
        assert_eq!(tries.len(), 100);
        assert_eq!(tries[1], node(199));
        let everybody: BTreeSet<NodeId> = tried(&mut absent, 100..1000).into_iter().collect();
        assert_eq!(everybody.len(), 200, "nobody's turn stays away");
    }

    #[test]
    fn up_to_45_are_each_tried_within_a_minute() {
        let mut absent = Absent::default();
        (0..45).for_each(|n| absent.enter(node(n), Some(Instant(u64::from(n))), Instant(0)));
        tried(&mut absent, 0..1000);
        for from in (1000..2000).step_by(60) {
            let minute: BTreeSet<NodeId> = tried(&mut absent, from..from + 60).into_iter().collect();
            assert_eq!(minute.len(), 45, "in the minute from {from}");
        }
    }
}
