//! The names of things: nodes, blobs, payloads. (A version's name is made of its stamp: see [`crate::version`].)
//!
//! Every name has exactly one spelling, so that two nodes never hold the same thing under two names: GUIDs are lower-case and
//! hyphenated, hashes lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A name that is not spelled as its kind demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct BadName {
    found: String,
    expected: &'static str,
}

impl BadName {
    /// Quotes at most 80 characters of what was found: names come from strangers.
    fn new(found: &str, expected: &'static str) -> Self {
        Self { found: found.chars().take(80).collect(), expected }
    }
}

const GUID: &str = "a GUID of 32 lower-case hexadecimal digits in groups of 8-4-4-4-12, such as 67e55044-10b1-426f-9247-bb680e5fe0c8";

fn parse_guid(text: &str) -> Result<Uuid, BadName> {
    let bad = || BadName::new(text, GUID);
    let uuid = Uuid::try_parse(text).map_err(|_| bad())?;
    // The parser also takes braces, URNs, capitals and no hyphens; one blob has one URL.
    if uuid.as_hyphenated().to_string() == text { Ok(uuid) } else { Err(bad()) }
}

/// The identity of a node: a version 8 UUID made from its public key, stable over restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub Uuid);

impl NodeId {
    /// The node id of `public_key`: a UUID of version 8 from the first 16 bytes of its BLAKE3 hash (RFC 9562 section 5.8).
    pub fn from_public_key(public_key: &[u8; 32]) -> Self {
        let hash = blake3::hash(public_key);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// The GUID under which a blob is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub Uuid);

macro_rules! guid {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                parse_guid(text).map(Self)
            }
        }

        text_serde!($name);
    };
}

/// Serialises as the text of `Display`, reads by `FromStr`.
macro_rules! text_serde {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

guid!(NodeId);
guid!(BlobId);

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let bad = || BadName::new(text, $expected);
                let digits = text.as_bytes();
                if digits.len() != 64 {
                    return Err(bad());
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = nibble(pair[0]).zip(nibble(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(bad)?;
                }
                Ok(Self(bytes))
            }
        }

        text_serde!($name);
    };
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

digest! {
    /// The BLAKE3 hash of a payload: its name.
    ContentHash, "a BLAKE3 hash of 64 lower-case hexadecimal digits"
}

digest! {
    /// The SHA-256 of a payload, which clients know how to check (RFC 9530).
    Sha256Digest, "a SHA-256 digest of 64 lower-case hexadecimal digits"
}

digest! {
    /// The Ed25519 public key of a node, which its id is made from.
    PublicKey, "a public key of 64 lower-case hexadecimal digits"
}

impl ContentHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 16 bytes, which the entity tag shows.
    pub fn tag(&self) -> [u8; 16] {
        let mut tag = [0; 16];
        tag.copy_from_slice(&self.0[..16]);
        tag
    }
}

impl BadName {
    pub(crate) fn stamp(found: &str) -> Self {
        Self::new(found, "a stamp of 16 lower-case hexadecimal digits")
    }

    pub(crate) fn message(found: &str) -> Self {
        Self::new(found, "a message, written c<sequence>.<node id> or o<sequence>.<node id>")
    }

    pub(crate) fn version(found: &str) -> Self {
        Self::new(found, "a version, written <stamp in 16 hexadecimal digits>.<node id>")
    }
}

pub(crate) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|digit| nibble(digit).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_has_one_spelling() {
        assert!("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<BlobId>().is_ok());
        for other in
            ["67E55044-10B1-426F-9247-BB680E5FE0C8", "67e5504410b1426f9247bb680e5fe0c8", "{67e55044-10b1-426f-9247-bb680e5fe0c8}", "x", ""]
        {
            assert!(other.parse::<BlobId>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_node_id_is_a_version_8_uuid_of_the_key() {
        let id = NodeId::from_public_key(&[7; 32]);
        assert_eq!(id.0.get_version_num(), 8);
        assert_eq!(id, NodeId::from_public_key(&[7; 32]));
        assert_ne!(id, NodeId::from_public_key(&[8; 32]));
    }

    #[test]
    fn names_read_back_as_they_were_written() {
        let hash = ContentHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!(hash.to_string().to_uppercase().parse::<ContentHash>().is_err());
        assert!("é".repeat(32).parse::<ContentHash>().is_err());
    }
}
