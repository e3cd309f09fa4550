//! Numbers as hexadecimal digits in JSON, which has no room for 64 bits.

pub(super) mod hex64 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::wire) fn serialize<S: Serializer>(bits: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bits:016x}"))
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        super::parse_hex64(&text).ok_or_else(|| serde::de::Error::custom("not 16 hexadecimal digits"))
    }
}

pub(super) mod hex64_option {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::wire) fn serialize<S: Serializer>(bits: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bits {
            Some(bits) => super::hex64::serialize(bits, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse_hex64(&text).ok_or_else(|| serde::de::Error::custom("not 16 hexadecimal digits"))).transpose()
    }
}

fn parse_hex64(text: &str) -> Option<u64> {
    if text.len() == 16 && crate::ids::is_lower_hex(text) { u64::from_str_radix(text, 16).ok() } else { None }
}

/// Reads `text` as words of 16 hexadecimal digits, `per` of them to a value.
fn parse_words(text: &str, per: usize) -> Option<Vec<Vec<u64>>> {
    if !text.len().is_multiple_of(16 * per) || !text.is_ascii() {
        return None;
    }
    let words: Option<Vec<u64>> = text.as_bytes().chunks_exact(16).map(|word| parse_hex64(std::str::from_utf8(word).ok()?)).collect();
    Some(words?.chunks_exact(per).map(<[u64]>::to_vec).collect())
}

pub(super) mod hex_items {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::parse_words;
    use crate::item::{Item, KeyHash, StateHash};

    pub(in crate::wire) fn serialize<S: Serializer>(items: &[Item], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(items.len() * 32);
        for item in items {
            text.push_str(&format!("{:032x}", item.bits()));
        }
        serializer.serialize_str(&text)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Item>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let words = parse_words(&text, 2).ok_or_else(|| serde::de::Error::custom("not items of 32 hexadecimal digits each"))?;
        Ok(words.into_iter().map(|word| Item { key: KeyHash(word[0]), state: StateHash(word[1]) }).collect())
    }
}

pub(super) mod hex_keys {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::parse_words;
    use crate::item::KeyHash;

    pub(in crate::wire) fn serialize<S: Serializer>(keys: &[KeyHash], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&keys.iter().map(|key| format!("{:016x}", key.0)).collect::<String>())
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyHash>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let words = parse_words(&text, 1).ok_or_else(|| serde::de::Error::custom("not key hashes of 16 hexadecimal digits each"))?;
        Ok(words.into_iter().map(|word| KeyHash(word[0])).collect())
    }
}
