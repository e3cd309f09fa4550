//! Messages by which a newcomer takes the records of others.

use serde::{Deserialize, Serialize};

use super::{BadMessage, Entry, SNAPSHOT_PAGE, at_most, validate_each};
use crate::ids::BlobId;

/// Asks for the records of some partitions, in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The first partition.
    pub first: u8,
    /// The last partition.
    pub last: u8,
    /// Go on behind the record of this GUID; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<BlobId>,
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAnswer {
    /// At most [`SNAPSHOT_PAGE`].
    pub give: Vec<Entry>,
    /// The last record looked at, to go on behind it. Absent at the end of the last partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BlobId>,
}

impl SnapshotRequest {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        if self.first <= self.last { Ok(()) } else { Err(BadMessage::Unordered) }
    }
}

impl SnapshotAnswer {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.give.len(), SNAPSHOT_PAGE)?;
        validate_each(&self.give)
    }
}
