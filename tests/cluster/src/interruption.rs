//! Ctrl-C and a polite kill: noticed, so that whatever runs unwinds and ends what it started.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

static WANTED: AtomicBool = AtomicBool::new(false);

/// Somebody wants an end.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From now on neither ends the process.
pub fn heed() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            WANTED.store(true, Ordering::Relaxed);
        });
    });
}

/// An error once somebody wants an end. Every loop asks.
pub fn go_on() -> Result<(), Interrupted> {
    if WANTED.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}
