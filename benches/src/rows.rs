//! The rows: which load, and what is wanted of it.

use crate::table::{Goal, Unit};

/// What is done in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Downloads of so many blobs of that size, in turn.
    Get { size: u64, blobs: usize },
    /// One client downloads a large one.
    GetLarge { size: u64 },
    /// Uploads of new blobs of that size.
    Put { size: u64 },
    /// One client uploads a large one.
    PutLarge { size: u64 },
}

/// What is smaller is uploaded in so many files that they are removed at the end only, and so few bytes that there is room for them.
pub(crate) const SMALL: u64 = MIB;

impl Work {
    /// Whether many small files are left by it.
    pub(crate) fn leaves_small_files(&self) -> bool {
        match *self {
            Self::Put { size } => size < SMALL,
            Self::Get { blobs, .. } => blobs > 1,
            Self::GetLarge { .. } | Self::PutLarge { .. } => false,
        }
    }
}

/// A row that is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) what: &'static str,
    pub(crate) work: Work,
    pub(crate) goal: Goal,
}

impl Plan {
    /// What it is counted in.
    pub(crate) fn unit(&self) -> Unit {
        match self.work {
            Work::Get { .. } | Work::Put { .. } => Unit::Requests,
            Work::GetLarge { .. } | Work::PutLarge { .. } => Unit::Bytes,
        }
    }

    /// Whose figures stand beside it.
    pub(crate) fn peer(&self) -> &'static str {
        match self.work {
            Work::Get { .. } | Work::GetLarge { .. } => "nginx",
            Work::Put { .. } => "nginx, not durable,",
            Work::PutLarge { .. } => "dd conv=fsync",
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn get(what: &'static str, size: u64, blobs: usize, goal: f64) -> Plan {
    Plan { what, work: Work::Get { size, blobs }, goal: Goal::OfPeer(goal) }
}

const fn put(what: &'static str, size: u64, goal: f64, garage: f64) -> Plan {
    Plan { what, work: Work::Put { size }, goal: Goal::OfGarage(goal, garage) }
}

/// All of them. What Garage 2.5 reached (LMDB, fsync on) was measured once on a machine of this kind with two processors.
pub(crate) const ROWS: [Plan; 10] = [
    get("GET 1 KiB", KIB, 1, 0.75),
    get("GET 1 KiB, 10,000 blobs in turn", KIB, 10_000, 0.75),
    get("GET 16 KiB", 16 * KIB, 1, 0.5),
    get("GET 64 KiB", 64 * KIB, 1, 0.7),
    get("GET 1 MiB", MIB, 1, 0.8),
    Plan { what: "GET 1 GiB, one client", work: Work::GetLarge { size: GIB }, goal: Goal::OfPeer(1.5) },
    put("PUT 1 KiB, durable", KIB, 10.0, 1400.0),
    put("PUT 64 KiB, durable", 64 * KIB, 4.0, 370.0),
    put("PUT 1 MiB, durable", MIB, 1.4, 230.0),
    Plan { what: "PUT 1 GiB, durable, one client", work: Work::PutLarge { size: GIB }, goal: Goal::OfPeer(0.9) },
];
