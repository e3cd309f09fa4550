//! Local health: a node under strain of its own judges others more slowly.
//!
//! Lifeguard, section IV-A ("Local Health Aware Probe"): a saturating counter from 0 to S, "starting at zero"; timeouts are multiplied by
//! one more than it.
//!
//! | what | change |
//! |---|---|
//! | a probe was answered | -1 |
//! | a probe was not, and of those asked to probe too none said a word | +1 |
//! | this node had to refute its own suspicion or death | +1 |
//! | a timer was served late | +1 |
//! | a persist was slow | +1 |

use std::time::Duration;

/// The greatest multiplier.
pub(crate) const GREATEST_MULTIPLIER: u32 = 8;
/// A timer served later than so is a sign of strain. A guess: far more than a busy executor takes.
pub(crate) const LATE: Duration = Duration::from_millis(250);
/// A persist that takes longer is a sign of strain. A guess: a hundred fsyncs of a usual disk.
pub(crate) const SLOW_PERSIST: Duration = Duration::from_secs(1);

/// How well this node itself does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LocalHealth {
    /// 0 when well, [`GREATEST_MULTIPLIER`] - 1 at worst.
    strain: u32,
}

impl LocalHealth {
    pub(crate) fn on_strain(&mut self) {
        self.strain = (self.strain + 1).min(GREATEST_MULTIPLIER - 1);
    }

    pub(crate) fn on_success(&mut self) {
        self.strain = self.strain.saturating_sub(1);
    }

    /// From 1 to [`GREATEST_MULTIPLIER`].
    pub(crate) fn multiplier(self) -> u32 {
        self.strain + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_from_1_to_8_and_back() {
        let mut health = LocalHealth::default();
        assert_eq!(health.multiplier(), 1);
        (0..20).for_each(|_| health.on_strain());
        assert_eq!(health.multiplier(), 8);
        (0..20).for_each(|_| health.on_success());
        assert_eq!(health.multiplier(), 1);
    }
}
