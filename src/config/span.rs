//! Times as people write them.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// How long something takes, written `30d`, `12h` or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Duration);

impl Span {
    /// How long it is.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let bad = |_| format!("{text:?} is not a time: write a whole number with s, m, h or d, such as 30d, or 0");
        humantime::parse_duration(text).map(Self).map_err(bad)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let span = |text: &str| text.parse::<Span>().map(Span::duration);
        assert_eq!(span("30d"), Ok(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!([span("0"), span("90m")], [Ok(Duration::ZERO), Ok(Duration::from_secs(5400))]);
        assert!(span("soon").unwrap_err().contains("30d") && span("3").is_err() && span("").is_err());
    }
}
