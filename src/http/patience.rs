//! How long this node waits for a client.
//!
//! 1. Waiting uses patience up. There is [`Patience::idle`] of it at first, and never more; each byte gives back as much as it may take at
//!    [`Patience::rate`]. So a client that gives nothing is given up after `idle`; one that dribbles when what it is behind `rate` has added
//!    up to `idle`; and one that is faster than `rate` and never pauses for `idle` never, however much it has to give.
//! 2. Only waiting counts: what a disk of this node takes is not the client's fault.
//!
//! Kestrel's `MinRequestBodyDataRate` and the `MinRate` of Apache's mod_reqtimeout ask for the same. Without it a client that gives a byte
//! now and then holds a connection and one of the places for uploads for as long as it likes.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How long a client may take no byte of an answer, or a body may bring none, unless an operator says otherwise.
pub const CLIENT_IDLE: Duration = Duration::from_secs(30);
/// Bytes a second that a body must bring on average, unless an operator says otherwise: Kestrel's. A telephone of the second generation
/// gives some thousands.
pub const CLIENT_RATE: u64 = 240;

/// How much patience there is with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest wait for a byte.
    pub idle: Duration,
    /// Bytes a second below which it runs out; with 0 one byte in `idle` is enough.
    pub rate: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: CLIENT_IDLE, rate: CLIENT_RATE }
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { idle, rate } = self;
        write!(f, "nothing for {} seconds", idle.as_secs_f64())?;
        if *rate == 0 { Ok(()) } else { write!(f, ", or less than {rate} bytes a second for longer") }
    }
}

impl Patience {
    /// With a client that is waited for from now on.
    pub(super) fn begin(self) -> Left {
        Left { of: self, left: self.idle }
    }
}

/// What is left of it with one client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    of: Patience,
    /// At most `of.idle`.
    left: Duration,
}

impl Left {
    /// Waits for what a client has to give, and counts its bytes; nothing if the patience ran out before.
    pub(super) async fn wait<F: Future>(&mut self, gift: F, bytes: impl FnOnce(&F::Output) -> usize) -> Option<F::Output> {
        let begin = Instant::now();
        let gift = timeout(self.left, gift).await.ok()?;
        self.left = self.left.saturating_sub(begin.elapsed());
        self.gain(bytes(&gift));
        Some(gift)
    }

    fn gain(&mut self, bytes: usize) {
        let Patience { idle, rate } = self.of;
        let nanos = (bytes as u64).saturating_mul(1_000_000_000).checked_div(rate);
        // Without a rate any byte is enough.
        let gained = nanos.map_or(if bytes == 0 { Duration::ZERO } else { idle }, Duration::from_nanos);
        self.left = self.left.saturating_add(gained).min(idle);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// After how long a client is given up that gives so many bytes every `pause`; nothing if it is not in an hour.
    async fn given_up(patience: Patience, bytes: usize, pause: Duration) -> Option<Duration> {
        let (mut left, begin) = (patience.begin(), Instant::now());
        while begin.elapsed() < Duration::from_secs(3600) {
            if left.wait(tokio::time::sleep(pause), |()| bytes).await.is_none() {
                return Some(begin.elapsed());
            }
        }
        None
    }

    const PATIENCE: Patience = Patience { idle: Duration::from_secs(30), rate: 240 };
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_gives_nothing_is_given_up_after_the_longest_wait_and_who_dribbles_soon_after() {
        assert_eq!(given_up(PATIENCE, 0, Duration::from_secs(100)).await.unwrap().as_secs(), 30);
        for (bytes, within) in [(1, 31), (24, 34), (120, 61)] {
            let after = given_up(PATIENCE, bytes, SECOND).await.unwrap().as_secs();
            assert!((30..=within).contains(&after), "{bytes} bytes a second: {after} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_but_honest_is_never_given_up() {
        for (bytes, pause) in [(240, SECOND), (5000, SECOND), (1400, 5 * SECOND), (7200, 29 * SECOND), (1, SECOND / 250)] {
            assert_eq!(given_up(PATIENCE, bytes, pause).await, None, "{bytes} bytes every {pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_fast_buys_no_longer_wait_than_the_longest() {
        let mut left = PATIENCE.begin();
        assert!(left.wait(std::future::ready(()), |()| 1 << 30).await.is_some());
        assert_eq!(left.left, PATIENCE.idle);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_one_byte_in_the_longest_wait_is_enough() {
        let patience = Patience { rate: 0, ..PATIENCE };
        assert_eq!(given_up(patience, 1, 29 * SECOND).await, None);
        assert_eq!(given_up(patience, 0, 29 * SECOND).await, Some(30 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_node_takes_does_not_count() {
        let mut left = PATIENCE.begin();
        for _ in 0..10 {
            assert!(left.wait(tokio::time::sleep(SECOND), |()| 240).await.is_some());
            // A disk that is slow.
            tokio::time::sleep(10 * PATIENCE.idle).await;
        }
    }

    proptest! {
        /// The rule as arithmetic: whoever is faster than the rate, in pieces that are never further apart than half of the longest wait.
        #[test]
        fn nobody_faster_than_the_rate_is_given_up(pieces in prop::collection::vec((1_u64..15_000, 0_usize..4000), 1..200)) {
            let mut left = PATIENCE.begin();
            for (millis, more) in pieces {
                left.left = left.left.checked_sub(Duration::from_millis(millis)).unwrap();
                left.gain(usize::try_from(millis * PATIENCE.rate / 1000).unwrap() + 1 + more);
            }
        }
    }
}
