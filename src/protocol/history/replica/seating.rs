//! Who votes next: a learner asks for a seat, a voter sees to it that one is given.

use rand::RngExt;

use super::{Asked, Effect, Replica, Then, World};
use crate::history::seats::{ASKING, SEEKING};
use crate::history::talk::{Ask, Holdings};
use crate::ids::NodeId;
use crate::planted::{Bug, is_planted};

impl Replica {
    /// What is on this node's disk, or will be when what is on its way there has arrived.
    pub(super) fn holdings(&self) -> Holdings {
        let (epoch, slot) = (self.causal.epoch().number, self.ordered.decided());
        Holdings { epoch, slot, delivered: self.causal.delivered().clone(), kept: self.causal.kept().collect() }
    }

    /// Whether this node is a learner that has caught up and might vote.
    pub(super) fn seeks(&self) -> bool {
        let epoch = self.causal.epoch();
        self.is_synchronised() && !epoch.voters.contains(&self.me) && !epoch.voters.is_empty()
    }

    /// Asks for a seat, or sees to it that one is given.
    pub(super) fn take_seats(&mut self, world: &mut World<'_>, out: &mut Vec<Effect>) {
        let (now, epoch) = (world.now.instant, self.causal.epoch().clone());
        if self.seeks() && self.seek_at <= now {
            // With all seats taken one may become free in a minute at the soonest.
            self.seek_at = now + if epoch.voters.len() < self.seats.count() { SEEKING } else { 4 * SEEKING };
            let live: Vec<NodeId> = epoch.voters.iter().copied().filter(|voter| world.network.is_live(*voter)).collect();
            let any = (!live.is_empty()).then(|| live[world.rng.random_range(0..live.len())]);
            if let Some(voter) = self.usher.take().filter(|usher| live.contains(usher)).or(any) {
                self.ask(voter, Ask::Seat(self.ordered.decided()), Asked::Seat, out);
            }
        }
        if !epoch.voters.contains(&self.me) {
            return;
        }
        self.seats.observe(&epoch, |node| node == self.me || world.network.is_live(node), now);
        if self.seek_at <= now {
            self.seek_at = now + ASKING;
        }
        if self.is_silent() {
            return;
        }
        let Some(next) = self.seats.wanted(&epoch, now) else { return };
        if self.ordered.coordinator().is_some_and(|node| node != self.me && world.network.is_live(node)) {
            return;
        }
        if self.seats.is_settled(&epoch) || is_planted(Bug::UnsettledEpoch) {
            self.ordered.wish(next);
        } else if self.seats.asks(&epoch, now) {
            self.persist(vec![], Then::Holdings(None, self.holdings()), out);
            for voter in epoch.voters.iter().filter(|voter| **voter != self.me) {
                self.ask(*voter, Ask::Settle(epoch.number), Asked::Holdings(epoch.number), out);
            }
        }
    }
}
