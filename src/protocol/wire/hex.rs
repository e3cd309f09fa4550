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
