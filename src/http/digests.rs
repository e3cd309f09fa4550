//! Digest fields (RFC 9530): `Content-Digest` and `Repr-Digest`, dictionaries of byte sequences.
//!
//! An upload's representation is its content, so both fields say the same thing of it. Algorithms other than `sha-256` are ignored.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gossip_cdn_protocol::Sha256Digest;

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
pub(super) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// A digest field whose `sha-256` is not a byte sequence of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The digests that what arrives must have: those of both fields, at most two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected(Vec<Sha256Digest>);

impl Expected {
    /// Whether nothing was demanded.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what arrived is what was meant.
    pub(super) fn is_met_by(&self, found: Sha256Digest) -> bool {
        self.0.iter().all(|expected| *expected == found)
    }
}

/// Reads both fields.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, Malformed> {
    let mut digests = Vec::new();
    for (name, shown) in [(CONTENT_DIGEST, "Content-Digest"), (REPR_DIGEST, "Repr-Digest")] {
        let mut last = None;
        for line in headers.get_all(&name) {
            let line = line.to_str().map_err(|_| Malformed(shown))?;
            // Of a key that comes twice the last value counts (RFC 9651 section 3.2).
            last = sha256_of(line).map_err(|()| Malformed(shown))?.or(last);
        }
        digests.extend(last);
    }
    Ok(Expected(digests))
}

fn sha256_of(line: &str) -> Result<Option<Sha256Digest>, ()> {
    let mut found = None;
    // Base64 knows neither comma nor semicolon, so both can be split at.
    for member in line.split(',') {
        let (key, value) = member.split_once('=').unwrap_or((member, ""));
        if key.trim() != "sha-256" {
            continue;
        }
        let item = value.split(';').next().unwrap_or_default().trim();
        let encoded = item.strip_prefix(':').and_then(|item| item.strip_suffix(':')).ok_or(())?;
        let bytes = STANDARD.decode(encoded).map_err(|_| ())?;
        found = Some(Sha256Digest(bytes.try_into().map_err(|_| ())?));
    }
    Ok(found)
}

/// The value of `Repr-Digest` for a payload.
pub(super) fn value(digest: &Sha256Digest) -> HeaderValue {
    let text = format!("sha-256=:{}:", STANDARD.encode(digest.0));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Expected, Malformed> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_DIGEST, HeaderValue::from_str(line).unwrap());
        }
        expected(&headers)
    }

    #[test]
    fn what_is_sent_is_read_back() {
        let digest = Sha256Digest([7; 32]);
        let sent = value(&digest);
        let sent = sent.to_str().unwrap();
        assert!(sent.starts_with("sha-256=:Bw") && sent.ends_with("=:"), "{sent}");
        assert_eq!(read(&[sent]), Ok(Expected(vec![digest])));
        assert_eq!(read(&[&format!("sha-512=:AAAA:, {sent};q=1")]), Ok(Expected(vec![digest])));
        assert_eq!(read(&["md5=:AAAA:", sent]), Ok(Expected(vec![digest])));
    }

    #[test]
    fn unknown_algorithms_are_ignored_and_a_malformed_one_is_refused() {
        assert_eq!(read(&[]), Ok(Expected::default()));
        assert_eq!(read(&["sha-512=:AAAA:, unixsum=3, crc32c"]), Ok(Expected::default()));
        for malformed in ["sha-256", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:!:", "sha-256=\"x\"", "sha-256=::"] {
            assert_eq!(read(&[malformed]), Err(Malformed("Content-Digest")), "{malformed}");
        }
    }

    #[test]
    fn both_fields_must_be_met() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DIGEST, value(&Sha256Digest([1; 32])));
        headers.insert(REPR_DIGEST, value(&Sha256Digest([2; 32])));
        let both = expected(&headers).unwrap();
        assert!(!both.is_met_by(Sha256Digest([1; 32])) && !both.is_met_by(Sha256Digest([2; 32])));
        assert!(Expected::default().is_met_by(Sha256Digest([1; 32])));
    }
}
