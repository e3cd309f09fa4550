//! Ctrl-C and a polite kill: noticed, so that what runs unwinds and ends what it started.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::table::Failed;

static WANTED: AtomicBool = AtomicBool::new(false);

/// From now on neither ends the process.
pub(crate) fn heed() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let (Ok(mut keys), Ok(mut polite)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
            tokio::select! {
                _ = keys.recv() => {}
                _ = polite.recv() => {}
            }
            WANTED.store(true, Ordering::Relaxed);
        });
    });
}

/// An error once somebody wants an end: asked before each turn.
pub(crate) fn go_on() -> Result<(), Failed> {
    if WANTED.load(Ordering::Relaxed) { Err(Failed("interrupted".to_owned())) } else { Ok(()) }
}
