//! Records in bytes, as the rows of the table of records hold them.
//!
//! ```text
//! row      state hash (8), then the live versions, the winner first
//! version  stamp (8), origin (16), flags (1), clock, then the payload unless it is a tombstone
//! clock    number of entries, each node (16) and stamp (8); the origin's own is left out where it is the stamp, which it always is
//! payload  BLAKE3 (32), SHA-256 (32), size, media type, file name if there is one
//! ```
//!
//! Integers of fixed size are big-endian; numbers and lengths before texts are LEB128, seven bits a byte and the lowest first.
//!
//! 1. Every record reads back as it was written, whatever is in it.
//! 2. A row that was not written here is an error, never a panic and never memory beyond its own size.
//!
//! A tombstone that covers writes of its own origin only takes 34 bytes, where its JSON takes 161.

use gossip_cdn_protocol::{Content, ContentHash, NodeId, Payload, Record, Sha256Digest, Stamp, VectorClock, Version};
use redb::Error;
use uuid::Uuid;

/// It has bytes; a tombstone has no flags but the last.
const PAYLOAD: u8 = 1;
/// Its payload has a file name.
const FILE_NAME: u8 = 2;
/// The clock has an entry of the origin that is not the stamp, or none.
const ODD_CLOCK: u8 = 4;

/// The row of a record.
pub(super) fn row(state: u64, record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192);
    bytes.extend_from_slice(&state.to_be_bytes());
    record.versions().iter().for_each(|version| write_version(&mut bytes, version));
    bytes
}

/// The record of a row.
pub(super) fn record_of(row: &[u8]) -> Result<Record, Error> {
    let mut rest = Rest(row);
    rest.array::<8>()?;
    let mut versions = Vec::new();
    while !rest.0.is_empty() {
        versions.push(rest.version()?);
    }
    Ok(Record::from(versions))
}

/// The state hash of a row.
pub(super) fn state_of(row: &[u8]) -> Result<u64, Error> {
    Ok(u64::from_be_bytes(Rest(row).array()?))
}

fn write_version(bytes: &mut Vec<u8>, version: &Version) {
    let payload = version.content.payload();
    let usual = version.clock.iter().any(|entry| entry == (version.origin, version.stamp));
    let mut flags = 0;
    flags |= if payload.is_some() { PAYLOAD } else { 0 };
    flags |= if payload.is_some_and(|payload| payload.file_name.is_some()) { FILE_NAME } else { 0 };
    flags |= if usual { 0 } else { ODD_CLOCK };
    bytes.extend_from_slice(&version.stamp.0.to_be_bytes());
    bytes.extend_from_slice(version.origin.0.as_bytes());
    bytes.push(flags);
    write_number(bytes, version.clock.iter().len() as u64 - u64::from(usual));
    for (node, stamp) in version.clock.iter().filter(|(node, _)| !usual || *node != version.origin) {
        bytes.extend_from_slice(node.0.as_bytes());
        bytes.extend_from_slice(&stamp.0.to_be_bytes());
    }
    let Some(payload) = payload else { return };
    bytes.extend_from_slice(&payload.hash.0);
    bytes.extend_from_slice(&payload.sha256.0);
    write_number(bytes, payload.size);
    write_text(bytes, &payload.media_type);
    if let Some(name) = &payload.file_name {
        write_text(bytes, name);
    }
}

pub(super) fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

pub(super) fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// What of a row is still to be read.
pub(super) struct Rest<'row>(pub(super) &'row [u8]);

