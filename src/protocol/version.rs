//! A version: one write of one blob.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{BadName, ContentHash, NodeId, Sha256Digest, text_serde};
use crate::stamp::Stamp;
use crate::vector_clock::VectorClock;

/// Longest media type and file name of a payload, in bytes. File systems stop at 255; the rest is headroom for other scripts.
pub const MAX_TEXT: usize = 1024;

/// The name of one version of a blob: `<stamp in hex>.<origin>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// When it was written, on the hybrid clock of its origin.
    pub stamp: Stamp,
    /// Who wrote it.
    pub origin: NodeId,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stamp, self.origin)
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VersionId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::version(text);
        let (stamp, origin) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self { stamp: stamp.parse().map_err(|_| bad())?, origin: origin.parse().map_err(|_| bad())? })
    }
}

text_serde!(VersionId);

/// What a version says its blob is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Option<Payload>", into = "Option<Payload>")]
pub enum Content {
    /// Deleted.
    Tombstone,
    /// These bytes.
    Payload(Payload),
}

impl Content {
    /// The payload, unless this is a tombstone.
    pub fn payload(&self) -> Option<&Payload> {
        match self {
            Self::Payload(payload) => Some(payload),
            Self::Tombstone => None,
        }
    }
}

impl From<Option<Payload>> for Content {
    fn from(payload: Option<Payload>) -> Self {
        payload.map_or(Self::Tombstone, Self::Payload)
    }
}

impl From<Content> for Option<Payload> {
    fn from(content: Content) -> Self {
        match content {
            Content::Tombstone => None,
            Content::Payload(payload) => Some(payload),
        }
    }
}

/// The description of a payload, as its uploader gave it and as it was measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Payload {
    /// BLAKE3 of the bytes.
    pub hash: ContentHash,
    /// SHA-256 of the bytes.
    pub sha256: Sha256Digest,
    /// Length in bytes.
    pub size: u64,
    /// Media type, at most [`MAX_TEXT`] bytes.
    pub media_type: String,
    /// File name, at most [`MAX_TEXT`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// One write of one blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// When it was written, on the hybrid clock of its origin.
    pub stamp: Stamp,
    /// Who wrote it.
    pub origin: NodeId,
    /// The bytes, or a tombstone.
    pub content: Content,
    /// What its writer had seen of this blob, this write included.
    pub clock: VectorClock,
}

/// Why a version from outside is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its stamp must be its origin's entry in its clock.
    #[error("the stamp of a version is not its origin's entry in its clock")]
    StampNotInClock,
    /// What it covers must be older than it is.
    #[error("the stamp of a version is not the greatest entry of its clock")]
    StampNotGreatest,
    /// It must be writable by RFC 3339.
    #[error("the stamp of a version lies beyond the year 9999")]
    StampBeyondEnd,
    /// Media type or file name beyond [`MAX_TEXT`].
    #[error("the media type or file name of a version is longer than {MAX_TEXT} bytes")]
    TextTooLong,
    /// A control character in a media type or file name: nobody can type it, and it takes six bytes of JSON.
    #[error("the media type or file name of a version has a control character")]
    ControlCharacter,
    /// A record without versions says nothing.
    #[error("a record has no version")]
    NoVersion,
    /// Beyond [`crate::record::MAX_BYTES`].
    #[error("a record is larger than 1 MiB")]
    RecordTooLarge,
}

impl Version {
    /// Its name.
    pub fn id(&self) -> VersionId {
        VersionId { stamp: self.stamp, origin: self.origin }
    }

    /// Whether this version replaces `other`: its writer had seen it.
    ///
    /// Equal clocks come from a cloned disk; then the greater content replaces, so that every node keeps the same one.
    pub fn dominates(&self, other: &Self) -> bool {
        match self.clock.causal_cmp(&other.clock) {
            Some(std::cmp::Ordering::Greater) => true,
            Some(std::cmp::Ordering::Equal) => (&self.content, self.id()) > (&other.content, other.id()),
            Some(std::cmp::Ordering::Less) | None => false,
        }
    }

    /// Checks what must hold of every version, whoever sent it.
    pub fn validate(&self) -> Result<(), Malformed> {
        if self.clock.entry(self.origin) != self.stamp {
            return Err(Malformed::StampNotInClock);
        }
        if self.clock.iter().any(|(node, stamp)| node != self.origin && stamp >= self.stamp) {
            return Err(Malformed::StampNotGreatest);
        }
        if self.stamp >= Stamp::END {
            return Err(Malformed::StampBeyondEnd);
        }
        let Some(payload) = self.content.payload() else { return Ok(()) };
        for text in std::iter::once(&payload.media_type).chain(&payload.file_name) {
            if text.len() > MAX_TEXT {
                return Err(Malformed::TextTooLong);
            }
            if text.chars().any(char::is_control) {
                return Err(Malformed::ControlCharacter);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_version_reads_back_as_it_was_written() {
        let version = VersionId { stamp: Stamp(77), origin: NodeId::from_public_key(&[1; 32]) };
        assert_eq!(version.to_string().parse(), Ok(version));
        assert!("77.x".parse::<VersionId>().is_err());
    }
}
