//! The simulated network: what becomes of a message between two hosts.
//!
//! 1. A message is lost, or arrives after a latency drawn for it alone, so that messages overtake each other.
//! 2. A cut stops every message of the direction it covers; messages under way when it begins still arrive.
//! 3. Where a bandwidth is set, the messages of a host leave it one after the other.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::faults::{FaultKind, Tally};

/// How long messages take, one way, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// All the same.
    Constant(u64),
    /// Anything from the first to the second.
    Uniform(u64, u64),
    /// Half of them at most this long, one in a hundred fifty times as long: a Pareto distribution of shape 1, cut at both ends.
    LongTail(u64),
}

impl Latency {
    fn draw(self, rng: &mut ChaCha8Rng) -> u64 {
        match self {
            Self::Constant(time) => time,
            Self::Uniform(fastest, slowest) if slowest > fastest => rng.random_range(fastest..slowest),
            Self::Uniform(fastest, _) => fastest,
            Self::LongTail(median) => median * 500 / rng.random_range(10..=1000_u64),
        }
    }

    /// The shortest.
    fn fastest(self) -> u64 {
        match self {
            Self::Constant(fastest) | Self::Uniform(fastest, _) => fastest,
            Self::LongTail(median) => median / 2,
        }
    }

    fn is_constant(self) -> bool {
        matches!(self, Self::Constant(_))
    }
}

/// How the network behaves all the time. Chances in thousandths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) latency: Latency,
    /// One message in a thousand times this takes ten times as long.
    pub(crate) stragglers: u32,
    pub(crate) lost_requests: u32,
    pub(crate) lost_answers: u32,
    pub(crate) duplicates: u32,
    /// Bytes that a host sends in a microsecond; no limit if there is none.
    pub(crate) bandwidth: Option<u64>,
}

impl Weather {
    /// Nothing is lost, nothing overtakes.
    pub(crate) const FAIR: Self =
        Self { latency: Latency::Constant(1000), stragglers: 0, lost_requests: 0, lost_answers: 0, duplicates: 0, bandwidth: None };
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

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parcel {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) half: Half,
    /// What it weighs; looked at only where there is a bandwidth.
    pub(crate) bytes: u64,
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
    /// The latest arrival so far, for each direction; kept where messages can overtake each other.
    latest: BTreeMap<(usize, usize), u64>,
    /// Hosts whose every message takes so many times as long.
    slow: BTreeMap<usize, u64>,
    /// When what a host sends now leaves it.
    uplinks: BTreeMap<usize, u64>,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        let (cuts, latest, slow, uplinks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { weather, cuts, next_cut: 0, latest, slow, uplinks }
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

    /// From now on every message of that host takes `times` as long; as usual again with `None`.
    pub(crate) fn slow_down(&mut self, host: usize, times: Option<u64>) {
        match times {
            Some(times) => drop(self.slow.insert(host, times)),
            None => drop(self.slow.remove(&host)),
        }
    }

    /// From now on everything arrives.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        let fastest = self.weather.latency.fastest();
        self.weather = Weather { latency: Latency::Uniform(fastest, fastest * 2), ..Weather::FAIR };
    }

    /// When a message sent now arrives; `None` if it never does.
    pub(crate) fn carry(&mut self, parcel: Parcel, now: u64, rng: &mut ChaCha8Rng, tally: &mut Tally) -> Option<u64> {
        let Parcel { from, to, half, bytes } = parcel;
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
        let mut latency = self.latency(rng);
        if !self.slow.is_empty()
            && let Some(times) = [from, to].iter().filter_map(|host| self.slow.get(host)).max()
        {
            latency *= times;
            tally.acted(FaultKind::SlowHost);
        }
        let arrival = self.leaves(from, bytes, now) + latency;
        if self.weather.stragglers > 0 || !self.weather.latency.is_constant() {
            let latest = self.latest.entry((from, to)).or_default();
            if arrival < *latest {
                tally.acted(FaultKind::Reorder);
            }
            *latest = arrival.max(*latest);
        }
        Some(arrival)
    }

    /// When the last byte has left the host.
    fn leaves(&mut self, from: usize, bytes: u64, now: u64) -> u64 {
        let Some(bandwidth) = self.weather.bandwidth else { return now };
        let free = self.uplinks.entry(from).or_default();
        *free = now.max(*free) + bytes / bandwidth;
        *free
    }

    fn latency(&self, rng: &mut ChaCha8Rng) -> u64 {
        let usual = self.weather.latency.draw(rng);
        let stragglers = self.weather.stragglers;
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
