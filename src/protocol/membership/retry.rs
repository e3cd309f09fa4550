//! When to try again whom does not answer: at a pause that grows, for ever.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::time::Instant;

/// Longest pause between two tries of the same dead member, and of a silent bootstrap node.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(45);
/// First pause between two tries.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The next try, and how long the pause after it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) at: Instant,
    pub(super) pause: Duration,
}

impl Retry {
    pub(super) fn starting(at: Instant) -> Self {
        Self { at, pause: FIRST_PAUSE }
    }

    /// The pause is cut by up to a fifth, so that what fell silent together is not tried in step for ever.
    pub(super) fn back_off(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.at = now + self.pause * rng.random_range(800..=1000_u32) / 1000;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
