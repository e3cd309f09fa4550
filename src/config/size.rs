//! Numbers of bytes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A number of bytes, written `1048576`, `1MiB`, `1M` or `1MB` (the last being a million).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

const UNITS: [(&str, u64); 5] = [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// That many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes it is.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size: write a whole number with B, KiB, MiB, GiB, TiB or kB, MB, GB, TB, such as 64GiB");
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(split).ok_or_else(bad)?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "pib" => 1 << 50,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(bad()),
        };
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).map(Self).ok_or_else(bad)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a size: a number of bytes, or text such as \"64GiB\"")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        let read = |text: &str| text.parse::<Size>().map(Size::bytes);
        assert_eq!(read("0"), Ok(0));
        assert_eq!(["64GiB", "64 GiB", "64g"].map(read), [Ok(64 << 30), Ok(64 << 30), Ok(64 << 30)]);
        assert_eq!(["1MB", "1MiB", "7b"].map(read), [Ok(1_000_000), Ok(1 << 20), Ok(7)]);
        for bad in ["", "x", "1.5GiB", "-1", "99999999TiB", "1 apple", "GiB"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_reads_back_as_it_was_written() {
        for bytes in [0, 1, 1023, 1024, 3 << 20, 64 << 30, (1 << 40) + 1] {
            assert_eq!(Size::new(bytes).to_string().parse(), Ok(Size::new(bytes)));
        }
    }
}
