//! The JSON of a node's public routes, as far as the commands read it. Unknown fields are ignored, so that an older command line works
//! with a newer node.

use gossip_cdn_protocol::{BlobId, ContentHash, NodeId, VersionId};
use serde::Deserialize;

/// A blob described: the answer to an upload, an entry of a list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Described {
    pub(crate) id: BlobId,
    pub(crate) url: Option<String>,
    pub(crate) size: Option<u64>,
    pub(crate) media_type: Option<String>,
    pub(crate) file_name: Option<String>,
    pub(crate) blake3: Option<ContentHash>,
    pub(crate) created: Option<String>,
    /// On how many nodes it is durable, where fewer than asked.
    pub(crate) copies: Option<u64>,
}

/// A page of `GET /blobs`; the entries stay as they came, for `--json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Page {
    pub(crate) blobs: Vec<serde_json::Value>,
    pub(crate) next: Option<String>,
}

/// `GET /blobs/{id}/versions`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Versions {
    pub(crate) winner: VersionId,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    pub(crate) versions: Vec<ListedVersion>,
}

/// One live version.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ListedVersion {
    pub(crate) version: VersionId,
    #[serde(default)]
    pub(crate) deleted: bool,
    pub(crate) size: Option<u64>,
    pub(crate) etag: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) file_name: Option<String>,
    pub(crate) blake3: Option<ContentHash>,
}

/// `GET /blobs/{id}/holders`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Holders {
    pub(crate) version: VersionId,
    pub(crate) holders: Vec<Holder>,
    pub(crate) asked: u64,
    pub(crate) members: u64,
}

/// A node that holds a payload.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Holder {
    pub(crate) id: NodeId,
    pub(crate) address: String,
}

/// `GET /members`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Members {
    pub(crate) members: Vec<ListedMember>,
}

/// A member as a node sees it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ListedMember {
    pub(crate) id: NodeId,
    pub(crate) address: String,
    pub(crate) state: String,
    pub(crate) incarnation: u64,
    #[serde(default)]
    pub(crate) last_seen: Option<String>,
}

/// An RFC 9457 problem.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Problem {
    #[serde(default)]
    pub(crate) title: Option<String>,
    #[serde(default)]
    pub(crate) detail: Option<String>,
}
