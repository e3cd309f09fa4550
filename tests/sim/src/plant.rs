//! Planted bugs, put in on purpose, that the swarm must find.
//!
//! Some sit around the core: a store that forgets, a driver that lies, a wire that cuts. The others are mutations of the core itself
//! ([`gossip_cdn_protocol::planted`]), which only a build with `--cfg planted` has.

use std::fmt;
use std::str::FromStr;

use gossip_cdn_protocol::planted::{self, Bug};

use crate::report::simulate;
use crate::world::Settings;

/// A planted bug must show within so many seeds. Nearly all do within ten. The rarest need a crash between the row of a payload and its file, or a
/// Commit for a voter that missed its batch and holds another: one seed in a hundred has them.
pub const ENOUGH: u64 = 500;

/// A bug put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The disk reports a persist as durable when it is queued.
    AckBeforePersist,
    /// The disk keeps the winner of a record and drops its siblings.
    OneSibling,
    /// The wire carries the winner of a record and drops its siblings.
    SiblingsStayHome,
    /// The driver drops tombstones on their way to the disk and reports them as durable.
    DropTombstones,
    /// Tombstones are collected at the next start.
    CollectTombstones,
    /// Payloads are reported as fetched without their bytes.
    FetchedWithoutBytes,
    /// Bytes from a holder are stored without looking at their hash.
    UnverifiedBytes,
    /// Of two changes of one record that wait for the disk together the later is lost.
    LostUpdate,
    /// The bytes of a covered version are deleted before those of the covering version are here.
    EarlyCollection,
    /// The store says that it holds every payload.
    HoldsEverything,
    /// A node starts again with the incarnation it had.
    SameIncarnation,
    /// A payload's row is durable before its file.
    RowBeforeFile,
    /// What came of a payload before its transfer ended early is taken for the whole.
    PartTakenForWhole,
    /// A core whose identity has ended is followed by one with the same key, that does not listen any more.
    OldKey,
    /// Bytes that are found rotten count as here.
    RotIgnored,
    /// A mutation of the core.
    Core(Bug),
}

impl Plant {
    /// Those around the core.
    const AROUND: [Self; 15] = [
        Self::AckBeforePersist,
        Self::OneSibling,
        Self::SiblingsStayHome,
        Self::DropTombstones,
        Self::CollectTombstones,
        Self::FetchedWithoutBytes,
        Self::UnverifiedBytes,
        Self::LostUpdate,
        Self::EarlyCollection,
        Self::HoldsEverything,
        Self::SameIncarnation,
        Self::RowBeforeFile,
        Self::PartTakenForWhole,
        Self::OldKey,
        Self::RotIgnored,
    ];

    /// All that this build can put in.
    pub fn all() -> Vec<Self> {
        let core = Bug::ALL.into_iter().filter(|_| planted::POSSIBLE).map(Self::Core);
        Self::AROUND.into_iter().chain(core).collect()
    }

    /// The mutation of the core, if it is one.
    pub(crate) fn of_core(self) -> Option<Bug> {
        match self {
            Self::Core(bug) => Some(bug),
            Self::AckBeforePersist
            | Self::OneSibling
            | Self::SiblingsStayHome
            | Self::DropTombstones
            | Self::CollectTombstones
            | Self::FetchedWithoutBytes
            | Self::UnverifiedBytes
            | Self::LostUpdate
            | Self::EarlyCollection
            | Self::HoldsEverything
            | Self::SameIncarnation
            | Self::RowBeforeFile
            | Self::PartTakenForWhole
            | Self::OldKey
            | Self::RotIgnored => None,
        }
    }

    /// The first seed that notices it, and by what; `None` if [`ENOUGH`] seeds do not.
    pub fn caught(self) -> Option<(u64, String)> {
        let settings = Settings { plant: Some(self), ..Settings::default() };
        // A seed in which too little happened has noticed nothing.
        let noticed = |seed| Some((seed, simulate(seed, &settings).failure.filter(|failure| !failure.starts_with("invalid"))?));
        (1..=ENOUGH).find_map(noticed)
    }

    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforePersist => "ack-before-persist",
            Self::OneSibling => "one-sibling",
            Self::SiblingsStayHome => "siblings-stay-home",
            Self::DropTombstones => "drop-tombstones",
            Self::CollectTombstones => "collect-tombstones",
            Self::FetchedWithoutBytes => "fetched-without-bytes",
            Self::UnverifiedBytes => "unverified-bytes",
            Self::LostUpdate => "lost-update",
            Self::EarlyCollection => "early-collection",
            Self::HoldsEverything => "holds-everything",
            Self::SameIncarnation => "same-incarnation",
            Self::RowBeforeFile => "row-before-file",
            Self::PartTakenForWhole => "part-taken-for-whole",
            Self::OldKey => "old-key",
            Self::RotIgnored => "rot-ignored",
            Self::Core(bug) => bug.name(),
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::all().into_iter().map(Self::name).collect::<Vec<_>>().join(", ");
        let hint = if planted::POSSIBLE { "" } else { "; those of the core need RUSTFLAGS='--cfg planted'" };
        Self::all().into_iter().find(|plant| plant.name() == text).ok_or_else(|| format!("no such bug; there are: {}{hint}", names()))
    }
}
