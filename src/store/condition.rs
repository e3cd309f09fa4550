//! How the store is: well, or ailing, and why.
//!
//! 1. The first fault is told and logged; those that follow from it are not, until the store is well again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::Error;
use tokio::sync::watch;

/// Why nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// What the disk said.
    pub why: String,
    /// Whether it said that there is no room.
    pub no_room: bool,
}

impl Ailment {
    pub(super) fn of_io(error: &io::Error) -> Self {
        Self { why: error.to_string(), no_room: is_full(error) }
    }

    pub(super) fn of(error: &Error) -> Self {
        let no_room = matches!(error, Error::Io(error) if is_full(error));
        Self { why: error.to_string(), no_room }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The condition of a store.
#[derive(Debug, Default)]
pub(super) struct Condition {
    ailment: watch::Sender<Option<Ailment>>,
    /// Since the start.
    faults: AtomicU64,
    reopenings: AtomicU64,
}

impl Condition {
    /// Something failed.
    pub(super) fn ail(&self, ailment: Ailment) {
        self.ailment.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                tracing::error!("the store fails: {}; what is here can be read, nothing is written until it is opened again", ailment.why);
                self.faults.fetch_add(1, Ordering::Relaxed);
                *known = Some(ailment);
            }
            is_first
        });
    }

    /// It can be written again.
    pub(super) fn recover(&self) {
        if self.ailment.send_replace(None).is_some() {
            tracing::info!("the store is open again");
        }
    }

    /// It was opened again.
    pub(super) fn note_reopening(&self) {
        self.reopenings.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Ailment>> {
        self.ailment.subscribe()
    }

    pub(super) fn ailment(&self) -> Option<Ailment> {
        self.ailment.borrow().clone()
    }

    /// How often it failed, and how often it was opened again.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.faults.load(Ordering::Relaxed), self.reopenings.load(Ordering::Relaxed))
    }
}
