//! Lists of things of one length as base64 in JSON: a third more than their bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serializer};

use crate::item::{Item, KeyHash};
use crate::sketch::Cell;
use crate::summary::Root;

/// Something of a fixed length in bytes, its numbers in big-endian order.
pub(super) trait Packed: Sized {
    /// How many bytes.
    const LENGTH: usize;

    fn pack(&self, bytes: &mut Vec<u8>);

    /// Of [`Self::LENGTH`] bytes.
    fn unpack(bytes: &[u8]) -> Self;
}

pub(super) fn serialize<T: Packed, S: Serializer>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(list.len() * T::LENGTH);
    list.iter().for_each(|one| one.pack(&mut bytes));
    serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
}

pub(super) fn deserialize<'de, T: Packed, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    let bytes = STANDARD_NO_PAD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
    if !bytes.len().is_multiple_of(T::LENGTH) {
        return Err(serde::de::Error::custom(format_args!("{} bytes, not a multiple of {}", bytes.len(), T::LENGTH)));
    }
    Ok(bytes.chunks_exact(T::LENGTH).map(T::unpack).collect())
}

/// The number in at most 16 bytes.
fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn number64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Packed for Cell {
    const LENGTH: usize = 26;

    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.items.to_be_bytes());
        bytes.extend(self.checks.to_be_bytes());
        bytes.extend(self.count.to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Self {
        let (items, rest) = bytes.split_at(16);
        let (checks, count) = rest.split_at(8);
        Self { items: number(items), checks: number64(checks), count: count.iter().fold(0, |count, byte| count << 8 | u16::from(*byte)) }
    }
}

impl Packed for Root {
    const LENGTH: usize = 24;

    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.sum.to_be_bytes());
        bytes.extend(self.count.to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Self {
        let (sum, count) = bytes.split_at(16);
        Self { sum: number(sum), count: number64(count) }
    }
}

impl Packed for Item {
    const LENGTH: usize = 16;

    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.bits().to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Self {
        Self::from_bits(number(bytes))
    }
}

impl Packed for KeyHash {
    const LENGTH: usize = 8;

    fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0.to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Self {
        Self(number64(bytes))
    }
}
