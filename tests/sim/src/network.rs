//! The simulated network: what becomes of a message between two hosts.
//!
//! 1. A message is lost, or arrives after a latency drawn for it alone, so that messages overtake each other.
//! 2. A cut stops every message of the direction it covers; messages under way when it begins still arrive.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::faults::{FaultKind, Tally};

/// How the network behaves all the time. Latencies in microseconds, chances in thousandths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) fastest: u64,
    pub(crate) slowest: u64,
    /// One message in a thousand times this takes ten times as long.
    pub(crate) stragglers: u32,
    pub(crate) lost_requests: u32,
    pub(crate) lost_answers: u32,
    pub(crate) duplicates: u32,
}

impl Weather {
    /// Nothing is lost, nothing overtakes.
    pub(crate) const FAIR: Self = Self { fastest: 1000, slowest: 1000, stragglers: 0, lost_requests: 0, lost_answers: 0, duplicates: 0 };
}

/// A direction in which nothing passes.
#[derive(Debug, Clone)]
pub(crate) enum Cut {
    /// From these hosts to those, but not back.
    OneWay(BTreeSet<usize>, BTreeSet<usize>),
    /// Between these hosts and all others.
    Split(BTreeSet<usize>),
}

impl Cut {
    fn covers(&self, from: usize, to: usize) -> bool {
        match self {
            Self::OneWay(senders, receivers) => senders.contains(&from) && receivers.contains(&to),
            Self::Split(side) => side.contains(&from) != side.contains(&to),
        }
    }

    fn kind(&self) -> FaultKind {
        match self {
            Self::OneWay(..) => FaultKind::OneWayCut,
            Self::Split(_) => FaultKind::Partition,
        }
    }
}

/// Which half of a call a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Request,
    Answer,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    cuts: BTreeMap<u64, Cut>,
    next_cut: u64,
    /// The latest arrival so far, for each direction.
    latest: BTreeMap<(usize, usize), u64>,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        Self { weather, cuts: BTreeMap::new(), next_cut: 0, latest: BTreeMap::new() }
    }

    /// Begins a cut; gives its number for [`Self::mend`].
    pub(crate) fn cut(&mut self, cut: Cut) -> u64 {
        self.next_cut += 1;
        self.cuts.insert(self.next_cut, cut);
        self.next_cut
    }

    pub(crate) fn mend(&mut self, cut: u64) {
        self.cuts.remove(&cut);
    }

    /// From now on everything arrives.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        let Weather { fastest, .. } = self.weather;
        self.weather = Weather { fastest, slowest: fastest * 2, ..Weather::FAIR };
    }

    /// When a message sent now arrives; `None` if it never does.
    pub(crate) fn carry(&mut self, from: usize, to: usize, half: Half, now: u64, rng: &mut ChaCha8Rng, tally: &mut Tally) -> Option<u64> {
        if let Some(cut) = self.cuts.values().find(|cut| cut.covers(from, to)) {
            tally.acted(cut.kind());
            return None;
        }
        let (chance, kind) = match half {
            Half::Request => (self.weather.lost_requests, FaultKind::LostRequest),
            Half::Answer => (self.weather.lost_answers, FaultKind::LostAnswer),
        };
        if chance > 0 && rng.random_ratio(chance, 1000) {
            tally.acted(kind);
            return None;
        }
        let arrival = now + self.latency(rng);
        let latest = self.latest.entry((from, to)).or_default();
        if arrival < *latest {
            tally.acted(FaultKind::Reorder);
        }
        *latest = arrival.max(*latest);
        Some(arrival)
    }

    pub(crate) fn latency(&self, rng: &mut ChaCha8Rng) -> u64 {
        let Weather { fastest, slowest, stragglers, .. } = self.weather;
        let usual = if slowest > fastest { rng.random_range(fastest..slowest) } else { fastest };
        if stragglers > 0 && rng.random_ratio(stragglers, 1000) { usual * 10 } else { usual }
    }

    /// Whether the network delivers this request twice.
    pub(crate) fn duplicates(&self, rng: &mut ChaCha8Rng, tally: &mut Tally) -> bool {
        let twice = self.weather.duplicates > 0 && rng.random_ratio(self.weather.duplicates, 1000);
        if twice {
            tally.acted(FaultKind::Duplicate);
        }
        twice
    }
}
