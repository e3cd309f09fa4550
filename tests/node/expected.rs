//! What the headers must say of given bytes, computed here and not asked of the node.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use gossip_cdn_cluster::{Answer, Node};

/// A GUID that no node has made.
pub const GUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
/// Its path.
pub const PATH: &str = "/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8";
/// A well-formed entity tag of no bytes there are.
pub const OTHER_TAG: &str = "\"b3-00000000000000000000000000000000\"";

/// `"b3-<first 32 hex digits of BLAKE3>"`.
pub fn etag(bytes: &[u8]) -> String {
    let hash: String = blake3::hash(bytes).to_hex().chars().take(32).collect();
    format!("\"b3-{hash}\"")
}

/// `sha-256=:<base64>:` (RFC 9530).
pub fn repr_digest(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that a text is `<stamp in hex>.<origin>`.
pub fn assert_version_of(version: &str, node: &Node) {
    let (stamp, origin) = version.split_once('.').unwrap_or_else(|| panic!("a version: {version:?}"));
    assert!(!stamp.is_empty() && stamp.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{version}");
    assert_eq!(origin, node.id());
}

/// Asserts that a text is a time as RFC 3339 has it, in UTC, of the last minutes.
pub fn assert_recent(time: &str) {
    assert!(time.ends_with('Z'), "UTC: {time}");
    let then = humantime::parse_rfc3339(time).unwrap_or_else(|fault| panic!("{time}: {fault}"));
    let now = std::time::SystemTime::now();
    let off = now.duration_since(then).unwrap_or_else(|ahead| ahead.duration());
    assert!(off.as_secs() < 600, "{time}");
}

/// The keys of a JSON object, sorted.
pub fn keys(object: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap_or_else(|| panic!("an object: {object}")).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The path of the one blob that an upload was answered with as a link.
pub fn path_of(answer: &Answer) -> String {
    assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text());
    let link = answer.text();
    let (_, path) = link.trim().strip_prefix("http://").and_then(|link| link.split_once('/')).unwrap();
    format!("/{path}")
}

/// One part of a form whose boundary is `B`.
pub fn part(headers: &str, body: &[u8]) -> Vec<u8> {
    [b"--B\r\nContent-Disposition: form-data; ", headers.as_bytes(), b"\r\n\r\n", body, b"\r\n"].concat()
}

/// A form of these parts.
pub fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], b"--B--\r\n"].concat()
}

/// Its content type.
pub const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=B");
/// What a program accepts.
pub const JSON: (&str, &str) = ("accept", "application/json");
