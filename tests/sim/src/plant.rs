//! Planted bugs: faults of a shell or a store, put in on purpose, that the swarm must find.
//!
//! They sit around the core, so that the core stays clean: a store that forgets, a driver that lies, a wire that cuts.

use std::fmt;
use std::str::FromStr;

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
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];

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
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|plant| plant.name() == text).ok_or_else(|| format!("no such bug; there are: {}", all()))
    }
}
