//! The simulated clients: they write, overwrite, delete and restore at random nodes, and remember what they were told.

use std::collections::BTreeSet;
use std::time::Duration;

use gossip_cdn_protocol::io::{Change, Condition, Tags, Write};
use gossip_cdn_protocol::{BlobId, Payload, Record, Sha256Digest, VersionId};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::disk::Bytes;

/// What a client asks of a node.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The write.
    pub write: Write,
    pub(crate) bytes: Option<Bytes>,
}

impl Wish {
    /// To store `size` bytes that differ for every `seed`, under `blob` or a new GUID.
    pub fn put(blob: Option<BlobId>, seed: u64, size: u64) -> Self {
        let bytes = Bytes { seed, size };
        let payload = Payload {
            hash: bytes.hash(),
            sha256: Sha256Digest(bytes.hash().0),
            size,
            media_type: "application/octet-stream".into(),
            file_name: seed.is_multiple_of(3).then(|| format!("{seed}.bin")),
        };
        Self::of(blob, Change::Put(payload), Some(bytes))
    }

    /// To delete `blob`.
    pub fn delete(blob: BlobId) -> Self {
        Self::of(Some(blob), Change::Delete, None)
    }

    /// To make a live version of `blob` the only one again.
    pub fn restore(blob: BlobId, version: VersionId) -> Self {
        Self::of(Some(blob), Change::Restore(version), None)
    }

    fn of(blob: Option<BlobId>, change: Change, bytes: Option<Bytes>) -> Self {
        let write = Write { blob, change, condition: Condition::default(), copies: 1, timeout: Duration::ZERO };
        Self { write, bytes }
    }

    /// To be answered only when it is durable on so many nodes, or after `timeout`.
    pub fn copies(mut self, copies: usize, timeout: Duration) -> Self {
        (self.write.copies, self.write.timeout) = (copies, timeout);
        self
    }
}

/// The clients of a network.
#[derive(Debug, Default)]
pub(crate) struct Client {
    blobs: BTreeSet<BlobId>,
    /// Numbers payloads.
    next: u64,
}

/// About so many writes go to one blob, so that they meet.
const WRITES_PER_BLOB: u64 = 8;

impl Client {
    /// They know that blob from now on.
    pub(crate) fn learn(&mut self, blob: BlobId) {
        self.blobs.insert(blob);
    }

    /// A blob to write to; `None` for a new one.
    pub(crate) fn choose(&self, rng: &mut ChaCha8Rng) -> Option<BlobId> {
        let new = self.blobs.is_empty() || rng.random_ratio(1, u32::try_from(WRITES_PER_BLOB).unwrap_or(1));
        if new { None } else { self.blobs.iter().nth(rng.random_range(0..self.blobs.len())).copied() }
    }

    /// Something to do to a blob that is `record` where it is asked for.
    pub(crate) fn wish(&mut self, blob: Option<BlobId>, record: &Record, rng: &mut ChaCha8Rng) -> Wish {
        self.next += 1;
        // Now and then the same bytes again, under whatever blob: payloads are shared.
        let seed = if rng.random_ratio(1, 6) { rng.random_range(0..self.next) } else { self.next };
        let size = if seed.is_multiple_of(5) { 1 << 20 } else { 100 + seed };
        let live: Vec<_> = record.versions().iter().filter(|version| version.content.payload().is_some()).collect();
        let mut wish = match (blob, rng.random_range(0..10)) {
            (Some(blob), 0..3) => Wish::delete(blob),
            (Some(blob), 3..5) if !live.is_empty() => Wish::restore(blob, live[rng.random_range(0..live.len())].id()),
            (blob, _) => Wish::put(blob, seed, size),
        };
        wish.write.condition = condition(record, rng);
        if rng.random_ratio(1, 4) {
            wish = wish.copies(rng.random_range(2..5), Duration::from_millis(rng.random_range(100..8000)));
        }
        wish
    }
}

fn condition(record: &Record, rng: &mut ChaCha8Rng) -> Condition {
    let winner = record.winner().and_then(|winner| winner.content.payload()).map(|payload| payload.hash.tag());
    let tags = |tag: Option<[u8; 16]>| Some(tag.map_or(Tags::Any, |tag| Tags::Of(vec![tag])));
    match rng.random_range(0..10) {
        0 => Condition { if_match: tags(winner), if_none_match: None },
        1 => Condition { if_match: None, if_none_match: Some(Tags::Any) },
        2 => Condition { if_match: Some(Tags::Of(vec![[7; 16]])), if_none_match: None },
        _ => Condition::default(),
    }
}
