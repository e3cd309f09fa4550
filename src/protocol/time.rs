//! Time as the core sees it: given from outside with every input, never read.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the monotonic clock of one process: microseconds since an origin of the shell's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// How long `earlier` is ago; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970 by the clock on the wall, which may be wrong and may jump. Only stamps are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// What time it is, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For stamps.
    pub wall: WallTime,
}

impl Now {
    /// What the clock on the wall would have shown at that moment, had it always gone as it goes now.
    pub fn wall_at(self, moment: Instant) -> WallTime {
        let ago = u64::try_from(self.instant.since(moment).as_millis()).unwrap_or(u64::MAX);
        WallTime(self.wall.0.saturating_sub(ago))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_distance_when_the_clock_on_the_wall_is_set() {
        let moment = Instant(2_000_000);
        let now = |wall| Now { instant: Instant(5_000_000), wall: WallTime(wall) };
        assert_eq!((now(9_000).wall_at(moment), now(1_009_000).wall_at(moment)), (WallTime(6_000), WallTime(1_006_000)));
        assert_eq!(now(1_000).wall_at(moment), WallTime(0));
        assert_eq!(now(9_000).wall_at(Instant(6_000_000)), WallTime(9_000), "what lies ahead is now");
    }
}
