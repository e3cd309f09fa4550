//! Payloads whose bytes here turned out not to be theirs, on their way to be missing.
//!
//! 1. From the moment in which damage is noted a payload is not here, for readers, peers and transfers, though its rows go with the
//!    next commit only.
//! 2. What is noted is looked at again by the writer ([`Evidence`]): a good copy that took the place of the damaged one meanwhile stays.
//!
//! Bounded by the readings under way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gossip_cdn_protocol::ContentHash;

use super::lock;
use super::rows::Mended;

/// What was found to be damaged.
#[derive(Debug, Clone)]
pub(super) enum Evidence {
    /// The bytes inside the database.
    Inline,
    /// This file, or the tree beside it. It is held open, so that no other can pass for it.
    File(Arc<File>),
    /// There is no file where there should be one.
    NoFile,
}

impl Evidence {
    /// Whether what stands under that name is still what was found.
    pub(super) fn holds(&self, path: &Path) -> io::Result<bool> {
        let named = match std::fs::metadata(path) {
            Ok(named) => Some(named),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(match (self, named) {
            (Self::File(file), Some(named)) => {
                let found = file.metadata()?;
                (found.dev(), found.ino()) == (named.dev(), named.ino())
            }
            (Self::NoFile | Self::Inline, Some(_)) => false,
            (Self::File(_) | Self::NoFile | Self::Inline, None) => true,
        })
    }
}

/// What came of damage since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DamageCounts {
    /// Payloads whose copy here was found damaged.
    pub payloads: u64,
    /// Of all that were ever found damaged, those that were replaced by a good copy.
    pub replaced: u64,
    /// Records whose row was found damaged when the folder was opened.
    pub records: u64,
    /// Of them, those that were put right from what is left. The others come again from another node.
    pub records_righted: u64,
}

/// What is noted, and what was counted.
#[derive(Default)]
pub(super) struct Damages {
    noted: Mutex<BTreeMap<ContentHash, (u64, Evidence)>>,
    /// How many are noted, so that nobody waits for the lock while none is.
    count: AtomicUsize,
    /// Numbers what is noted.
    next: AtomicU64,
    payloads: AtomicU64,
    replaced: AtomicU64,
    rows: Mutex<Mended>,
}

/// What the writer takes up.
pub(super) type Noted = BTreeMap<ContentHash, (u64, Evidence)>;

impl Damages {
    /// The copy of that payload is damaged.
    pub(super) fn note(&self, hash: ContentHash, evidence: Evidence) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut noted = lock(&self.noted);
        noted.insert(hash, (number, evidence));
        self.count.store(noted.len(), Ordering::Release);
    }

    /// Whether the copy of that payload was found damaged and still has its rows.
    pub(super) fn is_noted(&self, hash: ContentHash) -> bool {
        self.count.load(Ordering::Acquire) > 0 && lock(&self.noted).contains_key(&hash)
    }

    /// What is noted; it stays until it is [settled](Self::settle).
    pub(super) fn noted(&self) -> Noted {
        if self.count.load(Ordering::Acquire) == 0 { Noted::new() } else { lock(&self.noted).clone() }
    }

    /// These were looked at.
    pub(super) fn settle(&self, looked_at: &Noted) {
        if looked_at.is_empty() {
            return;
        }
        let mut noted = lock(&self.noted);
        // What was noted again meanwhile is looked at again.
        noted.retain(|hash, (number, _)| looked_at.get(hash).is_none_or(|(seen, _)| seen != number));
        self.count.store(noted.len(), Ordering::Release);
    }

    /// What became of the rows of records at an opening.
    pub(super) fn count_rows(&self, Mended { found, righted }: Mended) {
        let mut rows = lock(&self.rows);
        rows.found += found;
        rows.righted += righted;
    }

    /// So many were found and lost their rows, so many were replaced.
    pub(super) fn count_payloads(&self, found: usize, replaced: u64) {
        self.payloads.fetch_add(found as u64, Ordering::Relaxed);
        self.replaced.fetch_add(replaced, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> DamageCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rows = *lock(&self.rows);
        DamageCounts {
            payloads: read(&self.payloads),
            replaced: read(&self.replaced),
            records: rows.found as u64,
            records_righted: rows.righted as u64,
        }
    }
}
