//! Faults: which kinds a seed has, and how often each acted.
//!
//! Swarm testing (Groce et al., ISSTA 2012): not every seed has every fault, since one kind can hide what another would show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::network::{Latency, Weather};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A request never arrived.
    LostRequest,
    /// A request arrived, its answer never did.
    LostAnswer,
    /// A request arrived twice.
    Duplicate,
    /// A message overtook another.
    Reorder,
    /// A message was stopped by a cut of one direction.
    OneWayCut,
    /// A message was stopped by a partition.
    Partition,
    /// A process was killed; what waited for the disk reached it, or some of it.
    CrashKeeping,
    /// A process was killed, and what waited for the disk was lost.
    CrashLosing,
    /// The disk refused a persist: the core ended and was built anew.
    DiskFault,
    /// A disk took long to sync.
    SlowDisk,
    /// A killed or stopped node started again.
    Restart,
    /// A node ran with a wrong clock.
    ClockSkew,
    /// A node's clock jumped.
    ClockJump,
    /// A new node joined.
    Join,
    /// A node left gracefully.
    Leave,
    /// A holder sent bytes that are not what was asked for.
    WrongBytes,
    /// A holder went silent in the middle of a transfer.
    BrokenTransfer,
    /// The bootstrap node did not answer.
    BootstrapDown,
    /// A host's messages took many times as long, both ways.
    SlowHost,
    /// A clock went wrong by more than a tenth of a second by its rate.
    ClockDrift,
    /// A process was stopped for seconds, and handled then at once what had come meanwhile.
    Pause,
    /// A node came back under another address: a call went to the old one, where nobody is any more, or somebody else.
    NewAddress,
    /// Hundreds of writes came to one node at once.
    Flood,
    /// A node came back after years, as the clocks on the walls have it.
    YearsAway,
    /// Two nodes that could not reach each other founded a message history each.
    TwoFounders,
    /// A node's disk was put back to an earlier state of its own.
    RestoredDisk,
    /// A second node was started on a copy of a disk.
    CopiedDisk,
    /// The bytes of a payload rotted on a disk, and that was found.
    RottenByte,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::LostRequest,
        Self::LostAnswer,
        Self::Duplicate,
        Self::Reorder,
        Self::OneWayCut,
        Self::Partition,
        Self::CrashKeeping,
        Self::CrashLosing,
        Self::DiskFault,
        Self::SlowDisk,
        Self::Restart,
        Self::ClockSkew,
        Self::ClockJump,
        Self::Join,
        Self::Leave,
        Self::WrongBytes,
        Self::BrokenTransfer,
        Self::BootstrapDown,
        Self::SlowHost,
        Self::ClockDrift,
        Self::Pause,
        Self::NewAddress,
        Self::Flood,
        Self::YearsAway,
        Self::TwoFounders,
        Self::RestoredDisk,
        Self::CopiedDisk,
        Self::RottenByte,
    ];

    /// As it is named in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostRequest => "lost-request",
            Self::LostAnswer => "lost-answer",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::OneWayCut => "one-way-cut",
            Self::Partition => "partition",
            Self::CrashKeeping => "crash-keeping",
            Self::CrashLosing => "crash-losing",
            Self::DiskFault => "disk-fault",
            Self::SlowDisk => "slow-disk",
            Self::Restart => "restart",
            Self::ClockSkew => "clock-skew",
            Self::ClockJump => "clock-jump",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::WrongBytes => "wrong-bytes",
            Self::BrokenTransfer => "broken-transfer",
            Self::BootstrapDown => "bootstrap-down",
            Self::SlowHost => "slow-host",
            Self::ClockDrift => "clock-drift",
            Self::Pause => "pause",
            Self::NewAddress => "new-address",
            Self::Flood => "flood",
            Self::YearsAway => "years-away",
            Self::TwoFounders => "two-founders",
            Self::RestoredDisk => "restored-disk",
            Self::CopiedDisk => "copied-disk",
            Self::RottenByte => "rotten-byte",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind acted: not how often it was tried, but how often it made a difference to somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<FaultKind, u64>,
}

impl Tally {
    pub(crate) fn acted(&mut self, kind: FaultKind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// How often that kind acted.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// How many kinds acted.
    pub fn kinds(&self) -> usize {
        self.counts.len()
    }

    /// Adds what acted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.counts {
            *self.counts.entry(*kind).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// What a seed has in store.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) on: BTreeSet<FaultKind>,
    pub(crate) weather: Weather,
    /// Usual time of an fsync, in microseconds.
    pub(crate) fsync: u64,
    /// What handling a message takes; nothing if not said.
    pub(crate) cpu: Option<Cpu>,
}

/// What handling a message takes of a host that does one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Microseconds for each.
    pub per_message: u64,
    /// Bytes of JSON read, checked and written in a microsecond.
    pub bytes_per_micro: u64,
}

/// At least so many kinds are on in every seed.
const FEWEST_KINDS: usize = 6;

impl Plan {
    /// No faults.
    pub(crate) fn calm() -> Self {
        Self { on: BTreeSet::new(), weather: Weather::FAIR, fsync: 2000, cpu: None }
    }

    /// Draws what is on and how bad it is.
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut on: BTreeSet<FaultKind> = FaultKind::ALL.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        while on.len() < FEWEST_KINDS {
            on.insert(FaultKind::ALL[rng.random_range(0..FaultKind::ALL.len())]);
        }
        let mut chance = |kind: FaultKind, worst: u32| if on.contains(&kind) { rng.random_range(5..worst) } else { 0 };
        let lost_requests = chance(FaultKind::LostRequest, 200);
        let lost_answers = chance(FaultKind::LostAnswer, 200);
        let duplicates = chance(FaultKind::Duplicate, 300);
        let stragglers = chance(FaultKind::Reorder, 200);
        let fastest = rng.random_range(100..20_000);
        let latency = match rng.random_range(0..3) {
            _ if !on.contains(&FaultKind::Reorder) => Latency::Constant(fastest),
            0 => Latency::LongTail(fastest),
            _ => Latency::Uniform(fastest, fastest * 10),
        };
        let weather = Weather { latency, stragglers, lost_requests, lost_answers, duplicates, bandwidth: None };
        // From a good disk to one that is slower than the network, where what must not leave too early waits long.
        let fsync = [500, 5000, 50_000, 200_000][rng.random_range(0..4_usize)];
        Self { on, weather, fsync, cpu: None }
    }

    pub(crate) fn has(&self, kind: FaultKind) -> bool {
        self.on.contains(&kind)
    }
}
