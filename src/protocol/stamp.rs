//! Hybrid logical clock stamps.
//!
//! Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks" (OPODIS 2014). A stamp is 48 bits of milliseconds and 16
//! bits of counter in one integer. Where the paper keeps the two parts apart and resets the counter, the integer is simply
//! incremented: the counter overflows into the milliseconds, which keeps the order.
//!
//! 1. A stamp made after another was seen is greater than it, whatever the clocks on the walls say.
//! 2. A stamp from far ahead ([`MAX_AHEAD`]) raises later stamps of its own blob only, never the node's clock: one wrong clock in the
//!    network must not drag everybody's along.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::ids::{BadName, is_lower_hex, text_serde};
use crate::time::WallTime;

/// How far ahead of the local clock a stamp may lie and still advance the node's hybrid clock.
pub const MAX_AHEAD: Duration = Duration::from_secs(600);

/// A point on a hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp beyond the year 9999, which RFC 3339 cannot write; it and all later ones are malformed.
    pub const END: Self = Self(253_402_300_800_000 << 16);

    /// The first stamp of a millisecond.
    pub fn at(wall: WallTime) -> Self {
        Self(wall.0.min(Self::END.0 >> 16) << 16)
    }

    /// The milliseconds in it.
    pub fn wall(self) -> WallTime {
        WallTime(self.0 >> 16)
    }

    /// Whether it is more than [`MAX_AHEAD`] later than `wall`.
    pub fn is_far_ahead(self, wall: WallTime) -> bool {
        u128::from(self.wall().0) > u128::from(wall.0) + MAX_AHEAD.as_millis()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Stamp {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.len() != 16 || !is_lower_hex(text) {
            return Err(BadName::stamp(text));
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| BadName::stamp(text))
    }
}

text_serde!(Stamp);

/// The hybrid clock of a node: the greatest stamp it made or observed.
#[derive(Debug, Clone, Copy, Default)]
pub struct HybridClock {
    last: Stamp,
}

impl HybridClock {
    /// A new stamp: greater than all made or observed here, than `floor`, and not before `wall`.
    ///
    /// `floor` may lie far ahead; then the stamp does too, and the clock itself stays where it was.
    pub fn stamp(&mut self, wall: WallTime, floor: Stamp) -> Stamp {
        let own = Stamp(self.last.0 + 1).max(Stamp::at(wall));
        if floor < own {
            self.last = own;
            return own;
        }
        let stamp = Stamp(floor.0 + 1);
        if !stamp.is_far_ahead(wall) {
            self.last = stamp;
        }
        stamp
    }

    /// Takes note of a stamp made elsewhere. Returns false where it is too far ahead to be followed.
    pub fn observe(&mut self, wall: WallTime, stamp: Stamp) -> bool {
        let near = !stamp.is_far_ahead(wall);
        if near {
            self.last = self.last.max(stamp);
        }
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_though_the_clock_stands_still_or_steps_back() {
        let mut clock = HybridClock::default();
        let first = clock.stamp(WallTime(1000), Stamp::default());
        let second = clock.stamp(WallTime(1000), Stamp::default());
        let third = clock.stamp(WallTime(10), Stamp::default());
        assert!(first < second && second < third);
    }

    #[test]
    fn a_stamp_is_greater_than_its_floor_however_far_ahead() {
        let mut clock = HybridClock::default();
        let ahead = Stamp::at(WallTime(10_000_000_000));
        assert!(clock.stamp(WallTime(1000), ahead) > ahead);
        assert!(clock.stamp(WallTime(1000), Stamp::default()) < ahead, "the node's own clock was not dragged along");
    }

    #[test]
    fn a_stamp_far_ahead_is_not_followed() {
        let mut clock = HybridClock::default();
        assert!(!clock.observe(WallTime(0), Stamp::at(WallTime(600_001))));
        assert!(clock.observe(WallTime(0), Stamp::at(WallTime(600_000))));
        assert!(clock.stamp(WallTime(0), Stamp::default()) > Stamp::at(WallTime(600_000)));
    }
}
