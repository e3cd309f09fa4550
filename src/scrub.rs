//! The scrub: reads every payload once in an interval, at a bounded pace, and has those that are damaged fetched again.
//!
//! 1. Everything that is here when a scrub begins, and stays, is read and checked by it once. Restarts of the node do not begin it anew.
//! 2. It reads no more bytes a second than it may, a step of a MiB at a time, on the blocking pool: readers hardly notice it.
//! 3. A store that fails and is opened again does not end it.
//! 4. What it finds damaged is missing from then on, like what a reader finds ([`crate::store`]).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gossip_cdn_protocol::StoreFault;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Clock;
use crate::store::{Inspection, ReadFault, ScrubState, Steps, Store};

/// What a payload costs beside its bytes, in bytes: many small ones are paced, too. About a page of the disk.
const EACH: u64 = 4096;
/// Bytes that are owed to the pace before it is waited for.
const BURST: u64 = 2 << 20;
/// How often it is kept on disk how far a scrub is.
const KEPT_EVERY: Duration = Duration::from_secs(30);
/// Until it tries again after a fault of the store.
const AGAIN: Duration = Duration::from_secs(30);
/// How often the wall clock is asked whether a scrub is due: it may be set.
const LOOK: Duration = Duration::from_secs(600);

/// How often a scrub is made, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the beginning of one to that of the next; `None`: only when asked for.
    pub interval: Option<Duration>,
    /// Bytes a second at most.
    pub rate: u64,
}

/// Starts scrubs and tells how far they are.
#[derive(Debug, Clone, Default)]
pub struct Scrub {
    asked: Arc<Notify>,
    state: Arc<Mutex<ScrubState>>,
}

impl Scrub {
    /// Has one begin now, unless one is under way.
    pub fn start(&self) {
        let mut state = self.lock();
        if !state.running {
            // Shown at once, so that who asked for it can wait for its end.
            *state = ScrubState { running: true, finished: state.finished, begun: state.begun, ..ScrubState::default() };
            self.asked.notify_one();
        }
    }

    /// How far it is.
    pub fn state(&self) -> ScrubState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ScrubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the scrubs of a store.
pub struct Scrubber {
    scrub: Scrub,
    store: Store,
    clock: Clock,
    pace: Pace,
    /// Bytes that the pace has not been waited for yet.
    owed: u64,
    kept: Instant,
    /// The folder had none before: the first interval begins now.
    fresh: bool,
}

impl Scrubber {
    /// A scrubber of that store, and what starts it.
    pub fn new(store: Store, clock: Clock, pace: Pace) -> Result<(Self, Scrub), StoreFault> {
        let now = clock.now().wall.0;
        let known = store.scrub()?;
        let fresh = known.is_none();
        let state = known.unwrap_or_else(|| ScrubState { begun: now, ..ScrubState::default() });
        let scrub = Scrub { asked: Arc::default(), state: Arc::new(Mutex::new(state)) };
        Ok((Self { scrub: scrub.clone(), store, clock, pace, owed: 0, kept: Instant::now(), fresh }, scrub))
    }

    /// Runs for as long as its runtime does. Where the store fails, it goes on behind what it has checked, once the store is open again.
    pub async fn run(mut self) {
        loop {
            let Err(fault) = self.work().await;
            tracing::debug!(%fault, "the scrub waits for its store");
            sleep(AGAIN).await;
        }
    }

    async fn work(&mut self) -> Result<Infallible, StoreFault> {
        if self.fresh {
            self.keep().await?;
            self.fresh = false;
        }
        if self.scrub.state().running {
            // One that a restart of the node interrupted.
            self.pass().await?;
        }
        loop {
            self.wait().await;
            self.begin();
            self.pass().await?;
        }
    }

    /// Waits until one is due or asked for.
    async fn wait(&self) {
        loop {
            let now = self.clock.now().wall.0;
            let since = Duration::from_millis(now.saturating_sub(self.scrub.state().begun));
            let left = self.pace.interval.map_or(LOOK, |interval| interval.saturating_sub(since));
            if left.is_zero() || timeout(left.min(LOOK), self.scrub.asked.notified()).await.is_ok() {
                return;
            }
        }
    }

    fn begin(&self) {
        let mut state = self.scrub.lock();
        *state = ScrubState { running: true, begun: self.clock.now().wall.0, finished: state.finished, ..ScrubState::default() };
    }

    async fn pass(&mut self) -> Result<(), StoreFault> {
        self.keep().await?;
        tracing::info!("a scrub is under way");
        while let Some(hash) = self.store.next_payload(self.scrub.state().behind)? {
            let store = self.store.clone();
            let begun = spawn_blocking(move || store.inspect(hash)).await.map_err(broken)?;
            match begun {
                Ok(Inspection::Right(bytes)) => self.looked_at(bytes).await,
                Ok(Inspection::Damaged) => self.scrub.lock().bad += 1,
                Ok(Inspection::Gone) => {}
                Ok(Inspection::Begun(steps)) => self.look(steps).await?,
                // A file that cannot be opened now may be at the next scrub.
                Err(fault) => tracing::warn!(%hash, %fault, "a payload was not checked"),
            }
            {
                let mut state = self.scrub.lock();
                state.payloads += 1;
                state.behind = Some(hash);
            }
            self.keep_pace(EACH).await;
            if self.kept.elapsed() >= KEPT_EVERY {
                self.keep().await?;
            }
        }
        let store = self.store.clone();
        let rows = spawn_blocking(move || store.damaged_rows()).await.map_err(broken)??;
        self.end(rows);
        self.keep().await
    }

    async fn look(&mut self, mut steps: Steps) -> Result<(), StoreFault> {
        loop {
            let looked = spawn_blocking(move || {
                let result = steps.step();
                (steps, result)
            });
            let result;
            (steps, result) = looked.await.map_err(broken)?;
            match result {
                Ok(0) => return Ok(()),
                Ok(bytes) => self.looked_at(bytes).await,
                Err(ReadFault::Damaged) => {
                    self.scrub.lock().bad += 1;
                    return Ok(());
                }
                Err(ReadFault::Local(error)) => {
                    tracing::warn!(%error, "a payload was not checked to its end");
                    return Ok(());
                }
            }
        }
    }

    async fn looked_at(&mut self, bytes: u64) {
        self.scrub.lock().bytes += bytes;
        self.keep_pace(bytes).await;
    }

    async fn keep_pace(&mut self, bytes: u64) {
        self.owed += bytes;
        if self.owed >= BURST {
            let owed = std::mem::take(&mut self.owed);
            sleep(Duration::from_micros(owed.saturating_mul(1_000_000) / self.pace.rate.max(1))).await;
        }
    }

    fn end(&self, rows: usize) {
        let mut state = self.scrub.lock();
        (state.running, state.behind) = (false, None);
        state.finished = Some(self.clock.now().wall.0);
        state.records_bad = rows as u64;
        let ScrubState { payloads, bytes, bad, records_bad, .. } = *state;
        if bad + records_bad > 0 {
            tracing::error!(payloads, bytes, bad, records_bad, "a scrub found damage: look at the disk under the data folder");
        } else {
            tracing::info!(payloads, bytes, "a scrub found no damage");
        }
    }

    async fn keep(&mut self) -> Result<(), StoreFault> {
        self.kept = Instant::now();
        let state = self.scrub.state();
        self.store.keep_scrub(&state).await
    }
}

/// A look that panicked: the store is not to be trusted with more.
fn broken(error: tokio::task::JoinError) -> StoreFault {
    StoreFault(error.to_string())
}
