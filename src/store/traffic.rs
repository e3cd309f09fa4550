//! What was counted of payload bytes from other nodes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    kept: AtomicU64,
    redundant: AtomicU64,
    wrong: AtomicU64,
    parts: AtomicU64,
    resumed: AtomicU64,
}

/// Payload bytes from other nodes, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCounts {
    /// Bytes of the bodies that carried payloads, with their framing and their proofs, whatever became of them.
    pub received: u64,
    /// Bytes of payloads that were verified and kept. `received / kept` is what one byte that changed something cost.
    pub kept: u64,
    /// Bytes of payloads that matched their hash, but were here already, or came for another transfer's part.
    pub redundant: u64,
    /// Bytes that did not match their hash.
    pub wrong: u64,
    /// Parts of large payloads that were completed.
    pub parts: u64,
    /// Bytes of payloads left by an earlier life, found right, and not asked for again.
    pub resumed: u64,
}

impl Traffic {
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn redundant(&self, bytes: u64) {
        self.redundant.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn wrong(&self, bytes: u64) {
        self.wrong.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn part(&self) {
        self.parts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resumed(&self, bytes: u64) {
        self.resumed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> TrafficCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TrafficCounts {
            received: read(&self.received),
            kept: read(&self.kept),
            redundant: read(&self.redundant),
            wrong: read(&self.wrong),
            parts: read(&self.parts),
            resumed: read(&self.resumed),
        }
    }
}
