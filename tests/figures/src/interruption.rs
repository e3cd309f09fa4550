//! Ctrl-C and a polite kill: noticed, so that whatever runs unwinds and ends what it started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::report::Broken;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on they do not end the process.
pub(crate) fn heed() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            INTERRUPTED.store(true, Ordering::Relaxed);
        });
    });
}

/// An error once somebody wants an end. Every loop asks.
pub(crate) fn go_on() -> Result<(), Broken> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Broken::new("interrupted")) } else { Ok(()) }
}

/// Waits until the claim holds; how long that took.
pub(crate) fn wait(what: &str, patience: Duration, mut claim: impl FnMut() -> Result<bool, Broken>) -> Result<Duration, Broken> {
    let start = Instant::now();
    while !claim()? {
        go_on()?;
        if start.elapsed() > patience {
            return Err(Broken::new(format!("not within {patience:?}: {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(start.elapsed())
}

/// Waits.
pub(crate) fn pause(duration: Duration) -> Result<(), Broken> {
    let start = Instant::now();
    while start.elapsed() < duration {
        go_on()?;
        std::thread::sleep(Duration::from_millis(100).min(duration));
    }
    Ok(())
}
