//! A blob as programs read it, and its links.

use std::time::{Duration, SystemTime};

use actix_web::HttpRequest;
use actix_web::http::header;
use gossip_cdn_protocol::member::is_base_url;
use gossip_cdn_protocol::{BlobId, Payload, Stamp, VersionId};
use serde::Serialize;
use utoipa::ToSchema;

use super::conditional::entity_tag;

/// A blob described.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Described {
    /// Its GUID.
    id: String,
    /// Its link at this node.
    url: String,
    /// Its winner.
    version: String,
    /// The winner's entity tag; absent of a deleted blob, like all that follows but `created`.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// File name, if it has one.
    file_name: Option<String>,
    /// BLAKE3 of the bytes, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    blake3: Option<String>,
    /// SHA-256 of the bytes, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// When that version was written.
    created: String,
    /// Present and true of a deleted blob.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    /// Present and true of a blob with concurrent versions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    conflict: bool,
    /// On how many nodes it is known to be durable; where `?copies` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<usize>,
}

impl Described {
    /// Describes one version of a blob; `origin` is the base of its link.
    pub(super) fn new(origin: &str, blob: BlobId, version: VersionId, payload: Option<&Payload>) -> Self {
        Self {
            id: blob.to_string(),
            url: link(origin, blob),
            version: version.to_string(),
            etag: payload.map(|payload| entity_tag(&payload.hash)),
            size: payload.map(|payload| payload.size),
            media_type: payload.map(|payload| payload.media_type.clone()),
            file_name: payload.and_then(|payload| payload.file_name.clone()),
            blake3: payload.map(|payload| payload.hash.to_string()),
            sha256: payload.map(|payload| payload.sha256.to_string()),
            created: rfc3339(version.stamp),
            deleted: payload.is_none(),
            conflict: false,
            copies: None,
        }
    }

    /// Says on how many nodes it is known to be durable, if that was asked.
    pub(super) fn copies(self, copies: Option<usize>) -> Self {
        Self { copies, ..self }
    }

    /// Says whether it has concurrent versions.
    pub(super) fn conflict(self, conflict: bool) -> Self {
        Self { conflict, ..self }
    }

    /// Its link.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What to call it.
    pub(super) fn name(&self) -> &str {
        self.file_name.as_deref().unwrap_or(&self.id)
    }

    /// Its size, if it has any.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// When its version was written.
    pub(super) fn created(&self) -> &str {
        &self.created
    }
}

/// The link of a blob.
pub(super) fn link(origin: &str, blob: BlobId) -> String {
    format!("{origin}/blobs/{blob}")
}

/// The base URL under which the client sees this node: that of its `Host`, or the node's own address where there is none to use.
pub(super) fn origin_of(request: &HttpRequest, own: &str) -> String {
    let target = request.uri().authority().map(|authority| authority.as_str());
    let host = target.or_else(|| request.headers().get(header::HOST).and_then(|host| host.to_str().ok()));
    host.map(|host| format!("http://{host}")).filter(|origin| is_base_url(origin)).unwrap_or_else(|| own.to_owned())
}

/// When a stamp was made, as RFC 3339 has it.
pub(super) fn rfc3339(stamp: Stamp) -> String {
    // Stamps end with the year 9999, so the sum neither overflows nor lies beyond what the format can write.
    millis(stamp.min(Stamp(Stamp::END.0 - 1)).wall().0)
}

/// Milliseconds since 1970, as RFC 3339 has them.
pub(super) fn millis(wall: u64) -> String {
    let most = Stamp::END.wall().0 - 1;
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(wall.min(most))).to_string()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use gossip_cdn_protocol::WallTime;

    use super::*;

    #[test]
    fn links_are_under_the_host_of_the_request() {
        let own = "http://10.0.0.1:7701";
        let origin = |host: &str| origin_of(&TestRequest::get().insert_header((header::HOST, host)).to_http_request(), own);
        assert_eq!(origin("localhost:7701"), "http://localhost:7701");
        assert_eq!(origin("[::1]:7701"), "http://[::1]:7701");
        assert_eq!(origin("a/b"), own);
        assert_eq!(origin("a\"><script>"), own);
    }

    #[test]
    fn times_are_rfc_3339_to_the_end_of_the_calendar() {
        assert_eq!(rfc3339(Stamp::at(WallTime(784_111_777_500))), "1994-11-06T08:49:37.500Z");
        assert_eq!(rfc3339(Stamp(u64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(millis(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
