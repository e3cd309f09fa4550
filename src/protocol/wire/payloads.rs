//! Messages about payloads: who holds which, and the questions that are answered by their bytes.

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, ContentHash};
use crate::version::VersionId;

/// A version of a blob, as receipts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// The blob.
    pub id: BlobId,
    /// The version.
    pub version: VersionId,
}

/// Receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// What the sender holds durably.
    pub receipts: Vec<Receipt>,
}

/// Asks for a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The payload.
    pub hash: ContentHash,
}

/// Whether the sender holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldsAnswer {
    /// Durably.
    pub holds: bool,
}

/// Asks a holder for a range of one payload, encoded with its hash tree. Answered by bytes, not JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadRequest {
    /// The payload.
    pub hash: ContentHash,
    /// Where to begin, in bytes: a multiple of [`crate::parts::GROUP`].
    pub offset: u64,
    /// Where to end: a multiple of it too, or the end of the payload.
    pub end: u64,
}

/// Asks a holder for several small payloads. Answered by a frame for each, in the order asked: its length (4 bytes, big-endian; all ones
/// if the holder lacks it), its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadsRequest {
    /// The payloads, at most [`crate::transfer::MAX_BATCH`].
    pub hashes: Vec<ContentHash>,
}