impl<'row> Rest<'row> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'row [u8], Error> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(|| damaged("ends early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return if bits << shift >> shift == bits { Ok(number) } else { Err(damaged("has a number beyond 64 bits")) };
            }
        }
        Err(damaged("has a number beyond 64 bits"))
    }

    pub(super) fn text(&mut self) -> Result<String, Error> {
        let length = usize::try_from(self.number()?).map_err(|_| damaged("ends early"))?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| damaged("has a text that is not UTF-8"))
    }

    pub(super) fn node(&mut self) -> Result<NodeId, Error> {
        Ok(NodeId(Uuid::from_bytes(self.array()?)))
    }

    fn stamp(&mut self) -> Result<Stamp, Error> {
        Ok(Stamp(u64::from_be_bytes(self.array()?)))
    }

    fn version(&mut self) -> Result<Version, Error> {
        let (stamp, origin, [flags]) = (self.stamp()?, self.node()?, self.array()?);
        let mut clock = VectorClock::default();
        if flags & ODD_CLOCK == 0 {
            clock.include(origin, stamp);
        }
        for _ in 0..self.number()? {
            let (node, stamp) = (self.node()?, self.stamp()?);
            clock.include(node, stamp);
        }
        let content = if flags & PAYLOAD == 0 { Content::Tombstone } else { Content::Payload(self.payload(flags)?) };
        Ok(Version { stamp, origin, content, clock })
    }

    fn payload(&mut self, flags: u8) -> Result<Payload, Error> {
        Ok(Payload {
            hash: ContentHash(self.array()?),
            sha256: Sha256Digest(self.array()?),
            size: self.number()?,
            media_type: self.text()?,
            file_name: if flags & FILE_NAME == 0 { None } else { Some(self.text()?) },
        })
    }
}

fn damaged(how: &str) -> Error {
    Error::Corrupted(format!("the row of a record {how}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> impl Strategy<Value = NodeId> {
        prop_oneof![(1..4u128).prop_map(|n| NodeId(Uuid::from_u128(n))), any::<u128>().prop_map(|n| NodeId(Uuid::from_u128(n)))]
    }

    fn content() -> impl Strategy<Value = Content> {
        let payload = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u64>(), ".{0,40}", prop::option::of(".{0,200}"));
        prop_oneof![
            Just(Content::Tombstone),
            payload.prop_map(|(hash, sha256, size, media_type, file_name)| {
                Content::Payload(Payload { hash: ContentHash(hash), sha256: Sha256Digest(sha256), size, media_type, file_name })
            }),
        ]
    }

    /// Also versions that no node would make: what is read must not depend on that.
    fn version() -> impl Strategy<Value = Version> {
        let clock = prop::collection::btree_map(node(), any::<u64>().prop_map(Stamp), 0..5);
        (any::<u64>(), node(), content(), clock, any::<bool>()).prop_map(|(stamp, origin, content, clock, usual)| {
            let mut clock: VectorClock = clock.into_iter().filter(|(node, _)| !usual || *node != origin).collect();
            if usual {
                clock.include(origin, Stamp(stamp));
            }
            Version { stamp: Stamp(stamp), origin, content, clock }
        })
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(versions in prop::collection::vec(version(), 0..5), state in any::<u64>()) {
            let record = Record::from(versions);
            let row = row(state, &record);
            prop_assert_eq!(state_of(&row).unwrap(), state);
            prop_assert_eq!(record_of(&row).unwrap(), record);
        }

        #[test]
        fn a_row_that_ends_early_or_goes_on_is_an_error(version in version(), cut in 1..40usize) {
            let row = row(1, &Record::from(vec![version]));
            prop_assert!(record_of(&row[..row.len() - cut.min(row.len() - 9)]).is_err());
            prop_assert!(record_of(&[&row[..], &[0; 7]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(record) = record_of(&bytes) {
                prop_assert_eq!(record_of(&row(0, &record)).unwrap(), record);
            }
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_an_error() {
        assert_eq!(Rest(&[&[0xff; 9][..], &[1]].concat()).number().unwrap(), u64::MAX);
        assert!(Rest(&[&[0xff; 9][..], &[2]].concat()).number().is_err());
        assert!(Rest(&[0xff; 11]).number().is_err());
    }

    #[test]
    fn a_tombstone_takes_34_bytes() {
        let (origin, stamp) = (NodeId(Uuid::from_u128(1)), Stamp(5));
        let clock = VectorClock::from_iter([(origin, stamp)]);
        assert_eq!(row(1, &Record::from(vec![Version { stamp, origin, content: Content::Tombstone, clock }])).len(), 34);
    }
}
