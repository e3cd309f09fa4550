//! When a store that failed is opened again.
//!
//! 1. The first time at once; the longer the oftener it fails, and at least every [`LONGEST`].
//! 2. A disk that is full is left alone until there is some room on it.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Store;

/// The pause after the first failure of several, which then doubles.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause. A guess: long for a disk that is being mended, short for who waits for it.
const LONGEST: Duration = Duration::from_secs(30);
/// A store that was well for so long has failed for another reason.
const WELL: Duration = Duration::from_secs(60);
/// How often a full disk is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pause: Duration,
    tried: Option<Instant>,
}

impl Patience {
    /// The pause before a try that begins now.
    pub(super) fn next(&mut self) -> Duration {
        let is_another = self.tried.is_none_or(|tried| tried.elapsed() > WELL + self.pause);
        self.pause = if is_another { Duration::ZERO } else { (self.pause * 2).clamp(SHORTEST, LONGEST) };
        self.tried = Some(Instant::now());
        self.pause
    }
}

/// Opens the store again, by as many tries as it takes. Ends with it open, and nothing written that was queued before.
pub(super) async fn mend(store: Store, mut patience: Patience) -> Patience {
    loop {
        tokio::time::sleep(patience.next()).await;
        while store.is_too_full() {
            tokio::time::sleep(LOOK).await;
        }
        match store.reopen().await {
            Ok(()) => return patience,
            Err(fault) => tracing::debug!(%fault, "the store does not open yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pauses_grow_to_a_bound_and_begin_anew_after_a_while() {
        let mut patience = Patience::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = patience.next();
            pauses.push(pause.as_secs());
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30, 30]);
        tokio::time::advance(WELL * 2).await;
        assert_eq!(patience.next(), Duration::ZERO);
    }
}
